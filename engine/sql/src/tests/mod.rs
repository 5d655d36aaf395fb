//! The engine as its callers see it, over a real store in a temporary folder.

mod names;
mod rows;
mod same;

use std::sync::Arc;

use futures::TryStreamExt;
use model::catalog::{Catalog, Command};
use model::ids::{PartitionId, ShardEpoch};
use model::port::CatalogView;
use model::rows::RowsBuilder;
use model::schema::{Field, FieldType, Schema};
use model::topic::{PayloadCodec, TopicSpec};
use model::{Batch, Codec};
use storage::{Entry, PartitionConfig, Store, StoreConfig};

use crate::{Engine, Format, QueryOptions, SqlError, SqlLimits, render};

struct Fixed(Arc<Catalog>);

impl CatalogView for Fixed {
    fn catalog(&self) -> Arc<Catalog> {
        self.0.clone()
    }
}

/// A store with topics `flights` (JSON with a schema, two partitions), `raw.v1` and `Empty`.
struct World {
    catalog: Arc<Catalog>,
    store: Store,
    engine: Engine,
    dir: tempfile::TempDir,
}

pub(super) fn flights_schema() -> Schema {
    let field = |name: &str, ty| Field {
        name: name.to_string(),
        ty,
    };
    Schema {
        fields: vec![
            field("carrier", FieldType::String),
            field("dep_delay", FieldType::Float64),
            field("ts", FieldType::Timestamp),
        ],
        avro: None,
    }
}

impl World {
    async fn new(limits: SqlLimits) -> World {
        let mut catalog = Catalog::new();
        let flights = TopicSpec {
            partitions: 2,
            codec: PayloadCodec::Json,
            schema: Some(flights_schema()),
            ..TopicSpec::default()
        };
        let plain = TopicSpec::default();
        for (name, spec) in [
            ("flights", flights),
            ("raw.v1", plain.clone()),
            ("Empty", plain),
        ] {
            let create = Command::TopicCreate {
                name: name.to_string(),
                spec,
                if_absent: false,
                internal: false,
            };
            catalog.apply(&create).unwrap();
        }
        let catalog = Arc::new(catalog);
        let dir = tempfile::tempdir().unwrap();
        let config = StoreConfig {
            tier_tick_ms: 3_600_000,
            // Every query reads the tier again.
            cache_memory_bytes_max: 0,
            ..StoreConfig::new(dir.path())
        };
        let partitions = catalog
            .topics()
            .flat_map(PartitionConfig::of_topic)
            .collect();
        let store = Store::open(config, partitions).await.unwrap();
        let view = Arc::new(Fixed(catalog.clone()));
        let engine = Engine::new(store.clone(), view, limits).unwrap();
        World {
            catalog,
            store,
            engine,
            dir,
        }
    }

    fn partition(&self, topic: &str, index: u32) -> PartitionId {
        PartitionId {
            topic: self.catalog.topic(topic).unwrap().id,
            index,
        }
    }

    /// Appends one batch: time in seconds, key, value.
    async fn append(&self, topic: &str, index: u32, records: &[(i64, Option<&str>, &[u8])]) {
        let mut rows = RowsBuilder::new();
        for (number, (seconds, key, value)) in records.iter().enumerate() {
            let headers: &[(&str, Option<&[u8]>)] = if number == 1 {
                &[("h", Some(b"v"))]
            } else {
                &[]
            };
            rows.push(
                seconds * 1_000_000,
                key.map(str::as_bytes),
                Some(value),
                headers,
            );
        }
        self.append_rows(topic, index, &rows.finish()).await;
    }

    async fn append_rows(&self, topic: &str, index: u32, rows: &model::Rows) {
        let partition = self.partition(topic, index);
        let base = self.store.log_end(partition).unwrap();
        let batch = Batch::encode(rows, Codec::None, None).unwrap();
        let batch = batch.stamped(base, ShardEpoch(0), 1);
        self.store
            .enqueue(Entry::new(vec![(partition, batch)]))
            .unwrap()
            .await
            .unwrap();
    }

    /// Flights in both partitions: offsets 0 and 1, times 10 and 20, 30 and 40.
    async fn some_flights(&self) {
        let ua: &[u8] = br#"{"carrier":"UA","dep_delay":5,"ts":"2013-01-01T05:00:00Z"}"#;
        let aa: &[u8] = br#"{"carrier":"AA","dep_delay":-1.5,"extra":{"gate":"C7"}}"#;
        let odd: &[u8] = br#"{"carrier":7}"#;
        self.append("flights", 0, &[(10, Some("UA"), ua), (20, None, aa)])
            .await;
        self.append(
            "flights",
            1,
            &[(30, Some("??"), odd), (40, None, b"\xff\xfe")],
        )
        .await;
    }

    async fn tier(&self) {
        self.store.tier(None).await.unwrap();
    }

    async fn run(
        &self,
        sql: &str,
        format: Format,
        options: QueryOptions,
    ) -> Result<String, SqlError> {
        let query = self.engine.query(sql, options).await?;
        let pieces: Vec<bytes::Bytes> = render(query, format).try_collect().await?;
        Ok(String::from_utf8(pieces.concat()).unwrap())
    }

    /// SQL in; CSV, or the error with line and column, out.
    async fn check(&self, sql: &str, expected: &str) {
        let found = match self.run(sql, Format::Csv, QueryOptions::default()).await {
            Ok(text) => text,
            Err(e) => match e.position(sql) {
                Some((line, column)) => format!("{line}:{column}: {e}"),
                None => format!("{e}"),
            },
        };
        let trimmed = |text: &str| {
            let lines: Vec<&str> = text.trim().lines().map(str::trim).collect();
            lines.join("\n")
        };
        assert_eq!(trimmed(&found), trimmed(expected), "{sql}");
    }
}
