//! Consumer groups: membership, commits, and looking at them.
//!
//! What: admin messages, JSON. Called by: the client's consumer, `rustmq group`.
//! Invariants: a commit names member and generation, or neither (a commit from outside the
//! group's membership, which is refused while the group has members).

use model::ids::{Offset, PartitionId};
use model::port::Lookup;
use serde::{Deserialize, Serialize};

use crate::wire::json_bodies;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GroupJoin {
    pub group: String,
    /// The id given at the first join; `None` asks for one.
    pub member: Option<String>,
    /// Names of topics.
    pub topics: Vec<String>,
    /// A member that is silent for this long is removed.
    pub session_ms: u32,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GroupJoined {
    pub member: String,
    pub generation: u64,
    pub assignment: Vec<PartitionId>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GroupHeartbeat {
    pub group: String,
    pub member: String,
    pub generation: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GroupBeaten {
    /// The assignment has changed: join again.
    pub rejoin: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GroupLeave {
    pub group: String,
    pub member: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GroupLeft {}

/// The next offset that a group will read in a partition.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GroupPosition {
    pub partition: PartitionId,
    pub offset: Offset,
    #[serde(default)]
    pub metadata: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GroupCommit {
    pub group: String,
    pub member: Option<String>,
    pub generation: Option<u64>,
    pub positions: Vec<GroupPosition>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GroupCommitted {}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GroupPositions {
    pub group: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GroupPositioned {
    pub positions: Vec<GroupPosition>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GroupList {}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Groups {
    pub groups: Vec<GroupInfo>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GroupInfo {
    pub group: String,
    pub members: u32,
    pub generation: u64,
    /// Partitions with a committed offset.
    pub partitions: u32,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GroupDescribe {
    pub group: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GroupDescription {
    pub group: String,
    pub generation: u64,
    pub members: Vec<GroupMember>,
    pub partitions: Vec<GroupPartition>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GroupMember {
    pub member: String,
    pub assignment: Vec<PartitionId>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GroupPartition {
    pub topic: String,
    pub partition: u32,
    pub committed: Option<Offset>,
    pub end: Offset,
    /// Records between the commit (or the start) and the end.
    pub lag: u64,
    pub member: Option<String>,
}

/// Sets the commits of a group without members.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GroupReset {
    pub group: String,
    pub topic: String,
    /// All partitions of the topic if `None`.
    pub partition: Option<u32>,
    pub to: ResetTo,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ResetTo {
    Offset(Offset),
    At(Lookup),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GroupWasReset {
    pub positions: Vec<GroupPosition>,
}

/// Forgets a group without members, and its commits; older servers do not know the call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GroupDelete {
    pub group: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GroupDeleted {}

json_bodies!(
    GroupJoin,
    GroupJoined,
    GroupHeartbeat,
    GroupBeaten,
    GroupLeave,
    GroupLeft,
    GroupCommit,
    GroupCommitted,
    GroupPositions,
    GroupPositioned,
    GroupList,
    Groups,
    GroupDescribe,
    GroupDescription,
    GroupReset,
    GroupWasReset,
    GroupDelete,
    GroupDeleted,
);
