//! The tasks that read partitions ahead of the caller.
//!
//! What: a `Lane` reads some of the partitions held with one long poll at a time, on a stream of
//! its own, so that it holds up nobody; `lanes` shares the partitions out. Called by: `Consumer`.
//! Invariants: batches of a partition are handed over in order, and its next fetch begins where
//! the last one ended; who was served is named last next time, so that none starves; passing
//! trouble is waited out, bounded by `retry_timeout`. Records that retention removed before they
//! were read are skipped, and said.

use std::time::Duration;

use model::batch::Batch;
use model::ids::{Offset, PartitionId};
use model::port::Lookup;
use protocol::{
    Advice, FetchMany, Fetched, FetchedMany, Part, Response, Want, WireError, code, limits,
};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::ConsumerConfig;
use crate::channel::Channel;
use crate::client::Client;
use crate::error::ClientError;

const BACKOFF: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(1);
/// Long polls under way at once, unless there are more partitions than they can name.
const LANES_MAX: usize = 8;

pub(super) struct Arrival {
    pub partition: PartitionId,
    pub round: u64,
    pub what: What,
}

pub(super) enum What {
    Batches {
        batches: Vec<Batch>,
        from: Offset,
    },
    /// The end seen at the start is reached.
    End,
    Failed(ClientError),
}

/// What all lanes of a round have in common.
#[derive(Clone)]
pub(super) struct Round {
    pub client: Client,
    pub number: u64,
    pub bytes_max: u32,
    pub wait_ms: u32,
    pub retry_timeout: Duration,
    pub arrive: mpsc::Sender<Arrival>,
}

impl Round {
    pub(super) fn new(
        client: &Client,
        config: &ConsumerConfig,
        number: u64,
        arrive: &mpsc::Sender<Arrival>,
    ) -> Round {
        Round {
            client: client.clone(),
            number,
            bytes_max: config.bytes_max,
            wait_ms: config.wait_ms,
            retry_timeout: config.retry_timeout,
            arrive: arrive.clone(),
        }
    }

    /// Reads on from these positions until `stop`.
    pub(super) fn begin(self, positions: Vec<Position>, stop: &CancellationToken) {
        for positions in lanes(positions) {
            let lane = Lane {
                round: self.clone(),
                positions,
            };
            tokio::spawn(lane.run(stop.clone()));
        }
    }
}

/// How far a partition is read, and where its reading ends, if it does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Position {
    pub partition: PartitionId,
    pub next: Offset,
    pub end: Option<Offset>,
}

impl Position {
    fn is_at_end(&self) -> bool {
        self.end.is_some_and(|end| self.next >= end)
    }
}

/// As few lanes as can be, but one for each partition while these are few.
fn lanes(positions: Vec<Position>) -> Vec<Vec<Position>> {
    let needed = positions
        .len()
        .div_ceil(limits::FETCH_PARTITIONS_MAX as usize);
    let count = positions.len().min(LANES_MAX).max(needed);
    let mut lanes = vec![Vec::new(); count];
    for (at, position) in positions.into_iter().enumerate() {
        lanes[at % count].push(position);
    }
    lanes
}

struct Lane {
    round: Round,
    /// Who was served last stands last.
    positions: Vec<Position>,
}

/// Since when something does not succeed, and how long to wait before it is tried again.
struct Trouble {
    since: Instant,
    pause: Duration,
}

impl Lane {
    async fn run(mut self, stop: CancellationToken) {
        tokio::select! {
            () = self.read_on() => {}
            () = stop.cancelled() => {}
        }
    }

    async fn read_on(&mut self) {
        let mut channel = None;
        let mut trouble: Option<Trouble> = None;
        while self.say_ends().await {
            let error = match self.fetch(&mut channel).await {
                Ok(parts) => self.take(parts).await,
                Err(error) => {
                    channel = None;
                    Some((self.positions[0].partition, error))
                }
            };
            let Some((partition, error)) = error else {
                trouble = None;
                continue;
            };
            let Trouble { since, pause } = trouble.take().unwrap_or_else(|| Trouble {
                since: Instant::now(),
                pause: BACKOFF,
            });
            let is_passing = error.advice() == Advice::Retry;
            if !is_passing || since.elapsed() >= self.round.retry_timeout {
                return self.say(partition, What::Failed(error)).await;
            }
            tracing::debug!(%partition, %error, "fetch will be tried again");
            tokio::time::sleep(pause).await;
            let pause = (pause * 2).min(BACKOFF_MAX);
            trouble = Some(Trouble { since, pause });
        }
    }

    /// Lets go partitions that are read to their end. False when none is left.
    async fn say_ends(&mut self) -> bool {
        let (ended, rest) = self.positions.iter().partition(|p| p.is_at_end());
        self.positions = rest;
        let ended: Vec<Position> = ended;
        for position in ended {
            self.say(position.partition, What::End).await;
        }
        !self.positions.is_empty()
    }

    async fn fetch(&self, channel: &mut Option<Channel>) -> Result<Vec<Part>, ClientError> {
        let channel = match channel {
            Some(channel) => channel,
            None => channel.insert(self.round.client.channel().await?),
        };
        let want = |position: &Position| Want {
            partition: position.partition,
            from: position.next,
        };
        let fetch = FetchMany {
            wants: self.positions.iter().map(want).collect(),
            bytes_max: self.round.bytes_max,
            wait_ms: self.round.wait_ms,
        };
        match channel.send(fetch).await?.await? {
            Response::FetchedMany(FetchedMany { parts }) => Ok(parts),
            other => Err(ClientError::Unexpected(format!("{other:?}"))),
        }
    }

    /// Hands over what came. The first error is what to wait for, or to fail by.
    async fn take(&mut self, parts: Vec<Part>) -> Option<(PartitionId, ClientError)> {
        let mut first = None;
        for Part { partition, outcome } in parts {
            let Some(at) = self.positions.iter().position(|p| p.partition == partition) else {
                let error = format!("partition {partition} was not asked for");
                return Some((partition, ClientError::Unexpected(error)));
            };
            let error = match outcome {
                Ok(Fetched { batches, .. }) => {
                    self.hand_over(at, batches).await;
                    None
                }
                Err(error) => self.refused(at, error).await.err(),
            };
            first = first.or(error.map(|error| (partition, error)));
        }
        first
    }

    async fn hand_over(&mut self, at: usize, batches: Vec<Batch>) {
        let Some(last) = batches.last() else {
            return;
        };
        let mut position = self.positions.remove(at);
        let from = position.next;
        position.next = last.next_offset().max(from);
        self.positions.push(position);
        self.say(position.partition, What::Batches { batches, from })
            .await;
    }

    /// What was removed cannot be read: goes on with what is kept.
    async fn refused(&mut self, at: usize, error: WireError) -> Result<(), ClientError> {
        let error = ClientError::Refused(error);
        if error.code() != code::OUT_OF_RANGE {
            return Err(error);
        }
        let position = &mut self.positions[at];
        let partition = position.partition;
        let earliest = self
            .round
            .client
            .lookup(partition, Lookup::Earliest)
            .await?;
        if earliest <= position.next {
            return Err(error);
        }
        tracing::warn!(
            %partition,
            from = position.next,
            to = earliest,
            "records were removed, by retention or a trim, before they were read"
        );
        position.next = earliest;
        Ok(())
    }

    async fn say(&self, partition: PartitionId, what: What) {
        let arrival = Arrival {
            partition,
            round: self.round.number,
            what,
        };
        // Without a consumer there is nobody to be told: it stops this lane as it goes.
        let _ = self.round.arrive.send(arrival).await;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use model::ids::TopicId;

    use super::*;

    fn check(partitions: usize, expected: &str) {
        let position = |index| Position {
            partition: PartitionId {
                topic: TopicId(1),
                index: index as u32,
            },
            next: 0,
            end: None,
        };
        let lanes = lanes((0..partitions).map(position).collect());
        let mut all: Vec<u32> = lanes.iter().flatten().map(|p| p.partition.index).collect();
        all.sort_unstable();
        assert!(all.into_iter().eq(0..partitions as u32), "each in one lane");
        let mut sizes: BTreeMap<usize, usize> = BTreeMap::new();
        for lane in &lanes {
            *sizes.entry(lane.len()).or_default() += 1;
        }
        let sizes: Vec<String> = sizes.iter().map(|(len, n)| format!("{n}x{len}")).collect();
        assert_eq!(sizes.join(" "), expected);
    }

    #[test]
    fn partitions_share_few_lanes() {
        check(0, "");
        check(1, "1x1");
        check(8, "8x1");
        check(9, "7x1 1x2");
        check(1_000, "8x125");
        check(10_000, "10x1000");
    }
}
