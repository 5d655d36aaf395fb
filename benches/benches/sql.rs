//! Queries over flights, in milliseconds until the last row, each beside plain Rust that knows
//! the data: the parquet crate reading just the columns needed (cold), serde structs over the
//! values in memory (hot), one thread. Both answers are compared in every turn.
//!
//! `…-cold`: all rows in Parquet objects on the local disk, with typed columns. `…-hot`: all rows
//! in the log, values decoded by the query. `…-both`: half and half.

use std::path::PathBuf;
use std::time::Instant;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Float64Type, TimestampMicrosecondType};
use benches::cold::read_columns;
use benches::lake::{CARRIERS, Flight, Groups, Lake, TOPIC, add, flights};
use benches::rig::{self, Result};
use benches::{Case, Options, Unit};
use model::Rows;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReaderBuilder, RowSelection, RowSelector};
use sql::QueryOptions;

fn main() -> Result<()> {
    let (options, runtime) = rig::begin()?;
    runtime.block_on(cold(&options))?;
    runtime.block_on(hot(&options))?;
    runtime.block_on(both(&options))
}

const BY_CARRIER: &str = "select carrier, count(*) as n, sum(dep_delay) as s from flights \
                          group by carrier order by carrier";

async fn cold(options: &Options) -> Result<()> {
    let names = [
        "count-cold",
        "carrier-cold",
        "hour-cold",
        "point-cold",
        "json-cold",
    ];
    if !names.iter().any(|name| options.wants(name)) {
        return Ok(());
    }
    let folder = rig::folder()?;
    let mut lake = Lake::open(folder.path(), true).await?;
    let records = options.amount(2_000_000, 20_000);
    lake.append(records).await?;
    lake.store.tier(None).await?;
    let files = lake.objects().await?;
    measure(
        options,
        &lake,
        "count-cold",
        "select count(*) from flights",
        || {
            let mut rows = 0;
            for file in &files {
                let file = std::fs::File::open(file)?;
                let footer = ParquetRecordBatchReaderBuilder::try_new(file)?;
                rows += footer.metadata().file_metadata().num_rows();
            }
            Ok(rows.to_string())
        },
    )
    .await?;
    measure(options, &lake, "carrier-cold", BY_CARRIER, || {
        let mut groups = Groups::new();
        each(&files, &["carrier", "dep_delay"], |batch| {
            typed(&mut groups, batch)
        })?;
        Ok(text_of(&groups))
    })
    .await?;
    narrow(options, &lake, &files).await?;
    lake.store.close().await?;
    Ok(())
}

/// Queries that need some of the rows, or look inside of the values.
async fn narrow(options: &Options, lake: &Lake, files: &[PathBuf]) -> Result<()> {
    let records = lake.records;
    let (low, high) = (records as i64 / 3, records as i64 / 2);
    let hours = format!(
        "select count(*), sum(dep_delay) from {TOPIC} \
         where _timestamp >= to_timestamp({low}) and _timestamp < to_timestamp({high})"
    );
    measure(options, lake, "hour-cold", &hours, || {
        let (mut n, mut sum) = (0_u64, 0.0);
        each(files, &["_timestamp", "dep_delay"], |batch| {
            let times = batch.column(0).as_primitive::<TimestampMicrosecondType>();
            let delays = batch.column(1).as_primitive::<Float64Type>();
            for (time, delay) in times.values().iter().zip(delays.values()) {
                if (low * 1_000_000..high * 1_000_000).contains(time) {
                    n += 1;
                    sum += delay;
                }
            }
            Ok(())
        })?;
        Ok(format!("{n}|{sum}"))
    })
    .await?;
    let one = records / 2;
    let point = format!("select _value_text from {TOPIC} where _offset = {one}");
    measure(options, lake, "point-cold", &point, || {
        at(files, one as usize)
    })
    .await?;
    let json = "select sum(json_get_float(_value_text, 'dep_delay')) from flights";
    measure(options, lake, "json-cold", json, || {
        let mut sum = 0.0;
        each(files, &["_value"], |batch| {
            for value in batch.column(0).as_binary::<i32>().iter().flatten() {
                sum += serde_json::from_slice::<Flight<'_>>(value)?.dep_delay;
            }
            Ok(())
        })?;
        Ok(sum.to_string())
    })
    .await
}

async fn hot(options: &Options) -> Result<()> {
    if !options.wants("count-hot") && !options.wants("carrier-hot") {
        return Ok(());
    }
    let folder = rig::folder()?;
    let mut lake = Lake::open(folder.path(), true).await?;
    let records = options.amount(500_000, 10_000);
    lake.append(records).await?;
    let rows = flights(0, records);
    measure(
        options,
        &lake,
        "count-hot",
        "select count(*) from flights",
        || {
            Ok(rows
                .records()
                .filter(|record| record.value.is_some())
                .count()
                .to_string())
        },
    )
    .await?;
    measure(options, &lake, "carrier-hot", BY_CARRIER, || {
        let mut groups = Groups::new();
        parsed(&mut groups, &rows)?;
        Ok(text_of(&groups))
    })
    .await?;
    lake.store.close().await?;
    Ok(())
}

async fn both(options: &Options) -> Result<()> {
    if !options.wants("carrier-both") {
        return Ok(());
    }
    let folder = rig::folder()?;
    let mut lake = Lake::open(folder.path(), true).await?;
    let records = options.amount(500_000, 10_000);
    lake.append(records).await?;
    lake.store.tier(None).await?;
    lake.append(records).await?;
    let files = lake.objects().await?;
    let rows = flights(records as u64, records);
    measure(options, &lake, "carrier-both", BY_CARRIER, || {
        let mut groups = Groups::new();
        each(&files, &["carrier", "dep_delay"], |batch| {
            typed(&mut groups, batch)
        })?;
        parsed(&mut groups, &rows)?;
        Ok(text_of(&groups))
    })
    .await?;
    lake.store.close().await?;
    Ok(())
}

/// Asks the engine and plain Rust in turns; their answers must be the same.
async fn measure(
    options: &Options,
    lake: &Lake,
    name: &str,
    sql: &str,
    plain: impl Fn() -> Result<String>,
) -> Result<()> {
    if !options.wants(name) {
        return Ok(());
    }
    let mut case = Case::new("sql", name, Unit::Milliseconds);
    for _ in 0..options.runs() {
        let begun = Instant::now();
        let query = lake.engine.query(sql, QueryOptions::default()).await?;
        let rows = query.collect_all().await?;
        case.ours(begun.elapsed().as_secs_f64() * 1e3, lake.records);
        let begun = Instant::now();
        let expected = plain()?;
        case.baseline(begun.elapsed().as_secs_f64() * 1e3);
        let found = lines(&rows)?;
        if !same(&found, &expected) {
            return Err(format!("{name}: {found:?} is not {expected:?}").into());
        }
    }
    case.print();
    Ok(())
}

/// Rows as text, cells apart by `|`, rows by `;`.
fn lines(batches: &[RecordBatch]) -> Result<String> {
    let mut lines = Vec::new();
    for batch in batches {
        for row in 0..batch.num_rows() {
            let cell = |column: &arrow::array::ArrayRef| {
                arrow::util::display::array_value_to_string(column, row)
            };
            let cells: std::result::Result<Vec<String>, _> =
                batch.columns().iter().map(cell).collect();
            lines.push(cells?.join("|"));
        }
    }
    Ok(lines.join(";"))
}

/// Sums in another order differ in their last digits.
fn same(found: &str, expected: &str) -> bool {
    let cells =
        |text: &str| -> Vec<String> { text.split(['|', ';']).map(str::to_string).collect() };
    let (found, expected) = (cells(found), cells(expected));
    let equal = |(a, b): (&String, &String)| match (a.parse::<f64>(), b.parse::<f64>()) {
        (Ok(a), Ok(b)) => (a - b).abs() <= 1e-9 * b.abs(),
        _ => a == b,
    };
    found.len() == expected.len() && found.iter().zip(&expected).all(equal)
}

fn each(
    files: &[PathBuf],
    columns: &[&str],
    mut take: impl FnMut(&RecordBatch) -> Result<()>,
) -> Result<()> {
    for file in files {
        for batch in read_columns(file, columns)? {
            take(&batch?)?;
        }
    }
    Ok(())
}

fn typed(groups: &mut Groups, batch: &RecordBatch) -> Result<()> {
    let carriers = batch.column(0).as_string::<i32>();
    let delays = batch.column(1).as_primitive::<Float64Type>();
    for row in 0..batch.num_rows() {
        if carriers.is_valid(row) {
            add(groups, carriers.value(row), delays.value(row));
        }
    }
    Ok(())
}

fn parsed(groups: &mut Groups, rows: &Rows) -> Result<()> {
    for value in rows.values.iter().flatten() {
        let flight: Flight<'_> = serde_json::from_slice(value)?;
        add(groups, flight.carrier, flight.dep_delay);
    }
    Ok(())
}

fn text_of(groups: &Groups) -> String {
    debug_assert!(groups.len() <= CARRIERS.len());
    let lines: Vec<String> = groups
        .iter()
        .map(|(carrier, (n, s))| format!("{carrier}|{n}|{s}"))
        .collect();
    lines.join(";")
}

/// The value of one record, by somebody who knows in which row it is.
fn at(files: &[PathBuf], mut row: usize) -> Result<String> {
    for file in files {
        let builder = ParquetRecordBatchReaderBuilder::try_new(std::fs::File::open(file)?)?;
        let rows = builder.metadata().file_metadata().num_rows() as usize;
        if row >= rows {
            row -= rows;
            continue;
        }
        let mask = parquet::arrow::ProjectionMask::columns(builder.parquet_schema(), ["_value"]);
        let only = vec![RowSelector::skip(row), RowSelector::select(1)];
        let mut reader = builder
            .with_projection(mask)
            .with_row_selection(RowSelection::from(only))
            .build()?;
        let batch = reader.next().ok_or("no such row")??;
        let value = batch.column(0).as_binary::<i32>().value(0);
        return Ok(String::from_utf8_lossy(value).into_owned());
    }
    Err("no such row".into())
}
