//! Live partitions and consumer groups over one shard of the log.
//!
//! Called by: server (doors), pipelines (through `model::port::TopicLog`). Calls: model, storage.
//! Data path: `broker` and `commit` take a commit, `shard` decides and assigns offsets under one lock,
//! storage makes it durable, `fetch` gives it out again. `group` shares partitions among members
//! and keeps positions as records of `_offsets`, written in the same entry as what they go with.
//! Invariants: the order of offsets is the order in the WAL; nothing is answered before it is
//! durable; nothing above the high watermark is seen, positions included.
//! Refuses: to know the wire, the catalog's rules (it is told of topics), or payloads.

mod broker;
mod commit;
mod config;
mod error;
mod fetch;
mod group;
mod producers;
mod shard;
mod status;
mod ticker;
mod topics;

#[cfg(test)]
mod tests;

pub use broker::{Broker, Produced};
pub use config::{BrokerConfig, Clock, SystemClock};
pub use error::{GroupError, OpenError};
pub use fetch::{FETCH_BYTES_MAX, FETCH_WAIT_MS_MAX, Fetched};
pub use group::record::RecordError;
pub use group::{GroupJoin, Joined, ResetTo};
pub use status::{
    BrokerStatus, GroupDescription, GroupSummary, MemberDescription, PartitionProgress,
    ShardCounters,
};
pub use topics::{OFFSETS_TOPIC, partition_configs};
