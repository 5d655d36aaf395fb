//! The tier under faults: thousands of operations from a seed, checked against a model.
//!
//! Called by: `cargo test`; `RUSTMQ_SEED` gives another seed. Invariants: what was acknowledged
//! is there once and in order, whatever the object store does and whenever the power goes; after
//! a collection only what the lists name is left. Refuses: nothing.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use model::{Offset, PartitionId};

use super::Tier;
use super::collect::MANIFESTS_KEPT;
use super::manifest::is_shared;
use super::pace::{BreakerState, Dice};
use super::twin::Twin;
use crate::log::Store;
use crate::log::tests::{P0, P1, append, config, dump, partitions};
use crate::stores;
use crate::stores::s3::{self, S3};
use crate::tests::disk::SimDisk;
use crate::{PartitionConfig, StoreConfig, StoreOptions, TierError};

const RUNS: u64 = 5;
const OPERATIONS: u64 = 2_000;
/// Over a real server, where each takes longer.
const OPERATIONS_S3: u64 = 300;
const FAULTS_PER_MILLE: u64 = 150;
/// Of one topic, so that they share objects.
const PARTITIONS: u64 = 4;
/// Times a request is made again where the store is to blame.
const TRIES_MAX: u32 = 60;

/// What a partition must hold: where it starts, and the appends as base, end and text.
#[derive(Default)]
struct Model {
    start: Offset,
    appends: Vec<(Offset, Offset, String)>,
}

impl Model {
    fn end(&self) -> Offset {
        self.appends.last().map_or(0, |(_, end, _)| *end)
    }

    fn value(&self, offset: Offset) -> Option<String> {
        let at = self.appends.partition_point(|(_, end, _)| *end <= offset);
        let (_, _, text) = &self.appends[at];
        (offset % 5 != 4).then(|| format!("{text}{offset}"))
    }
}

struct Storm {
    seed: u64,
    dir: tempfile::TempDir,
    config: StoreConfig,
    disk: SimDisk,
    twin: Twin,
    dice: Dice,
    models: [(PartitionId, Model); PARTITIONS as usize],
    records: u64,
    failed: u64,
    crashes: u64,
    merged: u64,
    /// Objects that partitions share, at the end.
    shared: usize,
}

impl Storm {
    fn new(seed: u64) -> Storm {
        Storm::over(seed, Twin::new(seed, FAULTS_PER_MILLE))
    }

    fn over(seed: u64, twin: Twin) -> Storm {
        let dir = tempfile::tempdir().unwrap();
        let mut config = config(dir.path());
        config.segment_bytes = 8 << 10;
        // Due by age at once; nothing wakes the background task, so the seed decides all.
        config.tier_age_ms = 0;
        config.wal_bytes_max = 64 << 10;
        (config.tier_backoff_ms, config.tier_backoff_ms_max) = (0, 0);
        config.tier_uploads_max = 1;
        config.tier_merge_objects_min = 3;
        // Every other run puts all its objects in parts.
        config.tier_multipart_bytes = if seed.is_multiple_of(2) { 1 } else { u64::MAX };
        Storm {
            seed,
            dir,
            config,
            disk: SimDisk::default(),
            twin,
            dice: Dice(seed ^ 0xd1ce),
            models: std::array::from_fn(|index| {
                let id = PartitionId::new(P0.topic, index as u32);
                (id, Model::default())
            }),
            records: 0,
            failed: 0,
            crashes: 0,
            merged: 0,
            shared: 0,
        }
    }

    async fn open(&self) -> Store {
        let mut error = None;
        for _ in 0..TRIES_MAX {
            let tier = Tier::over(Arc::new(self.twin.clone()), "twin".into(), &self.config);
            let disk = Arc::new(self.disk.clone());
            let configs = self
                .models
                .iter()
                .map(|(p, _)| PartitionConfig::new(*p, "t"));
            let configs = configs.collect();
            let open = Store::open_with(self.config.clone(), configs, disk, Some(tier));
            match open.await {
                Ok(store) => return store,
                Err(failed) => error = Some(failed),
            }
        }
        panic!("seed {}: does not open: {}", self.seed, error.unwrap());
    }

    /// Reads from an offset on until `until` and compares.
    async fn check(&self, store: &Store, at: usize, from: Offset, until: Offset) {
        let (p, model) = &self.models[at];
        let mut next = from;
        let mut tries = 0;
        while next < until {
            let batches = match store.read(*p, next, 1 << 10).await {
                Ok(batches) => batches,
                Err(error) => {
                    tries += 1;
                    assert!(tries < TRIES_MAX, "seed {}: {p} {next}: {error}", self.seed);
                    continue;
                }
            };
            assert!(!batches.is_empty(), "seed {}: gap at {next}", self.seed);
            for batch in batches {
                let rows = batch.rows().unwrap();
                for (row, offset) in batch.offsets().unwrap().into_iter().enumerate() {
                    if offset < next {
                        assert!(offset < from, "seed {}: {offset} twice", self.seed);
                        continue;
                    }
                    assert_eq!(offset, next, "seed {}: no gap, no double", self.seed);
                    let record = rows.record(row);
                    let value = record.value.map(|v| String::from_utf8(v.to_vec()).unwrap());
                    assert_eq!(value, model.value(offset), "seed {}: {p}", self.seed);
                    assert_eq!(record.key.unwrap(), offset.to_string().as_bytes());
                    next += 1;
                }
            }
        }
    }

    async fn check_all(&self, store: &Store) {
        for (at, (p, model)) in self.models.iter().enumerate() {
            let bounds = store.bounds(*p).unwrap();
            let expected = (model.start, model.end());
            let seed = self.seed;
            assert_eq!((bounds.start, bounds.end), expected, "seed {seed}: {p}");
            self.check(store, at, model.start, model.end()).await;
        }
    }

    fn count<T>(&mut self, done: Result<T, TierError>) {
        if let Err(error) = done {
            assert!(error.is_passing(), "seed {}: {error}", self.seed);
            self.failed += 1;
        }
    }

    async fn operate(&mut self, store: Store, number: u64) -> Store {
        let at = self.dice.below(PARTITIONS) as usize;
        let p = self.models[at].0;
        match self.dice.below(100) {
            0..40 => {
                let rows = 1 + self.dice.below(12);
                let text = format!("{number}:");
                let base = append(&store, p, rows, &text).await;
                let model = &mut self.models[at].1;
                assert_eq!(base, model.end(), "seed {}", self.seed);
                model.appends.push((base, base + rows, text));
                self.records += rows;
            }
            40..62 => {
                let model = &self.models[at].1;
                let span = model.end() - model.start;
                let from = model.start + self.dice.below(span);
                let until = (from + 30).min(self.models[at].1.end());
                self.check(&store, at, from, until).await;
            }
            62..68 => self.count(store.tier(Some(p)).await),
            68..75 => self.count(store.tier(None).await),
            75..79 => self.count(store.tier_due().await),
            79..82 => {
                let partition = store.partition(p).unwrap();
                let merged = store.merge(&partition).await;
                self.merged += *merged.as_ref().unwrap_or(&0) as u64;
                self.count(merged);
            }
            82..86 => {
                let model = &mut self.models[at].1;
                let span = (model.end() - model.start) / 4;
                model.start += self.dice.below(span);
                store.trim_durable(p, model.start).await.unwrap();
            }
            86..93 => {
                store.delete_retired(Duration::ZERO).await;
                self.count(store.collect(Duration::ZERO).await);
            }
            93..97 => return self.crash(store, p).await,
            _ => {
                store.close().await.unwrap();
                drop(store);
                let store = self.open().await;
                self.check_all(&store).await;
                return store;
            }
        }
        store
    }

    /// The power goes after a few requests of a run of the tier.
    async fn crash(&mut self, store: Store, p: PartitionId) -> Store {
        self.crashes += 1;
        self.twin.set_power(Some(self.dice.below(20)));
        match self.dice.below(4) {
            0 => drop(store.collect(Duration::ZERO).await),
            1 => drop(store.tier_due().await),
            2 => drop(store.tier(None).await),
            _ => drop(store.tier(Some(p)).await),
        }
        // How often it is asked depends on the writer's thread, so it has a dice of its own.
        let mut dice = Dice(self.seed ^ self.crashes);
        self.disk = self.disk.crashed(|| dice.below(2) == 0);
        drop(store);
        self.twin.set_power(None);
        let store = self.open().await;
        self.check_all(&store).await;
        store
    }

    /// Without faults: all goes to the tier, and a collection leaves what the lists name.
    async fn settle(&mut self, store: Store) {
        self.twin.set_faults(0);
        let store = {
            store.close().await.unwrap();
            drop(store);
            self.open().await
        };
        store.tier(None).await.unwrap();
        store.tier_due().await.unwrap();
        store.delete_retired(Duration::ZERO).await;
        store.collect(Duration::ZERO).await.unwrap();
        let mut named = BTreeSet::new();
        for (p, model) in &self.models {
            let snapshot = store.snapshot(*p).await.unwrap();
            assert_eq!(snapshot.cold_end, model.end());
            named.extend(snapshot.cold.into_iter().map(|object| object.path));
        }
        self.shared = named.iter().filter(|path| is_shared(path)).count();
        let there = self.twin.paths("data").await.into_iter().collect();
        assert_eq!(named, there, "seed {}: orphans are left", self.seed);
        let manifests = self.twin.paths("manifests").await.len() as u64;
        assert!(
            manifests <= PARTITIONS * MANIFESTS_KEPT,
            "{manifests} manifests"
        );
        self.check_all(&store).await;
        store.close().await.unwrap();
        drop(store);
        self.check_all(&self.open().await).await;
        assert!(self.dir.path().exists());
    }
}

/// The same over a real S3 server: what it does itself, and the faults it does not have.
#[tokio::test]
async fn operations_under_faults_over_a_real_s3_server() {
    let name = "operations_under_faults_over_a_real_s3_server";
    if !stores::is_there_or_skipped(&stores::pins::S3, name) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let server = S3::start(dir.path());
    let options = s3::options(server.port).into_iter();
    let options = options.map(|(name, value)| (name.to_owned(), value));
    let options = StoreOptions(options.collect());
    let objects = super::objects::open(&s3::url("storm"), &options).unwrap();
    let seed = 2_026;
    let mut storm = Storm::over(seed, Twin::over(objects, seed, FAULTS_PER_MILLE));
    let mut store = storm.open().await;
    for number in 0..OPERATIONS_S3 {
        store = storm.operate(store, number).await;
    }
    storm.settle(store).await;
    assert!(storm.twin.fired().len() >= 6, "{:?}", storm.twin.fired());
}

#[tokio::test]
async fn ten_thousand_operations_under_faults_leave_no_gap_no_double_and_no_orphan() {
    let seed = std::env::var("RUSTMQ_SEED").ok();
    let seed: u64 = seed.map_or(2_026, |seed| seed.parse().unwrap());
    for run in 0..RUNS {
        let mut storm = Storm::new(seed + run);
        let mut store = storm.open().await;
        for number in 0..OPERATIONS {
            store = storm.operate(store, number).await;
        }
        storm.settle(store).await;
        let fired = storm.twin.fired();
        println!(
            "seed {}: {OPERATIONS} operations, {} records acknowledged, 0 lost, 0 doubled, {} \
             operations failed and were tried again, {} crashes, {} parts put, {} objects \
             merged, {} shared at the end, faults fired {} {fired:?}",
            storm.seed,
            storm.records,
            storm.failed,
            storm.crashes,
            storm.twin.parts(),
            storm.merged,
            storm.shared,
            fired.values().sum::<u64>(),
        );
        assert!(fired.len() >= 8, "every fault fires: {fired:?}");
        assert!(storm.merged > 0 && storm.shared > 0);
        assert_eq!(storm.twin.parts() > 0, storm.seed.is_multiple_of(2));
    }
}

/// A store of its own disk over the same objects.
async fn open_other(twin: &Twin, dir: &tempfile::TempDir) -> Store {
    let mut config = config(dir.path());
    (config.tier_backoff_ms, config.tier_backoff_ms_max) = (1, 60_000);
    let tier = Tier::over(Arc::new(twin.clone()), "twin".into(), &config);
    let disk = Arc::new(SimDisk::default());
    let open = Store::open_with(config, partitions(), disk, Some(tier));
    open.await.unwrap()
}

#[tokio::test]
async fn a_stale_writer_is_fenced_also_after_collection_and_deletes_nothing() {
    let (twin, dir) = (Twin::new(1, 0), tempfile::tempdir().unwrap());
    let stale = open_other(&twin, &dir).await;
    let owner = open_other(&twin, &dir).await;
    append(&stale, P0, 3, "stale").await;
    for _ in 0..MANIFESTS_KEPT + 4 {
        append(&owner, P0, 1, "owner").await;
        owner.tier(Some(P0)).await.unwrap();
    }
    let collected = owner.collect(Duration::ZERO).await.unwrap();
    assert_eq!((collected.objects, collected.manifests), (0, 4));
    // Its manifest 1 has no other in its place any more, and still it is refused.
    for _ in 0..2 {
        let fenced = stale.tier(Some(P0)).await.unwrap_err();
        assert!(matches!(fenced, TierError::Fenced { .. }), "{fenced}");
    }
    let refused = stale.collect(Duration::ZERO).await.unwrap();
    assert_eq!((refused.objects, refused.stale), (0, 1));
    let collected = owner.collect(Duration::ZERO).await.unwrap();
    assert_eq!(collected.objects, 2, "what the stale writer left");
    assert_eq!(twin.paths("data").await.len() as u64, MANIFESTS_KEPT + 4);
}

#[tokio::test]
async fn a_dropped_partition_is_collected_and_an_unknown_one_is_not() {
    let (twin, dir) = (Twin::new(1, 0), tempfile::tempdir().unwrap());
    let store = open_other(&twin, &dir).await;
    for p in [P0, P1] {
        append(&store, p, 3, "a").await;
        store.tier(Some(p)).await.unwrap();
    }
    // The power goes between the last manifest and the objects.
    twin.set_power(Some(4));
    store.partition_drop(P0).await.unwrap();
    twin.set_power(None);
    assert_eq!(twin.paths("data").await.len(), 2);
    let config = config(dir.path());
    let tier = Tier::over(Arc::new(twin.clone()), "twin".into(), &config);
    let disk = Arc::new(SimDisk::default());
    let none = Store::open_with(config, vec![], disk, Some(tier));
    let none = none.await.unwrap();
    let hour = Duration::from_secs(3_600);
    assert_eq!(none.collect(hour).await.unwrap().objects, 0, "too young");
    let collected = none.collect(Duration::ZERO).await.unwrap();
    assert_eq!((collected.objects, collected.unknown), (1, 1));
    assert!(
        twin.paths("data").await[0].contains("/1/"),
        "the unknown one stays"
    );
    assert_eq!(twin.paths("manifests/1/0").await.len(), 2, "with its fence");
}

#[tokio::test]
async fn large_objects_go_in_parts_and_are_looked_at() {
    let twin = Twin::new(7, 0);
    let mut config = config(std::path::Path::new("unused"));
    config.tier_backoff_ms = 0;
    let tier = Tier::over(Arc::new(twin.clone()), "twin".into(), &config);
    let bytes = bytes::Bytes::from(vec![7; 20 << 20]);
    tier.put_whole(&"data/large".into(), &bytes).await.unwrap();
    assert_eq!(twin.parts(), 3);
    assert_eq!(tier.get("read", "data/large").await.unwrap(), bytes);
    let small = bytes.slice(..1 << 20);
    tier.put_whole(&"data/small".into(), &small).await.unwrap();
    assert_eq!(twin.parts(), 3);
}

#[tokio::test]
async fn a_failing_store_opens_the_breaker_and_shows_until_it_works_again() {
    let (twin, dir) = (Twin::new(1, 0), tempfile::tempdir().unwrap());
    let store = open_other(&twin, &dir).await;
    append(&store, P0, 3, "a").await;
    twin.set_power(Some(0));
    let mut last = String::new();
    // Two runs of four tries each; then the store is not even asked.
    for _ in 0..3 {
        last = store.tier(Some(P0)).await.unwrap_err().to_string();
    }
    assert!(last.contains("left alone"), "{last}");
    let status = store.status();
    assert_eq!(status.tier_breaker.state, BreakerState::Open, "{last}");
    assert_eq!(status.tier_breaker.failures, 8);
    assert!(status.tier_failure.unwrap().contains("left alone"));
    assert!(status.partitions[0].tier_failure.is_some());
    assert_eq!(status.partitions[1].tier_failure, None);
    twin.set_power(None);
    // The next try is due after the pause.
    while let Err(error) = store.tier(Some(P0)).await {
        assert!(error.to_string().contains("left alone"), "{error}");
        tokio::task::yield_now().await;
    }
    let status = store.status();
    assert_eq!(status.tier_breaker.state, BreakerState::Closed);
    assert!(
        status
            .tier_breaker
            .last_error
            .unwrap()
            .contains("power gone")
    );
    assert_eq!(status.tier_failure, None);
}

#[tokio::test]
async fn small_objects_become_one_and_go_after_those_who_read_them() {
    let (twin, dir) = (Twin::new(1, 0), tempfile::tempdir().unwrap());
    let store = open_other(&twin, &dir).await;
    for _ in 0..8 {
        append(&store, P0, 5, "a").await;
        store.tier(Some(P0)).await.unwrap();
    }
    let before = dump(&store, P0).await;
    let pinned = store.snapshot(P0).await.unwrap();
    store.tier_due().await.unwrap();
    let status = store.status();
    assert_eq!((status.tier_merged, status.partitions[0].objects), (8, 1));
    assert_eq!(dump(&store, P0).await, before);
    // Who pinned the old list still reads; a collection leaves it what it reads.
    store.collect(Duration::ZERO).await.unwrap();
    let there = twin.paths("data").await;
    assert!(
        pinned
            .cold
            .iter()
            .all(|object| there.contains(&object.path))
    );
    store.delete_retired(Duration::ZERO).await;
    assert_eq!(twin.paths("data").await.len(), 1);
    assert_eq!(dump(&store, P0).await, before);
    store.tier_due().await.unwrap();
    assert_eq!(store.status().tier_merged, 8, "nothing is merged twice");
}
