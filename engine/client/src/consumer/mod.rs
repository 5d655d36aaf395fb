//! Consuming: batches of all partitions, or of those that a group gives to this member.
//!
//! What: `Consumer` gathers what the lanes in `fetch` read; `group` keeps membership and
//! commits. Called by: the command line, demo, tests. Invariants: batches of one partition come
//! in order, without gap or double, while this member holds it; only what the caller has called
//! `done` is committed, so nothing is lost when it dies; memory is bounded by a few fetches.
//! Without `follow` it ends at the high watermarks seen at its start.

mod fetch;
mod group;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt, stream};
use model::batch::{Batch, BatchError};
use model::ids::{Offset, PartitionId, TopicId};
use model::port::Lookup;
use model::rows::Rows;
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinHandle};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::client::Client;
use crate::error::ClientError;
use fetch::{Arrival, Position, Round, What};
use group::{Before, Membership, Turn};

/// Fetches that wait for the caller, all partitions together.
const ARRIVALS_MAX: usize = 4;
/// Lookups under way at once.
const LOOKUPS_MAX: usize = 32;

/// Where a partition is begun that has no commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    Earliest,
    Latest,
    Offset(Offset),
    /// Microseconds since the epoch, UTC.
    Timestamp(i64),
}

#[derive(Clone, Debug)]
pub struct ConsumerConfig {
    pub topics: Vec<String>,
    pub group: Option<String>,
    pub from: Start,
    /// Goes on past the high watermarks seen at the start.
    pub follow: bool,
    /// Of one fetch, all its partitions together.
    pub bytes_max: u32,
    /// How long the server holds a fetch that finds nothing.
    pub wait_ms: u32,
    /// A member that is silent for this long loses its partitions.
    pub session_ms: u32,
    /// What is done is committed this often, and when partitions move; zero leaves it to
    /// `commit` and `close`.
    pub commit_interval: Duration,
    /// A server that cannot be reached for this long is an error.
    pub retry_timeout: Duration,
}

impl ConsumerConfig {
    /// All of the topics, from the earliest record to what is there now.
    pub fn all(topics: impl IntoIterator<Item = impl Into<String>>) -> ConsumerConfig {
        ConsumerConfig {
            topics: topics.into_iter().map(Into::into).collect(),
            group: None,
            from: Start::Earliest,
            follow: false,
            bytes_max: 4 << 20,
            wait_ms: 5_000,
            session_ms: 10_000,
            commit_interval: Duration::from_secs(1),
            retry_timeout: Duration::from_secs(30),
        }
    }

    /// What the group has not done yet, and what comes.
    pub fn group(
        group: impl Into<String>,
        topics: impl IntoIterator<Item = impl Into<String>>,
    ) -> ConsumerConfig {
        let all = ConsumerConfig::all(topics);
        ConsumerConfig {
            group: Some(group.into()),
            from: Start::Latest,
            follow: true,
            ..all
        }
    }
}

/// A batch, and which of its records are meant.
#[derive(Clone, Debug)]
pub struct Delivery {
    pub topic: Arc<str>,
    pub partition: PartitionId,
    pub batch: Batch,
    /// Records before this offset were not asked for.
    pub from: Offset,
    /// Nor those from this one on.
    pub until: Offset,
}

impl Delivery {
    /// The records meant, with their offsets.
    pub fn rows(&self) -> Result<(Rows, Vec<Offset>), BatchError> {
        let (rows, mut offsets) = (self.batch.rows()?, self.batch.offsets()?);
        let first = offsets.partition_point(|offset| *offset < self.from);
        let last = offsets.partition_point(|offset| *offset < self.until);
        offsets.truncate(last);
        offsets.drain(..first.min(last));
        Ok((rows.slice(first, offsets.len()), offsets))
    }

    /// Where to go on when all of it is done.
    pub fn next_offset(&self) -> Offset {
        self.batch.next_offset().min(self.until)
    }
}

/// Reads topics. When it is dropped without `close`, the group learns of it by its silence.
pub struct Consumer {
    client: Client,
    config: ConsumerConfig,
    names: BTreeMap<TopicId, Arc<str>>,
    /// Where each partition ended at the start; only without `follow`.
    ends: BTreeMap<PartitionId, Offset>,
    held: BTreeMap<PartitionId, Held>,
    ready: VecDeque<Delivery>,
    arrivals: mpsc::Receiver<Arrival>,
    arrive: mpsc::Sender<Arrival>,
    /// Tells what lanes of now bring from what those before did.
    round: u64,
    /// Stops the lanes of this round.
    _reading: Option<DropGuard>,
    membership: Option<Membership>,
    /// Joining is under way.
    turn: Option<JoinHandle<Result<Turn, ClientError>>>,
    commit_due: Instant,
}

/// A partition being read.
struct Held {
    /// Everything before this has arrived.
    next: Offset,
    ended: bool,
    /// The caller has done everything before this.
    done: Option<Offset>,
    committed: Option<Offset>,
}

impl Client {
    /// Begins to consume; in a group, joins it.
    pub async fn consumer(&self, config: ConsumerConfig) -> Result<Consumer, ClientError> {
        let (arrive, arrivals) = mpsc::channel(ARRIVALS_MAX);
        let mut consumer = Consumer {
            client: self.clone(),
            names: BTreeMap::new(),
            ends: BTreeMap::new(),
            held: BTreeMap::new(),
            ready: VecDeque::new(),
            arrivals,
            arrive,
            round: 0,
            _reading: None,
            membership: None,
            turn: None,
            commit_due: Instant::now() + config.commit_interval,
            config,
        };
        let partitions = consumer.look_around().await?;
        match consumer.config.group.clone() {
            None => {
                for (partition, from) in starts(self, consumer.config.from, partitions).await? {
                    consumer.hold(partition, from, None);
                }
                consumer.read_anew();
            }
            Some(group) => {
                consumer.turn_begin(group);
                consumer.turn_end().await?;
            }
        }
        Ok(consumer)
    }
}

impl Consumer {
    /// The next batch; `None` at the end, which only a consumer that does not follow has.
    pub async fn next(&mut self) -> Result<Option<Delivery>, ClientError> {
        loop {
            self.turn_end().await?;
            if let Some(delivery) = self.ready.pop_front() {
                return Ok(Some(delivery));
            }
            if !self.config.follow && self.held.values().all(|held| held.ended) {
                return Ok(None);
            }
            let commits = self.membership.is_some() && !self.config.commit_interval.is_zero();
            tokio::select! {
                arrival = self.arrivals.recv() => {
                    let arrival = arrival.expect("this consumer holds a sender itself");
                    self.arrived(arrival)?;
                }
                group = Membership::moved(self.membership.as_mut()) => self.turn_begin(group),
                () = tokio::time::sleep_until(self.commit_due), if commits => {
                    self.commit_now_and_then().await;
                }
            }
        }
    }

    /// Everything in the delivery is done.
    pub fn done(&mut self, delivery: &Delivery) {
        self.done_to(delivery.partition, delivery.next_offset());
    }

    /// Everything before `offset` is done. Ignored for a partition that has moved on.
    pub fn done_to(&mut self, partition: PartitionId, offset: Offset) {
        if let Some(held) = self.held.get_mut(&partition) {
            held.done = held.done.max(Some(offset));
        }
    }

    /// Commits what is done. Without a group there is nothing to commit.
    pub async fn commit(&mut self) -> Result<(), ClientError> {
        self.commit_due = Instant::now() + self.config.commit_interval;
        let positions = self.news();
        let Some(membership) = &mut self.membership else {
            return Ok(());
        };
        if positions.is_empty() {
            return Ok(());
        }
        membership.commit(&self.client, &positions).await?;
        self.is_committed(positions);
        Ok(())
    }

    /// Commits what is done and leaves the group.
    pub async fn close(mut self) -> Result<(), ClientError> {
        self.turn_end().await?;
        let committed = self.commit().await;
        self.held.clear();
        if let Some(membership) = self.membership.take() {
            membership.leave(&self.client).await;
        }
        committed
    }

    /// The partitions held now.
    pub fn partitions(&self) -> Vec<PartitionId> {
        self.held.keys().copied().collect()
    }

    /// Learns ids, partitions, and where they end now.
    async fn look_around(&mut self) -> Result<Vec<PartitionId>, ClientError> {
        let mut partitions = Vec::new();
        for name in &self.config.topics {
            let found = self.client.topic(name).await?;
            let topic = found.topic.id;
            self.names.insert(topic, name.as_str().into());
            for info in found.partitions {
                let partition = PartitionId {
                    topic,
                    index: info.index,
                };
                partitions.push(partition);
                if !self.config.follow {
                    self.ends.insert(partition, info.end);
                }
            }
        }
        Ok(partitions)
    }

    /// Takes a partition on; `read_anew` begins to read it.
    fn hold(&mut self, partition: PartitionId, from: Offset, committed: Option<Offset>) {
        let end = self.ends.get(&partition);
        let held = Held {
            next: from,
            ended: end.is_some_and(|end| from >= *end),
            done: None,
            committed,
        };
        self.held.insert(partition, held);
    }

    /// Shares what is held out to lanes anew, each from where it has arrived.
    fn read_anew(&mut self) {
        self.round += 1;
        let position = |(partition, held): (&PartitionId, &Held)| Position {
            partition: *partition,
            next: held.next,
            end: self.ends.get(partition).copied(),
        };
        let reads = self.held.iter().filter(|(_, held)| !held.ended);
        let positions = reads.map(position).collect();
        let stop = CancellationToken::new();
        let round = Round::new(&self.client, &self.config, self.round, &self.arrive);
        round.begin(positions, &stop);
        self._reading = Some(stop.drop_guard());
    }

    fn arrived(&mut self, arrival: Arrival) -> Result<(), ClientError> {
        let partition = arrival.partition;
        // What lanes of an earlier round bring is read again, by whoever holds it now.
        if arrival.round != self.round {
            return Ok(());
        }
        let Some(held) = self.held.get_mut(&partition) else {
            return Ok(());
        };
        match arrival.what {
            What::Batches { batches, from } => {
                let until = self.ends.get(&partition).copied().unwrap_or(Offset::MAX);
                let topic = self.names.get(&partition.topic).cloned();
                let topic = topic.unwrap_or_else(|| partition.topic.to_string().into());
                let deliver = |batch| Delivery {
                    topic: topic.clone(),
                    partition,
                    batch,
                    from,
                    until,
                };
                held.next = batches.last().map_or(held.next, Batch::next_offset);
                self.ready.extend(batches.into_iter().map(deliver));
                Ok(())
            }
            What::End => {
                held.ended = true;
                Ok(())
            }
            What::Failed(error) => {
                held.ended = true;
                Err(error)
            }
        }
    }

    /// A commit that may fail: what is done stays done, the next one carries it.
    async fn commit_now_and_then(&mut self) {
        if let Err(error) = self.commit().await {
            tracing::debug!(%error, "commit did not succeed, will be tried again");
        }
    }

    /// What is done and not yet committed.
    fn news(&self) -> Vec<(PartitionId, Offset)> {
        let news = |held: &Held| held.done.filter(|done| Some(*done) != held.committed);
        let with_news = |(id, held): (&PartitionId, &Held)| Some((*id, news(held)?));
        self.held.iter().filter_map(with_news).collect()
    }

    fn is_committed(&mut self, positions: Vec<(PartitionId, Offset)>) {
        for (partition, offset) in positions {
            if let Some(held) = self.held.get_mut(&partition) {
                held.committed = Some(offset);
            }
        }
    }

    /// Joins the group, or joins it again after it has given out its partitions anew.
    fn turn_begin(&mut self, group: String) {
        let before = Before {
            client: self.client.clone(),
            config: self.config.clone(),
            group,
            joined: self
                .membership
                .as_ref()
                .map(|membership| membership.joined().clone()),
            held: self
                .held
                .iter()
                .map(|(id, held)| (*id, held.done.max(held.committed)))
                .collect(),
            done: self.news(),
        };
        self.turn = Some(tokio::spawn(group::turn(before)));
    }

    /// Lets go what is not ours any more, begins what is new, keeps the rest running.
    async fn turn_end(&mut self) -> Result<(), ClientError> {
        let Some(turn) = &mut self.turn else {
            return Ok(());
        };
        let done = turn.await;
        self.turn = None;
        let broken = |error: JoinError| ClientError::Unexpected(error.to_string());
        let Turn {
            membership,
            committed,
            begin,
        } = done.map_err(broken)??;
        self.is_committed(committed);
        let assigned: BTreeSet<_> = membership.assignment().iter().copied().collect();
        let before = self.held.len();
        self.held
            .retain(|partition, _| assigned.contains(partition));
        let is_same = begin.is_empty() && self.held.len() == before;
        let held = &self.held;
        self.ready
            .retain(|delivery| held.contains_key(&delivery.partition));
        self.membership = Some(membership);
        for (partition, from, committed) in begin {
            self.ready
                .retain(|delivery| delivery.partition != partition);
            self.hold(partition, from, committed);
        }
        if !is_same {
            self.read_anew();
        }
        Ok(())
    }
}

/// Where each partition begins.
async fn starts(
    client: &Client,
    from: Start,
    partitions: Vec<PartitionId>,
) -> Result<Vec<(PartitionId, Offset)>, ClientError> {
    let one = |partition| async move { Ok((partition, start(client, from, partition).await?)) };
    let lookups = stream::iter(partitions).map(one);
    lookups.buffered(LOOKUPS_MAX).try_collect().await
}

async fn start(
    client: &Client,
    from: Start,
    partition: PartitionId,
) -> Result<Offset, ClientError> {
    let at = match from {
        Start::Offset(offset) => return Ok(offset),
        Start::Earliest => Lookup::Earliest,
        Start::Latest => Lookup::Latest,
        Start::Timestamp(time) => Lookup::Timestamp(time),
    };
    client.lookup(partition, at).await
}
