//! Puts data objects and manifests, and settles unclear answers.
//!
//! Called by: `log::tiering`. Invariants: a data object's name is used once; a manifest counts as
//! put only if the object there is ours, so a lost answer is no failure and another writer's
//! manifest is never taken for ours.
//! Refuses: to go on where another writer has put the manifest that was ours to put.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use object_store::path::Path;
use object_store::{Error, ObjectStoreExt, PutMode, PutOptions};

use super::Tier;
use super::manifest::{ColdObject, Manifest};
use super::writer::Written;
use crate::config::PartitionConfig;
use crate::error::TierError;
use model::PartitionId;

/// Times a manifest is put before the run is given up.
const ATTEMPTS_MAX: u32 = 4;

impl Tier {
    /// Puts a data object under a name of its own.
    pub(crate) async fn put_data(
        &self,
        config: &PartitionConfig,
        written: &Written,
    ) -> Result<ColdObject, TierError> {
        let put = self.puts.fetch_add(1, Ordering::Relaxed);
        let path = Path::from(format!(
            "data/{}-{}/{}/{:020}-{:020}-{}-{put}.parquet",
            config.topic, config.id.topic, config.id.index, written.base, written.next, self.writer,
        ));
        let failed = |error| TierError::store("write", path.as_ref(), error);
        self.objects
            .put(&path, written.bytes.clone().into())
            .await
            .map_err(failed)?;
        Ok(ColdObject {
            path: path.to_string(),
            size: written.bytes.len() as u64,
            base: written.base,
            next: written.next,
            rows: written.rows,
            min_ts: written.min_ts,
            max_ts: written.max_ts,
            append_time: written.append_time,
            row_bytes: written.row_bytes,
            crc32c: written.crc32c,
        })
    }

    /// Puts a manifest where none is. `manifest` gets this writer's name and put.
    pub(crate) async fn put_manifest(&self, manifest: &mut Manifest) -> Result<(), TierError> {
        manifest.writer.clone_from(&self.writer);
        manifest.commit = self.puts.fetch_add(1, Ordering::Relaxed);
        let path = Manifest::path(manifest.partition, manifest.number);
        let json = Bytes::from(manifest.to_json());
        let mut attempt = 1;
        loop {
            let options = PutOptions {
                mode: PutMode::Create,
                ..PutOptions::default()
            };
            let error = match self
                .objects
                .put_opts(&path, json.clone().into(), options)
                .await
            {
                Ok(_) => return Ok(()),
                Err(error) => error,
            };
            // Whatever the answer was, what stands there decides.
            match self.objects.get(&path).await {
                Ok(got) => {
                    let failed = |error| TierError::store("read", path.as_ref(), error);
                    let there = got.bytes().await.map_err(failed)?;
                    return self.settle(manifest, &path, &there);
                }
                // Nothing there: S3 says "exists" also for a lost race with nobody.
                Err(Error::NotFound { .. }) if attempt < ATTEMPTS_MAX => attempt += 1,
                Err(_) => return Err(TierError::store("write", path.as_ref(), error)),
            }
        }
    }

    fn settle(&self, ours: &Manifest, path: &Path, there: &[u8]) -> Result<(), TierError> {
        let damaged = |reason| TierError::Manifest {
            path: path.to_string(),
            reason,
        };
        let there = Manifest::from_json(there, ours.partition).map_err(damaged)?;
        if there.writer == ours.writer && there.commit == ours.commit {
            return Ok(());
        }
        Err(TierError::Fenced {
            path: path.to_string(),
            writer: there.writer,
            partition: ours.partition,
        })
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
