//! Reads the WAL back when a store opens: what is whole is kept, a torn tail is cut, and damage
//! to what was durable is named.
//!
//! Called by: `Store::open`, on a thread that may block.
//! Invariants: what is kept is a prefix; damage below what a later valid entry (or a later
//! segment) calls durable is corruption; what is kept but not known durable is written and
//! synced again before anything is built on it.
//! Refuses: corruption, missing segments, heads that belong elsewhere.

use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use model::compaction::Compacted;
use model::{Batch, Offset, PartitionId, Producer};

use super::entry::{self, Control, ENTRY_HEAD_LEN, EntryHead, Kind};
use super::segment::{Location, SEGMENT_HEAD_LEN, Segment, SegmentHead, segment_id, segment_path};
use super::writer::{Head, create_segment, salt};
use crate::error::OpenError;
use crate::io::Disk;
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

/// A torn tail that was cut off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cut {
    pub path: PathBuf,
    pub at: u64,
}

pub(crate) struct Recovered {
    pub segments: Vec<Arc<Segment>>,
    pub head: Head,
    pub partitions: BTreeMap<PartitionId, Found>,
    /// Next sequence of each shard.
    pub sequences: BTreeMap<u32, u64>,
    pub cut: Option<Cut>,
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
    disk: &dyn Disk,
    dir: &Path,
    segment_bytes: u64,
) -> Result<Recovered, OpenError> {
    let ids = segment_ids(disk, dir)?;
    if ids.is_empty() {
        return start(disk, dir, segment_bytes);
    }
    let segments = open_segments(disk, dir, &ids)?;
    let mut scan = Scan::default();
    let mut previous = segments[0].head.previous;
    let last = segments.len() - 1;
    for (segment, next) in segments.iter().zip(&segments[1..]) {
        let limit = next.head.base.saturating_sub(segment.head.base);
        let bytes = read_segment(segment, limit)?;
        let end = scan.segment(segment, &bytes, previous)?;
        if end.at as u64 != limit || end.previous != next.head.previous {
            return Err(scan.corrupt(segment, &bytes, end.at, "an entry is damaged or missing"));
        }
        previous = end.previous;
        scan.synced_to = next.head.base;
    }
    let segment = &segments[last];
    let bytes = read_segment(segment, segment.capacity)?;
    scan.synced_to = scan
        .synced_to
        .max(segment.head.base + SEGMENT_HEAD_LEN as u64);
    let end = scan.segment(segment, &bytes, previous)?;
    let cut = scan.settle_tail(segment, &bytes, end.at)?;
    let head = Head {
        segment: Arc::clone(segment),
        at: end.at as u64,
        previous: end.previous,
    };
    let Scan {
        partitions,
        sequences,
        entries,
        ..
    } = scan;
    Ok(Recovered {
        segments,
        head,
        partitions,
        sequences,
        cut,
        entries,
    })
}

/// The first segment of a new WAL.
fn start(disk: &dyn Disk, dir: &Path, segment_bytes: u64) -> Result<Recovered, OpenError> {
    let head = SegmentHead {
        id: 0,
        base: 0,
        salt: salt(),
        previous: 0,
    };
    let segment = create_segment(disk, dir, head, segment_bytes, 0)
        .map_err(|error| OpenError::io("create", &segment_path(dir, 0), error))?;
    let segment = Arc::new(segment);
    let at = SEGMENT_HEAD_LEN as u64;
    Ok(Recovered {
        segments: vec![Arc::clone(&segment)],
        head: Head {
            segment,
            at,
            previous: 0,
        },
        partitions: BTreeMap::new(),
        sequences: BTreeMap::new(),
        cut: None,
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
        } else if name.ends_with(".tmp") {
            let path = dir.join(&name);
            disk.remove(&path)
                .map_err(|error| OpenError::io("remove", &path, error))?;
        }
    }
    ids.sort_unstable();
    for pair in ids.windows(2) {
        if pair[1] != pair[0] + 1 {
            return Err(OpenError::Corrupt {
                path: segment_path(dir, pair[0] + 1),
                position: 0,
                reason: "the segment is missing, and later ones exist".to_owned(),
                lost: String::new(),
            });
        }
    }
    Ok(ids)
}

fn open_segments(disk: &dyn Disk, dir: &Path, ids: &[u64]) -> Result<Vec<Arc<Segment>>, OpenError> {
    let open = |id: &u64| {
        let path = segment_path(dir, *id);
        let io = |error| OpenError::io("read", &path, error);
        let corrupt = |reason: &str| OpenError::Corrupt {
            path: path.clone(),
            position: 0,
            reason: reason.to_owned(),
            lost: String::new(),
        };
        let file = disk.open(&path).map_err(io)?;
        let capacity = file.len().map_err(io)?;
        let mut bytes = [0u8; SEGMENT_HEAD_LEN];
        match file.read_exact_at(&mut bytes, 0) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(corrupt("the file is shorter than a segment's head"));
            }
            other => other.map_err(io)?,
        }
        let head = SegmentHead::decode(&bytes).map_err(corrupt)?;
        if head.id != *id {
            return Err(corrupt(&format!("it is the file of segment {}", head.id)));
        }
        Ok(Arc::new(Segment::new(head, path.clone(), capacity, file)))
    };
    ids.iter().map(open).collect()
}

fn read_segment(segment: &Segment, limit: u64) -> Result<Bytes, OpenError> {
    let mut bytes = vec![0u8; segment.capacity.min(limit) as usize];
    segment
        .file
        .read_exact_at(&mut bytes, 0)
        .map_err(|error| OpenError::io("read", &segment.path, error))?;
    Ok(Bytes::from(bytes))
}

/// Where the valid entries of a segment end.
struct End {
    at: usize,
    previous: u32,
}

/// The entry at `at`, if it is whole and belongs there.
fn valid_at(segment: &SegmentHead, bytes: &[u8], at: usize) -> Option<(EntryHead, u32)> {
    let head_bytes = bytes.get(at..at + ENTRY_HEAD_LEN)?.try_into().ok()?;
    let (head, crc) = EntryHead::decode(head_bytes)?;
    if head.segment != segment.id || head.position != segment.base + at as u64 {
        return None;
    }
    let entry = bytes.get(at..at + head.length as usize)?;
    entry::checksum_holds(segment.salt, entry, crc).then_some((head, crc))
}

/// Valid entries anywhere after `from`, each taken on its own.
fn later<'a>(
    segment: &'a SegmentHead,
    bytes: &'a Bytes,
    from: usize,
) -> impl Iterator<Item = (usize, EntryHead)> + 'a {
    let mut at = from;
    std::iter::from_fn(move || {
        while at + ENTRY_HEAD_LEN <= bytes.len() {
            at += skip_zeros(&bytes[at..]);
            let here = at;
            if let Some((head, _)) = valid_at(segment, bytes, here) {
                at += head.length as usize;
                return Some((here, head));
            }
            at += 8;
        }
        None
    })
}

/// Bytes of zeros in front, in large steps: an unused rest is most of a fresh segment.
fn skip_zeros(bytes: &[u8]) -> usize {
    static ZEROS: [u8; 4096] = [0; 4096];
    bytes
        .chunks_exact(ZEROS.len())
        .take_while(|chunk| **chunk == ZEROS)
        .count()
        * ZEROS.len()
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes[skip_zeros(bytes)..].iter().all(|byte| *byte == 0)
}

impl Scan {
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
            if head.previous != end.previous && !planted(Bug::HoleSkipped) {
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

    /// Decides what the bytes after the last valid entry are: nothing, a torn tail, or damage.
    fn settle_tail(
        &mut self,
        segment: &Segment,
        bytes: &Bytes,
        at: usize,
    ) -> Result<Option<Cut>, OpenError> {
        let position = segment.head.base + at as u64;
        let durable = later(&segment.head, bytes, at).any(|(_, head)| head.synced_to > position);
        if (durable || self.synced_to > position) && !planted(Bug::DamageCut) {
            let reason = "an entry that was known durable is damaged";
            return Err(self.corrupt(segment, bytes, at, reason));
        }
        let io = |error| OpenError::io("repair", &segment.path, error);
        let known = (self.synced_to.saturating_sub(segment.head.base) as usize).min(at);
        if known < at {
            // The process before may have seen a sync fail: the page cache then shows bytes
            // the disk never got, and calls them clean.
            let mut slices = [IoSlice::new(&bytes[known..at])];
            segment
                .file
                .write_all_at(&mut slices, known as u64)
                .map_err(io)?;
            segment.file.sync().map_err(io)?;
        }
        if is_zero(&bytes[at..]) {
            return Ok(None);
        }
        segment.file.cut(at as u64, segment.capacity).map_err(io)?;
        Ok(Some(Cut {
            path: segment.path.clone(),
            at: at as u64,
        }))
    }

    fn corrupt(&self, segment: &Segment, bytes: &Bytes, at: usize, reason: &str) -> OpenError {
        OpenError::Corrupt {
            path: segment.path.clone(),
            position: at as u64,
            reason: reason.to_owned(),
            lost: self.lost(&segment.head, bytes, at),
        }
    }

    /// Which offsets the damage took, as far as later entries of the segment tell.
    fn lost(&self, segment: &SegmentHead, bytes: &Bytes, at: usize) -> String {
        let mut firsts: BTreeMap<PartitionId, Offset> = BTreeMap::new();
        for (at, head) in later(segment, bytes, at) {
            if head.kind != Kind::Batches {
                continue;
            }
            let entry = bytes.slice(at..at + head.length as usize);
            for part in entry::parts(&entry, head.count).unwrap_or_default() {
                if let Ok(batch) = Batch::decode(part.batch) {
                    firsts.entry(part.partition).or_insert(batch.base_offset());
                }
            }
        }
        let gaps: Vec<String> = firsts
            .into_iter()
            .filter_map(|(partition, first)| {
                let end = self.partitions.get(&partition).map_or(0, |found| found.end);
                (first > end)
                    .then(|| format!("partition {partition} offsets {end} to {}", first - 1))
            })
            .collect();
        if gaps.is_empty() {
            String::new()
        } else {
            format!("; lost: {}", gaps.join(", "))
        }
    }
}
