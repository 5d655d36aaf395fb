//! Where stages begin, and that they are forgotten.
//!
//! Called by: `runtime`. Invariants: what is to be forgotten of a pipeline is asked of the log and not of the
//! lanes that run, so nothing stays of one that did not start, or of a source that it had once; all of it
//! can be done again after a failure. Refuses: what the log refuses.

use std::collections::BTreeSet;
use std::sync::Arc;

use model::ids::PartitionId;
use model::port::{Commit, LogError, Lookup, Position, TopicLog};

use crate::error::StartError;
use crate::limits::POSITIONS_FORGOTTEN_AT_ONCE;
use crate::plan::group_prefix;
use crate::spec::Spec;
use crate::spec::types::{Node, Start};
use crate::stage::Stage;

/// Writes the positions of stages that have none, and of those that are added to a pipeline that runs: where
/// their sources start.
pub(crate) async fn begin(
    log: &dyn TopicLog,
    spec: &Spec,
    stages: &[Arc<Stage>],
    added: &BTreeSet<String>,
) -> Result<(), StartError> {
    for stage in stages {
        let Some(Node::Source(source)) = spec.nodes.get(&stage.name) else {
            continue;
        };
        let at = match source.start.value {
            Start::Earliest => Lookup::Earliest,
            Start::Latest => Lookup::Latest,
            Start::Time(micros) => Lookup::Timestamp(micros),
        };
        let mut positions = Vec::new();
        for index in 0..stage.partitions {
            let partition = PartitionId::new(stage.topic, index);
            let known = log.position(&stage.group, partition);
            // what is known of an added one is left of a time before it was taken out
            if known.is_some() && !added.contains(&stage.name) {
                continue;
            }
            let found = log.lookup(partition, at).await;
            let offset = found.map_err(|error| StartError::Start {
                source_name: stage.name.clone(),
                error,
            })?;
            positions.push(Position {
                group: stage.group.clone(),
                partition,
                offset,
                expected: known,
                metadata: "start".to_string(),
            });
        }
        let written = write(log, positions).await;
        written.map_err(|error| StartError::Positions {
            pipeline: stage.pipeline.clone(),
            error,
        })?;
    }
    Ok(())
}

/// Where any stage of a pipeline has a position, of whatever generation.
pub(crate) fn held(log: &dyn TopicLog, pipeline: &str) -> Vec<(String, PartitionId)> {
    log.held(&group_prefix(pipeline))
}

/// Forgets positions of lanes that have ended.
pub(crate) async fn forget(
    log: &dyn TopicLog,
    held: &[(String, PartitionId)],
) -> Result<(), LogError> {
    for some in held.chunks(POSITIONS_FORGOTTEN_AT_ONCE) {
        let forget = some.iter().map(|(group, partition)| Position {
            group: group.clone(),
            partition: *partition,
            offset: Position::FORGET,
            expected: None,
            metadata: String::new(),
        });
        write(log, forget.collect()).await?;
    }
    Ok(())
}

async fn write(log: &dyn TopicLog, positions: Vec<Position>) -> Result<(), LogError> {
    if positions.is_empty() {
        return Ok(());
    }
    let commit = Commit {
        appends: Vec::new(),
        positions,
    };
    log.commit(commit).await.map(|_| ())
}
