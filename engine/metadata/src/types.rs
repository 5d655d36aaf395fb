//! The one place that says what kind of Raft this is.
//!
//! Called by: every file of this room that speaks to openraft, under these names only, so that
//! another version of it is a change of this file and of `store`, `machine` and `network`.

use std::io::Cursor;

use model::{CatalogError, Command, Outcome};

openraft::declare_raft_types!(
    /// Catalog commands in, their outcomes out.
    pub Types:
        D = Command,
        R = Reply,
        NodeId = u64,
        Node = openraft::BasicNode,
        SnapshotData = Cursor<Vec<u8>>,
);

/// What became of an entry of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply(pub Result<Outcome, CatalogError>);

impl Reply {
    /// Of entries that are Raft's own.
    pub(crate) const NONE: Reply = Reply(Ok(Outcome::Done));
}

pub(crate) type NodeId = u64;
/// What is known of a member beside its id.
pub(crate) type Member = openraft::BasicNode;
pub(crate) type Entry = openraft::Entry<Types>;
pub(crate) type Payload = openraft::EntryPayload<Types>;
pub(crate) type LogId = openraft::LogId<NodeId>;
pub(crate) type Vote = openraft::Vote<NodeId>;
pub(crate) type Membership = openraft::Membership<NodeId, Member>;
pub(crate) type StoredMembership = openraft::StoredMembership<NodeId, Member>;
pub(crate) type SnapshotMeta = openraft::SnapshotMeta<NodeId, Member>;
pub(crate) type Snapshot = openraft::Snapshot<Types>;
pub(crate) type StorageError = openraft::StorageError<NodeId>;
pub(crate) type StorageIoError = openraft::StorageIOError<NodeId>;
pub(crate) type Raft = openraft::Raft<Types>;
