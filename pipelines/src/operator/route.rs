//! `route`: each row goes to the first case that is true, else to `else`.
//!
//! Called by: `stage::run`. Invariants: no row goes to two ports; order is kept on each; a case
//! is evaluated only on rows that no earlier one took. A row on which a case fails goes nowhere
//! and is reported.

use expr::Predicate;

use super::filter::decide;
use super::{Chunk, OperatorError, Report};

/// One chunk per case, and one for `else`.
pub(crate) fn route(
    node: usize,
    cases: &[Predicate],
    chunk: &Chunk,
    report: &mut Report,
) -> Result<Vec<Chunk>, OperatorError> {
    let mut ports = Vec::with_capacity(cases.len() + 1);
    let mut left = chunk.clone();
    for case in cases {
        let before = report.rejects.len();
        let taken = decide(node, case, &left, report)?;
        let mut failed: Vec<u32> = Vec::new();
        if report.rejects.len() > before {
            // Again by row, to know which rows of this chunk are meant.
            let (_, errors) = case.eval_each(&left.frame([case.expr()])?)?;
            failed = errors.into_iter().map(|(row, _)| row).collect();
        }
        let (mut here, mut rest) = (Vec::new(), Vec::new());
        for row in 0..left.len() as u32 {
            if taken.value(row as usize) {
                here.push(row);
            } else if failed.binary_search(&row).is_err() {
                rest.push(row);
            }
        }
        ports.push(left.take(&here)?);
        left = left.take(&rest)?;
    }
    ports.push(left);
    Ok(ports)
}
