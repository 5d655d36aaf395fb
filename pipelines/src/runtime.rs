//! Runs pipelines: prepares them beside what runs, starts their lanes, swaps and removes them.
//!
//! Called by: server (at start-up for every pipeline of the catalog, then on apply and delete).
//! Invariants: `prepare` does all that can fail for reasons of the file or of a module, and has
//! no effect; `start`, `remove` and `shutdown` follow each other, never side by side; a pipeline
//! that runs is changed by giving its lanes new orders, which they take between two batches.
//! Refuses: changes of class `reset` while the pipeline is there.

mod generations;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use model::catalog::PipelineRecord;
use model::diagnostic::Diagnostic;
use model::ids::{Digest, PartitionId};
use model::port::{CatalogView, Modules, TopicLog};
use model::topic::TopicSpec;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use wasm::http::{Access, Stop};
use wasm::{Metric, Metrics};

use crate::canary::report::CanaryReport;
use crate::canary::{Canary, Of, Slot, Until, candidate, no_room};
use crate::error::{CanaryError, RemoveError, StartError};
use crate::lookup::Tables;
use crate::operator::migrate::{room, takes_over};
use crate::plan::{Held, Kept, Previous, Reload, plan};
use crate::positions;
use crate::prepare::{Prepared, prepare};
use crate::spec::Spec;
use crate::spec::types::{ModuleSource, Node};
use crate::stage::Stage;
use crate::stage::build::{Parts, stages};
use crate::stage::lane::{Lane, Order, Shared};
use crate::status::{LaneState, LaneStatus, LookupStatus, Numbers, PipelineStatus};

/// What a runtime works with.
#[derive(Clone)]
pub struct Deps {
    pub log: Arc<dyn TopicLog>,
    pub catalog: Arc<dyn CatalogView>,
    pub modules: Arc<dyn Modules>,
    pub host: Arc<wasm::Host>,
}

/// Cheap to clone.
#[derive(Clone)]
pub struct Runtime {
    inner: Arc<Inner>,
}

struct Inner {
    deps: Deps,
    handle: tokio::runtime::Handle,
    running: Mutex<BTreeMap<String, Running>>,
    changed: Arc<watch::Sender<u64>>,
    /// What modules look into.
    tables: Tables,
    /// Held while a pipeline is started or removed.
    gate: tokio::sync::Mutex<Gate>,
}

#[derive(Default)]
struct Gate {
    closed: bool,
}

struct Running {
    spec: Arc<Spec>,
    record: PipelineRecord,
    /// What its topics were when it was started.
    specs: Vec<Option<TopicSpec>>,
    stages: BTreeMap<String, RunningStage>,
    canary: Slot,
    /// Which of its modules keep state.
    kept: Kept,
}

impl Running {
    fn lanes(&self) -> impl Iterator<Item = &RunningLane> {
        self.stages.values().flat_map(|stage| &stage.lanes)
    }

    /// What the modules of all lanes count, by node and name.
    fn metrics(&self) -> BTreeMap<String, BTreeMap<String, Metric>> {
        let mut sums = BTreeMap::new();
        for lane in self.lanes() {
            lane.shared.numbers.sum(&mut sums);
        }
        sums
    }

    /// In which schemas the lanes have what their modules keep, as far as they have read it.
    fn held(&self) -> Held {
        let mut held = Held::new();
        for lane in self.lanes() {
            for (node, kept) in &lane.shared.status().kept {
                held.entry(node.clone()).or_default().insert(kept.schema);
            }
        }
        held
    }

    /// About what a node keeps, in all lanes.
    fn kept_bytes(&self, node: &str) -> usize {
        let kept = self
            .lanes()
            .filter_map(|lane| Some(lane.shared.status().kept.get(node)?.bytes));
        kept.sum::<u64>() as usize
    }

    /// The tables of the newest generation's nodes.
    fn lookups(&self, log: &dyn TopicLog) -> Vec<LookupStatus> {
        let stages = self.stages.values().filter_map(RunningStage::newest);
        let mut all: Vec<LookupStatus> = Vec::new();
        for stage in stages {
            for node in &stage.nodes {
                let tables = node.lookups.iter();
                all.extend(tables.map(|lookup| lookup.status(&node.name, log)));
            }
        }
        // a node behind two sources is part of two stages
        all.sort_by(|a, b| (&a.node, &a.table).cmp(&(&b.node, &b.table)));
        all.dedup_by(|a, b| (&a.node, &a.table) == (&b.node, &b.table));
        all
    }

    /// The module of a node, if a canary of it could be promoted, and a stage that it is part of.
    fn watched(&self, node: &str, candidate: Digest) -> Result<(Of, Arc<Stage>), CanaryError> {
        let modules = || {
            self.spec
                .nodes
                .iter()
                .filter_map(|(name, node)| match node {
                    Node::Wasm(wasm) => Some((name.value.as_str(), wasm.module.value.as_str())),
                    _ => None,
                })
        };
        let no_node = || CanaryError::Node {
            pipeline: self.record.name.clone(),
            node: node.to_string(),
            nodes: modules()
                .map(|(name, _)| name)
                .collect::<Vec<_>>()
                .join(", "),
        };
        let found = modules().find(|(name, _)| *name == node);
        let (_, alias) = found.ok_or_else(no_node)?;
        let module = alias.to_string();
        if let Some((other, _)) = modules().find(|(name, of)| *of == alias && *name != node) {
            let other = other.to_string();
            return Err(CanaryError::Alias { module, other });
        }
        let source = self.spec.modules.get(alias).map(|def| &def.source.value);
        if let Some(ModuleSource::Digest(_)) = source {
            return Err(CanaryError::Pinned { module });
        }
        let holds = |stage: &Stage| stage.nodes.iter().any(|n| n.name == node);
        let held = |stage: &&RunningStage| stage.newest().is_some_and(|newest| holds(&newest));
        let stages: Vec<&RunningStage> = self.stages.values().filter(held).collect();
        stages.iter().try_for_each(|stage| stage.taken())?;
        let stage = stages.first().and_then(|stage| stage.newest());
        let stage = stage.ok_or_else(no_node)?;
        let running = stage.modules.get(alias).copied();
        let of = Of {
            node: node.to_string(),
            alias: module,
            running: running.ok_or_else(no_node)?,
            candidate,
            generation: self.record.generation,
        };
        Ok((of, stage))
    }
}

struct RunningStage {
    group: String,
    topic: model::ids::TopicId,
    lanes: Vec<RunningLane>,
}

struct RunningLane {
    partition: PartitionId,
    orders: watch::Sender<Order>,
    shared: Shared,
    task: Option<JoinHandle<()>>,
}

impl Runtime {
    pub fn new(deps: Deps, handle: tokio::runtime::Handle) -> Runtime {
        let changed = Arc::new(watch::Sender::new(0));
        let tables = Tables::new(
            deps.log.clone(),
            deps.host.clone(),
            handle.clone(),
            changed.clone(),
        );
        let inner = Inner {
            deps,
            tables,
            handle,
            running: Mutex::default(),
            changed,
            gate: tokio::sync::Mutex::default(),
        };
        Runtime {
            inner: Arc::new(inner),
        }
    }

    fn running(&self) -> MutexGuard<'_, BTreeMap<String, Running>> {
        self.inner
            .running
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads, checks, loads and opens everything, beside what runs and without any effect.
    ///
    /// # Errors
    /// All that is wrong with the file and its modules.
    pub async fn prepare(&self, record: &PipelineRecord) -> Result<Prepared, Vec<Diagnostic>> {
        let prepared = prepare(&self.inner.deps, record).await?;
        let refused = self.refused(&prepared);
        match refused {
            Some((what, hint)) => {
                let message =
                    format!("this change cannot be taken while the pipeline exists: {what}");
                let diagnostic = Diagnostic::error(&record.file, 1, 1, message);
                Err(vec![diagnostic.with_hint(hint)])
            }
            None => Ok(prepared),
        }
    }

    /// What of a change has class `reset`, and what to do about it.
    fn refused(&self, prepared: &Prepared) -> Option<(String, &'static str)> {
        let running = self.running();
        let old = running.get(&prepared.record.name)?;
        let mut kept = old.kept.clone();
        kept.extend(prepared.kept());
        let held = old.held();
        let previous = Previous {
            spec: &old.spec,
            modules: &old.record.modules,
            kept: &kept,
            held: &held,
        };
        let plan = plan(
            &prepared.spec,
            &prepared.record.modules,
            Some(previous),
            None,
        );
        let hard = plan.changes.iter().filter(|c| c.class == Reload::Reset);
        let hint = hard.clone().find_map(|c| c.hint);
        let hint = hint.unwrap_or("delete the pipeline first, then apply it again");
        let hard: Vec<&str> = hard.map(|c| c.what.as_str()).collect();
        (!hard.is_empty()).then(|| (hard.join("; "), hint))
    }

    /// The pipeline as it runs now.
    pub fn running_spec(&self, name: &str) -> Option<(Arc<Spec>, PipelineRecord)> {
        self.running()
            .get(name)
            .map(|r| (r.spec.clone(), r.record.clone()))
    }

    /// In which schemas its lanes have what modules keep.
    pub fn held(&self, name: &str) -> Held {
        self.running()
            .get(name)
            .map(Running::held)
            .unwrap_or_default()
    }

    /// Starts a pipeline, or hands a running one over to this generation. Its topics must exist.
    ///
    /// # Errors
    /// A topic that is gone, a change of class `reset`, positions that cannot be written. What
    /// ran before goes on then.
    pub async fn start(&self, prepared: Prepared) -> Result<(), StartError> {
        let gate = self.inner.gate.lock().await;
        if gate.closed {
            return Err(StartError::Closed);
        }
        let pipeline = prepared.record.name.clone();
        if self.runs(&prepared.record) {
            return Ok(());
        }
        if let Some((what, _)) = self.refused(&prepared) {
            return Err(StartError::Reset { pipeline, what });
        }
        let catalog = self.inner.deps.catalog.catalog();
        let parts = Parts {
            spec: &prepared.spec,
            compiled: &prepared.compiled,
            modules: &prepared.modules,
            tables: &self.inner.tables,
            generation: prepared.record.generation,
        };
        let stages = stages(&parts, &catalog)?;
        let added = self.added(&pipeline, &stages);
        let log = self.inner.deps.log.as_ref();
        positions::begin(log, &prepared.spec, &stages, &added).await?;
        let gone = self.swap(prepared, stages);
        self.retire(gone).await;
        self.inner.changed.send_modify(|version| *version += 1);
        Ok(())
    }

    /// Stages that a pipeline, which runs, has not had until now.
    fn added(&self, pipeline: &str, stages: &[Arc<Stage>]) -> BTreeSet<String> {
        let running = self.running();
        let Some(old) = running.get(pipeline) else {
            return BTreeSet::new();
        };
        let names = stages.iter().map(|stage| stage.name.clone());
        names
            .filter(|name| !old.stages.contains_key(name))
            .collect()
    }

    /// Ends the stages that were taken out of a pipeline. If their positions cannot be forgotten now, they
    /// are when a source of that name is added, and when the pipeline is deleted.
    async fn retire(&self, gone: Vec<RunningStage>) {
        let log = self.inner.deps.log.as_ref();
        for stage in gone {
            let (held, group) = (stage.held(log), stage.group.clone());
            stage.stop().await;
            if let Err(error) = positions::forget(log, &held).await {
                let then = "they go when it is added again, or its pipeline is deleted";
                tracing::warn!(group, %error, then, "positions of a source that was taken out stay");
            }
        }
    }

    /// Gives new orders to the lanes that stay, starts those that are new, and returns the
    /// stages that are no longer part of the pipeline.
    fn swap(&self, prepared: Prepared, stages: Vec<Arc<Stage>>) -> Vec<RunningStage> {
        let mut running = self.running();
        let name = prepared.record.name.clone();
        let (mut old, canary) = match running.remove(&name) {
            Some(before) => (before.stages, before.canary),
            None => Default::default(),
        };
        let generation = prepared.record.generation;
        canary.end(&format!("generation {generation} was applied"));
        let mut kept = BTreeMap::new();
        for stage in stages {
            let known = old
                .remove(&stage.name)
                .filter(|known| known.topic == stage.topic);
            let entry = match known {
                Some(known) => {
                    for lane in &known.lanes {
                        lane.orders.send_replace(Order::Run(stage.clone()));
                    }
                    known
                }
                None => self.launch(&stage, &canary),
            };
            kept.insert(stage.name.clone(), entry);
        }
        let entry = Running {
            specs: self.specs(&prepared.record),
            kept: prepared.kept(),
            spec: prepared.spec,
            record: prepared.record,
            stages: kept,
            canary,
        };
        running.insert(name, entry);
        old.into_values().collect()
    }

    fn launch(&self, stage: &Arc<Stage>, canary: &Slot) -> RunningStage {
        let lanes = (0..stage.partitions).map(|index| {
            let partition = PartitionId::new(stage.topic, index);
            let (orders, receiver) = watch::channel(Order::Run(stage.clone()));
            let status = LaneStatus {
                stage: stage.name.clone(),
                topic: stage.topic_name.clone(),
                partition: index,
                generation: stage.generation,
                state: LaneState::Starting,
                committed: 0,
                position: 0,
                end: 0,
                rows_in: 0,
                rows_out: 0,
                rejected: 0,
                dropped: 0,
                nulled: 0,
                commits: 0,
                retries: 0,
                modules: stage.modules.clone(),
                fault: None,
                handovers: Default::default(),
                kept: Default::default(),
            };
            let shared = Shared {
                status: Arc::new(Mutex::new(status)),
                changed: self.inner.changed.clone(),
                numbers: Numbers::default(),
                canary: canary.clone(),
            };
            let lane = Lane::new(
                self.inner.deps.log.clone(),
                partition,
                receiver,
                shared.clone(),
            );
            let task = Some(self.inner.handle.spawn(lane.run()));
            RunningLane {
                partition,
                orders,
                shared,
                task,
            }
        });
        RunningStage {
            group: stage.group.clone(),
            topic: stage.topic,
            lanes: lanes.collect(),
        }
    }

    /// Stops a pipeline, if it runs, and forgets how far it came, whether it runs or not.
    ///
    /// # Errors
    /// Its positions cannot be written; the same again goes on from there.
    pub async fn remove(&self, name: &str) -> Result<(), RemoveError> {
        let _gate = self.inner.gate.lock().await;
        let removed = self.running().remove(name);
        if let Some(removed) = removed {
            removed.canary.take();
            for stage in removed.stages.into_values() {
                stage.stop().await;
            }
            self.inner.changed.send_modify(|version| *version += 1);
        }
        let log = self.inner.deps.log.as_ref();
        let forgotten = positions::forget(log, &positions::held(log, name)).await;
        forgotten.map_err(|error| RemoveError {
            pipeline: name.to_string(),
            error,
        })
    }

    /// Whether a pipeline runs, or has a position anywhere.
    pub fn remains(&self, name: &str) -> bool {
        let log = self.inner.deps.log.as_ref();
        self.running().contains_key(name) || !positions::held(log, name).is_empty()
    }

    /// Stops all lanes after the batch they are at; their positions stay.
    pub async fn shutdown(&self) {
        let mut gate = self.inner.gate.lock().await;
        gate.closed = true;
        let all = std::mem::take(&mut *self.running());
        let stages: Vec<RunningStage> = all
            .into_values()
            .flat_map(|r| r.stages.into_values())
            .collect();
        for stage in &stages {
            stage.lanes.iter().for_each(|lane| {
                lane.orders.send_replace(Order::Stop);
            });
        }
        for stage in stages {
            stage.stop().await;
        }
    }

    /// Every pipeline with its lanes.
    pub fn status(&self) -> Vec<PipelineStatus> {
        let log = &self.inner.deps.log;
        let lane = |lane: &RunningLane| {
            let mut status = lane.shared.status().clone();
            if let Ok(bounds) = log.bounds(lane.partition) {
                status.end = bounds.end;
            }
            status
        };
        let running = self.running();
        running
            .iter()
            .map(|(name, pipeline)| PipelineStatus {
                name: name.clone(),
                generation: pipeline.record.generation,
                lanes: pipeline
                    .stages
                    .values()
                    .flat_map(|s| s.lanes.iter().map(lane))
                    .collect(),
                metrics: pipeline.metrics(),
                lookups: pipeline.lookups(log.as_ref()),
                canary: pipeline.canary.report(),
            })
            .collect()
    }

    /// Lets a module run in the shadow of the one that a node runs. Its report is in the status.
    ///
    /// # Errors
    /// There is no such node, or none that could be promoted alone; the module does not load or
    /// open; another canary runs.
    pub async fn canary_start(
        &self,
        name: &str,
        node: &str,
        digest: Digest,
        until: Until,
    ) -> Result<(), CanaryError> {
        let (of, stage, spec) = {
            let running = self.running();
            let pipeline = running.get(name);
            let pipeline = pipeline.ok_or_else(|| CanaryError::Unknown(name.to_string()))?;
            if pipeline.canary.runs() {
                let of = pipeline.canary.report().map(|report| report.node);
                return Err(CanaryError::Runs(of.unwrap_or_default()));
            }
            let (of, stage) = pipeline.watched(node, digest)?;
            (of, stage, pipeline.spec.clone())
        };
        let grants = spec.modules.get(&of.alias).map(|def| def.grants.names());
        let grants = grants.unwrap_or_default();
        let module = crate::prepare::load(&self.inner.deps, digest, grants).await;
        let module = module.map_err(CanaryError::Load)?;
        let number = stage.nodes.iter().position(|n| n.name == node);
        let program = number.and_then(|number| candidate(&stage, number, &module));
        let program = program.ok_or(CanaryError::Changed)?;
        let keeps = number.is_some_and(|number| stage.nodes[number].kept.is_some());
        self.canary_state(name, node, keeps, &module)?;
        if let Some(method) = program.context.http.as_deref().and_then(writes) {
            return Err(CanaryError::Writes { method });
        }
        let open = move || {
            let opened = program.open(0, Metrics::default(), Stop::default());
            opened.map(|_| ()).map_err(|e| e.to_string())
        };
        let opened = tokio::task::spawn_blocking(open).await;
        let opened = opened.unwrap_or_else(|_| Err("opening it panicked".to_string()));
        opened.map_err(|why| CanaryError::Open {
            node: node.to_string(),
            why,
        })?;
        let running = self.running();
        let pipeline = running.get(name).ok_or(CanaryError::Changed)?;
        if pipeline.record.generation != of.generation || pipeline.canary.runs() {
            return Err(CanaryError::Changed);
        }
        let changed = self.inner.changed.clone();
        let canary = Canary::start(of, module, until, changed).map_err(CanaryError::Thread)?;
        pipeline.canary.put(canary);
        Ok(())
    }

    /// Whether a candidate can work on copies of what a node keeps, if it keeps something.
    fn canary_state(
        &self,
        name: &str,
        node: &str,
        keeps: bool,
        module: &wasm::Module,
    ) -> Result<(), CanaryError> {
        let to = match (keeps, module.info().state_schema()) {
            (false, None) => return Ok(()),
            (true, Some(to)) => to,
            _ => return Err(CanaryError::Stateful),
        };
        let held = self.held(name).remove(node).unwrap_or_default();
        let strange = |from: &u32| *from != to && !takes_over(module.info(), *from);
        if let Some(from) = held.into_iter().find(strange) {
            return Err(CanaryError::Schema { from, to });
        }
        let bytes = self.running().get(name).map_or(0, |r| r.kept_bytes(node));
        let full = room(&module.host(), bytes);
        full.map_err(|full| CanaryError::Room(no_room(bytes, full)))
    }

    /// What the pipeline's canary found so far.
    pub fn canary(&self, name: &str) -> Option<CanaryReport> {
        self.running().get(name)?.canary.report()
    }

    /// Ends the pipeline's canary and forgets it.
    pub fn canary_stop(&self, name: &str) -> Option<CanaryReport> {
        let report = self.running().get(name)?.canary.take();
        self.inner.changed.send_modify(|version| *version += 1);
        report
    }

    /// Changes whenever a status does.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.inner.changed.subscribe()
    }

    /// Names of the pipelines that run.
    pub fn names(&self) -> BTreeSet<String> {
        self.running().keys().cloned().collect()
    }
}

/// A method of a grant that does more than to read: what a canary sends would count twice.
fn writes(access: &Access) -> Option<String> {
    let rules = access.grant.rules.iter();
    let mut writing = rules.filter(|rule| !rule.reads_only());
    let methods = &writing.next()?.methods;
    let reads = |method: &&String| !["GET", "HEAD"].contains(&method.as_str());
    methods.iter().find(reads).cloned()
}

impl RunningStage {
    /// Where it has positions; none in a topic that was deleted.
    fn held(&self, log: &dyn TopicLog) -> Vec<(String, PartitionId)> {
        let lanes = self.lanes.iter().map(|lane| lane.partition);
        let known = lanes.filter(|partition| log.position(&self.group, *partition).is_some());
        known
            .map(|partition| (self.group.clone(), partition))
            .collect()
    }

    /// What its lanes run, or shall run.
    fn newest(&self) -> Option<Arc<Stage>> {
        match &*self.lanes.first()?.orders.borrow() {
            Order::Run(stage) => Some(stage.clone()),
            Order::Stop => None,
        }
    }

    /// Whether no lane has gone back from what it shall run.
    fn taken(&self) -> Result<(), CanaryError> {
        for lane in &self.lanes {
            let status = lane.shared.status();
            if let Some((back, why)) = status.rolled_back() {
                return Err(CanaryError::RolledBack {
                    topic: status.topic.clone(),
                    lane: status.partition,
                    works: status.generation,
                    generation: back.to,
                    why: why.to_string(),
                });
            }
        }
        Ok(())
    }

    /// Returns when every lane has ended.
    async fn stop(mut self) {
        for lane in &self.lanes {
            lane.orders.send_replace(Order::Stop);
        }
        for lane in &mut self.lanes {
            if let Some(task) = lane.task.take() {
                // A lane that panicked has ended too.
                let _ = task.await;
            }
        }
    }
}
