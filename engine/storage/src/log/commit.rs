//! The one thread that writes: takes what queued, writes it at once, syncs once, answers all.
//!
//! Called by: `Store::open` starts it; it ends when the queue is closed or a write failed.
//! Invariants: a waiter hears "done" only after its entry is written and, unless its topic says
//! `memory`, synced; partitions learn of batches in WAL order, before the waiter does.
//! Refuses: to go on after a failed write or sync: those waiters hear "unknown".

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use model::{Durability, LogError, PartitionId};
use tokio::sync::Notify;

use super::gather::{Gather, Growing};
use super::linger::Linger;
use super::queue::{BatchWork, Queue, Taken, Work, refuse};
use super::room::Room;
use super::save::Reached;
use super::{Partitions, Segments};
use crate::cache::Blocks;
use crate::planted::{Bug, planted};
use crate::tail::Tail;
use crate::wal::entry::ENTRY_HEAD_LEN;
use crate::wal::writer::{control_json, control_len};
use crate::wal::{Control, Kind, Location, RollError, WalWriter};

/// A growing group is written in parts of about this size; smaller ones cost more than they save.
const WRITE_EARLY_BYTES: u64 = 32 << 10;

/// What the writer counts, read by `status`.
#[derive(Default)]
pub(crate) struct Counters {
    pub entries: AtomicU64,
    pub batches: AtomicU64,
    pub bytes: AtomicU64,
    pub syncs: AtomicU64,
    /// Since when there is no room.
    full: Mutex<Option<Instant>>,
}

impl Counters {
    /// Keeps the first moment; answers whether this is it.
    fn set_full(&self, now: Option<Instant>) -> bool {
        let mut full = self.full.lock().unwrap_or_else(PoisonError::into_inner);
        let is_first = full.is_none();
        *full = now.map(|now| full.unwrap_or(now));
        is_first
    }

    pub(crate) fn full_ms(&self) -> Option<u64> {
        let full = *self.full.lock().unwrap_or_else(PoisonError::into_inner);
        full.map(|since| since.elapsed().as_millis() as u64)
    }
}

/// Written, or about to be, and not yet answered.
struct Staged {
    work: Work,
    places: Vec<Location>,
}

pub(crate) struct Committer {
    pub queue: Arc<Queue>,
    pub partitions: Arc<Partitions>,
    pub segments: Arc<Segments>,
    pub tail: Arc<Tail>,
    pub counters: Arc<Counters>,
    pub wal: WalWriter,
    /// Next sequence of each shard.
    pub sequences: BTreeMap<u32, u64>,
    /// What of all this the partitions know.
    pub reached: Arc<Mutex<Reached>>,
    pub idle: Duration,
    /// Wakes the tier when a partition has this much for it.
    pub tier_bytes: u64,
    pub tier_wake: Arc<Notify>,
    /// Wakes it too when the WAL is larger than this.
    pub wal_bytes_max: u64,
    /// Something was written after the last mark.
    pub needs_mark: bool,
    /// What the next group may hope for.
    pub gather: Gather,
    /// Whoever waits for a sync is told how long that takes.
    pub linger: Arc<Linger>,
    pub room: Room,
    /// Gives its part of the disk back when the WAL needs it.
    pub blocks: Blocks,
}

/// A write or sync failed: nothing more may be done with this WAL.
struct Failed(String);

/// Fails the queue if the thread ends in any other way than by being closed.
struct Guard(Arc<Queue>);

impl Drop for Guard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.fail("its writer panicked");
        }
    }
}

impl Committer {
    /// Runs until the queue is closed or the WAL failed.
    pub(crate) fn run(mut self) {
        let _guard = Guard(Arc::clone(&self.queue));
        loop {
            let done = match self
                .queue
                .take(self.needs_mark.then_some(self.idle), self.gather)
            {
                Taken::Group(group) => self.group(group),
                Taken::Idle => self.mark(),
                Taken::Closed => {
                    if let Err(Failed(reason)) = self.mark() {
                        tracing::error!(%reason, "the write-ahead log failed while closing");
                    }
                    return;
                }
            };
            if let Err(Failed(reason)) = done {
                tracing::error!(%reason, "the write-ahead log stopped");
                self.queue.fail(&reason);
                return;
            }
        }
    }

    /// One turn of `run` for tests that have no thread for it: does what waits, or marks.
    /// False once the WAL has failed.
    #[cfg(test)]
    pub(super) fn turn(&mut self) -> bool {
        let done = match self.queue.take(Some(Duration::ZERO), Gather::default()) {
            Taken::Group(group) => self.group(group),
            Taken::Idle | Taken::Closed => self.mark(),
        };
        let Err(Failed(reason)) = done else {
            return true;
        };
        if planted(Bug::FailureForgotten) {
            return true;
        }
        self.queue.fail(&reason);
        false
    }

    /// Stages a group and whatever comes meanwhile, then makes it durable.
    fn group(&mut self, mut group: VecDeque<Work>) -> Result<(), Failed> {
        let mut growing = Growing::new(self.gather, &group);
        let mut staged = Vec::with_capacity(group.len().max(self.gather.hoped));
        loop {
            if !self.stage_all(group, &mut staged)? {
                return Ok(());
            }
            match self.queue.take_more(&mut growing) {
                Some(more) => group = more,
                None => return self.flush(&mut staged),
            }
            self.write_early(&mut staged)?;
        }
    }

    /// Stages works in their order; false if there was no room for one: it and all that wait
    /// are answered then.
    fn stage_all(
        &mut self,
        mut group: VecDeque<Work>,
        staged: &mut Vec<Staged>,
    ) -> Result<bool, Failed> {
        while let Some(work) = group.pop_front() {
            let control = self.control(&work);
            let length = match (&work, &control) {
                (Work::Batches(work), _) => work.length,
                (_, Some(json)) => control_len(json),
                (_, None) => ENTRY_HEAD_LEN,
            };
            let length = length + self.room.reserve(&work, self.partitions.len());
            if !self.wal.fits(length) {
                let flushed = self.flush(staged);
                let made_room = flushed.and_then(|()| self.roll(&work, length));
                match made_room {
                    Ok(true) => {}
                    Ok(false) => {
                        group.push_front(work);
                        self.queue.refuse_batches(group, &LogError::DiskFull);
                        return Ok(false);
                    }
                    Err(failed) => {
                        group.push_front(work);
                        group
                            .into_iter()
                            .for_each(|work| refuse(work, &not_written(&failed)));
                        return Err(failed);
                    }
                }
            }
            let places = self.stage(&work, control.as_deref());
            staged.push(Staged { work, places });
        }
        Ok(true)
    }

    /// Writes what is staged while more is on its way, so that little is left to write then.
    fn write_early(&mut self, staged: &mut Vec<Staged>) -> Result<(), Failed> {
        if self.wal.staged_bytes() < WRITE_EARLY_BYTES || self.wal.is_joined() {
            return Ok(());
        }
        let written = self.wal.write();
        written.map_err(|error| unwritten(staged.drain(..), &error))
    }

    /// The JSON of work that is a control entry.
    fn control(&self, work: &Work) -> Option<Vec<u8>> {
        match work {
            Work::Batches(_) | Work::Sync { .. } => None,
            Work::Control { control, .. } => Some(control_json(control)),
            Work::Checkpoint { .. } => {
                let line = |(id, partition): (PartitionId, Arc<super::Partition>)| {
                    let bounds = partition.bounds();
                    let is_forgotten = planted(Bug::CheckpointStartForgotten);
                    let start = if is_forgotten { 0 } else { bounds.start };
                    (id, start, bounds.end)
                };
                let skipped = usize::from(planted(Bug::CheckpointPartitionForgotten));
                let partitions = self.partitions.all().into_iter().skip(skipped);
                let partitions = partitions.map(line).collect();
                let is_kept = |_: &_| !planted(Bug::CheckpointSequencesForgotten);
                let sequences = self.sequences.iter().filter(is_kept);
                let sequences = sequences.map(|(shard, next)| (*shard, *next)).collect();
                Some(control_json(&Control::Checkpoint {
                    partitions,
                    sequences,
                }))
            }
        }
    }

    fn stage(&mut self, work: &Work, control: Option<&[u8]>) -> Vec<Location> {
        self.counters.entries.fetch_add(1, Ordering::Relaxed);
        let work = match (work, control) {
            (Work::Batches(work), _) => work,
            (_, Some(control)) => {
                self.wal.stage_control(control);
                return Vec::new();
            }
            (_, None) => {
                self.wal.stage_mark();
                return Vec::new();
            }
        };
        let next = self.sequences.entry(work.shard).or_default();
        let sequence = *next;
        *next += 1;
        self.counters
            .batches
            .fetch_add(work.parts.len() as u64, Ordering::Relaxed);
        self.counters
            .bytes
            .fetch_add(work.length as u64, Ordering::Relaxed);
        let batches = work
            .parts
            .iter()
            .map(|(partition, batch)| (partition.id(), batch));
        self.wal
            .stage(work.kind, (work.shard, work.epoch, sequence), batches)
    }

    /// Goes on in a new segment; false if there is no room for one.
    fn roll(&mut self, work: &Work, length: usize) -> Result<bool, Failed> {
        // Where all is dead, all but the next segment go once that is there.
        let held = match self.segments.are_dead() {
            true => 0,
            false => self.segments.bytes(),
        };
        let allowed = self.room.allows(work, held, length);
        let rolled = if allowed {
            self.wal.roll(length)
        } else {
            Err(RollError::Full)
        };
        match rolled {
            Ok(segment) => {
                self.segments.push(segment);
                if self.segments.bytes() > self.wal_bytes_max {
                    self.tier_wake.notify_one();
                }
                self.needs_mark = false;
                if let Some(time) = self.room.has_room(Instant::now()) {
                    self.counters.set_full(None);
                    tracing::info!(?time, "there is room for a WAL segment again");
                }
                Ok(true)
            }
            Err(RollError::Full) => {
                self.full(allowed);
                Ok(false)
            }
            Err(RollError::Failed(reason)) => Err(Failed(reason)),
        }
    }

    fn full(&mut self, allowed: bool) {
        let now = Instant::now();
        if self.counters.set_full(Some(now)) {
            // What goes to the tier now makes room.
            self.tier_wake.notify_one();
        }
        if allowed {
            self.blocks.release_disk();
        }
        if !self.room.is_full(now) {
            return;
        }
        let why = if allowed {
            "the disk is full"
        } else {
            "the WAL is as large as its limit lets it be"
        };
        tracing::warn!("no room for a WAL segment, {why}: appends are refused until there is");
    }

    /// Writes what is staged, syncs it, tells partitions and waiters.
    fn flush(&mut self, staged: &mut Vec<Staged>) -> Result<(), Failed> {
        if staged.is_empty() {
            return Ok(());
        }
        self.needs_mark = true;
        let (now, after_sync) = split_by_durability(std::mem::take(staged));
        if now.is_empty() && self.wal.is_joined() {
            let synced = self.timed(WalWriter::write_synced);
            if let Err(error) = synced {
                return Err(unwritten(after_sync, &error));
            }
            self.answer(after_sync);
            self.note_reached();
            return Ok(());
        }
        if let Err(error) = self.wal.write() {
            let staged = now.into_iter().chain(after_sync);
            return Err(unwritten(staged, &error));
        }
        #[cfg(test)]
        let (now, after_sync) = plant_early(now, after_sync);
        now.into_iter().for_each(|staged| self.done(staged));
        if !after_sync.is_empty() {
            if let Err(error) = self.sync() {
                return Err(lost(after_sync, error.0));
            }
            self.answer(after_sync);
        }
        self.note_reached();
        Ok(())
    }

    /// All that was staged is known to the partitions.
    fn note_reached(&self) {
        let mut reached = self.reached.lock().unwrap_or_else(PoisonError::into_inner);
        reached.place = self.wal.place();
        reached.sequences.clone_from(&self.sequences);
    }

    /// Tells those whose entries are durable now; they are hoped to come back.
    fn answer(&mut self, staged: Vec<Staged>) {
        self.gather.hoped = self.queue.waiting().0 + staged.len();
        staged.into_iter().for_each(|staged| self.done(staged));
    }

    fn sync(&mut self) -> Result<(), Failed> {
        if self.wal.is_synced() {
            return Ok(());
        }
        self.timed(WalWriter::sync)
            .map_err(|error| Failed(format!("a sync of it failed: {error}")))
    }

    /// Counts a sync and notes how long it takes.
    fn timed(&mut self, sync: impl FnOnce(&mut WalWriter) -> io::Result<()>) -> io::Result<()> {
        self.counters.syncs.fetch_add(1, Ordering::Relaxed);
        let begun = Instant::now();
        let synced = sync(&mut self.wal);
        self.gather.sync = begun.elapsed();
        self.linger.synced_in(self.gather.sync);
        synced
    }

    /// Makes known in the WAL itself that all before is durable.
    fn mark(&mut self) -> Result<(), Failed> {
        if !self.needs_mark {
            return Ok(());
        }
        self.needs_mark = false;
        self.sync()?;
        // Without room the next segment's head will say the same.
        if self.wal.fits(ENTRY_HEAD_LEN) {
            self.wal.stage_mark();
            self.wal
                .write()
                .map_err(|error| Failed(format!("a write to it failed: {error}")))?;
            self.sync()?;
        }
        Ok(())
    }

    fn done(&self, staged: Staged) {
        match staged.work {
            Work::Batches(work) => self.done_batches(work, staged.places),
            Work::Control { control, reply } => {
                match control {
                    Control::Trim { partition, .. } => {
                        if let Some(partition) = self.partitions.get(partition) {
                            partition.release_trimmed();
                        }
                    }
                    Control::Drop { .. }
                    | Control::Producers { .. }
                    | Control::Compacted { .. }
                    | Control::Checkpoint { .. } => {}
                }
                if let Some(reply) = reply {
                    let _ = reply.send(Ok(()));
                }
            }
            Work::Checkpoint { reply } | Work::Sync { reply } => {
                let _ = reply.send(Ok(()));
            }
        }
    }

    fn done_batches(&self, work: BatchWork, places: Vec<Location>) {
        for ((partition, batch), location) in work.parts.into_iter().zip(places) {
            if work.kind == Kind::Moved {
                partition.install_moved(&batch, location);
                continue;
            }
            if planted(Bug::WatermarkBeforeSync) {
                continue;
            }
            let bytes = batch.size();
            let untiered = partition.install(batch, location);
            if untiered >= self.tier_bytes && partition.config().tier {
                self.tier_wake.notify_one();
            }
            self.tail.added(partition, bytes);
        }
        let _ = work.reply.send(Ok(()));
    }
}

/// Bugs on purpose: answers too early, or lets readers go on too early.
#[cfg(test)]
fn plant_early(mut now: Vec<Staged>, after_sync: Vec<Staged>) -> (Vec<Staged>, Vec<Staged>) {
    let is_early = |staged: &Staged| match &staged.work {
        Work::Batches(_) => planted(Bug::AckBeforeSync),
        Work::Control { .. } => planted(Bug::TrimBeforeSync),
        Work::Checkpoint { .. } | Work::Sync { .. } => false,
    };
    let (early, after_sync): (Vec<_>, Vec<_>) = after_sync.into_iter().partition(is_early);
    now.extend(early);
    for staged in &after_sync {
        if let Work::Batches(work) = &staged.work
            && work.kind == Kind::Batches
            && planted(Bug::WatermarkBeforeSync)
        {
            for ((partition, batch), location) in work.parts.iter().zip(&staged.places) {
                partition.install(batch.clone(), location.clone());
            }
        }
    }
    (now, after_sync)
}

/// Entries that may be answered after the write, and those that wait for the sync. An entry of a
/// `memory` topic still waits when an earlier one of the same partition does.
fn split_by_durability(staged: Vec<Staged>) -> (Vec<Staged>, Vec<Staged>) {
    let is_memory = |work: &Work| match work {
        Work::Batches(work) => work.durability == Durability::Memory,
        Work::Control { .. } | Work::Checkpoint { .. } | Work::Sync { .. } => false,
    };
    if !staged.iter().any(|staged| is_memory(&staged.work)) {
        return (Vec::new(), staged);
    }
    let mut waiting: HashSet<PartitionId> = HashSet::new();
    let (mut now, mut after_sync) = (Vec::new(), Vec::new());
    for staged in staged {
        let ids = |work: &BatchWork| -> Vec<PartitionId> {
            work.parts
                .iter()
                .map(|(partition, _)| partition.id())
                .collect()
        };
        let ids = if let Work::Batches(work) = &staged.work {
            ids(work)
        } else {
            Vec::new()
        };
        if is_memory(&staged.work) && !ids.iter().any(|id| waiting.contains(id)) {
            now.push(staged);
        } else {
            waiting.extend(ids);
            after_sync.push(staged);
        }
    }
    (now, after_sync)
}

fn lost(staged: impl IntoIterator<Item = Staged>, reason: String) -> Failed {
    for staged in staged {
        refuse(staged.work, &LogError::Unknown(reason.clone()));
    }
    Failed(reason)
}

fn unwritten(staged: impl IntoIterator<Item = Staged>, error: &io::Error) -> Failed {
    lost(staged, format!("a write to it failed: {error}"))
}

fn not_written(failed: &Failed) -> LogError {
    LogError::Unavailable(format!(
        "the write-ahead log has stopped ({}); restart the broker",
        failed.0
    ))
}
