//! The pure truth of RustMQ: what a batch is, what a name may be, which command the catalog
//! accepts, who owns which partition of a group.
//!
//! Called by every other room. Invariants: no tokio, no files, no clock, no randomness; time
//! and identity come in as arguments, so the same input always gives the same answer. Lengths
//! that come from outside are checked against `limits` before memory is taken, and nothing
//! here panics on bytes from outside.

pub mod batch;
pub mod catalog;
pub mod compaction;
pub mod diagnostic;
pub mod group;
pub mod hash;
pub mod ids;
pub mod limits;
pub mod partition;
pub mod port;
pub mod rows;
pub mod schema;
pub mod topic;

pub use batch::{Batch, BatchError, Codec, EncodeError, HEAD_LEN, Producer};
pub use catalog::{
    BrokerRecord, Catalog, CatalogError, Change, Command, GroupRecord, Outcome, PipelineRecord,
    ShardRecord, TopicChange,
};
pub use diagnostic::{Diagnostic, Severity};
pub use group::{GroupError, GroupState};
pub use hash::partition_for_key;
pub use ids::{
    BrokerId, BrokerLife, Digest, DigestError, NameError, Offset, PartitionId, PartitionMap,
    ProducerId, ShardEpoch, ShardId, TopicId, pipeline_name_check, topic_name_check,
    topic_name_check_internal,
};
pub use partition::{Admission, ProducerTable};
pub use port::{
    Advice, Append, Bounds, BoxFuture, CatalogControl, CatalogView, Commit, Committed, LogError,
    Lookup, Modules, Position, ProposeError, TopicLog,
};
pub use rows::{Headers, RecordRef, Rows, RowsBuilder, RowsError};
pub use schema::{Field, FieldType, Schema, SchemaError};
pub use topic::{Durability, Misfits, PayloadCodec, SpecError, Topic, TopicSpec};
