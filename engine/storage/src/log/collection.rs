//! Collection: what left the lists of the tier, or never came into one, is deleted a while later.
//!
//! Called by: `tiering`, now and then. Invariants: what somebody here may still read stays for its
//! grace; an object that partitions share goes only when none of their topic names it, which is
//! judged while all of them are held, so that none is on its way up.
//! Refuses: to judge partitions that are not known here, or that another broker writes.

use std::collections::HashSet;
use std::time::Duration;

use model::TopicId;
use object_store::path::Path;

use super::Store;
use super::parts::{Job, hold};
use crate::error::TierError;
use crate::status::Collected;

impl Store {
    /// Deletes objects that left their partition's list at least `grace` ago: queries that
    /// pinned an older list have ended by then.
    pub(crate) async fn delete_retired(&self, grace: Duration) {
        for partition in self.inner.partitions.all().into_values() {
            for path in partition.take_retired(grace) {
                if let Err(error) = self.inner.tier.delete(&Path::from(path)).await {
                    tracing::warn!(%error, "an object of trimmed records stays behind");
                }
            }
        }
    }

    /// Deletes what at least `grace` ago came to the tier and no list names.
    pub(crate) async fn collect(&self, grace: Duration) -> Result<Collected, TierError> {
        let tier = &self.inner.tier;
        let mut collected = Collected::default();
        let old = tier.old(grace).await?;
        for (id, old) in old.partitions {
            let done = match self.inner.partitions.get(id) {
                Some(partition) => {
                    // No upload is under way meanwhile, so its object is not taken for an orphan.
                    let _one = partition.tiering.lock().await;
                    let (cold, retired) = (partition.cold(), partition.retired());
                    tier.collect_partition(&cold, &retired, old).await
                }
                None => tier.collect_unknown(id, old).await,
            };
            collected.add(&done?);
        }
        for (topic, paths) in old.shared {
            collected.add(&self.collect_shared(topic, paths).await?);
        }
        Ok(collected)
    }

    /// Deletes of a topic's shared objects what no list of its partitions names.
    async fn collect_shared(
        &self,
        topic: TopicId,
        paths: Vec<Path>,
    ) -> Result<Collected, TierError> {
        let tier = &self.inner.tier;
        let mut collected = Collected::default();
        let all = self.inner.partitions.all().into_values();
        let known: Job = all.filter(|one| one.id().topic == topic).collect();
        let _held = hold(&known).await;
        let lists: Vec<_> = known.iter().map(|partition| partition.cold()).collect();
        let mut named: HashSet<String> = HashSet::new();
        for (partition, cold) in known.iter().zip(&lists) {
            named.extend(cold.objects.iter().map(|object| object.path.clone()));
            named.extend(partition.retired());
        }
        let is_orphan = |path: &Path| !named.contains(path.as_ref());
        let orphans: Vec<Path> = paths.into_iter().filter(is_orphan).collect();
        if orphans.is_empty() {
            return Ok(collected);
        }
        for cold in &lists {
            if tier.newer(cold.partition, cold.number).await?.is_some() {
                collected.stale = 1;
                return Ok(collected);
            }
        }
        for (id, number) in tier.numbers(Some(topic)).await? {
            let is_known = lists.iter().any(|cold| cold.partition == id);
            if !is_known && !tier.manifest(id, number).await?.dropped {
                collected.unknown = 1;
                return Ok(collected);
            }
        }
        for path in orphans {
            tier.delete(&path).await?;
            collected.objects += 1;
        }
        Ok(collected)
    }

    /// Collects every now and then.
    pub(super) async fn collect_due(&self) {
        let every = Duration::from_millis(self.inner.config.tier_collect_ms);
        if !self.inner.tier.is_collection_due(every) {
            return;
        }
        let grace = Duration::from_millis(self.inner.config.tier_orphan_grace_ms);
        match self.collect(grace).await {
            Ok(collected) => tracing::debug!(?collected, "the tier was collected"),
            Err(error) => tracing::warn!(%error, "the tier was not collected"),
        }
    }
}
