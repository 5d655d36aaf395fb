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
        (2, 2, 4280)
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
