//! A partition that lies in Parquet objects, read back by us and by the parquet crate in turns.
//!
//! Called by: `fetch` (through the broker), `tier` (from the store). Both read the columns that
//! every topic has. Invariants: records are counted by both sides; `per_core` is ours by the
//! processor seconds of the process instead of the clock's.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Instant;

use model::{Batch, Offset, PartitionId};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use storage::Store;

use crate::rig::Result;
use crate::{Case, MEBIBYTE, Options, machine};

/// Bytes asked for at once.
pub const READ_BYTES: usize = 4 << 20;
/// The columns of a record.
const COLUMNS: [&str; 5] = ["_offset", "_timestamp", "_key", "_value", "_headers"];
/// Rows of one Arrow batch of the baseline.
const PLAIN_ROWS: usize = 8 * 1024;

/// The Parquet objects of a partition in offset order, by the manifest. `dir` is the store's.
pub async fn objects(store: &Store, partition: PartitionId, dir: &Path) -> Result<Vec<PathBuf>> {
    let snapshot = store.snapshot(partition).await?;
    let tier = dir.join("tier");
    let objects = snapshot.cold.iter().map(|object| tier.join(&object.path));
    Ok(objects.collect())
}

/// Reads some columns of a Parquet object with nothing but the parquet crate.
pub fn read_columns(file: &Path, columns: &[&str]) -> Result<ParquetRecordBatchReader> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(File::open(file)?)?;
    let schema = builder.parquet_schema();
    let fields = schema.root_schema().get_fields().iter().enumerate();
    let wanted = fields.filter(|(_, field)| columns.contains(&field.name()));
    let mask = ProjectionMask::roots(schema, wanted.map(|(index, _)| index));
    Ok(builder
        .with_projection(mask)
        .with_batch_size(PLAIN_ROWS)
        .build()?)
}

/// What is read.
pub struct Cold {
    pub files: Vec<PathBuf>,
    pub records: usize,
    /// Bytes of the rows.
    pub bytes: usize,
}

impl Cold {
    /// Reads all of it again and again and prints the case; `fetch` gives the batches from an
    /// offset on.
    pub async fn measure(
        self,
        options: &Options,
        mut case: Case,
        fetch: impl AsyncFn(Offset) -> Result<Vec<Batch>>,
    ) -> Result<()> {
        let mebibytes = self.bytes as f64 / MEBIBYTE;
        let mut processor = 0.0;
        for _ in 0..options.runs() {
            let (begun, before) = (Instant::now(), machine::processor_seconds());
            let (mut from, mut got) = (0, 0);
            while got < self.records {
                let batches = fetch(from).await?;
                let last = batches.last().ok_or("the partition ended early")?;
                from = last.next_offset();
                got += batches
                    .iter()
                    .map(|batch| batch.len() as usize)
                    .sum::<usize>();
            }
            case.ours(mebibytes / begun.elapsed().as_secs_f64(), got as u64);
            processor += machine::processor_seconds() - before;

            let files = self.files.clone();
            let begun = Instant::now();
            let read = tokio::task::spawn_blocking(move || read_plainly(&files)).await??;
            case.baseline(mebibytes / begun.elapsed().as_secs_f64());
            if (got, read) != (self.records, self.records) {
                let all = self.records;
                return Err(format!("{got} and {read} of {all} records came").into());
            }
        }
        case.number("per_core", mebibytes * options.runs() as f64 / processor);
        case.field("objects", self.files.len());
        case.print();
        Ok(())
    }
}

fn read_plainly(files: &[PathBuf]) -> Result<usize> {
    let mut rows = 0;
    for file in files {
        for batch in read_columns(file, &COLUMNS)? {
            rows += batch?.num_rows();
        }
    }
    Ok(rows)
}
