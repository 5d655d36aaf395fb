//! Consumer groups: who reads which partition, and how far they are.
//!
//! Called by: server (group requests), `ticker` (expiry). Calls: `model::group` (the rules of
//! membership), the shard (positions), the store (ends, for lag).
//! Members live in memory: after a restart they join again; positions are in `_offsets`.
//! When an assignment changes, members learn of it by heartbeat and join again. Until then the
//! old owner of a partition may still read it, but can commit no more: what it had not committed
//! is read again by the new owner. Delivery to groups is at least once.
//! Invariants: a member's commit is checked and admitted under both locks, so that no assignment
//! changes in between; groups that start with `_` belong to the platform.
//! Refuses: commits from members of an older generation, resets while there are members.

pub(crate) mod offsets;
pub mod record;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use model::group::{GroupState, Subscription, group_name_check};
use model::limits::GROUPS_MAX;
use model::{Bounds, Command, Commit, LogError, Lookup, Offset, PartitionId, Position, Topic};

use crate::broker::{Broker, Inner};
use crate::error::GroupError;
use crate::shard::OFFSETS;
use crate::status::{GroupDescription, GroupSummary, MemberDescription, PartitionProgress};

/// Members of all groups that have some.
#[derive(Default)]
pub(crate) struct Groups(BTreeMap<String, GroupState>);

/// A wish to be a member.
#[derive(Clone, Debug)]
pub struct GroupJoin {
    pub group: String,
    /// The name given at the first join; `None` asks for one.
    pub member: Option<String>,
    /// Names of topics.
    pub topics: Vec<String>,
    /// A member that is silent for this long is removed.
    pub session_ms: u64,
}

/// What a member was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined {
    pub member: String,
    pub generation: u32,
    pub assignment: Vec<PartitionId>,
}

/// Where a reset puts a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResetTo {
    Offset(Offset),
    At(Lookup),
}

impl Groups {
    pub(crate) fn names(&self) -> impl Iterator<Item = &String> {
        self.0.keys()
    }

    /// Takes out members that were silent for too long, and groups nobody is in.
    pub(crate) fn expire(&mut self, now_ms: u64) {
        for (group, state) in &mut self.0 {
            for member in state.expire(now_ms) {
                tracing::debug!(group, member, "a session is over");
            }
        }
        self.0.retain(|_, state| !state.members().is_empty());
    }

    fn of(&mut self, group: &str) -> Result<&mut GroupState, GroupError> {
        let unknown = || GroupError::Unknown {
            group: group.to_string(),
        };
        self.0.get_mut(group).ok_or_else(unknown)
    }

    /// Whether this member, or somebody from outside, may commit these partitions.
    fn commit_check(
        &self,
        group: &str,
        by: Option<(&str, u32)>,
        partitions: impl Iterator<Item = PartitionId>,
    ) -> Result<(), GroupError> {
        let none = GroupState::new();
        let state = self.0.get(group).unwrap_or(&none);
        for partition in partitions {
            state.commit_check(by, partition, None, "")?;
        }
        Ok(())
    }
}

impl Inner {
    /// Tells the groups what topics there are now.
    pub(crate) fn groups_refresh(&self) {
        let catalog = self.catalog.catalog();
        let mut groups = self.groups();
        for state in groups.0.values_mut() {
            let topics = state.members().values().flat_map(|member| &member.topics);
            let topics: BTreeSet<_> = topics.copied().collect();
            for id in topics {
                let partitions = catalog
                    .topic_by_id(id)
                    .map_or(0, |topic| topic.spec.partitions);
                state.topic_changed(id, partitions);
            }
        }
    }

    /// Waits for commits of a group that are on their way. Who joins has a new generation, which
    /// fences older commits; what was admitted before is seen by whoever takes over.
    async fn positions_settled(&self, group: &str) -> Result<(), LogError> {
        let (last, resyncs) = {
            let mut shard = self.shard();
            self.settle(&mut shard);
            (shard.positions.last_moving(group), shard.resyncs)
        };
        let until = last.map(|at| (OFFSETS, at + 1)).into_iter().collect();
        match self.durable_earlier(until, resyncs).await {
            // Taken back: nobody was told that it counts.
            Err(LogError::DiskFull) => Ok(()),
            settled => settled,
        }
    }

    fn topic(&self, name: &str) -> Result<Topic, GroupError> {
        let catalog = self.catalog.catalog();
        let unknown = || GroupError::Topic {
            topic: name.to_string(),
        };
        catalog.topic(name).cloned().ok_or_else(unknown)
    }
}

/// Names that users may give: the rules of the model, and none of the platform's own.
fn user_group_check(group: &str) -> Result<(), GroupError> {
    group_name_check(group)?;
    if group.starts_with('_') {
        return Err(GroupError::Internal {
            group: group.to_string(),
        });
    }
    Ok(())
}

impl Broker {
    /// Joins a group, or learns the newest assignment as a member.
    pub async fn group_join(&self, join: GroupJoin) -> Result<Joined, GroupError> {
        user_group_check(&join.group)?;
        let mut topics = Vec::with_capacity(join.topics.len().min(64));
        for name in &join.topics {
            let topic = self.inner.topic(name)?;
            topics.push(Subscription {
                topic: topic.id,
                partitions: topic.spec.partitions,
            });
        }
        let member = match join.member {
            Some(member) => member,
            None => format!("member-{:x}", self.producer_open().await?.0),
        };
        let now_ms = self.inner.now_ms();
        let joined = {
            let mut groups = self.inner.groups();
            if !groups.0.contains_key(&join.group) && groups.0.len() >= GROUPS_MAX {
                return Err(GroupError::TooMany);
            }
            let state = groups.0.entry(join.group.clone()).or_default();
            let joined = state.join(&member, &topics, join.session_ms, now_ms);
            if state.members().is_empty() {
                groups.0.remove(&join.group);
            }
            joined
        };
        let model::group::Joined {
            generation,
            assignment,
        } = joined?;
        self.inner.positions_settled(&join.group).await?;
        Ok(Joined {
            member,
            generation,
            assignment,
        })
    }

    /// Keeps a member alive; true: the assignment has changed, join again.
    pub async fn group_heartbeat(
        &self,
        group: &str,
        member: &str,
        generation: u32,
    ) -> Result<bool, GroupError> {
        let now_ms = self.inner.now_ms();
        let mut groups = self.inner.groups();
        Ok(groups
            .of(group)?
            .heartbeat(member, generation, now_ms)?
            .rejoin)
    }

    /// Takes a member out; its partitions go to the others. Leaving twice is no error.
    pub async fn group_leave(&self, group: &str, member: &str) -> Result<(), GroupError> {
        let mut groups = self.inner.groups();
        if let Some(state) = groups.0.get_mut(group) {
            state.leave(member);
            if state.members().is_empty() {
                groups.0.remove(group);
            }
        }
        Ok(())
    }

    /// Commits positions for a member of this generation, or (without one) for a group that has
    /// no members. Resolves when durable; all of them or none.
    pub async fn group_commit(
        &self,
        group: &str,
        by: Option<(&str, u32)>,
        positions: Vec<Position>,
    ) -> Result<(), GroupError> {
        user_group_check(group)?;
        if let Some(other) = positions.iter().find(|position| position.group != group) {
            let (group, other) = (group.to_string(), other.group.clone());
            return Err(GroupError::OtherGroup { group, other });
        }
        self.group_known(group).await?;
        let ticket = {
            let groups = self.inner.groups();
            let partitions = positions.iter().map(|position| position.partition);
            groups.commit_check(group, by, partitions)?;
            self.inner.admit(&Commit {
                appends: Vec::new(),
                positions,
            })?
        };
        self.inner.durable(ticket).await?;
        Ok(())
    }

    /// Records a group in the catalog when it commits for the first time.
    async fn group_known(&self, group: &str) -> Result<(), GroupError> {
        if self.inner.catalog.catalog().group(group).is_some() {
            return Ok(());
        }
        let (name, now_us) = (group.to_string(), self.inner.config.clock.now_us());
        let created_ms = now_us / 1000;
        let command = Command::GroupCreate { name, created_ms };
        self.inner.catalog.propose(command).await?;
        Ok(())
    }

    /// Forgets a group without members: its commits, then its name. A group that commits again
    /// is a new one.
    pub async fn group_delete(&self, group: &str) -> Result<(), GroupError> {
        user_group_check(group)?;
        let ticket = {
            let groups = self.inner.groups();
            let members = groups.0.get(group).map_or(0, |state| state.members().len());
            let group = group.to_string();
            if members > 0 {
                return Err(GroupError::HasMembers { group, members });
            }
            let mut shard = self.inner.shard();
            self.inner.settle(&mut shard);
            let held = shard.positions.visible_of(&group).into_iter();
            let forget = |(partition, _)| Position {
                group: group.clone(),
                partition,
                offset: Position::FORGET,
                expected: None,
                metadata: String::new(),
            };
            let positions: Vec<Position> = held.map(forget).collect();
            drop(shard);
            if positions.is_empty() && self.inner.catalog.catalog().group(&group).is_none() {
                return Err(GroupError::Unknown { group });
            }
            self.inner.admit(&Commit {
                appends: Vec::new(),
                positions,
            })?
        };
        self.inner.durable(ticket).await?;
        let name = group.to_string();
        if self.inner.catalog.catalog().group(group).is_some() {
            self.inner
                .catalog
                .propose(Command::GroupDelete { name })
                .await?;
        }
        Ok(())
    }

    /// The durable commits of a group, in partition order; none for a group nobody has used.
    pub fn group_positions(&self, group: &str) -> Vec<Position> {
        let mut shard = self.inner.shard();
        self.inner.settle(&mut shard);
        let held = shard.positions.visible_of(group).into_iter();
        held.map(|(partition, saved)| Position {
            group: group.to_string(),
            partition,
            offset: saved.offset,
            expected: None,
            metadata: saved.metadata,
        })
        .collect()
    }

    /// Groups that have members or commits, but for those of the platform.
    pub fn group_list(&self) -> Vec<GroupSummary> {
        let groups = self.inner.groups();
        let mut shard = self.inner.shard();
        self.inner.settle(&mut shard);
        let mut names: BTreeSet<String> = shard.positions.groups().into_iter().collect();
        names.extend(groups.names().cloned());
        let users = names.into_iter().filter(|group| !group.starts_with('_'));
        users
            .map(|group| {
                let state = groups.0.get(&group);
                GroupSummary {
                    members: state.map_or(0, |state| state.members().len()),
                    generation: state.map_or(0, GroupState::generation),
                    partitions: shard.positions.visible_of(&group).len(),
                    group,
                }
            })
            .collect()
    }

    /// Members, assignment, commits and lag of one group.
    pub fn group_describe(&self, group: &str) -> Result<GroupDescription, GroupError> {
        let commits = self.group_positions(group);
        let mut owners: BTreeMap<PartitionId, Option<String>> = commits
            .iter()
            .map(|position| (position.partition, None))
            .collect();
        let catalog = self.inner.catalog.catalog();
        let topic = |id| {
            catalog
                .topic_by_id(id)
                .map_or_else(String::new, |t| t.name.clone())
        };
        let mut members = Vec::new();
        let mut generation = 0;
        if let Some(state) = self.inner.groups().0.get(group) {
            generation = state.generation();
            for (name, member) in state.members() {
                for partition in &member.assignment {
                    owners.insert(*partition, Some(name.clone()));
                }
                let topics = member.topics.iter().map(|id| topic(*id)).collect();
                let (member, assignment) = (name.clone(), member.assignment.clone());
                members.push(MemberDescription {
                    member,
                    topics,
                    assignment,
                });
            }
        }
        if members.is_empty() && commits.is_empty() {
            return Err(GroupError::Unknown {
                group: group.to_string(),
            });
        }
        let partitions = owners.into_iter().map(|(partition, member)| {
            let bounds = self.inner.store.bounds(partition).unwrap_or_default();
            let commit = commits
                .iter()
                .find(|position| position.partition == partition);
            progress(topic(partition.topic), partition, member, commit, bounds)
        });
        let (group, partitions) = (group.to_string(), partitions.collect());
        Ok(GroupDescription {
            group,
            generation,
            members,
            partitions,
        })
    }

    /// Puts the commits of a group without members somewhere else: in one partition of a topic,
    /// or in all. Answers the new commits.
    pub async fn group_reset(
        &self,
        group: &str,
        topic: &str,
        partition: Option<u32>,
        to: ResetTo,
    ) -> Result<Vec<Position>, GroupError> {
        user_group_check(group)?;
        let topic = self.inner.topic(topic)?;
        let mut positions = Vec::new();
        for index in 0..topic.spec.partitions {
            if partition.is_some_and(|only| only != index) {
                continue;
            }
            let id = PartitionId::new(topic.id, index);
            let offset = match to {
                ResetTo::At(at) => self.inner.store.lookup(id, at).await?,
                ResetTo::Offset(offset) => {
                    let bounds = self.inner.store.bounds(id)?;
                    offset.clamp(bounds.start, bounds.end)
                }
            };
            let (group, metadata) = (group.to_string(), String::new());
            positions.push(Position {
                group,
                partition: id,
                offset,
                expected: None,
                metadata,
            });
        }
        if let (Some(index), true) = (partition, positions.is_empty()) {
            let partition = PartitionId::new(topic.id, index);
            return Err(LogError::NotFound { partition }.into());
        }
        self.group_commit(group, None, positions.clone()).await?;
        Ok(positions)
    }
}

fn progress(
    topic: String,
    partition: PartitionId,
    member: Option<String>,
    commit: Option<&Position>,
    bounds: Bounds,
) -> PartitionProgress {
    let position = commit.map(|commit| commit.offset);
    let from = position.unwrap_or(bounds.start).max(bounds.start);
    PartitionProgress {
        topic,
        partition,
        member,
        position,
        metadata: commit.map_or_else(String::new, |commit| commit.metadata.clone()),
        bounds,
        lag: bounds.end.saturating_sub(from),
    }
}
