//! Ranges of one or of several partitions of a topic as one object of the tier.
//!
//! Called by: `tiering` (what is due), `merge` (small neighbours). Invariants: each partition's
//! `tiering` is held from before its range is read until its list is settled; the data object is
//! put before the first list, and a partition lets go of its copy only after its own list has it.
//! A list that is not put leaves its part unused: its range is tried again with a new object.
//! Refuses: to put down merged ranges that have not exactly the rows they had.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use futures::StreamExt;
use model::{Batch, LogError, Offset, PartitionId, TopicId};
use tokio::sync::MutexGuard;

use super::Store;
use super::partition::Partition;
use crate::config::PartitionConfig;
use crate::error::TierError;
use crate::status::TierReport;
use crate::tier::manifest::{ColdObject, Manifest, ProducerMark};
use crate::tier::writer::{Written, write};

/// Partitions with less than this for the tier share an object with others of their topic.
const SHARE_BYTES_MAX: u64 = 8 << 20;
/// Partitions in one object.
const PARTS_MAX: usize = 256;

/// Partitions that move together: several share an object. In the order of their ids, which is
/// the order they are locked in.
pub(super) type Job = Vec<Arc<Partition>>;

/// A partition and how many bytes of it are to move.
pub(super) struct Weighed {
    pub partition: Arc<Partition>,
    pub bytes: u64,
}

/// Who moves alone and who together: `due` must, `joining` come along where others of their
/// topic share an object anyway. One object takes at most `bytes_max` of several; who has as much
/// alone moves alone, until nothing is left.
pub(super) fn jobs(due: Vec<Weighed>, joining: Vec<Weighed>, bytes_max: u64) -> Vec<Job> {
    let mut jobs: Vec<Job> = Vec::new();
    let mut topics: BTreeMap<TopicId, BTreeMap<PartitionId, Weighed>> = BTreeMap::new();
    let small_max = SHARE_BYTES_MAX.min(bytes_max);
    let is_small = |one: &Weighed| one.bytes < small_max;
    for one in due {
        let id = one.partition.id();
        match is_small(&one) {
            true => drop(topics.entry(id.topic).or_default().insert(id, one)),
            false => jobs.push(vec![one.partition]),
        }
    }
    for one in joining.into_iter().filter(is_small) {
        let id = one.partition.id();
        if let Some(sharing) = topics.get_mut(&id.topic) {
            sharing.entry(id).or_insert(one);
        }
    }
    for sharing in topics.into_values() {
        let (mut job, mut bytes) = (Job::new(), 0u64);
        for one in sharing.into_values() {
            let is_full = job.len() == PARTS_MAX || bytes.saturating_add(one.bytes) > bytes_max;
            if is_full && !job.is_empty() {
                jobs.push(std::mem::take(&mut job));
                bytes = 0;
            }
            bytes = bytes.saturating_add(one.bytes);
            job.push(one.partition);
        }
        jobs.push(job);
    }
    jobs
}

/// Holds partitions against every other run of the tier.
pub(super) async fn hold(partitions: &[Arc<Partition>]) -> Vec<MutexGuard<'_, ()>> {
    let mut held = Vec::with_capacity(partitions.len());
    for partition in partitions {
        held.push(partition.tiering.lock().await);
    }
    held
}

/// What of a partition goes into an object.
pub(super) struct Part {
    pub partition: Arc<Partition>,
    pub batches: Vec<Batch>,
    /// The objects of its list that this one stands for; none: it follows them all.
    pub replaces: Option<Range<usize>>,
}

/// How it went with each part.
#[derive(Default)]
pub(super) struct Done {
    pub report: TierReport,
    /// Objects that became parts of others.
    pub merged: usize,
    pub moved: Vec<Arc<Partition>>,
    pub failed: Vec<(Arc<Partition>, TierError)>,
}

impl Done {
    pub(super) fn into_result(self) -> Result<TierReport, TierError> {
        match self.failed.into_iter().next() {
            Some((_, error)) => Err(error),
            None => Ok(self.report),
        }
    }
}

/// A part whose batches are being encoded.
struct Step {
    partition: Arc<Partition>,
    before: Arc<Manifest>,
    replaces: Option<Range<usize>>,
    marks: Vec<ProducerMark>,
    batch_bytes: u64,
}

impl Step {
    fn of(part: &Part) -> Step {
        let before = part.partition.cold();
        Step {
            partition: Arc::clone(&part.partition),
            replaces: part.replaces.clone(),
            marks: match part.replaces {
                None => marks(part, before.end),
                Some(_) => Vec::new(),
            },
            before,
            batch_bytes: part.batches.iter().map(|batch| batch.size() as u64).sum(),
        }
    }

    /// What a merged range must be.
    fn check(&self, object: &ColdObject) -> Result<(), TierError> {
        let Some(range) = self.replaces.clone() else {
            return Ok(());
        };
        let old = &self.before.objects[range];
        let (first, last) = (old.first(), old.last());
        let rows: u64 = old.iter().map(|object| object.rows).sum();
        let wanted = first
            .zip(last)
            .map(|(first, last)| (first.base, last.next, rows));
        if wanted == Some((object.base, object.next, object.rows)) {
            return Ok(());
        }
        let detail = format!(
            "its objects with {rows} rows read back as {} rows of {}..{}",
            object.rows, object.base, object.next
        );
        let partition = self.partition.id();
        Err(LogError::Corrupt { partition, detail }.into())
    }

    fn followed_by(&self, object: ColdObject) -> Manifest {
        match &self.replaces {
            Some(range) => self.before.replaced(range.clone(), object),
            None => {
                let start = self.partition.bounds().start;
                self.before
                    .followed_by(start, Some(object), self.marks.clone())
            }
        }
    }
}

impl Store {
    /// Puts one object with all parts, then the list of each partition, which lets go of what it
    /// has after its own. The partitions are held.
    pub(super) async fn put_parts(&self, parts: Vec<Part>) -> Done {
        if parts.is_empty() {
            return Done::default();
        }
        let partitions: Job = parts
            .iter()
            .map(|part| Arc::clone(&part.partition))
            .collect();
        match self.put_object(parts).await {
            Ok(entries) => self.put_lists(entries).await,
            Err(error) => Done {
                failed: blamed(partitions, error),
                ..Done::default()
            },
        }
    }

    async fn put_object(&self, parts: Vec<Part>) -> Result<Vec<(Step, ColdObject)>, TierError> {
        let config = parts[0].partition.config();
        let steps: Vec<Step> = parts.iter().map(Step::of).collect();
        let ids = parts.iter().map(|part| part.partition.id()).collect();
        let batches = parts.into_iter().map(|part| part.batches).collect();
        let written = encode(Arc::clone(&config), ids, batches).await?;
        for (step, object) in steps.iter().zip(&written.objects) {
            step.check(object)?;
        }
        let objects = self.inner.tier.put_data(&config, written).await?;
        Ok(steps.into_iter().zip(objects).collect())
    }

    async fn put_lists(&self, entries: Vec<(Step, ColdObject)>) -> Done {
        let puts = entries.into_iter().map(|(step, object)| {
            let store = self.clone();
            async move {
                let manifest = step.followed_by(object.clone());
                let put = store.inner.tier.put_manifest(&manifest).await;
                let put = put.map(|manifest| step.partition.release_tiered(Arc::new(manifest)));
                (step, object, put)
            }
        });
        let at_once = self.inner.config.tier_uploads_max.max(1);
        let mut puts = futures::stream::iter(puts).buffer_unordered(at_once);
        let mut done = Done::default();
        while let Some((step, object, put)) = puts.next().await {
            if let Err(error) = put {
                done.failed.push((step.partition, error));
                continue;
            }
            done.report.objects = 1;
            done.report.partitions += 1;
            done.report.records += object.rows;
            done.report.batch_bytes += step.batch_bytes;
            done.report.object_bytes += object.bytes();
            let merged = step.replaces.map_or(0, |range| range.len());
            self.inner.tier.count_merged(merged);
            done.merged += merged;
            done.moved.push(step.partition);
        }
        drop(puts);
        done
    }
}

/// Who failed when an object was not put: who spoiled it, else all.
fn blamed(partitions: Job, error: TierError) -> Vec<(Arc<Partition>, TierError)> {
    let spoiler = match &error {
        TierError::Log(LogError::Corrupt { partition, .. }) => Some(*partition),
        _ => None,
    };
    let is_blamed = |one: &Arc<Partition>| spoiler.is_none_or(|spoiler| spoiler == one.id());
    let blamed: Job = partitions.into_iter().filter(is_blamed).collect();
    if let [partition] = &blamed[..] {
        return vec![(Arc::clone(partition), error)];
    }
    let error = Arc::new(error);
    let fail = |partition| (partition, TierError::Shared(Arc::clone(&error)));
    blamed.into_iter().map(fail).collect()
}

/// Encodes ranges on a thread that may take its time.
pub(super) async fn encode(
    config: Arc<PartitionConfig>,
    ids: Vec<PartitionId>,
    batches: Vec<Vec<Batch>>,
) -> Result<Written, TierError> {
    let encoded = tokio::task::spawn_blocking(move || write(&config, &batches)).await;
    match encoded {
        Ok(Ok(written)) => Ok(written),
        Ok(Err(error)) => {
            let partition = ids[error.part];
            let detail = format!("{error}; it stays where it is");
            Err(TierError::Log(LogError::Corrupt { partition, detail }))
        }
        Err(_) => Err(LogError::Unavailable("the encoding was broken off".to_owned()).into()),
    }
}

/// What must be remembered of idempotent producers when their batches, which follow `from`,
/// become rows. Batches that compaction wrote again or a trim took away do not say it any more,
/// the partition does.
fn marks(part: &Part, from: Offset) -> Vec<ProducerMark> {
    let mark = |batch: &Batch| {
        batch.producer().map(|producer| ProducerMark {
            id: producer.id,
            epoch: producer.epoch,
            sequence: producer.sequence,
            base_offset: batch.base_offset(),
            records: batch.len(),
        })
    };
    let next = part.batches.last().map_or(from, Batch::next_offset);
    let (known, _) = part.partition.marks();
    let known = known.into_iter().map(|mark| (mark.base_offset, mark));
    let known = known.filter(|(offset, _)| (from..next).contains(offset));
    let said = part.batches.iter().filter_map(mark);
    let all: BTreeMap<Offset, ProducerMark> = known
        .chain(said.map(|mark| (mark.base_offset, mark)))
        .collect();
    all.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weighed(topic: u32, index: u32, bytes: u64) -> Weighed {
        let id = PartitionId::new(TopicId(topic), index);
        let partition = Arc::new(Partition::empty(PartitionConfig::new(id, "t")));
        Weighed { partition, bytes }
    }

    #[test]
    fn small_ones_of_a_topic_move_together() {
        let check = |due: Vec<Weighed>, joining: Vec<Weighed>, expected: &[&str]| {
            let jobs = jobs(due, joining, 16 << 20);
            let name = |one: &Arc<Partition>| one.id().to_string();
            let name = |job: &Job| job.iter().map(name).collect::<Vec<_>>().join(" ");
            assert_eq!(jobs.iter().map(name).collect::<Vec<_>>(), expected);
        };
        let (small, large, mib7) = (1, SHARE_BYTES_MAX, 7 << 20);
        check(vec![], vec![weighed(1, 0, small)], &[]);
        check(vec![weighed(1, 0, small)], vec![], &["1/0"]);
        check(
            vec![
                weighed(1, 2, small),
                weighed(2, 0, small),
                weighed(1, 1, large),
            ],
            vec![
                weighed(1, 0, small),
                weighed(1, 3, large),
                weighed(3, 0, small),
            ],
            &["1/1", "1/0 1/2", "2/0"],
        );
        let due = (0..5).map(|index| weighed(1, index, mib7)).collect();
        check(due, vec![], &["1/0 1/1", "1/2 1/3", "1/4"]);
        let due = (0..300).map(|index| weighed(1, index, small)).collect();
        let many = jobs(due, vec![], u64::MAX);
        assert_eq!(many.iter().map(Vec::len).collect::<Vec<_>>(), [256, 44]);
        let due = vec![weighed(1, 0, 10), weighed(1, 1, 9), weighed(1, 2, 1)];
        let few = jobs(due, vec![], 10);
        assert_eq!(few.iter().map(Vec::len).collect::<Vec<_>>(), [1, 2]);
    }
}
