//! A server with a bucket, stores over it, and records that tell where they belong.
//!
//! Called by: every check. Invariants: the product talks through a wire that passes all unless
//! told otherwise. Refuses: nothing.

use futures::TryStreamExt;
use model::{Batch, Codec, Offset, PartitionId, RowsBuilder, ShardEpoch, TopicId};
use object_store::ObjectStore;
use object_store::path::Path;
use rustmq_storage::{Entry, OpenError, PartitionConfig, Store, StoreConfig, StoreOptions};

use crate::stores::gcs::{self, Gcs};
use crate::stores::pins::{self, Pin};
use crate::stores::s3::{self, S3};
use crate::stores::wire::Wire;

pub const P: PartitionId = PartitionId::new(TopicId(1), 0);
/// Of the tier in its bucket.
const PREFIX: &str = "some/prefix";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    S3,
    Gcs,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Kind::S3 => "s3",
            Kind::Gcs => "gcs",
        }
    }

    pub fn pin(self) -> Pin {
        match self {
            Kind::S3 => pins::S3,
            Kind::Gcs => pins::GCS,
        }
    }
}

enum Server {
    S3(S3, Wire),
    Gcs(Gcs),
}

/// The servers end before their folder goes.
pub struct Bucket {
    server: Server,
    pub dir: tempfile::TempDir,
}

impl Bucket {
    pub fn new(kind: Kind) -> Bucket {
        let dir = tempfile::tempdir().unwrap();
        let server = match kind {
            Kind::S3 => {
                let s3 = S3::start(dir.path());
                let wire = Wire::before(s3.port);
                Server::S3(s3, wire)
            }
            Kind::Gcs => Server::Gcs(Gcs::start(dir.path())),
        };
        Bucket { server, dir }
    }

    pub fn wire(&self) -> &Wire {
        match &self.server {
            Server::S3(_, wire) => wire,
            Server::Gcs(gcs) => &gcs.wire,
        }
    }

    pub fn kill(&mut self) {
        match &mut self.server {
            Server::S3(s3, _) => s3.kill(),
            Server::Gcs(gcs) => gcs.kill(),
        }
    }

    pub fn restart(&mut self) {
        match &mut self.server {
            Server::S3(s3, _) => s3.restart(),
            Server::Gcs(gcs) => gcs.restart(),
        }
    }

    /// A store of this folder that moves only when told, as a user would configure it.
    pub fn config(&self, folder: &str) -> StoreConfig {
        let port = self.wire().port;
        let (url, options) = match &self.server {
            Server::S3(..) => (s3::url(PREFIX), s3::options(port)),
            Server::Gcs(_) => (gcs::url(PREFIX), gcs::options(port)),
        };
        let options = options
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value));
        StoreConfig {
            tier_url: Some(url),
            tier_options: StoreOptions(options.collect()),
            segment_bytes: 256 << 10,
            tier_tick_ms: 3_600_000,
            idle_mark_ms: 1,
            tier_backoff_ms: 1,
            tier_backoff_ms_max: 20,
            // A collection of every tick, of all that no list names.
            tier_collect_ms: 0,
            tier_orphan_grace_ms: 0,
            ..StoreConfig::new(self.dir.path().join(folder))
        }
    }

    pub async fn open(&self, folder: &str) -> Store {
        open(self.config(folder)).await.unwrap()
    }

    /// Closed, its folder deleted, opened again: only what the bucket has is left.
    pub async fn reopen_emptied(&self, store: Store, folder: &str) -> Store {
        close(store).await;
        std::fs::remove_dir_all(self.dir.path().join(folder)).unwrap();
        self.open(folder).await
    }

    /// Merged, forgotten, collected: what the bucket has then is what the list names.
    pub async fn settle(&self, store: Store, folder: &str) -> Store {
        store.tick(0).await.unwrap();
        let store = self.reopen_emptied(store, folder).await;
        store.tick(0).await.unwrap();
        check_no_orphan(&store).await;
        store
    }
}

pub async fn open(config: StoreConfig) -> Result<Store, OpenError> {
    Store::open(config, vec![PartitionConfig::new(P, "t")]).await
}

pub async fn close(store: Store) {
    store.close().await.unwrap();
}

/// The value of the record at an offset: its own, and hard to compress.
pub fn value(offset: Offset, len: usize) -> Vec<u8> {
    let mut state = offset.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut value = format!("{offset}:").into_bytes();
    while value.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        value.extend(state.to_le_bytes());
    }
    value.truncate(len);
    value
}

/// Appends `rows` records with values of `len` bytes, acknowledged when it returns.
pub async fn append(store: &Store, rows: u64, len: usize) {
    let base = store.log_end(P).unwrap();
    let mut builder = RowsBuilder::new();
    for offset in base..base + rows {
        let key = offset.to_string();
        builder.push(
            offset as i64,
            Some(key.as_bytes()),
            Some(&value(offset, len)),
            &[],
        );
    }
    let batch = Batch::encode(&builder.finish(), Codec::None, None).unwrap();
    let batch = batch.stamped(base, ShardEpoch(0), 7);
    store
        .enqueue(Entry::new(vec![(P, batch)]))
        .unwrap()
        .await
        .unwrap();
}

/// Reads all there is and compares: byte for byte, in order, no gap, no double.
pub async fn check(store: &Store, start: Offset, end: Offset, len: usize) {
    let bounds = store.bounds(P).unwrap();
    assert_eq!((bounds.start, bounds.end), (start, end));
    let mut next = start;
    while next < end {
        let batches = store.read(P, next, 1 << 20).await.unwrap();
        assert!(!batches.is_empty(), "nothing at {next} below {end}");
        for batch in batches {
            let rows = batch.rows().unwrap();
            for (row, offset) in batch.offsets().unwrap().into_iter().enumerate() {
                if offset < start {
                    continue;
                }
                assert_eq!(offset, next, "no gap, no double");
                let record = rows.record(row);
                assert_eq!(record.key.unwrap(), offset.to_string().as_bytes());
                assert!(
                    record.value.unwrap() == value(offset, len),
                    "the value at {offset}"
                );
                next += 1;
            }
        }
    }
}

/// What the bucket really has below a prefix.
pub async fn paths(objects: &dyn ObjectStore, prefix: &str) -> Vec<String> {
    let list = objects.list(Some(&Path::from(prefix)));
    let list = list.map_ok(|meta| meta.location.to_string());
    let mut paths: Vec<String> = list.try_collect().await.unwrap();
    paths.sort();
    paths
}

/// The data objects there are exactly those that the partition's list names.
pub async fn check_no_orphan(store: &Store) {
    let snapshot = store.snapshot(P).await.unwrap();
    let mut named: Vec<String> = snapshot
        .cold
        .into_iter()
        .map(|object| object.path)
        .collect();
    named.sort();
    assert_eq!(
        paths(&*store.object_store(), "data").await,
        named,
        "orphans"
    );
}
