//! Storage: a shard's bytes at rest. A write-ahead log, the recent tail in memory, and Parquet
//! objects in an object store, behind one door: `Store`.
//!
//! Called by: `broker` (append, read), `sql` (snapshot), `server` (open, close, status).
//! Invariants: what was acknowledged is in the WAL or in a manifest; data object, then
//! manifest, then local deletion; nothing else in the workspace links `object_store` to write
//! or writes Parquet.
//! Refuses: to open over corruption, to go on after a failed write or sync.

#[cfg_attr(not(test), allow(dead_code))]
mod cache;
mod config;
mod cover;
mod error;
mod io;
mod log;
mod planted;
mod snapshot;
mod status;
#[cfg(test)]
#[path = "../../../tests/support/stores/mod.rs"]
mod stores;
mod tail;
#[cfg(test)]
mod tests;
mod tier;
mod wal;

pub use config::{CompactionConfig, PartitionConfig, StoreConfig, StoreOptions, WalWriterKind};
pub use error::{OpenError, TierError};
pub use log::{Entry, Linger, Pending, Store};
pub use snapshot::Snapshot;
pub use status::{
    CacheStatus, Collected, CompactionReport, DiskCacheStatus, MemoryCacheStatus, PartitionStatus,
    StoreStatus, TierReport,
};
pub use tier::manifest::{ColdFoot, ColdGroup, ColdObject, ProducerMark};
pub use tier::pace::{BreakerState, BreakerStatus};
