//! `map`: makes JSON objects of selected columns, and may change the key.
//!
//! Called by: `stage::run`. Invariants: one row out per row in, in order; time and headers stay;
//! the selected columns go on typed, so nothing after it decodes what was just encoded. A row on
//! which an expression fails is reported and left out.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BinaryArray, StringArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use arrow::record_batch::RecordBatch;
use expr::Expr;
use model::rows::Rows;
use model::schema::{Field, Schema};

use super::{Chunk, OperatorError, Report};

pub(crate) fn map(
    node: usize,
    select: &[(Field, Expr)],
    key: Option<&Expr>,
    chunk: &Chunk,
    report: &mut Report,
) -> Result<Chunk, OperatorError> {
    let expressions = select.iter().map(|(_, e)| e).chain(key);
    let all: Vec<&Expr> = expressions.collect();
    let (chunk, values) = evaluate(node, &all, chunk, report)?;
    let mut columns = Vec::with_capacity(select.len());
    for ((field, _), values) in select.iter().zip(&values) {
        columns.push(cast(values, &field.ty.to_arrow())?);
    }
    let schema = Schema {
        fields: select.iter().map(|(field, _)| field.clone()).collect(),
    };
    let columns = RecordBatch::try_new(schema.to_arrow(), columns)?;
    let keys = match key {
        Some(_) => text_form(&values[select.len()])?,
        None => chunk.rows.keys.clone(),
    };
    let values = codec::encode_json(&columns)?;
    let rows = Rows {
        keys,
        values,
        ..chunk.rows.clone()
    };
    Ok(Chunk {
        rows,
        origins: chunk.origins,
        columns: Some(columns),
    })
}

/// All expressions on all rows; where one fails, the rows that fail are reported and left out.
pub(super) fn evaluate(
    node: usize,
    expressions: &[&Expr],
    chunk: &Chunk,
    report: &mut Report,
) -> Result<(Chunk, Vec<ArrayRef>), OperatorError> {
    let frame = chunk.frame(expressions.iter().copied())?;
    let values: Result<Vec<ArrayRef>, _> = expressions.iter().map(|e| e.eval(&frame)).collect();
    if let Ok(values) = values {
        return Ok((chunk.clone(), values));
    }
    let mut bad: Vec<(u32, String)> = Vec::new();
    for expression in expressions {
        bad.extend(expression.eval_each(&frame)?.1);
    }
    bad.sort_by_key(|(row, _)| *row);
    bad.dedup_by_key(|(row, _)| *row);
    let rows: Vec<u32> = bad.iter().map(|(row, _)| *row).collect();
    report.failed(node, chunk, "expression", bad);
    let chunk = chunk.without(&rows)?;
    let frame = chunk.frame(expressions.iter().copied())?;
    let values: Result<Vec<ArrayRef>, _> = expressions.iter().map(|e| e.eval(&frame)).collect();
    Ok((chunk, values?))
}

/// Values as a key: bytes as they are, all else as text; null is no key.
pub(super) fn text_form(values: &ArrayRef) -> Result<BinaryArray, OperatorError> {
    let target = match values.data_type() {
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => DataType::Binary,
        _ => DataType::Utf8,
    };
    let cast = cast(values, &target)?;
    if let Some(bytes) = cast.as_any().downcast_ref::<BinaryArray>() {
        return Ok(bytes.clone());
    }
    let text = cast.as_any().downcast_ref::<StringArray>();
    let text = text.expect("a cast gives the type asked for");
    Ok(BinaryArray::new(
        text.offsets().clone(),
        text.values().clone(),
        text.nulls().cloned(),
    ))
}

/// Columns of a chunk, cut down to those that somebody needs.
pub(crate) fn project(chunk: Chunk, needs: &[String]) -> Result<Chunk, OperatorError> {
    let Some(columns) = &chunk.columns else {
        return Ok(chunk);
    };
    let schema = columns.schema();
    let indices: Vec<usize> = needs
        .iter()
        .filter_map(|n| schema.index_of(n).ok())
        .collect();
    let columns = match indices.is_empty() {
        true => None,
        false => Some(columns.project(&indices)?),
    };
    Ok(Chunk { columns, ..chunk })
}

/// Decodes the columns needed; rows that do not fit are reported with code `schema`.
pub(crate) fn decode(
    (node, port): (usize, usize),
    decoder: &codec::JsonDecoder,
    wanted: &[usize],
    chunk: Chunk,
    report: &mut Report,
) -> Result<Chunk, OperatorError> {
    let decoded = decoder.decode_columns(&chunk.rows.values, wanted)?;
    let chunk = Chunk {
        columns: Some(decoded.columns),
        ..chunk
    };
    if decoded.errors.is_empty() {
        return Ok(chunk);
    }
    let bad: Vec<u32> = decoded.errors.iter().map(|(row, _)| *row).collect();
    let before = report.rejects.len();
    report.failed(node, &chunk, "schema", decoded.errors);
    report.rejects[before..]
        .iter_mut()
        .for_each(|reject| reject.port = Some(port));
    chunk.without(&bad)
}

/// Used where a closure needs the columns by reference count.
pub(crate) type Decoder = Arc<codec::JsonDecoder>;
