//! Retention: takes the oldest records away once they are too old or too many.
//!
//! Called by: `Store::tick`. Age counts from the append time, never from what a producer wrote;
//! the tier counts too. Invariants: whole batches (in the tier whole objects) go, oldest first;
//! at least `retention_bytes` stay, if there are as many; nothing goes before its time.
//! Refuses: nothing; a partition without a limit keeps everything.

use model::{LogError, Offset};

use super::Store;
use super::partition::Partition;
use super::queue::Pending;

/// A run of records that can only go as a whole.
struct Unit {
    next: Offset,
    append_time_us: i64,
    bytes: u64,
}

impl Partition {
    /// The first offset that retention keeps.
    fn keeps_from(&self, now_us: i64) -> Offset {
        let view = self.view();
        let config = self.config();
        let (ms, bytes_max) = (config.retention_ms, config.retention_bytes);
        if ms.is_none() && bytes_max.is_none() {
            return view.start;
        }
        let cold = view.cold.objects.iter().map(|object| Unit {
            next: object.next,
            append_time_us: object.append_time,
            bytes: object.bytes(),
        });
        let hot = view.index.iter().map(|slot| Unit {
            next: slot.next,
            append_time_us: slot.append_time_us,
            bytes: u64::from(slot.location.size),
        });
        let units: Vec<Unit> = cold
            .chain(hot)
            .filter(|unit| unit.next > view.start)
            .collect();
        let oldest_us = ms.map(|ms| {
            let us = i64::try_from(ms.saturating_mul(1_000)).unwrap_or(i64::MAX);
            now_us.saturating_sub(us)
        });
        let mut bytes: u64 = units.iter().map(|unit| unit.bytes).sum();
        let mut from = view.start;
        for unit in units {
            let is_old = oldest_us.is_some_and(|oldest| unit.append_time_us < oldest);
            let is_much = bytes_max.is_some_and(|max| bytes - unit.bytes >= max);
            if !is_old && !is_much {
                break;
            }
            bytes -= unit.bytes;
            from = unit.next;
        }
        from
    }
}

impl Store {
    /// Trims what retention no longer keeps; resolves when that is durable.
    pub(super) async fn retain(&self, now_us: i64) -> Result<(), LogError> {
        let mut waiting = Vec::new();
        for (id, partition) in self.inner.partitions.all() {
            let from = partition.keeps_from(now_us);
            if from > partition.bounds().start {
                let (reply, pending) = Pending::new();
                match self.trim_with(id, from, Some(reply)) {
                    Ok(()) => waiting.push(pending),
                    // Dropped meanwhile.
                    Err(LogError::NotFound { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        for pending in waiting {
            pending.await?;
        }
        Ok(())
    }
}
