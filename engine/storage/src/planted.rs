//! Bugs on purpose: a switch that plants one known mistake, so that the tests can show that
//! they would find it. In product builds `planted` is the constant `false` and costs nothing.
//!
//! Called by: `wal` and `log`, at the places where a mistake would lose data; turned on by
//! `log::proof`, and by the tests of compaction in the tier.
//! Invariants: the switch belongs to one thread, so tests that run beside it stay sound.
//! Refuses: to exist outside of tests.

#[cfg(test)]
use std::cell::Cell;

/// One mistake each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    not(test),
    expect(dead_code, reason = "some places exist in tests only")
)]
pub(crate) enum Bug {
    /// Waiters are answered and readers go on before the sync.
    AckBeforeSync,
    /// Every third sync is left out.
    SyncSkipped,
    /// Of a write and its sync that were handed over together, only the write's end is looked at.
    CompletionNotChecked,
    /// A failed sync is tried again, and believed.
    SyncRetried,
    /// Readers see records before the sync, waiters are answered after it.
    WatermarkBeforeSync,
    /// After a failed write or sync the writer goes on with what comes next.
    FailureForgotten,
    /// Entries after the first segment say a position that is 8 too far.
    PositionOff,
    /// The checksum leaves out to which partition the first batch belongs.
    PartitionNotSummed,
    /// Recovery goes on behind a hole.
    HoleSkipped,
    /// An entry counts whatever entry it was written behind.
    PreviousNotChecked,
    /// What is left of a torn tail is not overwritten before the log goes on.
    TornTailKept,
    /// A new segment is used before its name is durable.
    NameNotSynced,
    /// Segments are removed without a sync between them.
    RemovalsNotSynced,
    /// `synced_to` never moves within a segment.
    SyncedToStale,
    /// `synced_to` counts what is written and not synced.
    SyncedToNew,
    /// Damage below `synced_to` is cut as a torn tail would be.
    DamageCut,
    /// A segment goes while one batch in it is still needed.
    SegmentFreedEarly,
    /// Segments go before the checkpoint that stands for them is durable.
    CheckpointLeftOut,
    /// A checkpoint says every partition begins at 0.
    CheckpointStartForgotten,
    /// A checkpoint leaves out the first partition.
    CheckpointPartitionForgotten,
    /// A checkpoint leaves out the shards' sequences.
    CheckpointSequencesForgotten,
    /// A saved checkpoint counts whatever its checksum says.
    SavedNotSummed,
    /// A saved checkpoint counts for whatever log there is.
    SavedStaleBelieved,
    /// A saved checkpoint leaves out the oldest batch of each partition.
    SavedBatchForgotten,
    /// A trim is confirmed before it is durable.
    TrimBeforeSync,
    /// Offsets of what a full disk refused stay taken.
    OffsetsKeptWhenFull,
    /// What a full disk refused is confirmed.
    FullConfirmed,
    /// Compaction lets tombstones go with the pass that takes away what they delete.
    TombstonesGoneAtOnce,
    /// Compaction of the tier counts on newer records that are not in it, nor durable.
    UndurableNoted,
    /// Objects are deleted before the list that no longer names them is put.
    ObjectsGoneBeforeList,
    /// A pass of compaction is remembered before it is through.
    PassRememberedFirst,
}

#[cfg(test)]
thread_local! {
    static PLANTED: Cell<Option<Bug>> = const { Cell::new(None) };
    static COUNT: Cell<u64> = const { Cell::new(0) };
    static SALT: Cell<Option<u64>> = const { Cell::new(None) };
}

/// Whether this bug is planted here.
#[cfg(not(test))]
#[inline(always)]
pub(crate) const fn planted(_: Bug) -> bool {
    false
}

#[cfg(test)]
pub(crate) fn planted(bug: Bug) -> bool {
    PLANTED.get() == Some(bug)
}

/// True every `nth` time.
#[cfg(not(test))]
#[inline(always)]
pub(crate) const fn planted_nth(_: Bug, _: u64) -> bool {
    false
}

#[cfg(test)]
pub(crate) fn planted_nth(bug: Bug, nth: u64) -> bool {
    if !planted(bug) {
        return false;
    }
    COUNT.set(COUNT.get() + 1);
    COUNT.get().is_multiple_of(nth)
}

/// Work that another thread will do, with the bug that is planted on this one.
#[cfg(not(test))]
#[inline(always)]
pub(crate) fn carried<T>(work: impl FnOnce() -> T) -> impl FnOnce() -> T {
    work
}

#[cfg(test)]
pub(crate) fn carried<T>(work: impl FnOnce() -> T) -> impl FnOnce() -> T {
    let bug = PLANTED.get();
    move || {
        let before = PLANTED.replace(bug);
        let done = work();
        PLANTED.set(before);
        done
    }
}

/// Plants a bug, or none, on this thread; makes salts follow from `seed`.
#[cfg(test)]
pub(crate) fn plant(bug: Option<Bug>, seed: u64) {
    PLANTED.set(bug);
    COUNT.set(0);
    SALT.set(Some(seed));
}

/// Back to no bug and to salts by chance.
#[cfg(test)]
pub(crate) fn clear() {
    PLANTED.set(None);
    SALT.set(None);
}

/// The next salt where they follow from a seed.
#[cfg(test)]
pub(crate) fn salt() -> Option<u64> {
    let salt = SALT.get()?;
    SALT.set(Some(
        salt.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1),
    ));
    Some(salt)
}
