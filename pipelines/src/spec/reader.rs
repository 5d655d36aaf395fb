//! Reads typed values out of the YAML tree and keeps every complaint, with line and column.
//!
//! Called by: `spec::parse`, one function per part of the file. Invariants: reading goes on
//! after an error; a value that could not be read is `None` and has a diagnostic; `${NAME}` is
//! replaced in string values only, after parsing, so nothing from the environment can change
//! the shape of the file. `$${` stands for a plain `${`.

use std::fmt::Write as _;
use std::sync::Arc;

use model::diagnostic::Diagnostic;
use serde_json::Value as Json;

use super::nearest;
use super::types::{At, Expression, Millis, Size};
use super::yaml::{Key, Kind, Node, Plain, Pos, Scalar, YamlError};
use crate::limits::{DIAGNOSTICS_MAX, EXPRESSION_BYTES_MAX, NAME_BYTES_MAX};

/// What a pipeline file may ask of its surroundings.
pub struct Surroundings<'a> {
    pub env: &'a dyn Fn(&str) -> Option<String>,
    /// Reads a file named in the pipeline, relative to it.
    pub read: &'a dyn Fn(&str) -> Result<String, String>,
}

pub(super) struct Reader<'a> {
    pub file: &'a str,
    pub source: &'a str,
    pub around: &'a Surroundings<'a>,
    pub diagnostics: Vec<Diagnostic>,
}

/// The keys of one mapping, unknown ones already complained about.
pub(super) struct Fields<'n> {
    pub what: String,
    pub at: Pos,
    entries: &'n [(Key, Node)],
}

impl<'n> Fields<'n> {
    /// The value of a key; what is written as nothing is absent.
    pub fn get(&self, key: &str) -> Option<&'n Node> {
        self.written(key).filter(|n| !n.is_null())
    }

    /// The same where nothing is a mistake for a word.
    pub fn written(&self, key: &str) -> Option<&'n Node> {
        let mut entries = self.entries.iter();
        entries.find(|(k, _)| k.text == key).map(|(_, n)| n)
    }
}

impl<'a> Reader<'a> {
    pub fn error(&mut self, at: Pos, message: impl Into<String>) {
        if self.diagnostics.len() < DIAGNOSTICS_MAX {
            self.diagnostics
                .push(Diagnostic::error(self.file, at.line, at.column, message));
        }
    }

    pub fn error_hint(&mut self, at: Pos, message: impl Into<String>, hint: Option<String>) {
        let mut diagnostic = Diagnostic::error(self.file, at.line, at.column, message);
        diagnostic.hint = hint;
        if self.diagnostics.len() < DIAGNOSTICS_MAX {
            self.diagnostics.push(diagnostic);
        }
    }

    fn wrong(&mut self, node: &Node, what: &str, expected: &str) {
        self.error(
            node.at,
            format!("{what} is {expected}, not {}", node.describe()),
        );
    }

    pub fn yaml_error(&mut self, error: YamlError) {
        let line = self
            .source
            .lines()
            .nth(error.at.line as usize - 1)
            .unwrap_or_default();
        let flow = error.message.starts_with("not YAML") && line.contains("${");
        let advice = "quote a value with `${…}` inside `{ }` or `[ ]`";
        self.error_hint(error.at, error.message, flow.then(|| advice.to_string()));
    }

    /// The mapping at `node`, whose keys must be among `allowed`. `at` is where to complain
    /// about a missing key.
    pub fn fields<'n>(
        &mut self,
        node: &'n Node,
        what: impl Into<String>,
        at: Pos,
        allowed: &[&str],
    ) -> Option<Fields<'n>> {
        let what = what.into();
        let Kind::Map(entries) = &node.kind else {
            self.wrong(
                node,
                &what,
                &format!("a mapping with the keys {}", listed(allowed)),
            );
            return None;
        };
        for (key, _) in entries {
            if !allowed.contains(&key.text.as_str()) {
                let hint = nearest::hint(&key.text, allowed.iter().copied())
                    .unwrap_or_else(|| format!("the keys here are {}", listed(allowed)));
                self.error_hint(
                    key.at,
                    format!("unknown key `{}` in {what}", key.text),
                    Some(hint),
                );
            }
        }
        Some(Fields { what, at, entries })
    }

    /// A key that must be there.
    pub fn required<'n>(&mut self, fields: &Fields<'n>, key: &str) -> Option<&'n Node> {
        let found = fields.get(key);
        if found.is_none() {
            self.error(fields.at, format!("{} needs the key `{key}`", fields.what));
        }
        found
    }

    /// Names and values of a mapping with free names.
    pub fn table<'n>(&mut self, node: &'n Node, what: &str) -> &'n [(Key, Node)] {
        match &node.kind {
            Kind::Map(entries) => entries,
            _ => {
                self.wrong(node, what, "a mapping");
                &[]
            }
        }
    }

    pub fn list<'n>(&mut self, node: &'n Node, what: &str) -> Option<&'n [Node]> {
        match &node.kind {
            Kind::List(items) => Some(items),
            _ => {
                self.wrong(node, what, "a list");
                None
            }
        }
    }

    fn scalar<'n>(&mut self, node: &'n Node, what: &str, expected: &str) -> Option<&'n Scalar> {
        match &node.kind {
            Kind::Scalar(scalar) => Some(scalar),
            _ => {
                self.wrong(node, what, expected);
                None
            }
        }
    }

    /// Text, with `${NAME}` replaced.
    pub fn text(&mut self, node: &Node, what: &str) -> Option<At<String>> {
        let scalar = self.scalar(node, what, "text")?;
        if scalar.resolve() != Plain::Text {
            self.wrong(node, what, "text (quote it)");
            return None;
        }
        Some(At {
            value: self.substitute(node.at, scalar)?,
            at: node.at,
        })
    }

    pub fn whole<T: TryFrom<i64>>(&mut self, node: &Node, what: &str) -> Option<At<T>> {
        let value = match &node.kind {
            Kind::Scalar(s) => match s.resolve() {
                Plain::Int(i) => T::try_from(i).ok(),
                _ => None,
            },
            _ => None,
        };
        if value.is_none() {
            self.wrong(node, what, "a whole number of 0 or more");
        }
        Some(At {
            value: value?,
            at: node.at,
        })
    }

    pub fn boolean(&mut self, node: &Node, what: &str) -> Option<bool> {
        if let Kind::Scalar(s) = &node.kind
            && let Plain::Bool(b) = s.resolve()
        {
            return Some(b);
        }
        self.wrong(node, what, "true or false");
        None
    }

    /// A SQL expression; numbers and booleans are expressions too.
    pub fn expression(&mut self, node: &Node, what: &str) -> Option<Expression> {
        let scalar = self.scalar(node, what, "a SQL expression")?;
        let text = self.substitute(node.at, scalar)?;
        if text.trim().is_empty() || text.len() > EXPRESSION_BYTES_MAX {
            let bound = format!("a SQL expression of 1 to {EXPRESSION_BYTES_MAX} bytes");
            self.wrong(node, what, &bound);
            return None;
        }
        let same = text == scalar.text;
        let places = if same {
            scalar.places(node.at, self.source)
        } else {
            Vec::new()
        };
        Some(Expression {
            text,
            at: node.at,
            places: Arc::from(places),
        })
    }

    pub fn size(&mut self, node: &Node, what: &str) -> Option<At<Size>> {
        let text = self.unit_text(node, what, "a size such as 64KiB or 1MiB")?;
        let value = with_unit(&text, SIZE_UNITS).map(Size);
        if value.is_none() {
            self.error(
                node.at,
                format!("{what} is a size such as 64KiB or 1MiB, not `{text}`"),
            );
        }
        Some(At {
            value: value?,
            at: node.at,
        })
    }

    pub fn millis(&mut self, node: &Node, what: &str) -> Option<At<Millis>> {
        let text = self.unit_text(node, what, "a time such as 5ms, 10s or 14d")?;
        let value = with_unit(&text, TIME_UNITS).map(Millis);
        if value.is_none() {
            self.error(
                node.at,
                format!("{what} is a time such as 5ms, 10s or 14d, not `{text}`"),
            );
        }
        Some(At {
            value: value?,
            at: node.at,
        })
    }

    fn unit_text(&mut self, node: &Node, what: &str, expected: &str) -> Option<String> {
        let scalar = self.scalar(node, what, expected)?;
        self.substitute(node.at, scalar)
    }

    /// A name of a node, port, module or column.
    pub fn name(&mut self, key: &Key, what: &str, dots: bool) -> Option<At<String>> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "_-".contains(c) || (dots && c == '.');
        let name = &key.text;
        if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.chars().all(allowed) {
            let message = format!(
                "{what} name `{name}` is not 1 to {NAME_BYTES_MAX} letters, digits, `-` and `_`"
            );
            self.error(key.at, message);
            return None;
        }
        Some(At {
            value: name.clone(),
            at: key.at,
        })
    }

    /// The tree as JSON; numbers and booleans keep their type, replaced text stays text.
    pub fn json(&mut self, node: &Node) -> Json {
        match &node.kind {
            Kind::List(items) => items.iter().map(|n| self.json(n)).collect(),
            Kind::Map(entries) => entries
                .iter()
                .map(|(k, n)| (k.text.clone(), self.json(n)))
                .collect(),
            Kind::Scalar(scalar) => match scalar.resolve() {
                Plain::Null => Json::Null,
                Plain::Bool(b) => b.into(),
                Plain::Int(i) => i.into(),
                Plain::Float(f) => f.into(),
                Plain::Text => self.substitute(node.at, scalar).unwrap_or_default().into(),
            },
        }
    }

    pub fn substitute(&mut self, at: Pos, scalar: &Scalar) -> Option<String> {
        let mut missing = Vec::new();
        let text = replace(&scalar.text, self.around.env, &mut missing);
        for message in &missing {
            self.error(at, message.clone());
        }
        missing.is_empty().then_some(text)
    }
}

/// `text` with `${NAME}` replaced; what cannot be is said in `complaints`.
pub(super) fn replace(
    text: &str,
    env: &dyn Fn(&str) -> Option<String>,
    complaints: &mut Vec<String>,
) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("${") {
        if rest[..start].ends_with('$') {
            out.push_str(&rest[..start - 1]);
            out.push_str("${");
            rest = &rest[start + 2..];
            continue;
        }
        out.push_str(&rest[..start]);
        rest = &rest[start + 2..];
        let Some(end) = rest.find('}') else {
            complaints.push("`${` without its `}`; write `$${` for the text itself".into());
            return out;
        };
        let name = &rest[..end];
        rest = &rest[end + 1..];
        let valid = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if name.is_empty() || !name.chars().all(valid) {
            complaints.push(format!(
                "`${{{name}}}` is not the name of an environment variable"
            ));
        } else if let Some(value) = env(name) {
            out.push_str(&value);
        } else {
            complaints.push(format!("the environment variable `{name}` is not set"));
        }
    }
    out.push_str(rest);
    out
}

/// Whether [`replace`] would change the text.
pub(super) fn has_substitution(text: &str) -> bool {
    text.contains("${")
}

const SIZE_UNITS: &[(&str, u64)] = &[
    ("B", 1),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
];

const TIME_UNITS: &[(&str, u64)] = &[
    ("ms", 1),
    ("s", 1_000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
];

fn with_unit(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let unit = unit.strip_prefix(' ').unwrap_or(unit);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

/// `a`, `b` and `c`.
pub(crate) fn listed<S: AsRef<str>>(names: &[S]) -> String {
    let mut out = String::new();
    for (i, name) in names.iter().enumerate() {
        let joint = match i {
            0 => "",
            _ if i + 1 == names.len() => " and ",
            _ => ", ",
        };
        let _ = write!(out, "{joint}`{}`", name.as_ref());
    }
    out
}
