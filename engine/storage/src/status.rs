//! What the store says about itself.
//!
//! Called by: `server` (status, `rustmq top`), benches. Invariants: plain numbers, taken
//! without stopping anything; units stand in the names. Refuses: nothing.

use model::{Offset, PartitionId};
use serde::Serialize;

use crate::tier::pace::BreakerStatus;

#[derive(Clone, Debug, Default, Serialize)]
pub struct StoreStatus {
    /// Bytes the WAL's files take.
    pub wal_bytes: u64,
    pub wal_segments: u64,
    /// Bytes in them that are neither tiered nor trimmed.
    pub wal_live_bytes: u64,
    /// Entries and bytes waiting for the writer.
    pub queue_entries: u64,
    pub queue_bytes: u64,
    /// Since the store was opened.
    pub entries: u64,
    pub batches: u64,
    pub written_bytes: u64,
    pub syncs: u64,
    /// `plain` or `io_uring`.
    pub wal_writer: &'static str,
    /// Since when appends are refused because there is no room for them, if they are.
    pub full_ms: Option<u64>,
    /// Batches in memory, and most bytes of them.
    pub tail_bytes: u64,
    pub tail_bytes_max: u64,
    /// Blocks of the tier kept near.
    pub cache: CacheStatus,
    /// Why the WAL stopped, if it did.
    pub failure: Option<String>,
    /// Where the tier is.
    pub tier_url: String,
    /// Partitions with something untiered that shall go there.
    pub tier_waiting: u64,
    /// The last failure of the tier, until something succeeds.
    pub tier_failure: Option<String>,
    /// Whether the object store is asked at all.
    pub tier_breaker: BreakerStatus,
    /// Small objects that became part of larger ones since the store was opened.
    pub tier_merged: u64,
    /// Objects that the partitions' lists name; what several share counts once.
    pub tier_objects: u64,
    pub partitions: Vec<PartitionStatus>,
}

/// Blocks of the tier's objects kept near at hand.
#[derive(Clone, Debug, Default, Serialize)]
pub struct CacheStatus {
    pub memory: MemoryCacheStatus,
    /// None if it is turned off.
    pub disk: Option<DiskCacheStatus>,
    /// Blocks that readers had to wait for the object store for.
    pub misses: u64,
    /// From the object store, for readers and ahead of them.
    pub fetched_bytes: u64,
    /// Blocks fetched ahead of sequential readers.
    pub ahead_blocks: u64,
    /// How old a block may become.
    pub age_ms_max: u64,
}

#[derive(Clone, Debug, Default, Serialize)]
pub struct MemoryCacheStatus {
    pub bytes: u64,
    pub blocks: u64,
    /// More than this evicts down to `low_bytes`.
    pub high_bytes: u64,
    pub low_bytes: u64,
    /// Age of the oldest block.
    pub oldest_ms: Option<u64>,
    pub hits: u64,
    pub evictions: u64,
    /// Blocks that went because of their age.
    pub expirations: u64,
}

#[derive(Clone, Debug, Default, Serialize)]
pub struct DiskCacheStatus {
    pub dir: String,
    pub bytes: u64,
    pub blocks: u64,
    /// More than this evicts down to `low_bytes`.
    pub high_bytes: u64,
    pub low_bytes: u64,
    /// Age of the oldest block.
    pub oldest_ms: Option<u64>,
    pub hits: u64,
    pub evictions: u64,
    /// Blocks that went because of their age.
    pub expirations: u64,
    pub written_bytes: u64,
    /// Blocks not written: the disk was behind, full, failing, or they were too large for it.
    pub skipped: u64,
    /// Files that were not what was written; each counts as a miss too.
    pub damaged: u64,
    /// Why nothing is written for now.
    pub failure: Option<String>,
}

#[derive(Clone, Debug, Serialize)]
pub struct PartitionStatus {
    pub id: PartitionId,
    pub topic: String,
    pub start: Offset,
    pub end: Offset,
    /// Where the tier's part ends.
    pub cold_end: Offset,
    /// Objects that its list names, those it shares too.
    pub objects: u64,
    pub cold_bytes: u64,
    /// Their rows. Fewer than offsets where the topic is compacted; what a trim left in an object
    /// counts too.
    pub cold_records: u64,
    /// In the WAL, not in the tier.
    pub hot_bytes: u64,
    pub manifest_version: u64,
    /// Below it every key has one record; 0 without key compaction.
    pub compacted_end: Offset,
    /// Why its last run of the tier failed; it is tried again later.
    pub tier_failure: Option<String>,
    /// Why it was last not compacted; it is tried again later.
    pub compaction_failure: Option<String>,
}

/// What one run of the tier moved.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TierReport {
    pub partitions: u64,
    pub objects: u64,
    pub records: u64,
    /// Bytes of the batches before.
    pub batch_bytes: u64,
    /// Bytes of the Parquet objects after.
    pub object_bytes: u64,
    /// WAL segments given back.
    pub segments_freed: u64,
}

impl TierReport {
    pub(crate) fn add(&mut self, other: &TierReport) {
        self.partitions += other.partitions;
        self.objects += other.objects;
        self.records += other.records;
        self.batch_bytes += other.batch_bytes;
        self.object_bytes += other.object_bytes;
        self.segments_freed += other.segments_freed;
    }
}

/// What a compaction did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CompactionReport {
    pub passes: u64,
    pub records_before: u64,
    pub records_after: u64,
    /// Of batches in the WAL and of objects.
    pub bytes_before: u64,
    pub bytes_after: u64,
    /// WAL segments given back.
    pub segments_freed: u64,
}

impl CompactionReport {
    pub(crate) fn add(&mut self, other: &CompactionReport) {
        self.passes += other.passes;
        self.records_before += other.records_before;
        self.records_after += other.records_after;
        self.bytes_before += other.bytes_before;
        self.bytes_after += other.bytes_after;
        self.segments_freed += other.segments_freed;
    }
}

/// What one collection deleted in the tier.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Collected {
    /// Data objects that no manifest names.
    pub objects: u64,
    /// Manifests long replaced.
    pub manifests: u64,
    /// Partitions left alone because another writer's manifest is newer.
    pub stale: u64,
    /// Partitions that are not known here and were not dropped: left alone.
    pub unknown: u64,
}

impl Collected {
    pub(crate) fn add(&mut self, other: &Collected) {
        self.objects += other.objects;
        self.manifests += other.manifests;
        self.stale += other.stale;
        self.unknown += other.unknown;
    }
}
