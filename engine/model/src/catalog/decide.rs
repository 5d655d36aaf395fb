//! Whether a command is granted: reads the catalog and answers with the effect, or refuses.
//!
//! Called by `Catalog::apply`, and by metadata before a command costs a place in the log.
//! Invariants: nothing changes here but in `effect`, which cannot fail; what asks for something
//! that is so already has no effect.

use std::sync::Arc;

use super::{
    BrokerRecord, Catalog, CatalogError, Command, GroupRecord, Outcome, PipelineRecord,
    ShardRecord, TopicChange,
};
use crate::group::group_name_check;
use crate::ids::{
    BrokerId, BrokerLife, Digest, ProducerId, ShardEpoch, TopicId, topic_name_check,
    topic_name_check_internal,
};
use crate::limits::{
    BROKER_NODE_BYTES_MAX, BROKERS_MAX, GROUPS_MAX, MODULE_BYTES_MAX, MODULES_MAX,
    PRODUCER_BLOCK_MAX, SCHEMA_VERSIONS_MAX, TOPICS_MAX,
};
use crate::schema::{Schema, SchemaError};
use crate::topic::{PayloadCodec, Topic, TopicSpec};

/// What a command that is granted does.
pub struct Decision {
    pub outcome: Outcome,
    /// `None`: it is so already.
    pub(super) effect: Option<Effect>,
}

impl Decision {
    /// Whether the catalog would be another one after it.
    pub fn is_change(&self) -> bool {
        self.effect.is_some()
    }

    pub(super) fn unchanged(outcome: Outcome) -> Result<Decision, CatalogError> {
        Ok(Decision {
            outcome,
            effect: None,
        })
    }

    pub(super) fn change(outcome: Outcome, effect: Effect) -> Result<Decision, CatalogError> {
        Ok(Decision {
            outcome,
            effect: Some(effect),
        })
    }
}

pub(super) enum Effect {
    TopicNew(Topic),
    Topic(Topic),
    TopicGone(TopicId, String),
    Module(Digest, u64),
    Pipeline(PipelineRecord),
    PipelineGone(String),
    Group(GroupRecord),
    GroupGone(String),
    Broker(BrokerRecord, Vec<ShardRecord>),
    Producers(ProducerId),
    Restore(Box<Catalog>),
}

impl Catalog {
    /// What a command would do, or why it is refused.
    pub fn decide(&self, command: &Command) -> Result<Decision, CatalogError> {
        match command {
            Command::TopicCreate {
                name,
                spec,
                if_absent,
                internal,
            } => self.topic_create(name, spec, *if_absent, *internal),
            Command::TopicAlter { name, change } => self.topic_alter(name, change),
            Command::TopicSchema { name, schema } => self.topic_schema(name, schema),
            Command::TopicDelete { name } => self.topic_delete(name),
            Command::ModulePut { digest, size } => self.module_put(*digest, *size),
            Command::PipelinePut(record) => self.pipeline_put(record),
            Command::PipelineTaken { name, generation } => self.pipeline_taken(name, *generation),
            Command::PipelineDelete { name } => self.pipeline_delete(name),
            Command::GroupCreate { name, created_ms } => self.group_create(name, *created_ms),
            Command::GroupDelete { name } => self.group_delete(name),
            Command::BrokerStart { node } => self.broker_start(node),
            Command::ProducerBlock { by, count } => self.producer_block(*by, *count),
            Command::Restore { catalog } => self.restore(catalog),
        }
    }

    pub(super) fn effect(&mut self, effect: Effect) {
        match effect {
            Effect::TopicNew(topic) => {
                self.next_topic = topic.id.0 + 1;
                self.schema_put(&topic);
                self.topic_put(topic);
            }
            Effect::Topic(topic) => {
                self.schema_put(&topic);
                self.topic_put(topic);
            }
            Effect::TopicGone(id, name) => {
                Arc::make_mut(&mut self.topics).remove(&name);
                Arc::make_mut(&mut self.topics_by_id).remove(&id);
                Arc::make_mut(&mut self.schemas).remove(&id);
            }
            Effect::Module(digest, size) => {
                Arc::make_mut(&mut self.modules).insert(digest, size);
            }
            Effect::Pipeline(record) => {
                let name = record.name.clone();
                Arc::make_mut(&mut self.generations).insert(name.clone(), record.generation);
                Arc::make_mut(&mut self.pipelines).insert(name, Arc::new(record));
            }
            Effect::PipelineGone(name) => {
                Arc::make_mut(&mut self.pipelines).remove(&name);
            }
            Effect::Group(group) => {
                Arc::make_mut(&mut self.groups).insert(group.name.clone(), group);
            }
            Effect::GroupGone(name) => {
                Arc::make_mut(&mut self.groups).remove(&name);
            }
            Effect::Broker(broker, shards) => {
                self.next_broker = self.next_broker.max(broker.id.0 + 1);
                Arc::make_mut(&mut self.brokers).insert(broker.id, broker);
                let all = Arc::make_mut(&mut self.shards);
                all.extend(shards.into_iter().map(|shard| (shard.id, shard)));
            }
            Effect::Producers(next) => self.next_producer = next,
            Effect::Restore(catalog) => *self = *catalog,
        }
    }

    /// Remembers the topic's schema if it is a version that is not known yet.
    fn schema_put(&mut self, topic: &Topic) {
        let Some(schema) = &topic.spec.schema else {
            return;
        };
        if self.schemas(topic.id).len() < topic.schema_version as usize {
            let all = Arc::make_mut(&mut self.schemas);
            all.entry(topic.id).or_default().push(schema.clone());
        }
    }

    fn topic_create(
        &self,
        name: &str,
        spec: &TopicSpec,
        if_absent: bool,
        internal: bool,
    ) -> Result<Decision, CatalogError> {
        if internal {
            topic_name_check_internal(name)?;
            if !name.starts_with('_') {
                return Err(CatalogError::NotInternal {
                    name: name.to_owned(),
                });
            }
        } else {
            topic_name_check(name)?;
        }
        spec_check(name, spec)?;
        if let Some(there) = self.topic(name) {
            let name = name.to_owned();
            return match there.spec.difference(spec) {
                _ if !if_absent => Err(CatalogError::TopicExists { name }),
                Some(difference) => Err(CatalogError::TopicDiffers { name, difference }),
                None => Decision::unchanged(Outcome::Topic(there.id)),
            };
        }
        room("topics", self.topics.len(), TOPICS_MAX)?;
        let id = TopicId(self.next_topic);
        count_up("topic ids", id.0)?;
        let shards = self.shards.keys().copied().collect();
        let topic = Topic {
            shards,
            ..Topic::new(id, name, spec.clone())
        };
        Decision::change(Outcome::Topic(id), Effect::TopicNew(topic))
    }

    /// A topic that may be changed by users.
    fn topic_of_user(&self, name: &str) -> Result<&Topic, CatalogError> {
        let name = || name.to_owned();
        let topic = self.topic(&name());
        let topic = topic.ok_or_else(|| CatalogError::NoSuchTopic { name: name() })?;
        match topic.is_internal() {
            true => Err(CatalogError::TopicInternal { name: name() }),
            false => Ok(topic),
        }
    }

    fn topic_alter(&self, name: &str, change: &TopicChange) -> Result<Decision, CatalogError> {
        let topic = self.topic_of_user(name)?;
        let spec = change.of(&topic.spec);
        spec_check(name, &spec)?;
        let outcome = Outcome::Topic(topic.id);
        if spec == topic.spec {
            return Decision::unchanged(outcome);
        }
        let topic = Topic {
            spec,
            ..topic.clone()
        };
        Decision::change(outcome, Effect::Topic(topic))
    }

    fn topic_schema(&self, name: &str, schema: &Schema) -> Result<Decision, CatalogError> {
        let topic = self.topic_of_user(name)?;
        if topic.spec.schema.as_ref() == Some(schema) {
            return Decision::unchanged(Outcome::SchemaVersion(topic.schema_version));
        }
        let mut next = topic.clone();
        next.spec.schema = Some(schema.clone());
        spec_check(name, &next.spec)?;
        if let Some(before) = &topic.spec.schema {
            let extends = match topic.spec.codec {
                codec @ (PayloadCodec::Avro | PayloadCodec::Columns) => {
                    Err(SchemaError::Fixed { codec })
                }
                _ => schema.extends(before),
            };
            let name = || name.to_owned();
            extends.map_err(|error| CatalogError::Schema {
                name: name(),
                error,
            })?;
        }
        let versions = topic.schema_version as usize;
        room("versions of one schema", versions, SCHEMA_VERSIONS_MAX)?;
        next.schema_version += 1;
        let outcome = Outcome::SchemaVersion(next.schema_version);
        Decision::change(outcome, Effect::Topic(next))
    }

    fn topic_delete(&self, name: &str) -> Result<Decision, CatalogError> {
        let topic = match self.topic(name) {
            // what a pipeline kept goes with it; the door asks whether it is a user's
            Some(topic) if topic.id != TopicId::OFFSETS => topic,
            _ => self.topic_of_user(name)?,
        };
        if let Some(pipeline) = self.topic_users(name).next() {
            let (name, pipeline) = (name.to_owned(), pipeline.to_owned());
            return Err(CatalogError::TopicInUse { name, pipeline });
        }
        let gone = Effect::TopicGone(topic.id, name.to_owned());
        Decision::change(Outcome::Topic(topic.id), gone)
    }

    fn module_put(&self, digest: Digest, size: u64) -> Result<Decision, CatalogError> {
        if size == 0 || size > MODULE_BYTES_MAX as u64 {
            return Err(CatalogError::ModuleSize { digest, size });
        }
        match self.module(&digest) {
            Some(known) if known == size => return Decision::unchanged(Outcome::Done),
            Some(known) => {
                return Err(CatalogError::ModuleDiffers {
                    digest,
                    size,
                    known,
                });
            }
            None => {}
        }
        room("modules", self.modules.len(), MODULES_MAX)?;
        Decision::change(Outcome::Done, Effect::Module(digest, size))
    }

    fn group_create(&self, name: &str, created_ms: i64) -> Result<Decision, CatalogError> {
        group_name_check(name).map_err(CatalogError::GroupName)?;
        let name = name.to_owned();
        if name.starts_with('_') {
            return Err(CatalogError::GroupInternal { name });
        }
        if self.group(&name).is_some() {
            return Decision::unchanged(Outcome::Done);
        }
        room("groups", self.groups.len(), GROUPS_MAX)?;
        let group = GroupRecord { name, created_ms };
        Decision::change(Outcome::Done, Effect::Group(group))
    }

    fn group_delete(&self, name: &str) -> Result<Decision, CatalogError> {
        let name = name.to_owned();
        match self.group(&name) {
            None => Err(CatalogError::NoSuchGroup { name }),
            Some(_) => Decision::change(Outcome::Done, Effect::GroupGone(name)),
        }
    }

    fn broker_start(&self, node: &str) -> Result<Decision, CatalogError> {
        if node.is_empty() || node.len() > BROKER_NODE_BYTES_MAX {
            return Err(CatalogError::BrokerNode { bytes: node.len() });
        }
        let known = self.brokers.values().find(|broker| broker.node == node);
        let (id, incarnation) = match known {
            Some(broker) => (broker.id, broker.incarnation + 1),
            None => {
                room("brokers", self.brokers.len(), BROKERS_MAX)?;
                count_up("broker ids", self.next_broker)?;
                (BrokerId(self.next_broker), 1)
            }
        };
        let mut shards = Vec::new();
        // A shard that nobody has ever led falls to the first who comes.
        let own = |shard: &&ShardRecord| shard.leader.is_none_or(|leader| leader == id);
        for shard in self.shards.values().filter(own) {
            shards.push(ShardRecord {
                id: shard.id,
                epoch: ShardEpoch(count_up("epochs of one shard", shard.epoch.0)?),
                leader: Some(id),
            });
        }
        let node = node.to_owned();
        let broker = BrokerRecord {
            id,
            node,
            incarnation,
        };
        let life = BrokerLife {
            broker: id,
            incarnation,
        };
        Decision::change(Outcome::Started(life), Effect::Broker(broker, shards))
    }

    fn producer_block(&self, by: BrokerLife, count: u32) -> Result<Decision, CatalogError> {
        let BrokerLife {
            broker,
            incarnation,
        } = by;
        let there = self.broker(broker);
        let current = there
            .ok_or(CatalogError::NoSuchBroker { broker })?
            .incarnation;
        if incarnation != current {
            return Err(CatalogError::Fenced { by, current });
        }
        if count == 0 || count > PRODUCER_BLOCK_MAX {
            return Err(CatalogError::BlockSize { count });
        }
        let first = self.next_producer;
        let next = first.0.checked_add(u64::from(count));
        let next = next.filter(|next| *next <= PRODUCER_IDS_END);
        let next = next.ok_or(CatalogError::Full {
            what: "producer ids",
            max: PRODUCER_IDS_END,
        })?;
        let outcome = Outcome::Producers { first, count };
        Decision::change(outcome, Effect::Producers(ProducerId(next)))
    }

    fn restore(&self, catalog: &Catalog) -> Result<Decision, CatalogError> {
        let version = self.version;
        if *self != Catalog::new() {
            return Err(CatalogError::NotEmpty { version });
        }
        let catalog = Box::new(catalog.clone());
        Decision::change(Outcome::Done, Effect::Restore(catalog))
    }
}

/// Producer ids stay below this: Kafka's are signed.
const PRODUCER_IDS_END: u64 = i64::MAX as u64;

fn spec_check(name: &str, spec: &TopicSpec) -> Result<(), CatalogError> {
    spec.check().map_err(|error| CatalogError::Spec {
        name: name.to_owned(),
        error,
    })
}

pub(super) fn room(what: &'static str, there: usize, max: usize) -> Result<(), CatalogError> {
    match there < max {
        true => Ok(()),
        false => Err(CatalogError::Full {
            what,
            max: max as u64,
        }),
    }
}

/// The number after `last`.
fn count_up(what: &'static str, last: u32) -> Result<u32, CatalogError> {
    let max = u64::from(u32::MAX);
    last.checked_add(1).ok_or(CatalogError::Full { what, max })
}
