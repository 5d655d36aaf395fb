//! Canaries of pipelines: start, show, promote, stop.
//!
//! Called by: `service::Rooms::answer`. Calls: the pipelines room, `pipelines` (the way a promotion
//! takes is that of an apply).
//! Invariants: one canary a pipeline; a promotion changes the module and nothing else, after it was
//! opened once, and only for the generation that the canary was compared with.
//! Refuses: promoting what failed or was never compared, unless told to.

use std::time::Duration;

use ::pipelines::{CanaryError, CanaryReport, CanaryState, Until};
use model::PipelineRecord;
use protocol::{
    CanaryPromote, CanaryPromoted, CanaryShown, CanaryStart, CanaryStarted, CanaryStopped,
    WireError, code,
};

use super::pipelines::refused;
use super::{Rooms, reply};

impl Rooms {
    pub(super) async fn canary_start(&self, ask: CanaryStart) -> Result<CanaryStarted, WireError> {
        let _alone = self.changing.lock().await;
        let name = &ask.pipeline;
        self.pipeline_record(name)?;
        let until = Until {
            records: ask.records,
            time: ask.time_ms.map(Duration::from_millis),
        };
        let started = self
            .pipelines
            .canary_start(name, &ask.node, ask.module, until);
        started.await.map_err(|error| match error {
            CanaryError::Changed | CanaryError::Thread(_) => {
                WireError::retry(code::UNAVAILABLE, error.to_string())
            }
            _ => WireError::fix(code::INVALID, error.to_string()),
        })?;
        let report = self.pipelines.canary(name);
        Ok(CanaryStarted {
            report: serde_json::to_value(report).map_err(reply::bug)?,
        })
    }

    pub(super) fn canary_show(&self, pipeline: &str) -> Result<CanaryShown, WireError> {
        let report = self.canary_of(pipeline)?;
        Ok(CanaryShown {
            report: serde_json::to_value(report).map_err(reply::bug)?,
        })
    }

    pub(super) async fn canary_promote(
        &self,
        ask: CanaryPromote,
    ) -> Result<CanaryPromoted, WireError> {
        let _alone = self.changing.lock().await;
        let report = self.canary_of(&ask.pipeline)?;
        let mut record = self.pipeline_record(&ask.pipeline)?;
        if record.generation != report.generation {
            let message = format!(
                "the canary was compared with generation {}, but generation {} runs: start it again",
                report.generation, record.generation
            );
            return Err(WireError::fix(code::INVALID, message));
        }
        if let Some(why) = doubt(&report).filter(|_| !ask.force) {
            let message = format!("{why}; --force promotes it all the same");
            return Err(WireError::fix(code::INVALID, message));
        }
        record.generation += 1;
        record
            .modules
            .insert(report.module.clone(), report.candidate);
        let prepared = self.pipelines.prepare(&record).await.map_err(refused)?;
        let generation = self.pipeline_put(record, prepared).await?;
        // the start has ended it: what it says now is all there will be
        let last = self.pipelines.canary_stop(&ask.pipeline).unwrap_or(report);
        Ok(CanaryPromoted {
            generation,
            report: serde_json::to_value(last).map_err(reply::bug)?,
        })
    }

    pub(super) fn canary_stop(&self, pipeline: &str) -> Result<CanaryStopped, WireError> {
        self.canary_of(pipeline)?;
        let report = self.pipelines.canary_stop(pipeline);
        Ok(CanaryStopped {
            report: serde_json::to_value(report).map_err(reply::bug)?,
        })
    }

    fn canary_of(&self, pipeline: &str) -> Result<CanaryReport, WireError> {
        self.pipeline_record(pipeline)?;
        self.pipelines.canary(pipeline).ok_or_else(|| {
            let message = format!(
                "pipeline {pipeline} has no canary; `rustmq pipeline canary start` makes one, and a \
                 restart of the server ends it"
            );
            WireError::fix(code::NOT_FOUND, message)
        })
    }

    pub(super) fn pipeline_record(&self, name: &str) -> Result<PipelineRecord, WireError> {
        self.catalog().pipeline(name).cloned().ok_or_else(|| {
            let message =
                format!("pipeline {name} does not exist; `rustmq pipeline list` shows all");
            WireError::fix(code::NOT_FOUND, message)
        })
    }
}

/// Why nobody should promote it.
fn doubt(report: &CanaryReport) -> Option<String> {
    match &report.state {
        CanaryState::Failed { why } => Some(format!("the canary failed: {why}")),
        _ if report.records == 0 => Some("the canary has compared nothing yet".to_string()),
        _ => None,
    }
}
