//! A thousand partitions for a long time: memory, descriptors and disk must not drift.
//!
//! What: producers and a group over ten topics of a hundred partitions, a tier that always has
//! something to move, merge, trim and collect, retention that makes room. Every so often the
//! process is measured from outside. The medians of the second and of the last quarter are
//! compared; what came is counted against what was acknowledged, and what the partitions have.
//! Called by: `cargo test -p rustmq --test faults`; `RUSTMQ_SOAK_SECONDS` (45) says how long.
//! Invariants: load is bounded by the clock, not by the server's speed.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use client::{Client, ClientConfig, ConsumerConfig, ProducerConfig, Record, Start};
use model::TopicSpec;
use protocol::GroupDescribe;
use serde_json::Value;
use tokio::runtime::Runtime;
use tokio::sync::watch;

use crate::support::{Server, World, wait};

const TOPICS: u32 = 10;
const PARTITIONS: u32 = 100;
const PRODUCERS: u64 = 2;
const MEMBERS: u64 = 2;
/// Each producer sends so many records to so many partitions at every beat.
const BEAT: Duration = Duration::from_millis(100);
const BEAT_PARTITIONS: u64 = 5;
const BEAT_RECORDS: u64 = 5;
const VALUE_LEN: usize = 200;
/// Measurements of a run, and rows of the table.
const SAMPLES: u32 = 120;
const ROWS: usize = 12;
const MIB: u64 = 1 << 20;

/// How long, and what follows from it: each quarter sees many rounds of tier and retention.
struct Plan {
    long: Duration,
    tier_age: Duration,
    /// What nobody names any more stays this long for its readers.
    grace: Duration,
    retention: Duration,
}

impl Plan {
    fn new() -> Plan {
        let given = std::env::var("RUSTMQ_SOAK_SECONDS").ok();
        let seconds = given.map_or(45, |seconds| seconds.parse().expect("a number"));
        let long = Duration::from_secs(seconds);
        Plan {
            long,
            tier_age: (long / 20).max(Duration::from_secs(6)),
            grace: long / 20,
            retention: (long / 6).max(Duration::from_secs(12)),
        }
    }

    fn config(&self) -> String {
        let (age, grace) = (self.tier_age.as_millis(), self.grace.as_millis());
        let collect = grace / 2;
        format!(
            "[storage]\nsegment_bytes = \"4MiB\"\ntail_bytes_max = \"16MiB\"\n\
             tier_bytes = \"1MiB\"\ntier_age_ms = {age}\n\
             [tier]\ncollect_ms = {collect}\norphan_grace_ms = {grace}\n"
        )
    }
}

/// What the clients count.
#[derive(Default)]
struct Counts {
    acked: AtomicU64,
    consumed: AtomicU64,
    is_over: AtomicBool,
}

async fn produce(client: Client, p: u64, counts: Arc<Counts>) {
    let config = ProducerConfig {
        linger_ms: 20,
        ..ProducerConfig::default()
    };
    let producer = client.producer(config).await.unwrap();
    let mut beats = tokio::time::interval(BEAT);
    let mut at = p * BEAT_PARTITIONS;
    let mut known = 0;
    while !counts.is_over.load(Ordering::Acquire) {
        beats.tick().await;
        for _ in 0..BEAT_PARTITIONS {
            at += 1;
            let place = (at % u64::from(TOPICS * PARTITIONS)) as u32;
            let topic = format!("t{}", place / PARTITIONS);
            for n in 0..BEAT_RECORDS {
                let value = format!("{at}-{n}-{}", "x".repeat(VALUE_LEN));
                let record = Record::value(value).with_key(format!("{}", at % 50));
                producer
                    .send_to(&topic, place % PARTITIONS, record)
                    .await
                    .unwrap();
            }
        }
        let acked = producer.acked();
        counts.acked.fetch_add(acked - known, Ordering::AcqRel);
        known = acked;
    }
    let acked = producer.flush().await.unwrap().records;
    counts.acked.fetch_add(acked - known, Ordering::AcqRel);
}

/// Counts what comes and that nothing is left out.
async fn consume(client: Client, counts: Arc<Counts>, mut over: watch::Receiver<bool>) {
    let topics: Vec<String> = (0..TOPICS).map(|topic| format!("t{topic}")).collect();
    let config = ConsumerConfig {
        from: Start::Earliest,
        session_ms: 60_000,
        ..ConsumerConfig::group("soak", topics)
    };
    let mut consumer = client.consumer(config).await.unwrap();
    let mut next: BTreeMap<_, u64> = BTreeMap::new();
    loop {
        let delivery = tokio::select! {
            delivery = consumer.next() => delivery.unwrap().expect("it follows"),
            _ = over.wait_for(|over| *over) => return,
        };
        let (_, offsets) = delivery.rows().unwrap();
        let (Some(first), Some(last)) = (offsets.first(), offsets.last()) else {
            continue;
        };
        // A partition may come from the other member, which had gone on meanwhile.
        let expected = next.insert(delivery.partition, last + 1).unwrap_or(*first);
        assert!(*first >= expected, "{} again", delivery.partition);
        counts
            .consumed
            .fetch_add(offsets.len() as u64, Ordering::AcqRel);
        consumer.done(&delivery);
    }
}

/// One look at the process from outside.
#[derive(Clone, Copy, Debug, Default)]
struct Sample {
    at: Duration,
    rss: u64,
    /// Of it: recent batches and blocks of the tier, which fill their bounds with time.
    cached: u64,
    descriptors: u64,
    threads: u64,
    /// On disk.
    wal: u64,
    tier: u64,
    /// What the tier's lists name.
    cold: u64,
    objects: u64,
    acked: u64,
    consumed: u64,
}

/// Bytes on disk below a folder. What goes meanwhile counts as gone.
fn disk(dir: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return 0;
    };
    let sizes = entries.flatten().map(|entry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => disk(&entry.path()),
        Ok(meta) => meta.blocks() * 512,
        Err(_) => 0,
    });
    sizes.sum()
}

fn process(pid: u32, name: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|line| line.split_whitespace().next());
    number.and_then(|number| number.parse().ok()).unwrap()
}

fn status(server: &Server) -> Value {
    let (code, page) = server.http("GET /v1/status", "");
    assert_eq!(code, 200, "{page}");
    serde_json::from_str(&page).unwrap()
}

fn sample(world: &World, server: &Server, at: Duration, counts: &Counts) -> Sample {
    let pid = server.pid();
    let page = status(server);
    let partitions = page["storage"]["partitions"].as_array().unwrap();
    let sum = |name: &str| partitions.iter().map(|p| p[name].as_u64().unwrap()).sum();
    let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    Sample {
        at,
        rss: process(pid, "VmRSS:") * 1024,
        cached: page["storage"]["tail_bytes"].as_u64().unwrap()
            + page["storage"]["cache"]["memory"]["bytes"]
                .as_u64()
                .unwrap(),
        descriptors: descriptors.count() as u64,
        threads: process(pid, "Threads:"),
        wal: disk(&world.path("data").join("wal")),
        tier: disk(&world.path("data").join("tier")),
        cold: sum("cold_bytes"),
        objects: sum("objects"),
        acked: counts.acked.load(Ordering::Acquire),
        consumed: counts.consumed.load(Ordering::Acquire),
    }
}

/// A thing that is measured, and how much more of it the last quarter may have.
struct Measure {
    name: &'static str,
    of: fn(&Sample) -> u64,
    unit: u64,
    /// Hundredths of the second quarter, and on top of them.
    percent: u64,
    plus: u64,
    /// Up to here it is no drift: where a server comes to rest, and some. How soon it does is up to the
    /// machine, and on a slow one more than half of a short run.
    rest: u64,
}

const MEASURES: &[Measure] = &[
    Measure {
        name: "RSS MiB",
        of: |sample| sample.rss,
        unit: MIB,
        percent: 115,
        plus: 24 * MIB,
        rest: 224 * MIB,
    },
    Measure {
        name: "cached MiB",
        of: |sample| sample.cached,
        unit: MIB,
        percent: 100,
        // Both bounds together.
        plus: (16 + 128) * MIB,
        rest: 0,
    },
    Measure {
        name: "other MiB",
        of: |sample| sample.rss.saturating_sub(sample.cached),
        unit: MIB,
        percent: 110,
        plus: 24 * MIB,
        rest: 216 * MIB,
    },
    Measure {
        name: "descriptors",
        of: |sample| sample.descriptors,
        unit: 1,
        percent: 105,
        plus: 16,
        rest: 0,
    },
    Measure {
        name: "threads",
        of: |sample| sample.threads,
        unit: 1,
        percent: 100,
        // Threads for what blocks come with a busy moment and go when they were idle for a while.
        plus: 64,
        rest: 0,
    },
    Measure {
        name: "WAL MiB",
        of: |sample| sample.wal,
        unit: MIB,
        percent: 125,
        plus: 16 * MIB,
        rest: 0,
    },
    Measure {
        name: "named MiB",
        of: |sample| sample.cold,
        unit: MIB,
        percent: 125,
        plus: 8 * MIB,
        rest: 0,
    },
    Measure {
        name: "objects",
        of: |sample| sample.objects,
        unit: 1,
        percent: 125,
        plus: 1_000,
        rest: 0,
    },
    Measure {
        name: "tier MiB",
        of: |sample| sample.tier,
        unit: MIB,
        percent: 125,
        plus: 32 * MIB,
        rest: 0,
    },
];

fn median(samples: &[Sample], of: fn(&Sample) -> u64) -> u64 {
    let mut values: Vec<u64> = samples.iter().map(of).collect();
    values.sort_unstable();
    values[values.len() / 2]
}

fn print(samples: &[Sample]) {
    let names = MEASURES
        .iter()
        .map(|measure| format!("{:>12}", measure.name));
    eprintln!(
        "{:>8}{}{:>12}{:>12}",
        "s",
        names.collect::<String>(),
        "acked",
        "consumed"
    );
    for sample in samples
        .chunks(samples.len().div_ceil(ROWS))
        .map(|chunk| chunk[chunk.len() - 1])
    {
        let cell = |measure: &Measure| format!("{:>12}", (measure.of)(&sample) / measure.unit);
        let cells: String = MEASURES.iter().map(cell).collect();
        let (acked, consumed) = (sample.acked, sample.consumed);
        eprintln!("{:>8}{cells}{acked:>12}{consumed:>12}", sample.at.as_secs());
    }
}

/// What drifted, if anything.
fn drifts(samples: &[Sample]) -> Vec<String> {
    let quarter = samples.len() / 4;
    let (second, last) = (&samples[quarter..2 * quarter], &samples[3 * quarter..]);
    let mut drifts = Vec::new();
    for measure in MEASURES {
        let (before, after) = (median(second, measure.of), median(last, measure.of));
        let limit = before * measure.percent / 100 + measure.plus;
        let limit = limit.max(measure.rest);
        let verdict = if after <= limit { "level" } else { "DRIFTS" };
        let (name, unit) = (measure.name, measure.unit);
        let line = format!(
            "{name}: median of the second quarter {}, of the last {}: {verdict}",
            before / unit,
            after / unit
        );
        eprintln!("{line}");
        if after > limit {
            drifts.push(line);
        }
    }
    drifts
}

/// Topics that lose what is old.
async fn create(client: &Client, retention: Duration) {
    for topic in 0..TOPICS {
        let spec = TopicSpec {
            partitions: PARTITIONS,
            retention_ms: Some(u64::try_from(retention.as_millis()).unwrap()),
            ..TopicSpec::default()
        };
        client
            .topic_create(&format!("t{topic}"), spec, false)
            .await
            .unwrap();
    }
}

/// Records that the partitions ever got.
async fn appended(client: &Client) -> u64 {
    let mut records = 0;
    for topic in 0..TOPICS {
        let found = client.topic(&format!("t{topic}")).await.unwrap();
        records += found.partitions.iter().map(|info| info.end).sum::<u64>();
    }
    records
}

/// How often the group gave its partitions out.
async fn generation(client: &Client) -> u64 {
    let group = "soak".to_owned();
    client
        .call(GroupDescribe { group })
        .await
        .unwrap()
        .generation
}

fn connect(world: &World, runtime: &Runtime) -> Client {
    let config = ClientConfig {
        state_dir: Some(world.path("state").join("rustmq")),
        environment: false,
        ..ClientConfig::default()
    };
    runtime.block_on(Client::connect(config)).unwrap()
}

#[test]
fn soak_a_thousand_partitions_do_not_drift() {
    let (plan, world) = (Plan::new(), World::new());
    world.write("node.toml", plan.config());
    let server = world.serve_with(&["--config", "node.toml"]);
    let runtime = Runtime::new().unwrap();
    let counts = Arc::new(Counts::default());
    runtime.block_on(create(&connect(&world, &runtime), plan.retention));
    let (over, is_over) = watch::channel(false);
    let members: Vec<_> = (0..MEMBERS)
        .map(|_| {
            let member = consume(
                connect(&world, &runtime),
                Arc::clone(&counts),
                is_over.clone(),
            );
            runtime.spawn(member)
        })
        .collect();
    let producers: Vec<_> = (0..PRODUCERS)
        .map(|p| runtime.spawn(produce(connect(&world, &runtime), p, Arc::clone(&counts))))
        .collect();
    let (began, mut samples) = (Instant::now(), Vec::new());
    for number in 1..=SAMPLES {
        let due = plan.long * number / SAMPLES;
        wait::moment(began + due);
        assert!(
            members
                .iter()
                .chain(&producers)
                .all(|task| !task.is_finished())
        );
        samples.push(sample(&world, &server, began.elapsed(), &counts));
    }
    counts.is_over.store(true, Ordering::Release);
    for producer in producers {
        runtime.block_on(producer).unwrap();
    }
    print(&samples);
    let acked = counts.acked.load(Ordering::Acquire);
    wait::until("the group to see all", || {
        (counts.consumed.load(Ordering::Acquire) >= acked).then_some(())
    });
    let client = connect(&world, &runtime);
    let appended = runtime.block_on(appended(&client));
    assert_eq!(appended, acked, "records in the partitions, and acked");
    let generation = runtime.block_on(generation(&client));
    over.send_replace(true);
    for member in members {
        runtime.block_on(member).unwrap();
    }
    let consumed = counts.consumed.load(Ordering::Acquire);
    let partitions = TOPICS * PARTITIONS;
    eprintln!(
        "soak: {partitions} partitions, {:.0?}, {acked} records acked, {consumed} consumed \
         in {generation} generations of the group",
        began.elapsed()
    );
    let drifts = drifts(&samples);
    assert!(drifts.is_empty(), "{drifts:#?}");
    assert!(samples.last().is_some_and(|last| last.objects > 0));
    server.stop();
}
