//! Groups over a real store: sharing, expiry by a clock moved by hand, commits, resets.

use model::{CatalogView, Offset, PartitionId, Position};

use crate::tests::{World, batch};
use crate::{Broker, GroupError, GroupJoin, Joined, ResetTo};

const SESSION_MS: u64 = 10_000;

async fn join(broker: &Broker, member: &str, topics: &[&str]) -> Result<Joined, GroupError> {
    let topics = topics.iter().map(|topic| topic.to_string()).collect();
    let member = (!member.is_empty()).then(|| member.to_string());
    let join = GroupJoin {
        group: "g".into(),
        member,
        topics,
        session_ms: SESSION_MS,
    };
    broker.group_join(join).await
}

fn position(partition: PartitionId, offset: Offset) -> Position {
    Position {
        group: "g".into(),
        partition,
        offset,
        expected: None,
        metadata: "m".into(),
    }
}

/// Renders a group: its members with partition indexes, then its commits with lag.
fn describe(broker: &Broker) -> String {
    let group = match broker.group_describe("g") {
        Ok(group) => group,
        Err(error) => return error.to_string(),
    };
    let mut words = Vec::new();
    for member in group.members {
        let indexes: Vec<_> = member.assignment.iter().map(|p| p.index).collect();
        words.push(format!("{}{indexes:?}", member.member));
    }
    for part in group
        .partitions
        .iter()
        .filter(|part| part.position.is_some())
    {
        let at = part.position.unwrap_or_default();
        words.push(format!(
            "{}/{}@{at}-{}",
            part.topic, part.partition.index, part.lag
        ));
    }
    words.join(" ")
}

/// Compares the rendered group.
fn check(broker: &Broker, want: &str) {
    assert_eq!(describe(broker), want);
}

#[tokio::test]
async fn members_share_partitions_and_silent_ones_lose_theirs() {
    let world = World::new(&[("t", 4)]);
    let (broker, _store) = world.open().await;
    check(&broker, "group `g` has neither members nor commits");
    let a = join(&broker, "a", &["t"]).await.unwrap();
    check(&broker, "a[0, 1, 2, 3]");
    let b = join(&broker, "b", &["t"]).await.unwrap();
    check(&broker, "a[0, 1] b[2, 3]");
    assert!(
        broker
            .group_heartbeat("g", "a", a.generation)
            .await
            .unwrap(),
        "join again"
    );
    assert!(
        !broker
            .group_heartbeat("g", "b", b.generation)
            .await
            .unwrap()
    );
    assert_eq!(
        join(&broker, "a", &["t"]).await.unwrap().generation,
        b.generation
    );

    world.clock.advance_ms(SESSION_MS as i64 - 1);
    assert!(
        !broker
            .group_heartbeat("g", "b", b.generation)
            .await
            .unwrap()
    );
    broker.tick();
    check(&broker, "a[0, 1] b[2, 3]");
    world.clock.advance_ms(1);
    broker.tick();
    check(&broker, "b[0, 1, 2, 3]");
    let error = broker
        .group_heartbeat("g", "a", b.generation)
        .await
        .unwrap_err()
        .to_string();
    assert_eq!(
        error,
        "member `a` is not in the group (any more): join again"
    );
    broker.group_leave("g", "b").await.unwrap();
    broker.group_leave("g", "b").await.unwrap();
    assert!(broker.group_list().is_empty());

    let (one, two) = (
        join(&broker, "", &["t"]).await,
        join(&broker, "", &["t"]).await,
    );
    assert_ne!(
        one.unwrap().member,
        two.unwrap().member,
        "names are given out once"
    );
}

#[tokio::test]
async fn commits_are_fenced_by_generation_and_survive_a_restart() {
    let world = World::new(&[("t", 2)]);
    let (broker, store) = world.open().await;
    let parts = [world.partition("t", 0), world.partition("t", 1)];
    for p in parts {
        broker.produce(p, batch(&["1", "2", "3"])).await.unwrap();
    }
    let a = join(&broker, "a", &["t"]).await.unwrap();
    let by = Some(("a", a.generation));
    broker
        .group_commit("g", by, vec![position(parts[0], 2)])
        .await
        .unwrap();
    check(&broker, "a[0, 1] t/0@2-1");
    join(&broker, "b", &["t"]).await.unwrap();
    let refused = [
        (
            by,
            parts[0],
            "member `a` is of generation 1, but the group is at 2: join again",
        ),
        (
            None,
            parts[0],
            "the group has members: only they may commit",
        ),
        (
            Some(("c", 2)),
            parts[0],
            "member `c` is not in the group (any more): join again",
        ),
        (
            Some(("a", 2)),
            parts[1],
            "partition 1/1 is not assigned to member `a`: join again",
        ),
    ];
    for (by, p, want) in refused {
        let error = broker
            .group_commit("g", by, vec![position(p, 3)])
            .await
            .unwrap_err();
        assert_eq!(error.to_string(), want);
    }
    let beyond = broker
        .group_commit("g", Some(("b", 2)), vec![position(parts[1], 4)])
        .await;
    assert_eq!(
        beyond.unwrap_err().to_string(),
        "not accepted by partition 1/1: group g commits offset 4, the partition ends at 3"
    );
    broker
        .group_commit("g", Some(("b", 2)), vec![position(parts[1], 3)])
        .await
        .unwrap();
    check(&broker, "a[0] b[1] t/0@2-1 t/1@3-0");
    store.close().await.unwrap();

    let (broker, _store) = world.open().await;
    check(&broker, "t/0@2-1 t/1@3-0");
    let list = broker.group_list();
    assert_eq!((list.len(), list[0].members, list[0].partitions), (1, 0, 2));
    assert_eq!(broker.group_positions("g")[0], position(parts[0], 2));
}

#[tokio::test]
async fn who_joins_sees_what_was_committed_before() {
    let world = World::new(&[("t", 1)]);
    let (broker, store) = world.open().await;
    let t = world.partition("t", 0);
    broker.produce(t, batch(&["v"; 100])).await.unwrap();
    let member = join(&broker, "a", &["t"]).await.unwrap();
    let by = ("a", member.generation);
    let first = broker.group_commit("g", Some(by), vec![position(t, 0)]);
    first.await.unwrap();
    for offset in 1..100 {
        let commit = broker.group_commit("g", Some(by), vec![position(t, offset)]);
        let joined = join(&broker, "a", &["t"]);
        // The commit is admitted first, and is on its way when the other asks.
        let seen = async {
            joined.await.unwrap();
            broker.group_positions("g")[0].offset
        };
        let (committed, seen) = tokio::join!(biased; commit, seen);
        committed.unwrap();
        assert_eq!(seen, offset);
    }
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_reset_moves_a_group_that_nobody_is_in() {
    let world = World::new(&[("t", 2)]);
    let (broker, _store) = world.open().await;
    let parts = [world.partition("t", 0), world.partition("t", 1)];
    broker
        .produce(parts[0], batch(&["1", "2", "3"]))
        .await
        .unwrap();
    let reset = |partition, to| broker.group_reset("g", "t", partition, to);
    reset(None, ResetTo::At(model::Lookup::Latest))
        .await
        .unwrap();
    check(&broker, "t/0@3-0 t/1@0-0");
    reset(Some(0), ResetTo::Offset(1)).await.unwrap();
    check(&broker, "t/0@1-2 t/1@0-0");
    reset(None, ResetTo::Offset(99)).await.unwrap();
    check(&broker, "t/0@3-0 t/1@0-0");
    let gone = reset(Some(7), ResetTo::Offset(0))
        .await
        .unwrap_err()
        .to_string();
    assert_eq!(gone, "partition 1/7 does not exist");
    join(&broker, "a", &["t"]).await.unwrap();
    let error = reset(None, ResetTo::Offset(0))
        .await
        .unwrap_err()
        .to_string();
    assert_eq!(error, "the group has members: only they may commit");
    let error = broker
        .group_reset("_pipeline.x", "t", None, ResetTo::Offset(0))
        .await;
    assert!(matches!(error, Err(GroupError::Internal { .. })));
}

#[tokio::test]
async fn members_learn_of_topics_that_come_and_go() {
    let world = World::new(&[("t", 1), ("u", 2)]);
    let (broker, _store) = world.open().await;
    let error = join(&broker, "a", &["t", "none"])
        .await
        .unwrap_err()
        .to_string();
    assert_eq!(
        error,
        "topic `none` does not exist: create it, or correct the name"
    );
    check(&broker, "group `g` has neither members nor commits");
    let a = join(&broker, "a", &["t", "u"]).await.unwrap();
    assert_eq!(a.assignment.len(), 3);
    let id = world.partition("u", 0).topic;
    world.apply(&model::Command::TopicDelete { name: "u".into() });
    broker.topic_deleted(id).await.unwrap();
    assert!(
        broker
            .group_heartbeat("g", "a", a.generation)
            .await
            .unwrap(),
        "join again"
    );
    assert_eq!(
        join(&broker, "a", &["t"]).await.unwrap().assignment.len(),
        1
    );
}

#[tokio::test]
async fn a_group_is_known_from_its_first_commit_until_it_is_deleted() {
    let world = World::new(&[("t", 1)]);
    let (broker, store) = world.open().await;
    let p = world.partition("t", 0);
    broker.produce(p, batch(&["a"])).await.unwrap();
    let known = || world.catalog.catalog().group("g").is_some();
    let member = join(&broker, "a", &["t"]).await.unwrap();
    assert!(!known(), "whoever only looks leaves nothing behind");
    let by = Some(("a", member.generation));
    broker
        .group_commit("g", by, vec![position(p, 1)])
        .await
        .unwrap();
    assert!(known());
    let refused = broker.group_delete("g").await.unwrap_err().to_string();
    assert_eq!(
        refused,
        "group `g` has 1 members; stop them, then delete it"
    );
    broker.group_leave("g", "a").await.unwrap();
    broker.group_delete("g").await.unwrap();
    assert!(!known());
    check(&broker, "group `g` has neither members nor commits");
    let again = broker.group_delete("g").await;
    assert!(
        matches!(again, Err(GroupError::Unknown { .. })),
        "{again:?}"
    );
    store.close().await.unwrap();
    let (broker, _store) = world.open().await;
    check(&broker, "group `g` has neither members nor commits");
}
