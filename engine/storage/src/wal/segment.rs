//! One file of the WAL: its head, its name, and how much of it still matters.
//!
//! Head, 64 bytes little-endian: magic `RMQWAL01`, id u64, base u64 (position of its first
//! byte), salt u64, crc of the entry before u32, 24 zeros, crc32c of all that u32 (last).
//!
//! Called by: `writer`, `recovery`, `log` (which counts what is live in it).
//! Invariants: ids follow each other without holes; a segment with a valid head says that all
//! before its base was durable. Refuses: a head that does not belong to its file name.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::io::DiskFile;

pub(crate) const SEGMENT_HEAD_LEN: usize = 64;
const MAGIC: [u8; 8] = *b"RMQWAL01";

/// The fixed first bytes of a segment file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHead {
    pub id: u64,
    pub base: u64,
    pub salt: u64,
    pub previous: u32,
}

impl SegmentHead {
    pub(crate) fn encode(&self) -> [u8; SEGMENT_HEAD_LEN] {
        let mut out = [0u8; SEGMENT_HEAD_LEN];
        out[0..8].copy_from_slice(&MAGIC);
        out[8..16].copy_from_slice(&self.id.to_le_bytes());
        out[16..24].copy_from_slice(&self.base.to_le_bytes());
        out[24..32].copy_from_slice(&self.salt.to_le_bytes());
        out[32..36].copy_from_slice(&self.previous.to_le_bytes());
        let crc = crc32c::crc32c(&out[..60]);
        out[60..64].copy_from_slice(&crc.to_le_bytes());
        out
    }

    pub(crate) fn decode(bytes: &[u8; SEGMENT_HEAD_LEN]) -> Result<SegmentHead, &'static str> {
        if bytes[0..8] != MAGIC {
            return Err("the file does not begin as a WAL segment of version 1");
        }
        let crc = u32::from_le_bytes(bytes[60..64].try_into().expect("four bytes"));
        if crc32c::crc32c(&bytes[..60]) != crc {
            return Err("the checksum of the segment's head does not match");
        }
        let u64_at = |at: usize| {
            u64::from_le_bytes(
                bytes[at..at + 8]
                    .try_into()
                    .expect("eight bytes were sliced"),
            )
        };
        Ok(SegmentHead {
            id: u64_at(8),
            base: u64_at(16),
            salt: u64_at(24),
            previous: u32::from_le_bytes(bytes[32..36].try_into().expect("four bytes")),
        })
    }
}

pub(crate) fn segment_path(dir: &Path, id: u64) -> PathBuf {
    dir.join(format!("{id:016}.wal"))
}

/// The id in a file name; none for any other file.
pub(crate) fn segment_id(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".wal")?;
    if digits.len() != 16 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok()
}

/// An open segment, shared by the writer and by whoever still reads from it.
pub(crate) struct Segment {
    pub head: SegmentHead,
    pub path: PathBuf,
    /// Bytes the file was preallocated with.
    pub capacity: u64,
    pub file: Box<dyn DiskFile>,
    /// Batches in this file that are neither in the tier nor trimmed nor dropped.
    live: AtomicU64,
    live_bytes: AtomicU64,
}

impl Segment {
    pub(crate) fn new(
        head: SegmentHead,
        path: PathBuf,
        capacity: u64,
        file: Box<dyn DiskFile>,
    ) -> Segment {
        let (live, live_bytes) = (AtomicU64::new(0), AtomicU64::new(0));
        Segment {
            head,
            path,
            capacity,
            file,
            live,
            live_bytes,
        }
    }

    pub(crate) fn live_add(&self, bytes: u32) {
        self.live.fetch_add(1, Ordering::AcqRel);
        self.live_bytes
            .fetch_add(u64::from(bytes), Ordering::AcqRel);
    }

    pub(crate) fn live_remove(&self, bytes: u32) {
        self.live.fetch_sub(1, Ordering::AcqRel);
        self.live_bytes
            .fetch_sub(u64::from(bytes), Ordering::AcqRel);
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.live() == 0
    }

    /// Batches in it that still matter.
    pub(crate) fn live(&self) -> u64 {
        self.live.load(Ordering::Acquire)
    }

    pub(crate) fn live_bytes(&self) -> u64 {
        self.live_bytes.load(Ordering::Acquire)
    }
}

/// Where a batch stands in the WAL. Holding it keeps the file readable after its removal.
#[derive(Clone)]
pub(crate) struct Location {
    pub segment: Arc<Segment>,
    /// From the file's first byte.
    pub at: u64,
    pub size: u32,
}
