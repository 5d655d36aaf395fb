//! Puts entries at the WAL's head: stages them, writes them with one vectored write, syncs.
//!
//! Called by: `log::commit`, from the one thread that owns it.
//! Invariants: positions grow without holes; each entry carries the crc of the one before and
//! what was known durable when it was staged; batch bodies are not copied; a segment is synced
//! before the next one exists.
//! Refuses: nothing; the caller stops for good after a failed write or sync.

use std::io::{self, IoSlice};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use model::{Batch, PartitionId};

use super::entry::{
    self, Control, ENTRY_HEAD_LEN, EntryHead, Kind, PART_HEAD_LEN, checksum_start, entry_len,
    padded, part_head,
};
use super::segment::{Location, SEGMENT_HEAD_LEN, Segment, SegmentHead, create_segment};
use crate::io::DiskFile;
use crate::planted::{Bug, planted, planted_nth};

/// Bodies up to this size are copied beside their heads: cheaper than one more slice.
const COPY_BYTES_MAX: usize = 512;

/// Why no further segment could be had.
#[derive(Debug)]
pub(crate) enum RollError {
    /// The disk has no room; nothing changed, and it may be tried again.
    Full,
    /// Anything else; final.
    Failed(String),
}

/// A run of bytes to be written: own or shared.
enum Piece {
    Scratch(Range<usize>),
    Body(Bytes),
}

/// Where a WAL goes on after recovery.
pub(crate) struct Head {
    pub segment: Arc<Segment>,
    pub file: Arc<dyn DiskFile>,
    /// From the file's first byte.
    pub at: u64,
    /// The crc of the last entry.
    pub previous: u32,
}

/// A place between two entries.
#[derive(Clone)]
pub(crate) struct Place {
    pub segment: Arc<Segment>,
    /// From the file's first byte.
    pub at: u64,
    /// The crc of the entry before.
    pub previous: u32,
}

impl Place {
    pub(crate) fn position(&self) -> u64 {
        self.segment.head.base + self.at
    }
}

pub(crate) struct WalWriter {
    dir: PathBuf,
    segment_bytes: u64,
    segment: Arc<Segment>,
    /// Of `segment`.
    file: Arc<dyn DiskFile>,
    /// Next byte in the segment's file, staged entries counted.
    at: u64,
    /// First staged byte in the segment's file.
    staged_at: u64,
    previous: u32,
    /// Position known durable.
    synced_to: u64,
    /// Position handed to the operating system.
    written_to: u64,
    scratch: Vec<u8>,
    pieces: Vec<Piece>,
}

impl WalWriter {
    pub(crate) fn new(dir: PathBuf, segment_bytes: u64, head: Head) -> WalWriter {
        let position = head.segment.head.base + head.at;
        WalWriter {
            dir,
            segment_bytes,
            segment: head.segment,
            file: head.file,
            at: head.at,
            staged_at: head.at,
            previous: head.previous,
            synced_to: position,
            written_to: position,
            scratch: Vec::new(),
            pieces: Vec::new(),
        }
    }

    pub(crate) fn fits(&self, length: usize) -> bool {
        self.at + length as u64 <= self.segment.capacity
    }

    pub(crate) fn position(&self) -> u64 {
        self.segment.head.base + self.at
    }

    /// Where the next entry goes.
    pub(crate) fn place(&self) -> Place {
        Place {
            segment: Arc::clone(&self.segment),
            at: self.at,
            previous: self.previous,
        }
    }

    pub(crate) fn is_synced(&self) -> bool {
        self.synced_to == self.written_to
    }

    /// Stages one atomic set of batches and says where each of them will stand.
    pub(crate) fn stage<'a>(
        &mut self,
        kind: Kind,
        (shard, epoch, sequence): (u32, u32, u64),
        batches: impl Iterator<Item = (PartitionId, &'a Batch)> + Clone,
    ) -> Vec<Location> {
        let length = entry_len(batches.clone().map(|(_, batch)| batch.size()));
        let mut head = self.head(kind, length);
        (head.shard, head.epoch, head.sequence) = (shard, epoch, sequence);
        head.count = batches.clone().count() as u32;
        let head_at = self.scratch.len();
        let mut run_at = head_at;
        self.scratch.extend_from_slice(&head.encode());
        let mut at = self.at + ENTRY_HEAD_LEN as u64;
        let mut crc = self.checksum_head(head_at);
        let mut locations = Vec::with_capacity(head.count as usize);
        for (partition, batch) in batches {
            let size = batch.size();
            let from = self.scratch.len();
            self.scratch
                .extend_from_slice(&part_head(partition, size as u32));
            self.scratch.extend_from_slice(&batch.head());
            let body = batch.body();
            let summed_from = from + entry::unsummed(locations.len());
            if body.len() <= COPY_BYTES_MAX {
                self.scratch.extend_from_slice(body);
                self.scratch
                    .resize(self.scratch.len() + padded(size) - size, 0);
                crc = crc32c::crc32c_append(crc, &self.scratch[summed_from..]);
            } else {
                crc = crc32c::crc32c_append(crc, &self.scratch[summed_from..]);
                crc = crc32c::crc32c_append(crc, body);
                self.push_scratch(run_at..self.scratch.len());
                self.pieces.push(Piece::Body(body.clone()));
                run_at = self.scratch.len();
                self.scratch.resize(run_at + padded(size) - size, 0);
                crc = crc32c::crc32c_append(crc, &self.scratch[run_at..]);
            }
            let segment = Arc::clone(&self.segment);
            let size_u32 = size as u32;
            locations.push(Location {
                segment,
                at: at + PART_HEAD_LEN as u64,
                size: size_u32,
            });
            at += (PART_HEAD_LEN + padded(size)) as u64;
        }
        self.seal(head_at, run_at, crc, length);
        locations
    }

    /// Stages a control entry.
    pub(crate) fn stage_control(&mut self, json: &[u8]) {
        let length = control_len(json);
        let mut head = self.head(Kind::Control, length);
        head.count = json.len() as u32;
        let head_at = self.scratch.len();
        self.scratch.extend_from_slice(&head.encode());
        self.scratch.extend_from_slice(json);
        self.scratch.resize(head_at + length, 0);
        let crc = self.checksum_head(head_at);
        let crc = crc32c::crc32c_append(crc, &self.scratch[head_at + ENTRY_HEAD_LEN..]);
        self.seal(head_at, head_at, crc, length);
    }

    /// Stages an entry that says nothing but what is durable.
    pub(crate) fn stage_mark(&mut self) {
        let head = self.head(Kind::Mark, ENTRY_HEAD_LEN);
        let head_at = self.scratch.len();
        self.scratch.extend_from_slice(&head.encode());
        let crc = self.checksum_head(head_at);
        self.seal(head_at, head_at, crc, ENTRY_HEAD_LEN);
    }

    fn head(&self, kind: Kind, length: usize) -> EntryHead {
        let (mut position, mut synced_to) = (self.position(), self.synced_to);
        if planted(Bug::PositionOff) && self.segment.head.id > 0 {
            position += 8;
        }
        if planted(Bug::SyncedToStale) {
            synced_to = self.segment.head.base;
        }
        if planted(Bug::SyncedToNew) {
            synced_to = self.position();
        }
        EntryHead {
            length: length as u32,
            kind,
            position,
            segment: self.segment.head.id,
            synced_to,
            sequence: 0,
            shard: 0,
            epoch: 0,
            previous: self.previous,
            count: 0,
        }
    }

    fn checksum_head(&self, head_at: usize) -> u32 {
        let head = &self.scratch[head_at + 8..head_at + ENTRY_HEAD_LEN];
        crc32c::crc32c_append(checksum_start(self.segment.head.salt), head)
    }

    fn seal(&mut self, head_at: usize, run_at: usize, crc: u32, length: usize) {
        self.scratch[head_at + 4..head_at + 8].copy_from_slice(&crc.to_le_bytes());
        if run_at < self.scratch.len() {
            self.push_scratch(run_at..self.scratch.len());
        }
        self.previous = crc;
        self.at += length as u64;
    }

    /// Small entries in a row become one slice.
    fn push_scratch(&mut self, run: Range<usize>) {
        match self.pieces.last_mut() {
            Some(Piece::Scratch(last)) if last.end == run.start => last.end = run.end,
            _ => self.pieces.push(Piece::Scratch(run)),
        }
    }

    /// Bytes that are staged and not written.
    pub(crate) fn staged_bytes(&self) -> u64 {
        self.at - self.staged_at
    }

    /// Writes all that is staged.
    pub(crate) fn write(&mut self) -> io::Result<()> {
        self.put(|file, slices, at| file.write_all_at(slices, at))
    }

    /// Whether a write and its sync can be handed over together.
    pub(crate) fn is_joined(&self) -> bool {
        self.file.joined().is_some()
    }

    /// Writes all that is staged and makes it durable.
    pub(crate) fn write_synced(&mut self) -> io::Result<()> {
        self.put(|file, slices, at| match file.joined() {
            Some(joined) => joined.write_synced_at(slices, at),
            None => file.write_all_at(slices, at).and_then(|()| file.sync()),
        })?;
        self.synced_to = self.written_to;
        Ok(())
    }

    fn put(
        &mut self,
        write: impl FnOnce(&dyn DiskFile, &mut [IoSlice<'_>], u64) -> io::Result<()>,
    ) -> io::Result<()> {
        if self.pieces.is_empty() {
            return Ok(());
        }
        let mut slices: Vec<IoSlice<'_>> = self
            .pieces
            .iter()
            .map(|piece| match piece {
                Piece::Scratch(range) => IoSlice::new(&self.scratch[range.clone()]),
                Piece::Body(body) => IoSlice::new(body),
            })
            .collect();
        write(&*self.file, &mut slices, self.staged_at)?;
        self.pieces.clear();
        self.scratch.clear();
        self.staged_at = self.at;
        self.written_to = self.position();
        Ok(())
    }

    /// Makes all that is written durable.
    pub(crate) fn sync(&mut self) -> io::Result<()> {
        if !self.is_synced() {
            let is_skipped = planted_nth(Bug::SyncSkipped, 3);
            let synced = if is_skipped { Ok(()) } else { self.file.sync() };
            match synced {
                Err(_) if planted(Bug::SyncRetried) => self.file.sync()?,
                synced => synced?,
            }
            self.synced_to = self.written_to;
        }
        Ok(())
    }

    /// Goes on in a new segment that has room for `length` bytes. Nothing may be staged.
    pub(crate) fn roll(&mut self, length: usize) -> Result<Arc<Segment>, RollError> {
        self.sync()
            .map_err(|error| RollError::Failed(error.to_string()))?;
        let head = SegmentHead {
            id: self.segment.head.id + 1,
            base: self.position(),
            salt: salt(),
            previous: self.previous,
        };
        let cannot = |error: io::Error| match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => RollError::Full,
            _ => RollError::Failed(format!("cannot create a WAL segment: {error}")),
        };
        let segment = create_segment(
            self.segment.files(),
            &self.dir,
            head,
            self.segment_bytes,
            length,
        )
        .map_err(cannot)?;
        let file = segment.file().map_err(cannot)?;
        self.segment.release();
        self.segment = Arc::new(segment);
        self.file = file;
        self.at = SEGMENT_HEAD_LEN as u64;
        self.staged_at = self.at;
        self.synced_to = self.position();
        self.written_to = self.position();
        Ok(Arc::clone(&self.segment))
    }
}

pub(crate) fn control_len(json: &[u8]) -> usize {
    ENTRY_HEAD_LEN + padded(json.len())
}

/// The JSON of a control entry.
pub(crate) fn control_json(control: &Control) -> Vec<u8> {
    serde_json::to_vec(control).expect("a control entry has only numbers and lists")
}

/// An entry that is nothing but its head, with its crc; and that crc.
pub(crate) fn sealed(head: EntryHead, salt: u64) -> ([u8; ENTRY_HEAD_LEN], u32) {
    let mut bytes = head.encode();
    let crc = crc32c::crc32c_append(checksum_start(salt), &bytes[8..]);
    bytes[4..8].copy_from_slice(&crc.to_le_bytes());
    (bytes, crc)
}

/// A number nobody outside can foresee; the standard hasher is keyed from the system's randomness.
pub(crate) fn salt() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    #[cfg(test)]
    if let Some(salt) = crate::planted::salt() {
        return salt;
    }
    std::collections::hash_map::RandomState::new()
        .build_hasher()
        .finish()
}
