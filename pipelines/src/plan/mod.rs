//! What applying a pipeline would do: stages, topics, and the reload class of each change.
//!
//! Called by: the server's service (`pipeline plan`, `apply`) and the runtime, which refuses
//! changes of class `reset`. Pure. Invariants: the graph is cut at topics; a stage is one source
//! and all nodes that it reaches, fused; the text form is stable (goldens in `tests.rs`).

mod diff;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use model::catalog::Catalog;
use model::ids::Digest;
use serde::{Deserialize, Serialize};

use crate::graph::{Complaints, Graph};
use crate::lint::exists;
use crate::spec::types::{ModuleSource, Node, OnError, Start, Then};
use crate::spec::{Broken, Spec};

/// How a running pipeline takes a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reload {
    /// Between two batches, nothing waits.
    Live,
    /// Between two batches, after what is under way is committed.
    Drain,
    /// The same, and what modules keep is taken over by a new version of its schema.
    Migrate,
    /// Refused while the pipeline exists: what was committed would have another meaning.
    Reset,
}

impl fmt::Display for Reload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Reload::Live => "live",
            Reload::Drain => "drain",
            Reload::Migrate => "migrate",
            Reload::Reset => "reset",
        })
    }
}

/// One difference between what runs and what is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    pub what: String,
    pub class: Reload,
    /// What to do about it where it is refused, if that is more than to delete the pipeline first.
    #[serde(skip)]
    pub hint: Option<&'static str>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    pub pipeline: String,
    /// Nothing of that name runs yet.
    pub new: bool,
    pub topics: Vec<TopicPlan>,
    pub modules: Vec<ModulePlan>,
    pub stages: Vec<StagePlan>,
    pub changes: Vec<Change>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicPlan {
    pub name: String,
    pub partitions: u32,
    /// `None` where there was no catalog to ask.
    pub exists: Option<bool>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModulePlan {
    pub name: String,
    pub source: String,
    pub digest: Option<Digest>,
}

/// What lies between a topic and the topics that it ends in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StagePlan {
    /// The name of its source.
    pub name: String,
    pub topic: String,
    /// One lane each; `None` where the topic is not known.
    pub lanes: Option<u32>,
    pub start: String,
    /// Where its positions are kept.
    pub group: String,
    /// Fused, in the order they run.
    pub nodes: Vec<NodePlan>,
    pub dead_letters: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodePlan {
    pub name: String,
    pub kind: String,
    pub inputs: Vec<String>,
    /// Module or topic.
    pub detail: Option<String>,
}

/// What there is already.
#[derive(Clone, Copy)]
pub struct Previous<'a> {
    pub spec: &'a Spec,
    pub modules: &'a BTreeMap<String, Digest>,
    /// Of the modules of both.
    pub kept: &'a Kept,
    /// What its lanes have.
    pub held: &'a Held,
}

/// Modules that keep state, and what they say of its schema.
pub type Kept = BTreeMap<Digest, KeptSchema>;

/// Nodes that keep state, with the versions of the schema that the log has it in: several where not all
/// lanes took a change. A node that is not here has what its module says.
pub type Held = BTreeMap<String, BTreeSet<u32>>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptSchema {
    pub version: u32,
    /// The older ones that the module takes over from.
    pub migrates: Vec<u32>,
}

impl KeptSchema {
    /// Of a module; none where it keeps nothing.
    pub fn of(info: &wasm::ModuleInfo) -> Option<KeptSchema> {
        let version = info.state_schema()?;
        let migrates = info.migrates().to_vec();
        Some(KeptSchema { version, migrates })
    }
}

/// The group whose positions say how far a stage has come.
pub fn group_name(pipeline: &str, stage: &str) -> String {
    format!("{}{stage}", group_prefix(pipeline))
}

/// What the names of a pipeline's groups begin with, and those of no other: no pipeline has a dot in its
/// name.
pub(crate) fn group_prefix(pipeline: &str) -> String {
    format!("_pipeline.{pipeline}.")
}

/// Plans a pipeline that `lint` has no errors for.
pub fn plan(
    spec: &Spec,
    modules: &BTreeMap<String, Digest>,
    previous: Option<Previous<'_>>,
    catalog: Option<&Catalog>,
) -> Plan {
    let mut unheard = Complaints {
        spec,
        list: Vec::new(),
    };
    let graph = Graph::new(spec, &Broken::default(), &mut unheard);
    let sources = graph.sources();
    Plan {
        pipeline: spec.name().to_string(),
        new: previous.is_none(),
        topics: topics(spec, catalog),
        modules: spec
            .modules
            .iter()
            .map(|(name, def)| ModulePlan {
                name: name.value.clone(),
                source: source_text(&def.source),
                digest: match &def.source.value {
                    ModuleSource::Digest(digest) => Some(*digest),
                    _ => modules.get(&name.value).copied(),
                },
            })
            .collect(),
        stages: sources
            .into_iter()
            .filter_map(|s| stage(&graph, s, catalog))
            .collect(),
        changes: previous.map_or_else(Vec::new, |p| diff::changes(p, spec, modules)),
    }
}

fn source_text(source: &ModuleSource) -> String {
    match source {
        ModuleSource::Folder(text) | ModuleSource::File(text) => text.clone(),
        ModuleSource::Digest(digest) => digest.to_string(),
    }
}

fn topics(spec: &Spec, catalog: Option<&Catalog>) -> Vec<TopicPlan> {
    let one = |(name, wanted): (String, model::topic::TopicSpec)| TopicPlan {
        partitions: lanes(spec, catalog, &name).unwrap_or(wanted.partitions),
        exists: exists(spec, catalog, &name),
        name,
    };
    spec.topics().into_iter().map(one).collect()
}

fn lanes(spec: &Spec, catalog: Option<&Catalog>, topic: &str) -> Option<u32> {
    let existing = catalog
        .and_then(|c| c.topic(topic))
        .map(|t| t.spec.partitions);
    existing.or_else(|| spec.topics.get(topic).map(|def| def.to_spec().partitions))
}

fn stage(graph: &Graph<'_>, source: usize, catalog: Option<&Catalog>) -> Option<StagePlan> {
    let spec = graph.spec;
    let (name, Node::Source(from)) = graph.node(source) else {
        return None;
    };
    let mut nodes = Vec::new();
    let mut dead = BTreeSet::new();
    for number in graph.reached(source) {
        let (node_name, node) = graph.node(number);
        dead.extend(dead_letter(spec, node.on_error()));
        if number == source {
            continue;
        }
        nodes.push(NodePlan {
            name: node_name.value.clone(),
            kind: node.kind().to_string(),
            inputs: node
                .inputs()
                .iter()
                .map(|input| input.to_string())
                .collect(),
            detail: match node {
                Node::Wasm(wasm) => Some(wasm.module.value.clone()),
                Node::Sink(sink) => Some(sink.topic.value.clone()),
                _ => None,
            },
        });
    }
    Some(StagePlan {
        name: name.value.clone(),
        topic: from.topic.value.clone(),
        lanes: lanes(spec, catalog, &from.topic),
        start: start_text(&from.start),
        group: group_name(spec.name(), name),
        nodes,
        dead_letters: dead.into_iter().collect(),
    })
}

pub(crate) fn start_text(start: &Start) -> String {
    match start {
        Start::Earliest => "earliest".to_string(),
        Start::Latest => "latest".to_string(),
        Start::Time(micros) => chrono::DateTime::from_timestamp_micros(*micros).map_or_else(
            || micros.to_string(),
            |t| t.format("%Y-%m-%dT%H:%M:%S%.fZ").to_string(),
        ),
    }
}

fn dead_letter(spec: &Spec, own: Option<&OnError>) -> Option<String> {
    let then = own
        .and_then(|p| p.then.as_ref())
        .or(spec.policy.on_error.then.as_ref());
    match then {
        Some(Then::DeadLetter(topic)) => Some(topic.value.clone()),
        _ => None,
    }
}

impl Plan {
    /// The hardest class of all changes.
    pub fn class(&self) -> Option<Reload> {
        self.changes.iter().map(|c| c.class).max()
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match (self.new, self.class()) {
            (true, _) => "new".to_string(),
            (false, None) => "no change".to_string(),
            (false, Some(class)) => format!("{} ({class})", count(self.changes.len(), "change")),
        };
        writeln!(f, "pipeline {}: {state}", self.pipeline)?;
        let width = self.topics.iter().map(|t| t.name.len()).max().unwrap_or(0);
        for topic in &self.topics {
            let state = match topic.exists {
                Some(true) => "exists",
                Some(false) => "to be created",
                None => "declared",
            };
            let partitions = count(topic.partitions as usize, "partition");
            writeln!(f, "topic {:width$}  {partitions}, {state}", topic.name)?;
        }
        let width = self.modules.iter().map(|m| m.name.len()).max().unwrap_or(0);
        for module in &self.modules {
            let digest = module
                .digest
                .map_or(String::new(), |d| format!(" {}", short(&d)));
            writeln!(
                f,
                "module {:width$}  {}{digest}",
                module.name, module.source
            )?;
        }
        for stage in &self.stages {
            write!(f, "{stage}")?;
        }
        let classes = self.changes.iter().map(|c| c.class.to_string().len());
        let classes = classes.max().unwrap_or(0);
        for change in &self.changes {
            writeln!(f, "{:classes$}  {}", change.class.to_string(), change.what)?;
        }
        Ok(())
    }
}

impl fmt::Display for StagePlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lanes = self
            .lanes
            .map_or("lanes not known".to_string(), |l| count(l as usize, "lane"));
        writeln!(
            f,
            "stage {}: topic {}, {lanes}, from {}",
            self.name, self.topic, self.start
        )?;
        let names = self.nodes.iter().map(|n| n.name.len()).max().unwrap_or(0);
        let kinds = |n: &NodePlan| match &n.detail {
            Some(detail) => format!("{} {detail}", n.kind),
            None => n.kind.clone(),
        };
        let width = self.nodes.iter().map(|n| kinds(n).len()).max().unwrap_or(0);
        for node in &self.nodes {
            let inputs = node.inputs.join(", ");
            writeln!(
                f,
                "  {:names$}  {:width$}  <- {inputs}",
                node.name,
                kinds(node)
            )?;
        }
        match self.dead_letters.is_empty() {
            true => Ok(()),
            false => writeln!(f, "  dead letters -> {}", self.dead_letters.join(", ")),
        }
    }
}

fn count(n: usize, what: &str) -> String {
    if n == 1 {
        format!("1 {what}")
    } else {
        format!("{n} {what}s")
    }
}

/// Enough of a digest to tell two apart.
pub(crate) fn short(digest: &Digest) -> String {
    format!("sha256:{}…", &digest.hex()[..12])
}
