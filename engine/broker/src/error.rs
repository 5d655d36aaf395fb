//! Why the broker did not open, and why a group refused.
//!
//! Called by: `broker`, `group`, the server's edge mapping. Errors of reading and appending are
//! `model::LogError`, those of membership `model::GroupError`.

use model::limits::GROUPS_MAX;
use model::{Advice, LogError, PartitionId, ProposeError};

use crate::group::record::RecordError;

/// Why a broker did not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("partition {partition} does not open: {source}")]
    Partition {
        partition: PartitionId,
        source: LogError,
    },
    #[error(transparent)]
    Offsets(#[from] RecordError),
}

/// Why a request about a group was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GroupError {
    #[error(transparent)]
    Rule(#[from] model::GroupError),
    #[error(transparent)]
    Log(#[from] LogError),
    #[error(transparent)]
    Catalog(#[from] ProposeError),
    #[error("group `{group}` has neither members nor commits")]
    Unknown { group: String },
    #[error("group name `{group}` starts with `_`; such names are internal, choose another")]
    Internal { group: String },
    #[error("a commit of group `{group}` cannot move group `{other}`")]
    OtherGroup { group: String, other: String },
    #[error("topic `{topic}` does not exist: create it, or correct the name")]
    Topic { topic: String },
    #[error("the broker has {GROUPS_MAX} groups with members already")]
    TooMany,
    #[error("group `{group}` has {members} members; stop them, then delete it")]
    HasMembers { group: String, members: usize },
}

impl GroupError {
    /// What the caller does about it.
    pub fn advice(&self) -> Advice {
        match self {
            GroupError::Rule(rule) => rule.advice(),
            GroupError::Log(log) => log.advice(),
            GroupError::Catalog(catalog) => catalog.advice(),
            // A member whose group is gone was expired: it joins again, as an unknown member does.
            GroupError::Unknown { .. } => Advice::Fenced,
            GroupError::TooMany => Advice::Retry,
            _ => Advice::Fix,
        }
    }
}
