//! What a partition admits from producers that number their batches.
//!
//! Called by the broker, under the lock that gives out offsets, and by storage, which remembers
//! what became durable. Invariants: a batch that was written once is recognised while it is among
//! the last five of its producer; an older epoch never writes again; the batches of an epoch are
//! written in the order of their numbers, from 0 on, each once; memory is bounded by
//! `PRODUCERS_PER_PARTITION_MAX`. Ids are handed out in growing order, so an id above all that
//! were forgotten is new. Refuses gaps.

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
    /// The largest id that may have been forgotten: such a producer may begin anywhere.
    #[serde(default)]
    forgotten: Option<ProducerId>,
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

    /// What to do with a batch of `records` records from `producer`. A new producer and a new
    /// epoch begin at sequence 0; one that may have been forgotten begins anywhere.
    pub fn admit(&self, producer: Producer, records: u32) -> Admission {
        let Some(life) = self.producers.get(&producer.id) else {
            let is_forgotten = Some(producer.id) <= self.forgotten;
            return match producer.sequence == 0 || is_forgotten {
                true => Admission::New,
                false => Admission::OutOfOrder { expected: 0 },
            };
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

    /// All remembered batches with their records and base offsets, in the order of these.
    pub fn batches(&self) -> Vec<(Producer, u32, Offset)> {
        let of_life = |(id, life): (&ProducerId, &Life)| {
            let (id, epoch) = (*id, life.epoch);
            let one = move |w: &Written| {
                let sequence = w.sequence;
                let producer = Producer {
                    id,
                    epoch,
                    sequence,
                };
                (producer, w.records, w.base_offset)
            };
            life.batches.iter().map(one).collect::<Vec<_>>()
        };
        let mut batches: Vec<_> = self.producers.iter().flat_map(of_life).collect();
        batches.sort_by_key(|(_, _, base_offset)| *base_offset);
        batches
    }

    /// The largest id among the remembered producers.
    pub fn id_max(&self) -> Option<ProducerId> {
        self.producers.keys().next_back().copied()
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
        let gone = self.producers.extract_if(.., |_, life| last(life) <= cut);
        let newest = gone.map(|(id, _)| id).max();
        self.forgotten = self.forgotten.max(newest);
    }

    /// Whether some producers may have been forgotten.
    pub fn has_forgotten(&self) -> bool {
        self.forgotten.is_some()
    }

    /// Some of the producers up to now were forgotten elsewhere.
    pub fn forgot_some(&mut self) {
        self.forgotten = self.forgotten.max(self.id_max());
    }
}

#[cfg(test)]
mod tests;
