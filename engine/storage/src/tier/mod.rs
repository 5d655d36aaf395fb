//! The tier: closed ranges of partitions as Parquet objects in an object store.
//!
//! Called by: `log` (moves ranges, reads them back), `Store` as `Modules`.
//! Invariants: data object, then manifest; only then does `log` let go of its copy. Data objects
//! have names nobody else uses; manifests are put only where none is.
//! Refuses: to write where another writer or a newer epoch has (fenced), objects that are not
//! what the manifest says.

pub(crate) mod collect;
pub(crate) mod columns;
pub(crate) mod fetch;
pub(crate) mod footer;
mod lookup;
pub(crate) mod manifest;
pub(crate) mod objects;
pub(crate) mod pace;
pub(crate) mod reader;
pub(crate) mod remote;
pub(crate) mod upload;
pub(crate) mod writer;

#[cfg(test)]
mod storm;
#[cfg(test)]
pub(crate) mod tests;
#[cfg(test)]
pub(crate) mod twin;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::TryStreamExt;
use model::{Digest, LogError, PartitionId, ShardEpoch, TopicId};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

use crate::cache::{Blocks, BlocksConfig};
use crate::config::StoreConfig;
use crate::error::{OpenError, TierError};
use footer::FooterCache;
use pace::Pace;
use reader::Cursors;

pub(crate) struct Tier {
    pub objects: Arc<dyn ObjectStore>,
    pub url: String,
    /// This broker, of which it begins with the name, and this opening of its store.
    writer: String,
    node: String,
    pub epoch: ShardEpoch,
    /// Counts puts, so that each has a name of its own.
    puts: AtomicU64,
    pub pace: Pace,
    /// Objects of this size and more go in parts.
    multipart_bytes: u64,
    pub blocks: Blocks,
    footers: FooterCache,
    cursors: Cursors,
    failure: Mutex<Option<String>>,
    collected: Mutex<Instant>,
    merged: AtomicU64,
}

impl Tier {
    /// Opens the object store; makes the folder of a local one.
    pub(crate) fn open(config: &StoreConfig) -> Result<Tier, OpenError> {
        let url = match &config.tier_url {
            Some(url) => url.clone(),
            None => local_url(&config.dir.join("tier"))?,
        };
        let objects = objects::open(&url, &config.tier_options)?;
        Ok(Tier::over(objects, url, config))
    }

    /// A tier over a given object store.
    pub(crate) fn over(objects: Arc<dyn ObjectStore>, url: String, config: &StoreConfig) -> Tier {
        let salt = crate::wal::writer::salt();
        let blocks = Blocks::new(BlocksConfig::of(config), &url);
        Tier {
            objects,
            url,
            writer: format!("{}-{salt:016x}", config.node),
            node: config.node.clone(),
            epoch: config.epoch,
            puts: AtomicU64::new(0),
            pace: Pace::new(config, salt),
            multipart_bytes: config.tier_multipart_bytes,
            blocks,
            footers: FooterCache::default(),
            cursors: Cursors::default(),
            failure: Mutex::new(None),
            collected: Mutex::new(Instant::now()),
            merged: AtomicU64::new(0),
        }
    }

    /// Whether the last collection is that long ago; if so, this is one.
    pub(crate) fn is_collection_due(&self, every: Duration) -> bool {
        let mut last = self
            .collected
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let is_due = last.elapsed() >= every;
        if is_due {
            *last = Instant::now();
        }
        is_due
    }

    pub(crate) fn count_merged(&self, objects: usize) {
        self.merged.fetch_add(objects as u64, Ordering::Relaxed);
    }

    pub(crate) fn merged(&self) -> u64 {
        self.merged.load(Ordering::Relaxed)
    }

    /// Why the tier last failed, if nothing succeeded since.
    pub(crate) fn failure(&self) -> Option<String> {
        self.failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(crate) fn set_failure(&self, failure: Option<String>) {
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = failure;
    }

    /// The highest manifest number of each partition, of one topic or of all.
    pub(crate) async fn numbers(
        &self,
        topic: Option<TopicId>,
    ) -> Result<BTreeMap<PartitionId, u64>, TierError> {
        let mut numbers = BTreeMap::new();
        let prefix = match topic {
            None => Path::from("manifests"),
            Some(topic) => Path::from(format!("manifests/{topic}")),
        };
        let mut list = self.objects.list(Some(&prefix));
        let listed = |error| TierError::store("list", "manifests", error);
        while let Some(meta) = list.try_next().await.map_err(listed)? {
            if let Some((partition, number)) = manifest::manifest_of(&meta.location) {
                let newest = numbers.entry(partition).or_insert(number);
                *newest = number.max(*newest);
            }
        }
        for (partition, number) in &mut numbers {
            // The list may lag behind.
            while let Some(newer) = self.newer(*partition, *number).await? {
                *number = newer;
            }
        }
        Ok(numbers)
    }

    async fn get(&self, what: &'static str, path: &str) -> Result<Bytes, TierError> {
        let failed = |error| TierError::store(what, path, error);
        let got = self.objects.get(&Path::from(path)).await.map_err(failed)?;
        got.bytes().await.map_err(failed)
    }

    pub(crate) async fn delete(&self, path: &Path) -> Result<(), TierError> {
        match self.objects.delete(path).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(TierError::store("delete", path.as_ref(), error)),
        }
    }
}

/// The `file://` URL of a folder, which is made.
fn local_url(dir: &std::path::Path) -> Result<String, OpenError> {
    let io = |error| OpenError::io("create", dir, error);
    crate::io::create_dir_durable(dir).map_err(io)?;
    let dir = std::fs::canonicalize(dir).map_err(io)?;
    url::Url::from_file_path(&dir)
        .map(String::from)
        .map_err(|()| OpenError::Tier {
            url: dir.display().to_string(),
            reason: "the folder's path is no URL".to_owned(),
        })
}

/// The object of a module.
fn module_path(digest: Digest) -> Path {
    Path::from(format!("modules/sha256/{}", digest.hex()))
}

impl Tier {
    pub(crate) async fn module_get(&self, digest: Digest) -> Result<Bytes, LogError> {
        let path = module_path(digest);
        let bytes = match self.get("read module", path.as_ref()).await {
            Err(TierError::Store {
                source: object_store::Error::NotFound { .. },
                ..
            }) => return Err(LogError::NoModule),
            read => read.map_err(TierError::into_log)?,
        };
        if Digest::of(&bytes) == digest {
            return Ok(bytes);
        }
        Err(LogError::Unavailable(format!(
            "module {digest} is damaged in the tier; upload it again"
        )))
    }

    pub(crate) async fn module_put(&self, bytes: Bytes) -> Result<Digest, LogError> {
        let digest = Digest::of(&bytes);
        let path = module_path(digest);
        if self
            .get("read module", path.as_ref())
            .await
            .is_ok_and(|there| there == bytes)
        {
            return Ok(digest);
        }
        let put = self.objects.put(&path, bytes.into()).await;
        put.map_err(|error| TierError::store("write", path.as_ref(), error).into_log())?;
        Ok(digest)
    }
}
