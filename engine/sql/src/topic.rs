//! A topic as a table: which columns, which moment, which parts of it a query needs.
//!
//! Called by DataFusion through the query's catalog.
//! Invariants: the snapshot of every partition is taken at the first scan and kept for the whole
//! query; rows below a partition's cold end come from Parquet, the others from batches; rows
//! before its start are not shown. Typed columns are null where a value does not fit the schema
//! and in objects written before the topic had one.
//! Filters prune, and are applied again above the scan (`Inexact`).

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef, TimeUnit};
use async_trait::async_trait;
use codec::Format;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::DFSchema;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::union::UnionExec;
use futures::future::try_join_all;
use model::ids::PartitionId;
use model::topic::Topic;
use storage::{Snapshot, Store};
use tokio::sync::OnceCell;

use crate::cold;
use crate::hot::{self, HotColumn};
use crate::object::CheckedReaders;
use crate::prune::{self, Span};

/// The columns every topic has, in this order, before the typed ones.
pub(crate) const PARTITION: usize = 0;
pub(crate) const OFFSET: usize = 1;
pub(crate) const TIMESTAMP: usize = 2;
pub(crate) const KEY: usize = 3;
pub(crate) const VALUE: usize = 4;
pub(crate) const VALUE_TEXT: usize = 5;
pub(crate) const HEADERS: usize = 6;
pub(crate) const BASE_COLUMNS: usize = 7;

/// One topic in one query.
pub(crate) struct TopicTable {
    name: String,
    partitions: Vec<PartitionId>,
    schema: SchemaRef,
    format: Option<Format>,
    store: Store,
    pinned: OnceCell<Vec<Arc<Snapshot>>>,
}

impl fmt::Debug for TopicTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TopicTable({:?})", self.name)
    }
}

impl TopicTable {
    pub(crate) fn new(topic: &Topic, store: Store) -> TopicTable {
        let schema = topic.spec.schema.clone().map(Arc::new);
        let format = schema.and_then(|schema| Format::new(topic.spec.codec, schema));
        let mut fields = base_fields();
        if let Some(format) = &format {
            fields.extend(format.arrow().fields().iter().cloned());
        }
        TopicTable {
            name: topic.name.clone(),
            partitions: (0..topic.spec.partitions)
                .map(|index| PartitionId {
                    topic: topic.id,
                    index,
                })
                .collect(),
            schema: Arc::new(Schema::new(fields)),
            format,
            store,
            pinned: OnceCell::new(),
        }
    }

    /// The moment this query sees.
    async fn pin(&self) -> Result<&[Arc<Snapshot>], DataFusionError> {
        let pinned = self.pinned.get_or_try_init(|| async {
            let snapshots = self.partitions.iter().map(|id| async {
                let snapshot = self.store.snapshot(*id).await;
                snapshot
                    .map(Arc::new)
                    .map_err(|e| DataFusionError::External(Box::new(e)))
            });
            try_join_all(snapshots).await
        });
        Ok(pinned.await?)
    }

    /// The filters as one expression over the table's columns.
    fn physical(
        &self,
        session: &dyn Session,
        filters: &[Expr],
        schema: &SchemaRef,
    ) -> Result<Option<Arc<dyn PhysicalExpr>>, DataFusionError> {
        let usable = filters.iter().filter(|filter| {
            filter
                .column_refs()
                .iter()
                .all(|c| schema.index_of(&c.name).is_ok())
        });
        // Filters name columns with or without the table: bare names suit both.
        let bare = usable.map(|filter| strip(filter.clone()));
        let Some(all) = conjunction(bare) else {
            return Ok(None);
        };
        let df_schema = DFSchema::try_from(schema.as_ref().clone())?;
        session.create_physical_expr(all, &df_schema).map(Some)
    }
}

fn strip(expr: Expr) -> Expr {
    let stripped = expr.clone().transform(|node| {
        Ok(match node {
            Expr::Column(mut column) => {
                column.relation = None;
                Transformed::yes(Expr::Column(column))
            }
            other => Transformed::no(other),
        })
    });
    stripped.map_or(expr, |t| t.data)
}

#[async_trait]
impl TableProvider for TopicTable {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> Result<Vec<TableProviderFilterPushDown>, DataFusionError> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
        let all: Vec<usize> = (0..self.schema.fields().len()).collect();
        let wanted = projection.unwrap_or(&all);
        let output = Arc::new(self.schema.project(wanted)?);
        let snapshots = self.pin().await?;
        let spans = spans(snapshots);
        let pruning = self.physical(session, filters, &prune::schema())?;
        let kept = prune::kept(pruning, &spans)?;

        let scan = cold::Scan {
            table: &self.schema,
            wanted,
            output: &output,
            limit: limit.filter(|_| filters.is_empty()),
            session,
            readers: CheckedReaders(self.store.clone()),
        };
        let mut plans = cold::plans(&scan, snapshots, &kept)?;
        let columns = wanted.iter().map(|index| HotColumn::at(*index)).collect();
        let limit = scan.limit;
        plans.extend(hot::plan(
            snapshots,
            &kept,
            columns,
            &output,
            &self.format,
            limit,
            session,
        )?);
        match plans.len() {
            0 => Ok(Arc::new(EmptyExec::new(output))),
            1 => Ok(plans.remove(0)),
            _ => UnionExec::try_new(plans),
        }
    }
}

/// What can be read or left: every cold object, then every hot batch, partition by partition.
fn spans(snapshots: &[Arc<Snapshot>]) -> Vec<Span> {
    let mut spans = Vec::new();
    for snapshot in snapshots {
        let partition = snapshot.partition.index;
        spans.extend(snapshot.cold.iter().map(|object| Span {
            partition,
            offsets: (object.base, object.next.saturating_sub(1)),
            times: (object.min_ts, object.max_ts),
        }));
        // A batch's head has its first and its largest time, not its smallest.
        spans.extend(snapshot.hot.iter().map(|batch| Span {
            partition,
            offsets: (batch.base_offset(), batch.next_offset().saturating_sub(1)),
            times: (i64::MIN, batch.max_timestamp()),
        }));
    }
    spans
}

pub(crate) fn time_type() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

pub(crate) fn header_fields() -> Fields {
    Fields::from(vec![
        Field::new("name", DataType::Utf8, false),
        Field::new("value", DataType::Binary, true),
    ])
}

pub(crate) fn header_item() -> Arc<Field> {
    Arc::new(Field::new(
        "element",
        DataType::Struct(header_fields()),
        false,
    ))
}

fn base_fields() -> Vec<Arc<Field>> {
    [
        Field::new("_partition", DataType::UInt32, false),
        Field::new("_offset", DataType::UInt64, false),
        Field::new("_timestamp", time_type(), false),
        Field::new("_key", DataType::Binary, true),
        Field::new("_value", DataType::Binary, true),
        Field::new("_value_text", DataType::Utf8, true),
        Field::new("_headers", DataType::List(header_item()), true),
    ]
    .into_iter()
    .map(Arc::new)
    .collect()
}
