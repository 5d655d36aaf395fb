//! Which generation of a pipeline works in its lanes.
//!
//! Called by: `runtime`, and by the server, which starts generations one after the other and says in the
//! catalog which have been taken. Invariants: a status is read as it is, and never blocks a lane.

use model::catalog::PipelineRecord;
use model::topic::TopicSpec;

use super::{Running, RunningLane, Runtime};
use crate::status::LaneState;

impl Runtime {
    /// Whether all lanes work with this very generation.
    pub(super) fn runs(&self, record: &PipelineRecord) -> bool {
        let running = self.running();
        let specs = self.specs(record);
        let same = running
            .get(&record.name)
            .filter(|same| same.record.generation == record.generation && same.specs == specs);
        let mut lanes = same.into_iter().flat_map(Running::lanes);
        let works = |lane: &RunningLane| {
            let status = lane.shared.status();
            let is_stopped = matches!(status.state, LaneState::Stopped { .. });
            status.generation == record.generation && !is_stopped
        };
        same.is_some() && lanes.all(works)
    }

    /// What its topics are now.
    pub(super) fn specs(&self, record: &PipelineRecord) -> Vec<Option<TopicSpec>> {
        let catalog = self.inner.deps.catalog.catalog();
        let spec = |name: &String| catalog.topic(name).map(|topic| topic.spec.clone());
        record.topics.iter().map(spec).collect()
    }

    /// The newest generation that a lane has committed with since it started.
    pub fn committed(&self, name: &str) -> Option<u64> {
        let running = self.running();
        let lanes = running.get(name)?.lanes();
        lanes.map(|lane| lane.shared.status().committed).max()
    }

    /// Returns when no lane of a pipeline is about to start, as far as it runs.
    pub async fn opened(&self, name: &str) {
        let mut changed = self.watch();
        let starts = |lane: &RunningLane| lane.shared.status().state == LaneState::Starting;
        while self
            .running()
            .get(name)
            .is_some_and(|all| all.lanes().any(starts))
        {
            if changed.changed().await.is_err() {
                return;
            }
        }
    }
}
