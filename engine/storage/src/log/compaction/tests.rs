//! Compaction on a real WAL over a simulated disk, and in a simulated tier (`tiered`), beside a
//! plain list of what was written: through restarts, power cuts in the middle of a pass, trims and
//! reclaimed segments, under a reader who takes its time.

mod tiered;

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::task::Poll;

use model::{Codec, Durability, Lookup, Producer, ProducerId, RowsBuilder, ShardEpoch};
use proptest::prelude::*;

use super::super::Entry;
use super::super::commit::Committer;
use super::super::tests::{P0, P1};
use super::*;
use crate::config::{PartitionConfig, StoreConfig};
use crate::tests::disk::SimDisk;
use crate::tier::Tier;
use crate::tier::twin::Twin;

const SECOND_US: i64 = 1_000_000;
const TOMBSTONES_S: i64 = 20;
const PARTITIONS: [PartitionId; 2] = [P0, P1];

#[derive(Clone, Debug)]
enum Step {
    /// Records (key, is a tombstone) of partition 0 or 1, by a producer or none.
    Append {
        partition: usize,
        records: Vec<(u8, bool)>,
        producer: Option<u8>,
    },
    Compact(usize),
    Trim(usize, u64),
    Reclaim,
    MoveLeftovers,
    Wait(i64),
    Restart,
    /// The power goes after so many changes to the disk, while a partition is compacted; which
    /// unsynced blocks are there afterwards.
    PowerCut(usize, i64, Vec<bool>),
    /// The reader of a partition takes some batches, or begins anew.
    Read(usize, u8),
    ReadAgain(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let record = (0u8..7, prop::bool::weighted(0.3));
    let append = (
        0usize..2,
        prop::collection::vec(record, 1..7),
        prop::option::of(0u8..3),
    );
    let partition = 0usize..2;
    let blocks = prop::collection::vec(any::<bool>(), 1..9);
    prop_oneof![
        12 => append.prop_map(|(partition, records, producer)| {
            Step::Append { partition, records, producer }
        }),
        5 => partition.clone().prop_map(Step::Compact),
        1 => (partition.clone(), 0u64..20).prop_map(|(p, ahead)| Step::Trim(p, ahead)),
        2 => Just(Step::Reclaim),
        1 => Just(Step::MoveLeftovers),
        2 => (1i64..15).prop_map(Step::Wait),
        1 => Just(Step::Restart),
        2 => (partition.clone(), 0i64..12, blocks)
            .prop_map(|(p, power, b)| Step::PowerCut(p, power, b)),
        10 => (partition.clone(), 1u8..9).prop_map(|(p, batches)| Step::Read(p, batches)),
        1 => partition.prop_map(Step::ReadAgain),
    ]
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Record {
    offset: Offset,
    key: u8,
    value: Option<String>,
}

type State = BTreeMap<u8, String>;

fn state(records: &[Record]) -> State {
    let mut map = State::new();
    for record in records {
        match &record.value {
            Some(value) => map.insert(record.key, value.clone()),
            None => map.remove(&record.key),
        };
    }
    map
}

/// Whether it may stand there for what is gone: its key has a newer record.
fn is_placeholder(record: &Record, records: &[Record]) -> bool {
    let is_newer = |other: &Record| other.key == record.key && other.offset > record.offset;
    record.value.is_none() && records.iter().any(is_newer)
}

/// A batch of a producer, its records and its base offset.
type Numbered = (Producer, u32, Offset);

/// What was written to a partition, and which batches of producers.
#[derive(Default)]
struct Truth {
    log: Vec<Record>,
    start: Offset,
    batches: BTreeMap<u8, Vec<Numbered>>,
    reader: Reader,
}

/// Who reads from the start on, a little at a time.
#[derive(Default)]
struct Reader {
    from: Offset,
    next: Offset,
    began_us: i64,
    map: State,
}

impl Truth {
    fn read_again(&mut self, began_us: i64) {
        self.reader = Reader {
            from: self.start,
            next: self.start,
            began_us,
            map: State::new(),
        };
    }

    /// The last five of each.
    fn producers(&self) -> Vec<Numbered> {
        let last = |batches: &Vec<Numbered>| batches[batches.len().saturating_sub(5)..].to_vec();
        let mut last: Vec<Numbered> = self.batches.values().flat_map(last).collect();
        last.sort_by_key(|(_, _, base)| *base);
        last
    }
}

async fn open(
    config: &StoreConfig,
    partitions: &[PartitionConfig],
    disk: &SimDisk,
    twin: &Twin,
) -> (Store, Committer) {
    let tier = Tier::over(Arc::new(twin.clone()), "twin".into(), config);
    let disk = Arc::new(disk.clone());
    let opened = Store::open_stepped(config.clone(), partitions.to_vec(), disk, tier);
    opened.await.unwrap()
}

struct World {
    config: StoreConfig,
    partitions: Vec<PartitionConfig>,
    disk: SimDisk,
    twin: Twin,
    store: Store,
    writer: Committer,
    failed: bool,
    now_us: i64,
    truths: [Truth; 2],
    passes: u64,
}

fn partitions(tier: bool) -> Vec<PartitionConfig> {
    let compact = CompactionConfig {
        tombstone_retention: Duration::from_secs(TOMBSTONES_S as u64),
        ..CompactionConfig::default()
    };
    let config = |id| PartitionConfig {
        tier,
        compact: Some(compact),
        ..PartitionConfig::new(id, "t")
    };
    PARTITIONS.map(config).to_vec()
}

impl World {
    async fn new(keys: usize, partitions: Vec<PartitionConfig>) -> World {
        let mut config = StoreConfig::new("/compaction");
        config.segment_bytes = 3 << 10;
        config.compaction_keys_bytes_max = keys * 50;
        (config.tier_backoff_ms, config.tier_backoff_ms_max) = (0, 0);
        config.tier_uploads_max = 1;
        config.tier_merge_objects_min = 3;
        config.tier_bytes = 2 << 10;
        let (disk, twin) = (SimDisk::default(), Twin::new(7, 0));
        let (store, writer) = open(&config, &partitions, &disk, &twin).await;
        World {
            config,
            partitions,
            disk,
            twin,
            store,
            writer,
            failed: false,
            now_us: 0,
            truths: Default::default(),
            passes: 0,
        }
    }

    /// Lets the writer take turns until `work` is done.
    async fn drive<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        loop {
            if let Poll::Ready(done) = futures::poll!(work.as_mut()) {
                return done;
            }
            if self.store.inner.queue.waiting().0 > 0 && !self.failed {
                self.failed = !self.writer.turn();
            } else {
                tokio::task::yield_now().await;
            }
        }
    }

    async fn append(&mut self, partition: usize, records: &[(u8, bool)], by: Option<u8>) {
        let id = PARTITIONS[partition];
        let base = self.store.log_end(id).unwrap();
        let truth = &mut self.truths[partition];
        let mut rows = RowsBuilder::new();
        for (offset, (key, dead)) in (base..).zip(records) {
            let value = (!dead).then(|| format!("value {offset}"));
            rows.push(
                offset as i64,
                Some(&[*key]),
                value.as_deref().map(str::as_bytes),
                &[],
            );
            let key = *key;
            truth.log.push(Record { offset, key, value });
        }
        let producer = by.map(|id| {
            let batches = truth.batches.entry(id).or_default();
            let after = |(last, records, _): &Numbered| last.sequence + records;
            let producer = Producer {
                id: ProducerId(id.into()),
                epoch: 1,
                sequence: batches.last().map_or(0, after),
            };
            batches.push((producer, records.len() as u32, base));
            producer
        });
        let batch = Batch::encode(&rows.finish(), Codec::None, producer).unwrap();
        let batch = batch.stamped(base, ShardEpoch(0), self.now_us);
        let entry = Entry {
            durability: self.partitions[partition].durability,
            ..Entry::new(vec![(id, batch)])
        };
        let pending = self.store.enqueue(entry).unwrap();
        self.drive(pending).await.unwrap();
    }

    async fn compact(&mut self, partition: usize) -> Result<(), LogError> {
        let (store, now_us) = (self.store.clone(), self.now_us);
        let report = self
            .drive(store.compact(PARTITIONS[partition], now_us))
            .await?;
        self.passes += report.passes;
        Ok(())
    }

    async fn reopen(&mut self, disk: SimDisk) {
        self.disk = disk;
        self.failed = false;
        let opened = open(&self.config, &self.partitions, &self.disk, &self.twin);
        (self.store, self.writer) = opened.await;
    }

    /// The power is back; unsynced blocks of the disk are there or not.
    async fn reopen_after_power_cut(&mut self, blocks: Vec<bool>) {
        let mut blocks = blocks.into_iter().cycle();
        let after = self.disk.crashed(|| blocks.next().unwrap());
        self.reopen(after).await;
        for (config, truth) in self.partitions.iter().zip(&mut self.truths) {
            let end = self.store.bounds(config.id).unwrap().end;
            if config.durability == Durability::Memory {
                // The newest may be gone, and whoever read it has read too much.
                truth.log.truncate(end as usize);
                let batches = truth.batches.values_mut();
                batches.for_each(|batches| batches.retain(|(_, _, base)| *base < end));
                truth.batches.retain(|_, batches| !batches.is_empty());
                truth.read_again(self.now_us);
            }
        }
    }

    async fn step(&mut self, step: Step) {
        match step {
            Step::Append {
                partition,
                records,
                producer,
            } => self.append(partition, &records, producer).await,
            Step::Compact(partition) => {
                // What was put and not answered before is taken over first, and begun anew.
                let mut tries = 0;
                while let Err(error) = self.compact(partition).await {
                    tries += 1;
                    assert!(tries < 4, "{error}");
                }
                self.check_clean(partition).await;
            }
            Step::Trim(partition, ahead) => {
                let truth = &mut self.truths[partition];
                truth.start = (truth.start + ahead).min(truth.log.len() as u64);
                let before = truth.start;
                let store = self.store.clone();
                let trim = store.trim_durable(PARTITIONS[partition], before);
                self.drive(trim).await.unwrap();
            }
            Step::Reclaim => {
                let store = self.store.clone();
                self.drive(store.reclaim()).await.unwrap();
            }
            Step::MoveLeftovers => {
                let store = self.store.clone();
                self.drive(store.move_leftovers()).await.unwrap();
            }
            Step::Wait(seconds) => self.now_us += seconds * SECOND_US,
            Step::Restart => {
                while self.store.inner.queue.waiting().0 > 0 {
                    self.writer.turn();
                }
                let before = PARTITIONS.map(|p| self.store.partition(p).unwrap().compacted());
                self.reopen(self.disk.restarted()).await;
                let after = PARTITIONS.map(|p| self.store.partition(p).unwrap().compacted());
                for (before, after) in before.into_iter().zip(after) {
                    // A list that was put and not answered may say more.
                    assert_eq!(before.or(after.clone()), after);
                }
            }
            Step::PowerCut(partition, power, blocks) => {
                self.disk.faults.power.store(power, SeqCst);
                // Through or broken off; what is there says the same.
                let _ = self.compact(partition).await;
                self.reopen_after_power_cut(blocks).await;
            }
            Step::Read(partition, batches) => self.read_some(partition, batches).await,
            Step::ReadAgain(partition) => self.truths[partition].read_again(self.now_us),
        }
        self.check(0).await;
        self.check(1).await;
    }

    /// The reader goes on; at the end it must know what is true, unless it took too long.
    async fn read_some(&mut self, partition: usize, batches: u8) {
        if self.truths[partition].reader.next < self.truths[partition].start {
            self.truths[partition].read_again(self.now_us);
        }
        let next = self.truths[partition].reader.next;
        let (records, next) = self.read_from(partition, next, batches.into()).await;
        let truth = &mut self.truths[partition];
        let reader = &mut truth.reader;
        for Record { key, value, .. } in records {
            match value {
                Some(value) => reader.map.insert(key, value),
                None => reader.map.remove(&key),
            };
        }
        reader.next = next;
        let is_slow = self.now_us - reader.began_us >= TOMBSTONES_S * SECOND_US;
        if next == truth.log.len() as u64 && !is_slow {
            let is_true = state(&truth.log[reader.from as usize..]);
            assert_eq!(reader.map, is_true, "who read from {} on", reader.from);
        }
    }

    async fn read(&self, partition: usize) -> Vec<Record> {
        let bounds = self.store.bounds(PARTITIONS[partition]).unwrap();
        let read = self.read_from(partition, bounds.start, usize::MAX);
        let (records, at) = read.await;
        assert_eq!(at, bounds.end);
        records
    }

    /// Records from an offset on, and where it goes on; so many times a few batches.
    async fn read_from(
        &self,
        partition: usize,
        mut at: Offset,
        times: usize,
    ) -> (Vec<Record>, Offset) {
        let id = PARTITIONS[partition];
        let bounds = self.store.bounds(id).unwrap();
        let mut records = Vec::new();
        for _ in 0..times {
            if at >= bounds.end {
                break;
            }
            let batches = self.store.read(id, at, 200).await.unwrap();
            assert!(!batches.is_empty(), "nothing at {at} below {}", bounds.end);
            for batch in batches {
                assert!(
                    batch.base_offset() <= at,
                    "no gap before {}",
                    batch.base_offset()
                );
                let rows = batch.rows().unwrap();
                for (row, offset) in batch.offsets().unwrap().into_iter().enumerate() {
                    let record = rows.record(row);
                    let value = record.value.map(|value| String::from_utf8(value.to_vec()));
                    let (key, value) = (record.key.unwrap()[0], value.map(Result::unwrap));
                    if offset >= at {
                        records.push(Record { offset, key, value });
                    }
                }
                at = at.max(batch.next_offset());
            }
        }
        (records, at)
    }

    async fn check(&self, partition: usize) {
        let (id, truth) = (PARTITIONS[partition], &self.truths[partition]);
        let bounds = self.store.bounds(id).unwrap();
        assert_eq!(
            (bounds.start, bounds.end),
            (truth.start, truth.log.len() as u64)
        );
        let records = self.read(partition).await;
        for record in &records {
            let is_true = record == &truth.log[record.offset as usize];
            assert!(is_true || is_placeholder(record, &records), "{record:?}");
        }
        let in_order = records.windows(2).all(|two| two[0].offset < two[1].offset);
        assert!(in_order, "{records:?}");
        assert_eq!(state(&records), state(&truth.log[truth.start as usize..]));
        assert_eq!(
            self.store.producers(id).unwrap().batches(),
            truth.producers()
        );
        self.check_snapshot(partition, &records).await;
        // From anywhere, by offset and by time, which is the offset.
        for from in [bounds.start, bounds.end].map(|sum| (bounds.start + sum) / 2) {
            let rest = records.iter().filter(|record| record.offset >= from);
            let (read, _) = self.read_from(partition, from, usize::MAX).await;
            assert!(read.iter().eq(rest.clone()), "from {from}");
            let found = self.store.lookup(id, Lookup::Timestamp(from as i64)).await;
            let first = rest.map(|record| record.offset).next();
            assert_eq!(found.unwrap(), first.unwrap_or(bounds.end), "time {from}");
        }
    }

    /// SQL sees the same.
    async fn check_snapshot(&self, partition: usize, records: &[Record]) {
        let snapshot = self.store.snapshot(PARTITIONS[partition]).await.unwrap();
        let floor = snapshot.cold_end.max(snapshot.start);
        let offsets = |batch: &Batch| batch.offsets().unwrap();
        let hot = snapshot.hot.iter().flat_map(offsets);
        let wanted = records.iter().filter(|record| record.offset >= floor);
        assert_eq!(
            hot.filter(|offset| *offset >= floor).count(),
            wanted.count()
        );
        let mut at = snapshot.cold.first().map_or(0, |object| object.base);
        for object in &snapshot.cold {
            assert_eq!(object.base, at, "no gap between objects");
            at = object.next;
            if object.base >= snapshot.start {
                let range = object.base..object.next;
                let own = records.iter().filter(|one| range.contains(&one.offset));
                assert_eq!(own.count() as u64, object.rows, "{range:?}");
            }
        }
    }

    /// All that could be compacted has one record a key.
    async fn check_clean(&self, partition: usize) {
        let known = self.store.partition(PARTITIONS[partition]).unwrap();
        let (compacted, view) = (known.compacted(), known.view());
        let until = match known.config().tier {
            true => view.cold.end,
            false => view.index.last().map_or(view.cold.end, |last| last.base),
        };
        let start = self.truths[partition].start;
        assert!(compacted.end() >= until || until <= start);
        let mut keys = BTreeMap::new();
        let records = self.read(partition).await;
        let clean = records.iter().filter(|record| record.offset < until);
        for record in clean.filter(|record| !is_placeholder(record, &records)) {
            assert_eq!(keys.insert(record.key, record.offset), None, "{records:?}");
        }
    }
}

fn run(keys: usize, steps: Vec<Step>) -> u64 {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.unwrap().block_on(async {
        let mut world = World::new(keys, partitions(false)).await;
        for step in steps {
            world.step(step).await;
        }
        world.passes
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(160))]
    #[test]
    fn what_is_left_says_the_same_whatever_happens(
        keys in 1usize..9,
        steps in prop::collection::vec(step(), 1..40),
    ) {
        run(keys, steps);
    }
}
