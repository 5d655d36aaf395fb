//! Timers of a module that keeps state: those that the batch made due, as rows of one more call.
//!
//! Called by: `stage::run`, after the rows of the batch; `wasm` asks what a call is for. Invariants: a
//! timer fires once, in the order of time and key, and is gone whatever becomes of the call; one that was
//! cleared before does not.

use model::rows::RowsBuilder;
use wasm::{Entry, Keyed, Timer};

use super::program::Warm;
use super::wasm::Call;
use super::{Chunk, OperatorError};
use crate::limits::TIMERS_PER_CALL_MAX;

/// As the input of a call: what fired, not rows of an edge.
const TIMERS: u16 = u16::MAX;

pub(super) fn entry(input: u16) -> Entry {
    match input {
        TIMERS => Entry::Timers,
        _ => Entry::Process,
    }
}

/// Where a batch is cut whose call is tried again or stops the lane. Timers are due by all of its rows, and
/// would be by all but the last: the whole batch waits.
pub(super) fn cut_at(input: u16, origin: u32) -> u32 {
    match entry(input) {
        Entry::Timers => 0,
        Entry::Process => origin,
    }
}

/// For rows that of the batch before; for timers the one that made them due.
pub(super) fn watermark(keyed: Option<&Keyed>, input: u16) -> i64 {
    keyed.map_or(i64::MIN, |keyed| match entry(input) {
        Entry::Process => keyed.watermark(),
        Entry::Timers => keyed.moved(),
    })
}

impl Call<'_> {
    /// Calls the guest with the timers that the batch's rows made due; each fires once, whatever
    /// becomes of it. They count as rows of the last one, which moved the watermark or came after
    /// it. Those that are set meanwhile wait for the next batch.
    pub fn timers(&mut self, warm: &mut Warm) -> Result<(), OperatorError> {
        let Some(keyed) = self.keyed.as_deref_mut() else {
            return Ok(());
        };
        let due = keyed.due();
        let Some(last) = self.offsets.len().checked_sub(1) else {
            return Ok(());
        };
        for some in due.chunks(TIMERS_PER_CALL_MAX) {
            let Some(keyed) = self.keyed.as_deref_mut() else {
                break;
            };
            // a call before may have cleared some
            let is_set = |timer: &&Timer| keyed.has(timer);
            let some: Vec<Timer> = some.iter().filter(is_set).cloned().collect();
            keyed.fire(&some);
            let mut rows = RowsBuilder::new();
            for timer in &some {
                rows.push(timer.time, Some(&timer.key), None, &[]);
            }
            let fired = Chunk {
                rows: rows.finish(),
                origins: vec![last as u32; some.len()],
                ..Chunk::empty()
            };
            self.run(warm, TIMERS, &fired)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_whose_timers_wait_waits_as_a_whole() {
        assert_eq!((cut_at(TIMERS, 7), cut_at(0, 7)), (0, 7));
    }
}
