//! Parquet objects back as batches.
//!
//! Called by: `Tier::read`. An object is fetched whole, checked against the checksum in the
//! manifest, and kept in a small byte-bounded cache; a reader that goes on where it stopped
//! finds its decoder where it left it.
//! Invariants: batches have the offsets the records had; memory is bounded by the objects.
//! Refuses: objects whose bytes are not those the manifest tells of.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use model::{Batch, Codec, Offset, Rows, ShardEpoch};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader,
    ParquetRecordBatchReaderBuilder,
};
use parquet::file::metadata::PageIndexPolicy;

use super::columns::{self, BASE};
use super::manifest::ColdObject;

/// Bytes of rows that become one batch.
const BATCH_BYTES: u64 = 1 << 20;
const BATCH_ROWS_MAX: u64 = 8 * 1024;
/// Decoders kept for readers that go on.
const CURSORS_MAX: usize = 32;

/// A fetched object.
pub(crate) struct Loaded {
    path: String,
    bytes: Bytes,
    metadata: ArrowReaderMetadata,
}

impl Loaded {
    /// Checks the bytes of `object` and reads their footer.
    pub(crate) fn new(object: &ColdObject, bytes: Bytes) -> Result<Loaded, String> {
        if bytes.len() as u64 != object.size {
            return Err(format!("it has {} bytes, not {}", bytes.len(), object.size));
        }
        let crc = crc32c::crc32c(&bytes);
        if crc != object.crc32c {
            return Err(format!(
                "its checksum is {crc:08x}, not {:08x}",
                object.crc32c
            ));
        }
        let options = ArrowReaderOptions::new().with_offset_index_policy(PageIndexPolicy::Optional);
        let metadata = ArrowReaderMetadata::load(&bytes, options).map_err(|e| e.to_string())?;
        Ok(Loaded {
            path: object.path.clone(),
            bytes,
            metadata,
        })
    }
}

/// A decoder and the offset it goes on at.
pub(crate) struct Cursor {
    path: String,
    at: Offset,
    reader: ParquetRecordBatchReader,
}

/// Objects and decoders kept for the next read.
pub(crate) struct ReadCache {
    bytes_max: usize,
    state: Mutex<CacheState>,
}

#[derive(Default)]
struct CacheState {
    /// Least recently used first.
    objects: VecDeque<Arc<Loaded>>,
    bytes: usize,
    cursors: VecDeque<Cursor>,
}

impl ReadCache {
    pub(crate) fn new(bytes_max: usize) -> ReadCache {
        ReadCache {
            bytes_max,
            state: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, CacheState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn object(&self, path: &str) -> Option<Arc<Loaded>> {
        let mut state = self.lock();
        let at = state
            .objects
            .iter()
            .position(|loaded| loaded.path == path)?;
        let loaded = state.objects.remove(at)?;
        state.objects.push_back(Arc::clone(&loaded));
        Some(loaded)
    }

    pub(crate) fn put_object(&self, loaded: &Arc<Loaded>) {
        let mut state = self.lock();
        if state.objects.iter().any(|other| other.path == loaded.path) {
            return;
        }
        state.bytes += loaded.bytes.len();
        state.objects.push_back(Arc::clone(loaded));
        while state.bytes > self.bytes_max {
            let Some(oldest) = state.objects.pop_front() else {
                break;
            };
            state.bytes -= oldest.bytes.len();
        }
    }

    pub(crate) fn cursor(&self, path: &str, at: Offset) -> Option<Cursor> {
        let mut state = self.lock();
        let found = state
            .cursors
            .iter()
            .position(|c| c.at == at && c.path == path)?;
        state.cursors.remove(found)
    }

    pub(crate) fn put_cursor(&self, cursor: Cursor) {
        let mut state = self.lock();
        if state.cursors.len() >= CURSORS_MAX {
            state.cursors.pop_front();
        }
        state.cursors.push_back(cursor);
    }
}

impl Cursor {
    /// A decoder that begins at `from`, or at the object's first record.
    pub(crate) fn open(
        loaded: &Loaded,
        object: &ColdObject,
        from: Offset,
    ) -> Result<Cursor, String> {
        let row_bytes = (object.row_bytes / object.rows.max(1)).max(1);
        let batch_rows = (BATCH_BYTES / row_bytes).clamp(1, BATCH_ROWS_MAX) as usize;
        let is_dense = object.rows == object.next - object.base;
        let schema = loaded.metadata.parquet_schema();
        // Without holes the offset is the row's number, so the column need not be read.
        let wanted = if is_dense { &BASE[1..] } else { &BASE[..] };
        let roots = schema.root_schema().get_fields().iter().enumerate();
        let roots = roots.filter(|(_, field)| wanted.contains(&field.name()));
        let mask = ProjectionMask::roots(schema, roots.map(|(index, _)| index));
        let skip = if is_dense {
            from.saturating_sub(object.base)
        } else {
            0
        };
        let metadata = loaded.metadata.clone();
        let reader =
            ParquetRecordBatchReaderBuilder::new_with_metadata(loaded.bytes.clone(), metadata)
                .with_projection(mask)
                .with_batch_size(batch_rows)
                .with_offset(skip as usize)
                .build()
                .map_err(|error| error.to_string())?;
        Ok(Cursor {
            path: object.path.clone(),
            at: object.base + skip,
            reader,
        })
    }

    pub(crate) fn at(&self) -> Offset {
        self.at
    }

    /// The next batches, none at the object's end.
    pub(crate) fn next(
        &mut self,
        object: &ColdObject,
        epoch: ShardEpoch,
    ) -> Result<Vec<Batch>, String> {
        let Some(batch) = self.reader.next() else {
            return Ok(Vec::new());
        };
        let batch = batch.map_err(|error| error.to_string())?;
        let (offsets, rows) = columns::rows_of(&batch)?;
        let offsets = offsets.unwrap_or_else(|| (self.at..self.at + rows.len() as u64).collect());
        let mut out = Vec::new();
        encode(&rows, &offsets, &mut out)?;
        if let Some(last) = offsets.last() {
            self.at = last + 1;
        }
        let stamp = |(base, batch): (Offset, Batch)| batch.stamped(base, epoch, object.append_time);
        Ok(out.into_iter().map(stamp).collect())
    }
}

/// Encodes rows as one batch, or as several where they are too large for one.
fn encode(rows: &Rows, offsets: &[Offset], out: &mut Vec<(Offset, Batch)>) -> Result<(), String> {
    let (Some(base), Some(last)) = (offsets.first().copied(), offsets.last()) else {
        return Ok(());
    };
    let is_dense = last - base + 1 == offsets.len() as u64;
    let encoded = if is_dense {
        Batch::encode(rows, Codec::None, None)
    } else {
        let deltas: Vec<u32> = offsets
            .iter()
            .map(|offset| (offset - base) as u32)
            .collect();
        Batch::encode_sparse(rows, &deltas, Codec::None, None)
    };
    match encoded {
        Ok(batch) => out.push((base, batch)),
        Err(_) if rows.len() > 1 => {
            let half = rows.len() / 2;
            encode(&rows.slice(0, half), &offsets[..half], out)?;
            encode(&rows.slice(half, rows.len() - half), &offsets[half..], out)?;
        }
        Err(error) => return Err(error.to_string()),
    }
    Ok(())
}
