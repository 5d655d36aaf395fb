//! Stopping what computes without pausing.
//!
//! Called by the engine on every physical plan. A task can only be taken off its thread where it
//! pauses; a nested loop join may compute for minutes between two rows it gives, so its condition
//! looks at the clock, and joins pause after each batch.
//! Invariants: the plan's answer does not change; a query that is dropped or out of time leaves
//! its threads within one chunk of rows.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow::datatypes::{DataType, FieldRef, Schema};
use arrow::record_batch::RecordBatch;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::ColumnarValue;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::joins::utils::JoinFilter;
use datafusion::physical_plan::joins::{
    CrossJoinExec, HashJoinExec, NestedLoopJoinExec, NestedLoopJoinExecBuilder,
};
use tokio::time::Instant;

/// When one query has to stop.
#[derive(Debug)]
pub(crate) struct Stop {
    deadline: Instant,
    dropped: AtomicBool,
}

impl Stop {
    pub(crate) fn new(deadline: Instant) -> Arc<Stop> {
        Arc::new(Stop {
            deadline,
            dropped: AtomicBool::new(false),
        })
    }

    /// Nobody reads the rows any more.
    pub(crate) fn drop_query(&self) {
        self.dropped.store(true, Ordering::Relaxed);
    }

    fn due(&self) -> bool {
        self.dropped.load(Ordering::Relaxed) || Instant::now() >= self.deadline
    }
}

/// The same plan, with joins that can be stopped.
pub(crate) fn stoppable(
    plan: Arc<dyn ExecutionPlan>,
    stop: &Arc<Stop>,
) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
    let changed = plan.transform_up(|node| {
        if let Some(join) = node.downcast_ref::<NestedLoopJoinExec>() {
            let filter = join.filter().map(|filter| guarded(filter, stop));
            let join = NestedLoopJoinExecBuilder::from(join)
                .with_filter(filter)
                .build()?;
            return Ok(Transformed::yes(pausing(Arc::new(join))));
        }
        match node.is::<CrossJoinExec>() || node.is::<HashJoinExec>() {
            true => Ok(Transformed::yes(pausing(node))),
            false => Ok(Transformed::no(node)),
        }
    });
    Ok(changed?.data)
}

fn pausing(node: Arc<dyn ExecutionPlan>) -> Arc<dyn ExecutionPlan> {
    Arc::new(CooperativeExec::new(node))
}

fn guarded(filter: &JoinFilter, stop: &Arc<Stop>) -> JoinFilter {
    let guard = Guard {
        inner: filter.expression().clone(),
        stop: stop.clone(),
    };
    JoinFilter::new(
        Arc::new(guard),
        filter.column_indices().to_vec(),
        filter.schema().clone(),
    )
}

/// A condition that fails when its query has to stop.
#[derive(Debug)]
struct Guard {
    inner: Arc<dyn PhysicalExpr>,
    stop: Arc<Stop>,
}

impl fmt::Display for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

impl PartialEq for Guard {
    fn eq(&self, other: &Guard) -> bool {
        self.inner.as_ref() == other.inner.as_ref()
    }
}

impl Eq for Guard {}

impl Hash for Guard {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.inner.hash(state);
    }
}

impl PhysicalExpr for Guard {
    fn data_type(&self, schema: &Schema) -> Result<DataType, DataFusionError> {
        self.inner.data_type(schema)
    }

    fn nullable(&self, schema: &Schema) -> Result<bool, DataFusionError> {
        self.inner.nullable(schema)
    }

    fn return_field(&self, schema: &Schema) -> Result<FieldRef, DataFusionError> {
        self.inner.return_field(schema)
    }

    fn evaluate(&self, batch: &RecordBatch) -> Result<ColumnarValue, DataFusionError> {
        if self.stop.due() {
            return Err(DataFusionError::Execution(
                "the query was stopped".to_string(),
            ));
        }
        self.inner.evaluate(batch)
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        vec![&self.inner]
    }

    fn with_new_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn PhysicalExpr>>,
    ) -> Result<Arc<dyn PhysicalExpr>, DataFusionError> {
        let inner = children.pop().unwrap_or_else(|| self.inner.clone());
        Ok(Arc::new(Guard {
            inner,
            stop: self.stop.clone(),
        }))
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt_sql(f)
    }
}
