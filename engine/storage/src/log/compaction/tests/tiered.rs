//! Compaction of partitions that are in the tier, or half in it, over an object store that fails
//! as real ones do; bugs planted to show that this would find them.
//!
//! The second partition is acknowledged before it is durable, so a power cut may take its newest
//! records away.

use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use super::*;
use crate::planted;

#[derive(Clone, Debug)]
enum TierStep {
    Plain(Step),
    Tier(Option<usize>),
    Merge(usize),
    /// What no list names goes, also what readers had a grace for.
    Collect,
    /// The topic's setting changes.
    Alter(usize, bool),
    /// So many requests of a thousand fail meanwhile.
    Faulty(Work, u64),
    /// The power of everything goes after so many requests and changes to the disk.
    PowerCut(Work, u64, i64, Vec<bool>),
}

#[derive(Clone, Copy, Debug)]
enum Work {
    Compact(usize),
    Tier,
    Merge(usize),
}

fn step() -> impl Strategy<Value = TierStep> {
    let partition = 0usize..2;
    let work = prop_oneof![
        4 => partition.clone().prop_map(Work::Compact),
        1 => Just(Work::Tier),
        1 => partition.clone().prop_map(Work::Merge),
    ];
    let blocks = prop::collection::vec(any::<bool>(), 1..9);
    let cut = (work.clone(), 0u64..30, 0i64..40, blocks);
    prop_oneof![
        24 => super::step().prop_map(TierStep::Plain),
        10 => prop::option::of(partition.clone()).prop_map(TierStep::Tier),
        2 => partition.clone().prop_map(TierStep::Merge),
        2 => Just(TierStep::Collect),
        1 => (partition, any::<bool>()).prop_map(|(p, tier)| TierStep::Alter(p, tier)),
        3 => (work, 50u64..400).prop_map(|(work, faults)| TierStep::Faulty(work, faults)),
        4 => cut.prop_map(|(work, requests, changes, blocks)| {
            TierStep::PowerCut(work, requests, changes, blocks)
        }),
    ]
}

impl World {
    async fn tiered(keys: usize) -> World {
        let mut partitions = partitions(true);
        partitions[1].durability = Durability::Memory;
        World::new(keys, partitions).await
    }

    async fn tier(&mut self, partition: Option<usize>) -> bool {
        let (store, p) = (self.store.clone(), partition.map(|p| PARTITIONS[p]));
        self.drive(store.tier(p)).await.is_ok()
    }

    async fn merge(&mut self, partition: usize) -> bool {
        let store = self.store.clone();
        let partition = store.partition(PARTITIONS[partition]).unwrap();
        self.drive(store.merge(&partition)).await.is_ok()
    }

    async fn work(&mut self, work: Work) -> bool {
        match work {
            Work::Compact(partition) => self.compact(partition).await.is_ok(),
            Work::Tier => self.tier(None).await,
            Work::Merge(partition) => self.merge(partition).await,
        }
    }

    async fn tier_step(&mut self, step: TierStep) {
        match step {
            TierStep::Plain(step) => return self.step(step).await,
            TierStep::Tier(partition) => assert!(self.tier(partition).await),
            TierStep::Merge(partition) => assert!(self.merge(partition).await),
            TierStep::Collect => {
                let store = self.store.clone();
                self.drive(store.delete_retired(Duration::ZERO)).await;
                self.drive(store.collect(Duration::ZERO)).await.unwrap();
            }
            TierStep::Alter(partition, tier) => {
                self.partitions[partition].tier = tier;
                let config = self.partitions[partition].clone();
                self.store.partition_alter(config).unwrap();
            }
            TierStep::Faulty(work, faults) => {
                self.twin.set_faults(faults);
                self.work(work).await;
                self.twin.set_faults(0);
            }
            TierStep::PowerCut(work, requests, changes, blocks) => {
                self.disk.faults.power.store(changes, SeqCst);
                self.twin.set_power(Some(requests));
                self.work(work).await;
                self.twin.set_power(None);
                self.reopen_after_power_cut(blocks).await;
            }
        }
        self.check(0).await;
        self.check(1).await;
    }

    /// Without faults all gets clean, and nothing is left over.
    async fn settle(&mut self) {
        self.step(Step::Restart).await;
        assert!(self.tier(None).await);
        for partition in 0..2 {
            self.step(Step::Compact(partition)).await;
        }
        self.tier_step(TierStep::Collect).await;
        let ids = PARTITIONS.iter();
        let lists = ids.map(|id| self.store.partition(*id).unwrap().cold());
        let objects = lists.flat_map(|list| list.objects.clone());
        let mut named: Vec<String> = objects.map(|object| object.path).collect();
        named.sort();
        named.dedup();
        assert_eq!(self.twin.paths("data").await, named);
    }
}

fn run(keys: usize, steps: Vec<TierStep>) -> u64 {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build();
    runtime.unwrap().block_on(async {
        let mut world = World::tiered(keys).await;
        for step in steps {
            world.tier_step(step).await;
        }
        world.settle().await;
        world.passes
    })
}

fn works() -> impl Strategy<Value = (usize, Vec<TierStep>)> {
    (1usize..9, prop::collection::vec(step(), 1..40))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(160))]
    #[test]
    fn what_is_left_in_the_tier_says_the_same_whatever_happens((keys, steps) in works()) {
        run(keys, steps);
    }
}

/// Each bug, and the number of cases it took to find it when this was written.
const BUGS: [(planted::Bug, u32); 4] = [
    (planted::Bug::TombstonesGoneAtOnce, 225),
    (planted::Bug::UndurableNoted, 55),
    (planted::Bug::ObjectsGoneBeforeList, 47),
    (planted::Bug::PassRememberedFirst, 22),
];

#[test]
fn planted_bugs_are_found() {
    for (bug, _) in BUGS {
        let config = Config {
            cases: 1_000,
            max_shrink_iters: 0,
            failure_persistence: None,
            ..Config::default()
        };
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
        let mut runner = TestRunner::new_with_rng(config, rng);
        let cases = std::cell::Cell::new(0u32);
        let found = runner.run(&works(), |(keys, steps)| {
            cases.set(cases.get() + 1);
            planted::plant(Some(bug), 7);
            run(keys, steps);
            Ok(())
        });
        planted::clear();
        println!("{bug:?} was found with case {}", cases.get());
        assert!(found.is_err(), "{bug:?} was not found");
    }
}

/// A new owner opens after so many turns of a pass of the old one: which is refused, has deleted
/// nothing that counts, and leaves what the new one compacts to the end.
async fn take_over(turns: u32) -> Result<CompactionReport, LogError> {
    let mut world = World::tiered(8).await;
    for round in 0..7 {
        let records = [(0, false), (1, round % 2 == 0), (round + 2, false)];
        world.append(0, &records, None).await;
        assert!(world.tier(Some(0)).await);
    }
    let old = world.store.clone();
    let mut pass = Box::pin(old.compact(P0, 0));
    let mut done = None;
    for _ in 0..turns {
        done = done.or(match futures::poll!(pass.as_mut()) {
            Poll::Ready(done) => Some(done),
            Poll::Pending => None,
        });
        if done.is_some() {
            break;
        }
        tokio::task::yield_now().await;
    }
    let mut config = world.config.clone();
    config.epoch = ShardEpoch(1);
    let disk = SimDisk::default();
    let new = open(&config, &world.partitions, &disk, &world.twin).await;
    let done = match done {
        Some(done) => done,
        None => world.drive(pass).await,
    };
    old.delete_retired(Duration::ZERO).await;
    let collected = old.collect(Duration::ZERO).await.unwrap();
    assert_eq!((collected.objects, collected.manifests), (0, 0));
    (world.config, world.disk, world.store, world.writer) = (config, disk, new.0, new.1);
    world.check(0).await;
    world.step(Step::Compact(0)).await;
    world.tier_step(TierStep::Collect).await;
    done
}

#[test]
fn an_owner_of_an_older_epoch_is_refused_in_the_middle_of_a_pass() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build();
    let runtime = runtime.unwrap();
    let mut refused = 0;
    let mut turns = 0;
    // Until the pass is through before the new owner comes.
    while let Err(error) = runtime.block_on(take_over(turns)) {
        assert!(error.to_string().contains("another broker owns"), "{error}");
        refused += 1;
        turns = turns * 3 / 2 + 1;
    }
    assert!(refused > 5, "{refused}");
}
