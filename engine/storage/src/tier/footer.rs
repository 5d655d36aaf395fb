//! Footers of Parquet objects: where their columns are and what these must add up to.
//!
//! Called by: `reader`, `fetch`, and SQL through `Store`. Invariants: a footer's bytes passed
//! the checksum of the manifest before they are parsed, so the sums in it can be trusted; parsed
//! footers are kept, up to a bound of bytes, least recently used go first.
//! Refuses: footers that are not Parquet, sums that are not one for each column chunk.

use std::collections::VecDeque;
use std::io::Cursor;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::errors::{ParquetError, Result as ParquetResult};
use parquet::file::metadata::{KeyValue, PageIndexPolicy, ParquetMetaData};
use parquet::file::reader::{ChunkReader, Length};

use super::fetch::{Piece, PieceOf};
use super::manifest::ColdObject;

/// The footer's entry with the crc32c of each column chunk, row group by row group, 8 hex digits
/// each.
pub(crate) const SUMS_KEY: &str = "rustmq.crc32c";
const SUM_DIGITS: usize = 8;
/// The entry of objects whose values are their typed columns, and what it says then.
pub(crate) const VALUES_KEY: &str = "rustmq.values";
pub(crate) const COLUMNS: &str = "columns";
/// Parsed footers kept.
const BYTES_MAX: usize = 32 << 20;

pub(super) fn push_sum(sums: &mut String, crc32c: u32) {
    use std::fmt::Write;
    // Writing to a text does not fail.
    let _ = write!(sums, "{crc32c:08x}");
}

/// A range of an object, as if it were the whole: what else is asked for is an error.
#[derive(Clone)]
pub(crate) struct Sparse {
    size: u64,
    at: u64,
    bytes: Bytes,
}

impl Sparse {
    pub(crate) fn new(size: u64, at: u64, bytes: Bytes) -> Sparse {
        Sparse { size, at, bytes }
    }

    fn slice(&self, from: u64, len: Option<usize>) -> ParquetResult<Bytes> {
        let slice = || {
            let from = usize::try_from(from.checked_sub(self.at)?).ok()?;
            let to = len.map_or(Some(self.bytes.len()), |len| from.checked_add(len))?;
            (from <= to && to <= self.bytes.len()).then(|| self.bytes.slice(from..to))
        };
        slice().ok_or_else(|| ParquetError::EOF(format!("byte {from} was not fetched")))
    }
}

impl Length for Sparse {
    fn len(&self) -> u64 {
        self.size
    }
}

impl ChunkReader for Sparse {
    type T = Cursor<Bytes>;

    fn get_read(&self, start: u64) -> ParquetResult<Cursor<Bytes>> {
        self.slice(start, None).map(Cursor::new)
    }

    fn get_bytes(&self, start: u64, length: usize) -> ParquetResult<Bytes> {
        self.slice(start, Some(length))
    }
}

/// A parsed footer.
pub(crate) struct Footer {
    path: String,
    pub metadata: ArrowReaderMetadata,
    /// Column chunks in the order they stand in; none in objects of format 1.
    chunks: Vec<Piece>,
    bytes: usize,
}

impl Footer {
    /// Parses the footer of an object out of checked bytes of it.
    pub(crate) fn parse(object: &ColdObject, bytes: &Sparse) -> Result<Footer, String> {
        let options = ArrowReaderOptions::new().with_page_index_policy(PageIndexPolicy::Optional);
        let metadata = ArrowReaderMetadata::load(bytes, options).map_err(|e| e.to_string())?;
        let chunks = match &object.foot {
            Some(_) => chunks(metadata.metadata())?,
            None => Vec::new(),
        };
        let parsed = metadata.metadata().memory_size();
        Ok(Footer {
            path: object.path.clone(),
            bytes: parsed + chunks.len() * size_of::<Piece>(),
            metadata,
            chunks,
        })
    }

    /// Whether the typed columns are what the values are.
    pub(crate) fn has_values_in_columns(&self) -> bool {
        let entries = self
            .metadata
            .metadata()
            .file_metadata()
            .key_value_metadata();
        let is_it = |e: &KeyValue| e.key == VALUES_KEY && e.value.as_deref() == Some(COLUMNS);
        entries.is_some_and(|entries| entries.iter().any(is_it))
    }

    /// The column chunks that have bytes of `from..to`.
    pub(crate) fn chunks(&self, from: u64, to: u64) -> &[Piece] {
        let first = self.chunks.partition_point(|chunk| chunk.end() <= from);
        let after = self.chunks.partition_point(|chunk| chunk.at < to);
        self.chunks.get(first..after).unwrap_or_default()
    }
}

fn chunks(metadata: &ParquetMetaData) -> Result<Vec<Piece>, String> {
    let entries = metadata.file_metadata().key_value_metadata();
    let sums = entries.and_then(|entries| entries.iter().find(|entry| entry.key == SUMS_KEY));
    let sums = sums.and_then(|entry| entry.value.as_deref());
    let sums = sums.ok_or("its footer has no checksums")?;
    let mut sums = sums.as_bytes().chunks(SUM_DIGITS);
    let mut sum = || {
        let digits = std::str::from_utf8(sums.next()?).ok()?;
        u32::from_str_radix(digits, 16).ok()
    };
    let mut chunks: Vec<Piece> = Vec::new();
    for (group, of) in metadata.row_groups().iter().enumerate() {
        for column in of.columns() {
            let (at, len) = column.byte_range();
            let crc32c = sum().ok_or("its footer has too few checksums")?;
            if len == 0 {
                continue;
            }
            if chunks.last().is_some_and(|last| last.end() > at) {
                return Err(format!("column chunks of row group {group} overlap"));
            }
            chunks.push(Piece {
                at,
                len,
                crc32c,
                of: PieceOf::Chunk {
                    group: group as u32,
                    rows: of.num_rows().unsigned_abs(),
                },
            });
        }
    }
    Ok(chunks)
}

/// Parsed footers, least recently used first.
#[derive(Default)]
pub(crate) struct FooterCache(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    footers: VecDeque<Arc<Footer>>,
    bytes: usize,
}

impl FooterCache {
    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn get(&self, path: &str) -> Option<Arc<Footer>> {
        let mut kept = self.lock();
        let at = kept
            .footers
            .iter()
            .rposition(|footer| footer.path == path)?;
        let footer = kept.footers.remove(at)?;
        kept.footers.push_back(Arc::clone(&footer));
        Some(footer)
    }

    pub(crate) fn put(&self, footer: &Arc<Footer>) {
        let mut kept = self.lock();
        if kept.footers.iter().any(|other| other.path == footer.path) {
            return;
        }
        kept.bytes += footer.bytes;
        kept.footers.push_back(Arc::clone(footer));
        while kept.bytes > BYTES_MAX {
            let Some(oldest) = kept.footers.pop_front() else {
                break;
            };
            kept.bytes -= oldest.bytes;
        }
    }
}
