//! What a store is told when it opens, and per partition.
//!
//! Called by: `log` (the store), by `broker` and `server` who fill it in.
//! Invariants: every size has its unit in its name; defaults suit one machine.
//! Refuses: nothing here; `Store::open` checks the folder and the URL.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Deref;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use model::topic::TOMBSTONE_RETENTION_MS_DEFAULT;
use model::{Durability, PartitionId, PayloadCodec, Schema, ShardEpoch, TopicSpec};

use crate::log::Linger;

/// Options of an object store by name. Some are secrets, so only the names can be printed.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct StoreOptions(pub BTreeMap<String, String>);

impl Deref for StoreOptions {
    type Target = BTreeMap<String, String>;

    fn deref(&self) -> &BTreeMap<String, String> {
        &self.0
    }
}

impl fmt::Debug for StoreOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// How one broker keeps its bytes.
#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// The WAL lives in `dir/wal`, the tier in `dir/tier` unless `tier_url` says otherwise.
    pub dir: PathBuf,
    /// `file:///path`, `s3://bucket/prefix` or `gs://bucket/prefix`; none is `dir/tier`.
    pub tier_url: Option<String>,
    /// Options of `object_store` (`aws_region`, `aws_endpoint`, …) for the URL; what they do not
    /// say comes from the environment (`AWS_…`, `GOOGLE_…`).
    pub tier_options: StoreOptions,
    /// Names this broker in manifests, so that two writers can be told apart.
    pub node: String,
    /// The epoch in which this broker leads the shard. Entries and manifests of an older one
    /// are refused, so each start of a broker needs a newer one.
    pub epoch: ShardEpoch,
    /// What writes the WAL.
    pub wal_writer: WalWriterKind,
    /// Size a WAL segment is preallocated with; a larger entry gets a larger segment.
    pub segment_bytes: u64,
    /// Above this many bytes of WAL, partitions that hold its oldest segment are tiered early
    /// and small leftovers of others are written again at its head.
    pub wal_bytes_max: u64,
    /// Most bytes of WAL: appends that would need another segment are refused as on a full
    /// disk. 0 is without limit.
    pub wal_bytes_limit: u64,
    /// Entries waiting for the WAL's writer; above it `enqueue` answers `Unavailable`.
    pub queue_bytes_max: usize,
    /// Recent batches kept in memory, over all partitions.
    pub tail_bytes_max: usize,
    /// Untiered bytes of a partition that make it due for the tier.
    pub tier_bytes: u64,
    /// Age of the oldest untiered batch that makes a partition due for the tier.
    pub tier_age_ms: u64,
    /// Blocks of the tier kept in memory for readers, bytes.
    pub cache_memory_bytes_max: usize,
    /// The same on disk; 0 keeps none there.
    pub cache_disk_bytes_max: u64,
    /// Where: a folder of its own is made in it. None is `dir/cache`.
    pub cache_dir: Option<PathBuf>,
    /// How old a block may become.
    pub cache_age_ms_max: u64,
    /// Memory and disk, when full, are emptied down to so many per cent.
    pub cache_low_percent: u8,
    /// How often the tier looks for what is due.
    pub tier_tick_ms: u64,
    /// Partitions that move to the tier, and objects that go there, at the same time.
    pub tier_uploads_max: usize,
    /// Bytes of objects that go to the tier in a second; 0 is without limit.
    pub tier_bytes_per_s: u64,
    /// Objects of this size and more go to the tier in parts, where the store has parts.
    pub tier_multipart_bytes: u64,
    /// The first pause after the tier failed, and the longest.
    pub tier_backoff_ms: u64,
    pub tier_backoff_ms_max: u64,
    /// Small neighbouring objects of a partition that are merged into one of up to
    /// `tier_bytes`; below 2 none are.
    pub tier_merge_objects_min: usize,
    /// How often the tier is searched for objects that no list names.
    pub tier_collect_ms: u64,
    /// How old such an object must be before it is deleted.
    pub tier_orphan_grace_ms: u64,
    /// A pass of key compaction begins when so much of a partition is dirty,
    pub compaction_dirty_percent: u32,
    /// and these are dirty bytes enough, or wait for so long.
    pub compaction_bytes_min: u64,
    pub compaction_age_ms: u64,
    /// What the keys of one pass may take in memory; with more keys than fit a pass ends earlier.
    pub compaction_keys_bytes_max: usize,
    /// How long the WAL's writer must be idle before it appends a mark.
    pub idle_mark_ms: u64,
    /// Lent to the workers of the runtime that waits for this store.
    pub linger: Arc<Linger>,
}

/// How entries of the WAL come to the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WalWriterKind {
    /// What measured faster.
    #[default]
    Auto,
    /// `pwritev`, then `fdatasync`.
    Plain,
    /// Both linked in one submission; `Plain` where the kernel refuses it.
    IoUring,
}

impl FromStr for WalWriterKind {
    type Err = String;

    fn from_str(text: &str) -> Result<WalWriterKind, String> {
        match text {
            "auto" => Ok(WalWriterKind::Auto),
            "plain" => Ok(WalWriterKind::Plain),
            "io_uring" => Ok(WalWriterKind::IoUring),
            _ => Err(format!(
                "`{text}` is not a WAL writer; known: auto, plain, io_uring"
            )),
        }
    }
}

impl Default for StoreConfig {
    fn default() -> StoreConfig {
        StoreConfig {
            dir: PathBuf::from("data"),
            tier_url: None,
            tier_options: StoreOptions::default(),
            node: "node-0".to_owned(),
            epoch: ShardEpoch(0),
            wal_writer: WalWriterKind::Auto,
            segment_bytes: 64 << 20,
            wal_bytes_max: 1 << 30,
            wal_bytes_limit: 0,
            queue_bytes_max: 64 << 20,
            tail_bytes_max: 256 << 20,
            tier_bytes: 32 << 20,
            tier_age_ms: 600_000,
            cache_memory_bytes_max: 128 << 20,
            cache_disk_bytes_max: 0,
            cache_dir: None,
            cache_age_ms_max: 86_400_000,
            cache_low_percent: 90,
            tier_tick_ms: 1_000,
            tier_uploads_max: 4,
            tier_bytes_per_s: 0,
            tier_multipart_bytes: 16 << 20,
            tier_backoff_ms: 100,
            tier_backoff_ms_max: 60_000,
            tier_merge_objects_min: 8,
            tier_collect_ms: 600_000,
            tier_orphan_grace_ms: 3_600_000,
            compaction_dirty_percent: 50,
            compaction_bytes_min: 1 << 20,
            compaction_age_ms: 600_000,
            compaction_keys_bytes_max: 64 << 20,
            idle_mark_ms: 20,
            linger: Arc::default(),
        }
    }
}

impl StoreConfig {
    /// The defaults, in this folder.
    pub fn new(dir: impl Into<PathBuf>) -> StoreConfig {
        StoreConfig {
            dir: dir.into(),
            ..StoreConfig::default()
        }
    }
}

/// How a partition is compacted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompactionConfig {
    /// Tombstones stand so long after the values before them are gone.
    pub tombstone_retention: Duration,
    /// Batches younger than this are left alone, and always the newest one.
    pub lag_min: Duration,
}

impl Default for CompactionConfig {
    fn default() -> CompactionConfig {
        CompactionConfig::of_spec(&TopicSpec::default())
    }
}

impl CompactionConfig {
    fn of_spec(spec: &TopicSpec) -> CompactionConfig {
        let tombstones = spec.tombstone_retention_ms;
        let tombstones = tombstones.unwrap_or(TOMBSTONE_RETENTION_MS_DEFAULT);
        CompactionConfig {
            tombstone_retention: Duration::from_millis(tombstones),
            lag_min: Duration::from_millis(spec.min_compaction_lag_ms.unwrap_or(0)),
        }
    }
}

/// What the store must know of a partition.
#[derive(Clone, Debug)]
pub struct PartitionConfig {
    pub id: PartitionId,
    /// The topic's name, for paths in the tier and for messages.
    pub topic: String,
    pub codec: PayloadCodec,
    /// Gives JSON topics typed columns in Parquet.
    pub schema: Option<Schema>,
    pub durability: Durability,
    /// Whether closed ranges go to the tier. What is not tiered stays in the WAL until trimmed.
    pub tier: bool,
    /// Whether only the newest record of each key is kept, and how.
    pub compact: Option<CompactionConfig>,
    /// Batches whose append time is longer ago go.
    pub retention_ms: Option<u64>,
    /// The oldest batches go while those after them are still so many bytes, as they stand in
    /// the WAL or as objects in the tier.
    pub retention_bytes: Option<u64>,
}

impl PartitionConfig {
    /// Raw values, acknowledged after the sync, tiered.
    pub fn new(id: PartitionId, topic: impl Into<String>) -> PartitionConfig {
        PartitionConfig {
            id,
            topic: topic.into(),
            codec: PayloadCodec::Raw,
            schema: None,
            durability: Durability::Fsync,
            tier: true,
            compact: None,
            retention_ms: None,
            retention_bytes: None,
        }
    }

    /// One configuration for each partition of a topic.
    pub fn of_topic(topic: &model::Topic) -> Vec<PartitionConfig> {
        let spec = &topic.spec;
        (0..spec.partitions)
            .map(|index| PartitionConfig {
                id: PartitionId {
                    topic: topic.id,
                    index,
                },
                topic: topic.name.clone(),
                codec: spec.codec,
                schema: spec.schema.clone(),
                durability: spec.durability,
                tier: spec.tier,
                compact: spec.compact.then(|| CompactionConfig::of_spec(spec)),
                retention_ms: spec.retention_ms,
                retention_bytes: spec.retention_bytes,
            })
            .collect()
    }
}
