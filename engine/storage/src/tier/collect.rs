//! Collection: deletes what no list of a partition names any more.
//!
//! Called by: `log::collection`, now and then. What it finds: data objects of a run that died
//! before its manifest, of another try, of a dropped partition; manifests long replaced.
//! Invariants: nothing younger than the grace period goes; the newest manifest of a partition,
//! dropped ones too, stays for ever: it fences stale writers; a broker whose own list is not
//! the newest deletes nothing of that partition. What partitions share is judged by `log`, which
//! knows all of a topic.
//! Refuses: to judge partitions it knows nothing of; they are counted.

use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::TryStreamExt;
use model::{PartitionId, TopicId};
use object_store::path::Path;
use object_store::{Error, ObjectStoreExt};

use super::Tier;
use super::manifest::{Manifest, SHARED, is_shared, manifest_of};
use crate::error::TierError;
use crate::status::Collected;

/// Manifests of a partition that stay, so that a list that lags behind still names one.
pub(crate) const MANIFESTS_KEPT: u64 = 8;

/// What stands in the store of one partition and is old enough to go.
#[derive(Debug, Default)]
pub(crate) struct Old {
    pub objects: Vec<Path>,
    pub manifests: Vec<(u64, Path)>,
}

/// What in the store is old enough to go.
#[derive(Debug, Default)]
pub(crate) struct AllOld {
    pub partitions: BTreeMap<PartitionId, Old>,
    /// Objects that partitions of a topic share.
    pub shared: BTreeMap<TopicId, Vec<Path>>,
}

impl AllOld {
    fn add(&mut self, path: Path) {
        if let Some((partition, number)) = manifest_of(&path) {
            let old = self.partitions.entry(partition).or_default();
            old.manifests.push((number, path));
            return;
        }
        match data_of(&path) {
            Some((topic, Some(index))) => {
                let partition = PartitionId { topic, index };
                let old = self.partitions.entry(partition).or_default();
                old.objects.push(path);
            }
            Some((topic, None)) => self.shared.entry(topic).or_default().push(path),
            None => {}
        }
    }
}

/// Topic and partition index of a data object, no index of one that is shared; none for any
/// other path.
fn data_of(path: &Path) -> Option<(TopicId, Option<u32>)> {
    let mut parts = path.as_ref().strip_prefix("data/")?.split('/');
    let (_, topic) = parts.next()?.rsplit_once('-')?;
    let topic = TopicId(topic.parse().ok()?);
    match parts.next()? {
        SHARED => Some((topic, None)),
        index => Some((topic, Some(index.parse().ok()?))),
    }
}

impl Tier {
    /// Data objects and manifests at least `grace` old.
    pub(crate) async fn old(&self, grace: Duration) -> Result<AllOld, TierError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = i64::try_from(now.unwrap_or_default().as_millis()).unwrap_or(i64::MAX);
        let newest = now.saturating_sub(i64::try_from(grace.as_millis()).unwrap_or(i64::MAX));
        let mut old = AllOld::default();
        for prefix in ["data", "manifests"] {
            let failed = |error| TierError::store("list", prefix, error);
            let mut list = self.objects.list(Some(&Path::from(prefix)));
            while let Some(meta) = list.try_next().await.map_err(failed)? {
                if meta.last_modified.timestamp_millis() <= newest {
                    old.add(meta.location);
                }
            }
        }
        Ok(old)
    }

    /// Deletes of `old` what `newest`, the partition's list, does not need. `named` are more
    /// objects that stay. Nothing is deleted if a newer list is there.
    pub(crate) async fn collect_partition(
        &self,
        newest: &Manifest,
        named: &HashSet<String>,
        old: Old,
    ) -> Result<Collected, TierError> {
        let mut collected = Collected::default();
        if self.newer(newest.partition, newest.number).await?.is_some() {
            collected.stale = 1;
            return Ok(collected);
        }
        let objects = newest.objects.iter().map(|object| object.path.as_str());
        let listed: HashSet<&str> = objects.collect();
        for path in old.objects {
            if !listed.contains(path.as_ref()) && !named.contains(path.as_ref()) {
                self.delete(&path).await?;
                collected.objects += 1;
            }
        }
        for (number, path) in old.manifests {
            if number.saturating_add(MANIFESTS_KEPT) <= newest.number {
                self.delete(&path).await?;
                collected.manifests += 1;
            }
        }
        Ok(collected)
    }

    /// Of a partition nobody here knows: if its last manifest says that it was dropped, all but
    /// that one goes. Otherwise nothing does.
    pub(crate) async fn collect_unknown(
        &self,
        partition: PartitionId,
        old: Old,
    ) -> Result<Collected, TierError> {
        let newest = old.manifests.iter().map(|(number, _)| *number).max();
        let unknown = Collected {
            unknown: 1,
            ..Collected::default()
        };
        let Some(newest) = newest else {
            return Ok(unknown);
        };
        let manifest = self.manifest(partition, newest).await?;
        if !manifest.dropped {
            return Ok(unknown);
        }
        self.collect_partition(&manifest, &HashSet::new(), old)
            .await
    }

    /// The number of a manifest newer than `number`, if there is one. Asks for the next one by
    /// name, which no lagging list can hide, and for all that follow.
    pub(crate) async fn newer(
        &self,
        partition: PartitionId,
        number: u64,
    ) -> Result<Option<u64>, TierError> {
        let next = Manifest::path(partition, number + 1);
        match self.objects.head(&next).await {
            Ok(_) => return Ok(Some(number + 1)),
            Err(Error::NotFound { .. }) => {}
            Err(error) => return Err(TierError::store("look for", next.as_ref(), error)),
        }
        let at = Manifest::path(partition, number);
        let prefix = Manifest::folder(partition);
        let failed = |error| TierError::store("list", prefix.as_ref(), error);
        let mut list = self.objects.list_with_offset(Some(&prefix), &at);
        while let Some(meta) = list.try_next().await.map_err(failed)? {
            if let Some((_, found)) = manifest_of(&meta.location)
                && found > number
            {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// Ends a dropped partition: a last manifest says so and fences whoever still writes; what
    /// it had goes. What stays behind by a failure goes with the next collection.
    pub(crate) async fn delete_partition(&self, manifest: &Manifest) -> Result<(), TierError> {
        let mut last = manifest.followed_by(manifest.end, None, Vec::new());
        last.objects.clear();
        last.producers.clear();
        last.dropped = true;
        let last = self.put_manifest(&last).await?;
        if !last.dropped {
            // A manifest of ours whose answer never came stands where this one should.
            return Box::pin(self.delete_partition(&last)).await;
        }
        let own = manifest.objects.iter();
        for object in own.filter(|object| !is_shared(&object.path)) {
            self.delete(&Path::from(object.path.as_str())).await?;
        }
        let first = last.number.saturating_sub(MANIFESTS_KEPT).max(1);
        for number in first..last.number {
            self.delete(&Manifest::path(last.partition, number)).await?;
        }
        Ok(())
    }
}
