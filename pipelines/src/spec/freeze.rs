//! Makes a pipeline file independent of where it was read: `${NAME}` replaced, schema files
//! written in place.
//!
//! Called by: the command line, before it sends a file to the server. Invariants: each line
//! keeps its number, so that diagnostics of the server still point into the user's file; the
//! frozen text means the same as the original did in its surroundings. Refuses what cannot be
//! replaced or read, with its place.

use model::diagnostic::Diagnostic;

use super::reader::{Reader, Surroundings, has_substitution};
use super::yaml::{self, Kind, Node, Plain, Scalar, Style};
use crate::limits::SCHEMA_BYTES_MAX;

/// The text with everything put in that comes from outside of it.
pub fn freeze(
    file: &str,
    text: &str,
    around: &Surroundings<'_>,
) -> Result<String, Vec<Diagnostic>> {
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
    let chars: Vec<char> = text.chars().collect();
    let mut edits: Vec<(std::ops::Range<usize>, String)> = Vec::new();
    if let Some(root) = &root {
        root.scalars(&mut |node, scalar| {
            if scalar.resolve() != Plain::Text || !has_substitution(&scalar.text) {
                return;
            }
            if let Some(value) = reader.substitute(node.at, scalar) {
                edits.push((whole(&chars, scalar), quoted(&value)));
            }
        });
        schema_files(root, &mut |node, scalar| {
            let Some(name) = reader.substitute(node.at, scalar) else {
                return;
            };
            match inline(around, &name) {
                Ok(json) => edits.push((whole(&chars, scalar), json)),
                Err(e) => reader.error(node.at, format!("schema file `{name}`: {e}")),
            }
        });
    }
    if !reader.diagnostics.is_empty() {
        return Err(super::sorted(reader.diagnostics));
    }
    // A later edit of the same place (a schema file named with `${…}`) replaces the earlier one.
    let mut last = std::collections::BTreeMap::new();
    for (range, value) in edits {
        last.insert(range.start, (range.end, value));
    }
    let mut out = String::with_capacity(text.len());
    let mut done = 0;
    for (start, (end, value)) in last {
        out.extend(&chars[done..start]);
        out.push_str(&value);
        let raw: String = chars[start..end].iter().collect();
        let kept = raw.trim_end();
        for _ in kept.matches('\n') {
            // What follows on the last line must stay deeper than what it belongs to.
            out.push_str("\n                                ");
        }
        out.push_str(&raw[kept.len()..]);
        done = end;
    }
    out.extend(&chars[done..]);
    Ok(out)
}

fn inline(around: &Surroundings<'_>, name: &str) -> Result<String, String> {
    let text = (around.read)(name)?;
    if text.len() > SCHEMA_BYTES_MAX {
        return Err(format!(
            "larger than the {SCHEMA_BYTES_MAX} bytes a schema file may have"
        ));
    }
    let json: serde_json::Value =
        serde_json::from_str(&text).map_err(|e| format!("not JSON: {e}"))?;
    // JSON is YAML, but for `${`, which must not be replaced again.
    Ok(json.to_string().replace("${", "$${"))
}

/// The place of a scalar with its `|` or `>`, which the parser leaves out.
fn whole(chars: &[char], scalar: &Scalar) -> std::ops::Range<usize> {
    let sign = match scalar.style {
        Style::Literal => '|',
        Style::Folded => '>',
        _ => return scalar.chars.clone(),
    };
    let start = scalar.chars.start;
    if chars.get(start) == Some(&sign) {
        return scalar.chars.clone();
    }
    let head = chars[..start].iter().rposition(|c| *c == sign);
    head.unwrap_or(start)..scalar.chars.end
}

/// Text as a double-quoted scalar that is read back as it is.
fn quoted(value: &str) -> String {
    serde_json::Value::from(value)
        .to_string()
        .replace("${", "$${")
}

/// Calls `each` with every scalar that names a topic's schema file.
fn schema_files<'a>(root: &'a Node, each: &mut dyn FnMut(&'a Node, &'a Scalar)) {
    for (_, topic) in map(get(root, "topics")) {
        if let Some(node) = get(topic, "value").and_then(|value| get(value, "schema"))
            && let Kind::Scalar(scalar) = &node.kind
        {
            each(node, scalar);
        }
    }
}

fn get<'a>(node: &'a Node, key: &str) -> Option<&'a Node> {
    map(Some(node))
        .iter()
        .find(|(k, _)| k.text == key)
        .map(|(_, n)| n)
}

fn map(node: Option<&Node>) -> &[(yaml::Key, Node)] {
    match node.map(|n| &n.kind) {
        Some(Kind::Map(entries)) => entries,
        _ => &[],
    }
}
