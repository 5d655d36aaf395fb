//! `map`: makes JSON objects of selected columns, and may change the key.
//!
//! Called by: `stage::run`. Invariants: one row out per row in, in order; time and headers stay;
//! the selected columns go on typed, and are written only where somebody needs the bytes; a float
//! that is not finite is null, as it is when it is written. A row on which an expression fails is
//! reported and left out.

use std::sync::Arc;

use arrow::array::cast::AsArray;
use arrow::array::types::Float64Type;
use arrow::array::{Array, ArrayRef, BinaryArray, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, FieldRef};
use arrow::record_batch::RecordBatch;
use codec::{Format, Projection};
use expr::Expr;
use model::rows::Rows;
use model::schema::Field;
use model::topic::Misfits;

use super::{Chunk, OperatorError, Report, unwritten_values};

pub(crate) fn map(
    node: usize,
    (select, format): (&[(Field, Expr)], &Format),
    key: Option<&Expr>,
    chunk: &Chunk,
    report: &mut Report,
) -> Result<Chunk, OperatorError> {
    let expressions = select.iter().map(|(_, e)| e).chain(key);
    let all: Vec<&Expr> = expressions.collect();
    let (chunk, values) = evaluate(node, &all, chunk, report)?;
    let mut columns = Vec::with_capacity(select.len());
    for ((field, _), values) in select.iter().zip(&values) {
        let column = cast(values, &field.ty.to_arrow())?;
        columns.push(match column.as_primitive_opt::<Float64Type>() {
            Some(floats) => Arc::new(codec::finite(floats.clone())),
            None => column,
        });
    }
    let columns = RecordBatch::try_new(format.arrow().clone(), columns)?;
    let keys = match key {
        Some(_) => text_form(&values[select.len()])?,
        None => chunk.rows.keys.clone(),
    };
    let rows = Rows {
        keys,
        values: unwritten_values(chunk.len()),
        ..chunk.rows.clone()
    };
    Ok(Chunk {
        rows,
        origins: chunk.origins,
        columns: Some(columns),
        unwritten: Some(format.clone()),
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
    let chunk = chunk.clone();
    let chunk = chunk.refuse((node, None), "expression", bad, report)?;
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

/// Columns of a chunk, cut down to those that somebody needs; all stay while they are the value.
pub(crate) fn project(chunk: Chunk, needs: &[String]) -> Result<Chunk, OperatorError> {
    let Some(columns) = chunk.columns.as_ref().filter(|_| chunk.unwritten.is_none()) else {
        return Ok(chunk);
    };
    let schema = columns.schema();
    let indices: Vec<usize> = needs
        .iter()
        .filter_map(|n| schema.index_of(n).ok())
        .collect();
    let columns = match indices.len() {
        0 => None,
        all if all == columns.num_columns() => return Ok(chunk),
        _ => Some(columns.project(&indices)?),
    };
    Ok(Chunk { columns, ..chunk })
}

/// Decodes the columns needed, unless they are there; rows that do not fit are reported with code
/// `schema`, or go on with columns that are null, as the format says.
pub(crate) fn decode(
    (node, port): (usize, usize),
    format: &Format,
    wanted: &Projection,
    chunk: Chunk,
    report: &mut Report,
) -> Result<Chunk, OperatorError> {
    if chunk
        .unwritten
        .as_ref()
        .is_some_and(|f| f.writes_like(format))
    {
        return Ok(chunk);
    }
    // what comes here with columns of these types was decoded as this format before, or says the same
    let has = |columns: &RecordBatch| {
        let same = |field: &FieldRef| {
            let have = columns.schema_ref().field_with_name(field.name());
            have.is_ok_and(|have| have.data_type() == field.data_type())
        };
        wanted.schema().fields().iter().all(same)
    };
    if chunk.unwritten.is_none() && chunk.columns.as_ref().is_some_and(has) {
        return Ok(chunk);
    }
    let chunk = chunk.written()?;
    let decoded = format.decode(&chunk.rows.values, wanted);
    let chunk = Chunk {
        columns: Some(decoded.columns),
        ..chunk
    };
    if decoded.errors.is_empty() {
        return Ok(chunk);
    }
    if format.misfits() == Misfits::Nulls {
        let misfits = decoded.errors.iter();
        let origins = misfits.map(|(row, _)| chunk.origins[*row as usize]);
        report.nulled.extend(origins);
        return Ok(chunk);
    }
    chunk.refuse((node, Some(port)), "schema", decoded.errors, report)
}

#[cfg(test)]
mod tests {
    use arrow::array::{Float64Array, Int64Array};
    use model::schema::Schema;
    use model::topic::PayloadCodec;

    use super::*;

    #[test]
    fn columns_of_another_type_are_decoded_anew() {
        let schema = Schema::from_json(&serde_json::json!({"a": "float"}));
        let schema = Arc::new(schema.expect("it is a schema"));
        let format = Format::new(PayloadCodec::Json, schema).expect("json has columns");
        let ints: ArrayRef = Arc::new(Int64Array::from(vec![3]));
        let value = BinaryArray::from_vec(vec![br#"{"a":3}"#]);
        let chunk = Chunk {
            rows: Rows {
                timestamps: vec![0].into(),
                keys: BinaryArray::new_null(1),
                values: value,
                headers: None,
                columns: None,
            },
            origins: vec![0],
            columns: Some(RecordBatch::try_from_iter([("a", ints)]).expect("it is a batch")),
            unwritten: None,
        };
        let wanted = format.project(|_| true);
        let decoded = decode((0, 0), &format, &wanted, chunk, &mut Report::default());
        let columns = decoded.expect("it is decoded").columns.expect("columns");
        let floats: ArrayRef = Arc::new(Float64Array::from(vec![3.0]));
        assert_eq!(columns.column(0), &floats);
    }
}
