//! Admission by examples, and beside a naive log: lossy lines, full disks, restarts.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

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
    check(&table, 1, 40, 10, OutOfOrder { expected: 0 });
    check(&table, 1, 0, 10, New);
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

/// What a producer of the run has in hand: batches to be acked, in order.
#[derive(Clone, Debug, Default)]
struct Sender {
    epoch: u16,
    /// Sequence and records of what is not acked.
    unacked: VecDeque<(u32, u32)>,
    /// How many of them are under way.
    sent: usize,
    next: u32,
}

#[derive(Clone, Debug)]
enum Event {
    /// The producer has another batch of so many records.
    Batch(usize, u32),
    /// The next batch under way reaches the partition, or is refused there for a passing reason;
    /// its answer arrives, or is lost.
    Arrive {
        producer: usize,
        refused: bool,
        lost: bool,
    },
    /// All that waits for the disk is durable.
    Durable,
    /// The disk was full: what was not durable was not written.
    Full,
    /// The broker starts again from what is durable.
    Restart,
    /// The producer gives up its life and begins another with what it has not seen acked.
    Again(usize),
}

fn event() -> impl Strategy<Value = Event> {
    let producer = 0usize..3;
    let often = prop::bool::weighted(0.2);
    prop_oneof![
        4 => (producer.clone(), 1u32..4).prop_map(|(p, records)| Event::Batch(p, records)),
        12 => (producer.clone(), often, often)
            .prop_map(|(producer, refused, lost)| Event::Arrive { producer, refused, lost }),
        3 => Just(Event::Durable),
        1 => Just(Event::Full),
        1 => Just(Event::Restart),
        1 => producer.prop_map(Event::Again),
    ]
}

/// Batches under way of one producer, as its client allows.
const IN_FLIGHT: usize = 5;

/// A batch as it stands in the log: whose, of which life, sequence, records, base offset.
type Line = (usize, u16, u32, u32, Offset);

#[derive(Default)]
struct Run {
    table: ProducerTable,
    log: Vec<Line>,
    /// Lines of the log that are durable.
    durable: usize,
    senders: [Sender; 3],
}

impl Run {
    fn end(&self) -> Offset {
        self.log.last().map_or(0, |line| line.4 + u64::from(line.3))
    }

    fn step(&mut self, event: Event) {
        match event {
            Event::Batch(who, records) => {
                let sender = &mut self.senders[who];
                sender.unacked.push_back((sender.next, records));
                sender.next += records;
            }
            Event::Arrive {
                producer,
                refused,
                lost,
            } => self.arrive(producer, refused, lost),
            Event::Durable => self.durable = self.log.len(),
            Event::Full => {
                self.log.truncate(self.durable);
                self.table.truncate(self.end());
                self.senders.iter_mut().for_each(|sender| sender.sent = 0);
            }
            Event::Restart => {
                self.log.truncate(self.durable);
                // From the last batches alone, as a store hands them on.
                let before = std::mem::take(&mut self.table);
                for (who, epoch, sequence, records, base) in self.log.clone() {
                    self.table
                        .record(numbered(who, epoch, sequence), records, base);
                }
                let mut again = ProducerTable::new();
                for (producer, records, base) in self.table.batches() {
                    again.record(producer, records, base);
                }
                assert_eq!(again, self.table);
                drop(before);
                self.senders.iter_mut().for_each(|sender| sender.sent = 0);
            }
            Event::Again(who) => {
                let sender = &mut self.senders[who];
                sender.epoch += 1;
                (sender.sent, sender.next) = (0, 0);
                for (sequence, records) in &mut sender.unacked {
                    *sequence = sender.next;
                    sender.next += *records;
                }
            }
        }
    }

    /// Trouble with one batch does not stop those behind it: they are under way already.
    fn arrive(&mut self, who: usize, refused: bool, lost: bool) {
        let sender = &mut self.senders[who];
        let Some((sequence, records)) = sender.unacked.get(sender.sent).copied() else {
            sender.sent = 0;
            return;
        };
        let producer = numbered(who, sender.epoch, sequence);
        let acked = !refused && self.admit(who, producer, records);
        let sender = &mut self.senders[who];
        if acked && !lost && sender.sent == 0 {
            // Durable before it is answered.
            self.durable = self.log.len();
            sender.unacked.pop_front();
            return;
        }
        sender.sent += 1;
        if sender.sent == IN_FLIGHT {
            sender.sent = 0;
        }
    }

    fn admit(&mut self, who: usize, producer: Producer, records: u32) -> bool {
        match self.table.admit(producer, records) {
            Admission::New => {
                let base = self.end();
                self.table.record(producer, records, base);
                let line = (who, producer.epoch, producer.sequence, records, base);
                self.log.push(line);
                true
            }
            Admission::Duplicate { base_offset } => {
                let line = (who, producer.epoch, producer.sequence, records, base_offset);
                assert!(self.log.contains(&line), "{line:?} of {:?}", self.log);
                true
            }
            Admission::OutOfOrder { .. } => false,
            Admission::Fenced { current } => panic!("fenced by its own life {current}"),
        }
    }

    /// The batches of a life stand in the log in the order of their numbers, each once, and
    /// lives one after the other.
    fn check(&self) {
        for who in 0..3 {
            let mut at = (0, 0);
            for (_, epoch, sequence, records, _) in self.log.iter().filter(|line| line.0 == who) {
                if *epoch > at.0 {
                    at = (*epoch, 0);
                }
                assert_eq!((*epoch, *sequence), at, "{:?}", self.log);
                at.1 += records;
            }
        }
    }
}

fn numbered(who: usize, epoch: u16, sequence: u32) -> Producer {
    let id = ProducerId(who as u64);
    Producer {
        id,
        epoch,
        sequence,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    #[test]
    fn each_batch_once_and_in_order_whatever_fails(
        events in prop::collection::vec(event(), 1..120),
    ) {
        let mut run = Run::default();
        for event in events {
            run.step(event);
            run.check();
        }
        // Without further trouble all gets through.
        for who in 0..3 {
            run.senders[who].sent = 0;
            while !run.senders[who].unacked.is_empty() {
                let left = run.senders[who].unacked.len();
                run.arrive(who, false, false);
                prop_assert!(run.senders[who].unacked.len() < left, "it is stuck");
            }
        }
        run.check();
    }
}

#[test]
fn only_who_may_have_been_forgotten_begins_anywhere() {
    let mut table = ProducerTable::new();
    for id in 0..=PRODUCERS_PER_PARTITION_MAX as u64 {
        table.record(numbered(id as usize, 0, 0), 1, id);
    }
    let admit = |id: u64| table.admit(numbered(id as usize, 0, 40), 1);
    assert_eq!(admit(3), Admission::New);
    assert_eq!(admit(9_000), Admission::OutOfOrder { expected: 1 });
    assert_eq!(admit(20_000), Admission::OutOfOrder { expected: 0 });
}
