//! Merges small neighbouring objects of a partition into a larger one, same offsets.
//!
//! Called by: the tier's task, after what is due was moved. Invariants: the new object, then the
//! manifest that names it in place of the old ones, which are deleted after the grace period of
//! those who still read them; a run of the task merges a bounded number of times, and one merge
//! takes in no more than one object's worth of rows.
//! Refuses: to put down a merged object that has not exactly the rows of the old ones.

use std::ops::Range;
use std::sync::Arc;

use model::LogError;

use super::Store;
use super::partition::Partition;
use super::tiering::encode;
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
    pub(crate) async fn merge(&self, partition: &Arc<Partition>) -> Result<usize, TierError> {
        let config = &self.inner.config;
        let due =
            |objects: &[ColdObject]| due(objects, config.tier_merge_objects_min, config.tier_bytes);
        if due(&partition.cold().objects).is_none() {
            return Ok(0);
        }
        let _one = partition.tiering.lock().await;
        let before = partition.cold();
        let Some(range) = due(&before.objects) else {
            return Ok(0);
        };
        let old = &before.objects[range.clone()];
        let tier = &self.inner.tier;
        let batches = tier.read_whole(&before, old).await?;
        let written = encode(partition, batches).await?;
        let rows: u64 = old.iter().map(|object| object.rows).sum();
        let (Some(first), Some(last)) = (old.first(), old.last()) else {
            return Ok(0);
        };
        let wanted = (first.base, last.next, rows);
        let whole = |object: &ColdObject| (object.base, object.next, object.rows) == wanted;
        if !written.objects.iter().all(whole) {
            let (base, next, partition) = (first.base, last.next, partition.id());
            let detail = format!("objects with {rows} rows of {base}..{next} read back otherwise");
            return Err(LogError::Corrupt { partition, detail }.into());
        }
        let object = tier.put_data(&partition.config(), written).await?;
        let manifest = before.replaced(range.clone(), object);
        let manifest = tier.put_manifest(&manifest).await?;
        partition.release_tiered(Arc::new(manifest));
        tier.count_merged(range.len());
        Ok(range.len())
    }

    /// Merges what is due, up to a bound.
    pub(super) async fn merge_due(&self) -> Result<(), TierError> {
        let mut merges = 0;
        for partition in self.inner.partitions.all().into_values() {
            if merges >= MERGES_MAX {
                break;
            }
            if !partition.config().tier || partition.is_parked() {
                continue;
            }
            match self.merge(&partition).await {
                Ok(merged) => merges += usize::from(merged > 0),
                Err(error) => {
                    self.note(&partition, Some(&error));
                    tracing::warn!(partition = %partition.id(), %error, "objects were not merged");
                    return Err(error);
                }
            }
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
