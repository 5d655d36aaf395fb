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

use futures::future::select_all;
use model::{Batch, Bounds, LogError, Offset, PartitionId};
use storage::Store;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use crate::commit::Counted;

/// Most bytes of one answer, but for its last batch.
pub const FETCH_BYTES_MAX: usize = model::limits::BATCH_BYTES_MAX;
/// Longest wait of one fetch.
pub const FETCH_WAIT_MS_MAX: u64 = 60_000;

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
    for (p, from) in wants {
        if room == 0 {
            break;
        }
        match read_new(store, *p, *from, room).await {
            Ok(None) => {}
            Ok(Some(fetched)) => {
                let bytes: usize = fetched.batches.iter().map(Batch::size).sum();
                room = room.saturating_sub(bytes);
                found.push((*p, Ok(fetched)));
            }
            Err(error) => found.push((*p, Err(error))),
        }
    }
    found
}

/// What is there from `from` on, if anything.
async fn read_new(
    store: &Store,
    p: PartitionId,
    from: Offset,
    bytes_max: usize,
) -> Result<Option<Fetched>, LogError> {
    let bounds = check_range(store, p, from)?;
    if bounds.end == from {
        return Ok(None);
    }
    let batches = store.read(p, from, bytes_max).await?;
    Ok((!batches.is_empty()).then_some(Fetched { batches, bounds }))
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
