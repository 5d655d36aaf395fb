//! Leaving out whole objects and batches by what is known of them without reading.
//!
//! Called by a topic's scan, with filters on partition, offset and time.
//! Invariants: a span is left out only if no row in it can match; without knowledge it is kept.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, TimestampMicrosecondArray, UInt32Array, UInt64Array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::Column;
use datafusion::common::pruning::PruningStatistics;
use datafusion::error::DataFusionError;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_optimizer::pruning::PruningPredicateBuilder;
use datafusion::scalar::ScalarValue;
use model::ids::Offset;

use crate::topic::time_type;

/// Bounds, all inclusive, of the rows of one object or batch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Span {
    pub partition: u32,
    pub offsets: (Offset, Offset),
    pub times: (i64, i64),
}

/// The columns spans know about.
pub(crate) fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("_partition", DataType::UInt32, false),
        Field::new("_offset", DataType::UInt64, false),
        Field::new("_timestamp", time_type(), false),
    ]))
}

/// For each span whether it has to be read.
pub(crate) fn kept(
    filter: Option<Arc<dyn PhysicalExpr>>,
    spans: &[Span],
) -> Result<Vec<bool>, DataFusionError> {
    match filter {
        Some(filter) if !spans.is_empty() => PruningPredicateBuilder::new()
            .with_file_schema(schema())
            .try_build(filter)?
            .prune(&Spans(spans)),
        _ => Ok(vec![true; spans.len()]),
    }
}

struct Spans<'a>(&'a [Span]);

impl Spans<'_> {
    fn bound(&self, column: &Column, upper: bool) -> Option<ArrayRef> {
        let pick64 = |(low, high): (u64, u64)| if upper { high } else { low };
        let pick = |(low, high): (i64, i64)| if upper { high } else { low };
        Some(match column.name.as_str() {
            "_partition" => Arc::new(UInt32Array::from_iter_values(
                self.0.iter().map(|span| span.partition),
            )),
            "_offset" => Arc::new(UInt64Array::from_iter_values(
                self.0.iter().map(|span| pick64(span.offsets)),
            )),
            "_timestamp" => {
                let times = self.0.iter().map(|span| pick(span.times));
                Arc::new(TimestampMicrosecondArray::from_iter_values(times).with_timezone("UTC"))
            }
            _ => return None,
        })
    }
}

impl PruningStatistics for Spans<'_> {
    fn min_values(&self, column: &Column) -> Option<ArrayRef> {
        self.bound(column, false)
    }

    fn max_values(&self, column: &Column) -> Option<ArrayRef> {
        self.bound(column, true)
    }

    fn num_containers(&self) -> usize {
        self.0.len()
    }

    fn null_counts(&self, _: &Column) -> Option<ArrayRef> {
        Some(Arc::new(UInt64Array::from(vec![0; self.0.len()])))
    }

    fn row_counts(&self) -> Option<ArrayRef> {
        None
    }

    fn contained(&self, _: &Column, _: &HashSet<ScalarValue>) -> Option<BooleanArray> {
        None
    }
}
