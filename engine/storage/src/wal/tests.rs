//! What the WAL keeps when it is cut, flipped or half written, and what it says of damage.

use std::path::Path;
use std::sync::Arc;

use model::{Batch, Offset, PartitionId};
use proptest::prelude::*;

use super::entry::{Control, EntryHead, Kind, part_head};
use super::recovery::{Recovered, recover};
use super::segment::{OpenFiles, SEGMENT_HEAD_LEN, Segment, SegmentHead, segment_path};
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
    from: usize,
    /// Ends of P0 and P1 once this entry is there.
    ends: (Offset, Offset),
}

struct Log {
    disk: SimDisk,
    wal: WalWriter,
    written: Vec<Written>,
    ends: (Offset, Offset),
    start: Offset,
    synced_entries: usize,
}

fn open(disk: &SimDisk) -> Result<Recovered, OpenError> {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    recover(&disk, Path::new(DIR), SEGMENT_BYTES)
}

impl Log {
    fn new() -> Log {
        let disk = SimDisk::default();
        let recovered = open(&disk).unwrap();
        let wal = writer(recovered.head);
        let written = Vec::new();
        Log {
            disk,
            wal,
            written,
            ends: (0, 0),
            start: 0,
            synced_entries: 0,
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
    }

    fn entry(&mut self, length: usize, stage: impl FnOnce(&mut WalWriter)) {
        if !self.wal.fits(length) {
            self.wal.roll(length).unwrap();
            self.sync();
        }
        let (_, from) = self.wal.place();
        stage(&mut self.wal);
        self.wal.write().unwrap();
        assert_eq!(self.wal.place().1, from + length);
        let ends = self.ends;
        self.written.push(Written { from, ends });
    }

    /// Ends after the first `entries` entries.
    fn ends_after(&self, entries: usize) -> (Offset, Offset) {
        entries
            .checked_sub(1)
            .map_or((0, 0), |last| self.written[last].ends)
    }
}

fn writer(head: Head) -> WalWriter {
    WalWriter::new(DIR.into(), SEGMENT_BYTES, head)
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
    assert!(recovered.torn.is_some());
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
    let files = OpenFiles::new(Arc::clone(&disk) as Arc<dyn Disk>);
    let segment = Arc::new(Segment::new(head, path.clone(), SEGMENT_BYTES, files));
    let start = Head {
        segment,
        file: Arc::from(file),
        at: SEGMENT_HEAD_LEN as u64,
        previous: 7,
    };
    let mut wal = writer(start);
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
        log.wal = writer(recovered.head);
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
