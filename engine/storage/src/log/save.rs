//! Saves a checkpoint of the WAL, so that the next opening reads only what came after it.
//!
//! Called by: `tiering` (every now and then), `Store::close`.
//! Invariants: the place that a checkpoint tells of is taken before the partitions are looked
//! at, so what it says of them may be newer and the entries behind the place say it again; all
//! it says is durable before it is. Refuses: while the disk is full, and what would be larger
//! than `SAVED_BYTES_MAX`; what fails costs the next opening time.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use model::LogError;

use super::Store;
use super::partition::Partition;
use super::queue::{Pending, Work};
use crate::planted::{Bug, carried, planted};
use crate::wal::recovery::{Found, FoundBatch};
use crate::wal::saved::Saved;
use crate::wal::writer::Place;

#[cfg(test)]
mod tests;

/// So many segments are written between two checkpoints at least,
const SEGMENTS_BETWEEN: u64 = 4;
/// and so many times the bytes of a checkpoint.
const TIMES_ITS_BYTES: u64 = 8;

/// How far the WAL's writer has come: what stands before is known to the partitions.
pub(crate) struct Reached {
    pub place: Place,
    /// Next sequence of each shard.
    pub sequences: BTreeMap<u32, u64>,
}

/// The checkpoint that there is.
#[derive(Clone, Copy, Default)]
pub(crate) struct LastSaved {
    /// Position in the WAL.
    pub to: u64,
    pub bytes: u64,
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Store {
    /// Saves a checkpoint if enough came since the last one.
    pub(super) async fn save_if_due(&self) {
        let last = *locked(&self.inner.saved);
        let between = SEGMENTS_BETWEEN.saturating_mul(self.inner.config.segment_bytes);
        let between = between.max(last.bytes.saturating_mul(TIMES_ITS_BYTES));
        if self.unsaved_bytes() >= between {
            self.save_or_warn().await;
        }
    }

    /// Saves a checkpoint if anything came since the last one.
    pub(super) async fn save_at_close(&self) {
        if self.unsaved_bytes() > 0 {
            self.save_or_warn().await;
        }
    }

    /// Bytes of the WAL that the next opening would read.
    fn unsaved_bytes(&self) -> u64 {
        let reached = locked(&self.inner.reached).place.position();
        reached.saturating_sub(locked(&self.inner.saved).to)
    }

    async fn save_or_warn(&self) {
        match self.save().await {
            Ok(()) => {}
            Err(LogError::DiskFull | LogError::Closed) => {}
            Err(error) => tracing::warn!(%error, "no checkpoint: the next start takes longer"),
        }
    }

    /// Saves a checkpoint of what is installed now.
    pub(super) async fn save(&self) -> Result<(), LogError> {
        let inner = &self.inner;
        let _one = inner.saving.lock().await;
        if inner.counters.full_ms().is_some() {
            return Err(LogError::DiskFull);
        }
        let saved = self.known();
        let to = saved.place.position();
        self.sync().await?;
        let disk = Arc::clone(&inner.disk);
        let dir = inner.config.dir.join("wal");
        let write = carried(move || saved.write(&*disk, &dir));
        let written = match tokio::task::spawn_blocking(write).await {
            Ok(written) => written,
            Err(_) => return Err(LogError::Unavailable("it was broken off".to_owned())),
        };
        let bytes = written.map_err(|error| LogError::Unavailable(error.to_string()))?;
        // One that is too large is not tried again at once.
        let last = *locked(&inner.saved);
        let bytes = bytes.map_or(last.bytes, |bytes| bytes as u64);
        *locked(&inner.saved) = LastSaved { to, bytes };
        Ok(())
    }

    /// Resolves when all that is written is durable.
    pub(super) async fn sync(&self) -> Result<(), LogError> {
        let (reply, pending) = Pending::new();
        self.inner.queue.put(Work::Sync { reply })?;
        pending.await
    }

    fn known(&self) -> Saved {
        let (place, sequences) = {
            let reached = locked(&self.inner.reached);
            (reached.place.clone(), reached.sequences.clone())
        };
        let last = place.segment.head.id;
        let mut segments: Vec<_> = self
            .inner
            .segments
            .with(|segments| segments.iter().cloned().collect());
        segments.retain(|segment| segment.head.id <= last);
        let partitions = self.inner.partitions.all().into_iter();
        let partitions = partitions.map(|(id, partition)| (id, found(&partition, &place)));
        Saved {
            segments,
            partitions: partitions.collect(),
            sequences,
            place,
        }
    }
}

/// What is known of a partition, its batches as far as they stand before `place`.
fn found(partition: &Partition, place: &Place) -> Found {
    let view = partition.view();
    let slots = view.index.into_iter();
    let skipped = usize::from(planted(Bug::SavedBatchForgotten));
    let slots = slots.skip(skipped);
    let slots = slots.filter(|slot| Saved::has(place, &slot.location));
    let batches = slots.map(|slot| {
        let batch = FoundBatch {
            next: slot.next,
            records: slot.records,
            max_timestamp: slot.max_timestamp,
            append_time_us: slot.append_time_us,
            producer: None,
            is_numbered: slot.is_numbered,
            epoch: slot.epoch,
            location: slot.location,
        };
        (slot.base, batch)
    });
    let batches = batches.collect();
    let (producers, is_partial) = partition.marks();
    let producers = producers.into_iter().map(|mark| (mark.base_offset, mark));
    Found {
        start: view.start,
        end: view.end,
        batches,
        producers: producers.collect(),
        is_partial,
        compacted: partition.compacted(),
    }
}
