//! The way of a commit: in turn, decided under the lock, answered when durable.
//!
//! Called by: `broker` (produce, stage commits), `group` (position commits). Calls: `shard`, the
//! store.
//! A commit is admitted when it is handed over, so the order of calls is the order of offsets,
//! whatever the order their futures are polled in. Only when the log's queue is full do commits
//! wait, and then all that come line up behind the first, so that a producer's batches keep
//! their order.
//! Invariants: no lock is held across an await; dropping a future that waits for durability
//! takes nothing back; a repeat is never answered from a batch that was taken back.

use std::future::{Future, ready};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::future::Either;
use model::{Append, Commit, Committed, LogError, Offset, PartitionId};
use storage::Pending;
use tokio::sync::{Mutex, watch};

use crate::broker::Inner;
use crate::fetch;
use crate::shard::{OFFSETS, Shard, Ticket, Wait};

/// How often a commit waits for room in the log's queue before it is refused.
const ROOM_TRIES: u32 = 16;

/// What commits that wait share.
#[derive(Default)]
pub(crate) struct Turns {
    /// Commits in line for room in the log's queue.
    in_line: Arc<AtomicU64>,
    /// Held by the first in line; first come, first served.
    line: Mutex<()>,
    /// Repeats that wait for their first batch.
    repeats: Arc<AtomicU64>,
    /// `Shard::resyncs`, for those who wait.
    resynced: watch::Sender<u64>,
}

/// Counts a waiter for as long as it waits, dropped ones included.
pub(crate) struct Counted(Arc<AtomicU64>);

impl Counted {
    pub(crate) fn new(count: &Arc<AtomicU64>) -> Counted {
        count.fetch_add(1, Ordering::SeqCst);
        Counted(Arc::clone(count))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Inner {
    /// Admits a commit now, or lines up when others wait for room. The answer resolves at once
    /// in the first case.
    pub(crate) fn admit_in_turn(
        self: &Arc<Self>,
        commit: Commit,
    ) -> impl Future<Output = Result<Ticket<Pending>, LogError>> + Send + use<> {
        let first = match self.turns.in_line.load(Ordering::SeqCst) {
            0 => Some(self.admit(&commit)),
            _ => None,
        };
        match first {
            Some(ticket) if !matches!(ticket, Err(LogError::Unavailable(_))) => {
                Either::Left(ready(ticket))
            }
            _ => {
                let in_line = Counted::new(&self.turns.in_line);
                let inner = Arc::clone(self);
                // rare, and large: boxed, so that it does not make every commit's future so
                Either::Right(Box::pin(async move {
                    let _in_line = in_line;
                    inner.admit_from_line(&commit).await
                }))
            }
        }
    }

    async fn admit_from_line(&self, commit: &Commit) -> Result<Ticket<Pending>, LogError> {
        let bytes = commit
            .appends
            .iter()
            .map(|Append { batch, .. }| batch.size())
            .sum();
        let _first = self.turns.line.lock().await;
        let mut tries = 0;
        loop {
            self.store.room(bytes).await;
            let ticket = self.admit(commit);
            tries += 1;
            if tries == ROOM_TRIES || !matches!(ticket, Err(LogError::Unavailable(_))) {
                return ticket;
            }
        }
    }

    /// Assigns offsets and hands the commit to the WAL, in one step under the lock.
    pub(crate) fn admit(&self, commit: &Commit) -> Result<Ticket<Pending>, LogError> {
        let now_us = self.config.clock.now_us();
        let mut shard = self.shard();
        let ticket = shard.commit(commit, now_us, |entry| self.store.enqueue(entry));
        let ends = |p: &PartitionId| (self.store.log_end(*p).ok(), shard.partition(*p));
        let is_behind = |p: &PartitionId| match ends(p) {
            (Some(end), Some(own)) => end < own.log_end,
            _ => false,
        };
        let is_stale = match &ticket {
            Err(LogError::Unavailable(_)) => {
                let mut touched = commit.appends.iter().map(|append| append.partition);
                touched.any(|p| is_behind(&p)) || is_behind(&OFFSETS)
            }
            // The first of a repeated batch may have been refused since.
            Ok(Ticket {
                wait: Wait::Earlier(until),
                ..
            }) => until.iter().any(|(p, _)| is_behind(p)),
            _ => false,
        };
        if is_stale && self.resync(&mut shard) {
            return shard.commit(commit, now_us, |entry| self.store.enqueue(entry));
        }
        ticket
    }

    /// Waits until an admitted commit may be answered.
    pub(crate) async fn durable(&self, ticket: Ticket<Pending>) -> Result<Committed, LogError> {
        match ticket.wait {
            Wait::Nothing => {}
            Wait::Entry(pending) => {
                if let Err(error) = pending.await {
                    self.resync(&mut self.shard());
                    return Err(error);
                }
            }
            Wait::Earlier(until) => self.durable_earlier(until, ticket.resyncs).await?,
        }
        Ok(ticket.committed)
    }

    /// Waits until what was admitted earlier is durable, as the first of a repeated batch; an
    /// error if it turns out that it will not be.
    pub(crate) async fn durable_earlier(
        &self,
        until: Vec<(PartitionId, Offset)>,
        resyncs: u64,
    ) -> Result<(), LogError> {
        let _counted = Counted::new(&self.turns.repeats);
        let mut resynced = self.turns.resynced.subscribe();
        for (partition, next) in until {
            tokio::select! {
                moved = fetch::moved(&self.store, partition, next - 1) => moved?,
                _ = resynced.wait_for(|now| *now != resyncs) => return Err(LogError::DiskFull),
                reason = self.store.failed() => return Err(LogError::Unknown(reason)),
            }
        }
        // The offsets may have been reached by others after the first batch was taken back.
        if self.shard().resyncs != resyncs {
            return Err(LogError::DiskFull);
        }
        Ok(())
    }

    /// Follows the log back after it refused what was admitted.
    pub(crate) fn resync(&self, shard: &mut Shard) -> bool {
        self.settle(shard);
        let is_changed = shard.resync(|p| self.store.log_end(p).ok());
        if is_changed {
            self.turns.resynced.send_replace(shard.resyncs);
            tracing::warn!("the log refused entries that were admitted; they were taken back");
        }
        is_changed
    }

    /// Makes positions visible that have become durable.
    pub(crate) fn settle(&self, shard: &mut Shard) {
        if let Ok(bounds) = self.store.bounds(OFFSETS) {
            shard.positions.settle(bounds.end);
        }
    }

    /// Takes back what nobody waits for any more, so that repeats of it need not wait for ever.
    pub(crate) fn settle_and_resync(&self) {
        let mut shard = self.shard();
        self.settle(&mut shard);
        if self.turns.repeats.load(Ordering::SeqCst) > 0 {
            self.resync(&mut shard);
        }
    }
}
