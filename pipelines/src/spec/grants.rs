//! The `grants` of a module: what it may do beyond its rows, as types and how they are read.
//!
//! Called by: `spec::parse`. Invariants as there. What the server lets grants name (its networks, its
//! secrets) is checked on `apply`.

use std::borrow::Cow;
use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use wasm::http::address::Network;
use wasm::http::grant::{HeaderValue, Host, Rule, Scheme};
use wasm::http::request::{header_name, is_value};

use super::nearest;
use super::parse::Parser;
use super::reader::{Fields, listed};
use super::types::At;
use super::yaml::{Key, Kind, Node as Yaml};
use crate::limits::HTTP_RULES_MAX;

pub(super) const GRANT_KEYS: &[&str] = &["http", "clock", "random"];
pub(super) const HTTP_KEYS: &[&str] = &[
    "host", "port", "scheme", "methods", "private", "networks", "headers",
];
const SECRET_KEYS: &[&str] = &["secret", "prefix"];
const SCHEMES: &[&str] = &["https", "http"];
const METHODS: &[&str] = &["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
/// What they hold is nobody's to read, and a pipeline's file is everybody's.
const SECRET_HEADERS: &[&str] = &["authorization", "cookie", "x-api-key"];

/// What a module may do beyond its rows: nothing that is not here.
#[derive(Clone, Debug, Default, PartialEq, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Grants {
    /// Requests to these hosts.
    #[serde(default)]
    #[schemars(with = "Option<Vec<HttpGrant>>")]
    pub http: Option<Vec<At<Rule>>>,
    /// The machine's clocks, instead of those of the batch: its latest event time.
    #[serde(default)]
    pub clock: bool,
    /// The system's randomness, instead of the same numbers for the same batch.
    #[serde(default)]
    pub random: bool,
}

impl Grants {
    /// What of it is the machine's time and chance; the node's name says whose chance it is.
    pub fn ambient(&self, node: String) -> wasm::Ambient {
        wasm::Ambient {
            clock: self.clock,
            random: self.random,
            node,
        }
    }

    /// What of it the module's imports are checked against.
    pub fn names(&self) -> wasm::Grants {
        match self.http {
            Some(_) => wasm::Grants::http(),
            None => wasm::Grants::default(),
        }
    }
}

/// A host that a module may send requests to.
#[derive(JsonSchema)]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "only its JSON Schema is used")]
struct HttpGrant {
    /// A name, an address, or `*.example.com` for all below.
    host: String,
    /// 443 for https, 80 for http.
    #[serde(default)]
    #[schemars(with = "Option<u16>", range(min = 1))]
    port: Option<u16>,
    /// `https`, if it is not said.
    #[serde(default)]
    scheme: Option<SchemeDoc>,
    /// `GET` and `HEAD`, if it is not said.
    #[serde(default)]
    methods: Option<Vec<String>>,
    /// Whether its addresses may be private: loopback, RFC 1918, unique local, carrier-grade NAT. The server
    /// must allow it too: `modules.http_networks`.
    #[serde(default)]
    private: Option<bool>,
    /// Networks that are not public and that its addresses may be in, such as 10.1.0.0/16.
    #[serde(default)]
    networks: Option<Vec<String>>,
    /// Headers that the server puts in, which the module does not see.
    #[serde(default)]
    headers: Option<BTreeMap<String, HeaderDoc>>,
}

#[derive(JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(rename = "Scheme")]
#[allow(dead_code, reason = "only its JSON Schema is used")]
enum SchemeDoc {
    Https,
    Http,
}

struct HeaderDoc;

impl JsonSchema for HeaderDoc {
    fn schema_name() -> Cow<'static, str> {
        "Header".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "text, or the name of a secret of the server's configuration",
            "anyOf": [
                { "type": "string" },
                {
                    "type": "object",
                    "properties": {
                        "secret": { "type": "string" },
                        "prefix": { "type": "string" }
                    },
                    "required": ["secret"],
                    "additionalProperties": false
                }
            ]
        })
    }
}

pub(super) fn grants(p: &mut Parser<'_>, node: &Yaml, what: &str) -> Option<Grants> {
    let fields = p
        .reader
        .fields(node, format!("`grants` of {what}"), node.at, GRANT_KEYS)?;
    let http = match fields.get("http") {
        Some(node) => Some(rules(p, node, what)?),
        None => None,
    };
    let mut flag = |name: &str| match fields.get(name) {
        Some(node) => p.reader.boolean(node, &format!("`{name}`")),
        None => Some(false),
    };
    Some(Grants {
        clock: flag("clock")?,
        random: flag("random")?,
        http,
    })
}

fn rules(p: &mut Parser<'_>, node: &Yaml, what: &str) -> Option<Vec<At<Rule>>> {
    let items = p
        .reader
        .list(node, &format!("`http` in the grants of {what}"))?;
    if items.len() > HTTP_RULES_MAX {
        let message = format!("a module is granted at most {HTTP_RULES_MAX} hosts");
        p.reader.error(node.at, message);
        return None;
    }
    let rule = |item: &Yaml| {
        let value = rule(p, item, what)?;
        Some(At { value, at: item.at })
    };
    Some(items.iter().filter_map(rule).collect())
}

fn rule(p: &mut Parser<'_>, node: &Yaml, what: &str) -> Option<Rule> {
    let fields = p
        .reader
        .fields(node, format!("a grant of {what}"), node.at, HTTP_KEYS)?;
    let host = p.reader.required(&fields, "host")?;
    let host = p.reader.text(host, "`host`")?;
    let host = match Host::parse(&host) {
        Ok(parsed) => parsed,
        Err(why) => {
            p.reader.error(host.at, why);
            return None;
        }
    };
    let mut rule = Rule::new(host);
    if let Some(scheme) = fields.get("scheme") {
        rule.scheme = scheme_of(p, scheme)?;
        rule.port = rule.scheme.port();
    }
    if let Some(node) = fields.get("port") {
        rule.port = port(p, node)?;
    }
    if let Some(node) = fields.get("methods") {
        rule.methods = methods(p, node)?;
    }
    if let Some(node) = fields.get("private") {
        rule.reach.private = p.reader.boolean(node, "`private`")?;
    }
    rule.reach.networks.extend(networks(p, &fields)?);
    rule.headers = headers(p, &fields)?;
    Some(rule)
}

fn port(p: &mut Parser<'_>, node: &Yaml) -> Option<u16> {
    let port: At<u64> = p.reader.whole(node, "`port`")?;
    match u16::try_from(port.value) {
        Ok(port) if port > 0 => Some(port),
        _ => {
            let message = format!("`port` is 1 to 65535, not {}", port.value);
            p.reader.error(node.at, message);
            None
        }
    }
}

fn scheme_of(p: &mut Parser<'_>, node: &Yaml) -> Option<Scheme> {
    let text = p.reader.text(node, "`scheme`")?;
    match text.as_str() {
        "https" => Some(Scheme::Https),
        "http" => Some(Scheme::Http),
        other => {
            let hint = nearest::hint(other, SCHEMES.iter().copied());
            let message = format!("`scheme` is `https` or `http`, not `{other}`");
            p.reader.error_hint(node.at, message, hint);
            None
        }
    }
}

fn methods(p: &mut Parser<'_>, node: &Yaml) -> Option<Vec<String>> {
    let items = p.reader.list(node, "`methods`")?;
    let mut methods = Vec::new();
    for item in items {
        let method = p.reader.text(item, "a method")?;
        if !METHODS.contains(&method.as_str()) {
            let message = format!("`{}` is not a method that can be granted", method.value);
            let upper = method.to_ascii_uppercase();
            let hint = nearest::hint(&upper, METHODS.iter().copied());
            let hint = hint.unwrap_or_else(|| format!("the methods are {}", listed(METHODS)));
            p.reader.error_hint(item.at, message, Some(hint));
            return None;
        }
        methods.push(method.value);
    }
    if methods.is_empty() {
        p.reader
            .error(node.at, "`methods` is empty: nothing would be granted");
        return None;
    }
    Some(methods)
}

fn networks(p: &mut Parser<'_>, fields: &Fields<'_>) -> Option<Vec<Network>> {
    let Some(node) = fields.get("networks") else {
        return Some(Vec::new());
    };
    let mut networks = Vec::new();
    for item in p.reader.list(node, "`networks`")? {
        let text = p.reader.text(item, "a network")?;
        match text.parse() {
            Ok(network) => networks.push(network),
            Err(why) => p.reader.error(item.at, why),
        }
    }
    Some(networks)
}

fn headers(p: &mut Parser<'_>, fields: &Fields<'_>) -> Option<Vec<(String, HeaderValue)>> {
    let Some(node) = fields.get("headers") else {
        return Some(Vec::new());
    };
    let mut headers = Vec::new();
    for (key, value) in p.reader.table(node, "`headers`") {
        let name = match header_name(&key.text) {
            Ok(name) => name,
            Err(why) => {
                p.reader.error(key.at, why);
                continue;
            }
        };
        if headers.iter().any(|(known, _)| *known == name) {
            p.reader
                .error(key.at, format!("the header `{name}` is here twice"));
        }
        if let Some(value) = header(p, key, &name, value) {
            headers.push((name, value));
        }
    }
    Some(headers)
}

fn header(p: &mut Parser<'_>, key: &Key, name: &str, node: &Yaml) -> Option<HeaderValue> {
    if let Kind::Scalar(_) = &node.kind {
        let text = p.reader.text(node, &format!("the header `{name}`"))?;
        if SECRET_HEADERS.contains(&name) {
            let message =
                format!("the header `{name}` would stand in the pipeline for all to read");
            let hint = format!(
                "name a secret of the server's configuration: `{name}: {{ secret: NAME }}`"
            );
            p.reader.error_hint(node.at, message, Some(hint));
            return None;
        }
        return plain(p, node, text.value).map(HeaderValue::Text);
    }
    let what = format!("the header `{name}`");
    let fields = p.reader.fields(node, what, key.at, SECRET_KEYS)?;
    let secret = p.reader.required(&fields, "secret")?;
    let secret = p.reader.text(secret, "`secret`")?;
    let prefix = match fields.get("prefix") {
        Some(node) => {
            let text = p.reader.text(node, "`prefix`")?;
            plain(p, node, text.value)?
        }
        None => String::new(),
    };
    Some(HeaderValue::Secret {
        name: secret.value,
        prefix,
    })
}

fn plain(p: &mut Parser<'_>, node: &Yaml, text: String) -> Option<String> {
    if is_value(&text) {
        return Some(text);
    }
    p.reader.error(
        node.at,
        "a header's value is one line, without control characters",
    );
    None
}
