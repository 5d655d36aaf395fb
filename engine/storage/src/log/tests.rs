//! The store as its callers see it: what goes in comes out, also after a restart.

use std::path::Path;
use std::sync::Arc;

use model::{
    Batch, Bounds, Codec, LogError, Lookup, Offset, PartitionId, RowsBuilder, ShardEpoch, TopicId,
};

use super::{Entry, Store};
use crate::config::{PartitionConfig, StoreConfig};

pub(crate) const P0: PartitionId = PartitionId::new(TopicId(1), 0);
pub(crate) const P1: PartitionId = PartitionId::new(TopicId(1), 1);

/// Small segments, and a tier that moves only when told.
pub(crate) fn config(dir: &Path) -> StoreConfig {
    StoreConfig {
        segment_bytes: 64 << 10,
        tier_tick_ms: 3_600_000,
        idle_mark_ms: 1,
        tier_backoff_ms: 1,
        tier_backoff_ms_max: 5,
        ..StoreConfig::new(dir)
    }
}

pub(crate) fn partitions() -> Vec<PartitionConfig> {
    vec![PartitionConfig::new(P0, "t"), PartitionConfig::new(P1, "t")]
}

pub(crate) async fn open(dir: &Path) -> Store {
    Store::open(config(dir), partitions()).await.unwrap()
}

/// `rows` records whose key is their offset and whose value is `text` and that.
pub(crate) fn batch(base: Offset, rows: u64, text: &str) -> Batch {
    let mut builder = RowsBuilder::new();
    for offset in base..base + rows {
        let key = offset.to_string();
        let value = format!("{text}{offset}");
        let headers = [("h", Some(text.as_bytes())), ("none", None)];
        let headers: &[(&str, Option<&[u8]>)] = if offset % 3 == 0 { &headers } else { &[] };
        let value = (offset % 5 != 4).then_some(value.as_bytes());
        builder.push(offset as i64 * 1_000, Some(key.as_bytes()), value, headers);
    }
    let rows = builder.finish();
    let batch = Batch::encode(&rows, Codec::None, None).unwrap();
    batch.stamped(base, ShardEpoch(0), 7)
}

pub(crate) async fn append(store: &Store, p: PartitionId, rows: u64, text: &str) -> Offset {
    let base = store.log_end(p).unwrap();
    let entry = Entry::new(vec![(p, batch(base, rows, text))]);
    store.enqueue(entry).unwrap().await.unwrap();
    base
}

/// All records of a partition as text, one a line.
pub(crate) async fn dump(store: &Store, p: PartitionId) -> String {
    let Bounds { start, end } = store.bounds(p).unwrap();
    let mut text = String::new();
    let mut at = start;
    while at < end {
        let batches = store.read(p, at, 1).await.unwrap();
        assert!(!batches.is_empty(), "nothing at {at} below {end}");
        for batch in batches {
            let rows = batch.rows().unwrap();
            for (row, offset) in batch.offsets().unwrap().into_iter().enumerate() {
                if offset >= start {
                    assert_eq!(offset, at, "offsets follow each other");
                    text.push_str(&line(offset, &rows, row));
                    at += 1;
                }
            }
        }
    }
    text
}

fn line(offset: Offset, rows: &model::Rows, row: usize) -> String {
    let show = |bytes: Option<&[u8]>| match bytes {
        Some(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        None => "-".to_owned(),
    };
    let record = rows.record(row);
    let (key, value) = (show(record.key), show(record.value));
    let headers: Vec<String> = record
        .headers
        .map(|(name, value)| format!("{name}={}", show(value)))
        .collect();
    format!(
        "{offset} {} {key} {value} {}\n",
        record.timestamp,
        headers.join(",")
    )
}

#[tokio::test]
async fn what_was_appended_is_read_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    assert_eq!(append(&store, P0, 3, "a").await, 0);
    assert_eq!(append(&store, P0, 2, "b").await, 3);
    assert_eq!(append(&store, P1, 1, "c").await, 0);
    let before = (dump(&store, P0).await, dump(&store, P1).await);
    assert!(
        before.0.contains("3 3000 3 b3 h=b,none=-\n4 4000 4 - \n"),
        "{}",
        before.0
    );
    store.close().await.unwrap();
    let store = open(dir.path()).await;
    assert_eq!((dump(&store, P0).await, dump(&store, P1).await), before);
    assert_eq!(append(&store, P0, 1, "d").await, 5);
    assert_eq!(store.bounds(P0), Ok(Bounds { start: 0, end: 6 }));
    assert_eq!(store.read(P0, 6, 1).await, Ok(vec![]));
    let outside = store.read(P0, 7, 1).await.unwrap_err();
    assert!(matches!(outside, LogError::OutOfRange { .. }), "{outside}");
}

#[tokio::test]
async fn tiered_ranges_read_the_same_and_free_the_wal() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    for _ in 0..40 {
        append(&store, P0, 100, &"x".repeat(40)).await;
        append(&store, P1, 7, "y").await;
    }
    let before = (dump(&store, P0).await, dump(&store, P1).await);
    assert!(store.status().wal_segments > 3);
    let report = store.tier(None).await.unwrap();
    assert_eq!(
        (report.partitions, report.objects, report.records),
        (2, 1, 4280)
    );
    assert_eq!(store.status().wal_segments, 1, "{:?}", store.status());
    assert_eq!(store.status().wal_live_bytes, 0);
    append(&store, P0, 5, "hot").await;
    let expected = before.0
        + &dump(&store, P0)
            .await
            .split_off(before_len(&store, P0).await);
    store.close().await.unwrap();
    // After the restart nothing is in memory: all but the last five come from Parquet.
    let store = open(dir.path()).await;
    assert_eq!(dump(&store, P0).await, expected);
    assert_eq!(dump(&store, P1).await, before.1);
    assert_eq!(append(&store, P1, 1, "more").await, 280);
}

/// Length of the dump of the first 4000 records.
async fn before_len(store: &Store, p: PartitionId) -> usize {
    let text = dump(store, p).await;
    text.match_indices('\n')
        .nth(3999)
        .map(|(at, _)| at + 1)
        .unwrap()
}

#[tokio::test]
async fn lookup_by_time_finds_the_first_record_not_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    append(&store, P0, 100, "a").await;
    store.tier(None).await.unwrap();
    append(&store, P0, 100, "a").await;
    for (at, expected) in [
        (Lookup::Earliest, 0),
        (Lookup::Latest, 200),
        (Lookup::Timestamp(-5), 0),
        (Lookup::Timestamp(41_000), 41),
        (Lookup::Timestamp(41_001), 42),
        (Lookup::Timestamp(150_000), 150),
        (Lookup::Timestamp(1 << 60), 200),
    ] {
        assert_eq!(store.lookup(P0, at).await, Ok(expected), "{at:?}");
    }
}

#[tokio::test]
async fn a_gap_or_an_unknown_partition_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let entry = |p, base| Entry::new(vec![(P0, batch(0, 1, "a")), (p, batch(base, 1, "b"))]);
    let gap = store.enqueue(entry(P1, 4)).unwrap_err();
    assert!(matches!(gap, LogError::Unavailable(_)), "{gap}");
    let unknown = PartitionId::new(TopicId(9), 0);
    let missing = store.enqueue(entry(unknown, 0)).unwrap_err();
    assert_eq!(missing, LogError::NotFound { partition: unknown });
    // Neither left anything behind.
    store.enqueue(entry(P1, 0)).unwrap().await.unwrap();
    store.enqueue(Entry::new(vec![])).unwrap().await.unwrap();
    store.close().await.unwrap();
    let closed = store
        .enqueue(Entry::new(vec![(P0, batch(1, 1, "a"))]))
        .unwrap_err();
    assert_eq!(closed, LogError::Closed);
}

#[tokio::test]
async fn modules_are_kept_by_digest() {
    use model::Modules;
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(open(dir.path()).await);
    let digest = store.put(b"wasm".to_vec().into()).await.unwrap();
    assert_eq!(store.put(b"wasm".to_vec().into()).await.unwrap(), digest);
    assert_eq!(store.get(digest).await.unwrap().as_ref(), b"wasm");
    assert!(store.get(model::Digest::of(b"other")).await.is_err());
}

mod faults {
    //! The store over a disk and an object store that fail on purpose.

    use std::sync::atomic::Ordering::SeqCst;

    use super::*;
    use crate::tests::disk::SimDisk;
    use crate::tier::tests::FaultyStore;

    struct Bench {
        dir: Arc<tempfile::TempDir>,
        disk: SimDisk,
        objects: FaultyStore,
    }

    impl Bench {
        fn new() -> Bench {
            let dir = Arc::new(tempfile::tempdir().unwrap());
            Bench {
                dir,
                disk: SimDisk::default(),
                objects: FaultyStore::default(),
            }
        }

        async fn open(&self) -> Store {
            let mut config = config(self.dir.path());
            config.segment_bytes = 8 << 10;
            let tier = self.objects.tier(&config);
            let disk = Arc::new(self.disk.clone());
            Store::open_with(config, partitions(), disk, Some(tier))
                .await
                .unwrap()
        }
    }

    #[tokio::test]
    async fn a_failed_sync_is_final() {
        let bench = Bench::new();
        let store = bench.open().await;
        append(&store, P0, 1, "kept").await;
        bench.disk.faults.sync_fails.store(true, SeqCst);
        let entry = Entry::new(vec![(P0, batch(1, 1, "unknown"))]);
        let answer = store.enqueue(entry).unwrap().await;
        assert!(matches!(answer, Err(LogError::Unknown(_))), "{answer:?}");
        assert!(store.failed().await.contains("sync fails on purpose"));
        // Also after the disk works again.
        bench.disk.faults.sync_fails.store(false, SeqCst);
        let later = store
            .enqueue(Entry::new(vec![(P0, batch(2, 1, "no"))]))
            .unwrap_err();
        assert!(later.to_string().contains("restart the broker"), "{later}");
        assert_eq!(
            store.bounds(P0).unwrap().end,
            1,
            "nobody read what is not durable"
        );
        assert!(matches!(store.close().await, Err(LogError::Unknown(_))));
    }

    #[tokio::test]
    async fn a_full_disk_refuses_and_recovers_by_itself() {
        let bench = Bench::new();
        let store = bench.open().await;
        append(&store, P0, 10, &"x".repeat(500)).await;
        bench.disk.faults.is_full.store(true, SeqCst);
        let entry = || Entry::new(vec![(P0, batch(10, 10, &"y".repeat(500)))]);
        // Two queue up; both are refused, and their offsets are free again.
        let first = store.enqueue(entry());
        let second = store.enqueue(Entry::new(vec![(P0, batch(20, 1, "z"))]));
        assert_eq!(first.unwrap().await, Err(LogError::DiskFull));
        if let Ok(second) = second {
            assert_eq!(second.await, Err(LogError::DiskFull));
        }
        assert_eq!(store.log_end(P0), Ok(10));
        assert_eq!(
            store.read(P0, 0, 1).await.unwrap().len(),
            1,
            "readers go on"
        );
        bench.disk.faults.is_full.store(false, SeqCst);
        store.enqueue(entry()).unwrap().await.unwrap();
        let before = dump(&store, P0).await;
        store.close().await.unwrap();
        assert_eq!(dump(&bench.open().await, P0).await, before);
    }

    /// Appends until the store refuses; answers how many records it took.
    async fn fill(store: &Store, p: PartitionId) -> Offset {
        loop {
            let base = store.log_end(p).unwrap();
            let entry = Entry::new(vec![(p, batch(base, 1, &"x".repeat(300)))]);
            match store.enqueue(entry).unwrap().await {
                Ok(()) => {}
                Err(LogError::DiskFull) => return store.log_end(p).unwrap(),
                Err(error) => panic!("{error}"),
            }
        }
    }

    #[tokio::test]
    async fn a_log_at_its_limit_refuses_until_the_tier_or_a_trim_makes_room() {
        let bench = Bench::new();
        let mut config = config(bench.dir.path());
        config.segment_bytes = 8 << 10;
        config.wal_bytes_max = 1 << 30;
        config.wal_bytes_limit = 40 << 10;
        let mut partitions = partitions();
        partitions[1].tier = false;
        let open = || {
            let tier = bench.objects.tier(&config);
            let disk = Arc::new(bench.disk.clone());
            Store::open_with(config.clone(), partitions.clone(), disk, Some(tier))
        };
        let store = open().await.unwrap();
        for round in 0..5 {
            let filled = fill(&store, P0).await;
            let status = store.status();
            assert!(
                status.full_ms.is_some() && status.wal_bytes <= 40 << 10,
                "{round}"
            );
            // A full log is pressed: its oldest segment goes to the tier, without any age.
            while store.status().full_ms.is_some() {
                store.tier_due().await.unwrap();
                let next = batch(store.log_end(P0).unwrap(), 1, &"y".repeat(300));
                let _ = store.enqueue(Entry::new(vec![(P0, next)])).unwrap().await;
            }
            assert!(store.log_end(P0).unwrap() > filled);
        }
        store.tier(None).await.unwrap();
        // What does not go to the tier is the user's to trim, also in a log that it filled.
        let filled = fill(&store, P1).await;
        assert_eq!(fill(&store, P1).await, filled);
        store.trim_durable(P1, filled).await.unwrap();
        assert!(fill(&store, P1).await > filled + 10);
        let before = (dump(&store, P0).await, dump(&store, P1).await);
        store.close().await.unwrap();
        let store = open().await.unwrap();
        assert_eq!((dump(&store, P0).await, dump(&store, P1).await), before);
    }

    #[tokio::test]
    async fn one_sync_covers_all_that_queued() {
        let bench = Bench::new();
        let store = bench.open().await;
        let before = bench.disk.faults.syncs.load(SeqCst);
        let pending: Vec<_> = (0..64)
            .map(|base| {
                store
                    .enqueue(Entry::new(vec![(P0, batch(base, 1, "a"))]))
                    .unwrap()
            })
            .collect();
        for pending in pending {
            pending.await.unwrap();
        }
        // Rolls and marks sync too; 64 entries one by one would need 64 and more.
        let syncs = bench.disk.faults.syncs.load(SeqCst) - before;
        assert!(syncs < 40, "{syncs} syncs");
    }

    #[tokio::test]
    async fn a_crash_between_object_manifest_and_release_leaves_no_gap_and_no_double() {
        for failing in ["data", "manifests"] {
            for lost_answer in [false, true] {
                let bench = Bench::new();
                let store = bench.open().await;
                for _ in 0..10 {
                    append(&store, P0, 20, "x").await;
                }
                let before = dump(&store, P0).await;
                bench.objects.fail_puts(failing, lost_answer);
                let moved = store.tier(Some(P0)).await;
                // What got there is found there, although the answer was lost.
                assert_eq!(moved.is_ok(), lost_answer, "{moved:?}");
                assert_eq!(dump(&store, P0).await, before);
                let crashed = Bench {
                    dir: Arc::clone(&bench.dir),
                    disk: bench.disk.crashed(|| false),
                    objects: bench.objects.healed(),
                };
                drop(store);
                let store = crashed.open().await;
                assert_eq!(dump(&store, P0).await, before, "{failing} {lost_answer}");
                store.tier(Some(P0)).await.unwrap();
                assert_eq!(dump(&store, P0).await, before, "{failing} {lost_answer}");
                let status = &store.status().partitions[0];
                assert_eq!((status.cold_end, status.hot_bytes), (200, 0));
                store.close().await.unwrap();
                assert_eq!(dump(&crashed.open().await, P0).await, before);
            }
        }
    }

    #[tokio::test]
    async fn another_writers_manifest_fences() {
        let bench = Bench::new();
        let (one, disk) = (bench.open().await, SimDisk::default());
        let other = Bench {
            dir: Arc::clone(&bench.dir),
            disk,
            objects: bench.objects.clone(),
        };
        let two = other.open().await;
        append(&one, P0, 2, "one").await;
        append(&two, P0, 1, "two").await;
        one.tier(Some(P0)).await.unwrap();
        let fenced = two.tier(Some(P0)).await.unwrap_err();
        assert!(
            matches!(fenced, crate::TierError::Fenced { .. }),
            "{fenced}"
        );
        assert_eq!(
            dump(&two, P0).await.lines().count(),
            1,
            "it keeps what it has"
        );
    }

    #[tokio::test]
    async fn trims_and_drops_hold_after_a_restart_and_free_the_wal() {
        let bench = Bench::new();
        let store = bench.open().await;
        for _ in 0..20 {
            append(&store, P0, 10, &"x".repeat(60)).await;
            append(&store, P1, 10, &"y".repeat(60)).await;
        }
        assert!(store.trim(P0, 201).is_err());
        store.trim_durable(P0, 105).await.unwrap();
        assert_eq!(
            store.bounds(P0),
            Ok(Bounds {
                start: 105,
                end: 200
            })
        );
        assert!(store.read(P0, 104, 1).await.is_err());
        let segments = store.status().wal_segments;
        store.partition_drop(P1).await.unwrap();
        assert_eq!(store.bounds(P1), Err(LogError::NotFound { partition: P1 }));
        assert!(
            store.status().wal_segments < segments,
            "the drop gave space back"
        );
        let before = dump(&store, P0).await;
        store.close().await.unwrap();
        let store = bench.open().await;
        assert_eq!(
            store.bounds(P0),
            Ok(Bounds {
                start: 105,
                end: 200
            })
        );
        assert_eq!(dump(&store, P0).await, before);
        // All of it gone: where the partition goes on is still known.
        store.trim_durable(P0, 200).await.unwrap();
        assert_eq!(store.status().wal_segments, 1);
        store.close().await.unwrap();
        let wal = bench.dir.path().join("wal");
        let disk: Arc<dyn crate::io::Disk> = Arc::new(bench.disk.clone());
        let recovered = crate::wal::recovery::recover(&disk, &wal, 8 << 10).unwrap();
        assert_eq!(recovered.sequences[&0], 40, "shards go on counting");
        let store = bench.open().await;
        assert_eq!(
            store.bounds(P0),
            Ok(Bounds {
                start: 200,
                end: 200
            })
        );
        assert_eq!(append(&store, P0, 1, "z").await, 200);
    }

    #[tokio::test]
    async fn trimmed_objects_leave_the_list_and_go_a_while_later() {
        let bench = Bench::new();
        let store = bench.open().await;
        for _ in 0..3 {
            append(&store, P0, 10, "x").await;
            store.tier(None).await.unwrap();
        }
        let snapshot = store.snapshot(P0).await.unwrap();
        assert_eq!(
            (snapshot.cold.len(), snapshot.cold_end, snapshot.hot.len()),
            (3, 30, 0)
        );
        store.trim_durable(P0, 25).await.unwrap();
        let trimmed = store.snapshot(P0).await.unwrap();
        assert_eq!((trimmed.cold.len(), trimmed.start), (1, 25));
        store.tier_due().await.unwrap();
        assert_eq!(store.status().partitions[0].objects, 1);
        assert_eq!(
            bench.objects.paths("data").await,
            3,
            "a query may still read them"
        );
        store.delete_retired(std::time::Duration::ZERO).await;
        assert_eq!(bench.objects.paths("data").await, 1);
        store.close().await.unwrap();
        let store = bench.open().await;
        assert_eq!(store.bounds(P0), Ok(Bounds { start: 25, end: 30 }));
        assert_eq!(dump(&store, P0).await.lines().count(), 5);
        store.partition_drop(P0).await.unwrap();
        assert_eq!(bench.objects.paths("data").await, 0);
        let fence = bench.objects.paths("manifests").await;
        assert_eq!(fence, 1, "the last manifest fences whoever still writes");
    }

    #[tokio::test]
    async fn leftovers_of_untiered_partitions_move_to_the_head_under_pressure() {
        let bench = Bench::new();
        let mut config = config(bench.dir.path());
        config.segment_bytes = 8 << 10;
        config.wal_bytes_max = 16 << 10;
        let mut partitions = partitions();
        partitions[1].tier = false;
        let open = || {
            let tier = bench.objects.tier(&config);
            let disk = Arc::new(bench.disk.clone());
            Store::open_with(config.clone(), partitions.clone(), disk, Some(tier))
        };
        let store = open().await.unwrap();
        append(&store, P1, 3, "stays").await;
        for _ in 0..40 {
            append(&store, P0, 10, &"x".repeat(60)).await;
        }
        append(&store, P1, 2, "stays too").await;
        let before = (dump(&store, P0).await, dump(&store, P1).await);
        for _ in 0..4 {
            store.tier_due().await.unwrap();
        }
        let status = store.status();
        assert!(status.wal_segments <= 3, "{status:?}");
        assert_eq!(status.partitions[1].cold_end, 0);
        assert_eq!((dump(&store, P0).await, dump(&store, P1).await), before);
        store.close().await.unwrap();
        let store = open().await.unwrap();
        assert_eq!((dump(&store, P0).await, dump(&store, P1).await), before);
        assert_eq!(append(&store, P1, 1, "goes on").await, 5);
    }

    /// A thousand idle partitions with one small batch each, beside a busy one: the WAL keeps to
    /// its size, and the idle ones neither lose anything nor become a thousand tiny objects.
    #[tokio::test]
    async fn many_idle_partitions_do_not_pin_the_wal() {
        for tier in [true, false] {
            let bench = Bench::new();
            let mut config = config(bench.dir.path());
            config.segment_bytes = 256 << 10;
            config.wal_bytes_max = 16 * config.segment_bytes;
            config.tier_age_ms = u64::MAX;
            let idle = |index| PartitionId::new(TopicId(2), index);
            let mut partitions = partitions();
            partitions.extend((0..1_000).map(|index| {
                let mut partition = PartitionConfig::new(idle(index), "idle");
                partition.tier = tier;
                partition
            }));
            let open = || {
                let tier = bench.objects.tier(&config);
                let disk = Arc::new(bench.disk.clone());
                Store::open_with(config.clone(), partitions.clone(), disk, Some(tier))
            };
            let store = open().await.unwrap();
            for index in 0..1_000 {
                append(&store, idle(index), 1, "idle").await;
            }
            let mut most = 0;
            for round in 0..40 {
                for _ in 0..8 {
                    append(&store, P0, 10, &"x".repeat(6_000)).await;
                }
                store.tier_due().await.unwrap();
                let status = store.status();
                if round > 10 {
                    most = status.wal_bytes.max(most);
                }
            }
            assert!(most <= config.wal_bytes_max, "{most}, tier: {tier}");
            let objects = bench.objects.paths("data").await;
            assert!(objects < 100, "{objects} objects, tier: {tier}");
            store.close().await.unwrap();
            let store = open().await.unwrap();
            for index in 0..1_000 {
                let text = dump(&store, idle(index)).await;
                assert_eq!(text.lines().count(), 1, "partition {index}: {text}");
            }
        }
    }

    #[tokio::test]
    async fn producers_are_remembered_through_tier_and_restart() {
        use model::{Producer, ProducerId};
        let bench = Bench::new();
        let store = bench.open().await;
        let numbered = |base: Offset, sequence| {
            let producer = Producer {
                id: ProducerId(7),
                epoch: 1,
                sequence,
            };
            let rows = batch(base, 2, "a").rows().unwrap();
            let batch = Batch::encode(&rows, Codec::None, Some(producer)).unwrap();
            Entry::new(vec![(P0, batch.stamped(base, ShardEpoch(0), 0))])
        };
        for (base, sequence) in [(0, 0), (2, 2), (4, 4)] {
            store
                .enqueue(numbered(base, sequence))
                .unwrap()
                .await
                .unwrap();
        }
        store.tier(None).await.unwrap();
        for (base, sequence) in [(6, 6), (8, 8), (10, 10), (12, 12)] {
            store
                .enqueue(numbered(base, sequence))
                .unwrap()
                .await
                .unwrap();
        }
        store.close().await.unwrap();
        let store = bench.open().await;
        let last = store.producers(P0).unwrap().batches();
        let sequences: Vec<u32> = last
            .iter()
            .map(|(producer, ..)| producer.sequence)
            .collect();
        assert_eq!(sequences, [4, 6, 8, 10, 12]);
        assert!(last.iter().all(|(producer, records, base)| {
            let is_ours = (producer.id, producer.epoch, *records) == (ProducerId(7), 1, 2);
            is_ours && *base == u64::from(producer.sequence)
        }));
    }

    #[tokio::test]
    async fn memory_topics_are_acknowledged_before_the_sync_and_named_so() {
        let bench = Bench::new();
        let mut partitions = partitions();
        partitions[0].durability = model::Durability::Memory;
        let mut config = config(bench.dir.path());
        config.idle_mark_ms = 3_600_000;
        let tier = bench.objects.tier(&config);
        let disk = Arc::new(bench.disk.clone());
        let store = Store::open_with(config, partitions, disk, Some(tier))
            .await
            .unwrap();
        bench.disk.faults.sync_fails.store(true, SeqCst);
        let mut entry = Entry::new(vec![(P0, batch(0, 1, "a"))]);
        entry.durability = model::Durability::Memory;
        store.enqueue(entry).unwrap().await.unwrap();
        assert_eq!(store.bounds(P0).unwrap().end, 1);
        let mut both = Entry::new(vec![(P0, batch(1, 1, "a")), (P1, batch(0, 1, "b"))]);
        both.durability = model::Durability::Memory;
        let answer = store.enqueue(both).unwrap().await;
        assert!(
            matches!(answer, Err(LogError::Unknown(_))),
            "one fsync topic makes it fsync"
        );
    }
}
