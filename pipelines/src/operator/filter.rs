//! `filter`: keeps the rows for which the condition is true; null is false.
//!
//! Called by: `stage::run`. Invariants: payloads are passed on as they are, in order. Rows on
//! which the condition fails are reported with code `expression`.

use arrow::array::BooleanArray;
use expr::Predicate;

use super::{Chunk, OperatorError, Report};

pub(crate) fn filter(
    node: usize,
    condition: &Predicate,
    chunk: &Chunk,
    report: &mut Report,
) -> Result<Chunk, OperatorError> {
    let keep = decide(node, condition, chunk, report)?;
    let rows: Vec<u32> = keep.values().set_indices().map(|row| row as u32).collect();
    chunk.take(&rows)
}

/// True where the condition is; rows that fail are false and reported.
pub(super) fn decide(
    node: usize,
    condition: &Predicate,
    chunk: &Chunk,
    report: &mut Report,
) -> Result<BooleanArray, OperatorError> {
    let frame = chunk.frame([condition.expr()])?;
    if let Ok(keep) = condition.eval(&frame) {
        return Ok(keep);
    }
    let (keep, errors) = condition.eval_each(&frame)?;
    report.failed((node, None), chunk, "expression", errors);
    Ok(keep)
}
