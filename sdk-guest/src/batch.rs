//! The batch a module is given, its rows, and the context it is opened with.
//!
//! Called by: guests.
//! Invariants: a column crosses the boundary when it is first asked for, whole and once; row
//! numbers are those of the batch.

use std::cell::OnceCell;

use crate::column::Column;
use crate::lookup::Lookup;
use crate::record::Failure;
use crate::row::{FromColumns, ToColumns};
use crate::sys;
use crate::typed::{Bools, Field, Floats, Ints};

/// What the node was declared with. Only seen by `open`.
pub struct Context(pub(crate) sys::Context);

impl Context {
    /// The node's `params`, as JSON text.
    pub fn params_json(&self) -> String {
        self.0.params()
    }

    /// The node's `params` as a type of yours.
    pub fn params<T: serde::de::DeserializeOwned>(&self) -> Result<T, Failure> {
        let text = self.params_json();
        // a node without params has none, not an error
        let text = if matches!(text.trim(), "" | "null") {
            "{}"
        } else {
            &text
        };
        serde_json::from_str(text)
            .map_err(|e| Failure::new("params", format!("the node's params do not fit: {e}")))
    }

    pub fn inputs(&self) -> Vec<String> {
        self.0.inputs()
    }

    /// Names of the outputs; their places are the ports.
    pub fn outputs(&self) -> Vec<String> {
        self.0.outputs()
    }

    /// The fields of an input's rows; none where its edge has no schema.
    pub fn input_fields(&self, input: u16) -> Vec<Field> {
        self.0.input_fields(input)
    }

    /// The fields of the rows an output takes; none where it declares no schema.
    pub fn output_fields(&self, port: u16) -> Vec<Field> {
        self.0.output_fields(port)
    }

    /// Says which fields of an input `process` reads as columns, once an input. Column i of a
    /// batch is then `fields[i]`.
    pub fn select(&self, input: u16, fields: &[Field]) -> Result<(), Failure> {
        self.0.select(input, fields)
    }

    /// Says which fields `process` sets as columns on an output, once an output.
    pub fn declare(&self, port: u16, fields: &[Field]) -> Result<(), Failure> {
        self.0.declare(port, fields)
    }

    /// The same with the fields of a row: what [`Batch::columns`] fetches.
    pub fn select_row<'a, T: FromColumns<'a>>(&self, input: u16) -> Result<(), Failure> {
        self.select(input, T::FIELDS)
    }

    /// The same with the fields of a row: what [`crate::Outbox::emit_rows`] sets.
    pub fn declare_row<T: ToColumns>(&self, port: u16) -> Result<(), Failure> {
        self.declare(port, T::FIELDS)
    }

    /// The table that the node's `lookups` call so.
    pub fn lookup(&self, name: &str) -> Result<Lookup, Failure> {
        self.0.lookup(name).map(Lookup)
    }

    /// The input partition of this lane.
    pub fn partition(&self) -> u32 {
        self.0.partition()
    }
}

/// Rows of one input, in order.
pub struct Batch {
    source: sys::Rows,
    len: OnceCell<usize>,
    all_rows: OnceCell<Vec<u32>>,
    keys: OnceCell<Column>,
    values: OnceCell<Column>,
    event_times: OnceCell<Vec<i64>>,
    offsets: OnceCell<Vec<u64>>,
    headers: OnceCell<Box<Header>>,
}

/// A header column that was asked for, and the next one: grows at its end only, so that columns
/// can be lent while others are added.
struct Header {
    name: String,
    column: Column,
    next: OnceCell<Box<Header>>,
}

impl Batch {
    pub(crate) fn new(source: sys::Rows) -> Batch {
        Batch {
            source,
            len: OnceCell::new(),
            all_rows: OnceCell::new(),
            keys: OnceCell::new(),
            values: OnceCell::new(),
            event_times: OnceCell::new(),
            offsets: OnceCell::new(),
            headers: OnceCell::new(),
        }
    }

    pub fn len(&self) -> usize {
        *self.len.get_or_init(|| self.source.len())
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The numbers of all rows, in order: what passes all of them on, or is the parents of as many.
    /// Quicker made than by a loop of one's own.
    pub fn all_rows(&self) -> &[u32] {
        let first = || first_rows(self.len(), self.len());
        self.all_rows.get_or_init(first)
    }

    /// Index into the context's inputs.
    pub fn input(&self) -> u16 {
        self.source.input()
    }

    pub fn keys(&self) -> &Column {
        self.keys.get_or_init(|| self.source.keys())
    }

    pub fn values(&self) -> &Column {
        self.values.get_or_init(|| self.source.values())
    }

    /// Microseconds since the epoch, UTC.
    pub fn event_times(&self) -> &[i64] {
        self.event_times.get_or_init(|| self.source.event_times())
    }

    /// Offsets in the stage's source topic.
    pub fn offsets(&self) -> &[u64] {
        self.offsets.get_or_init(|| self.source.offsets())
    }

    /// One header of all rows.
    pub fn header(&self, name: &str) -> &Column {
        let mut place = &self.headers;
        loop {
            let header = place.get_or_init(|| {
                let column = self.source.header(name);
                Box::new(Header {
                    name: name.to_owned(),
                    column,
                    next: OnceCell::new(),
                })
            });
            if header.name == name {
                return &header.column;
            }
            place = &header.next;
        }
    }

    /// The columns that were selected as the fields of a row, as a struct with the same fields:
    /// `FlightColumns` of `Flight`; see [`Context::select_row`]. Each call fetches them, as those below
    /// do.
    pub fn columns<'a, T: FromColumns<'a>>(&self) -> T::Columns {
        T::fetch(self)
    }

    /// A selected column of bools.
    pub fn bools(&self, column: u16) -> Bools {
        self.source.bools(column)
    }

    /// A selected column of integers or times.
    pub fn ints(&self, column: u16) -> Ints {
        self.source.ints(column)
    }

    pub fn floats(&self, column: u16) -> Floats {
        self.source.floats(column)
    }

    /// A selected column of text or bytes.
    pub fn bytes(&self, column: u16) -> Column {
        self.source.bytes(column)
    }

    /// Microseconds since the epoch, UTC: no row before it is expected any more.
    pub fn watermark(&self) -> i64 {
        self.source.watermark()
    }

    /// One row's key, time and headers. Panics past the end.
    pub fn meta(&self, row: usize) -> Meta<'_> {
        assert!(row < self.len(), "row {row} of {}", self.len());
        Meta { batch: self, row }
    }
}

/// The numbers of the first rows, in a list with room for others. By blocks, since WebAssembly asks in
/// each turn of a loop whether its time is over, and what it keeps goes through memory around that.
pub(crate) fn first_rows(count: usize, room: usize) -> Vec<u32> {
    const BLOCK: usize = 16;
    let mut list = Vec::with_capacity(room.max(count));
    while count - list.len() >= BLOCK {
        let first = list.len();
        let block: [u32; BLOCK] = std::array::from_fn(|at| (first + at) as u32);
        list.extend_from_slice(&block);
    }
    list.extend(list.len() as u32..count as u32);
    list
}

/// What a row carries besides its value. Columns are fetched when first asked for.
#[derive(Clone, Copy)]
pub struct Meta<'a> {
    pub(crate) batch: &'a Batch,
    pub(crate) row: usize,
}

impl<'a> Meta<'a> {
    /// Number of the row in its batch.
    pub fn row(&self) -> usize {
        self.row
    }

    pub fn key(&self) -> Option<&'a [u8]> {
        self.batch.keys().get(self.row)
    }

    /// Microseconds since the epoch, UTC.
    pub fn event_time(&self) -> i64 {
        self.batch.event_times()[self.row]
    }

    /// Offset in the stage's source topic.
    pub fn offset(&self) -> u64 {
        self.batch.offsets()[self.row]
    }

    pub fn header(&self, name: &str) -> Option<&'a [u8]> {
        self.batch.header(name).get(self.row)
    }

    /// Index into the context's inputs.
    pub fn input(&self) -> u16 {
        self.batch.input()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_rows_are_numbered_from_0() {
        for count in (0..70).chain([1000, 4097]) {
            let counted: Vec<u32> = (0..count as u32).collect();
            assert_eq!(first_rows(count, count + 5), counted);
            assert_eq!(first_rows(count, 0), counted);
        }
    }
}
