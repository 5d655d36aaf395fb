//! One partition in memory: where its batches are, and how far readers may go.
//!
//! Called by: `log`, `commit` (which puts in what became durable), `tail`.
//! Invariants: index, tail and tier overlap but leave no gap from `start` to `end`; `end` only
//! grows and is never ahead of what was acknowledged; a batch leaves the index only when the
//! tier's manifest has it or it was trimmed.
//! Refuses: batches that do not begin where the assigned offsets end.

mod rewritten;

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use model::compaction::Compacted;
use model::{Batch, Bounds, LogError, Offset, PartitionId, ProducerTable, ShardEpoch};
use tokio::sync::watch;

use crate::config::PartitionConfig;
use crate::status::PartitionStatus;
use crate::tier::manifest::{ColdObject, Manifest, is_shared};
use crate::wal::Location;

pub(crate) use rewritten::Dirt;

/// Where one untiered batch stands.
#[derive(Clone)]
pub(crate) struct Slot {
    pub base: Offset,
    pub next: Offset,
    pub records: u32,
    /// It says which batch of which producer it is.
    pub is_numbered: bool,
    pub epoch: ShardEpoch,
    pub max_timestamp: i64,
    pub append_time_us: i64,
    pub location: Location,
}

pub(crate) struct Partition {
    id: PartitionId,
    /// Replaced whole when the topic is altered; read by whoever acts next.
    config: RwLock<Arc<PartitionConfig>>,
    /// Next offset to assign; changes only under the queue's lock.
    assigned: AtomicU64,
    /// The newest shard epoch that the tier knows of its owner.
    newest_epoch: AtomicU32,
    state: Mutex<State>,
    end: watch::Sender<Offset>,
    /// Held while its list in the tier changes.
    pub tiering: tokio::sync::Mutex<()>,
    /// Held by the one that compacts it, who takes `tiering` now and then.
    pub compacting: tokio::sync::Mutex<()>,
}

struct State {
    start: Offset,
    end: Offset,
    /// Untiered batches, oldest first.
    index: VecDeque<Slot>,
    index_bytes: u64,
    /// The latest batches, also found through `index` or `cold`.
    tail: VecDeque<Batch>,
    cold: Arc<Manifest>,
    /// Of all batches that are durable, wherever they are now.
    producers: ProducerTable,
    compacted: Compacted,
    /// Below it the tail holds batches as they were before compaction.
    rewritten_to: Offset,
    /// Objects that left the tier's list, and when.
    retired: Vec<(Instant, String)>,
    /// Since the tier last took something of it.
    tier_failures: Failures,
    /// Since it was last compacted.
    compaction_failures: Failures,
    is_dropped: bool,
}

/// Runs that failed one after the other.
#[derive(Default)]
struct Failures {
    count: u32,
    reason: Option<String>,
    again_at: Option<Instant>,
}

impl Failures {
    /// Notes how a run ended: after a failure the next one is due after `pause`, which is given
    /// the number of failures.
    fn note(&mut self, failure: Option<String>, pause: impl FnOnce(u32) -> Duration) {
        if failure.is_none() {
            *self = Failures::default();
            return;
        }
        self.count = self.count.saturating_add(1);
        self.reason = failure;
        self.again_at = Instant::now().checked_add(pause(self.count));
    }

    /// Whether the last one was so lately that it is not yet tried again.
    fn is_parked(&self) -> bool {
        self.again_at
            .is_some_and(|again_at| Instant::now() < again_at)
    }
}

/// What a partition begins with after recovery.
pub(crate) struct Beginning {
    pub start: Offset,
    pub end: Offset,
    pub index: VecDeque<Slot>,
    pub cold: Arc<Manifest>,
    pub producers: ProducerTable,
    pub compacted: Compacted,
}

/// Where the batches from an offset on are.
pub(crate) enum Place {
    End,
    Memory(Vec<Batch>),
    Wal(Vec<Slot>),
    Cold(Arc<Manifest>),
}

/// One moment of a partition, for status and SQL.
pub(crate) struct View {
    pub start: Offset,
    pub end: Offset,
    pub cold: Arc<Manifest>,
    pub index: Vec<Slot>,
}

impl Partition {
    pub(crate) fn new(config: PartitionConfig, beginning: Beginning) -> Partition {
        let Beginning {
            start,
            end,
            index,
            cold,
            producers,
            compacted,
        } = beginning;
        let index_bytes = index.iter().map(|slot| u64::from(slot.location.size)).sum();
        index
            .iter()
            .for_each(|slot| slot.location.segment.live_add(slot.location.size));
        let tail = VecDeque::new();
        let is_dropped = false;
        let newest_epoch = cold.shard_epoch;
        let state = State {
            start,
            end,
            index,
            index_bytes,
            tail,
            cold,
            producers,
            compacted,
            rewritten_to: 0,
            retired: Vec::new(),
            tier_failures: Failures::default(),
            compaction_failures: Failures::default(),
            is_dropped,
        };
        Partition {
            id: config.id,
            config: RwLock::new(Arc::new(config)),
            assigned: AtomicU64::new(end),
            newest_epoch: AtomicU32::new(newest_epoch),
            state: Mutex::new(state),
            end: watch::Sender::new(end),
            tiering: tokio::sync::Mutex::new(()),
            compacting: tokio::sync::Mutex::new(()),
        }
    }

    pub(crate) fn empty(config: PartitionConfig) -> Partition {
        let cold = Arc::new(Manifest::empty(config.id, &config.topic));
        Partition::new(
            config,
            Beginning {
                start: 0,
                end: 0,
                index: VecDeque::new(),
                cold,
                producers: ProducerTable::new(),
                compacted: Compacted::default(),
            },
        )
    }

    pub(crate) fn id(&self) -> PartitionId {
        self.id
    }

    /// The settings as they are now.
    pub(crate) fn config(&self) -> Arc<PartitionConfig> {
        let config = self.config.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&config)
    }

    /// Takes other settings for what comes next.
    pub(crate) fn configure(&self, config: PartitionConfig) {
        let mut held = self.config.write().unwrap_or_else(PoisonError::into_inner);
        *held = Arc::new(config);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the offsets of `batch`. Only under the queue's lock.
    pub(crate) fn assign(&self, batch: &Batch) -> Result<(), LogError> {
        let assigned = self.assigned();
        if batch.base_offset() != assigned {
            return Err(LogError::Unavailable(format!(
                "partition {} goes on at offset {assigned}, the batch was stamped with {}; stamp \
                 it again",
                self.id(),
                batch.base_offset()
            )));
        }
        self.assigned.store(batch.next_offset(), Ordering::Release);
        Ok(())
    }

    /// Gives back what `assign` took last. Only under the queue's lock.
    pub(crate) fn unassign(&self, batch: &Batch) {
        self.assigned.store(batch.base_offset(), Ordering::Release);
    }

    /// Gives back all that was assigned and not written. Only under the queue's lock.
    pub(crate) fn assign_from_end(&self) {
        self.assigned.store(self.lock().end, Ordering::Release);
    }

    /// Appends of an older epoch are refused from now on.
    pub(crate) fn fence(&self, epoch: ShardEpoch) {
        self.newest_epoch.fetch_max(epoch.0, Ordering::AcqRel);
    }

    pub(crate) fn newest_epoch(&self) -> ShardEpoch {
        ShardEpoch(self.newest_epoch.load(Ordering::Acquire))
    }

    pub(crate) fn assigned(&self) -> Offset {
        self.assigned.load(Ordering::Acquire)
    }

    pub(crate) fn bounds(&self) -> Bounds {
        let state = self.lock();
        Bounds {
            start: state.start,
            end: state.end,
        }
    }

    /// The end as it moves; it is kept up only while somebody watches.
    pub(crate) fn watch(&self) -> watch::Receiver<Offset> {
        let state = self.lock();
        if !state.is_dropped {
            self.end.send_replace(state.end);
        }
        self.end.subscribe()
    }

    /// Takes in a batch that is as durable as was asked for; answers the untiered bytes.
    pub(crate) fn install(&self, batch: Batch, location: Location) -> u64 {
        let next = batch.next_offset();
        let mut state = self.lock();
        if state.is_dropped {
            return 0;
        }
        location.segment.live_add(location.size);
        state.index_bytes += u64::from(location.size);
        state.index.push_back(Slot {
            base: batch.base_offset(),
            next,
            records: batch.len(),
            is_numbered: batch.producer().is_some(),
            epoch: batch.epoch(),
            max_timestamp: batch.max_timestamp(),
            append_time_us: batch.append_time(),
            location,
        });
        state.end = next;
        if let Some(producer) = batch.producer() {
            let base = batch.base_offset();
            state.producers.record(producer, batch.len(), base);
        }
        state.tail.push_back(batch);
        let untiered = state.index_bytes;
        // whoever comes to watch later looks under the same lock
        let is_watched = self.end.receiver_count() > 0;
        drop(state);
        if is_watched {
            self.end.send_replace(next);
        }
        untiered
    }

    pub(crate) fn evict_oldest(&self) {
        self.lock().tail.pop_front();
    }

    /// Readers no longer see what lies before; answers false if nothing changed.
    pub(crate) fn hide_before(&self, before: Offset) -> bool {
        let mut state = self.lock();
        let before = before.min(state.end);
        let is_new = before > state.start;
        state.start = state.start.max(before);
        is_new
    }

    /// Gives up the index of what is trimmed. Once the trim is durable.
    pub(crate) fn release_trimmed(&self) {
        let mut state = self.lock();
        let start = state.start;
        release(&mut state, start);
    }

    /// The tier has all before `manifest.end`. What it says with fewer rows than the list before
    /// is read from there from now on, not from memory.
    pub(crate) fn release_tiered(&self, manifest: Arc<Manifest>) {
        let mut state = self.lock();
        let end = manifest.end;
        let now = Instant::now();
        let before = std::mem::replace(&mut state.cold, manifest);
        let cold = Arc::clone(&state.cold);
        let listed: HashSet<&str> = cold.objects.iter().map(|o| o.path.as_str()).collect();
        let gone = before.objects.iter().map(|object| &object.path);
        let gone = gone.filter(|path| !listed.contains(path.as_str()));
        state.retired.extend(gone.map(|path| (now, path.clone())));
        let known: HashSet<_> = before.objects.iter().map(place_of).collect();
        let is_rewritten = |object: &&ColdObject| {
            object.next <= before.end && !object.is_dense() && !known.contains(&place_of(object))
        };
        let rewritten = cold.objects.iter().filter(is_rewritten);
        let rewritten_to = rewritten.map(|object| object.next).max();
        state.rewritten_to = state.rewritten_to.max(rewritten_to.unwrap_or(0));
        release(&mut state, end);
    }

    /// Notes how a run of the tier ended: after a failure the next one is due after `pause`,
    /// which is given the number of failures.
    pub(crate) fn tiered(&self, failure: Option<String>, pause: impl FnOnce(u32) -> Duration) {
        self.lock().tier_failures.note(failure, pause);
    }

    /// Whether the tier failed so lately that it is not yet tried again.
    pub(crate) fn is_parked(&self) -> bool {
        self.lock().tier_failures.is_parked()
    }

    /// Objects that left the tier's list and are still to be deleted.
    pub(crate) fn retired(&self) -> HashSet<String> {
        let state = self.lock();
        state.retired.iter().map(|(_, path)| path.clone()).collect()
    }

    /// Objects that left the tier's list at least `grace` ago, for who asks to delete: those
    /// that others may share are no longer kept for readers, but go by collection only.
    pub(crate) fn take_retired(&self, grace: Duration) -> Vec<String> {
        let mut state = self.lock();
        let is_old = |(at, _): &mut (Instant, String)| at.elapsed() >= grace;
        state
            .retired
            .extract_if(.., is_old)
            .map(|(_, path)| path)
            .filter(|path| !is_shared(path))
            .collect()
    }

    /// Gives up everything.
    pub(crate) fn discard(&self) {
        let mut state = self.lock();
        state.is_dropped = true;
        state.tail.clear();
        release(&mut state, Offset::MAX);
        drop(state);
        // Whoever waits for more looks again, and finds that the partition is gone.
        self.end.send_replace(Offset::MAX);
    }

    pub(crate) fn place(&self, from: Offset, bytes_max: usize) -> Result<Place, LogError> {
        let state = self.lock();
        let bounds = Bounds {
            start: state.start,
            end: state.end,
        };
        if state.is_dropped {
            return Err(LogError::NotFound {
                partition: self.id(),
            });
        }
        if from < bounds.start || from > bounds.end {
            return Err(LogError::OutOfRange {
                partition: self.id(),
                offset: from,
                bounds,
            });
        }
        if from == bounds.end {
            return Ok(Place::End);
        }
        let in_tail = |first: &Batch| first.base_offset() <= from && from >= state.rewritten_to;
        if state.tail.front().is_some_and(in_tail) {
            let at = state
                .tail
                .partition_point(|batch| batch.next_offset() <= from);
            let batches = up_to(state.tail.range(at..), bytes_max, Batch::size);
            return Ok(Place::Memory(batches.cloned().collect()));
        }
        if state.index.front().is_some_and(|first| first.base <= from) {
            let at = state.index.partition_point(|slot| slot.next <= from);
            let slots = state.index.range(at..);
            let slots = up_to(slots, bytes_max, |slot| slot.location.size as usize);
            return Ok(Place::Wal(slots.cloned().collect()));
        }
        Ok(Place::Cold(Arc::clone(&state.cold)))
    }

    /// Untiered batches from the oldest on, at most about `bytes_max`.
    pub(crate) fn oldest_untiered(&self, bytes_max: u64) -> Vec<Slot> {
        let state = self.lock();
        let size = |slot: &Slot| slot.location.size as usize;
        up_to(state.index.iter(), bytes_max as usize, size)
            .cloned()
            .collect()
    }

    /// Untiered batches that stand in this segment.
    pub(crate) fn slots_in(&self, segment: u64) -> Vec<Slot> {
        let state = self.lock();
        let is_in = |slot: &&Slot| slot.location.segment.head.id == segment;
        state.index.iter().filter(is_in).cloned().collect()
    }

    /// Adds the bytes of its untiered batches to those of the segments they stand in.
    pub(crate) fn bytes_by_segment(&self, bytes: &mut BTreeMap<u64, u64>) {
        for slot in &self.lock().index {
            let segment = slot.location.segment.head.id;
            *bytes.entry(segment).or_default() += u64::from(slot.location.size);
        }
    }

    /// Whether any of its untiered batches stands in this segment or in one before it.
    pub(crate) fn holds(&self, segment: u64) -> bool {
        let state = self.lock();
        let mut segments = state.index.iter().map(|slot| slot.location.segment.head.id);
        segments.any(|id| id <= segment)
    }

    /// The batch of a place if it is still in memory, as it was written there.
    pub(crate) fn in_memory(&self, slot: &Slot) -> Option<Batch> {
        let state = self.lock();
        let at = state
            .tail
            .partition_point(|batch| batch.base_offset() < slot.base);
        let is_same = |batch: &&Batch| {
            let whole = (batch.base_offset(), batch.next_offset(), batch.len());
            whole == (slot.base, slot.next, slot.records)
        };
        state.tail.get(at).filter(is_same).cloned()
    }

    /// Untiered bytes, and append time of the oldest untiered batch.
    pub(crate) fn untiered(&self) -> (u64, Option<i64>) {
        let state = self.lock();
        let oldest = state.index.front();
        (state.index_bytes, oldest.map(|slot| slot.append_time_us))
    }

    pub(crate) fn view(&self) -> View {
        let state = self.lock();
        View {
            start: state.start,
            end: state.end,
            cold: Arc::clone(&state.cold),
            index: state.index.iter().cloned().collect(),
        }
    }

    pub(crate) fn status(&self) -> PartitionStatus {
        let state = self.lock();
        PartitionStatus {
            id: self.id(),
            topic: self.config().topic.clone(),
            start: state.start,
            end: state.end,
            cold_end: state.cold.end,
            objects: state.cold.objects.len() as u64,
            cold_bytes: state.cold.objects.iter().map(ColdObject::bytes).sum(),
            cold_records: state.cold.objects.iter().map(|object| object.rows).sum(),
            hot_bytes: state.index_bytes,
            manifest_version: state.cold.number,
            compacted_end: state.compacted.end(),
            tier_failure: state.tier_failures.reason.clone(),
            compaction_failure: state.compaction_failures.reason.clone(),
        }
    }

    pub(crate) fn cold(&self) -> Arc<Manifest> {
        Arc::clone(&self.lock().cold)
    }

    /// The tier's list and, of the same moment, the base of the first untiered batch whose
    /// largest timestamp is not before `timestamp`: a range that moves meanwhile is in one of
    /// the two.
    pub(crate) fn not_before(&self, timestamp: i64) -> (Arc<Manifest>, Option<Offset>) {
        let state = self.lock();
        let first = state
            .index
            .iter()
            .find(|slot| slot.max_timestamp >= timestamp)
            .map(|slot| slot.base);
        (Arc::clone(&state.cold), first)
    }

    /// The producers and their last batches.
    pub(crate) fn producers(&self) -> ProducerTable {
        self.lock().producers.clone()
    }
}

/// Which object stands for which offsets.
fn place_of(object: &ColdObject) -> (&str, Offset, Offset) {
    (&object.path, object.base, object.next)
}

/// Drops index entries that end at or before `before`.
fn release(state: &mut State, before: Offset) {
    while let Some(slot) = state.index.front() {
        if slot.next > before {
            break;
        }
        let size = slot.location.size;
        slot.location.segment.live_remove(size);
        state.index_bytes -= u64::from(size);
        state.index.pop_front();
    }
}

/// At least the first, then as many as keep the sum within `bytes_max`.
fn up_to<'a, T: 'a>(
    items: impl Iterator<Item = &'a T>,
    bytes_max: usize,
    size: impl Fn(&T) -> usize,
) -> impl Iterator<Item = &'a T> {
    let mut bytes = 0usize;
    items.take_while(move |item| {
        let is_first = bytes == 0;
        bytes = bytes.saturating_add(size(item));
        is_first || bytes <= bytes_max
    })
}
