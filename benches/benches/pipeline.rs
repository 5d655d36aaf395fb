//! The main job, end to end: records per second from a producer to the last sink.
//!
//! `flights`: all flights of 2013 as JSON through a node's native door, the example's module in
//! the sandbox, a filter and a route in SQL, three sinks and the dead letters. The clock runs
//! from the first send until every record is durable on an output, where they are counted.
//! Baseline: the same transformation as a plain native loop over the same records, with the
//! module's own functions and no log, no network, no sandbox, on one thread.
//! `cpu_s` is the processor time that a run of ours took, all threads together.
//!
//! `json-map`: records that are there already go through one lane, JSON to typed columns, a module, JSON;
//! the clock runs from `apply` until the last is durable. Baseline: serde structs natively, on one thread.
//!
//! `columns-map`: the same between topics that keep columns, so that nothing is decoded or encoded.
//! Baseline: the same map natively over the same columns in memory, on one thread.
//!
//! `swap-gap-p99`: how long a lane stands still while a new version of its module takes over and
//! records flow, as the status says it of each of two lanes. Baseline: the median sync of the disk,
//! which a lane waits for before it changes.
//!
//! `beside-evil-p99`: from the send of one record to its durable output, while another pipeline on
//! the same node works through rows that spin, eat memory and panic. Baseline: the same alone.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use benches::rig::{self, Result};
use benches::{Case, Options, Unit, machine};
use client::{Client, ProducerConfig, Record};
use flight::{Flight, RawFlight};
use server::cli::{Server, apply_file};
use server::demo::{embed, feed};
use server::node::{Node, NodeConfig};

/// Where a flight ends, and what becomes of broken rows.
const OUTPUTS: [&str; 4] = ["on_time", "delayed", "cancelled", "bad_rows"];
/// Give up on a run after this long.
const PATIENCE: Duration = Duration::from_secs(120);

fn main() -> Result<()> {
    let (options, runtime) = rig::begin()?;
    let folder = rig::folder()?;
    if options.wants("flights") {
        runtime.block_on(flights(&options, folder.path()))?;
    }
    for work in [JSON_MAP, COLUMNS_MAP] {
        if options.wants(work.name) {
            runtime.block_on(map(&options, folder.path(), &work))?;
        }
    }
    if options.wants("swap-gap-p99") {
        runtime.block_on(swap_gap(&options, folder.path()))?;
    }
    if options.wants("beside-evil-p99") {
        runtime.block_on(beside_evil(&options, folder.path()))?;
    }
    Ok(())
}

async fn flights(options: &Options, folder: &Path) -> Result<()> {
    let csv = feed::unpack(embed::FLIGHTS_CSV_ZST)?;
    let all = feed::flights(&csv)?.take(options.amount(usize::MAX, 20_000));
    let records: Vec<feed::FeedRecord> = all.collect::<std::io::Result<_>>()?;
    let example = embed::write_example(&server::demo::cache_dir())?;
    let mut case = Case::new("pipeline", "flights", Unit::RecordsPerSecond);
    let mut processor = Vec::new();
    for run in 0..options.runs() {
        let started = Instant::now();
        let expected = native(&records);
        case.baseline(records.len() as f64 / started.elapsed().as_secs_f64());
        let dir = folder.join(format!("run-{run}"));
        let before = machine::processor_seconds();
        let (seconds, arrived) = ours(&dir, &example, &records, expected).await?;
        processor.push(machine::processor_seconds() - before);
        case.ours(records.len() as f64 / seconds, arrived);
        std::fs::remove_dir_all(&dir)?;
    }
    case.number("cpu_s", benches::median(&processor));
    case.print();
    Ok(())
}

/// One run: a fresh node, the pipeline, all records; seconds and records on the outputs.
async fn ours(
    dir: &Path,
    example: &Path,
    records: &[feed::FeedRecord],
    expected: u64,
) -> Result<(f64, u64)> {
    let node = Node::start(NodeConfig::local(dir)).await?;
    let client = Client::connect(node.client_config()).await?;
    let server = Server { client };
    let file: PathBuf = example.join("pipeline.yaml");
    apply_file(&server, &file).await?;
    let mut ends = Vec::new();
    for topic in OUTPUTS {
        let topic = server.client.topic(topic).await?;
        for info in &topic.partitions {
            let id = model::PartitionId::new(topic.topic.id, info.index);
            ends.push(node.store().watch(id)?);
        }
    }
    let started = Instant::now();
    let producer = server.client.producer(ProducerConfig::default()).await?;
    for record in records {
        let outgoing = Record::value(record.value.clone()).with_key(record.key.clone());
        producer.send("flights_raw", outgoing).await?;
    }
    producer.flush().await?;
    // every output's end is watched until together they hold what must arrive
    let arrived = loop {
        let total: u64 = ends.iter_mut().map(|end| *end.borrow_and_update()).sum();
        if total >= expected {
            break total;
        }
        if started.elapsed() > PATIENCE {
            return Err(format!("{total} of {expected} records after {PATIENCE:?}").into());
        }
        let moved = ends.iter_mut().map(|end| Box::pin(end.changed()));
        let _ = tokio::time::timeout(PATIENCE, futures::future::select_all(moved)).await?;
    };
    let seconds = started.elapsed().as_secs_f64();
    if arrived != expected {
        return Err(format!("{arrived} records arrived, {expected} were expected").into());
    }
    server.client.close().await;
    node.stop().await;
    Ok((seconds, arrived))
}

/// The same transformation without any of the platform; how many records it lets out.
fn native(records: &[feed::FeedRecord]) -> u64 {
    let mut outputs: [Vec<Vec<u8>>; 4] = Default::default();
    for record in records {
        let raw: std::result::Result<RawFlight<'_>, _> = serde_json::from_slice(&record.value);
        let flight = raw.ok().and_then(|raw| flight::tidy(&raw, 1).ok());
        let Some(flight) = flight else {
            outputs[3].push(record.value.to_vec());
            continue;
        };
        if flight.distance < 50.0 {
            continue;
        }
        let value = serde_json::to_vec(&flight).expect("a flight always has a JSON form");
        outputs[lane(&flight)].push(value);
    }
    std::hint::black_box(&outputs);
    outputs.iter().map(|output| output.len() as u64).sum()
}

fn lane(flight: &Flight<'_>) -> usize {
    match flight.dep_delay {
        _ if flight.cancelled => 2,
        Some(minutes) if minutes > 15.0 => 1,
        _ => 0,
    }
}

/// A node with one lane, whose module is a file that can be replaced.
struct Lane {
    node: Node,
    server: Server,
    file: PathBuf,
    module: PathBuf,
    component: Vec<u8>,
}

const LANE: &str = "\
apiVersion: rustmq/v1alpha1
kind: Pipeline
metadata: { name: lane }
topics:
  given:
    partitions: 1
    value: { codec: json, schema: { flight: int64, dep_delay: float64, distance: int64 } }
  made: { partitions: 1, value: { codec: json, schema: { score: float64 } } }
modules:
  score: { source: ./score.wasm }
policy:
  on-error: { then: stop }
nodes:
  in: { kind: source, topic: given, start: earliest }
  score: { kind: wasm, module: score, inputs: [in], outputs: { out: { schema: made } } }
  out: { kind: sink, inputs: [score], topic: made }
";

/// As [`LANE`], with topics that keep columns; batches of more rows, which are as many bytes.
const COLUMNS_LANE: &str = "\
apiVersion: rustmq/v1alpha1
kind: Pipeline
metadata: { name: lane }
topics:
  given:
    partitions: 1
    value: { codec: columns, schema: { flight: int64, dep_delay: float64, distance: int64 } }
  made: { partitions: 1, value: { codec: columns, schema: { score: float64 } } }
modules:
  score: { source: ./score.wasm }
policy:
  batch: { rows: 10000 }
  on-error: { then: stop }
nodes:
  in: { kind: source, topic: given, start: earliest }
  score: { kind: wasm, module: score, inputs: [in], outputs: { out: { schema: made } } }
  out: { kind: sink, inputs: [score], topic: made }
";

/// Records through one lane, a module in the middle.
struct MapCase {
    name: &'static str,
    yaml: &'static str,
    records: usize,
    /// Seconds that the same takes natively.
    native: fn(usize) -> Result<f64>,
}

const JSON_MAP: MapCase = MapCase {
    name: "json-map",
    yaml: LANE,
    // enough that the start of the lane does not count
    records: 4_000_000,
    native: native_json,
};

const COLUMNS_MAP: MapCase = MapCase {
    name: "columns-map",
    yaml: COLUMNS_LANE,
    records: 4_000_000,
    native: native_columns,
};

impl Lane {
    async fn start(dir: &Path, yaml: &str) -> Result<Lane> {
        let mut config = NodeConfig::local(dir.join("data"));
        // what was produced would go there while the lane is measured: work that is not the lane's
        config.storage.tier_bytes = Some(1 << 40);
        let node = Node::start(config).await?;
        let client = Client::connect(node.client_config()).await?;
        let built = guest("boundary-columns").await?;
        let (file, module) = (dir.join("lane.yaml"), dir.join("score.wasm"));
        std::fs::write(&file, yaml)?;
        std::fs::copy(&built, &module)?;
        Ok(Lane {
            node,
            server: Server { client },
            file,
            module,
            component: std::fs::read(built)?,
        })
    }

    /// Another version of the module: the same code with another digest.
    async fn swap(&self, version: usize) -> Result<u64> {
        let mut component = self.component.clone();
        // a custom section of one name byte and eight bytes of content
        component.extend([0, 10, 1, b'v']);
        component.extend((version as u64).to_le_bytes());
        std::fs::write(&self.module, component)?;
        Ok(apply_file(&self.server, &self.file).await?.generation)
    }

    async fn produce(&self, records: usize) -> Result<()> {
        let config = ProducerConfig::default();
        let producer = self.server.client.producer(config).await?;
        for at in 0..records {
            producer.send("given", Record::value(value(at))).await?;
        }
        producer.flush().await?;
        Ok(())
    }

    /// Produces without end; counts what is acknowledged.
    async fn feed(&self, fed: &AtomicUsize) -> Result<std::convert::Infallible> {
        const AT_ONCE: usize = 200;
        let config = ProducerConfig::default();
        let producer = self.server.client.producer(config).await?;
        loop {
            for at in 0..AT_ONCE {
                producer.send("given", Record::value(value(at))).await?;
            }
            producer.flush().await?;
            fed.fetch_add(AT_ONCE, Ordering::Relaxed);
        }
    }

    /// Waits until that generation works in each lane; how long each stood still for it, in ms.
    async fn taken_over(&self, generation: u64) -> Result<Vec<f64>> {
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            if let Some(gaps) = self.gaps_ms(generation).await? {
                return Ok(gaps);
            }
        }
        Err(format!("generation {generation} did not take over").into())
    }

    /// Waits until so many records are durable on the output.
    async fn arrived(&self, expected: u64) -> Result<()> {
        let topic = self.server.client.topic("made").await?.topic;
        let partitions = (0..topic.spec.partitions).map(|at| model::PartitionId::new(topic.id, at));
        let ends = partitions.map(|id| self.node.store().watch(id));
        let mut ends: Vec<_> = ends.collect::<std::result::Result<_, _>>()?;
        loop {
            let at = ends.iter_mut().map(|end| *end.borrow_and_update());
            if at.sum::<u64>() >= expected {
                return Ok(());
            }
            moved(&mut ends).await?;
        }
    }

    /// Waits until all but so many rows for the evil pipeline are on one of its outputs; how many were
    /// bad.
    async fn worked_off(&self, but: u64) -> Result<u64> {
        let mut ends = Vec::new();
        for name in ["deeds", "left", "bad"] {
            let topic = self.server.client.topic(name).await?;
            let id = model::PartitionId::new(topic.topic.id, 0);
            ends.push(self.node.store().watch(id)?);
        }
        loop {
            let at: Vec<u64> = ends
                .iter_mut()
                .map(|end| *end.borrow_and_update())
                .collect();
            if at[0] <= at[1] + at[2] + but {
                return Ok(at[2]);
            }
            moved(&mut ends).await?;
        }
    }

    /// What the status says of the change to a generation: how long each lane stood still, in ms.
    async fn gaps_ms(&self, generation: u64) -> Result<Option<Vec<f64>>> {
        let asked = protocol::PipelineDescribe {
            name: "lane".to_string(),
        };
        let described = self.server.client.call(asked).await?;
        let lanes = described.status["lanes"].as_array();
        let gap = |lane: &serde_json::Value| {
            let of_it = |handover: &&serde_json::Value| handover["to"] == generation;
            let gap_us = lane["handovers"].as_array()?.iter().find(of_it)?["gap_us"].as_f64();
            gap_us.map(|us| us / 1000.0)
        };
        Ok(lanes.and_then(|lanes| lanes.iter().map(gap).collect()))
    }
}

/// Waits until one of these ends moves.
async fn moved(ends: &mut [tokio::sync::watch::Receiver<u64>]) -> Result<()> {
    let moved = ends.iter_mut().map(|end| Box::pin(end.changed()));
    let _ = tokio::time::timeout(PATIENCE, futures::future::select_all(moved)).await?;
    Ok(())
}

/// Builds a guest of `tests/guests`; cargo knows when there is nothing to do.
async fn guest(name: &str) -> Result<PathBuf> {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let dir = repository.join("tests/guests").join(name);
    let target = repository.join("target/guests");
    Ok(server::module::build_into(&dir, &target, &mut |_| {}).await?)
}

fn value(at: usize) -> String {
    format!(
        "{{\"carrier\":\"UA\",\"flight\":{},\"origin\":\"EWR\",\"dest\":\"IAH\",\"dep_delay\":{}.5,\
         \"distance\":{},\"hour\":5,\"tail\":\"N{:05}\"}}",
        1000 + at % 9000,
        at % 100,
        200 + at % 2000,
        at % 100_000,
    )
}

async fn map(options: &Options, folder: &Path, work: &MapCase) -> Result<()> {
    let records = options.amount(work.records, 5_000);
    let mut case = Case::new("pipeline", work.name, Unit::RecordsPerSecond);
    let mut per_core = Vec::new();
    for run in 0..options.amount(3, 1) {
        case.baseline(records as f64 / (work.native)(records)?);
        let dir = folder.join(format!("{}-{run}", work.name));
        std::fs::create_dir_all(&dir)?;
        let lane = Lane::start(&dir, work.yaml).await?;
        // makes the topics, and compiles the module
        lane.swap(0).await?;
        lane.server
            .client
            .call(protocol::PipelineDelete {
                name: "lane".to_string(),
            })
            .await?;
        lane.produce(records).await?;
        let processor = machine::processor_seconds();
        let started = Instant::now();
        lane.swap(0).await?;
        lane.arrived(records as u64).await?;
        let seconds = started.elapsed().as_secs_f64();
        per_core.push(records as f64 / (machine::processor_seconds() - processor).max(0.01));
        case.ours(records as f64 / seconds, records as u64);
        lane.server.client.close().await;
        lane.node.stop().await;
        std::fs::remove_dir_all(&dir)?;
    }
    case.number("per_core", benches::median(&per_core));
    case.print();
    Ok(())
}

fn native_json(records: usize) -> Result<f64> {
    let values: Vec<String> = (0..records).map(value).collect();
    let started = Instant::now();
    std::hint::black_box(native_scores(&values)?);
    Ok(started.elapsed().as_secs_f64())
}

/// The same map natively over columns, in batches as the lane has them.
fn native_columns(records: usize) -> Result<f64> {
    const BATCH: usize = 10_000;
    let flights: Vec<i64> = (0..records).map(|at| 1000 + at as i64 % 9000).collect();
    let delays: Vec<f64> = (0..records).map(|at| (at % 100) as f64 + 0.5).collect();
    let distances: Vec<i64> = (0..records).map(|at| 200 + at as i64 % 2000).collect();
    let started = Instant::now();
    for from in (0..records).step_by(BATCH) {
        let rows = from..records.min(from + BATCH);
        let given = flights[rows.clone()].iter().zip(&delays[rows.clone()]);
        let given = given.zip(&distances[rows]);
        let score = |((flight, delay), distance): ((&i64, &f64), &i64)| {
            *distance as f64 / (delay + *flight as f64)
        };
        let scores: Vec<f64> = given.map(score).collect();
        std::hint::black_box(scores);
    }
    Ok(started.elapsed().as_secs_f64())
}

/// The same map natively, as an author with serde writes it; the bytes it makes.
fn native_scores(values: &[String]) -> serde_json::Result<usize> {
    #[derive(serde::Deserialize)]
    struct Given {
        flight: i64,
        dep_delay: f64,
        distance: i64,
    }
    #[derive(serde::Serialize)]
    struct Made {
        score: f64,
    }
    let mut bytes = Vec::new();
    for value in values {
        let row: Given = serde_json::from_str(value)?;
        let score = row.distance as f64 / (row.dep_delay + row.flight as f64);
        serde_json::to_writer(&mut bytes, &Made { score })?;
    }
    Ok(bytes.len())
}

async fn swap_gap(options: &Options, folder: &Path) -> Result<()> {
    let dir = folder.join("swap-gap");
    std::fs::create_dir_all(&dir)?;
    let lanes = LANE.replace("partitions: 1", "partitions: 2");
    let lane = Lane::start(&dir, &lanes).await?;
    lane.swap(0).await?;
    let fed = AtomicUsize::new(0);
    let swaps = options.amount(1000, 5);
    let gaps = async {
        let mut gaps = Vec::new();
        for version in 1..=swaps {
            let generation = lane.swap(version).await?;
            gaps.extend(lane.taken_over(generation).await?);
        }
        Result::Ok(gaps)
    };
    // records flow before, while and after each new version comes
    let mut gaps = tokio::select! {
        gaps = gaps => gaps?,
        Err(error) = lane.feed(&fed) => return Err(error),
    };
    let fed = fed.into_inner();
    lane.arrived(fed as u64).await?;
    gaps.sort_by(f64::total_cmp);
    let mut case = Case::new("pipeline", "swap-gap-p99", Unit::Milliseconds);
    case.ours(gaps[(gaps.len() * 99).div_ceil(100) - 1], fed as u64);
    case.baseline(benches::disk::sync_latency_us(folder)? / 1000.0);
    case.number("p50", gaps[gaps.len() / 2]);
    case.field("swaps", swaps);
    case.print();
    lane.server.client.close().await;
    lane.node.stop().await;
    Ok(())
}

const EVIL: &str = "\
apiVersion: rustmq/v1alpha1
kind: Pipeline
metadata: { name: evil }
topics:
  deeds: { partitions: 1, value: raw }
  left: { partitions: 1, value: raw }
  bad: { partitions: 1, value: raw }
modules:
  evil: { source: ./evil.wasm, grants: { http: [] } }
policy:
  on-error: { retry: { max: 0 }, then: { dead-letter: bad } }
nodes:
  in: { kind: source, topic: deeds, start: earliest }
  evil: { kind: wasm, module: evil, inputs: [in] }
  out: { kind: sink, inputs: [evil], topic: left }
";

/// Deeds that take time or memory, one after so many good rows that no breaker opens. The next one waits
/// until the one before it begins: there is always one at work, and never a heap of them.
async fn deeds(lane: &Lane) -> Result<std::convert::Infallible> {
    const GOOD: usize = 120;
    let client = &lane.server.client;
    let producer = client.producer(ProducerConfig::default()).await?;
    for deed in ["spin", "eat_memory", "panic", "recurse"].iter().cycle() {
        for _ in 0..GOOD {
            producer.send("deeds", Record::value("good")).await?;
        }
        producer.send("deeds", Record::value(*deed)).await?;
        producer.flush().await?;
        lane.worked_off(GOOD as u64 + 1).await?;
    }
    Err("there is always another deed".into())
}

/// The 99th percentile of the time from sending one record to its durable output, in ms.
async fn hop_p99(lane: &Lane, records: usize, sent: &mut u64) -> Result<f64> {
    let producer = lane
        .server
        .client
        .producer(ProducerConfig::default())
        .await?;
    let mut times = Vec::new();
    for at in 0..records {
        let begun = Instant::now();
        producer.send("given", Record::value(value(at))).await?;
        producer.flush().await?;
        *sent += 1;
        lane.arrived(*sent).await?;
        times.push(begun.elapsed().as_secs_f64() * 1000.0);
    }
    times.sort_by(f64::total_cmp);
    Ok(times[(times.len() * 99).div_ceil(100) - 1])
}

async fn beside_evil(options: &Options, folder: &Path) -> Result<()> {
    let dir = folder.join("beside-evil");
    std::fs::create_dir_all(&dir)?;
    let lane = Lane::start(&dir, LANE).await?;
    lane.swap(0).await?;
    std::fs::copy(guest("evil").await?, dir.join("evil.wasm"))?;
    let file = dir.join("evil.yaml");
    std::fs::write(&file, EVIL)?;
    apply_file(&lane.server, &file).await?;
    let records = options.amount(500, 20);
    let mut case = Case::new("pipeline", "beside-evil-p99", Unit::Milliseconds);
    let (mut sent, mut deeds_done) = (0, 0);
    hop_p99(&lane, records, &mut sent).await?;
    for _ in 0..options.runs() {
        case.baseline(hop_p99(&lane, records, &mut sent).await?);
        let p99 = tokio::select! {
            p99 = hop_p99(&lane, records, &mut sent) => p99?,
            Err(error) = deeds(&lane) => return Err(error),
        };
        case.ours(p99, records as u64);
        // what is left of them would count against the baseline
        deeds_done = lane.worked_off(0).await?;
    }
    case.field("deeds", deeds_done);
    case.print();
    lane.server.client.close().await;
    lane.node.stop().await;
    Ok(())
}
