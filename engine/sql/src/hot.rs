//! The rows of a topic that are not tiered yet: batches as they came, turned into columns.
//!
//! Called by a topic's scan; runs while rows are drawn, one batch at a time.
//! Invariants: only columns asked for are made: counting rows decodes nothing, JSON is parsed
//! only for typed columns; rows before the partition's start or its cold end are cut off.
//! Refuses: a batch that does not decode, named with partition and offset.

use std::fmt;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ListArray, StructArray, TimestampMicrosecondArray, UInt32Array, UInt64Array,
};
use arrow::buffer::NullBuffer;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use codec::Format;
use datafusion::catalog::Session;
use datafusion::error::DataFusionError;
use datafusion::execution::TaskContext;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use datafusion::physical_plan::{ExecutionPlan, SendableRecordBatchStream};
use futures::stream;
use model::batch::Batch;
use model::ids::{Offset, PartitionId};
use model::port::LogError;
use model::rows::Rows;
use storage::Snapshot;

use crate::topic::{self, BASE_COLUMNS};

/// A column of the table, as a batch can give it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HotColumn {
    Partition,
    Offset,
    Timestamp,
    Key,
    Value,
    ValueText,
    Headers,
    /// Index into the topic's schema.
    Typed(usize),
}

impl HotColumn {
    /// The column at `index` of the topic's table.
    pub(crate) fn at(index: usize) -> HotColumn {
        match index {
            topic::PARTITION => HotColumn::Partition,
            topic::OFFSET => HotColumn::Offset,
            topic::TIMESTAMP => HotColumn::Timestamp,
            topic::KEY => HotColumn::Key,
            topic::VALUE => HotColumn::Value,
            topic::VALUE_TEXT => HotColumn::ValueText,
            topic::HEADERS => HotColumn::Headers,
            typed => HotColumn::Typed(typed - BASE_COLUMNS),
        }
    }

    fn needs_rows(self) -> bool {
        !matches!(self, HotColumn::Partition | HotColumn::Offset)
    }
}

/// A plan over the batches that are kept, in as many streams as the session runs at a time.
pub(crate) fn plan(
    snapshots: &[Arc<Snapshot>],
    kept: &[bool],
    columns: Vec<HotColumn>,
    output: &SchemaRef,
    format: &Option<Format>,
    limit: Option<usize>,
    session: &dyn Session,
) -> Result<Option<Arc<dyn ExecutionPlan>>, DataFusionError> {
    let mut parts = Vec::new();
    let mut span = 0;
    for snapshot in snapshots {
        span += snapshot.cold.len();
        let floor = snapshot.cold_end.max(snapshot.start);
        for batch in &snapshot.hot {
            if kept[span] && batch.next_offset() > floor {
                parts.push(Part {
                    partition: snapshot.partition,
                    batch: batch.clone(),
                    floor,
                });
            }
            span += 1;
        }
    }
    if parts.is_empty() {
        return Ok(None);
    }
    let columns: Arc<[HotColumn]> = columns.into();
    let streams = split(parts, session.config().target_partitions().max(1))
        .into_iter()
        .map(|parts| {
            Arc::new(HotStream {
                parts: parts.into(),
                columns: columns.clone(),
                schema: output.clone(),
                format: format.clone(),
            }) as Arc<dyn PartitionStream>
        })
        .collect();
    let plan = StreamingTableExec::try_new(output.clone(), streams, None, None, false, limit)?;
    Ok(Some(Arc::new(plan)))
}

/// Runs of neighbours with about the same number of records each.
fn split(parts: Vec<Part>, ways: usize) -> Vec<Vec<Part>> {
    let records: u64 = parts.iter().map(|part| u64::from(part.batch.len())).sum();
    let share = (records / ways as u64).max(1);
    let mut runs: Vec<Vec<Part>> = Vec::new();
    let mut filled = u64::MAX;
    for part in parts {
        if filled >= share {
            runs.push(Vec::new());
            filled = 0;
        }
        filled += u64::from(part.batch.len());
        if let Some(run) = runs.last_mut() {
            run.push(part);
        }
    }
    runs
}

/// A batch, and from which offset on it counts.
#[derive(Clone)]
struct Part {
    partition: PartitionId,
    batch: Batch,
    floor: Offset,
}

struct HotStream {
    parts: Arc<[Part]>,
    columns: Arc<[HotColumn]>,
    schema: SchemaRef,
    format: Option<Format>,
}

impl fmt::Debug for HotStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HotStream({} batches)", self.parts.len())
    }
}

impl PartitionStream for HotStream {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let (parts, columns) = (self.parts.clone(), self.columns.clone());
        let (schema, format) = (self.schema.clone(), self.format.clone());
        let batches = (0..parts.len())
            .map(move |index| made(&parts[index], &columns, &schema, format.as_ref()));
        Box::pin(RecordBatchStreamAdapter::new(
            self.schema.clone(),
            stream::iter(batches),
        ))
    }
}

fn made(
    part: &Part,
    columns: &[HotColumn],
    schema: &SchemaRef,
    format: Option<&Format>,
) -> Result<RecordBatch, DataFusionError> {
    let damaged = |detail: String| {
        let detail = format!("batch at offset {}: {detail}", part.batch.base_offset());
        let error = LogError::Corrupt {
            partition: part.partition,
            detail,
        };
        DataFusionError::External(Box::new(error))
    };
    let len = part.batch.len() as usize;
    let cut = part.batch.base_offset() < part.floor;
    let offsets = match cut || columns.contains(&HotColumn::Offset) {
        true => part.batch.offsets().map_err(|e| damaged(e.to_string()))?,
        false => Vec::new(),
    };
    let from = match cut {
        true => offsets.partition_point(|offset| *offset < part.floor),
        false => 0,
    };
    let rows = match columns.iter().any(|column| column.needs_rows()) {
        true => {
            let rows = part.batch.rows().map_err(|e| damaged(e.to_string()))?;
            if from > 0 {
                rows.slice(from, rows.len() - from)
            } else {
                rows
            }
        }
        false => Rows::empty(),
    };
    let typed = typed(&rows, columns, format)?;
    let mut next_typed = 0;
    let mut arrays: Vec<ArrayRef> = Vec::with_capacity(columns.len());
    for column in columns {
        arrays.push(match column {
            HotColumn::Partition => {
                Arc::new(UInt32Array::from_value(part.partition.index, len - from))
            }
            HotColumn::Offset => Arc::new(UInt64Array::from(offsets[from..].to_vec())),
            HotColumn::Timestamp => {
                let times = TimestampMicrosecondArray::new(rows.timestamps.clone(), None);
                Arc::new(times.with_timezone("UTC"))
            }
            HotColumn::Key => Arc::new(rows.keys.clone()),
            HotColumn::Value => Arc::new(rows.values.clone()),
            HotColumn::ValueText => Arc::new(expr::text_of(&rows.values)),
            HotColumn::Headers => Arc::new(headers(&rows)?),
            HotColumn::Typed(_) => {
                next_typed += 1;
                typed[next_typed - 1].clone()
            }
        });
    }
    let options = RecordBatchOptions::new().with_row_count(Some(len - from));
    Ok(RecordBatch::try_new_with_options(
        schema.clone(),
        arrays,
        &options,
    )?)
}

/// The typed columns asked for, in order. A value that does not fit gives nulls, as in the tier.
fn typed(
    rows: &Rows,
    columns: &[HotColumn],
    format: Option<&Format>,
) -> Result<Vec<ArrayRef>, DataFusionError> {
    let indices: Vec<usize> = columns
        .iter()
        .filter_map(|column| match column {
            HotColumn::Typed(index) => Some(*index),
            _ => None,
        })
        .collect();
    match format {
        Some(format) if !indices.is_empty() => {
            let unknown = || DataFusionError::Internal("a column beyond the schema".to_owned());
            let wanted = format.columns(&indices).ok_or_else(unknown)?;
            if let Some(columns) = &rows.columns {
                let column = |at: &usize| columns.arrays().get(*at).cloned().ok_or_else(unknown);
                return indices.iter().map(column).collect();
            }
            let decoded = format.decode(&rows.values, &wanted);
            Ok(decoded.columns.columns().to_vec())
        }
        _ => Ok(Vec::new()),
    }
}

fn headers(rows: &Rows) -> Result<ListArray, DataFusionError> {
    let Some(headers) = &rows.headers else {
        return Ok(ListArray::new_null(topic::header_item(), rows.len()));
    };
    let entries = StructArray::try_new(
        topic::header_fields(),
        vec![
            Arc::new(headers.names.clone()),
            Arc::new(headers.values.clone()),
        ],
        None,
    )?;
    let list = ListArray::try_new(
        topic::header_item(),
        headers.rows.clone(),
        Arc::new(entries),
        None,
    )?;
    Ok(null_if_empty(&list))
}

/// A record without headers has null, whether it came alone or in company of others with some.
pub(crate) fn null_if_empty(list: &ListArray) -> ListArray {
    let filled: NullBuffer = (0..list.len())
        .map(|row| list.is_valid(row) && list.value_length(row) > 0)
        .collect();
    ListArray::new(
        topic::header_item(),
        list.offsets().clone(),
        list.values().clone(),
        Some(filled),
    )
}
