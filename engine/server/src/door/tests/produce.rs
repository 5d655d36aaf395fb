//! The producer, against brokers that refuse, forget and vanish.

use std::sync::Arc;
use std::time::Duration;

use client::{Producer, ProducerConfig, Record, Transport};
use model::batch::Codec;
use proptest::prelude::*;
use protocol::code;

use super::support::{FakeBroker, FakeLog, Fault, Rig};

fn quick() -> ProducerConfig {
    let backoff = Duration::from_millis(1);
    // Small batches, so that several are under way together.
    ProducerConfig {
        linger_ms: 0,
        batch_bytes: 100,
        backoff,
        ..ProducerConfig::default()
    }
}

async fn send(producer: &Producer, records: std::ops::Range<u32>) {
    for i in records {
        producer
            .send_to("t", 0, Record::value(format!("{i}")))
            .await
            .unwrap();
    }
}

fn numbers(range: std::ops::Range<u32>) -> Vec<String> {
    range.map(|i| i.to_string()).collect()
}

/// Each record arrives once and in order, whatever the faults are.
async fn check(transport: Transport, codec: Codec, faults: &[Fault]) {
    let rig = Rig::new();
    let log = FakeLog::new(1, faults.iter().copied());
    let door = rig.open(&Arc::new(FakeBroker(Arc::clone(&log)))).await;
    let client = rig.client(&door, transport).await;
    let producer = client
        .producer(ProducerConfig { codec, ..quick() })
        .await
        .unwrap();
    send(&producer, 0..40).await;
    assert_eq!(producer.flush().await.unwrap().records, 40);
    send(&producer, 40..60).await;
    assert_eq!(producer.flush().await.unwrap().records, 60);
    assert_eq!(log.values(0), numbers(0..60), "{transport:?} {faults:?}");
}

#[tokio::test]
async fn every_record_once_and_in_order() {
    use Fault::*;
    check(Transport::Quic, Codec::None, &[]).await;
    check(Transport::Tcp, Codec::Lz4, &[]).await;
    check(Transport::Quic, Codec::None, &[Refuse, Refuse]).await;
    check(Transport::Quic, Codec::Zstd, &[LoseAck]).await;
    check(
        Transport::Quic,
        Codec::None,
        &[None, None, Refuse, None, LoseAck],
    )
    .await;
    check(Transport::Quic, Codec::None, &[None, Break, None, Break]).await;
    check(Transport::Tcp, Codec::None, &[Break, None, LoseAck, Break]).await;
}

fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        4 => Just(Fault::None),
        1 => Just(Fault::Refuse),
        1 => Just(Fault::LoseAck),
        1 => Just(Fault::Break),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn any_faults_leave_every_record_once(faults in prop::collection::vec(fault(), 0..30)) {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(check(Transport::Quic, Codec::None, &faults));
    }
}

#[tokio::test]
async fn a_server_that_comes_back_elsewhere_is_found() {
    let rig = Rig::new();
    let log = FakeLog::new(1, []);
    let service = Arc::new(FakeBroker(Arc::clone(&log)));
    let door = rig.open(&service).await;
    let announced = rig.announce(&door);
    let config = rig.found_config(Transport::Auto);
    let client = client::Client::connect(config).await.unwrap();
    let producer = client.producer(quick()).await.unwrap();
    send(&producer, 0..20).await;
    producer.flush().await.unwrap();
    drop(door);
    announced.remove();
    send(&producer, 20..30).await;
    let door = rig.open(&service).await;
    let _announced = rig.announce(&door);
    send(&producer, 30..40).await;
    assert_eq!(producer.flush().await.unwrap().records, 40);
    assert_eq!(log.values(0), numbers(0..40));
}

#[tokio::test]
async fn keys_keep_their_partition_and_the_rest_is_spread() {
    let rig = Rig::new();
    let log = FakeLog::new(3, []);
    let door = rig.open(&Arc::new(FakeBroker(Arc::clone(&log)))).await;
    let client = rig.client(&door, Transport::Quic).await;
    let producer = client.producer(quick()).await.unwrap();
    for i in 0..30 {
        let record = Record::value(format!("k{i}")).with_key("same");
        producer.send("t", record).await.unwrap();
    }
    producer.flush().await.unwrap();
    let home = model::hash::partition_for_key(b"same", 3);
    let expected: Vec<String> = (0..30).map(|i| format!("k{i}")).collect();
    assert_eq!(log.values(home), expected);
    for i in 0..60 {
        producer
            .send("t", Record::value(format!("n{i}")))
            .await
            .unwrap();
    }
    producer.flush().await.unwrap();
    let plain = |index| {
        log.values(index)
            .iter()
            .filter(|value| value.starts_with('n'))
            .count()
    };
    assert!(
        (0..3).all(|index| plain(index) > 0),
        "all partitions get some"
    );
    assert_eq!((0..3).map(plain).sum::<usize>(), 60);
}

#[tokio::test]
async fn what_cannot_be_delivered_is_said_with_its_partition() {
    let rig = Rig::new();
    let log = FakeLog::new(2, std::iter::repeat_n(Fault::Refuse, 10_000));
    let door = rig.open(&Arc::new(FakeBroker(Arc::clone(&log)))).await;
    let client = rig.client(&door, Transport::Quic).await;
    let config = ProducerConfig {
        delivery_timeout: Duration::from_millis(10),
        ..quick()
    };
    let producer = client.producer(config).await.unwrap();
    producer.send_to("t", 1, Record::value("x")).await.unwrap();
    let error = producer.flush().await.unwrap_err();
    assert_eq!((error.topic.as_str(), error.partition), ("t", Some(1)));
    assert_eq!(error.to_string(), "topic t, partition 1: made up");
    // The partition has failed: later records are not taken, and none is counted.
    assert!(producer.send_to("t", 1, Record::value("y")).await.is_err());
    assert_eq!(producer.acked(), 0);

    let large = Record::value(vec![0; model::limits::RECORD_BYTES_MAX + 1]);
    let error = producer.send_to("t", 0, large).await.unwrap_err();
    assert_eq!(error.error.code(), code::TOO_LARGE);
    let error = producer
        .send_to("t", 9, Record::value("x"))
        .await
        .unwrap_err();
    assert_eq!(error.error.code(), code::NOT_FOUND);
}

#[tokio::test]
async fn a_full_buffer_makes_senders_wait_for_acks() {
    let rig = Rig::new();
    let log = FakeLog::new(1, []);
    let door = rig.open(&Arc::new(FakeBroker(Arc::clone(&log)))).await;
    let client = rig.client(&door, Transport::Quic).await;
    let config = ProducerConfig {
        buffer_bytes: 0,
        batch_bytes: 1 << 20,
        ..quick()
    };
    let producer = client.producer(config).await.unwrap();
    // More than the smallest buffer (two of the largest records) holds.
    let record = Record::value(vec![b'x'; 1 << 20]);
    for _ in 0..40 {
        producer.send_to("t", 0, record.clone()).await.unwrap();
    }
    assert!(producer.acked() >= 24, "{} are acked", producer.acked());
    assert_eq!(producer.flush().await.unwrap().records, 40);
}
