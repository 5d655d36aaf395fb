//! Where a module puts what it makes of a batch.
//!
//! Called by: guests at the level of [`crate::Module`], `rt` for the attributes.
//! Invariants: the order on a port is the order of the calls; nothing counts unless `process`
//! returns ok.

use crate::column::Column;
use crate::row::ToColumns;
use crate::sys;
use crate::typed::{Bools, Floats, Ints};

/// A row that is neither forwarded, nor a parent, nor rejected or retried is filtered out.
pub struct Outbox(pub(crate) sys::Outbox);

impl Outbox {
    /// Passes rows on as they are; their payload stays where it is.
    pub fn forward(&mut self, port: u16, rows: &[u32]) {
        self.0.forward(port, rows);
    }

    /// New rows. `parents[i]` is the input row that row i came from; it inherits event time and
    /// headers from there, but not the key.
    pub fn emit(&mut self, port: u16, parents: &[u32], keys: &Column, values: &Column) {
        self.0.emit(port, parents, keys, values);
    }

    /// New rows, whose columns the calls after it set; one that is not set is null. Key, event
    /// time and headers are those of the parent; `None`: each row of the batch gives one, in order.
    pub fn emit_columns(&mut self, port: u16, parents: Option<&[u32]>) {
        self.0.emit_columns(port, parents);
    }

    /// The same with all columns that were declared as the fields of a row, in a struct with the same
    /// fields: `LateColumns` of `Late`; see [`crate::Context::declare_row`].
    pub fn emit_rows<T: ToColumns>(
        &mut self,
        port: u16,
        parents: Option<&[u32]>,
        columns: &T::Columns,
    ) {
        self.emit_columns(port, parents);
        T::set(columns, self);
    }

    /// Keys of the rows of the last `emit_columns`.
    pub fn set_keys(&mut self, keys: &Column) {
        self.0.set_keys(keys);
    }

    /// A declared column of bools of the last `emit_columns`, once.
    pub fn set_bools(&mut self, column: u16, values: &Bools) {
        self.0.set_bools(column, values);
    }

    /// The same of integers or times.
    pub fn set_ints(&mut self, column: u16, values: &Ints) {
        self.0.set_ints(column, values);
    }

    pub fn set_floats(&mut self, column: u16, values: &Floats) {
        self.0.set_floats(column, values);
    }

    /// The same of text or bytes.
    pub fn set_bytes(&mut self, column: u16, values: &Column) {
        self.0.set_bytes(column, values);
    }

    /// For the rows of the last emit; microseconds since the epoch, UTC.
    pub fn set_event_times(&mut self, times: &[i64]) {
        self.0.set_event_times(times);
    }

    /// For the rows of the last emit; an absent value sets nothing.
    pub fn set_header(&mut self, name: &str, values: &Column) {
        self.0.set_header(name, values);
    }

    /// These rows will never succeed.
    pub fn reject(&mut self, rows: &[u32], code: &str, message: &str) {
        self.0.reject(rows, code, message);
    }

    /// A passing trouble: again from the first of these rows.
    pub fn retry(&mut self, rows: &[u32], after_ms: u32, code: &str, message: &str) {
        self.0.retry(rows, after_ms, code, message);
    }
}
