//! What the WAL keeps when it is cut, flipped or half written, and what it says of damage.

use std::path::Path;
use std::sync::Arc;

use model::{Batch, Offset, PartitionId};
use proptest::prelude::*;

use super::entry::{Control, EntryHead, Kind, part_head};
use super::recovery::{Recovered, recover};
use super::segment::{SEGMENT_HEAD_LEN, Segment, SegmentHead, segment_id, segment_path};
use super::writer::{Head, WalWriter, control_json, control_len};
use crate::error::OpenError;
use crate::io::Disk;
use crate::log::tests::{P0, P1, batch};
use crate::tests::disk::SimDisk;

const DIR: &str = "/wal";
const SEGMENT_BYTES: u64 = 4 << 10;

/// One step of a log being written.
#[derive(Clone, Debug)]
enum Step {
    /// Rows and bytes a value for P0, and perhaps the same for P1 in the same entry.
    Append {
        rows: u64,
        text: usize,
        both: bool,
    },
    Trim,
    Mark,
    Sync,
}

/// What one entry was, for the oracle.
#[derive(Debug)]
struct Written {
    segment: u64,
    from: usize,
    to: usize,
    /// Ends of P0 and P1 once this entry is there.
    ends: (Offset, Offset),
    synced_to: u64,
}

struct Log {
    disk: SimDisk,
    wal: WalWriter,
    written: Vec<Written>,
    ends: (Offset, Offset),
    start: Offset,
    synced_entries: usize,
    synced_to: u64,
}

fn open(disk: &SimDisk) -> Result<Recovered, OpenError> {
    recover(disk, Path::new(DIR), SEGMENT_BYTES)
}

impl Log {
    fn new() -> Log {
        let disk = SimDisk::default();
        let recovered = open(&disk).unwrap();
        let wal = writer(&disk, recovered.head);
        let synced_to = wal.position();
        let written = Vec::new();
        Log {
            disk,
            wal,
            written,
            ends: (0, 0),
            start: 0,
            synced_entries: 0,
            synced_to,
        }
    }

    fn of(steps: &[Step]) -> Log {
        let mut log = Log::new();
        steps.iter().for_each(|step| log.step(step));
        log
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Append { rows, text, both } => {
                let text = "x".repeat(*text);
                let mut batches = vec![(P0, batch(self.ends.0, *rows, &text))];
                self.ends.0 += rows;
                if *both {
                    batches.push((P1, batch(self.ends.1, *rows, &text)));
                    self.ends.1 += rows;
                }
                let sizes = batches.iter().map(|(_, batch)| batch.size());
                let length = super::entry::entry_len(sizes);
                let batches: Vec<(PartitionId, &Batch)> =
                    batches.iter().map(|(id, batch)| (*id, batch)).collect();
                self.entry(length, |wal| {
                    wal.stage(Kind::Batches, (0, 0, 0), batches.iter().copied());
                });
            }
            Step::Trim => {
                self.start = self.ends.0;
                let control = Control::Trim {
                    partition: P0,
                    before: self.start,
                };
                let json = control_json(&control);
                self.entry(control_len(&json), |wal| wal.stage_control(&json));
            }
            Step::Mark => self.entry(64, WalWriter::stage_mark),
            Step::Sync => self.sync(),
        }
    }

    fn sync(&mut self) {
        self.wal.sync().unwrap();
        self.synced_entries = self.written.len();
        self.synced_to = self.wal.position();
    }

    fn entry(&mut self, length: usize, stage: impl FnOnce(&mut WalWriter)) {
        if !self.wal.fits(length) {
            self.wal.roll(length).unwrap();
            self.sync();
        }
        let (segment, from) = self.wal.place();
        stage(&mut self.wal);
        self.wal.write().unwrap();
        let to = from + length;
        assert_eq!(self.wal.place(), (segment, to));
        let (ends, synced_to) = (self.ends, self.synced_to);
        self.written.push(Written {
            segment,
            from,
            to,
            ends,
            synced_to,
        });
    }

    /// Ends after the first `entries` entries.
    fn ends_after(&self, entries: usize) -> (Offset, Offset) {
        entries
            .checked_sub(1)
            .map_or((0, 0), |last| self.written[last].ends)
    }
}

fn writer(disk: &SimDisk, head: Head) -> WalWriter {
    WalWriter::new(Arc::new(disk.clone()), DIR.into(), SEGMENT_BYTES, head)
}

fn ends(recovered: &Recovered) -> (Offset, Offset) {
    let end = |id: PartitionId| {
        let Some(found) = recovered.partitions.get(&id) else {
            return 0;
        };
        let mut at = 0;
        for (base, batch) in &found.batches {
            assert_eq!(*base, at, "batches follow each other");
            at = batch.next;
        }
        at
    };
    (end(P0), end(P1))
}

/// A small log with everything in it, over several segments.
fn mixed() -> Log {
    let append = |rows, text, both| Step::Append { rows, text, both };
    let mut log = Log::of(&[
        append(1, 3, false),
        append(2, 700, true),
        Step::Sync,
        append(3, 10, true),
        Step::Mark,
        append(1, 900, false),
        Step::Trim,
        Step::Sync,
        append(2, 40, false),
        Step::Sync,
        Step::Mark,
        append(1, 20, true),
        append(1, 5, false),
    ]);
    assert!(log.disk.files().len() > 1, "several segments");
    log.wal.write().unwrap();
    log
}

#[test]
fn a_log_cut_at_any_byte_gives_the_entries_before() {
    let log = mixed();
    let files = log.disk.files();
    let (last_path, last) = files.last_key_value().unwrap();
    let id = segment_id(last_path.file_name().unwrap().to_str().unwrap()).unwrap();
    let used = log.written.last().unwrap().to;
    for cut in SEGMENT_HEAD_LEN..=used + 8 {
        for is_short in [true, false] {
            let mut bytes = last[..cut.min(last.len())].to_vec();
            if !is_short {
                bytes.resize(last.len(), 0);
            }
            // Where zeros were cut and zeros stand now, nothing is missing.
            let is_whole = |entry: &&Written| {
                let range = entry.from..entry.to;
                entry.segment < id || bytes.get(range.clone()) == last.get(range)
            };
            let whole = log.written.iter().take_while(is_whole).count();
            let disk = SimDisk::default();
            files
                .iter()
                .for_each(|(path, bytes)| disk.put(path, bytes.clone()));
            disk.put(last_path, bytes);
            let recovered = open(&disk).unwrap();
            assert_eq!(ends(&recovered), log.ends_after(whole), "cut at {cut}");
            // It goes on where the last whole entry ended, and that holds too.
            let mut wal = writer(&disk, recovered.head);
            if !wal.fits(64) {
                wal.roll(64).unwrap();
            }
            wal.stage_mark();
            wal.write().unwrap();
            let again = open(&disk).unwrap();
            assert_eq!(again.entries, recovered.entries + 1, "cut at {cut}");
        }
    }
}

#[test]
fn a_flipped_byte_is_a_torn_tail_or_is_named_rightly() {
    let log = mixed();
    let files = log.disk.files();
    let last_id = files.len() as u64 - 1;
    for (id, (path, bytes)) in files.iter().enumerate() {
        let id = id as u64;
        let used = log
            .written
            .iter()
            .filter(|entry| entry.segment == id)
            .map(|entry| entry.to);
        for at in 0..used.max().unwrap_or(SEGMENT_HEAD_LEN) {
            let disk = SimDisk::default();
            files
                .iter()
                .for_each(|(path, bytes)| disk.put(path, bytes.clone()));
            let mut flipped = bytes.clone();
            flipped[at] ^= 0x10;
            disk.put(path, flipped);
            let hit = log
                .written
                .iter()
                .position(|entry| entry.segment == id && (entry.from..entry.to).contains(&at));
            let position = hit.map_or(0, |hit| log.written[hit].from);
            let is_durable = hit.is_none_or(|hit| {
                let at = base(&files, id) + position as u64;
                id < last_id || log.written[hit + 1..].iter().any(|e| e.synced_to > at)
            });
            match open(&disk) {
                Ok(recovered) => {
                    assert!(!is_durable, "flip at {at} of segment {id} was not noticed");
                    let kept = log.ends_after(hit.unwrap());
                    assert_eq!(ends(&recovered), kept, "flip at {at} of segment {id}");
                }
                Err(OpenError::Corrupt {
                    path: named,
                    position: named_at,
                    ..
                }) => {
                    assert!(
                        is_durable,
                        "flip at {at} of segment {id} is only a torn tail"
                    );
                    assert_eq!(
                        (&named, named_at as usize),
                        (path, position),
                        "flip at {at}"
                    );
                }
                Err(other) => panic!("flip at {at} of segment {id}: {other}"),
            }
        }
    }
}

fn base(files: &std::collections::BTreeMap<std::path::PathBuf, Vec<u8>>, id: u64) -> u64 {
    let bytes = &files[&segment_path(Path::new(DIR), id)];
    SegmentHead::decode(bytes[..SEGMENT_HEAD_LEN].try_into().unwrap())
        .unwrap()
        .base
}

#[test]
fn damage_names_the_offsets_that_are_lost() {
    let append = |rows| Step::Append {
        rows,
        text: 4,
        both: false,
    };
    let log = Log::of(&[
        append(5),
        Step::Sync,
        append(3),
        Step::Sync,
        append(2),
        Step::Sync,
    ]);
    let (path, mut bytes) = log.disk.files().pop_first().unwrap();
    bytes[log.written[1].from + 70] ^= 1;
    log.disk.put(&path, bytes);
    let error = open(&log.disk).err().unwrap().to_string();
    let expected = format!(
        "the write-ahead log is damaged: /wal/0000000000000000.wal at byte {}: an entry that was \
         known durable is damaged; lost: partition 1/0 offsets 5 to 7; bytes that were known \
         durable have changed, so nothing was cut: restore this file from a copy, or move the \
         folder away to start empty",
        log.written[1].from
    );
    assert_eq!(error, expected);
}

#[test]
fn a_missing_segment_is_named() {
    let log = mixed();
    log.disk.remove(&segment_path(Path::new(DIR), 1)).unwrap();
    let error = open(&log.disk).err().unwrap().to_string();
    assert!(
        error.contains("0000000000000001.wal at byte 0: the segment is missing"),
        "{error}"
    );
}

#[test]
fn bytes_that_look_like_an_entry_are_not_taken_for_one() {
    let mut log = Log::of(&[Step::Append {
        rows: 1,
        text: 4,
        both: false,
    }]);
    let (_, from) = log.wal.place();
    // Somebody who knows the format puts an entry into a value, at the right position, claiming
    // that all before was durable. The salt he cannot know.
    let fake_at = from + 400;
    let mut fake = EntryHead {
        length: 64,
        kind: Kind::Mark,
        position: fake_at as u64,
        segment: 0,
        synced_to: fake_at as u64,
        sequence: 0,
        shard: 0,
        epoch: 0,
        previous: 0,
        count: 0,
    }
    .encode();
    let crc = crc32c::crc32c(&fake[8..]);
    fake[4..8].copy_from_slice(&crc.to_le_bytes());
    let (path, mut bytes) = log.disk.files().pop_first().unwrap();
    bytes[fake_at..fake_at + 64].copy_from_slice(&fake);
    log.disk.put(&path, bytes);
    let recovered = open(&log.disk).unwrap();
    assert_eq!(ends(&recovered), (1, 0));
    assert!(recovered.cut.is_some());
    log.synced_entries = 1;
}

#[test]
fn entry_and_segment_golden_bytes() {
    let hex = |bytes: &[u8]| -> String { bytes.iter().map(|b| format!("{b:02x}")).collect() };
    let disk = Arc::new(SimDisk::default());
    let head = SegmentHead {
        id: 3,
        base: 0x1000,
        salt: 0x0123_4567_89ab_cdef,
        previous: 7,
    };
    let path = segment_path(Path::new(DIR), 3);
    let file = disk.create(&path, SEGMENT_BYTES, &head.encode()).unwrap();
    let segment = Arc::new(Segment::new(head, path.clone(), SEGMENT_BYTES, file));
    let start = Head {
        segment,
        at: SEGMENT_HEAD_LEN as u64,
        previous: 7,
    };
    let mut wal = writer(&disk, start);
    let one = batch(0, 1, "a");
    wal.stage(Kind::Batches, (1, 2, 3), [(P1, &one)].into_iter());
    wal.stage_control(&control_json(&Control::Trim {
        partition: P0,
        before: 9,
    }));
    wal.write().unwrap();
    let bytes = &disk.files()[&path];
    assert_eq!(
        hex(&bytes[..64]),
        "524d5157414c3031030000000000000000100000000000\
         00efcdab896745230107000000000000000000000000000000000000000000000000000000"
            .replace(char::is_whitespace, "")
            + &hex(&crc32c::crc32c(&bytes[..60]).to_le_bytes())
    );
    let size = one.size();
    let padded = size.next_multiple_of(8);
    assert_eq!(&bytes[64 + 64..64 + 80], &part_head(P1, size as u32));
    assert_eq!(&bytes[144..144 + size], &one.to_bytes()[..]);
    let length = (80 + padded) as u32;
    let salted = crc32c::crc32c(&head.salt.to_le_bytes());
    let crc = crc32c::crc32c_append(salted, &bytes[72..64 + length as usize]);
    let expected = [
        hex(b"RQE1"),
        hex(&crc.to_le_bytes()),
        hex(&length.to_le_bytes()),
        "01000000".to_owned(),         // batches
        "4010000000000000".to_owned(), // position
        "0300000000000000".to_owned(), // segment
        "4010000000000000".to_owned(), // synced to
        "0300000000000000".to_owned(), // sequence
        "01000000".to_owned(),         // shard
        "02000000".to_owned(),         // epoch
        "07000000".to_owned(),         // previous crc
        "01000000".to_owned(),         // count
    ];
    assert_eq!(hex(&bytes[64..128]), expected.concat());
    let at = 64 + length as usize + 64;
    let json = r#"{"trim":{"partition":{"topic":1,"index":0},"before":9}}"#;
    assert_eq!(
        std::str::from_utf8(&bytes[at..at + json.len()]).unwrap(),
        json
    );
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1u64..4, 0usize..900, any::<bool>())
            .prop_map(|(rows, text, both)| Step::Append { rows, text, both }),
        1 => Just(Step::Trim),
        1 => Just(Step::Mark),
        2 => Just(Step::Sync),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    /// A power cut keeps what was synced and any blocks of what was not.
    #[test]
    fn a_power_cut_keeps_a_prefix_with_all_that_was_synced(
        steps in prop::collection::vec(step(), 1..24),
        lottery in prop::collection::vec(any::<bool>(), 1..64),
        more in prop::collection::vec(step(), 0..6),
    ) {
        let mut log = Log::of(&steps);
        let mut draws = lottery.iter().copied().cycle();
        let disk = log.disk.crashed(|| draws.next().unwrap());
        let recovered = open(&disk).unwrap();
        let kept = ends(&recovered);
        let prefix = (log.synced_entries..=log.written.len())
            .find(|entries| log.ends_after(*entries) == kept);
        prop_assert!(prefix.is_some(), "{kept:?} of {:?}", log.written);
        // And it goes on from there, through another cut.
        log.written.truncate(prefix.unwrap());
        log.synced_entries = prefix.unwrap();
        log.ends = kept;
        log.wal = writer(&disk, recovered.head);
        log.synced_to = log.wal.position();
        log.disk = disk;
        more.iter().for_each(|step| log.step(step));
        let disk = log.disk.crashed(|| draws.next().unwrap());
        let kept = ends(&open(&disk).unwrap());
        prop_assert!((log.synced_entries..=log.written.len()).any(|n| log.ends_after(n) == kept));
    }

    /// Whatever bytes stand in a segment's file, recovery ends in an answer.
    #[test]
    fn any_bytes_after_the_head_are_survived(rest: Vec<u8>) {
        let disk = SimDisk::default();
        let head = SegmentHead { id: 0, base: 0, salt: 1, previous: 0 };
        let mut bytes = head.encode().to_vec();
        bytes.extend(rest);
        disk.put(&segment_path(Path::new(DIR), 0), bytes);
        let recovered = open(&disk).unwrap();
        prop_assert_eq!(recovered.entries, 0);
    }
}
