//! One batch of a lane through the nodes of its stage, synchronously.
//!
//! Called by: `lane`, on a worker thread. Invariants: the same rows give the same result, but
//! for guests that die or wait; each node runs once a batch, inputs first; what comes from rows
//! at or after a cut is left out; a chain is owned by one lane and keeps its guests warm.
//! Refuses: nothing; a fault of a whole batch is a `RunError` and stops the lane.

use std::sync::Arc;
use std::time::{Duration, Instant};

use codec::Format;
use model::ids::Offset;
use model::rows::Rows;
use wasm::http::Stop;
use wasm::{Keyed, OpenError, View};

use super::needs::{Typed, typed};
use super::state::States;
use super::{Op, Port, Stage, StageNode};
use crate::canary::Sample;
use crate::limits::PORT_BYTES_MAX;
use crate::lookup;
use crate::operator::breaker::Breaker;
use crate::operator::migrate::migrate;
use crate::operator::program::{Program as WasmProgram, Warm};
use crate::operator::wasm::{Call, Made, Tried};
use crate::operator::{Chunk, Cut, OperatorError, Reject, Report};
use crate::operator::{filter, map, route, sink};
use crate::status::Numbers;

/// The nodes of a stage with the warm guests of one lane.
pub(crate) struct Chain {
    pub stage: Arc<Stage>,
    pub lane: u32,
    guests: Vec<Option<Warm>>,
    /// By node and port.
    typed: Vec<Vec<Typed>>,
}

/// Why a chain does not open.
pub(crate) struct NotOpen {
    pub why: String,
    /// Only memory is wanting, which neighbours may give back.
    pub passes: bool,
}

impl From<String> for NotOpen {
    fn from(why: String) -> NotOpen {
        NotOpen { why, passes: false }
    }
}

/// A batch of a lane.
#[derive(Clone, Copy)]
pub(crate) struct Given<'a> {
    pub rows: &'a Rows,
    pub offsets: &'a [Offset],
    pub tried: &'a [Tried],
    /// The node that a canary watches, and whether it wants what the node keeps.
    pub watched: Option<usize>,
    pub copied: bool,
}

/// What each node sees of its tables for one batch.
type Views = [Option<View>];

/// What one batch came to.
pub(crate) struct Work {
    /// Rows for the sinks, by the sink's number.
    pub outputs: Vec<(usize, Rows)>,
    /// Sorted by origin, one a row and node.
    pub rejects: Vec<Reject>,
    /// How many rows did not fit their topic's schema and went on as nulls.
    pub nulled: usize,
    pub cut: Option<Cut>,
    /// A guest failed or died on the way.
    pub fault: Option<String>,
    /// A guest did not stand the number of its rows.
    pub crowded: bool,
    /// What the watched node did.
    pub sample: Option<Sample>,
}

/// A whole batch could not be worked on.
#[derive(Debug, thiserror::Error)]
#[error("node `{node}`: {source}")]
pub(crate) struct RunError {
    pub node: String,
    pub source: OperatorError,
}

impl Chain {
    /// Opens the guests of every node.
    pub fn open(
        stage: Arc<Stage>,
        lane: u32,
        numbers: &Numbers,
        stop: &Stop,
    ) -> Result<Chain, NotOpen> {
        let open = |node: &StageNode| match &node.op {
            Op::Wasm(program) => program
                .open(lane, numbers.of(stage.generation, &node.name), stop.clone())
                .map(Some)
                .map_err(|e| NotOpen {
                    passes: matches!(e, OpenError::Memory { .. }),
                    why: format!("node `{}`: {e}", node.name),
                }),
            _ => Ok(None),
        };
        let guests = stage
            .nodes
            .iter()
            .map(open)
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Chain {
            typed: typed(&stage, &guests),
            stage,
            lane,
            guests,
        })
    }

    /// Takes over what was kept with other schemas than the modules'. All or nothing.
    pub fn migrate(&mut self, states: &mut States, stop: &Stop) -> Result<(), String> {
        let stage = self.stage.clone();
        for (node, warm) in stage.nodes.iter().zip(&mut self.guests) {
            let (Some(kept), Op::Wasm(program), Some(warm)) = (&node.kept, &node.op, warm) else {
                continue;
            };
            let keyed = states.of(&node.name);
            let Some(keyed) = keyed.filter(|keyed| keyed.schema() != kept.schema) else {
                continue;
            };
            if let Err(error) = migrate((program, warm), self.lane, keyed, kept.schema, stop) {
                states.back();
                return Err(format!("node `{}`: {error}", node.name));
            }
        }
        Ok(())
    }

    /// Runs a batch. Of a stage that keeps state, rows from a cut on are worked only to find the cut:
    /// the state cannot be taken back row by row, so those before it are worked again without them.
    pub fn run(&mut self, given: &Given<'_>, states: &mut States) -> Result<Work, RunError> {
        let keeps = self.stage.nodes.iter().any(|node| node.kept.is_some());
        // one moment for the whole batch, however often it is worked
        let views = self.views()?;
        // a row that kills its module is to be paid for once, also where rows are worked again
        let breakers: Vec<Option<Breaker>> = self.breakers().map(|b| b.map(|b| *b)).collect();
        let mut work = self.attempt(given, &views, states)?;
        while let Some(cut) = work.cut.clone().filter(|_| keeps) {
            let done = cut.origin as usize;
            if done == 0 {
                states.begin();
                return Ok(work);
            }
            let rows = given.rows.slice(0, done);
            let before = Given {
                rows: &rows,
                offsets: &given.offsets[..done],
                ..*given
            };
            let fault = work.fault.take();
            for (now, before) in self.breakers().zip(&breakers) {
                if let (Some(now), Some(before)) = (now, before) {
                    *now = *before;
                }
            }
            work = self.attempt(&before, &views, states)?;
            work.fault = work.fault.or(fault);
            if work.cut.is_none() {
                work.cut = Some(cut);
                return Ok(work);
            }
        }
        Ok(work)
    }

    fn breakers(&mut self) -> impl Iterator<Item = Option<&mut Breaker>> {
        let guests = self.guests.iter_mut();
        guests.map(|warm| warm.as_mut().map(|warm| &mut warm.breaker))
    }

    fn views(&self) -> Result<Vec<Option<View>>, RunError> {
        let nodes = &self.stage.nodes;
        lookup::pin(nodes.iter().map(|node| &node.lookups[..])).map_err(|(number, source)| {
            let node = nodes[number].name.clone();
            RunError { node, source }
        })
    }

    fn attempt(
        &mut self,
        given: &Given<'_>,
        views: &Views,
        states: &mut States,
    ) -> Result<Work, RunError> {
        let Given {
            rows,
            offsets,
            tried,
            watched,
            ..
        } = *given;
        states.begin();
        let stage = self.stage.clone();
        let mut report = Report::default();
        let mut sample = None;
        let mut ports: Vec<Vec<Chunk>> = Vec::with_capacity(stage.nodes.len());
        let mut outputs = Vec::new();
        let all = Chunk::read(0, rows, stage.source_format(), &mut report);
        let all = all.map_err(|source| RunError {
            node: stage.name.clone(),
            source,
        })?;
        for (number, node) in stage.nodes.iter().enumerate() {
            let step = Step {
                number,
                stage: &stage,
                node,
                typed: &self.typed[number],
                lane: self.lane,
                offsets,
                tried,
                view: views[number].as_ref(),
            };
            let (since, before) = (Instant::now(), report.rejects.len());
            let keyed = states.of(&node.name);
            let guest = (&mut self.guests[number], keyed);
            let made = step.run(&all, &ports, guest, &mut report);
            if let (Some(_), Ok(chunks)) = (watched.filter(|w| *w == number), &made) {
                let rejects = &report.rejects[before..];
                let made = step.sample(&ports, chunks, rejects, since.elapsed());
                sample = Some(Sample {
                    newest: rows.timestamps.iter().max().copied(),
                    changed: states.get(&node.name).map_or(0, Keyed::changed),
                    ..made
                });
            }
            let made = made.and_then(|chunks| step.typed(chunks, &mut report));
            let fail = |source| RunError {
                node: node.name.clone(),
                source,
            };
            let mut made = made.map_err(fail)?;
            if let Op::Sink { .. } = node.op {
                outputs.extend(made.pop().map(|chunk| (number, chunk)));
            }
            ports.push(made);
        }
        drop(ports);
        let mut work = finish(&stage, outputs, report)?;
        work.sample = sample.map(|sample| Sample {
            cut: work.cut.as_ref().map(|cut| cut.origin),
            ..sample
        });
        Ok(work)
    }
}

/// One node at work on one batch.
struct Step<'a> {
    number: usize,
    stage: &'a Arc<Stage>,
    node: &'a StageNode,
    typed: &'a [Typed],
    lane: u32,
    offsets: &'a [Offset],
    tried: &'a [Tried],
    view: Option<&'a View>,
}

impl Step<'_> {
    fn input(&self, ports: &[Vec<Chunk>]) -> Result<Chunk, OperatorError> {
        let read = |(node, port): &(usize, usize)| ports.get(*node).and_then(|p| p.get(*port));
        match self.node.inputs.as_slice() {
            [one] => Ok(read(one).cloned().unwrap_or_else(Chunk::empty)),
            many => Chunk::merge(many.iter().filter_map(read).cloned().collect()),
        }
    }

    fn run(
        &self,
        all: &Chunk,
        ports: &[Vec<Chunk>],
        (guest, keyed): (&mut Option<Warm>, Option<&mut Keyed>),
        report: &mut Report,
    ) -> Result<Vec<Chunk>, OperatorError> {
        let number = self.number;
        let wasm = match &self.node.op {
            Op::Source => return Ok(vec![all.clone()]),
            Op::Wasm(program) => Some(program),
            _ => None,
        };
        if let (Some(program), Some(warm)) = (wasm, guest) {
            return self.wasm((program, warm, keyed), all, ports, report);
        }
        let chunk = self.input(ports)?;
        if chunk.is_empty() {
            return Ok(vec![Chunk::empty(); self.node.ports.len().max(1)]);
        }
        match &self.node.op {
            Op::Filter(condition) => Ok(vec![filter::filter(number, condition, &chunk, report)?]),
            Op::Route(cases) => route::route(number, cases, &chunk, report),
            Op::Map {
                select,
                format,
                key,
            } => Ok(vec![map::map(
                number,
                (select, format),
                key.as_ref(),
                &chunk,
                report,
            )?]),
            Op::Sink {
                key,
                format,
                is_compacted,
                ..
            } => {
                let how = (key.as_ref(), format.as_ref(), *is_compacted);
                Ok(vec![sink::sink(number, how, chunk, report)?])
            }
            Op::Source | Op::Wasm(_) => Ok(Vec::new()),
        }
    }

    /// A module over its inputs, then over the timers that became due.
    fn wasm(
        &self,
        (program, warm, mut keyed): (&WasmProgram, &mut Warm, Option<&mut Keyed>),
        all: &Chunk,
        ports: &[Vec<Chunk>],
        report: &mut Report,
    ) -> Result<Vec<Chunk>, OperatorError> {
        let mut made = vec![Made::default(); self.node.ports.len()];
        let from = |(node, port): &(usize, usize)| self.stage.port(*node, *port);
        let inputs = self.node.inputs.iter();
        let inputs: Vec<_> = inputs.map(|i| from(i).and_then(format)).collect();
        let outputs: Vec<_> = self.node.ports.iter().map(format).collect();
        if let (Some(keyed), Some(kept)) = (&mut keyed, &self.node.kept) {
            keyed.limit(&program.limits);
            kept.advance(keyed, all.rows.timestamps.iter().max().copied());
        }
        let mut call = Call {
            node: self.number,
            lane: self.lane,
            program,
            offsets: self.offsets,
            part: self.stage.batch.rows as usize,
            tried: self.tried,
            inputs: &inputs,
            outputs: &outputs,
            report,
            port_bytes_max: PORT_BYTES_MAX,
            ports: &mut made,
            keyed,
            given_up: 0,
        };
        warm.lend(self.view.cloned());
        for (input, (node, port)) in self.node.inputs.iter().enumerate() {
            if let Some(chunk) = ports.get(*node).and_then(|p| p.get(*port)) {
                call.run(warm, input as u16, chunk)?;
            }
        }
        call.timers(warm)?;
        warm.lend(None);
        made.iter().map(|made| joined(&made.pieces)).collect()
    }

    /// What the node was given and what it made of it, for a canary. The rows are shared.
    fn sample(
        &self,
        ports: &[Vec<Chunk>],
        made: &[Chunk],
        rejects: &[Reject],
        took: Duration,
    ) -> Sample {
        let read = |(node, port): &(usize, usize)| ports.get(*node).and_then(|p| p.get(*port));
        let inputs = self.node.inputs.iter();
        Sample {
            stage: self.stage.clone(),
            node: self.number,
            lane: self.lane,
            inputs: inputs
                .map(|place| read(place).cloned().unwrap_or_else(Chunk::empty))
                .collect(),
            ports: made.to_vec(),
            rejects: rejects.to_vec(),
            cut: None,
            took,
            offsets: self.offsets.to_vec(),
            view: self.view.cloned(),
            newest: None,
            changed: 0,
            from: 0,
            next: 0,
            copy: None,
        }
    }

    /// Gives each output the typed columns that are needed further on, and no others.
    fn typed(&self, chunks: Vec<Chunk>, report: &mut Report) -> Result<Vec<Chunk>, OperatorError> {
        let mut out = Vec::with_capacity(chunks.len());
        for (port, chunk) in chunks.into_iter().enumerate() {
            out.push(match self.typed.get(port) {
                Some(Typed::No) if chunk.unwritten.is_none() => Chunk {
                    columns: None,
                    ..chunk
                },
                None | Some(Typed::No) => chunk,
                Some(Typed::Keep(needs)) => map::project(chunk, needs)?,
                Some(Typed::Decode { .. }) if chunk.is_empty() => chunk,
                Some(Typed::Decode { format, wanted }) => {
                    map::decode((self.number, port), format, wanted, chunk, report)?
                }
            });
        }
        Ok(out)
    }
}

fn format(port: &Port) -> Option<&Format> {
    port.format.as_ref()
}

pub(crate) fn joined(pieces: &[Chunk]) -> Result<Chunk, OperatorError> {
    match pieces {
        [] => Ok(Chunk::empty()),
        pieces => Chunk::concat(pieces),
    }
}

/// Applies what stops a lane, and leaves out what comes after the cut.
fn finish(
    stage: &Stage,
    outputs: Vec<(usize, Chunk)>,
    mut report: Report,
) -> Result<Work, RunError> {
    super::deadletter::stop_where_told(stage, &mut report);
    let cut = report.cut.take();
    let mut kept = Vec::with_capacity(outputs.len());
    for (number, chunk) in outputs {
        let before = chunk
            .before(cut.as_ref().map(|cut| cut.origin))
            .map_err(|source| RunError {
                node: stage.nodes[number].name.clone(),
                source,
            })?;
        if !before.is_empty() {
            kept.push((number, before.rows));
        }
    }
    let (mut rejects, mut nulled) = (report.rejects, report.nulled);
    if let Some(cut) = &cut {
        rejects.retain(|reject| reject.origin < cut.origin);
        nulled.retain(|origin| *origin < cut.origin);
    }
    nulled.sort_unstable();
    nulled.dedup();
    rejects.sort_by_key(|reject| (reject.origin, reject.node));
    rejects.dedup_by_key(|reject| (reject.origin, reject.node));
    Ok(Work {
        outputs: kept,
        rejects,
        nulled: nulled.len(),
        cut,
        fault: report.fault,
        crowded: report.crowded,
        sample: None,
    })
}
