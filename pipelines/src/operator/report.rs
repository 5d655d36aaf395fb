//! What the operators of one run have to say besides rows: rejections, and where the batch ends early.
//!
//! Called by: the operators, `stage::run`, `stage::commit`. Invariants: of several cuts the earliest
//! counts, and of two at one row the one that stops.

use std::borrow::Cow;
use std::sync::Arc;

use super::Chunk;

/// A row that will not go on.
#[derive(Clone, Debug)]
pub(crate) struct Reject {
    /// Number of the node in its stage.
    pub node: usize,
    /// The output it was meant for, where that is known.
    pub port: Option<usize>,
    pub origin: u32,
    pub code: Cow<'static, str>,
    pub message: Arc<str>,
    /// How often the row was tried, this time included.
    pub attempt: u32,
}

/// Why the batch ends before its end.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Why {
    /// Present the rows again after a while.
    Wait {
        node: usize,
        after_ms: u64,
        message: String,
    },
    /// The lane must not go on.
    Stop { message: String },
}

impl Why {
    pub fn message(&self) -> &str {
        match self {
            Why::Wait { message, .. } | Why::Stop { message } => message,
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
    pub cut: Option<Cut>,
    /// A guest died: what the trial run of a new generation must not survive.
    pub fault: Option<String>,
}

impl Report {
    /// Keeps the earliest cut; of two at one row, the one that stops.
    pub fn cut(&mut self, cut: Cut) {
        let later = |known: &Cut| match known.origin.cmp(&cut.origin) {
            std::cmp::Ordering::Less => false,
            std::cmp::Ordering::Greater => true,
            std::cmp::Ordering::Equal => matches!(cut.why, Why::Stop { .. }),
        };
        if self.cut.as_ref().is_none_or(later) {
            self.cut = Some(cut);
        }
    }

    pub fn fault(&mut self, message: String) {
        self.fault.get_or_insert(message);
    }

    /// Rows of a chunk that failed at a node, with the reason of each.
    pub fn failed(
        &mut self,
        node: usize,
        chunk: &Chunk,
        code: &'static str,
        rows: Vec<(u32, String)>,
    ) {
        for (row, message) in rows {
            self.rejects.push(Reject {
                node,
                port: None,
                origin: chunk.origins[row as usize],
                code: code.into(),
                message: message.into(),
                attempt: 1,
            });
        }
    }
}
