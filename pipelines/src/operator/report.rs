//! What the operators of one run have to say besides rows: rejections, and where the batch ends early.
//!
//! Called by: the operators, `stage::run`, `stage::commit`. Invariants: of several cuts the earliest
//! counts; of two at one row the one that stops, and a try that failed is not forgotten for a mere wait.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;

use super::Chunk;

/// A node by its number in the stage, and the output that rows were meant for, where that is known.
pub(crate) type Place = (usize, Option<usize>);

/// A row that will not go on.
#[derive(Clone, Debug)]
pub(crate) struct Reject {
    /// Number of the node in its stage.
    pub node: usize,
    /// The output it was meant for, where that is known.
    pub port: Option<usize>,
    pub origin: u32,
    /// Where the batch ends if the node's policy is to stop: before this row.
    pub stops_at: u32,
    pub code: Cow<'static, str>,
    pub message: Arc<str>,
    /// How often the row was tried, this time included.
    pub attempt: u32,
}

/// Why the batch ends before its end.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Why {
    /// A try at the row failed: it is presented again, after a while.
    Retry {
        /// Where it failed.
        nodes: BTreeSet<usize>,
        after_ms: u64,
        message: String,
    },
    /// The rows were not tried: they come again after a while, or at once where that is 0.
    Wait { after_ms: u64, message: String },
    /// The lane must not go on.
    Stop { message: String },
}

impl Why {
    pub fn message(&self) -> &str {
        match self {
            Why::Retry { message, .. } | Why::Wait { message, .. } | Why::Stop { message } => {
                message
            }
        }
    }
}

impl Why {
    /// What two cuts at one row come to: each try counts, and the longer wait.
    fn join(&mut self, other: Why) {
        match (self, other) {
            (
                Why::Retry {
                    nodes, after_ms, ..
                },
                Why::Retry {
                    nodes: others,
                    after_ms: then,
                    ..
                },
            ) => {
                nodes.extend(others);
                *after_ms = then.max(*after_ms);
            }
            (Why::Wait { after_ms, .. }, Why::Wait { after_ms: then, .. }) => {
                *after_ms = then.max(*after_ms);
            }
            (Why::Stop { .. }, _) | (_, Why::Wait { .. }) => {}
            (known, other) => *known = other,
        }
    }
}

/// Rows before `origin` commit, the rest does not.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Cut {
    pub origin: u32,
    pub why: Why,
}

/// What the operators of one run have to say besides rows.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub rejects: Vec<Reject>,
    /// Rows, by their origin, that did not fit their topic's schema and go on as nulls; once for each
    /// node that decodes them.
    pub nulled: Vec<u32>,
    pub cut: Option<Cut>,
    /// A guest died: what the trial run of a new generation must not survive.
    pub fault: Option<String>,
    /// A guest died of rows that it stood in parts: their number was too much, which is no fault.
    pub crowded: bool,
}

impl Report {
    /// Keeps the earliest cut; two at one row are one.
    pub fn cut(&mut self, cut: Cut) {
        match &mut self.cut {
            Some(known) if known.origin < cut.origin => {}
            Some(known) if known.origin == cut.origin => known.why.join(cut.why),
            known => *known = Some(cut),
        }
    }

    pub fn fault(&mut self, message: String) {
        self.fault.get_or_insert(message);
    }

    /// Rows of a chunk that failed at a node, or for one output of it, with the reason of each.
    pub fn failed(
        &mut self,
        (node, port): Place,
        chunk: &Chunk,
        code: &'static str,
        rows: Vec<(u32, String)>,
    ) {
        for (row, message) in rows {
            self.rejects.push(Reject {
                node,
                port,
                origin: chunk.origins[row as usize],
                stops_at: chunk.origins[row as usize],
                code: code.into(),
                message: message.into(),
                attempt: 1,
            });
        }
    }
}
