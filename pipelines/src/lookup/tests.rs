//! Tables and the topics they follow: what is in them is what a plain map has, whatever the log does.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::ids::PartitionId;
use model::rows::RowsBuilder;
use model::topic::{Topic, TopicSpec};
use tokio::sync::watch;

use super::{Followed, Tables};
use crate::tests::support::World;

type Entries = BTreeMap<String, String>;

const PARTITIONS: u32 = 3;

struct Setup {
    world: World,
    tables: Tables,
    changed: watch::Receiver<u64>,
}

fn setup() -> Setup {
    let world = World::new();
    let spec = TopicSpec {
        partitions: PARTITIONS,
        ..TopicSpec::default()
    };
    world.topic("users", spec);
    let sender = Arc::new(watch::Sender::new(0));
    let changed = sender.subscribe();
    let handle = tokio::runtime::Handle::current();
    let tables = Tables::new(world.log.clone(), world.host.clone(), handle, sender);
    Setup {
        world,
        tables,
        changed,
    }
}

impl Setup {
    fn topic(&self) -> Topic {
        let catalog = model::port::CatalogView::catalog(&*self.world.catalog);
        catalog.topic("users").expect("it was made").clone()
    }

    fn partition(&self, index: u32) -> PartitionId {
        self.world.partition("users", index)
    }

    /// One batch of a partition; no value deletes.
    fn produce(&self, index: u32, records: &[(&str, Option<&str>)]) {
        let mut rows = RowsBuilder::new();
        for (key, value) in records {
            rows.push(0, Some(key.as_bytes()), value.map(str::as_bytes), &[]);
        }
        self.world.log.append(self.partition(index), &rows.finish());
    }

    /// Waits until something is seen from outside.
    async fn until(&mut self, what: impl Fn() -> bool) {
        let wait = async {
            while !what() {
                self.changed.changed().await.expect("the tables are there");
            }
        };
        let waited = tokio::time::timeout(std::time::Duration::from_secs(30), wait);
        waited.await.expect("it comes");
    }
}

fn seen(table: &Followed, keys: impl IntoIterator<Item = String>) -> Entries {
    let pinned = table.table.pin();
    let reading = pinned.reading();
    let found = keys.into_iter().filter_map(|key| {
        let value = reading.get(key.as_bytes())?;
        Some((key, String::from_utf8_lossy(value).into_owned()))
    });
    found.collect()
}

fn keys() -> impl Iterator<Item = String> {
    (0..20).map(|n| format!("k{n}"))
}

/// Numbers that can be repeated.
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: u64) -> u64 {
        let product = self.0.wrapping_mul(6_364_136_223_846_793_005);
        self.0 = product.wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

/// What the log still has, by partition.
#[derive(Default)]
struct Kept(BTreeMap<u32, Vec<(String, Option<String>)>>);

impl Kept {
    fn entries(&self) -> Entries {
        let mut entries = Entries::new();
        for (key, value) in self.0.values().flatten() {
            match value {
                Some(value) => drop(entries.insert(key.clone(), value.clone())),
                None => drop(entries.remove(key)),
            }
        }
        entries
    }
}

#[tokio::test]
async fn a_table_has_what_a_plain_map_has() {
    for seed in 0..40 {
        let setup = setup();
        let mut chance = Chance(seed);
        let mut table = setup.tables.of(&setup.topic(), usize::MAX);
        let (mut kept, mut now) = (Kept::default(), Entries::new());
        for round in 0..30 {
            for _ in 0..chance.below(3) {
                let index = chance.below(u64::from(PARTITIONS)) as u32;
                let mut records = Vec::new();
                for _ in 0..1 + chance.below(5) {
                    // a key has one partition
                    let key = u64::from(index) + u64::from(PARTITIONS) * chance.below(6);
                    let value = (chance.below(3) > 0).then(|| format!("{round}"));
                    records.push((format!("k{key}"), value));
                }
                let borrowed: Vec<_> = records
                    .iter()
                    .map(|(key, value)| (&key[..], value.as_deref()))
                    .collect();
                setup.produce(index, &borrowed);
                for (key, value) in &records {
                    match value {
                        Some(value) => now.insert(key.clone(), value.clone()),
                        None => now.remove(key),
                    };
                }
                kept.0.entry(index).or_default().extend(records);
            }
            if chance.below(4) == 0 {
                setup.world.log.unreadable(1 + chance.below(3) as usize);
            }
            if chance.below(3) == 0 {
                table.caught_up().await.expect("it is read");
                assert_eq!(seen(&table, keys()), now, "seed {seed}, round {round}");
                match chance.below(3) {
                    // retention takes what was read: the table has it until it is read anew
                    0 => trim(&setup, &mut kept, &mut chance),
                    1 => {
                        drop(table);
                        now = kept.entries();
                        table = setup.tables.of(&setup.topic(), usize::MAX);
                    }
                    _ => {}
                }
            }
        }
        table.caught_up().await.expect("it is read");
        assert_eq!(seen(&table, keys()), now, "seed {seed}");
    }
}

/// Takes the first records of one partition away.
fn trim(setup: &Setup, kept: &mut Kept, chance: &mut Chance) {
    let Some((index, records)) = kept.0.iter_mut().next() else {
        return;
    };
    let gone = chance.below(records.len() as u64 + 1);
    let partition = setup.partition(*index);
    let log: &dyn model::port::TopicLog = &*setup.world.log;
    let start = log.bounds(partition).expect("it is there").start;
    setup.world.log.trim(partition, start + gone);
    records.drain(..gone as usize);
}

#[tokio::test]
async fn a_topic_is_one_table_which_goes_with_its_last_user() {
    let setup = setup();
    let topic = setup.topic();
    setup.produce(0, &[("a", Some("1"))]);
    let one = setup.tables.of(&topic, 10_000);
    let two = setup.tables.of(&topic, 20_000);
    assert!(Arc::ptr_eq(&one, &two));
    one.caught_up().await.expect("it is read");
    let held = setup.world.host.memory_bytes();
    assert!(held >= one.table.bytes());
    let table = one.table.clone();
    drop((one, two));
    drop(table);
    let three = setup.tables.of(&topic, 10_000);
    three.caught_up().await.expect("it is read anew");
    assert_eq!(seen(&three, ["a".to_string()]).len(), 1);
}

#[tokio::test]
async fn a_table_that_is_too_large_gives_its_memory_back() {
    let mut setup = setup();
    let topic = setup.topic();
    let value = "x".repeat(1_000);
    let table = setup.tables.of(&topic, 3_000);
    setup.produce(1, &[("a", Some(&value))]);
    table.caught_up().await.expect("it fits");
    let pinned = table.table.pin();
    setup.produce(
        1,
        &[
            ("b", Some(&value)),
            ("c", Some(&value)),
            ("d", Some(&value)),
        ],
    );
    let full = table.clone();
    setup
        .until(move || full.given_up().is_some() && full.table.is_empty())
        .await;
    let why = table.caught_up().await.expect_err("it was given up");
    assert_eq!(
        why,
        "the newest values of topic `users` take more than 2 KiB: raise its `limit`, or keep less in \
         the topic"
    );
    assert!(table.table.is_empty());
    // who looked at it still does
    assert_eq!(pinned.reading().get(b"a").map(<[u8]>::len), Some(1_000));
    // with more room it is read anew, beside what is left of the old one
    let larger = setup.tables.of(&topic, 10_000);
    larger.caught_up().await.expect("it fits");
    assert_eq!(larger.table.len(), 4);
}

#[tokio::test]
async fn what_cannot_be_read_is_tried_again_and_said() {
    let mut setup = setup();
    let topic = setup.topic();
    setup.world.log.unreadable(1_000_000);
    setup.produce(2, &[("a", Some("1"))]);
    let table = setup.tables.of(&topic, usize::MAX);
    let failing = table.clone();
    setup.until(move || failing.fault().is_some()).await;
    assert_eq!(
        table.fault().as_deref(),
        Some("not available now: told to fail")
    );
    let log: Arc<dyn model::port::TopicLog> = setup.world.log.clone();
    assert_eq!(table.progress(&*log), (0, 1));
    setup.world.log.unreadable(0);
    table.caught_up().await.expect("it is read");
    let mended = table.clone();
    setup.until(move || mended.fault().is_none()).await;
    assert_eq!((table.progress(&*log), table.without_key()), ((1, 1), 0));
    // what was removed before it was read is left out, and said; so are records without a key
    setup.world.log.unreadable(1_000_000);
    setup.produce(2, &[("b", Some("1"))]);
    setup.world.log.trim(setup.partition(2), 2);
    setup.world.produce("users", 2, &["no key"]);
    setup.world.log.unreadable(0);
    table.caught_up().await.expect("it goes on");
    let lost = format!(
        "records 1 to 1 of {} were removed before they were read",
        setup.partition(2)
    );
    assert_eq!(table.fault(), Some(lost));
    assert_eq!((table.table.len(), table.without_key()), (1, 1));
}
