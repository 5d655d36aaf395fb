//! Retention by append time and bytes over hot and tier, with the test's own clock, and looking
//! up a time wherever the records are.

use std::path::Path;

use model::{Batch, Codec, Lookup, Offset, RowsBuilder, ShardEpoch};
use proptest::prelude::*;

use super::tests::{P0, config, dump, partitions};
use super::{Entry, Store};

const SECOND_US: i64 = 1_000_000;

async fn open(dir: &Path, retention_ms: Option<u64>, retention_bytes: Option<u64>) -> Store {
    let mut partitions = partitions();
    partitions[0].retention_ms = retention_ms;
    partitions[0].retention_bytes = retention_bytes;
    Store::open(config(dir), partitions).await.unwrap()
}

/// Appends records with these timestamps as one batch at `append_time_us`; answers its bytes.
async fn append(store: &Store, timestamps: &[i64], append_time_us: i64) -> u64 {
    let mut rows = RowsBuilder::new();
    for timestamp in timestamps {
        rows.push(*timestamp, None, Some(b"value"), &[]);
    }
    let base = store.log_end(P0).unwrap();
    let batch = Batch::encode(&rows.finish(), Codec::None, None).unwrap();
    let batch = batch.stamped(base, ShardEpoch(0), append_time_us);
    let bytes = batch.size() as u64;
    let entry = Entry::new(vec![(P0, batch)]);
    store.enqueue(entry).unwrap().await.unwrap();
    bytes
}

fn start(store: &Store) -> Offset {
    store.bounds(P0).unwrap().start
}

#[tokio::test]
async fn old_records_go_from_the_tier_and_from_the_wal() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), Some(10_000), None).await;
    // One batch a second, two records each; their own timestamps are far in the past.
    for second in 0..4 {
        append(&store, &[-5, 5], second * SECOND_US).await;
        if second % 2 == 1 {
            store.tier(Some(P0)).await.unwrap();
        }
    }
    for second in 4..8 {
        append(&store, &[-5, 5], second * SECOND_US).await;
    }
    // Objects hold seconds 0 to 1 and 2 to 3; an object goes when all in it is too old.
    for (now, want) in [
        (10, 0),
        (11, 0),
        (12, 4),
        (13, 4),
        (14, 8),
        (15, 10),
        (17, 14),
    ] {
        store.tick(now * SECOND_US).await.unwrap();
        assert_eq!(start(&store), want, "at second {now}");
    }
    assert_eq!(store.status().partitions[0].objects, 0);
    // A clock that goes back takes nothing away and brings nothing back.
    store.tick(0).await.unwrap();
    let before = dump(&store, P0).await;
    store.close().await.unwrap();
    let store = open(dir.path(), Some(10_000), None).await;
    assert_eq!((start(&store), dump(&store, P0).await), (14, before));
    store.tick(1_000 * SECOND_US).await.unwrap();
    assert_eq!(start(&store), 16);
    append(&store, &[1], 1_000 * SECOND_US).await;
    assert_eq!(store.bounds(P0).unwrap().end, 17);
    assert_eq!(
        store.status().partitions[1].start,
        0,
        "no limit, nothing goes"
    );
}

#[tokio::test]
async fn what_is_too_much_goes_and_the_wal_gets_its_space_back() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = {
        let dir = tempfile::tempdir().unwrap();
        append(&open(dir.path(), None, None).await, &[1; 100], 0).await
    };
    let store = open(dir.path(), None, Some(3 * bytes)).await;
    for count in 1..=60 {
        append(&store, &[1; 100], 0).await;
        store.tick(0).await.unwrap();
        let kept = count.min(3);
        assert_eq!(start(&store), (count - kept) * 100, "{count} batches");
    }
    let status = store.status();
    assert!(status.wal_segments <= 2, "{status:?}");
    assert_eq!(status.partitions[0].hot_bytes, 3 * bytes);
    // In the tier the size of the object counts.
    store.tier(Some(P0)).await.unwrap();
    let cold = store.status().partitions[0].cold_bytes;
    store.tick(0).await.unwrap();
    assert_eq!(start(&store), 5_700, "{cold} bytes in the tier");
}

#[tokio::test]
async fn settings_that_change_count_from_then_on() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), None, None).await;
    for second in 0..4 {
        append(&store, &[1], second * SECOND_US).await;
    }
    store.tick(1_000 * SECOND_US).await.unwrap();
    assert_eq!(start(&store), 0, "kept for ever so far");
    // The tick moved all of them into one object of the tier, which goes as a whole.
    let mut config = partitions().swap_remove(0);
    config.retention_ms = Some(996_000);
    store.partition_alter(config.clone()).unwrap();
    store.tick(1_000 * SECOND_US).await.unwrap();
    assert_eq!(start(&store), 4);
    append(&store, &[1], 4 * SECOND_US).await;
    config.retention_ms = None;
    store.partition_alter(config.clone()).unwrap();
    store.tick(9_000 * SECOND_US).await.unwrap();
    assert_eq!(start(&store), 4);
    config.id.index = 99;
    assert!(store.partition_alter(config).is_err(), "not there");
}

/// One batch, a move to the tier, or a trim to a share of what is there.
#[derive(Clone, Debug)]
enum Step {
    Append(Vec<i64>),
    Tier,
    Trim(u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => prop::collection::vec(-50i64..50, 1..6).prop_map(Step::Append),
        2 => Just(Step::Tier),
        1 => (0..=100u8).prop_map(Step::Trim),
    ]
}

async fn check_lookup(steps: &[Step], asked: &[i64]) -> Result<(), TestCaseError> {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), None, None).await;
    let mut timestamps: Vec<i64> = Vec::new();
    for step in steps {
        match step {
            Step::Append(more) => {
                append(&store, more, 0).await;
                timestamps.extend(more);
            }
            Step::Tier => drop(store.tier(Some(P0)).await.unwrap()),
            Step::Trim(percent) => {
                let before = timestamps.len() as u64 * u64::from(*percent) / 100;
                store.trim_durable(P0, before).await.unwrap();
            }
        }
    }
    let start = start(&store);
    for at in asked {
        let later = timestamps.iter().enumerate().skip(start as usize);
        let want = later
            .filter(|(_, timestamp)| *timestamp >= at)
            .map(|(offset, _)| offset as u64)
            .next()
            .unwrap_or(timestamps.len() as u64);
        prop_assert_eq!(
            store.lookup(P0, Lookup::Timestamp(*at)).await,
            Ok(want),
            "{}",
            at
        );
    }
    store.close().await.unwrap();
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_time_is_found_as_a_plain_list_finds_it(
        steps in prop::collection::vec(step(), 1..16),
        asked in prop::collection::vec(-60i64..60, 1..12),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(check_lookup(&steps, &asked))?;
    }
}
