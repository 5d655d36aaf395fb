//! Puts data objects and manifests, and settles unclear answers.
//!
//! Called by: `log::tiering`, `log::open` (claims). Invariants: a data object's name is used once;
//! a manifest counts as put only if the object there is ours and the newest, so a lost answer is
//! no failure, another writer's manifest is never taken for ours, and a stale writer is fenced
//! also after collection. What an earlier life of this broker put late is of the same log, so it
//! is taken over.
//! Refuses: to go on where a newer epoch, or another writer, has put a manifest.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{Error, ObjectStoreExt, PutMode, PutOptions};

use super::Tier;
use super::manifest::{ColdObject, Manifest, SHARED};
use super::writer::Written;
use crate::config::PartitionConfig;
use crate::error::TierError;
use model::{PartitionId, ShardEpoch};

/// Times something is put before the run is given up.
const ATTEMPTS_MAX: u32 = 4;
/// S3 wants at least 5 MiB in all parts but the last.
const PART_BYTES: usize = 8 << 20;
const PARTS_AT_ONCE: usize = 4;

impl Tier {
    /// Puts a data object of one or several partitions of a topic under a name of its own;
    /// answers its entries.
    pub(crate) async fn put_data(
        &self,
        config: &PartitionConfig,
        written: Written,
    ) -> Result<Vec<ColdObject>, TierError> {
        let put = self.puts.fetch_add(1, Ordering::Relaxed);
        let (topic, writer) = (
            format!("{}-{}", config.topic, config.id.topic),
            &self.writer,
        );
        let path = match &written.objects[..] {
            [ColdObject { base, next, .. }] => {
                let index = config.id.index;
                format!("data/{topic}/{index}/{base:020}-{next:020}-{writer}-{put}.parquet")
            }
            _ => format!("data/{topic}/{SHARED}/{writer}-{put}.parquet"),
        };
        let path = Path::from(path);
        self.put_whole(&path, &written.bytes).await?;
        let mut objects = written.objects;
        for object in &mut objects {
            object.path = path.to_string();
        }
        Ok(objects)
    }

    /// Puts an object under a name nobody else uses. It counts as put when it is seen there in
    /// its full size, whatever the answers were.
    pub(super) async fn put_whole(&self, path: &Path, bytes: &Bytes) -> Result<(), TierError> {
        let _slot = self.pace.slot(bytes.len() as u64).await;
        let mut attempt = 1;
        loop {
            self.allow()?;
            let put = self.put_bytes(path, bytes).await;
            let seen = self.objects.head(path).await;
            let error = match (put, seen) {
                (_, Ok(meta)) if meta.size == bytes.len() as u64 => {
                    self.pace.succeeded();
                    return Ok(());
                }
                (Err(error), _) | (Ok(_), Err(error)) => error,
                (Ok(_), Ok(meta)) => Error::Generic {
                    store: "tier",
                    source: format!("{} of {} bytes arrived", meta.size, bytes.len()).into(),
                },
            };
            let error = TierError::store("write", path.as_ref(), error);
            self.pause_or_fail(error, &mut attempt).await?;
        }
    }

    /// Puts bytes at once, or in parts if they are many and the store has parts.
    async fn put_bytes(&self, path: &Path, bytes: &Bytes) -> Result<(), Error> {
        if self.url.starts_with("file:") || (bytes.len() as u64) < self.multipart_bytes {
            return self.objects.put(path, bytes.clone().into()).await.map(drop);
        }
        let mut upload = self.objects.put_multipart(path).await?;
        let parts = (0..bytes.len()).step_by(PART_BYTES);
        let part = |from: usize| bytes.slice(from..bytes.len().min(from + PART_BYTES));
        let parts: Vec<_> = parts
            .map(|from| upload.put_part(part(from).into()))
            .collect();
        let put = futures::stream::iter(parts).buffer_unordered(PARTS_AT_ONCE);
        let mut done = put.try_collect::<()>().await;
        if done.is_ok() {
            done = upload.complete().await.map(drop);
        }
        if done.is_err() {
            // Only to give the parts back; the error that matters is the first one.
            let _ = upload.abort().await;
        }
        done
    }

    fn allow(&self) -> Result<(), TierError> {
        let resting = |reason| TierError::Resting { reason };
        self.pace.allow().map_err(resting)
    }

    /// Notes a failure and waits before the next try, or gives up.
    async fn pause_or_fail(&self, error: TierError, attempt: &mut u32) -> Result<(), TierError> {
        let pause = self.pace.failed(error.to_string(), *attempt);
        if *attempt == ATTEMPTS_MAX {
            return Err(error);
        }
        *attempt += 1;
        tokio::time::sleep(pause).await;
        Ok(())
    }

    /// Puts a manifest where none is, with this writer's name and epoch. Answers the newest one:
    /// this one, or an earlier one of this broker whose answer never came.
    pub(crate) async fn put_manifest(&self, manifest: &Manifest) -> Result<Manifest, TierError> {
        let mut manifest = manifest.clone();
        if manifest.shard_epoch > self.epoch.0 {
            let path = Manifest::path(manifest.partition, manifest.number.saturating_sub(1));
            return Err(self.fenced(&path, &manifest));
        }
        manifest.shard_epoch = self.epoch.0;
        manifest.writer.clone_from(&self.writer);
        manifest.commit = self.puts.fetch_add(1, Ordering::Relaxed);
        let path = Manifest::path(manifest.partition, manifest.number);
        let json = Bytes::from(manifest.to_json());
        let mut attempt = 1;
        loop {
            self.allow()?;
            let options = PutOptions {
                mode: PutMode::Create,
                ..PutOptions::default()
            };
            let put = self.objects.put_opts(&path, json.clone().into(), options);
            let put = put.await.map(|_| ());
            // Whatever the answer was, what stands there decides: S3 says "exists" also where
            // nothing is, and a store may say yes and forget.
            let error = match self.get("read", path.as_ref()).await {
                Ok(there) => {
                    self.pace.succeeded();
                    return self.settle(&manifest, &path, &there).await;
                }
                Err(error) => put.map_or_else(
                    |put| TierError::store("write", path.as_ref(), put),
                    |()| error,
                ),
            };
            self.pause_or_fail(error, &mut attempt).await?;
        }
    }

    /// What stands where a manifest was put: ours, if nobody has put a newer one since. A
    /// writer that slept while others went on may find its place free again, so it asks.
    async fn settle(
        &self,
        ours: &Manifest,
        path: &Path,
        there: &[u8],
    ) -> Result<Manifest, TierError> {
        let damaged = |reason| TierError::Manifest {
            path: path.to_string(),
            reason,
        };
        let mut there = Manifest::from_json(there, ours.partition).map_err(damaged)?;
        while let Some(newer) = self.newer(ours.partition, there.number).await? {
            there = self.manifest(ours.partition, newer).await?;
        }
        if there.writer == self.writer || self.is_earlier_life(&there, ours) {
            return Ok(there);
        }
        Err(self.fenced(&Manifest::path(ours.partition, there.number), &there))
    }

    /// Whether `there` is what this broker put before it was started again, and which came late:
    /// the same log, of which `ours` has at least as much.
    fn is_earlier_life(&self, there: &Manifest, ours: &Manifest) -> bool {
        let salt = there.writer.strip_prefix(&self.node);
        let is_ours = salt.is_some_and(|salt| salt.starts_with('-') && !salt[1..].contains('-'));
        is_ours && there.shard_epoch < self.epoch.0 && there.end <= ours.end && !there.dropped
    }

    fn fenced(&self, path: &Path, by: &Manifest) -> TierError {
        TierError::Fenced {
            path: path.to_string(),
            writer: by.writer.clone(),
            partition: by.partition,
            epoch: ShardEpoch(by.shard_epoch),
            own: self.epoch,
        }
    }

    /// Says in the tier that this epoch goes on with a partition's list, so that whoever wrote
    /// in an older one is refused from now on. Answers the list as it stands then; one of a
    /// newer epoch is answered as it is.
    pub(crate) async fn claim(&self, newest: Manifest) -> Result<Manifest, TierError> {
        let mut newest = newest;
        while newest.shard_epoch < self.epoch.0 && !newest.dropped {
            match self.put_manifest(&newest.again()).await {
                Ok(claimed) => newest = claimed,
                // Somebody was quicker; what it put is the list now.
                Err(TierError::Fenced { .. }) => {
                    let newer = self.newer(newest.partition, newest.number).await?;
                    let newer = newer.unwrap_or(newest.number);
                    newest = self.manifest(newest.partition, newer).await?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(newest)
    }

    /// Reads a manifest that was listed.
    pub(crate) async fn manifest(
        &self,
        partition: PartitionId,
        number: u64,
    ) -> Result<Manifest, TierError> {
        let path = Manifest::path(partition, number);
        let bytes = self.get("read", path.as_ref()).await?;
        Manifest::from_json(&bytes, partition).map_err(|reason| TierError::Manifest {
            path: path.to_string(),
            reason,
        })
    }
}
