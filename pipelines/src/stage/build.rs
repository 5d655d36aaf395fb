//! From the spec, its compiled nodes and the catalog to the program of each stage.
//!
//! Called by: `Runtime::start`, when every topic exists. Invariants: nothing here can fail for a
//! pipeline that was prepared, but for topics that are gone. Defaults of the policy stand here.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use codec::Format;
use model::catalog::Catalog;
use model::topic::Topic;
use wasm::http::Access;
use wasm::http::grant::Grant;
use wasm::{Edge, Labels, Limits, Lookups, Module, OpenContext};

use super::state::{Kept, state_topic};
use super::{Batching, Disposal, Op, Port, Stage, StageNode};
use crate::compile::{Compiled, Fields, Program};
use crate::graph::{Complaints, Graph};
use crate::limits::{BATCH_QUICK_MS, BATCH_QUICK_PER_DEADLINE, BATCH_ROWS_GROWN, LOOKUP_BYTES};
use crate::lookup::{Lookup, Tables};
use crate::operator::program::{Program as WasmProgram, RetryPolicy};
use crate::plan::group_name;
use crate::spec::types::{
    At, BatchPolicy, LookupDef, Millis, ModuleLimits, Node, OnError, Size, Then, Wasm,
};
use crate::spec::{Broken, Spec};

const BATCH_ROWS: u32 = 1_000;
const BATCH_BYTES: u64 = 1 << 20;
const BATCH_WAIT_MS: u64 = 5;
const RETRIES: u32 = 3;
const BACKOFF_MS: u64 = 100;
const BACKOFF_CAP_MS: u64 = 5_000;

/// A topic that a stage needs is not there.
#[derive(Debug, thiserror::Error)]
#[error("topic `{0}` does not exist; it was there when the pipeline was checked")]
pub struct NoTopic(pub String);

/// What was made ready before: compiled nodes and loaded modules.
pub(crate) struct Parts<'a> {
    pub spec: &'a Spec,
    pub compiled: &'a [Compiled],
    pub modules: &'a BTreeMap<String, Module>,
    pub tables: &'a Tables,
    pub generation: u64,
}

/// The stages of a pipeline, in the order of their sources in the file.
pub(crate) fn stages(parts: &Parts<'_>, catalog: &Catalog) -> Result<Vec<Arc<Stage>>, NoTopic> {
    let mut unheard = Complaints {
        spec: parts.spec,
        list: Vec::new(),
    };
    let graph = Graph::new(parts.spec, &Broken::default(), &mut unheard);
    let sources = graph.sources();
    sources
        .into_iter()
        .map(|source| stage(parts, catalog, &graph, source).map(Arc::new))
        .collect()
}

fn stage(
    parts: &Parts<'_>,
    catalog: &Catalog,
    graph: &Graph<'_>,
    source: usize,
) -> Result<Stage, NoTopic> {
    let inside = graph.reached(source);
    let place: BTreeMap<usize, usize> = inside.iter().enumerate().map(|(i, n)| (*n, i)).collect();
    let compiled: Vec<&Compiled> = inside
        .iter()
        .filter_map(|number| parts.compiled.iter().find(|c| c.number == *number))
        .collect();
    let mut nodes = Vec::with_capacity(compiled.len());
    let mut modules = BTreeMap::new();
    for node in compiled {
        let built = node_of(parts, catalog, graph, node, &place)?;
        if let (Node::Wasm(wasm), Some(digest)) = (graph.node(node.number).1, built.module) {
            modules.insert(wasm.module.value.clone(), digest);
        }
        nodes.push(built);
    }
    let (name, node) = graph.node(source);
    let Node::Source(from) = node else {
        return Err(NoTopic(name.value.clone()));
    };
    let topic = find(catalog, &from.topic)?;
    Ok(Stage {
        pipeline: parts.spec.name().to_string(),
        name: name.value.clone(),
        group: group_name(parts.spec.name(), name),
        generation: parts.generation,
        topic: topic.id,
        topic_name: topic.name.clone(),
        partitions: topic.spec.partitions,
        batch: batching(&parts.spec.policy.batch, &nodes),
        nodes,
        modules,
    })
}

fn find<'c>(catalog: &'c Catalog, name: &str) -> Result<&'c Topic, NoTopic> {
    catalog.topic(name).ok_or_else(|| NoTopic(name.to_string()))
}

fn node_of(
    parts: &Parts<'_>,
    catalog: &Catalog,
    graph: &Graph<'_>,
    compiled: &Compiled,
    place: &BTreeMap<usize, usize>,
) -> Result<StageNode, NoTopic> {
    let (name, node) = graph.node(compiled.number);
    let (mut module, mut kept) = (None, None);
    let op = match (&compiled.program, node) {
        (Program::Filter(condition), _) => Op::Filter(condition.clone()),
        (Program::Route(cases), _) => Op::Route(cases.clone()),
        (
            Program::Map {
                select,
                format,
                key,
            },
            _,
        ) => Op::Map {
            select: select.clone(),
            format: format.clone(),
            key: key.clone(),
        },
        (Program::Sink { key, format }, Node::Sink(sink)) => {
            let topic = find(catalog, &sink.topic)?;
            Op::Sink {
                topic: topic.id,
                partitions: topic.spec.partitions,
                is_compacted: topic.spec.compact,
                key: key.clone(),
                format: format.clone(),
            }
        }
        (Program::Wasm, Node::Wasm(wasm)) => {
            let loaded = parts.modules.get(&wasm.module.value);
            let loaded = loaded.ok_or_else(|| NoTopic(wasm.module.value.clone()))?;
            module = Some(loaded.digest());
            kept = kept_of(parts.spec.name(), (name, wasm), loaded, catalog)?;
            let edges = edges(parts.compiled, compiled, wasm);
            Op::Wasm(Box::new(program(parts.spec, (name, wasm), edges, loaded)))
        }
        _ => Op::Source,
    };
    let inside = |link: &crate::graph::Link| place.get(&link.node).map(|at| (*at, link.port));
    Ok(StageNode {
        name: name.value.clone(),
        // An input from another source's stage has no place here: its rows go through there.
        inputs: compiled
            .inputs
            .iter()
            .map(|link| inside(link).unwrap_or((usize::MAX, 0)))
            .collect(),
        edge: match node.inputs() {
            [one] => one.to_string(),
            _ => String::new(),
        },
        op,
        ports: ports(node, compiled),
        then: disposal(parts.spec, node.on_error(), catalog)?,
        module,
        kept,
        lookups: lookups(parts.tables, node, catalog)?,
    })
}

fn ports(node: &Node, compiled: &Compiled) -> Vec<Port> {
    let ports = node.ports().into_iter().zip(&compiled.ports);
    ports
        .map(|(name, fields)| Port {
            name: name.to_string(),
            format: format(fields).cloned(),
        })
        .collect()
}

/// The tables of a node, which begin to be read if nobody had them yet.
fn lookups(tables: &Tables, node: &Node, catalog: &Catalog) -> Result<Vec<Lookup>, NoTopic> {
    let Node::Wasm(wasm) = node else {
        return Ok(Vec::new());
    };
    let lookup = |(name, def): (&At<String>, &LookupDef)| {
        let bytes_max = def.limit.as_ref().map_or(LOOKUP_BYTES, |limit| limit.0) as usize;
        Ok(Lookup {
            name: name.value.clone(),
            table: tables.of(find(catalog, &def.topic)?, bytes_max),
            bytes_max,
        })
    };
    wasm.lookups.iter().map(lookup).collect()
}

/// What a node's module keeps; its topic was made on apply.
fn kept_of(
    pipeline: &str,
    (node, wasm): (&str, &Wasm),
    module: &Module,
    catalog: &Catalog,
) -> Result<Option<Kept>, NoTopic> {
    let Some(schema) = module.info().state_schema() else {
        return Ok(None);
    };
    let topic = find(catalog, &state_topic(pipeline, node))?;
    let lateness = wasm.lateness.as_ref().map_or(0, |lateness| lateness.0);
    Ok(Some(Kept {
        topic: topic.id,
        schema,
        lateness_us: i64::try_from(lateness.saturating_mul(1_000)).unwrap_or(i64::MAX),
    }))
}

fn format(fields: &Fields) -> Option<&Format> {
    match fields {
        Fields::Known(format) => Some(format),
        Fields::Base | Fields::Unknown => None,
    }
}

/// Inputs and outputs of a guest, with the fields of each.
pub(crate) fn edges(all: &[Compiled], compiled: &Compiled, wasm: &Wasm) -> (Vec<Edge>, Vec<Edge>) {
    let edge = |name: String, fields: Option<&Fields>| Edge {
        name,
        fields: fields
            .and_then(format)
            .map(|format| format.schema().clone()),
    };
    let inputs = wasm
        .inputs
        .iter()
        .zip(&compiled.inputs)
        .map(|(input, link)| {
            let from = all.iter().find(|c| c.number == link.node);
            edge(input.to_string(), from.and_then(|c| c.ports.get(link.port)))
        });
    let outputs = wasm.outputs.names().zip(&compiled.ports);
    let outputs = outputs.map(|(name, fields)| edge(name.to_string(), Some(fields)));
    (inputs.collect(), outputs.collect())
}

/// The guest of a node as it is to be opened.
pub(crate) fn program(
    spec: &Spec,
    (name, wasm): (&str, &Wasm),
    (inputs, outputs): (Vec<Edge>, Vec<Edge>),
    module: &Module,
) -> WasmProgram {
    let def = spec.modules.get(&wasm.module);
    let limits = def.map(|m| limits(&m.limits)).unwrap_or_default();
    let rules = def.and_then(|m| m.grants.http.as_ref());
    let http = rules.map(|rules| {
        let rules = rules.iter().map(|rule| rule.value.clone()).collect();
        Arc::new(Access::new(Grant { rules }, limits.http_per_s))
    });
    WasmProgram {
        module: module.clone(),
        context: OpenContext {
            params: wasm.params.to_string(),
            inputs,
            outputs,
            lookups: Lookups::new(wasm.lookups.names().map(str::to_string)),
            labels: Labels {
                pipeline: spec.name().to_string(),
                node: name.to_string(),
                lane: 0,
            },
            http,
            ambient: def
                .map(|m| m.grants.ambient(format!("{}/{name}", spec.name())))
                .unwrap_or_default(),
            ..OpenContext::default()
        },
        limits,
        retry: retry(spec, wasm.on_error.as_ref()),
    }
}

fn limits(own: &ModuleLimits) -> Limits {
    let default = Limits::default();
    let size = |own: &Option<At<Size>>, default| own.as_ref().map_or(default, |s| s.0 as usize);
    let time = |own: &Option<At<Millis>>, default| own.as_ref().map_or(default, |t| t.0);
    let number =
        |own: &Option<At<u32>>, default| own.as_ref().map_or(default, |n| n.value as usize);
    Limits {
        memory_bytes: size(&own.memory, default.memory_bytes),
        deadline_ms: time(&own.deadline, default.deadline_ms),
        open_deadline_ms: time(&own.open_deadline, default.open_deadline_ms),
        output_bytes_max: size(&own.output, default.output_bytes_max),
        output_ratio_max: number(&own.output_ratio, default.output_ratio_max),
        log_bytes_per_s: size(&own.log, default.log_bytes_per_s as usize) as u64,
        metrics: number(&own.metrics, default.metrics),
        table_elements: number(&own.table_elements, default.table_elements),
        state_bytes: size(&own.state, default.state_bytes),
        timers: number(&own.timers, default.timers),
        http_requests: number(&own.http_requests, default.http_requests),
        http_at_once: number(&own.http_at_once, default.http_at_once),
        http_per_s: number(&own.http_rate, default.http_per_s as usize) as u64,
        http_timeout_ms: time(&own.http_timeout, default.http_timeout_ms),
        http_time_ms: time(&own.http_time, default.http_time_ms),
        http_sent_bytes: size(&own.http_sent, default.http_sent_bytes),
        http_received_bytes: size(&own.http_received, default.http_received_bytes),
        ..default
    }
}

/// What the policy says holds. Where it says no rows, batches may grow, unless requests to others are
/// counted by them, or all rows of a call that fails are given up at once, or timers would fire later.
fn batching(policy: &BatchPolicy, nodes: &[StageNode]) -> Batching {
    let programs = || {
        nodes.iter().filter_map(|node| match &node.op {
            Op::Wasm(program) => Some(program),
            _ => None,
        })
    };
    let said = policy.rows.as_ref().map(|rows| rows.value);
    let rows = said.unwrap_or(BATCH_ROWS);
    let bears = |program: &WasmProgram| program.context.http.is_none() && program.retry.max > 0;
    let keeps = nodes.iter().any(|node| node.kept.is_some());
    let grows = said.is_none() && !keeps && programs().all(|program| bears(program));
    let deadline = programs().map(|program| program.limits.deadline_ms).min();
    let deadline = Duration::from_millis(deadline.unwrap_or(u64::MAX));
    Batching {
        rows,
        rows_max: if grows { BATCH_ROWS_GROWN } else { rows },
        bytes: policy.bytes.as_ref().map_or(BATCH_BYTES, |b| b.0),
        wait_ms: policy.wait.as_ref().map_or(BATCH_WAIT_MS, |w| w.0),
        quick: Duration::from_millis(BATCH_QUICK_MS).min(deadline / BATCH_QUICK_PER_DEADLINE),
    }
}

/// The node's own words first, then the pipeline's, then the defaults; key by key.
fn retry(spec: &Spec, own: Option<&OnError>) -> RetryPolicy {
    let own = own.and_then(|p| p.retry.as_ref());
    let all = spec.policy.on_error.retry.as_ref();
    let max = own.and_then(|r| r.max).or(all.and_then(|r| r.max));
    let backoff = own.and_then(|r| r.backoff).or(all.and_then(|r| r.backoff));
    let cap = own.and_then(|r| r.cap).or(all.and_then(|r| r.cap));
    RetryPolicy {
        max: max.unwrap_or(RETRIES),
        backoff_ms: backoff.map_or(BACKOFF_MS, |m| m.0),
        cap_ms: cap.map_or(BACKOFF_CAP_MS, |m| m.0),
    }
}

fn disposal(spec: &Spec, own: Option<&OnError>, catalog: &Catalog) -> Result<Disposal, NoTopic> {
    let then = own
        .and_then(|p| p.then.as_ref())
        .or(spec.policy.on_error.then.as_ref());
    Ok(match then {
        None | Some(Then::Stop) => Disposal::Stop,
        Some(Then::Drop) => Disposal::Drop,
        Some(Then::DeadLetter(name)) => {
            let topic = find(catalog, name)?;
            Disposal::DeadLetter {
                topic: topic.id,
                partitions: topic.spec.partitions,
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use model::ids::TopicId;

    use super::*;
    use crate::tests::support::World;
    use crate::tests::support::guest::guest;

    fn program(http: bool, tries: u32, deadline_ms: u64) -> WasmProgram {
        let module = World::new().host.load(&guest('-', ""), &Default::default());
        let access = || Arc::new(Access::new(Grant { rules: vec![] }, 1));
        WasmProgram {
            module: module.unwrap_or_else(|e| panic!("{e}")),
            context: OpenContext {
                http: http.then(access),
                ..OpenContext::default()
            },
            limits: Limits {
                deadline_ms,
                ..Limits::default()
            },
            retry: RetryPolicy {
                max: tries,
                backoff_ms: 1,
                cap_ms: 1,
            },
        }
    }

    fn node(op: Op) -> StageNode {
        StageNode {
            name: "n".to_string(),
            inputs: Vec::new(),
            edge: String::new(),
            op,
            ports: Vec::new(),
            then: Disposal::Stop,
            module: None,
            kept: None,
            lookups: Vec::new(),
        }
    }

    /// Rows that are enough, rows at most, microseconds that are quick.
    fn check(rows: Option<u32>, node: StageNode, expected: (u32, u32, u128)) {
        let at = |value| At {
            value,
            ..At::default()
        };
        let policy = BatchPolicy {
            rows: rows.map(at),
            ..BatchPolicy::default()
        };
        let made = batching(&policy, &[self::node(Op::Source), node]);
        let made = (made.rows, made.rows_max, made.quick.as_micros());
        assert_eq!(made, expected);
    }

    #[test]
    fn batches_grow_where_they_mean_nothing() {
        let wasm = |program| node(Op::Wasm(Box::new(program)));
        check(None, node(Op::Source), (1000, 16_000, 5000));
        check(Some(500), node(Op::Source), (500, 500, 5000));
        check(None, wasm(program(false, 3, 1000)), (1000, 16_000, 5000));
        check(None, wasm(program(false, 3, 20)), (1000, 16_000, 1000));
        check(None, wasm(program(true, 3, 1000)), (1000, 1000, 5000));
        check(None, wasm(program(false, 0, 1000)), (1000, 1000, 5000));
        let kept = Some(Kept {
            topic: TopicId(1),
            schema: 1,
            lateness_us: 0,
        });
        let keeps = StageNode {
            kept,
            ..wasm(program(false, 3, 1000))
        };
        check(None, keeps, (1000, 1000, 5000));
    }
}
