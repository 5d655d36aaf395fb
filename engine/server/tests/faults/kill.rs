//! `kill -9` at random moments, over and over, under load.
//!
//! What: steady producers that live through every kill, fleeting ones that die with the server,
//! a group of two members, a filtering pipeline, small segments and a busy tier. At the end the
//! ledger's checker reads everything, once more after a last kill.
//! `RUSTMQ_KILL_ROUNDS` (8) and `RUSTMQ_SEED` choose how much and which.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use client::{
    Client, ClientConfig, ConsumerConfig, Producer, ProducerConfig, Record, Start, Transport,
};
use protocol::GroupPositions;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::Chance;
use crate::ledger::{Ledger, Numbered, ProducerName, Scan, check_output};
use crate::support::{Server, World, wait};

const CONFIG: &str = "\
[storage]
segment_bytes = \"256KiB\"
tail_bytes_max = \"128KiB\"
tier_bytes = \"96KiB\"
tier_age_ms = 700
";

const COPY: &str = "\
apiVersion: rustmq/v1alpha1
kind: Pipeline
metadata: { name: copy }
topics:
  in: { partitions: 3, value: { codec: json, schema: { p: int64, n: int64 } } }
  out: { partitions: 3, value: json }
  bad: { partitions: 1, value: raw }
policy:
  batch: { rows: 64, wait: 1ms }
  on-error: { then: { dead-letter: bad } }
nodes:
  in: { kind: source, topic: in, start: earliest }
  some: { kind: filter, inputs: [in], where: \"n % 3 <> 0\" }
  out: { kind: sink, inputs: [some], topic: out }
";

const GROUP: &str = "g";
const STEADY: u64 = 3;

/// What the clients share.
#[derive(Clone)]
struct Scene {
    ledger: Arc<Ledger>,
    config: ClientConfig,
    /// Changes with each start of the server; 0 ends the members.
    up: watch::Receiver<u64>,
    producing: Arc<AtomicBool>,
}

impl Scene {
    async fn client(&self, transport: Transport) -> Client {
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
    async fn produce(self, p: ProducerName, transport: Transport, mut chance: Chance) {
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
    async fn consume(self, transport: Transport, mut chance: Chance) {
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

    /// No partition's commit is behind what was answered before.
    async fn check_commits(&self, before: &mut BTreeMap<u32, u64>) {
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
    async fn scan(&self, topic: &str) -> Scan {
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

/// The stage: the world, the server's port, the clock of kills.
struct Stage {
    world: World,
    listen: String,
    runtime: Runtime,
    scene: Scene,
    up: watch::Sender<u64>,
    starts: u64,
}

impl Stage {
    fn new() -> Stage {
        let world = World::new();
        world.write("node.toml", CONFIG);
        let config = ClientConfig {
            state_dir: Some(world.path("state").join("rustmq")),
            environment: false,
            ..ClientConfig::default()
        };
        let (up, receiver) = watch::channel(1);
        let scene = Scene {
            ledger: Arc::default(),
            config,
            up: receiver,
            producing: Arc::new(AtomicBool::new(true)),
        };
        let runtime = Runtime::new().expect("a runtime");
        let mut stage = Stage {
            world,
            listen: "127.0.0.1:0".to_owned(),
            runtime,
            scene,
            up,
            starts: 0,
        };
        let server = stage.start();
        stage.listen = server.quic.clone();
        let file = stage.world.write("copy.yaml", COPY);
        stage.world.run(&["pipeline", "apply", &file]).ok();
        server.kill();
        stage
    }

    fn start(&mut self) -> Server {
        let server = self
            .world
            .serve_with(&["--config", "node.toml", "--listen", &self.listen]);
        self.starts += 1;
        self.up.send_replace(1 + self.starts);
        server
    }

    /// Starts and kills while it recovers.
    fn stumble(&self, moment: Duration) {
        let args = [
            "serve",
            "--data-dir",
            "data",
            "--config",
            "node.toml",
            "--listen",
            &self.listen,
            "--http",
            "127.0.0.1:0",
        ];
        let mut command = self.world.command(&args);
        let mut child = command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        pass(moment);
        child.kill().unwrap();
        child.wait().unwrap();
    }

    fn spawn(&self, client: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
        self.runtime.spawn(client)
    }

    fn count(&self, topic: &str) -> u64 {
        let client = self.runtime.block_on(self.scene.client(Transport::Auto));
        let found = self
            .runtime
            .block_on(client.topic(topic))
            .expect("the topic is there");
        found.partitions.iter().map(|partition| partition.end).sum()
    }

    fn scan(&self, topic: &str) -> Scan {
        self.runtime.block_on(self.scene.scan(topic))
    }

    fn join(&self, who: &str, clients: Vec<JoinHandle<()>>) {
        let all = async {
            for client in clients {
                client.await.expect("clients do not panic");
            }
        };
        let ended = self
            .runtime
            .block_on(async { tokio::time::timeout(wait::PATIENCE, all).await });
        ended.unwrap_or_else(|_| {
            panic!(
                "{who} did not end: {:?}",
                self.scene.ledger.faults.lock().unwrap()
            )
        });
    }

    /// Objects that the tier holds of the topic `in`.
    fn objects(&self) -> u64 {
        let out = self
            .world
            .run(&["sql", "select sum(objects) from system.partitions"])
            .ok()
            .out;
        out.lines()
            .last()
            .and_then(|count| count.parse().ok())
            .unwrap_or_else(|| panic!("{out}"))
    }
}

/// Lets time go by.
fn pass(moment: Duration) {
    let began = Instant::now();
    wait::until("the moment", || (began.elapsed() >= moment).then_some(()));
}

fn rounds() -> u64 {
    let given = std::env::var("RUSTMQ_KILL_ROUNDS").ok();
    given.map_or(8, |rounds| {
        rounds.parse().expect("RUSTMQ_KILL_ROUNDS is a number")
    })
}

#[test]
fn kill_9_loses_nothing_acked_and_doubles_nothing() {
    let (mut chance, seed) = Chance::seeded();
    let (began, rounds) = (Instant::now(), rounds());
    let mut stage = Stage::new();
    let scene = stage.scene.clone();
    let transports = [Transport::Quic, Transport::Tcp, Transport::Auto];
    let mut clients = Vec::new();
    for p in 0..STEADY {
        clients.push(
            stage.spawn(
                scene
                    .clone()
                    .produce(p, transports[p as usize], chance.split()),
            ),
        );
    }
    for transport in [Transport::Auto, Transport::Tcp] {
        clients.push(stage.spawn(scene.clone().consume(transport, chance.split())));
    }
    let mut commits = BTreeMap::new();
    for round in 0..rounds {
        if round % 3 == 2 {
            stage.stumble(Duration::from_millis(chance.between(1, 400)));
        }
        let server = stage.start();
        let moment = Duration::from_millis(chance.between(30, 900));
        let p = STEADY + round;
        let fleeting = scene
            .clone()
            .produce(p, transports[(round % 3) as usize], chance.split());
        let fleeting = stage.spawn(fleeting);
        stage.runtime.block_on(scene.check_commits(&mut commits));
        pass(moment);
        server.kill();
        fleeting.abort();
        let told = scene
            .ledger
            .told
            .lock()
            .unwrap()
            .values()
            .map(|told| told.acked)
            .sum::<u64>();
        eprintln!("round {round}: killed {moment:?} after it was ready, {told} acked so far");
    }
    finish(stage, clients, seed, rounds, began);
}

/// No more faults: everything must settle, and be right.
fn finish(mut stage: Stage, clients: Vec<JoinHandle<()>>, seed: u64, rounds: u64, began: Instant) {
    let server = stage.start();
    let ledger = Arc::clone(&stage.scene.ledger);
    stage.scene.producing.store(false, Ordering::Release);
    let (producers, members) = {
        let mut clients = clients;
        let members = clients.split_off(STEADY as usize);
        (clients, members)
    };
    stage.join("the producers", producers);
    let input = stage.scan("in");
    let records: usize = input.values().map(Vec::len).sum();
    let passing = input
        .values()
        .flatten()
        .filter(|(_, record)| record.passes())
        .count();
    wait::until("the group to see all", || {
        (ledger.seen.lock().unwrap().len() >= records).then_some(())
    });
    wait::until("the pipeline's output", || {
        (stage.count("out") >= passing as u64).then_some(())
    });
    stage.up.send_replace(0);
    stage.join("the members", members);
    stage
        .runtime
        .block_on(stage.scene.check_commits(&mut BTreeMap::new()));
    let output = stage.scan("out");
    let verdict = ledger.check(&input);
    let objects = stage.objects();

    server.kill();
    let server = stage.start();
    let again = (stage.scan("in") == input, stage.scan("out") == output);
    let counted = stage.world.run(&[
        "sql",
        "select count(*), count(distinct _value_text) from \"in\"",
    ]);
    let counted = counted.ok().out;
    eprintln!(
        "kill -9: seed {seed}, {rounds} rounds, {} starts, {} records ({} acked, {} unanswered but \
         there), {} lost, {} doubled; {passing} through the pipeline; {objects} objects in the \
         tier; {:.1?}",
        stage.starts,
        verdict.records,
        verdict.acked,
        verdict.unknown_present,
        verdict.lost,
        verdict.doubled,
        began.elapsed(),
    );
    assert!(
        verdict.faults.is_empty(),
        "seed {seed}: {:#?}",
        verdict.faults
    );
    assert_eq!(check_output(&input, &output), None, "seed {seed}");
    assert_eq!(
        again,
        (true, true),
        "seed {seed}: another read gives something else"
    );
    assert_eq!(
        counted.lines().last(),
        Some(format!("{records},{records}").as_str()),
        "seed {seed}"
    );
    assert_eq!(
        stage.count("bad"),
        0,
        "seed {seed}: nothing was wrong with any record"
    );
    assert!(
        objects > 0 && verdict.acked > 0,
        "seed {seed}: nothing happened"
    );
    server.stop();
}
