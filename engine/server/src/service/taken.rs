//! Which generation of a pipeline goes on if the next one fails: what a lane has committed with last. The
//! catalog keeps it beside the next one until a lane has committed with that, so that a restart tries the
//! next one against it again instead of taking it unseen.
//!
//! Called by: `pipelines` before the catalog changes, and by a task for what lanes commit.
//! Invariants: one that has other sources is none, because positions come and go with sources.

use std::collections::BTreeSet;
use std::sync::Weak;

use ::pipelines::spec::types::{At, Node};
use model::{Command, PipelineRecord};

use super::Rooms;

/// Tells the catalog which generations have been taken, as it happens.
pub(crate) async fn follow_taken(rooms: Weak<Rooms>) {
    let Some(mut changed) = rooms.upgrade().map(|rooms| rooms.pipelines.watch()) else {
        return;
    };
    while let Some(rooms) = rooms.upgrade() {
        for (name, generation) in rooms.taken() {
            let taken = Command::PipelineTaken {
                name: name.clone(),
                generation,
            };
            if let Err(error) = rooms.metadata.propose(taken).await {
                let then = "a restart would try it against the one before once more";
                tracing::warn!(name, generation, %error, then, "the catalog was not told");
            }
        }
        drop(rooms);
        if changed.changed().await.is_err() {
            return;
        }
    }
}

impl Rooms {
    /// Pipelines whose generation has been taken, and of which the catalog does not know it.
    fn taken(&self) -> Vec<(String, u64)> {
        let catalog = self.catalog();
        let open = catalog.pipelines().filter(|record| record.before.is_some());
        let open = open.map(|record| (record.name.clone(), record.generation));
        open.filter(|(name, generation)| self.pipelines.has_taken(name, *generation))
            .collect()
    }
}

/// What goes on if a generation fails before any lane has committed with it. None where it has other
/// sources: their positions come and go with it.
pub(super) fn goes_back(
    there: &PipelineRecord,
    next: &PipelineRecord,
) -> Option<Box<PipelineRecord>> {
    let known = there.before.as_deref().unwrap_or(there);
    let sources = |record: &PipelineRecord| -> Option<BTreeSet<(String, String)>> {
        let spec = ::pipelines::parse(&record.file, &record.yaml, &|_| None).ok()?;
        let source = |(name, node): (&At<String>, &Node)| match node {
            Node::Source(source) => Some((name.value.clone(), source.topic.value.clone())),
            _ => None,
        };
        Some(spec.nodes.iter().filter_map(source).collect())
    };
    let same = sources(known).is_some_and(|known| Some(known) == sources(next));
    same.then(|| {
        Box::new(PipelineRecord {
            before: None,
            ..known.clone()
        })
    })
}
