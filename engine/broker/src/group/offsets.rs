//! Committed positions of all groups: what was admitted, and what of it may be seen.
//!
//! Owned by: `shard`. Called by: `shard` (admission), `open` (rebuild), `group` (describe, lag).
//! A position is admitted when its entry was handed to the WAL, and visible when that entry is
//! durable. Visibility follows the high watermark of `_offsets` and not the task that waits for
//! the commit: a caller that goes away changes nothing, and a failed sync, which never moves a
//! high watermark, leaves exactly the positions that were durable before it.
//! Invariants: `expected` is compared with the admitted position, so of two commits in flight
//! over the same input the second is refused although the first is not durable yet; `moving` is
//! ordered by offset in `_offsets`; what is visible was admitted.

use std::collections::{BTreeMap, VecDeque};
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
            let Some(group) = self.groups.get_mut(&moved.group) else {
                continue;
            };
            if let Some(held) = group.get_mut(&moved.partition) {
                held.visible = moved.saved;
                if held.visible.is_none() && held.admitted.is_none() {
                    group.remove(&moved.partition);
                }
            }
            if group.is_empty() {
                self.groups.remove(&moved.group);
            }
        }
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
            let held = self
                .groups
                .get_mut(&moved.group)
                .and_then(|g| g.get_mut(&moved.partition));
            if let Some(held) = held {
                held.admitted = moved.saved.clone();
            }
        }
        for held in self.groups.values_mut() {
            held.retain(|_, held| held.admitted.is_some() || held.visible.is_some());
        }
        self.groups.retain(|_, held| !held.is_empty());
    }

    /// Forgets a topic that was deleted; its records die at the next compaction.
    pub(crate) fn forget_topic(&mut self, topic: TopicId) {
        for held in self.groups.values_mut() {
            held.retain(|partition, _| partition.topic != topic);
        }
        self.groups.retain(|_, held| !held.is_empty());
    }

    /// How many positions are live.
    pub(crate) fn len(&self) -> usize {
        self.groups.values().map(BTreeMap::len).sum()
    }

    /// The newest admitted state, for rewriting `_offsets` at its head.
    pub(crate) fn latest(&self) -> Vec<Record> {
        let all = self.groups.iter().flat_map(|(group, held)| {
            held.iter()
                .map(move |(partition, held)| (group, *partition, &held.admitted))
        });
        all.filter(|(_, _, admitted)| admitted.is_some())
            .map(|(group, partition, admitted)| Record {
                group: group.to_string(),
                partition,
                saved: admitted.clone(),
            })
            .collect()
    }
}
