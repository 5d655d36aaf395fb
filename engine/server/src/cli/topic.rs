//! `rustmq topic create|list|describe|alter|trim|delete`.
//!
//! Called by: `cli::run`. Calls: the server. The schema file is read and checked here, so that
//! its errors name the file; the name is checked before anything is sent.

use std::path::Path;
use std::time::Duration;

use model::{
    Durability, Misfits, PayloadCodec, Schema, Topic as ModelTopic, TopicChange, TopicSpec,
};
use protocol::{
    PartitionTrimmed, TopicAlter, TopicCreate, TopicDelete, TopicDescribe, TopicDescription,
    TopicInfo, TopicList, TopicTrim, TrimBefore,
};

use super::args::{self, DurabilityArg, MisfitsArg, Topic, ValueCodec};
use super::connect::Session;
use super::exit::{Failure, deleted, written};
use crate::output;

pub async fn run(command: Topic, session: &Session) -> Result<(), Failure> {
    match command {
        Topic::Create(create) => self::create(create, session).await,
        Topic::List => list(session).await,
        Topic::Describe { name } => describe(name, session).await,
        Topic::Alter(alter) => self::alter(alter, session).await,
        Topic::Trim(trim) => self::trim(trim, session).await,
        Topic::Delete { name } => {
            let server = session.server().await?;
            server.call(TopicDelete { name: name.clone() }).await?;
            if session.json() {
                return deleted(&name);
            }
            eprintln!("deleted topic {name}");
            Ok(())
        }
    }
}

async fn create(create: args::TopicCreate, session: &Session) -> Result<(), Failure> {
    model::topic_name_check(&create.name).map_err(Failure::failed)?;
    let schema = create.schema.as_deref().map(read_schema).transpose()?;
    let codec = match create.value {
        Some(ValueCodec::Raw) => PayloadCodec::Raw,
        Some(ValueCodec::Json) => PayloadCodec::Json,
        Some(ValueCodec::Csv) => PayloadCodec::Csv,
        Some(ValueCodec::Avro) => PayloadCodec::Avro,
        Some(ValueCodec::Columns) => PayloadCodec::Columns,
        None if schema.as_ref().is_some_and(|s| s.avro.is_some()) => PayloadCodec::Avro,
        None if schema.is_some() => PayloadCodec::Json,
        None => PayloadCodec::Raw,
    };
    let durability = durability(create.durability);
    let spec = TopicSpec {
        partitions: create.partitions,
        codec,
        schema,
        misfits: match create.misfits {
            MisfitsArg::DeadLetter => Misfits::DeadLetter,
            MisfitsArg::Nulls => Misfits::Nulls,
        },
        durability,
        retention_ms: create.retention.and_then(|limit| limit.0),
        retention_bytes: create.retention_bytes.and_then(|limit| limit.0),
        compact: create.compact,
        tombstone_retention_ms: create.tombstone_retention.map(millis),
        min_compaction_lag_ms: create.min_compaction_lag.map(millis),
        tier: !create.no_tier,
    };
    spec.check().map_err(Failure::failed)?;
    let server = session.server().await?;
    let request = TopicCreate {
        name: create.name.clone(),
        spec,
        if_absent: create.if_absent,
    };
    let created = server.call(request).await?;
    if session.json() {
        let object = serde_json::json!({ "name": create.name, "id": created.id });
        return written(output::print(&output::json(&object)));
    }
    let partitions = output::count(create.partitions.into(), "partition");
    eprintln!("created topic {} with {partitions}", create.name);
    Ok(())
}

async fn alter(alter: args::TopicAlter, session: &Session) -> Result<(), Failure> {
    let change = TopicChange {
        durability: alter.durability.map(durability),
        retention_ms: alter.retention.map(|limit| limit.0),
        retention_bytes: alter.retention_bytes.map(|limit| limit.0),
        ..TopicChange::default()
    };
    let name = alter.name;
    let server = session.server().await?;
    let altered = server.call(TopicAlter {
        name: name.clone(),
        change,
    });
    let topic = altered.await?.topic;
    if session.json() {
        return written(output::print(&output::json(&topic_json(&topic))));
    }
    eprintln!("altered topic {name}");
    Ok(())
}

async fn trim(trim: args::TopicTrim, session: &Session) -> Result<(), Failure> {
    let before = match (trim.before, trim.before_time) {
        (Some(offset), _) => TrimBefore::Offset(offset),
        (None, Some(time_us)) => TrimBefore::Timestamp(time_us),
        (None, None) => return Err(Failure::usage("give --before or --before-time")),
    };
    let request = TopicTrim {
        name: trim.name.clone(),
        partition: trim.partition,
        before,
    };
    let trimmed = session.server().await?.call(request).await?.partitions;
    if session.json() {
        let json = |p: &PartitionTrimmed| {
            serde_json::json!({
                "partition": p.index, "start_before": p.start_before, "start": p.start,
                "end": p.end,
            })
        };
        let partitions: Vec<_> = trimmed.iter().map(json).collect();
        let object = serde_json::json!({ "name": trim.name, "partitions": partitions });
        return written(output::print(&output::json(&object)));
    }
    for PartitionTrimmed {
        index,
        start_before,
        start,
        end,
    } in trimmed
    {
        let name = &trim.name;
        match start > start_before {
            true => eprintln!(
                "trimmed partition {index} of {name}: it has offsets {start} to {end} now, \
                 before it began at {start_before}"
            ),
            false => eprintln!(
                "nothing to trim in partition {index} of {name}: it has offsets {start} to {end}"
            ),
        }
    }
    Ok(())
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn durability(arg: DurabilityArg) -> Durability {
    match arg {
        DurabilityArg::Fsync => Durability::Fsync,
        DurabilityArg::Memory => Durability::Memory,
    }
}

fn read_schema(path: &Path) -> Result<Schema, Failure> {
    let file = path.display();
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure::failed(format!("cannot read the schema file {file}: {error}")))?;
    let value: serde_json::Value = serde_json::from_str(&text).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        Failure::failed(format!("{file}:{line}:{column}: error: not JSON: {error}"))
    })?;
    Schema::from_json(&value).map_err(|error| {
        let (line, column) = error.place(&text);
        Failure::failed(format!("{file}:{line}:{column}: error: {error}"))
    })
}

async fn list(session: &Session) -> Result<(), Failure> {
    let server = session.server().await?;
    let topics = server.call(TopicList {}).await?.topics;
    if session.json() {
        let topics: Vec<_> = topics.iter().map(info_json).collect();
        return written(output::print(&output::json(&topics)));
    }
    let rows: Vec<Vec<String>> = topics
        .iter()
        .map(|info| {
            let spec = &info.topic.spec;
            vec![
                info.topic.name.clone(),
                spec.partitions.to_string(),
                spec.codec.to_string(),
                spec.durability.to_string(),
                info.records.to_string(),
            ]
        })
        .collect();
    let columns = ["NAME", ">PARTITIONS", "VALUE", "DURABILITY", ">RECORDS"];
    written(output::print(&output::table(&columns, &rows)))
}

async fn describe(name: String, session: &Session) -> Result<(), Failure> {
    let server = session.server().await?;
    let found = server.call(TopicDescribe { name }).await?;
    if session.json() {
        return written(output::print(&output::json(&description_json(&found))));
    }
    let mut text = output::fields(&settings(&found.topic));
    text.push('\n');
    let rows: Vec<Vec<String>> = found
        .partitions
        .iter()
        .map(|p| {
            let records = p.end.saturating_sub(p.start);
            let unknown = || "-".to_string();
            vec![
                p.index.to_string(),
                p.start.to_string(),
                p.end.to_string(),
                records.to_string(),
                p.shard.map_or_else(unknown, |shard| shard.to_string()),
                p.epoch.map_or_else(unknown, |epoch| epoch.to_string()),
            ]
        })
        .collect();
    let columns = [
        ">PARTITION",
        ">START",
        ">END",
        ">RECORDS",
        ">SHARD",
        ">EPOCH",
    ];
    text.push_str(&output::table(&columns, &rows));
    written(output::print(&text))
}

/// What a topic is set to, for people.
fn settings(topic: &ModelTopic) -> Vec<(&'static str, String)> {
    let spec = &topic.spec;
    let unlimited = || "unlimited".to_string();
    let schema = spec.schema.as_ref();
    let mut settings = vec![
        ("name", topic.name.clone()),
        ("id", topic.id.to_string()),
        ("value", spec.codec.to_string()),
        (
            "schema",
            schema.map_or("none".to_string(), ToString::to_string),
        ),
        ("schema version", topic.schema_version.to_string()),
        ("durability", spec.durability.to_string()),
        (
            "retention",
            spec.retention_ms.map_or_else(unlimited, output::time_ms),
        ),
        (
            "retention bytes",
            spec.retention_bytes.map_or_else(unlimited, output::bytes),
        ),
        ("tier", spec.tier.to_string()),
        ("compact", spec.compact.to_string()),
    ];
    if spec.has_misfits() {
        settings.push(("misfits", spec.misfits.to_string()));
    }
    if let (PayloadCodec::Avro, Some(schema)) = (spec.codec, schema) {
        settings.push(("avro schema", schema.avro_text()));
    }
    if spec.compact {
        let stands = spec
            .tombstone_retention_ms
            .unwrap_or(model::topic::TOMBSTONE_RETENTION_MS_DEFAULT);
        settings.push(("tombstones stand", output::time_ms(stands)));
        let lag = spec.min_compaction_lag_ms.unwrap_or_default();
        settings.push(("compaction lag", output::time_ms(lag)));
    }
    settings
}

/// One flat object, the same for the listing, the description and the HTTP door.
pub fn topic_json(topic: &ModelTopic) -> serde_json::Map<String, serde_json::Value> {
    let spec = serde_json::to_value(&topic.spec).expect("a spec has string keys");
    let mut object = serde_json::Map::new();
    object.insert("name".into(), topic.name.clone().into());
    object.insert("id".into(), topic.id.0.into());
    object.insert("schema_version".into(), topic.schema_version.into());
    if let serde_json::Value::Object(spec) = spec {
        object.extend(spec);
    }
    if topic.spec.has_misfits() {
        // said even where it is the default, which the spec leaves out
        object.insert("misfits".into(), topic.spec.misfits.to_string().into());
    }
    object
}

pub fn info_json(info: &TopicInfo) -> serde_json::Value {
    let mut object = topic_json(&info.topic);
    object.insert("records".into(), info.records.into());
    object.into()
}

/// `partitions` is the list of partitions with their offsets.
pub fn description_json(found: &TopicDescription) -> serde_json::Value {
    let mut object = topic_json(&found.topic);
    let partitions: Vec<_> = found
        .partitions
        .iter()
        .map(|p| {
            serde_json::json!({
                "partition": p.index, "start": p.start, "end": p.end,
                "shard": p.shard, "epoch": p.epoch,
            })
        })
        .collect();
    object.insert("partition_count".into(), found.partitions.len().into());
    object.insert("partitions".into(), partitions.into());
    object.into()
}
