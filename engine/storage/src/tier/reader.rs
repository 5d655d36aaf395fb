//! Parquet objects back as batches, row group by row group.
//!
//! Called by: `log` (a reader of cold offsets, a merge). The footer is parsed once and kept; a row group
//! is fetched with one request and checked (`fetch`); a reader that goes on where it stopped
//! finds its decoder where it left it.
//! Invariants: records have the offsets they had, and batches stand for all offsets between them
//! (`cover`), so that a reader at an offset without a record finds the batch that goes on after
//! it; of a shared object only the partition's own row groups are fetched and decoded; memory is
//! bounded by the row groups.
//! Refuses: row groups that are not where the manifest says, or have not the rows it says.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use model::{Batch, Codec, LogError, Offset, PartitionId, ShardEpoch};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};

use super::Tier;
use super::columns::{self, BASE};
use super::fetch::{Piece, damaged};
use super::footer::{Footer, Sparse};
use super::manifest::{ColdObject, Manifest};
use crate::cover;
use crate::error::TierError;

/// Bytes of rows that become one batch.
const BATCH_BYTES: u64 = 1 << 20;
const BATCH_ROWS_MAX: u64 = 8 * 1024;
/// Decoders kept for readers that go on.
const CURSORS_MAX: usize = 32;

/// What a decoder reads: some row groups of a partition in an object.
pub(crate) struct Span<'a> {
    pub partition: PartitionId,
    pub object: &'a ColdObject,
    /// The first one, and how many, counted among the partition's own.
    pub group: usize,
    pub groups: usize,
}

impl Tier {
    /// Batches from `from` on, out of the object that holds it.
    pub(crate) async fn read(
        &self,
        manifest: &Manifest,
        from: Offset,
        bytes_max: usize,
    ) -> Result<Vec<Batch>, TierError> {
        let object = manifest
            .object_at(from)
            .filter(|object| object.base <= from);
        let Some(object) = object.cloned() else {
            return Err(TierError::Log(LogError::Corrupt {
                partition: manifest.partition,
                detail: format!(
                    "no object of manifest {} holds offset {from}",
                    manifest.number
                ),
            }));
        };
        let group = object.group_at(from);
        for group in group..object.group_count() {
            let batches = self.read_group(manifest, &object, group, from, bytes_max);
            let batches = batches.await?;
            if !batches.is_empty() {
                // Who begins a row group at its first offset came from the one before.
                if object.foot.is_some() && object.group_base(group) == from {
                    self.read_ahead(manifest, &object, group);
                }
                return Ok(batches);
            }
        }
        let reason = format!("it has no record at or after offset {from}");
        Err(damaged(manifest.partition, &object, reason))
    }

    /// Has the row group after this one fetched, in this object or in the next.
    fn read_ahead(&self, manifest: &Manifest, object: &ColdObject, group: usize) {
        if let Some(piece) = object.piece(group + 1) {
            return self.fetch_ahead(manifest.partition, object, piece);
        }
        let next = manifest.object_at(object.next);
        if let Some((next, piece)) = next.and_then(|next| Some((next, next.piece(0)?))) {
            self.fetch_ahead(manifest.partition, next, piece);
        }
    }

    /// Batches of one row group from `from` on.
    pub(crate) async fn read_group(
        &self,
        manifest: &Manifest,
        object: &ColdObject,
        group: usize,
        from: Offset,
        bytes_max: usize,
    ) -> Result<Vec<Batch>, TierError> {
        let (partition, epoch) = (manifest.partition, manifest.epoch_of(object));
        let span = Span {
            partition,
            object,
            group,
            groups: 1,
        };
        let cursor = match self.cursors.take(partition, &object.path, from) {
            Some(cursor) => cursor,
            None => self.decoder(&span, from).await?,
        };
        let of = object.clone();
        let decode = move || take(cursor, &of, epoch, from, bytes_max);
        let decoded = tokio::task::spawn_blocking(decode).await;
        let decoded = decoded.unwrap_or_else(|error| Err(error.to_string()));
        let (batches, cursor) = decoded.map_err(|reason| damaged(partition, object, reason))?;
        if let Some(cursor) = cursor.filter(|cursor| cursor.rows_left > 0) {
            self.cursors.put(cursor);
        }
        Ok(batches)
    }

    /// A decoder of row groups, with the footer and their bytes.
    async fn decoder(&self, span: &Span<'_>, from: Offset) -> Result<Cursor, TierError> {
        let Span {
            partition, object, ..
        } = *span;
        let footer = self.footer(partition, object).await?;
        let groups = span.group..span.group + span.groups;
        let pieces: Vec<Piece> = groups.filter_map(|group| object.piece(group)).collect();
        let at = pieces.first().map_or(0, |piece| piece.at);
        let bytes = self.fetch(partition, object, &pieces).await?;
        let bytes = Sparse::new(object.size, at, bytes);
        let cursor = Cursor::open(span, &footer, bytes, from);
        cursor.map_err(|reason| damaged(partition, object, reason))
    }

    /// All batches that objects have of a partition.
    pub(crate) async fn read_whole(
        &self,
        manifest: &Manifest,
        objects: &[ColdObject],
    ) -> Result<Vec<Batch>, TierError> {
        let partition = manifest.partition;
        let mut batches = Vec::new();
        for object in objects {
            let epoch = manifest.epoch_of(object);
            let span = Span {
                partition,
                object,
                group: 0,
                groups: object.group_count(),
            };
            let cursor = self.decoder(&span, object.base).await?;
            let of = object.clone();
            let decode = move || take(cursor, &of, epoch, of.base, usize::MAX);
            let decoded = tokio::task::spawn_blocking(decode).await;
            let decoded = decoded.unwrap_or_else(|error| Err(error.to_string()));
            let (decoded, _) = decoded.map_err(|reason| damaged(partition, object, reason))?;
            batches.extend(decoded);
        }
        Ok(batches)
    }
}

/// Batches until `bytes_max`, and the decoder if it did not end.
fn take(
    mut cursor: Cursor,
    object: &ColdObject,
    epoch: ShardEpoch,
    from: Offset,
    bytes_max: usize,
) -> Result<(Vec<Batch>, Option<Cursor>), String> {
    let mut batches = Vec::new();
    let mut bytes = 0;
    loop {
        let next = cursor.next(object, epoch)?;
        if next.is_empty() {
            return Ok((batches, None));
        }
        for batch in next.into_iter().filter(|batch| batch.next_offset() > from) {
            bytes += batch.size();
            batches.push(batch);
        }
        if bytes >= bytes_max && !batches.is_empty() {
            return Ok((batches, Some(cursor)));
        }
    }
}

/// A decoder and the offset it goes on at.
pub(crate) struct Cursor {
    partition: PartitionId,
    path: String,
    at: Offset,
    /// Where the row groups it reads end,
    end: Offset,
    /// and how many of their rows are still to come.
    rows_left: u64,
    reader: ParquetRecordBatchReader,
}

/// Decoders kept for the next read, least recently used first.
#[derive(Default)]
pub(crate) struct Cursors(Mutex<VecDeque<Cursor>>);

impl Cursors {
    fn lock(&self) -> MutexGuard<'_, VecDeque<Cursor>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn take(&self, partition: PartitionId, path: &str, at: Offset) -> Option<Cursor> {
        let mut cursors = self.lock();
        let is_it = |c: &Cursor| c.at == at && c.partition == partition && c.path == path;
        let found = cursors.iter().position(is_it)?;
        cursors.remove(found)
    }

    pub(crate) fn put(&self, cursor: Cursor) {
        let mut cursors = self.lock();
        if cursors.len() >= CURSORS_MAX {
            cursors.pop_front();
        }
        cursors.push_back(cursor);
    }
}

impl ColdObject {
    /// Which of the partition's row groups holds an offset: the last one that does not begin
    /// after it.
    pub(crate) fn group_at(&self, offset: Offset) -> usize {
        let after = self.groups.partition_point(|group| group.base <= offset);
        after.saturating_sub(1)
    }

    /// Row groups of this partition; all of an object of format 1 count as one.
    pub(crate) fn group_count(&self) -> usize {
        self.groups.len().max(1)
    }
}

impl Cursor {
    /// A decoder of fetched row groups that begins at `from`, or at their first record.
    pub(crate) fn open(
        span: &Span<'_>,
        footer: &Footer,
        bytes: Sparse,
        from: Offset,
    ) -> Result<Cursor, String> {
        let Span { object, group, .. } = *span;
        let row_bytes = (object.row_bytes / object.rows.max(1)).max(1);
        let batch_rows = (BATCH_BYTES / row_bytes).clamp(1, BATCH_ROWS_MAX) as usize;
        let is_dense = object.is_dense();
        let schema = footer.metadata.parquet_schema();
        // Without holes the offset is the row's number, so the column need not be read.
        let wanted = if is_dense { &BASE[1..] } else { &BASE[..] };
        let roots = schema.root_schema().get_fields().iter().enumerate();
        let all = footer.has_values_in_columns();
        let is_wanted = |name| wanted.contains(&name) || (all && !BASE.contains(&name));
        let roots = roots.filter(|(_, field)| is_wanted(field.name()));
        let mask = ProjectionMask::roots(schema, roots.map(|(index, _)| index));
        let base = object.group_base(group);
        let skip = if is_dense {
            from.saturating_sub(base)
        } else {
            0
        };
        let metadata = footer.metadata.clone();
        let mut builder = ParquetRecordBatchReaderBuilder::new_with_metadata(bytes, metadata)
            .with_projection(mask)
            .with_batch_size(batch_rows)
            .with_offset(skip as usize);
        if object.foot.is_some() {
            let groups = own_groups(span, footer)?;
            builder = builder.with_row_groups(groups);
        }
        let reader = builder.build().map_err(|error| error.to_string())?;
        let own = object.groups.iter().skip(group).take(span.groups);
        let rows = match object.foot {
            Some(_) => own.map(|group| group.rows).sum(),
            None => object.rows,
        };
        Ok(Cursor {
            partition: span.partition,
            path: object.path.clone(),
            at: base + skip,
            end: object.group_base(group + span.groups),
            rows_left: rows.saturating_sub(skip),
            reader,
        })
    }

    /// The next batches, none at the row groups' end.
    pub(crate) fn next(
        &mut self,
        object: &ColdObject,
        epoch: ShardEpoch,
    ) -> Result<Vec<Batch>, String> {
        let Some(batch) = self.reader.next() else {
            return match self.rows_left {
                0 => Ok(Vec::new()),
                rows => Err(format!("it ends {rows} rows too early")),
            };
        };
        let batch = batch.map_err(|error| error.to_string())?;
        let (offsets, rows) = columns::rows_of(&batch)?;
        let count = rows.len() as u64;
        let offsets = offsets.unwrap_or_else(|| (self.at..self.at + count).collect());
        let is_in_order = offsets.windows(2).all(|two| two[0] < two[1])
            && offsets.first().is_some_and(|first| *first >= self.at);
        let last = offsets
            .last()
            .filter(|last| is_in_order && **last < self.end);
        let last = last.ok_or("its offsets are not those the manifest says")?;
        let rows_left = self.rows_left.checked_sub(count);
        self.rows_left = rows_left.ok_or("it has more rows than the manifest says")?;
        // What follows the last row belongs to it.
        let next = match self.rows_left {
            0 => self.end,
            _ => last + 1,
        };
        let range = std::mem::replace(&mut self.at, next)..next;
        let mut out = Vec::new();
        let encoded = cover::encode(&rows, &offsets, range, Codec::None, &mut out);
        encoded.map_err(|error| error.to_string())?;
        let stamp = |(base, batch): (Offset, Batch)| batch.stamped(base, epoch, object.append_time);
        Ok(out.into_iter().map(stamp).collect())
    }
}

/// The numbers of a span's row groups in the object, if they are what the manifest says.
fn own_groups(span: &Span<'_>, footer: &Footer) -> Result<Vec<usize>, String> {
    let own = span.object.groups.get(span.group..span.group + span.groups);
    let own = own.ok_or("the manifest has not so many row groups")?;
    let first = span.object.group as usize + span.group;
    let numbers = first..first + own.len();
    let there = footer.metadata.metadata().row_groups().get(numbers.clone());
    let there = there.ok_or("it has fewer row groups than the manifest says")?;
    for (number, (there, own)) in numbers.clone().zip(there.iter().zip(own)) {
        let at = there.columns().first().map(|column| column.byte_range().0);
        if at != Some(own.at) || u64::try_from(there.num_rows()) != Ok(own.rows) {
            return Err(format!(
                "row group {number} is not the one the manifest names"
            ));
        }
    }
    Ok(numbers.collect())
}
