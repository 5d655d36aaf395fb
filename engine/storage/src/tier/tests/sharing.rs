//! Partitions of a topic that share objects: one data object, a list each, deleted by collection.
//!
//! Called by: `cargo test`. Invariants: who fails does not hold up the others; what a list names
//! is there. Refuses: nothing.

use std::time::Duration;

use model::{PartitionId, TopicId};

use super::*;
use crate::log::tests::{append, config, dump};
use crate::log::{Entry, Store};
use crate::tests::disk::SimDisk;
use crate::tier::manifest::is_shared;
use crate::tier::twin::Twin;

const fn p(index: u32) -> PartitionId {
    PartitionId::new(TopicId(1), index)
}

const OTHER: PartitionId = PartitionId::new(TopicId(2), 0);
const ALL: [PartitionId; 4] = [p(0), p(1), p(2), p(3)];

struct Bench {
    dir: tempfile::TempDir,
    config: StoreConfig,
    disk: SimDisk,
    twin: Twin,
}

impl Bench {
    fn new() -> Bench {
        let dir = tempfile::tempdir().unwrap();
        let mut config = config(dir.path());
        config.tier_uploads_max = 1;
        config.tier_merge_objects_min = 3;
        (config.tier_backoff_ms, config.tier_backoff_ms_max) = (0, 0);
        Bench {
            dir,
            config,
            disk: SimDisk::default(),
            twin: Twin::new(1, 0),
        }
    }

    fn partitions() -> Vec<PartitionConfig> {
        let of_topic = ALL.into_iter().map(|id| PartitionConfig::new(id, "t"));
        let other = PartitionConfig::new(OTHER, "other");
        of_topic.chain([other]).collect()
    }

    async fn open(&self) -> Store {
        self.open_with(Bench::partitions()).await
    }

    async fn open_with(&self, partitions: Vec<PartitionConfig>) -> Store {
        let tier = Tier::over(Arc::new(self.twin.clone()), "twin".into(), &self.config);
        let disk = Arc::new(self.disk.clone());
        let open = Store::open_with(self.config.clone(), partitions, disk, Some(tier));
        open.await.unwrap()
    }

    /// Another start over what a power cut left.
    fn crashed(self) -> Bench {
        let disk = self.disk.crashed(|| false);
        Bench { disk, ..self }
    }
}

async fn append_all(store: &Store, text: &str) {
    for (id, rows) in ALL.into_iter().zip(3..) {
        append(store, id, rows, text).await;
    }
}

async fn dump_all(store: &Store) -> Vec<String> {
    let mut all = Vec::new();
    for id in ALL {
        all.push(dump(store, id).await);
    }
    all
}

async fn named(store: &Store, id: PartitionId) -> Vec<String> {
    let cold = store.snapshot(id).await.unwrap().cold;
    cold.into_iter().map(|object| object.path).collect()
}

#[tokio::test]
async fn small_partitions_of_a_topic_share_an_object() {
    let bench = Bench::new();
    let store = bench.open().await;
    append_all(&store, "a").await;
    append(&store, OTHER, 2, "b").await;
    let before = dump_all(&store).await;
    let report = store.tier(None).await.unwrap();
    assert_eq!(
        (report.partitions, report.objects, report.records),
        (5, 2, 20)
    );
    let data = bench.twin.paths("data").await;
    assert!(data[1].starts_with("data/t-1/shared/node-0-"), "{data:?}");
    assert!(data[0].starts_with("data/other-2/0/"), "{data:?}");
    for id in ALL {
        assert_eq!(named(&store, id).await, data[1..]);
    }
    assert_eq!(store.status().tier_objects, 2);
    store.close().await.unwrap();
    let store = bench.open().await;
    assert_eq!(dump_all(&store).await, before, "each reads its own");
    // One alone has an object of its own.
    append(&store, p(2), 1, "c").await;
    store.tier(None).await.unwrap();
    let paths = named(&store, p(2)).await;
    assert!(
        !is_shared(&paths[1]) && paths[1].starts_with("data/t-1/2/"),
        "{paths:?}"
    );
}

#[tokio::test]
async fn who_is_half_as_old_comes_along_and_who_is_younger_does_not() {
    let mut bench = Bench::new();
    bench.config.tier_age_ms = 1_000;
    let store = bench.open().await;
    for (id, append_time_us) in ALL.into_iter().zip([0, 400_000, 600_000, 0]) {
        let batch = batch(0, 2, "a").stamped(0, ShardEpoch(0), append_time_us);
        let entry = Entry::new(vec![(id, batch)]);
        store.enqueue(entry).unwrap().await.unwrap();
    }
    store.tick(999_999).await.unwrap();
    assert_eq!(bench.twin.paths("data").await, Vec::<String>::new());
    store.tick(1_000_000).await.unwrap();
    let status = store.status();
    let moved: Vec<bool> = status
        .partitions
        .iter()
        .map(|one| one.cold_end > 0)
        .collect();
    assert_eq!(moved, [true, true, false, true, false]);
    assert_eq!(bench.twin.paths("data").await.len(), 1);
}

/// Data object, lists, local deletion: whenever the power goes, nothing is lost or doubled, and
/// what a dead run left goes with a collection.
#[tokio::test]
async fn a_power_cut_at_any_request_leaves_no_gap_no_double_and_no_orphan() {
    let mut unfinished = 0;
    for requests in 0..40 {
        let mut bench = Bench::new();
        bench.config.segment_bytes = 8 << 10;
        let store = bench.open().await;
        append_all(&store, &"a".repeat(500)).await;
        store.tier(None).await.unwrap();
        append_all(&store, &"b".repeat(500)).await;
        let before = dump_all(&store).await;
        bench.twin.set_power(Some(requests));
        let moved = store.tier(None).await;
        unfinished += u32::from(moved.is_err());
        let crashed = bench.crashed();
        drop(store);
        crashed.twin.set_power(None);
        let store = crashed.open().await;
        assert_eq!(dump_all(&store).await, before, "after {requests} requests");
        store.tier(None).await.unwrap();
        assert_eq!(dump_all(&store).await, before, "after {requests} requests");
        store.collect(Duration::ZERO).await.unwrap();
        let mut names = std::collections::BTreeSet::new();
        for id in ALL {
            assert_eq!(store.snapshot(id).await.unwrap().hot.len(), 0);
            names.extend(named(&store, id).await);
        }
        let there = crashed.twin.paths("data").await.into_iter().collect();
        assert_eq!(names, there, "after {requests} requests");
        store.close().await.unwrap();
        assert_eq!(dump_all(&crashed.open().await).await, before);
        assert!(crashed.dir.path().exists());
    }
    assert!((10..40).contains(&unfinished), "{unfinished} of the runs");
}

#[tokio::test]
async fn a_list_that_fails_holds_up_only_its_own_partition() {
    let bench = Bench::new();
    let objects = FaultyStore::default();
    let tier = objects.tier(&bench.config);
    let disk = Arc::new(bench.disk.clone());
    let store = Store::open_with(bench.config.clone(), Bench::partitions(), disk, Some(tier));
    let store = store.await.unwrap();
    append_all(&store, "a").await;
    let before = dump_all(&store).await;
    objects.fail_puts("manifests/1/2/", false);
    let failed = store.tier(None).await.unwrap_err();
    assert!(failed.to_string().contains("manifests/1/2/"), "{failed}");
    let status = store.status().partitions;
    let moved: Vec<bool> = status.iter().map(|one| one.cold_end > 0).collect();
    assert_eq!(moved, [true, true, false, true, false]);
    let failing: Vec<bool> = status
        .iter()
        .map(|one| one.tier_failure.is_some())
        .collect();
    assert_eq!(failing, [false, false, true, false, false]);
    assert_eq!(dump_all(&store).await, before);
    objects.fail_puts("none", false);
    store.tier(None).await.unwrap();
    assert!(
        !is_shared(&named(&store, p(2)).await[0]),
        "a new object, of its own"
    );
    assert_eq!(
        store.collect(Duration::ZERO).await.unwrap().objects,
        0,
        "still named"
    );
    assert_eq!(dump_all(&store).await, before);
}

#[tokio::test]
async fn small_objects_merge_into_shared_ones_which_go_when_nobody_names_them() {
    let bench = Bench::new();
    let store = bench.open().await;
    for round in 0..3 {
        append_all(&store, &format!("{round}:")).await;
        store.tier(None).await.unwrap();
    }
    let before = dump_all(&store).await;
    let old = named(&store, p(0)).await;
    assert_eq!(old.len(), 3);
    // One leaves: the others still name what it left.
    store.trim_durable(p(0), 9).await.unwrap();
    store.tier_due().await.unwrap();
    assert_eq!(store.status().tier_merged, 9);
    for id in [p(1), p(2), p(3)] {
        let paths = named(&store, id).await;
        assert!(paths.len() == 1 && is_shared(&paths[0]), "{paths:?}");
        assert_eq!(paths, named(&store, p(1)).await, "they share again");
    }
    assert_eq!(named(&store, p(0)).await, Vec::<String>::new());
    assert_eq!(
        store.collect(Duration::ZERO).await.unwrap().objects,
        0,
        "still read"
    );
    store.delete_retired(Duration::ZERO).await;
    assert_eq!(
        bench.twin.paths("data").await.len(),
        4,
        "not theirs to delete"
    );
    let hour = Duration::from_secs(3_600);
    assert_eq!(store.collect(hour).await.unwrap().objects, 0, "too young");
    assert_eq!(store.collect(Duration::ZERO).await.unwrap().objects, 3);
    assert_eq!(bench.twin.paths("data").await, named(&store, p(1)).await);
    assert_eq!(dump_all(&store).await[1..], before[1..]);
}

#[tokio::test]
async fn a_shared_object_is_not_judged_by_who_knows_too_little() {
    let bench = Bench::new();
    let store = bench.open().await;
    append_all(&store, "a").await;
    store.tier(None).await.unwrap();
    let before = dump_all(&store).await;
    let orphan = "data/t-1/shared/nobody.parquet";
    store
        .object_store()
        .put(&Path::from(orphan), "x".into())
        .await
        .unwrap();
    // A store that does not know all partitions of the topic.
    let mut few = Bench::partitions();
    few.remove(3);
    let stranger = Bench {
        dir: tempfile::tempdir().unwrap(),
        config: bench.config.clone(),
        disk: SimDisk::default(),
        twin: bench.twin.clone(),
    };
    let knows_few = stranger.open_with(few).await;
    let collected = knows_few.collect(Duration::ZERO).await.unwrap();
    assert_eq!((collected.objects, collected.unknown), (0, 2));
    // One that another writer has gone on without.
    let stale = stranger.open().await;
    append(&store, p(1), 1, "b").await;
    store.tier(None).await.unwrap();
    let collected = stale.collect(Duration::ZERO).await.unwrap();
    assert_eq!((collected.objects, collected.stale), (0, 2));
    assert_eq!(store.collect(Duration::ZERO).await.unwrap().objects, 1);
    assert_eq!(dump_all(&store).await[2..], before[2..]);
    // The topic goes, one partition after the other; what they shared goes last.
    for (gone, id) in ALL.into_iter().enumerate() {
        store.partition_drop(id).await.unwrap();
        let collected = store.collect(Duration::ZERO).await.unwrap();
        let expected = if gone == 3 { 1 } else { 0 };
        assert_eq!(collected.objects, expected, "{id}");
    }
    assert_eq!(bench.twin.paths("data").await, Vec::<String>::new());
}
