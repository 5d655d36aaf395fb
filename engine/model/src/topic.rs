//! What a topic is: its partitions, what its values mean, how durable and how long it is kept.
//!
//! Called by catalog (which holds topics), storage, broker, pipelines and the command line.
//! Invariant: a spec in the catalog has passed `check`. Refuses what is parsed but not built
//! yet, by name.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ids::{ShardId, TopicId};
use crate::limits::{COLUMNS_MAX, PARTITIONS_MAX, RETENTION_MS_MIN};
use crate::schema::{Schema, SchemaError};

/// What the bytes of a value mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PayloadCodec {
    #[default]
    Raw,
    Json,
    Csv,
    Avro,
    Columns,
}

impl fmt::Display for PayloadCodec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PayloadCodec::Raw => "raw",
            PayloadCodec::Json => "json",
            PayloadCodec::Csv => "csv",
            PayloadCodec::Avro => "avro",
            PayloadCodec::Columns => "columns",
        })
    }
}

/// What becomes, where typed columns are read, of a value that does not fit the topic's schema.
///
/// Ordered: what may have nulls of misfits is more than what has none.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum Misfits {
    /// A pipeline that needs the columns gives the record up.
    #[default]
    DeadLetter,
    /// Its columns are null, as SQL and the tier have them.
    Nulls,
}

impl fmt::Display for Misfits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Misfits::DeadLetter => "dead-letter",
            Misfits::Nulls => "nulls",
        })
    }
}

/// When an append is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// After `fdatasync`.
    #[default]
    Fsync,
    /// After the write: a power cut may lose what was acknowledged.
    Memory,
}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Durability::Fsync => "fsync",
            Durability::Memory => "memory",
        })
    }
}

/// What was asked for when a topic was created.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TopicSpec {
    pub partitions: u32,
    pub codec: PayloadCodec,
    pub schema: Option<Schema>,
    /// Absent where it is the default, so that catalogs without it stay as they were.
    #[serde(skip_serializing_if = "is_default")]
    pub misfits: Misfits,
    pub durability: Durability,
    /// Records older than this many milliseconds (by append time) may be dropped.
    pub retention_ms: Option<u64>,
    /// Above this many bytes per partition the oldest records may be dropped.
    pub retention_bytes: Option<u64>,
    /// Keep only the last record of each key, in the log and in the object store.
    pub compact: bool,
    /// How long, in milliseconds, a compacted topic shows a tombstone (a record without a value)
    /// to those who read from the start; Kafka's `delete.retention.ms`. By default a day.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tombstone_retention_ms: Option<u64>,
    /// Records younger than this many milliseconds are not compacted; Kafka's
    /// `min.compaction.lag.ms`. By default 0: only the newest batch is left alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_compaction_lag_ms: Option<u64>,
    /// Move closed ranges to the object store.
    pub tier: bool,
}

fn is_default(misfits: &Misfits) -> bool {
    *misfits == Misfits::default()
}

impl Default for TopicSpec {
    fn default() -> TopicSpec {
        TopicSpec {
            partitions: 1,
            codec: PayloadCodec::Raw,
            schema: None,
            misfits: Misfits::DeadLetter,
            durability: Durability::Fsync,
            retention_ms: None,
            retention_bytes: None,
            compact: false,
            tombstone_retention_ms: None,
            min_compaction_lag_ms: None,
            tier: true,
        }
    }
}

/// Why a topic spec is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    #[error("a topic has 1 to {PARTITIONS_MAX} partitions, not {partitions}")]
    Partitions { partitions: u32 },
    #[error("value codec `columns` takes at most {COLUMNS_MAX} fields; this schema has {fields}")]
    TooManyColumns { fields: usize },
    #[error("a schema needs value codec `json`, `csv`, `avro` or `columns`, not `{codec}`")]
    SchemaWithout { codec: PayloadCodec },
    #[error("value codec `{codec}` needs a schema: it says what the fields of a row are")]
    WithoutSchema { codec: PayloadCodec },
    #[error("an Avro schema needs value codec `avro`, not `{codec}`")]
    AvroSchemaWithout { codec: PayloadCodec },
    #[error("misfits as `nulls` need a schema: without one there are no columns to be null")]
    MisfitsWithout,
    #[error(
        "value codec `columns` has no misfits to be `nulls`: a record that does not fit is refused \
         when it is produced"
    )]
    MisfitsOfColumns,
    #[error(transparent)]
    Schema(#[from] SchemaError),
    #[error("retention of {ms} ms is too short; the least is {RETENTION_MS_MIN} ms")]
    RetentionTime { ms: u64 },
    #[error("retention of 0 bytes would keep nothing; leave it out to keep everything")]
    RetentionBytes,
    #[error("{what} is for compacted topics: ask for `compact` too, or leave it out")]
    CompactWithout { what: &'static str },
}

/// How long a tombstone stands where the topic does not say.
pub const TOMBSTONE_RETENTION_MS_DEFAULT: u64 = 24 * 60 * 60 * 1_000;

impl TopicSpec {
    /// Whether a topic can be made as asked.
    pub fn check(&self) -> Result<(), SpecError> {
        if self.partitions == 0 || self.partitions > PARTITIONS_MAX {
            return Err(SpecError::Partitions {
                partitions: self.partitions,
            });
        }
        match self.codec {
            PayloadCodec::Raw | PayloadCodec::Json => {}
            codec if self.schema.is_none() => return Err(SpecError::WithoutSchema { codec }),
            _ => {}
        }
        if let Some(schema) = &self.schema {
            self.schema_check(schema)?;
        }
        match (self.misfits, self.codec) {
            (Misfits::DeadLetter, _) => {}
            (Misfits::Nulls, PayloadCodec::Columns) => return Err(SpecError::MisfitsOfColumns),
            (Misfits::Nulls, _) if self.schema.is_none() => return Err(SpecError::MisfitsWithout),
            (Misfits::Nulls, _) => {}
        }
        match self.retention_ms {
            Some(ms) if ms < RETENTION_MS_MIN => return Err(SpecError::RetentionTime { ms }),
            _ => {}
        }
        if self.retention_bytes == Some(0) {
            return Err(SpecError::RetentionBytes);
        }
        let alone = [
            ("tombstone retention", self.tombstone_retention_ms),
            ("min compaction lag", self.min_compaction_lag_ms),
        ];
        match alone.into_iter().find(|(_, set)| set.is_some()) {
            Some((what, _)) if !self.compact => Err(SpecError::CompactWithout { what }),
            _ => Ok(()),
        }
    }

    /// Whether a value may be there that does not fit the schema.
    pub fn has_misfits(&self) -> bool {
        self.schema.is_some() && self.codec != PayloadCodec::Columns
    }

    fn schema_check(&self, schema: &Schema) -> Result<(), SpecError> {
        let codec = self.codec;
        match codec {
            PayloadCodec::Raw => return Err(SpecError::SchemaWithout { codec }),
            PayloadCodec::Avro => drop(schema.to_avro()?),
            _ if schema.avro.is_some() => return Err(SpecError::AvroSchemaWithout { codec }),
            PayloadCodec::Columns if schema.fields.len() > COLUMNS_MAX => {
                return Err(SpecError::TooManyColumns {
                    fields: schema.fields.len(),
                });
            }
            _ => {}
        }
        Ok(schema.check()?)
    }

    /// The first property in which `self` (what is there) and `wanted` differ, in words.
    pub fn difference(&self, wanted: &TopicSpec) -> Option<String> {
        let pairs = self.properties().into_iter().zip(wanted.properties());
        let mut different = pairs.filter(|((_, have), (_, want))| have != want);
        let ((what, have), (_, want)) = different.next()?;
        Some(format!("{what} is {have}, not {want}"))
    }

    /// Name and value of each property, in words.
    fn properties(&self) -> [(&'static str, String); 11] {
        let bound = |bound: Option<u64>| bound.map_or("unlimited".to_owned(), |v| v.to_string());
        let ms = |ms: Option<u64>| ms.map_or("the default".to_owned(), |ms| format!("{ms} ms"));
        [
            ("partitions", self.partitions.to_string()),
            ("value codec", self.codec.to_string()),
            ("schema", schema_text(&self.schema)),
            ("misfits", self.misfits.to_string()),
            ("durability", self.durability.to_string()),
            ("retention ms", bound(self.retention_ms)),
            ("retention bytes", bound(self.retention_bytes)),
            ("compact", self.compact.to_string()),
            ("tombstone retention", ms(self.tombstone_retention_ms)),
            ("min compaction lag", ms(self.min_compaction_lag_ms)),
            ("tier", self.tier.to_string()),
        ]
    }
}

fn schema_text(schema: &Option<Schema>) -> String {
    match schema {
        None => "none".to_owned(),
        Some(schema) => match &schema.avro {
            None => schema.to_string(),
            Some(avro) => format!("{schema} as Avro {avro}"),
        },
    }
}

/// A topic of the catalog.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Topic {
    pub id: TopicId,
    pub name: String,
    pub spec: TopicSpec,
    /// Partition `i` lives in shard `shards[i % shards.len()]`, so that equal partitions of
    /// topics that are used together share a shard.
    #[serde(default = "shards_first")]
    pub shards: Vec<ShardId>,
    /// Counts the schemas the topic has had; 0 without one.
    #[serde(default)]
    pub schema_version: u32,
}

fn shards_first() -> Vec<ShardId> {
    vec![ShardId::FIRST]
}

impl Topic {
    /// A topic in the first shard.
    pub fn new(id: TopicId, name: impl Into<String>, spec: TopicSpec) -> Topic {
        Topic {
            id,
            name: name.into(),
            schema_version: u32::from(spec.schema.is_some()),
            spec,
            shards: shards_first(),
        }
    }

    /// The shard of a partition; `None` for one the topic does not have.
    pub fn shard(&self, index: u32) -> Option<ShardId> {
        let at = (index as usize).checked_rem(self.shards.len())?;
        (index < self.spec.partitions).then(|| self.shards[at])
    }

    /// Made by the platform for itself: its name starts with `_`.
    pub fn is_internal(&self) -> bool {
        self.name.starts_with('_')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(spec: TopicSpec, expected: &str) {
        let got = spec
            .check()
            .map_or_else(|e| e.to_string(), |()| "ok".to_owned());
        assert_eq!(got, expected);
    }

    #[test]
    fn specs() {
        let spec = TopicSpec::default;
        let schema = Some(Schema::default());
        check(spec(), "ok");
        check(
            TopicSpec {
                partitions: 0,
                ..spec()
            },
            "a topic has 1 to 10000 partitions, not 0",
        );
        let of = |codec, schema: Option<serde_json::Value>| TopicSpec {
            codec,
            schema: schema.map(|schema| Schema::from_json(&schema).unwrap()),
            ..spec()
        };
        let needed = "value codec `csv` needs a schema: it says what the fields of a row are";
        check(of(PayloadCodec::Csv, None), needed);
        let many = (0..257).map(|n| (format!("f{n}"), "int64".into()));
        let many = serde_json::Value::Object(many.collect());
        check(
            of(PayloadCodec::Columns, Some(many)),
            "value codec `columns` takes at most 256 fields; this schema has 257",
        );
        check(
            of(PayloadCodec::Columns, Some(serde_json::json!({"a": "int"}))),
            "ok",
        );
        let needed = "value codec `columns` needs a schema: it says what the fields of a row are";
        check(of(PayloadCodec::Columns, None), needed);
        let needed = "value codec `avro` needs a schema: it says what the fields of a row are";
        check(of(PayloadCodec::Avro, None), needed);
        let avro = serde_json::json!(
            {"type": "record", "name": "r", "fields": [{"name": "a", "type": "int"}]}
        );
        check(of(PayloadCodec::Avro, Some(avro.clone())), "ok");
        let only = "an Avro schema needs value codec `avro`, not `json`";
        check(of(PayloadCodec::Json, Some(avro)), only);
        check(
            of(PayloadCodec::Avro, Some(serde_json::json!({"a": "int"}))),
            "ok",
        );
        check(
            of(PayloadCodec::Avro, Some(serde_json::json!({"a b": "int"}))),
            "Avro schema, field `a b`: it is no name: a letter or `_`, then letters, digits and `_`",
        );
        check(
            TopicSpec {
                schema: schema.clone(),
                ..spec()
            },
            "a schema needs value codec `json`, `csv`, `avro` or `columns`, not `raw`",
        );
        check(
            TopicSpec {
                codec: PayloadCodec::Json,
                schema,
                ..spec()
            },
            "a schema needs at least one field",
        );
        check(
            TopicSpec {
                retention_ms: Some(1),
                ..spec()
            },
            "retention of 1 ms is too short; the least is 1000 ms",
        );
        let compacted = TopicSpec {
            compact: true,
            tombstone_retention_ms: Some(0),
            min_compaction_lag_ms: Some(1),
            ..spec()
        };
        check(compacted.clone(), "ok");
        check(
            TopicSpec {
                compact: false,
                ..compacted
            },
            "tombstone retention is for compacted topics: ask for `compact` too, or leave it out",
        );
    }

    #[test]
    fn nulls_of_misfits_need_columns_that_are_read() {
        let schema = Schema::from_json(&serde_json::json!({"a": "int"})).unwrap();
        let of = |codec, schema: Option<&Schema>| TopicSpec {
            codec,
            schema: schema.cloned(),
            misfits: Misfits::Nulls,
            ..TopicSpec::default()
        };
        for codec in [PayloadCodec::Json, PayloadCodec::Csv, PayloadCodec::Avro] {
            check(of(codec, Some(&schema)), "ok");
        }
        let needed =
            "misfits as `nulls` need a schema: without one there are no columns to be null";
        check(of(PayloadCodec::Json, None), needed);
        check(of(PayloadCodec::Raw, None), needed);
        check(
            of(PayloadCodec::Columns, Some(&schema)),
            "value codec `columns` has no misfits to be `nulls`: a record that does not fit is \
             refused when it is produced",
        );
        let have = of(PayloadCodec::Json, Some(&schema));
        let want = TopicSpec {
            misfits: Misfits::DeadLetter,
            ..have.clone()
        };
        let difference = have.difference(&want);
        assert_eq!(
            difference.as_deref(),
            Some("misfits is nulls, not dead-letter")
        );
        let json = serde_json::to_string(&have).unwrap();
        assert!(json.contains(r#""misfits":"nulls","durability""#), "{json}");
        assert_eq!(serde_json::from_str::<TopicSpec>(&json).unwrap(), have);
        let old = serde_json::to_string(&want).unwrap();
        assert!(!old.contains("misfits"), "{old}");
        assert_eq!(serde_json::from_str::<TopicSpec>(&old).unwrap(), want);
    }

    #[test]
    fn difference_names_the_property() {
        let have = TopicSpec::default();
        assert_eq!(have.difference(&have), None);
        let want = TopicSpec {
            partitions: 4,
            tier: false,
            ..TopicSpec::default()
        };
        assert_eq!(
            have.difference(&want).as_deref(),
            Some("partitions is 1, not 4")
        );
    }

    #[test]
    fn json_fills_in_defaults_and_refuses_unknown_keys() {
        let spec: TopicSpec = serde_json::from_str(r#"{"partitions":4,"codec":"json"}"#).unwrap();
        let want = TopicSpec {
            partitions: 4,
            codec: PayloadCodec::Json,
            ..TopicSpec::default()
        };
        assert_eq!(spec, want);
        assert!(serde_json::from_str::<TopicSpec>(r#"{"partition":4}"#).is_err());
    }
}
