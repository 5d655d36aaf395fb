//! What the catalog's log says, as JSON: the form on disk of everything Raft asks to be kept.
//!
//! Called by: `log`, `snapshot`. Invariants: these structs are the format, openraft's own are
//! not: they may change with its version. Fields and kinds are added, never renamed.
//! Refuses: what is not one of these, by saying what was read.

use std::collections::{BTreeMap, BTreeSet};

use model::Command;
use serde::{Deserialize, Serialize};

use crate::types::{
    Entry, LogId, Member, Membership, NodeId, Payload, SnapshotMeta, StoredMembership, Vote,
};

/// The format of log and snapshot that is written.
pub(crate) const FORMAT: u32 = 1;

/// One record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Record {
    /// The first record of a file.
    Head {
        format: u32,
        node: NodeId,
    },
    Vote(VoteText),
    Entry(EntryText),
    /// Entries up to this one are known to be committed.
    Committed(IdText),
    /// Entries from this one on are taken back.
    Truncate(IdText),
    /// Entries up to this one are in the snapshot and gone from here.
    Purge(IdText),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct VoteText {
    term: u64,
    node: NodeId,
    committed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct IdText {
    term: u64,
    node: NodeId,
    index: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct EntryText {
    id: IdText,
    payload: PayloadText,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum PayloadText {
    /// A leader's first entry.
    Blank,
    Command(Command),
    Members(MembersText),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MembersText {
    /// Voters; two sets while one replaces the other.
    voters: Vec<BTreeSet<NodeId>>,
    /// All nodes and their addresses.
    nodes: BTreeMap<NodeId, String>,
}

/// What a snapshot says about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MetaText {
    applied: Option<IdText>,
    members_at: Option<IdText>,
    members: MembersText,
}

impl From<Vote> for VoteText {
    fn from(vote: Vote) -> VoteText {
        VoteText {
            term: vote.leader_id.term,
            node: vote.leader_id.node_id,
            committed: vote.committed,
        }
    }
}

impl From<VoteText> for Vote {
    fn from(text: VoteText) -> Vote {
        match text.committed {
            true => Vote::new_committed(text.term, text.node),
            false => Vote::new(text.term, text.node),
        }
    }
}

impl From<LogId> for IdText {
    fn from(id: LogId) -> IdText {
        IdText {
            term: id.leader_id.term,
            node: id.leader_id.node_id,
            index: id.index,
        }
    }
}

impl From<IdText> for LogId {
    fn from(text: IdText) -> LogId {
        let leader = openraft::CommittedLeaderId::new(text.term, text.node);
        LogId::new(leader, text.index)
    }
}

impl From<&Membership> for MembersText {
    fn from(members: &Membership) -> MembersText {
        let nodes = members.nodes().map(|(id, node)| (*id, node.addr.clone()));
        MembersText {
            voters: members.get_joint_config().clone(),
            nodes: nodes.collect(),
        }
    }
}

impl From<MembersText> for Membership {
    fn from(text: MembersText) -> Membership {
        let nodes = text.nodes.into_iter();
        let nodes: BTreeMap<NodeId, Member> =
            nodes.map(|(id, addr)| (id, Member { addr })).collect();
        Membership::new(text.voters, nodes)
    }
}

impl From<&Entry> for EntryText {
    fn from(entry: &Entry) -> EntryText {
        let payload = match &entry.payload {
            Payload::Blank => PayloadText::Blank,
            Payload::Normal(command) => PayloadText::Command(command.clone()),
            Payload::Membership(members) => PayloadText::Members(members.into()),
        };
        EntryText {
            id: entry.log_id.into(),
            payload,
        }
    }
}

impl From<EntryText> for Entry {
    fn from(text: EntryText) -> Entry {
        let payload = match text.payload {
            PayloadText::Blank => Payload::Blank,
            PayloadText::Command(command) => Payload::Normal(command),
            PayloadText::Members(members) => Payload::Membership(members.into()),
        };
        Entry {
            log_id: text.id.into(),
            payload,
        }
    }
}

impl From<&SnapshotMeta> for MetaText {
    fn from(meta: &SnapshotMeta) -> MetaText {
        MetaText {
            applied: meta.last_log_id.map(IdText::from),
            members_at: meta.last_membership.log_id().map(IdText::from),
            members: meta.last_membership.membership().into(),
        }
    }
}

impl From<MetaText> for SnapshotMeta {
    fn from(text: MetaText) -> SnapshotMeta {
        let members_at = text.members_at.map(LogId::from);
        SnapshotMeta {
            last_log_id: text.applied.map(LogId::from),
            last_membership: StoredMembership::new(members_at, text.members.into()),
            snapshot_id: text.applied.map_or_else(String::new, |id| {
                let IdText { term, node, index } = id;
                format!("{term}-{node}-{index}")
            }),
        }
    }
}
