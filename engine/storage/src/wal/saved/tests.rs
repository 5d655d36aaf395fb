//! A checkpoint at every place of a log with everything in it, cut and flipped at every byte, and
//! beside logs that are not its own: what is found is always what the log alone says.

use std::path::Path;
use std::sync::Arc;

use super::{NAME, Saved};
use crate::io::Disk;
use crate::tests::disk::SimDisk;
use crate::wal::every_byte::{DIR, Log, holds, mixed, open};
use crate::wal::writer::Place;

fn copy(disk: &SimDisk) -> SimDisk {
    let copy = SimDisk::default();
    for (path, bytes) in disk.files() {
        copy.put(&path, bytes);
    }
    copy
}

/// What the log says before its entry `number`, as a checkpoint.
fn saved_before(log: &Log, number: usize) -> Saved {
    let disk = copy(&log.disk);
    let (segment, at) = match log.written.get(number) {
        Some(entry) => (entry.segment, entry.bytes.start),
        None => (log.last_segment(), log.written[number - 1].bytes.end),
    };
    (segment + 1..=log.last_segment()).for_each(|later| disk.remove(&log.path(later)).unwrap());
    disk.edit(&log.path(segment), |bytes| bytes[at..].fill(0));
    let recovered = open(&disk).unwrap();
    assert_eq!(recovered.entries, number as u64);
    Saved {
        place: Place {
            segment: recovered.head.segment,
            at: recovered.head.at,
            previous: recovered.head.previous,
        },
        segments: recovered.segments,
        partitions: recovered.partitions,
        sequences: recovered.sequences,
    }
}

/// The same log beside these bytes as its checkpoint.
fn with(disk: &SimDisk, saved: Vec<u8>) -> SimDisk {
    let disk = copy(disk);
    disk.put(&Path::new(DIR).join(NAME), saved);
    disk
}

/// What is found is what the log alone says, and so many entries were read for it.
fn check(disk: &SimDisk, saved: Vec<u8>, entries: usize, what: &str) {
    let alone = open(&copy(disk)).unwrap();
    let recovered = open(&with(disk, saved)).unwrap();
    assert_eq!(holds(&recovered), holds(&alone), "{what}");
    assert_eq!(recovered.entries, entries as u64, "{what}");
}

#[test]
fn from_any_place_on_only_what_follows_is_read() {
    let log = mixed();
    let all = log.written.len();
    for number in 0..all {
        let saved = saved_before(&log, number);
        let what = format!("a checkpoint before entry {number}");
        check(&log.disk, saved.encode(), all - number, &what);
        let disk = copy(&log.disk);
        let bytes = saved.write(&disk, Path::new(DIR)).unwrap();
        assert_eq!(bytes, Some(saved.encode().len()));
        assert_eq!(
            open(&disk).unwrap().from,
            (saved.place.position(), bytes.unwrap() as u64)
        );
    }
    let end = saved_before(&log, all).encode();
    check(
        &log.disk,
        end,
        all,
        "nothing follows that would have made it durable",
    );
}

#[test]
fn cut_and_flipped_at_every_byte_it_is_not_used() {
    let log = mixed();
    let all = log.written.len();
    let saved = saved_before(&log, all / 2).encode();
    for at in 0..saved.len() {
        check(
            &log.disk,
            saved[..at].to_vec(),
            all,
            &format!("cut at {at}"),
        );
        for mask in [1 << (at % 8), 0xff] {
            let mut saved = saved.clone();
            saved[at] ^= mask;
            let what = format!("byte {at} flipped by {mask:#04x}");
            check(&log.disk, saved, all, &what);
        }
    }
    let longer = [&saved[..], &[0; 64]].concat();
    check(&log.disk, longer, all, "longer than it was");
    println!("cuts={} flips={}", saved.len(), saved.len() * 2);
}

#[test]
fn of_another_log_or_of_segments_that_are_gone_it_is_not_used() {
    let (log, other) = (mixed(), mixed());
    let all = log.written.len();
    let saved = saved_before(&other, all / 2).encode();
    check(&log.disk, saved, all, "of another log");

    let disk = copy(&log.disk);
    disk.remove(&log.path(0)).unwrap();
    let kept = log.written.iter().filter(|entry| entry.segment > 0).count();
    let old = saved_before(&log, 1);
    assert_eq!(old.place.segment.head.id, 0);
    check(
        &disk,
        old.encode(),
        kept,
        "it ends before the oldest segment",
    );
    let number = all - kept + 1;
    let saved = saved_before(&log, number);
    let recovered = open(&with(&disk, saved.encode())).unwrap();
    assert_eq!(recovered.entries, (all - number) as u64);
    let is_there = |id: u64| id > 0;
    let mut batches = recovered
        .partitions
        .values()
        .flat_map(|found| found.batches.values());
    assert!(batches.all(|batch| is_there(batch.location.segment.head.id)));
    // A checkpoint of a log that went on, beside an older copy of it.
    let older = copy(&log.disk);
    let last = log.written.last().unwrap();
    older.edit(&log.path(last.segment), |bytes| {
        bytes[last.bytes.start..].fill(0)
    });
    let newer = saved_before(&log, all).encode();
    check(&older, newer, all - 1, "newer than its log");
    let disk: Arc<dyn Disk> = Arc::new(older);
    assert!(disk.list(Path::new(DIR)).unwrap().len() > 1);
}
