//! The thread of a canary: runs the candidate over what lanes committed and compares.
//!
//! Called by: `canary`. Invariants: one thread for all lanes, with a lower priority than theirs, so
//! it costs at most one core that nobody else wants; an instance per lane with the node's own limits;
//! it opens none while the modules of the server use most of their memory. The candidate's deaths
//! are those that a lane would see: halved down to the row, counted, and stopped by the breaker.
//! A row that the candidate wants to try again counts as a failure: nobody waits here. Of a node that keeps
//! state it works on a copy, which is migrated where its schema is another, and goes from batch to batch.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use codec::Format;
use wasm::http::Access;
use wasm::{Keyed, Metrics, Module};

use super::compare::{Answer, Asked, compare};
use super::report::CanaryState;
use super::{Ledger, Sample};
use crate::limits::{CANARY_NICE, PORT_BYTES_MAX};
use crate::operator::migrate::migrate;
use crate::operator::program::{Program, RetryPolicy, Warm};
use crate::operator::wasm::{Call, Made};
use crate::operator::{Chunk, OperatorError, Reject, Report, map};
use crate::stage::run::joined;
use crate::stage::{Op, Stage};

pub(super) struct Shadow {
    module: Module,
    samples: Receiver<Sample>,
    ledger: Arc<Ledger>,
    records_max: Option<u64>,
    end: Option<Instant>,
    /// By stage and lane.
    lanes: BTreeMap<(String, u32), Lane>,
}

/// The candidate in one lane.
struct Lane {
    program: Program,
    warm: Warm,
    /// Its copy of what the node keeps.
    keyed: Option<Keyed>,
}

/// What the candidate made of a sample.
struct Candidate {
    report: Report,
    ports: Vec<Chunk>,
    took: Duration,
}

impl Shadow {
    pub fn new(
        module: Module,
        samples: Receiver<Sample>,
        ledger: Arc<Ledger>,
        records_max: Option<u64>,
        end: Option<Instant>,
    ) -> Shadow {
        Shadow {
            module,
            samples,
            ledger,
            records_max,
            end,
            lanes: BTreeMap::new(),
        }
    }

    /// Until it has seen enough, the candidate cannot go on, or nobody wants to know any more.
    pub fn run(mut self) {
        // where the system says no, it competes with the lanes
        let _ = rustix::process::nice(CANARY_NICE);
        while let Some(sample) = self.next() {
            let bytes = sample.bytes();
            let done = self.sample(sample);
            self.ledger.bytes.fetch_sub(bytes, Ordering::Relaxed);
            if let Err(why) = done {
                return self.ledger.end(CanaryState::Failed { why });
            }
            let records = self.ledger.report().records;
            if let Some(max) = self.records_max.filter(|max| records >= *max) {
                let why = format!("{max} records were asked for");
                return self.ledger.end(CanaryState::Done { why });
            }
            self.ledger.changed.send_modify(|version| *version += 1);
        }
    }

    fn next(&self) -> Option<Sample> {
        if !self.ledger.runs() {
            return None;
        }
        let Some(end) = self.end else {
            return self.samples.recv().ok();
        };
        let left = end.saturating_duration_since(Instant::now());
        let sample = match left.is_zero() {
            true => Err(RecvTimeoutError::Timeout),
            false => self.samples.recv_timeout(left),
        };
        if let Err(RecvTimeoutError::Timeout) = sample {
            let why = "its time is over".to_string();
            self.ledger.end(CanaryState::Done { why });
        }
        sample.ok()
    }

    fn sample(&mut self, mut sample: Sample) -> Result<(), String> {
        let all = sample.offsets.len() as u32;
        let fault = |error: OperatorError| format!("a fault of ours: {error}");
        let cut = sample.cut.take();
        let inputs = before(sample.inputs, cut).map_err(fault)?;
        let keeps = sample.stage.nodes[sample.node].kept.is_some();
        // time goes on without rows too
        if inputs.iter().all(Chunk::is_empty) && !keeps {
            return Ok(());
        }
        let key = (sample.stage.name.clone(), sample.lane);
        let mut lane = match self.lanes.remove(&key) {
            Some(known) => known,
            None => self.open(&sample.stage, sample.node, sample.lane)?,
        };
        if let Some(copy) = sample.copy.take() {
            let made = self.copied(&mut lane, copy, sample.lane);
            made.map_err(|why| format!("lane {}: {why}", sample.lane))?;
        }
        let asked = Question {
            stage: &sample.stage,
            node: sample.node,
            lane: sample.lane,
            offsets: &sample.offsets,
            newest: sample.newest,
        };
        // it sees what the running version saw
        lane.warm.lend(sample.view.take());
        let made = asked.answer(&mut lane, &inputs).map_err(fault)?;
        lane.warm.lend(None);
        self.changed(&mut lane, sample.changed);
        self.lanes.insert(key, lane);
        let Candidate {
            mut report,
            ports,
            took,
        } = made;
        // the breaker, or it cannot be opened again: what comes after that it has not worked
        let stop = report.cut.take();
        let cut = stop
            .as_ref()
            .map_or(cut, |stop| Some(stop.origin.min(cut.unwrap_or(all))));
        let old = answer(sample.ports, sample.rejects, cut).map_err(fault)?;
        let new = answer(ports, report.rejects, cut).map_err(fault)?;
        let inputs = before(inputs, cut).and_then(written).map_err(fault)?;
        let ports = &sample.stage.nodes[sample.node].ports;
        let names: Vec<&str> = ports.iter().map(|port| port.name.as_str()).collect();
        let asked = Asked {
            lane: sample.lane,
            offsets: &sample.offsets,
            inputs: &inputs,
            ports: &names,
        };
        // lanes do not wait for it: only what it found is added under the lock
        let known = self.ledger.report().differences.clone();
        let found = compare(&asked, &old, &new, &known);
        let mut seen = self.ledger.report();
        seen.add(found);
        seen.running_us += sample.took.as_micros() as u64;
        seen.candidate_us += took.as_micros() as u64;
        seen.fault = report.fault.or(seen.fault.take());
        drop(seen);
        match stop {
            Some(stop) => Err(stop.why.message().to_string()),
            None => Ok(()),
        }
    }

    /// The candidate goes on with a copy of what the node keeps.
    fn copied(
        &self,
        lane: &mut Lane,
        copy: Result<Keyed, String>,
        number: u32,
    ) -> Result<(), String> {
        // the one before gives its place to it
        lane.keyed = None;
        let mut keyed = copy?;
        let schema = self.module.info().state_schema().unwrap_or_default();
        let foreign = keyed.schema() != schema;
        if foreign {
            let with = (&lane.program, &mut lane.warm);
            let migrated = migrate(with, number, &mut keyed, schema, &self.ledger.stop);
            migrated.map_err(|error| error.to_string())?;
            keyed.keep();
        }
        lane.keyed = Some(keyed);
        let mut report = self.ledger.report();
        let kept = report.kept.get_or_insert_default();
        kept.copies += 1;
        kept.migrated += u64::from(foreign);
        Ok(())
    }

    /// A batch is done: what it changed of the copy stays, and is counted beside what was changed.
    fn changed(&self, lane: &mut Lane, running: usize) {
        let Some(keyed) = &mut lane.keyed else { return };
        let candidate = keyed.changed();
        keyed.keep();
        let mut report = self.ledger.report();
        let kept = report.kept.get_or_insert_default();
        kept.running += running as u64;
        kept.candidate += candidate as u64;
        kept.batches_differ += u64::from(running != candidate);
    }

    fn open(&self, stage: &Stage, node: usize, lane: u32) -> Result<Lane, String> {
        let program = candidate(stage, node, &self.module)
            .ok_or_else(|| "the node runs no module any more".to_string())?;
        let host = self.module.host();
        if host.memory_bytes() > host.memory_bytes_max() / 2 {
            let message = "modules use more than half of the server's memory for them";
            return Err(format!("{message}: none is left for a canary"));
        }
        let warm = program.open(lane, Metrics::default(), self.ledger.stop.clone());
        let warm = warm.map_err(|e| e.to_string())?;
        Ok(Lane {
            program,
            warm,
            keyed: None,
        })
    }
}

/// The node with another module.
pub(crate) fn candidate(stage: &Stage, node: usize, module: &Module) -> Option<Program> {
    let Op::Wasm(program) = &stage.nodes.get(node)?.op else {
        return None;
    };
    let mut program = Program {
        module: module.clone(),
        retry: RetryPolicy {
            max: 0,
            ..program.retry
        },
        ..(**program).clone()
    };
    // it must not take turns from what runs
    let http = program.context.http.as_deref();
    program.context.http = http
        .map(|access| Access::new(access.grant.clone(), program.limits.http_per_s))
        .map(Arc::new);
    let labels = &mut program.context.labels;
    labels.node = format!("{} (canary)", labels.node);
    Some(program)
}

/// A batch for the candidate.
struct Question<'a> {
    stage: &'a Stage,
    node: usize,
    lane: u32,
    offsets: &'a [model::ids::Offset],
    newest: Option<i64>,
}

impl Question<'_> {
    fn answer(&self, lane: &mut Lane, inputs: &[Chunk]) -> Result<Candidate, OperatorError> {
        let Lane {
            program,
            warm,
            keyed,
        } = lane;
        let mut report = Report::default();
        let typed = self.typed(warm, inputs, &mut report)?;
        let node = &self.stage.nodes[self.node];
        if let (Some(keyed), Some(kept)) = (&mut *keyed, &node.kept) {
            keyed.begin();
            keyed.limit(&program.limits);
            kept.advance(keyed, self.newest);
        }
        let from = |(node, port): &(usize, usize)| self.stage.port(*node, *port);
        let format = |place| from(place).and_then(|port| port.format.as_ref());
        let edges: Vec<Option<&Format>> = node.inputs.iter().map(format).collect();
        let outputs: Vec<_> = node.ports.iter().map(|port| port.format.as_ref()).collect();
        let mut made = vec![Made::default(); node.ports.len()];
        let mut call = Call {
            node: self.node,
            lane: self.lane,
            program,
            offsets: self.offsets,
            part: self.stage.batch.rows as usize,
            tried: &[],
            inputs: &edges,
            outputs: &outputs,
            report: &mut report,
            port_bytes_max: PORT_BYTES_MAX,
            ports: &mut made,
            keyed: keyed.as_mut(),
            given_up: 0,
        };
        let since = Instant::now();
        for (input, chunk) in typed.iter().enumerate() {
            call.run(warm, input as u16, chunk)?;
        }
        call.timers(warm)?;
        let took = since.elapsed();
        let ports = made.iter().map(|made| joined(&made.pieces));
        Ok(Candidate {
            ports: ports.collect::<Result<_, _>>()?,
            report,
            took,
        })
    }

    /// The inputs with the columns that the candidate selected, which may be others than those
    /// that the lane decoded.
    fn typed(
        &self,
        warm: &Warm,
        inputs: &[Chunk],
        report: &mut Report,
    ) -> Result<Vec<Chunk>, OperatorError> {
        let places = &self.stage.nodes[self.node].inputs;
        let mut typed = Vec::with_capacity(inputs.len());
        for ((input, chunk), place) in inputs.iter().enumerate().zip(places) {
            let selected = warm.selected(input as u16);
            let port = self.stage.port(place.0, place.1);
            let format = port.and_then(|port| port.format.as_ref());
            typed.push(match format {
                Some(format) if !selected.is_empty() && !chunk.is_empty() => {
                    let wanted = format.project(|name| selected.iter().any(|f| f.name == name));
                    map::decode(*place, format, &wanted, chunk.clone(), report)?
                }
                _ => chunk.clone(),
            });
        }
        Ok(typed)
    }
}

/// What came of rows before the cut, with written values.
fn answer(
    ports: Vec<Chunk>,
    mut rejects: Vec<Reject>,
    cut: Option<u32>,
) -> Result<Answer, OperatorError> {
    rejects.retain(|reject| cut.is_none_or(|cut| reject.origin < cut));
    rejects.sort_by_key(|reject| reject.origin);
    rejects.dedup_by_key(|reject| reject.origin);
    Ok(Answer {
        ports: before(ports, cut).and_then(written)?,
        rejects,
    })
}

fn before(chunks: Vec<Chunk>, cut: Option<u32>) -> Result<Vec<Chunk>, OperatorError> {
    chunks.iter().map(|chunk| chunk.before(cut)).collect()
}

fn written(chunks: Vec<Chunk>) -> Result<Vec<Chunk>, OperatorError> {
    chunks.iter().map(Chunk::written).collect()
}

impl Drop for Shadow {
    fn drop(&mut self) {
        // after a plain end this says nothing new
        if std::thread::panicking() {
            let why = "its thread panicked: this is a bug".to_string();
            self.ledger.end(CanaryState::Failed { why });
        }
    }
}
