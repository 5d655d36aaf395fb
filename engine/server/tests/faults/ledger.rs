//! What the clients know, and the checker that holds it against what the server has.
//!
//! Called by: `kill`. The checker knows nothing of the product but topics, partitions, offsets
//! and values; the list of what it looks for follows Jepsen's for Kafka-like logs: lost writes,
//! doubles, order within a producer, one value per offset, phantoms, unseen records, commits
//! that go back. An operation without an answer is unknown, never failed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

/// One producer's records are numbered from 0, each number sent once.
pub type ProducerName = u64;

/// Partition and offset.
pub type Place = (u32, u64);

/// A record as the tests write it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Numbered {
    pub p: ProducerName,
    pub n: u64,
}

impl Numbered {
    pub fn key(self) -> String {
        format!("k{}", self.n % 7)
    }

    pub fn value(self) -> String {
        let Numbered { p, n } = self;
        format!(
            "{{\"p\":{p},\"n\":{n},\"pad\":\"{}\"}}",
            "x".repeat((n % 180) as usize)
        )
    }

    pub fn parse(value: &[u8]) -> Numbered {
        let read: serde_json::Value = serde_json::from_slice(value).expect("it was sent as JSON");
        let number = |name: &str| read[name].as_u64().expect("it was sent as a number");
        Numbered {
            p: number("p"),
            n: number("n"),
        }
    }

    /// What the pipeline's filter lets through.
    pub fn passes(self) -> bool {
        !self.n.is_multiple_of(3)
    }
}

/// What one producer was told.
#[derive(Clone, Copy, Debug, Default)]
pub struct Told {
    /// Handed to the producer: numbers below it.
    pub sent: u64,
    /// Acked for sure: numbers below it.
    pub acked: u64,
    /// Acked by count, whichever they are.
    pub acked_count: u64,
}

#[derive(Clone, Debug, Default)]
pub struct Operated {
    pub topics: Vec<String>,
    /// Of the pipeline.
    pub generation: u64,
}

#[derive(Default)]
pub struct Ledger {
    pub told: Mutex<BTreeMap<ProducerName, Told>>,
    /// What group members saw, by place.
    pub seen: Mutex<BTreeMap<Place, Numbered>>,
    /// Commits of the group that were answered.
    pub committed: Mutex<BTreeMap<u32, u64>>,
    /// What the operator was answered.
    pub operated: Mutex<Operated>,
    /// What went wrong while it ran.
    pub faults: Mutex<Vec<String>>,
}

/// A whole topic: per partition, offsets and records in order.
pub type Scan = BTreeMap<u32, Vec<(u64, Numbered)>>;

#[derive(Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    pub records: u64,
    pub acked: u64,
    pub lost: u64,
    pub doubled: u64,
    pub reordered: u64,
    pub unknown_present: u64,
    pub faults: Vec<String>,
}

impl Ledger {
    pub fn fault(&self, what: String) {
        self.faults.lock().unwrap().push(what);
    }

    /// A group member was given a record.
    pub fn saw(&self, place: Place, record: Numbered) {
        let before = self.seen.lock().unwrap().insert(place, record);
        if before.is_some_and(|before| before != record) {
            self.fault(format!(
                "two records at {place:?}: {before:?} and {record:?}"
            ));
        }
    }

    pub fn committed(&self, partition: u32, offset: u64) {
        let mut committed = self.committed.lock().unwrap();
        let known = committed.entry(partition).or_default();
        *known = offset.max(*known);
    }

    /// The input topic against what producers and group members know.
    pub fn check(&self, scan: &Scan) -> Verdict {
        let mut verdict = Verdict {
            faults: self.faults.lock().unwrap().clone(),
            ..Verdict::default()
        };
        let mut present: BTreeMap<ProducerName, BTreeSet<u64>> = BTreeMap::new();
        for (partition, records) in scan {
            let mut last: BTreeMap<ProducerName, u64> = BTreeMap::new();
            for (index, (offset, record)) in records.iter().enumerate() {
                verdict.records += 1;
                if *offset != index as u64 {
                    verdict.faults.push(format!(
                        "partition {partition}: offset {offset} is number {index}"
                    ));
                }
                if !present.entry(record.p).or_default().insert(record.n) {
                    verdict.doubled += 1;
                    verdict
                        .faults
                        .push(format!("doubled: {record:?} again at {partition}/{offset}"));
                }
                let before = last.insert(record.p, record.n);
                if before.is_some_and(|before| before >= record.n) {
                    verdict.reordered += 1;
                    verdict.faults.push(format!(
                        "order: {record:?} at {partition}/{offset} after {before:?}"
                    ));
                }
            }
        }
        self.check_producers(&present, &mut verdict);
        self.check_group(scan, &mut verdict);
        verdict.faults.truncate(20);
        verdict
    }

    fn check_producers(
        &self,
        present: &BTreeMap<ProducerName, BTreeSet<u64>>,
        verdict: &mut Verdict,
    ) {
        let none = BTreeSet::new();
        let told = self.told.lock().unwrap();
        for (p, told) in told.iter() {
            let there = present.get(p).unwrap_or(&none);
            let lost: Vec<u64> = (0..told.acked).filter(|n| !there.contains(n)).collect();
            verdict.lost += lost.len() as u64;
            verdict.acked += told.acked.max(told.acked_count);
            verdict.unknown_present += there.range(told.acked..).count() as u64;
            if let (Some(first), Some(last)) = (lost.first(), lost.last()) {
                let count = lost.len();
                verdict.faults.push(format!(
                    "lost: {count} acked records of producer {p}, {first} to {last}"
                ));
            }
            if (there.len() as u64) < told.acked_count {
                let (there, acked) = (there.len(), told.acked_count);
                verdict.faults.push(format!(
                    "lost: producer {p} has {acked} acks, {there} are there"
                ));
            }
            if let Some(phantom) = there.range(told.sent..).next() {
                verdict
                    .faults
                    .push(format!("phantom: producer {p} never sent {phantom}"));
            }
        }
        for p in present.keys().filter(|p| !told.contains_key(p)) {
            verdict
                .faults
                .push(format!("phantom: there is no producer {p}"));
        }
    }

    fn check_group(&self, scan: &Scan, verdict: &mut Verdict) {
        let mut seen = self.seen.lock().unwrap().clone();
        for (partition, records) in scan {
            for (offset, record) in records {
                match seen.remove(&(*partition, *offset)) {
                    Some(same) if same == *record => {}
                    Some(other) => verdict.faults.push(format!(
                        "the group saw {other:?} at {partition}/{offset}, where {record:?} is"
                    )),
                    None => verdict
                        .faults
                        .push(format!("unseen by the group: {partition}/{offset}")),
                }
            }
        }
        for (place, record) in seen {
            verdict.faults.push(format!(
                "the group saw {record:?} at {place:?}, where nothing is"
            ));
        }
    }
}

/// What is wrong with the pipeline's output, given its input: exactly once and in order.
pub fn check_output(input: &Scan, output: &Scan) -> Option<String> {
    for (partition, records) in input {
        let wanted = records
            .iter()
            .map(|(_, record)| record)
            .filter(|record| record.passes());
        let got = output
            .get(partition)
            .into_iter()
            .flatten()
            .map(|(_, record)| record);
        let (wanted, got): (Vec<_>, Vec<_>) = (wanted.collect(), got.collect());
        if let Some(at) = wanted
            .iter()
            .zip(&got)
            .position(|(wanted, got)| wanted != got)
        {
            let (wanted, got) = (wanted[at], got[at]);
            return Some(format!(
                "output {partition}/{at} is {got:?}, not {wanted:?}"
            ));
        }
        if wanted.len() != got.len() {
            let (wanted, got) = (wanted.len(), got.len());
            return Some(format!(
                "output {partition} has {got} records, not {wanted}"
            ));
        }
    }
    None
}

/// What is wrong with the compacted copy of an input: of each key the newest record, in order,
/// each where it always was; others may be left.
pub fn check_newest(input: &Scan, newest: &Scan) -> Option<String> {
    for (partition, records) in input {
        let left = newest.get(partition).into_iter().flatten();
        let mut last = None;
        let mut values = BTreeMap::new();
        for (offset, record) in left {
            if last.is_some_and(|last| last >= *offset) {
                return Some(format!("newest {partition}/{offset} comes after {last:?}"));
            }
            last = Some(*offset);
            let wanted = records.get(*offset as usize).map(|(_, record)| record);
            if wanted != Some(record) {
                return Some(format!(
                    "newest {partition}/{offset} is {record:?}, not {wanted:?}"
                ));
            }
            values.insert(record.key(), *record);
        }
        let all = records
            .iter()
            .map(|(_, record)| (record.key(), *record))
            .collect::<BTreeMap<_, _>>();
        if values != all {
            return Some(format!("newest {partition} says {values:?}, not {all:?}"));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger(sent: u64, acked: u64) -> Ledger {
        let ledger = Ledger::default();
        ledger.told.lock().unwrap().insert(
            1,
            Told {
                sent,
                acked,
                acked_count: acked,
            },
        );
        ledger
    }

    fn scan(numbers: &[u64]) -> Scan {
        let record = |(i, n): (usize, &u64)| (i as u64, Numbered { p: 1, n: *n });
        BTreeMap::from([(0, numbers.iter().enumerate().map(record).collect())])
    }

    /// The checker must be able to fail: each planted fault is found.
    #[test]
    fn planted_faults_are_found() {
        let check = |numbers: &[u64], part: &str| {
            let ledger = ledger(5, 3);
            let scan = scan(numbers);
            scan[&0]
                .iter()
                .for_each(|(offset, record)| ledger.saw((0, *offset), *record));
            let verdict = ledger.check(&scan);
            let found = verdict.faults.join("\n");
            assert!(
                found.contains(part) && found.is_empty() == part.is_empty(),
                "{numbers:?}: {found}"
            );
        };
        check(&[0, 1, 2], "");
        check(&[0, 1, 2, 3, 4], "");
        check(&[0, 2, 3], "lost: 1 acked");
        check(&[0, 1, 2, 2], "doubled");
        check(&[1, 0, 2], "order");
        check(&[0, 1, 2, 7], "phantom");
        let ledger = ledger(3, 3);
        ledger.saw((0, 0), Numbered { p: 1, n: 0 });
        ledger.saw((0, 0), Numbered { p: 1, n: 1 });
        ledger.saw((9, 9), Numbered { p: 1, n: 1 });
        let found = ledger.check(&scan(&[0, 1, 2])).faults.join("\n");
        for part in [
            "two records at (0, 0)",
            "unseen by the group: 0/1",
            "where nothing is",
        ] {
            assert!(found.contains(part), "{part}: {found}");
        }
        // Keys of 0 to 6 are their own; 7 and 8 are newer than 0 and 1.
        let input = scan(&[0, 1, 2, 7, 8]);
        let newest = |left: &[(u64, u64)]| {
            let record = |(offset, n): &(u64, u64)| (*offset, Numbered { p: 1, n: *n });
            let left = BTreeMap::from([(0, left.iter().map(record).collect())]);
            check_newest(&input, &left).unwrap_or_default()
        };
        assert_eq!(newest(&[(2, 2), (3, 7), (4, 8)]), "");
        assert_eq!(newest(&[(0, 0), (2, 2), (3, 7), (4, 8)]), "");
        assert!(newest(&[(2, 2), (4, 8)]).contains("says"), "lost");
        assert!(
            newest(&[(0, 0), (2, 2), (4, 8)]).contains("says"),
            "an older one is back"
        );
        assert!(newest(&[(2, 2), (4, 8), (3, 7)]).contains("after"));
        assert!(newest(&[(2, 2), (3, 8), (4, 8)]).contains("not"));
        let out = |numbers| check_output(&scan(&[0, 1, 2, 3, 4]), &scan(numbers));
        assert_eq!(out(&[1, 2, 4]), None);
        assert!(
            out(&[1, 2]).is_some() && out(&[1, 2, 4, 4]).is_some() && out(&[2, 1, 4]).is_some()
        );
    }
}
