//! Everything that can be wrong with a pipeline that can be read.
//!
//! Called by: the server's service, the command line, `Runtime::prepare`, and `spec::parse` for
//! the part of a file that has no errors. Pure. Invariants: all complaints at once, sorted by
//! place; with no catalog what only a catalog can tell is left out.
//! Refuses: what `graph` and `compile` say, unknown modules and dead-letter topics, loops
//! through topics, topics that exist but differ.

use std::collections::{BTreeMap, BTreeSet};

use model::catalog::Catalog;
use model::diagnostic::Diagnostic;
use model::topic::TopicSpec;

use crate::compile::{Found, Topics, compile};
use crate::graph::{Complaints, Graph};
use crate::spec::types::{At, Node, OnError, Spec, Then};
use crate::spec::yaml::Pos;
use crate::spec::{Broken, hint, sorted};

/// Errors, warnings and notes about a whole pipeline.
pub fn lint(spec: &Spec, catalog: Option<&Catalog>) -> Vec<Diagnostic> {
    sorted(lint_partial(spec, &Broken::default(), catalog))
}

/// The same for a file of which a part could not be read: what refers to that part is let be.
pub(crate) fn lint_partial(
    spec: &Spec,
    broken: &Broken,
    catalog: Option<&Catalog>,
) -> Vec<Diagnostic> {
    let mut out = Complaints {
        spec,
        list: Vec::new(),
    };
    let topics = Topics {
        spec,
        broken,
        catalog,
    };
    let graph = Graph::new(spec, broken, &mut out);
    compile(&graph, &topics, &mut out);
    modules(spec, broken, &mut out);
    declared_topics(spec, catalog, &mut out);
    dead_letters(spec, &topics, &mut out);
    lookups(spec, &topics, &mut out);
    topic_loops(&graph, &mut out);
    if broken.nodes.is_empty() {
        unused(&graph, broken, &mut out);
    }
    out.list
}

fn modules(spec: &Spec, broken: &Broken, out: &mut Complaints<'_>) {
    for (_, node) in spec.nodes.iter() {
        let Node::Wasm(wasm) = node else { continue };
        let known = |name: &String| spec.modules.get(name).is_some();
        if !known(&wasm.module) && !broken.modules.contains(&wasm.module) {
            let advice = hint(&wasm.module, spec.modules.names())
                .unwrap_or_else(|| "declare it under `modules`".to_string());
            out.error(
                wasm.module.at,
                format!("no module `{}`", wasm.module.value),
                Some(advice),
            );
        }
    }
}

fn declared_topics(spec: &Spec, catalog: Option<&Catalog>, out: &mut Complaints<'_>) {
    let Some(catalog) = catalog else { return };
    for (name, def) in spec.topics.iter() {
        let existing = catalog.topic(name);
        if let Some(difference) = existing.and_then(|topic| def.difference(&topic.spec)) {
            let message = format!(
                "topic `{}` exists already and differs: {difference}",
                name.value
            );
            let advice = "say what exists, use another name, or delete the topic".to_string();
            out.error(name.at, message, Some(advice));
        }
    }
}

/// All policies of the file, each with the node it is for.
fn policies(spec: &Spec) -> impl Iterator<Item = (Option<&At<String>>, &OnError)> {
    let own = spec
        .nodes
        .iter()
        .filter_map(|(name, n)| n.on_error().map(|p| (Some(name), p)));
    std::iter::once((None, &spec.policy.on_error)).chain(own)
}

fn dead_letters(spec: &Spec, topics: &Topics<'_>, out: &mut Complaints<'_>) {
    for (_, policy) in policies(spec) {
        if let Some(Then::DeadLetter(topic)) = &policy.then {
            let why = "a dead letter has the bytes of its record";
            must_keep_bytes(topic, why, topics, out);
            if let Found::Topic(TopicSpec { compact: true, .. }) = topics.find(topic) {
                let message = format!(
                    "topic `{}` is compacted: of the dead letters of one key it would keep the last, and \
                     none without a key",
                    topic.value
                );
                let advice = "use a topic that is not compacted".to_owned();
                out.error(topic.at, message, Some(advice));
            }
        }
    }
}

fn lookups(spec: &Spec, topics: &Topics<'_>, out: &mut Complaints<'_>) {
    for (_, node) in spec.nodes.iter() {
        let Node::Wasm(wasm) = node else { continue };
        for (_, lookup) in wasm.lookups.iter() {
            must_keep_bytes(&lookup.topic, "a lookup gives bytes", topics, out);
        }
    }
}

/// Complains of a topic that is not there, and of one whose values are columns.
fn must_keep_bytes(topic: &At<String>, why: &str, topics: &Topics<'_>, out: &mut Complaints<'_>) {
    if topics.check(topic, out).keeps_columns() {
        let message = format!("topic `{}` keeps columns, and {why}", topic.value);
        let advice = "use a topic of `raw` or `json`".to_owned();
        out.error(topic.at, message, Some(advice));
    }
}

/// Topics from which a stage reads and to which it writes must not go round.
fn topic_loops(graph: &Graph<'_>, out: &mut Complaints<'_>) {
    let spec = graph.spec;
    let default = match &spec.policy.on_error.then {
        Some(Then::DeadLetter(topic)) => Some(topic),
        _ => None,
    };
    // Topic → the topics its readers write, with the place that says so.
    let mut writes: BTreeMap<&str, Vec<(&str, Pos, &'static str)>> = BTreeMap::new();
    for source in graph.sources() {
        let Node::Source(from) = graph.node(source).1 else {
            continue;
        };
        for number in graph.reached(source) {
            let node = graph.node(number).1;
            let entry = writes.entry(from.topic.as_str()).or_default();
            if let Node::Sink(sink) = node {
                entry.push((&sink.topic.value, sink.topic.at, "sink"));
            }
            let then = node.on_error().and_then(|p| p.then.as_ref());
            let dead = match then {
                Some(Then::DeadLetter(topic)) => Some(topic),
                Some(_) => None,
                None => default,
            };
            entry.extend(dead.map(|topic| (topic.value.as_str(), topic.at, "dead letters")));
        }
    }
    let mut told = BTreeSet::new();
    for (from, list) in &writes {
        for (to, at, what) in list {
            if let Some(path) = path(&writes, to, from) {
                let mut topics: BTreeSet<&str> = path.iter().copied().collect();
                topics.insert(from);
                if !told.insert((topics, *at)) {
                    continue;
                }
                let path = std::iter::once(*from)
                    .chain(path)
                    .collect::<Vec<_>>()
                    .join(" -> ");
                let message = format!("{what} to topic `{to}` would go round for ever: {path}");
                out.error(*at, message, Some("write to another topic".to_string()));
            }
        }
    }
}

/// The topics from `from` to `to`, both included.
fn path<'a>(
    writes: &BTreeMap<&'a str, Vec<(&'a str, Pos, &'static str)>>,
    from: &'a str,
    to: &str,
) -> Option<Vec<&'a str>> {
    let mut before: BTreeMap<&str, Option<&str>> = BTreeMap::from([(from, None)]);
    let mut queue = std::collections::VecDeque::from([from]);
    while let Some(here) = queue.pop_front() {
        if here == to {
            let mut path = vec![here];
            while let Some(Some(last)) = before.get(path[path.len() - 1]) {
                path.push(*last);
            }
            path.reverse();
            return Some(path);
        }
        for (next, _, _) in writes.get(here).into_iter().flatten() {
            if !before.contains_key(next) {
                before.insert(*next, Some(here));
                queue.push_back(*next);
            }
        }
    }
    None
}

/// What is there but has no effect.
fn unused(graph: &Graph<'_>, broken: &Broken, out: &mut Complaints<'_>) {
    let spec = graph.spec;
    let read: BTreeSet<_> = graph.links.iter().flatten().flatten().copied().collect();
    for (number, (name, node)) in spec.nodes.0.iter().enumerate() {
        for (port, port_name) in node.ports().into_iter().enumerate() {
            if !read.contains(&crate::graph::Link { node: number, port }) {
                let message = format!(
                    "output `{port_name}` of `{}` goes nowhere: its rows are dropped",
                    name.value
                );
                out.warning(name.at, message, None);
            }
        }
    }
    for (name, _) in spec.modules.iter() {
        let used = spec.nodes.iter().any(|(_, node)| match node {
            Node::Wasm(wasm) => wasm.module.value == name.value,
            _ => false,
        });
        if !used && !broken.modules.contains(&name.value) {
            out.warning(
                name.at,
                format!("module `{}` is not used", name.value),
                None,
            );
        }
    }
    let sources = graph.sources();
    let top = Pos { line: 1, column: 1 };
    if sources.is_empty() && !spec.nodes.is_empty() {
        out.error(top, "a pipeline needs a node of kind `source`", None);
    }
}

/// Whether a topic is known, for what plans need to say.
pub(crate) fn exists(spec: &Spec, catalog: Option<&Catalog>, name: &str) -> Option<bool> {
    let broken = Broken::default();
    match (
        Topics {
            spec,
            broken: &broken,
            catalog,
        }
        .find(name),
        catalog,
    ) {
        (_, Some(catalog)) => Some(catalog.topic(name).is_some()),
        (Found::No, None) => Some(false),
        _ => None,
    }
}
