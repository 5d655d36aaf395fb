//! A checkpoint of the WAL in a file of its own: all that the entries before a place say, so that
//! opening reads only what follows. It is a help and never the truth.
//!
//! File `checkpoint`: magic `RMQCKP01`, length of the JSON u64, the JSON (`Json`), 40 bytes a
//! segment (id u64, base u64, salt u64, capacity u64, crc of the entry before u32, zero u32), 64
//! bytes a batch in the order of the partitions (base u64, next u64, largest timestamp i64, append time
//! i64, segment u64, byte in its file u64, size u32, records u32, 1 if a producer numbered it
//! u32, epoch u32), crc32c of all that u32. Numbers are little-endian.
//!
//! Called by: `recovery` (reads it), `log::save` (writes it).
//! Invariants: it gets its name once all of it is durable; it counts only whole, and only over
//! the segments that it was made over. A segment that went since takes its batches along: they
//! were needed no more. Refuses a file that is cut, changed, of another WAL, or that ends before
//! the oldest segment: opening then reads the whole WAL, which costs time and nothing else.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use model::compaction::Compacted;
use model::{Offset, PartitionId, ShardEpoch};
use serde::{Deserialize, Serialize};

use super::entry::{u32_at, u64_at};
use super::recovery::{Found, FoundBatch, head_of};
use super::segment::{Location, OpenFiles, Segment, SegmentHead, segment_path};
use super::writer::Place;
use crate::io::Disk;
use crate::planted::{Bug, planted};
use crate::tier::manifest::ProducerMark;

const NAME: &str = "checkpoint";
const MAGIC: [u8; 8] = *b"RMQCKP01";
const SEGMENT_LEN: usize = 40;
const ROW_LEN: usize = 64;
/// A larger one is not written, and not read: it holds three million batches.
pub(crate) const SAVED_BYTES_MAX: usize = 256 << 20;

#[cfg(test)]
mod tests;

/// What a checkpoint says.
pub(crate) struct Saved {
    /// All entries before it are in here.
    pub place: Place,
    /// Up to the one of `place`, oldest first.
    pub segments: Vec<Arc<Segment>>,
    pub partitions: BTreeMap<PartitionId, Found>,
    /// Next sequence of each shard.
    pub sequences: BTreeMap<u32, u64>,
}

#[derive(Serialize, Deserialize)]
struct Json {
    /// Segment, byte in its file, and checksum of the entry before.
    place: (u64, u64, u32),
    /// So many rows come first.
    segments: u64,
    sequences: Vec<(u32, u64)>,
    partitions: Vec<JsonPartition>,
}

#[derive(Serialize, Deserialize)]
struct JsonPartition {
    id: PartitionId,
    start: Offset,
    end: Offset,
    /// So many rows are its own.
    batches: u64,
    producers: Vec<ProducerMark>,
    /// Some producers may be forgotten.
    is_partial: bool,
    compacted: Compacted,
}

fn path(dir: &Path) -> PathBuf {
    dir.join(NAME)
}

impl Saved {
    /// Whether a batch stands before the place.
    pub(crate) fn has(place: &Place, location: &Location) -> bool {
        (location.segment.head.id, location.at) < (place.segment.head.id, place.at)
    }

    /// Writes it in place of the one before, durably. Answers its bytes; none if it would be too
    /// large.
    pub(crate) fn write(&self, disk: &dyn Disk, dir: &Path) -> io::Result<Option<usize>> {
        let bytes = self.encode();
        if bytes.len() > SAVED_BYTES_MAX {
            return Ok(None);
        }
        let path = path(dir);
        let draft = path.with_extension("tmp");
        if let Err(error) = disk.create(&draft, bytes.len() as u64, &bytes) {
            // Gives the space back; the error that matters is the first one.
            let _ = disk.remove(&draft);
            return Err(error);
        }
        disk.rename(&draft, &path)?;
        disk.sync_dir(dir)?;
        Ok(Some(bytes.len()))
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let place = &self.place;
        let json = Json {
            place: (place.segment.head.id, place.at, place.previous),
            segments: self.segments.len() as u64,
            sequences: self
                .sequences
                .iter()
                .map(|(id, next)| (*id, *next))
                .collect(),
            partitions: self.partitions.iter().map(json_partition).collect(),
        };
        let json = serde_json::to_vec(&json).expect("a checkpoint has only numbers and lists");
        let rows: usize = self
            .partitions
            .values()
            .map(|found| found.batches.len())
            .sum();
        let mut out = Vec::with_capacity(
            20 + json.len() + self.segments.len() * SEGMENT_LEN + rows * ROW_LEN,
        );
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&(json.len() as u64).to_le_bytes());
        out.extend_from_slice(&json);
        for segment in &self.segments {
            put_segment(&mut out, segment);
        }
        for found in self.partitions.values() {
            found
                .batches
                .iter()
                .for_each(|(base, batch)| put_row(&mut out, *base, batch));
        }
        let crc = crc32c::crc32c(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        out
    }

    fn decode(bytes: &[u8], files: &Arc<OpenFiles>, dir: &Path) -> Result<Saved, String> {
        let (body, crc) = bytes.split_last_chunk::<4>().ok_or("it is too short")?;
        if crc32c::crc32c(body) != u32::from_le_bytes(*crc) && !planted(Bug::SavedNotSummed) {
            return Err("its checksum does not match".to_owned());
        }
        let rest = body
            .strip_prefix(&MAGIC)
            .ok_or("it does not begin as one")?;
        let (length, rest) = rest.split_first_chunk::<8>().ok_or("it is too short")?;
        let length = usize::try_from(u64::from_le_bytes(*length)).unwrap_or(usize::MAX);
        let (json, rows) = rest.split_at_checked(length).ok_or("it is too short")?;
        let json: Json = serde_json::from_slice(json).map_err(|error| error.to_string())?;
        let length = usize::try_from(json.segments).unwrap_or(usize::MAX);
        let length = length.saturating_mul(SEGMENT_LEN);
        let (heads, rows) = rows.split_at_checked(length).ok_or("it is too short")?;
        let segment = |row| Arc::new(segment(row, files, dir));
        let (heads, _) = heads.as_chunks::<SEGMENT_LEN>();
        let segments: Vec<Arc<Segment>> = heads.iter().map(segment).collect();
        let first = segments.first().map_or(0, |segment| segment.head.id);
        let by_id = |id: u64| segments.get(usize::try_from(id.checked_sub(first)?).ok()?);
        let mut rows = rows.chunks(ROW_LEN);
        let mut partitions = BTreeMap::new();
        for saved in json.partitions {
            let own = rows
                .by_ref()
                .take(usize::try_from(saved.batches).unwrap_or(usize::MAX));
            let batches = own.map(|row| row_batch(row, by_id));
            let batches = batches.collect::<Option<BTreeMap<Offset, FoundBatch>>>();
            let batches = batches.ok_or("a batch's row makes no sense")?;
            let by_base = |mark: ProducerMark| (mark.base_offset, mark);
            let found = Found {
                start: saved.start,
                end: saved.end,
                batches,
                producers: saved.producers.into_iter().map(by_base).collect(),
                is_partial: saved.is_partial,
                compacted: saved.compacted,
            };
            partitions.insert(saved.id, found);
        }
        let (id, at, previous) = json.place;
        let place = Place {
            segment: Arc::clone(by_id(id).ok_or("its own segment is not in it")?),
            at,
            previous,
        };
        Ok(Saved {
            place,
            segments: segments.clone(),
            partitions,
            sequences: json.sequences.into_iter().collect(),
        })
    }

    /// Leaves out what went since; says why it cannot be of this WAL.
    fn fit(mut self, files: &Arc<OpenFiles>, dir: &Path, ids: &[u64]) -> Result<Saved, String> {
        let own = &self.place.segment;
        let oldest = ids.first().copied().unwrap_or(0);
        if !ids.contains(&own.head.id) {
            return Err("it ends in a segment that is not there".to_owned());
        }
        let is_same = head_of(files, dir, own.head.id).is_ok_and(|there| there.head == own.head);
        if !is_same && !planted(Bug::SavedStaleBelieved) {
            return Err("it is of another log".to_owned());
        }
        self.segments.retain(|segment| segment.head.id >= oldest);
        for found in self.partitions.values_mut() {
            found
                .batches
                .retain(|_, batch| batch.location.segment.head.id >= oldest);
        }
        let known = self.segments.iter().map(|segment| segment.head.id);
        let there = ids
            .iter()
            .copied()
            .take_while(|id| *id <= self.place.segment.head.id);
        match known.eq(there) {
            true => Ok(self),
            false => Err("segments are missing, there or in it".to_owned()),
        }
    }
}

/// The checkpoint in `dir`, if there is one and it is of these segments; and its bytes.
pub(super) fn load(files: &Arc<OpenFiles>, dir: &Path, ids: &[u64]) -> Option<(Saved, usize)> {
    let path = path(dir);
    let read = || -> Result<(Saved, usize), String> {
        let file = files.open(&path).map_err(|error| error.to_string())?;
        let length = file.len().map_err(|error| error.to_string())?;
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if length > SAVED_BYTES_MAX {
            return Err(format!(
                "it has {length} bytes, more than were ever written"
            ));
        }
        let mut bytes = vec![0; length];
        file.read_exact_at(&mut bytes, 0)
            .map_err(|error| error.to_string())?;
        let saved = Saved::decode(&bytes, files, dir)?;
        Ok((saved.fit(files, dir, ids)?, length))
    };
    match read() {
        Ok(saved) => Some(saved),
        Err(reason) => {
            let path = path.display();
            tracing::info!(%path, %reason, "no checkpoint to go on from: the whole WAL is read");
            None
        }
    }
}

fn json_partition((id, found): (&PartitionId, &Found)) -> JsonPartition {
    let mut producers = found.producers.clone();
    let marks = found.batches.iter();
    producers.extend(marks.filter_map(|(base, batch)| Some((*base, batch.mark(*base)?))));
    JsonPartition {
        id: *id,
        start: found.start,
        end: found.end,
        batches: found.batches.len() as u64,
        producers: producers.into_values().collect(),
        is_partial: found.is_partial,
        compacted: found.compacted.clone(),
    }
}

fn put_segment(out: &mut Vec<u8>, segment: &Segment) {
    let head = &segment.head;
    for number in [head.id, head.base, head.salt, segment.capacity] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    out.extend_from_slice(&head.previous.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
}

fn segment(row: &[u8; SEGMENT_LEN], files: &Arc<OpenFiles>, dir: &Path) -> Segment {
    let head = SegmentHead {
        id: u64_at(row, 0),
        base: u64_at(row, 8),
        salt: u64_at(row, 16),
        previous: u32_at(row, 32),
    };
    let path = segment_path(dir, head.id);
    Segment::new(head, path, u64_at(row, 24), Arc::clone(files))
}

fn put_row(out: &mut Vec<u8>, base: Offset, batch: &FoundBatch) {
    let location = &batch.location;
    out.extend_from_slice(&base.to_le_bytes());
    out.extend_from_slice(&batch.next.to_le_bytes());
    out.extend_from_slice(&batch.max_timestamp.to_le_bytes());
    out.extend_from_slice(&batch.append_time_us.to_le_bytes());
    out.extend_from_slice(&location.segment.head.id.to_le_bytes());
    out.extend_from_slice(&location.at.to_le_bytes());
    out.extend_from_slice(&location.size.to_le_bytes());
    out.extend_from_slice(&batch.records.to_le_bytes());
    out.extend_from_slice(&u32::from(batch.is_numbered).to_le_bytes());
    out.extend_from_slice(&batch.epoch.0.to_le_bytes());
}

/// Which batch a row is, by base offset.
fn row_batch<'a>(
    row: &[u8],
    segment: impl Fn(u64) -> Option<&'a Arc<Segment>>,
) -> Option<(Offset, FoundBatch)> {
    let row: &[u8; ROW_LEN] = row.try_into().ok()?;
    let batch = FoundBatch {
        next: u64_at(row, 8),
        records: u32_at(row, 52),
        max_timestamp: u64_at(row, 16).cast_signed(),
        append_time_us: u64_at(row, 24).cast_signed(),
        producer: None,
        is_numbered: u32_at(row, 56) != 0,
        epoch: ShardEpoch(u32_at(row, 60)),
        location: Location {
            segment: Arc::clone(segment(u64_at(row, 32))?),
            at: u64_at(row, 40),
            size: u32_at(row, 48),
        },
    };
    Some((u64_at(row, 0), batch))
}
