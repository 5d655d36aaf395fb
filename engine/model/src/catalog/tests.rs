//! The catalog: one check per command, and random commands.

use proptest::prelude::*;

use super::*;
use crate::topic::PayloadCodec;

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
    check(
        c,
        &delete("_state.x"),
        "topic `_state.x` is internal and stays",
    );
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

#[test]
fn commands_at_rest() {
    let golden = [
        (
            delete("a"),
            r#"{"command":"topic-delete","name":"a"}"#.to_owned(),
        ),
        (
            create("a"),
            concat!(
                r#"{"command":"topic-create","name":"a","spec":{"partitions":1,"codec":"raw","#,
                r#""schema":null,"durability":"fsync","retention_ms":null,"#,
                r#""retention_bytes":null,"compact":false,"tier":true},"#,
                r#""if_absent":false,"internal":false}"#
            )
            .to_owned(),
        ),
        (
            pipeline("p", &["raw"], None),
            concat!(
                r#"{"command":"pipeline-put","name":"p","generation":77,"#,
                r#""yaml":"kind: Pipeline","file":"p.yaml","modules":{},"topics":["raw"]}"#
            )
            .to_owned(),
        ),
    ];
    for (command, json) in golden {
        assert_eq!(serde_json::to_string(&command).unwrap(), json);
        assert_eq!(serde_json::from_str::<Command>(&json).unwrap(), command);
    }
}

#[test]
fn a_damaged_image_is_refused() {
    let mut catalog = Catalog::new();
    catalog.apply(&create("a")).unwrap();
    let json = serde_json::to_string(&catalog).unwrap();
    let refused = |from: &str, to: &str| {
        let damaged = json.replacen(from, to, 1);
        assert_ne!(damaged, json);
        serde_json::from_str::<Catalog>(&damaged)
            .unwrap_err()
            .to_string()
    };
    assert!(refused(r#""id":1"#, r#""id":0"#).contains("same id"));
    assert!(refused(r#""id":1"#, r#""id":9"#).contains("not given out"));
    assert!(refused(r#""name":"_offsets""#, r#""name":"_other""#).contains("missing"));
    assert!(refused(r#""name":"a""#, r#""name":"_offsets""#).contains("twice"));
}

fn command_any() -> impl Strategy<Value = Command> {
    let name = || prop::sample::select(vec!["a", "b", "c", "_d", "../e", "", "f-1"]);
    let module = || (0u8..4).prop_map(|b| Digest::of(&[b]));
    let codec = prop::sample::select(vec![
        PayloadCodec::Raw,
        PayloadCodec::Json,
        PayloadCodec::Csv,
    ]);
    let spec = (0u32..3, codec).prop_map(|(partitions, codec)| TopicSpec {
        partitions,
        codec,
        ..TopicSpec::default()
    });
    prop_oneof![
        4 => (name(), spec, any::<bool>(), any::<bool>()).prop_map(
            |(name, spec, if_absent, internal)| {
                Command::TopicCreate { name: name.to_owned(), spec, if_absent, internal }
            }
        ),
        2 => name().prop_map(delete),
        2 => (module(), 0u64..3).prop_map(|(digest, size)| Command::ModulePut { digest, size }),
        3 => (name(), prop::collection::vec(name(), 0..3), prop::option::of(module()))
            .prop_map(|(name, topics, module)| pipeline(name, &topics, module)),
        1 => name().prop_map(|n| Command::PipelineDelete { name: n.to_owned() }),
    ]
}

proptest! {
    #[test]
    fn random_commands(commands in prop::collection::vec(command_any(), 0..60)) {
        let mut catalog = Catalog::new();
        let mut accepted = Vec::new();
        for command in &commands {
            let before = catalog.clone();
            let json = serde_json::to_string(command).unwrap();
            prop_assert_eq!(&serde_json::from_str::<Command>(&json).unwrap(), command);
            match catalog.apply(command) {
                Ok(_) => accepted.push(command.clone()),
                Err(_) => prop_assert_eq!(&before, &catalog),
            }
            prop_assert!(catalog.version() - before.version() <= 1);
            prop_assert_eq!(catalog.version() == before.version(), before == catalog);
            for topic in catalog.topics() {
                prop_assert_eq!(catalog.topic_by_id(topic.id), Some(topic));
            }
            for p in catalog.pipelines() {
                prop_assert!(p.topics.iter().all(|t| catalog.topic(t).is_some()));
                prop_assert!(p.modules.values().all(|m| catalog.module(m).is_some()));
            }
        }
        let json = serde_json::to_string(&catalog).unwrap();
        prop_assert_eq!(&serde_json::from_str::<Catalog>(&json).unwrap(), &catalog);
        let mut replayed = Catalog::new();
        for command in &accepted {
            prop_assert!(replayed.apply(command).is_ok());
        }
        prop_assert_eq!(replayed, catalog);
    }
}
