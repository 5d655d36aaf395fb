//! What is written again of a partition: batches at the WAL's head, and what only old entries say.
//!
//! Called by: `commit` (a batch was written again), `compaction` (what may be), `reclaim` (what a
//! checkpoint must say). Invariants: a batch written again takes the place of all it stands for,
//! at once; readers never go back to what stood there. Refuses: nothing; what was trimmed
//! meanwhile stays trimmed.

use std::time::Duration;

use model::compaction::Compacted;
use model::{Batch, Offset, Producer};

use super::{Partition, Slot, up_to};
use crate::tier::manifest::{ProducerMark, last_marks};
use crate::wal::{Control, Location};

/// What compaction finds.
pub(crate) struct Dirt {
    /// Where it may go to.
    pub until: Offset,
    pub dirty_bytes: u64,
    pub clean_bytes: u64,
    /// Append time of the oldest dirty batch.
    pub oldest_us: i64,
}

impl Partition {
    /// A batch was written again at the WAL's head: from now on what it stands for is read from
    /// there.
    pub(crate) fn install_moved(&self, batch: &Batch, location: Location) {
        let (base, next) = (batch.base_offset(), batch.next_offset());
        let mut state = self.lock();
        let from = state.index.partition_point(|slot| slot.base < base);
        let to = state.index.partition_point(|slot| slot.next <= next);
        if from >= to {
            return; // Trimmed meanwhile.
        }
        location.segment.live_add(location.size);
        state.index_bytes += u64::from(location.size);
        let slot = Slot {
            base,
            next,
            records: batch.len(),
            is_numbered: batch.producer().is_some(),
            epoch: batch.epoch(),
            max_timestamp: batch.max_timestamp(),
            append_time_us: batch.append_time(),
            location,
        };
        let is_same = to - from == 1 && state.index[from].records == slot.records;
        if !is_same {
            state.rewritten_to = state.rewritten_to.max(next);
        }
        let old = std::mem::replace(&mut state.index[from], slot);
        let rest = state.index.drain(from + 1..to).collect::<Vec<Slot>>();
        for old in rest.iter().chain([&old]) {
            state.index_bytes -= u64::from(old.location.size);
            old.location.segment.live_remove(old.location.size);
        }
    }

    pub(crate) fn compacted(&self) -> Compacted {
        self.lock().compacted.clone()
    }

    pub(crate) fn set_compacted(&self, compacted: Compacted) {
        self.lock().compacted = compacted;
    }

    /// The last batches of each producer, and whether some producers may be forgotten.
    pub(crate) fn marks(&self) -> (Vec<ProducerMark>, bool) {
        let state = self.lock();
        (marks(&state.producers), state.producers.has_forgotten())
    }

    /// What batches in the WAL do not say and a checkpoint does: batches of producers that were
    /// trimmed or became part of others and are not in a manifest, and what compaction remembers.
    pub(crate) fn apart(&self) -> Vec<Control> {
        let state = self.lock();
        let partition = self.id();
        let says = |mark: &ProducerMark| {
            let at = state
                .index
                .partition_point(|slot| slot.base < mark.base_offset);
            let slot = state.index.get(at);
            slot.is_some_and(|slot| slot.base == mark.base_offset && slot.is_numbered)
        };
        let mut batches = marks(&state.producers);
        batches.retain(|mark| mark.base_offset >= state.cold.end && !says(mark));
        let mut controls = Vec::new();
        if !batches.is_empty() {
            let batches = last_marks(batches);
            controls.push(Control::Producers { partition, batches });
        }
        if state.compacted != Compacted::default() {
            let compacted = state.compacted.clone();
            controls.push(Control::Compacted {
                partition,
                compacted,
            });
        }
        controls
    }

    /// Notes how a run of compaction ended, as `tiered` does of the tier.
    pub(crate) fn compaction_ended(
        &self,
        failure: Option<String>,
        pause: impl FnOnce(u32) -> Duration,
    ) {
        self.lock().compaction_failures.note(failure, pause);
    }

    /// Whether compaction failed so lately that it is not yet tried again.
    pub(crate) fn is_compaction_parked(&self) -> bool {
        self.lock().compaction_failures.is_parked()
    }

    /// What compaction may look at: objects, and untiered batches that do not go to the tier, but
    /// for the newest one; nothing from the first one on that is younger than `lag_min`.
    pub(crate) fn dirt(&self, now_us: i64, lag_min: Duration) -> Dirt {
        let is_tiered = self.config().tier;
        let state = self.lock();
        let lag_us = i64::try_from(lag_min.as_micros()).unwrap_or(i64::MAX);
        let newest_us = now_us.saturating_sub(lag_us);
        let clean_to = state.compacted.end();
        let cold = state.cold.objects.iter();
        let cold = cold
            .filter(|object| object.next > state.start)
            .map(|object| {
                let dirty = object.dirty_bytes(clean_to);
                let clean = object.row_bytes.saturating_sub(dirty);
                (object.next, object.append_time, dirty, clean)
            });
        let hot = match is_tiered {
            true => 0,
            false => state.index.len().saturating_sub(1),
        };
        let hot = state.index.range(..hot).map(|slot| {
            let bytes = u64::from(slot.location.size);
            let (dirty, clean) = match slot.next <= clean_to {
                true => (0, bytes),
                false => (bytes, 0),
            };
            (slot.next, slot.append_time_us, dirty, clean)
        });
        let mut dirt = Dirt {
            until: 0,
            dirty_bytes: 0,
            clean_bytes: 0,
            oldest_us: i64::MAX,
        };
        let old = cold.chain(hot).take_while(|(_, at, _, _)| *at <= newest_us);
        for (next, append_time_us, dirty, clean) in old {
            dirt.until = next;
            dirt.dirty_bytes += dirty;
            dirt.clean_bytes += clean;
            if dirty > 0 {
                dirt.oldest_us = dirt.oldest_us.min(append_time_us);
            }
        }
        dirt
    }

    /// Untiered batches from `from` up to `to`, at most about `bytes_max` of them.
    pub(crate) fn slots(&self, from: Offset, to: Offset, bytes_max: usize) -> Vec<Slot> {
        let state = self.lock();
        let at = state.index.partition_point(|slot| slot.next <= from);
        let slots = state.index.range(at..).take_while(|slot| slot.next <= to);
        let slots = up_to(slots, bytes_max, |slot| slot.location.size as usize);
        slots.cloned().collect()
    }
}

fn marks(producers: &model::ProducerTable) -> Vec<ProducerMark> {
    let mark = |(producer, records, base_offset): (Producer, u32, Offset)| ProducerMark {
        id: producer.id,
        epoch: producer.epoch,
        sequence: producer.sequence,
        base_offset,
        records,
    };
    producers.batches().into_iter().map(mark).collect()
}
