//! Writing and reading the tier, in MiB of rows per second, on the local disk.
//!
//! `write-json`: batches of a JSON topic without a schema become Parquet objects with a manifest.
//! `write-typed`: the same with four typed columns decoded from the values. Baseline of both: the
//! parquet crate writes the same columns with the same settings to a synced file, the typed ones
//! decoded by serde structs. `read`: the objects come back as batches. Baseline: the parquet
//! crate reads the same columns into Arrow.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use arrow::array::{
    ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
    UInt64Array,
};
use benches::cold::{Cold, READ_BYTES};
use benches::lake::{BATCH_RECORDS, Flight, Lake, flights};
use benches::rig::{self, Result};
use benches::{Case, MEBIBYTE, Options, Unit, machine};
use model::Rows;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;

fn main() -> Result<()> {
    let (options, runtime) = rig::begin()?;
    for (name, typed) in [("write-json", false), ("write-typed", true)] {
        if options.wants(name) {
            runtime.block_on(write(&options, name, typed))?;
        }
    }
    if options.wants("read") {
        runtime.block_on(read(&options))?;
    }
    Ok(())
}

async fn write(options: &Options, name: &str, typed: bool) -> Result<()> {
    let folder = rig::folder()?;
    let mut lake = Lake::open(folder.path(), typed).await?;
    let records = options.amount(250_000, 5_000);
    let mut case = Case::new("tier", name, Unit::MebibytesPerSecond);
    let (mut mebibytes, mut processor) = (0.0, 0.0);
    for run in 0..options.runs() {
        let size = lake.append(records).await? as f64 / MEBIBYTE;
        let (begun, before) = (Instant::now(), machine::processor_seconds());
        let report = lake.store.tier(Some(lake.partition)).await?;
        let took = begun.elapsed().as_secs_f64();
        if report.records != records as u64 {
            return Err(format!("{} of {records} records were tiered", report.records).into());
        }
        case.ours(size / took, report.records);
        processor += machine::processor_seconds() - before;
        mebibytes += size;

        let parts: Vec<Rows> = (0..records / BATCH_RECORDS)
            .map(|part| flights((part * BATCH_RECORDS) as u64, BATCH_RECORDS))
            .collect();
        let file = folder.path().join(format!("plain-{run}.parquet"));
        let begun = Instant::now();
        tokio::task::spawn_blocking(move || write_plainly(&file, &parts, typed)).await??;
        case.baseline(size / begun.elapsed().as_secs_f64());
    }
    case.number("per_core", mebibytes / processor);
    case.print();
    lake.store.close().await?;
    Ok(())
}

fn properties() -> Result<WriterProperties> {
    let (offset, time) = (ColumnPath::from("_offset"), ColumnPath::from("_timestamp"));
    let value = ColumnPath::from("_value");
    Ok(WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(3)?))
        .set_max_row_group_row_count(Some(128 * 1024))
        .set_column_encoding(offset.clone(), Encoding::DELTA_BINARY_PACKED)
        .set_column_dictionary_enabled(offset, false)
        .set_column_encoding(time.clone(), Encoding::DELTA_BINARY_PACKED)
        .set_column_dictionary_enabled(time, false)
        .set_column_dictionary_enabled(value.clone(), false)
        .set_column_statistics_enabled(value, EnabledStatistics::None)
        .build())
}

/// What a program that knows its rows would do.
fn write_plainly(path: &Path, parts: &[Rows], typed: bool) -> Result<()> {
    let mut file = std::fs::File::create(path)?;
    let first = plain_batch(&parts[0], 0, typed)?;
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, first.schema(), Some(properties()?))?;
    for (part, rows) in parts.iter().enumerate() {
        writer.write(&plain_batch(rows, part * BATCH_RECORDS, typed)?)?;
    }
    writer.close()?;
    std::io::Write::write_all(&mut file, &bytes)?;
    file.sync_all()?;
    std::fs::remove_file(path)?;
    Ok(())
}

fn plain_batch(rows: &Rows, base: usize, typed: bool) -> Result<RecordBatch> {
    let times = TimestampMicrosecondArray::new(rows.timestamps.clone(), None);
    let offsets = UInt64Array::from_iter_values(base as u64..(base + rows.len()) as u64);
    let mut columns: Vec<(&str, ArrayRef)> = vec![
        ("_offset", Arc::new(offsets)),
        ("_timestamp", Arc::new(times.with_timezone("UTC"))),
        ("_key", Arc::new(rows.keys.clone())),
        ("_value", Arc::new(rows.values.clone())),
    ];
    if typed {
        let mut flights: Vec<Flight<'_>> = Vec::with_capacity(rows.len());
        for value in rows.values.iter().flatten() {
            flights.push(serde_json::from_slice(value)?);
        }
        let text = StringArray::from_iter_values(flights.iter().map(|f| f.carrier));
        let number = |of: fn(&Flight<'_>) -> i64| -> ArrayRef {
            Arc::new(Int64Array::from_iter_values(flights.iter().map(of)))
        };
        let delays = Float64Array::from_iter_values(flights.iter().map(|f| f.dep_delay));
        columns.push(("carrier", Arc::new(text)));
        columns.push(("flight", number(|f| f.flight)));
        columns.push(("dep_delay", Arc::new(delays)));
        columns.push(("distance", number(|f| f.distance)));
    }
    Ok(RecordBatch::try_from_iter(columns)?)
}

async fn read(options: &Options) -> Result<()> {
    let folder = rig::folder()?;
    let mut lake = Lake::open(folder.path(), false).await?;
    let records = options.amount(500_000, 5_000);
    let bytes = lake.append(records).await?;
    lake.store.tier(Some(lake.partition)).await?;
    lake.store.close().await?;
    drop(lake);
    // Opened again, so that no batch is in memory any more.
    let lake = Lake::open(folder.path(), false).await?;
    let cold = Cold {
        files: lake.objects().await?,
        records,
        bytes,
    };
    let case = Case::new("tier", "read", Unit::MebibytesPerSecond);
    let fetch = async |from| Ok(lake.store.read(lake.partition, from, READ_BYTES).await?);
    cold.measure(options, case, fetch).await?;
    lake.store.close().await?;
    Ok(())
}
