//! From the YAML tree to a `Spec`: the head of the file, topics, modules and policy.
//!
//! Called by: `spec::parse` and `spec::parse_with`. Invariants: all errors of the file are
//! found in one pass; a part with an error is left out and its name kept in `broken`, so that
//! what refers to it is not blamed too. Nodes are read in `nodes.rs`.

use model::ids::{Digest, pipeline_name_check, topic_name_check};
use model::schema::Schema as FieldSchema;
use model::topic::{Durability, Misfits, PayloadCodec};
use serde_json::Value as Json;
use wasm::Limits;

use super::grants::grants;
#[cfg(test)]
use super::grants::{GRANT_KEYS, HTTP_KEYS};
use super::nodes;
use super::reader::{Fields, Reader, Surroundings};
use super::types::{
    At, BatchPolicy, Metadata, ModuleDef, ModuleLimits, ModuleSource, OnError, Policy, Retry, Spec,
    Table, Then, TopicDef, Value,
};
use super::yaml::{self, Kind, Node, Pos};
use super::{API_VERSION, KIND};
use crate::limits::{
    BATCH_BYTES_MAX, BATCH_ROWS_MAX, BATCH_WAIT_MS_MAX, RETRY_MAX, SCHEMA_BYTES_MAX,
};

/// Allowed keys by the name of their type in the JSON Schema; a test holds the two together.
#[cfg(test)]
pub(super) const KEYS: &[(&str, &[&str])] = &[
    ("Pipeline", SPEC_KEYS),
    ("Metadata", METADATA_KEYS),
    ("Topic", TOPIC_KEYS),
    ("Module", MODULE_KEYS),
    ("Grants", GRANT_KEYS),
    ("HttpGrant", HTTP_KEYS),
    ("ModuleLimits", LIMIT_KEYS),
    ("Policy", POLICY_KEYS),
    ("BatchPolicy", BATCH_KEYS),
    ("OnError", ON_ERROR_KEYS),
    ("Retry", RETRY_KEYS),
];
const SPEC_KEYS: &[&str] = &[
    "apiVersion",
    "kind",
    "metadata",
    "topics",
    "modules",
    "policy",
    "nodes",
];
const METADATA_KEYS: &[&str] = &["name", "description", "labels"];
const TOPIC_KEYS: &[&str] = &[
    "partitions",
    "value",
    "retention",
    "retention-bytes",
    "durability",
    "compact",
    "tombstone-retention",
    "min-compaction-lag",
    "tier",
];
pub(super) const VALUE_KEYS: &[&str] = &["codec", "schema", "misfits"];
const MODULE_KEYS: &[&str] = &["source", "grants", "limits"];
const LIMIT_KEYS: &[&str] = &[
    "memory",
    "deadline",
    "open-deadline",
    "output",
    "output-ratio",
    "log",
    "metrics",
    "table-elements",
    "state",
    "timers",
    "http-requests",
    "http-at-once",
    "http-rate",
    "http-timeout",
    "http-time",
    "http-sent",
    "http-received",
];
const POLICY_KEYS: &[&str] = &["batch", "on-error"];
const BATCH_KEYS: &[&str] = &["rows", "bytes", "wait"];
const ON_ERROR_KEYS: &[&str] = &["retry", "then"];
const RETRY_KEYS: &[&str] = &["max", "backoff", "cap"];

/// What was read, as far as it could be, and every complaint.
pub(super) fn read<'a>(
    file: &'a str,
    text: &'a str,
    around: &'a Surroundings<'a>,
) -> (Option<(Spec, Broken)>, Reader<'a>) {
    let mut reader = Reader {
        file,
        source: text,
        around,
        diagnostics: Vec::new(),
    };
    let (root, errors) = yaml::parse(text);
    for error in errors {
        reader.yaml_error(error);
    }
    let Some(root) = root else {
        return (None, reader);
    };
    let mut parser = Parser {
        reader,
        broken: Broken::default(),
    };
    let spec = parser.spec(&root);
    let Parser { reader, broken } = parser;
    (spec.map(|s| (s, broken)), reader)
}

/// Names whose definitions have errors: a reference to them is not another error.
#[derive(Clone, Debug, Default)]
pub struct Broken {
    pub topics: Vec<String>,
    pub modules: Vec<String>,
    pub nodes: Vec<String>,
}

pub(super) struct Parser<'a> {
    pub reader: Reader<'a>,
    pub broken: Broken,
}

impl Parser<'_> {
    fn spec(&mut self, root: &Node) -> Option<Spec> {
        let top = Pos { line: 1, column: 1 };
        let fields = self.reader.fields(root, "a pipeline", top, SPEC_KEYS)?;
        let api_version = self.constant(&fields, "apiVersion", API_VERSION);
        let kind = self.constant(&fields, "kind", KIND);
        let metadata = match self.reader.required(&fields, "metadata") {
            Some(node) => self.metadata(node),
            None => None,
        };
        let topics = fields
            .get("topics")
            .map(|n| self.topics(n))
            .unwrap_or_default();
        let modules = fields
            .get("modules")
            .map(|n| self.modules(n))
            .unwrap_or_default();
        let policy = fields
            .get("policy")
            .map(|n| self.policy(n))
            .unwrap_or_default();
        let nodes = match self.reader.required(&fields, "nodes") {
            Some(node) => nodes::nodes(self, node),
            None => Table::default(),
        };
        Some(Spec {
            api_version: api_version.unwrap_or_default(),
            kind: kind.unwrap_or_default(),
            metadata: metadata.unwrap_or_default(),
            topics,
            modules,
            policy,
            nodes,
            file: self.reader.file.to_string(),
        })
    }

    fn constant(&mut self, fields: &Fields<'_>, key: &str, expected: &str) -> Option<String> {
        let node = self.reader.required(fields, key)?;
        let text = self.reader.text(node, &format!("`{key}`"))?;
        if text.value != expected {
            let message = format!("`{key}` is `{expected}` here, not `{}`", text.value);
            self.reader.error(text.at, message);
        }
        Some(text.value)
    }

    fn metadata(&mut self, node: &Node) -> Option<Metadata> {
        let fields = self
            .reader
            .fields(node, "`metadata`", node.at, METADATA_KEYS)?;
        let name = self.reader.required(&fields, "name");
        let name = name.and_then(|n| self.reader.text(n, "the pipeline's `name`"));
        if let Some(name) = &name
            && let Err(e) = pipeline_name_check(name)
        {
            self.reader.error(name.at, e.to_string());
        }
        let description = fields
            .get("description")
            .and_then(|n| self.reader.text(n, "`description`"));
        let mut labels = Vec::new();
        if let Some(node) = fields.get("labels") {
            for (key, value) in self.reader.table(node, "`labels`") {
                let name = At {
                    value: key.text.clone(),
                    at: key.at,
                };
                if let Some(text) = self.reader.text(value, &format!("label `{}`", key.text)) {
                    labels.push((name, text.value));
                }
            }
        }
        Some(Metadata {
            name: name?,
            description: description.map(|d| d.value),
            labels: Table(labels),
        })
    }

    fn topics(&mut self, node: &Node) -> Table<TopicDef> {
        let mut out = Vec::new();
        for (key, value) in self.reader.table(node, "`topics`") {
            let before = self.reader.diagnostics.len();
            if let Err(e) = topic_name_check(&key.text) {
                self.reader.error(key.at, e.to_string());
            }
            let what = format!("topic `{}`", key.text);
            let topic = if value.is_null() {
                Some(TopicDef::default())
            } else {
                self.topic(value, &what, key.at)
            };
            if self.reader.diagnostics.len() > before {
                self.broken.topics.push(key.text.clone());
            }
            if let Some(topic) = topic {
                if self.reader.diagnostics.len() == before
                    && let Err(e) = topic.to_spec().check()
                {
                    self.reader.error(key.at, format!("{what}: {e}"));
                }
                out.push((
                    At {
                        value: key.text.clone(),
                        at: key.at,
                    },
                    topic,
                ));
            }
        }
        Table(out)
    }

    fn topic(&mut self, node: &Node, what: &str, at: Pos) -> Option<TopicDef> {
        let fields = self.reader.fields(node, what, at, TOPIC_KEYS)?;
        let r = &mut self.reader;
        let of = |key: &str| format!("`{key}` of {what}");
        let partitions = fields
            .get("partitions")
            .and_then(|n| r.whole(n, &of("partitions")));
        let mut millis = |key| fields.get(key).and_then(|n| r.millis(n, &of(key)));
        let retention = millis("retention");
        let tombstone_retention = millis("tombstone-retention");
        let min_compaction_lag = millis("min-compaction-lag");
        let retention_bytes = fields
            .get("retention-bytes")
            .and_then(|n| r.size(n, &of("retention-bytes")));
        let compact = fields
            .get("compact")
            .and_then(|n| r.boolean(n, &of("compact")));
        let tier = fields.get("tier").and_then(|n| r.boolean(n, &of("tier")));
        let durability = fields.get("durability").and_then(|n| {
            self.choice(
                n,
                &of("durability"),
                &[("fsync", Durability::Fsync), ("memory", Durability::Memory)],
            )
        });
        let value = fields.get("value").and_then(|n| self.value(n, what));
        Some(TopicDef {
            partitions,
            value,
            retention: retention.map(|r| r.value),
            retention_bytes: retention_bytes.map(|r| r.value),
            durability,
            compact,
            tombstone_retention: tombstone_retention.map(|r| r.value),
            min_compaction_lag: min_compaction_lag.map(|r| r.value),
            tier,
        })
    }

    fn choice<T: Copy>(&mut self, node: &Node, what: &str, choices: &[(&str, T)]) -> Option<T> {
        let text = self.reader.text(node, what)?;
        let found = choices
            .iter()
            .find(|(name, _)| *name == text.value)
            .map(|(_, v)| *v);
        if found.is_none() {
            let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
            let hint = super::nearest::hint(&text.value, names.iter().copied());
            let listed = super::reader::listed(&names);
            let message = format!("{what} is one of {listed}, not `{}`", text.value);
            self.reader.error_hint(text.at, message, hint);
        }
        found
    }

    fn value(&mut self, node: &Node, what: &str) -> Option<Value> {
        const CODECS: &[(&str, PayloadCodec)] = &[
            ("raw", PayloadCodec::Raw),
            ("json", PayloadCodec::Json),
            ("csv", PayloadCodec::Csv),
            ("avro", PayloadCodec::Avro),
            ("columns", PayloadCodec::Columns),
        ];
        let what = format!("`value` of {what}");
        if !matches!(node.kind, Kind::Map(_)) {
            let codec = self.choice(node, &what, CODECS)?;
            return Some(Value {
                codec: At {
                    value: codec,
                    at: node.at,
                },
                schema: None,
                misfits: None,
            });
        }
        let fields = self.reader.fields(node, &what, node.at, VALUE_KEYS)?;
        let codec = self.reader.required(&fields, "codec")?;
        let value = self.choice(codec, &format!("`codec` of {what}"), CODECS)?;
        let schema = fields.get("schema").and_then(|n| self.schema(n));
        let misfits = fields
            .written("misfits")
            .and_then(|n| self.misfits(n, &what));
        Some(Value {
            codec: At {
                value,
                at: codec.at,
            },
            schema,
            misfits,
        })
    }

    fn misfits(&mut self, node: &Node, what: &str) -> Option<Misfits> {
        const CHOICES: &[(&str, Misfits)] = &[
            ("dead-letter", Misfits::DeadLetter),
            ("nulls", Misfits::Nulls),
        ];
        let what = format!("`misfits` of {what}");
        if node.is_null() {
            // `null` is YAML's word for nothing, which would be the default
            let message = format!("{what} is one of `dead-letter` and `nulls`, not null");
            let hint = "did you mean `nulls`?".to_string();
            self.reader.error_hint(node.at, message, Some(hint));
            return None;
        }
        self.choice(node, &what, CHOICES)
    }

    /// A schema in the file itself, or the name of a JSON file that holds one.
    pub fn schema(&mut self, node: &Node) -> Option<At<FieldSchema>> {
        let mut json = self.reader.json(node);
        let mut file = None;
        if let Json::String(name) = &json {
            let read = (self.reader.around.read)(name);
            let parsed = read.and_then(|text| Ok((parse_schema_file(&text)?, text)));
            match parsed {
                Ok((value, text)) => {
                    file = Some((name.clone(), text));
                    json = value;
                }
                Err(e) => {
                    self.reader
                        .error(node.at, format!("schema file `{name}`: {e}"));
                    return None;
                }
            }
        }
        match FieldSchema::from_json(&json) {
            Ok(schema) => Some(At {
                value: schema,
                at: node.at,
            }),
            Err(e) => {
                let message = match file {
                    None => e.to_string(),
                    Some((name, text)) => {
                        let (line, column) = e.place(&text);
                        format!("schema file `{name}:{line}:{column}`: {e}")
                    }
                };
                self.reader.error(node.at, message);
                None
            }
        }
    }

    fn modules(&mut self, node: &Node) -> Table<ModuleDef> {
        let mut out = Vec::new();
        for (key, value) in self.reader.table(node, "`modules`") {
            let before = self.reader.diagnostics.len();
            let name = self.reader.name(key, "module", false);
            let module = self.module(value, &format!("module `{}`", key.text), key.at);
            if self.reader.diagnostics.len() > before {
                self.broken.modules.push(key.text.clone());
            }
            if let (Some(name), Some(module)) = (name, module) {
                out.push((name, module));
            }
        }
        Table(out)
    }

    fn module(&mut self, node: &Node, what: &str, at: Pos) -> Option<ModuleDef> {
        let fields = self.reader.fields(node, what, at, MODULE_KEYS)?;
        let source = self.reader.required(&fields, "source");
        let source = source.and_then(|n| self.module_source(n, what));
        let grants = fields.get("grants").and_then(|n| grants(self, n, what));
        let limits = fields
            .get("limits")
            .and_then(|n| self.limits(n, what))
            .unwrap_or_default();
        Some(ModuleDef {
            source: source?,
            grants: grants.unwrap_or_default(),
            limits,
        })
    }

    fn module_source(&mut self, node: &Node, what: &str) -> Option<At<ModuleSource>> {
        let text = self.reader.text(node, &format!("`source` of {what}"))?;
        let at = text.at;
        let value = if text.starts_with("sha256:") {
            match text.parse::<Digest>() {
                Ok(digest) => ModuleSource::Digest(digest),
                Err(e) => {
                    self.reader.error(at, e.to_string());
                    return None;
                }
            }
        } else if text.is_empty() {
            let message = format!("`source` of {what} is empty");
            let hint = "a folder, a .wasm file or sha256:DIGEST".to_string();
            self.reader.error_hint(at, message, Some(hint));
            return None;
        } else if text.ends_with(".wasm") {
            ModuleSource::File(text.value)
        } else {
            ModuleSource::Folder(text.value)
        };
        Some(At { value, at })
    }

    fn limits(&mut self, node: &Node, what: &str) -> Option<ModuleLimits> {
        let fields =
            self.reader
                .fields(node, format!("`limits` of {what}"), node.at, LIMIT_KEYS)?;
        let caps = Limits::CAPS;
        let mut size = |key: &str, cap: usize| {
            let found = self.reader.size(fields.get(key)?, &format!("`{key}`"))?;
            self.capped(
                found,
                what,
                key,
                |size| size.0,
                (cap as u64, &size_text(cap)),
            )
        };
        let memory = size("memory", caps.memory_bytes);
        let output = size("output", caps.output_bytes_max);
        let log = size("log", caps.log_bytes_per_s as usize);
        let state = size("state", caps.state_bytes);
        let http_sent = size("http-sent", caps.http_sent_bytes);
        let http_received = size("http-received", caps.http_received_bytes);
        let mut time = |key: &str, cap: u64| {
            let found = self.reader.millis(fields.get(key)?, &format!("`{key}`"))?;
            self.capped(found, what, key, |time| time.0, (cap, &format!("{cap}ms")))
        };
        let deadline = time("deadline", caps.deadline_ms);
        let open_deadline = time("open-deadline", caps.open_deadline_ms);
        let http_timeout = time("http-timeout", caps.http_timeout_ms);
        let http_time = time("http-time", caps.http_time_ms);
        let mut number = |key: &str, cap: usize| {
            let found: At<u32> = self.reader.whole(fields.get(key)?, &format!("`{key}`"))?;
            let cap = cap as u64;
            self.capped(found, what, key, |n| u64::from(*n), (cap, &cap.to_string()))
        };
        Some(ModuleLimits {
            memory,
            deadline,
            open_deadline,
            output,
            log,
            output_ratio: number("output-ratio", caps.output_ratio_max),
            metrics: number("metrics", caps.metrics),
            table_elements: number("table-elements", caps.table_elements),
            timers: number("timers", caps.timers),
            http_requests: number("http-requests", caps.http_requests),
            http_at_once: number("http-at-once", caps.http_at_once),
            http_rate: number("http-rate", caps.http_per_s as usize),
            http_timeout,
            http_time,
            http_sent,
            http_received,
            state,
        })
    }

    /// A limit that is above 0 and not above its cap.
    pub fn capped<T>(
        &mut self,
        found: At<T>,
        what: &str,
        key: &str,
        number: impl Fn(&T) -> u64,
        (cap, text): (u64, &str),
    ) -> Option<At<T>> {
        let wanted = number(&found.value);
        let message = match wanted {
            0 => format!("a limit of {what} must be more than 0"),
            _ if wanted > cap => format!("`{key}` of {what} is at most {text}"),
            _ => return Some(found),
        };
        self.reader.error(found.at, message);
        None
    }

    fn policy(&mut self, node: &Node) -> Policy {
        let fields = self.reader.fields(node, "`policy`", node.at, POLICY_KEYS);
        let Some(fields) = fields else {
            return Policy::default();
        };
        let batch = fields
            .get("batch")
            .and_then(|n| self.batch(n))
            .unwrap_or_default();
        let on_error = fields
            .get("on-error")
            .and_then(|n| self.on_error(n))
            .unwrap_or_default();
        Policy { batch, on_error }
    }

    fn batch(&mut self, node: &Node) -> Option<BatchPolicy> {
        let fields = self.reader.fields(node, "`batch`", node.at, BATCH_KEYS)?;
        let r = &mut self.reader;
        let rows: Option<At<u32>> = fields.get("rows").and_then(|n| r.whole(n, "`rows`"));
        let bytes = fields.get("bytes").and_then(|n| r.size(n, "`bytes`"));
        let wait = fields.get("wait").and_then(|n| r.millis(n, "`wait`"));
        if let Some(rows) = rows
            .as_ref()
            .filter(|n| !(1..=BATCH_ROWS_MAX).contains(&n.value))
        {
            r.error(
                rows.at,
                format!("`rows` is 1 to {BATCH_ROWS_MAX}, not {}", rows.value),
            );
        }
        if let Some(bytes) = bytes
            .as_ref()
            .filter(|n| !(1..=BATCH_BYTES_MAX).contains(&n.0))
        {
            let most = BATCH_BYTES_MAX >> 20;
            r.error(
                bytes.at,
                format!("`bytes` is 1B to {most}MiB, not {} bytes", bytes.0),
            );
        }
        if let Some(wait) = wait.as_ref().filter(|n| n.0 > BATCH_WAIT_MS_MAX) {
            let most = BATCH_WAIT_MS_MAX / 1_000;
            r.error(
                wait.at,
                format!("`wait` is at most {most}s, not {}ms", wait.0),
            );
        }
        Some(BatchPolicy { rows, bytes, wait })
    }

    pub fn on_error(&mut self, node: &Node) -> Option<OnError> {
        let fields = self
            .reader
            .fields(node, "`on-error`", node.at, ON_ERROR_KEYS)?;
        let retry = fields.get("retry").and_then(|n| self.retry(n));
        let then = fields.get("then").and_then(|n| self.then(n));
        Some(OnError { retry, then })
    }

    fn retry(&mut self, node: &Node) -> Option<Retry> {
        let fields = self.reader.fields(node, "`retry`", node.at, RETRY_KEYS)?;
        let r = &mut self.reader;
        let max: Option<At<u32>> = fields.get("max").and_then(|n| r.whole(n, "`max`"));
        let backoff = fields.get("backoff").and_then(|n| r.millis(n, "`backoff`"));
        let cap = fields.get("cap").and_then(|n| r.millis(n, "`cap`"));
        if let Some(max) = max.as_ref().filter(|n| n.value > RETRY_MAX) {
            r.error(
                max.at,
                format!("`max` is at most {RETRY_MAX}, not {}", max.value),
            );
        }
        let millis = |m: Option<At<super::types::Millis>>| m.map(|m| m.value);
        Some(Retry {
            max: max.map(|m| m.value),
            backoff: millis(backoff),
            cap: millis(cap),
        })
    }

    fn then(&mut self, node: &Node) -> Option<Then> {
        if !matches!(node.kind, Kind::Map(_)) {
            let choices: &[(&str, bool)] = &[("stop", false), ("drop", true)];
            let what = "`then` (or `{ dead-letter: TOPIC }`)";
            return match self.choice(node, what, choices)? {
                true => Some(Then::Drop),
                false => Some(Then::Stop),
            };
        }
        let fields = self
            .reader
            .fields(node, "`then`", node.at, &["dead-letter"])?;
        let topic = self.reader.required(&fields, "dead-letter")?;
        Some(Then::DeadLetter(self.reader.text(topic, "`dead-letter`")?))
    }
}

fn parse_schema_file(text: &str) -> Result<Json, String> {
    if text.len() > SCHEMA_BYTES_MAX {
        return Err(format!(
            "larger than the {SCHEMA_BYTES_MAX} bytes a schema file may have"
        ));
    }
    serde_json::from_str(text).map_err(|e| format!("not JSON: {e}"))
}

/// A size in whole MiB, as a file says it.
fn size_text(bytes: usize) -> String {
    format!("{}MiB", bytes >> 20)
}
