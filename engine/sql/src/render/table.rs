//! An aligned table in plain text.
//!
//! Called for people at a terminal. Numbers to the right, the rest to the left; line breaks and
//! tabs in cells are shown as `\n` and `\t`, so that a row stays a line.

use arrow::datatypes::{DataType, SchemaRef};
use arrow::record_batch::RecordBatch;
use bytes::Bytes;

use super::cell::{self, Cells};
use crate::error::SqlError;

pub(super) fn table(schema: &SchemaRef, batches: &[RecordBatch]) -> Result<Bytes, SqlError> {
    let mut rows: Vec<Vec<String>> = Vec::new();
    for batch in batches {
        let batch = cell::plain(batch)?;
        let mut cells = Cells::new(&batch)?;
        for row in 0..batch.num_rows() {
            let line = (0..batch.num_columns())
                .map(|column| shown(cells.text(column, row).unwrap_or("")))
                .collect();
            rows.push(line);
        }
    }
    let heads: Vec<String> = schema
        .fields()
        .iter()
        .map(|field| shown(field.name()))
        .collect();
    let widths: Vec<usize> = (0..heads.len())
        .map(|column| {
            let cells = rows.iter().map(|row| width(&row[column]));
            cells.chain([width(&heads[column])]).max().unwrap_or(0)
        })
        .collect();
    let right: Vec<bool> = schema
        .fields()
        .iter()
        .map(|f| number(f.data_type()))
        .collect();
    let mut out = String::new();
    line(&heads, &widths, &right, &mut out);
    let rule: Vec<String> = widths.iter().map(|width| "-".repeat(width + 2)).collect();
    out.push_str(&rule.join("+"));
    out.push('\n');
    for row in &rows {
        line(row, &widths, &right, &mut out);
    }
    let rows = rows.len();
    out.push_str(&format!(
        "({rows} {})\n",
        if rows == 1 { "row" } else { "rows" }
    ));
    Ok(out.into())
}

fn line(cells: &[String], widths: &[usize], right: &[bool], out: &mut String) {
    let start = out.len();
    for (column, cell) in cells.iter().enumerate() {
        out.push_str(if column > 0 { "| " } else { " " });
        let gap = " ".repeat(widths[column] - width(cell));
        if right[column] {
            out.push_str(&gap);
            out.push_str(cell);
        } else {
            out.push_str(cell);
            out.push_str(&gap);
        }
        out.push(' ');
    }
    let end = out[start..].trim_end().len();
    out.truncate(start + end);
    out.push('\n');
}

fn number(data_type: &DataType) -> bool {
    data_type.is_numeric()
}

fn width(text: &str) -> usize {
    text.chars().count()
}

fn shown(text: &str) -> String {
    let control = |c: char| c.is_control();
    if !text.contains(control) {
        return text.to_string();
    }
    text.chars()
        .map(|c| match c.is_control() {
            true => c.escape_default().to_string(),
            false => c.to_string(),
        })
        .collect()
}
