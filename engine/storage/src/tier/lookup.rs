//! The offset of a time in the tier's part of a partition.
//!
//! Called by: `log::read`. Invariants: what the manifest says of objects and row groups is enough
//! to find the one row group that may hold the answer, so that one at most is fetched; two where
//! a trim cut into one. Of lists that do not say it of row groups, those of one object are read.
//! Refuses: damaged row groups, as every reader does.

use model::{BatchError, Offset};

use super::Tier;
use super::fetch::damaged;
use super::manifest::{ColdGroup, ColdObject, Manifest};
use crate::error::TierError;

impl Tier {
    /// The first record at or after `start` whose timestamp is not before `timestamp`.
    pub(crate) async fn lookup(
        &self,
        manifest: &Manifest,
        start: Offset,
        timestamp: i64,
    ) -> Result<Option<Offset>, TierError> {
        let objects = manifest.objects.iter();
        let objects = objects.filter(|object| object.next > start && object.max_ts >= timestamp);
        for object in objects {
            for number in 0..object.group_count() {
                let Some(group) = object.groups.get(number) else {
                    let found = self.search(manifest, object, number, start, timestamp);
                    match found.await? {
                        Some(offset) => return Ok(Some(offset)),
                        None => continue,
                    }
                };
                if object.group_base(number + 1) <= start || !group.may_reach(timestamp) {
                    continue;
                }
                // All of it is late enough: its first row is the first.
                if group.base >= start && group.min_ts.is_some_and(|min| min >= timestamp) {
                    return Ok(Some(group.base));
                }
                let found = self.search(manifest, object, number, start, timestamp);
                if let Some(offset) = found.await? {
                    return Ok(Some(offset));
                }
            }
        }
        Ok(None)
    }

    /// The same in one row group, which is read.
    async fn search(
        &self,
        manifest: &Manifest,
        object: &ColdObject,
        group: usize,
        start: Offset,
        timestamp: i64,
    ) -> Result<Option<Offset>, TierError> {
        let base = object.groups.get(group).map_or(object.base, |of| of.base);
        let from = base.max(start);
        let batches = self.read_group(manifest, object, group, from, usize::MAX);
        for batch in batches.await? {
            if batch.max_timestamp() < timestamp {
                continue;
            }
            let wrong = |error: BatchError| damaged(manifest.partition, object, error.to_string());
            let rows = batch.rows().map_err(wrong)?;
            let offsets = batch.offsets().map_err(wrong)?;
            let found = offsets
                .into_iter()
                .zip(rows.timestamps.iter())
                .find(|(offset, at)| *offset >= from && **at >= timestamp);
            if let Some((offset, _)) = found {
                return Ok(Some(offset));
            }
        }
        Ok(None)
    }
}

impl ColdGroup {
    /// Whether it may have a record at or after a time.
    fn may_reach(&self, timestamp: i64) -> bool {
        self.max_ts.is_none_or(|max| max >= timestamp)
    }
}
