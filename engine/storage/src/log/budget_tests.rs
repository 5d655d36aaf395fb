//! Tiny budgets: whatever tail, cache and disk give up, nothing that was acknowledged is lost.
//!
//! From seeds, a store with a tail of a few batches, a cache of a few blocks, a log of a few
//! segments and a folder of blocks that someone empties and damages: what was acknowledged is
//! compared with what is read, all the time and after restarts.

use std::path::Path;

use model::{LogError, Offset, PartitionId, TopicId};
use proptest::prelude::*;
use proptest::test_runner::RngAlgorithm;

use super::tests::{P0, P1, batch, config};
use super::{Entry, Store};
use crate::config::{PartitionConfig, StoreConfig};

/// Never goes to the tier.
const LOCAL: PartitionId = PartitionId::new(TopicId(2), 0);
const ALL: [PartitionId; 3] = [P0, P1, LOCAL];

const TAIL: usize = 3 << 10;
const CACHE_MEMORY: usize = 8 << 10;
const CACHE_DISK: u64 = 24 << 10;
const LOG: u64 = 64 << 10;

#[derive(Clone, Debug)]
enum Step {
    /// Records of this many bytes each.
    Append(usize, u64, usize),
    /// Everything goes to the tier, or what is due.
    Tier(bool),
    /// Reads from somewhere: a share of what there is, in 256ths.
    Read(usize, u64),
    /// What the cache has on disk is deleted, or the n-th byte of each file changed.
    Empty,
    Damage(usize),
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..3_usize, 1..6_u64, 1..400_usize).prop_map(|(p, n, s)| Step::Append(p, n, s)),
        2 => any::<bool>().prop_map(Step::Tier),
        6 => (0..3_usize, 0..256_u64).prop_map(|(p, at)| Step::Read(p, at)),
        1 => Just(Step::Empty),
        1 => (0..600_usize).prop_map(Step::Damage),
        1 => Just(Step::Restart),
    ]
}

/// What was acknowledged: the text of each record of each partition.
#[derive(Default)]
struct Oracle([Vec<String>; 3]);

fn tiny(dir: &Path) -> StoreConfig {
    StoreConfig {
        segment_bytes: 8 << 10,
        wal_bytes_max: LOG / 2,
        wal_bytes_limit: LOG,
        tail_bytes_max: TAIL,
        cache_memory_bytes_max: CACHE_MEMORY,
        cache_disk_bytes_max: CACHE_DISK,
        ..config(dir)
    }
}

async fn open(dir: &Path) -> Store {
    let mut partitions: Vec<PartitionConfig> = ALL
        .iter()
        .map(|id| PartitionConfig::new(*id, format!("t{}", id.topic.0)))
        .collect();
    partitions[2].tier = false;
    Store::open(tiny(dir), partitions).await.unwrap()
}

fn within_budgets(store: &Store) {
    let status = store.status();
    assert!(status.tail_bytes <= TAIL as u64, "{}", status.tail_bytes);
    let cache = status.cache;
    assert!(cache.memory.bytes <= CACHE_MEMORY as u64, "{cache:?}");
    let disk = cache.disk.unwrap();
    assert!(disk.bytes <= CACHE_DISK, "{disk:?}");
    // A trim or a checkpoint may take one segment more.
    assert!(status.wal_bytes <= LOG + (8 << 10), "{}", status.wal_bytes);
}

async fn append(store: &Store, oracle: &mut Oracle, at: usize, rows: u64, size: usize) {
    let text = "x".repeat(size);
    let p = ALL[at];
    let base = store.log_end(p).unwrap();
    let entry = Entry::new(vec![(p, batch(base, rows, &text))]);
    match store.enqueue(entry).unwrap().await {
        Ok(()) => {
            let values = (base..base + rows).map(|offset| format!("{text}{offset}"));
            oracle.0[at].extend(values);
        }
        Err(LogError::DiskFull) => {
            assert_eq!(
                store.log_end(p).unwrap(),
                base,
                "its offsets are free again"
            );
        }
        Err(error) => panic!("{error}"),
    }
}

/// Reads on from an offset to the end of what the read gives.
async fn read(store: &Store, oracle: &Oracle, at: usize, from: Offset) -> Offset {
    let batches = store.read(ALL[at], from, 1).await.unwrap();
    let mut next = from;
    for batch in batches {
        let rows = batch.rows().unwrap();
        for (row, offset) in batch.offsets().unwrap().into_iter().enumerate() {
            if offset < from {
                continue;
            }
            assert_eq!(offset, next, "no gap and no double");
            let want = &oracle.0[at][offset as usize];
            let want = (offset % 5 != 4).then_some(want.as_bytes());
            assert_eq!(rows.record(row).value, want, "offset {offset} of {at}");
            next = offset + 1;
        }
    }
    next
}

async fn read_all(store: &Store, oracle: &Oracle) {
    for (at, records) in oracle.0.iter().enumerate() {
        let mut from = 0;
        while from < records.len() as Offset {
            let next = read(store, oracle, at, from).await;
            assert!(next > from, "nothing at {from} of partition {at}");
            from = next;
        }
    }
}

fn on_cache_files(dir: &Path, act: impl Fn(&Path)) {
    let folder = dir.join("cache/rustmq-blocks-1");
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.path().extension().is_some_and(|e| e == "block") {
            act(&entry.path());
        }
    }
}

async fn run(steps: &[Step]) {
    let dir = tempfile::tempdir().unwrap();
    let mut oracle = Oracle::default();
    let mut store = open(dir.path()).await;
    for step in steps {
        match *step {
            Step::Append(at, rows, size) => append(&store, &mut oracle, at, rows, size).await,
            Step::Tier(true) => drop(store.tier(None).await.unwrap()),
            Step::Tier(false) => store.tier_due().await.unwrap(),
            Step::Read(at, share) => {
                let end = store.bounds(ALL[at]).unwrap().end;
                read(&store, &oracle, at, end * share / 256).await;
            }
            Step::Empty => on_cache_files(dir.path(), |path| drop(std::fs::remove_file(path))),
            Step::Damage(nth) => on_cache_files(dir.path(), |path| {
                // A file may go meanwhile: the cache has a thread of its own.
                let Ok(mut bytes) = std::fs::read(path) else {
                    return;
                };
                if let Some(byte) = bytes.get_mut(nth) {
                    *byte ^= 0x10;
                    let _ = std::fs::write(path, bytes);
                }
            }),
            Step::Restart => {
                store.close().await.unwrap();
                store = open(dir.path()).await;
            }
        }
        within_budgets(&store);
    }
    read_all(&store, &oracle).await;
    store.close().await.unwrap();
    let store = open(dir.path()).await;
    read_all(&store, &oracle).await;
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 24,
        max_shrink_iters: 200,
        failure_persistence: None,
        rng_algorithm: RngAlgorithm::ChaCha,
        ..ProptestConfig::default()
    })]

    #[test]
    fn nothing_is_lost_under_tiny_budgets(steps in proptest::collection::vec(step(), 60..160)) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(run(&steps));
    }
}
