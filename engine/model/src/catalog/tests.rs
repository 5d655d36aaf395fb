//! The catalog: one check per command; at rest in `golden`, random commands in `random`.

mod golden;
mod random;

use super::*;
use crate::ids::BrokerLife;
use crate::limits::PRODUCER_BLOCK_MAX;
use crate::topic::{Durability, Misfits, PayloadCodec};

fn create(name: &str) -> Command {
    let spec = TopicSpec::default();
    Command::TopicCreate {
        name: name.to_owned(),
        spec,
        if_absent: false,
        internal: false,
    }
}

fn ensure(name: &str, partitions: u32) -> Command {
    let spec = TopicSpec {
        partitions,
        ..TopicSpec::default()
    };
    Command::TopicCreate {
        name: name.to_owned(),
        spec,
        if_absent: true,
        internal: false,
    }
}

fn pipeline(name: &str, topics: &[&str], module: Option<Digest>) -> Command {
    Command::PipelinePut(PipelineRecord {
        name: name.to_owned(),
        yaml: "kind: Pipeline".to_owned(),
        file: "p.yaml".to_owned(),
        modules: module.map(|m| ("tidy".to_owned(), m)).into_iter().collect(),
        topics: topics.iter().map(|t| (*t).to_owned()).collect(),
        generation: 77,
        before: Vec::new(),
    })
}

fn delete(name: &str) -> Command {
    Command::TopicDelete {
        name: name.to_owned(),
    }
}

/// Applies a command and compares the outcome, in words; a refusal must change nothing.
fn check(catalog: &mut Catalog, command: &Command, expected: &str) {
    let before = catalog.clone();
    let got = match catalog.apply(command) {
        Ok(outcome) => format!("{outcome:?}"),
        Err(error) => {
            assert_eq!(*catalog, before, "a refused command changed something");
            error.to_string()
        }
    };
    assert_eq!(got, expected, "{command:?}");
}

#[test]
fn topics() {
    let c = &mut Catalog::new();
    check(c, &create("a"), "Topic(TopicId(1))");
    check(c, &create("a"), "topic `a` exists already");
    check(c, &ensure("a", 1), "Topic(TopicId(1))");
    check(c, &ensure("a", 2), {
        "topic `a` exists already, but its partitions is 1, not 2; change one of the two"
    });
    check(
        c,
        &ensure("b", 0),
        "topic `b`: a topic has 1 to 10000 partitions, not 0",
    );
    check(c, &create("../x"), {
        "topic name `../x` has '/' at position 3; allowed are letters, digits, `.`, `_` and `-`"
    });
    check(c, &create("_x"), {
        "topic name `_x` starts with `_`; such names are internal, choose another"
    });
    assert_eq!(c.version(), 1);
    check(c, &delete("a"), "Topic(TopicId(1))");
    check(c, &delete("a"), "topic `a` does not exist");
    check(c, &create("a"), "Topic(TopicId(2))");
    assert_eq!(c.topic("a").map(|t| t.id), Some(TopicId(2)));
    assert_eq!(
        c.topic_by_id(TopicId(2)).map(|t| t.name.as_str()),
        Some("a")
    );
    assert!(c.topic_by_id(TopicId(1)).is_none());
    assert_eq!(c.version(), 3);
}

#[test]
fn internal_topics() {
    let c = &mut Catalog::new();
    let spec = TopicSpec {
        compact: true,
        tier: false,
        ..TopicSpec::default()
    };
    let internal = |name: &str| Command::TopicCreate {
        name: name.to_owned(),
        spec: spec.clone(),
        if_absent: true,
        internal: true,
    };
    check(c, &internal("_state.x"), "Topic(TopicId(1))");
    check(c, &internal("state"), {
        "internal topic `state` must have a name that begins with `_`"
    });
    check(c, &delete("_state.x"), "Topic(TopicId(1))");
    check(
        c,
        &delete(OFFSETS_TOPIC),
        "topic `_offsets` is internal and stays",
    );
    assert_eq!(c.topic(OFFSETS_TOPIC).map(|t| t.id), Some(TopicId::OFFSETS));
}

#[test]
fn modules_and_pipelines() {
    let c = &mut Catalog::new();
    let module = Digest::of(b"module");
    let put = |size| Command::ModulePut {
        digest: module,
        size,
    };
    let remove = Command::PipelineDelete {
        name: "p".to_owned(),
    };
    check(c, &create("raw"), "Topic(TopicId(1))");
    let missing = format!("pipeline `p` uses module `tidy` ({module}), which is not stored");
    check(c, &pipeline("p", &["raw"], Some(module)), &missing);
    check(
        c,
        &put(0),
        &format!("module {module} has 0 bytes; 1 to 34537472 are allowed"),
    );
    check(c, &put(9), "Done");
    check(c, &put(9), "Done");
    check(
        c,
        &put(8),
        &format!("module {module} is known with 9 bytes, not 8"),
    );
    check(c, &pipeline("p", &["raw", "out"], None), {
        "pipeline `p` uses topic `out`, which does not exist"
    });
    check(c, &pipeline("P", &[], None), {
        "pipeline name `P` has 'P' at position 1; allowed are a-z, 0-9 and `-`"
    });
    check(c, &pipeline("p", &["raw"], Some(module)), "Generation(1)");
    let version = c.version();
    check(c, &pipeline("p", &["raw"], Some(module)), "Generation(1)");
    assert_eq!(c.version(), version, "the same again is no change");
    check(c, &pipeline("p", &["raw"], None), "Generation(2)");
    check(c, &delete("raw"), {
        "topic `raw` is used by pipeline `p`; delete that pipeline first"
    });
    check(c, &remove, "Done");
    check(c, &remove, "pipeline `p` does not exist");
    // A name that comes back does not count from 1 again: old positions must not match.
    check(c, &pipeline("p", &["raw"], None), "Generation(3)");
    check(c, &remove, "Done");
    check(c, &delete("raw"), "Topic(TopicId(1))");
}

fn alter(name: &str, change: TopicChange) -> Command {
    let name = name.to_owned();
    Command::TopicAlter { name, change }
}

#[test]
fn topics_are_altered() {
    let c = &mut Catalog::new();
    let keep = |ms| TopicChange {
        retention_ms: Some(ms),
        ..TopicChange::default()
    };
    check(c, &alter("a", keep(None)), "topic `a` does not exist");
    check(c, &create("a"), "Topic(TopicId(1))");
    check(c, &alter("a", keep(Some(5_000))), "Topic(TopicId(1))");
    let version = c.version();
    check(c, &alter("a", keep(Some(5_000))), "Topic(TopicId(1))");
    check(c, &alter("a", TopicChange::default()), "Topic(TopicId(1))");
    assert_eq!(c.version(), version, "the same again is no change");
    check(
        c,
        &alter("a", keep(Some(1))),
        "topic `a`: retention of 1 ms is too short; the least is 1000 ms",
    );
    let all = TopicChange {
        durability: Some(Durability::Memory),
        retention_ms: Some(None),
        retention_bytes: Some(Some(9)),
        compact: None,
        tier: Some(false),
    };
    check(c, &alter("a", all), "Topic(TopicId(1))");
    let want = TopicSpec {
        durability: Durability::Memory,
        retention_bytes: Some(9),
        tier: false,
        ..TopicSpec::default()
    };
    assert_eq!(c.topic("a").unwrap().spec, want);
    assert_eq!(c.topic_by_id(TopicId(1)).unwrap().spec, want);
    let offsets = alter(OFFSETS_TOPIC, keep(Some(5_000)));
    check(c, &offsets, "topic `_offsets` is internal and stays");
}

#[test]
fn schemas_have_versions() {
    let c = &mut Catalog::new();
    let schema = |json: &str| Schema::from_json(&serde_json::from_str(json).unwrap()).unwrap();
    let put = |name: &str, json: &str| Command::TopicSchema {
        name: name.to_owned(),
        schema: schema(json),
    };
    let spec = TopicSpec {
        codec: PayloadCodec::Json,
        ..TopicSpec::default()
    };
    let (name, json) = ("j".to_owned(), r#"{"a":"int64"}"#);
    let topic = Command::TopicCreate {
        name,
        spec,
        if_absent: false,
        internal: false,
    };
    check(c, &topic, "Topic(TopicId(1))");
    check(c, &create("raw"), "Topic(TopicId(2))");
    let refused =
        "topic `raw`: a schema needs value codec `json`, `csv`, `avro` or `columns`, not `raw`";
    check(c, &put("raw", json), refused);
    assert_eq!(c.schemas(TopicId(1)), []);
    check(c, &put("j", json), "SchemaVersion(1)");
    check(c, &put("j", json), "SchemaVersion(1)");
    check(
        c,
        &put("j", r#"{"a":"int64","b":"bool"}"#),
        "SchemaVersion(2)",
    );
    check(
        c,
        &put("j", r#"{"b":"bool"}"#),
        "topic `j`: field `a` is missing; a new version keeps all fields and adds at the end",
    );
    let versions = [json, r#"{"a":"int64","b":"bool"}"#].map(schema);
    assert_eq!(c.schemas(TopicId(1)), versions);
    assert_eq!(c.topic("j").unwrap().schema_version, 2);
    check(c, &delete("j"), "Topic(TopicId(1))");
    assert_eq!(c.schemas(TopicId(1)), []);
}

#[test]
fn groups() {
    let c = &mut Catalog::new();
    let make = |name: &str, created_ms| Command::GroupCreate {
        name: name.to_owned(),
        created_ms,
    };
    let gone = |name: &str| Command::GroupDelete {
        name: name.to_owned(),
    };
    check(c, &make("g", 7), "Done");
    check(c, &make("g", 8), "Done");
    assert_eq!((c.version(), c.group("g").unwrap().created_ms), (1, 7));
    check(c, &make("_g", 8), {
        "group name `_g` starts with `_`; such names are internal, choose another"
    });
    let refused = c.clone().apply(&make("", 1)).unwrap_err().to_string();
    assert!(refused.contains("1 to 249"), "{refused}");
    check(c, &gone("g"), "Done");
    check(c, &gone("g"), "group `g` does not exist");
}

fn start(node: &str) -> Command {
    let node = node.to_owned();
    Command::BrokerStart { node }
}

fn life(broker: u32, incarnation: u64) -> BrokerLife {
    let broker = BrokerId(broker);
    BrokerLife {
        broker,
        incarnation,
    }
}

#[test]
fn a_start_is_a_new_life_in_new_epochs() {
    let c = &mut Catalog::new();
    let started =
        |broker, incarnation| format!("{:?}", Outcome::Started(life(broker, incarnation)));
    assert_eq!(c.shard(ShardId::FIRST).unwrap().leader, None);
    check(c, &start("one"), &started(1, 1));
    check(c, &start("two"), &started(2, 1));
    check(c, &start("one"), &started(1, 2));
    let first = c.shard(ShardId::FIRST).unwrap();
    // The second broker leads nothing, so its start touched nothing.
    assert_eq!(
        (first.epoch, first.leader),
        (ShardEpoch(3), Some(BrokerId(1)))
    );
    check(
        c,
        &start(""),
        "the name of a broker has 1 to 128 bytes, not 0",
    );
    check(c, &create("a"), "Topic(TopicId(1))");
    let shard = |index| c.shard_of(PartitionId::new(TopicId(1), index));
    assert_eq!(shard(0).map(|shard| shard.id), Some(ShardId::FIRST));
    assert_eq!(shard(1), None, "a partition that is not there");
}

#[test]
fn producer_ids_are_given_once_and_to_the_living() {
    let c = &mut Catalog::new();
    let block = |by, count| Command::ProducerBlock { by, count };
    let given = |first, count| {
        let first = ProducerId(first);
        format!("{:?}", Outcome::Producers { first, count })
    };
    check(c, &block(life(1, 1), 10), "broker 1 has never started");
    c.apply(&start("one")).unwrap();
    check(c, &block(life(1, 1), 10), &given(1, 10));
    check(c, &block(life(1, 1), 5), &given(11, 5));
    c.apply(&start("one")).unwrap();
    let over = "incarnation 1 of broker 1 is over: the catalog knows incarnation 2";
    check(c, &block(life(1, 1), 5), over);
    check(c, &block(life(1, 2), 1), &given(16, 1));
    check(c, &block(life(1, 2), 0), {
        "a block has 1 to 1048576 producer ids, not 0"
    });
    c.next_producer = ProducerId(i64::MAX as u64 - 1);
    let refused = c.clone().apply(&block(life(1, 2), PRODUCER_BLOCK_MAX));
    assert_eq!(refused.map_err(|e| e.code()), Err("full"));
    check(c, &block(life(1, 2), 1), &given(i64::MAX as u64 - 1, 1));
}

#[test]
fn a_catalog_is_taken_over_once() {
    let mut other = Catalog::new();
    other.apply(&create("a")).unwrap();
    let take = Command::Restore {
        catalog: Box::new(other.clone()),
    };
    let c = &mut Catalog::new();
    check(c, &take, "Done");
    assert_eq!((c.version(), c.topic("a")), (2, other.topic("a")));
    check(c, &take, {
        "a catalog can only be taken over into an empty one; this one is at version 2"
    });
}

#[test]
fn changes_say_what_differs() {
    let c = &mut Catalog::new();
    let names = |changes: Vec<Change>| {
        let name = |change: &Change| match change {
            Change::TopicDeleted(topic) => format!("-{} {}", topic.name, topic.id),
            Change::TopicCreated(topic) => format!("+{} {}", topic.name, topic.id),
            Change::TopicAltered(topic) => format!("~{} {}", topic.name, topic.id),
            Change::PipelineDeleted(name) => format!("-p {name}"),
            Change::PipelinePut(name) => format!("+p {name}"),
            Change::GroupDeleted(name) => format!("-g {name}"),
            Change::GroupCreated(name) => format!("+g {name}"),
            Change::ShardMoved(shard) => format!("shard {} {}", shard.id, shard.epoch),
        };
        changes.iter().map(name).collect::<Vec<_>>().join(", ")
    };
    let mut apply = |commands: &[Command]| {
        let before = c.clone();
        commands.iter().for_each(|command| {
            c.apply(command).unwrap();
        });
        names(c.changes(&before))
    };
    assert_eq!(apply(&[]), "");
    assert_eq!(apply(&[create("a"), create("b")]), "+a 1, +b 2");
    assert_eq!(apply(&[delete("a"), create("a")]), "-a 1, +a 3");
    assert_eq!(apply(&[create("c"), delete("c")]), "");
    let change = TopicChange {
        tier: Some(false),
        ..TopicChange::default()
    };
    assert_eq!(apply(&[alter("b", change)]), "~b 2");
    assert_eq!(apply(&[start("one")]), "shard 0 2");
    let by = life(1, 1);
    assert_eq!(apply(&[Command::ProducerBlock { by, count: 1 }]), "");
    let group = Command::GroupCreate {
        name: "g".to_owned(),
        created_ms: 1,
    };
    assert_eq!(apply(&[pipeline("p", &["a"], None), group]), "+p p, +g g");
}
