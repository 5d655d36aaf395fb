//! Makes a pipeline ready beside what runs: read, checked, modules loaded and opened once.
//!
//! Called by: `Runtime::prepare`. Invariants: no effect but the cache of compiled code; modules
//! are compiled and opened on worker threads. Refuses: what `lint` calls an error, modules that
//! are missing, import what is not granted, do not compile or do not open, each with the place in
//! the file that names them.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::catalog::{Catalog, PipelineRecord};
use model::diagnostic::Diagnostic;
use model::ids::Digest;
use model::topic::TopicSpec;
use wasm::http::Stop;
use wasm::{Grants, Host, Metrics, Module};

use crate::compile::{Compiled, Topics, compile};
use crate::graph::{Complaints, Graph};
use crate::plan::{Kept, KeptSchema};
use crate::runtime::Deps;
use crate::spec::types::{ModuleDef, ModuleSource, Node};
use crate::spec::yaml::Pos;
use crate::spec::{Broken, Spec, parse, sorted};
use crate::stage::build::{edges, program};
use crate::stage::state::{state_spec, state_topic};

/// A pipeline of which nothing but its topics can be missing.
pub struct Prepared {
    pub(crate) spec: Arc<Spec>,
    pub(crate) record: PipelineRecord,
    pub(crate) compiled: Vec<Compiled>,
    pub(crate) modules: BTreeMap<String, Module>,
    /// Nodes that keep state, and the topic of the source that each is reached from.
    keepers: Vec<(String, String)>,
    warnings: Vec<Diagnostic>,
}

impl Prepared {
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    pub fn record(&self) -> &PipelineRecord {
        &self.record
    }

    /// What is not an error but should be known.
    pub fn warnings(&self) -> &[Diagnostic] {
        &self.warnings
    }

    /// The internal topics that its nodes keep their state in, one partition a lane. The topics of its
    /// sources must be there.
    pub fn state_topics(&self, catalog: &Catalog) -> Vec<(String, TopicSpec)> {
        let topic = |(node, source): &(String, String)| {
            let partitions = catalog.topic(source).map_or(1, |t| t.spec.partitions);
            let name = state_topic(&self.record.name, node);
            (name, state_spec(partitions))
        };
        self.keepers.iter().map(topic).collect()
    }

    /// Which of its modules keep state.
    pub(crate) fn kept(&self) -> Kept {
        let kept = |module: &Module| Some((module.digest(), KeptSchema::of(module.info())?));
        self.modules.values().filter_map(kept).collect()
    }

    /// The generation that the catalog gave, which is known only after it took the record.
    pub fn with_generation(mut self, generation: u64) -> Prepared {
        self.record.generation = generation;
        self
    }
}

pub(crate) async fn prepare(
    deps: &Deps,
    record: &PipelineRecord,
) -> Result<Prepared, Vec<Diagnostic>> {
    // The environment was put in when the file was frozen.
    let spec = parse(&record.file, &record.yaml, &|_| None)?;
    let catalog = deps.catalog.catalog();
    let (errors, warnings): (Vec<_>, Vec<_>) = crate::lint(&spec, Some(&catalog))
        .into_iter()
        .partition(Diagnostic::is_error);
    if !errors.is_empty() {
        return Err(errors);
    }
    let compiled = {
        let broken = Broken::default();
        let mut unheard = Complaints {
            spec: &spec,
            list: Vec::new(),
        };
        let graph = Graph::new(&spec, &broken, &mut unheard);
        let topics = Topics {
            spec: &spec,
            broken: &broken,
            catalog: Some(&catalog),
        };
        compile(&graph, &topics, &mut unheard)
    };
    let modules = modules(deps, &spec, &compiled, record).await?;
    let keepers = keepers(&spec, &modules)?;
    let record = PipelineRecord {
        name: spec.name().to_string(),
        ..record.clone()
    };
    Ok(Prepared {
        spec: Arc::new(spec),
        record,
        compiled,
        modules,
        keepers,
        warnings,
    })
}

/// The nodes that keep state, each with the topic whose partitions are its lanes.
fn keepers(
    spec: &Spec,
    modules: &BTreeMap<String, Module>,
) -> Result<Vec<(String, String)>, Vec<Diagnostic>> {
    let broken = Broken::default();
    let mut unheard = Complaints {
        spec,
        list: Vec::new(),
    };
    let graph = Graph::new(spec, &broken, &mut unheard);
    let (mut keepers, mut errors) = (Vec::new(), Vec::new());
    for (number, (name, node)) in spec.nodes.0.iter().enumerate() {
        let Node::Wasm(wasm) = node else { continue };
        let module = modules.get(&wasm.module.value);
        if module.and_then(|m| m.info().state_schema()).is_none() {
            continue;
        }
        let sources = graph.sources().into_iter();
        let sources = sources.filter(|source| graph.reached(*source).contains(&number));
        let topics: Vec<String> = sources
            .filter_map(|source| match graph.node(source).1 {
                Node::Source(source) => Some(source.topic.value.clone()),
                _ => None,
            })
            .collect();
        let [topic] = &topics[..] else {
            let message = format!(
                "node `{name}` keeps state, which belongs to the partitions of one source; it is \
                 reached from {}",
                topics.len()
            );
            errors.push(Diagnostic::error(
                &spec.file,
                name.at.line,
                name.at.column,
                message,
            ));
            continue;
        };
        keepers.push((name.value.clone(), topic.clone()));
    }
    match errors.is_empty() {
        true => Ok(keepers),
        false => Err(sorted(errors)),
    }
}

/// Loads what the nodes use, and opens each node's module once.
async fn modules(
    deps: &Deps,
    spec: &Spec,
    compiled: &[Compiled],
    record: &PipelineRecord,
) -> Result<BTreeMap<String, Module>, Vec<Diagnostic>> {
    let mut loaded = BTreeMap::new();
    let mut errors = Vec::new();
    let mut fail = |at: Pos, message: String| {
        errors.push(Diagnostic::error(&spec.file, at.line, at.column, message));
    };
    for (name, def) in spec.modules.iter() {
        let used = |node: &Node| matches!(node, Node::Wasm(w) if w.module.value == name.value);
        if !spec.nodes.iter().any(|(_, node)| used(node)) {
            continue;
        }
        let digest = match &def.source.value {
            ModuleSource::Digest(digest) => Some(*digest),
            _ => record.modules.get(&name.value).copied(),
        };
        let Some(digest) = digest else {
            fail(
                def.source.at,
                format!("module `{name}` was not built and uploaded"),
            );
            continue;
        };
        match load(deps, digest, def.grants.names()).await {
            Ok(module) => {
                loaded.insert(name.value.clone(), module);
            }
            Err(why) => fail(def.source.at, format!("module `{name}`: {why}")),
        }
        for (at, why) in refused(deps, def) {
            fail(at, format!("module `{name}` cannot be granted this: {why}"));
        }
    }
    for node in compiled {
        let (name, Node::Wasm(wasm)) = &spec.nodes.0[node.number] else {
            continue;
        };
        let Some(module) = loaded.get(&wasm.module.value) else {
            continue;
        };
        let program = program(spec, (name, wasm), edges(compiled, node, wasm), module);
        let opened = tokio::task::spawn_blocking(move || {
            program
                .open(0, Metrics::default(), Stop::default())
                .map(|_| ())
        })
        .await;
        match opened {
            Ok(Ok(())) => {}
            Ok(Err(why)) => fail(
                name.at,
                format!("module `{}` does not open: {why}", wasm.module),
            ),
            Err(_) => fail(
                name.at,
                format!("opening module `{}` panicked", wasm.module),
            ),
        }
    }
    if errors.is_empty() {
        Ok(loaded)
    } else {
        Err(sorted(errors))
    }
}

/// What of a module's grants the server does not take part in, and where that stands.
fn refused(deps: &Deps, def: &ModuleDef) -> Vec<(Pos, String)> {
    let rules = def.grants.http.iter().flatten();
    let refused = rules.filter_map(|rule| Some((rule.at, deps.host.refuses(rule)?)));
    refused.collect()
}

pub(crate) async fn load(deps: &Deps, digest: Digest, grants: Grants) -> Result<Module, String> {
    let bytes = deps
        .modules
        .get(digest)
        .await
        .map_err(|e| format!("{digest}: {e}"))?;
    let host: Arc<Host> = deps.host.clone();
    tokio::task::spawn_blocking(move || host.load(&bytes, &grants))
        .await
        .map_err(|_| "loading it panicked".to_string())?
        .map_err(|e| e.to_string())
}
