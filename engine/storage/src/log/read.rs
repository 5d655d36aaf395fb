//! Reading: from memory, from the WAL, from the tier, in that order of preference.
//!
//! Called by: `broker` (fetch), `sql` (snapshot). Invariants: batches come in offset order
//! without gap or double and never reach past the high watermark; a batch from disk passed its
//! checksum. Refuses: offsets outside of what is kept.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use model::{Batch, LogError, Lookup, Offset, PartitionId};
use parquet::file::metadata::ParquetMetaData;

use super::Store;
use super::partition::{Partition, Place, Slot};
use crate::snapshot::Snapshot;
use crate::tier::columns;
use crate::tier::manifest::ColdObject;
use crate::wal::reader::read_batch;

/// What a search by time reads at once.
const LOOKUP_BYTES: usize = 4 << 20;

impl Store {
    /// Whole batches from `from` on: about `bytes_max` of them, at least one if there are any.
    /// The first may begin before `from`. Empty at the high watermark.
    pub async fn read(
        &self,
        p: PartitionId,
        from: Offset,
        bytes_max: usize,
    ) -> Result<Vec<Batch>, LogError> {
        let partition = self.partition(p)?;
        match partition.place(from, bytes_max)? {
            Place::End => Ok(Vec::new()),
            Place::Memory(batches) => Ok(batches),
            Place::Wal(slots) => load(&partition, slots).await,
            Place::Cold(manifest) => {
                let read = self.inner.tier.read(&manifest, from, bytes_max).await;
                read.map_err(|error| error.into_read(p))
            }
        }
    }

    /// The offset of a place: the first kept, the high watermark, or the first record whose
    /// timestamp is not before the one given (the high watermark if there is none).
    pub async fn lookup(&self, p: PartitionId, at: Lookup) -> Result<Offset, LogError> {
        let partition = self.partition(p)?;
        let bounds = partition.bounds();
        let timestamp = match at {
            Lookup::Earliest => return Ok(bounds.start),
            Lookup::Latest => return Ok(bounds.end),
            Lookup::Timestamp(timestamp) => timestamp,
        };
        let (cold, hot) = partition.not_before(timestamp);
        let found = self.inner.tier.lookup(&cold, bounds.start, timestamp).await;
        if let Some(found) = found.map_err(|error| error.into_read(p))? {
            return Ok(found);
        }
        let Some(from) = hot else {
            return Ok(bounds.end);
        };
        let from = from.max(bounds.start);
        Ok(self
            .search(p, from, bounds.end, timestamp)
            .await?
            .unwrap_or(bounds.end))
    }

    /// The first record of the log's `from..to` that is not before `timestamp`.
    async fn search(
        &self,
        p: PartitionId,
        mut from: Offset,
        to: Offset,
        timestamp: i64,
    ) -> Result<Option<Offset>, LogError> {
        while from < to {
            let batches = self.read(p, from, LOOKUP_BYTES).await?;
            let Some(last) = batches.last() else {
                return Ok(None);
            };
            let next = last.next_offset();
            for batch in batches
                .iter()
                .filter(|batch| batch.max_timestamp() >= timestamp)
            {
                let damaged = |error: model::BatchError| LogError::Corrupt {
                    partition: p,
                    detail: format!("offset {}: {error}", batch.base_offset()),
                };
                let rows = batch.rows().map_err(damaged)?;
                let offsets = batch.offsets().map_err(damaged)?;
                let found = offsets
                    .iter()
                    .zip(rows.timestamps.iter())
                    .find(|(offset, at)| **offset >= from && **at >= timestamp);
                if let Some((offset, _)) = found {
                    return Ok(Some(*offset));
                }
            }
            from = next;
        }
        Ok(None)
    }

    /// One moment of a partition for SQL. Holds all its hot batches in memory.
    pub async fn snapshot(&self, p: PartitionId) -> Result<Snapshot, LogError> {
        let partition = self.partition(p)?;
        let view = partition.view();
        let hot = load(&partition, view.index).await?;
        let cold = view
            .cold
            .objects
            .iter()
            .filter(|object| object.next > view.start);
        Ok(Snapshot {
            partition: p,
            topic: partition.config().topic.clone(),
            start: view.start,
            end: view.end,
            manifest_version: view.cold.number,
            cold: cold.cloned().collect(),
            cold_end: view.cold.end,
            hot,
            schema: columns::schema(&partition.config()),
        })
    }

    /// The footer of an object in a snapshot of `p`, with page indexes, checked.
    pub async fn cold_footer(
        &self,
        p: PartitionId,
        object: &ColdObject,
    ) -> Result<Arc<ParquetMetaData>, LogError> {
        let footer = self.inner.tier.footer(p, object).await;
        let footer = footer.map_err(|error| error.into_read(p))?;
        Ok(Arc::clone(footer.metadata.metadata()))
    }

    /// Ranges of an object in a snapshot of `p`, out of columns that passed their checksums.
    pub async fn cold_ranges(
        &self,
        p: PartitionId,
        object: &ColdObject,
        ranges: &[Range<u64>],
    ) -> Result<Vec<Bytes>, LogError> {
        let bytes = self.inner.tier.fetch_ranges(p, object, ranges).await;
        bytes.map_err(|error| error.into_read(p))
    }
}

/// The batches at these places, from memory where they still are there.
pub(super) async fn load(
    partition: &Arc<Partition>,
    slots: Vec<Slot>,
) -> Result<Vec<Batch>, LogError> {
    if slots.is_empty() {
        return Ok(Vec::new());
    }
    let partition = Arc::clone(partition);
    let read = move || {
        let load = |slot: &Slot| match partition.in_memory(slot) {
            Some(batch) => Ok(batch),
            None => {
                let stamp = (slot.base, slot.append_time_us);
                read_batch(partition.id(), stamp, &slot.location)
            }
        };
        slots.iter().map(load).collect()
    };
    match tokio::task::spawn_blocking(read).await {
        Ok(batches) => batches,
        Err(_) => Err(LogError::Unavailable("the read was broken off".to_owned())),
    }
}
