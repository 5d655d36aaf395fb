//! Recent batches in memory, byte-bounded over the whole store.
//!
//! Called by: `log::commit`; partitions hold the batches, this holds their order.
//! Invariants: what is evicted is the oldest over all partitions, so each partition, busy or
//! not, keeps what was appended in the same last span of time; a batch comes and goes in constant
//! time however many partitions there are; eviction takes memory only, every batch here also
//! stands in the WAL or in the tier.
//! Refuses: nothing.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use model::Batch;

use crate::log::partition::{Partition, Slot};

/// What a batch takes beside its bytes: its place in the partition's tail and index, and here.
const BATCH_OVERHEAD: usize = size_of::<Batch>() + size_of::<Slot>() + 32;

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
    pub(crate) fn added(&self, partition: Arc<Partition>, bytes: usize) {
        let bytes = bytes + BATCH_OVERHEAD;
        let mut order = self.order.lock().unwrap_or_else(PoisonError::into_inner);
        order.batches.push_back((partition, bytes));
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

#[cfg(test)]
mod tests {
    use model::{PartitionId, TopicId};

    use super::*;
    use crate::config::PartitionConfig;

    #[test]
    fn ten_thousand_partitions_share_by_age_and_stay_within_the_bytes() {
        let tail = Tail::new(10_000 * (100 + BATCH_OVERHEAD));
        let partition = |index| {
            let id = PartitionId::new(TopicId(1), index);
            Arc::new(Partition::empty(PartitionConfig::new(id, "t")))
        };
        let all: Vec<Arc<Partition>> = (0..10_000).map(partition).collect();
        for partition in &all {
            tail.added(Arc::clone(partition), 100);
        }
        let held = |partition: &Arc<Partition>| {
            let order = tail.order.lock().unwrap();
            let is_it = |of: &&(Arc<Partition>, usize)| Arc::ptr_eq(&of.0, partition);
            order.batches.iter().filter(is_it).count()
        };
        assert_eq!((held(&all[0]), held(&all[9_999])), (1, 1));
        // One that writes as much as a half of all takes the room of the older half, no more.
        (0..5_000).for_each(|_| tail.added(Arc::clone(&all[9_999]), 100));
        assert_eq!((held(&all[4_999]), held(&all[5_000])), (0, 1));
        assert!(tail.bytes() <= 10_000 * (100 + BATCH_OVERHEAD));
        tail.added(Arc::clone(&all[0]), usize::MAX / 2);
        assert_eq!(tail.bytes(), 0, "what is larger than all is not kept");
    }
}
