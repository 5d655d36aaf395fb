//! Two writers of one partition over one object store: the one of the older epoch is refused.
//!
//! Called by: `cargo test`. Invariants: what the newer epoch put stays, whatever answers get lost.
//! Refuses: nothing.

use std::time::Duration;

use model::{LogError, PartitionId, ShardId};
use object_store::memory::InMemory;

use super::*;
use crate::log::tests::{P1, config, dump, partitions};
use crate::log::{Entry, Store};
use crate::tests::disk::SimDisk;
use crate::tier::collect::MANIFESTS_KEPT;
use crate::tier::twin::Twin;
use crate::{OpenError, TierError};

/// One broker's machine.
struct Machine {
    dir: Arc<tempfile::TempDir>,
    disk: SimDisk,
    node: &'static str,
}

impl Machine {
    fn new(node: &'static str) -> Machine {
        Machine {
            dir: Arc::new(tempfile::tempdir().unwrap()),
            disk: SimDisk::default(),
            node,
        }
    }

    /// The same machine after its process was killed.
    fn restarted(&self) -> Machine {
        Machine {
            dir: Arc::clone(&self.dir),
            disk: self.disk.crashed(|| true),
            node: self.node,
        }
    }

    async fn open(&self, twin: &Twin, epoch: u32) -> Store {
        self.try_open(twin, epoch).await.unwrap()
    }

    async fn try_open(&self, twin: &Twin, epoch: u32) -> Result<Store, OpenError> {
        let mut config = config(self.dir.path());
        config.epoch = ShardEpoch(epoch);
        config.node = self.node.to_owned();
        config.tier_merge_objects_min = 2;
        (config.tier_backoff_ms, config.tier_backoff_ms_max) = (0, 0);
        let tier = Tier::over(Arc::new(twin.clone()), "twin".into(), &config);
        let disk = Arc::new(self.disk.clone());
        Store::open_with(config, partitions(), disk, Some(tier)).await
    }
}

/// As `append`, by an owner in an epoch.
async fn append_in(store: &Store, p: PartitionId, epoch: u32, text: &str) -> Result<(), LogError> {
    let base = store.log_end(p).unwrap();
    let mut entry = Entry::new(vec![(p, batch(base, 3, text))]);
    (entry.shard, entry.epoch) = (ShardId(0), ShardEpoch(epoch));
    store.enqueue(entry)?.await
}

async fn newest(store: &Store, p: PartitionId) -> (u64, u32) {
    let cold = store.partition(p).unwrap().cold();
    (cold.number, cold.shard_epoch)
}

fn fenced_by(error: TierError, expected: u32) {
    let TierError::Fenced { epoch, .. } = &error else {
        panic!("not fenced: {error}");
    };
    assert_eq!(epoch.0, expected, "{error}");
    assert!(error.to_string().contains("another broker owns"), "{error}");
}

#[tokio::test]
async fn an_old_owner_that_resumes_is_refused_by_tier_and_log() {
    let twin = Twin::new(1, 0);
    let (one, two) = (Machine::new("one"), Machine::new("two"));
    let old = one.open(&twin, 1).await;
    for _ in 0..3 {
        append_in(&old, P0, 1, "a").await.unwrap();
        old.tier(None).await.unwrap();
    }
    assert_eq!(newest(&old, P0).await, (3, 1));
    let new = two.open(&twin, 2).await;
    assert_eq!(newest(&new, P0).await, (4, 2), "claimed when it opened");
    assert_eq!(dump(&new, P0).await, dump(&old, P0).await);

    // It slept, and neither moves, nor merges, nor drops what is trimmed.
    append_in(&old, P0, 1, "stale").await.unwrap();
    old.trim_durable(P0, 3).await.unwrap();
    let partition = old.partition(P0).unwrap();
    fenced_by(old.merge(&partition).await.unwrap_err(), 2);
    fenced_by(old.tier_due().await.unwrap_err(), 2);
    fenced_by(old.tier(Some(P0)).await.unwrap_err(), 2);
    let refused = append_in(&old, P0, 1, "stale").await.unwrap_err();
    assert!(matches!(refused, LogError::Fenced { .. }), "{refused}");
    assert!(refused.to_string().contains("is in epoch 2"), "{refused}");
    append_in(&old, P1, 1, "nobody else's yet").await.unwrap();
    assert_eq!(dump(&old, P0).await.lines().count(), 9, "it still reads");

    // Nor after a collection has freed the numbers it knows of.
    for _ in 0..MANIFESTS_KEPT + 4 {
        append_in(&new, P0, 2, "b").await.unwrap();
        new.tier(Some(P0)).await.unwrap();
    }
    new.collect(Duration::ZERO).await.unwrap();
    let partition = new.partition(P0).unwrap();
    assert!(new.merge(&partition).await.unwrap() > 0);
    new.collect(Duration::ZERO).await.unwrap();
    fenced_by(old.tier(Some(P0)).await.unwrap_err(), 2);
    assert_eq!(old.collect(Duration::ZERO).await.unwrap().objects, 0);
    let before = dump(&new, P0).await;
    drop(new);
    // Nor when it is started again as what it was: then it is known before anything is written.
    let again = one.restarted().open(&twin, 1).await;
    let refused = append_in(&again, P0, 1, "stale").await.unwrap_err();
    assert!(matches!(refused, LogError::Fenced { .. }), "{refused}");
    let third = two.restarted().open(&twin, 3).await;
    assert_eq!(dump(&third, P0).await, before);
}

#[tokio::test]
async fn what_an_earlier_life_put_late_is_taken_over_and_anothers_is_not() {
    for node in ["one", "two"] {
        let twin = Twin::new(1, 0);
        let one = Machine::new("one");
        let old = one.open(&twin, 1).await;
        append_in(&old, P0, 1, "a").await.unwrap();
        let machine = Machine {
            node,
            ..one.restarted()
        };
        let new = machine.open(&twin, 2).await;
        append_in(&new, P0, 2, "b").await.unwrap();
        old.tier(Some(P0)).await.unwrap();
        let before = dump(&new, P0).await;
        let moved = new.tier(Some(P0)).await;
        assert_eq!(dump(&new, P0).await, before);
        if node == "two" {
            let said = moved.unwrap_err().to_string();
            assert!(said.contains("an older owner"), "{said}");
            append_in(&new, P0, 2, "c").await.unwrap();
            continue;
        }
        moved.unwrap();
        assert_eq!(newest(&new, P0).await, (2, 2));
        assert_eq!(new.status().partitions[0].cold_end, 6);
        append_in(&old, P0, 1, "stale").await.unwrap();
        fenced_by(old.tier(Some(P0)).await.unwrap_err(), 2);
    }
}

/// Both go on at random over a store that loses answers and puts; the newer one is never
/// refused, and from its claim on the older one puts nothing.
#[tokio::test]
async fn lost_answers_lost_puts_and_conflicts_do_not_let_the_old_owner_in() {
    let mut fired = std::collections::BTreeMap::<&str, u64>::new();
    let mut refusals = 0;
    for seed in 0..40 {
        println!("seed {seed}");
        let objects: Arc<dyn ObjectStore> = Arc::<InMemory>::default();
        let twin = Twin::over(objects, seed, 0);
        let (one, two) = (Machine::new("one"), Machine::new("two"));
        let old = one.open(&twin, 1).await;
        append_in(&old, P0, 1, "a").await.unwrap();
        old.tier(Some(P0)).await.unwrap();
        let new = two.open(&twin, 2).await;
        twin.set_faults(250);
        for step in 0..30 {
            append_in(&new, P0, 2, &format!("{step}:")).await.unwrap();
            if let Err(error) = append_in(&old, P0, 1, "stale").await {
                assert!(matches!(error, LogError::Fenced { .. }), "{error}");
            }
            match old.tier(Some(P0)).await {
                Ok(report) => assert_eq!(report.objects, 0, "it has put a manifest"),
                Err(TierError::Fenced { epoch, .. }) => refusals += u32::from(epoch.0 == 2),
                Err(error) => assert!(error.is_passing(), "{error}"),
            }
            let run = match step % 3 {
                0 => new.tier_due().await,
                _ => new.tier(Some(P0)).await.map(drop),
            };
            if let Err(error) = run {
                assert!(error.is_passing(), "the newer one is refused: {error}");
            }
        }
        twin.set_faults(0);
        new.tier(Some(P0)).await.unwrap();
        let before = dump(&new, P0).await;
        assert_eq!(before.lines().count(), 93);
        drop(new);
        let third = two.restarted().open(&twin, 3).await;
        assert_eq!(
            dump(&third, P0).await,
            before,
            "and it is what stands there"
        );
        for (fault, count) in twin.fired() {
            *fired.entry(fault).or_default() += count;
        }
    }
    println!("the older one refused {refusals} times, faults fired {fired:?}");
    assert!(refusals > 50);
    for fault in ["lost answer", "200 but lost", "409 as exists"] {
        assert!(fired.contains_key(fault), "{fault} fires: {fired:?}");
    }
}

#[tokio::test]
async fn an_entry_of_an_older_epoch_is_refused_and_leaves_nothing() {
    let twin = Twin::new(1, 0);
    let store = Machine::new("one").open(&twin, 4).await;
    let early = append_in(&store, P0, 3, "a").await.unwrap_err();
    assert!(early.to_string().contains("is in epoch 4"), "{early}");
    append_in(&store, P0, 4, "a").await.unwrap();
    append_in(&store, P1, 6, "b").await.unwrap();
    let late = append_in(&store, P0, 5, "c").await.unwrap_err();
    assert!(matches!(late, LogError::Fenced { .. }), "{late}");
    assert_eq!(late.advice(), model::Advice::Fenced);
    assert_eq!(store.log_end(P0), Ok(3));
    append_in(&store, P0, 6, "d").await.unwrap();
}

#[tokio::test]
async fn a_log_of_a_later_epoch_than_the_catalogs_is_not_opened() {
    let (twin, machine) = (Twin::new(1, 0), Machine::new("one"));
    let stamped = |base| batch(base, 3, "a").stamped(base, ShardEpoch(3), 1);
    let store = machine.open(&twin, 3).await;
    let mut entry = Entry::new(vec![(P0, stamped(0)), (P1, stamped(0))]);
    entry.epoch = ShardEpoch(3);
    store.enqueue(entry).unwrap().await.unwrap();
    let crashed = machine.restarted();
    store.close().await.unwrap();
    for machine in [crashed, machine] {
        let refused = machine.try_open(&twin, 2).await.err().unwrap();
        let OpenError::Stale { epoch, own, .. } = &refused else {
            panic!("{refused}");
        };
        assert_eq!((epoch.0, own.0), (3, 2));
        assert!(refused.to_string().contains("restore both"), "{refused}");
        let again = machine.open(&twin, 3).await;
        assert_eq!(dump(&again, P1).await.lines().count(), 3);
    }
}
