//! Makes a pipeline ready beside what runs: read, checked, modules loaded and opened once.
//!
//! Called by: `Runtime::prepare`. Invariants: no effect but the cache of compiled code; modules
//! are compiled and opened on worker threads. Refuses: what `lint` calls an error, modules that
//! are missing, import what is not granted, do not compile or do not open, each with the place in
//! the file that names them.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::catalog::PipelineRecord;
use model::diagnostic::Diagnostic;
use model::ids::Digest;
use wasm::{Grants, Host, Metrics, Module};

use crate::compile::{Compiled, Topics, compile};
use crate::graph::{Complaints, Graph};
use crate::runtime::Deps;
use crate::spec::types::{ModuleSource, Node};
use crate::spec::yaml::Pos;
use crate::spec::{Broken, Spec, parse, sorted};
use crate::stage::build::{edges, program};

/// A pipeline of which nothing but its topics can be missing.
pub struct Prepared {
    pub(crate) spec: Arc<Spec>,
    pub(crate) record: PipelineRecord,
    pub(crate) compiled: Vec<Compiled>,
    pub(crate) modules: BTreeMap<String, Module>,
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
    let record = PipelineRecord {
        name: spec.name().to_string(),
        ..record.clone()
    };
    Ok(Prepared {
        spec: Arc::new(spec),
        record,
        compiled,
        modules,
        warnings,
    })
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
        match load(deps, digest).await {
            Ok(module) => {
                loaded.insert(name.value.clone(), module);
            }
            Err(why) => fail(def.source.at, format!("module `{name}`: {why}")),
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
        let opened =
            tokio::task::spawn_blocking(move || program.open(0, Metrics::default()).map(|_| ()))
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

pub(crate) async fn load(deps: &Deps, digest: Digest) -> Result<Module, String> {
    let bytes = deps
        .modules
        .get(digest)
        .await
        .map_err(|e| format!("{digest}: {e}"))?;
    let host: Arc<Host> = deps.host.clone();
    tokio::task::spawn_blocking(move || host.load(&bytes, &Grants::default()))
        .await
        .map_err(|_| "loading it panicked".to_string())?
        .map_err(|e| e.to_string())
}
