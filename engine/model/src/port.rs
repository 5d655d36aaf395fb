//! The small traits where sibling rooms meet, and the values they exchange.
//!
//! Implemented by broker (`TopicLog`), metadata (`CatalogView`, `CatalogControl`) and storage
//! (`Modules`); used by broker, pipelines, sql and the server, which joins them.
//! Invariants: no runtime in here, futures are boxed; every error says what its caller can do
//! about it (`Advice`).

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::batch::Batch;
use crate::catalog::{Catalog, CatalogError, Command, Outcome};
use crate::ids::{Digest, Offset, PartitionId};
use crate::limits::OFFSET_MAX;

/// A future that owns or borrows what it needs, without naming a runtime.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What a caller does about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Advice {
    /// The same request may succeed later.
    Retry,
    /// The request is wrong: change it.
    Fix,
    /// Somebody newer has taken over: stop.
    Fenced,
    /// A fault of the platform or its disk: report it.
    Bug,
}

impl fmt::Display for Advice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Advice::Retry => "retry",
            Advice::Fix => "fix",
            Advice::Fenced => "fenced",
            Advice::Bug => "bug",
        })
    }
}

/// The offsets of a partition that can be read: `start <= offset < end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Bounds {
    /// The first offset that is kept.
    pub start: Offset,
    /// The high watermark: the next offset to become durable and readable.
    pub end: Offset,
}

impl fmt::Display for Bounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{}", self.start, self.end)
    }
}

/// One batch for one partition. Offsets are given by the log, not by the caller.
#[derive(Debug, Clone)]
pub struct Append {
    pub partition: PartitionId,
    pub batch: Batch,
}

/// How far a group has come in a partition: the next offset it will read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    pub group: String,
    pub partition: PartitionId,
    pub offset: Offset,
    /// Refuse unless the current commit is this; `None` means no check.
    pub expected: Option<Offset>,
    #[serde(default)]
    pub metadata: String,
}

impl Position {
    /// Committed as the offset: the group forgets the partition, as if it had never read it.
    pub const FORGET: Offset = OFFSET_MAX;
}

/// What becomes durable together: one atomic entry of the log.
#[derive(Debug, Clone, Default)]
pub struct Commit {
    pub appends: Vec<Append>,
    pub positions: Vec<Position>,
}

/// The answer to a commit.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Committed {
    /// The offset of the first record of each append, in their order.
    pub base_offsets: Vec<Offset>,
}

/// Why the log refused or failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    #[error("partition {partition} does not exist")]
    NotFound { partition: PartitionId },
    #[error("offset {offset} of partition {partition} is outside of what is kept ({bounds})")]
    OutOfRange {
        partition: PartitionId,
        offset: Offset,
        bounds: Bounds,
    },
    #[error("refused for partition {partition}: {reason}")]
    Fenced {
        partition: PartitionId,
        reason: String,
    },
    #[error("sequence {got} came to partition {partition} where {expected} was due")]
    OutOfOrder {
        partition: PartitionId,
        expected: u32,
        got: u32,
    },
    #[error("{bytes} bytes for partition {partition} are more than the {limit} allowed")]
    TooLarge {
        partition: PartitionId,
        bytes: u64,
        limit: u64,
    },
    #[error("not accepted by partition {partition}: {reason}")]
    Invalid {
        partition: PartitionId,
        reason: String,
    },
    #[error("the disk is full: free space or add retention, then try again")]
    DiskFull,
    /// A sync failed: whether the data is durable is not known.
    #[error("whether this was written is unknown: {0}")]
    Unknown(String),
    #[error("damaged data in partition {partition}: {detail}")]
    Corrupt {
        partition: PartitionId,
        detail: String,
    },
    #[error(
        "no module with this digest is stored here; apply a pipeline that names its folder or its \
         .wasm file first"
    )]
    NoModule,
    #[error("the log is closed")]
    Closed,
    #[error("not available now: {0}")]
    Unavailable(String),
}

impl LogError {
    /// What the caller does about it.
    pub fn advice(&self) -> Advice {
        match self {
            LogError::NotFound { .. }
            | LogError::OutOfRange { .. }
            | LogError::TooLarge { .. }
            | LogError::Invalid { .. }
            | LogError::NoModule => Advice::Fix,
            LogError::Fenced { .. } | LogError::OutOfOrder { .. } => Advice::Fenced,
            LogError::DiskFull | LogError::Closed | LogError::Unavailable(_) => Advice::Retry,
            LogError::Unknown(_) | LogError::Corrupt { .. } => Advice::Bug,
        }
    }

    /// A short stable name for logs and the wire.
    pub fn code(&self) -> &'static str {
        match self {
            LogError::NotFound { .. } | LogError::NoModule => "not-found",
            LogError::OutOfRange { .. } => "out-of-range",
            LogError::Fenced { .. } => "fenced",
            LogError::OutOfOrder { .. } => "out-of-order",
            LogError::TooLarge { .. } => "too-large",
            LogError::Invalid { .. } => "invalid",
            LogError::DiskFull => "disk-full",
            LogError::Unknown(_) => "unknown",
            LogError::Corrupt { .. } => "corrupt",
            LogError::Closed => "closed",
            LogError::Unavailable(_) => "unavailable",
        }
    }
}

/// A place in a partition, before it is an offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Lookup {
    /// The first offset that is kept.
    Earliest,
    /// The high watermark.
    Latest,
    /// The first record whose timestamp (microseconds since the epoch, UTC) is not before
    /// this; the high watermark if there is none.
    Timestamp(i64),
}

/// The partitions of this machine, as a pipeline sees them.
pub trait TopicLog: Send + Sync {
    /// What of `p` can be read now.
    fn bounds(&self, p: PartitionId) -> Result<Bounds, LogError>;

    /// Whole batches from `from` on, about `bytes_max` of them but at least one; the first may
    /// begin before `from`. Empty at the end.
    fn fetch(
        &self,
        p: PartitionId,
        from: Offset,
        bytes_max: usize,
    ) -> BoxFuture<'_, Result<Vec<Batch>, LogError>>;

    /// Resolves when the end of `p` is greater than `beyond`.
    fn moved(&self, p: PartitionId, beyond: Offset) -> BoxFuture<'_, Result<(), LogError>>;

    /// Writes all of `commit` or nothing; resolves when it is durable.
    fn commit(&self, commit: Commit) -> BoxFuture<'_, Result<Committed, LogError>>;

    /// The committed position of `group` in `p`.
    fn position(&self, group: &str, p: PartitionId) -> Option<Offset>;

    /// Where groups whose names begin with `prefix` have a position, also one that is on its way.
    fn held(&self, prefix: &str) -> Vec<(String, PartitionId)>;

    /// The offset of a place.
    fn lookup(&self, p: PartitionId, at: Lookup) -> BoxFuture<'_, Result<Offset, LogError>>;
}

/// The catalog as it is now.
pub trait CatalogView: Send + Sync {
    /// A snapshot: it does not change while it is held.
    fn catalog(&self) -> Arc<Catalog>;
}

/// Why a command to the catalog did not take effect.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// Nothing changed; it may be tried again.
    #[error("the catalog's disk is full: free space, then try again")]
    DiskFull,
    /// Nothing changed here; another broker may take it.
    #[error("the catalog takes no changes here: {reason}; try again")]
    Unavailable { reason: String },
    /// Whether this command is durable is unknown; no later one is taken.
    #[error("the catalog stopped: {reason}; restart the broker")]
    Stopped { reason: String },
}

impl ProposeError {
    /// What the caller does about it.
    pub fn advice(&self) -> Advice {
        match self {
            ProposeError::Catalog(error) => error.advice(),
            _ => Advice::Retry,
        }
    }

    /// A short stable name for logs and the wire.
    pub fn code(&self) -> &'static str {
        match self {
            ProposeError::Catalog(error) => error.code(),
            ProposeError::DiskFull => "disk-full",
            ProposeError::Unavailable { .. } | ProposeError::Stopped { .. } => "unavailable",
        }
    }
}

/// The catalog, for rooms that also change it.
pub trait CatalogControl: CatalogView {
    /// Applies a command; resolves when it is durable and visible.
    fn propose(&self, command: Command) -> BoxFuture<'_, Result<Outcome, ProposeError>>;
}

/// Modules by digest.
pub trait Modules: Send + Sync {
    /// The bytes of a module; they have the digest asked for.
    fn get(&self, digest: Digest) -> BoxFuture<'_, Result<Bytes, LogError>>;

    /// Stores a module durably; storing the same again changes nothing.
    fn put(&self, bytes: Bytes) -> BoxFuture<'_, Result<Digest, LogError>>;
}
