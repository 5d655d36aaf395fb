//! The broker over a real store: produce, fetch, restart, atomic commits, many producers.

use std::collections::BTreeSet;
use std::future::Future;
use std::task::{Context, Poll};

use futures::StreamExt;
use futures::stream::FuturesOrdered;
use futures::task::noop_waker_ref;
use model::{
    Advice, Append, CatalogView, Command, Commit, LogError, Lookup, Offset, PartitionId, Position,
    TopicId, TopicLog,
};

use crate::shard::OFFSETS;
use crate::tests::{World, batch, dump, numbered};
use crate::{Broker, Fetched, Produced};

fn append(partition: PartitionId, values: &[&str]) -> Append {
    Append {
        partition,
        batch: batch(values),
    }
}

fn position(partition: PartitionId, offset: Offset, expected: Option<Offset>) -> Position {
    Position {
        group: "lane".into(),
        partition,
        offset,
        expected,
        metadata: "m".into(),
    }
}

/// Compares what the partition gives out with `want`, before and after a restart.
async fn check(world: &World, broker: Broker, store: storage::Store, p: PartitionId, want: &str) {
    assert_eq!(dump(&broker, p).await, want, "before the restart");
    store.close().await.unwrap();
    drop((broker, store));
    let (broker, store) = world.open().await;
    assert_eq!(dump(&broker, p).await, want, "after the restart");
    store.close().await.unwrap();
}

#[tokio::test]
async fn what_is_produced_is_fetched_and_survives_a_restart() {
    let world = World::new(&[("t", 2)]);
    let (broker, store) = world.open().await;
    let p = world.partition("t", 1);
    let first = broker.produce(p, batch(&["a", "b"])).await.unwrap();
    let second = broker.produce(p, batch(&["c"])).await.unwrap();
    assert_eq!((first.base_offset, second.base_offset), (0, 2));
    assert_eq!(first.append_time, 1_000_000_000_000);
    assert_eq!(dump(&broker, world.partition("t", 0)).await, "");
    check(&world, broker, store, p, "0:a 1:b 2:c").await;
}

#[tokio::test]
async fn a_repeat_gets_the_first_offset_also_after_a_restart() {
    let world = World::new(&[("t", 1)]);
    let (broker, store) = world.open().await;
    let p = world.partition("t", 0);
    let id = broker.producer_open().await.unwrap();
    assert_ne!(Ok(id), broker.producer_open().await);
    let produced = |base_offset, duplicate| Produced {
        base_offset,
        duplicate,
        append_time: 1_000_000_000_000,
    };
    let send = |broker: &Broker, value: &'static str, sequence| {
        let broker = broker.clone();
        let batch = numbered(&[value], Some((id, 0, sequence)));
        async move { broker.produce(p, batch).await }
    };
    assert_eq!(send(&broker, "a", 0).await, Ok(produced(0, false)));
    assert_eq!(send(&broker, "a", 0).await, Ok(produced(0, true)));
    assert_eq!(send(&broker, "b", 1).await, Ok(produced(1, false)));
    store.close().await.unwrap();
    let (broker, store) = world.open().await;
    assert_eq!(send(&broker, "b", 1).await, Ok(produced(1, true)));
    assert!(matches!(
        send(&broker, "d", 3).await,
        Err(LogError::OutOfOrder { .. })
    ));
    assert_eq!(send(&broker, "c", 2).await, Ok(produced(2, false)));
    assert!(
        id < broker.producer_open().await.unwrap(),
        "ids are new after a restart"
    );
    check(&world, broker, store, p, "0:a 1:b 2:c").await;
}

/// The last five batches of a producer, and its epoch, are known after a restart, wherever the
/// batches have moved meanwhile.
#[tokio::test]
async fn producers_are_remembered_after_a_restart_and_from_the_tier() {
    let world = World::new(&[("t", 1)]);
    let p = world.partition("t", 0);
    let (broker, store) = world.open().await;
    let id = broker.producer_open().await.unwrap();
    let send = async |broker: &Broker, epoch, sequence: u32| {
        let value = format!("{epoch}.{sequence}");
        let batch = numbered(&[&value], Some((id, epoch, sequence)));
        let produced = broker.produce(p, batch).await;
        produced.map(|produced| (produced.base_offset, produced.duplicate))
    };
    for sequence in 0..8 {
        send(&broker, 1, sequence).await.unwrap();
    }
    let report = store.tier(Some(p)).await.unwrap();
    assert_eq!(report.records, 8, "all of them are in the tier");
    send(&broker, 1, 8).await.unwrap();
    store.close().await.unwrap();
    // Twice: what is rebuilt once is kept for the next time.
    for restart in 0..2 {
        let (broker, store) = world.open().await;
        for sequence in 4..9 {
            let again = send(&broker, 1, sequence).await;
            assert_eq!(again, Ok((u64::from(sequence), true)), "restart {restart}");
        }
        let older = send(&broker, 1, 3).await;
        assert!(
            matches!(older, Err(LogError::OutOfOrder { .. })),
            "{older:?}"
        );
        let fenced = send(&broker, 0, 9).await;
        assert!(matches!(fenced, Err(LogError::Fenced { .. })), "{fenced:?}");
        store.close().await.unwrap();
    }
    let (broker, store) = world.open().await;
    assert_eq!(send(&broker, 2, 0).await, Ok((9, false)));
    let fenced = send(&broker, 1, 9).await;
    assert!(matches!(fenced, Err(LogError::Fenced { .. })), "{fenced:?}");
    store.close().await.unwrap();
}

#[tokio::test]
async fn an_earlier_life_of_the_broker_gets_no_producer_ids() {
    let world = World::new(&[]);
    let (old, store) = world.open().await;
    store.close().await.unwrap();
    let (new, store) = world.open().await;
    let refused = old.producer_open().await.unwrap_err();
    assert_eq!(refused.advice(), Advice::Fenced, "{refused}");
    assert!(new.producer_open().await.is_ok());
    store.close().await.unwrap();
}

#[tokio::test]
async fn each_start_writes_in_a_new_epoch() {
    let world = World::new(&[("t", 1)]);
    let p = world.partition("t", 0);
    for value in ["a", "b"] {
        let (broker, store) = world.open().await;
        broker.produce(p, batch(&[value])).await.unwrap();
        store.close().await.unwrap();
    }
    let (broker, store) = world.open().await;
    let fetched = broker.fetch_wait(p, 0, 1 << 20, 0).await.unwrap();
    let epochs: Vec<u32> = fetched.batches.iter().map(|b| b.epoch().0).collect();
    assert_eq!(epochs, [2, 3]);
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_commit_is_all_or_nothing() {
    let world = World::new(&[("in", 1), ("out", 2)]);
    let (broker, store) = world.open().await;
    let source = world.partition("in", 0);
    let outs = [world.partition("out", 0), world.partition("out", 1)];
    broker
        .produce(source, batch(&["1", "2", "3"]))
        .await
        .unwrap();
    let commit = |value: &str, positions| Commit {
        appends: vec![append(outs[0], &[value]), append(outs[1], &[value, value])],
        positions,
    };
    let start = Commit {
        appends: vec![],
        positions: vec![position(source, 0, None)],
    };
    TopicLog::commit(&broker, start).await.unwrap();
    let done = broker
        .commit(commit("x", vec![position(source, 2, Some(0))]))
        .await
        .unwrap();
    assert_eq!(done.base_offsets, [0, 0]);

    let gone = PartitionId::new(TopicId(99), 0);
    let refused = broker
        .commit(commit("y", vec![position(gone, 0, None)]))
        .await;
    assert_eq!(refused, Err(LogError::NotFound { partition: gone }));
    let refused = broker
        .commit(commit("z", vec![position(source, 2, Some(0))]))
        .await;
    let message = refused.unwrap_err().to_string();
    assert_eq!(
        message,
        "refused for partition 1/0: group lane stands at 2, not at 0"
    );
    assert_eq!(broker.position("lane", source), Some(2));
    store.close().await.unwrap();

    let (broker, store) = world.open().await;
    assert_eq!(broker.position("lane", source), Some(2));
    assert_eq!(broker.position("other", source), None);
    assert_eq!(dump(&broker, outs[1]).await, "0:x 1:x");
    check(&world, broker, store, outs[0], "0:x").await;
}

#[tokio::test]
async fn of_two_commits_over_the_same_input_one_wins() {
    let world = World::new(&[("in", 1), ("out", 1)]);
    let (broker, store) = world.open().await;
    let (source, out) = (world.partition("in", 0), world.partition("out", 0));
    broker.produce(source, batch(&["1"])).await.unwrap();
    let start = Commit {
        appends: vec![],
        positions: vec![position(source, 0, None)],
    };
    broker.commit(start).await.unwrap();
    let commit = |value: &str| Commit {
        appends: vec![append(out, &[value])],
        positions: vec![position(source, 1, Some(0))],
    };
    // Both are called before either is durable.
    let (first, second) = (broker.commit(commit("a")), broker.commit(commit("b")));
    let second = second.await;
    assert!(matches!(second, Err(LogError::Fenced { .. })), "{second:?}");
    assert_eq!(first.await.unwrap().base_offsets, [0]);
    check(&world, broker, store, out, "0:a").await;
}

#[tokio::test]
async fn a_commit_whose_caller_goes_away_still_counts() {
    let world = World::new(&[("t", 1)]);
    let (broker, store) = world.open().await;
    let p = world.partition("t", 0);
    drop(broker.commit(Commit {
        appends: vec![append(p, &["a"])],
        positions: vec![position(p, 0, None)],
    }));
    broker.produce(p, batch(&["b"])).await.unwrap();
    assert_eq!(broker.position("lane", p), Some(0));
    check(&world, broker, store, p, "0:a 1:b").await;
}

#[tokio::test]
async fn a_fetch_waits_for_what_comes() {
    let world = World::new(&[("t", 1)]);
    let (broker, store) = world.open().await;
    let p = world.partition("t", 0);
    let mut waiting = Box::pin(broker.fetch_wait(p, 0, 1000, 60_000));
    let mut context = Context::from_waker(noop_waker_ref());
    assert!(matches!(waiting.as_mut().poll(&mut context), Poll::Pending));
    assert_eq!(broker.status().fetches_waiting, 1);
    broker.produce(p, batch(&["a"])).await.unwrap();
    let fetched = waiting.await.unwrap();
    assert_eq!((fetched.batches.len(), fetched.bounds.end), (1, 1));
    assert_eq!(broker.status().fetches_waiting, 0);

    assert!(
        broker
            .fetch_wait(p, 1, 1000, 1)
            .await
            .unwrap()
            .batches
            .is_empty()
    );
    let error = broker
        .fetch_wait(p, 2, 1000, 0)
        .await
        .unwrap_err()
        .to_string();
    assert_eq!(
        error,
        "offset 2 of partition 1/0 is outside of what is kept (0..1)"
    );
    assert_eq!(broker.lookup(p, Lookup::Latest).await, Ok(1));
    broker.moved(p, 0).await.unwrap();
    let gone = PartitionId::new(TopicId(9), 0);
    let error = broker.produce(gone, batch(&["a"])).await.unwrap_err();
    assert_eq!(error, LogError::NotFound { partition: gone });
    let error = broker.fetch_wait(gone, 0, 1, 0).await.unwrap_err();
    assert_eq!(error, LogError::NotFound { partition: gone });
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_fetch_of_many_waits_for_the_first_that_has_something() {
    let world = World::new(&[("t", 3)]);
    let (broker, store) = world.open().await;
    let [p0, p1, p2] = [0, 1, 2].map(|index| world.partition("t", index));
    let wants = [(p0, 0), (p1, 0), (p2, 0)];
    let mut waiting = Box::pin(broker.fetch_many(&wants, 1000, 60_000));
    let mut context = Context::from_waker(noop_waker_ref());
    assert!(waiting.as_mut().poll(&mut context).is_pending());
    assert_eq!(broker.status().fetches_waiting, 1);
    broker.produce(p1, batch(&["a"])).await.unwrap();
    let show = |found: Vec<(PartitionId, Result<Fetched, LogError>)>| {
        let part = |(p, outcome): (PartitionId, Result<Fetched, LogError>)| match outcome {
            Ok(fetched) => format!("{p}: {} to {}", fetched.batches.len(), fetched.bounds.end),
            Err(error) => error.to_string(),
        };
        found.into_iter().map(part).collect::<Vec<_>>().join("; ")
    };
    assert_eq!(show(waiting.await), "1/1: 1 to 1");
    broker.produce(p2, batch(&["b"])).await.unwrap();
    broker.produce(p2, batch(&["c"])).await.unwrap();
    // The first named is served first, and takes at least one batch of the bytes.
    let wants = [(p2, 0), (p0, 5), (p1, 0)];
    let gone = "offset 5 of partition 1/0 is outside of what is kept (0..0)";
    for (bytes_max, expected) in [
        (1000, format!("1/2: 2 to 2; {gone}; 1/1: 1 to 1")),
        (1, "1/2: 1 to 2".to_owned()),
    ] {
        let found = broker.fetch_many(&wants, bytes_max, 60_000).await;
        assert_eq!(show(found), expected);
    }
    let nothing = broker.fetch_many(&[(p0, 0), (p1, 1)], 1000, 1).await;
    assert_eq!(show(nothing), "");
    let nothing = broker.fetch_many(&[], 1000, 60_000).await;
    assert_eq!(show(nothing), "");

    let wants = [(p0, 0), (p1, 1)];
    let mut waiting = Box::pin(broker.fetch_many(&wants, 1000, 60_000));
    assert!(waiting.as_mut().poll(&mut context).is_pending());
    world.apply(&Command::TopicDelete { name: "t".into() });
    broker.topic_deleted(p0.topic).await.unwrap();
    let found = show(waiting.await);
    assert!(found.starts_with("partition 1/0"), "{found}");
    store.close().await.unwrap();
}

#[tokio::test]
async fn topics_come_and_go_while_the_broker_runs() {
    let world = World::new(&[]);
    let (broker, store) = world.open().await;
    let id = world.topic("t", 2);
    let topic = world.catalog.catalog().topic("t").unwrap().clone();
    broker.topic_created(&topic).unwrap();
    broker.topic_created(&topic).unwrap();
    let p = world.partition("t", 1);
    broker.produce(p, batch(&["a"])).await.unwrap();
    let mark = Commit {
        appends: vec![],
        positions: vec![position(p, 1, None)],
    };
    broker.commit(mark).await.unwrap();

    let waiting = tokio::spawn({
        let broker = broker.clone();
        async move { broker.fetch_wait(p, 1, 1000, 60_000).await }
    });
    world.apply(&Command::TopicDelete { name: "t".into() });
    broker.topic_deleted(id).await.unwrap();
    let gone = LogError::NotFound { partition: p };
    assert_eq!(waiting.await.unwrap().unwrap_err(), gone);
    assert_eq!(broker.produce(p, batch(&["b"])).await.unwrap_err(), gone);
    assert_eq!(broker.position("lane", p), None);
    store.close().await.unwrap();
    let (broker, _store) = world.open().await;
    assert_eq!(broker.status().positions, 0);
}

#[tokio::test]
async fn positions_survive_compaction_and_go_with_their_topic() {
    let world = World::new(&[("t", 1), ("u", 1)]);
    let (broker, store) = world.open().await;
    let (p, q) = (world.partition("t", 0), world.partition("u", 0));
    broker.produce(p, batch(&["v"; 30])).await.unwrap();
    for offset in 0..=30 {
        let mut positions = vec![position(p, offset, offset.checked_sub(1))];
        positions.extend((offset == 0).then(|| position(q, 0, None)));
        let appends = vec![];
        broker.commit(Commit { appends, positions }).await.unwrap();
    }
    assert_eq!(broker.status().offsets_topic.to_string(), "0..32");
    let report = store.compact(OFFSETS, i64::MAX).await.unwrap();
    assert_eq!((report.records_before, report.records_after), (31, 2));
    store.close().await.unwrap();

    let (broker, store) = world.open().await;
    assert_eq!(broker.status().offsets_topic.to_string(), "0..32");
    assert_eq!(broker.position("lane", p), Some(30));
    assert_eq!(broker.position("lane", q), Some(0));
    // One topic goes while the broker knows, one while it is down.
    let id = p.topic;
    world.apply(&Command::TopicDelete { name: "t".into() });
    broker.topic_deleted(id).await.unwrap();
    world.apply(&Command::TopicDelete { name: "u".into() });
    store.close().await.unwrap();
    let (broker, store) = world.open().await;
    assert_eq!(broker.status().positions, 0);
    broker.moved(OFFSETS, 33).await.unwrap();
    store.close().await.unwrap();
    let (broker, store) = world.open().await;
    assert_eq!(
        broker.status().offsets_topic.to_string(),
        "0..34",
        "said once"
    );
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_compacted_topic_wants_keys() {
    let world = World::new(&[]);
    let spec = model::TopicSpec {
        compact: true,
        tier: false,
        ..model::TopicSpec::default()
    };
    world.topic_with("c", spec);
    let (broker, store) = world.open().await;
    let p = world.partition("c", 0);
    let expected = "not accepted by partition 1/0: record 0 has no key, and the topic is \
                    compacted: it keeps the newest record of each key, so every record needs one \
                    (`rustmq produce --key FIELD`)";
    let error = broker.produce(p, batch(&["a"])).await.unwrap_err();
    assert_eq!(error.to_string(), expected);
    let appends = vec![append(p, &["a"])];
    let commit = Commit {
        appends,
        positions: vec![],
    };
    assert_eq!(broker.commit(commit).await.unwrap_err(), error);
    let mut rows = model::RowsBuilder::new();
    rows.push(0, Some(b"k"), Some(b"v"), &[]);
    let rows = rows.finish();
    let keyed = model::Batch::encode(&rows, model::Codec::None, None).unwrap();
    broker.produce(p, keyed).await.unwrap();
    // Offsets are not the producer's to choose.
    let sparse = model::Batch::encode_compacted(&rows, &[0], 9, model::Codec::None).unwrap();
    let error = broker.produce(p, sparse).await.unwrap_err();
    assert!(
        error.to_string().ends_with("they are given by the log"),
        "{error}"
    );
    store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_queue_makes_producers_wait_in_their_order() {
    let mut world = World::new(&[("t", 1)]);
    world.queue_bytes_max = 600;
    let (broker, store) = world.open().await;
    let p = world.partition("t", 0);
    let mut tasks = Vec::new();
    for _ in 0..4 {
        let broker = broker.clone();
        tasks.push(tokio::spawn(async move {
            let id = broker.producer_open().await.unwrap();
            // All are called before one is awaited, as a door does with one stream.
            let calls = (0..30).map(|at| broker.produce(p, numbered(&["v"], Some((id, 0, at)))));
            let produced: FuturesOrdered<_> = calls.collect();
            produced
                .map(|produced| produced.unwrap().base_offset)
                .collect::<Vec<_>>()
                .await
        }));
    }
    for task in tasks {
        let bases = task.await.unwrap();
        assert!(bases.is_sorted(), "{bases:?}");
    }
    assert_eq!(TopicLog::bounds(&broker, p).unwrap().end, 120);
    store.close().await.unwrap();
    assert!(matches!(
        broker.produce(p, batch(&["x"])).await,
        Err(LogError::Closed)
    ));
}

/// Sixteen producers, two partitions: every answer is a range of its own, the ranges are dense,
/// and each producer's values stand in the order it sent them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn offsets_of_many_producers_are_dense_and_in_order() {
    const PRODUCERS: usize = 16;
    const BATCHES: u32 = 25;
    let world = World::new(&[("t", 2)]);
    let (broker, store) = world.open().await;
    let mut tasks = Vec::new();
    for producer in 0..PRODUCERS {
        let broker = broker.clone();
        let p = world.partition("t", (producer % 2) as u32);
        tasks.push(tokio::spawn(async move {
            let id = broker.producer_open().await.unwrap();
            let mut bases = Vec::new();
            for sequence in 0..BATCHES {
                let value = format!("{producer}.{sequence}");
                let batch = numbered(&[&value], Some((id, 0, sequence)));
                let first = broker.produce(p, batch.clone());
                // Every third batch is sent twice at once, as a client after a timeout does.
                let produced = if sequence % 3 == 0 {
                    let (first, second) = tokio::join!(first, broker.produce(p, batch));
                    let (first, second) = (first.unwrap(), second.unwrap());
                    assert_eq!(first.base_offset, second.base_offset);
                    first
                } else {
                    first.await.unwrap()
                };
                bases.push(produced.base_offset);
            }
            (p, bases)
        }));
    }
    let mut seen: BTreeSet<(PartitionId, Offset)> = BTreeSet::new();
    for task in tasks {
        let (p, bases) = task.await.unwrap();
        assert!(bases.is_sorted(), "{bases:?}");
        for base in bases {
            assert!(seen.insert((p, base)), "{p} {base} was given twice");
        }
    }
    let each = PRODUCERS as u64 / 2 * u64::from(BATCHES);
    for index in 0..2 {
        let p = world.partition("t", index);
        assert_eq!(broker.inner.store.bounds(p).unwrap().end, each);
        assert!((0..each).all(|offset| seen.contains(&(p, offset))), "dense");
        let text = dump(&broker, p).await;
        for producer in (index as usize..PRODUCERS).step_by(2) {
            let marker = format!(":{producer}.");
            let got: Vec<u32> = text
                .split(' ')
                .filter_map(|word| word.split_once(&marker)?.1.parse().ok())
                .collect();
            assert_eq!(got, (0..BATCHES).collect::<Vec<_>>(), "producer {producer}");
        }
    }
    assert_eq!(broker.status().counters.duplicates, 16 * 9);
    store.close().await.unwrap();
}
