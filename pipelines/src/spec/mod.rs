//! A pipeline file: from text to a checked `Spec`, with every error's line and column.
//!
//! Called by: the server's service (lint, plan, apply), the command line and the runtime.
//! Invariants: pure but for what `Surroundings` gives; all errors come back together, those of
//! the graph too; a `Spec` that came out of `parse` is well formed, though what it names may
//! not exist (that is `lint`). Refuses what `yaml`, `reader` and `parse` say.

mod freeze;
mod grants;
mod nearest;
mod nodes;
mod parse;
mod policy;
pub(crate) mod reader;
mod schema_json;
#[cfg(test)]
pub(crate) mod tests;
pub mod types;
pub mod yaml;

use model::diagnostic::Diagnostic;
use model::topic::{Misfits, PayloadCodec, TopicSpec};

pub use freeze::freeze;
pub use nearest::hint;
pub use parse::Broken;
pub use reader::Surroundings;
pub use schema_json::json_schema;
pub use types::Spec;

use types::TopicDef;

pub const API_VERSION: &str = "rustmq/v1alpha1";
pub const KIND: &str = "Pipeline";

/// Reads a pipeline that names no schema files (a frozen one, see [`freeze`]).
pub fn parse(
    file: &str,
    text: &str,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Spec, Vec<Diagnostic>> {
    let read = |_: &str| Err("schema files cannot be read here; write the fields out".to_string());
    parse_with(file, text, &Surroundings { env, read: &read })
}

/// Reads a pipeline. An error holds all diagnostics, sorted by place; those that `lint` finds
/// without a catalog are among them.
pub fn parse_with(
    file: &str,
    text: &str,
    around: &Surroundings<'_>,
) -> Result<Spec, Vec<Diagnostic>> {
    let (read, reader) = parse::read(file, text, around);
    let mut diagnostics = reader.diagnostics;
    match read {
        Some((spec, _)) if diagnostics.is_empty() => Ok(spec),
        Some((spec, broken)) => {
            diagnostics.extend(crate::lint::lint_partial(&spec, &broken, None));
            Err(sorted(diagnostics))
        }
        None => Err(sorted(diagnostics)),
    }
}

/// By place, each once: what stands behind an alias is read more than once.
pub(crate) fn sorted(mut diagnostics: Vec<Diagnostic>) -> Vec<Diagnostic> {
    diagnostics.sort_by(|a, b| {
        (a.line, a.column, a.severity, &a.message).cmp(&(b.line, b.column, b.severity, &b.message))
    });
    diagnostics.dedup();
    diagnostics
}

impl TopicDef {
    /// The topic to be created: what the file leaves out has the default.
    pub fn to_spec(&self) -> TopicSpec {
        let default = TopicSpec::default();
        TopicSpec {
            partitions: self
                .partitions
                .as_ref()
                .map_or(default.partitions, |p| p.value),
            codec: self
                .value
                .as_ref()
                .map_or(PayloadCodec::Raw, |v| v.codec.value),
            schema: self
                .value
                .as_ref()
                .and_then(|v| v.schema.as_ref())
                .map(|s| s.value.clone()),
            misfits: self.misfits(None),
            durability: self.durability.unwrap_or(default.durability),
            retention_ms: self.retention.map(|r| r.0),
            retention_bytes: self.retention_bytes.map(|r| r.0),
            compact: self.compact.unwrap_or(default.compact),
            tombstone_retention_ms: self.tombstone_retention.map(|r| r.0),
            min_compaction_lag_ms: self.min_compaction_lag.map(|r| r.0),
            tier: self.tier.unwrap_or(default.tier),
        }
    }

    /// What becomes of misfits: what the file leaves out is as it is.
    pub fn misfits(&self, existing: Option<&TopicSpec>) -> Misfits {
        let said = self.value.as_ref().and_then(|value| value.misfits);
        said.or(existing.map(|topic| topic.misfits))
            .unwrap_or_default()
    }

    /// In what an existing topic differs from what the file says about it.
    pub fn difference(&self, existing: &TopicSpec) -> Option<String> {
        let wanted = TopicSpec {
            partitions: self
                .partitions
                .as_ref()
                .map_or(existing.partitions, |p| p.value),
            durability: self.durability.unwrap_or(existing.durability),
            retention_ms: self.retention.map(|r| r.0).or(existing.retention_ms),
            retention_bytes: self
                .retention_bytes
                .map(|r| r.0)
                .or(existing.retention_bytes),
            compact: self.compact.unwrap_or(existing.compact),
            tombstone_retention_ms: self
                .tombstone_retention
                .map(|r| r.0)
                .or(existing.tombstone_retention_ms),
            min_compaction_lag_ms: self
                .min_compaction_lag
                .map(|r| r.0)
                .or(existing.min_compaction_lag_ms),
            tier: self.tier.unwrap_or(existing.tier),
            ..existing.clone()
        };
        let wanted = match &self.value {
            None => wanted,
            Some(value) => TopicSpec {
                codec: value.codec.value,
                schema: value.schema.as_ref().map(|s| s.value.clone()),
                misfits: self.misfits(Some(existing)),
                ..wanted
            },
        };
        existing.difference(&wanted)
    }
}

impl Spec {
    pub fn name(&self) -> &str {
        &self.metadata.name
    }

    /// The topics that the file declares, as they are to be created.
    pub fn topics(&self) -> Vec<(String, TopicSpec)> {
        self.topics
            .iter()
            .map(|(name, def)| (name.value.clone(), def.to_spec()))
            .collect()
    }
}
