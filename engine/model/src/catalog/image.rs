//! A catalog at rest: one JSON document.
//!
//! Called by serde, for metadata's snapshots and for `Command::Restore`. Format 1 had topics,
//! modules and pipelines only; it is read with the defaults below.
//! Invariants: what is read back is a catalog that commands could have made; a field is added,
//! never renamed, and each addition has a default or raises the format.
//! Refuses: ids that were not given out or are there twice, newer formats.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{BrokerRecord, Catalog, GroupRecord, OFFSETS_TOPIC, PipelineRecord, ShardRecord};
use crate::ids::{Digest, ProducerId, ShardEpoch, ShardId, TopicId};
use crate::schema::Schema;
use crate::topic::Topic;

/// The format written.
pub const IMAGE_FORMAT: u32 = 2;

/// Where producer ids begin for a catalog of format 1. Its brokers took theirs from the clock:
/// milliseconds in 42 bits, times 2^20, so all of them are below this.
const PRODUCER_IDS_AFTER_CLOCK: u64 = 1 << 62;

#[derive(Serialize, Deserialize)]
pub(super) struct Image {
    #[serde(default = "format_first")]
    format: u32,
    version: u64,
    next_topic: u32,
    #[serde(default = "broker_first")]
    next_broker: u32,
    #[serde(default = "producer_first")]
    next_producer: ProducerId,
    topics: Vec<Topic>,
    /// Only of topics whose schema has more than one version.
    #[serde(default)]
    schemas: Vec<Versions>,
    modules: BTreeMap<Digest, u64>,
    pipelines: Vec<PipelineRecord>,
    generations: BTreeMap<String, u64>,
    #[serde(default)]
    groups: Vec<GroupRecord>,
    #[serde(default)]
    brokers: Vec<BrokerRecord>,
    #[serde(default = "shards_first")]
    shards: Vec<ShardRecord>,
}

/// A list and not a map by number: inside of a command those are not read back.
#[derive(Serialize, Deserialize)]
struct Versions {
    topic: TopicId,
    schemas: Vec<Schema>,
}

fn format_first() -> u32 {
    1
}

fn broker_first() -> u32 {
    1
}

fn producer_first() -> ProducerId {
    ProducerId(PRODUCER_IDS_AFTER_CLOCK)
}

/// The brokers of format 1 wrote in epoch 1.
fn shards_first() -> Vec<ShardRecord> {
    let (id, epoch) = (ShardId::FIRST, ShardEpoch(1));
    vec![ShardRecord {
        id,
        epoch,
        leader: None,
    }]
}

impl From<Catalog> for Image {
    fn from(catalog: Catalog) -> Image {
        let schemas = catalog.schemas.iter().map(|(topic, schemas)| Versions {
            topic: *topic,
            schemas: schemas.clone(),
        });
        let schemas = schemas.filter(|v| v.schemas.len() > 1).collect();
        Image {
            format: IMAGE_FORMAT,
            version: catalog.version,
            next_topic: catalog.next_topic,
            next_broker: catalog.next_broker,
            next_producer: catalog.next_producer,
            topics: cloned(&catalog.topics),
            schemas,
            modules: Arc::unwrap_or_clone(catalog.modules),
            pipelines: cloned(&catalog.pipelines),
            generations: Arc::unwrap_or_clone(catalog.generations),
            groups: catalog.groups.values().cloned().collect(),
            brokers: catalog.brokers.values().cloned().collect(),
            shards: catalog.shards.values().cloned().collect(),
        }
    }
}

fn cloned<T: Clone>(map: &BTreeMap<String, Arc<T>>) -> Vec<T> {
    map.values().map(|value| T::clone(value)).collect()
}

/// The values by their keys, each once.
fn by_key<K: Ord, V>(
    what: &str,
    values: Vec<V>,
    key: impl Fn(&V) -> K,
) -> Result<BTreeMap<K, V>, String> {
    let count = values.len();
    let map: BTreeMap<K, V> = values.into_iter().map(|v| (key(&v), v)).collect();
    match map.len() == count {
        true => Ok(map),
        false => Err(format!("{what} is there twice")),
    }
}

impl TryFrom<Image> for Catalog {
    type Error = String;

    fn try_from(image: Image) -> Result<Catalog, String> {
        if image.format > IMAGE_FORMAT {
            return Err(format!(
                "it was written by a newer rustmq (catalog format {}, this one knows \
                 {IMAGE_FORMAT}); use that version",
                image.format
            ));
        }
        let mut catalog = Catalog {
            version: image.version,
            next_topic: image.next_topic,
            next_broker: image.next_broker,
            next_producer: image.next_producer,
            topics: Arc::default(),
            topics_by_id: Arc::default(),
            modules: Arc::new(image.modules),
            generations: Arc::new(image.generations),
            ..Catalog::new()
        };
        let shards = by_key("a shard", image.shards, |shard| shard.id)?;
        catalog.shards = Arc::new(shards);
        for topic in image.topics {
            catalog.topic_restore(topic)?;
        }
        let offsets = catalog.topic_by_id(TopicId::OFFSETS);
        if offsets.is_none_or(|topic| topic.name != OFFSETS_TOPIC) {
            return Err(format!("topic `{OFFSETS_TOPIC}` is missing"));
        }
        for versions in image.schemas {
            catalog.schemas_restore(versions)?;
        }
        let brokers = by_key("a broker", image.brokers, |broker| broker.id)?;
        if let Some(late) = brokers.keys().find(|id| id.0 >= image.next_broker) {
            return Err(format!("broker {late} has an id that was not given out"));
        }
        catalog.brokers = Arc::new(brokers);
        let groups = by_key("a group", image.groups, |group| group.name.clone())?;
        catalog.groups = Arc::new(groups);
        let pipelines = image.pipelines.into_iter();
        catalog.pipelines = Arc::new(pipelines.map(|p| (p.name.clone(), Arc::new(p))).collect());
        Ok(catalog)
    }
}

impl Catalog {
    fn topic_restore(&mut self, mut topic: Topic) -> Result<(), String> {
        let name = &topic.name;
        if topic.id.0 >= self.next_topic {
            return Err(format!("topic `{name}` has an id that was not given out"));
        }
        if let Some(other) = self.topic_by_id(topic.id) {
            let other = &other.name;
            return Err(format!("topics `{other}` and `{name}` have the same id"));
        }
        if self.topic(name).is_some() {
            return Err(format!("topic `{name}` is there twice"));
        }
        let is_known = |shard: &ShardId| self.shards.contains_key(shard);
        if topic.shards.is_empty() || !topic.shards.iter().all(is_known) {
            return Err(format!("topic `{name}` lives in no known shard"));
        }
        // Format 1 did not count.
        let least = u32::from(topic.spec.schema.is_some());
        topic.schema_version = topic.schema_version.max(least);
        let schemas = Arc::make_mut(&mut self.schemas);
        schemas.extend(
            topic
                .spec
                .schema
                .iter()
                .map(|s| (topic.id, vec![s.clone()])),
        );
        self.topic_put(topic);
        Ok(())
    }

    fn schemas_restore(&mut self, versions: Versions) -> Result<(), String> {
        let Versions { topic: id, schemas } = versions;
        let is_right = |topic: &Topic| {
            topic.spec.schema.as_ref() == schemas.last()
                && topic.schema_version as usize == schemas.len()
        };
        if !self.topic_by_id(id).is_some_and(is_right) {
            return Err(format!(
                "the schemas of topic {id} are not those it has had"
            ));
        }
        Arc::make_mut(&mut self.schemas).insert(id, schemas);
        Ok(())
    }
}
