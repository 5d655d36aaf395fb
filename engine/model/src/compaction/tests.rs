//! Compaction beside a plain map: whatever passes run, and whoever reads meanwhile.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;

use super::*;

const SECOND_US: i64 = 1_000_000;
const RETENTION: Duration = Duration::from_secs(20);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Record {
    offset: Offset,
    key: u8,
    /// None is a tombstone.
    value: Option<u32>,
}

#[derive(Clone, Debug)]
enum Step {
    /// Records of these keys, the tombstones among them marked.
    Append(Vec<(u8, bool)>),
    /// A pass over all but the newest few, with room for so many keys.
    Compact {
        head: usize,
        keys: usize,
    },
    Wait {
        seconds: i64,
    },
    /// The reader takes a few records.
    Read(usize),
    /// The reader begins anew.
    Again,
}

fn step() -> impl Strategy<Value = Step> {
    let record = (0u8..6, prop::bool::weighted(0.3));
    prop_oneof![
        4 => prop::collection::vec(record, 1..8).prop_map(Step::Append),
        4 => (0usize..6, 1usize..8).prop_map(|(head, keys)| Step::Compact { head, keys }),
        2 => (1i64..15).prop_map(|seconds| Step::Wait { seconds }),
        3 => (1usize..6).prop_map(Step::Read),
        1 => Just(Step::Again),
    ]
}

type State = BTreeMap<u8, u32>;

fn apply(map: &mut State, record: &Record) {
    match record.value {
        Some(value) => map.insert(record.key, value),
        None => map.remove(&record.key),
    };
}

#[derive(Default)]
struct Reader {
    next: Offset,
    began_us: i64,
    map: State,
}

#[derive(Default)]
struct World {
    log: Vec<Record>,
    end: Offset,
    truth: State,
    compacted: Compacted,
    now_us: i64,
    reader: Reader,
}

impl World {
    fn step(&mut self, step: Step) {
        match step {
            Step::Append(records) => records.into_iter().for_each(|(key, dead)| {
                let value = (!dead).then_some(self.end as u32);
                let record = Record {
                    offset: self.end,
                    key,
                    value,
                };
                self.end += 1;
                apply(&mut self.truth, &record);
                self.log.push(record);
            }),
            Step::Compact { head, keys } => self.compact(head, keys),
            Step::Wait { seconds } => self.now_us += seconds * SECOND_US,
            Step::Read(count) => {
                let from = self.log.partition_point(|r| r.offset < self.reader.next);
                for record in self.log[from..].iter().take(count) {
                    apply(&mut self.reader.map, record);
                    self.reader.next = record.offset + 1;
                }
            }
            Step::Again => {
                let began_us = self.now_us;
                self.reader = Reader {
                    began_us,
                    ..Reader::default()
                };
            }
        }
    }

    fn compact(&mut self, head: usize, keys: usize) {
        let mut latest = LatestOffsets::new(keys * KEY_BYTES);
        let until = self.log.len().saturating_sub(head);
        let dirty = self
            .log
            .partition_point(|r| r.offset < self.compacted.end());
        let hash = |record: &Record| KeyHash::of(&[record.key]);
        let mut last = None;
        for record in self.log[..until].get(dirty..).unwrap_or_default() {
            if latest.is_full() {
                break;
            }
            latest.note(hash(record), record.offset);
            last = Some(record.offset);
        }
        let Some(last) = last else { return };
        let horizon = self.compacted.horizon_at(self.now_us, RETENTION);
        let pass = Pass {
            latest,
            last: Some(last),
            horizon,
        };
        let (mut tombstones, before) = (0, self.compacted.end());
        self.log.retain(|record| {
            let is_tombstone = record.value.is_none();
            let fact = Fact {
                key: Some(hash(record)),
                offset: record.offset,
                is_tombstone,
            };
            let stays = record.offset > last || pass.keeps(&fact);
            tombstones += u64::from(stays && is_tombstone && record.offset <= last);
            stays
        });
        self.compacted
            .add(last + 1, self.now_us, tombstones, horizon);
        assert!(self.compacted.end() > before, "a pass gets on");
    }

    fn check(&self) {
        let mut map = State::new();
        self.log.iter().for_each(|record| apply(&mut map, record));
        assert_eq!(map, self.truth, "what is left says the same");
        let clean = self.log.iter().filter(|r| r.offset < self.compacted.end());
        let mut seen = BTreeMap::new();
        for record in clean {
            assert_eq!(
                seen.insert(record.key, record.offset),
                None,
                "one record a key"
            );
        }
        let reader = &self.reader;
        let took = Duration::from_micros((self.now_us - reader.began_us) as u64);
        if reader.next == self.end && took < RETENTION {
            assert_eq!(
                reader.map, self.truth,
                "a reader from the start ends with the same"
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    #[test]
    fn whatever_passes_run_the_map_stays(steps in prop::collection::vec(step(), 1..60)) {
        let mut world = World::default();
        for step in steps {
            world.step(step);
            world.check();
        }
    }

    /// Passes that are left out of the memory only delay.
    #[test]
    fn memory_of_passes_is_bounded(gaps in prop::collection::vec(0i64..100, 1..200)) {
        let mut compacted = Compacted::default();
        let mut all: Vec<Cleaned> = Vec::new();
        let mut at_us = 0;
        for (number, gap) in gaps.into_iter().enumerate() {
            at_us += gap * SECOND_US;
            let end = number as Offset + 1;
            all.push(Cleaned { end, at_us });
            let horizon = compacted.horizon_at(at_us, RETENTION);
            compacted.add(end, at_us, 1, horizon);
            prop_assert!(compacted.passes.len() <= COMPACTION_PASSES_REMEMBERED);
            prop_assert_eq!(compacted.end(), end);
            for later in [0, 10, 20, 21, 50].map(|seconds| at_us + seconds * SECOND_US) {
                let exact = Compacted { passes: all.clone(), ..Compacted::default() };
                let (now, true_now) =
                    (compacted.horizon_at(later, RETENTION), exact.horizon_at(later, RETENTION));
                prop_assert!(now <= true_now, "{} of {}", now, true_now);
            }
            let forever = at_us + 1_000 * SECOND_US;
            prop_assert_eq!(compacted.horizon_at(forever, RETENTION), end);
        }
    }
}

#[test]
fn tombstones_go_when_their_time_is_over() {
    let mut compacted = Compacted::default();
    assert_eq!(compacted.horizon_at(i64::MAX, RETENTION), 0);
    compacted.add(10, 0, 2, 0);
    assert_eq!(compacted.horizon_at(20 * SECOND_US - 1, RETENTION), 0);
    assert_eq!(compacted.horizon_at(20 * SECOND_US, RETENTION), 10);
    assert!(compacted.has_tombstones_to_drop(20 * SECOND_US, RETENTION));
    // A pass over the same part that let them go.
    compacted.add(10, 20 * SECOND_US, 1, 10);
    assert!(!compacted.has_tombstones_to_drop(i64::MAX, RETENTION));
    let json = serde_json::to_string(&compacted).unwrap();
    assert_eq!(
        json,
        r#"{"passes":[{"end":10,"at_us":0}],"tombstones":1,"horizon":10}"#
    );
}

#[test]
fn a_pass_is_due_by_share_and_by_bytes_or_age() {
    let worth = Worth {
        dirty_percent_min: 50,
        dirty_bytes_min: 100,
        dirty_age_max: Duration::from_secs(60),
    };
    let check = |dirty, clean, age_s, expected| {
        let age = Duration::from_secs(age_s);
        assert_eq!(
            worth.is_due(dirty, clean, age),
            expected,
            "{dirty} {clean} {age_s}"
        );
    };
    check(0, 0, 1_000, false);
    check(99, 0, 59, false);
    check(100, 0, 0, true);
    check(100, 100, 0, true);
    check(100, 101, 0, false);
    check(100, 101, 1_000, false);
    check(1, 1, 60, true);
    check(u64::MAX, u64::MAX, 0, true);
}

#[test]
fn a_hash_is_half_of_a_sha_256() {
    let KeyHash(high, low) = KeyHash::of(b"abc");
    assert_eq!((high, low), (0xba78_16bf_8f01_cfea, 0x4141_40de_5dae_2223));
}
