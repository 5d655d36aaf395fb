//! System tables: what the catalog and the store know, as rows.
//!
//! Called by the query's catalog. Rows are made when a query names the table, and are of that
//! moment. Columns are added to, never renamed.

use std::sync::Arc;

use arrow::array::BinaryArray;
use datafusion::catalog::TableProvider;
use datafusion::datasource::MemTable;
use datafusion::error::DataFusionError;
use model::catalog::Catalog;
use model::schema::{Field, FieldType, Schema};
use serde_json::{Value, json};
use storage::Store;

/// Their names, in schema `system`.
pub(crate) const TABLES: [&str; 5] = ["modules", "partitions", "pipelines", "store", "topics"];

use FieldType::{Bool, Int64, String as Text};

pub(crate) fn table(
    name: &str,
    catalog: &Catalog,
    store: &Store,
) -> Result<Option<Arc<dyn TableProvider>>, DataFusionError> {
    let (fields, rows) = match name {
        "topics" => topics(catalog),
        "partitions" => partitions(store),
        "pipelines" => pipelines(catalog),
        "modules" => modules(catalog),
        "store" => whole_store(store),
        _ => return Ok(None),
    };
    let fields = fields
        .iter()
        .map(|(name, ty)| Field {
            name: (*name).to_string(),
            ty: *ty,
        })
        .collect();
    let decoder = codec::JsonDecoder::new(&Schema { fields, avro: None });
    let lines: Vec<String> = rows.iter().map(Value::to_string).collect();
    let values = BinaryArray::from_iter_values(lines.iter().map(String::as_bytes));
    let decoded = decoder.decode(&values);
    if let Some((row, message)) = decoded.errors.first() {
        return Err(DataFusionError::Internal(format!(
            "system.{name} row {row}: {message}"
        )));
    }
    let table = MemTable::try_new(decoder.schema().clone(), vec![vec![decoded.columns]])?;
    Ok(Some(Arc::new(table)))
}

type Rows = (&'static [(&'static str, FieldType)], Vec<Value>);

fn topics(catalog: &Catalog) -> Rows {
    let rows = catalog.topics().map(|topic| {
        json!({
            "name": topic.name,
            "id": topic.id.0,
            "partitions": topic.spec.partitions,
            "codec": topic.spec.codec.to_string(),
            "schema": topic.spec.schema.as_ref().map(ToString::to_string),
            "durability": topic.spec.durability.to_string(),
            "retention_ms": topic.spec.retention_ms,
            "retention_bytes": topic.spec.retention_bytes,
            "compact": topic.spec.compact,
            "tier": topic.spec.tier,
        })
    });
    let fields = &[
        ("name", Text),
        ("id", Int64),
        ("partitions", Int64),
        ("codec", Text),
        ("schema", Text),
        ("durability", Text),
        ("retention_ms", Int64),
        ("retention_bytes", Int64),
        ("compact", Bool),
        ("tier", Bool),
    ];
    (fields, rows.collect())
}

fn partitions(store: &Store) -> Rows {
    let status = store.status();
    let rows = status.partitions.iter().map(|p| {
        json!({
            "topic": p.topic,
            "partition": p.id.index,
            "start": p.start,
            "end": p.end,
            "cold_end": p.cold_end,
            "objects": p.objects,
            "cold_bytes": p.cold_bytes,
            "hot_bytes": p.hot_bytes,
            "manifest_version": p.manifest_version,
            "cold_records": p.cold_records,
            "compacted_end": p.compacted_end,
        })
    });
    let fields = &[
        ("topic", Text),
        ("partition", Int64),
        ("start", Int64),
        ("end", Int64),
        ("cold_end", Int64),
        ("objects", Int64),
        ("cold_bytes", Int64),
        ("hot_bytes", Int64),
        ("manifest_version", Int64),
        ("cold_records", Int64),
        ("compacted_end", Int64),
    ];
    (fields, rows.collect())
}

fn pipelines(catalog: &Catalog) -> Rows {
    let rows = catalog.pipelines().map(|pipeline| {
        let modules: Vec<String> = pipeline
            .modules
            .iter()
            .map(|(alias, digest)| format!("{alias}={digest}"))
            .collect();
        json!({
            "name": pipeline.name,
            "generation": pipeline.generation,
            "file": pipeline.file,
            "topics": pipeline.topics.join(", "),
            "modules": modules.join(", "),
        })
    });
    let fields = &[
        ("name", Text),
        ("generation", Int64),
        ("file", Text),
        ("topics", Text),
        ("modules", Text),
    ];
    (fields, rows.collect())
}

fn modules(catalog: &Catalog) -> Rows {
    let rows = catalog
        .modules()
        .map(|(digest, bytes)| json!({ "digest": digest.to_string(), "bytes": bytes }));
    (&[("digest", Text), ("bytes", Int64)], rows.collect())
}

fn whole_store(store: &Store) -> Rows {
    let s = store.status();
    let row = json!({
        "wal_bytes": s.wal_bytes,
        "wal_segments": s.wal_segments,
        "wal_live_bytes": s.wal_live_bytes,
        "tail_bytes": s.tail_bytes,
        "entries": s.entries,
        "batches": s.batches,
        "syncs": s.syncs,
        "tier_url": s.tier_url,
        "tier_waiting": s.tier_waiting,
        "tier_failure": s.tier_failure,
        "failure": s.failure,
    });
    let fields = &[
        ("wal_bytes", Int64),
        ("wal_segments", Int64),
        ("wal_live_bytes", Int64),
        ("tail_bytes", Int64),
        ("entries", Int64),
        ("batches", Int64),
        ("syncs", Int64),
        ("tier_url", Text),
        ("tier_waiting", Int64),
        ("tier_failure", Text),
        ("failure", Text),
    ];
    (fields, vec![row])
}
