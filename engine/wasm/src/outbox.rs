//! What one `process` call emits, in the order of its calls, validated as it comes.
//!
//! Called by: `link` (fills it), `guest` (hands it to pipelines).
//! Invariants: every row index is below the batch's length, every port below the outputs' count,
//! every emitted column has one entry per parent; bytes held stay below the call's budget.
//! Refuses: bad indices, ports and lengths with a message (the guest is trapped), floods by limit.

use arrow::array::{Array, BinaryArray};
use wasmtime::{Error, Result};

use crate::error::{Fault, bad};
use crate::limits::{
    CODE_BYTES_MAX, HEADER_NAME_BYTES_MAX, HEADERS_PER_EMIT_MAX, Limits, MESSAGE_BYTES_MAX,
    OUTPUT_BYTES_FLOOR,
};

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

/// The outbox resource while a call runs.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    outcome: Outcome,
    rows: usize,
    ports: usize,
    bytes: usize,
    bytes_max: usize,
    emitted_last: bool,
    /// A rejection of no rows: the guest says why it is about to trap.
    pub(crate) last_words: Option<String>,
}

impl Outbox {
    pub(crate) fn begin(&mut self, rows: usize, bytes_in: usize, ports: usize, limits: &Limits) {
        let by_ratio = bytes_in
            .saturating_mul(limits.output_ratio_max)
            .max(OUTPUT_BYTES_FLOOR);
        *self = Outbox {
            rows,
            ports,
            bytes_max: by_ratio.min(limits.output_bytes_max),
            ..Outbox::default()
        };
    }

    pub(crate) fn finish(&mut self) -> Outcome {
        std::mem::take(&mut self.outcome)
    }

    /// Takes `bytes` from the budget, before anything is copied.
    pub(crate) fn charge(&mut self, bytes: usize) -> Result<()> {
        // a call costs something even when it carries nothing
        self.bytes = self.bytes.saturating_add(bytes).saturating_add(64);
        if self.bytes > self.bytes_max {
            let limit = self.bytes_max as u64;
            return Err(Error::new(Fault::Limit {
                what: "output bytes in one call",
                limit,
            }));
        }
        Ok(())
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

    /// Checks row indices with one pass that vectorises.
    pub(crate) fn rows(&self, call: &str, rows: &[u32]) -> Result<Vec<u32>> {
        let largest = rows.iter().copied().fold(0, u32::max);
        if !rows.is_empty() && largest as usize >= self.rows {
            return bad(format!(
                "{call}: row {largest}, but the batch has {} rows",
                self.rows
            ));
        }
        Ok(rows.to_vec())
    }

    pub(crate) fn forward(&mut self, port: u16, rows: Vec<u32>) {
        self.emitted_last = false;
        self.outcome
            .emissions
            .push(Emission::Forward { port, rows });
    }

    pub(crate) fn emit(
        &mut self,
        port: u16,
        parents: Vec<u32>,
        keys: BinaryArray,
        values: BinaryArray,
    ) {
        self.emitted_last = true;
        self.outcome.emissions.push(Emission::Emit {
            port,
            parents,
            keys,
            values,
            event_times: None,
            headers: Vec::new(),
        });
    }

    /// Rows of the last emit, which `call` wants to add to.
    pub(crate) fn last_rows(&self, call: &str) -> Result<usize> {
        match self.outcome.emissions.last() {
            Some(Emission::Emit { parents, .. }) if self.emitted_last => Ok(parents.len()),
            _ => bad(format!("{call}: there is no emit before it")),
        }
    }

    pub(crate) fn event_times(&mut self, times: &[i64]) -> Result<()> {
        let rows = self.last_rows("set-event-times")?;
        if times.len() != rows {
            return bad(format!(
                "set-event-times: {} times for {rows} rows",
                times.len()
            ));
        }
        if let Some(Emission::Emit { event_times, .. }) = self.outcome.emissions.last_mut() {
            *event_times = Some(times.to_vec());
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
        if let Some(Emission::Emit {
            headers, parents, ..
        }) = self.outcome.emissions.last_mut()
        {
            debug_assert_eq!(column.len(), parents.len());
            if headers.len() >= HEADERS_PER_EMIT_MAX {
                let limit = HEADERS_PER_EMIT_MAX as u64;
                return Err(Error::new(Fault::Limit {
                    what: "headers in one emit",
                    limit,
                }));
            }
            headers.push((name.to_owned(), column));
        }
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

/// At most `max` bytes of a text, cut between characters.
pub(crate) fn cut(text: &str, max: usize) -> String {
    let mut end = text.len().min(max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}
