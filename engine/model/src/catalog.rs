//! The catalog: which topics, shards, modules, pipelines, groups and brokers there are, as a
//! pure state machine.
//!
//! Called by metadata, which keeps the commands in a replicated log and applies them in order;
//! read by all through `port::CatalogView`. `command` says what can be asked, `decide` whether
//! it is granted, `image` how a catalog looks at rest, `change` what differs between two.
//! Invariants: a command that is refused changes nothing; the same commands in the same order
//! give the same catalog; `version` counts changes; ids are never used twice; what a pipeline
//! names exists as long as the pipeline does; an epoch and an incarnation only grow.
//! A clone shares what did not change, so that every version can be handed out whole.

mod change;
mod command;
mod decide;
mod error;
mod image;
mod pipelines;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::ids::{BrokerId, Digest, PartitionId, ProducerId, ShardEpoch, ShardId, TopicId};
use crate::schema::Schema;
use crate::topic::{Topic, TopicSpec};

pub use change::Change;
pub use command::{
    BrokerRecord, Command, GroupRecord, Outcome, PipelineRecord, ShardRecord, TopicChange,
};
pub use decide::Decision;
pub use error::CatalogError;
pub use image::IMAGE_FORMAT;

/// Name of the topic that holds the commits of consumer groups.
pub const OFFSETS_TOPIC: &str = "_offsets";

/// Everything the brokers agree on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "image::Image", into = "image::Image")]
pub struct Catalog {
    version: u64,
    next_topic: u32,
    next_broker: u32,
    next_producer: ProducerId,
    topics: Arc<BTreeMap<String, Arc<Topic>>>,
    topics_by_id: Arc<BTreeMap<TopicId, Arc<Topic>>>,
    /// All versions of each topic's schema, the first one first; none for topics without.
    schemas: Arc<BTreeMap<TopicId, Vec<Schema>>>,
    modules: Arc<BTreeMap<Digest, u64>>,
    pipelines: Arc<BTreeMap<String, Arc<PipelineRecord>>>,
    /// Last generation of every pipeline name ever used, so that none is used twice.
    generations: Arc<BTreeMap<String, u64>>,
    groups: Arc<BTreeMap<String, GroupRecord>>,
    brokers: Arc<BTreeMap<BrokerId, BrokerRecord>>,
    shards: Arc<BTreeMap<ShardId, ShardRecord>>,
}

impl Default for Catalog {
    fn default() -> Catalog {
        Catalog::new()
    }
}

impl Catalog {
    /// A catalog with nothing in it but the first shard and the topic of the groups' commits.
    pub fn new() -> Catalog {
        let spec = TopicSpec {
            compact: true,
            tier: false,
            ..TopicSpec::default()
        };
        let first = ShardRecord {
            id: ShardId::FIRST,
            epoch: ShardEpoch(1),
            leader: None,
        };
        let mut catalog = Catalog {
            version: 0,
            next_topic: TopicId::OFFSETS.0 + 1,
            next_broker: 1,
            next_producer: ProducerId(1),
            topics: Arc::default(),
            topics_by_id: Arc::default(),
            schemas: Arc::default(),
            modules: Arc::default(),
            pipelines: Arc::default(),
            generations: Arc::default(),
            groups: Arc::default(),
            brokers: Arc::default(),
            shards: Arc::new(BTreeMap::from([(first.id, first)])),
        };
        catalog.topic_put(Topic::new(TopicId::OFFSETS, OFFSETS_TOPIC, spec));
        catalog
    }

    /// Does what the command asks, or refuses and changes nothing.
    pub fn apply(&mut self, command: &Command) -> Result<Outcome, CatalogError> {
        let decision = self.decide(command)?;
        if let Some(effect) = decision.effect {
            let version = self.version;
            self.effect(effect);
            self.version = self.version.max(version) + 1;
        }
        Ok(decision.outcome)
    }

    /// How many commands have changed it.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The topic of that name.
    pub fn topic(&self, name: &str) -> Option<&Topic> {
        self.topics.get(name).map(Arc::as_ref)
    }

    /// The topic of that id.
    pub fn topic_by_id(&self, id: TopicId) -> Option<&Topic> {
        self.topics_by_id.get(&id).map(Arc::as_ref)
    }

    /// All topics by name, internal ones too.
    pub fn topics(&self) -> impl ExactSizeIterator<Item = &Topic> {
        self.topics.values().map(Arc::as_ref)
    }

    /// All schemas a topic has had, the first one first; the last one is the topic's now.
    pub fn schemas(&self, id: TopicId) -> &[Schema] {
        self.schemas.get(&id).map_or(&[], Vec::as_slice)
    }

    /// The shard of a partition.
    pub fn shard_of(&self, partition: PartitionId) -> Option<&ShardRecord> {
        let topic = self.topic_by_id(partition.topic)?;
        self.shard(topic.shard(partition.index)?)
    }

    /// The shard of that id.
    pub fn shard(&self, id: ShardId) -> Option<&ShardRecord> {
        self.shards.get(&id)
    }

    /// All shards by id.
    pub fn shards(&self) -> impl ExactSizeIterator<Item = &ShardRecord> {
        self.shards.values()
    }

    /// The broker of that id.
    pub fn broker(&self, id: BrokerId) -> Option<&BrokerRecord> {
        self.brokers.get(&id)
    }

    /// All brokers by id.
    pub fn brokers(&self) -> impl ExactSizeIterator<Item = &BrokerRecord> {
        self.brokers.values()
    }

    /// All modules: digest and bytes.
    pub fn modules(&self) -> impl ExactSizeIterator<Item = (Digest, u64)> {
        self.modules.iter().map(|(digest, size)| (*digest, *size))
    }

    /// Bytes of a module, if it is stored.
    pub fn module(&self, digest: &Digest) -> Option<u64> {
        self.modules.get(digest).copied()
    }

    /// The pipeline of that name.
    pub fn pipeline(&self, name: &str) -> Option<&PipelineRecord> {
        self.pipelines.get(name).map(Arc::as_ref)
    }

    /// All pipelines by name.
    pub fn pipelines(&self) -> impl ExactSizeIterator<Item = &PipelineRecord> {
        self.pipelines.values().map(Arc::as_ref)
    }

    /// Names of the pipelines that use a topic, or would if they went back.
    pub fn topic_users<'a>(&'a self, topic: &'a str) -> impl Iterator<Item = &'a str> {
        let uses = move |p: &&PipelineRecord| {
            let mut topics = p
                .topics
                .iter()
                .chain(p.before.iter().flat_map(|b| &b.topics));
            topics.any(|t| t == topic)
        };
        self.pipelines().filter(uses).map(|p| p.name.as_str())
    }

    /// The consumer group of that name.
    pub fn group(&self, name: &str) -> Option<&GroupRecord> {
        self.groups.get(name)
    }

    /// All consumer groups by name.
    pub fn groups(&self) -> impl ExactSizeIterator<Item = &GroupRecord> {
        self.groups.values()
    }

    fn topic_put(&mut self, topic: Topic) {
        let topic = Arc::new(topic);
        Arc::make_mut(&mut self.topics_by_id).insert(topic.id, Arc::clone(&topic));
        Arc::make_mut(&mut self.topics).insert(topic.name.clone(), topic);
    }
}
