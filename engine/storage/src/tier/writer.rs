//! A range of batches as one Parquet object in memory.
//!
//! Called by: `log::tiering`, on a thread that may block. Invariants: rows stand in offset
//! order; row groups of 128k rows, zstd 3, offsets and timestamps delta-binary-packed, page
//! index. Refuses: batches whose sections do not decode.

use bytes::Bytes;
use model::{Batch, BatchError, Offset, Rows};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;

use super::columns::{Columns, KEY, OFFSET, TIMESTAMP, VALUE};
use crate::config::PartitionConfig;

/// Rows of one row group.
const GROUP_ROWS: usize = 128 * 1024;
/// Rows gathered from small batches before they are written at once.
const CHUNK_ROWS: usize = 8 * 1024;
/// Bytes of rows gathered at most.
const CHUNK_BYTES: usize = 8 << 20;
const PAGE_BYTES: usize = 1 << 20;

/// A Parquet object and what its manifest entry says of it.
pub(crate) struct Written {
    pub bytes: Bytes,
    pub crc32c: u32,
    pub base: Offset,
    pub next: Offset,
    pub rows: u64,
    pub min_ts: i64,
    pub max_ts: i64,
    pub append_time: i64,
    /// Bytes of the rows before encoding.
    pub row_bytes: u64,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum WriteError {
    #[error("the batch at offset {offset}: {error}")]
    Batch { offset: Offset, error: BatchError },
    #[error("the rows before offset {offset}: {reason}")]
    Rows { offset: Offset, reason: String },
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
        .set_max_row_group_row_count(Some(GROUP_ROWS))
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

/// Writes the batches, which are in order and at least one.
pub(crate) fn write(config: &PartitionConfig, batches: &[Batch]) -> Result<Written, WriteError> {
    let columns = Columns::new(config);
    let schema = columns.schema().clone();
    let mut parquet = ArrowWriter::try_new(Vec::new(), schema, Some(properties()))?;
    let mut chunk = Chunk::default();
    let mut written = Written {
        bytes: Bytes::new(),
        crc32c: 0,
        base: batches.first().map_or(0, Batch::base_offset),
        next: batches.last().map_or(0, Batch::next_offset),
        rows: 0,
        min_ts: i64::MAX,
        max_ts: i64::MIN,
        append_time: batches.iter().map(Batch::append_time).max().unwrap_or(0),
        row_bytes: 0,
    };
    for batch in batches {
        let damaged = |error| WriteError::Batch {
            offset: batch.base_offset(),
            error,
        };
        let rows = batch.rows().map_err(damaged)?;
        let offsets = batch.offsets().map_err(damaged)?;
        written.rows += rows.len() as u64;
        written.row_bytes += rows.bytes() as u64;
        written.min_ts = rows
            .timestamps
            .iter()
            .copied()
            .fold(written.min_ts, i64::min);
        written.max_ts = rows
            .timestamps
            .iter()
            .copied()
            .fold(written.max_ts, i64::max);
        chunk.bytes += rows.bytes();
        chunk.offsets.extend(offsets);
        chunk.rows.push(rows);
        if chunk.offsets.len() >= CHUNK_ROWS || chunk.bytes >= CHUNK_BYTES {
            chunk.flush(&columns, &mut parquet)?;
        }
    }
    chunk.flush(&columns, &mut parquet)?;
    written.bytes = Bytes::from(parquet.into_inner()?);
    written.crc32c = crc32c::crc32c(&written.bytes);
    Ok(written)
}

/// Rows gathered for the next write.
#[derive(Default)]
struct Chunk {
    offsets: Vec<Offset>,
    rows: Vec<Rows>,
    bytes: usize,
}

impl Chunk {
    fn flush(
        &mut self,
        columns: &Columns,
        parquet: &mut ArrowWriter<Vec<u8>>,
    ) -> Result<(), WriteError> {
        let Chunk { offsets, rows, .. } = std::mem::take(self);
        let Some(last) = offsets.last().copied() else {
            return Ok(());
        };
        let wrong = |reason: String| WriteError::Rows {
            offset: last + 1,
            reason,
        };
        let rows = match <[Rows; 1]>::try_from(rows) {
            Ok([rows]) => rows,
            Err(rows) => Rows::concat(&rows).map_err(|error| wrong(error.to_string()))?,
        };
        let batch = columns
            .of(offsets, &rows)
            .map_err(|error| wrong(error.to_string()))?;
        Ok(parquet.write(&batch)?)
    }
}
