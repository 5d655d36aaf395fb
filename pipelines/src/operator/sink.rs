//! `sink`: the rows for one topic, spread over its partitions and encoded.
//!
//! Called by: `stage::run` (keys) and `stage::commit` (batches). Invariants: rows of one key go
//! to one partition, by murmur2 as Kafka does it; rows without a key go to the partition of the
//! lane's number modulo the count, so a replay puts them where they were; order is kept in each
//! partition; no batch is over the limits; values are written again where the topic has another
//! codec than the edge. A record over the limits is reported (`too-large`), one that the topic's
//! schema has no form for (`schema`), and one without a key for a compacted topic (`no-key`).

use arrow::array::{Array, ArrayRef, new_null_array};
use arrow::compute::cast;
use arrow::datatypes::FieldRef;
use arrow::record_batch::RecordBatch;
use codec::{Format, Written};
use expr::Expr;
use model::batch::{Batch, Codec, EncodeError};
use model::hash::partition_for_key;
use model::ids::{PartitionId, TopicId};
use model::limits::{BATCH_RECORDS_MAX, HEADERS_MAX, RECORD_BYTES_MAX};
use model::port::Append;
use model::rows::{Headers, Rows, TypedColumns};

use super::map::{evaluate, text_form};
use super::{Chunk, OperatorError, Place, Report, presence};

/// Payload of one batch at most; the rest of a large output goes into another.
const PAYLOAD_BYTES_MAX: usize = model::limits::BATCH_BYTES_MAX / 2;

/// The rows as the topic gets them.
pub(crate) fn sink(
    node: usize,
    (key, format, is_compacted): (Option<&Expr>, Option<&Format>, bool),
    chunk: Chunk,
    report: &mut Report,
) -> Result<Chunk, OperatorError> {
    let chunk = match key {
        None => chunk,
        Some(key) => {
            let (chunk, values) = evaluate(node, &[key], &chunk, report)?;
            let keys = text_form(&values[0])?;
            Chunk {
                rows: Rows {
                    keys,
                    ..chunk.rows.clone()
                },
                ..chunk
            }
        }
    };
    let chunk = match is_compacted {
        true => without_key(node, chunk, report)?,
        false => chunk,
    };
    let chunk = match format {
        None => chunk.written()?,
        Some(format) if format.keeps_columns() => {
            kept(as_columns((node, None), chunk, format, report)?)?
        }
        Some(format) => written_as((node, None), chunk, format, report)?,
    };
    large(node, chunk, report)
}

/// Rows as a port of this format has them. What its format may refuse is written at once, what it
/// keeps as columns is read: a row that does not fit is reported here, with code `schema`, and
/// does not go on.
pub(crate) fn fitting(
    (node, port): (usize, usize),
    made: Chunk,
    format: Option<&Format>,
    report: &mut Report,
) -> Result<Chunk, OperatorError> {
    match format {
        Some(format) if format.keeps_columns() => {
            as_columns((node, Some(port)), made, format, report)
        }
        Some(format) if format.may_refuse() && made.unwritten.is_some() => {
            written_as((node, Some(port)), made, format, report)
        }
        _ => Ok(made),
    }
}

/// With values in the topic's own format, from the columns. A field that is not there is null; a
/// record without a value stays one. Rows that do not fit the topic's schema are reported with
/// code `schema`.
fn written_as(
    place: Place,
    chunk: Chunk,
    format: &Format,
    report: &mut Report,
) -> Result<Chunk, OperatorError> {
    let columns = cast_to(chunk.columns.as_ref(), format, chunk.len())?;
    let Written { mut values, errors } = format.write(&columns)?;
    let before = &chunk.rows.values;
    let mut bad = errors;
    if chunk.says_values() && before.null_count() > 0 {
        let value = |row: usize| before.is_valid(row).then(|| values.value(row));
        values = (0..values.len()).map(value).collect();
        bad.retain(|(row, _)| before.is_valid(*row as usize));
    }
    let rows = Rows {
        values,
        ..chunk.rows
    };
    let written = Chunk {
        rows,
        origins: chunk.origins,
        columns: None,
        unwritten: None,
    };
    written.refuse(place, "schema", bad, report)
}

/// A format's own columns, by name; a field that is not there is null.
fn cast_to(
    columns: Option<&RecordBatch>,
    format: &Format,
    rows: usize,
) -> Result<RecordBatch, OperatorError> {
    let column =
        |field: &FieldRef| match columns.and_then(|columns| columns.column_by_name(field.name())) {
            Some(column) => cast(column, field.data_type()),
            None => Ok(new_null_array(field.data_type(), rows)),
        };
    let arrays: Result<Vec<ArrayRef>, _> = format.arrow().fields().iter().map(column).collect();
    Ok(RecordBatch::try_new(format.arrow().clone(), arrays?)?)
}

/// With columns of the topic's own format, which are what its values are. Values that are bytes are
/// read as JSON; rows that do not fit are reported with code `schema`, and do not go on.
pub(crate) fn as_columns(
    place: Place,
    chunk: Chunk,
    format: &Format,
    report: &mut Report,
) -> Result<Chunk, OperatorError> {
    if chunk.unwritten.as_ref() == Some(format) {
        return Ok(chunk);
    }
    let nulls = match chunk.says_values() {
        true => chunk.rows.values.nulls().cloned(),
        false => None,
    };
    let (columns, errors) = match &chunk.columns {
        Some(columns) => (cast_to(Some(columns), format, chunk.len())?, Vec::new()),
        None => {
            let read = format.decode(&chunk.rows.values, &format.all());
            (read.columns, read.errors)
        }
    };
    let rows = Rows {
        values: presence(nulls.as_ref(), chunk.len()),
        ..chunk.rows
    };
    let made = Chunk {
        rows,
        origins: chunk.origins,
        columns: Some(columns),
        unwritten: Some(format.clone()),
    };
    made.refuse(place, "schema", errors, report)
}

/// The columns as what the values of the rows are.
fn kept(chunk: Chunk) -> Result<Chunk, OperatorError> {
    let arrays = chunk.columns.map(|columns| columns.columns().to_vec());
    let rows = Rows {
        columns: arrays.map(TypedColumns::new).transpose()?,
        ..chunk.rows
    };
    Ok(Chunk {
        rows,
        origins: chunk.origins,
        columns: None,
        unwritten: None,
    })
}

fn large(node: usize, chunk: Chunk, report: &mut Report) -> Result<Chunk, OperatorError> {
    let rows = &chunk.rows;
    // Headers are counted for all rows together: only outliers are looked for here.
    let some_bytes = rows.bytes() > RECORD_BYTES_MAX / 2;
    let some_headers = |headers: &Headers| headers.rows.lengths().any(|n| n > HEADERS_MAX);
    if !some_bytes && !rows.headers.as_ref().is_some_and(some_headers) {
        return Ok(chunk);
    }
    let too_much = |row: usize| {
        let (bytes, headers) = (rows.slice(row, 1).bytes(), rows.record(row).headers.count());
        let (has, allowed) = match (bytes > RECORD_BYTES_MAX, headers > HEADERS_MAX) {
            (true, _) => (format!("{bytes} bytes"), RECORD_BYTES_MAX),
            (_, true) => (format!("{headers} headers"), HEADERS_MAX),
            _ => return None,
        };
        let message = format!("the record has {has}, more than the {allowed} allowed");
        Some((row as u32, message))
    };
    let bad: Vec<_> = (0..chunk.len()).filter_map(too_much).collect();
    chunk.refuse((node, None), "too-large", bad, report)
}

/// A compacted topic keeps the newest record of each key: one without a key cannot be in it.
fn without_key(node: usize, chunk: Chunk, report: &mut Report) -> Result<Chunk, OperatorError> {
    let keys = &chunk.rows.keys;
    if keys.null_count() == 0 {
        return Ok(chunk);
    }
    let message =
        "the record has no key, and the topic is compacted: give it one with the sink's `key`";
    let bad = (0..chunk.len()).filter(|row| keys.is_null(*row));
    let bad = bad.map(|row| (row as u32, message.to_owned())).collect();
    chunk.refuse((node, None), "no-key", bad, report)
}

/// The batches for a topic, in the order of its partitions.
pub(crate) fn appends(
    topic: TopicId,
    partitions: u32,
    lane: u32,
    rows: &Rows,
    out: &mut Vec<Append>,
) -> Result<(), EncodeError> {
    if rows.is_empty() {
        return Ok(());
    }
    let own = lane % partitions;
    if partitions == 1 {
        return encode(PartitionId::new(topic, 0), rows, out);
    }
    if rows.keys.null_count() == rows.len() {
        return encode(PartitionId::new(topic, own), rows, out);
    }
    let of = |row: usize| match rows.keys.is_valid(row) {
        true => partition_for_key(rows.keys.value(row), partitions),
        false => own,
    };
    let mut chosen: Vec<Vec<u32>> = vec![Vec::new(); partitions as usize];
    let share = rows.len() / partitions as usize + 1;
    for row in 0..rows.len() {
        let list = &mut chosen[of(row) as usize];
        if list.is_empty() {
            list.reserve(share);
        }
        list.push(row as u32);
    }
    for (index, list) in chosen
        .iter()
        .enumerate()
        .filter(|(_, list)| !list.is_empty())
    {
        let partition = PartitionId::new(topic, index as u32);
        match list.len() == rows.len() {
            true => encode(partition, rows, out)?,
            false => encode(partition, &rows.take(list), out)?,
        }
    }
    Ok(())
}

/// The batches for one partition.
pub(crate) fn appends_to(
    partition: PartitionId,
    rows: &Rows,
    out: &mut Vec<Append>,
) -> Result<(), EncodeError> {
    match rows.is_empty() {
        true => Ok(()),
        false => encode(partition, rows, out),
    }
}

fn encode(partition: PartitionId, rows: &Rows, out: &mut Vec<Append>) -> Result<(), EncodeError> {
    if rows.len() > 1 && (rows.bytes() > PAYLOAD_BYTES_MAX || rows.len() > BATCH_RECORDS_MAX) {
        let half = rows.len() / 2;
        encode(partition, &rows.slice(0, half), out)?;
        return encode(partition, &rows.slice(half, rows.len() - half), out);
    }
    let batch = Batch::encode(rows, Codec::None, None)?;
    out.push(Append { partition, batch });
    Ok(())
}
