//! What a batch of a lane wrote, as one atomic commit.
//!
//! Called by: `lane`, on the worker thread. Pure. Invariants: outputs, dead letters, what modules
//! keep and the input position go into one `Commit`, and the position is refused unless it still is
//! where the batch began: that is exactly once. The position's metadata names the generation that
//! did the work.

use model::batch::EncodeError;
use model::ids::{Offset, PartitionId};
use model::port::{Commit, Position};
use model::rows::Rows;

use super::run::Work;
use super::state::States;
use super::{Op, Stage, StageNode, deadletter};
use crate::canary::{Sample, no_room};
use crate::operator::migrate::room;
use crate::operator::{Cut, Why, sink};

/// A commit and what it means for the lane.
pub(crate) struct Ready {
    /// Nothing where not one row was done.
    pub commit: Option<Commit>,
    /// Where the lane goes on.
    pub next: Offset,
    pub counts: Counts,
    pub cut: Option<Cut>,
    /// A module did not stand the number of rows.
    pub crowded: bool,
    /// For a canary, once it is committed.
    pub sample: Option<Sample>,
}

impl Ready {
    /// Why not one row was done, if the lane must not go on.
    pub fn stopped_at_once(&self) -> Option<String> {
        match (&self.commit, self.cut.as_ref().map(|cut| &cut.why)) {
            (None, Some(Why::Stop { message })) => Some(message.clone()),
            _ => None,
        }
    }
}

impl Ready {
    /// Gives the sample what its node kept before the batch.
    pub fn copy(&mut self, node: &StageNode, states: &States) {
        let keyed = states.get(&node.name);
        let (Some(sample), Some(keyed), Op::Wasm(program)) = (&mut self.sample, keyed, &node.op)
        else {
            return;
        };
        sample.copy = Some(match room(&program.module.host(), keyed.bytes()) {
            Ok(()) => Ok(keyed.copy()),
            Err(full) => Err(no_room(keyed.bytes(), full)),
        });
    }
}

/// Rows of one commit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub read: u64,
    pub written: u64,
    pub rejected: u64,
    pub dropped: u64,
    pub nulled: u64,
}

/// The batch that was worked on.
pub(crate) struct Span<'a> {
    pub lane: u32,
    pub rows: &'a Rows,
    pub offsets: &'a [Offset],
    /// The committed position, or that of the commit before this one.
    pub from: Offset,
    /// The position after the last row.
    pub next: Offset,
}

pub(crate) fn ready(
    stage: &Stage,
    span: &Span<'_>,
    states: &States,
    work: Work,
) -> Result<Ready, EncodeError> {
    let done = work
        .cut
        .as_ref()
        .map_or(span.rows.len(), |cut| cut.origin as usize);
    let next = match &work.cut {
        Some(cut) => span.offsets[cut.origin as usize],
        None => span.next,
    };
    if done == 0 && next == span.from {
        return Ok(Ready {
            commit: None,
            next,
            counts: Counts::default(),
            cut: work.cut,
            crowded: work.crowded,
            sample: None,
        });
    }
    let mut appends = Vec::new();
    let mut written = 0;
    for (number, rows) in &work.outputs {
        let Op::Sink {
            topic, partitions, ..
        } = &stage.nodes[*number].op
        else {
            continue;
        };
        written += rows.len() as u64;
        sink::appends(*topic, *partitions, span.lane, rows, &mut appends)?;
    }
    let dropped = deadletter::letters(
        stage,
        span.lane,
        span.rows,
        span.offsets,
        &work.rejects,
        &mut appends,
    )?;
    states.appends(stage, span.lane, &mut appends)?;
    let position = position(stage, span.lane, span.from, next);
    let counts = Counts {
        read: done as u64,
        written,
        rejected: work.rejects.len() as u64 - dropped,
        dropped,
        nulled: work.nulled as u64,
    };
    let commit = Commit {
        appends,
        positions: vec![position],
    };
    Ok(Ready {
        commit: Some(commit),
        next,
        counts,
        cut: work.cut,
        crowded: work.crowded,
        sample: work.sample.map(|sample| Sample {
            from: span.from,
            next,
            ..sample
        }),
    })
}

/// What was migrated, of a lane that has nothing to read: it stays where it is.
pub(crate) fn migrated(
    stage: &Stage,
    lane: u32,
    at: Offset,
    states: &States,
) -> Result<Commit, EncodeError> {
    let mut appends = Vec::new();
    states.appends(stage, lane, &mut appends)?;
    Ok(Commit {
        appends,
        positions: vec![position(stage, lane, at, at)],
    })
}

fn position(stage: &Stage, lane: u32, from: Offset, next: Offset) -> Position {
    Position {
        group: stage.group.clone(),
        partition: PartitionId::new(stage.topic, lane),
        offset: next,
        expected: Some(from),
        metadata: format!("generation={}", stage.generation),
    }
}
