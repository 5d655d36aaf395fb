//! The TOML file of `serve --config`: every key with its line and column.
//!
//! Called by: `config::load`. Calls: the `toml` parser, whose tree keeps the spans; `keys`, which
//! knows the keys and what they take.
//! Invariants: all complaints of a file are collected, each with its place.
//! Refuses: unknown sections and keys, and what `keys` refuses.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::Range;
use std::path::PathBuf;

use storage::StoreOptions;
use toml::Spanned;
use toml::de::{DeTable, DeValue};
use wasm::http::grant::Host;

use super::keys::{Given, KEYS, Key, Takes};
use super::{
    CacheConfig, CompactionConfig, LimitsConfig, ModulesConfig, StorageConfig, TierConfig,
};
use crate::egress::{Secret, Secrets, Source};

/// The section whose keys are names that the operator chooses.
const SECRETS: &str = "secrets";

/// What a file says; `None` where it is silent.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FileConfig {
    pub listen: Option<SocketAddr>,
    pub http: Option<SocketAddr>,
    pub data_dir: Option<PathBuf>,
    pub storage: StorageConfig,
    pub tier: TierConfig,
    pub compaction: CompactionConfig,
    pub cache: CacheConfig,
    pub limits: LimitsConfig,
    pub modules: ModulesConfig,
    pub secrets: Secrets,
}

impl FileConfig {
    /// All complaints as `FILE:LINE:COL: error: …`.
    pub fn parse(file: &str, text: &str) -> Result<FileConfig, Vec<String>> {
        let mut reader = Reader {
            file,
            text,
            complaints: Vec::new(),
        };
        let (root, errors) = DeTable::parse_recoverable(text);
        for error in errors {
            reader.complain(error.span().unwrap_or(0..0), error.message());
        }
        let mut config = FileConfig::default();
        reader.root(root.get_ref(), &mut config);
        if reader.complaints.is_empty() {
            return Ok(config);
        }
        // The tree has its keys in the order of the alphabet, a reader has the file's.
        reader.complaints.sort();
        Err(reader
            .complaints
            .into_iter()
            .map(|(_, line)| line)
            .collect())
    }
}

struct Reader<'a> {
    file: &'a str,
    text: &'a str,
    /// Where in the file, and what is wrong there.
    complaints: Vec<(usize, String)>,
}

type NameOf<'i> = Spanned<std::borrow::Cow<'i, str>>;
type Value<'i> = Spanned<DeValue<'i>>;

impl Reader<'_> {
    fn complain(&mut self, span: Range<usize>, message: &str) {
        let (line, column) = line_column(self.text, span.start);
        let line = format!("{}:{line}:{column}: error: {message}", self.file);
        self.complaints.push((span.start, line));
    }

    fn root(&mut self, table: &DeTable<'_>, config: &mut FileConfig) {
        for (key, value) in table {
            let name = key.get_ref().as_ref();
            if name == SECRETS {
                self.section(value, |reader, key, value| {
                    let secret = reader.secret(key, value);
                    let named = secret.map(|secret| (key.get_ref().to_string(), secret));
                    config.secrets.0.extend(named);
                });
            } else if KEYS
                .iter()
                .any(|known| !known.section.is_empty() && known.section == name)
            {
                self.section(value, |reader, key, value| {
                    reader.value(name, key, value, config);
                });
            } else {
                self.value("", key, value, config);
            }
        }
    }

    fn value(
        &mut self,
        section: &str,
        key: &NameOf<'_>,
        value: &Value<'_>,
        config: &mut FileConfig,
    ) {
        let name = key.get_ref().as_ref();
        let known = |known: &&Key| known.section == section && known.name == name;
        let Some(known) = KEYS.iter().find(known) else {
            return self.unknown(key, section);
        };
        if let Takes::Options(at) = known.takes {
            *at(config) = self.options(value);
        } else if let Err(why) = known.set(config, &given(value)) {
            self.complain(value.span(), &why);
        }
    }

    fn section(
        &mut self,
        value: &Value<'_>,
        mut each: impl FnMut(&mut Self, &NameOf<'_>, &Value<'_>),
    ) {
        match value.get_ref() {
            DeValue::Table(table) => {
                for (key, value) in table {
                    each(self, key, value);
                }
            }
            other => {
                let found = other.type_str();
                self.complain(value.span(), &format!("expected a table, found {found}"));
            }
        }
    }

    fn options(&mut self, value: &Value<'_>) -> StoreOptions {
        let mut options = BTreeMap::new();
        self.section(value, |reader, key, value| match value.get_ref() {
            DeValue::String(text) => {
                options.insert(key.get_ref().to_string(), text.to_string());
            }
            other => {
                let found = other.type_str();
                reader.complain(value.span(), &format!("expected a string, found {found}"));
            }
        });
        StoreOptions(options)
    }

    /// `{ env = "NAME", hosts = ["api.example.com"] }`, or with `file`.
    fn secret(&mut self, key: &NameOf<'_>, value: &Value<'_>) -> Option<Secret> {
        let name = key.get_ref();
        let DeValue::Table(table) = value.get_ref() else {
            let message = format!(
                "the secret `{name}` is a table: {{ env = \"VARIABLE\", hosts = [\"api.example.com\"] }}, or \
                 `file` for `env`; its value does not stand here"
            );
            self.complain(value.span(), &message);
            return None;
        };
        let (mut source, mut hosts) = (None, Vec::new());
        for (key, value) in table {
            match (key.get_ref().as_ref(), given(value)) {
                ("env", Given::Text(text)) => source = Some(Source::Env(text.to_owned())),
                ("file", Given::Text(text)) => source = Some(Source::File(text.into())),
                ("hosts", Given::List(texts)) => {
                    for text in texts {
                        match Host::parse(text) {
                            Ok(host) => hosts.push(host),
                            Err(why) => self.complain(value.span(), &why),
                        }
                    }
                }
                ("env" | "file", _) => self.complain(value.span(), "expected a string"),
                ("hosts", _) => self.complain(value.span(), "expected an array of hosts"),
                (other, _) => {
                    let message = format!("unknown key `{other}`; known here: env, file, hosts");
                    self.complain(key.span(), &message);
                }
            }
        }
        if table.len() != 2 || source.is_none() || hosts.is_empty() {
            let message = format!(
                "the secret `{name}` needs `hosts`, where it may be sent, and one of `env` and `file`"
            );
            self.complain(key.span(), &message);
        }
        let source = source?;
        Some(Secret { source, hosts })
    }

    fn unknown(&mut self, key: &NameOf<'_>, section: &str) {
        let name = key.get_ref();
        let here = KEYS.iter().filter(|known| known.section == section);
        let mut names: Vec<&str> = here.map(|known| known.name).collect();
        let place = if section.is_empty() {
            names.extend(
                KEYS.iter()
                    .map(|known| known.section)
                    .filter(|s| !s.is_empty()),
            );
            names.dedup();
            names.push(SECRETS);
            String::new()
        } else {
            format!("{section}.")
        };
        let names = names.join(", ");
        let message = format!("unknown key `{place}{name}`; known here: {names}");
        self.complain(key.span(), &message);
    }
}

fn given<'v>(value: &'v Value<'_>) -> Given<'v> {
    match value.get_ref() {
        DeValue::String(text) => Given::Text(text),
        DeValue::Integer(number) => {
            let digits = number.as_str().replace('_', "");
            Given::Whole(u64::from_str_radix(&digits, number.radix()).ok())
        }
        DeValue::Boolean(flag) => Given::Flag(*flag),
        DeValue::Array(entries) => {
            let texts = entries.iter().map(|entry| entry.get_ref().as_str());
            match texts.collect() {
                Some(texts) => Given::List(texts),
                None => Given::Other("array of other things"),
            }
        }
        other => Given::Other(other.type_str()),
    }
}

/// Both from 1; the column counts characters.
fn line_column(text: &str, at: usize) -> (usize, usize) {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    let before = &text[..at];
    let line = before.matches('\n').count() + 1;
    let start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (line, before[start..].chars().count() + 1)
}
