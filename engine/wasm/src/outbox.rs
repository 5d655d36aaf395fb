//! What one `process` call emits, in the order of its calls, validated as it comes.
//!
//! Called by: `link` (fills it), `guest` (hands it to pipelines).
//! Invariants: every row index is below the batch's length, every port below the outputs' count,
//! every emitted column has one entry per parent; what the host will make of a call, inherited
//! keys and headers and the names of fields included, stays below its budget.
//! Refuses: bad indices, ports and lengths with a message (the guest is trapped), floods by limit.

use std::sync::Arc;

use arrow::array::cast::AsArray;
use arrow::array::{Array, ArrayRef, BinaryArray, new_null_array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, FieldRef, ToByteSlice};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use wasmtime::Result;

use crate::error::{bad, over};
use crate::fields::{Declared, Place};
use crate::guest::Batch;
use crate::limits::{
    CODE_BYTES_MAX, COLUMN_BYTES, HEADER_NAME_BYTES_MAX, HEADERS_PER_EMIT_MAX, Limits,
    MESSAGE_BYTES_MAX, OF_OUTPUT, OUTPUT_BYTES_FLOOR, OUTPUT_BYTES_OF_CALLS, ROW_BYTES,
};
use crate::wide::{copied_list, largest};

/// The code of what a function threw that says none, in all SDKs.
const THROWN: &str = "error";
/// How a line of log begins that tells of a panic.
const PANIC: &str = "panic: ";

/// One call of `forward` or `emit`.
#[derive(Debug, Clone, PartialEq)]
// a few of them a batch: a box would cost more than the room it saves
#[allow(clippy::large_enum_variant)]
pub enum Emission {
    /// Rows of the input passed on as they are.
    Forward { port: u16, rows: Vec<u32> },
    /// New rows; `parents[i]` is the input row whose event time and headers row i inherits.
    Emit {
        port: u16,
        parents: Vec<u32>,
        keys: BinaryArray,
        values: BinaryArray,
        /// Microseconds since the epoch, instead of the parents'.
        event_times: Option<Vec<i64>>,
        /// Set over the inherited ones; a null entry sets nothing for its row.
        headers: Vec<(String, BinaryArray)>,
    },
    /// New rows as columns: all fields of the output's schema, or those declared where it has none.
    Columns {
        port: u16,
        /// `None`: each row of the batch gives one, in order.
        parents: Option<Vec<u32>>,
        columns: RecordBatch,
        /// Instead of the parents'.
        keys: Option<BinaryArray>,
        /// As of `Emit`.
        event_times: Option<Vec<i64>>,
        headers: Vec<(String, BinaryArray)>,
    },
}

/// Rows that will never succeed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    pub rows: Vec<u32>,
    pub code: String,
    pub message: String,
}

/// Rows to be tried again, from the first of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retry {
    pub rows: Vec<u32>,
    pub after_ms: u32,
    pub code: String,
    pub message: String,
}

/// All that a successful call said. A rejection or retry of a row beats its outputs.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Outcome {
    pub emissions: Vec<Emission>,
    pub rejections: Vec<Rejection>,
    pub retries: Vec<Retry>,
}

impl Outcome {
    /// Whether a row was refused for what its function threw, without a code of its own: what most languages
    /// make of memory that they were refused.
    pub(crate) fn threw(&self) -> bool {
        self.rejections.iter().any(|refused| refused.code == THROWN)
    }
}

/// The call that setters are for.
#[derive(Debug, Default)]
enum Last {
    /// A `forward`, or nothing: they are for nothing.
    #[default]
    Closed,
    /// The emission that was pushed last.
    Emit,
    /// Columns that are still coming.
    Columns(Box<Building>),
}

/// An emission of columns, while they come.
#[derive(Debug)]
struct Building {
    port: u16,
    parents: Option<Vec<u32>>,
    rows: usize,
    declared: Arc<Declared>,
    /// In the order of the output's schema.
    arrays: Vec<Option<ArrayRef>>,
    keys: Option<BinaryArray>,
    event_times: Option<Vec<i64>>,
    headers: Vec<(String, BinaryArray)>,
}

/// The outbox resource while a call runs.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    outcome: Outcome,
    /// The batch, which rows are forwarded of and inherit from.
    batch: Option<Arc<Batch>>,
    rows: usize,
    ports: usize,
    bytes: usize,
    bytes_max: usize,
    /// What the last emit can still be given.
    last: Last,
    /// A rejection of no rows, or where there are none a line of log: why the guest is about to trap.
    pub(crate) last_words: Option<String>,
}

impl Outbox {
    pub(crate) fn begin(&mut self, batch: Arc<Batch>, ports: usize, limits: &Limits) {
        let Batch { rows, columns, .. } = &*batch;
        let written = columns
            .as_ref()
            .map_or(0, |columns| written_bytes(columns, None));
        let by_ratio = (rows.bytes() + written + OUTPUT_BYTES_OF_CALLS)
            .saturating_mul(limits.output_ratio_max)
            .max(OUTPUT_BYTES_FLOOR);
        *self = Outbox {
            rows: rows.len(),
            batch: Some(batch),
            ports,
            bytes_max: by_ratio.min(limits.output_bytes_max),
            ..Outbox::default()
        };
    }

    pub(crate) fn finish(&mut self) -> Result<Outcome> {
        self.close()?;
        Ok(std::mem::take(self).outcome)
    }

    /// Nothing more is set on the last emit.
    fn close(&mut self) -> Result<()> {
        if let Last::Columns(building) = std::mem::take(&mut self.last) {
            let parents = building.parents.as_deref();
            let keys = building.keys.is_none();
            self.charge(building.late_bytes() + self.inherited(parents, keys))?;
            self.outcome.emissions.push(building.finish()?);
        }
        Ok(())
    }

    /// Takes `bytes` from the budget, before anything is copied.
    pub(crate) fn charge(&mut self, bytes: usize) -> Result<()> {
        // a call costs something even when it carries nothing
        self.bytes = self.bytes.saturating_add(bytes).saturating_add(64);
        if self.bytes > self.bytes_max {
            return over(OF_OUTPUT, self.bytes_max);
        }
        Ok(())
    }

    /// What new rows get of their parents: headers, and keys where they have none of their own.
    fn inherited(&self, parents: Option<&[u32]>, keys: bool) -> usize {
        let Some(batch) = &self.batch else {
            return 0;
        };
        let rows = &batch.rows;
        let keys = if keys { rows.key_bytes(parents) } else { 0 };
        let made = parents.map_or(self.rows, <[u32]>::len);
        (keys + rows.header_bytes(parents)) as usize + made * ROW_BYTES
    }

    pub(crate) fn port(&self, call: &str, port: u16) -> Result<()> {
        if usize::from(port) >= self.ports {
            return bad(format!(
                "{call}: port {port}, but the node has {} outputs",
                self.ports
            ));
        }
        Ok(())
    }

    /// Checks row indices.
    pub(crate) fn rows(&self, call: &str, rows: &[u32]) -> Result<Vec<u32>> {
        let largest = largest(rows);
        if !rows.is_empty() && largest as usize >= self.rows {
            return bad(format!(
                "{call}: row {largest}, but the batch has {} rows",
                self.rows
            ));
        }
        Ok(copied_list(rows.to_byte_slice()))
    }

    pub(crate) fn forward(&mut self, port: u16, rows: Vec<u32>) -> Result<()> {
        self.close()?;
        if let Some(batch) = &self.batch {
            let columns = batch.columns.as_ref();
            let written = columns.map_or(0, |columns| written_bytes(columns, Some(&rows)));
            let taken = batch.rows.taken_bytes(&rows) as usize;
            self.charge(taken + written + rows.len() * ROW_BYTES)?;
        }
        let forward = Emission::Forward { port, rows };
        self.outcome.emissions.push(forward);
        Ok(())
    }

    pub(crate) fn emit(
        &mut self,
        port: u16,
        parents: Vec<u32>,
        keys: BinaryArray,
        values: BinaryArray,
    ) -> Result<()> {
        self.close()?;
        self.charge(self.inherited(Some(&parents), false))?;
        self.last = Last::Emit;
        self.outcome.emissions.push(Emission::Emit {
            port,
            parents,
            keys,
            values,
            event_times: None,
            headers: Vec::new(),
        });
        Ok(())
    }

    /// Begins an emit whose columns come after it.
    pub(crate) fn begin_columns(
        &mut self,
        port: u16,
        parents: Option<Vec<u32>>,
        declared: Arc<Declared>,
    ) -> Result<()> {
        self.close()?;
        // an array costs the host its room even if it has no rows
        self.charge(declared.schema.fields().len() * COLUMN_BYTES)?;
        self.last = Last::Columns(Box::new(Building {
            port,
            rows: parents.as_ref().map_or(self.rows, Vec::len),
            parents,
            arrays: vec![None; declared.schema.fields().len()],
            declared,
            keys: None,
            event_times: None,
            headers: Vec::new(),
        }));
        Ok(())
    }

    fn building(&self, call: &str) -> Result<&Building> {
        match &self.last {
            Last::Columns(building) => Ok(building),
            _ => bad(format!("{call}: there is no emit of columns before it")),
        }
    }

    /// Rows of the last emit of columns, which `call` wants to add to.
    pub(crate) fn columns_rows(&self, call: &str) -> Result<usize> {
        Ok(self.building(call)?.rows)
    }

    /// The field that `call` sets, and the rows it must have.
    pub(crate) fn column(&self, call: &str, column: u16) -> Result<(&Place, usize)> {
        let building = self.building(call)?;
        let declared = &building.declared.fields;
        match declared.get(usize::from(column)) {
            Some(place) if building.arrays[place.at].is_none() => Ok((place, building.rows)),
            Some(place) => bad(format!("{call}: field `{}` was set already", place.name)),
            None => bad(format!(
                "{call}: column {column}, but {} were declared for port {}",
                declared.len(),
                building.port
            )),
        }
    }

    pub(crate) fn set_column(&mut self, column: u16, array: ArrayRef) -> Result<()> {
        if let Last::Columns(building) = &mut self.last
            && let Some(place) = building.declared.fields.get(usize::from(column))
        {
            building.arrays[place.at] = Some(match place.given == place.wanted {
                true => array,
                false => cast(&array, &place.wanted.to_arrow())?,
            });
        }
        Ok(())
    }

    pub(crate) fn set_keys(&mut self, keys: BinaryArray) {
        if let Last::Columns(building) = &mut self.last {
            building.keys = Some(keys);
        }
    }

    /// Rows of the last emit, which `call` wants to add to.
    pub(crate) fn last_rows(&self, call: &str) -> Result<usize> {
        match (&self.last, self.outcome.emissions.last()) {
            (Last::Columns(building), _) => Ok(building.rows),
            (Last::Emit, Some(Emission::Emit { parents, .. })) => Ok(parents.len()),
            _ => bad(format!("{call}: there is no emit before it")),
        }
    }

    pub(crate) fn event_times(&mut self, times: Vec<i64>) -> Result<()> {
        let rows = self.last_rows("set-event-times")?;
        if times.len() != rows {
            return bad(format!(
                "set-event-times: {} times for {rows} rows",
                times.len()
            ));
        }
        match (&mut self.last, self.outcome.emissions.last_mut()) {
            (Last::Columns(building), _) => building.event_times = Some(times),
            (_, Some(Emission::Emit { event_times, .. })) => *event_times = Some(times),
            _ => {}
        }
        Ok(())
    }

    pub(crate) fn header(&mut self, name: &str, column: BinaryArray) -> Result<()> {
        if name.is_empty() || name.len() > HEADER_NAME_BYTES_MAX {
            return bad(format!(
                "set-header: a name of {} bytes, it must have 1 to {HEADER_NAME_BYTES_MAX}",
                name.len()
            ));
        }
        debug_assert_eq!(Some(column.len()), self.last_rows("set-header").ok());
        self.charge(column.len().saturating_mul(name.len() + 8))?;
        let headers = match (&mut self.last, self.outcome.emissions.last_mut()) {
            (Last::Columns(building), _) => &mut building.headers,
            (_, Some(Emission::Emit { headers, .. })) => headers,
            _ => return Ok(()),
        };
        if headers.len() >= HEADERS_PER_EMIT_MAX {
            return over("headers in one emit", HEADERS_PER_EMIT_MAX);
        }
        headers.push((name.to_owned(), column));
        Ok(())
    }

    pub(crate) fn reject(&mut self, rows: Vec<u32>, code: &str, message: &str) {
        if rows.is_empty() {
            self.last_words = Some(cut(message, MESSAGE_BYTES_MAX));
            return;
        }
        let (code, message) = (cut(code, CODE_BYTES_MAX), cut(message, MESSAGE_BYTES_MAX));
        self.outcome.rejections.push(Rejection {
            rows,
            code,
            message,
        });
    }

    /// A line at level `error` of a call that has no outbox to say them to: what a panic says of itself.
    pub(crate) fn overhear(&mut self, line: &str) {
        if line.starts_with(PANIC) {
            self.last_words = Some(cut(line, MESSAGE_BYTES_MAX));
        }
    }

    pub(crate) fn retry(&mut self, rows: Vec<u32>, after_ms: u32, code: &str, message: &str) {
        if rows.is_empty() {
            return;
        }
        let (code, message) = (cut(code, CODE_BYTES_MAX), cut(message, MESSAGE_BYTES_MAX));
        self.outcome.retries.push(Retry {
            rows,
            after_ms,
            code,
            message,
        });
    }
}

impl Building {
    /// What is made of the columns beside the bytes that were set: nulls, and each field's name and
    /// punctuation once a row when the rows are written.
    fn late_bytes(&self) -> usize {
        let fields = self.declared.schema.fields().iter();
        let row: usize = fields.map(field_bytes).sum();
        self.rows.saturating_mul(row)
    }

    /// What was not set is null.
    fn finish(self) -> Result<Emission> {
        let schema = self.declared.schema.clone();
        let columns = self
            .arrays
            .into_iter()
            .zip(schema.fields())
            .map(|(array, field)| {
                array.unwrap_or_else(|| new_null_array(field.data_type(), self.rows))
            });
        let columns = columns.collect();
        let options = RecordBatchOptions::new().with_row_count(Some(self.rows));
        Ok(Emission::Columns {
            port: self.port,
            parents: self.parents,
            columns: RecordBatch::try_new_with_options(schema, columns, &options)?,
            keys: self.keys,
            event_times: self.event_times,
            headers: self.headers,
        })
    }
}

/// What a field costs in each row that is written, beside the bytes of text.
fn field_bytes(field: &FieldRef) -> usize {
    field.name().len() + 8
}

/// About what the chosen rows of columns take when they are written; `None`: all.
fn written_bytes(columns: &RecordBatch, rows: Option<&[u32]>) -> usize {
    let len = rows.map_or(columns.num_rows(), <[u32]>::len);
    let row: usize = columns.schema_ref().fields().iter().map(field_bytes).sum();
    let text = |array: &ArrayRef| {
        let offsets = match array.data_type() {
            DataType::Utf8 => array.as_string::<i32>().value_offsets(),
            DataType::Binary => array.as_binary::<i32>().value_offsets(),
            _ => return 0,
        };
        let cell = |row: usize| (offsets[row + 1] - offsets[row]) as usize;
        match rows {
            Some(rows) => rows.iter().map(|row| cell(*row as usize)).sum(),
            None => (offsets[len] - offsets[0]) as usize,
        }
    };
    len.saturating_mul(row) + columns.columns().iter().map(text).sum::<usize>()
}

/// At most `max` bytes of a text, cut between characters.
pub(crate) fn cut(text: &str, max: usize) -> String {
    let mut end = text.len().min(max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}
