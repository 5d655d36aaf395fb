//! The consumer in a group: members share partitions, and what is done is read once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use client::{Client, Consumer, ConsumerConfig, Start, Transport};
use model::group::{GroupError, GroupState, Subscription};
use model::ids::{Offset, PartitionId, TopicId};
use model::port::BoxFuture;
use protocol::*;

use super::consume::produce;
use super::support::{FakeLog, Rig};
use crate::door::{Peer, Reply, Service};

/// A log with one group, by the model's rules.
struct GroupBroker {
    log: Arc<FakeLog>,
    began: Instant,
    group: Mutex<GroupState>,
}

impl GroupBroker {
    fn new(partitions: u32) -> Arc<GroupBroker> {
        let (log, group) = (FakeLog::new(partitions, []), Mutex::new(GroupState::new()));
        Arc::new(GroupBroker {
            log,
            began: Instant::now(),
            group,
        })
    }

    fn answer(&self, request: Request) -> Result<Option<Response>, GroupError> {
        let mut group = self.group.lock().unwrap();
        let now_ms = self.began.elapsed().as_millis() as u64;
        Ok(Some(match request {
            Request::GroupJoin(ask) => {
                let fresh = format!("m{}", group.members().len());
                let member = ask.member.unwrap_or(fresh);
                let topic = Subscription {
                    topic: TopicId(7),
                    partitions: self.log.partitions,
                };
                let joined = group.join(&member, &[topic], ask.session_ms.into(), now_ms)?;
                let (generation, assignment) = (joined.generation.into(), joined.assignment);
                GroupJoined {
                    member,
                    generation,
                    assignment,
                }
                .into()
            }
            Request::GroupHeartbeat(ask) => {
                let beat = group.heartbeat(&ask.member, ask.generation as u32, now_ms)?;
                GroupBeaten {
                    rejoin: beat.rejoin,
                }
                .into()
            }
            Request::GroupLeave(ask) => {
                group.leave(&ask.member);
                GroupLeft {}.into()
            }
            Request::GroupCommit(ask) => {
                let by = ask.member.as_deref().zip(ask.generation.map(|g| g as u32));
                for position in &ask.positions {
                    group.commit_check(by, position.partition, None, "")?;
                }
                for position in ask.positions {
                    group.commit(position.partition, position.offset, "");
                }
                GroupCommitted {}.into()
            }
            Request::GroupPositions(_) => {
                let position = |(partition, commit): (&PartitionId, &model::group::Committed)| {
                    let (partition, metadata) = (*partition, String::new());
                    GroupPosition {
                        partition,
                        offset: commit.offset,
                        metadata,
                    }
                };
                let positions = group.commits().iter().map(position).collect();
                GroupPositioned { positions }.into()
            }
            _ => return Ok(None),
        }))
    }

    fn committed(&self) -> BTreeMap<u32, Offset> {
        let group = self.group.lock().unwrap();
        group
            .commits()
            .iter()
            .map(|(partition, at)| (partition.index, at.offset))
            .collect()
    }
}

struct Doors(Arc<GroupBroker>);

impl Service for Doors {
    fn call(&self, _: &Peer, request: Request) -> BoxFuture<'static, Reply> {
        match self.0.answer(request.clone()) {
            Ok(None) => self.0.log.answer(request),
            Ok(Some(response)) => Box::pin(std::future::ready(Reply::One(response))),
            Err(error) => {
                let error = WireError::new(error.advice(), code::FENCED, error.to_string());
                Box::pin(std::future::ready(Reply::One(Response::Error(error))))
            }
        }
    }
}

fn member(follow: bool) -> ConsumerConfig {
    let from = Start::Earliest;
    ConsumerConfig {
        from,
        follow,
        session_ms: 1_000,
        ..ConsumerConfig::group("g", ["t"])
    }
}

/// Takes one delivery and does it.
async fn work(consumer: &mut Consumer) -> Vec<(u32, Offset)> {
    let delivery = consumer.next().await.unwrap().expect("it follows");
    let (_, offsets) = delivery.rows().unwrap();
    consumer.done(&delivery);
    offsets
        .into_iter()
        .map(|offset| (delivery.partition.index, offset))
        .collect()
}

/// Reads to the end as the only member; how many records there were.
async fn rest(client: &Client) -> usize {
    let mut consumer = client.consumer(member(false)).await.unwrap();
    let mut records = 0;
    while let Some(delivery) = consumer.next().await.unwrap() {
        records += delivery.rows().unwrap().1.len();
        consumer.done(&delivery);
    }
    consumer.close().await.unwrap();
    records
}

#[tokio::test]
async fn a_group_goes_on_where_it_was() {
    let rig = Rig::new();
    let broker = GroupBroker::new(2);
    let door = rig.open(&Arc::new(Doors(Arc::clone(&broker)))).await;
    let client = rig.client(&door, Transport::Auto).await;
    produce(&client, 0..50).await;
    assert_eq!(rest(&client).await, 50);
    assert_eq!(broker.committed(), BTreeMap::from([(0, 25), (1, 25)]));
    produce(&client, 50..60).await;
    assert_eq!(rest(&client).await, 10);
    assert_eq!(rest(&client).await, 0);
}

#[tokio::test]
async fn what_is_not_done_comes_again() {
    let rig = Rig::new();
    let broker = GroupBroker::new(1);
    let door = rig.open(&Arc::new(Doors(Arc::clone(&broker)))).await;
    let client = rig.client(&door, Transport::Auto).await;
    let producer = client
        .producer(client::ProducerConfig::default())
        .await
        .unwrap();
    for i in 0..20 {
        producer
            .send("t", client::Record::value(format!("{i}")))
            .await
            .unwrap();
    }
    producer.flush().await.unwrap();
    let mut consumer = client.consumer(member(false)).await.unwrap();
    let first = consumer.next().await.unwrap().expect("twenty records");
    consumer.done_to(first.partition, 7);
    consumer.close().await.unwrap();
    assert_eq!(broker.committed(), BTreeMap::from([(0, 7)]));
    assert_eq!(rest(&client).await, 13);
}

#[tokio::test]
async fn members_share_partitions_and_take_over() {
    let rig = Rig::new();
    let broker = GroupBroker::new(2);
    let door = rig.open(&Arc::new(Doors(Arc::clone(&broker)))).await;
    let client = rig.client(&door, Transport::Auto).await;
    let mut first = client.consumer(member(true)).await.unwrap();
    assert_eq!(first.partitions().len(), 2);
    let mut second = client.consumer(member(true)).await.unwrap();
    assert_eq!(second.partitions().len(), 1);

    produce(&client, 0..100).await;
    let mut seen = BTreeSet::new();
    while seen.len() < 100 {
        tokio::select! {
            offsets = work(&mut first) => seen.extend(offsets),
            offsets = work(&mut second) => seen.extend(offsets),
        }
    }
    // Once the first has noticed, each has one; what moved is at the second's place.
    while first.partitions().len() != 1 {
        produce(&client, 0..2).await;
        tokio::select! {
            _ = work(&mut first) => {}
            _ = work(&mut second) => {}
        }
    }
    assert_ne!(first.partitions(), second.partitions());
    second.close().await.unwrap();
    while first.partitions().len() != 2 {
        produce(&client, 0..2).await;
        work(&mut first).await;
    }
    first.close().await.unwrap();
}
