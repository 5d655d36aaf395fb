//! Where a module puts what it makes of a batch.
//!
//! Called by: guests at the level of [`crate::Module`], `rt` for the attributes.
//! Invariants: the order on a port is the order of the calls; nothing counts unless `process`
//! returns ok.

use crate::column::Column;
use crate::sys;

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

    /// For the rows of the last `emit`; microseconds since the epoch, UTC.
    pub fn set_event_times(&mut self, times: &[i64]) {
        self.0.set_event_times(times);
    }

    /// For the rows of the last `emit`; an absent value sets nothing.
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
