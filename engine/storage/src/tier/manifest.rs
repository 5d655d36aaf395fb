//! The list of a partition's objects: immutable, numbered, the commit point of the tier.
//!
//! Called by: `tier` and `log`. Paths: `manifests/TOPIC/INDEX/NUMBER.json` for lists,
//! `data/NAME-TOPIC/INDEX/BASE-NEXT-UNIQUE.parquet` for objects of one partition,
//! `data/NAME-TOPIC/shared/UNIQUE.parquet` for those that several share.
//! An entry names, besides an object, the row groups of this partition in it and its footer, each
//! with range and checksum. It stands for all offsets from its base to its next one, also for
//! those of records that compaction took away.
//! Formats: 1, whose objects are checked whole; 2; 3 may name objects that partitions share,
//! which who knows 2 only would delete; 4 may have offsets without a row, at which who knows 3
//! only would stop reading. All are read.
//! Invariants: a manifest is put only where none is (`PutMode::Create`); the highest number
//! counts; objects stand in offset order and do not overlap, nor do the groups of one.
//! Refuses: lists with another format, out of order, or for another partition.

use model::compaction::Compacted;
use model::{Offset, PartitionId, ProducerId, ShardEpoch};
use object_store::path::Path;
use serde::{Deserialize, Serialize};

pub(crate) const FORMAT: u32 = 4;
const FORMAT_OLDEST: u32 = 1;
/// Batches of producers a manifest remembers; the ones written last stay.
pub(crate) const PRODUCER_MARKS_MAX: usize = 5_000;

/// What a Parquet object has of a partition.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ColdObject {
    /// In the tier's object store.
    pub path: String,
    /// Size of the whole object in bytes.
    pub size: u64,
    /// The first offset it stands for; there need not be a record,
    pub base: Offset,
    /// nor before the offset after the last one.
    pub next: Offset,
    pub rows: u64,
    /// Smallest and largest record timestamp, microseconds since the epoch, UTC.
    pub min_ts: i64,
    pub max_ts: i64,
    /// Append time of the last batch, microseconds since the epoch, UTC.
    pub append_time: i64,
    /// Bytes of its rows before encoding.
    pub row_bytes: u64,
    /// crc32c of the whole object.
    pub crc32c: u32,
    /// The highest shard epoch of the batches.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub epoch: u32,
    /// Number of the first of `groups` among all row groups of the object.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub group: u32,
    /// The partition's row groups, which follow each other. Empty in format 1.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<ColdGroup>,
    /// None in format 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub foot: Option<ColdFoot>,
}

/// A row group: its bytes are one range of the object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ColdGroup {
    pub at: u64,
    pub len: u64,
    pub crc32c: u32,
    /// Offset of the first row.
    pub base: Offset,
    pub rows: u64,
    /// Smallest and largest record timestamp, microseconds since the epoch, UTC; lists of earlier
    /// versions do not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_ts: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_ts: Option<i64>,
}

/// All after the last row group: page indexes and the metadata of all row groups.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ColdFoot {
    pub at: u64,
    pub len: u64,
    pub crc32c: u32,
    /// Row groups of the whole object.
    pub groups: u32,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

fn is_default(compacted: &Compacted) -> bool {
    *compacted == Compacted::default()
}

impl ColdObject {
    /// Bytes that are this partition's.
    pub fn bytes(&self) -> u64 {
        match self.foot {
            Some(_) => self.groups.iter().map(|group| group.len).sum(),
            None => self.size,
        }
    }

    /// Most bytes of its rows that may be from `clean_to` on, as far as is known unread.
    pub(crate) fn dirty_bytes(&self, clean_to: Offset) -> u64 {
        let dirty_rows = self.next.saturating_sub(clean_to).min(self.rows);
        let share = u128::from(self.row_bytes) * u128::from(dirty_rows);
        (share / u128::from(self.rows.max(1))) as u64
    }

    /// The first offset that a row group of this partition stands for: the one after the group
    /// before ends where it begins.
    pub(crate) fn group_base(&self, number: usize) -> Offset {
        match number {
            0 => self.base,
            _ => self
                .groups
                .get(number)
                .map_or(self.next, |group| group.base),
        }
    }

    /// Whether every offset from base to next has a row.
    pub(crate) fn is_dense(&self) -> bool {
        self.rows == self.next - self.base
    }

    /// Checks what the entry says of itself.
    fn check(&self) -> Result<(), &'static str> {
        if self.next <= self.base {
            return Err("is out of order");
        }
        let Some(foot) = &self.foot else {
            let is_whole = self.groups.is_empty();
            return is_whole.then_some(()).ok_or("has row groups and no footer");
        };
        let last = u64::from(self.group) + self.groups.len() as u64;
        if self.groups.is_empty() || last > u64::from(foot.groups) {
            return Err("has not the row groups it names");
        }
        if foot.at.checked_add(foot.len) != Some(self.size) {
            return Err("does not end with its footer");
        }
        let (mut at, mut base, mut rows) = (0, self.base, 0u64);
        for group in &self.groups {
            let end = group.at.checked_add(group.len);
            let end = end.filter(|end| group.at >= at && *end <= foot.at);
            at = end.ok_or("has row groups that overlap")?;
            if group.base < base || group.base >= self.next {
                return Err("has row groups out of order");
            }
            base = group.base;
            rows = rows.saturating_add(group.rows);
        }
        (rows == self.rows)
            .then_some(())
            .ok_or("counts its rows twice")
    }
}

/// A batch of an idempotent producer, so that its retry is known when it comes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProducerMark {
    pub id: ProducerId,
    pub epoch: u16,
    pub sequence: u32,
    pub base_offset: Offset,
    pub records: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    pub format: u32,
    pub partition: PartitionId,
    pub topic: String,
    /// 0 is the empty list that was never put.
    pub number: u64,
    /// Who put it, and which of its puts it was: tells a lost answer from another writer.
    pub writer: String,
    pub commit: u64,
    /// The shard's epoch in which it was put: no writer of an older one puts another.
    pub shard_epoch: u32,
    pub start: Offset,
    pub end: Offset,
    pub objects: Vec<ColdObject>,
    /// In the order their batches were written.
    pub producers: Vec<ProducerMark>,
    /// What the passes of compaction over it left. It is in the same list as their last object.
    #[serde(default, skip_serializing_if = "is_default")]
    pub compacted: Compacted,
    /// The last one of a partition that is gone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dropped: bool,
}

impl Manifest {
    /// Of a partition that has nothing in the tier.
    pub(crate) fn empty(partition: PartitionId, topic: &str) -> Manifest {
        Manifest {
            format: FORMAT,
            partition,
            topic: topic.to_owned(),
            number: 0,
            writer: String::new(),
            commit: 0,
            shard_epoch: 0,
            start: 0,
            end: 0,
            objects: Vec::new(),
            producers: Vec::new(),
            compacted: Compacted::default(),
            dropped: false,
        }
    }

    /// The list that follows: without what lies before `start`, with one more object.
    pub(crate) fn followed_by(
        &self,
        start: Offset,
        object: Option<ColdObject>,
        producers: Vec<ProducerMark>,
    ) -> Manifest {
        let mut next = self.clone();
        (next.format, next.number) = (FORMAT, self.number + 1);
        next.start = next.start.max(start);
        next.objects.retain(|object| object.next > next.start);
        if let Some(object) = object {
            next.end = object.next;
            next.objects.push(object);
        }
        next.producers.extend(producers);
        next.producers = last_marks(next.producers);
        next
    }

    /// The same list, to be put again.
    pub(crate) fn again(&self) -> Manifest {
        Manifest {
            format: FORMAT,
            number: self.number + 1,
            ..self.clone()
        }
    }

    /// The epoch of an object's batches. Format 1 did not say it of each.
    pub(crate) fn epoch_of(&self, object: &ColdObject) -> ShardEpoch {
        ShardEpoch(match object.foot {
            Some(_) => object.epoch,
            None => object.epoch.max(self.shard_epoch),
        })
    }

    /// The list that follows when neighbouring objects became one.
    pub(crate) fn replaced(&self, range: std::ops::Range<usize>, object: ColdObject) -> Manifest {
        let mut next = self.clone();
        (next.format, next.number) = (FORMAT, self.number + 1);
        next.objects.splice(range, [object]);
        next
    }

    /// The list that follows when compaction left one object of a run of them, or nothing. Then
    /// the neighbour before the run, else the one after it, stands for its offsets too; without
    /// either there is no such list.
    pub(crate) fn rewritten(
        &self,
        run: std::ops::Range<usize>,
        object: Option<ColdObject>,
    ) -> Option<Manifest> {
        let old = self.objects.get(run.clone())?;
        let (base, end) = (old.first()?.base, old.last()?.next);
        let mut next = self.clone();
        (next.format, next.number) = (FORMAT, self.number + 1);
        let is_covered = object.is_some();
        next.objects.splice(run.clone(), object);
        if is_covered {
            return Some(next);
        }
        match run.start.checked_sub(1) {
            Some(before) => next.objects.get_mut(before)?.next = end,
            None => next.objects.first_mut()?.base = base,
        }
        Some(next)
    }

    /// The list that follows when compaction is through.
    pub(crate) fn compacted(&self, compacted: Compacted) -> Manifest {
        Manifest {
            compacted,
            ..self.again()
        }
    }

    /// The object that holds `offset`, or the first one after it.
    pub(crate) fn object_at(&self, offset: Offset) -> Option<&ColdObject> {
        let at = self.objects.partition_point(|object| object.next <= offset);
        self.objects.get(at)
    }

    /// Where a partition's manifests are.
    pub(crate) fn folder(partition: PartitionId) -> Path {
        Path::from(format!("manifests/{}/{}", partition.topic, partition.index))
    }

    pub(crate) fn path(partition: PartitionId, number: u64) -> Path {
        Path::from(format!(
            "manifests/{}/{}/{number:020}.json",
            partition.topic, partition.index
        ))
    }

    pub(crate) fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a manifest has only numbers, texts and lists")
    }

    pub(crate) fn from_json(bytes: &[u8], partition: PartitionId) -> Result<Manifest, String> {
        let manifest: Manifest =
            serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        if !(FORMAT_OLDEST..=FORMAT).contains(&manifest.format) {
            return Err(format!("format {} is not known here", manifest.format));
        }
        if manifest.partition != partition {
            return Err(format!("it belongs to partition {}", manifest.partition));
        }
        let mut at = 0;
        for object in &manifest.objects {
            if object.base < at {
                return Err(format!("object {} is out of order", object.path));
            }
            let wrong = |what| format!("object {} {what}", object.path);
            object.check().map_err(wrong)?;
            at = object.next;
        }
        if at > manifest.end {
            return Err(format!("objects end at {at}, the list at {}", manifest.end));
        }
        Ok(manifest)
    }
}

/// Stands for the index of a partition in the path of an object that several share.
pub(crate) const SHARED: &str = "shared";

/// Whether partitions share an object: it is not the one's to delete that leaves it.
pub(crate) fn is_shared(path: &str) -> bool {
    path.split('/').nth(2) == Some(SHARED)
}

/// Partition and number in a manifest's path; none for any other path.
pub(crate) fn manifest_of(path: &Path) -> Option<(PartitionId, u64)> {
    let text = path
        .as_ref()
        .strip_prefix("manifests/")?
        .strip_suffix(".json")?;
    let mut parts = text.split('/');
    let topic = model::TopicId(parts.next()?.parse().ok()?);
    let index = parts.next()?.parse().ok()?;
    let number = parts.next()?.parse().ok()?;
    parts
        .next()
        .is_none()
        .then_some((PartitionId { topic, index }, number))
}

/// The last batches of each producer, oldest first.
pub(crate) fn last_marks(marks: Vec<ProducerMark>) -> Vec<ProducerMark> {
    let mut seen: std::collections::HashMap<ProducerId, usize> = std::collections::HashMap::new();
    let mut kept: Vec<ProducerMark> = marks
        .into_iter()
        .rev()
        .filter(|mark| {
            let count = seen.entry(mark.id).or_default();
            *count += 1;
            *count <= model::limits::PRODUCER_BATCHES_REMEMBERED
        })
        .take(PRODUCER_MARKS_MAX)
        .collect();
    kept.reverse();
    kept
}
