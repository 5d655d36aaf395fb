//! The consumer, outside of groups.

use std::collections::BTreeSet;
use std::sync::Arc;

use client::{Client, ConsumerConfig, ProducerConfig, Record, Start};
use model::ids::Offset;
use protocol::{WireError, code};

use super::support::{BOTH, FakeBroker, FakeLog, Rig};

pub async fn produce(client: &Client, records: std::ops::Range<u32>) {
    let config = ProducerConfig {
        batch_bytes: 200,
        ..ProducerConfig::default()
    };
    let producer = client.producer(config).await.unwrap();
    for i in records {
        let record = Record::value(format!("{i}"));
        producer.send_to("t", i % 2, record).await.unwrap();
    }
    producer.flush().await.unwrap();
}

/// Reads to the end; the values of partition 0 and 1 with their offsets.
async fn read(client: &Client, config: ConsumerConfig) -> [Vec<(Offset, String)>; 2] {
    let mut consumer = client.consumer(config).await.unwrap();
    let mut found = [Vec::new(), Vec::new()];
    while let Some(delivery) = consumer.next().await.unwrap() {
        let (rows, offsets) = delivery.rows().unwrap();
        let values = rows
            .values
            .iter()
            .map(|v| String::from_utf8(v.unwrap().to_vec()).unwrap());
        found[delivery.partition.index as usize].extend(offsets.into_iter().zip(values));
    }
    consumer.close().await.unwrap();
    found
}

fn expected(from: u32, records: u32, odd: u32) -> Vec<(Offset, String)> {
    (from..records / 2)
        .map(|i| (Offset::from(i), (2 * i + odd).to_string()))
        .collect()
}

#[tokio::test]
async fn all_partitions_are_read_to_where_they_ended() {
    for transport in BOTH {
        let rig = Rig::new();
        let log = FakeLog::new(2, []);
        let door = rig.open(&Arc::new(FakeBroker(Arc::clone(&log)))).await;
        let client = rig.client(&door, transport).await;
        let all = ConsumerConfig::all(["t"]);
        assert_eq!(read(&client, all.clone()).await, [vec![], vec![]]);
        produce(&client, 0..100).await;
        assert_eq!(
            read(&client, all.clone()).await,
            [expected(0, 100, 0), expected(0, 100, 1)]
        );
        // From the middle of a batch.
        let later = ConsumerConfig {
            from: Start::Offset(13),
            ..all.clone()
        };
        assert_eq!(
            read(&client, later).await,
            [expected(13, 100, 0), expected(13, 100, 1)]
        );
        let nothing = ConsumerConfig {
            from: Start::Latest,
            ..all
        };
        assert_eq!(read(&client, nothing).await, [vec![], vec![]]);
    }
}

#[tokio::test]
async fn a_partition_that_fails_holds_up_no_other() {
    let rig = Rig::new();
    let log = FakeLog::new(9, []);
    let door = rig.open(&Arc::new(FakeBroker(Arc::clone(&log)))).await;
    let client = rig.client(&door, client::Transport::Auto).await;
    let producer = client.producer(ProducerConfig::default()).await.unwrap();
    for index in 0..9 {
        let record = Record::value(format!("{index}"));
        producer.send_to("t", index, record).await.unwrap();
    }
    producer.flush().await.unwrap();
    // Partitions 0 and 8 share a lane.
    let passing = || WireError::retry(code::UNAVAILABLE, "made up");
    log.refuse(0, [passing(), passing()]);
    log.refuse(3, [WireError::fix(code::NOT_FOUND, "gone")]);
    let mut consumer = client.consumer(ConsumerConfig::all(["t"])).await.unwrap();
    let (mut came, mut failed) = (BTreeSet::new(), Vec::new());
    while came.len() < 8 || failed.is_empty() {
        match consumer.next().await {
            Ok(delivery) => drop(came.insert(delivery.unwrap().partition.index)),
            Err(error) => failed.push(error.to_string()),
        }
    }
    assert_eq!(came, (0..9).filter(|index| *index != 3).collect());
    assert_eq!(failed, ["gone"]);
}

#[tokio::test]
async fn following_goes_on_with_what_comes() {
    let rig = Rig::new();
    let log = FakeLog::new(2, []);
    let door = rig.open(&Arc::new(FakeBroker(Arc::clone(&log)))).await;
    let client = rig.client(&door, client::Transport::Auto).await;
    let config = ConsumerConfig {
        follow: true,
        ..ConsumerConfig::all(["t"])
    };
    let mut consumer = client.consumer(config).await.unwrap();
    for round in 0..3 {
        produce(&client, round * 10..(round + 1) * 10).await;
        let mut records = 0;
        while records < 10 {
            let delivery = consumer.next().await.unwrap().expect("it follows");
            assert!(delivery.from >= Offset::from(round * 5));
            records += delivery.rows().unwrap().1.len();
        }
        assert_eq!(records, 10);
    }
}
