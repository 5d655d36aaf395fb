//! Flights in a store, hot or tiered, with an SQL engine over them: what `tier` and `sql` measure.
//!
//! Called by: `tier`, `sql`. Records are JSON of about 118 bytes, one a second; carrier and delay
//! follow from the record's number, so that every answer can be checked. The tier runs only when
//! told.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use model::catalog::Catalog;
use model::{
    Batch, CatalogView, Codec, Command, Field, FieldType, Offset, PartitionId, PayloadCodec, Rows,
    RowsBuilder, Schema, ShardEpoch, TopicSpec,
};
use serde::Deserialize;
use sql::{Engine, SqlLimits};
use storage::{Entry, PartitionConfig, Store, StoreConfig};

use crate::cold;
use crate::rig::Result;

/// Carriers in the data.
pub const CARRIERS: [&str; 10] = ["AA", "AS", "B6", "DL", "EV", "F9", "MQ", "UA", "US", "WN"];
/// Name of the topic.
pub const TOPIC: &str = "flights";
/// Records in one batch.
pub const BATCH_RECORDS: usize = 1_000;

/// A record's value, as plain Rust reads it.
#[derive(Debug, Deserialize)]
pub struct Flight<'a> {
    #[serde(borrow)]
    pub carrier: &'a str,
    pub flight: i64,
    pub dep_delay: f64,
    pub distance: i64,
}

/// The typed columns of the topic.
pub fn schema() -> Schema {
    let field = |name: &str, ty| Field {
        name: name.to_string(),
        ty,
    };
    Schema {
        fields: vec![
            field("carrier", FieldType::String),
            field("flight", FieldType::Int64),
            field("dep_delay", FieldType::Float64),
            field("distance", FieldType::Int64),
        ],
        avro: None,
    }
}

/// `records` flights from number `base` on.
pub fn flights(base: u64, records: usize) -> Rows {
    let mut rows = RowsBuilder::new();
    for at in base..base + records as u64 {
        let carrier = CARRIERS[(at % 10) as usize];
        let value = format!(
            "{{\"carrier\":\"{carrier}\",\"flight\":{},\"origin\":\"EWR\",\"dest\":\"IAH\",\
             \"dep_delay\":{}.5,\"distance\":1400,\"hour\":5,\"tail\":\"N{:05}\"}}",
            1000 + at % 9000,
            at % 97,
            at % 100_000,
        );
        let key = carrier.as_bytes();
        rows.push(
            at as i64 * 1_000_000,
            Some(key),
            Some(value.as_bytes()),
            &[],
        );
    }
    rows.finish()
}

/// The catalog of this one topic.
struct Fixed(Arc<Catalog>);

impl CatalogView for Fixed {
    fn catalog(&self) -> Arc<Catalog> {
        self.0.clone()
    }
}

/// A store with one partition of flights.
pub struct Lake {
    pub store: Store,
    pub engine: Engine,
    pub partition: PartitionId,
    pub records: u64,
    dir: PathBuf,
}

impl Lake {
    /// Opens the store in `dir`. A `typed` topic has a schema.
    pub async fn open(dir: &Path, typed: bool) -> Result<Lake> {
        let mut catalog = Catalog::new();
        let spec = TopicSpec {
            codec: PayloadCodec::Json,
            schema: typed.then(schema),
            ..TopicSpec::default()
        };
        catalog.apply(&Command::TopicCreate {
            name: TOPIC.to_string(),
            spec,
            if_absent: true,
            internal: false,
        })?;
        let id = catalog.topic(TOPIC).ok_or("the topic is missing")?.id;
        let partitions = catalog
            .topics()
            .flat_map(PartitionConfig::of_topic)
            .collect();
        let config = StoreConfig {
            tier_tick_ms: 3_600_000,
            ..StoreConfig::new(dir)
        };
        let store = Store::open(config, partitions).await?;
        let catalog = Arc::new(Fixed(Arc::new(catalog)));
        let engine = Engine::new(store.clone(), catalog, SqlLimits::default())?;
        let partition = PartitionId::new(id, 0);
        let records = store.bounds(partition)?.end;
        Ok(Lake {
            store,
            engine,
            partition,
            records,
            dir: dir.to_path_buf(),
        })
    }

    /// Appends flights; gives back the bytes of their rows.
    pub async fn append(&mut self, records: usize) -> Result<usize> {
        let mut bytes = 0;
        let mut left = records;
        while left > 0 {
            let base: Offset = self.store.log_end(self.partition)?;
            let rows = flights(base, left.min(BATCH_RECORDS));
            bytes += rows.bytes();
            left -= rows.len();
            let batch = Batch::encode(&rows, Codec::None, None)?;
            let batch = batch.stamped(base, ShardEpoch(0), 1);
            self.store.room(batch.size()).await;
            self.store
                .enqueue(Entry::new(vec![(self.partition, batch)]))?
                .await?;
        }
        self.records = self.store.bounds(self.partition)?.end;
        Ok(bytes)
    }

    /// The Parquet objects, by the manifest, in offset order.
    pub async fn objects(&self) -> Result<Vec<PathBuf>> {
        cold::objects(&self.store, self.partition, &self.dir).await
    }
}

/// Count and sum of delays, by carrier.
pub type Groups = BTreeMap<String, (u64, f64)>;

/// Adds one flight to its group.
pub fn add(groups: &mut Groups, carrier: &str, delay: f64) {
    match groups.get_mut(carrier) {
        Some(group) => {
            group.0 += 1;
            group.1 += delay;
        }
        None => {
            groups.insert(carrier.to_string(), (1, delay));
        }
    }
}
