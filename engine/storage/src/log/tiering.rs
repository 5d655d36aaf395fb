//! Moves closed ranges to the tier: by size, by age, under WAL pressure, or on demand.
//!
//! Called by: `Store::tier`, and a task that looks for what is due.
//! Invariants: one run per partition at a time; the order is data object, manifest, local
//! release, WAL segments; a crash between any two leaves no gap and no double. Small partitions
//! of a topic go into one object (`parts`).
//! Refuses: partitions whose topic says `tier: false`.

use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::StreamExt;
use model::{LogError, PartitionId};

use super::partition::Partition;
use super::parts::{Done, Job, Part, Weighed, hold, jobs};
use super::read::load;
use super::reclaim::Pressed;
use super::{Inner, Store};
use crate::error::TierError;
use crate::status::TierReport;
use crate::tier::manifest::Manifest;

/// Batches of one object are at most this many times `tier_bytes`.
const OBJECT_FACTOR: u64 = 2;
/// How long an object that was trimmed away stays for those who still read it.
const RETIRED_GRACE: Duration = Duration::from_secs(300);
/// How often is looked at most while the WAL has no room.
const FULL_TICK: Duration = Duration::from_secs(1);
/// A partition that failed waits as if it had failed so many times more: requests were tried
/// again before.
pub(super) const PARKED_DOUBLED: u32 = 4;

impl Store {
    /// Moves all closed ranges of one partition, or of all, to the tier now. Of all, small ones
    /// of a topic share an object.
    pub async fn tier(&self, p: Option<PartitionId>) -> Result<TierReport, TierError> {
        match p {
            Some(p) => self.tier_of(&[p]).await,
            None => {
                let all = self.inner.partitions.all().into_values();
                self.tier_now(all.collect()).await
            }
        }
    }

    /// As `tier`, of some partitions.
    pub async fn tier_of(&self, ids: &[PartitionId]) -> Result<TierReport, TierError> {
        let partitions = ids.iter().map(|id| self.partition(*id));
        let partitions: Result<Vec<Arc<Partition>>, LogError> = partitions.collect();
        self.tier_now(partitions?).await
    }

    async fn tier_now(&self, partitions: Vec<Arc<Partition>>) -> Result<TierReport, TierError> {
        let partitions = partitions.into_iter();
        let partitions = partitions.filter(|partition| partition.config().tier);
        let due = partitions.map(weighed).collect();
        let (mut report, error) = self.run(self.jobs(due, Vec::new())).await;
        if let Some(error) = error {
            return Err(error);
        }
        report.segments_freed = self.reclaim_or_warn().await;
        Ok(report)
    }

    fn jobs(&self, due: Vec<Weighed>, joining: Vec<Weighed>) -> Vec<Job> {
        jobs(due, joining, self.inner.config.tier_bytes)
    }

    /// Runs jobs, some at a time; answers what moved and the first failure.
    async fn run(&self, jobs: Vec<Job>) -> (TierReport, Option<TierError>) {
        let runs = jobs.into_iter().map(|job| {
            let store = self.clone();
            async move { store.run_one(&job).await }
        });
        let at_once = self.inner.config.tier_uploads_max.max(1);
        let mut runs = futures::stream::iter(runs).buffer_unordered(at_once);
        let (mut report, mut first_error) = (TierReport::default(), None);
        while let Some(run) = runs.next().await {
            match run {
                Ok(moved) => report.add(&moved),
                Err(error) => first_error = first_error.or(Some(error)),
            }
        }
        (report, first_error)
    }

    async fn run_one(&self, job: &Job) -> Result<TierReport, TierError> {
        let done = match &job[..] {
            [partition] => {
                let done = self.tier_partition(partition).await;
                self.note(partition, done.as_ref().err());
                done
            }
            _ => self.tier_together(job).await,
        };
        if let Err(error) = &done {
            let partitions: Vec<String> = job.iter().map(|one| one.id().to_string()).collect();
            tracing::warn!(?partitions, %error, "a range was not tiered");
        }
        done
    }

    /// Remembers how a partition's run ended.
    pub(super) fn note(&self, partition: &Partition, error: Option<&TierError>) {
        if let Some(TierError::Fenced { epoch, .. }) = error {
            partition.fence(*epoch);
        }
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

    fn range_bytes_max(&self) -> u64 {
        self.inner.config.tier_bytes.saturating_mul(OBJECT_FACTOR)
    }

    /// Moves one object's worth; nothing if there is none.
    async fn tier_range(
        &self,
        partition: &Arc<Partition>,
    ) -> Result<Option<TierReport>, TierError> {
        let Some(part) = untiered(partition, self.range_bytes_max()).await? else {
            return Ok(None);
        };
        let done = self.put_parts(vec![part]).await;
        done.into_result().map(Some)
    }

    /// Moves what small partitions of a topic have, in one object.
    async fn tier_together(&self, job: &Job) -> Result<TierReport, TierError> {
        let _held = hold(job).await;
        let mut parts = Vec::with_capacity(job.len());
        let mut unread: Vec<(Arc<Partition>, TierError)> = Vec::new();
        for partition in job {
            match untiered(partition, self.range_bytes_max()).await {
                Ok(part) => parts.extend(part),
                Err(error) => unread.push((Arc::clone(partition), error.into())),
            }
        }
        let mut done = self.put_parts(parts).await;
        done.failed.extend(unread);
        self.note_all(&done);
        done.into_result()
    }

    pub(super) fn note_all(&self, done: &Done) {
        done.moved.iter().for_each(|one| self.note(one, None));
        done.failed
            .iter()
            .for_each(|(one, error)| self.note(one, Some(error)));
    }

    /// What a trim left in the lists that nothing else has put again; answers the first failure.
    async fn forget_all_trimmed(&self) -> Option<TierError> {
        let all = self.inner.partitions.all().into_values();
        let runs = all.filter(|one| !one.is_parked()).map(|partition| {
            let store = self.clone();
            async move {
                let error = store.forget_trimmed(&partition).await.err()?;
                store.note(&partition, Some(&error));
                tracing::warn!(partition = %partition.id(), %error, "a trim is not in the tier yet");
                Some(error)
            }
        });
        let at_once = self.inner.config.tier_uploads_max.max(1);
        let mut runs = futures::stream::iter(runs).buffer_unordered(at_once);
        let mut first_error = None;
        while let Some(failed) = runs.next().await {
            first_error = first_error.or(failed);
        }
        first_error
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

    /// Whether it comes along when others of its topic share an object, so that ages fall into
    /// step.
    fn is_joining(&self, partition: &Partition, now_us: i64) -> bool {
        let (_, oldest) = partition.untiered();
        let half_us = i64::try_from(self.inner.config.tier_age_ms).unwrap_or(i64::MAX) / 2;
        let half_us = half_us.saturating_mul(1_000);
        let is_old = |append_time_us: i64| now_us.saturating_sub(append_time_us) >= half_us;
        partition.config().tier && oldest.is_some_and(is_old)
    }

    /// What is due, and what comes along.
    fn due(&self, now_us: i64) -> Vec<Job> {
        let pressed = self.pressed();
        let (mut due, mut joining) = (Vec::new(), Vec::new());
        let all = self.inner.partitions.all().into_values();
        for partition in all.filter(|partition| !partition.is_parked()) {
            if self.is_due(&partition, now_us, pressed) {
                due.push(weighed(partition));
            } else if self.is_joining(&partition, now_us) {
                joining.push(weighed(partition));
            }
        }
        self.jobs(due, joining)
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
        let (_, failed) = self.run(self.due(now_us)).await;
        let mut first_error = failed.or(self.forget_all_trimmed().await);
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

fn weighed(partition: Arc<Partition>) -> Weighed {
    let (bytes, _) = partition.untiered();
    Weighed { partition, bytes }
}

/// The oldest of what a partition has for the tier, about `bytes_max` of it.
async fn untiered(partition: &Arc<Partition>, bytes_max: u64) -> Result<Option<Part>, LogError> {
    let slots = partition.oldest_untiered(bytes_max);
    if slots.is_empty() {
        return Ok(None);
    }
    Ok(Some(Part {
        partition: Arc::clone(partition),
        batches: load(partition, slots).await?,
        replaces: None,
    }))
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
