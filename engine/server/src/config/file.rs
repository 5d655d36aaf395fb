//! The TOML file of `serve --config`: every key with its line and column.
//!
//! Called by: `config::load`. Calls: the `toml` parser, whose tree keeps the spans.
//! Invariants: one table of keys per section, so that the list of known keys in a message is the
//! list that is read; all complaints of a file are collected.
//! Refuses: unknown sections and keys, wrong types, sizes that are zero or do not fit.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::Range;
use std::path::PathBuf;

use storage::WalWriterKind;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{LimitsConfig, StorageConfig, check_url, parse_address};

/// What a file says; `None` where it is silent.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FileConfig {
    pub listen: Option<SocketAddr>,
    pub http: Option<SocketAddr>,
    pub data_dir: Option<PathBuf>,
    pub storage: StorageConfig,
    pub limits: LimitsConfig,
}

const ROOT_KEYS: &[&str] = &["listen", "http", "data_dir", "storage", "limits"];
const STORAGE_KEYS: &[&str] = &[
    "url",
    "options",
    "wal_writer",
    "segment_bytes",
    "tail_bytes_max",
    "tier_bytes",
    "tier_age_ms",
];
const LIMITS_KEYS: &[&str] = &["sql_memory_bytes", "sql_rows_max", "sql_timeout_ms"];

impl FileConfig {
    /// All complaints as `FILE:LINE:COL: error: …`.
    pub fn parse(file: &str, text: &str) -> Result<FileConfig, Vec<String>> {
        let mut reader = Reader {
            file,
            text,
            lines: Vec::new(),
        };
        let (root, errors) = DeTable::parse_recoverable(text);
        for error in errors {
            reader.complain(error.span().unwrap_or(0..0), error.message());
        }
        let mut config = FileConfig::default();
        reader.root(root.get_ref(), &mut config);
        if reader.lines.is_empty() {
            Ok(config)
        } else {
            Err(reader.lines)
        }
    }
}

struct Reader<'a> {
    file: &'a str,
    text: &'a str,
    lines: Vec<String>,
}

type Key<'i> = Spanned<std::borrow::Cow<'i, str>>;
type Value<'i> = Spanned<DeValue<'i>>;

impl Reader<'_> {
    fn complain(&mut self, span: Range<usize>, message: &str) {
        let (line, column) = line_column(self.text, span.start);
        self.lines
            .push(format!("{}:{line}:{column}: error: {message}", self.file));
    }

    fn root(&mut self, table: &DeTable<'_>, config: &mut FileConfig) {
        for (key, value) in table {
            match key.get_ref().as_ref() {
                "listen" => config.listen = self.address(value),
                "http" => config.http = self.address(value),
                "data_dir" => config.data_dir = self.text(value).map(PathBuf::from),
                "storage" => self.section(value, |reader, key, value| {
                    reader.storage(key, value, &mut config.storage);
                }),
                "limits" => self.section(value, |reader, key, value| {
                    reader.limits(key, value, &mut config.limits);
                }),
                _ => self.unknown(key, "", ROOT_KEYS),
            }
        }
    }

    fn storage(&mut self, key: &Key<'_>, value: &Value<'_>, storage: &mut StorageConfig) {
        match key.get_ref().as_ref() {
            "url" => {
                if let Some(url) = self.text(value) {
                    match check_url(&url) {
                        Ok(()) => storage.url = Some(url),
                        Err(why) => self.complain(value.span(), &why),
                    }
                }
            }
            "options" => storage.options = self.options(value),
            "wal_writer" => {
                let parsed = self.text(value).map(|text| text.parse::<WalWriterKind>());
                match parsed.transpose() {
                    Ok(writer) => storage.wal_writer = writer,
                    Err(why) => self.complain(value.span(), &why),
                }
            }
            "segment_bytes" => storage.segment_bytes = self.bytes(value),
            "tail_bytes_max" => storage.tail_bytes_max = self.bytes(value),
            "tier_bytes" => storage.tier_bytes = self.bytes(value),
            "tier_age_ms" => storage.tier_age_ms = self.number(value),
            _ => self.unknown(key, "storage.", STORAGE_KEYS),
        }
    }

    fn limits(&mut self, key: &Key<'_>, value: &Value<'_>, limits: &mut LimitsConfig) {
        match key.get_ref().as_ref() {
            "sql_memory_bytes" => limits.sql_memory_bytes = self.bytes(value),
            "sql_rows_max" => limits.sql_rows_max = self.number(value),
            "sql_timeout_ms" => limits.sql_timeout_ms = self.number(value),
            _ => self.unknown(key, "limits.", LIMITS_KEYS),
        }
    }

    fn section(
        &mut self,
        value: &Value<'_>,
        mut each: impl FnMut(&mut Self, &Key<'_>, &Value<'_>),
    ) {
        match value.get_ref() {
            DeValue::Table(table) => {
                for (key, value) in table {
                    each(self, key, value);
                }
            }
            other => self.expected("a table", value.span(), other),
        }
    }

    fn options(&mut self, value: &Value<'_>) -> BTreeMap<String, String> {
        let mut options = BTreeMap::new();
        self.section(value, |reader, key, value| {
            if let Some(text) = reader.text(value) {
                options.insert(key.get_ref().to_string(), text);
            }
        });
        options
    }

    fn unknown(&mut self, key: &Key<'_>, section: &str, known: &[&str]) {
        let name = key.get_ref();
        let message = format!(
            "unknown key `{section}{name}`; known here: {}",
            known.join(", ")
        );
        self.complain(key.span(), &message);
    }

    fn expected(&mut self, what: &str, span: Range<usize>, found: &DeValue<'_>) {
        let message = format!("expected {what}, found {}", found.type_str());
        self.complain(span, &message);
    }

    fn text(&mut self, value: &Value<'_>) -> Option<String> {
        match value.get_ref() {
            DeValue::String(text) => Some(text.to_string()),
            other => {
                self.expected("a string", value.span(), other);
                None
            }
        }
    }

    fn address(&mut self, value: &Value<'_>) -> Option<SocketAddr> {
        let text = self.text(value)?;
        match parse_address(&text) {
            Ok(address) => Some(address),
            Err(why) => {
                self.complain(value.span(), &why);
                None
            }
        }
    }

    fn number(&mut self, value: &Value<'_>) -> Option<u64> {
        let parsed = match value.get_ref() {
            DeValue::Integer(number) => {
                u64::from_str_radix(&number.as_str().replace('_', ""), number.radix()).ok()
            }
            other => {
                self.expected("a whole number", value.span(), other);
                return None;
            }
        };
        let parsed = parsed.filter(|number| *number > 0);
        if parsed.is_none() {
            self.complain(value.span(), "expected a whole number above 0");
        }
        parsed
    }

    /// A number of bytes, or text such as `"64MiB"`.
    fn bytes(&mut self, value: &Value<'_>) -> Option<u64> {
        let DeValue::String(text) = value.get_ref() else {
            return self.number(value);
        };
        let parsed = parse_bytes(text);
        if parsed.is_none() {
            let message =
                format!("`{text}` is not a size; write bytes, or a number with KiB, MiB, GiB");
            self.complain(value.span(), &message);
        }
        parsed
    }
}

fn parse_bytes(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor: u64 = match unit.trim() {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    number
        .parse::<u64>()
        .ok()?
        .checked_mul(factor)
        .filter(|bytes| *bytes > 0)
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
