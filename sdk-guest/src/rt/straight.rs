//! The loop of a map whose rows all go to the first output and say nothing but their value.
//!
//! Called by: `make`, for structs that are columns.
//! Invariants: the order of the rows is that of their parents; what the loop changes is in variables of
//! its own, so that the compiler keeps it in registers and, where nothing can refuse a row, does several
//! rows at once (ADR 0026); each closure is called in one place, or it would be a call for every row.

use std::hint::assert_unchecked;
use std::ops::Range;

use super::Refusals;
use super::make::{Given, RowOutput};
use crate::batch::first_rows;
use crate::outbox::Outbox;
use crate::row::{BLOCK, ToColumns};

/// `whole`: does what `each` does, where each of these rows is sure to give one.
#[inline(always)]
pub(super) fn map<O: RowOutput>(
    rows: usize,
    out: &mut Outbox,
    whole: Option<impl FnMut(usize) -> Given<O>>,
    each: impl FnMut(usize) -> Given<O>,
) {
    let mut values = O::Value::columns(0);
    let mut refusals = Refusals::default();
    let (made, listed) = {
        let mut fill = O::Value::fill(&mut values, rows);
        let made = whole.map_or(0, |whole| blocks(rows, &mut fill, whole));
        filled(made..rows, fill, &mut refusals, out, each)
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

/// Puts what the rows give into columns: how many there are then, and the rows they came from unless each
/// gave one, as those before these did.
#[inline(always)]
fn filled<O: RowOutput>(
    rows: Range<usize>,
    mut fill: <O::Value as ToColumns>::Fill<'_>,
    refusals: &mut Refusals,
    out: &mut Outbox,
    mut each: impl FnMut(usize) -> Given<O>,
) -> (usize, Option<Vec<u32>>) {
    // a flag of its own, so that where no row is left out nothing is asked in the loop
    let (mut made, mut is_listed, mut listed) = (rows.start, false, Vec::new());
    for row in rows.clone() {
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
            listed = first_rows(made, rows.end);
        }
    }
    (made, is_listed.then_some(listed))
}

/// Puts what the rows give, each one, into columns by blocks, of which the compiler makes straight code:
/// several rows at once, and what WebAssembly asks in each turn of a loop, whether its time is over, is
/// asked once for all. Says how many rows that were; fewer than a block are left.
#[inline(always)]
fn blocks<O: RowOutput>(
    rows: usize,
    fill: &mut <O::Value as ToColumns>::Fill<'_>,
    mut each: impl FnMut(usize) -> Given<O>,
) -> usize {
    let mut made = 0;
    while rows - made >= BLOCK {
        let block = std::array::from_fn(|at| {
            // SAFETY: the loop's condition, and `at < BLOCK`
            unsafe { assert_unchecked(made + at < rows) };
            let Ok(Some(output)) = each(made + at) else {
                unreachable!("each of these rows gives one");
            };
            output.into_record().value
        });
        O::Value::put_block(block, fill);
        made += BLOCK;
    }
    made
}
