//! What a partition admits from producers that number their batches.
//!
//! Called by the broker, under the lock that gives out offsets. Invariants: a batch that was
//! written once is recognised while it is among the last five of its producer; an older epoch
//! never writes again; memory is bounded by `PRODUCERS_PER_PARTITION_MAX`. Refuses gaps.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use crate::batch::Producer;
use crate::ids::{Offset, ProducerId};
use crate::limits::{PRODUCER_BATCHES_REMEMBERED, PRODUCERS_PER_PARTITION_MAX};

/// What to do with a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// Write it.
    New,
    /// It is there already: acknowledge it with this offset.
    Duplicate { base_offset: Offset },
    /// A newer life of the producer has written: refuse.
    Fenced {
        /// The epoch that has written.
        current: u16,
    },
    /// Batches between are missing, or it is older than what is remembered: refuse.
    OutOfOrder {
        /// The sequence number that is due.
        expected: u32,
    },
}

/// The producers of one partition and their last batches.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ProducerTable {
    producers: BTreeMap<ProducerId, Life>,
}

/// The newest life of a producer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Life {
    epoch: u16,
    /// The last batches, oldest first; empty only when all were taken back.
    batches: VecDeque<Written>,
    /// The sequence number that is due when `batches` is empty.
    #[serde(default)]
    due: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Written {
    sequence: u32,
    records: u32,
    base_offset: Offset,
}

impl Life {
    /// The sequence number after the last batch.
    fn expected(&self) -> u32 {
        self.batches
            .back()
            .map_or(self.due, |last| last.sequence.wrapping_add(last.records))
    }
}

impl ProducerTable {
    /// An empty table.
    pub fn new() -> ProducerTable {
        ProducerTable::default()
    }

    /// What to do with a batch of `records` records from `producer`. A producer that is not
    /// known, or forgotten, may begin anywhere; a new epoch begins at sequence 0.
    pub fn admit(&self, producer: Producer, records: u32) -> Admission {
        let Some(life) = self.producers.get(&producer.id) else {
            return Admission::New;
        };
        if producer.epoch < life.epoch {
            return Admission::Fenced {
                current: life.epoch,
            };
        }
        if producer.epoch > life.epoch {
            return match producer.sequence {
                0 => Admission::New,
                _ => Admission::OutOfOrder { expected: 0 },
            };
        }
        let same = |w: &&Written| w.sequence == producer.sequence && w.records == records;
        if let Some(written) = life.batches.iter().find(same) {
            return Admission::Duplicate {
                base_offset: written.base_offset,
            };
        }
        match life.expected() {
            expected if expected == producer.sequence => Admission::New,
            expected => Admission::OutOfOrder { expected },
        }
    }

    /// Remembers a batch that was given `base_offset`. Also used to rebuild the table from the
    /// log, in its order.
    pub fn record(&mut self, producer: Producer, records: u32, base_offset: Offset) {
        let fresh = Life {
            epoch: producer.epoch,
            batches: VecDeque::new(),
            due: 0,
        };
        let life = self.producers.entry(producer.id).or_insert(fresh);
        if life.epoch != producer.epoch {
            life.epoch = producer.epoch;
            life.batches.clear();
        }
        if life.batches.len() == PRODUCER_BATCHES_REMEMBERED {
            life.batches.pop_front();
        }
        life.batches.push_back(Written {
            sequence: producer.sequence,
            records,
            base_offset,
        });
        if self.producers.len() > PRODUCERS_PER_PARTITION_MAX {
            self.forget_oldest();
        }
    }

    /// Takes back what was recorded at or after `end`: those batches were admitted and then not
    /// written. Their producers must send them again, in order.
    pub fn truncate(&mut self, end: Offset) {
        for life in self.producers.values_mut() {
            while let Some(last) = life.batches.pop_back_if(|last| last.base_offset >= end) {
                life.due = last.sequence;
            }
        }
    }

    /// The largest id among the remembered producers.
    pub fn id_max(&self) -> Option<ProducerId> {
        self.producers.keys().next_back().copied()
    }

    /// Forgets the batches at and after `from`: they were not written after all. A producer
    /// of which nothing is left may begin anywhere again.
    pub fn roll_back(&mut self, from: Offset) {
        self.producers.retain(|_, life| {
            life.batches.retain(|w| w.base_offset < from);
            !life.batches.is_empty()
        });
    }

    /// How many producers are remembered.
    pub fn len(&self) -> usize {
        self.producers.len()
    }

    /// Whether no producer is remembered.
    pub fn is_empty(&self) -> bool {
        self.producers.is_empty()
    }

    /// Forgets the tenth that has been idle for longest, so that this is not done each time.
    fn forget_oldest(&mut self) {
        let last = |life: &Life| life.batches.back().map_or(0, |w| w.base_offset);
        let mut offsets: Vec<Offset> = self.producers.values().map(last).collect();
        offsets.sort_unstable();
        let cut = offsets[offsets.len() / 10];
        self.producers.retain(|_, life| last(life) > cut);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn producer(epoch: u16, sequence: u32) -> Producer {
        Producer {
            id: ProducerId(7),
            epoch,
            sequence,
        }
    }

    fn check(table: &ProducerTable, epoch: u16, sequence: u32, records: u32, expected: Admission) {
        assert_eq!(table.admit(producer(epoch, sequence), records), expected);
    }

    #[test]
    fn admission() {
        use Admission::*;
        let mut table = ProducerTable::new();
        check(&table, 1, 40, 10, New);
        table.record(producer(1, 0), 10, 100);
        table.record(producer(1, 10), 5, 110);
        check(&table, 1, 15, 1, New);
        check(&table, 1, 10, 5, Duplicate { base_offset: 110 });
        check(&table, 1, 10, 6, OutOfOrder { expected: 15 });
        check(&table, 1, 16, 1, OutOfOrder { expected: 15 });
        check(&table, 0, 15, 1, Fenced { current: 1 });
        check(&table, 2, 15, 1, OutOfOrder { expected: 0 });
        check(&table, 2, 0, 1, New);
        table.record(producer(2, 0), 1, 200);
        check(&table, 1, 15, 1, Fenced { current: 2 });
    }

    #[test]
    fn what_was_not_written_is_due_again() {
        use Admission::*;
        let mut table = ProducerTable::new();
        for sequence in 0..7 {
            table.record(producer(1, sequence), 1, u64::from(sequence));
        }
        assert_eq!(table.id_max(), Some(ProducerId(7)));
        table.truncate(5);
        check(&table, 1, 4, 1, Duplicate { base_offset: 4 });
        check(&table, 1, 6, 1, OutOfOrder { expected: 5 });
        check(&table, 1, 5, 1, New);
        table.truncate(0);
        check(&table, 1, 5, 1, OutOfOrder { expected: 2 });
        check(&table, 1, 2, 1, New);
        check(&table, 0, 2, 1, Fenced { current: 1 });
    }

    #[test]
    fn what_was_not_written_is_rolled_back() {
        let mut table = ProducerTable::new();
        table.record(producer(1, 0), 10, 100);
        table.record(producer(1, 10), 5, 110);
        table.roll_back(110);
        check(&table, 1, 10, 5, Admission::New);
        check(&table, 1, 0, 10, Admission::Duplicate { base_offset: 100 });
        table.roll_back(0);
        assert!(table.is_empty());
    }

    #[test]
    fn sequences_wrap() {
        let mut table = ProducerTable::new();
        table.record(producer(0, u32::MAX - 1), 4, 0);
        check(&table, 0, 2, 1, Admission::New);
    }

    #[test]
    fn memory_is_bounded() {
        let mut table = ProducerTable::new();
        for id in 0..3 * PRODUCERS_PER_PARTITION_MAX as u64 {
            let producer = Producer {
                id: ProducerId(id),
                epoch: 0,
                sequence: 0,
            };
            table.record(producer, 1, id);
            assert!(table.len() <= PRODUCERS_PER_PARTITION_MAX);
        }
        let newest = ProducerId(3 * PRODUCERS_PER_PARTITION_MAX as u64 - 1);
        assert!(table.producers.contains_key(&newest));
    }

    proptest! {
        /// However often the last five batches are sent again, each is written once.
        #[test]
        fn retries_write_nothing_twice(
            resends in prop::collection::vec((0usize..5, 1u32..9), 1..80),
        ) {
            let mut table = ProducerTable::new();
            let mut log: Vec<(u32, u32, Offset)> = Vec::new();
            let (mut sequence, mut end) = (0u32, 0);
            for (back, records) in resends {
                if let Some((seq, records, base)) = log.iter().rev().nth(back) {
                    prop_assert_eq!(
                        table.admit(producer(0, *seq), *records),
                        Admission::Duplicate { base_offset: *base }
                    );
                }
                prop_assert_eq!(table.admit(producer(0, sequence), records), Admission::New);
                table.record(producer(0, sequence), records, end);
                log.push((sequence, records, end));
                sequence += records;
                end += u64::from(records);
            }
            let json = serde_json::to_string(&table).unwrap();
            prop_assert_eq!(serde_json::from_str::<ProducerTable>(&json).unwrap(), table);
        }
    }
}
