//! The log against a disk that loses its power at every change, is cut and flipped at every byte.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use model::Command;
use proptest::prelude::*;

use super::twin::TwinFolder;
use super::{create, log_id};
use crate::disk::Folder;
use crate::frame;
use crate::log::held::Held;
use crate::log::{LOG, Log, Sizes};
use crate::record::Record;
use crate::types::{Entry, Payload, Vote};

/// Small, so that a short run grows the file and writes it anew several times.
const SIZES: Sizes = Sizes {
    reserve: 300,
    growth: 1_000,
    dead_max: 1_500,
};
const NODE: u64 = 1;

fn open(folder: &TwinFolder) -> Result<Log, String> {
    open_with(folder, SIZES)
}

fn open_with(folder: &TwinFolder, sizes: Sizes) -> Result<Log, String> {
    let folder: Arc<dyn Folder> = Arc::new(folder.clone());
    Log::open(folder, NODE, sizes).map_err(|error| error.to_string())
}

fn entry(index: u64) -> Entry {
    Entry {
        log_id: log_id(1, index),
        payload: match index % 3 {
            0 => Payload::Blank,
            _ => Payload::Normal(create(&format!("topic-{index}"))),
        },
    }
}

/// A random number generator of one line (splitmix64), so that a seed is a test.
fn next(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *seed;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// What the log may say after a crash: the states after each record, the first of which was
/// promised.
struct States {
    all: Vec<Held>,
    promised: usize,
}

impl States {
    fn note(&mut self, record: Record) {
        let mut held = self.all.last().unwrap().clone();
        let size = frame::FRAME_HEAD_LEN + serde_json::to_vec(&record).unwrap().len();
        held.take(&record, size as u64).unwrap();
        self.all.push(held);
    }

    fn last(&self) -> &Held {
        self.all.last().unwrap()
    }
}

/// One random thing that Raft does; whether it was answered with success.
fn act(log: &mut Log, states: &mut States, seed: &mut u64) -> bool {
    let last = states.last().last();
    let committed = states.last().committed;
    let next_index = last.map_or(0, |id| id.index + 1);
    let done = match next(seed) % 10 {
        0..=4 => {
            let entries: Vec<Entry> = (0..=next(seed) % 3)
                .map(|n| entry(next_index + n))
                .collect();
            entries
                .iter()
                .for_each(|entry| states.note(Record::Entry(entry.into())));
            log.append(entries).map(|()| true)
        }
        5 => {
            let vote = Vote::new(next(seed) % 9, NODE);
            states.note(Record::Vote(vote.into()));
            log.vote(vote).map(|()| true)
        }
        6 if last > committed => {
            let from = committed.map_or(0, |id| id.index + 1);
            let index = from + next(seed) % (next_index - from);
            states.note(Record::Truncate(log_id(1, index).into()));
            log.truncate(log_id(1, index)).map(|()| true)
        }
        7 if committed > states.last().purged => {
            let id = committed.unwrap();
            states.note(Record::Purge(id.into()));
            log.purge(id).map(|()| false)
        }
        _ => match last {
            None => return true,
            Some(id) => {
                states.note(Record::Committed(id.into()));
                log.committed(id).map(|()| false)
            }
        },
    };
    if done.as_ref().is_ok_and(|is_durable| *is_durable) {
        states.promised = states.all.len() - 1;
    }
    done.is_ok()
}

/// Runs random work until the power goes; answers what may be found afterwards.
fn work(folder: &TwinFolder, steps: usize, seed: &mut u64) -> States {
    let mut states = States {
        all: vec![Held::default()],
        promised: 0,
    };
    let Ok(mut log) = open(folder) else {
        return states;
    };
    for _ in 0..steps {
        let _ = log.reserve(100);
        let going = act(&mut log, &mut states, seed);
        log.release(100);
        if !going {
            break;
        }
        assert_eq!(log.held(), states.last());
    }
    states
}

fn check(folder: &TwinFolder, states: &States, what: &str) {
    let log = open(folder).unwrap_or_else(|error| panic!("{what}: {error}"));
    let allowed = &states.all[states.promised..];
    assert!(allowed.contains(log.held()), "{what}: {:?}", log.held());
}

#[test]
fn the_power_goes_at_every_change() {
    let steps = 40;
    let mut rewritten = 0;
    for seed in 0..6_u64 {
        let whole = TwinFolder::default();
        let states = work(&whole, steps, &mut seed.clone());
        check(&whole.restarted(), &states, "whole");
        let number = frame::decode(&whole.bytes(LOG)).unwrap().place.file;
        rewritten += number - 1;
        for changes in 0..whole.faults.changes() {
            let folder = TwinFolder::default();
            folder.faults.power_for(changes);
            let states = work(&folder, steps, &mut seed.clone());
            check(&folder.restarted(), &states, "killed");
            for lot in 0..4_u64 {
                let mut lots = seed ^ (lot << 32) ^ changes;
                let after =
                    folder.crashed(|| lot == 0 || (lot > 1 && next(&mut lots).is_multiple_of(2)));
                check(
                    &after,
                    &states,
                    &format!("seed {seed}, change {changes}, lot {lot}"),
                );
                // What was recovered once is recovered again, and is gone on with.
                check(&after, &states, "again");
            }
        }
    }
    assert!(rewritten > 3, "the file was written anew {rewritten} times");
}

/// Where each frame begins, and what it says was durable.
fn places(bytes: &[u8]) -> Vec<frame::Place> {
    let mut places = Vec::new();
    let mut at = 0;
    while let Some(frame) = frame::decode(&bytes[at..]) {
        places.push(frame.place);
        at += frame.len;
    }
    places.push(frame::Place {
        position: at as u64,
        ..frame::Place::default()
    });
    places
}

/// A log of so many steps that was never written anew, and its states.
fn log_of(steps: usize) -> (Vec<u8>, States) {
    let folder = TwinFolder::default();
    let sizes = Sizes {
        dead_max: 1 << 30,
        ..SIZES
    };
    let mut log = open_with(&folder, sizes).unwrap();
    let mut states = States {
        all: vec![Held::default()],
        promised: 0,
    };
    let mut seed = 11;
    for _ in 0..steps {
        assert!(act(&mut log, &mut states, &mut seed));
    }
    (folder.bytes(LOG), states)
}

/// Opens these bytes; what they hold, or why not.
fn reopen(bytes: Vec<u8>) -> Result<Held, String> {
    let folder = TwinFolder::default();
    folder.set(LOG, bytes);
    open(&folder).map(|log| log.held().clone())
}

#[test]
fn a_log_cut_at_every_byte_is_a_prefix_or_named() {
    let (bytes, states) = log_of(12);
    let places = places(&bytes);
    let mut named = 0;
    for cut in 0..bytes.len() {
        let whole = places
            .iter()
            .skip(1)
            .filter(|p| p.position <= cut as u64)
            .count();
        let claimed = places[..whole].iter().map(|p| p.synced_to).max();
        match reopen(bytes[..cut].to_vec()) {
            Ok(held) => {
                // The head is a frame and no record.
                assert_eq!(&held, &states.all[whole - 1], "cut at {cut}");
                assert!(claimed <= Some(places[whole].position), "cut at {cut}");
            }
            Err(error) => {
                named += 1;
                let at = format!("log at byte {}", places[whole].position);
                assert!(error.contains(&at), "cut at {cut}: {error}");
                assert!(claimed > Some(places[whole].position) || whole == 0);
            }
        }
    }
    assert!(named > 0, "the head cannot be cut unnoticed");
}

#[test]
fn a_flipped_byte_is_a_torn_tail_or_named() {
    let (bytes, states) = log_of(12);
    let places = places(&bytes);
    let frames = places.len() - 1;
    let mut torn = 0;
    for at in 0..bytes.len() {
        let mut flipped = bytes.clone();
        flipped[at] ^= 0x40;
        let hit = places
            .iter()
            .skip(1)
            .filter(|p| p.position <= at as u64)
            .count();
        let position = places[hit].position;
        let others = places[..frames].iter().filter(|p| p.position != position);
        let claimed = others.map(|p| p.synced_to).max().unwrap();
        match reopen(flipped) {
            Ok(held) if hit == frames => assert_eq!(&held, states.last(), "flip at {at}"),
            Ok(held) => {
                torn += 1;
                assert_eq!(&held, &states.all[hit - 1], "flip at {at}");
                assert!(claimed <= position, "flip at {at}");
            }
            Err(error) => {
                let place = format!("log at byte {position}");
                assert!(error.contains(&place), "flip at {at}: {error}");
                assert!(claimed > position || hit == 0, "flip at {at}: {error}");
            }
        }
    }
    assert!(torn > 0, "nothing says that the last record was durable");
}

#[test]
fn another_nodes_or_a_newer_log_is_refused() {
    let (bytes, _) = log_of(3);
    let folder = TwinFolder::default();
    folder.set(LOG, bytes);
    let error = Log::open(Arc::new(folder), 2, SIZES)
        .map(|_| ())
        .unwrap_err();
    let error = error.to_string();
    assert!(
        error.contains("it is the log of node 1, this is node 2"),
        "{error}"
    );
    let record = br#"{"head":{"format":2,"node":1}}"#;
    let mut bytes = Vec::new();
    frame::encode(frame::Place::default(), record, &mut bytes);
    let error = reopen(bytes).unwrap_err();
    assert!(
        error.contains("written by a newer rustmq (format 2"),
        "{error}"
    );
}

#[test]
fn a_full_disk_is_refused_before_anything_is_promised() {
    let folder = TwinFolder::default();
    let mut log = open(&folder).unwrap();
    log.reserve(100).unwrap();
    folder.faults.is_full.store(true, Ordering::SeqCst);
    let refused = log.reserve(10_000).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::StorageFull);
    // What was promised fits, and what Raft writes beside it.
    log.vote(Vote::new_committed(1, NODE)).unwrap();
    log.append(vec![entry(0)]).unwrap();
    log.committed(log_id(1, 0)).unwrap();
    log.release(100);
    let held = log.held().clone();
    drop(log);
    assert_eq!(*open(&folder).unwrap().held(), held);
    folder.faults.is_full.store(false, Ordering::SeqCst);
    let mut log = open(&folder).unwrap();
    log.reserve(10_000).unwrap();
    log.append((1..30).map(entry).collect()).unwrap();
}

#[test]
fn a_write_that_finds_no_space_is_undone() {
    let folder = TwinFolder::default();
    let mut log = open(&folder).unwrap();
    log.append(vec![entry(0)]).unwrap();
    folder.faults.is_full.store(true, Ordering::SeqCst);
    let refused = log.append((1..30).map(entry).collect()).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::StorageFull);
    folder.faults.is_full.store(false, Ordering::SeqCst);
    log.append(vec![entry(1)]).unwrap();
    assert_eq!(open(&folder.restarted()).unwrap().entries(..).len(), 2);
}

#[test]
fn a_sync_that_failed_is_final() {
    let folder = TwinFolder::default();
    let mut log = open(&folder).unwrap();
    folder.faults.sync_fails.store(true, Ordering::SeqCst);
    assert!(log.append(vec![entry(0)]).is_err());
    folder.faults.sync_fails.store(false, Ordering::SeqCst);
    let again = log.vote(Vote::new(3, NODE)).unwrap_err().to_string();
    assert!(again.contains("the sync fails on purpose"), "{again}");
    assert_eq!(log.failure(), Some(again.as_str()));
    assert!(log.reserve(1).is_err());
}

#[test]
fn golden_bytes() {
    let place = frame::Place {
        file: 1,
        position: 2,
        synced_to: 3,
        previous: 4,
    };
    let mut bytes = Vec::new();
    frame::encode(place, b"{}", &mut bytes);
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(
        hex,
        concat!(
            "5251434c02000000010000000000000002000000000000000300000000000000",
            "04000000",
            "b15da51f",
            "7b7d"
        )
    );
    let members = openraft::Membership::new(vec![[1].into()], None);
    let texts = [
        (
            Record::Head { format: 1, node: 1 },
            r#"{"head":{"format":1,"node":1}}"#,
        ),
        (
            Record::Vote(Vote::new_committed(2, 1).into()),
            r#"{"vote":{"term":2,"node":1,"committed":true}}"#,
        ),
        (
            Record::Committed(log_id(2, 7).into()),
            r#"{"committed":{"term":2,"node":1,"index":7}}"#,
        ),
        (
            Record::Truncate(log_id(2, 7).into()),
            r#"{"truncate":{"term":2,"node":1,"index":7}}"#,
        ),
        (
            Record::Purge(log_id(2, 7).into()),
            r#"{"purge":{"term":2,"node":1,"index":7}}"#,
        ),
        (
            Record::Entry((&payload(Payload::Blank)).into()),
            r#"{"entry":{"id":{"term":2,"node":1,"index":7},"payload":"blank"}}"#,
        ),
        (
            Record::Entry((&payload(Payload::Membership(members))).into()),
            concat!(
                r#"{"entry":{"id":{"term":2,"node":1,"index":7},"payload":"#,
                r#"{"members":{"voters":[[1]],"nodes":{"1":""}}}}}"#
            ),
        ),
        (
            Record::Entry((&payload(Payload::Normal(delete()))).into()),
            concat!(
                r#"{"entry":{"id":{"term":2,"node":1,"index":7},"payload":"#,
                r#"{"command":{"command":"topic-delete","name":"a"}}}}"#
            ),
        ),
    ];
    for (record, text) in texts {
        assert_eq!(serde_json::to_string(&record).unwrap(), text);
        assert_eq!(serde_json::from_str::<Record>(text).unwrap(), record);
    }
}

fn payload(payload: Payload) -> Entry {
    let log_id = log_id(2, 7);
    Entry { log_id, payload }
}

fn delete() -> Command {
    let name = "a".to_owned();
    Command::TopicDelete { name }
}

proptest! {
    #[test]
    fn frames_round_trip(
        (file, position, synced_to, previous) in any::<(u64, u64, u64, u32)>(),
        payload in any::<Vec<u8>>(),
        rest in any::<Vec<u8>>(),
    ) {
        let place = frame::Place { file, position, synced_to, previous };
        let mut bytes = Vec::new();
        let checksum = frame::encode(place, &payload, &mut bytes);
        let len = bytes.len();
        bytes.extend(rest);
        let frame = frame::decode(&bytes).unwrap();
        prop_assert_eq!((frame.place, frame.checksum, frame.len), (place, checksum, len));
        prop_assert_eq!(frame.payload, payload);
    }

    #[test]
    fn any_bytes_are_read_without_panic(bytes in any::<Vec<u8>>(), keep in 0..400_usize) {
        prop_assert!(reopen(bytes.clone()).is_err());
        let (mut log, _) = log_of(3);
        log.truncate(keep);
        log.extend(bytes);
        let _ = reopen(log);
    }
}
