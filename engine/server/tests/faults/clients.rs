//! The clients of the kill test: producers, group members, an operator, readers.
//!
//! Called by: `kill`. Invariants: what a client was answered goes into the ledger, what it was
//! not answered stays unknown; a client that finds no server waits for the next start.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use client::{
    Client, ClientConfig, ConsumerConfig, Producer, ProducerConfig, Record, Start, Transport,
};
use model::TopicSpec;
use protocol::{GroupPositions, PipelineApply, PipelineDescribe, PipelineFile};
use tokio::sync::watch;

use crate::Chance;
use crate::ledger::{Ledger, Numbered, ProducerName, Scan};

/// What the pipeline does to each record, the ledger knows too: `Numbered::passes`.
pub const COPY: &str = "\
apiVersion: rustmq/v1alpha1
kind: Pipeline
metadata: { name: copy }
topics:
  in: { partitions: 3, value: { codec: json, schema: { p: int64, n: int64 } } }
  out: { partitions: 3, value: json }
  newest: { partitions: 3, value: json, compact: true }
  bad: { partitions: 1, value: raw }
policy:
  batch: { rows: 64, wait: 1ms }
  on-error: { then: { dead-letter: bad } }
nodes:
  in: { kind: source, topic: in, start: earliest }
  some: { kind: filter, inputs: [in], where: \"n % 3 <> 0\" }
  out: { kind: sink, inputs: [some], topic: out }
  newest: { kind: sink, inputs: [in], topic: newest }
";

const GROUP: &str = "g";

/// What the clients share.
#[derive(Clone)]
pub struct Scene {
    pub ledger: Arc<Ledger>,
    pub config: ClientConfig,
    /// Changes with each start of the server; 0 ends the members.
    pub up: watch::Receiver<u64>,
    pub producing: Arc<AtomicBool>,
}

impl Scene {
    pub async fn client(&self, transport: Transport) -> Client {
        let mut up = self.up.clone();
        loop {
            up.borrow_and_update();
            let config = ClientConfig {
                transport,
                ..self.config.clone()
            };
            match Client::connect(config).await {
                Ok(client) => return client,
                // Nothing is there now: the next start is worth waiting for.
                Err(_) => up.changed().await.expect("the stage outlives its clients"),
            }
        }
    }

    fn is_over(&self) -> bool {
        *self.up.borrow() == 0
    }

    /// Sends until told to stop, then ends when everything is acked. Aborted, it leaves the
    /// records after its last flush unknown.
    pub async fn produce(self, p: ProducerName, transport: Transport, mut chance: Chance) {
        let client = self.client(transport).await;
        let config = ProducerConfig {
            linger_ms: chance.between(0, 3),
            batch_bytes: 8 << 10,
            ..ProducerConfig::default()
        };
        let producer = loop {
            match client.producer(config.clone()).await {
                Ok(producer) => break producer,
                Err(_) => drop(self.client(transport).await),
            }
        };
        let mut n = 0;
        while self.producing.load(Ordering::Acquire) {
            for _ in 0..chance.between(1, 150) {
                self.ledger.told.lock().unwrap().entry(p).or_default().sent = n + 1;
                self.send(&producer, Numbered { p, n }).await;
                n += 1;
            }
            if chance.between(0, 2) > 0 {
                self.flush(&producer, p, n).await;
            }
        }
        self.flush(&producer, p, n).await;
    }

    async fn send(&self, producer: &Producer, record: Numbered) {
        let outgoing = Record::value(record.value()).with_key(record.key());
        if let Err(error) = producer.send("in", outgoing.clone()).await {
            // The first send asks the server for the topic, and is told when that did not work.
            let again = matches!(
                &*error.error,
                client::ClientError::Connect(_) | client::ClientError::Disconnected(_)
            );
            if !again {
                return self.ledger.fault(format!("{record:?}: {error}"));
            }
            let _ = self.client(Transport::Auto).await;
            Box::pin(self.send(producer, record)).await;
        }
    }

    async fn flush(&self, producer: &Producer, p: ProducerName, n: u64) {
        let flushed = producer.flush().await;
        let mut told = self.ledger.told.lock().unwrap();
        let told = told.entry(p).or_default();
        told.acked_count = producer.acked();
        match flushed {
            Ok(acked) if acked.records == n => told.acked = n,
            Ok(acked) => self
                .ledger
                .fault(format!("producer {p}: {acked:?} after {n} records")),
            Err(error) => self.ledger.fault(format!("producer {p}: {error}")),
        }
    }

    /// A member of the group: reads, tells the ledger, commits.
    pub async fn consume(self, transport: Transport, mut chance: Chance) {
        while !self.is_over() {
            let client = self.client(transport).await;
            let config = ConsumerConfig {
                from: Start::Earliest,
                session_ms: 1_500,
                wait_ms: 200,
                bytes_max: 32 << 10,
                commit_interval: Duration::ZERO,
                ..ConsumerConfig::group(GROUP, ["in"])
            };
            // An error is what a dead server gives; a fresh consumer goes on at the commit.
            let Ok(mut consumer) = client.consumer(config).await else {
                continue;
            };
            let mut next: BTreeMap<u32, u64> = BTreeMap::new();
            let mut up = self.up.clone();
            loop {
                let delivery = tokio::select! {
                    delivery = consumer.next() => delivery,
                    _ = up.wait_for(|up| *up == 0) => break,
                };
                let Ok(Some(delivery)) = delivery else { break };
                let partition = delivery.partition.index;
                let (rows, offsets) = delivery.rows().expect("what is delivered was checked");
                for (i, offset) in offsets.iter().enumerate() {
                    let value = rows.record(i).value.expect("every record has a value");
                    self.ledger
                        .saw((partition, *offset), Numbered::parse(value));
                }
                self.check_gap(&mut next, partition, &offsets);
                consumer.done(&delivery);
                if chance.between(0, 3) > 0 && consumer.commit().await.is_ok() {
                    self.ledger.committed(partition, delivery.next_offset());
                }
            }
        }
    }

    /// A member that skips is caught here; going back is right after partitions moved.
    fn check_gap(&self, next: &mut BTreeMap<u32, u64>, partition: u32, offsets: &[u64]) {
        let (Some(first), Some(last)) = (offsets.first(), offsets.last()) else {
            return;
        };
        let committed = self
            .ledger
            .committed
            .lock()
            .unwrap()
            .get(&partition)
            .copied();
        let reached = next.get(&partition).copied().max(committed).unwrap_or(0);
        let seen = self.ledger.seen.lock().unwrap();
        if *first > reached
            && !(reached..*first).all(|offset| seen.contains_key(&(partition, offset)))
        {
            drop(seen);
            self.ledger
                .fault(format!("skipped: {partition}/{reached} to {first}"));
        }
        next.insert(partition, last + 1);
    }

    /// Applies the pipeline in one form and the other and creates topics, until aborted.
    pub async fn operate(self, round: u64, mut chance: Chance) {
        let client = self.client(Transport::Auto).await;
        for turn in 0..chance.between(1, 8) {
            let name = format!("made-{round}-{turn}");
            if client
                .topic_create(&name, TopicSpec::default(), false)
                .await
                .is_ok()
            {
                self.ledger.operated.lock().unwrap().topics.push(name);
            }
            let yaml = match turn % 2 {
                0 => COPY.replace("<> 0", "> 0"),
                _ => COPY.to_owned(),
            };
            let file = PipelineFile {
                file: "copy.yaml".to_owned(),
                yaml,
                modules: BTreeMap::new(),
            };
            match client.call(PipelineApply { file }).await {
                Ok(applied) => self.ledger.operated.lock().unwrap().generation = applied.generation,
                Err(error) if error.code() == "" => {}
                Err(error) => self.ledger.fault(format!("apply: {error}")),
            }
        }
    }

    /// The catalog has what it said it has.
    pub async fn check_catalog(&self) {
        let known = self.ledger.operated.lock().unwrap().clone();
        let client = self.client(Transport::Auto).await;
        let described = client
            .call(PipelineDescribe {
                name: "copy".to_owned(),
            })
            .await;
        let generation = described.map_or(0, |found| found.generation);
        if generation < known.generation {
            let known = known.generation;
            self.ledger.fault(format!(
                "pipeline generation went back from {known} to {generation}"
            ));
        }
        let there = client.topics().await.expect("the server is up");
        for name in known.topics {
            if !there.iter().any(|info| info.topic.name == name) {
                self.ledger
                    .fault(format!("topic {name} was created and is gone"));
            }
        }
    }

    /// No partition's commit is behind what was answered before.
    pub async fn check_commits(&self, before: &mut BTreeMap<u32, u64>) {
        let answered = self.ledger.committed.lock().unwrap().clone();
        let client = self.client(Transport::Auto).await;
        let ask = GroupPositions {
            group: GROUP.to_owned(),
        };
        let Ok(now) = client.call(ask).await else {
            return self.ledger.fault("no positions".to_owned());
        };
        let now: BTreeMap<u32, u64> = now
            .positions
            .iter()
            .map(|p| (p.partition.index, p.offset))
            .collect();
        for known in [&answered, &*before] {
            for (partition, offset) in known {
                let found = now.get(partition).copied().unwrap_or(0);
                if found < *offset {
                    self.ledger.fault(format!(
                        "commit of {partition} went back from {offset} to {found}"
                    ));
                }
            }
        }
        before.extend(now);
    }

    /// A whole topic, as any reader sees it.
    pub async fn scan(&self, topic: &str) -> Scan {
        let client = self.client(Transport::Auto).await;
        let mut consumer = client
            .consumer(ConsumerConfig::all([topic]))
            .await
            .expect("the server is up");
        let mut scan = Scan::new();
        while let Some(delivery) = consumer.next().await.expect("all of the topic can be read") {
            let (rows, offsets) = delivery.rows().expect("what is delivered was checked");
            let records = scan.entry(delivery.partition.index).or_default();
            for (i, offset) in offsets.iter().enumerate() {
                let value = rows.record(i).value.expect("every record has a value");
                records.push((*offset, Numbered::parse(value)));
            }
        }
        scan
    }
}
