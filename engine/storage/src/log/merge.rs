//! Merges small neighbouring objects of a partition into a larger one, same offsets; partitions of
//! a topic whose larger ones are still small share one.
//!
//! Called by: the tier's task, after what is due was moved. Invariants: the new object, then the
//! manifest that names it in place of the old ones (`parts`), which are deleted after the grace
//! period of those who still read them; a run of the task merges a bounded number of times, and
//! one merge takes in no more than one object's worth of rows.
//! Refuses: to put down a merged object that has not exactly the rows of the old ones.

use std::ops::Range;
use std::sync::Arc;

use super::Store;
use super::partition::Partition;
use super::parts::{Part, Weighed, hold, jobs};
use crate::error::TierError;
use crate::tier::manifest::ColdObject;

/// Merges of one run of the task, over all partitions.
const MERGES_MAX: usize = 4;
/// Objects that become one at a time.
const OBJECTS_MAX: usize = 64;

/// Neighbours worth merging: at least `objects_min`, of together at most `bytes_max` of rows, the
/// largest not larger than the rest, so that a record is written again only as its object
/// doubles.
pub(super) fn due(
    objects: &[ColdObject],
    objects_min: usize,
    bytes_max: u64,
) -> Option<Range<usize>> {
    if objects_min < 2 {
        return None;
    }
    (0..objects.len()).find_map(|from| {
        let (mut sum, mut largest) = (0u64, 0u64);
        let small = objects[from..]
            .iter()
            .take(OBJECTS_MAX)
            .take_while(|object| {
                let fits = sum.saturating_add(object.row_bytes) <= bytes_max;
                if fits {
                    sum += object.row_bytes;
                    largest = largest.max(object.row_bytes);
                }
                fits
            });
        let count = small.count();
        let is_due = count >= objects_min && largest <= sum - largest;
        is_due.then_some(from..from + count)
    })
}

impl Store {
    /// Merges once what is due of a partition; answers how many objects became one.
    #[cfg(test)]
    pub(crate) async fn merge(&self, partition: &Arc<Partition>) -> Result<usize, TierError> {
        self.merge_together(std::slice::from_ref(partition)).await
    }

    fn mergeable(&self, objects: &[ColdObject]) -> Option<Range<usize>> {
        let config = &self.inner.config;
        due(objects, config.tier_merge_objects_min, config.tier_bytes)
    }

    /// Merges once what is due of partitions, of several of a topic into one object; answers how
    /// many objects went into it.
    async fn merge_together(&self, job: &[Arc<Partition>]) -> Result<usize, TierError> {
        let _held = hold(job).await;
        let mut parts = Vec::with_capacity(job.len());
        let mut unread = Vec::new();
        for partition in job {
            let before = partition.cold();
            let Some(range) = self.mergeable(&before.objects) else {
                continue;
            };
            let old = &before.objects[range.clone()];
            match self.inner.tier.read_whole(&before, old).await {
                Ok(batches) => parts.push(Part {
                    partition: Arc::clone(partition),
                    batches,
                    replaces: Some(range),
                }),
                Err(error) => unread.push((Arc::clone(partition), error)),
            }
        }
        let mut done = self.put_parts(parts).await;
        done.failed.extend(unread);
        for (partition, error) in &done.failed {
            self.note(partition, Some(error));
            tracing::warn!(partition = %partition.id(), %error, "objects were not merged");
        }
        let merged = done.merged;
        done.into_result().map(|_| merged)
    }

    /// Merges what is due, up to a bound.
    pub(super) async fn merge_due(&self) -> Result<(), TierError> {
        let all = self.inner.partitions.all().into_values();
        let able = all.filter(|one| one.config().tier && !one.is_parked());
        let due = able.filter_map(|partition| {
            let cold = partition.cold();
            let objects = &cold.objects[self.mergeable(&cold.objects)?];
            let bytes = objects.iter().map(|object| object.row_bytes).sum();
            Some(Weighed { partition, bytes })
        });
        let jobs = jobs(due.collect(), Vec::new(), self.inner.config.tier_bytes);
        for job in jobs.into_iter().take(MERGES_MAX) {
            self.merge_together(&job).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_merge_when_many_small_and_alike() {
        let check = |row_bytes: &[u64], expected: Option<Range<usize>>| {
            let object = |(at, row_bytes): (usize, &u64)| ColdObject {
                path: format!("data/{at}"),
                size: 1,
                base: at as u64,
                next: at as u64 + 1,
                rows: 1,
                row_bytes: *row_bytes,
                ..ColdObject::default()
            };
            let objects: Vec<ColdObject> = row_bytes.iter().enumerate().map(object).collect();
            assert_eq!(due(&objects, 3, 100), expected, "{row_bytes:?}");
        };
        check(&[], None);
        check(&[10, 10], None);
        check(&[10, 10, 10], Some(0..3));
        check(&[90, 10, 10, 10], Some(1..4));
        check(&[40, 40, 40, 40], None);
        check(&[101, 20, 20, 20, 101], Some(1..4));
        // A large one waits until the small ones after it are as much as it is.
        check(&[60, 1, 1], None);
        check(&[60, 10, 1, 1], None);
        check(&[60, 10, 9, 1], Some(1..4));
        check(&[30, 20, 10, 1], Some(0..4));
        check(&[1; 80], Some(0..OBJECTS_MAX));
        assert_eq!(due(&[], 0, 100), None);
    }
}
