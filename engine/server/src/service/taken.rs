//! Which generations of a pipeline go on if the next one fails: what a lane has committed with last, and what
//! was applied after it. The catalog keeps them beside the next one until a lane has committed with that, so
//! that a restart tries the next one against them again instead of taking it unseen.
//!
//! Called by: `pipelines` before the catalog changes, and by a task for what lanes commit.
//! Invariants: oldest first, at most two; one that has other sources is none of them.

use std::collections::BTreeSet;
use std::sync::Weak;
use std::time::Duration;

use ::pipelines::spec::types::{At, Node};
use model::{Command, PipelineRecord};

use super::Rooms;

/// Between two looks at the lanes, whose status changes with each commit.
const REST: Duration = Duration::from_millis(100);
/// Before the catalog is told again, if it could not be.
const WAIT: Duration = Duration::from_secs(5);

/// Tells the catalog which generations have been taken, as it happens.
pub(crate) async fn follow_taken(rooms: Weak<Rooms>) {
    let Some(mut changed) = rooms.upgrade().map(|rooms| rooms.pipelines.watch()) else {
        return;
    };
    while let Some(rooms) = rooms.upgrade() {
        let mut rest = REST;
        for (name, generation) in rooms.taken() {
            let taken = Command::PipelineTaken {
                name: name.clone(),
                generation,
            };
            if let Err(error) = rooms.metadata.propose(taken).await {
                let then = "it is told again; a restart would try it against the one before";
                tracing::warn!(name, generation, %error, then, "the catalog was not told");
                rest = WAIT;
            }
        }
        drop(rooms);
        tokio::time::sleep(rest).await;
        if changed.changed().await.is_err() {
            return;
        }
    }
}

impl Rooms {
    /// Pipelines whose lanes have committed with a newer generation than the catalog knows of.
    fn taken(&self) -> Vec<(String, u64)> {
        let catalog = self.catalog();
        let taken = |record: &PipelineRecord| {
            let known = record.before.first()?.generation;
            let committed = self.pipelines.committed(&record.name)?;
            let mut newer = record.before.iter().chain([record]);
            let is_news = newer.any(|newer| newer.generation == committed && committed > known);
            is_news.then(|| (record.name.clone(), committed))
        };
        catalog.pipelines().filter_map(taken).collect()
    }
}

/// What goes on if the next generation fails before any lane has committed with it: the last that one has
/// committed with, and the one that was applied after it. Not those that have other sources: positions come
/// and go with sources.
pub(super) fn goes_back(there: &PipelineRecord, next: &PipelineRecord) -> Vec<PipelineRecord> {
    let sources = |record: &PipelineRecord| -> Option<BTreeSet<(String, String)>> {
        let spec = ::pipelines::parse(&record.file, &record.yaml, &|_| None).ok()?;
        let source = |(name, node): (&At<String>, &Node)| match node {
            Node::Source(source) => Some((name.value.clone(), source.topic.value.clone())),
            _ => None,
        };
        Some(spec.nodes.iter().filter_map(source).collect())
    };
    let read = sources(next);
    let all = there.before.first().into_iter().chain([there]);
    let same = all.filter(|record| read.is_some() && sources(record) == read);
    let alone = |record: &PipelineRecord| PipelineRecord {
        before: Vec::new(),
        ..record.clone()
    };
    same.map(alone).collect()
}
