//! Reading: bounded fetches that wait for something new, and waits for the end to move.
//!
//! Called by: `broker`. Calls: the store's `read`, `bounds` and `watch`.
//! Invariants: the watch is taken before the read, so nothing that becomes durable in between is
//! missed; one fetch takes at most `FETCH_BYTES_MAX` plus one batch and waits at most
//! `FETCH_WAIT_MS_MAX`, whatever was asked; nothing above the high watermark is given out.
//! Cancel-safe: dropping a fetch changes nothing.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use futures::future::{FutureExt, select_all};
use futures::stream::{self, StreamExt};
use model::{Batch, Bounds, LogError, Offset, PartitionId};
use storage::Store;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use crate::commit::Counted;

/// Most bytes of one answer, but for its last batch.
pub const FETCH_BYTES_MAX: usize = model::limits::BATCH_BYTES_MAX;
/// Longest wait of one fetch.
pub const FETCH_WAIT_MS_MAX: u64 = 60_000;
/// Partitions that one fetch of many reads at a time.
const READS_MAX: usize = 8;
/// Once something is there, it waits no longer for partitions that the tier is slow to give.
const SLOW: Duration = Duration::from_millis(500);

/// The answer to a fetch.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// Whole batches; the first may begin before the offset asked for. Empty: nothing came.
    pub batches: Vec<Batch>,
    pub bounds: Bounds,
}

/// Reads from `from`, waiting up to `wait_ms` while there is nothing.
pub(crate) async fn fetch_wait(
    store: &Store,
    waiting: &Arc<AtomicU64>,
    p: PartitionId,
    from: Offset,
    bytes_max: usize,
    wait_ms: u64,
) -> Result<Fetched, LogError> {
    let bytes_max = bytes_max.clamp(1, FETCH_BYTES_MAX);
    let mut end = store.watch(p)?;
    let wait = Duration::from_millis(wait_ms.min(FETCH_WAIT_MS_MAX));
    let deadline = Instant::now() + wait;
    loop {
        check_range(store, p, from)?;
        let batches = store.read(p, from, bytes_max).await?;
        if !batches.is_empty() || wait.is_zero() {
            return Ok(Fetched {
                batches,
                bounds: store.bounds(p)?,
            });
        }
        let _counted = Counted::new(waiting);
        match timeout_at(deadline, beyond(store, &mut end, p, from)).await {
            Ok(moved) => moved?,
            Err(_) => {
                return Ok(Fetched {
                    batches,
                    bounds: store.bounds(p)?,
                });
            }
        }
    }
}

/// Reads from many partitions until one of them has something, or cannot be read.
pub(crate) async fn fetch_many(
    store: &Store,
    waiting: &Arc<AtomicU64>,
    wants: &[(PartitionId, Offset)],
    bytes_max: usize,
    wait_ms: u64,
) -> Vec<(PartitionId, Result<Fetched, LogError>)> {
    let bytes_max = bytes_max.clamp(1, FETCH_BYTES_MAX);
    let wait = Duration::from_millis(wait_ms.min(FETCH_WAIT_MS_MAX));
    let deadline = Instant::now() + wait;
    loop {
        let mut ends: Vec<_> = wants.iter().map(|(p, _)| store.watch(*p)).collect();
        let found = read_many(store, wants, bytes_max).await;
        if !found.is_empty() || wants.is_empty() || wait.is_zero() {
            return found;
        }
        let _counted = Counted::new(waiting);
        let moves = ends.iter_mut().zip(wants).map(|(end, (p, from))| {
            Box::pin(async move {
                // What went meanwhile is told of by the next read.
                if let Ok(end) = end {
                    let _ = beyond(store, end, *p, *from).await;
                }
            })
        });
        if timeout_at(deadline, select_all(moves)).await.is_err() {
            return Vec::new();
        }
    }
}

async fn read_many(
    store: &Store,
    wants: &[(PartitionId, Offset)],
    bytes_max: usize,
) -> Vec<(PartitionId, Result<Fetched, LogError>)> {
    let (mut found, mut room) = (Vec::new(), bytes_max);
    let patience = Instant::now() + SLOW;
    let is_idle = |(p, from): &(PartitionId, Offset)| {
        store.bounds(*p).is_ok_and(|bounds| bounds.end == *from)
    };
    let due = wants.iter().filter(|want| !is_idle(want));
    let reads: Vec<_> = due
        .map(|want| read_new(store, *want, bytes_max).boxed())
        .collect();
    let mut reads = stream::iter(reads).buffer_unordered(READS_MAX);
    while room > 0 {
        let read = match found.is_empty() {
            true => reads.next().await,
            false => timeout_at(patience, reads.next()).await.unwrap_or(None),
        };
        let Some((p, outcome)) = read else { break };
        if let Ok(fetched) = &outcome {
            let bytes: usize = fetched.batches.iter().map(Batch::size).sum();
            room = room.saturating_sub(bytes);
        }
        let is_something = outcome
            .as_ref()
            .map_or(true, |fetched| !fetched.batches.is_empty());
        if is_something {
            found.push((p, outcome));
        }
    }
    found
}

/// What one partition has from an offset on.
async fn read_new(
    store: &Store,
    (p, from): (PartitionId, Offset),
    bytes_max: usize,
) -> (PartitionId, Result<Fetched, LogError>) {
    let bounds = match check_range(store, p, from) {
        Ok(bounds) => bounds,
        Err(error) => return (p, Err(error)),
    };
    let batches = store.read(p, from, bytes_max).await;
    (p, batches.map(|batches| Fetched { batches, bounds }))
}

/// Resolves when the end of `p` is greater than `offset`.
pub(crate) async fn moved(store: &Store, p: PartitionId, offset: Offset) -> Result<(), LogError> {
    let mut end = store.watch(p)?;
    beyond(store, &mut end, p, offset).await
}

async fn beyond(
    store: &Store,
    end: &mut watch::Receiver<Offset>,
    p: PartitionId,
    offset: Offset,
) -> Result<(), LogError> {
    let is_moved = end.wait_for(|end| *end > offset).await.is_ok();
    // A partition that was dropped wakes its waiters too.
    store.bounds(p)?;
    if is_moved {
        Ok(())
    } else {
        Err(LogError::Closed)
    }
}

fn check_range(store: &Store, p: PartitionId, offset: Offset) -> Result<Bounds, LogError> {
    let bounds = store.bounds(p)?;
    if offset < bounds.start || offset > bounds.end {
        return Err(LogError::OutOfRange {
            partition: p,
            offset,
            bounds,
        });
    }
    Ok(bounds)
}
