//! Rows as text: a table for people, JSON lines and CSV for programs.
//!
//! Called by the server with a running query. JSON lines and CSV come batch by batch; a table is
//! as wide as its widest cell, so it waits for all rows.
//! Invariants: times are RFC 3339 with microseconds and `Z`; bytes are text where they are
//! UTF-8, else base64; null is `null` in JSON, nothing in CSV (an empty text is `""`), and
//! nothing in a table. CSV always has its header line, even without rows.
//! Refuses: columns without a text form.

mod cell;
mod table;
#[cfg(test)]
mod tests;

use arrow::record_batch::RecordBatch;
use bytes::Bytes;
use codec::{BytesAs, JsonEncoder};
use futures::{Stream, StreamExt, stream};

use crate::error::SqlError;
use crate::stream::QueryStream;
use cell::Cells;

/// A form of output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Aligned columns and a count of rows.
    Table,
    /// One JSON object a line.
    Jsonl,
    /// A header line, then comma-separated values.
    Csv,
}

impl std::str::FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Format, String> {
        match text {
            "table" => Ok(Format::Table),
            "jsonl" | "json" => Ok(Format::Jsonl),
            "csv" => Ok(Format::Csv),
            other => Err(format!("unknown format `{other}`: table, jsonl or csv")),
        }
    }
}

/// The rows of `query` as bytes, in pieces as they come. After an error nothing follows.
pub fn render(
    query: QueryStream,
    format: Format,
) -> impl Stream<Item = Result<Bytes, SqlError>> + Send {
    let head = match format {
        Format::Csv => vec![Ok(csv_head(&query))],
        _ => Vec::new(),
    };
    let body = match format {
        Format::Table => stream::once(all(query)).boxed(),
        Format::Jsonl => query.map(|batch| jsonl(&batch?)).boxed(),
        Format::Csv => query.map(|batch| csv(&batch?)).boxed(),
    };
    stream::iter(head).chain(body)
}

async fn all(query: QueryStream) -> Result<Bytes, SqlError> {
    let schema = query.schema().clone();
    let batches = query.collect_all().await?;
    table::table(&schema, &batches)
}

/// One JSON object a row, a line each.
///
/// # Errors
/// A column has no JSON form.
pub fn jsonl(batch: &RecordBatch) -> Result<Bytes, SqlError> {
    let batch = cell::plain(batch)?;
    let mut encoder = JsonEncoder::new(&batch, BytesAs::TextElseBase64).map_err(cell::failed)?;
    let mut out = Vec::with_capacity(batch.num_rows() * 64);
    for row in 0..batch.num_rows() {
        encoder.row(row, &mut out);
        out.push(b'\n');
    }
    Ok(out.into())
}

fn csv_head(query: &QueryStream) -> Bytes {
    let mut out = Vec::new();
    for (index, field) in query.schema().fields().iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        csv_cell(field.name(), &mut out);
    }
    out.push(b'\n');
    out.into()
}

fn csv(batch: &RecordBatch) -> Result<Bytes, SqlError> {
    let batch = cell::plain(batch)?;
    let mut cells = Cells::new(&batch)?;
    let mut out = Vec::with_capacity(batch.num_rows() * 32);
    for row in 0..batch.num_rows() {
        for column in 0..batch.num_columns() {
            if column > 0 {
                out.push(b',');
            }
            if let Some(text) = cells.text(column, row) {
                csv_cell(text, &mut out);
            }
        }
        out.push(b'\n');
    }
    Ok(out.into())
}

fn csv_cell(text: &str, out: &mut Vec<u8>) {
    let quoted = text.is_empty()
        || text.contains([',', '"', '\n', '\r'])
        || text.starts_with(' ')
        || text.ends_with(' ');
    if !quoted {
        out.extend_from_slice(text.as_bytes());
        return;
    }
    out.push(b'"');
    out.extend_from_slice(text.replace('"', "\"\"").as_bytes());
    out.push(b'"');
}
