//! What modules keep, taken over by a version of another schema: wholly or not at all, under load, once.

use std::collections::BTreeMap;

use super::state::{KEEPS, LETTER, Setup, setup};
use crate::tests::support::{Fate, done, text, until};
use crate::{LaneStatus, state_topic};

/// `tests/guests/keeps`: keeps what it counts as schema 2, and takes over schema 1.
pub(super) const MIGRATES: &[u8] =
    include_bytes!("../../../tests/guests/conformance/released/0.1.4-stateful.wasm");

/// The same code under another digest.
fn again() -> Vec<u8> {
    // a custom section named `x`
    [MIGRATES, &[0, 2, 1, b'x']].concat()
}

impl Setup {
    /// Keys, values and schema in the changelog of the first lane, as a reader of the topic sees it.
    fn changelog(&self) -> (BTreeMap<String, String>, u8) {
        let partition = self.world.partition(&state_topic("p", "w"), 0);
        let (mut entries, mut schema) = (BTreeMap::new(), 0);
        for record in self.world.log.rows(partition).records() {
            let key = record.key.expect("it has one");
            match (key[0], record.value) {
                (0, Some(about)) => schema = about[0],
                (1, Some(value)) => {
                    entries.insert(text(Some(&key[1..])), text(Some(value)));
                }
                (1, None) => drop(entries.remove(&text(Some(&key[1..])))),
                _ => {}
            }
        }
        (entries, schema)
    }

    async fn migrated(&self) -> Vec<LaneStatus> {
        let all = |l: &[LaneStatus]| done(l) && l.iter().all(|l| l.kept["w"].schema == 2);
        until(&self.runtime, all).await
    }
}

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    let pairs = pairs.iter();
    pairs.map(|(k, v)| (k.to_string(), v.to_string())).collect()
}

#[tokio::test]
async fn a_new_version_takes_over_entries_and_timers() {
    let mut setup = setup(LETTER, "").await;
    let rows = [
        ("a", 1, "x"),
        ("a", 2, "x"),
        ("a", 2, "at 500"),
        ("migrate-at", 2, "x"),
        ("migrate-drop", 2, "x"),
        ("migrate-not", 2, "x"),
        ("migrate-not", 2, "at 9000"),
        ("migrate-sum/1", 2, "x"),
        ("migrate-sum/2", 2, "x"),
    ];
    setup.out(&rows).await;
    assert_eq!(setup.changelog().1, 1);
    setup
        .apply(LETTER, "", MIGRATES.to_vec())
        .await
        .expect("it migrates");
    // nothing to read: it is committed by itself
    let lanes = setup.migrated().await;
    assert!(
        lanes
            .iter()
            .all(|lane| lane.generation == 2 && lane.handovers.len() == 1)
    );
    let expected = map(&[
        ("a", r#"{"count":2}"#),
        ("migrate-at", r#"{"count":1}"#),
        ("migrate-not", r#"{"count":1}"#),
        ("sum", r#"{"count":2}"#),
    ]);
    assert_eq!(setup.changelog(), (expected, 2));
    setup.restart().await;
    let mut out = setup.out(&[("a", 8_000, "x")]).await;
    out.sort();
    assert_eq!(
        out,
        [
            "a 3",
            "a fired 500 at 8000, count 3",
            "migrate-at fired 7000 at 8000, count 1"
        ]
    );
    assert_eq!(setup.out(&[("a", 10_000, "get")]).await, ["a none"]);
    let refused = setup.apply(LETTER, "", KEEPS.to_vec()).await;
    let refused = refused.expect_err("nothing leads back");
    assert!(refused.contains("state schema 2 -> 1"), "{refused}");
}

#[tokio::test]
async fn a_migration_that_fails_leaves_the_old_version_at_work() {
    for (deed, part) in [
        ("migrate-refuse", "refused: as asked"),
        ("migrate-panic", "trapped"),
        ("migrate-spin", "more than 200 ms"),
        ("migrate-hoard", "1048576 bytes of state"),
        // of time or of state: whichever is over first
        ("migrate-flood", "the module"),
    ] {
        let mut setup = setup(LETTER, "").await;
        setup
            .out(&[("a", 1, "x"), (deed, 1, "x"), ("z", 1, "x")])
            .await;
        let before = setup.changelog();
        setup
            .apply(LETTER, "", MIGRATES.to_vec())
            .await
            .expect("it opens");
        let back = |l: &[LaneStatus]| l[0].handovers.len() == 1 && done(l);
        let lanes = until(&setup.runtime, back).await;
        let why = lanes[0].handovers[0].rolled_back.clone().expect(deed);
        assert!(why.contains(part), "{deed}: {why}");
        let place = "node `w`: the migration of its state from schema 1 to 2 failed at the entries \
                     from \"a\" to \"z\"";
        assert!(why.contains(place), "{deed}: {why}");
        assert_eq!((lanes[0].generation, lanes[0].kept["w"].schema), (1, 1));
        assert_eq!(setup.changelog(), before);
        assert_eq!(setup.out(&[("a", 2, "x")]).await, ["a 2"], "{deed}");
        // after a restart there is no old version to go on with
        if deed == "migrate-refuse" {
            setup.runtime.shutdown().await;
            let (world, runtime) = (setup.world.clone(), setup.world.runtime());
            setup = Setup { world, runtime };
            setup.start().await;
            let both = |l: &[LaneStatus]| l[0].fault.is_some() && !l[1].kept.is_empty();
            let lanes = until(&setup.runtime, both).await;
            assert!(
                lanes[0]
                    .fault
                    .as_deref()
                    .is_some_and(|why| why.contains(part))
            );
            assert_eq!(setup.runtime.held("p")["w"], [1, 2].into());
            continue;
        }
        // the old version still knows its state
        setup.out(&[(deed, 3, "delete")]).await;
        setup.apply(LETTER, "", again()).await.expect("it opens");
        setup.migrated().await;
        assert_eq!(
            setup.out(&[("a", 4, "x"), ("z", 4, "x")]).await,
            ["a 3", "z 2"]
        );
    }
}

/// The new version takes over and dies on its first batch: what it made of the state goes with it.
#[tokio::test]
async fn a_version_that_fails_after_its_migration_gives_the_state_back() {
    let setup = setup("stop", "").await;
    setup.out(&[("a", 1, "x")]).await;
    // so that it is not at its end when the new one comes
    setup.produce(&[("a", 2, "trap")]);
    let stopped = |l: &[LaneStatus]| l[0].fault.is_some();
    until(&setup.runtime, stopped).await;
    setup
        .apply("stop", "", MIGRATES.to_vec())
        .await
        .expect("it opens");
    let back = |l: &[LaneStatus]| l[0].handovers.iter().any(|h| h.rolled_back.is_some());
    let lanes = until(&setup.runtime, back).await;
    assert_eq!((lanes[0].generation, lanes[0].kept["w"].schema), (1, 1));
    let counted = map(&[("a", "1")]);
    assert_eq!(setup.changelog(), (counted, 1));
}

/// Rows flow, the log fails, and somewhere between them the state changes its schema.
#[tokio::test]
async fn each_row_is_counted_once_while_the_state_is_migrated() {
    for at in 0..12u64 {
        let mut setup = setup(LETTER, "").await;
        let mut truth: BTreeMap<String, u64> = BTreeMap::new();
        for round in 0..14u64 {
            let fates = [Fate::Refused, Fate::Late, Fate::Done, Fate::Late];
            let chosen = fates.iter().cycle().skip((at + round) as usize % 4);
            setup
                .world
                .log
                .fates(chosen.take(round as usize % 4).copied());
            setup.produce_round(round, &mut truth);
            if round == at {
                setup
                    .apply(LETTER, "", MIGRATES.to_vec())
                    .await
                    .expect("it migrates");
            }
            match (at + round) % 5 {
                2 => setup.restart().await,
                4 => drop(until(&setup.runtime, done).await),
                _ => {}
            }
        }
        setup.world.log.forget_fates();
        let lanes = setup.migrated().await;
        assert!(lanes.iter().all(|lane| lane.generation == 2), "{lanes:#?}");
        setup.counted_once(truth, &format!("changed in round {at}"));
    }
}

/// More entries than one call is given.
#[tokio::test]
async fn a_large_state_is_taken_over_in_parts() {
    let setup = setup(LETTER, "").await;
    let keys: Vec<String> = (0..2_500).map(|number| format!("{number:04}")).collect();
    let rows: Vec<_> = keys.iter().map(|key| (&key[..], 1, "x")).collect();
    setup.out(&rows).await;
    setup
        .apply(LETTER, "", MIGRATES.to_vec())
        .await
        .expect("it migrates");
    setup.migrated().await;
    let (entries, schema) = setup.changelog();
    assert_eq!((entries.len(), schema), (2_500, 2));
    assert!(entries.values().all(|value| value == r#"{"count":1}"#));
}
