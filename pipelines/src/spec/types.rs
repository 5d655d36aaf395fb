//! What a pipeline file says, as types; each value knows its place in the file.
//!
//! Called by: `spec::parse` makes them, `lint`, `plan` and the runtime read them, `schema_json`
//! generates the published JSON Schema from them. Invariants: equality ignores places, so two
//! specs can be compared; tables keep the order of the file. Field names here are the keys of
//! the file in kebab-case: rename nothing without its contract.

use std::borrow::Cow;
use std::ops::Deref;
use std::sync::Arc;

use model::schema::Schema as FieldSchema;
use model::topic::{Durability, Misfits, PayloadCodec};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

pub use super::grants::Grants;
pub use super::policy::{BatchPolicy, OnError, Policy, Retry, Then};
use super::yaml::Pos;

/// A value and where it stands.
#[derive(Clone, Debug, Default)]
pub struct At<T> {
    pub value: T,
    pub at: Pos,
}

impl<T: PartialEq> PartialEq for At<T> {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

impl<T> Deref for At<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: std::fmt::Display> std::fmt::Display for At<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.value.fmt(f)
    }
}

impl<T: JsonSchema> JsonSchema for At<T> {
    fn inline_schema() -> bool {
        T::inline_schema()
    }
    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}

/// Names and what they stand for, in the file's order.
#[derive(Clone, Debug, PartialEq)]
pub struct Table<T>(pub Vec<(At<String>, T)>);

impl<T> Default for Table<T> {
    fn default() -> Self {
        Table(Vec::new())
    }
}

impl<T> Table<T> {
    pub fn get(&self, name: &str) -> Option<&T> {
        self.0.iter().find(|(n, _)| n.value == name).map(|(_, v)| v)
    }
    pub fn iter(&self) -> impl Iterator<Item = (&At<String>, &T)> {
        self.0.iter().map(|(n, v)| (n, v))
    }
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(n, _)| n.value.as_str())
    }
    pub fn len(&self) -> usize {
        self.0.len()
    }
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<T: JsonSchema> JsonSchema for Table<T> {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        format!("Table_of_{}", T::schema_name()).into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "object", "additionalProperties": generator.subschema_for::<T>() })
    }
}

/// A type that is text in the file, with the form that the schema shows.
macro_rules! text_schema {
    ($ty:ty, $name:literal, $description:literal, $pattern:literal) => {
        impl JsonSchema for $ty {
            fn inline_schema() -> bool {
                true
            }
            fn schema_name() -> Cow<'static, str> {
                $name.into()
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "description": $description, "pattern": $pattern })
            }
        }
    };
}

/// A size in bytes, written `1MiB`, `64KiB`, `500B`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size(pub u64);
text_schema!(
    Size,
    "Size",
    "a size such as 64KiB, 1MiB, 2GiB",
    r"^[0-9]+ ?(B|KB|MB|GB|KiB|MiB|GiB)$"
);

/// A time in milliseconds, written `5ms`, `10s`, `2m`, `3h`, `14d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Millis(pub u64);
text_schema!(
    Millis,
    "Duration",
    "a time such as 5ms, 10s, 2m, 3h, 14d",
    r"^[0-9]+ ?(ms|s|m|h|d)$"
);

/// A SQL expression and the place of each of its bytes, where that is known.
#[derive(Clone, Debug)]
pub struct Expression {
    pub text: String,
    pub at: Pos,
    pub places: Arc<[Pos]>,
}
text_schema!(
    Expression,
    "Expression",
    "a SQL expression over the fields of the input",
    "."
);

impl PartialEq for Expression {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Expression {
    /// Line and column of a byte of the expression; the value's start where it is not known.
    pub fn place(&self, offset: Option<usize>) -> Pos {
        offset
            .and_then(|o| self.places.get(o))
            .copied()
            .unwrap_or(self.at)
    }
}

/// An output of another node: `node` is its port `out`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputRef {
    pub node: String,
    pub port: String,
}
text_schema!(
    InputRef,
    "Input",
    "`node` (its port `out`) or `node.port`",
    r"^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)?$"
);

impl std::fmt::Display for InputRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.port.as_str() {
            OUT => f.write_str(&self.node),
            port => write!(f, "{}.{port}", self.node),
        }
    }
}

/// The port that `node` alone means.
pub const OUT: &str = "out";

/// A whole pipeline file.
#[derive(Clone, Debug, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(title = "RustMQ pipeline", rename = "Pipeline")]
pub struct Spec {
    #[schemars(extend("const" = super::API_VERSION))]
    pub api_version: String,
    #[schemars(extend("const" = super::KIND))]
    pub kind: String,
    pub metadata: Metadata,
    /// Topics that are created, or checked where they exist, when the pipeline is applied.
    #[serde(default)]
    pub topics: Table<TopicDef>,
    #[serde(default)]
    pub modules: Table<ModuleDef>,
    #[serde(default)]
    pub policy: Policy,
    pub nodes: Table<Node>,
    /// The file's name, as given, for diagnostics.
    #[schemars(skip)]
    pub file: String,
}

#[derive(Clone, Debug, Default, PartialEq, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Metadata {
    #[schemars(regex(pattern = r"^[a-z0-9-]+$"), length(max = 100))]
    pub name: At<String>,
    #[serde(default)]
    pub description: Option<String>,
    #[serde(default)]
    pub labels: Table<String>,
}

#[derive(Clone, Debug, Default, PartialEq, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(rename = "Topic")]
pub struct TopicDef {
    #[serde(default)]
    #[schemars(with = "Option<u32>", range(min = 1))]
    pub partitions: Option<At<u32>>,
    #[serde(default)]
    pub value: Option<Value>,
    /// How long records are kept, counted from their append.
    #[serde(default)]
    pub retention: Option<Millis>,
    /// Above this size the oldest records of a partition are dropped.
    #[serde(default)]
    pub retention_bytes: Option<Size>,
    #[serde(default)]
    #[schemars(with = "Option<DurabilityDoc>")]
    pub durability: Option<Durability>,
    /// Keep only the newest record of each key, in the log and in the object store.
    #[serde(default)]
    pub compact: Option<bool>,
    /// How long a compacted topic shows that a key was deleted; by default a day.
    #[serde(default)]
    pub tombstone_retention: Option<Millis>,
    /// Younger records of a compacted topic are left alone.
    #[serde(default)]
    pub min_compaction_lag: Option<Millis>,
    /// Move closed ranges to the object store as Parquet.
    #[serde(default)]
    pub tier: Option<bool>,
}

/// How the values of a topic are encoded, which fields they have, and what misfits are, if it says so.
#[derive(Clone, Debug, PartialEq)]
pub struct Value {
    pub codec: At<PayloadCodec>,
    pub schema: Option<At<FieldSchema>>,
    pub misfits: Option<Misfits>,
}

impl JsonSchema for Value {
    fn schema_name() -> Cow<'static, str> {
        "Value".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let codec = generator.subschema_for::<CodecDoc>();
        let schema = generator.subschema_for::<SchemaDoc>();
        let misfits = generator.subschema_for::<MisfitsDoc>();
        json_schema!({
            "anyOf": [
                { "enum": ["raw", "json"] },
                {
                    "type": "object",
                    "properties": { "codec": codec, "schema": schema, "misfits": misfits },
                    "required": ["codec"],
                    "additionalProperties": false
                }
            ]
        })
    }
}

#[derive(JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(rename = "Codec")]
#[allow(dead_code, reason = "only its JSON Schema is used")]
enum CodecDoc {
    Raw,
    Json,
    Csv,
    Avro,
    Columns,
}

/// What a value is that does not fit the schema: by default a dead letter.
#[derive(JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(rename = "Misfits")]
#[allow(dead_code, reason = "only its JSON Schema is used")]
enum MisfitsDoc {
    DeadLetter,
    Nulls,
}

#[derive(JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(rename = "Durability")]
#[allow(dead_code, reason = "only its JSON Schema is used")]
enum DurabilityDoc {
    Fsync,
    Memory,
}

/// A schema: a file's name, fields with their types, or a JSON Schema object.
pub(super) struct SchemaDoc;

impl JsonSchema for SchemaDoc {
    fn schema_name() -> Cow<'static, str> {
        "Fields".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "a schema file, `{field: type}`, a list of {name, type}, or JSON Schema",
            "type": ["string", "object", "array"]
        })
    }
}

#[derive(Clone, Debug, PartialEq, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Module")]
pub struct ModuleDef {
    pub source: At<ModuleSource>,
    #[serde(default)]
    pub grants: Grants,
    #[serde(default)]
    pub limits: ModuleLimits,
}

/// Where a module comes from.
#[derive(Clone, Debug, PartialEq)]
pub enum ModuleSource {
    /// A folder with the module's source code, which is built.
    Folder(String),
    /// A `.wasm` file.
    File(String),
    /// A module that the cluster has already.
    Digest(model::ids::Digest),
}
text_schema!(
    ModuleSource,
    "ModuleSource",
    "a folder with source code (built on apply), a .wasm file, or sha256:DIGEST",
    "."
);

/// What a module may use, in each lane. What is left out has a default; each has a hard cap.
#[derive(Clone, Debug, Default, PartialEq, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ModuleLimits {
    /// Memory of one instance: 64MiB, at most 1GiB.
    #[serde(default)]
    pub memory: Option<At<Size>>,
    /// Longest processor time for one batch: 100ms, at most 60s.
    #[serde(default)]
    pub deadline: Option<At<Millis>>,
    /// The same for opening: 1s, at most 60s.
    #[serde(default)]
    pub open_deadline: Option<At<Millis>>,
    /// Bytes that one batch may become: 64MiB, at most 256MiB.
    #[serde(default)]
    pub output: Option<At<Size>>,
    /// Bytes that one byte of a batch may become, above 1MiB of output: 16, at most 1000.
    #[serde(default)]
    #[schemars(with = "Option<u32>", range(min = 1))]
    pub output_ratio: Option<At<u32>>,
    /// Bytes of log a second: 64KiB, at most 1MiB.
    #[serde(default)]
    pub log: Option<At<Size>>,
    /// Counters and histograms: 64, at most 256.
    #[serde(default)]
    #[schemars(with = "Option<u32>", range(min = 1))]
    pub metrics: Option<At<u32>>,
    /// Elements of one table of functions: 20000, at most 100000.
    #[serde(default)]
    #[schemars(with = "Option<u32>", range(min = 1))]
    pub table_elements: Option<At<u32>>,
    /// What a module keeps from batch to batch, in each lane: 64MiB, at most 1GiB.
    #[serde(default)]
    pub state: Option<At<Size>>,
    /// Timers that are set at a time, in each lane: 100000, at most 1000000.
    #[serde(default)]
    #[schemars(with = "Option<u32>", range(min = 1))]
    pub timers: Option<At<u32>>,
    /// Requests for one batch: 1000, at most 10000.
    #[serde(default)]
    #[schemars(with = "Option<u32>", range(min = 1))]
    pub http_requests: Option<At<u32>>,
    /// Requests that are under way at a time, in each lane: 8, at most 64.
    #[serde(default)]
    #[schemars(with = "Option<u32>", range(min = 1))]
    pub http_at_once: Option<At<u32>>,
    /// Requests a second, of all lanes of a node: 100, at most 10000.
    #[serde(default)]
    #[schemars(with = "Option<u32>", range(min = 1))]
    pub http_rate: Option<At<u32>>,
    /// Time of one request: 5s, at most 60s.
    #[serde(default)]
    pub http_timeout: Option<At<Millis>>,
    /// Time of all requests for one batch: 10s, at most 300s.
    #[serde(default)]
    pub http_time: Option<At<Millis>>,
    /// Bytes of a request's body: 256KiB, at most 16MiB.
    #[serde(default)]
    pub http_sent: Option<At<Size>>,
    /// Bytes of an answer's body: 1MiB, at most 16MiB.
    #[serde(default)]
    pub http_received: Option<At<Size>>,
}

#[derive(Clone, Debug, PartialEq, JsonSchema)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Node {
    Source(Source),
    Sink(Sink),
    Wasm(Wasm),
    Filter(Filter),
    Map(Map),
    Route(Route),
}

impl Node {
    pub fn kind(&self) -> &'static str {
        match self {
            Node::Source(_) => "source",
            Node::Sink(_) => "sink",
            Node::Wasm(_) => "wasm",
            Node::Filter(_) => "filter",
            Node::Map(_) => "map",
            Node::Route(_) => "route",
        }
    }

    pub fn inputs(&self) -> &[At<InputRef>] {
        match self {
            Node::Source(_) => &[],
            Node::Sink(n) => &n.inputs,
            Node::Wasm(n) => &n.inputs,
            Node::Filter(n) => &n.inputs,
            Node::Map(n) => &n.inputs,
            Node::Route(n) => &n.inputs,
        }
    }

    /// Names of the outputs, in the order of their port numbers.
    pub fn ports(&self) -> Vec<&str> {
        match self {
            Node::Sink(_) => Vec::new(),
            Node::Source(_) | Node::Filter(_) | Node::Map(_) => vec![OUT],
            Node::Wasm(n) => n.outputs.names().collect(),
            Node::Route(n) => n
                .cases
                .names()
                .chain(std::iter::once(n.otherwise.value.as_str()))
                .collect(),
        }
    }

    pub fn on_error(&self) -> Option<&OnError> {
        match self {
            Node::Source(n) => n.on_error.as_ref(),
            Node::Sink(n) => n.on_error.as_ref(),
            Node::Wasm(n) => n.on_error.as_ref(),
            Node::Filter(n) => n.on_error.as_ref(),
            Node::Map(n) => n.on_error.as_ref(),
            Node::Route(n) => n.on_error.as_ref(),
        }
    }
}

/// Reads a topic.
#[derive(Clone, Debug, PartialEq, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Source {
    pub topic: At<String>,
    pub start: At<Start>,
    #[serde(default)]
    pub on_error: Option<OnError>,
}

/// Where a source begins when the pipeline is applied for the first time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    Earliest,
    Latest,
    /// Microseconds since the epoch, UTC.
    Time(i64),
}
text_schema!(Start, "Start", "earliest, latest or an RFC 3339 time", ".");

/// Writes a topic; the record keeps its key unless `key` gives another.
#[derive(Clone, Debug, PartialEq, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Sink {
    pub inputs: Vec<At<InputRef>>,
    pub topic: At<String>,
    #[serde(default)]
    pub key: Option<Expression>,
    #[serde(default)]
    pub on_error: Option<OnError>,
}

/// Runs a module.
#[derive(Clone, Debug, PartialEq, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Wasm {
    pub module: At<String>,
    pub inputs: Vec<At<InputRef>>,
    /// Names of the outputs, or names with the schema of what comes out; one `out` by default.
    #[serde(default)]
    #[schemars(with = "Option<OutputsDoc>")]
    pub outputs: Table<Option<At<OutputSchema>>>,
    /// Given to the module as JSON.
    #[serde(default)]
    pub params: serde_json::Value,
    /// How far the watermark stays behind the largest event time: 0s. For modules that keep state.
    #[serde(default)]
    pub lateness: Option<At<Millis>>,
    /// Tables that the module looks into: what it calls them, and the topics whose newest values they hold.
    #[serde(default)]
    pub lookups: Table<LookupDef>,
    #[serde(default)]
    pub on_error: Option<OnError>,
}

/// A lookup table: a topic, or a topic and what its newest values may take in memory.
#[derive(Clone, Debug, PartialEq)]
pub struct LookupDef {
    pub topic: At<String>,
    /// 256MiB, at most 4GiB.
    pub limit: Option<At<Size>>,
}

impl JsonSchema for LookupDef {
    fn schema_name() -> Cow<'static, str> {
        "Lookup".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let limit = generator.subschema_for::<Size>();
        json_schema!({
            "description": "a topic, or a topic and a limit: 256MiB, at most 4GiB",
            "anyOf": [
                { "type": "string" },
                {
                    "type": "object",
                    "properties": { "topic": { "type": "string" }, "limit": limit },
                    "required": ["topic"],
                    "additionalProperties": false
                }
            ]
        })
    }
}

/// The schema of a wasm output: that of a topic, or fields.
#[derive(Clone, Debug, PartialEq)]
pub enum OutputSchema {
    Topic(String),
    Fields(FieldSchema),
}

struct OutputsDoc;

impl JsonSchema for OutputsDoc {
    fn schema_name() -> Cow<'static, str> {
        "Outputs".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let schema = generator.subschema_for::<SchemaDoc>();
        json_schema!({
            "anyOf": [
                { "type": "array", "items": { "type": "string" }, "minItems": 1 },
                {
                    "type": "object",
                    "minProperties": 1,
                    "additionalProperties": {
                        "type": ["object", "null"],
                        "properties": { "schema": schema },
                        "additionalProperties": false
                    }
                }
            ]
        })
    }
}

/// Keeps the rows for which the condition is true.
#[derive(Clone, Debug, PartialEq, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Filter {
    pub inputs: Vec<At<InputRef>>,
    #[serde(rename = "where")]
    pub condition: Expression,
    #[serde(default)]
    pub on_error: Option<OnError>,
}

/// Makes JSON objects of selected columns.
#[derive(Clone, Debug, PartialEq, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Map {
    pub inputs: Vec<At<InputRef>>,
    pub select: Table<Expression>,
    #[serde(default)]
    pub key: Option<Expression>,
    #[serde(default)]
    pub on_error: Option<OnError>,
}

/// Sends each row to the first case that is true, else to `else`.
#[derive(Clone, Debug, PartialEq, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Route {
    pub inputs: Vec<At<InputRef>>,
    pub cases: Table<Expression>,
    #[serde(rename = "else")]
    pub otherwise: At<String>,
    #[serde(default)]
    pub on_error: Option<OnError>,
}
