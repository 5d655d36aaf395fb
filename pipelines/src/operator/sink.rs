//! `sink`: the rows for one topic, spread over its partitions and encoded.
//!
//! Called by: `stage::run` (keys) and `stage::commit` (batches). Invariants: rows of one key go
//! to one partition, by murmur2 as Kafka does it; rows without a key go to the partition of the
//! lane's number modulo the count, so a replay puts them where they were; order is kept in each
//! partition; no batch is over the limits; values are written again where the topic has another
//! codec than the edge. A record over the limit is reported (`too-large`), and one that the topic's
//! schema has no form for (`schema`).

use arrow::array::{Array, ArrayRef, new_null_array};
use arrow::compute::cast;
use arrow::datatypes::FieldRef;
use arrow::record_batch::RecordBatch;
use codec::{Format, Written};
use expr::Expr;
use model::batch::{Batch, Codec, EncodeError};
use model::hash::partition_for_key;
use model::ids::{PartitionId, TopicId};
use model::limits::{BATCH_RECORDS_MAX, RECORD_BYTES_MAX};
use model::port::Append;
use model::rows::Rows;

use super::map::{evaluate, text_form};
use super::{Chunk, OperatorError, Report};

/// Payload of one batch at most; the rest of a large output goes into another.
const PAYLOAD_BYTES_MAX: usize = model::limits::BATCH_BYTES_MAX / 2;

/// The rows as the topic gets them.
pub(crate) fn sink(
    node: usize,
    (key, format): (Option<&Expr>, Option<&Format>),
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
    let chunk = match format {
        None => chunk.written()?,
        Some(format) => written_as(node, chunk, format, report)?,
    };
    large(node, chunk, report)
}

/// With values in the topic's own format, from the columns. A field that is not there is null; a
/// record without a value stays one. Rows that do not fit the topic's schema are reported with
/// code `schema`.
fn written_as(
    node: usize,
    chunk: Chunk,
    format: &Format,
    report: &mut Report,
) -> Result<Chunk, OperatorError> {
    let column = |field: &FieldRef| {
        let known = chunk.columns.as_ref();
        match known.and_then(|columns| columns.column_by_name(field.name())) {
            Some(column) => cast(column, field.data_type()),
            None => Ok(new_null_array(field.data_type(), chunk.len())),
        }
    };
    let columns: Result<Vec<ArrayRef>, _> = format.arrow().fields().iter().map(column).collect();
    let columns = RecordBatch::try_new(format.arrow().clone(), columns?)?;
    let Written { mut values, errors } = format.write(&columns)?;
    let before = &chunk.rows.values;
    let mut bad = errors;
    if chunk.unwritten.is_none() && before.null_count() > 0 {
        let value = |row: usize| before.is_valid(row).then(|| values.value(row));
        values = (0..values.len()).map(value).collect();
        bad.retain(|(row, _)| before.is_valid(*row as usize));
    }
    let without: Vec<u32> = bad.iter().map(|(row, _)| *row).collect();
    report.failed(node, &chunk, "schema", bad);
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
    written.without(&without)
}

fn large(node: usize, chunk: Chunk, report: &mut Report) -> Result<Chunk, OperatorError> {
    if chunk.rows.bytes() <= RECORD_BYTES_MAX / 2 {
        return Ok(chunk);
    }
    // Headers are counted for all rows together: only outliers are looked for here.
    let mut bad = Vec::new();
    for row in 0..chunk.len() {
        let bytes = chunk.rows.slice(row, 1).bytes();
        if bytes > RECORD_BYTES_MAX {
            let message =
                format!("the record has {bytes} bytes, more than the {RECORD_BYTES_MAX} allowed");
            bad.push((row as u32, message));
        }
    }
    let rows: Vec<u32> = bad.iter().map(|(row, _)| *row).collect();
    report.failed(node, &chunk, "too-large", bad);
    chunk.without(&rows)
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
