//! Reads `nodes`: one function per kind.
//!
//! Called by: `spec::parse`. Invariants as there. What a node refers to is checked by `lint`;
//! here only its own keys and values are. Refuses kinds that are planned but not built, by name.

use chrono::DateTime;

use super::nearest;
use super::parse::Parser;
use super::reader::{Fields, listed};
use super::types::{
    At, Expression, Filter, InputRef, LookupDef, Map, Node, OUT, OutputSchema, Route, Sink, Source,
    Start, Table, Wasm,
};
use super::yaml::{Key, Kind, Node as Yaml, Pos};
use crate::limits::{LOOKUP_BYTES_MAX, LOOKUPS_MAX, NODES_MAX, PORTS_MAX};

pub(super) const KINDS: &[(&str, &[&str])] = &[
    ("source", &["kind", "topic", "start", "on-error"]),
    ("sink", &["kind", "inputs", "topic", "key", "on-error"]),
    (
        "wasm",
        &[
            "kind", "module", "inputs", "outputs", "params", "lateness", "lookups", "on-error",
        ],
    ),
    ("filter", &["kind", "inputs", "where", "on-error"]),
    ("map", &["kind", "inputs", "select", "key", "on-error"]),
    ("route", &["kind", "inputs", "cases", "else", "on-error"]),
];
const LATER_KINDS: &[&str] = &["merge", "dedupe", "lookup", "window", "join"];

pub(super) fn nodes(parser: &mut Parser<'_>, node: &Yaml) -> Table<Node> {
    let entries = parser.reader.table(node, "`nodes`");
    let mut out = Vec::new();
    if entries.len() > NODES_MAX {
        parser
            .reader
            .error(node.at, format!("a pipeline has at most {NODES_MAX} nodes"));
        return Table(out);
    }
    if entries.is_empty() && matches!(node.kind, Kind::Map(_)) {
        parser
            .reader
            .error(node.at, "a pipeline needs at least a source and a sink");
    }
    for (key, value) in entries {
        let before = parser.reader.diagnostics.len();
        let name = parser.reader.name(key, "node", false);
        let read = one(parser, key, value);
        let failed = parser.reader.diagnostics.len() > before;
        match (name, read) {
            (Some(name), Some(node)) => {
                if failed {
                    parser.broken.nodes.push(key.text.clone());
                }
                out.push((name, node));
            }
            _ => parser.broken.nodes.push(key.text.clone()),
        }
    }
    Table(out)
}

fn one(p: &mut Parser<'_>, key: &Key, node: &Yaml) -> Option<Node> {
    let what = format!("node `{}`", key.text);
    let kinds: Vec<&str> = KINDS.iter().map(|(k, _)| *k).collect();
    let Kind::Map(entries) = &node.kind else {
        let message = format!("{what} is a mapping with a `kind`, not {}", node.describe());
        p.reader.error(node.at, message);
        return None;
    };
    let Some((_, kind)) = entries.iter().find(|(k, _)| k.text == "kind") else {
        let message = format!("{what} needs the key `kind`: one of {}", listed(&kinds));
        p.reader.error(key.at, message);
        return None;
    };
    let kind = p.reader.text(kind, &format!("`kind` of {what}"))?;
    let Some((_, allowed)) = KINDS.iter().find(|(k, _)| *k == kind.value) else {
        let name = &kind.value;
        if LATER_KINDS.contains(&name.as_str()) {
            let message = format!("kind `{name}` is not built yet");
            let hint = format!(
                "the kinds are {}; later kinds: merge, dedupe, lookup, window, join are not built yet",
                listed(&kinds)
            );
            p.reader.error_hint(kind.at, message, Some(hint));
        } else {
            let hint = nearest::hint(name, kinds.iter().copied()).unwrap_or_else(|| {
                format!(
                    "the kinds are {}; later kinds: merge, dedupe, lookup, window, join are not \
                     built yet",
                    listed(&kinds)
                )
            });
            p.reader
                .error_hint(kind.at, format!("unknown kind `{name}`"), Some(hint));
        }
        return None;
    };
    let what = format!("{} `{}`", kind.value, key.text);
    let fields = p.reader.fields(node, what, key.at, allowed)?;
    match kind.value.as_str() {
        "source" => source(p, &fields).map(Node::Source),
        "sink" => sink(p, &fields).map(Node::Sink),
        "wasm" => wasm(p, &fields).map(Node::Wasm),
        "filter" => filter(p, &fields).map(Node::Filter),
        "map" => map(p, &fields).map(Node::Map),
        _ => route(p, &fields).map(Node::Route),
    }
}

fn required_text(p: &mut Parser<'_>, fields: &Fields<'_>, key: &str) -> Option<At<String>> {
    let node = p.reader.required(fields, key)?;
    p.reader.text(node, &format!("`{key}` of {}", fields.what))
}

fn required_expression(p: &mut Parser<'_>, fields: &Fields<'_>, key: &str) -> Option<Expression> {
    let node = p.reader.required(fields, key)?;
    p.reader
        .expression(node, &format!("`{key}` of {}", fields.what))
}

fn expression(p: &mut Parser<'_>, fields: &Fields<'_>, key: &str) -> Option<Expression> {
    let node = fields.get(key)?;
    p.reader
        .expression(node, &format!("`{key}` of {}", fields.what))
}

fn inputs(p: &mut Parser<'_>, fields: &Fields<'_>) -> Option<Vec<At<InputRef>>> {
    let node = p.reader.required(fields, "inputs")?;
    let items = p
        .reader
        .list(node, &format!("`inputs` of {}", fields.what))?;
    if items.is_empty() {
        p.reader
            .error(node.at, format!("`inputs` of {} is empty", fields.what));
    }
    let mut out: Vec<At<InputRef>> = Vec::new();
    for item in items {
        let Some(text) = p.reader.text(item, &format!("an input of {}", fields.what)) else {
            continue;
        };
        let (node, port) = text.split_once('.').unwrap_or((&text.value, OUT));
        let input = InputRef {
            node: node.to_string(),
            port: port.to_string(),
        };
        if out.iter().any(|known| known.value == input) {
            p.reader.error(
                text.at,
                format!("input `{input}` of {} is here twice", fields.what),
            );
        }
        out.push(At {
            value: input,
            at: text.at,
        });
    }
    Some(out)
}

fn on_error(p: &mut Parser<'_>, fields: &Fields<'_>) -> Option<super::types::OnError> {
    p.on_error(fields.get("on-error")?)
}

fn source(p: &mut Parser<'_>, fields: &Fields<'_>) -> Option<Source> {
    let topic = required_text(p, fields, "topic");
    let start = required_text(p, fields, "start");
    let start = start.and_then(|text| {
        let value = match text.as_str() {
            "earliest" => Some(Start::Earliest),
            "latest" => Some(Start::Latest),
            time => DateTime::parse_from_rfc3339(time)
                .ok()
                .map(|t| Start::Time(t.timestamp_micros())),
        };
        if value.is_none() {
            let message = format!(
                "`start` is `earliest`, `latest` or a time such as 2013-01-01T00:00:00Z, not `{}`",
                text.value
            );
            let hint = nearest::hint(&text, ["earliest", "latest"]);
            p.reader.error_hint(text.at, message, hint);
        }
        Some(At {
            value: value?,
            at: text.at,
        })
    });
    let on_error = on_error(p, fields);
    Some(Source {
        topic: topic?,
        start: start?,
        on_error,
    })
}

fn sink(p: &mut Parser<'_>, fields: &Fields<'_>) -> Option<Sink> {
    let inputs = inputs(p, fields);
    let topic = required_text(p, fields, "topic");
    let key = expression(p, fields, "key");
    let on_error = on_error(p, fields);
    Some(Sink {
        inputs: inputs?,
        topic: topic?,
        key,
        on_error,
    })
}

fn wasm(p: &mut Parser<'_>, fields: &Fields<'_>) -> Option<Wasm> {
    let module = required_text(p, fields, "module");
    let inputs = inputs(p, fields);
    let outputs = match fields.get("outputs") {
        Some(node) => outputs(p, fields, node),
        None => Some(Table(vec![(
            At {
                value: OUT.to_string(),
                at: fields.at,
            },
            None,
        )])),
    };
    let params = match fields.get("params") {
        Some(node) => p.reader.json(node),
        None => serde_json::json!({}),
    };
    let lateness = fields.get("lateness");
    let lateness = lateness.and_then(|node| p.reader.millis(node, "`lateness`"));
    let lookups = fields.get("lookups");
    let lookups = lookups.map(|node| lookups_of(p, fields, node));
    let on_error = on_error(p, fields);
    Some(Wasm {
        module: module?,
        inputs: inputs?,
        outputs: outputs?,
        params,
        lateness,
        lookups: lookups.unwrap_or_default(),
        on_error,
    })
}

fn lookups_of(p: &mut Parser<'_>, fields: &Fields<'_>, node: &Yaml) -> Table<LookupDef> {
    let what = format!("`lookups` of {}", fields.what);
    let entries = p.reader.table(node, &what);
    if entries.len() > LOOKUPS_MAX {
        let count = entries.len();
        let message = format!("{what} has at most {LOOKUPS_MAX} entries, not {count}");
        p.reader.error(node.at, message);
    }
    let mut out = Vec::new();
    for (key, value) in entries.iter().take(LOOKUPS_MAX) {
        let name = p.reader.name(key, "table", false);
        let table = lookup(p, key, value);
        out.extend(name.zip(table));
    }
    Table(out)
}

/// A topic's name, or a mapping with it.
fn lookup(p: &mut Parser<'_>, key: &Key, value: &Yaml) -> Option<LookupDef> {
    let what = format!("lookup `{}`", key.text);
    if !matches!(value.kind, Kind::Map(_)) {
        let topic = p.reader.text(value, &format!("{what} (a topic)"))?;
        return Some(LookupDef { topic, limit: None });
    }
    let fields = p
        .reader
        .fields(value, what.clone(), key.at, &["topic", "limit"])?;
    let topic = required_text(p, &fields, "topic");
    let limit = fields.get("limit").and_then(|node| {
        let size = p.reader.size(node, &format!("`limit` of {what}"))?;
        let cap = format!("{}GiB", LOOKUP_BYTES_MAX >> 30);
        p.capped(
            size,
            &what,
            "limit",
            |size| size.0,
            (LOOKUP_BYTES_MAX, &cap),
        )
    });
    Some(LookupDef {
        topic: topic?,
        limit,
    })
}

fn outputs(
    p: &mut Parser<'_>,
    fields: &Fields<'_>,
    node: &Yaml,
) -> Option<Table<Option<At<OutputSchema>>>> {
    let what = format!("`outputs` of {}", fields.what);
    let mut out: Vec<(At<String>, Option<At<OutputSchema>>)> = Vec::new();
    match &node.kind {
        Kind::List(items) => {
            for item in items {
                let Some(text) = p
                    .reader
                    .text(item, &format!("an output of {}", fields.what))
                else {
                    continue;
                };
                let key = Key {
                    text: text.value,
                    at: text.at,
                };
                if out.iter().any(|(known, _)| known.value == key.text) {
                    p.reader
                        .error(key.at, format!("output `{}` is here twice", key.text));
                }
                out.extend(
                    p.reader
                        .name(&key, "output", false)
                        .map(|name| (name, None)),
                );
            }
        }
        Kind::Map(entries) => {
            for (key, value) in entries {
                let Some(name) = p.reader.name(key, "output", false) else {
                    continue;
                };
                out.push((name, output_schema(p, key, value)));
            }
        }
        _ => {
            let message = format!(
                "{what} is a list of names or a mapping of names to schemas, not {}",
                node.describe()
            );
            p.reader.error(node.at, message);
            return None;
        }
    }
    ports(p, node.at, &what, out.len())?;
    Some(Table(out))
}

fn ports(p: &mut Parser<'_>, at: Pos, what: &str, count: usize) -> Option<()> {
    if count == 0 || count > PORTS_MAX {
        p.reader.error(
            at,
            format!("{what} has 1 to {PORTS_MAX} entries, not {count}"),
        );
        return None;
    }
    Some(())
}

fn output_schema(p: &mut Parser<'_>, key: &Key, value: &Yaml) -> Option<At<OutputSchema>> {
    if value.is_null() {
        return None;
    }
    let what = format!("output `{}`", key.text);
    let fields = p.reader.fields(value, what, key.at, &["schema"])?;
    let node = fields.get("schema")?;
    if matches!(node.kind, Kind::Scalar(_)) {
        let topic = p
            .reader
            .text(node, "`schema` of an output (a topic or fields)")?;
        return Some(At {
            value: OutputSchema::Topic(topic.value),
            at: topic.at,
        });
    }
    let schema = p.schema(node)?;
    Some(At {
        value: OutputSchema::Fields(schema.value),
        at: schema.at,
    })
}

fn filter(p: &mut Parser<'_>, fields: &Fields<'_>) -> Option<Filter> {
    let inputs = inputs(p, fields);
    let condition = required_expression(p, fields, "where");
    let on_error = on_error(p, fields);
    Some(Filter {
        inputs: inputs?,
        condition: condition?,
        on_error,
    })
}

fn map(p: &mut Parser<'_>, fields: &Fields<'_>) -> Option<Map> {
    let inputs = inputs(p, fields);
    let select = p.reader.required(fields, "select");
    let select = select.and_then(|node| {
        let what = format!("`select` of {}", fields.what);
        let entries = p.reader.table(node, &what);
        let table = expressions(p, entries, "column")?;
        if matches!(node.kind, Kind::Map(_)) {
            ports(p, node.at, &what, entries.len())?;
        }
        for (name, _) in table.iter() {
            if name.starts_with('_') {
                let message = format!("column `{}` starts with `_`", name.value);
                let hint = "such names are the platform's, choose another".to_string();
                p.reader.error_hint(name.at, message, Some(hint));
            }
        }
        Some(table)
    });
    let key = expression(p, fields, "key");
    let on_error = on_error(p, fields);
    Some(Map {
        inputs: inputs?,
        select: select?,
        key,
        on_error,
    })
}

fn expressions(p: &mut Parser<'_>, entries: &[(Key, Yaml)], of: &str) -> Option<Table<Expression>> {
    let mut out = Vec::new();
    let before = p.reader.diagnostics.len();
    for (key, value) in entries {
        let name = p.reader.name(key, of, false);
        let expression = p.reader.expression(value, &format!("{of} `{}`", key.text));
        if let (Some(name), Some(expression)) = (name, expression) {
            out.push((name, expression));
        }
    }
    (p.reader.diagnostics.len() == before).then_some(Table(out))
}

fn route(p: &mut Parser<'_>, fields: &Fields<'_>) -> Option<Route> {
    let inputs = inputs(p, fields);
    let cases = p.reader.required(fields, "cases");
    let cases = cases.and_then(|node| {
        let what = format!("`cases` of {}", fields.what);
        let entries = p.reader.table(node, &what);
        if matches!(node.kind, Kind::Map(_)) {
            ports(p, node.at, &what, entries.len())?;
        }
        expressions(p, entries, "case")
    });
    let otherwise = required_text(p, fields, "else");
    let otherwise = otherwise.and_then(|text| {
        let key = Key {
            text: text.value,
            at: text.at,
        };
        p.reader.name(&key, "port", false)
    });
    if let (Some(cases), Some(otherwise)) = (&cases, &otherwise)
        && cases.get(otherwise).is_some()
    {
        let message = format!("`else` has the name of the case `{}`", otherwise.value);
        p.reader.error(otherwise.at, message);
    }
    let on_error = on_error(p, fields);
    Some(Route {
        inputs: inputs?,
        cases: cases?,
        otherwise: otherwise?,
        on_error,
    })
}
