//! Pipelines: lint, plan, apply, list, describe, delete.
//!
//! Called by: `service::Rooms::answer`, `http`, `node` (restart). Calls: the pipelines room,
//! metadata, `topics` (apply creates what is missing).
//! Invariants: an apply has no effect until everything that can be checked was checked: file,
//! graph, expressions, modules (loaded and opened once), topics; the catalog is changed before
//! the lanes are, so that a crash in between starts what was applied; what a deletion that was cut short
//! left is deleted by the next deletion or apply of that name.
//! Refuses: a topic that is there with other settings, naming both.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

use ::pipelines::plan::Previous;
use ::pipelines::spec::types::{Node, OnError, Then};
use ::pipelines::{Kept, KeptSchema, Spec, state_prefix};
use model::{Command, Diagnostic, Digest, Modules, Outcome, PipelineRecord};
use protocol::{
    PipelineApplied, PipelineDelete, PipelineDeleted, PipelineDescription, PipelineFile,
    PipelineInfo, PipelineLinted, PipelinePlanned, Pipelines, WireError, code,
};

use tokio::time::Instant;

use super::taken::goes_back;
use super::{Rooms, reply};

/// How long a start waits for what goes on if generations on trial fail, of all pipelines together.
const TRIAL_WAIT: Duration = Duration::from_secs(30);

impl Rooms {
    pub(super) fn pipeline_lint(&self, file: &PipelineFile) -> PipelineLinted {
        let diagnostics = match self.read(file) {
            Ok((_, diagnostics)) => diagnostics,
            Err(error) => error.diagnostics,
        };
        PipelineLinted { diagnostics }
    }

    pub(super) async fn pipeline_plan(
        &self,
        file: &PipelineFile,
    ) -> Result<PipelinePlanned, WireError> {
        let (spec, mut diagnostics) = self.read(file)?;
        self.check_topics(&spec)?;
        let (text, plan) = self.planned(&spec, file).await?;
        // what an apply would refuse is said beside what it would change
        let record = self.record(&spec, file.clone());
        if let Err(refused) = self.pipelines.prepare(&record).await {
            diagnostics.extend(refused);
        }
        Ok(PipelinePlanned {
            text,
            plan,
            diagnostics,
        })
    }

    /// The plan against what runs now, for people and for programs.
    async fn planned(
        &self,
        spec: &Spec,
        file: &PipelineFile,
    ) -> Result<(String, serde_json::Value), WireError> {
        let catalog = self.catalog();
        let record = catalog.pipeline(spec.name());
        let previous = record.and_then(|record| {
            // written by an apply: it was read then, and is read the same now
            let spec = ::pipelines::parse(&record.file, &record.yaml, &|_| None).ok()?;
            Some((spec, record.modules.clone()))
        });
        let before = previous.iter().flat_map(|(_, modules)| modules.values());
        let kept = self.kept(before.chain(file.modules.values())).await;
        let held = self.pipelines.held(spec.name());
        let previous = previous.as_ref().map(|(spec, modules)| Previous {
            spec,
            modules,
            kept: &kept,
            held: &held,
        });
        let plan = ::pipelines::plan(spec, &file.modules, previous, Some(&catalog));
        let json = serde_json::to_value(&plan).map_err(reply::bug)?;
        Ok((plan.to_string(), json))
    }

    /// Which of these modules keep state. One that cannot be read is said to be so on apply.
    async fn kept(&self, digests: impl Iterator<Item = &Digest>) -> Kept {
        let mut kept = Kept::new();
        for digest in digests {
            let Ok(bytes) = self.store.get(*digest).await else {
                continue;
            };
            let inspected = tokio::task::spawn_blocking(move || ::wasm::Host::inspect(&bytes));
            let Ok(Ok(info)) = inspected.await else {
                continue;
            };
            kept.extend(KeptSchema::of(&info).map(|schema| (*digest, schema)));
        }
        kept
    }

    /// Parses and lints against the catalog; an error carries all diagnostics.
    fn read(&self, file: &PipelineFile) -> Result<(Spec, Vec<Diagnostic>), WireError> {
        let limit = model::limits::PIPELINE_YAML_BYTES_MAX;
        if file.yaml.len() > limit {
            let size = file.yaml.len();
            let message = format!("{} is {size} bytes, at most {limit} are allowed", file.file);
            return Err(WireError::fix(code::TOO_LARGE, message));
        }
        let spec = ::pipelines::parse(&file.file, &file.yaml, &|_| None).map_err(refused)?;
        let diagnostics = ::pipelines::lint(&spec, Some(&self.catalog()));
        if diagnostics.iter().any(Diagnostic::is_error) {
            return Err(refused(diagnostics));
        }
        Ok((spec, diagnostics))
    }

    fn check_topics(&self, spec: &Spec) -> Result<(), WireError> {
        let catalog = self.catalog();
        let mut diagnostics = Vec::new();
        for (name, wanted) in spec.topics.iter() {
            let Some(there) = catalog.topic(&name.value) else {
                continue;
            };
            if let Some(difference) = wanted.difference(&there.spec) {
                let message = format!("topic `{}` exists, but its {difference}", name.value);
                let (line, column) = (name.at.line, name.at.column);
                diagnostics.push(
                    Diagnostic::error(&spec.file, line, column, message)
                        .with_hint("make the file say what is there, or use another topic"),
                );
            }
        }
        if diagnostics.is_empty() {
            Ok(())
        } else {
            Err(refused(diagnostics))
        }
    }

    pub(super) async fn pipeline_apply(
        &self,
        file: PipelineFile,
    ) -> Result<PipelineApplied, WireError> {
        let _alone = self.changing.lock().await;
        let (spec, diagnostics) = self.read(&file)?;
        self.check_topics(&spec)?;
        let (text, plan) = self.planned(&spec, &file).await?;
        let record = self.record(&spec, file);
        let (name, generation) = (record.name.clone(), record.generation);
        // no effect so far; what fails from here on leaves the old pipeline running
        let prepared = self.pipelines.prepare(&record).await.map_err(refused)?;
        let missing = spec
            .topics()
            .into_iter()
            .filter(|(name, _)| self.catalog().topic(name).is_none());
        for (topic, wanted) in missing.collect::<Vec<_>>() {
            self.topic_make(topic, wanted, true).await?;
        }
        if generation == 1 {
            // of a pipeline of this name that was deleted, but not wholly
            self.rest_delete(&name).await?;
        }
        for (topic, wanted) in prepared.state_topics(&self.catalog()) {
            self.topic_internal(topic, wanted).await?;
        }
        let generation = self.pipeline_put(record, prepared).await?;
        Ok(PipelineApplied {
            name,
            generation,
            text,
            plan,
            diagnostics,
        })
    }

    /// What the catalog would have of it.
    fn record(&self, spec: &Spec, file: PipelineFile) -> PipelineRecord {
        let name = spec.name().to_string();
        let before = self.catalog().pipeline(&name).map(|r| r.generation);
        PipelineRecord {
            generation: before.unwrap_or(0) + 1,
            yaml: file.yaml,
            file: file.file,
            modules: file.modules,
            topics: topic_names(spec),
            name,
            before: Vec::new(),
        }
    }

    /// Changes the catalog, then the lanes; returns the generation. If they do not start, the catalog
    /// says again what ran before.
    pub(super) async fn pipeline_put(
        &self,
        record: PipelineRecord,
        prepared: ::pipelines::Prepared,
    ) -> Result<u64, WireError> {
        let name = record.name.clone();
        let mut generation = record.generation;
        let before = self.catalog().pipeline(&name).cloned();
        let record = PipelineRecord {
            before: before
                .as_ref()
                .map_or(Vec::new(), |before| goes_back(before, &record)),
            ..record
        };
        let put = Command::PipelinePut(record);
        if let Outcome::Generation(given) =
            self.metadata.propose(put).await.map_err(reply::propose)?
        {
            generation = given;
        }
        let prepared = prepared.with_generation(generation);
        if let Err(error) = self.pipelines.start(prepared).await {
            self.pipeline_put_back(&name, before).await;
            let message = format!("pipeline {name} did not start: {error}");
            return Err(WireError::retry(code::UNAVAILABLE, message));
        }
        self.has_started(&name);
        Ok(generation)
    }

    /// The catalog says again what runs: the one before, or none.
    async fn pipeline_put_back(&self, name: &str, before: Option<PipelineRecord>) {
        let command = match before {
            Some(record) => Command::PipelinePut(record),
            None => Command::PipelineDelete {
                name: name.to_string(),
            },
        };
        if let Err(error) = self.metadata.propose(command).await {
            tracing::error!(
                "the catalog still names pipeline {name}, which did not start: {error}"
            );
        }
    }

    pub(super) async fn pipeline_delete(
        &self,
        ask: PipelineDelete,
    ) -> Result<PipelineDeleted, WireError> {
        let _alone = self.changing.lock().await;
        let name = ask.name;
        // one that failed on its way is finished by the next
        if self.catalog().pipeline(&name).is_some() || !self.rest_is_there(&name) {
            let command = Command::PipelineDelete { name: name.clone() };
            let gone = self.metadata.propose(command).await;
            gone.map_err(reply::propose)?;
        }
        self.rest_delete(&name).await?;
        self.has_started(&name);
        Ok(PipelineDeleted {})
    }

    /// Whether there is something left of a pipeline that the catalog does not name.
    fn rest_is_there(&self, pipeline: &str) -> bool {
        self.pipelines.remains(pipeline) || !self.state_topics(pipeline).is_empty()
    }

    /// Stops what runs of a pipeline that the catalog does not name any more, and deletes how far it came
    /// and what its modules kept. What a failure leaves is deleted by the next one.
    async fn rest_delete(&self, pipeline: &str) -> Result<(), WireError> {
        let removed = self.pipelines.remove(pipeline).await;
        removed.map_err(|error| WireError::retry(code::UNAVAILABLE, error.to_string()))?;
        for topic in self.state_topics(pipeline) {
            self.topic_remove(topic).await?;
        }
        Ok(())
    }

    /// The topics that hold what modules of a pipeline kept.
    fn state_topics(&self, pipeline: &str) -> Vec<String> {
        let prefix = state_prefix(pipeline);
        let catalog = self.catalog();
        let topics = catalog.topics().map(|topic| topic.name.as_str());
        let ours = topics.filter(|name| name.starts_with(&prefix));
        ours.map(str::to_string).collect()
    }

    pub(crate) fn pipeline_list(&self) -> Pipelines {
        let catalog = self.catalog();
        let running = self.pipelines.status();
        let pipelines = catalog
            .pipelines()
            .map(|record| {
                let status = running.iter().find(|status| status.name == record.name);
                PipelineInfo {
                    name: record.name.clone(),
                    generation: record.generation,
                    file: record.file.clone(),
                    lanes: status.map_or(0, |status| status.lanes.len() as u32),
                    state: status.map_or("stopped", state_word).to_string(),
                }
            })
            .collect();
        Pipelines { pipelines }
    }

    pub(crate) fn pipeline_describe(&self, name: &str) -> Result<PipelineDescription, WireError> {
        let record = self.pipeline_record(name)?;
        let running = self.pipelines.status();
        let status = running.iter().find(|status| status.name == name);
        Ok(PipelineDescription {
            name: record.name,
            generation: record.generation,
            file: PipelineFile {
                file: record.file,
                yaml: record.yaml,
                modules: record.modules,
            },
            status: serde_json::to_value(status).map_err(reply::bug)?,
            not_started: self.not_started().get(name).cloned(),
        })
    }

    /// Starts what the catalog says should run. One that does not start is reported and left
    /// out: it must not keep the node down.
    pub(crate) async fn pipelines_restart(&self) {
        let mut records: Vec<PipelineRecord> = self.catalog().pipelines().cloned().collect();
        records.sort_by_key(|record| record.before.len());
        let late = Instant::now() + TRIAL_WAIT;
        for record in records {
            // what no lane has committed with is on trial, as it was
            for before in &record.before {
                self.pipeline_restart(before).await;
                // one that is not open yet would be left out
                let opened = self.pipelines.opened(&record.name);
                if tokio::time::timeout_at(late, opened).await.is_err() {
                    let (name, generation) = (&record.name, before.generation);
                    let then = "the next generation does not wait for it";
                    tracing::warn!(name, generation, then, "lanes have not opened in time");
                }
            }
            self.pipeline_restart(&record).await;
        }
    }

    async fn pipeline_restart(&self, record: &PipelineRecord) {
        let (name, generation) = (&record.name, record.generation);
        let started = match self.pipelines.prepare(record).await {
            Ok(prepared) => self
                .pipelines
                .start(prepared)
                .await
                .map_err(|e| e.to_string()),
            Err(diagnostics) => {
                let lines: Vec<String> = diagnostics.iter().map(ToString::to_string).collect();
                Err(lines.join("\n"))
            }
        };
        let Err(why) = started else {
            return self.has_started(name);
        };
        tracing::error!(generation, "pipeline {name} does not start: {why}");
        self.not_started().insert(name.clone(), why);
    }

    fn has_started(&self, pipeline: &str) {
        self.not_started().remove(pipeline);
    }

    fn not_started(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        self.not_started
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Every topic the pipeline declares, reads, writes or sends its dead letters to.
fn topic_names(spec: &Spec) -> Vec<String> {
    let mut names: BTreeSet<String> = spec.topics.names().map(str::to_string).collect();
    let mut dead_letter = |on_error: Option<&OnError>| {
        if let Some(Then::DeadLetter(topic)) = on_error.and_then(|policy| policy.then.as_ref()) {
            names.insert(topic.value.clone());
        }
    };
    dead_letter(Some(&spec.policy.on_error));
    spec.nodes
        .iter()
        .for_each(|(_, node)| dead_letter(node.on_error()));
    for (_, node) in spec.nodes.iter() {
        match node {
            Node::Source(source) => names.insert(source.topic.value.clone()),
            Node::Sink(sink) => names.insert(sink.topic.value.clone()),
            _ => false,
        };
    }
    names.into_iter().collect()
}

pub(super) fn refused(diagnostics: Vec<Diagnostic>) -> WireError {
    let first = diagnostics
        .iter()
        .find(|d| d.is_error())
        .map(ToString::to_string);
    let message = first.unwrap_or_else(|| "the pipeline is refused".to_string());
    WireError::fix(code::INVALID, message).with(diagnostics)
}

/// The worst of its lanes.
fn state_word(status: &::pipelines::PipelineStatus) -> &'static str {
    use ::pipelines::LaneState::{Retrying, Stopped};
    if status
        .lanes
        .iter()
        .any(|lane| matches!(lane.state, Stopped { .. }))
    {
        return "stopped";
    }
    if status
        .lanes
        .iter()
        .any(|lane| matches!(lane.state, Retrying { .. }))
    {
        return "retrying";
    }
    if status.lanes.iter().any(|lane| lane.rolled_back().is_some()) {
        return "rolled back";
    }
    "running"
}
