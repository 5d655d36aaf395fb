//! A lane: one partition of a stage's source topic, from batch to commit, in order.
//!
//! Called by: `runtime` starts one task per lane and gives it orders through a watch value.
//! Invariants: guests and expressions run on worker threads, never in this task; commits are
//! given to the log in order, each expecting the position of the one before, so after a failure
//! none of the later ones can happen; the lane then starts again from the committed position.
//! What modules keep is read before the first batch, and again after a commit that failed.
//! `lane/handover` changes generations, `lane/migration` what is kept with another schema.
//! Refuses to go on where going on would lose records: the state says why.

mod handover;
mod migration;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use model::ids::{Offset, PartitionId};
use model::port::{Advice, LogError, TopicLog};
use tokio::sync::watch;
use wasm::http::Stop;
use wasm::thread_cpu_time;

use super::commit::{self, Ready, Span};
use super::flight::{Done, Flight, Sent};
use super::opening::{Opening, finished};
use super::pace::{Pace, Trouble, Worked};
use super::read::{Input, ReadError, Reader};
use super::run::{Chain, Given};
use super::state::{LoadError, States};
use super::{Batching, Stage};
use crate::canary::Slot;
use crate::limits::{COMMITS_IN_FLIGHT_MAX, LOG_BACKOFF_MS, LOG_BACKOFF_MS_MAX};
use crate::operator::Why;
use crate::operator::wasm::Tried;
use crate::status::{Handover, LaneState, LaneStatus, Numbers};

/// A position that says: there is none. Groups cannot be deleted through the log's port.
pub(crate) const FORGOTTEN: Offset = model::limits::OFFSET_MAX;

/// What a lane shall do.
#[derive(Clone)]
pub(crate) enum Order {
    Run(Arc<Stage>),
    Stop,
}

/// What of a lane others see.
#[derive(Clone)]
pub(crate) struct Shared {
    pub status: Arc<Mutex<LaneStatus>>,
    pub changed: Arc<watch::Sender<u64>>,
    pub numbers: Numbers,
    pub canary: Slot,
}

impl Shared {
    pub fn status(&self) -> MutexGuard<'_, LaneStatus> {
        // A status is plain data: it is whole even if a writer panicked.
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn update(&self, change: impl FnOnce(&mut LaneStatus)) {
        change(&mut self.status());
        self.changed.send_modify(|version| *version += 1);
    }
}

pub(crate) struct Lane {
    log: Arc<dyn TopicLog>,
    partition: PartitionId,
    orders: watch::Receiver<Order>,
    shared: Shared,
    /// Ends the waiting of its modules for answers of others.
    stop: Stop,
    chain: Option<Chain>,
    /// What goes on if the new generation fails, until that has committed: the one that is known to work,
    /// and after it the one that ran last, if that had nothing to commit.
    fallback: Vec<Chain>,
    /// The generation after, while it opens.
    opening: Option<Opening>,
    /// How long the lane stood still for the last change of generations.
    gap: Duration,
    /// Of the row at the position: where it failed so far, and how often.
    tried: Vec<Tried>,
    /// What the modules keep; ahead of the log by the commits under way.
    states: States,
    /// Rows of its batches: fewer after a commit that was too large, more where it is behind.
    pace: Pace,
    backoff_ms: u64,
}

/// Why a session of a lane ended.
enum End {
    Stop,
    /// Again from the committed position, after a while.
    Again(String),
    /// Not before there are new orders.
    Halt(String),
}

impl Lane {
    pub fn new(
        log: Arc<dyn TopicLog>,
        partition: PartitionId,
        orders: watch::Receiver<Order>,
        shared: Shared,
    ) -> Lane {
        Lane {
            log,
            partition,
            orders,
            shared,
            stop: Stop::default(),
            chain: None,
            fallback: Vec::new(),
            opening: None,
            gap: Duration::ZERO,
            tried: Vec::new(),
            states: States::default(),
            pace: Pace::default(),
            backoff_ms: LOG_BACKOFF_MS,
        }
    }

    pub async fn run(mut self) {
        loop {
            let wait = match self.session().await {
                End::Stop => break,
                End::Again(why) => {
                    tracing::debug!(partition = %self.partition, why, "lane starts again");
                    self.shared.update(|s| {
                        s.fault = Some(why.clone());
                        s.state = LaneState::Retrying { why };
                    });
                    let wait = self.backoff_ms;
                    self.backoff_ms = (wait * 2).min(LOG_BACKOFF_MS_MAX);
                    Some(Duration::from_millis(wait))
                }
                End::Halt(why) => {
                    tracing::warn!(partition = %self.partition, why, "lane stopped");
                    self.shared.update(|s| {
                        s.fault = Some(why.clone());
                        s.state = LaneState::Stopped { why };
                    });
                    None
                }
            };
            if self.opening.is_some() {
                // there are new orders already: the next session takes them up
                continue;
            }
            let changed = match wait {
                // New orders stay unseen for the next session either way.
                Some(wait) => tokio::time::timeout(wait, self.orders.changed()).await,
                None => Ok(self.orders.changed().await),
            };
            match changed {
                Ok(Err(_)) => break,
                Ok(Ok(())) => self.orders.mark_changed(),
                Err(_) => {}
            }
        }
        self.shared.update(|s| {
            if !matches!(s.state, LaneState::Stopped { .. }) {
                s.state = LaneState::Stopped {
                    why: "asked to".to_string(),
                };
            }
        });
    }

    /// From the committed position on, until something goes wrong.
    async fn session(&mut self) -> End {
        let mut flight = Flight::default();
        let end = match self.batches(&mut flight).await {
            Ok(never) => match never {},
            Err(end) => end,
        };
        // What is under way ends before the position is read again, or before the lane does.
        // After a failure the rest fails too, for its positions; that says nothing new.
        while let Some((sent, result)) = flight.0.next().await {
            if result.is_ok() {
                self.committed(sent);
            }
        }
        end
    }

    /// Opens what is ordered, and takes it over.
    async fn begin(&mut self) -> Result<(), End> {
        if self.chain.is_none() || self.orders.has_changed().map_err(|_| End::Stop)? {
            self.open_next()?;
        }
        // what ended the session before may be mended by them
        self.take_over().await?;
        // a commit that did not happen is in it
        self.states = States::default();
        Ok(())
    }

    async fn batches(&mut self, flight: &mut Flight) -> Result<std::convert::Infallible, End> {
        self.begin().await?;
        let mut from = self.position()?;
        let mut reader = Reader::new(self.partition, self.reachable(from)?);
        let log = self.log.clone();
        self.shared.update(|s| s.state = LaneState::Running);
        loop {
            if self.orders.has_changed().map_err(|_| End::Stop)? {
                self.open_next()?;
            }
            self.change_over(flight).await?;
            self.load_states(from, flight).await?;
            let most = match self.is_on_trial() {
                true => 1,
                false => COMMITS_IN_FLIGHT_MAX,
            };
            self.settle_all(flight, most - 1).await?;
            let policy = self.policy();
            let batching = self.pace.bound(policy);
            let input = tokio::select! {
                biased;
                changed = self.orders.changed() => {
                    changed.map_err(|_| End::Stop)?;
                    self.orders.mark_changed();
                    continue;
                }
                () = finished(&mut self.opening) => continue,
                Some(done) = flight.0.next() => {
                    self.settle(done)?;
                    continue;
                }
                input = reader.next(log.as_ref(), batching) => input.map_err(read_end)?,
            };
            let first = input.offsets.first().copied().unwrap_or(input.next);
            let rows = input.offsets.len() as u32;
            let ready = self.work(Arc::new(input), from, flight).await?;
            if let Some(commit) = ready.commit {
                let sent = Sent {
                    next: ready.next,
                    first,
                    generation: self.generation(),
                    rows,
                    counts: ready.counts,
                    sample: ready.sample,
                };
                flight.push(&self.log, commit, sent);
                self.states.keep();
                from = ready.next;
            }
            self.tried.retain(|tried| tried.offset >= ready.next);
            let (after_ms, message) = match ready.cut.map(|cut| cut.why) {
                None => continue,
                Some(Why::Stop { message }) => return Err(End::Halt(message)),
                Some(Why::Wait { after_ms, message }) => (after_ms, message),
                Some(Why::Retry {
                    nodes,
                    after_ms,
                    message,
                }) => {
                    failed_at(&mut self.tried, nodes, ready.next);
                    self.shared.update(|s| s.retries += 1);
                    (after_ms, message)
                }
            };
            reader.seek(ready.next);
            self.pause(after_ms, message, flight).await?;
        }
    }

    fn generation(&self) -> u64 {
        self.chain
            .as_ref()
            .map_or(0, |chain| chain.stage.generation)
    }

    /// How the chain's stage wants its batches. A canary gets the rows that every version gets.
    fn policy(&self) -> Batching {
        let Some(chain) = &self.chain else {
            return Batching::ONE;
        };
        let policy = chain.stage.batch;
        match self.shared.canary.watches(&chain.stage) {
            Some(_) => Batching {
                rows_max: policy.rows,
                ..policy
            },
            None => policy,
        }
    }

    fn position(&self) -> Result<Offset, End> {
        let group = self
            .chain
            .as_ref()
            .map(|chain| chain.stage.group.clone())
            .unwrap_or_default();
        match self.log.position(&group, self.partition) {
            Some(position) if position != FORGOTTEN => {
                self.shared.update(|s| s.position = position);
                Ok(position)
            }
            _ => Err(End::Halt(format!(
                "group `{group}` has no position in {}",
                self.partition
            ))),
        }
    }

    /// Where reading can begin: retention may have taken what is at the position.
    fn reachable(&self, position: Offset) -> Result<Offset, End> {
        let bounds = self.log.bounds(self.partition).map_err(log_end)?;
        if position < bounds.start {
            let lost = format!(
                "records {position} to {} were removed by retention before they were read",
                bounds.start - 1
            );
            tracing::warn!(partition = %self.partition, lost);
            self.shared.update(|s| s.fault = Some(lost));
            return Ok(bounds.start);
        }
        if position > bounds.end {
            return Err(End::Halt(format!(
                "the position {position} is beyond the end {} of {}",
                bounds.end, self.partition
            )));
        }
        Ok(position)
    }

    /// Runs one batch on a worker thread while commits go on.
    async fn work(
        &mut self,
        input: Arc<Input>,
        from: Offset,
        flight: &mut Flight,
    ) -> Result<Ready, End> {
        let mut blamed = None;
        loop {
            let Some(chain) = self.chain.take() else {
                return Err(End::Again("the lane has nothing to run".to_string()));
            };
            let trial = self.is_on_trial();
            let stage = chain.stage.clone();
            let (result, took) = self.once(chain, input.clone(), from, flight).await?;
            if result.is_err() && self.stop.is_set() {
                return Err(End::Stop);
            }
            let fault = match &result {
                Ok((_, Some(fault))) => Some(fault.clone()),
                Ok((ready, None)) => ready.stopped_at_once(),
                Err(why) => Some(why.clone()),
            };
            match (fault, trial) {
                (Some(why), true) => {
                    self.rolled_back(stage.generation, &why);
                    // it may never have worked itself
                    self.load_states(from, flight).await?;
                    blamed.get_or_insert(stage);
                }
                (Some(why), false) if result.is_err() => return Err(End::Halt(why)),
                (fault, _) => {
                    let ready = result.map(|(ready, _)| ready).map_err(End::Halt)?;
                    let worked = Worked {
                        rows: input.offsets.len() as u32,
                        took,
                        trouble: trouble(fault.as_deref(), &ready),
                    };
                    self.pace.worked(stage.batch, worked);
                    if let Some(fault) = fault {
                        self.shared.update(|s| s.fault = Some(fault));
                        self.acquit(blamed, &ready);
                    }
                    return Ok(ready);
                }
            }
        }
    }

    /// The chain works on a thread of its own and comes back; also the processor time that it took.
    async fn once(
        &mut self,
        chain: Chain,
        input: Arc<Input>,
        from: Offset,
        flight: &mut Flight,
    ) -> Result<(Once, Duration), End> {
        let tried = self.tried.clone();
        let watched = self.shared.canary.watches(&chain.stage);
        let lane = (&*chain.stage, self.partition.index, from);
        let copied = watched.is_some_and(|node| self.shared.canary.wants(lane, node, &self.states));
        let states = std::mem::take(&mut self.states);
        let mut job = tokio::task::spawn_blocking(move || {
            let given = Given {
                rows: &input.rows,
                offsets: &input.offsets,
                tried: &tried,
                watched,
                copied,
            };
            let since = thread_cpu_time();
            let done = once(chain, states, &given, from, input.next);
            (done, thread_cpu_time().saturating_sub(since))
        });
        let mut failed = None;
        let mut told = std::pin::pin!(told_to_stop(self.orders.clone()));
        let done = loop {
            tokio::select! {
                done = &mut job => break done,
                () = &mut told, if !self.stop.is_set() => self.stop.set(),
                Some(done) = flight.0.next() => {
                    if let Err(end) = self.settle(done) {
                        failed.get_or_insert(end);
                    }
                }
            }
        };
        let Ok(((chain, states, result), took)) = done else {
            return Err(End::Halt("the worker panicked: this is a bug".to_string()));
        };
        (self.chain, self.states) = (Some(chain), states);
        match failed {
            Some(end) => Err(end),
            None => Ok((result, took)),
        }
    }

    /// Waits as the guest or the policy asked, unless a new generation is open before.
    async fn pause(&mut self, after_ms: u64, why: String, flight: &mut Flight) -> Result<(), End> {
        self.settle_all(flight, 0).await?;
        if after_ms == 0 {
            return Ok(());
        }
        self.shared
            .update(|s| s.state = LaneState::Retrying { why });
        let wait = Duration::from_millis(after_ms);
        if let Ok(woken) = tokio::time::timeout(wait, self.next_is_open()).await {
            woken?;
        }
        self.shared.update(|s| s.state = LaneState::Running);
        Ok(())
    }

    async fn settle_all(&mut self, flight: &mut Flight, leave: usize) -> Result<(), End> {
        while flight.0.len() > leave {
            let Some(done) = flight.0.next().await else {
                break;
            };
            self.settle(done)?;
        }
        Ok(())
    }

    fn settle(&mut self, (sent, result): Done) -> Result<(), End> {
        if let Err(error) = result {
            if matches!(error, LogError::TooLarge { .. }) && sent.rows > 1 {
                self.pace.too_large(sent.rows);
                return Err(End::Again(error.to_string()));
            }
            let end = log_end(error);
            return Err(self.on_trial(sent.generation, end));
        }
        self.committed(sent);
        Ok(())
    }

    /// What would end a lane rolls a generation back that has not committed yet: the one before works on.
    fn on_trial(&mut self, generation: u64, end: End) -> End {
        match end {
            End::Halt(why) if self.is_on_trial() && generation == self.generation() => {
                self.rolled_back(generation, &why);
                End::Again(why)
            }
            end => end,
        }
    }

    fn committed(&mut self, sent: Sent) {
        self.backoff_ms = LOG_BACKOFF_MS;
        self.pace.committed();
        if let Some(sample) = sent.sample {
            self.shared.canary.offer(sample);
        }
        // those between have nothing in the log
        let old = match sent.generation == self.generation() {
            true => std::mem::take(&mut self.fallback).into_iter().next(),
            false => None,
        };
        if old.is_some() {
            self.shared.numbers.adopt(sent.generation);
        }
        let gap_us = self.gap.as_micros() as u64;
        let kept = self.states.status();
        self.shared.update(|s| {
            s.position = sent.next;
            s.committed = sent.generation;
            s.rows_in += sent.counts.read;
            s.rows_out += sent.counts.written;
            s.rejected += sent.counts.rejected;
            s.dropped += sent.counts.dropped;
            s.nulled += sent.counts.nulled;
            s.commits += 1;
            s.kept = kept;
            if let Some(old) = &old {
                s.fault = None;
                let (from, to) = (old.stage.generation, sent.generation);
                s.handover(Handover {
                    from,
                    to,
                    offset: sent.first,
                    gap_us,
                    rolled_back: None,
                });
            }
        });
    }
}

/// One more try at a row failed at these nodes.
fn failed_at(tried: &mut Vec<Tried>, nodes: BTreeSet<usize>, offset: Offset) {
    for node in nodes {
        match tried
            .iter_mut()
            .find(|t| t.node == node && t.offset == offset)
        {
            Some(known) => known.failed += 1,
            None => tried.push(Tried {
                node,
                offset,
                failed: 1,
            }),
        }
    }
}

/// Returns when the lane's orders are to stop.
async fn told_to_stop(mut orders: watch::Receiver<Order>) {
    while orders.changed().await.is_ok() {
        if let Order::Stop = &*orders.borrow_and_update() {
            return;
        }
    }
}

type Once = Result<(Ready, Option<String>), String>;

fn once(
    mut chain: Chain,
    mut states: States,
    given: &Given<'_>,
    from: Offset,
    next: Offset,
) -> (Chain, States, Once) {
    let work = match chain.run(given, &mut states) {
        Ok(work) => work,
        Err(error) => return (chain, states, Err(error.to_string())),
    };
    let fault = work.fault.clone();
    let span = Span {
        lane: chain.lane,
        rows: given.rows,
        offsets: given.offsets,
        from,
        next,
    };
    let ready = commit::ready(&chain.stage, &span, &states, work);
    let mut ready = ready.map_err(|e| format!("the output cannot be encoded: {e}"));
    if let (Ok(ready), Some(node), true) = (&mut ready, given.watched, given.copied) {
        ready.copy(&chain.stage.nodes[node], &states);
    }
    (chain, states, ready.map(|ready| (ready, fault)))
}

fn trouble(fault: Option<&str>, ready: &Ready) -> Trouble {
    match (fault, &ready.cut) {
        (None, None) if ready.crowded => Trouble::Number,
        (None, None) => Trouble::None,
        _ => Trouble::Rows,
    }
}

fn load_end(error: LoadError) -> End {
    match error {
        LoadError::Log(error) => log_end(error),
        LoadError::Short { .. } => End::Again(error.to_string()),
        other => End::Halt(other.to_string()),
    }
}

fn log_end(error: LogError) -> End {
    match error.advice() {
        // Fenced: a commit before this one failed; the committed position says how far it came.
        Advice::Retry | Advice::Fenced => End::Again(error.to_string()),
        Advice::Fix | Advice::Bug => End::Halt(error.to_string()),
    }
}

fn read_end(error: ReadError) -> End {
    match error {
        // Retention took it meanwhile: the next session begins at what is kept.
        ReadError::Log(error @ LogError::OutOfRange { .. }) => End::Again(error.to_string()),
        ReadError::Log(error) => log_end(error),
        ReadError::Stopped => End::Again("decoding was stopped".to_string()),
        other => End::Halt(other.to_string()),
    }
}
