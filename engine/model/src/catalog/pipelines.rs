//! Commands about pipelines: which are granted, and what they do.
//!
//! Called by: `decide`. Invariants: what a pipeline names exists; a generation is used once; those to go back
//! to are given up by the first commit of a newer one.

use super::decide::{Decision, Effect, room};
use super::{Catalog, CatalogError, Outcome, PipelineRecord};
use crate::ids::pipeline_name_check;
use crate::limits::{
    PIPELINE_MODULES_MAX, PIPELINE_TOPICS_MAX, PIPELINE_YAML_BYTES_MAX, PIPELINES_MAX,
};

impl Catalog {
    pub(super) fn pipeline_put(&self, record: &PipelineRecord) -> Result<Decision, CatalogError> {
        pipeline_name_check(&record.name)?;
        pipeline_size_check(record)?;
        let pipeline = || record.name.clone();
        if let Some(topic) = record.topics.iter().find(|t| self.topic(t).is_none()) {
            return Err(CatalogError::PipelineTopic {
                pipeline: pipeline(),
                topic: topic.clone(),
            });
        }
        let mut modules = record.modules.iter();
        if let Some((alias, digest)) = modules.find(|(_, digest)| self.module(digest).is_none()) {
            let (alias, digest) = (alias.clone(), *digest);
            return Err(CatalogError::PipelineModule {
                pipeline: pipeline(),
                alias,
                digest,
            });
        }
        if let Some(there) = self.pipeline(&record.name) {
            let same = PipelineRecord {
                generation: there.generation,
                before: there.before.clone(),
                ..record.clone()
            };
            if *there == same {
                return Decision::unchanged(Outcome::Generation(there.generation));
            }
        } else {
            room("pipelines", self.pipelines.len(), PIPELINES_MAX)?;
        }
        let generation = self.generations.get(&record.name).copied().unwrap_or(0) + 1;
        let record = PipelineRecord {
            generation,
            ..record.clone()
        };
        Decision::change(Outcome::Generation(generation), Effect::Pipeline(record))
    }

    pub(super) fn pipeline_taken(
        &self,
        name: &str,
        generation: u64,
    ) -> Result<Decision, CatalogError> {
        let Some(there) = self.pipeline(name) else {
            return Decision::unchanged(Outcome::Done);
        };
        let mut record = there.clone();
        record
            .before
            .retain(|before| generation < there.generation && before.generation >= generation);
        match record.before.len() == there.before.len() {
            true => Decision::unchanged(Outcome::Done),
            false => Decision::change(Outcome::Done, Effect::Pipeline(record)),
        }
    }

    pub(super) fn pipeline_delete(&self, name: &str) -> Result<Decision, CatalogError> {
        let name = name.to_owned();
        match self.pipeline(&name) {
            None => Err(CatalogError::NoSuchPipeline { name }),
            Some(_) => Decision::change(Outcome::Done, Effect::PipelineGone(name)),
        }
    }
}

fn pipeline_size_check(record: &PipelineRecord) -> Result<(), CatalogError> {
    let sizes = [
        ("bytes of text", record.yaml.len(), PIPELINE_YAML_BYTES_MAX),
        ("modules", record.modules.len(), PIPELINE_MODULES_MAX),
        ("topics", record.topics.len(), PIPELINE_TOPICS_MAX),
    ];
    match sizes.into_iter().find(|(_, count, max)| count > max) {
        Some((what, count, max)) => Err(CatalogError::PipelineSize { what, count, max }),
        None => Ok(()),
    }
}
