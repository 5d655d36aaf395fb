//! The batch: the one form in which records travel, rest and are read.
//!
//! Called by every room that touches records. A batch is a head of constant size and a body of
//! sections, little-endian, laid out as Arrow lays columns out; the format is in
//! `batch/format.rs`. Invariants: the checksum covers all that the producer wrote, and not the
//! stamp of the broker (base offset, shard epoch, append time); decoding copies nothing and
//! checks every length against the bytes at hand and `limits` before memory is taken; rows are
//! views over the body where it is plain and aligned. A clone shares the body.
//! Refuses damaged, oversized and unknown input with an error, never a panic.

mod columns;
mod compress;
mod encode;
mod error;
mod format;
mod plain;
#[cfg(test)]
mod tests;
mod typed;

use bytes::{Bytes, BytesMut};

use crate::ids::{Offset, ProducerId, ShardEpoch};
use crate::limits::{BATCH_BYTES_MAX, OFFSET_MAX};
use crate::rows::Rows;

pub use error::{BatchError, EncodeError};
use format::Head;
pub use format::{HEAD_LEN, MAGIC, VERSION};

/// How sections are compressed.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, Default, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Codec {
    #[default]
    None,
    Lz4,
    Zstd,
}

/// Who wrote a batch, and as which of theirs, so that a retry is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct Producer {
    pub id: ProducerId,
    /// Counts the lives of a producer; an older one is fenced.
    pub epoch: u16,
    /// Sequence number of the first record of the batch; counts records, and wraps.
    pub sequence: u32,
}

/// Records, encoded. Always consistent: a batch that exists has passed the checks of
/// [`Batch::decode`] or was encoded here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    head: Head,
    body: Bytes,
}

impl Batch {
    /// Encodes rows. Refuses no rows at all, and what is over the limits. Columns are copied
    /// whole; with a codec a section is compressed where that makes it smaller.
    pub fn encode(
        rows: &Rows,
        codec: Codec,
        producer: Option<Producer>,
    ) -> Result<Batch, EncodeError> {
        encode::encode(rows, None, codec, producer)
    }

    /// As [`Batch::encode`], for rows whose offsets are not dense: `deltas[i]` is the offset of
    /// row `i` less the base offset of the batch. Deltas must grow from row to row; the batch
    /// ends after its last row.
    pub fn encode_sparse(
        rows: &Rows,
        deltas: &[u32],
        codec: Codec,
        producer: Option<Producer>,
    ) -> Result<Batch, EncodeError> {
        let last = deltas.last().copied().unwrap_or_default();
        encode::encode(rows, Some((deltas, last)), codec, producer)
    }

    /// As [`Batch::encode_sparse`], for rows that compaction left of a range of offsets: the
    /// batch stands for the whole range, `last_delta` being the last offset of it less the base
    /// offset, so that nothing looks missing between it and the next one.
    pub fn encode_compacted(
        rows: &Rows,
        deltas: &[u32],
        last_delta: u32,
        codec: Codec,
    ) -> Result<Batch, EncodeError> {
        encode::encode(rows, Some((deltas, last_delta)), codec, None)
    }

    /// Exactly one batch. Checks magic, version, every length, the reserved bits and the
    /// checksum; the body is shared with `bytes`, not copied. The contents of the sections are
    /// checked by [`Batch::rows`] and [`Batch::check`].
    pub fn decode(mut bytes: Bytes) -> Result<Batch, BatchError> {
        let batch = Batch::decode_prefix(&mut bytes)?;
        match bytes.len() {
            0 => Ok(batch),
            extra => Err(BatchError::Trailing { extra }),
        }
    }

    /// Takes one batch off the front of `bytes`, which are left as they were on an error.
    pub fn decode_prefix(bytes: &mut Bytes) -> Result<Batch, BatchError> {
        let head = Head::read(bytes)?;
        let size = HEAD_LEN + head.body_length as usize;
        if bytes.len() < size {
            return Err(BatchError::Truncated {
                needed: size,
                have: bytes.len(),
            });
        }
        let body = bytes.slice(HEAD_LEN..size);
        head.checksum_check(&body)?;
        format::directory_check(&head, &body)?;
        let _ = bytes.split_to(size);
        Ok(Batch { head, body })
    }

    /// The encoded length of the batch that begins at the front of `bytes`, from its head
    /// alone; bounded by `BATCH_BYTES_MAX`. For readers that must know how much to read.
    pub fn peek_size(bytes: &[u8]) -> Result<usize, BatchError> {
        Head::read(bytes).map(|head| HEAD_LEN + head.body_length as usize)
    }

    /// The fixed header, with the stamp.
    pub fn head(&self) -> [u8; HEAD_LEN] {
        self.head.to_bytes()
    }

    /// What follows the head.
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// Head and body in one piece (a copy; writers that can, write the two parts).
    pub fn to_bytes(&self) -> Bytes {
        let mut bytes = BytesMut::with_capacity(self.size());
        bytes.extend_from_slice(&self.head());
        bytes.extend_from_slice(&self.body);
        bytes.freeze()
    }

    /// Encoded length, bytes.
    pub fn size(&self) -> usize {
        HEAD_LEN + self.body.len()
    }

    /// The same batch with the broker's stamp; the checksum is not touched. `append_time_us` is
    /// microseconds since the epoch, UTC. A base offset above `OFFSET_MAX` would be refused by
    /// the next decode.
    pub fn stamped(mut self, base_offset: Offset, epoch: ShardEpoch, append_time_us: i64) -> Batch {
        debug_assert!(base_offset <= OFFSET_MAX - u64::from(u32::MAX));
        self.head.base_offset = base_offset;
        self.head.shard_epoch = epoch.0;
        self.head.append_time = append_time_us;
        self
    }

    /// Where the batch begins: the offset of its first record if offsets are dense, else at or
    /// before that.
    pub fn base_offset(&self) -> Offset {
        self.head.base_offset
    }

    /// The offset after the last one this batch stands for.
    pub fn next_offset(&self) -> Offset {
        self.head.base_offset + u64::from(self.head.last_offset_delta) + 1
    }

    /// Records in it; at least 1. Never more than the offsets it spans.
    #[allow(clippy::len_without_is_empty, reason = "a batch is never empty")]
    pub fn len(&self) -> u32 {
        self.head.records
    }

    /// When the broker took it: microseconds since the epoch, UTC; 0 before that.
    pub fn append_time(&self) -> i64 {
        self.head.append_time
    }

    /// Timestamp of the first record, microseconds since the epoch, UTC.
    pub fn first_timestamp(&self) -> i64 {
        self.head.first_timestamp
    }

    /// The largest timestamp, microseconds since the epoch, UTC.
    pub fn max_timestamp(&self) -> i64 {
        self.head.max_timestamp
    }

    /// The producer, if it numbers its batches.
    pub fn producer(&self) -> Option<Producer> {
        self.head.producer
    }

    /// Epoch of the shard leader that took it.
    pub fn epoch(&self) -> ShardEpoch {
        ShardEpoch(self.head.shard_epoch)
    }

    /// How its sections are compressed.
    pub fn codec(&self) -> Codec {
        self.head.codec
    }

    /// The crc32c of head and body without the stamp: the same for the same content.
    pub fn checksum(&self) -> u32 {
        self.head.checksum
    }

    /// Whether its values are typed columns instead of bytes.
    pub fn has_columns(&self) -> bool {
        format::find(&self.head, &self.body, format::COLUMN_TYPES).is_some()
    }

    /// The records as columns: views over the body where it is plain and aligned, else copies
    /// in aligned buffers. Holds the whole body in memory as long as the rows live.
    pub fn rows(&self) -> Result<Rows, BatchError> {
        columns::rows(&self.head, &self.body)
    }

    /// The offset of each record.
    pub fn offsets(&self) -> Result<Vec<Offset>, BatchError> {
        let base = self.head.base_offset;
        Ok(match columns::offset_deltas(&self.head, &self.body)? {
            Some(deltas) => deltas.iter().map(|d| base + *d as u32 as u64).collect(),
            None => (base..base + u64::from(self.head.records)).collect(),
        })
    }

    /// Whether offsets are dense: record `i` has offset `base_offset + i`.
    pub fn is_dense(&self) -> bool {
        self.head.last_offset_delta == self.head.records - 1
    }

    /// Checks the contents too, as a broker does before it takes a batch from outside: that
    /// the rows decode, that no record is over its limits, that the timestamps in the head are
    /// true.
    pub fn check(&self) -> Result<(), BatchError> {
        if plain::is_right(&self.head, &self.body) {
            return Ok(());
        }
        let rows = self.rows()?;
        columns::offset_deltas(&self.head, &self.body)?;
        columns::contents_check(&self.head, &rows)
    }

    /// The records at and after `offset` as a batch of their own, encoded again with the same
    /// codec and stamp; `None` if there are none. A batch that begins at or after `offset` is
    /// returned as it is. The producer is left out, since its sequence would not fit, and so
    /// are optional sections this version does not know.
    pub fn slice_from(&self, offset: Offset) -> Result<Option<Batch>, BatchError> {
        if offset <= self.base_offset() {
            return Ok(Some(self.clone()));
        }
        let offsets = self.offsets()?;
        let from = offsets.partition_point(|o| *o < offset);
        let Some(base) = offsets.get(from).copied() else {
            return Ok(None);
        };
        let rows = self.rows()?;
        let rows = rows.slice(from, rows.len() - from);
        let codec = self.codec();
        let part = if self.is_dense() {
            Batch::encode(&rows, codec, None)
        } else {
            let delta = |o: &Offset| (o - base) as u32;
            let deltas: Vec<u32> = offsets[from..].iter().map(delta).collect();
            let last_delta = delta(&(self.next_offset() - 1));
            Batch::encode_compacted(&rows, &deltas, last_delta, codec)
        };
        let part = part.map_err(|e| BatchError::Invalid {
            detail: e.to_string(),
        })?;
        Ok(Some(part.stamped(base, self.epoch(), self.append_time())))
    }
}

/// A body longer than this cannot be part of a batch.
const BODY_BYTES_MAX: usize = BATCH_BYTES_MAX - HEAD_LEN;
