//! A log with everything in it, cut and flipped at every byte of every file: recovery gives
//! exactly the entries before, or names the damage, and is right about which of the two it is.
//!
//! The judge here knows only what was written where, and shares no code with recovery: damage is
//! corruption if it is in a segment before the last or in a head, or if a later entry says that
//! it was durable; all other damage is a torn tail.
//! `PROOF_ALL=1` flips each bit of each byte; without it each byte is flipped in two ways.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use model::compaction::Compacted;
use model::{Batch, Offset, PartitionId, ProducerId, TopicId};

use super::Kind;
use super::entry::{Control, ENTRY_HEAD_LEN, entry_len};
use super::recovery::{Recovered, Torn, recover};
use super::segment::{SEGMENT_HEAD_LEN, segment_path};
use super::writer::{WalWriter, control_json, control_len};
use crate::error::OpenError;
use crate::io::Disk;
use crate::log::tests::batch;
use crate::tests::disk::SimDisk;
use crate::tier::manifest::ProducerMark;

const DIR: &str = "/wal";
const SEGMENT_BYTES: u64 = 4 << 10;
const A: PartitionId = PartitionId::new(TopicId(1), 0);
const B: PartitionId = PartitionId::new(TopicId(1), 1);
const C: PartitionId = PartitionId::new(TopicId(2), 0);

/// What a WAL holds of one partition.
#[derive(Clone, Debug, Default, PartialEq)]
struct Part {
    start: Offset,
    end: Offset,
    /// By base offset: next offset, segment, byte in its file.
    batches: BTreeMap<Offset, (Offset, u64, u64)>,
    producers: Vec<ProducerMark>,
    compacted: Compacted,
}

/// What a WAL holds.
#[derive(Clone, Debug, Default, PartialEq)]
struct Holds {
    parts: BTreeMap<PartitionId, Part>,
    sequences: BTreeMap<u32, u64>,
}

fn holds(recovered: &Recovered) -> Holds {
    let mut parts = BTreeMap::new();
    for (id, found) in &recovered.partitions {
        let batches = found.batches.iter().map(|(base, batch)| {
            let place = (
                batch.next,
                batch.location.segment.head.id,
                batch.location.at,
            );
            (*base, place)
        });
        let part = Part {
            start: found.start,
            end: found.end,
            batches: batches.collect(),
            producers: found.producers.values().cloned().collect(),
            compacted: found.compacted.clone(),
        };
        parts.insert(*id, part);
    }
    let sequences = recovered.sequences.clone();
    Holds { parts, sequences }
}

struct Written {
    segment: u64,
    bytes: Range<usize>,
    /// Position of its first byte.
    position: u64,
    /// What it says was durable.
    synced_to: u64,
    /// Partitions and offsets it tells of.
    tells: Vec<(PartitionId, Offset)>,
}

struct Log {
    disk: SimDisk,
    wal: WalWriter,
    synced_to: u64,
    written: Vec<Written>,
    /// After so many entries.
    holds: Vec<Holds>,
    batches: BTreeMap<(PartitionId, Offset), Batch>,
}

fn open(disk: &SimDisk) -> Result<Recovered, OpenError> {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    recover(&disk, Path::new(DIR), SEGMENT_BYTES)
}

impl Log {
    fn new() -> Log {
        let disk = SimDisk::default();
        let head = open(&disk).unwrap().head;
        let wal = WalWriter::new(DIR.into(), SEGMENT_BYTES, head);
        Log {
            disk,
            synced_to: wal.position(),
            wal,
            written: Vec::new(),
            holds: vec![Holds::default()],
            batches: BTreeMap::new(),
        }
    }

    fn sync(&mut self) {
        self.wal.sync().unwrap();
        self.synced_to = self.wal.position();
    }

    /// Makes room, stages, writes; answers segment and first byte of the entry.
    fn entry<T>(
        &mut self,
        length: usize,
        tells: Vec<(PartitionId, Offset)>,
        stage: impl FnOnce(&mut WalWriter) -> T,
    ) -> T {
        if !self.wal.fits(length) {
            self.wal.roll(length).unwrap();
            self.synced_to = self.wal.position();
        }
        let (segment, from) = self.wal.place();
        let position = self.wal.position();
        let staged = stage(&mut self.wal);
        self.wal.write().unwrap();
        self.written.push(Written {
            segment,
            bytes: from..from + length,
            position,
            synced_to: self.synced_to,
            tells,
        });
        self.holds.push(self.holds.last().unwrap().clone());
        staged
    }

    fn last(&mut self) -> &mut Holds {
        self.holds.last_mut().unwrap()
    }

    fn batches(&mut self, kind: Kind, batches: &[(PartitionId, Batch)]) {
        let length = entry_len(batches.iter().map(|(_, batch)| batch.size()));
        let sequence = self.last().sequences.get(&3).copied().unwrap_or(0);
        let tells = batches.iter().filter(|_| kind == Kind::Batches);
        let tells = tells.map(|(id, batch)| (*id, batch.base_offset()));
        let locations = self.entry(length, tells.collect(), |wal| {
            let batches = batches.iter().map(|(id, batch)| (*id, batch));
            wal.stage(kind, (3, 1, sequence), batches)
        });
        self.last().sequences.insert(3, sequence + 1);
        for ((id, batch), location) in batches.iter().zip(locations) {
            let place = (batch.next_offset(), location.segment.head.id, location.at);
            let part = self.last().parts.entry(*id).or_default();
            let (base, next) = (batch.base_offset(), batch.next_offset());
            part.batches.retain(|at, _| !(base..next).contains(at));
            part.batches.insert(batch.base_offset(), place);
            part.end = part.end.max(batch.next_offset());
            self.batches
                .insert((*id, batch.base_offset()), batch.clone());
        }
    }

    fn append(&mut self, parts: &[(PartitionId, u64, usize)]) {
        let mut batches: Vec<(PartitionId, Batch)> = Vec::new();
        for (id, rows, text) in parts {
            let own = batches.iter().rev().find(|(other, _)| other == id);
            let end = self.last().parts.get(id).map_or(0, |part| part.end);
            let base = own.map_or(end, |(_, batch)| batch.next_offset());
            batches.push((*id, batch(base, *rows, &"x".repeat(*text))));
        }
        self.batches(Kind::Batches, &batches);
    }

    fn moved(&mut self, places: &[(PartitionId, Offset)]) {
        let batch = |place: &(PartitionId, Offset)| (place.0, self.batches[place].clone());
        let batches: Vec<_> = places.iter().map(batch).collect();
        self.batches(Kind::Moved, &batches);
    }

    fn control(&mut self, control: &Control) {
        let json = control_json(control);
        let tells = match control {
            Control::Checkpoint { partitions, .. } => {
                partitions.iter().map(|(id, _, end)| (*id, *end)).collect()
            }
            _ => Vec::new(),
        };
        self.entry(control_len(&json), tells, |wal| wal.stage_control(&json));
        let holds = self.last();
        match control {
            Control::Trim { partition, before } => {
                holds.parts.entry(*partition).or_default().start = *before;
            }
            Control::Drop { partition } => {
                holds.parts.remove(partition);
            }
            Control::Producers { partition, batches } => {
                let part = holds.parts.entry(*partition).or_default();
                part.producers.extend(batches.iter().cloned());
            }
            Control::Compacted {
                partition,
                compacted,
            } => {
                holds.parts.entry(*partition).or_default().compacted = compacted.clone();
            }
            Control::Checkpoint {
                partitions,
                sequences,
            } => {
                for (id, start, end) in partitions {
                    let part = holds.parts.entry(*id).or_default();
                    (part.start, part.end) = (part.start.max(*start), part.end.max(*end));
                }
                holds.sequences.extend(sequences.iter().copied());
            }
        }
    }

    fn mark(&mut self) {
        self.entry(64, Vec::new(), WalWriter::stage_mark);
    }

    fn path(&self, segment: u64) -> PathBuf {
        segment_path(Path::new(DIR), segment)
    }

    fn last_segment(&self) -> u64 {
        self.written.last().unwrap().segment
    }

    /// What must be found when the bytes of `segment` at `damage` are not what was written;
    /// `is_there` says whether a later entry still is.
    fn verdict(
        &self,
        segment: u64,
        damage: &dyn Fn(&Range<usize>) -> bool,
        is_there: &dyn Fn(&Written) -> bool,
    ) -> Verdict {
        let of = |entry: &Written| entry.segment == segment;
        let first = self
            .written
            .iter()
            .position(|entry| of(entry) && damage(&entry.bytes));
        if damage(&(0..SEGMENT_HEAD_LEN)) {
            // With the head goes the salt: nothing in the file can be told apart.
            let before = self.written.iter().position(of);
            let before = before.unwrap_or(self.written.len());
            let rest = self.written.iter().filter(|entry| entry.segment > segment);
            return Verdict::Corrupt(0, self.lost(before, rest));
        }
        let Some(first) = first else {
            return Verdict::Holds(self.written.len());
        };
        let hit = &self.written[first];
        let rest = || self.written[first..].iter().filter(|entry| is_there(entry));
        let is_durable =
            segment < self.last_segment() || rest().any(|entry| entry.synced_to > hit.position);
        match is_durable {
            true => Verdict::Corrupt(hit.bytes.start, self.lost(first, rest())),
            false => Verdict::Holds(first),
        }
    }

    fn lost<'a>(&self, entries: usize, rest: impl Iterator<Item = &'a Written>) -> String {
        let mut firsts = BTreeMap::new();
        for (id, offset) in rest.flat_map(|entry| &entry.tells) {
            firsts.entry(*id).or_insert(*offset);
        }
        let end = |id| self.holds[entries].parts.get(id).map_or(0, |part| part.end);
        let gaps = firsts.iter().filter(|(id, first)| **first > end(*id));
        let gaps =
            gaps.map(|(id, first)| format!("partition {id} offsets {} to {}", end(id), first - 1));
        let gaps: Vec<String> = gaps.collect();
        match gaps.is_empty() {
            true => String::new(),
            false => format!("; lost: {}", gaps.join(", ")),
        }
    }

    fn check(&self, disk: &SimDisk, segment: u64, verdict: &Verdict, what: &str) {
        match (open(disk), verdict) {
            (Ok(recovered), Verdict::Holds(entries)) => {
                assert_eq!(holds(&recovered), self.holds[*entries], "{what}");
                assert_eq!(recovered.entries, *entries as u64, "{what}");
            }
            (
                Err(OpenError::Corrupt {
                    path,
                    position,
                    lost,
                    ..
                }),
                Verdict::Corrupt(at, names),
            ) => {
                let got = (path, position, lost);
                assert_eq!(
                    got,
                    (self.path(segment), *at as u64, names.clone()),
                    "{what}"
                );
            }
            (Ok(recovered), Verdict::Corrupt(..)) => {
                panic!("{what} was not named: {:?}", recovered.torn)
            }
            (Err(error), _) => panic!("{what}: {error}, not {verdict:?}"),
        }
    }
}

#[derive(Debug)]
enum Verdict {
    /// So many entries are there.
    Holds(usize),
    /// Damage at this byte of the file, and what is said to be lost.
    Corrupt(usize, String),
}

fn compacted(partition: PartitionId, end: Offset) -> Control {
    let mut compacted = Compacted::default();
    compacted.add(end, 9, 1, 0);
    Control::Compacted {
        partition,
        compacted,
    }
}

fn producers(partition: PartitionId, base_offset: Offset) -> Control {
    let mark = ProducerMark {
        id: ProducerId(5),
        epoch: 1,
        sequence: 8,
        base_offset,
        records: 1,
    };
    Control::Producers {
        partition,
        batches: vec![mark],
    }
}

/// Three segments and more: entries of one and of several batches, short bodies and long ones,
/// trims, a drop, a checkpoint, marks, producers, batches that were moved or compacted, some of it
/// synced and some not.
fn mixed() -> Log {
    let mut log = Log::new();
    log.append(&[(A, 1, 3)]);
    log.append(&[(A, 2, 300), (B, 1, 40)]);
    log.sync();
    log.append(&[(B, 3, 10), (C, 1, 200), (B, 1, 0)]);
    log.mark();
    log.append(&[(C, 2, 20)]);
    log.control(&Control::Trim {
        partition: A,
        before: 1,
    });
    log.sync();
    log.append(&[(A, 1, 600)]);
    log.append(&[(C, 1, 30), (A, 2, 8)]);
    log.sync();
    let ends = |log: &mut Log, id| log.last().parts[&id].end;
    let partitions = [A, B, C].map(|id| (id, u64::from(id == A), ends(&mut log, id)));
    log.control(&Control::Checkpoint {
        partitions: partitions.to_vec(),
        sequences: vec![(3, 5), (7, 12)],
    });
    log.moved(&[(A, 1), (B, 0)]);
    log.sync();
    log.mark();
    log.batches(Kind::Moved, &[(B, batch(0, 4, "compacted"))]);
    log.control(&compacted(B, 4));
    log.append(&[(B, 2, 1_000)]);
    log.control(&Control::Drop { partition: C });
    log.sync();
    log.append(&[(A, 1, 30)]);
    log.append(&[(B, 1, 50), (A, 1, 0)]);
    log.sync();
    log.append(&[(A, 3, 2)]);
    log.moved(&[(B, 0)]);
    log.control(&producers(A, 2));
    log.append(&[(B, 1, 5)]);
    let last = log.last_segment();
    assert!(last >= 2, "several segments");
    let in_last = log.written.iter().filter(|entry| entry.segment == last);
    assert!(in_last.count() > 3, "a tail worth cutting");
    log
}

/// Recovery writes to the disk, so each try gets its own.
fn damaged(log: &Log, segment: u64, damage: impl FnOnce(&mut Vec<u8>)) -> SimDisk {
    let disk = SimDisk::default();
    for (path, bytes) in log.disk.files() {
        disk.put(&path, bytes);
    }
    disk.edit(&log.path(segment), damage);
    disk
}

#[test]
fn undamaged_it_holds_everything() {
    let log = mixed();
    let verdict = Verdict::Holds(log.written.len());
    log.check(&log.disk, 0, &verdict, "nothing was damaged");
}

#[test]
fn cut_at_every_byte_of_every_file() {
    let log = mixed();
    let mut cuts = 0;
    for segment in 0..=log.last_segment() {
        let whole = log.disk.files()[&log.path(segment)].clone();
        for cut in 0..whole.len() {
            for is_short in [true, false] {
                let disk = damaged(&log, segment, |bytes| {
                    bytes.truncate(cut);
                    if !is_short {
                        bytes.resize(whole.len(), 0);
                    }
                });
                // Where zeros were cut and zeros stand now, nothing is missing.
                let is_lost = |bytes: &Range<usize>| match is_short {
                    true => bytes.end > cut,
                    false => whole[cut.max(bytes.start).min(bytes.end)..bytes.end]
                        .iter()
                        .any(|byte| *byte != 0),
                };
                let is_there = |entry: &Written| entry.segment > segment;
                let verdict = log.verdict(segment, &is_lost, &is_there);
                let how = if is_short { "cut off" } else { "zeros from" };
                log.check(
                    &disk,
                    segment,
                    &verdict,
                    &format!("segment {segment} {how} {cut}"),
                );
                cuts += 1;
            }
        }
    }
    println!(
        "cuts={cuts} entries={} segments={}",
        log.written.len(),
        log.last_segment() + 1
    );
}

#[test]
fn flipped_at_every_byte_of_every_file() {
    let log = mixed();
    let is_all = std::env::var_os("PROOF_ALL").is_some();
    let (mut flips, mut named) = (0, 0);
    for segment in 0..=log.last_segment() {
        let whole = log.disk.files()[&log.path(segment)].len();
        for at in 0..whole {
            let masks: Vec<u8> = match is_all {
                true => (0..8).map(|bit| 1 << bit).chain([0xff]).collect(),
                false => vec![1 << (at % 8), 0xff],
            };
            let is_hit = |bytes: &Range<usize>| bytes.contains(&at);
            let is_there = |entry: &Written| entry.segment != segment || !is_hit(&entry.bytes);
            let verdict = log.verdict(segment, &is_hit, &is_there);
            named += usize::from(matches!(verdict, Verdict::Corrupt(..))) * masks.len();
            for mask in masks {
                let disk = damaged(&log, segment, |bytes| bytes[at] ^= mask);
                let what = format!("byte {at} of segment {segment} flipped by {mask:#04x}");
                log.check(&disk, segment, &verdict, &what);
                flips += 1;
            }
        }
    }
    println!("flips={flips} named={named}");
}

#[test]
fn what_was_torn_goes_on_and_stays_gone() {
    let log = mixed();
    let last = log.last_segment();
    let mut torn_ones = 0;
    for (number, hit) in log.written.iter().enumerate() {
        if hit.segment < last || hit.bytes.len() <= ENTRY_HEAD_LEN {
            continue;
        }
        let at = hit.bytes.end - 1;
        let disk = damaged(&log, last, |bytes| bytes[at] ^= 1);
        let Ok(recovered) = open(&disk) else {
            continue;
        };
        let torn = Torn {
            path: log.path(last),
            at: hit.bytes.start as u64,
        };
        assert_eq!(recovered.torn, Some(torn));
        // The byte comes back, as if the disk had only been slow: the entry does not.
        disk.edit(&log.path(last), |bytes| bytes[at] ^= 1);
        let mut wal = WalWriter::new(DIR.into(), SEGMENT_BYTES, recovered.head);
        wal.stage_mark();
        wal.write().unwrap();
        let again = open(&disk).unwrap();
        assert_eq!(holds(&again), log.holds[number], "entry {number}");
        assert_eq!(again.entries, number as u64 + 2, "two marks more");
        torn_ones += 1;
    }
    assert!(torn_ones > 1, "{torn_ones}");
}

#[test]
fn a_missing_segment_is_named_with_what_was_in_it() {
    let log = mixed();
    let disk = damaged(&log, 1, |_| {});
    disk.remove(&log.path(1)).unwrap();
    let before = log
        .written
        .iter()
        .position(|entry| entry.segment == 1)
        .unwrap();
    let rest = log.written.iter().filter(|entry| entry.segment > 1);
    let verdict = Verdict::Corrupt(0, log.lost(before, rest));
    log.check(&disk, 1, &verdict, "segment 1 is missing");
}
