//! When a checkpoint is saved, and what opening makes of it.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use model::Durability;

use super::super::Entry;
use super::super::tests::faults::Bench;
use super::super::tests::{P0, P1, append, batch, config, dump, partitions};
use super::*;
use crate::io::Disk;
use crate::wal::recovery::{Recovered, recover};

fn recovered(bench: &Bench) -> Recovered {
    let disk: Arc<dyn Disk> = Arc::new(bench.disk.clone());
    recover(&disk, &bench.dir.path().join("wal"), 8 << 10).unwrap()
}

fn is_saved(bench: &Bench) -> bool {
    let path = bench.dir.path().join("wal/checkpoint");
    bench.disk.files().contains_key(&path)
}

#[tokio::test]
async fn after_a_clean_end_nothing_is_read_again() {
    let bench = Bench::new();
    let store = bench.open().await;
    for _ in 0..50 {
        append(&store, P0, 10, &"x".repeat(100)).await;
    }
    append(&store, P1, 1, "other").await;
    let before = (dump(&store, P0).await, dump(&store, P1).await);
    store.close().await.unwrap();
    let found = recovered(&bench);
    assert!(
        found.segments.len() > 1 && found.entries <= 3,
        "{} entries",
        found.entries
    );
    let store = bench.open().await;
    assert_eq!((dump(&store, P0).await, dump(&store, P1).await), before);
    assert_eq!(append(&store, P0, 1, "goes on").await, 500);
}

#[tokio::test]
async fn every_few_segments_one_is_saved() {
    let bench = Bench::new();
    let store = bench.open().await;
    append(&store, P0, 1, "little").await;
    store.save_if_due().await;
    assert!(!is_saved(&bench), "too little came");
    let mut before = 0;
    for _ in 0..3 {
        for _ in 0..60 {
            append(&store, P1, 10, &"x".repeat(100)).await;
        }
        store.save_if_due().await;
        let now = recovered_to(&store);
        assert!(now > before, "{now}");
        before = now;
    }
    assert!(is_saved(&bench));
    let crashed = bench.disk.crashed(|| false);
    let disk: Arc<dyn Disk> = Arc::new(crashed);
    let found = recover(&disk, &bench.dir.path().join("wal"), 8 << 10).unwrap();
    assert_eq!(found.from.0, before);
    assert_eq!(found.partitions[&P1].end, 1_800);
    assert_eq!(found.partitions[&P1].batches.len(), 180);
}

fn recovered_to(store: &Store) -> u64 {
    locked(&store.inner.saved).to
}

#[tokio::test]
async fn it_tells_only_of_what_is_durable() {
    let bench = Bench::new();
    let mut partitions = partitions();
    partitions[0].durability = Durability::Memory;
    let mut config = config(bench.dir.path());
    config.idle_mark_ms = 3_600_000;
    let tier = bench.objects.tier(&config);
    let disk = Arc::new(bench.disk.clone());
    let store = Store::open_with(config, partitions, disk, Some(tier));
    let store = store.await.unwrap();
    bench.disk.faults.sync_fails.store(true, SeqCst);
    let mut entry = Entry::new(vec![(P0, batch(0, 1, "a"))]);
    entry.durability = Durability::Memory;
    store.enqueue(entry).unwrap().await.unwrap();
    assert_eq!(store.bounds(P0).unwrap().end, 1);
    assert!(matches!(store.save().await, Err(LogError::Unknown(_))));
    assert!(!is_saved(&bench));
}
