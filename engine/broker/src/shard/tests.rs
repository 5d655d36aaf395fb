//! Admission: offsets, repeats, positions, and that a refusal leaves nothing behind.

use model::{Append, Codec, Position, Producer, ProducerId, RowsBuilder};
use proptest::prelude::*;

use super::*;
use crate::group::record::{Record, Saved};

const A: PartitionId = PartitionId::new(TopicId(1), 0);
const B: PartitionId = PartitionId::new(TopicId(1), 1);

fn shard() -> Shard {
    let mut shard = Shard::new(ShardId(0), ShardEpoch(1));
    for (id, durability) in [
        (OFFSETS, Durability::Fsync),
        (A, Durability::Fsync),
        (B, Durability::Memory),
    ] {
        let producers = ProducerTable::default();
        shard.partition_insert(
            id,
            Partition {
                log_end: 0,
                durability,
                is_compacted: false,
                producers,
            },
        );
    }
    shard
}

fn rows(count: u32, producer: Option<(u64, u16, u32)>) -> Batch {
    let mut rows = RowsBuilder::new();
    for at in 0..count {
        rows.push(i64::from(at), None, Some(b"v"), &[]);
    }
    let producer = producer.map(|(id, epoch, sequence)| Producer {
        id: ProducerId(id),
        epoch,
        sequence,
    });
    Batch::encode(&rows.finish(), Codec::None, producer).unwrap()
}

fn append(partition: PartitionId, count: u32) -> Append {
    Append {
        partition,
        batch: rows(count, None),
    }
}

fn numbered(partition: PartitionId, count: u32, sequence: u32) -> Append {
    Append {
        partition,
        batch: rows(count, Some((7, 1, sequence))),
    }
}

fn position(partition: PartitionId, offset: Offset, expected: Option<Offset>) -> Position {
    Position {
        group: "g".into(),
        partition,
        offset,
        expected,
        metadata: String::new(),
    }
}

/// Commits and says what came of it: base offsets, the partitions of the entry, or the error.
fn run(shard: &mut Shard, appends: Vec<Append>, positions: Vec<Position>) -> String {
    let mut entries = Vec::new();
    let answer = shard.commit(&Commit { appends, positions }, 50, |entry| {
        entries.push(entry);
        Ok(())
    });
    match answer {
        Err(error) => {
            assert!(entries.is_empty(), "a refused commit reaches no WAL");
            error.to_string()
        }
        Ok(ticket) => {
            let bases = ticket.committed.base_offsets;
            match ticket.wait {
                Wait::Nothing => "nothing".to_string(),
                Wait::Earlier(until) => {
                    let until: Vec<_> = until
                        .iter()
                        .map(|(id, next)| format!("{id}>={next}"))
                        .collect();
                    format!("{bases:?} again after {}", until.join(" "))
                }
                Wait::Entry(()) => {
                    let entry = entries.pop().expect("one entry");
                    let batches: Vec<String> = entry
                        .batches
                        .iter()
                        .map(|(id, batch)| {
                            format!("{id}:{}..{}", batch.base_offset(), batch.next_offset())
                        })
                        .collect();
                    format!("{bases:?} {} {:?}", batches.join(" "), entry.durability)
                }
            }
        }
    }
}

/// Runs commits one after the other on a fresh shard and compares what came of each.
fn check(steps: Vec<(Vec<Append>, Vec<Position>, &str)>) {
    let mut shard = shard();
    for (at, (appends, positions, want)) in steps.into_iter().enumerate() {
        assert_eq!(run(&mut shard, appends, positions), want, "step {at}");
    }
}

#[test]
fn offsets_are_dense_and_an_entry_holds_all_of_a_commit() {
    let gone = PartitionId::new(TopicId(9), 0);
    check(vec![
        (vec![], vec![], "nothing"),
        (vec![append(A, 3)], vec![], "[0] 1/0:0..3 Fsync"),
        (vec![append(B, 2)], vec![], "[0] 1/1:0..2 Memory"),
        (
            vec![append(A, 2), append(B, 1), append(A, 1)],
            vec![position(A, 3, None)],
            "[3, 2, 5] 1/0:3..5 1/1:2..3 1/0:5..6 0/0:0..1 Fsync",
        ),
        (
            vec![append(A, 1), append(gone, 1)],
            vec![],
            "partition 9/0 does not exist",
        ),
        (
            vec![append(OFFSETS, 1)],
            vec![],
            "partition 0/0 does not exist",
        ),
        (vec![append(A, 1)], vec![], "[6] 1/0:6..7 Fsync"),
    ]);
}

#[test]
fn a_repeated_batch_gets_its_first_offset() {
    check(vec![
        (vec![numbered(A, 2, 0)], vec![], "[0] 1/0:0..2 Fsync"),
        (vec![append(A, 5)], vec![], "[2] 1/0:2..7 Fsync"),
        (vec![numbered(A, 2, 0)], vec![], "[0] again after 1/0>=2"),
        (vec![numbered(A, 1, 2)], vec![], "[7] 1/0:7..8 Fsync"),
        (vec![numbered(A, 1, 2)], vec![], "[7] again after 1/0>=8"),
        (
            vec![numbered(A, 1, 9)],
            vec![],
            "sequence 9 came to partition 1/0 where 3 was due",
        ),
        (vec![numbered(A, 1, 3)], vec![], "[8] 1/0:8..9 Fsync"),
    ]);
}

#[test]
fn a_repeated_commit_is_whole_or_refused() {
    check(vec![
        (
            vec![numbered(A, 2, 0), numbered(B, 1, 0), numbered(A, 1, 2)],
            vec![position(A, 0, None)],
            "[0, 0, 2] 1/0:0..2 1/1:0..1 1/0:2..3 0/0:0..1 Fsync",
        ),
        (
            vec![numbered(A, 2, 0), numbered(B, 1, 0), numbered(A, 1, 2)],
            vec![position(A, 0, Some(77))],
            "[0, 0, 2] again after 1/0>=2 1/1>=1 1/0>=3",
        ),
        (
            vec![numbered(A, 2, 0), numbered(B, 1, 1)],
            vec![],
            "not accepted by partition 1/0: a commit repeats some of its batches and not others",
        ),
        (
            vec![numbered(A, 1, 3), numbered(A, 1, 5)],
            vec![],
            "sequence 5 came to partition 1/0 where 4 was due",
        ),
        (
            vec![numbered(A, 1, 3), numbered(A, 1, 4)],
            vec![],
            "[3, 4] 1/0:3..4 1/0:4..5 Fsync",
        ),
    ]);
}

#[test]
fn positions_are_compared_with_what_was_admitted_not_with_what_is_durable() {
    check(vec![
        (vec![append(A, 9)], vec![], "[0] 1/0:0..9 Fsync"),
        (
            vec![],
            vec![position(A, 3, Some(0))],
            "refused for partition 1/0: group g stands nowhere, not at 0",
        ),
        (vec![], vec![position(A, 0, None)], "[] 0/0:0..1 Fsync"),
        (
            vec![append(B, 1)],
            vec![position(A, 3, Some(0))],
            "[0] 1/1:0..1 0/0:1..2 Fsync",
        ),
        // Nothing is durable yet, and still the same input is not taken twice.
        (
            vec![append(B, 1)],
            vec![position(A, 3, Some(0))],
            "refused for partition 1/0: group g stands at 3, not at 0",
        ),
        (
            vec![append(B, 1)],
            vec![position(A, 5, Some(3))],
            "[1] 1/1:1..2 0/0:2..3 Fsync",
        ),
        (
            vec![],
            vec![position(A, 10, None)],
            "not accepted by partition 1/0: group g commits offset 10, the partition ends at 9",
        ),
        (
            vec![],
            vec![position(A, 6, None), position(A, 7, None)],
            "not accepted by partition 1/0: group g stands twice in one commit",
        ),
        (
            vec![],
            vec![position(A, Position::FORGET, Some(5))],
            "[] 0/0:3..4 Fsync",
        ),
        (
            vec![],
            vec![position(A, 5, Some(5))],
            "refused for partition 1/0: group g stands nowhere, not at 5",
        ),
    ]);
}

#[test]
fn a_full_queue_leaves_no_trace() {
    let mut shard = shard();
    assert_eq!(
        run(&mut shard, vec![numbered(A, 2, 0)], vec![]),
        "[0] 1/0:0..2 Fsync"
    );
    let commit = || Commit {
        appends: vec![numbered(A, 1, 2), append(B, 1)],
        positions: vec![position(A, 2, None)],
    };
    let refused = shard.commit(&commit(), 60, |_| Err::<(), _>(LogError::DiskFull));
    assert_eq!(refused.err(), Some(LogError::DiskFull));
    assert_eq!(shard.positions.admitted("g", A), None);
    let Commit { appends, positions } = commit();
    assert_eq!(
        run(&mut shard, appends, positions),
        "[2, 0] 1/0:2..3 1/1:0..1 0/0:0..1 Fsync",
        "the same commit again is new"
    );
    assert_eq!(shard.counters.refused, 1);
}

#[test]
fn entries_the_disk_had_no_room_for_are_taken_back() {
    let mut shard = shard();
    run(&mut shard, vec![append(B, 20)], vec![]);
    run(
        &mut shard,
        vec![numbered(A, 2, 0)],
        vec![position(B, 1, None)],
    );
    for (offset, sequence) in (2..7).zip(2..7) {
        let positions = vec![position(B, offset, Some(offset - 1))];
        let done = run(&mut shard, vec![numbered(A, 1, sequence)], positions);
        assert!(done.ends_with("Fsync"), "{done}");
    }
    // The first two commits were written, and no more.
    let written = |id: PartitionId| {
        Some(
            [(A, 2), (B, 20), (OFFSETS, 1)]
                .into_iter()
                .find(|at| at.0 == id)?
                .1,
        )
    };
    assert!(shard.resync(written));
    assert!(!shard.resync(written));
    assert_eq!(shard.resyncs, 1);
    assert_eq!(shard.positions.admitted("g", B), Some(1));
    assert_eq!(
        run(&mut shard, vec![numbered(A, 1, 3)], vec![]),
        "sequence 3 came to partition 1/0 where 2 was due"
    );
    assert_eq!(
        run(
            &mut shard,
            vec![numbered(A, 1, 2)],
            vec![position(B, 2, Some(1))]
        ),
        "[2] 1/0:2..3 0/0:1..2 Fsync"
    );
    shard.positions.settle(2);
    assert_eq!(
        shard.positions.visible("g", B).map(|saved| saved.offset),
        Some(2)
    );
}

#[test]
fn positions_are_seen_once_their_entry_is_durable() {
    let mut shard = shard();
    run(&mut shard, vec![append(A, 9)], vec![position(A, 0, None)]);
    run(&mut shard, vec![], vec![position(A, 4, None)]);
    let seen = |shard: &Shard| shard.positions.visible("g", A).map(|saved| saved.offset);
    assert_eq!(seen(&shard), None);
    shard.positions.settle(1);
    assert_eq!(seen(&shard), Some(0));
    assert_eq!(shard.positions.admitted("g", A), Some(4));
    shard.positions.settle(2);
    assert_eq!(seen(&shard), Some(4));

    let (partitions, gone) = shard.topic_remove(A.topic);
    assert_eq!(partitions, [A, B]);
    let of_a = Record {
        group: "g".into(),
        partition: A,
        saved: None,
    };
    assert_eq!(gone, [of_a]);
    assert_eq!((seen(&shard), shard.positions.len()), (None, 0));
    assert_eq!(
        run(&mut shard, vec![append(A, 1)], vec![]),
        "partition 1/0 does not exist"
    );
}

#[test]
fn forgotten_positions_are_said_to_be_gone() {
    let mut shard = shard();
    run(&mut shard, vec![append(A, 9), append(B, 1)], vec![]);
    let said = run(
        &mut shard,
        vec![],
        vec![position(A, 4, None), position(B, 0, None)],
    );
    assert_eq!(said, "[] 0/0:0..2 Fsync");
    let (_, gone) = shard.topic_remove(A.topic);
    let entries = std::cell::RefCell::new(Vec::new());
    let enqueue = |entry| {
        entries.borrow_mut().push(entry);
        Ok(())
    };
    shard.forget_positions(&gone, 70, enqueue).unwrap();
    let entries = entries.into_inner();
    let (partition, batch) = &entries[0].batches[0];
    let span = (
        batch.base_offset(),
        batch.next_offset(),
        batch.append_time(),
    );
    assert_eq!((entries.len(), *partition, span), (1, OFFSETS, (2, 4, 70)));
    assert_eq!(record::decode(batch).unwrap(), gone);
    assert!(gone.iter().all(|record| record.saved.is_none()));
    assert_eq!(shard.log_end(OFFSETS), 4);
}

#[test]
fn records_of_offsets_have_golden_text() {
    let saved = Saved {
        offset: 12,
        metadata: String::new(),
    };
    let one = Record {
        group: "g".into(),
        partition: B,
        saved: Some(saved),
    };
    let gone = Record {
        group: "h".into(),
        partition: A,
        saved: None,
    };
    let batch = record::encode(&[one, gone], 1).unwrap();
    let rows = batch.rows().unwrap();
    let text = |bytes: Option<&[u8]>| {
        bytes
            .map_or("-".into(), String::from_utf8_lossy)
            .to_string()
    };
    let got: Vec<_> = (0..2)
        .map(|at| {
            format!(
                "{} {}",
                text(rows.record(at).key),
                text(rows.record(at).value)
            )
        })
        .collect();
    assert_eq!(
        got,
        [
            r#"{"kind":"position","group":"g","topic":1,"partition":1} {"offset":12}"#,
            r#"{"kind":"position","group":"h","topic":1,"partition":0} -"#,
        ]
    );
    let mut rows = RowsBuilder::new();
    rows.push(0, Some(br#"{"kind":"later","x":1}"#), Some(b"?"), &[]);
    let later = Batch::encode(&rows.finish(), Codec::None, None).unwrap();
    assert_eq!(
        record::decode(&later).unwrap(),
        Vec::new(),
        "a kind of a later version is skipped"
    );
    let bad = record::decode(&rows_of(b"not json"))
        .unwrap_err()
        .to_string();
    assert!(
        bad.starts_with("record 0 of _offsets is not a group position: "),
        "{bad}"
    );
}

fn rows_of(key: &[u8]) -> Batch {
    let mut rows = RowsBuilder::new();
    rows.push(0, Some(key), None, &[]);
    Batch::encode(&rows.finish(), Codec::None, None).unwrap()
}

proptest! {
    /// Whatever is committed, with the queue refusing some: every partition's entries adjoin, a
    /// batch sent again until it is taken stands in the log once, and refused commits nowhere.
    #[test]
    fn logs_are_dense_and_hold_each_batch_once(
        steps in prop::collection::vec((0u32..2, 1u32..4, any::<bool>(), 0usize..3), 1..40),
    ) {
        let mut shard = shard();
        let mut ends = [0u64; 2];
        let mut sequences = [0u32; 2];
        for (index, count, full, repeats) in steps {
            let at = index as usize;
            let id = PartitionId::new(TopicId(1), index);
            if full {
                let commit = Commit {
                    appends: vec![numbered(id, count, sequences[at])],
                    positions: vec![],
                };
                let refused = shard.commit(&commit, 1, |_| Err::<(), _>(LogError::DiskFull));
                prop_assert!(refused.is_err());
            }
            let want = ends[at];
            for _ in 0..=repeats {
                let commit = Commit {
                    appends: vec![numbered(id, count, sequences[at])],
                    positions: vec![],
                };
                let ticket = shard.commit(&commit, 1, |_| Ok(())).unwrap();
                prop_assert_eq!(ticket.committed.base_offsets, vec![want]);
            }
            ends[at] += u64::from(count);
            sequences[at] += count;
            prop_assert_eq!(shard.partition(id).unwrap().log_end, ends[at]);
        }
    }
}
