//! One object of the tier as DataFusion reads it: a partition's row groups, every byte checked.
//!
//! Called by `cold` for each file of a scan. Invariants: of an object that several partitions
//! share, only the row groups the manifest names are read; footer and columns come through the
//! store's checked reads, so damage is an error that names what is damaged, never wrong rows.
//! Refuses: files that carry no object of a manifest.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use datafusion::common::{DataFusionError, ScalarValue};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::parquet::{
    ParquetAccessPlan, ParquetFileMetrics, ParquetFileReaderFactory,
};
use datafusion::object_store::path::Path;
use datafusion::parquet::arrow::arrow_reader::ArrowReaderOptions;
use datafusion::parquet::arrow::async_reader::AsyncFileReader;
use datafusion::parquet::errors::{ParquetError, Result as ParquetResult};
use datafusion::parquet::file::metadata::ParquetMetaData;
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use futures::FutureExt;
use futures::future::BoxFuture;
use model::ids::PartitionId;
use model::port::LogError;
use storage::{ColdObject, Store};

/// What a file of a scan carries.
struct Part {
    partition: PartitionId,
    object: ColdObject,
}

/// The file of a partition's part of an object.
pub(crate) fn file(
    partition: PartitionId,
    object: &ColdObject,
) -> Result<PartitionedFile, DataFusionError> {
    let mut file = PartitionedFile::new(String::new(), object.size);
    file.object_meta.location =
        Path::parse(&object.path).map_err(|e| DataFusionError::External(Box::new(e)))?;
    let index = ScalarValue::UInt32(Some(partition.index));
    let mut file = file.with_partition_values(vec![index]);
    if let (Some(foot), Some(first), Some(last)) =
        (&object.foot, object.groups.first(), object.groups.last())
    {
        let mut plan = ParquetAccessPlan::new_none(foot.groups as usize);
        for number in 0..object.groups.len() {
            plan.scan(object.group as usize + number);
        }
        // The range is what the scan is cut by when it is spread over threads.
        let end = last.at.saturating_add(last.len);
        let signed = |at: u64| i64::try_from(at).unwrap_or(i64::MAX);
        file = file.with_range(signed(first.at), signed(end));
        file = file.with_extension(plan);
    }
    let object = object.clone();
    Ok(file.with_extension(Part { partition, object }))
}

/// Makes readers whose bytes passed their checksums.
#[derive(Clone)]
pub(crate) struct CheckedReaders(pub Store);

impl std::fmt::Debug for CheckedReaders {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CheckedReaders")
    }
}

impl ParquetFileReaderFactory for CheckedReaders {
    fn create_reader(
        &self,
        partition_index: usize,
        file: PartitionedFile,
        _metadata_size_hint: Option<usize>,
        metrics: &ExecutionPlanMetricsSet,
    ) -> Result<Box<dyn AsyncFileReader + Send>, DataFusionError> {
        let path = file.object_meta.location.as_ref();
        let metrics = ParquetFileMetrics::new(partition_index, path, metrics);
        let part = file.extensions.get_arc::<Part>().ok_or_else(|| {
            DataFusionError::Internal(format!("{path} is no object of a manifest"))
        })?;
        let store = self.0.clone();
        Ok(Box::new(CheckedReader {
            store,
            part,
            metrics,
        }))
    }
}

struct CheckedReader {
    store: Store,
    part: Arc<Part>,
    metrics: ParquetFileMetrics,
}

fn external(error: LogError) -> ParquetError {
    ParquetError::External(Box::new(error))
}

impl AsyncFileReader for CheckedReader {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, ParquetResult<Bytes>> {
        async move {
            let bytes = self.get_byte_ranges(vec![range]).await?.into_iter().next();
            bytes.ok_or_else(|| ParquetError::EOF("no bytes were asked for".to_owned()))
        }
        .boxed()
    }

    fn get_byte_ranges(
        &mut self,
        ranges: Vec<Range<u64>>,
    ) -> BoxFuture<'_, ParquetResult<Vec<Bytes>>> {
        let size: u64 = ranges.iter().map(|range| range.end - range.start).sum();
        self.metrics.bytes_scanned.add(size as usize);
        async move {
            let Part { partition, object } = &*self.part;
            let bytes = self.store.cold_ranges(*partition, object, &ranges).await;
            bytes.map_err(external)
        }
        .boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        _options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, ParquetResult<Arc<ParquetMetaData>>> {
        async move {
            let Part { partition, object } = &*self.part;
            let footer = self.store.cold_footer(*partition, object).await;
            footer.map_err(external)
        }
        .boxed()
    }
}
