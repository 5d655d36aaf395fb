//! What the tests of this room share: a broker over a temporary store, a clock moved by hand.
//!
//! Called by: `broker/tests.rs`, `group/tests.rs`. Only compiled for tests.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use model::{
    Batch, BoxFuture, Catalog, CatalogControl, CatalogError, CatalogView, Codec, Command, Outcome,
    PartitionId, Producer, ProducerId, ProposeError, RowsBuilder, ShardId, TopicId, TopicSpec,
};
use storage::{Store, StoreConfig};

use crate::{Broker, BrokerConfig, Clock, partition_configs};

/// Starts at one million seconds and moves when told.
pub(crate) struct HandClock(AtomicI64);

impl HandClock {
    pub(crate) fn advance_ms(&self, ms: i64) {
        self.0.fetch_add(ms * 1000, Ordering::SeqCst);
    }
}

impl Clock for HandClock {
    fn now_us(&self) -> i64 {
        self.0.load(Ordering::SeqCst)
    }
}

pub(crate) struct TestCatalog(Mutex<Arc<Catalog>>);

impl CatalogView for TestCatalog {
    fn catalog(&self) -> Arc<Catalog> {
        self.0.lock().unwrap().clone()
    }
}

impl CatalogControl for TestCatalog {
    fn propose(&self, command: Command) -> BoxFuture<'_, Result<Outcome, ProposeError>> {
        let outcome = self.apply(&command).map_err(ProposeError::Catalog);
        Box::pin(std::future::ready(outcome))
    }
}

impl TestCatalog {
    fn apply(&self, command: &Command) -> Result<Outcome, CatalogError> {
        let mut held = self.0.lock().unwrap();
        let mut catalog = Catalog::clone(&held);
        let outcome = catalog.apply(command)?;
        *held = Arc::new(catalog);
        Ok(outcome)
    }
}

/// A data folder, a catalog and a clock that outlive the brokers opened over them.
pub(crate) struct World {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) catalog: Arc<TestCatalog>,
    pub(crate) clock: Arc<HandClock>,
    pub(crate) queue_bytes_max: usize,
}

impl World {
    /// Topics with their partition counts.
    pub(crate) fn new(topics: &[(&str, u32)]) -> World {
        let world = World {
            dir: tempfile::tempdir().unwrap(),
            catalog: Arc::new(TestCatalog(Mutex::new(Arc::new(Catalog::new())))),
            clock: Arc::new(HandClock(AtomicI64::new(1_000_000_000_000))),
            queue_bytes_max: 1 << 20,
        };
        for (name, partitions) in topics {
            world.topic(name, *partitions);
        }
        world
    }

    /// Adds a topic to the catalog; the broker is not told.
    pub(crate) fn topic(&self, name: &str, partitions: u32) -> TopicId {
        let spec = TopicSpec {
            partitions,
            ..TopicSpec::default()
        };
        self.topic_with(name, spec)
    }

    pub(crate) fn topic_with(&self, name: &str, spec: TopicSpec) -> TopicId {
        let command = Command::TopicCreate {
            name: name.to_string(),
            spec,
            if_absent: false,
            internal: false,
        };
        match self.apply(&command) {
            Outcome::Topic(id) => id,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn apply(&self, command: &Command) -> Outcome {
        self.catalog.apply(command).unwrap()
    }

    /// Starts the broker as a node does: a new life, in a new epoch.
    pub(crate) async fn open(&self) -> (Broker, Store) {
        let node = "node".to_string();
        let Outcome::Started(life) = self.apply(&Command::BrokerStart { node }) else {
            panic!("a start is answered with a life");
        };
        let shard = ShardId::FIRST;
        let epoch = self.catalog.catalog().shard(shard).unwrap().epoch;
        let configs = partition_configs(&self.catalog.catalog());
        let config = StoreConfig {
            queue_bytes_max: self.queue_bytes_max,
            epoch,
            ..StoreConfig::new(self.dir.path())
        };
        let store = Store::open(config, configs).await.unwrap();
        let config = BrokerConfig {
            clock: self.clock.clone(),
            tick: None,
            life,
            shard,
            epoch,
        };
        let broker = Broker::open(store.clone(), self.catalog.clone(), config)
            .await
            .unwrap();
        (broker, store)
    }

    pub(crate) fn partition(&self, topic: &str, index: u32) -> PartitionId {
        PartitionId::new(self.catalog.catalog().topic(topic).unwrap().id, index)
    }
}

/// A batch of these values.
pub(crate) fn batch(values: &[&str]) -> Batch {
    numbered(values, None)
}

/// A batch of these values from a producer: id, epoch, sequence.
pub(crate) fn numbered(values: &[&str], producer: Option<(ProducerId, u16, u32)>) -> Batch {
    let mut rows = RowsBuilder::new();
    for (at, value) in values.iter().enumerate() {
        rows.push(at as i64, None, Some(value.as_bytes()), &[]);
    }
    let producer = producer.map(|(id, epoch, sequence)| Producer {
        id,
        epoch,
        sequence,
    });
    Batch::encode(&rows.finish(), Codec::None, producer).unwrap()
}

/// Everything readable in a partition as `offset:value`, separated by spaces.
pub(crate) async fn dump(broker: &Broker, p: PartitionId) -> String {
    let mut text = Vec::new();
    let mut from = broker.inner.store.bounds(p).unwrap().start;
    loop {
        let fetched = broker.fetch_wait(p, from, 1 << 20, 0).await.unwrap();
        let Some(last) = fetched.batches.last() else {
            return text.join(" ");
        };
        from = last.next_offset();
        for batch in &fetched.batches {
            let rows = batch.rows().unwrap();
            for (at, offset) in batch.offsets().unwrap().into_iter().enumerate() {
                let value = rows.record(at).value.unwrap_or(b"-").to_vec();
                text.push(format!("{offset}:{}", String::from_utf8(value).unwrap()));
            }
        }
    }
}
