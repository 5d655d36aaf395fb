//! `kill -9` at random moments, over and over, under load.
//!
//! What: steady producers that live through every kill, fleeting ones that die with the server,
//! a group of two members, a filtering pipeline, small segments and a busy tier. At the end the
//! ledger's checker reads everything, once more after a last kill.
//! That it can fail was tried: a broker that forgets repeated batches, one that acks before it
//! writes or drops group commits, a stage that commits output and position apart: each is found
//! within the eight rounds.
//! `RUSTMQ_KILL_ROUNDS` (8) and `RUSTMQ_SEED` choose how much and which; `RUSTMQ_KILL_TIER=s3`
//! puts the tier on an S3 server.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use client::{ClientConfig, Transport};
use protocol::TopicList;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::Chance;
use crate::clients::{COPY, Scene};
use crate::ledger::{Scan, check_newest, check_output};
use crate::stores::s3::{self, S3};
use crate::support::{Server, World, wait};

const CONFIG: &str = "\
[storage]
segment_bytes = \"256KiB\"
tail_bytes_max = \"128KiB\"
tier_bytes = \"96KiB\"
tier_age_ms = 700
";
const COMPACTION: &str = "\
[tier]
tick_ms = 100
[compaction]
bytes_min = \"16KiB\"
";

const STEADY: u64 = 3;

/// The stage: the world, the server's port, the clock of kills.
struct Stage {
    /// Where the tier is, if not in a folder; it outlives no test and no kill ends it.
    _store: Option<S3>,
    world: World,
    listen: String,
    runtime: Runtime,
    scene: Scene,
    up: watch::Sender<u64>,
    starts: u64,
    kills: u64,
}

impl Stage {
    fn new() -> Stage {
        let world = World::new();
        let store = is_on_s3().then(|| S3::start(world.dir.path()));
        let options = store.as_ref().map(|store| on_s3(store.port));
        world.write(
            "node.toml",
            format!("{CONFIG}{}{COMPACTION}", options.unwrap_or_default()),
        );
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
            _store: store,
            world,
            listen: "127.0.0.1:0".to_owned(),
            runtime,
            scene,
            up,
            starts: 0,
            kills: 0,
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
    fn stumble(&mut self, moment: Duration) {
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
        self.kills += 1;
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

    /// Objects that the tier holds.
    fn objects(&self) -> u64 {
        self.number("select sum(objects) from system.partitions")
    }

    /// Offsets that compaction has passed over in the tier.
    fn compacted(&self) -> u64 {
        let query = "select sum(least(compacted_end, cold_end)) from system.partitions \
                     where topic = 'newest'";
        self.number(query)
    }

    fn number(&self, query: &str) -> u64 {
        let out = self.world.run(&["sql", query]).ok().out;
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

fn is_on_s3() -> bool {
    std::env::var("RUSTMQ_KILL_TIER").is_ok_and(|tier| tier == "s3")
}

/// What the configuration says of the S3 server on this port.
fn on_s3(port: u16) -> String {
    let options = s3::options(port).into_iter();
    let options = options.map(|(name, value)| format!("{name} = \"{value}\"\n"));
    let options: String = options.collect();
    format!(
        "url = \"{}\"\n[storage.options]\n{options}",
        s3::url("kill")
    )
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
        stage.runtime.block_on(scene.check_catalog());
        let operator = stage.spawn(scene.clone().operate(round, chance.split()));
        stage.runtime.block_on(scene.check_commits(&mut commits));
        pass(moment);
        stage.kills += 1;
        server.kill();
        fleeting.abort();
        operator.abort();
        // what was answered is known by now: the next start is checked against it
        let _ = stage.runtime.block_on(operator);
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
    stage.runtime.block_on(stage.scene.check_catalog());
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
        let whole = (passing as u64, records as u64);
        (stage.count("out") >= whole.0 && stage.count("newest") >= whole.1).then_some(())
    });
    stage.up.send_replace(0);
    stage.join("the members", members);
    stage
        .runtime
        .block_on(stage.scene.check_commits(&mut BTreeMap::new()));
    let settled = Settled {
        output: stage.scan("out"),
        newest: stage.scan("newest"),
        input,
        objects: stage.objects(),
    };
    server.kill();
    let server = stage.start();
    let (rounds, elapsed) = (
        format!(
            "{rounds} rounds, {} kills, {} starts",
            stage.kills, stage.starts
        ),
        began.elapsed(),
    );
    judge(&stage, settled, seed, &format!("{rounds}, {elapsed:.1?}"));
    server.stop();
}

/// What there was before the last kill.
struct Settled {
    input: Scan,
    output: Scan,
    /// The compacted topic, which may be compacted once more meanwhile.
    newest: Scan,
    objects: u64,
}

/// The last word, after one more kill and start.
fn judge(stage: &Stage, settled: Settled, seed: u64, course: &str) {
    let Settled {
        input,
        output,
        newest,
        objects,
    } = settled;
    let again = (stage.scan("in") == input, stage.scan("out") == output);
    let query = "select count(*), count(distinct _value_text) from \"in\"";
    let counted = stage.world.run(&["sql", query]).ok().out;
    let verdict = stage.scene.ledger.check(&input);
    let operated = stage.scene.ledger.operated.lock().unwrap().clone();
    let count = |scan: &Scan| scan.values().map(Vec::len).sum::<usize>();
    let (piped, left, compacted) = (count(&output), count(&newest), stage.compacted());
    eprintln!(
        "kill -9: seed {seed}, {course}: {} records ({} acked, {} unanswered but there), {} lost, \
         {} doubled, {} reordered; {piped} through the pipeline, changed {} times; \
         {left} left of the compacted copy, {compacted} of it in the tier compacted; \
         {} topics made; {objects} objects in the tier",
        verdict.records,
        verdict.acked,
        verdict.unknown_present,
        verdict.lost,
        verdict.doubled,
        verdict.reordered,
        operated.generation,
        operated.topics.len(),
    );
    assert!(
        verdict.faults.is_empty(),
        "seed {seed}: {:#?}",
        verdict.faults
    );
    assert_eq!(check_output(&input, &output), None, "seed {seed}");
    for newest in [newest, stage.scan("newest")] {
        assert_eq!(check_newest(&input, &newest), None, "seed {seed}");
    }
    assert!(
        left < count(&input) && compacted > 0,
        "seed {seed}: nothing was compacted"
    );
    assert_eq!(
        again,
        (true, true),
        "seed {seed}: read again, something else"
    );
    let wanted = format!("{0},{0}", verdict.records);
    assert_eq!(counted.lines().last(), Some(wanted.as_str()), "seed {seed}");
    assert_eq!(
        stage.count("bad"),
        0,
        "seed {seed}: nothing was wrong with any record"
    );
    let happened = objects > 0 && verdict.acked > 0 && operated.generation > 1;
    assert!(happened, "seed {seed}: nothing happened");
}

#[test]
fn a_quic_client_is_told_when_a_killed_server_is_back() {
    let mut stage = Stage::new();
    let server = stage.start();
    let client = stage.runtime.block_on(stage.scene.client(Transport::Quic));
    let channel = stage.runtime.block_on(client.channel()).unwrap();
    server.kill();
    let _server = stage.start();
    let began = Instant::now();
    let answer = stage
        .runtime
        .block_on(async { channel.send(TopicList {}).await?.await });
    assert!(answer.is_err(), "the stream went with the server");
    let silence = Duration::from_millis(protocol::limits::IDLE_MS);
    assert!(
        began.elapsed() < silence / 2,
        "noticed by silence only: {:?}",
        began.elapsed()
    );
    assert_eq!(stage.runtime.block_on(client.topics()).unwrap().len(), 4);
}
