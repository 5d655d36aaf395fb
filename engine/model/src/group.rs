//! A consumer group: its members, who reads which partition, and how far they have come.
//!
//! Called by the broker, which owns one of these per group. Invariants: time comes in as
//! `now_ms`; every partition of a subscribed topic is given to exactly one member that
//! subscribed to it; loads differ by at most one where all subscribe to the same; a change of
//! members moves as few partitions as it can; each change of the assignment is a new
//! generation, and a member of an older one cannot commit. Refuses what is over `limits`.

mod assign;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ids::{Offset, PartitionId, TopicId};
use crate::limits::{
    COMMIT_METADATA_BYTES_MAX, GROUP_MEMBER_BYTES_MAX, GROUP_MEMBERS_MAX, GROUP_NAME_BYTES_MAX,
    GROUP_PARTITIONS_MAX, GROUP_TOPICS_MAX, SESSION_MS_MAX, SESSION_MS_MIN,
};
use crate::port::Advice;

/// A topic a member wants to read, with the partitions it has now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subscription {
    pub topic: TopicId,
    pub partitions: u32,
}

/// The answer to a join.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Joined {
    pub generation: u32,
    pub assignment: Vec<PartitionId>,
}

/// The answer to a heartbeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// The assignment has changed: join again to learn it.
    pub rejoin: bool,
}

/// How far the group has come in a partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Committed {
    /// The next offset to read.
    pub offset: Offset,
    #[serde(default)]
    pub metadata: String,
}

/// One member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Topics it subscribed to, ascending.
    pub topics: Vec<TopicId>,
    /// Without a heartbeat for this long it is gone.
    pub session_ms: u64,
    /// When it is gone, unless it is heard of.
    pub deadline_ms: u64,
    /// What it reads, ascending.
    pub assignment: Vec<PartitionId>,
}

/// Why a group refuses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GroupError {
    #[error("a group name has 1 to {GROUP_NAME_BYTES_MAX} bytes without control characters")]
    Name,
    #[error("a member name has 1 to {GROUP_MEMBER_BYTES_MAX} bytes")]
    MemberName,
    #[error("the group has {GROUP_MEMBERS_MAX} members already")]
    Full,
    #[error("a member subscribes to 1 to {GROUP_TOPICS_MAX} topics, not {topics}")]
    Topics { topics: usize },
    #[error("a group reads at most {GROUP_PARTITIONS_MAX} partitions, not {partitions}")]
    Partitions { partitions: u64 },
    #[error("a session lasts {SESSION_MS_MIN} to {SESSION_MS_MAX} ms, not {session_ms}")]
    Session { session_ms: u64 },
    #[error("member `{member}` is not in the group (any more): join again")]
    UnknownMember { member: String },
    #[error("member `{member}` is of generation {got}, but the group is at {current}: join again")]
    Generation {
        member: String,
        got: u32,
        current: u32,
    },
    #[error("the group has members: only they may commit")]
    HasMembers,
    #[error("partition {partition} is not assigned to member `{member}`: join again")]
    NotAssigned {
        member: String,
        partition: PartitionId,
    },
    #[error("commit of partition {partition} is at {current:?}, not at {expected}")]
    Moved {
        partition: PartitionId,
        expected: Offset,
        current: Option<Offset>,
    },
    #[error("metadata of a commit has {bytes} bytes; at most {COMMIT_METADATA_BYTES_MAX}")]
    Metadata { bytes: usize },
}

impl GroupError {
    /// What the caller does about it.
    pub fn advice(&self) -> Advice {
        match self {
            GroupError::UnknownMember { .. }
            | GroupError::Generation { .. }
            | GroupError::NotAssigned { .. }
            | GroupError::Moved { .. }
            | GroupError::HasMembers => Advice::Fenced,
            GroupError::Full => Advice::Retry,
            _ => Advice::Fix,
        }
    }
}

/// Whether a group may have this name: 1 to 249 bytes, no control characters. Names that start
/// with `_` are internal; the broker decides who may use them.
pub fn group_name_check(name: &str) -> Result<(), GroupError> {
    match name.is_empty() || name.len() > GROUP_NAME_BYTES_MAX || name.chars().any(char::is_control)
    {
        true => Err(GroupError::Name),
        false => Ok(()),
    }
}

/// Members, assignment and commits of one group.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GroupState {
    generation: u32,
    members: BTreeMap<String, Member>,
    /// Partitions of every topic somebody subscribed to.
    partitions: BTreeMap<TopicId, u32>,
    commits: BTreeMap<PartitionId, Committed>,
}

impl GroupState {
    /// A group without members and commits.
    pub fn new() -> GroupState {
        GroupState::default()
    }

    /// Counts the assignments; 0 before the first.
    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// All members by name.
    pub fn members(&self) -> &BTreeMap<String, Member> {
        &self.members
    }

    /// What a member reads; nothing if it is not there.
    pub fn assignment(&self, member: &str) -> &[PartitionId] {
        self.members.get(member).map_or(&[], |m| &m.assignment)
    }

    /// Adds a member, or renews it. Joining again with the same topics changes nothing but the
    /// deadline and tells the assignment of now; other topics make a new generation.
    pub fn join(
        &mut self,
        member: &str,
        topics: &[Subscription],
        session_ms: u64,
        now_ms: u64,
    ) -> Result<Joined, GroupError> {
        if member.is_empty() || member.len() > GROUP_MEMBER_BYTES_MAX {
            return Err(GroupError::MemberName);
        }
        if topics.is_empty() || topics.len() > GROUP_TOPICS_MAX {
            return Err(GroupError::Topics {
                topics: topics.len(),
            });
        }
        if !(SESSION_MS_MIN..=SESSION_MS_MAX).contains(&session_ms) {
            return Err(GroupError::Session { session_ms });
        }
        self.expire(now_ms);
        let mut after = self.partitions.clone();
        after.extend(topics.iter().map(|s| (s.topic, s.partitions)));
        let partitions: u64 = after.values().map(|n| u64::from(*n)).sum();
        if partitions > GROUP_PARTITIONS_MAX {
            return Err(GroupError::Partitions { partitions });
        }
        if !self.members.contains_key(member) && self.members.len() >= GROUP_MEMBERS_MAX {
            return Err(GroupError::Full);
        }
        let mut ids: Vec<TopicId> = topics.iter().map(|s| s.topic).collect();
        ids.sort_unstable();
        ids.dedup();
        let mut changed = after != self.partitions;
        self.partitions = after;
        let deadline_ms = now_ms.saturating_add(session_ms);
        match self.members.get_mut(member) {
            Some(there) => {
                changed |= there.topics != ids;
                there.topics = ids;
                there.session_ms = session_ms;
                there.deadline_ms = deadline_ms;
            }
            None => {
                changed = true;
                let new = Member {
                    topics: ids,
                    session_ms,
                    deadline_ms,
                    assignment: Vec::new(),
                };
                self.members.insert(member.to_owned(), new);
            }
        }
        if changed {
            self.reassign();
        }
        let assignment = self.assignment(member).to_vec();
        Ok(Joined {
            generation: self.generation,
            assignment,
        })
    }

    /// Keeps a member alive. It is told to join again when the assignment has changed.
    pub fn heartbeat(
        &mut self,
        member: &str,
        generation: u32,
        now_ms: u64,
    ) -> Result<Heartbeat, GroupError> {
        self.expire(now_ms);
        let current = self.generation;
        let Some(there) = self.members.get_mut(member) else {
            return Err(GroupError::UnknownMember {
                member: member.to_owned(),
            });
        };
        there.deadline_ms = now_ms.saturating_add(there.session_ms);
        Ok(Heartbeat {
            rejoin: generation != current,
        })
    }

    /// Takes a member out. Whether it was there.
    pub fn leave(&mut self, member: &str) -> bool {
        let was_there = self.members.remove(member).is_some();
        if was_there {
            self.reassign();
        }
        was_there
    }

    /// Takes out the members whose deadline has passed; returns their names.
    pub fn expire(&mut self, now_ms: u64) -> Vec<String> {
        let is_gone = |m: &Member| m.deadline_ms <= now_ms;
        let gone: Vec<String> = self
            .members
            .iter()
            .filter(|(_, m)| is_gone(m))
            .map(|(name, _)| name.clone())
            .collect();
        if !gone.is_empty() {
            self.members.retain(|_, m| !is_gone(m));
            self.reassign();
        }
        gone
    }

    /// When the next member is gone unless it is heard of.
    pub fn next_deadline_ms(&self) -> Option<u64> {
        self.members.values().map(|m| m.deadline_ms).min()
    }

    /// A topic has this many partitions now; 0 when it was deleted (its commits go too).
    pub fn topic_changed(&mut self, topic: TopicId, partitions: u32) {
        if partitions == 0 {
            self.commits.retain(|p, _| p.topic != topic);
        }
        match self.partitions.get_mut(&topic) {
            Some(there) if *there != partitions => *there = partitions,
            _ => return,
        }
        self.reassign();
    }

    /// Whether a commit may be written. With a member: it must be in the group, of this
    /// generation, and the partition its own. Without one: only while there are no members.
    /// `expected` is what the current commit must be, if anything.
    pub fn commit_check(
        &self,
        by: Option<(&str, u32)>,
        partition: PartitionId,
        expected: Option<Offset>,
        metadata: &str,
    ) -> Result<(), GroupError> {
        self.fence(by, partition)?;
        if metadata.len() > COMMIT_METADATA_BYTES_MAX {
            return Err(GroupError::Metadata {
                bytes: metadata.len(),
            });
        }
        let current = self.position(partition);
        match expected {
            Some(expected) if current != Some(expected) => Err(GroupError::Moved {
                partition,
                expected,
                current,
            }),
            _ => Ok(()),
        }
    }

    fn fence(&self, by: Option<(&str, u32)>, partition: PartitionId) -> Result<(), GroupError> {
        let Some((name, generation)) = by else {
            return match self.members.is_empty() {
                true => Ok(()),
                false => Err(GroupError::HasMembers),
            };
        };
        let Some(member) = self.members.get(name) else {
            return Err(GroupError::UnknownMember {
                member: name.to_owned(),
            });
        };
        if generation != self.generation {
            let (member, current) = (name.to_owned(), self.generation);
            return Err(GroupError::Generation {
                member,
                got: generation,
                current,
            });
        }
        match member.assignment.binary_search(&partition) {
            Ok(_) => Ok(()),
            Err(_) => Err(GroupError::NotAssigned {
                member: name.to_owned(),
                partition,
            }),
        }
    }

    /// Remembers a commit that was checked (and is durable), or read back from the log.
    pub fn commit(&mut self, partition: PartitionId, offset: Offset, metadata: &str) {
        self.commits.insert(
            partition,
            Committed {
                offset,
                metadata: metadata.to_owned(),
            },
        );
    }

    /// Forgets a commit.
    pub fn commit_remove(&mut self, partition: PartitionId) -> bool {
        self.commits.remove(&partition).is_some()
    }

    /// The next offset to read of a partition, if committed.
    pub fn position(&self, partition: PartitionId) -> Option<Offset> {
        self.commits.get(&partition).map(|c| c.offset)
    }

    /// All commits.
    pub fn commits(&self) -> &BTreeMap<PartitionId, Committed> {
        &self.commits
    }

    /// Whether there is neither a member nor a commit, so that it can be forgotten.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty() && self.commits.is_empty()
    }

    fn reassign(&mut self) {
        self.partitions
            .retain(|t, _| self.members.values().any(|m| m.topics.contains(t)));
        assign::assign(&mut self.members, &self.partitions);
        self.generation = self.generation.wrapping_add(1);
    }
}
