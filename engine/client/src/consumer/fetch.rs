//! The tasks that read partitions ahead of the caller.
//!
//! What: a `Lane` reads some of the partitions held with one long poll at a time, on a stream of
//! its own, so that it holds up nobody; `lanes` shares the partitions out. Called by: `Consumer`.
//! Invariants: batches of a partition are handed over in order, and its next fetch begins where
//! the last one ended; who was served is named last next time, so that none starves; passing
//! trouble is waited out, bounded by `retry_timeout`, and holds up only the partition it is with.
//! Records that retention removed before they
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
            let read = |position| Read {
                position,
                trouble: None,
            };
            let lane = Lane {
                round: self.clone(),
                reads: positions.into_iter().map(read).collect(),
                trouble: None,
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
    reads: Vec<Read>,
    /// Of the lane as a whole: the server cannot be reached.
    trouble: Option<Trouble>,
}

/// A partition being read.
struct Read {
    position: Position,
    /// Until it is over the others are read without this one.
    trouble: Option<Trouble>,
}

/// Something does not succeed: since when, and when it is tried again.
#[derive(Clone, Copy)]
struct Trouble {
    since: Instant,
    pause: Duration,
    until: Instant,
}

impl Trouble {
    /// After one more failure; `None` if it is not passing, or has lasted for too long.
    fn again(before: Option<Trouble>, error: &ClientError, patience: Duration) -> Option<Trouble> {
        let now = Instant::now();
        let (since, pause) = before.map_or((now, BACKOFF), |before| {
            (before.since, (before.pause * 2).min(BACKOFF_MAX))
        });
        let is_passing = error.advice() == Advice::Retry && now - since < patience;
        let until = now + pause;
        is_passing.then_some(Trouble {
            since,
            pause,
            until,
        })
    }
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
        while self.say_ends().await {
            let asked = Instant::now();
            match self.fetch(&mut channel, asked).await {
                Ok(parts) => self.take(parts, asked).await,
                Err(error) => {
                    channel = None;
                    if !self.wait_out(error).await {
                        return;
                    }
                }
            }
        }
    }

    /// Lets go partitions that are read to their end. False when none is left.
    async fn say_ends(&mut self) -> bool {
        let is_ended = |read: &mut Read| read.position.is_at_end();
        let ended: Vec<Read> = self.reads.extract_if(.., is_ended).collect();
        for read in ended {
            self.say(read.position.partition, What::End).await;
        }
        !self.reads.is_empty()
    }

    /// Nothing of the lane can be read. False when it is given up.
    async fn wait_out(&mut self, error: ClientError) -> bool {
        let partition = self.reads[0].position.partition;
        self.trouble = Trouble::again(self.trouble, &error, self.round.retry_timeout);
        let Some(trouble) = self.trouble else {
            self.say(partition, What::Failed(error)).await;
            return false;
        };
        tracing::debug!(%partition, %error, "fetch will be tried again");
        tokio::time::sleep_until(trouble.until).await;
        true
    }

    /// What those have that are not in trouble, or are to be tried again.
    async fn fetch(
        &self,
        channel: &mut Option<Channel>,
        now: Instant,
    ) -> Result<Vec<Part>, ClientError> {
        let (mut wants, mut wait) = (Vec::new(), Duration::from_millis(self.round.wait_ms.into()));
        for Read { position, trouble } in &self.reads {
            match trouble.map(|trouble| trouble.until) {
                Some(until) if until > now => wait = wait.min(until - now),
                _ => wants.push(Want {
                    partition: position.partition,
                    from: position.next,
                }),
            }
        }
        if wants.is_empty() {
            tokio::time::sleep(wait).await;
            return Ok(Vec::new());
        }
        let channel = match channel {
            Some(channel) => channel,
            None => channel.insert(self.round.client.channel().await?),
        };
        let fetch = FetchMany {
            wants,
            bytes_max: self.round.bytes_max,
            wait_ms: wait.as_millis() as u32,
        };
        match channel.send(fetch).await?.await? {
            Response::FetchedMany(FetchedMany { parts }) => Ok(parts),
            other => Err(ClientError::Unexpected(format!("{other:?}"))),
        }
    }

    /// Hands over what came; one that fails does not hold up the others.
    async fn take(&mut self, parts: Vec<Part>, asked: Instant) {
        self.trouble = None;
        for Part { partition, outcome } in parts {
            let is_it = |read: &Read| read.position.partition == partition;
            // Not asked for: nobody waits for it.
            let Some(at) = self.reads.iter().position(is_it) else {
                continue;
            };
            match outcome {
                Ok(Fetched { batches, .. }) => self.hand_over(at, batches).await,
                Err(error) => self.refused(at, error).await,
            }
        }
        // Of those asked, who is not put off anew does well.
        for read in &mut self.reads {
            read.trouble = read.trouble.filter(|trouble| trouble.until > asked);
        }
    }

    async fn hand_over(&mut self, at: usize, batches: Vec<Batch>) {
        let Some(last) = batches.last() else {
            return;
        };
        let mut read = self.reads.remove(at);
        let Position {
            partition, next, ..
        } = read.position;
        read.position.next = last.next_offset().max(next);
        self.reads.push(read);
        let from = next;
        self.say(partition, What::Batches { batches, from }).await;
    }

    async fn refused(&mut self, at: usize, error: WireError) {
        let error = ClientError::Refused(error);
        let Err(error) = self.skip_lost(at, error).await else {
            return;
        };
        let read = &mut self.reads[at];
        let partition = read.position.partition;
        read.trouble = Trouble::again(read.trouble, &error, self.round.retry_timeout);
        if read.trouble.is_some() {
            return tracing::debug!(%partition, %error, "fetch will be tried again");
        }
        self.reads.remove(at);
        self.say(partition, What::Failed(error)).await;
    }

    /// What was removed cannot be read: goes on with what is kept.
    async fn skip_lost(&mut self, at: usize, error: ClientError) -> Result<(), ClientError> {
        if error.code() != code::OUT_OF_RANGE {
            return Err(error);
        }
        let Position {
            partition, next, ..
        } = self.reads[at].position;
        let client = &self.round.client;
        let earliest = client.lookup(partition, Lookup::Earliest).await?;
        if earliest <= next {
            return Err(error);
        }
        tracing::warn!(
            %partition,
            from = next,
            to = earliest,
            "records were removed, by retention or a trim, before they were read"
        );
        self.reads[at].position.next = earliest;
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
