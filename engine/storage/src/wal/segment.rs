//! One file of the WAL: how it comes and goes, its head, and how much of it still matters.
//!
//! Head, 64 bytes little-endian: magic `RMQWAL01`, id u64, base u64 (position of its first
//! byte), salt u64, crc of the entry before u32, 24 zeros, crc32c of all that u32 (last).
//!
//! Called by: `writer`, `recovery`, `log` (which counts what is live in it).
//! Invariants: ids follow each other without holes, also after a power cut; a segment that has
//! its name is whole, and says that all before its base was durable; few files are open however
//! many there are. Refuses: a head that does not belong to its file name.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::io::{Disk, DiskFile};
use crate::planted::{Bug, planted};

pub(crate) const SEGMENT_HEAD_LEN: usize = 64;
/// Ending of a segment's file until it is whole.
const DRAFT: &str = "tmp";
/// Segment files open at the same time, beside the one that is written.
const OPEN_FILES_MAX: usize = 64;
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

/// Makes a segment with room for an entry of `length` bytes and holds its file open. It gets its
/// name once all of it is durable.
pub(crate) fn create_segment(
    files: &Arc<OpenFiles>,
    dir: &Path,
    head: SegmentHead,
    segment_bytes: u64,
    length: usize,
) -> io::Result<Segment> {
    let disk = &*files.disk;
    let capacity = segment_bytes.max((SEGMENT_HEAD_LEN + length) as u64);
    let path = segment_path(dir, head.id);
    let draft = path.with_extension(DRAFT);
    let file = match disk.create(&draft, capacity, &head.encode()) {
        Ok(file) => file,
        Err(error) => {
            // Gives the space back; the error that matters is the first one.
            let _ = disk.remove(&draft);
            return Err(error);
        }
    };
    disk.rename(&draft, &path)?;
    if !planted(Bug::NameNotSynced) {
        disk.sync_dir(dir)?;
    }
    let segment = Segment::new(head, path, capacity, Arc::clone(files));
    segment.hold(Arc::from(file));
    Ok(segment)
}

/// Removes segments, oldest first and each durably before the next: what is left after a power
/// cut has no hole. Who still reads one goes on with its open file.
pub(crate) fn remove_segments(
    disk: &dyn Disk,
    dir: &Path,
    segments: &[Arc<Segment>],
) -> io::Result<()> {
    for segment in segments {
        if Arc::strong_count(segment) > 1 {
            segment.hold(segment.file()?);
        }
        segment.files.forget(segment.head.id);
        disk.remove(&segment.path)?;
        if !planted(Bug::RemovalsNotSynced) {
            disk.sync_dir(dir)?;
        }
    }
    Ok(())
}

/// A creation that was broken off, or that a power cut took the name from.
pub(crate) fn is_draft(name: &str) -> bool {
    name.ends_with(".tmp")
}

/// The id in a file name; none for any other file.
pub(crate) fn segment_id(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".wal")?;
    if digits.len() != 16 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok()
}

/// Segment files that were read lately, so that not every read opens one.
pub(crate) struct OpenFiles {
    disk: Arc<dyn Disk>,
    /// The latest last.
    recent: Mutex<VecDeque<(u64, Arc<dyn DiskFile>)>>,
}

impl OpenFiles {
    pub(crate) fn new(disk: Arc<dyn Disk>) -> Arc<OpenFiles> {
        let recent = Mutex::default();
        Arc::new(OpenFiles { disk, recent })
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<(u64, Arc<dyn DiskFile>)>> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.disk.open(path)
    }

    fn get(&self, id: u64, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut recent = self.lock();
        if let Some(at) = recent.iter().position(|(other, _)| *other == id)
            && let Some(found) = recent.remove(at)
        {
            recent.push_back(found.clone());
            return Ok(found.1);
        }
        drop(recent);
        let file: Arc<dyn DiskFile> = Arc::from(self.open(path)?);
        self.put(id, Arc::clone(&file));
        Ok(file)
    }

    /// A file that is removed keeps its space as long as it is open.
    fn forget(&self, id: u64) {
        self.lock().retain(|(other, _)| *other != id);
    }

    fn put(&self, id: u64, file: Arc<dyn DiskFile>) {
        let mut recent = self.lock();
        recent.push_back((id, file));
        if recent.len() > OPEN_FILES_MAX {
            recent.pop_front();
        }
    }
}

/// A segment, shared by the writer and by whoever still reads from it.
pub(crate) struct Segment {
    pub head: SegmentHead,
    pub path: PathBuf,
    /// Bytes the file was preallocated with.
    pub capacity: u64,
    files: Arc<OpenFiles>,
    /// While it is written, and once it is removed.
    held: Mutex<Option<Arc<dyn DiskFile>>>,
    /// Batches in this file that are neither in the tier nor trimmed nor dropped.
    live: AtomicU64,
    live_bytes: AtomicU64,
}

impl Segment {
    pub(crate) fn new(
        head: SegmentHead,
        path: PathBuf,
        capacity: u64,
        files: Arc<OpenFiles>,
    ) -> Segment {
        let (live, live_bytes) = (AtomicU64::new(0), AtomicU64::new(0));
        let held = Mutex::default();
        Segment {
            head,
            path,
            capacity,
            files,
            held,
            live,
            live_bytes,
        }
    }

    pub(crate) fn files(&self) -> &Arc<OpenFiles> {
        &self.files
    }

    fn held(&self) -> MutexGuard<'_, Option<Arc<dyn DiskFile>>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its file, opened if it must be.
    pub(crate) fn file(&self) -> io::Result<Arc<dyn DiskFile>> {
        match &*self.held() {
            Some(file) => Ok(Arc::clone(file)),
            None => self.files.get(self.head.id, &self.path),
        }
    }

    /// Keeps its file open until `release`.
    pub(crate) fn hold(&self, file: Arc<dyn DiskFile>) {
        *self.held() = Some(file);
    }

    /// Nothing more is written to it: its file is open only while it is read.
    pub(crate) fn release(&self) {
        if let Some(file) = self.held().take() {
            self.files.put(self.head.id, file);
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

/// Where a batch stands in the WAL. Holding it keeps the file readable after its removal
/// (`remove_segments` sees to that).
#[derive(Clone)]
pub(crate) struct Location {
    pub segment: Arc<Segment>,
    /// From the file's first byte.
    pub at: u64,
    pub size: u32,
}
