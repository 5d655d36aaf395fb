//! What the modules of a lane keep: read from its changelog, changed by batches, committed with them.
//!
//! Called by: `lane` (loads, keeps, drops), `run` (lends it to the nodes), `commit` (its changes).
//! Invariants: one partition of an internal topic a lane and node, compacted, so that its records
//! in order are the state; what a batch changed is in the same commit as its outputs and position.
//! After a commit that failed the lane forgets all and reads it again: memory never runs ahead of
//! the log for longer than the commits under way. What was kept with another schema than the module's is
//! migrated before the first batch, and told to the log with it.
//! Refuses: a changelog that no state has written.

use std::collections::BTreeMap;

use model::batch::{BatchError, EncodeError};
use model::ids::{Offset, PartitionId, TopicId};
use model::port::{Append, LogError, TopicLog};
use model::rows::RowsBuilder;
use model::topic::TopicSpec;
use wasm::{Keyed, StateError};

use super::{Op, Stage, StageNode};
use crate::limits::FETCH_BYTES_MAX;
use crate::operator::sink;
use crate::status::StateStatus;

/// What of a node is kept, and where.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    pub topic: TopicId,
    /// Version of the schema that the module keeps it in.
    pub schema: u32,
    /// How far the watermark stays behind the largest event time, in microseconds.
    pub lateness_us: i64,
}

impl Kept {
    /// Moves the watermark to where the largest event time of a batch says.
    pub fn advance(&self, keyed: &mut Keyed, newest: Option<i64>) {
        let newest = newest.unwrap_or(i64::MIN);
        keyed.advance(newest.saturating_sub(self.lateness_us));
    }
}

/// Why a lane has no state to go on with.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    #[error(transparent)]
    Log(#[from] LogError),
    #[error("the state of node `{node}` cannot be read at offset {offset}: {source}")]
    Batch {
        node: String,
        offset: Offset,
        source: BatchError,
    },
    #[error("the state of node `{node}` cannot be used: {source}")]
    State { node: String, source: StateError },
    #[error("the changelog of node `{node}` has nothing at offset {offset}, before its end {end}")]
    Short {
        node: String,
        offset: Offset,
        end: Offset,
    },
}

/// The topic that a node's state is written to.
pub fn state_topic(pipeline: &str, node: &str) -> String {
    format!("{}{node}", state_prefix(pipeline))
}

/// What the names of a pipeline's state topics begin with.
pub fn state_prefix(pipeline: &str) -> String {
    format!("_state.{pipeline}.")
}

/// How a state topic is made.
pub(crate) fn state_spec(partitions: u32) -> TopicSpec {
    TopicSpec {
        partitions,
        compact: true,
        tier: false,
        ..TopicSpec::default()
    }
}

/// The states of one lane, by node.
#[derive(Default)]
pub(crate) struct States(BTreeMap<String, Keyed>);

impl States {
    /// A batch begins, or the same one again: what was not kept is gone.
    pub fn begin(&mut self) {
        self.0.values_mut().for_each(Keyed::begin);
    }

    /// The batch is handed to the log.
    pub fn keep(&mut self) {
        self.0.values_mut().for_each(Keyed::keep);
    }

    pub fn of(&mut self, node: &str) -> Option<&mut Keyed> {
        self.0.get_mut(node)
    }

    pub fn get(&self, node: &str) -> Option<&Keyed> {
        self.0.get(node)
    }

    /// Whether something of the stage was kept with another schema than its module's.
    pub fn foreign(&self, stage: &Stage) -> bool {
        let foreign = |node: &StageNode| {
            let keyed = self.0.get(&node.name);
            let kept = node.kept.as_ref().zip(keyed);
            kept.is_some_and(|(kept, keyed)| kept.schema != keyed.schema())
        };
        stage.nodes.iter().any(foreign)
    }

    /// Forgets migrations that the log does not know of.
    pub fn back(&mut self) {
        self.0.values_mut().for_each(Keyed::back);
    }

    /// Nodes whose state was not read yet.
    pub fn missing(&self, stage: &Stage) -> Vec<usize> {
        let missing = |node: &StageNode| node.kept.is_some() && !self.0.contains_key(&node.name);
        let nodes = stage.nodes.iter().enumerate();
        let nodes = nodes.filter(|(_, node)| missing(node));
        nodes.map(|(number, _)| number).collect()
    }

    /// Reads what is missing.
    pub async fn load(
        &mut self,
        log: &dyn TopicLog,
        stage: &Stage,
        lane: u32,
    ) -> Result<(), LoadError> {
        for number in self.missing(stage) {
            let node = &stage.nodes[number];
            if let Some(keyed) = load(log, node, lane).await? {
                self.0.insert(node.name.clone(), keyed);
            }
        }
        Ok(())
    }

    /// What the batch changed, as part of its commit.
    pub fn appends(
        &self,
        stage: &Stage,
        lane: u32,
        out: &mut Vec<Append>,
    ) -> Result<(), EncodeError> {
        for node in &stage.nodes {
            let (Some(kept), Some(keyed)) = (&node.kept, self.0.get(&node.name)) else {
                continue;
            };
            let mut rows = RowsBuilder::new();
            // by the watermark, not by the clock: the same batch gives the same records
            let time = keyed.moved().max(0);
            for (key, value) in keyed.changes() {
                rows.push(time, Some(&key), value.as_deref(), &[]);
            }
            sink::appends_to(PartitionId::new(kept.topic, lane), &rows.finish(), out)?;
        }
        Ok(())
    }

    pub fn status(&self) -> BTreeMap<String, StateStatus> {
        let one = |(node, keyed): (&String, &Keyed)| {
            let watermark = Some(keyed.watermark()).filter(|time| *time != i64::MIN);
            let status = StateStatus {
                schema: keyed.committed().schema(),
                entries: keyed.entries() as u64,
                bytes: keyed.bytes() as u64,
                watermark,
            };
            (node.clone(), status)
        };
        self.0.iter().map(one).collect()
    }
}

/// The state of a node as its changelog says; nothing for a node that keeps none.
async fn load(log: &dyn TopicLog, node: &StageNode, lane: u32) -> Result<Option<Keyed>, LoadError> {
    let (Some(kept), Op::Wasm(program)) = (&node.kept, &node.op) else {
        return Ok(None);
    };
    let mut keyed = program.module.keyed(&program.limits, kept.schema);
    let partition = PartitionId::new(kept.topic, lane);
    let bounds = log.bounds(partition)?;
    let mut at = bounds.start;
    while at < bounds.end {
        let batches = log.fetch(partition, at, FETCH_BYTES_MAX).await?;
        if batches.is_empty() {
            let (node, offset, end) = (node.name.clone(), at, bounds.end);
            return Err(LoadError::Short { node, offset, end });
        }
        for batch in batches {
            let rows = batch.rows().map_err(|source| LoadError::Batch {
                node: node.name.clone(),
                offset: at,
                source,
            })?;
            for record in rows.records() {
                let loaded = keyed.load(record.key.unwrap_or_default(), record.value);
                loaded.map_err(|source| LoadError::State {
                    node: node.name.clone(),
                    source,
                })?;
            }
            at = at.max(batch.next_offset());
        }
    }
    Ok(Some(keyed))
}
