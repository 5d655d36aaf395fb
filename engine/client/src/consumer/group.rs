//! Membership in a consumer group.
//!
//! What: join, heartbeat in the background, rejoin, commit, leave. Called by: `Consumer`.
//! Invariants: a commit carries the member's generation, so that a member that lost its
//! partitions without noticing is refused; a heartbeat that is refused means "join again".

use std::collections::BTreeMap;
use std::time::Duration;

use model::ids::{Offset, PartitionId};
use protocol::{
    Advice, GroupCommit, GroupHeartbeat, GroupJoin, GroupJoined, GroupLeave, GroupPosition,
    GroupPositions,
};
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{ConsumerConfig, starts};
use crate::client::Client;
use crate::error::ClientError;

/// Heartbeats per session.
const BEATS: u32 = 3;
/// The longest time between two, so that a long session does not make partitions slow to move.
const BEAT_MAX: Duration = Duration::from_secs(3);

pub(super) struct Membership {
    group: String,
    joined: GroupJoined,
    /// True when the group wants us to join again.
    moved: watch::Receiver<bool>,
    say_moved: watch::Sender<bool>,
    _beating: DropGuard,
}

/// What a (re)join came to.
pub(super) struct Turn {
    pub membership: Membership,
    /// What was committed before it.
    pub committed: Vec<(PartitionId, Offset)>,
    /// Where to begin, and what is committed, of partitions that were not held all the while.
    pub begin: Vec<(PartitionId, Offset, Option<Offset>)>,
}

/// What a turn starts from.
pub(super) struct Before {
    pub client: Client,
    pub config: ConsumerConfig,
    pub group: String,
    /// `None` at the first join.
    pub joined: Option<GroupJoined>,
    /// Partitions and how far we got in them.
    pub held: BTreeMap<PartitionId, Option<Offset>>,
    /// Done and not yet committed.
    pub done: Vec<(PartitionId, Offset)>,
}

/// Commits what is done, joins, and learns where the new partitions begin. Runs as a task, so
/// that a caller who stops waiting for the next record does not stop it half way.
pub(super) async fn turn(before: Before) -> Result<Turn, ClientError> {
    let Before {
        client,
        config,
        group,
        joined,
        held,
        done,
    } = before;
    let mut committed = Vec::new();
    let mut member = None;
    if let Some(joined) = joined {
        // Refused if others have moved on already: then it is read again, by whoever has it.
        if !done.is_empty() && commit(&client, &group, &joined, &done).await.is_ok() {
            committed = done;
        }
        member = Some(joined.member);
    }
    let known = member.is_some();
    let joined = match join(&client, &group, member, &config).await {
        // The group has forgotten us: as someone new.
        Err(error) if known && error.advice() == Advice::Fenced => {
            join(&client, &group, None, &config).await?
        }
        joined => joined?,
    };
    let membership = Membership::begin(&client, group, joined, &config);
    let positions = membership.positions(&client).await?;
    let (mut begin, mut unknown) = (Vec::new(), Vec::new());
    for partition in membership.assignment() {
        let committed = positions.get(partition).copied();
        // Held all the while, as far as we know: unless someone else got further meanwhile.
        if held.get(partition).is_some_and(|ours| committed <= *ours) {
            continue;
        }
        match committed {
            Some(offset) => begin.push((*partition, offset, committed)),
            None => unknown.push(*partition),
        }
    }
    let found = starts(&client, config.from, unknown).await?;
    begin.extend(
        found
            .into_iter()
            .map(|(partition, from)| (partition, from, None)),
    );
    Ok(Turn {
        membership,
        committed,
        begin,
    })
}

impl Membership {
    fn begin(
        client: &Client,
        group: String,
        joined: GroupJoined,
        config: &ConsumerConfig,
    ) -> Membership {
        let (say_moved, moved) = watch::channel(false);
        let stop = CancellationToken::new();
        let beat = Beat {
            client: client.clone(),
            heartbeat: GroupHeartbeat {
                group: group.clone(),
                member: joined.member.clone(),
                generation: joined.generation,
            },
            every: Duration::from_millis((config.session_ms / BEATS).max(1).into()).min(BEAT_MAX),
            moved: say_moved.clone(),
        };
        tokio::spawn(beat.run(stop.clone()));
        Membership {
            group,
            joined,
            moved,
            say_moved,
            _beating: stop.drop_guard(),
        }
    }

    pub(super) fn joined(&self) -> &GroupJoined {
        &self.joined
    }

    pub(super) fn assignment(&self) -> &[PartitionId] {
        &self.joined.assignment
    }

    /// Waits until the group wants us to join again, and says which; without one for ever.
    pub(super) async fn moved(membership: Option<&mut Membership>) -> String {
        match membership {
            Some(membership) => {
                let moved = membership.moved.wait_for(|moved| *moved).await;
                moved.expect("the sender lives beside the receiver");
                membership.group.clone()
            }
            None => std::future::pending().await,
        }
    }

    pub(super) async fn commit(
        &mut self,
        client: &Client,
        positions: &[(PartitionId, Offset)],
    ) -> Result<(), ClientError> {
        let committed = commit(client, &self.group, &self.joined, positions).await;
        if committed
            .as_ref()
            .is_err_and(|error| error.advice() == Advice::Fenced)
        {
            self.say_moved.send_replace(true);
        }
        committed
    }

    async fn positions(
        &self,
        client: &Client,
    ) -> Result<BTreeMap<PartitionId, Offset>, ClientError> {
        let found = client
            .call(GroupPositions {
                group: self.group.clone(),
            })
            .await?;
        Ok(found
            .positions
            .into_iter()
            .map(|p| (p.partition, p.offset))
            .collect())
    }

    /// Frees the partitions at once; if that fails, the session does it later.
    pub(super) async fn leave(self, client: &Client) {
        let Membership { group, joined, .. } = self;
        if let Err(error) = client
            .call(GroupLeave {
                group,
                member: joined.member,
            })
            .await
        {
            tracing::debug!(%error, "leaving the group did not succeed");
        }
    }
}

async fn commit(
    client: &Client,
    group: &str,
    joined: &GroupJoined,
    positions: &[(PartitionId, Offset)],
) -> Result<(), ClientError> {
    let position = |(partition, offset): &(PartitionId, Offset)| GroupPosition {
        partition: *partition,
        offset: *offset,
        metadata: String::new(),
    };
    let commit = GroupCommit {
        group: group.to_owned(),
        member: Some(joined.member.clone()),
        generation: Some(joined.generation),
        positions: positions.iter().map(position).collect(),
    };
    client.call(commit).await.map(|_| ())
}

/// Joins, waiting out passing trouble.
async fn join(
    client: &Client,
    group: &str,
    member: Option<String>,
    config: &ConsumerConfig,
) -> Result<GroupJoined, ClientError> {
    let deadline = tokio::time::Instant::now() + config.retry_timeout;
    loop {
        let join = GroupJoin {
            group: group.to_owned(),
            member: member.clone(),
            topics: config.topics.clone(),
            session_ms: config.session_ms,
        };
        match client.call(join).await {
            Err(error)
                if error.advice() == Advice::Retry && tokio::time::Instant::now() < deadline =>
            {
                tracing::debug!(%error, "joining will be tried again");
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            joined => return joined,
        }
    }
}

struct Beat {
    client: Client,
    heartbeat: GroupHeartbeat,
    every: Duration,
    moved: watch::Sender<bool>,
}

impl Beat {
    async fn run(self, stop: CancellationToken) {
        tokio::select! {
            () = self.beat() => {}
            () = stop.cancelled() => {}
        }
    }

    async fn beat(&self) {
        loop {
            tokio::time::sleep(self.every).await;
            let rejoin = match self.client.call(self.heartbeat.clone()).await {
                Ok(beaten) => beaten.rejoin,
                // Not reached: the session may survive it.
                Err(error) => error.advice() != Advice::Retry,
            };
            // Goes on beating: the caller may be slow to come for the next record.
            if rejoin {
                self.moved.send_replace(true);
            }
        }
    }
}
