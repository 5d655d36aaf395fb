//! What the catalog can be asked, and what it answers.
//!
//! Called by whoever proposes (server, broker, pipelines) and by metadata, which keeps commands
//! in its log as JSON. Invariants: a command that was ever written can be read for ever: variants
//! and fields are added, with defaults, and never renamed; nothing in here is a clock or a random
//! number, so that every node that applies a command comes to the same catalog.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

use super::Catalog;
use crate::ids::{BrokerId, BrokerLife, Digest, ProducerId, ShardEpoch, ShardId, TopicId};
use crate::schema::Schema;
use crate::topic::{Durability, TopicSpec};

/// A change that is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case")]
pub enum Command {
    /// Makes a topic. With `if_absent` a topic of the same spec is left as it is.
    TopicCreate {
        name: String,
        spec: TopicSpec,
        if_absent: bool,
        /// Made by the platform for itself: the name must begin with `_`.
        #[serde(default)]
        internal: bool,
    },
    /// Changes the settings of a topic that can change while it is used.
    TopicAlter { name: String, change: TopicChange },
    /// Gives a topic the next version of its schema.
    TopicSchema { name: String, schema: Schema },
    /// Removes a topic that no pipeline names.
    TopicDelete { name: String },
    /// Records that a module is stored.
    ModulePut {
        digest: Digest,
        /// Bytes of the module.
        size: u64,
    },
    /// Makes a pipeline or replaces it; the generation is set by the catalog.
    PipelinePut(PipelineRecord),
    /// A lane has committed with this generation: nobody goes back to those before it.
    PipelineTaken { name: String, generation: u64 },
    /// Removes a pipeline; its topics and modules stay.
    PipelineDelete { name: String },
    /// Records that a consumer group is used; one that is known is left as it is.
    GroupCreate {
        name: String,
        /// Milliseconds since the epoch, by the clock of who proposed it.
        created_ms: i64,
    },
    /// Forgets a consumer group.
    GroupDelete { name: String },
    /// A broker starts: it gets its number, a new incarnation, and a new epoch for every shard
    /// it leads, so that whatever an earlier life of it still writes is refused.
    BrokerStart {
        /// The name in the broker's data directory.
        node: String,
    },
    /// Hands out producer ids that nobody had before.
    ProducerBlock {
        /// Who asks; an earlier life is refused.
        by: BrokerLife,
        count: u32,
    },
    /// Takes over a whole catalog: for one that comes from another store. Only as the first
    /// change ever.
    Restore { catalog: Box<Catalog> },
}

/// Settings of a topic that are to change; what is absent stays.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TopicChange {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub durability: Option<Durability>,
    /// `null` takes the limit away.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub retention_ms: Option<Option<u64>>,
    /// `null` takes the limit away.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub retention_bytes: Option<Option<u64>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compact: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tier: Option<bool>,
}

/// A value that is there is `Some`, `null` too.
fn given<'de, D, T>(from: D) -> Result<Option<Option<T>>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    Option::deserialize(from).map(Some)
}

impl TopicChange {
    /// The settings after the change.
    pub fn of(&self, spec: &TopicSpec) -> TopicSpec {
        let compact = self.compact.unwrap_or(spec.compact);
        TopicSpec {
            durability: self.durability.unwrap_or(spec.durability),
            retention_ms: self.retention_ms.unwrap_or(spec.retention_ms),
            retention_bytes: self.retention_bytes.unwrap_or(spec.retention_bytes),
            compact,
            tombstone_retention_ms: spec.tombstone_retention_ms.filter(|_| compact),
            min_compaction_lag_ms: spec.min_compaction_lag_ms.filter(|_| compact),
            tier: self.tier.unwrap_or(spec.tier),
            ..spec.clone()
        }
    }
}

/// A pipeline as it was applied.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PipelineRecord {
    pub name: String,
    /// Counts the versions of this name, from 1; set when the command is applied.
    #[serde(default)]
    pub generation: u64,
    /// The text, as written, with the environment filled in.
    pub yaml: String,
    /// Where the user had it, for messages.
    pub file: String,
    /// What each module alias stood for.
    pub modules: BTreeMap<String, Digest>,
    /// Names of the topics it reads or writes; they cannot be deleted while it is there.
    #[serde(default)]
    pub topics: Vec<String>,
    /// What goes on if this one fails, also after a restart, until a lane has committed with it: the one that
    /// a lane has committed with last, and the one after it that was applied last. They have none themselves.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub before: Vec<PipelineRecord>,
}

/// A consumer group that is known. Its members live in the broker, its positions in `_offsets`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupRecord {
    pub name: String,
    /// Milliseconds since the epoch.
    pub created_ms: i64,
}

/// A broker that has started at least once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BrokerRecord {
    pub id: BrokerId,
    pub node: String,
    pub incarnation: u64,
}

/// A set of partitions that one broker writes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardRecord {
    pub id: ShardId,
    pub epoch: ShardEpoch,
    /// Who writes; nobody before the first start.
    pub leader: Option<BrokerId>,
}

/// What a command did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    Topic(TopicId),
    Done,
    /// The generation of the pipeline; the same as before if nothing changed.
    Generation(u64),
    /// The version of the schema; the same as before if nothing changed.
    SchemaVersion(u32),
    Started(BrokerLife),
    /// `count` ids from `first` on.
    Producers {
        first: ProducerId,
        count: u32,
    },
}
