//! Every bound of the platform, by name.
//!
//! Called by every room, which checks a length from outside against these before it takes
//! memory. Bytes unless the name says otherwise. Invariant: a batch that is within its limits
//! fits into a frame.

/// One record: key, value and headers together, uncompressed.
pub const RECORD_BYTES_MAX: usize = 8 << 20;
/// One encoded batch, head and body, as sent and stored.
pub const BATCH_BYTES_MAX: usize = 32 << 20;
/// All sections of one batch together after decompression.
pub const BATCH_DECODED_BYTES_MAX: usize = 64 << 20;
/// Records in one batch.
pub const BATCH_RECORDS_MAX: usize = 1_000_000;
/// Sections in one batch, unknown ones included.
pub const BATCH_SECTIONS_MAX: usize = 1_024;
/// Headers of one record.
pub const HEADERS_MAX: usize = 256;
/// Name of one header.
pub const HEADER_NAME_BYTES_MAX: usize = 1_024;
/// One frame of the protocol: a batch of the largest size and what goes round it.
pub const FRAME_BYTES_MAX: usize = BATCH_BYTES_MAX + (1 << 20);
/// The largest offset a partition may reach, so that it fits a signed column.
pub const OFFSET_MAX: u64 = i64::MAX as u64;

/// Name of a topic.
pub const TOPIC_NAME_BYTES_MAX: usize = 249;
/// Topics in one catalog.
pub const TOPICS_MAX: usize = 100_000;
/// Partitions of one topic.
pub const PARTITIONS_MAX: u32 = 10_000;
/// Fields of one schema.
pub const SCHEMA_FIELDS_MAX: usize = 1_000;
/// Name of one schema field.
pub const FIELD_NAME_BYTES_MAX: usize = 256;
/// Fields of a schema whose topic keeps values as columns.
pub const COLUMNS_MAX: usize = 256;
/// An Avro schema, as JSON.
pub const AVRO_SCHEMA_BYTES_MAX: usize = 256 << 10;
/// The shortest retention by time, in milliseconds.
pub const RETENTION_MS_MIN: u64 = 1_000;

/// Name of a pipeline.
pub const PIPELINE_NAME_BYTES_MAX: usize = 100;
/// Pipelines in one catalog.
pub const PIPELINES_MAX: usize = 10_000;
/// Text of one pipeline.
pub const PIPELINE_YAML_BYTES_MAX: usize = 1 << 20;
/// Modules one pipeline may name.
pub const PIPELINE_MODULES_MAX: usize = 256;
/// Topics one pipeline may name.
pub const PIPELINE_TOPICS_MAX: usize = 1_000;
/// One module as uploaded.
pub const MODULE_BYTES_MAX: usize = FRAME_BYTES_MAX - (1 << 16);
/// Modules in one catalog.
pub const MODULES_MAX: usize = 100_000;

/// Brokers in one catalog.
pub const BROKERS_MAX: usize = 1_000;
/// The name a broker gives itself.
pub const BROKER_NODE_BYTES_MAX: usize = 128;
/// Shards in one catalog.
pub const SHARDS_MAX: usize = 10_000;
/// Versions of one topic's schema.
pub const SCHEMA_VERSIONS_MAX: usize = 100;

/// Producer ids in one block.
pub const PRODUCER_BLOCK_MAX: u32 = 1 << 20;
/// Batches remembered per producer and partition, to know a retry when it comes.
pub const PRODUCER_BATCHES_REMEMBERED: usize = 5;
/// Producers remembered per partition; the one idle for longest is forgotten first.
pub const PRODUCERS_PER_PARTITION_MAX: usize = 10_000;

/// Passes of key compaction that a partition remembers, to know when tombstones may go.
pub const COMPACTION_PASSES_REMEMBERED: usize = 16;

/// Name of a consumer group.
pub const GROUP_NAME_BYTES_MAX: usize = 249;
/// Groups that have members, and groups that have commits.
pub const GROUPS_MAX: usize = 100_000;
/// Members of one consumer group.
pub const GROUP_MEMBERS_MAX: usize = 1_000;
/// Name of one member of a group.
pub const GROUP_MEMBER_BYTES_MAX: usize = 249;
/// Topics one member may subscribe to.
pub const GROUP_TOPICS_MAX: usize = 1_000;
/// Partitions all members of one group read together.
pub const GROUP_PARTITIONS_MAX: u64 = 100_000;
/// Text a commit may carry beside its offset.
pub const COMMIT_METADATA_BYTES_MAX: usize = 4_096;
/// The shortest session of a group member, in milliseconds.
pub const SESSION_MS_MIN: u64 = 1_000;
/// The longest session of a group member, in milliseconds.
pub const SESSION_MS_MAX: u64 = 30 * 60 * 1_000;
