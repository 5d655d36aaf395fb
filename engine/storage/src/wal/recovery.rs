//! Reads the WAL back when a store opens: what is whole is kept, a torn tail is left behind, and
//! damage to what was durable is named.
//!
//! Called by: `Store::open`, on a thread that may block.
//! Invariants: what is kept is a prefix; damage below what a later valid entry (or a later
//! segment) calls durable is corruption; what is kept but not known durable is written and
//! synced again before anything is built on it; a torn tail is overwritten with a durable mark,
//! so that what is left of it can never become whole again.
//! Refuses: corruption, missing segments, heads that belong elsewhere.

use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use model::compaction::Compacted;
use model::{Batch, Offset, PartitionId, Producer};

use super::damage::{After, is_zero, later, valid_at};
use super::entry::{self, Control, ENTRY_HEAD_LEN, EntryHead, Kind};
use super::segment::{
    Location, OpenFiles, SEGMENT_HEAD_LEN, Segment, SegmentHead, create_segment, is_draft,
    segment_id, segment_path,
};
use super::writer::{Head, salt, sealed};
use crate::error::OpenError;
use crate::io::{Disk, DiskFile};
use crate::planted::{Bug, planted};
use crate::tier::manifest::{PRODUCER_MARKS_MAX, ProducerMark, last_marks};

/// What the WAL holds of one batch.
pub(crate) struct FoundBatch {
    pub next: Offset,
    pub records: u32,
    pub max_timestamp: i64,
    pub append_time_us: i64,
    pub producer: Option<Producer>,
    pub location: Location,
}

/// What the WAL holds of one partition.
#[derive(Default)]
pub(crate) struct Found {
    /// Records before it were trimmed.
    pub start: Offset,
    /// At least this far the partition once went.
    pub end: Offset,
    /// By base offset; of two places the later one counts.
    pub batches: BTreeMap<Offset, FoundBatch>,
    /// Batches of producers that stand here no more, by base offset.
    pub producers: BTreeMap<Offset, ProducerMark>,
    pub compacted: Compacted,
}

impl Found {
    /// Makes way for a batch that stands for all from `base` to `next`.
    fn replace(&mut self, base: Offset, next: Offset) {
        let bases: Vec<Offset> = self.batches.range(base..next).map(|(b, _)| *b).collect();
        for base in bases {
            let gone = self.batches.remove(&base);
            self.remember(gone.and_then(|gone| gone.mark(base)));
        }
    }

    fn remember(&mut self, marks: impl IntoIterator<Item = ProducerMark>) {
        let by_base = |mark: ProducerMark| (mark.base_offset, mark);
        self.producers.extend(marks.into_iter().map(by_base));
        if self.producers.len() > 2 * PRODUCER_MARKS_MAX {
            let marks = std::mem::take(&mut self.producers).into_values().collect();
            self.producers
                .extend(last_marks(marks).into_iter().map(by_base));
        }
    }
}

impl FoundBatch {
    /// What is to be remembered of it if a producer numbered it.
    pub(crate) fn mark(&self, base_offset: Offset) -> Option<ProducerMark> {
        self.producer.map(|producer| ProducerMark {
            id: producer.id,
            epoch: producer.epoch,
            sequence: producer.sequence,
            base_offset,
            records: self.records,
        })
    }
}

/// A torn tail: what began there was never confirmed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Torn {
    pub path: PathBuf,
    pub at: u64,
}

pub(crate) struct Recovered {
    pub segments: Vec<Arc<Segment>>,
    pub head: Head,
    pub partitions: BTreeMap<PartitionId, Found>,
    /// Next sequence of each shard.
    pub sequences: BTreeMap<u32, u64>,
    pub torn: Option<Torn>,
    pub entries: u64,
}

/// State while the segments are read one after the other.
#[derive(Default)]
struct Scan {
    partitions: BTreeMap<PartitionId, Found>,
    sequences: BTreeMap<u32, u64>,
    entries: u64,
    /// Known durable, as far as valid entries and segment heads say.
    synced_to: u64,
}

/// Opens the WAL in `dir`, making its first segment if there is none.
pub(crate) fn recover(
    disk: &Arc<dyn Disk>,
    dir: &Path,
    segment_bytes: u64,
) -> Result<Recovered, OpenError> {
    let files = OpenFiles::new(Arc::clone(disk));
    let ids = segment_ids(&**disk, dir)?;
    let Some(first) = ids.first() else {
        return start(&files, dir, segment_bytes);
    };
    let segments = heads(&files, &**disk, dir, &ids, *first)?;
    let mut scan = Scan::default();
    let (previous, buffer) = scan.sealed(&**disk, &segments)?;
    scan.tail(&**disk, segments, previous, buffer)
}

/// The segments' heads; names the first that is missing or damaged.
fn heads(
    files: &Arc<OpenFiles>,
    disk: &dyn Disk,
    dir: &Path,
    ids: &[u64],
    first: u64,
) -> Result<Vec<Arc<Segment>>, OpenError> {
    let mut segments = Vec::with_capacity(ids.len());
    for (number, (id, due)) in ids.iter().zip(first..).enumerate() {
        let reason = match head_of(files, dir, *id) {
            _ if *id != due => "the segment is missing, and later ones exist".to_owned(),
            Ok(segment) => {
                segments.push(segment);
                continue;
            }
            Err(HeadError::Open(error)) => return Err(error),
            Err(HeadError::Bad(reason)) => reason,
        };
        let rest = ids[number..].iter();
        let rest = rest.filter_map(|id| head_of(files, dir, *id).ok());
        let place = (segment_path(dir, due), reason);
        return Err(bad_head(disk, &segments, place, &rest.collect::<Vec<_>>()));
    }
    Ok(segments)
}

/// The first segment of a new WAL.
fn start(files: &Arc<OpenFiles>, dir: &Path, segment_bytes: u64) -> Result<Recovered, OpenError> {
    let head = SegmentHead {
        id: 0,
        base: 0,
        salt: salt(),
        previous: 0,
    };
    let create = |error| OpenError::io("create", &segment_path(dir, 0), error);
    let segment = create_segment(files, dir, head, segment_bytes, 0).map_err(create)?;
    let file = segment.file().map_err(create)?;
    let segment = Arc::new(segment);
    Ok(Recovered {
        segments: vec![Arc::clone(&segment)],
        head: Head {
            segment,
            file,
            at: SEGMENT_HEAD_LEN as u64,
            previous: 0,
        },
        partitions: BTreeMap::new(),
        sequences: BTreeMap::new(),
        torn: None,
        entries: 0,
    })
}

/// Ids of the segments in `dir`, in order; what a broken-off creation left is removed.
fn segment_ids(disk: &dyn Disk, dir: &Path) -> Result<Vec<u64>, OpenError> {
    let mut ids = Vec::new();
    for name in disk
        .list(dir)
        .map_err(|error| OpenError::io("list", dir, error))?
    {
        if let Some(id) = segment_id(&name) {
            ids.push(id);
        } else if is_draft(&name) {
            let path = dir.join(&name);
            disk.remove(&path)
                .map_err(|error| OpenError::io("remove", &path, error))?;
        }
    }
    ids.sort_unstable();
    Ok(ids)
}

/// Why a segment's head was not read.
enum HeadError {
    Open(OpenError),
    Bad(String),
}

/// A segment as its head says; its file is open only meanwhile.
fn head_of(files: &Arc<OpenFiles>, dir: &Path, id: u64) -> Result<Arc<Segment>, HeadError> {
    let path = segment_path(dir, id);
    let io = |error| HeadError::Open(OpenError::io("read", &path, error));
    let bad = |reason: &str| HeadError::Bad(reason.to_owned());
    let file = files.open(&path).map_err(io)?;
    let capacity = file.len().map_err(io)?;
    let mut bytes = [0u8; SEGMENT_HEAD_LEN];
    match file.read_exact_at(&mut bytes, 0) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            return Err(bad("the file is shorter than a segment's head"));
        }
        read => read.map_err(io)?,
    }
    let head = SegmentHead::decode(&bytes).map_err(bad)?;
    if head.id != id {
        return Err(bad(&format!("it is the file of segment {}", head.id)));
    }
    let segment = Segment::new(head, path, capacity, Arc::clone(files));
    Ok(Arc::new(segment))
}

/// Names a segment whose head is gone, and what is lost with it: what lies between the segments
/// `before` and the ones after.
fn bad_head(
    disk: &dyn Disk,
    before: &[Arc<Segment>],
    (path, reason): (PathBuf, String),
    after: &[Arc<Segment>],
) -> OpenError {
    let mut scan = Scan::default();
    let mut previous = before.first().map_or(0, |segment| segment.head.previous);
    for segment in before {
        let Ok(bytes) = read_whole(disk, segment) else {
            break;
        };
        let Ok(end) = scan.segment(segment, &bytes, previous) else {
            break;
        };
        previous = end.previous;
    }
    let mut rest = After::default();
    rest.take_all(after.iter(), |segment| read_whole(disk, segment).ok());
    OpenError::Corrupt {
        path,
        position: 0,
        reason,
        lost: rest.lost(|partition| scan.end_of(partition)),
    }
}

fn read_whole(disk: &dyn Disk, segment: &Segment) -> Result<Bytes, OpenError> {
    let file = open(disk, segment)?;
    read_segment(&*file, segment, u64::MAX, BytesMut::new())
}

fn open(disk: &dyn Disk, segment: &Segment) -> Result<Box<dyn DiskFile>, OpenError> {
    disk.open(&segment.path)
        .map_err(|error| OpenError::io("read", &segment.path, error))
}

/// Reads a segment's first `limit` bytes into the buffer.
fn read_segment(
    file: &dyn DiskFile,
    segment: &Segment,
    limit: u64,
    mut buffer: BytesMut,
) -> Result<Bytes, OpenError> {
    buffer.resize(segment.capacity.min(limit) as usize, 0);
    file.read_exact_at(&mut buffer, 0)
        .map_err(|error| OpenError::io("read", &segment.path, error))?;
    Ok(buffer.freeze())
}

/// Where the valid entries of a segment end.
struct End {
    at: usize,
    previous: u32,
}

impl Scan {
    /// Takes all segments but the last, each of which must be whole. Answers the checksum of the
    /// last entry, and a buffer to go on with.
    fn sealed(
        &mut self,
        disk: &dyn Disk,
        segments: &[Arc<Segment>],
    ) -> Result<(u32, BytesMut), OpenError> {
        let mut previous = segments[0].head.previous;
        let mut buffer = BytesMut::new();
        for (number, next) in segments.iter().enumerate().skip(1) {
            let segment = &segments[number - 1];
            let limit = next.head.base.saturating_sub(segment.head.base);
            let bytes = read_segment(&*open(disk, segment)?, segment, limit, buffer)?;
            let end = self.segment(segment, &bytes, previous)?;
            if end.at as u64 != limit || end.previous != next.head.previous {
                let place = (&segments[number - 1..], end.at);
                return Err(self.corrupt(disk, place, &bytes, "an entry is damaged or missing"));
            }
            previous = end.previous;
            self.synced_to = next.head.base;
            buffer = bytes.try_into_mut().unwrap_or_default();
        }
        Ok((previous, buffer))
    }

    /// Takes the last segment, whose tail may be torn, and settles it.
    fn tail(
        mut self,
        disk: &dyn Disk,
        segments: Vec<Arc<Segment>>,
        previous: u32,
        buffer: BytesMut,
    ) -> Result<Recovered, OpenError> {
        let segment = Arc::clone(&segments[segments.len() - 1]);
        let file: Arc<dyn DiskFile> = Arc::from(open(disk, &segment)?);
        let bytes = read_segment(&*file, &segment, segment.capacity, buffer)?;
        let begin = segment.head.base + SEGMENT_HEAD_LEN as u64;
        self.synced_to = self.synced_to.max(begin);
        let mut end = self.segment(&segment, &bytes, previous)?;
        self.check_tail(disk, &segment, &bytes, end.at)?;
        let torn = self
            .settle_tail(&segment, &*file, &bytes, &mut end)
            .map_err(|error| OpenError::io("repair", &segment.path, error))?;
        segment.hold(Arc::clone(&file));
        let head = Head {
            segment,
            file,
            at: end.at as u64,
            previous: end.previous,
        };
        Ok(Recovered {
            head,
            partitions: self.partitions,
            sequences: self.sequences,
            torn,
            entries: self.entries,
            segments,
        })
    }

    /// Takes all valid entries from the segment's beginning.
    fn segment(
        &mut self,
        segment: &Arc<Segment>,
        bytes: &Bytes,
        previous: u32,
    ) -> Result<End, OpenError> {
        let mut end = End {
            at: SEGMENT_HEAD_LEN,
            previous,
        };
        while let Some((head, crc)) = valid_at(&segment.head, bytes, end.at) {
            let is_checked = !planted(Bug::HoleSkipped) && !planted(Bug::PreviousNotChecked);
            if head.previous != end.previous && is_checked {
                break;
            }
            let entry = bytes.slice(end.at..end.at + head.length as usize);
            self.entry(segment, end.at, &head, &entry)
                .map_err(|reason| OpenError::Corrupt {
                    path: segment.path.clone(),
                    position: end.at as u64,
                    reason,
                    lost: String::new(),
                })?;
            end = End {
                at: end.at + head.length as usize,
                previous: crc,
            };
            if planted(Bug::HoleSkipped) && valid_at(&segment.head, bytes, end.at).is_none() {
                end.at = later(&segment.head, bytes, end.at)
                    .next()
                    .map_or(end.at, |(at, _)| at);
            }
        }
        Ok(end)
    }

    fn entry(
        &mut self,
        segment: &Arc<Segment>,
        at: usize,
        head: &EntryHead,
        entry: &Bytes,
    ) -> Result<(), String> {
        self.entries += 1;
        self.synced_to = self.synced_to.max(head.synced_to);
        match head.kind {
            Kind::Mark => {}
            Kind::Control => self.control(entry::control(entry, head.count)?),
            Kind::Batches | Kind::Moved => {
                let next = self.sequences.entry(head.shard).or_default();
                *next = (*next).max(head.sequence + 1);
                for part in entry::parts(entry, head.count)? {
                    let size = part.batch.len() as u32;
                    let batch = Batch::decode(part.batch)
                        .map_err(|error| format!("partition {}: {error}", part.partition))?;
                    let at = (at + part.at) as u64;
                    let location = Location {
                        segment: Arc::clone(segment),
                        at,
                        size,
                    };
                    self.batch(head.kind, part.partition, &batch, location);
                }
            }
        }
        Ok(())
    }

    fn batch(&mut self, kind: Kind, partition: PartitionId, batch: &Batch, location: Location) {
        let found = self.partitions.entry(partition).or_default();
        let base = batch.base_offset();
        let next = batch.next_offset();
        if kind == Kind::Moved {
            found.replace(base, next);
        }
        let facts = FoundBatch {
            next,
            records: batch.len(),
            max_timestamp: batch.max_timestamp(),
            append_time_us: batch.append_time(),
            producer: batch.producer(),
            location,
        };
        found.batches.insert(base, facts);
        found.end = found.end.max(next);
    }

    fn control(&mut self, control: Control) {
        match control {
            Control::Trim { partition, before } => {
                let found = self.partitions.entry(partition).or_default();
                found.start = found.start.max(before);
            }
            Control::Drop { partition } => {
                self.partitions.remove(&partition);
            }
            Control::Producers { partition, batches } => {
                self.partitions
                    .entry(partition)
                    .or_default()
                    .remember(batches);
            }
            Control::Compacted {
                partition,
                compacted,
            } => self.partitions.entry(partition).or_default().compacted = compacted,
            Control::Checkpoint {
                partitions,
                sequences,
            } => {
                for (shard, sequence) in sequences {
                    let next = self.sequences.entry(shard).or_default();
                    *next = (*next).max(sequence);
                }
                for (partition, start, end) in partitions {
                    let found = self.partitions.entry(partition).or_default();
                    found.start = found.start.max(start);
                    found.end = found.end.max(end);
                }
            }
        }
    }

    fn end_of(&self, partition: PartitionId) -> Offset {
        let found = self.partitions.get(&partition);
        found.map_or(0, |found| found.end)
    }

    /// Refuses a tail whose damage cannot be that of a power cut.
    fn check_tail(
        &self,
        disk: &dyn Disk,
        segment: &Arc<Segment>,
        bytes: &Bytes,
        at: usize,
    ) -> Result<(), OpenError> {
        let position = segment.head.base + at as u64;
        let mut claims = later(&segment.head, bytes, at).map(|(_, head)| head.synced_to);
        let is_durable = self.synced_to > position || claims.any(|to| to > position);
        if is_durable && !planted(Bug::DamageCut) {
            let reason = "an entry that was known durable is damaged";
            let place = (std::slice::from_ref(segment), at);
            return Err(self.corrupt(disk, place, bytes, reason));
        }
        Ok(())
    }

    /// Makes what is kept durable, and what is left of a torn tail unusable for ever.
    fn settle_tail(
        &self,
        segment: &Segment,
        file: &dyn DiskFile,
        bytes: &Bytes,
        end: &mut End,
    ) -> io::Result<Option<Torn>> {
        let at = end.at;
        let known = (self.synced_to.saturating_sub(segment.head.base) as usize).min(at);
        if known < at {
            // The process before may have seen a sync fail: the page cache then shows bytes
            // the disk never got, and calls them clean.
            let mut slices = [IoSlice::new(&bytes[known..at])];
            file.write_all_at(&mut slices, known as u64)?;
            file.sync()?;
        }
        if is_zero(&bytes[at..]) {
            return Ok(None);
        }
        // Where no mark fits, no entry can begin.
        if bytes.len() - at >= ENTRY_HEAD_LEN && !planted(Bug::TornTailKept) {
            let position = segment.head.base + at as u64;
            let (mark, crc) = sealed(
                EntryHead {
                    length: ENTRY_HEAD_LEN as u32,
                    kind: Kind::Mark,
                    position,
                    segment: segment.head.id,
                    synced_to: position,
                    sequence: 0,
                    shard: 0,
                    epoch: 0,
                    previous: end.previous,
                    count: 0,
                },
                segment.head.salt,
            );
            file.write_all_at(&mut [IoSlice::new(&mark)], at as u64)?;
            file.sync()?;
            *end = End {
                at: at + ENTRY_HEAD_LEN,
                previous: crc,
            };
        }
        Ok(Some(Torn {
            path: segment.path.clone(),
            at: at as u64,
        }))
    }

    /// Names the damage in the first of `segments`, as far as what comes after it tells.
    fn corrupt(
        &self,
        disk: &dyn Disk,
        (segments, at): (&[Arc<Segment>], usize),
        bytes: &Bytes,
        reason: &str,
    ) -> OpenError {
        let mut after = After::default();
        after.take(&segments[0].head, bytes, at);
        let rest = segments[1..].iter();
        after.take_all(rest, |segment| read_whole(disk, segment).ok());
        OpenError::Corrupt {
            path: segments[0].path.clone(),
            position: at as u64,
            reason: reason.to_owned(),
            lost: after.lost(|partition| self.end_of(partition)),
        }
    }
}
