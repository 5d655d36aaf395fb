//! What the broker says about itself: counters, partitions, groups. Plain data for the doors.
//!
//! Called by: `broker::status`, `group` (describe). Invariants: counters only grow while the
//! broker lives; numbers of one answer were taken under one lock.

use model::{Bounds, Offset, PartitionId};
use serde::{Deserialize, Serialize};

/// Counted by the shard since it opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardCounters {
    /// Batches admitted, those of `_offsets` included.
    pub batches: u64,
    pub records: u64,
    pub bytes: u64,
    /// Batches answered with the offset of an earlier one.
    pub duplicates: u64,
    /// Commits refused.
    pub refused: u64,
}

/// The broker as a whole.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BrokerStatus {
    pub partitions: usize,
    pub groups: usize,
    /// Positions kept in `_offsets`, and the bounds of that partition.
    pub positions: usize,
    pub offsets_topic: Bounds,
    /// Fetches that wait for something new.
    pub fetches_waiting: u64,
    #[serde(flatten)]
    pub counters: ShardCounters,
}

/// One line of `group list`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupSummary {
    pub group: String,
    pub members: usize,
    pub generation: u32,
    /// Partitions with a commit.
    pub partitions: usize,
}

/// A group with its members and how far it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupDescription {
    pub group: String,
    pub generation: u32,
    pub members: Vec<MemberDescription>,
    pub partitions: Vec<PartitionProgress>,
}

/// A member and what it was given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberDescription {
    pub member: String,
    pub topics: Vec<String>,
    pub assignment: Vec<PartitionId>,
}

/// How far a group is in one partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionProgress {
    pub topic: String,
    pub partition: PartitionId,
    pub member: Option<String>,
    /// The durable commit.
    pub position: Option<Offset>,
    pub metadata: String,
    pub bounds: Bounds,
    /// Records between the commit (or the start, where there is none) and the end.
    pub lag: u64,
}
