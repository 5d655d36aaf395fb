//! What several benchmarks are set up with: how a program begins, a folder on the disk to be
//! measured, records, a broker over a store without doors, a whole node with a client.
//!
//! Called by: `benches/*.rs`, `cold`, `lake`. Everything lives in a temporary folder under
//! `RUSTMQ_BENCH_DIR`, or else `target/bench`, which is on the disk of the checkout and not in
//! memory as `/tmp` may be.

use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use broker::{Broker, BrokerConfig};
use client::{Client, ClientConfig, Transport};
use metadata::Metadata;
use model::{Batch, Codec, Command, Outcome, PartitionId, RowsBuilder, TopicSpec};
use server::node::{Node, NodeConfig};
use storage::{Linger, Store, StoreConfig};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::{Options, machine};

/// Of the runtime, and of every store in it.
static LINGER: LazyLock<Arc<Linger>> = LazyLock::new(Arc::default);

/// Any failure ends the benchmark with its message.
pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// How every benchmark begins: what was asked for, and a runtime for the cases. Prints the line
/// about the machine.
pub fn begin() -> Result<(Options, Runtime)> {
    let options = Options::from_args();
    machine::print(folder()?.path());
    Ok((options, server::runtime::node(&LINGER)?))
}

/// A folder of its own, removed when dropped.
pub fn folder() -> Result<TempDir> {
    let base = match std::env::var_os("RUSTMQ_BENCH_DIR") {
        Some(dir) => PathBuf::from(dir),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/bench"),
    };
    std::fs::create_dir_all(&base)?;
    Ok(TempDir::new_in(base)?)
}

/// A batch of `records` JSON values of about 118 bytes with short keys.
pub fn batch(records: usize, codec: Codec) -> Result<Batch> {
    let mut rows = RowsBuilder::new();
    for at in 0..records {
        let value = format!(
            "{{\"carrier\":\"UA\",\"flight\":{},\"origin\":\"EWR\",\"dest\":\"IAH\",\
             \"dep_delay\":{}.0,\"distance\":1400,\"hour\":5,\"tail\":\"N{:05}\"}}",
            1000 + at % 9000,
            at % 100,
            at % 100_000,
        );
        let key = format!("key-{:04}", at % 1000);
        rows.push(at as i64, Some(key.as_bytes()), Some(value.as_bytes()), &[]);
    }
    Ok(Batch::encode(&rows.finish(), codec, None)?)
}

/// A batch of one record whose value has so many bytes.
pub fn record(bytes: usize) -> Result<Batch> {
    let mut rows = RowsBuilder::new();
    rows.push(0, None, Some(&vec![b'x'; bytes]), &[]);
    Ok(Batch::encode(&rows.finish(), Codec::None, None)?)
}

/// A topic's specification: this many partitions, tiered only when asked.
fn spec(partitions: u32) -> TopicSpec {
    TopicSpec {
        partitions,
        tier: false,
        ..TopicSpec::default()
    }
}

/// A broker over a store, without doors.
pub struct Bare {
    pub broker: Broker,
    pub store: Store,
    pub partitions: Vec<PartitionId>,
}

impl Bare {
    /// With one topic of `partitions` partitions. A topic that is not `tiered` stays in the WAL.
    pub async fn open(dir: &Path, partitions: u32, tiered: bool) -> Result<Bare> {
        Bare::open_with(StoreConfig::new(dir), partitions, tiered).await
    }

    /// The same over a store of one's own making.
    pub async fn open_with(mut config: StoreConfig, partitions: u32, tiered: bool) -> Result<Bare> {
        config.epoch = BrokerConfig::default().epoch;
        config.linger = Arc::clone(&LINGER);
        let metadata = Metadata::open(&config.dir.join("meta")).await?;
        let command = Command::TopicCreate {
            name: "bench".to_string(),
            spec: TopicSpec {
                tier: tiered,
                ..spec(partitions)
            },
            if_absent: true,
            internal: false,
        };
        let Outcome::Topic(topic) = metadata.propose(command).await? else {
            return Err("the catalog did not answer with a topic".into());
        };
        let configs = broker::partition_configs(&model::CatalogView::catalog(&metadata));
        let store = Store::open(config, configs).await?;
        let catalog = Arc::new(metadata);
        let broker = Broker::open(store.clone(), catalog, BrokerConfig::default()).await?;
        let partitions = (0..partitions)
            .map(|index| PartitionId::new(topic, index))
            .collect();
        Ok(Bare {
            broker,
            store,
            partitions,
        })
    }
}

/// Gives back what was written so far.
pub async fn trim(store: &Store, partitions: &[PartitionId]) -> Result<()> {
    for partition in partitions {
        let end = store.bounds(*partition)?.end;
        store.trim_durable(*partition, end).await?;
    }
    Ok(())
}

/// A whole node on free ports, and a client of it over QUIC.
pub struct Whole {
    pub node: Node,
    pub client: Client,
    pub partitions: Vec<PartitionId>,
}

impl Whole {
    pub async fn start(dir: &Path, partitions: u32) -> Result<Whole> {
        let config = NodeConfig {
            linger: Arc::clone(&LINGER),
            ..NodeConfig::local(dir)
        };
        let node = Node::start(config).await?;
        let config = ClientConfig {
            transport: Transport::Quic,
            ..node.client_config()
        };
        let client = Client::connect(config).await?;
        let topic = client
            .topic_create("bench", spec(partitions), false)
            .await?;
        let partitions = (0..partitions)
            .map(|index| PartitionId::new(topic, index))
            .collect();
        Ok(Whole {
            node,
            client,
            partitions,
        })
    }
}
