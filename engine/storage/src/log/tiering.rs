//! Moves closed ranges to the tier: by size, by age, under WAL pressure, or on demand.
//!
//! Called by: `Store::tier`, and a task that looks for what is due.
//! Invariants: one run per partition at a time; the order is data object, manifest, local
//! release, WAL segments; a crash between any two leaves no gap and no double.
//! Refuses: partitions whose topic says `tier: false`.

use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::StreamExt;
use model::{Batch, LogError, PartitionId};
use object_store::path::Path;

use super::partition::Partition;
use super::read::load;
use super::reclaim::Pressed;
use super::{Inner, Store};
use crate::error::TierError;
use crate::status::{Collected, TierReport};
use crate::tier::manifest::{Manifest, ProducerMark};
use crate::tier::writer::{Written, write};

/// Batches of one object are at most this many times `tier_bytes`.
const OBJECT_FACTOR: u64 = 2;
/// How long an object that was trimmed away stays for those who still read it.
const RETIRED_GRACE: Duration = Duration::from_secs(300);
/// How often is looked at most while the WAL has no room.
const FULL_TICK: Duration = Duration::from_secs(1);
/// A partition that failed waits as if it had failed so many times more: requests were tried
/// again before.
const PARKED_DOUBLED: u32 = 4;

impl Store {
    /// Moves all closed ranges of one partition, or of all, to the tier now.
    pub async fn tier(&self, p: Option<PartitionId>) -> Result<TierReport, TierError> {
        let partitions: Vec<Arc<Partition>> = match p {
            Some(p) => vec![self.partition(p)?],
            None => self.inner.partitions.all().into_values().collect(),
        };
        let partitions = partitions.into_iter();
        let partitions = partitions.filter(|partition| partition.config().tier);
        let runs = partitions.map(|partition| {
            let store = self.clone();
            async move {
                let done = store.tier_partition(&partition).await;
                store.note(&partition, done.as_ref().err());
                done
            }
        });
        let at_once = self.inner.config.tier_uploads_max.max(1);
        let mut runs = futures::stream::iter(runs).buffer_unordered(at_once);
        let mut done = Ok(TierReport::default());
        while let Some(run) = runs.next().await {
            match (run, &mut done) {
                (Ok(moved), Ok(report)) => report.add(&moved),
                (Err(error), Ok(_)) => done = Err(error),
                (_, Err(_)) => {}
            }
        }
        drop(runs);
        let mut report = done?;
        report.segments_freed = self.reclaim_or_warn().await;
        Ok(report)
    }

    /// Remembers how a partition's run ended.
    pub(super) fn note(&self, partition: &Partition, error: Option<&TierError>) {
        let pace = &self.inner.tier.pace;
        let pause = |failures: u32| pace.pause(failures.saturating_add(PARKED_DOUBLED));
        partition.tiered(error.map(ToString::to_string), pause);
    }

    /// Moves what a partition has when this begins.
    async fn tier_partition(&self, partition: &Arc<Partition>) -> Result<TierReport, TierError> {
        let _one = partition.tiering.lock().await;
        let end = partition.bounds().end;
        let mut report = TierReport::default();
        while partition.cold().end < end {
            let Some(moved) = self.tier_range(partition).await? else {
                break;
            };
            report.add(&moved);
        }
        report.partitions = u64::from(report.objects > 0);
        Ok(report)
    }

    /// Moves one object's worth; nothing if there is none.
    async fn tier_range(
        &self,
        partition: &Arc<Partition>,
    ) -> Result<Option<TierReport>, TierError> {
        let bytes_max = self.inner.config.tier_bytes.saturating_mul(OBJECT_FACTOR);
        let slots = partition.oldest_untiered(bytes_max);
        if slots.is_empty() {
            return Ok(None);
        }
        let batches = load(partition, slots).await?;
        let batch_bytes = batches.iter().map(|batch| batch.size() as u64).sum();
        let marks = marks(&batches);
        let written = encode(partition, batches).await?;
        let config = partition.config();
        let object = self.inner.tier.put_data(&config, written).await?;
        let report = TierReport {
            partitions: 0,
            objects: 1,
            records: object.rows,
            batch_bytes,
            object_bytes: object.bytes(),
            segments_freed: 0,
        };
        let before = partition.cold();
        let start = partition.bounds().start;
        let manifest = before.followed_by(start, Some(object), marks);
        let manifest = self.inner.tier.put_manifest(&manifest).await?;
        partition.release_tiered(Arc::new(manifest));
        Ok(Some(report))
    }

    /// Takes objects that are wholly trimmed off the list; they are deleted a while later.
    async fn forget_trimmed(&self, partition: &Arc<Partition>) -> Result<(), TierError> {
        let start = partition.bounds().start;
        let is_gone = |manifest: &Manifest| {
            manifest
                .objects
                .first()
                .is_some_and(|object| object.next <= start)
        };
        if !is_gone(&partition.cold()) {
            return Ok(());
        }
        let _one = partition.tiering.lock().await;
        let before = partition.cold();
        if is_gone(&before) {
            let manifest = before.followed_by(start, None, Vec::new());
            let manifest = self.inner.tier.put_manifest(&manifest).await?;
            partition.release_tiered(Arc::new(manifest));
        }
        Ok(())
    }

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
        for (id, old) in tier.old(grace).await? {
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
        Ok(collected)
    }

    /// Collects every now and then.
    async fn collect_due(&self) {
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

    /// Whether something makes this partition due. Under pressure a little of it is better
    /// written again than made an object of its own, where that frees the segment as well.
    fn is_due(&self, partition: &Partition, now_us: i64, pressed: Option<Pressed>) -> bool {
        let config = &self.inner.config;
        let (bytes, oldest) = partition.untiered();
        let Some(append_time_us) = oldest else {
            return false;
        };
        let age_ms = now_us.saturating_sub(append_time_us) / 1_000;
        let is_pressed =
            |pressed: Pressed| bytes >= pressed.little && partition.holds(pressed.until);
        partition.config().tier
            && (bytes >= config.tier_bytes
                || age_ms >= i64::try_from(config.tier_age_ms).unwrap_or(i64::MAX)
                || pressed.is_some_and(is_pressed))
    }

    /// Moves what of one partition is due.
    async fn look_after(
        &self,
        partition: &Arc<Partition>,
        now_us: i64,
        pressed: Option<Pressed>,
    ) -> Result<(), TierError> {
        let mut done = self.forget_trimmed(partition).await;
        if done.is_ok() && self.is_due(partition, now_us, pressed) {
            done = self.tier_partition(partition).await.map(|_| ());
            self.note(partition, done.as_ref().err());
        } else if let Err(error) = &done {
            self.note(partition, Some(error));
        }
        if let Err(error) = &done {
            tracing::warn!(partition = %partition.id(), %error, "a range was not tiered");
        }
        done
    }

    /// One look at everything by the machine's clock.
    pub(crate) async fn tier_due(&self) -> Result<(), TierError> {
        let now_us = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        self.tick(i64::try_from(now_us.as_micros()).unwrap_or(i64::MAX))
            .await
    }

    /// One look at everything, as a task of the store takes it again and again: trims what
    /// retention no longer keeps, moves what is due, gives back what is free. `now_us` is the
    /// time in microseconds since the epoch.
    pub async fn tick(&self, now_us: i64) -> Result<(), TierError> {
        // A disk that is too full for a trim must not keep the tier from making room.
        let retained = self.retain(now_us).await;
        let pressed = self.pressed();
        let partitions = self.inner.partitions.all().into_values();
        let partitions = partitions.filter(|partition| !partition.is_parked());
        let runs = partitions.map(|partition| {
            let store = self.clone();
            async move { store.look_after(&partition, now_us, pressed).await.err() }
        });
        let at_once = self.inner.config.tier_uploads_max.max(1);
        let mut runs = futures::stream::iter(runs).buffer_unordered(at_once);
        let mut first_error = None;
        while let Some(failed) = runs.next().await {
            first_error = first_error.or(failed);
        }
        drop(runs);
        if first_error.is_none() {
            first_error = self.merge_due().await.err();
        }
        self.reclaim().await?;
        self.relieve().await?;
        self.save_if_due().await;
        self.delete_retired(RETIRED_GRACE).await;
        self.collect_due().await;
        self.inner.tier.blocks.expire();
        match first_error {
            None => Ok(retained?),
            Some(error) => Err(error),
        }
    }
}

/// Looks for what is due until the store is gone. What failed waits on its own.
pub(super) async fn run(inner: Weak<Inner>, tick: Duration) {
    loop {
        let Some(wake) = inner.upgrade().map(|inner| Arc::clone(&inner.tier_wake)) else {
            return;
        };
        let is_full = |inner: Arc<Inner>| inner.counters.full_ms().is_some();
        let tick = match inner.upgrade().is_some_and(is_full) {
            true => tick.min(FULL_TICK),
            false => tick,
        };
        // Woken early when a partition has enough for an object, or the WAL no room.
        let _ = tokio::time::timeout(tick, wake.notified()).await;
        let Some(inner) = inner.upgrade() else { return };
        let store = Store { inner };
        match store.tier_due().await {
            Ok(()) => store.inner.tier.set_failure(None),
            Err(TierError::Log(LogError::Closed)) => return,
            Err(error) => store.inner.tier.set_failure(Some(error.to_string())),
        }
    }
}

/// Encodes a range on a thread that may take its time.
pub(super) async fn encode(
    partition: &Arc<Partition>,
    batches: Vec<Batch>,
) -> Result<Written, TierError> {
    let partition = Arc::clone(partition);
    let id = partition.id();
    let encoded = tokio::task::spawn_blocking(move || write(&partition.config(), &[batches])).await;
    match encoded {
        Ok(Ok(written)) => Ok(written),
        Ok(Err(error)) => {
            let detail = format!("{error}; it stays in the write-ahead log");
            Err(TierError::Log(LogError::Corrupt {
                partition: id,
                detail,
            }))
        }
        Err(_) => Err(LogError::Unavailable("the encoding was broken off".to_owned()).into()),
    }
}

/// What must be remembered of idempotent producers when their batches become rows.
pub(super) fn marks(batches: &[Batch]) -> Vec<ProducerMark> {
    let mark = |batch: &Batch| {
        batch.producer().map(|producer| ProducerMark {
            id: producer.id,
            epoch: producer.epoch,
            sequence: producer.sequence,
            base_offset: batch.base_offset(),
            records: batch.len(),
        })
    };
    batches.iter().filter_map(mark).collect()
}
