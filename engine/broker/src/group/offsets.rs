//! Committed positions of all groups: what was admitted, and what of it may be seen.
//!
//! Owned by: `shard`. Called by: `shard` (admission), `open` (rebuild), `group` (describe, lag), `broker`
//! (for pipelines).
//! A position is admitted when its entry was handed to the WAL, and visible when that entry is
//! durable. Visibility follows the high watermark of `_offsets` and not the task that waits for
//! the commit: a caller that goes away changes nothing, and a failed sync, which never moves a
//! high watermark, leaves exactly the positions that were durable before it.
//! Invariants: `expected` is compared with the admitted position, so of two commits in flight
//! over the same input the second is refused although the first is not durable yet; `moving` is
//! ordered by offset in `_offsets`; what is visible was admitted.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use model::{Offset, PartitionId, TopicId};

use super::record::{Record, Saved};

#[derive(Default)]
struct Held {
    admitted: Option<Saved>,
    visible: Option<Saved>,
}

struct Moving {
    /// Where in `_offsets` the record stands.
    at: Offset,
    group: Arc<str>,
    partition: PartitionId,
    saved: Option<Saved>,
}

/// The positions of all groups of a shard.
#[derive(Default)]
pub(crate) struct Positions {
    groups: BTreeMap<Arc<str>, BTreeMap<PartitionId, Held>>,
    moving: VecDeque<Moving>,
}

impl Positions {
    /// What the next commit of this group and partition is compared with.
    pub(crate) fn admitted(&self, group: &str, partition: PartitionId) -> Option<Offset> {
        Some(
            self.groups
                .get(group)?
                .get(&partition)?
                .admitted
                .as_ref()?
                .offset,
        )
    }

    /// The durable position, once [`settle`](Self::settle) was called with the high watermark.
    pub(crate) fn visible(&self, group: &str, partition: PartitionId) -> Option<&Saved> {
        self.groups.get(group)?.get(&partition)?.visible.as_ref()
    }

    /// All durable positions of a group in partition order.
    pub(crate) fn visible_of(&self, group: &str) -> Vec<(PartitionId, Saved)> {
        let held = self.groups.get(group).into_iter().flatten();
        held.filter_map(|(id, held)| Some((*id, held.visible.clone()?)))
            .collect()
    }

    /// Names of the groups that hold a durable position.
    pub(crate) fn groups(&self) -> Vec<String> {
        let held = self.groups.iter();
        held.filter(|(_, held)| held.values().any(|held| held.visible.is_some()))
            .map(|(group, _)| group.to_string())
            .collect()
    }

    /// Where groups whose names begin so have a position, durable or on its way, also one that is about
    /// to be forgotten.
    pub(crate) fn held(&self, prefix: &str) -> Vec<(String, PartitionId)> {
        let from = (Bound::Included(prefix), Bound::Unbounded);
        let groups = self.groups.range::<str, _>(from);
        let ours = groups.take_while(|(group, _)| group.starts_with(prefix));
        let all = ours.flat_map(|(group, held)| held.keys().map(|at| (group.to_string(), *at)));
        all.collect()
    }

    /// Takes records that stand in `_offsets` from `base` on, one offset each.
    pub(crate) fn admit(&mut self, base: Offset, records: Vec<Record>) {
        for (at, record) in (base..).zip(records) {
            let group = match self.groups.get_key_value(record.group.as_str()) {
                Some((group, _)) => group.clone(),
                None => Arc::from(record.group),
            };
            let held = self.groups.entry(group.clone()).or_default();
            held.entry(record.partition).or_default().admitted = record.saved.clone();
            debug_assert!(
                self.moving.back().is_none_or(|last| last.at < at),
                "in offset order"
            );
            let partition = record.partition;
            self.moving.push_back(Moving {
                at,
                group,
                partition,
                saved: record.saved,
            });
        }
    }

    /// Takes records that are durable already, when the broker opens.
    pub(crate) fn restore(&mut self, records: Vec<Record>) {
        for Record {
            group,
            partition,
            saved,
        } in records
        {
            if saved.is_some() {
                let group = self.groups.entry(Arc::from(group)).or_default();
                group.insert(
                    partition,
                    Held {
                        admitted: saved.clone(),
                        visible: saved,
                    },
                );
            } else if let Some(held) = self.groups.get_mut(group.as_str()) {
                held.remove(&partition);
                if held.is_empty() {
                    self.groups.remove(group.as_str());
                }
            }
        }
    }

    /// Shows every position whose record lies below the high watermark of `_offsets`.
    pub(crate) fn settle(&mut self, high_watermark: Offset) {
        while self
            .moving
            .front()
            .is_some_and(|front| front.at < high_watermark)
        {
            let Some(moved) = self.moving.pop_front() else {
                return;
            };
            let group = self.groups.entry(moved.group.clone()).or_default();
            let held = group.entry(moved.partition).or_default();
            held.visible = moved.saved;
            // A later record that is still on its way puts it back.
            if held.visible.is_none() && held.admitted.is_none() {
                group.remove(&moved.partition);
                if group.is_empty() {
                    self.groups.remove(&moved.group);
                }
            }
        }
    }

    /// Where the last record of a group stands that is not durable yet.
    pub(crate) fn last_moving(&self, group: &str) -> Option<Offset> {
        let mut moving = self.moving.iter().rev();
        Some(moving.find(|moved| &*moved.group == group)?.at)
    }

    /// Takes back what was admitted at or after `end` of `_offsets` and then not written.
    pub(crate) fn truncate(&mut self, end: Offset) {
        let keep = self.moving.partition_point(|moved| moved.at < end);
        let lost = self.moving.split_off(keep);
        if lost.is_empty() {
            return;
        }
        for held in self.groups.values_mut().flat_map(BTreeMap::values_mut) {
            held.admitted = held.visible.clone();
        }
        // What is still on its way is newer than what is visible.
        for moved in &self.moving {
            let group = self.groups.entry(moved.group.clone()).or_default();
            group.entry(moved.partition).or_default().admitted = moved.saved.clone();
        }
        for held in self.groups.values_mut() {
            held.retain(|_, held| held.admitted.is_some() || held.visible.is_some());
        }
        self.groups.retain(|_, held| !held.is_empty());
    }

    /// Forgets a topic that was deleted; answers what `_offsets` still says of it, as gone.
    pub(crate) fn forget_topic(&mut self, topic: TopicId) -> Vec<Record> {
        self.moving.retain(|moved| moved.partition.topic != topic);
        let mut gone = Vec::new();
        for (group, held) in &mut self.groups {
            let ours = held.extract_if(.., |partition, _| partition.topic == topic);
            gone.extend(ours.map(|(partition, _)| Record {
                group: group.to_string(),
                partition,
                saved: None,
            }));
        }
        self.groups.retain(|_, held| !held.is_empty());
        gone
    }

    /// How many positions are live.
    pub(crate) fn len(&self) -> usize {
        self.groups.values().map(BTreeMap::len).sum()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn groups_are_found_by_how_their_names_begin_even_before_they_are_durable() {
        let mut positions = Positions::default();
        let at = PartitionId::new(TopicId(7), 0);
        let record = |group: &str, offset: Option<Offset>| Record {
            group: group.to_string(),
            partition: at,
            saved: offset.map(|offset| Saved {
                offset,
                metadata: String::new(),
            }),
        };
        let groups = ["_p.a", "_p.a-b.x", "_p.a.x", "_p.a.y", "_p.b.x"];
        let records = groups.map(|group| record(group, Some(1)));
        positions.admit(0, records.to_vec());
        let found = |positions: &Positions| -> Vec<String> {
            let held = positions.held("_p.a.").into_iter();
            held.map(|(group, _)| group).collect()
        };
        assert_eq!(found(&positions), ["_p.a.x", "_p.a.y"]);
        positions.settle(5);
        positions.admit(5, vec![record("_p.a.x", None)]);
        assert_eq!(found(&positions), ["_p.a.x", "_p.a.y"]);
        positions.settle(6);
        assert_eq!(found(&positions), ["_p.a.y"]);
    }

    #[derive(Clone, Debug)]
    enum Step {
        /// A commit of a group in a partition: an offset, or forgetting it.
        Admit(u8, u32, Option<Offset>),
        /// So much more of the log became durable.
        Durable(usize),
        /// The disk had no room for this many of the newest records that are not durable.
        Refused(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        let offset = prop::option::weighted(0.8, 0u64..100);
        prop_oneof![
            4 => (0u8..2, 0u32..3, offset).prop_map(|(g, p, at)| Step::Admit(g, p, at)),
            2 => (0usize..4).prop_map(Step::Durable),
            1 => (0usize..4).prop_map(Step::Refused),
        ]
    }

    /// The newest record of a group and partition in the first `until` of a log.
    fn newest(log: &[Record], until: usize, group: &str, partition: PartitionId) -> Option<Saved> {
        let same = |record: &&Record| record.group == group && record.partition == partition;
        log[..until].iter().rev().find(same)?.saved.clone()
    }

    proptest! {
        /// Positions are what a replay of the log says: of all of it for what is admitted, of its
        /// durable part for what is visible.
        #[test]
        fn positions_are_a_replay_of_the_log(steps in prop::collection::vec(step(), 1..60)) {
            let mut positions = Positions::default();
            let mut log: Vec<Record> = Vec::new();
            let mut durable = 0;
            for step in steps {
                match step {
                    Step::Admit(group, index, offset) => {
                        let record = Record {
                            group: format!("g{group}"),
                            partition: PartitionId::new(TopicId(1), index),
                            saved: offset.map(|offset| Saved { offset, metadata: String::new() }),
                        };
                        positions.admit(log.len() as Offset, vec![record.clone()]);
                        log.push(record);
                    }
                    Step::Durable(count) => {
                        durable = (durable + count).min(log.len());
                        positions.settle(durable as Offset);
                    }
                    Step::Refused(count) => {
                        log.truncate((log.len() - count.min(log.len())).max(durable));
                        positions.truncate(log.len() as Offset);
                    }
                }
                for (group, index) in [("g0", 0), ("g0", 1), ("g0", 2), ("g1", 0), ("g1", 1)] {
                    let id = PartitionId::new(TopicId(1), index);
                    let admitted = newest(&log, log.len(), group, id).map(|saved| saved.offset);
                    prop_assert_eq!(positions.admitted(group, id), admitted);
                    let visible = newest(&log, durable, group, id);
                    prop_assert_eq!(positions.visible(group, id), visible.as_ref());
                }
            }
        }
    }
}
