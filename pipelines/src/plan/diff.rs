//! What differs between two versions of a pipeline, and how hard each difference is.
//!
//! Called by: `plan`. Pure. Invariants: equal specs with equal modules have no changes; places
//! in the file count nothing; each change names the node or key it is about.

use std::collections::{BTreeMap, BTreeSet};

use model::ids::Digest;

use super::{Change, Held, KeptSchema, Previous, Reload, short, start_text};
use crate::graph::{Complaints, Graph};
use crate::spec::types::{At, InputRef, ModuleSource, Node, OnError, Table};
use crate::spec::{Broken, Spec};

pub(super) fn changes(
    previous: Previous<'_>,
    spec: &Spec,
    modules: &BTreeMap<String, Digest>,
) -> Vec<Change> {
    let old = previous.spec;
    let mut out = Changes(Vec::new());
    if old.policy.batch != spec.policy.batch {
        out.add("policy: batch", Reload::Drain);
    }
    if old.policy.on_error != spec.policy.on_error {
        out.add("policy: on-error", Reload::Live);
    }
    topics(old, spec, &mut out);
    for (name, def) in spec.modules.iter() {
        let Some(before) = old.modules.get(name) else {
            continue;
        };
        if before.limits != def.limits {
            out.add(format!("module {}: limits", name.value), Reload::Live);
        }
        if before.grants != def.grants {
            out.add(format!("module {}: grants", name.value), Reload::Live);
        }
        match (previous.modules.get(&name.value), modules.get(&name.value)) {
            (Some(a), Some(b)) if a != b => out.add(
                format!("module {}: code {} -> {}", name.value, short(a), short(b)),
                Reload::Live,
            ),
            (a, b) if a != b || before.source != def.source => {
                out.add(format!("module {}: source", name.value), Reload::Live);
            }
            _ => {}
        }
    }
    for (name, node) in spec.nodes.iter() {
        match old.nodes.get(name) {
            None => out.add(format!("node {}: added", name.value), Reload::Drain),
            Some(before) if before.kind() != node.kind() => out.add(
                format!("node {}: {} -> {}", name.value, before.kind(), node.kind()),
                Reload::Drain,
            ),
            Some(before) => one(&name.value, before, node, &mut out),
        }
    }
    for name in old
        .nodes
        .names()
        .filter(|name| spec.nodes.get(name).is_none())
    {
        out.add(format!("node {name}: removed"), Reload::Drain);
    }
    kept(previous, spec, modules, &mut out);
    out.0
}

/// What becomes of what modules keep: it is lost where nobody could go on with it, and that is never
/// done by the way.
fn kept(
    previous: Previous<'_>,
    spec: &Spec,
    modules: &BTreeMap<String, Digest>,
    out: &mut Changes,
) {
    let schema = |spec: &Spec, modules: &BTreeMap<String, Digest>, node: &Node| {
        let Node::Wasm(wasm) = node else { return None };
        let source = spec.modules.get(&wasm.module).map(|def| &def.source.value);
        let digest = match source {
            Some(ModuleSource::Digest(digest)) => Some(digest),
            _ => modules.get(&wasm.module.value),
        };
        previous.kept.get(digest?)
    };
    let (came, come) = (origins(previous.spec), origins(spec));
    for (name, old) in previous.spec.nodes.iter() {
        let new = spec.nodes.get(name);
        let before = schema(previous.spec, previous.modules, old);
        let after = new.and_then(|node| schema(spec, modules, node));
        match (before, after) {
            (None, None) => {}
            (Some(_), None) => {
                let what = format!("node {}: what it keeps would be lost", name.value);
                out.add(what, Reload::Reset);
            }
            (None, Some(_)) => {
                let what = format!("node {}: keeps state from now on", name.value);
                out.add(what, Reload::Drain);
            }
            (Some(before), Some(after)) => {
                schemas(&name.value, (before, after), previous.held, out);
                let node = name.value.as_str();
                let (came, come) = (came.get(node), come.get(node));
                if new.is_some_and(|new| new.inputs() != old.inputs()) {
                    let what = format!("node {}: inputs of a node that keeps state", name.value);
                    out.add(what, Reload::Reset);
                } else if came != come {
                    let (came, come) = (listed(came), listed(come));
                    let what = format!("node {node}: keeps state of {came}, not of {come}");
                    out.add(what, Reload::Reset);
                }
            }
        }
    }
}

/// The sources, with their topics, whose records come to a node, by its name.
type Origins<'a> = BTreeMap<&'a str, BTreeSet<(&'a str, &'a str)>>;

fn origins(spec: &Spec) -> Origins<'_> {
    let mut unheard = Complaints {
        spec,
        list: Vec::new(),
    };
    let graph = Graph::new(spec, &Broken::default(), &mut unheard);
    let mut origins = Origins::new();
    for number in graph.sources() {
        let (name, Node::Source(source)) = graph.node(number) else {
            continue;
        };
        let origin = (name.value.as_str(), source.topic.value.as_str());
        for node in graph.reached(number) {
            origins.entry(graph.name(node)).or_default().insert(origin);
        }
    }
    origins
}

fn listed(origins: Option<&BTreeSet<(&str, &str)>>) -> String {
    let one = |(source, topic): &(&str, &str)| format!("source {source} (topic {topic})");
    let all: Vec<String> = origins.into_iter().flatten().map(one).collect();
    all.join(" and ")
}

/// What to do where nothing is taken over.
const MIGRATE_HINT: &str = "give the module a migration from that schema (`migrate`, beside its state \
                            schema), or delete the pipeline, with what it keeps, and apply it again";

/// Whether the new module knows, or takes over, what the lanes of a node have.
fn schemas(
    node: &str,
    (before, after): (&KeptSchema, &KeptSchema),
    held: &Held,
    out: &mut Changes,
) {
    let module = BTreeSet::from([before.version]);
    let to = after.version;
    for from in held.get(node).unwrap_or(&module) {
        if *from == to {
            continue;
        }
        let what = format!("node {node}: state schema {from} -> {to}");
        if after.migrates.contains(from) {
            out.add(what, Reload::Migrate);
            continue;
        }
        let known = match &after.migrates[..] {
            [] => "takes over no older state".to_string(),
            known => format!("takes over from {known:?} only"),
        };
        out.0.push(Change {
            what: format!("{what}, but the new version {known}"),
            class: Reload::Reset,
            hint: Some(MIGRATE_HINT),
        });
    }
}

struct Changes(Vec<Change>);

impl Changes {
    fn add(&mut self, what: impl Into<String>, class: Reload) {
        self.0.push(Change {
            what: what.into(),
            class,
            hint: None,
        });
    }

    fn differ<T: PartialEq>(&mut self, node: &str, key: &str, a: &T, b: &T, class: Reload) {
        if a != b {
            self.add(format!("node {node}: {key}"), class);
        }
    }
}

fn topics(old: &Spec, spec: &Spec, out: &mut Changes) {
    for (name, def) in spec.topics.iter() {
        let Some(before) = old.topics.get(name) else {
            continue;
        };
        if let Some(difference) = before.to_spec().difference(&def.to_spec()) {
            out.add(format!("topic {}: {difference}", name.value), Reload::Reset);
        }
    }
}

fn one(name: &str, old: &Node, new: &Node, out: &mut Changes) {
    common(
        name,
        old.inputs(),
        new.inputs(),
        old.on_error(),
        new.on_error(),
        out,
    );
    match (old, new) {
        (Node::Source(a), Node::Source(b)) => {
            out.differ(name, "topic", &a.topic, &b.topic, Reload::Reset);
            if a.start != b.start {
                let (a, b) = (start_text(&a.start), start_text(&b.start));
                out.add(format!("node {name}: start {a} -> {b}"), Reload::Reset);
            }
        }
        (Node::Sink(a), Node::Sink(b)) => {
            out.differ(name, "topic", &a.topic, &b.topic, Reload::Drain);
            out.differ(name, "key", &a.key, &b.key, Reload::Reset);
        }
        (Node::Wasm(a), Node::Wasm(b)) => {
            out.differ(name, "params", &a.params, &b.params, Reload::Live);
            out.differ(name, "lateness", &a.lateness, &b.lateness, Reload::Live);
            out.differ(name, "lookups", &a.lookups, &b.lookups, Reload::Live);
            out.differ(name, "module", &a.module, &b.module, Reload::Live);
            let ports = names(&a.outputs) == names(&b.outputs);
            let class = if ports { Reload::Live } else { Reload::Drain };
            out.differ(name, "outputs", &a.outputs, &b.outputs, class);
        }
        (Node::Filter(a), Node::Filter(b)) => {
            out.differ(name, "where", &a.condition, &b.condition, Reload::Live);
        }
        (Node::Map(a), Node::Map(b)) => {
            out.differ(name, "select", &a.select, &b.select, Reload::Live);
            out.differ(name, "key", &a.key, &b.key, Reload::Reset);
        }
        (Node::Route(a), Node::Route(b)) => {
            let ports = names(&a.cases) == names(&b.cases) && a.otherwise == b.otherwise;
            let class = if ports { Reload::Live } else { Reload::Drain };
            out.differ(
                name,
                "cases",
                &(&a.cases, &a.otherwise),
                &(&b.cases, &b.otherwise),
                class,
            );
        }
        _ => {}
    }
}

fn common(
    name: &str,
    old: &[At<InputRef>],
    new: &[At<InputRef>],
    old_policy: Option<&OnError>,
    new_policy: Option<&OnError>,
    out: &mut Changes,
) {
    out.differ(name, "inputs", &old, &new, Reload::Drain);
    out.differ(name, "on-error", &old_policy, &new_policy, Reload::Live);
}

fn names<T>(table: &Table<T>) -> Vec<&str> {
    table.names().collect()
}
