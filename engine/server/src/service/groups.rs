//! Consumer groups: the broker's answers in the words of the protocol.
//!
//! Called by: `service::Rooms::answer`. Calls: the broker, which decides everything.

use ::broker::ResetTo;
use model::Position;
use protocol::{
    GroupBeaten, GroupCommit, GroupCommitted, GroupDeleted, GroupDescription, GroupHeartbeat,
    GroupInfo, GroupJoin, GroupJoined, GroupLeave, GroupLeft, GroupMember, GroupPartition,
    GroupPosition, GroupPositioned, GroupPositions, GroupReset, GroupWasReset, Groups, WireError,
    code,
};

use super::{Rooms, reply};

impl Rooms {
    pub(super) async fn group_join(&self, ask: GroupJoin) -> Result<GroupJoined, WireError> {
        let GroupJoin {
            group,
            member,
            topics,
            session_ms,
        } = ask;
        let session_ms = session_ms.into();
        let join = ::broker::GroupJoin {
            group,
            member,
            topics,
            session_ms,
        };
        let joined = self.broker.group_join(join).await.map_err(reply::group)?;
        Ok(GroupJoined {
            member: joined.member,
            generation: joined.generation.into(),
            assignment: joined.assignment,
        })
    }

    pub(super) async fn group_heartbeat(
        &self,
        ask: &GroupHeartbeat,
    ) -> Result<GroupBeaten, WireError> {
        let generation = generation(ask.generation)?;
        let beaten = self
            .broker
            .group_heartbeat(&ask.group, &ask.member, generation)
            .await;
        Ok(GroupBeaten {
            rejoin: beaten.map_err(reply::group)?,
        })
    }

    pub(super) async fn group_leave(&self, ask: &GroupLeave) -> Result<GroupLeft, WireError> {
        self.broker
            .group_leave(&ask.group, &ask.member)
            .await
            .map_err(reply::group)?;
        Ok(GroupLeft {})
    }

    pub(super) async fn group_commit(&self, ask: GroupCommit) -> Result<GroupCommitted, WireError> {
        let GroupCommit {
            group,
            member,
            generation: by,
            positions,
        } = ask;
        let by = match (&member, by) {
            (Some(member), Some(by)) => Some((member.as_str(), generation(by)?)),
            (None, None) => None,
            _ => {
                let message = "a commit names member and generation, or neither";
                return Err(WireError::fix(code::BAD_REQUEST, message));
            }
        };
        let position = |p: GroupPosition| Position {
            group: group.clone(),
            partition: p.partition,
            offset: p.offset,
            expected: None,
            metadata: p.metadata,
        };
        let positions = positions.into_iter().map(position).collect();
        self.broker
            .group_commit(&group, by, positions)
            .await
            .map_err(reply::group)?;
        Ok(GroupCommitted {})
    }

    pub(super) fn group_positions(&self, ask: &GroupPositions) -> GroupPositioned {
        let held = self.broker.group_positions(&ask.group);
        GroupPositioned {
            positions: held.into_iter().map(position).collect(),
        }
    }

    pub(super) fn group_list(&self) -> Groups {
        let groups = self.broker.group_list().into_iter().map(|group| GroupInfo {
            group: group.group,
            members: group.members as u32,
            generation: group.generation.into(),
            partitions: group.partitions as u32,
        });
        Groups {
            groups: groups.collect(),
        }
    }

    pub(super) fn group_describe(&self, group: &str) -> Result<GroupDescription, WireError> {
        let found = self
            .broker
            .group_describe(group)
            .map_err(|error| WireError {
                advice: model::Advice::Fix,
                ..reply::group(error)
            })?;
        let member = |m: ::broker::MemberDescription| GroupMember {
            member: m.member,
            assignment: m.assignment,
        };
        let partition = |p: ::broker::PartitionProgress| GroupPartition {
            topic: p.topic,
            partition: p.partition.index,
            committed: p.position,
            end: p.bounds.end,
            lag: p.lag,
            member: p.member,
        };
        Ok(GroupDescription {
            group: found.group,
            generation: found.generation.into(),
            members: found.members.into_iter().map(member).collect(),
            partitions: found.partitions.into_iter().map(partition).collect(),
        })
    }

    pub(super) async fn group_delete(&self, group: &str) -> Result<GroupDeleted, WireError> {
        self.broker
            .group_delete(group)
            .await
            .map_err(|error| WireError {
                advice: model::Advice::Fix,
                ..reply::group(error)
            })?;
        Ok(GroupDeleted {})
    }

    pub(super) async fn group_reset(&self, ask: GroupReset) -> Result<GroupWasReset, WireError> {
        let to = match ask.to {
            protocol::ResetTo::Offset(offset) => ResetTo::Offset(offset),
            protocol::ResetTo::At(at) => ResetTo::At(at),
        };
        let moved = self
            .broker
            .group_reset(&ask.group, &ask.topic, ask.partition, to)
            .await;
        let moved = moved.map_err(reply::group)?;
        Ok(GroupWasReset {
            positions: moved.into_iter().map(position).collect(),
        })
    }
}

fn position(position: Position) -> GroupPosition {
    let Position {
        partition,
        offset,
        metadata,
        ..
    } = position;
    GroupPosition {
        partition,
        offset,
        metadata,
    }
}

/// Generations are counted in 32 bits; a larger one is nobody's.
fn generation(wide: u64) -> Result<u32, WireError> {
    u32::try_from(wide)
        .map_err(|_| WireError::fix(code::BAD_REQUEST, format!("generation {wide} cannot be")))
}
