//! Secrets of the server's configuration, which grants name and modules never see.
//!
//! Called by: `egress` (on `apply`, and for each request), `config` (reads them).
//! Invariants: a value is read when it is sent and kept nowhere; no message, log line or `Debug` has it;
//! a secret goes to the hosts that the configuration lists for it.
//! Refuses: names that are not there, other hosts, values that are no header, plain HTTP to what is public.

use std::collections::BTreeMap;
use std::path::PathBuf;

use wasm::http::grant::{HeaderValue, Host, Rule};
use wasm::http::request::is_value;
use wasm::http::{Failed, Trouble};

/// Where a secret's value is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A variable of the server's environment.
    Env(String),
    /// A file, without the line end after its last line.
    File(PathBuf),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Secret {
    pub source: Source,
    /// Where it may be sent.
    pub hosts: Vec<Host>,
}

/// By name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Secrets(pub BTreeMap<String, Secret>);

impl Secrets {
    /// The value, for a header.
    pub(super) fn value(&self, name: &str) -> Result<String, Failed> {
        let found = self.0.get(name).ok_or_else(|| "is not there".to_owned());
        found.and_then(Secret::read).map_err(|why| {
            tracing::warn!(secret = name, why, "a secret cannot be sent");
            let message = format!("the server's secret `{name}` cannot be sent; its log says why");
            Failed::new(Trouble::Other, message)
        })
    }

    /// Why the headers of a rule cannot be put in.
    pub(super) fn refuse(&self, rule: &Rule, plain: bool) -> Option<String> {
        rule.headers.iter().find_map(|(header, value)| match value {
            HeaderValue::Text(_) => None,
            HeaderValue::Secret { name, .. } => {
                let why = self.refuse_one(name, rule, plain)?;
                Some(format!("the header `{header}`: {why}"))
            }
        })
    }

    fn refuse_one(&self, name: &str, rule: &Rule, plain: bool) -> Option<String> {
        let Some(secret) = self.0.get(name) else {
            let known: Vec<&str> = self.0.keys().map(String::as_str).collect();
            let known = match known.is_empty() {
                true => "it has none".to_owned(),
                false => format!("it has {}", known.join(", ")),
            };
            return Some(format!(
                "the server's configuration has no secret `{name}` under [secrets]; {known}"
            ));
        };
        if !secret.hosts.iter().any(|host| rule.host.within(host)) {
            let hosts: Vec<String> = secret.hosts.iter().map(Host::to_string).collect();
            let hosts = hosts.join(", ");
            let host = &rule.host;
            return Some(format!(
                "the server's configuration lets the secret `{name}` go to {hosts}, not to {host}"
            ));
        }
        if plain {
            return Some(format!(
                "the secret `{name}` would go over the net in the clear: use https"
            ));
        }
        let why = secret.read().err()?;
        Some(format!("the server's secret `{name}` {why}"))
    }
}

impl Secret {
    fn read(&self) -> Result<String, String> {
        let text = match &self.source {
            Source::Env(name) => std::env::var(name)
                .map_err(|_| format!("cannot be read: the server's environment has no {name}"))?,
            Source::File(path) => std::fs::read_to_string(path)
                .map_err(|error| format!("cannot be read from {}: {error}", path.display()))?,
        };
        let text = text.strip_suffix('\n').unwrap_or(&text);
        let text = text.strip_suffix('\r').unwrap_or(text);
        match text.is_empty() || !is_value(text) {
            true => Err("is empty or has several lines: it cannot be a header".into()),
            false => Ok(text.to_owned()),
        }
    }
}
