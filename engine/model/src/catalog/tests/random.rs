//! Random commands: the catalog answers as a naive one does, every time.

use proptest::prelude::*;

use super::*;
use crate::topic::PayloadCodec;

/// What a catalog must do, said with lists and loops. It answers what a command does, or `None`
/// for a refusal.
#[derive(Default)]
struct Naive {
    topics: Vec<(u32, String, TopicSpec, Vec<Schema>)>,
    topics_made: u32,
    modules: Vec<(Digest, u64)>,
    pipelines: Vec<PipelineRecord>,
    /// Of every pipeline ever put.
    puts: Vec<(String, u64)>,
    groups: Vec<(String, i64)>,
    /// Starts of the broker of that number, less one.
    brokers: Vec<(String, u64)>,
    producers: u64,
    starts_of_leader: u32,
}

impl Naive {
    fn topic(&mut self, name: &str) -> Option<&mut (u32, String, TopicSpec, Vec<Schema>)> {
        self.topics.iter_mut().find(|topic| topic.1 == name)
    }

    fn apply(&mut self, command: &Command) -> Option<Outcome> {
        match command.clone() {
            Command::TopicCreate {
                name,
                spec,
                if_absent,
                internal,
            } => self.topic_create(name, spec, if_absent, internal),
            Command::TopicAlter { name, change } => {
                let topic = self
                    .topic(&name)
                    .filter(|topic| !topic.1.starts_with('_'))?;
                let spec = change.of(&topic.2);
                spec.check().ok()?;
                topic.2 = spec;
                Some(Outcome::Topic(TopicId(topic.0)))
            }
            Command::TopicSchema { name, schema } => {
                let topic = self
                    .topic(&name)
                    .filter(|topic| !topic.1.starts_with('_'))?;
                let fits = match topic.3.last() {
                    Some(last) => schema.fields.starts_with(&last.fields),
                    None => topic.2.codec == PayloadCodec::Json,
                };
                if !fits {
                    return None;
                }
                if topic.3.last() != Some(&schema) {
                    topic.2.schema = Some(schema.clone());
                    topic.3.push(schema);
                }
                Some(Outcome::SchemaVersion(topic.3.len() as u32))
            }
            Command::TopicDelete { name } => {
                let used = self.pipelines.iter().any(|p| p.topics.contains(&name));
                let id = self.topic(&name)?.0;
                if used || name == OFFSETS_TOPIC {
                    return None;
                }
                self.topics.retain(|topic| topic.1 != name);
                Some(Outcome::Topic(TopicId(id)))
            }
            Command::ModulePut { digest, size } => {
                let known = self.modules.iter().find(|(known, _)| *known == digest);
                match known {
                    _ if size == 0 => return None,
                    Some((_, known)) if *known != size => return None,
                    Some(_) => {}
                    None => self.modules.push((digest, size)),
                }
                Some(Outcome::Done)
            }
            Command::PipelinePut(record) => self.pipeline_put(record),
            Command::PipelineTaken { name, generation } => {
                if let Some(pipeline) = self.pipelines.iter_mut().find(|p| p.name == name) {
                    let (newest, before) = (pipeline.generation, &mut pipeline.before);
                    match generation < newest {
                        true => before.retain(|before| before.generation >= generation),
                        false => before.clear(),
                    }
                }
                Some(Outcome::Done)
            }
            Command::PipelineDelete { name } => {
                let at = self.pipelines.iter().position(|p| p.name == name)?;
                self.pipelines.remove(at);
                Some(Outcome::Done)
            }
            Command::GroupCreate { name, created_ms } => {
                if name.is_empty() || name.starts_with('_') {
                    return None;
                }
                if !self.groups.iter().any(|group| group.0 == name) {
                    self.groups.push((name, created_ms));
                }
                Some(Outcome::Done)
            }
            Command::GroupDelete { name } => {
                let at = self.groups.iter().position(|group| group.0 == name)?;
                self.groups.remove(at);
                Some(Outcome::Done)
            }
            Command::BrokerStart { node } => self.broker_start(node),
            Command::ProducerBlock { by, count } => {
                let broker = self.brokers.get((by.broker.0 as usize).checked_sub(1)?)?;
                if broker.1 != by.incarnation || count == 0 {
                    return None;
                }
                let first = ProducerId(self.producers + 1);
                self.producers += u64::from(count);
                Some(Outcome::Producers { first, count })
            }
            Command::Restore { .. } => None,
        }
    }

    fn topic_create(
        &mut self,
        name: String,
        spec: TopicSpec,
        if_absent: bool,
        internal: bool,
    ) -> Option<Outcome> {
        let named_right = match internal {
            true => name.starts_with('_'),
            false => !name.starts_with('_') && !name.is_empty() && !name.contains('/'),
        };
        if !named_right || spec.partitions == 0 {
            return None;
        }
        if name == OFFSETS_TOPIC {
            return None;
        }
        if let Some(there) = self.topic(&name) {
            let same = if_absent && there.2 == spec;
            return same.then_some(Outcome::Topic(TopicId(there.0)));
        }
        spec.check().ok()?;
        self.topics_made += 1;
        let schemas = spec.schema.iter().cloned().collect();
        self.topics.push((self.topics_made, name, spec, schemas));
        Some(Outcome::Topic(TopicId(self.topics_made)))
    }

    fn pipeline_put(&mut self, mut record: PipelineRecord) -> Option<Outcome> {
        let named_right = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if record.name.is_empty() || !record.name.chars().all(named_right) {
            return None;
        }
        let topics: Vec<&String> = self.topics.iter().map(|topic| &topic.1).collect();
        if !record.topics.iter().all(|topic| topics.contains(&topic)) {
            return None;
        }
        let known = |digest: &Digest| self.modules.iter().any(|module| module.0 == *digest);
        if !record.modules.values().all(known) {
            return None;
        }
        let last = self.puts.iter().rev().find(|put| put.0 == record.name);
        let last = last.map_or(0, |put| put.1);
        record.generation = last;
        let same = |there: &PipelineRecord| {
            let before = there.before.clone();
            *there
                == PipelineRecord {
                    before,
                    ..record.clone()
                }
        };
        if self.pipelines.iter().any(same) {
            return Some(Outcome::Generation(last));
        }
        record.generation += 1;
        self.puts.push((record.name.clone(), record.generation));
        self.pipelines.retain(|p| p.name != record.name);
        self.pipelines.push(record);
        Some(Outcome::Generation(last + 1))
    }

    fn broker_start(&mut self, node: String) -> Option<Outcome> {
        if node.is_empty() {
            return None;
        }
        let at = self.brokers.iter().position(|broker| broker.0 == node);
        let at = at.unwrap_or_else(|| {
            self.brokers.push((node, 0));
            self.brokers.len() - 1
        });
        self.brokers[at].1 += 1;
        // The first broker that ever started leads the only shard.
        self.starts_of_leader += u32::from(at == 0);
        Some(Outcome::Started(life(at as u32 + 1, self.brokers[at].1)))
    }

    /// Everything in words, to be compared with a catalog.
    fn words(&self) -> Vec<String> {
        let mut words: Vec<String> = Vec::new();
        for (id, name, spec, schemas) in &self.topics {
            words.push(format!("{id} {name} {spec:?} {schemas:?}"));
        }
        words.extend(self.modules.iter().map(|module| format!("{module:?}")));
        words.extend(
            self.pipelines
                .iter()
                .map(|pipeline| format!("{pipeline:?}")),
        );
        words.extend(self.groups.iter().map(|group| format!("{group:?}")));
        words.extend(self.brokers.iter().map(|broker| format!("{broker:?}")));
        words.push(format!("epoch {}", 1 + self.starts_of_leader));
        words.sort();
        words
    }
}

fn words_of(catalog: &Catalog) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    for topic in catalog.topics().filter(|t| t.id != TopicId::OFFSETS) {
        let (id, name, spec) = (topic.id, &topic.name, &topic.spec);
        let schemas = catalog.schemas(id).to_vec();
        assert_eq!(schemas.len(), topic.schema_version as usize);
        words.push(format!("{id} {name} {spec:?} {schemas:?}"));
    }
    words.extend(catalog.modules().map(|module| format!("{module:?}")));
    words.extend(catalog.pipelines().map(|pipeline| format!("{pipeline:?}")));
    let groups = catalog
        .groups()
        .map(|group| (&group.name, group.created_ms));
    words.extend(groups.map(|group| format!("{group:?}")));
    let brokers = catalog
        .brokers()
        .map(|broker| (&broker.node, broker.incarnation));
    words.extend(brokers.map(|broker| format!("{broker:?}")));
    let epoch = catalog
        .shard(ShardId::FIRST)
        .map_or(0, |shard| shard.epoch.0);
    words.push(format!("epoch {epoch}"));
    words.sort();
    words
}

fn name_any() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["a", "b", "c", "_d", "../e", "", "f-1"]).prop_map(str::to_owned)
}

fn schema_any() -> impl Strategy<Value = Schema> {
    let all = [("x", "int64"), ("y", "bool"), ("z", "string")];
    prop::sample::subsequence(all.to_vec(), 1..4).prop_map(|fields| {
        let fields = fields
            .into_iter()
            .map(|(name, ty)| (name.to_owned(), ty.into()));
        Schema::from_json(&serde_json::Value::Object(fields.collect())).unwrap()
    })
}

fn topic_command() -> impl Strategy<Value = Command> {
    let codec = prop::sample::select(vec![
        PayloadCodec::Raw,
        PayloadCodec::Json,
        PayloadCodec::Json,
        PayloadCodec::Csv,
    ]);
    let schema = prop::option::of(schema_any());
    let misfits = prop::sample::select(vec![Misfits::DeadLetter, Misfits::Nulls]);
    let spec =
        (0u32..3, codec, schema, misfits).prop_map(|(partitions, codec, schema, misfits)| {
            TopicSpec {
                partitions,
                codec,
                schema,
                misfits,
                ..TopicSpec::default()
            }
        });
    let bound = || prop::option::of(prop::option::of(prop::sample::select(vec![0u64, 1, 5_000])));
    let change = (bound(), bound(), prop::option::of(any::<bool>())).prop_map(
        |(retention_ms, retention_bytes, tier)| TopicChange {
            retention_ms,
            retention_bytes,
            tier,
            ..TopicChange::default()
        },
    );
    prop_oneof![
        4 => (name_any(), spec, any::<bool>(), any::<bool>()).prop_map(
            |(name, spec, if_absent, internal)| {
                Command::TopicCreate { name, spec, if_absent, internal }
            }
        ),
        2 => (name_any(), change).prop_map(|(name, change)| Command::TopicAlter { name, change }),
        2 => (name_any(), schema_any())
            .prop_map(|(name, schema)| Command::TopicSchema { name, schema }),
        2 => name_any().prop_map(|name| Command::TopicDelete { name }),
    ]
}

fn command_any() -> impl Strategy<Value = Command> {
    let module = || (0u8..4).prop_map(|b| Digest::of(&[b]));
    let life = (0u32..4, 1u64..4).prop_map(|(broker, incarnation)| life(broker, incarnation));
    prop_oneof![
        10 => topic_command(),
        2 => (module(), 0u64..3).prop_map(|(digest, size)| Command::ModulePut { digest, size }),
        3 => (name_any(), prop::collection::vec(name_any(), 0..3), prop::option::of(module()), any::<bool>())
            .prop_map(|(name, topics, module, is_on_trial)| {
                let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
                match (is_on_trial, pipeline(&name, &topics, module)) {
                    (true, Command::PipelinePut(record)) => Command::PipelinePut(PipelineRecord {
                        before: vec![record.clone(), PipelineRecord { generation: 2, ..record.clone() }],
                        ..record
                    }),
                    (_, put) => put,
                }
            }),
        1 => (name_any(), 0u64..4)
            .prop_map(|(name, generation)| Command::PipelineTaken { name, generation }),
        1 => name_any().prop_map(|name| Command::PipelineDelete { name }),
        1 => (name_any(), 0i64..9)
            .prop_map(|(name, created_ms)| Command::GroupCreate { name, created_ms }),
        1 => name_any().prop_map(|name| Command::GroupDelete { name }),
        2 => name_any().prop_map(|node| Command::BrokerStart { node }),
        2 => (life, 0u32..5).prop_map(|(by, count)| Command::ProducerBlock { by, count }),
        1 => Just(Command::Restore { catalog: Box::new(Catalog::new()) }),
    ]
}

/// Whether the two are the same after one has gone through its image.
fn check_image(catalog: &Catalog) {
    let json = serde_json::to_string(catalog).unwrap();
    assert_eq!(&serde_json::from_str::<Catalog>(&json).unwrap(), catalog);
}

/// `before`, with the changes done to it as a follower does, has the topics of `after`.
fn check_changes(before: &Catalog, after: &Catalog) {
    let mut topics: BTreeMap<TopicId, Topic> = BTreeMap::new();
    topics.extend(before.topics().map(|topic| (topic.id, topic.clone())));
    for change in after.changes(before) {
        match change {
            Change::TopicDeleted(topic) => assert!(topics.remove(&topic.id).is_some()),
            Change::TopicCreated(topic) => {
                assert!(topics.insert(topic.id, Topic::clone(&topic)).is_none());
            }
            Change::TopicAltered(topic) => {
                assert!(topics.insert(topic.id, Topic::clone(&topic)).is_some());
            }
            _ => {}
        }
    }
    let have: Vec<&Topic> = topics.values().collect();
    let want: Vec<&Topic> = after.topics_by_id.values().map(Arc::as_ref).collect();
    assert_eq!(have, want);
}

proptest! {
    #[test]
    fn random_commands(commands in prop::collection::vec(command_any(), 0..60)) {
        // Only an untouched catalog takes another one over, and here it is the same one.
        let untouched = Catalog::new();
        let mut catalog = untouched.clone();
        let mut naive = Naive::default();
        let mut accepted = Vec::new();
        for command in &commands {
            if catalog == untouched && matches!(command, Command::Restore { .. }) {
                continue;
            }
            let before = catalog.clone();
            let json = serde_json::to_string(command).unwrap();
            prop_assert_eq!(&serde_json::from_str::<Command>(&json).unwrap(), command);
            let decided = catalog.decide(command).map(|d| (d.outcome, d.is_change()));
            let outcome = catalog.apply(command);
            prop_assert_eq!(outcome.as_ref().ok().copied(), naive.apply(command), "{:?}", command);
            prop_assert_eq!(decided.clone().map(|(outcome, _)| outcome), outcome.clone());
            match outcome {
                Ok(_) => accepted.push(command.clone()),
                Err(_) => prop_assert_eq!(&before, &catalog),
            }
            prop_assert!(catalog.version() - before.version() <= 1);
            prop_assert_eq!(catalog.version() == before.version(), before == catalog);
            prop_assert_eq!(decided.is_ok_and(|(_, is_change)| is_change), before != catalog);
            check_changes(&before, &catalog);
        }
        prop_assert_eq!(words_of(&catalog), naive.words());
        for topic in catalog.topics() {
            prop_assert_eq!(catalog.topic_by_id(topic.id), Some(topic));
        }
        check_image(&catalog);
        check_changes(&untouched, &catalog);
        let mut replayed = Catalog::new();
        for command in &accepted {
            prop_assert!(replayed.apply(command).is_ok());
        }
        prop_assert_eq!(replayed, catalog);
    }
}
