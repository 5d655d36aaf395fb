//! What runs inside a stage: operators over chunks of rows.
//!
//! Called by: `stage::run`, on a worker thread. Invariants: every row of a chunk knows the row of
//! the lane's batch that it came from (its origin); rows keep their order within a chunk, and a
//! node with several inputs sees them merged by origin; a row that fails is reported and left
//! out, never the rows beside it. No clock, no task, no log in here.

pub(crate) mod breaker;
pub(crate) mod filter;
mod given_up;
pub(crate) mod map;
pub(crate) mod migrate;
mod part;
pub(crate) mod program;
mod report;
pub(crate) mod route;
pub(crate) mod sink;
mod timers;
pub(crate) mod wasm;

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BinaryArray, TimestampMicrosecondArray, UInt32Array};
use arrow::buffer::{Buffer, NullBuffer, OffsetBuffer};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::{Field, Schema, SchemaRef};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use codec::Format;
use expr::{EvalError, Expr, KEY, TIMESTAMP, VALUE, VALUE_TEXT, text_of};
use model::rows::{Rows, RowsError};

pub(crate) use report::{Cut, Place, Reject, Report, Why};

/// Rows on an edge.
#[derive(Clone, Debug)]
pub(crate) struct Chunk {
    pub rows: Rows,
    /// The row of the lane's batch that each row came from.
    pub origins: Vec<u32>,
    /// Typed columns that somebody further on needs, one entry a row.
    pub columns: Option<RecordBatch>,
    /// The values are not written yet: the columns are all of this format's, in its order, and
    /// what stands as values in `rows` means nothing; of a format that keeps columns it says which
    /// rows have a value. Never a format that may refuse a row.
    pub unwritten: Option<Format>,
}

/// An operator could not work on a chunk as a whole: a fault of ours, not of a row.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OperatorError {
    #[error(transparent)]
    Rows(#[from] RowsError),
    #[error(transparent)]
    Arrow(#[from] arrow::error::ArrowError),
    #[error(transparent)]
    Eval(#[from] EvalError),
    #[error(transparent)]
    Encode(#[from] codec::EncodeError),
    #[error("rows as columns have no format here: a fault of ours")]
    Format,
    #[error("{0}")]
    Lookup(String),
    #[error("the lane was told to stop meanwhile")]
    Stopped,
}

impl Chunk {
    pub fn empty() -> Chunk {
        Chunk {
            rows: Rows::empty(),
            origins: Vec::new(),
            columns: None,
            unwritten: None,
        }
    }

    /// Rows as the node of this number, a source, read them from a topic whose values have this
    /// format. A format that keeps columns says nothing of misfits: they were refused at the door.
    pub fn read(
        node: usize,
        rows: &Rows,
        format: Option<&Format>,
        report: &mut Report,
    ) -> Result<Chunk, OperatorError> {
        let origins = (0..rows.len() as u32).collect();
        let Some(format) = format.filter(|format| format.keeps_columns()) else {
            return Ok(Chunk {
                rows: rows.clone(),
                origins,
                columns: None,
                unwritten: None,
            });
        };
        let read = format.columns_of(rows)?;
        let chunk = Chunk {
            columns: Some(read.columns),
            rows: Rows {
                values: match rows.columns {
                    Some(_) => rows.values.clone(),
                    None => presence(rows.values.nulls(), rows.len()),
                },
                columns: None,
                ..rows.clone()
            },
            origins,
            unwritten: Some(format.clone()),
        };
        chunk.refuse((node, None), "schema", read.errors, report)
    }

    /// Reports rows; the others go on.
    pub fn refuse(
        self,
        place: Place,
        code: &'static str,
        bad: Vec<(u32, String)>,
        report: &mut Report,
    ) -> Result<Chunk, OperatorError> {
        let rows: Vec<u32> = bad.iter().map(|(row, _)| *row).collect();
        report.failed(place, &self, code, bad);
        self.without(&rows)
    }

    pub fn len(&self) -> usize {
        self.origins.len()
    }

    pub fn is_empty(&self) -> bool {
        self.origins.is_empty()
    }

    /// The chosen rows, in that order.
    pub fn take(&self, rows: &[u32]) -> Result<Chunk, OperatorError> {
        let in_order = || rows.iter().enumerate().all(|(i, row)| i as u32 == *row);
        if rows.len() == self.len() && in_order() {
            return Ok(self.clone());
        }
        let columns = match &self.columns {
            Some(batch) => Some(take_record_batch(batch, &UInt32Array::from(rows.to_vec()))?),
            None => None,
        };
        Ok(Chunk {
            rows: self.rows.try_take(rows)?,
            origins: rows.iter().map(|row| self.origins[*row as usize]).collect(),
            columns,
            unwritten: self.unwritten.clone(),
        })
    }

    /// Whether what stands as values says which rows have one.
    pub fn says_values(&self) -> bool {
        self.unwritten.as_ref().is_none_or(Format::keeps_columns)
    }

    /// With its values written.
    pub fn written(&self) -> Result<Chunk, OperatorError> {
        let (Some(format), Some(columns)) = (&self.unwritten, &self.columns) else {
            return Ok(self.clone());
        };
        let rows = Rows {
            values: format.values(columns, &self.rows.values)?,
            ..self.rows.clone()
        };
        Ok(Chunk {
            rows,
            origins: self.origins.clone(),
            columns: self.columns.clone(),
            unwritten: None,
        })
    }

    /// Without the rows named in `bad`, which is sorted.
    pub fn without(&self, bad: &[u32]) -> Result<Chunk, OperatorError> {
        if bad.is_empty() {
            return Ok(self.clone());
        }
        let keep: Vec<u32> = (0..self.len() as u32)
            .filter(|row| bad.binary_search(row).is_err())
            .collect();
        self.take(&keep)
    }

    /// Only what came from rows before this one.
    pub fn before(&self, origin: Option<u32>) -> Result<Chunk, OperatorError> {
        let Some(origin) = origin.filter(|origin| self.origins.iter().any(|o| o >= origin)) else {
            return Ok(self.clone());
        };
        let keep: Vec<u32> = (0..self.len() as u32)
            .filter(|row| self.origins[*row as usize] < origin)
            .collect();
        self.take(&keep)
    }

    /// The columns that an expression uses, as a batch.
    pub fn frame<'e>(
        &self,
        expressions: impl IntoIterator<Item = &'e Expr>,
    ) -> Result<RecordBatch, OperatorError> {
        let base = expr::base_schema();
        let expressions: Vec<&Expr> = expressions.into_iter().collect();
        let asks = |name: &str| name == VALUE || name == VALUE_TEXT;
        if self.unwritten.is_some() && expressions.iter().any(|e| e.columns().any(asks)) {
            return self.written()?.frame(expressions);
        }
        let mut fields: Vec<Field> = Vec::new();
        let mut columns: Vec<ArrayRef> = Vec::new();
        for expression in expressions {
            for name in expression.columns() {
                if fields.iter().any(|f| f.name() == name) {
                    continue;
                }
                let (field, column) = match (base.field_with_name(name), &self.columns) {
                    (Ok(field), _) => (field.clone(), self.base(name)),
                    (Err(_), Some(typed)) => match typed.schema().index_of(name) {
                        Ok(i) => (typed.schema().field(i).clone(), typed.column(i).clone()),
                        Err(_) => continue,
                    },
                    // The expression names the column that is missing.
                    (Err(_), None) => continue,
                };
                fields.push(field.with_nullable(true));
                columns.push(column);
            }
        }
        let options = RecordBatchOptions::new().with_row_count(Some(self.len()));
        let schema: SchemaRef = Arc::new(Schema::new(fields));
        Ok(RecordBatch::try_new_with_options(
            schema, columns, &options,
        )?)
    }

    fn base(&self, name: &str) -> ArrayRef {
        match name {
            KEY => Arc::new(self.rows.keys.clone()),
            VALUE => Arc::new(self.rows.values.clone()),
            VALUE_TEXT => Arc::new(text_of(&compact(&self.rows.values))),
            _ => {
                debug_assert_eq!(name, TIMESTAMP);
                let times = TimestampMicrosecondArray::new(self.rows.timestamps.clone(), None);
                Arc::new(times.with_timezone("UTC"))
            }
        }
    }

    /// Rows of several chunks in the order of their origins; each chunk keeps its own order.
    pub fn merge(mut chunks: Vec<Chunk>) -> Result<Chunk, OperatorError> {
        chunks.retain(|chunk| !chunk.is_empty());
        if chunks.len() < 2 {
            return Ok(chunks.pop().unwrap_or_else(Chunk::empty));
        }
        let whole = Chunk::concat(&chunks)?;
        if whole.origins.is_sorted() {
            return Ok(whole);
        }
        let order = merged_order(&chunks);
        whole.take(&order)
    }

    /// One after the other. What is unwritten in the same format stays so.
    pub fn concat(chunks: &[Chunk]) -> Result<Chunk, OperatorError> {
        if let [one] = chunks {
            return Ok(one.clone());
        }
        let unwritten = chunks.first().and_then(|chunk| chunk.unwritten.clone());
        let same = |chunk: &Chunk| match (&chunk.unwritten, &unwritten) {
            (Some(one), Some(first)) => one.writes_like(first),
            (one, first) => one.is_none() && first.is_none(),
        };
        if !chunks.iter().all(same) {
            let written: Result<Vec<Chunk>, _> = chunks.iter().map(Chunk::written).collect();
            return Chunk::concat(&written?);
        }
        let rows: Vec<Rows> = chunks.iter().map(|chunk| chunk.rows.clone()).collect();
        Ok(Chunk {
            rows: Rows::concat(&rows)?,
            origins: chunks
                .iter()
                .flat_map(|chunk| chunk.origins.iter().copied())
                .collect(),
            columns: concat_columns(chunks)?,
            unwritten,
        })
    }
}

/// The typed columns that all chunks have.
fn concat_columns(chunks: &[Chunk]) -> Result<Option<RecordBatch>, OperatorError> {
    let all: Option<Vec<&RecordBatch>> = chunks.iter().map(|c| c.columns.as_ref()).collect();
    let Some(batches) = all.filter(|batches| !batches.is_empty()) else {
        return Ok(None);
    };
    let schema = batches[0].schema();
    let common: Vec<&str> = schema
        .fields()
        .iter()
        .filter(|field| {
            let same = |b: &&RecordBatch| {
                b.schema()
                    .field_with_name(field.name())
                    .is_ok_and(|f| f.data_type() == field.data_type())
            };
            batches.iter().all(same)
        })
        .map(|field| field.name().as_str())
        .collect();
    if common.is_empty() {
        return Ok(None);
    }
    let mut parts = Vec::with_capacity(batches.len());
    for batch in batches {
        let schema = batch.schema();
        let indices: Result<Vec<usize>, _> = common.iter().map(|n| schema.index_of(n)).collect();
        parts.push(batch.project(&indices?)?);
    }
    Ok(Some(concat_batches(&parts[0].schema(), &parts)?))
}

/// Row numbers of the concatenated chunks, merged by origin; of equals the first chunk's first.
fn merged_order(chunks: &[Chunk]) -> Vec<u32> {
    let mut heads: Vec<(usize, usize)> = Vec::with_capacity(chunks.len());
    let mut first = 0;
    for chunk in chunks {
        heads.push((first, 0));
        first += chunk.len();
    }
    let mut order = Vec::with_capacity(first);
    while order.len() < first {
        let mut best: Option<(u32, usize)> = None;
        for (number, (_, head)) in heads.iter().enumerate() {
            if let Some(origin) = chunks[number].origins.get(*head)
                && best.is_none_or(|(known, _)| *origin < known)
            {
                best = Some((*origin, number));
            }
        }
        let Some((_, number)) = best else { break };
        order.push((heads[number].0 + heads[number].1) as u32);
        heads[number].1 += 1;
    }
    order
}

/// What stands as values while only columns hold them.
pub(crate) fn unwritten_values(rows: usize) -> BinaryArray {
    BinaryArray::new_null(rows)
}

/// What stands as values where columns are kept: nothing, and null where a row has no value.
pub(crate) fn presence(nulls: Option<&NullBuffer>, rows: usize) -> BinaryArray {
    let offsets = OffsetBuffer::new_zeroed(rows);
    BinaryArray::new(offsets, Buffer::default(), nulls.cloned())
}

/// The same bytes without what a slice leaves out before and after it.
pub(crate) fn compact(array: &BinaryArray) -> BinaryArray {
    let offsets = array.offsets();
    let (first, last) = (offsets[0], offsets[array.len()]);
    if first == 0 && last as usize == array.values().len() {
        return array.clone();
    }
    let moved: Vec<i32> = offsets.iter().map(|o| o - first).collect();
    let data = array
        .values()
        .slice_with_length(first as usize, (last - first) as usize);
    BinaryArray::new(
        OffsetBuffer::new(moved.into()),
        data,
        array.nulls().cloned(),
    )
}
