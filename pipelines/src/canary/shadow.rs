//! The thread of a canary: runs the candidate over what lanes committed and compares.
//!
//! Called by: `canary`. Invariants: one thread for all lanes, with a lower priority than theirs, so
//! it costs at most one core that nobody else wants; an instance per lane with the node's own limits;
//! it opens none while the modules of the server use most of their memory. The candidate's deaths
//! are those that a lane would see: halved down to the row, counted, and stopped by the breaker.
//! A row that the candidate wants to try again counts as a failure: nobody waits here.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use codec::Format;
use wasm::http::Access;
use wasm::{Metrics, Module};

use super::compare::{Answer, Asked, compare};
use super::report::CanaryState;
use super::{Ledger, Sample};
use crate::limits::{CANARY_NICE, PORT_BYTES_MAX};
use crate::operator::wasm::{Call, Made, Program, RetryPolicy, Warm};
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
    lanes: BTreeMap<(String, u32), (Program, Warm)>,
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
        if inputs.iter().all(Chunk::is_empty) {
            return Ok(());
        }
        let key = (sample.stage.name.clone(), sample.lane);
        let (program, mut warm) = match self.lanes.remove(&key) {
            Some(known) => known,
            None => self.open(&sample.stage, sample.node, sample.lane)?,
        };
        let asked = Question {
            stage: &sample.stage,
            node: sample.node,
            lane: sample.lane,
            offsets: &sample.offsets,
        };
        // it sees what the running version saw
        warm.lend(sample.view.take());
        let made = asked.answer(&program, &mut warm, &inputs).map_err(fault)?;
        warm.lend(None);
        self.lanes.insert(key, (program, warm));
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
        let mut seen = self.ledger.report();
        compare(&asked, &old, &new, &mut seen);
        seen.running_us += sample.took.as_micros() as u64;
        seen.candidate_us += took.as_micros() as u64;
        seen.fault = report.fault.or(seen.fault.take());
        drop(seen);
        match stop {
            Some(stop) => Err(stop.why.message().to_string()),
            None => Ok(()),
        }
    }

    fn open(&self, stage: &Stage, node: usize, lane: u32) -> Result<(Program, Warm), String> {
        let program = candidate(stage, node, &self.module)
            .ok_or_else(|| "the node runs no module any more".to_string())?;
        let host = self.module.host();
        if host.memory_bytes() > host.memory_bytes_max() / 2 {
            let message = "modules use more than half of the server's memory for them";
            return Err(format!("{message}: none is left for a canary"));
        }
        let warm = program.open(lane, Metrics::default(), self.ledger.stop.clone())?;
        Ok((program, warm))
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
}

impl Question<'_> {
    fn answer(
        &self,
        program: &Program,
        warm: &mut Warm,
        inputs: &[Chunk],
    ) -> Result<Candidate, OperatorError> {
        let mut report = Report::default();
        let typed = self.typed(warm, inputs, &mut report)?;
        let node = &self.stage.nodes[self.node];
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
            tried: None,
            inputs: &edges,
            outputs: &outputs,
            report: &mut report,
            port_bytes_max: PORT_BYTES_MAX,
            ports: &mut made,
            keyed: None,
        };
        let since = Instant::now();
        for (input, chunk) in typed.iter().enumerate() {
            call.run(warm, input as u16, chunk)?;
        }
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
