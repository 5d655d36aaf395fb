//! What goes up comes back: in parts, to an empty folder, merged, trimmed and collected.
//!
//! Called by: `main`. Invariants: records are compared byte for byte. Refuses: nothing.

use object_store::path::Path;
use object_store::{GetRange, ObjectStoreExt};

use crate::bucket::{Bucket, Kind, P, append, check, check_no_orphan, close, paths};

/// Enough for three parts of 8 MiB each.
const LARGE_ROWS: u64 = 20;
const LARGE_LEN: usize = 1 << 20;

pub async fn large_objects_go_in_parts(kind: Kind) {
    let bucket = Bucket::new(kind);
    let store = bucket.open("data").await;
    for _ in 0..LARGE_ROWS {
        append(&store, 1, LARGE_LEN).await;
    }
    let report = store.tier(None).await.unwrap();
    assert_eq!((report.objects, report.records), (1, LARGE_ROWS));
    let requests = bucket.wire().requests();
    let parts = requests.iter().filter(|line| line.contains("partNumber="));
    assert_eq!(parts.count(), 3, "{requests:#?}");
    let store = bucket.reopen_emptied(store, "data").await;
    check(&store, 0, LARGE_ROWS, LARGE_LEN).await;
    // The server honours ranges, which SQL reads by.
    let objects = store.object_store();
    let path = Path::from(paths(&*objects, "data").await.remove(0));
    let size = objects.head(&path).await.unwrap().size;
    assert_eq!(objects.get_range(&path, 0..4).await.unwrap(), "PAR1");
    assert_eq!(
        objects.get_range(&path, size - 4..size).await.unwrap(),
        "PAR1"
    );
    let suffix = object_store::GetOptions {
        range: Some(GetRange::Suffix(4)),
        ..Default::default()
    };
    let end = object_store::ObjectStore::get_opts(&*objects, &path, suffix)
        .await
        .unwrap();
    assert_eq!(end.bytes().await.unwrap(), "PAR1");
}

pub async fn all_comes_back_to_an_empty_folder(kind: Kind) {
    let bucket = Bucket::new(kind);
    let mut store = bucket.open("data").await;
    let mut end = 0;
    for round in 0..6u64 {
        for _ in 0..4 {
            append(&store, 50 + round, 100).await;
            end += 50 + round;
        }
        store.tier(None).await.unwrap();
        assert_eq!(store.status().wal_live_bytes, 0, "{:?}", store.status());
        store = bucket.reopen_emptied(store, "data").await;
        check(&store, 0, end, 100).await;
    }
    // Hot and cold at once, and an ordinary restart.
    append(&store, 10, 100).await;
    check(&store, 0, end + 10, 100).await;
    close(store).await;
    check(&bucket.open("data").await, 0, end + 10, 100).await;
}

pub async fn merging_trim_and_collection_leave_no_orphans(kind: Kind) {
    let bucket = Bucket::new(kind);
    let store = bucket.open("data").await;
    for _ in 0..10 {
        append(&store, 20, 100).await;
        store.tier(None).await.unwrap();
    }
    let small = paths(&*store.object_store(), "data").await;
    store.tick(0).await.unwrap();
    assert!(store.status().tier_merged >= 8, "{:?}", store.status());
    check(&store, 0, 200, 100).await;
    // A later start no longer knows what it replaced; the collection finds it.
    let store = bucket.reopen_emptied(store, "data").await;
    store.tick(0).await.unwrap();
    check_no_orphan(&store).await;
    assert!(paths(&*store.object_store(), "data").await.len() < small.len());
    check(&store, 0, 200, 100).await;
    for _ in 0..4 {
        append(&store, 20, 100).await;
        store.tier(None).await.unwrap();
    }
    store.trim_durable(P, 250).await.unwrap();
    store.tick(0).await.unwrap();
    check(&store, 250, 280, 100).await;
    let store = bucket.reopen_emptied(store, "data").await;
    check(&store, 250, 280, 100).await;
    store.tick(0).await.unwrap();
    check_no_orphan(&store).await;
    assert_eq!(paths(&*store.object_store(), "data").await.len(), 2);
}
