//! Rows whose tries are used up, and those beside them. The contract's `retry` means "from this row on", so
//! that modules leave the rows behind it for the next try (ADR 0030).
//!
//! Called by: `wasm`. Invariants: no row is left that was not worked, rejected, or comes again with the next
//! batch; each call for rows that are left has fewer of them, and there is a most of such calls.

use std::sync::Arc;

use wasm::{Emission, Entry, Rejection, Retry};

use super::part::Part;
use super::timers::{cut_at, entry};
use super::wasm::{Call, Given};
use super::{Cut, OperatorError, Why};
use crate::limits::GIVEN_UP_CALLS_MAX;

/// What is to be worked without the rows that were given up, by its numbers in the call.
pub(super) struct Left {
    /// Rows before them, of a call of which nothing counts.
    pub before: Vec<u32>,
    pub behind: Vec<u32>,
    /// Why the others were given up.
    pub code: String,
    pub message: String,
}

impl Call<'_> {
    /// The rows beside those that were given up, in calls of their own, those before first. When that was
    /// done often, or the module asks other services, whose limits begin anew with each call, those behind
    /// come with the next batch instead.
    pub(super) fn without<'c>(
        &mut self,
        part: &Part<'c>,
        left: Left,
        parts: &mut Vec<Part<'c>>,
    ) -> Result<(), OperatorError> {
        let behind = part.only(&left.behind)?;
        let before = part.only(&left.before)?;
        let asks = self.program.context.http.is_some() && entry(part.input) == Entry::Process;
        match asks || self.given_up >= GIVEN_UP_CALLS_MAX {
            true => self.postponed(&behind, left),
            false => parts.push(behind),
        }
        parts.push(before);
        self.given_up += 1;
        Ok(())
    }

    /// The batch ends before these rows. It cannot end before its first record, nor timers wait for the next
    /// batch: such rows are given up with the one before them.
    fn postponed(&mut self, behind: &Part<'_>, left: Left) {
        let (input, message) = (behind.input, Arc::<str>::from(left.message));
        let mut next = None::<u32>;
        for origin in behind.origins() {
            match cut_at(input, *origin) {
                0 => self.reject((input, *origin), left.code.clone().into(), message.clone()),
                origin => next = Some(next.map_or(origin, |next| next.min(origin))),
            }
        }
        if let Some(origin) = next {
            let (after_ms, message) = (0, format!("{}: {message}", left.code));
            let why = Why::Wait { after_ms, message };
            self.report.cut(Cut { origin, why });
        }
    }

    /// Without the rows that come again anyway, as the batch ends before them.
    pub(super) fn staying(&self, given: &Given<'_>, mut left: Left) -> Left {
        if let Some(cut) = &self.report.cut {
            let stays = |row: &u32| given.origins[*row as usize] < cut.origin;
            left.before.retain(stays);
            left.behind.retain(stays);
        }
        left
    }

    /// Takes out of the retries what has used up its tries: the first row of each, or all where nothing is
    /// tried again.
    pub(super) fn given_up(
        &self,
        input: u16,
        cuts: &[u32],
        retries: &mut [Retry],
    ) -> Vec<Rejection> {
        let (all, max) = (self.gives_up(input), self.program.retry.max);
        let mut out = Vec::new();
        for retry in retries {
            retry.rows.sort_unstable();
            let used_up = |row: &&u32| all || self.failed_before(cuts[**row as usize]) >= max;
            let count = retry.rows.iter().take_while(used_up).count();
            if count > 0 {
                out.push(Rejection {
                    rows: retry.rows.drain(..count).collect(),
                    code: retry.code.clone(),
                    message: retry.message.clone(),
                });
            }
        }
        out
    }
}

/// Where the batch is cut so that a row of a call comes again, by row, and those behind it, which are tried
/// again with it.
pub(super) fn cuts(given: &Given<'_>) -> Vec<u32> {
    let mut cuts = vec![0; given.origins.len()];
    let mut first = u32::MAX;
    for (cut, origin) in cuts.iter_mut().zip(given.origins).rev() {
        first = first.min(*origin);
        *cut = cut_at(given.input, first);
    }
    cuts
}

/// All rows of a call before and behind the first that was given up, if one was.
pub(super) fn left(given: &Given<'_>, given_up: &[Rejection]) -> Option<Left> {
    let first = given_up
        .iter()
        .min_by_key(|given_up| given_up.rows.first())?;
    let row = *first.rows.first()?;
    let mut is_lost = vec![false; given.origins.len()];
    let lost = given_up.iter().flat_map(|given_up| &given_up.rows);
    lost.for_each(|row| is_lost[*row as usize] = true);
    let stays = |row: &u32| !is_lost[*row as usize];
    Some(Left {
        before: (0..row).collect(),
        behind: (row + 1..is_lost.len() as u32).filter(stays).collect(),
        code: first.code.clone(),
        message: first.message.clone(),
    })
}

/// Keeps the rows that a call says nothing of: whether it dropped them, or left them for the next try, as
/// the SDKs do, nobody knows.
pub(super) fn silent(
    given: &Given<'_>,
    rows: &mut Vec<u32>,
    (rejections, retries, emissions): (&[Rejection], &[Retry], &[Emission]),
) {
    let mut told = vec![false; given.origins.len()];
    let mut tell = |rows: &[u32]| rows.iter().for_each(|row| told[*row as usize] = true);
    rejections
        .iter()
        .for_each(|rejection| tell(&rejection.rows));
    retries.iter().for_each(|retry| tell(&retry.rows));
    for emission in emissions {
        match emission {
            Emission::Forward { rows, .. } => tell(rows),
            Emission::Emit { parents, .. } => tell(parents),
            Emission::Columns {
                parents: Some(parents),
                ..
            } => tell(parents),
            // each row makes one
            Emission::Columns { parents: None, .. } => return rows.clear(),
        }
    }
    rows.retain(|row| !told[*row as usize]);
}
