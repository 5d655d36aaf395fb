//! Ranges of batches, of one or several partitions of a topic, as one Parquet object in memory.
//!
//! Called by: `log::tiering`, on a thread that may block. Invariants: one pass over the batches;
//! rows stand in partition, then offset order, and no row group has rows of two partitions; row
//! groups of 128k rows or 16 MiB, zstd 3, offsets and timestamps delta-binary-packed, page index;
//! the footer has the crc32c of every column chunk, the entries that of every row group.
//! Refuses: batches whose sections do not decode.

use bytes::Bytes;
use model::{Batch, BatchError, Offset, Rows};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;

use super::columns::{Columns, KEY, OFFSET, TIMESTAMP, VALUE};
use super::footer;
use super::manifest::{ColdFoot, ColdGroup, ColdObject};
use crate::config::PartitionConfig;

/// A row group is closed with so many rows,
const GROUP_ROWS: usize = 128 * 1024;
/// or with so many bytes of rows: it is what a reader fetches to read one record.
const GROUP_BYTES: usize = 16 << 20;
/// What a Parquet file begins with.
const MAGIC_BYTES: u64 = 4;
/// Rows gathered from small batches before they are written at once.
const CHUNK_ROWS: usize = 8 * 1024;
/// Bytes of rows gathered at most.
const CHUNK_BYTES: usize = 8 << 20;
const PAGE_BYTES: usize = 1 << 20;

/// A Parquet object and what the manifests say of it.
pub(crate) struct Written {
    pub bytes: Bytes,
    /// One entry for each part, still without the object's path.
    pub objects: Vec<ColdObject>,
}

/// Which part could not be written, and why.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub(crate) struct WriteError {
    pub part: usize,
    error: PartError,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum PartError {
    #[error("the batch at offset {offset}: {error}")]
    Batch { offset: Offset, error: BatchError },
    #[error("the rows before offset {offset}: {reason}")]
    Rows { offset: Offset, reason: String },
    #[error("the row group at offset {offset} does not stand where it should")]
    Layout { offset: Offset },
    #[error("{0}")]
    Parquet(#[from] ParquetError),
}

fn properties() -> WriterProperties {
    let delta = |builder: parquet::file::properties::WriterPropertiesBuilder, name: &str| {
        let column = ColumnPath::from(name);
        builder
            .set_column_encoding(column.clone(), Encoding::DELTA_BINARY_PACKED)
            .set_column_dictionary_enabled(column, false)
    };
    let builder = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(3).unwrap_or_default()))
        // Groups are closed here, where a partition or enough rows end.
        .set_max_row_group_row_count(None)
        .set_data_page_size_limit(PAGE_BYTES)
        .set_statistics_enabled(EnabledStatistics::Page)
        .set_created_by(concat!("rustmq ", env!("CARGO_PKG_VERSION")).to_owned());
    // Values hardly repeat and nobody prunes by their bytes: no dictionary, no statistics.
    let value = ColumnPath::from(VALUE);
    delta(delta(builder, OFFSET), TIMESTAMP)
        .set_column_dictionary_enabled(value.clone(), false)
        .set_column_statistics_enabled(value, EnabledStatistics::None)
        .set_column_statistics_enabled(ColumnPath::from(KEY), EnabledStatistics::Chunk)
        .build()
}

/// Writes the batches of partitions of one topic, which are in order and at least one of each.
pub(crate) fn write(config: &PartitionConfig, parts: &[Vec<Batch>]) -> Result<Written, WriteError> {
    let mut draft = Draft::new(config)?;
    let mut objects = Vec::with_capacity(parts.len());
    for (part, batches) in parts.iter().enumerate() {
        let written = draft.part(batches);
        objects.push(written.map_err(|error| WriteError { part, error })?);
    }
    let last = parts.len().saturating_sub(1);
    let finished = draft.finish(objects);
    finished.map_err(|error| WriteError { part: last, error })
}

/// An object on its way.
struct Draft {
    columns: Columns,
    parquet: ArrowWriter<Vec<u8>>,
    /// Of every column chunk so far.
    sums: String,
    /// Row groups that were looked at, and where they end.
    groups: usize,
    at: u64,
    chunk: Chunk,
    open: Group,
}

/// The row group being filled.
#[derive(Default)]
struct Group {
    base: Option<Offset>,
    rows: usize,
    bytes: usize,
    min_ts: Option<i64>,
    max_ts: Option<i64>,
}

impl Group {
    fn add(&mut self, offsets: &[Offset], rows: &Rows) {
        self.base = self.base.or(offsets.first().copied());
        self.rows += rows.len();
        self.bytes += rows.bytes();
        let times = || rows.timestamps.iter().copied();
        self.min_ts = self.min_ts.into_iter().chain(times()).min();
        self.max_ts = self.max_ts.into_iter().chain(times()).max();
    }
}

/// Rows gathered for the next write.
#[derive(Default)]
struct Chunk {
    offsets: Vec<Offset>,
    rows: Vec<Rows>,
    bytes: usize,
}

impl Draft {
    fn new(config: &PartitionConfig) -> Result<Draft, WriteError> {
        let columns = Columns::new(config);
        let schema = columns.schema().clone();
        let parquet = ArrowWriter::try_new(Vec::new(), schema, Some(properties()));
        let parquet = parquet.map_err(|error| WriteError {
            part: 0,
            error: error.into(),
        })?;
        Ok(Draft {
            columns,
            parquet,
            sums: String::new(),
            groups: 0,
            at: MAGIC_BYTES,
            chunk: Chunk::default(),
            open: Group::default(),
        })
    }

    /// Writes one partition's rows into row groups of their own.
    fn part(&mut self, batches: &[Batch]) -> Result<ColdObject, PartError> {
        let mut object = ColdObject {
            base: batches.first().map_or(0, Batch::base_offset),
            next: batches.last().map_or(0, Batch::next_offset),
            min_ts: i64::MAX,
            max_ts: i64::MIN,
            append_time: batches.iter().map(Batch::append_time).max().unwrap_or(0),
            epoch: batches.iter().map(|b| b.epoch().0).max().unwrap_or(0),
            group: self.groups as u32,
            ..ColdObject::default()
        };
        for batch in batches {
            self.batch(batch, &mut object)?;
        }
        self.flush()?;
        self.close_group(&mut object)?;
        Ok(object)
    }

    fn batch(&mut self, batch: &Batch, object: &mut ColdObject) -> Result<(), PartError> {
        let damaged = |error| PartError::Batch {
            offset: batch.base_offset(),
            error,
        };
        let rows = batch.rows().map_err(damaged)?;
        let offsets = batch.offsets().map_err(damaged)?;
        object.rows += rows.len() as u64;
        object.row_bytes += rows.bytes() as u64;
        self.open.add(&offsets, &rows);
        self.chunk.bytes += rows.bytes();
        self.chunk.offsets.extend(offsets);
        self.chunk.rows.push(rows);
        let is_full = self.open.rows >= GROUP_ROWS || self.open.bytes >= GROUP_BYTES;
        if is_full || self.chunk.offsets.len() >= CHUNK_ROWS || self.chunk.bytes >= CHUNK_BYTES {
            self.flush()?;
        }
        if is_full {
            self.close_group(object)?;
        }
        Ok(())
    }

    /// Writes the rows gathered.
    fn flush(&mut self) -> Result<(), PartError> {
        let Chunk { offsets, rows, .. } = std::mem::take(&mut self.chunk);
        let Some(last) = offsets.last().copied() else {
            return Ok(());
        };
        let wrong = |reason: String| PartError::Rows {
            offset: last + 1,
            reason,
        };
        let rows = match <[Rows; 1]>::try_from(rows) {
            Ok([rows]) => rows,
            Err(rows) => Rows::concat(&rows).map_err(|error| wrong(error.to_string()))?,
        };
        let batch = self.columns.of(offsets, &rows);
        let batch = batch.map_err(|error| wrong(error.to_string()))?;
        Ok(self.parquet.write(&batch)?)
    }

    /// Ends the row group and notes its range and sums.
    fn close_group(&mut self, object: &mut ColdObject) -> Result<(), PartError> {
        let Group {
            base,
            rows,
            min_ts,
            max_ts,
            ..
        } = std::mem::take(&mut self.open);
        let Some(base) = base else { return Ok(()) };
        object.min_ts = object.min_ts.min(min_ts.unwrap_or(i64::MAX));
        object.max_ts = object.max_ts.max(max_ts.unwrap_or(i64::MIN));
        self.parquet.flush()?;
        // The writer keeps some bytes back; they are needed for the sums.
        self.parquet.sync().map_err(ParquetError::from)?;
        let bytes = self.parquet.inner().as_slice();
        let layout = || PartError::Layout { offset: base };
        let group = self.parquet.flushed_row_groups().get(self.groups);
        let mut end = self.at;
        for column in group.ok_or_else(layout)?.columns() {
            let (at, len) = column.byte_range();
            if at != end {
                return Err(layout());
            }
            end += len;
            let chunk = bytes.get(at as usize..end as usize).ok_or_else(layout)?;
            footer::push_sum(&mut self.sums, crc32c::crc32c(chunk));
        }
        let (at, end) = (std::mem::replace(&mut self.at, end), end);
        object.groups.push(ColdGroup {
            at,
            len: end - at,
            crc32c: crc32c::crc32c(&bytes[at as usize..end as usize]),
            base,
            rows: rows as u64,
            min_ts,
            max_ts,
        });
        self.groups += 1;
        Ok(())
    }

    fn finish(mut self, mut objects: Vec<ColdObject>) -> Result<Written, PartError> {
        let sums = KeyValue::new(footer::SUMS_KEY.to_owned(), self.sums);
        self.parquet.append_key_value_metadata(sums);
        if self.columns.are_values() {
            let values = KeyValue::new(footer::VALUES_KEY.to_owned(), footer::COLUMNS.to_owned());
            self.parquet.append_key_value_metadata(values);
        }
        let bytes = Bytes::from(self.parquet.into_inner()?);
        let foot = ColdFoot {
            at: self.at,
            len: bytes.len() as u64 - self.at,
            crc32c: crc32c::crc32c(&bytes[self.at as usize..]),
            groups: self.groups as u32,
        };
        let crc32c = crc32c::crc32c(&bytes);
        for object in &mut objects {
            object.size = bytes.len() as u64;
            object.crc32c = crc32c;
            object.foot = Some(foot.clone());
        }
        Ok(Written { bytes, objects })
    }
}
