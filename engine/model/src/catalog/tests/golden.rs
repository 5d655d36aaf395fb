//! The catalog at rest: every command and the image, byte for byte, and those of older formats.

use super::*;

const OFFSETS: &str = concat!(
    r#"{"id":0,"name":"_offsets","spec":{"partitions":1,"codec":"raw","schema":null,"#,
    r#""durability":"fsync","retention_ms":null,"retention_bytes":null,"compact":true,"#,
    r#""tier":false}"#
);

fn check_command(command: &Command, json: &str) {
    assert_eq!(serde_json::to_string(command).unwrap(), json);
    assert_eq!(&serde_json::from_str::<Command>(json).unwrap(), command);
    // A new command that has no golden text does not compile.
    match command {
        Command::TopicCreate { .. }
        | Command::TopicAlter { .. }
        | Command::TopicSchema { .. }
        | Command::TopicDelete { .. }
        | Command::ModulePut { .. }
        | Command::PipelinePut(_)
        | Command::PipelineTaken { .. }
        | Command::PipelineDelete { .. }
        | Command::GroupCreate { .. }
        | Command::GroupDelete { .. }
        | Command::BrokerStart { .. }
        | Command::ProducerBlock { .. }
        | Command::Restore { .. } => {}
    }
}

#[test]
fn topic_commands() {
    check_command(&delete("a"), r#"{"command":"topic-delete","name":"a"}"#);
    check_command(
        &create("a"),
        concat!(
            r#"{"command":"topic-create","name":"a","spec":{"partitions":1,"codec":"raw","#,
            r#""schema":null,"durability":"fsync","retention_ms":null,"#,
            r#""retention_bytes":null,"compact":false,"tier":true},"#,
            r#""if_absent":false,"internal":false}"#
        ),
    );
    let schema = || Schema::from_json(&serde_json::json!({"n": "int64"})).unwrap();
    let spec = TopicSpec {
        codec: PayloadCodec::Json,
        schema: Some(schema()),
        misfits: Misfits::Nulls,
        ..TopicSpec::default()
    };
    check_command(
        &Command::TopicCreate {
            name: "a".to_owned(),
            spec,
            if_absent: true,
            internal: false,
        },
        concat!(
            r#"{"command":"topic-create","name":"a","spec":{"partitions":1,"codec":"json","#,
            r#""schema":{"fields":[{"name":"n","type":"int64"}]},"misfits":"nulls","#,
            r#""durability":"fsync","retention_ms":null,"#,
            r#""retention_bytes":null,"compact":false,"tier":true},"#,
            r#""if_absent":true,"internal":false}"#
        ),
    );
    let change = TopicChange {
        durability: Some(Durability::Memory),
        retention_ms: Some(None),
        retention_bytes: Some(Some(9)),
        compact: Some(true),
        tier: Some(false),
    };
    check_command(
        &alter("a", change),
        concat!(
            r#"{"command":"topic-alter","name":"a","change":{"durability":"memory","#,
            r#""retention_ms":null,"retention_bytes":9,"compact":true,"tier":false}}"#
        ),
    );
    let nothing = r#"{"command":"topic-alter","name":"a","change":{}}"#;
    check_command(&alter("a", TopicChange::default()), nothing);
    check_command(
        &Command::TopicSchema {
            name: "a".to_owned(),
            schema: schema(),
        },
        concat!(
            r#"{"command":"topic-schema","name":"a","#,
            r#""schema":{"fields":[{"name":"n","type":"int64"}]}}"#
        ),
    );
}

#[test]
fn other_commands() {
    let name = || "x".to_owned();
    let digest = Digest::of(b"m");
    check_command(
        &Command::ModulePut { digest, size: 9 },
        &format!(r#"{{"command":"module-put","digest":"{digest}","size":9}}"#),
    );
    check_command(
        &pipeline("p", &["raw"], None),
        concat!(
            r#"{"command":"pipeline-put","name":"p","generation":77,"#,
            r#""yaml":"kind: Pipeline","file":"p.yaml","modules":{},"topics":["raw"]}"#
        ),
    );
    let Command::PipelinePut(record) = pipeline("p", &[], None) else {
        panic!("it is a put");
    };
    let before = vec![record.clone()];
    check_command(
        &Command::PipelinePut(PipelineRecord { before, ..record }),
        concat!(
            r#"{"command":"pipeline-put","name":"p","generation":77,"yaml":"kind: Pipeline","#,
            r#""file":"p.yaml","modules":{},"topics":[],"before":[{"name":"p","generation":77,"#,
            r#""yaml":"kind: Pipeline","file":"p.yaml","modules":{},"topics":[]}]}"#
        ),
    );
    check_command(
        &Command::PipelineTaken {
            name: name(),
            generation: 3,
        },
        r#"{"command":"pipeline-taken","name":"x","generation":3}"#,
    );
    check_command(
        &Command::PipelineDelete { name: name() },
        r#"{"command":"pipeline-delete","name":"x"}"#,
    );
    check_command(
        &Command::GroupCreate {
            name: name(),
            created_ms: 5,
        },
        r#"{"command":"group-create","name":"x","created_ms":5}"#,
    );
    check_command(
        &Command::GroupDelete { name: name() },
        r#"{"command":"group-delete","name":"x"}"#,
    );
    check_command(&start("n"), r#"{"command":"broker-start","node":"n"}"#);
    check_command(
        &Command::ProducerBlock {
            by: life(1, 2),
            count: 3,
        },
        r#"{"command":"producer-block","by":{"broker":1,"incarnation":2},"count":3}"#,
    );
    let catalog = Box::new(Catalog::new());
    let image = serde_json::to_string(&catalog).unwrap();
    check_command(
        &Command::Restore { catalog },
        &format!(r#"{{"command":"restore","catalog":{image}}}"#),
    );
}

#[test]
fn image() {
    let mut catalog = Catalog::new();
    let schema = |json: &str| Schema::from_json(&serde_json::from_str(json).unwrap()).unwrap();
    let put = |json: &str| Command::TopicSchema {
        name: "j".to_owned(),
        schema: schema(json),
    };
    let spec = TopicSpec {
        codec: PayloadCodec::Json,
        schema: Some(schema(r#"{"n":"int64"}"#)),
        ..TopicSpec::default()
    };
    let digest = Digest::of(b"m");
    let topic = Command::TopicCreate {
        name: "j".to_owned(),
        spec,
        if_absent: false,
        internal: false,
    };
    let group = Command::GroupCreate {
        name: "g".to_owned(),
        created_ms: 5,
    };
    for command in [
        start("n"),
        topic,
        put(r#"{"n":"int64","b":"bool"}"#),
        Command::ModulePut { digest, size: 9 },
        pipeline("p", &["j"], Some(digest)),
        group,
        Command::ProducerBlock {
            by: life(1, 1),
            count: 10,
        },
    ] {
        catalog.apply(&command).unwrap();
    }
    let (n, b) = (
        r#"{"name":"n","type":"int64"}"#,
        r#"{"name":"b","type":"bool"}"#,
    );
    let json = [
        r#"{"format":2,"version":7,"next_topic":2,"next_broker":2,"next_producer":11,"topics":["#,
        OFFSETS,
        r#","shards":[0],"schema_version":0},"#,
        r#"{"id":1,"name":"j","spec":{"partitions":1,"codec":"json","schema":"#,
        &format!(r#"{{"fields":[{n},{b}]}},"durability":"fsync","retention_ms":null,"#),
        r#""retention_bytes":null,"compact":false,"tier":true},"shards":[0],"schema_version":2}],"#,
        &format!(r#""schemas":[{{"topic":1,"schemas":[{{"fields":[{n}]}},"#),
        &format!(r#"{{"fields":[{n},{b}]}}]}}],"#),
        &format!(r#""modules":{{"{digest}":9}},"pipelines":[{{"name":"p","generation":1,"#),
        &format!(r#""yaml":"kind: Pipeline","file":"p.yaml","modules":{{"tidy":"{digest}"}},"#),
        r#""topics":["j"]}],"generations":{"p":1},"groups":[{"name":"g","created_ms":5}],"#,
        r#""brokers":[{"id":1,"node":"n","incarnation":1}],"#,
        r#""shards":[{"id":0,"epoch":2,"leader":1}]}"#,
    ]
    .concat();
    assert_eq!(serde_json::to_string(&catalog).unwrap(), json);
    assert_eq!(serde_json::from_str::<Catalog>(&json).unwrap(), catalog);
    let catalog = Box::new(catalog);
    check_command(
        &Command::Restore { catalog },
        &format!(r#"{{"command":"restore","catalog":{json}}}"#),
    );
}

#[test]
fn an_image_of_format_1_is_read() {
    let json = [
        r#"{"version":3,"next_topic":3,"topics":["#,
        OFFSETS,
        r#"},{"id":2,"name":"j","spec":{"partitions":2,"codec":"json","#,
        r#""schema":{"fields":[{"name":"n","type":"int64"}]},"durability":"fsync","#,
        r#""retention_ms":null,"retention_bytes":null,"compact":false,"tier":true}}],"#,
        r#""modules":{},"pipelines":[],"generations":{"p":4}}"#,
    ]
    .concat();
    let mut catalog: Catalog = serde_json::from_str(&json).unwrap();
    assert_eq!(catalog.version(), 3);
    let topic = catalog.topic("j").unwrap();
    assert_eq!(
        (topic.schema_version, topic.shard(1)),
        (1, Some(ShardId::FIRST))
    );
    assert_eq!(
        catalog.schemas(TopicId(2)),
        [topic.spec.schema.clone().unwrap()]
    );
    assert!(catalog.brokers().next().is_none());
    // Brokers of format 1 wrote in epoch 1 and took producer ids from the clock.
    catalog.apply(&start("n")).unwrap();
    let shard = catalog.shard(ShardId::FIRST).unwrap();
    assert_eq!(shard.epoch, ShardEpoch(2));
    let by = life(1, 1);
    let block = catalog.apply(&Command::ProducerBlock { by, count: 1 });
    let (first, count) = (ProducerId(1 << 62), 1);
    assert_eq!(block, Ok(Outcome::Producers { first, count }));
    assert_eq!(
        catalog.apply(&create("next")),
        Ok(Outcome::Topic(TopicId(3)))
    );
}

#[test]
fn a_damaged_or_newer_image_is_refused() {
    let mut catalog = Catalog::new();
    catalog.apply(&create("a")).unwrap();
    catalog.apply(&start("n")).unwrap();
    let json = serde_json::to_string(&catalog).unwrap();
    let refused = |from: &str, to: &str, expected: &str| {
        let damaged = json.replacen(from, to, 1);
        assert_ne!(damaged, json);
        let error = serde_json::from_str::<Catalog>(&damaged).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    };
    refused(r#""id":1"#, r#""id":0"#, "same id");
    refused(r#""id":1"#, r#""id":9"#, "not given out");
    refused(r#""name":"_offsets""#, r#""name":"_other""#, "missing");
    refused(r#""name":"a""#, r#""name":"_offsets""#, "twice");
    refused(
        r#""next_broker":2"#,
        r#""next_broker":1"#,
        "broker 1 has an id",
    );
    refused(r#""shards":[0]"#, r#""shards":[1]"#, "no known shard");
    refused(r#""shards":[0]"#, r#""shards":[]"#, "no known shard");
    refused(
        r#""schemas":[]"#,
        r#""schemas":[{"topic":1,"schemas":[{"fields":[]}]}]"#,
        "not those it has had",
    );
    refused(
        r#""format":2"#,
        r#""format":3"#,
        "written by a newer rustmq (catalog format 3, this one knows 2)",
    );
}
