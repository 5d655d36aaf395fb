//! Recent batches in memory, byte-bounded over the whole store.
//!
//! Called by: `log::partition`, which holds each partition's share.
//! Invariants: what is evicted is the oldest over all partitions; eviction takes memory only,
//! every batch here also stands in the WAL or in the tier.
//! Refuses: nothing.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use crate::log::partition::Partition;

pub(crate) struct Tail {
    bytes_max: usize,
    order: Mutex<Order>,
}

#[derive(Default)]
struct Order {
    batches: VecDeque<(Arc<Partition>, usize)>,
    bytes: usize,
}

impl Tail {
    pub(crate) fn new(bytes_max: usize) -> Tail {
        Tail {
            bytes_max,
            order: Mutex::default(),
        }
    }

    /// Counts a batch that was just put into a partition's tail, and evicts what is too much.
    pub(crate) fn added(&self, partition: &Arc<Partition>, bytes: usize) {
        let mut order = self.order.lock().unwrap_or_else(PoisonError::into_inner);
        order.batches.push_back((Arc::clone(partition), bytes));
        order.bytes += bytes;
        while order.bytes > self.bytes_max {
            let Some((oldest, bytes)) = order.batches.pop_front() else {
                break;
            };
            order.bytes -= bytes;
            oldest.evict_oldest();
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.order
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .bytes
    }
}
