//! The catalog: which topics, modules and pipelines there are, as a pure state machine.
//!
//! Called by metadata, which journals the commands and applies them in order; read by all
//! through `port::CatalogView`. Invariants: a command that is refused changes nothing; the same
//! commands in the same order give the same catalog; `version` counts changes; ids are never
//! used twice; what a pipeline names exists as long as the pipeline does.

mod error;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ids::{
    Digest, TopicId, pipeline_name_check, topic_name_check, topic_name_check_internal,
};
use crate::limits::{
    MODULE_BYTES_MAX, MODULES_MAX, PIPELINE_MODULES_MAX, PIPELINE_TOPICS_MAX,
    PIPELINE_YAML_BYTES_MAX, PIPELINES_MAX, TOPICS_MAX,
};
use crate::topic::{Topic, TopicSpec};

pub use error::CatalogError;

/// Name of the topic that holds the commits of consumer groups.
pub const OFFSETS_TOPIC: &str = "_offsets";

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
    /// Removes a pipeline; its topics and modules stay.
    PipelineDelete { name: String },
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
}

/// What a command did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    Topic(TopicId),
    Done,
    /// The generation of the pipeline; the same as before if nothing changed.
    Generation(u64),
}

/// Topics, modules and pipelines.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Image", into = "Image")]
pub struct Catalog {
    version: u64,
    next_topic: u32,
    topics: BTreeMap<String, Topic>,
    names: BTreeMap<TopicId, String>,
    modules: BTreeMap<Digest, u64>,
    pipelines: BTreeMap<String, PipelineRecord>,
    /// Last generation of every pipeline name ever used, so that none is used twice.
    generations: BTreeMap<String, u64>,
}

/// A catalog at rest.
#[derive(Serialize, Deserialize)]
struct Image {
    version: u64,
    next_topic: u32,
    topics: Vec<Topic>,
    modules: BTreeMap<Digest, u64>,
    pipelines: Vec<PipelineRecord>,
    generations: BTreeMap<String, u64>,
}

impl Default for Catalog {
    fn default() -> Catalog {
        Catalog::new()
    }
}

impl Catalog {
    /// A catalog with nothing in it but the topic of the groups' commits.
    pub fn new() -> Catalog {
        let spec = TopicSpec {
            compact: true,
            tier: false,
            ..TopicSpec::default()
        };
        let offsets = Topic {
            id: TopicId::OFFSETS,
            name: OFFSETS_TOPIC.to_owned(),
            spec,
        };
        Catalog {
            version: 0,
            next_topic: TopicId::OFFSETS.0 + 1,
            names: BTreeMap::from([(offsets.id, offsets.name.clone())]),
            topics: BTreeMap::from([(offsets.name.clone(), offsets)]),
            modules: BTreeMap::new(),
            pipelines: BTreeMap::new(),
            generations: BTreeMap::new(),
        }
    }

    /// Does what the command asks, or refuses and changes nothing.
    pub fn apply(&mut self, command: &Command) -> Result<Outcome, CatalogError> {
        match command {
            Command::TopicCreate {
                name,
                spec,
                if_absent,
                internal,
            } => self.topic_create(name, spec, *if_absent, *internal),
            Command::TopicDelete { name } => self.topic_delete(name),
            Command::ModulePut { digest, size } => self.module_put(*digest, *size),
            Command::PipelinePut(record) => self.pipeline_put(record),
            Command::PipelineDelete { name } => self.pipeline_delete(name),
        }
    }

    /// How many commands have changed it.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The topic of that name.
    pub fn topic(&self, name: &str) -> Option<&Topic> {
        self.topics.get(name)
    }

    /// The topic of that id.
    pub fn topic_by_id(&self, id: TopicId) -> Option<&Topic> {
        self.topics.get(self.names.get(&id)?)
    }

    /// All topics by name, internal ones too.
    pub fn topics(&self) -> impl ExactSizeIterator<Item = &Topic> {
        self.topics.values()
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
        self.pipelines.get(name)
    }

    /// All pipelines by name.
    pub fn pipelines(&self) -> impl ExactSizeIterator<Item = &PipelineRecord> {
        self.pipelines.values()
    }

    /// Names of the pipelines that use a topic.
    pub fn topic_users<'a>(&'a self, topic: &'a str) -> impl Iterator<Item = &'a str> {
        let uses = move |p: &&PipelineRecord| p.topics.iter().any(|t| t == topic);
        self.pipelines
            .values()
            .filter(uses)
            .map(|p| p.name.as_str())
    }

    fn topic_create(
        &mut self,
        name: &str,
        spec: &TopicSpec,
        if_absent: bool,
        internal: bool,
    ) -> Result<Outcome, CatalogError> {
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
        let checked = if internal {
            spec.check_internal()
        } else {
            spec.check()
        };
        checked.map_err(|error| CatalogError::Spec {
            name: name.to_owned(),
            error,
        })?;
        if let Some(there) = self.topics.get(name) {
            let name = name.to_owned();
            return match there.spec.difference(spec) {
                _ if !if_absent => Err(CatalogError::TopicExists { name }),
                Some(difference) => Err(CatalogError::TopicDiffers { name, difference }),
                None => Ok(Outcome::Topic(there.id)),
            };
        }
        room("topics", self.topics.len(), TOPICS_MAX)?;
        let next = self.next_topic.checked_add(1);
        let next = next.ok_or(CatalogError::Full {
            what: "topic ids",
            max: u32::MAX as usize,
        })?;
        let id = TopicId(self.next_topic);
        self.next_topic = next;
        self.names.insert(id, name.to_owned());
        let topic = Topic {
            id,
            name: name.to_owned(),
            spec: spec.clone(),
        };
        self.topics.insert(name.to_owned(), topic);
        self.version += 1;
        Ok(Outcome::Topic(id))
    }

    fn topic_delete(&mut self, name: &str) -> Result<Outcome, CatalogError> {
        let Some(topic) = self.topics.get(name) else {
            return Err(CatalogError::NoSuchTopic {
                name: name.to_owned(),
            });
        };
        if topic.is_internal() {
            return Err(CatalogError::TopicInternal {
                name: name.to_owned(),
            });
        }
        if let Some(pipeline) = self.topic_users(name).next() {
            let (name, pipeline) = (name.to_owned(), pipeline.to_owned());
            return Err(CatalogError::TopicInUse { name, pipeline });
        }
        let id = topic.id;
        self.names.remove(&id);
        self.topics.remove(name);
        self.version += 1;
        Ok(Outcome::Topic(id))
    }

    fn module_put(&mut self, digest: Digest, size: u64) -> Result<Outcome, CatalogError> {
        if size == 0 || size > MODULE_BYTES_MAX as u64 {
            return Err(CatalogError::ModuleSize { digest, size });
        }
        match self.modules.get(&digest).copied() {
            Some(known) if known == size => return Ok(Outcome::Done),
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
        self.modules.insert(digest, size);
        self.version += 1;
        Ok(Outcome::Done)
    }

    fn pipeline_put(&mut self, record: &PipelineRecord) -> Result<Outcome, CatalogError> {
        pipeline_name_check(&record.name)?;
        let too_large = |what, count, max| Err(CatalogError::PipelineSize { what, count, max });
        if record.yaml.len() > PIPELINE_YAML_BYTES_MAX {
            return too_large("bytes of text", record.yaml.len(), PIPELINE_YAML_BYTES_MAX);
        }
        if record.modules.len() > PIPELINE_MODULES_MAX {
            return too_large("modules", record.modules.len(), PIPELINE_MODULES_MAX);
        }
        if record.topics.len() > PIPELINE_TOPICS_MAX {
            return too_large("topics", record.topics.len(), PIPELINE_TOPICS_MAX);
        }
        let pipeline = || record.name.clone();
        if let Some(topic) = record.topics.iter().find(|t| !self.topics.contains_key(*t)) {
            return Err(CatalogError::PipelineTopic {
                pipeline: pipeline(),
                topic: topic.clone(),
            });
        }
        let missing = |(_, digest): &(&String, &Digest)| !self.modules.contains_key(*digest);
        if let Some((alias, digest)) = record.modules.iter().find(missing) {
            let (alias, digest) = (alias.clone(), *digest);
            return Err(CatalogError::PipelineModule {
                pipeline: pipeline(),
                alias,
                digest,
            });
        }
        if let Some(there) = self.pipelines.get(&record.name) {
            let same = PipelineRecord {
                generation: there.generation,
                ..record.clone()
            };
            if *there == same {
                return Ok(Outcome::Generation(there.generation));
            }
        } else {
            room("pipelines", self.pipelines.len(), PIPELINES_MAX)?;
        }
        let generation = self.generations.get(&record.name).copied().unwrap_or(0) + 1;
        self.generations.insert(record.name.clone(), generation);
        let record = PipelineRecord {
            generation,
            ..record.clone()
        };
        self.pipelines.insert(record.name.clone(), record);
        self.version += 1;
        Ok(Outcome::Generation(generation))
    }

    fn pipeline_delete(&mut self, name: &str) -> Result<Outcome, CatalogError> {
        if self.pipelines.remove(name).is_none() {
            return Err(CatalogError::NoSuchPipeline {
                name: name.to_owned(),
            });
        }
        self.version += 1;
        Ok(Outcome::Done)
    }
}

fn room(what: &'static str, there: usize, max: usize) -> Result<(), CatalogError> {
    match there < max {
        true => Ok(()),
        false => Err(CatalogError::Full { what, max }),
    }
}

impl From<Catalog> for Image {
    fn from(catalog: Catalog) -> Image {
        Image {
            version: catalog.version,
            next_topic: catalog.next_topic,
            topics: catalog.topics.into_values().collect(),
            modules: catalog.modules,
            pipelines: catalog.pipelines.into_values().collect(),
            generations: catalog.generations,
        }
    }
}

impl TryFrom<Image> for Catalog {
    type Error = String;

    fn try_from(image: Image) -> Result<Catalog, String> {
        let mut catalog = Catalog {
            version: image.version,
            ..Catalog::new()
        };
        catalog.next_topic = image.next_topic;
        catalog.topics.clear();
        catalog.names.clear();
        for topic in image.topics {
            if topic.id.0 >= image.next_topic {
                return Err(format!(
                    "topic `{}` has an id that was not given out",
                    topic.name
                ));
            }
            if let Some(other) = catalog.names.insert(topic.id, topic.name.clone()) {
                return Err(format!(
                    "topics `{other}` and `{}` have the same id",
                    topic.name
                ));
            }
            if let Some(twice) = catalog.topics.insert(topic.name.clone(), topic) {
                return Err(format!("topic `{}` is there twice", twice.name));
            }
        }
        if catalog.names.get(&TopicId::OFFSETS).map(String::as_str) != Some(OFFSETS_TOPIC) {
            return Err(format!("topic `{OFFSETS_TOPIC}` is missing"));
        }
        catalog.modules = image.modules;
        catalog.generations = image.generations;
        let by_name = image.pipelines.into_iter().map(|p| (p.name.clone(), p));
        catalog.pipelines = by_name.collect();
        Ok(catalog)
    }
}
