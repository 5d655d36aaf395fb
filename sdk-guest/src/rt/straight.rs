//! The loop of a map whose rows all go to the first output and say nothing but their value.
//!
//! Called by: `make`, for structs that are columns.
//! Invariants: the order of the rows is that of their parents; what the loop changes is in variables of
//! its own, so that the compiler keeps it in registers and, where nothing can refuse a row, does several
//! rows at once (ADR 0026).

use super::Refusals;
use super::make::RowOutput;
use crate::outbox::Outbox;
use crate::record::Reject;
use crate::row::ToColumns;

/// `full`: no cell of the rows is null.
#[inline(always)]
pub(super) fn map<O: RowOutput>(
    rows: usize,
    out: &mut Outbox,
    full: bool,
    mut each: impl FnMut(usize, bool) -> Result<Option<O>, Reject>,
) {
    let mut values = O::Value::columns(0);
    let mut refusals = Refusals::default();
    let (made, listed) = {
        let fill = O::Value::fill(&mut values, rows);
        // the same loop twice: where no cell is absent, the compiler leaves out the questions, and
        // with them what keeps it from doing several rows at once
        match full {
            true => filled(rows, fill, &mut refusals, out, |row| each(row, true)),
            false => filled(rows, fill, &mut refusals, out, |row| each(row, false)),
        }
    };
    refusals.flush(out);
    if made == 0 {
        return;
    }
    match listed {
        None if made == rows => out.emit_columns(0, None),
        listed => {
            let parents = listed.unwrap_or_else(|| first_rows(made, made));
            out.emit_columns(0, Some(&parents));
        }
    }
    O::Value::set(&values, out);
}

/// Puts what the rows give into columns: how many there are, and the rows they came from unless each
/// gave one.
#[inline(always)]
fn filled<O: RowOutput>(
    rows: usize,
    mut fill: <O::Value as ToColumns>::Fill<'_>,
    refusals: &mut Refusals,
    out: &mut Outbox,
    mut each: impl FnMut(usize) -> Result<Option<O>, Reject>,
) -> (usize, Option<Vec<u32>>) {
    // a flag of its own, so that where no row is left out nothing is asked in the loop
    let (mut made, mut is_listed, mut listed) = (0, false, Vec::new());
    for row in 0..rows {
        match each(row) {
            Ok(Some(output)) => {
                output.into_record().value.put(&mut fill);
                made += 1;
                if is_listed {
                    listed.push(row as u32);
                }
                continue;
            }
            Ok(None) => {}
            Err(reject) => {
                if refusals.add(out, row as u32, reject) {
                    break;
                }
            }
        }
        if !is_listed {
            is_listed = true;
            listed = first_rows(made, rows);
        }
    }
    (made, is_listed.then_some(listed))
}

/// The first row numbers, with room for others.
fn first_rows(count: usize, room: usize) -> Vec<u32> {
    let mut list = Vec::with_capacity(room);
    list.extend(0..count as u32);
    list
}
