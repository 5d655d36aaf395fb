//! The bounded queue in front of the WAL's one writer.
//!
//! Called by: `Store` puts work in, `commit` takes it out in groups.
//! Invariants: the order of the queue is the order of the WAL; a batch gets in only where its
//! partition's assigned offsets end; after a failure nothing gets in any more.
//! Refuses: work when full, closed or failed, batches that leave a gap, and entries of an older
//! epoch than one before.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use model::{Batch, Durability, LogError, ShardEpoch};
use tokio::sync::{Notify, oneshot, watch};

use super::gather::{GATHER_PARTS, Gather, Growing};
use super::linger::UnderWay;
use super::partition::Partition;
use crate::planted::{Bug, planted};
use crate::wal::{Control, Kind};

/// Most bytes the writer takes at once: bounds how long the first waiter waits for the last.
const GROUP_BYTES_MAX: usize = 16 << 20;
/// Before the writer sleeps it looks again and again for so long: who was just answered is back
/// sooner than a sleeping thread is awake.
const SPIN_MAX: Duration = Duration::from_micros(50);

type Reply = oneshot::Sender<Result<(), LogError>>;

/// An entry on its way to the disk.
pub(crate) struct BatchWork {
    pub kind: Kind,
    pub shard: u32,
    pub epoch: u32,
    pub durability: Durability,
    pub parts: Vec<(Arc<Partition>, Batch)>,
    /// Bytes in the WAL.
    pub length: usize,
    pub reply: Reply,
    #[expect(dead_code, reason = "it counts for as long as it lives")]
    pub under_way: UnderWay,
}

pub(crate) enum Work {
    Batches(BatchWork),
    Control {
        control: Control,
        reply: Option<Reply>,
    },
    /// Where all partitions begin and end, as it stands when it is written.
    Checkpoint {
        reply: Reply,
    },
    /// Nothing but that all before is durable.
    Sync {
        reply: Reply,
    },
}

impl Work {
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Work::Batches(work) => work.length,
            Work::Control { .. } | Work::Checkpoint { .. } | Work::Sync { .. } => 0,
        }
    }
}

/// Resolves when an entry is as durable as its topic asks for.
#[derive(Debug)]
pub struct Pending(oneshot::Receiver<Result<(), LogError>>);

impl Pending {
    pub(crate) fn new() -> (Reply, Pending) {
        let (reply, answer) = oneshot::channel();
        (reply, Pending(answer))
    }
}

impl Future for Pending {
    type Output = Result<(), LogError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context).map(|answer| {
            answer.unwrap_or_else(|_| Err(LogError::Unknown("the log's writer ended".to_owned())))
        })
    }
}

pub(crate) struct Queue {
    bytes_max: usize,
    state: Mutex<State>,
    wake: Condvar,
    /// `State::works`' length, to be looked at without the lock.
    arrived: AtomicUsize,
    room: Notify,
    failure: watch::Sender<Option<String>>,
}

#[derive(Default)]
struct State {
    works: VecDeque<Work>,
    bytes: usize,
    closed: bool,
    failure: Option<String>,
    /// The newest epoch of each shard.
    epochs: BTreeMap<u32, u32>,
    /// The writer sleeps, and nobody has woken it.
    is_asleep: bool,
}

impl State {
    fn check(&self) -> Result<(), LogError> {
        if let Some(failure) = &self.failure {
            return Err(stopped(failure));
        }
        if self.closed {
            Err(LogError::Closed)
        } else {
            Ok(())
        }
    }
}

impl State {
    /// An owner whose shard, or one of whose partitions, has a newer one is refused.
    fn check_epoch(&self, work: &BatchWork) -> Result<(), LogError> {
        let (shard, own) = (work.shard, work.epoch);
        let shard_epoch = self.epochs.get(&shard).copied().unwrap_or(0);
        for (partition, _) in &work.parts {
            let newest = shard_epoch.max(partition.newest_epoch().0);
            if own < newest {
                return Err(LogError::Fenced {
                    partition: partition.id(),
                    reason: format!(
                        "it was written in epoch {own} of shard {shard}, which is in epoch \
                         {newest} by now: another broker, or a later start of this one, leads it"
                    ),
                });
            }
        }
        Ok(())
    }
}

fn stopped(failure: &str) -> LogError {
    LogError::Unavailable(format!(
        "the write-ahead log has stopped ({failure}); restart the broker"
    ))
}

/// What the writer finds.
pub(crate) enum Taken {
    Group(VecDeque<Work>),
    Idle,
    Closed,
}

impl Queue {
    /// Entries of shard 0 that are older than `epoch` are refused.
    pub(crate) fn new(bytes_max: usize, epoch: ShardEpoch) -> Queue {
        let state = State {
            epochs: BTreeMap::from([(0, epoch.0)]),
            ..State::default()
        };
        Queue {
            bytes_max,
            state: Mutex::new(state),
            wake: Condvar::new(),
            arrived: AtomicUsize::new(0),
            room: Notify::new(),
            failure: watch::Sender::new(None),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts batches in, behind all that is assigned in their partitions.
    pub(crate) fn put_batches(&self, work: BatchWork) -> Result<(), LogError> {
        let mut state = self.lock();
        state.check()?;
        if state.bytes > 0 && state.bytes + work.length > self.bytes_max {
            return Err(LogError::Unavailable(
                "the write-ahead log's queue is full; the disk is slower than the producers"
                    .to_owned(),
            ));
        }
        if work.kind == Kind::Batches {
            state.check_epoch(&work)?;
            for (taken, (partition, batch)) in work.parts.iter().enumerate() {
                if let Err(error) = partition.assign(batch) {
                    for (partition, batch) in work.parts[..taken].iter().rev() {
                        partition.unassign(batch);
                    }
                    return Err(error);
                }
            }
            state.epochs.insert(work.shard, work.epoch);
        }
        state.bytes += work.length;
        state.works.push_back(Work::Batches(work));
        self.wake(state);
        Ok(())
    }

    /// Puts in what adds no records.
    pub(crate) fn put(&self, work: Work) -> Result<(), LogError> {
        let mut state = self.lock();
        state.check()?;
        state.works.push_back(work);
        self.wake(state);
        Ok(())
    }

    /// Waits until an entry of `bytes` would get in.
    pub(crate) async fn room(&self, bytes: usize) {
        loop {
            let freed = self.room.notified();
            tokio::pin!(freed);
            freed.as_mut().enable();
            {
                let state = self.lock();
                let fits = state.bytes == 0 || state.bytes + bytes <= self.bytes_max;
                if fits || state.check().is_err() {
                    return;
                }
            }
            freed.await;
        }
    }

    /// What there is for the writer; `idle` bounds the wait for it.
    pub(crate) fn take(&self, idle: Option<Duration>, gather: Gather) -> Taken {
        if gather.hoped > 0 {
            self.spin(gather.sync / GATHER_PARTS);
        }
        let mut state = self.lock();
        while state.works.is_empty() {
            if state.closed {
                return Taken::Closed;
            }
            let slept;
            (state, slept) = self.sleep(state, idle);
            if !slept && state.works.is_empty() && !state.closed {
                return Taken::Idle;
            }
        }
        Taken::Group(self.take_group(state))
    }

    /// What came since, as long as the group may grow and something keeps coming.
    pub(crate) fn take_more(&self, growing: &mut Growing) -> Option<VecDeque<Work>> {
        let patience = growing.patience()?;
        self.spin(patience);
        let mut state = self.lock();
        if state.works.is_empty() && patience > SPIN_MAX && !state.closed {
            (state, _) = self.sleep(state, Some(patience - SPIN_MAX));
        }
        if state.works.is_empty() {
            return None;
        }
        let more = self.take_group(state);
        growing.add(&more);
        Some(more)
    }

    fn take_group(&self, mut state: MutexGuard<'_, State>) -> VecDeque<Work> {
        let group = take_group(&mut state);
        self.arrived.store(state.works.len(), Ordering::Relaxed);
        drop(state);
        self.room.notify_waiters();
        group
    }

    /// Sleeps until work is there; false if the time was up before.
    fn sleep<'a>(
        &self,
        mut state: MutexGuard<'a, State>,
        time: Option<Duration>,
    ) -> (MutexGuard<'a, State>, bool) {
        state.is_asleep = true;
        let (mut state, slept) = match time {
            None => {
                let woken = self.wake.wait(state);
                (woken.unwrap_or_else(PoisonError::into_inner), true)
            }
            Some(time) => {
                let waited = self.wake.wait_timeout(state, time);
                let (state, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
                (state, !timeout.timed_out())
            }
        };
        state.is_asleep = false;
        (state, slept)
    }

    /// Looks for work for so long, `SPIN_MAX` at most; whoever wants the core meanwhile gets it.
    fn spin(&self, longest: Duration) {
        let begun = Instant::now();
        let longest = longest.min(SPIN_MAX);
        while self.arrived.load(Ordering::Relaxed) == 0 && begun.elapsed() < longest {
            std::thread::yield_now();
        }
    }

    fn wake(&self, mut state: MutexGuard<'_, State>) {
        self.arrived.store(state.works.len(), Ordering::Relaxed);
        // Once is enough: a sleeper takes its time to wake, and much may come meanwhile.
        let is_due = std::mem::take(&mut state.is_asleep);
        drop(state);
        if is_due {
            self.wake.notify_one();
        }
    }

    /// Takes no more work; the writer ends when it has done what is there.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.wake.notify_all();
        self.room.notify_waiters();
    }

    /// After a failed write or sync: what waits was not written, and nothing will be any more.
    pub(crate) fn fail(&self, failure: &str) {
        let works = {
            let mut state = self.lock();
            state.failure.get_or_insert_with(|| failure.to_owned());
            state.bytes = 0;
            std::mem::take(&mut state.works)
        };
        self.failure.send_if_modified(|known| {
            let is_first = known.is_none();
            if is_first {
                *known = Some(failure.to_owned());
            }
            is_first
        });
        self.room.notify_waiters();
        works
            .into_iter()
            .for_each(|work| refuse(work, &stopped(failure)));
    }

    /// No room on the disk for the first of `group`: it and all batches that wait were not
    /// written. Offsets go back to where the written records end, so that the same may be tried
    /// again. What else waits may yet give space back, and stays.
    pub(crate) fn refuse_batches(&self, mut group: VecDeque<Work>, error: &LogError) {
        let first = group.pop_front();
        let works: Vec<Work> = {
            let mut state = self.lock();
            state.bytes = 0;
            let waiting = group.into_iter().chain(state.works.drain(..));
            let (batches, others): (Vec<Work>, VecDeque<Work>) = split(waiting);
            state.works = others;
            let works: Vec<Work> = first.into_iter().chain(batches).collect();
            for work in &works {
                if let Work::Batches(work) = work
                    && !planted(Bug::OffsetsKeptWhenFull)
                {
                    work.parts
                        .iter()
                        .for_each(|(partition, _)| partition.assign_from_end());
                }
            }
            works
        };
        self.room.notify_waiters();
        let answer = |work: Work| match work {
            Work::Batches(work) if planted(Bug::FullConfirmed) => {
                let _ = work.reply.send(Ok(()));
            }
            work => refuse(work, error),
        };
        works.into_iter().for_each(answer);
    }

    pub(crate) fn waiting(&self) -> (usize, usize) {
        let state = self.lock();
        (state.works.len(), state.bytes)
    }

    pub(crate) fn failure(&self) -> watch::Receiver<Option<String>> {
        self.failure.subscribe()
    }
}

fn split(works: impl Iterator<Item = Work>) -> (Vec<Work>, VecDeque<Work>) {
    let (mut batches, mut others) = (Vec::new(), VecDeque::new());
    for work in works {
        match work {
            Work::Batches(_) => batches.push(work),
            Work::Control { .. } | Work::Checkpoint { .. } | Work::Sync { .. } => {
                others.push_back(work);
            }
        }
    }
    (batches, others)
}

fn take_group(state: &mut State) -> VecDeque<Work> {
    let mut bytes = 0;
    let mut count = 0;
    for work in &state.works {
        if count > 0 && bytes + work.bytes() > GROUP_BYTES_MAX {
            break;
        }
        bytes += work.bytes();
        count += 1;
    }
    state.bytes -= bytes;
    if count == state.works.len() {
        return std::mem::take(&mut state.works);
    }
    state.works.drain(..count).collect()
}

/// Answers a waiter; nobody may be waiting any more.
pub(crate) fn refuse(work: Work, error: &LogError) {
    match work {
        Work::Batches(BatchWork { reply, .. })
        | Work::Control {
            reply: Some(reply), ..
        }
        | Work::Checkpoint { reply }
        | Work::Sync { reply } => {
            let _ = reply.send(Err(error.clone()));
        }
        Work::Control { reply: None, .. } => {}
    }
}
