//! What a partition costs in memory, as their number grows.
//!
//! `memory-N`: a topic of N partitions is made in a broker that runs already, and each takes one
//! batch of `BATCH_RECORDS` records; the growth of the process's resident memory, divided by N.
//! Baseline: a map of the same partitions with a deque each that holds the same batch, which is
//! the least a log that keeps its tail in memory can do.
//! Each turn is a process of its own: memory that was freed does not come back, so it would hide
//! what the next turn takes. With few partitions what the first batches warm up is most of it.

use std::collections::{HashMap, VecDeque};
use std::process::Command;
use std::sync::Arc;

use benches::rig::{self, Result};
use benches::{Case, Options, Unit, machine};
use broker::{Broker, BrokerConfig};
use metadata::Metadata;
use model::{Batch, CatalogView, Codec, Command as Change, Outcome, PartitionId, TopicSpec};
use storage::{Store, StoreConfig};

const BATCH_RECORDS: usize = 10;
/// What a process of a turn is told: what to measure, and of how many partitions.
const CHILD: &str = "RUSTMQ_BENCH_PARTITIONS";
const COUNTS: [u32; 4] = [10, 100, 1_000, 10_000];

fn main() -> Result<()> {
    if let Ok(ask) = std::env::var(CHILD) {
        return child(&ask);
    }
    let options = Options::from_args();
    machine::print(rig::folder()?.path());
    for count in COUNTS {
        let name = format!("memory-{count}");
        if options.wants(&name) {
            measure(&options, name, count)?;
        }
    }
    Ok(())
}

fn measure(options: &Options, name: String, count: u32) -> Result<()> {
    let mut case = Case::new("partitions", name, Unit::BytesPerPartition);
    for _ in 0..options.runs() {
        let records = u64::from(count) * BATCH_RECORDS as u64;
        case.ours(turn("broker", count)?, records);
        case.baseline(turn("plain", count)?);
    }
    case.print();
    Ok(())
}

/// One turn in a process of its own: bytes for each partition.
fn turn(what: &str, count: u32) -> Result<f64> {
    let mut command = Command::new(std::env::current_exe()?);
    let output = command.env(CHILD, format!("{what} {count}")).output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into());
    }
    let grown: f64 = String::from_utf8(output.stdout)?.trim().parse()?;
    Ok(grown / f64::from(count))
}

fn child(ask: &str) -> Result<()> {
    let (what, count) = ask.split_once(' ').ok_or("a turn is told two words")?;
    let count = count.parse()?;
    let grown = match what {
        "broker" => {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .enable_all()
                .build()?;
            runtime.block_on(broker(count))?
        }
        _ => plain(count)?,
    };
    println!("{grown}");
    Ok(())
}

/// Resident memory that is the process's own, in bytes.
fn resident() -> Result<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm")?;
    let mut pages = statm.split(' ').skip(1);
    let mut next = || pages.next().and_then(|n| n.parse::<u64>().ok());
    let (resident, shared) = (next().ok_or("no pages")?, next().ok_or("no pages")?);
    Ok((resident - shared) * rustix::param::page_size() as u64)
}

async fn broker(count: u32) -> Result<u64> {
    let folder = rig::folder()?;
    let metadata = Metadata::open(&folder.path().join("meta")).await?;
    let store = Store::open(StoreConfig::new(folder.path()), Vec::new()).await?;
    let control = Arc::new(metadata.clone());
    let broker = Broker::open(store.clone(), control, BrokerConfig::default()).await?;
    // The first batch warms up what all share.
    make(&metadata, &broker, "first", 1).await?;
    let before = resident()?;
    make(&metadata, &broker, "many", count).await?;
    let grown = resident()?.saturating_sub(before);
    store.close().await?;
    Ok(grown)
}

/// A topic with one batch in each partition.
async fn make(metadata: &Metadata, broker: &Broker, name: &str, partitions: u32) -> Result<()> {
    let spec = TopicSpec {
        partitions,
        ..TopicSpec::default()
    };
    let command = Change::TopicCreate {
        name: name.to_string(),
        spec,
        if_absent: false,
        internal: false,
    };
    let Outcome::Topic(topic) = metadata.propose(command).await? else {
        return Err("the catalog did not answer with a topic".into());
    };
    let catalog = metadata.catalog();
    broker.topic_created(catalog.topic(name).ok_or("the topic is not there")?)?;
    for index in 0..partitions {
        let batch = rig::batch(BATCH_RECORDS, Codec::None)?;
        broker
            .produce(PartitionId::new(topic, index), batch)
            .await?;
    }
    Ok(())
}

fn plain(count: u32) -> Result<u64> {
    let mut tails: HashMap<u32, VecDeque<Batch>> = HashMap::new();
    let before = resident()?;
    for index in 0..count {
        let batch = rig::batch(BATCH_RECORDS, Codec::None)?;
        tails.entry(index).or_default().push_back(batch);
    }
    let grown = resident()?.saturating_sub(before);
    drop(std::hint::black_box(tails));
    Ok(grown)
}
