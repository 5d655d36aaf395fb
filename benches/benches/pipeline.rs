//! The main job, end to end: records per second from a producer to the last sink.
//!
//! `flights`: all flights of 2013 as JSON through a node's native door, the example's module in
//! the sandbox, a filter and a route in SQL, three sinks and the dead letters. The clock runs
//! from the first send until every record is durable on an output, where they are counted.
//! Baseline: the same transformation as a plain native loop over the same records, with the
//! module's own functions and no log, no network, no sandbox, on one thread.
//! `cpu_s` is the processor time that a run of ours took, all threads together.

use std::path::{Path, PathBuf};
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
    if !options.wants("flights") {
        return Ok(());
    }
    let folder = rig::folder()?;
    runtime.block_on(flights(&options, folder.path()))
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
