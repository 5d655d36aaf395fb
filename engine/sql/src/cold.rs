//! The tiered rows of a topic: Parquet objects named by the manifest, never listed.
//!
//! Called by a topic's scan.
//! Invariants: only objects a query may need are opened, only columns it asks for are read, and
//! of an object only the row groups of its partition (`object`);
//! `_partition` is a constant of each object; `_value_text` is made from `_value` on the way out.
//! An object that begins before the partition's start is read behind a filter on `_offset`.

use std::sync::{Arc, LazyLock};

use arrow::array::cast::AsArray;
use arrow::array::{Array, ArrayRef};
use arrow::datatypes::{DataType, Schema, SchemaRef};
use datafusion::catalog::Session;
use datafusion::common::stats::Precision;
use datafusion::common::{ScalarValue, Statistics};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::datasource::table_schema::TableSchema;
use datafusion::error::DataFusionError;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::logical_expr::{ColumnarValue, Operator, ScalarUDF, Volatility, create_udf};
use datafusion::physical_expr::expressions::{BinaryExpr, Column, Literal};
use datafusion::physical_expr::{PhysicalExpr, ScalarFunctionExpr};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::projection::{ProjectionExec, ProjectionExpr};
use model::ids::Offset;
use storage::Snapshot;

use crate::hot::null_if_empty;
use crate::object::{CheckedReaders, file};
use crate::topic::{HEADERS, OFFSET, PARTITION, VALUE, VALUE_TEXT, header_item};

/// Where DataFusion finds the tier's store.
pub(crate) const STORE_URL: &str = "tier://store";

/// One scan's share of the query.
pub(crate) struct Scan<'a> {
    /// All columns of the topic's table.
    pub table: &'a SchemaRef,
    /// Those asked for, as indices into `table`.
    pub wanted: &'a [usize],
    /// The schema of those.
    pub output: &'a SchemaRef,
    pub limit: Option<usize>,
    pub session: &'a dyn Session,
    pub readers: CheckedReaders,
}

/// The columns of the objects.
fn file_schema(table: &SchemaRef) -> SchemaRef {
    let in_file = |index: &usize| *index != PARTITION && *index != VALUE_TEXT;
    let fields: Vec<_> = (0..table.fields().len())
        .filter(in_file)
        .map(|index| table.fields()[index].clone())
        .collect();
    Arc::new(Schema::new(fields))
}

/// Where a column of the table is in the scan's schema: the file's columns, then `_partition`.
fn scan_index(table: &SchemaRef, index: usize) -> usize {
    match index {
        PARTITION => table.fields().len() - 2,
        VALUE_TEXT => VALUE - 1,
        index if index < VALUE_TEXT => index - 1,
        index => index - 2,
    }
}

/// Plans over the objects that are kept: one for all that are whole, one for each cut one.
pub(crate) fn plans(
    scan: &Scan<'_>,
    snapshots: &[Arc<Snapshot>],
    kept: &[bool],
) -> Result<Vec<Arc<dyn ExecutionPlan>>, DataFusionError> {
    let mut whole = Vec::new();
    let mut plans = Vec::new();
    let mut span = 0;
    for snapshot in snapshots {
        for object in &snapshot.cold {
            let keep = kept[span] && object.next > snapshot.start;
            span += 1;
            if !keep {
                continue;
            }
            let file = file(snapshot.partition, object)?;
            if object.base >= snapshot.start {
                whole.push((file, object.rows));
            } else {
                plans.push(plan(scan, vec![(file, object.rows)], Some(snapshot.start))?);
            }
        }
        span += snapshot.hot.len();
    }
    if !whole.is_empty() {
        plans.push(plan(scan, whole, None)?);
    }
    Ok(plans)
}

fn plan(
    scan: &Scan<'_>,
    files: Vec<(PartitionedFile, u64)>,
    start: Option<Offset>,
) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
    let partition = scan.table.fields()[PARTITION].clone();
    let table_schema = TableSchema::builder(file_schema(scan.table))
        .with_table_partition_cols(vec![partition])
        .build();
    // The optimizer hands filters down to the source, where they prune row groups and pages.
    let source = ParquetSource::new(table_schema.clone())
        .with_table_parquet_options(scan.session.default_table_options().parquet)
        .with_parquet_file_reader_factory(Arc::new(scan.readers.clone()))
        .with_enable_page_index(true);
    // The columns to read: each once, and the offset where rows are cut off.
    let mut read: Vec<usize> = Vec::new();
    let cut = start.map(|_| OFFSET);
    for index in scan.wanted.iter().copied().chain(cut) {
        let at = scan_index(scan.table, index);
        if !read.contains(&at) {
            read.push(at);
        }
    }
    let rows: u64 = files.iter().map(|(_, rows)| rows).sum();
    let mut statistics = Statistics::new_unknown(table_schema.table_schema());
    statistics.num_rows = Precision::Exact(usize::try_from(rows).unwrap_or(usize::MAX));
    let groups = scan.session.config().target_partitions().max(1);
    let files = FileGroup::new(files.into_iter().map(|(file, _)| file).collect());
    let config = FileScanConfigBuilder::new(ObjectStoreUrl::parse(STORE_URL)?, Arc::new(source))
        .with_file_groups(files.split_files(groups))
        .with_projection_indices(Some(read.clone()))?
        .with_statistics(statistics)
        .with_limit(scan.limit.filter(|_| start.is_none()))
        .build();
    let mut plan: Arc<dyn ExecutionPlan> = DataSourceExec::from_data_source(config);
    if let Some(start) = start {
        let offset = column(&plan.schema(), "_offset")?;
        let bound = Arc::new(Literal::new(ScalarValue::UInt64(Some(start))));
        let from = Arc::new(BinaryExpr::new(offset, Operator::GtEq, bound));
        plan = Arc::new(FilterExec::try_new(from, plan)?);
    }
    shaped(scan, plan)
}

/// Adds what is made from other columns, in the order asked for.
fn shaped(
    scan: &Scan<'_>,
    plan: Arc<dyn ExecutionPlan>,
) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
    let input = plan.schema();
    let made = |index: &usize| matches!(*index, VALUE_TEXT | HEADERS);
    if !scan.wanted.iter().any(made) && input.fields() == scan.output.fields() {
        return Ok(plan);
    }
    let mut expressions = Vec::with_capacity(scan.wanted.len());
    for index in scan.wanted {
        let name = scan.table.field(*index).name();
        let expr: Arc<dyn PhysicalExpr> = match *index {
            VALUE_TEXT => call(&TEXT, column(&input, "_value")?, &input, scan.session)?,
            HEADERS => call(
                &HEADERS_OF,
                column(&input, "_headers")?,
                &input,
                scan.session,
            )?,
            _ => column(&input, name)?,
        };
        expressions.push(ProjectionExpr {
            expr,
            alias: name.clone(),
        });
    }
    Ok(Arc::new(ProjectionExec::try_new(expressions, plan)?))
}

fn column(schema: &SchemaRef, name: &str) -> Result<Arc<dyn PhysicalExpr>, DataFusionError> {
    Ok(Arc::new(Column::new_with_schema(name, schema)?))
}

fn call(
    function: &Arc<ScalarUDF>,
    argument: Arc<dyn PhysicalExpr>,
    schema: &SchemaRef,
    session: &dyn Session,
) -> Result<Arc<dyn PhysicalExpr>, DataFusionError> {
    let options = session.config().options().clone();
    Ok(Arc::new(ScalarFunctionExpr::try_new(
        function.clone(),
        vec![argument],
        schema,
        options,
    )?))
}

/// `_value` as text, null where it is not UTF-8.
static TEXT: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| {
    Arc::new(create_udf(
        "text_of",
        vec![DataType::Binary],
        DataType::Utf8,
        Volatility::Immutable,
        Arc::new(|arguments| {
            each(arguments, |array| match array.as_binary_opt::<i32>() {
                Some(values) => Ok(Arc::new(expr::text_of(values)) as ArrayRef),
                None => Err(DataFusionError::Internal(
                    "text_of wants Binary".to_string(),
                )),
            })
        }),
    ))
});

/// `_headers`, null where a record has none: as hot rows have them.
static HEADERS_OF: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| {
    Arc::new(create_udf(
        "headers_of",
        vec![DataType::List(header_item())],
        DataType::List(header_item()),
        Volatility::Immutable,
        Arc::new(|arguments| {
            each(arguments, |array| match array.as_list_opt::<i32>() {
                Some(list) => Ok(Arc::new(null_if_empty(list)) as ArrayRef),
                None => Err(DataFusionError::Internal(
                    "headers_of wants a list".to_string(),
                )),
            })
        }),
    ))
});

fn each(
    arguments: &[ColumnarValue],
    make: impl Fn(&dyn Array) -> Result<ArrayRef, DataFusionError>,
) -> Result<ColumnarValue, DataFusionError> {
    match arguments {
        [ColumnarValue::Array(array)] => make(array.as_ref()).map(ColumnarValue::Array),
        [ColumnarValue::Scalar(value)] => {
            let made = make(value.to_array()?.as_ref())?;
            Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(
                &made, 0,
            )?))
        }
        _ => Err(DataFusionError::Internal(
            "one argument expected".to_string(),
        )),
    }
}
