//! The custom section `rustmq:describe`: what a module says of itself, read without running it.
//!
//! The section is JSON: `{"name", "version", "params", "ports", "state_schema", "migrates", "module"}`, of
//! which all but the first two may be null, which means that nothing is said. Keys that are not known are for
//! later.
//!
//! Called by: `check` (reads it), `module build` (writes it where a language's tools cannot), `guest`
//! (checks a node's params and outputs by it before `open`).
//! Invariants: the section says nothing that is believed without a check: sizes are bounded, and a
//! wrong one harms its own module only.
//! Refuses: two sections, text that is not this JSON, params and outputs that do not fit.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::InspectError;
use crate::limits::{DESCRIBE_BYTES_MAX, NAMES_MAX};
use crate::section;

/// Name of the section, in the component or in the core module inside it.
pub const SECTION: &str = "rustmq:describe";

/// Deepest nesting of a schema that is followed.
const DEPTH_MAX: usize = 32;
/// Most faults of params that are told at once.
const FAULTS_MAX: usize = 10;

/// What a module says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Description {
    pub name: String,
    pub version: String,
    /// JSON Schema of the node's `params`.
    #[serde(default)]
    pub params: Option<Value>,
    /// Outputs that the module names; a node must declare them.
    #[serde(default)]
    pub ports: Option<Vec<String>>,
    /// Version of the schema of the state it keeps.
    #[serde(default)]
    pub state_schema: Option<u32>,
    /// Older versions of it whose state the module takes over.
    #[serde(default)]
    pub migrates: Option<Vec<u32>>,
    /// Path of its type in its source, where the language has one.
    #[serde(default)]
    pub module: Option<String>,
}

impl Description {
    /// Reads the section's bytes.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Description, InspectError> {
        if bytes.len() > DESCRIBE_BYTES_MAX {
            let (size, limit) = (bytes.len(), DESCRIBE_BYTES_MAX);
            let why = format!("it has {size} bytes, the limit is {limit}");
            return Err(InspectError::Describe(why));
        }
        let description: Description = serde_json::from_slice(bytes)
            .map_err(|error| InspectError::Describe(error.to_string()))?;
        if description.ports.iter().flatten().count() > NAMES_MAX {
            let why = format!("it names more than {NAMES_MAX} ports");
            return Err(InspectError::Describe(why));
        }
        let migrates = description.migrates.as_deref().unwrap_or_default();
        if migrates.len() > NAMES_MAX {
            let why = format!("it takes over from more than {NAMES_MAX} schemas");
            return Err(InspectError::Describe(why));
        }
        if description.state_schema.is_none() && !migrates.is_empty() {
            let why = "it takes over state and has no `state_schema`".into();
            return Err(InspectError::Describe(why));
        }
        Ok(description)
    }

    /// Whether a node's params, JSON, are what the module takes; else all that is wrong with them.
    pub fn check_params(&self, params: &str) -> Result<(), String> {
        let Some(schema) = &self.params else {
            return Ok(());
        };
        // a node without params has none, not an error
        let text = match params.trim() {
            "" | "null" => "{}",
            text => text,
        };
        let value: Value = serde_json::from_str(text).map_err(|e| format!("not JSON: {e}"))?;
        let mut faults = Vec::new();
        fit(schema, &value, &mut "params".to_owned(), 0, &mut faults);
        if faults.is_empty() {
            return Ok(());
        }
        Err(faults.join("; "))
    }

    /// The first output that the module names and the node does not declare.
    pub(crate) fn missing_port(&self, declared: impl Fn(&str) -> bool) -> Option<&str> {
        let mut ports = self.ports.iter().flatten();
        ports.find(|port| !declared(port)).map(String::as_str)
    }

    /// Puts it into a component that has none, as a custom section at its end.
    pub fn append_to(&self, component: &mut Vec<u8>) {
        // strings, a number and JSON values are always written
        let text = serde_json::to_vec(self).unwrap_or_default();
        section::append(component, SECTION, &text);
    }

    /// Name and version, for people.
    pub fn title(&self) -> String {
        format!("{} {}", self.name, self.version)
    }
}

/// Checks a value by the keywords type, enum, const, properties, required, additionalProperties,
/// items, minimum, maximum, minLength, maxLength, minItems, maxItems, anyOf, oneOf (as anyOf) and
/// allOf. All other keywords count nothing.
fn fit(schema: &Value, value: &Value, path: &mut String, depth: usize, faults: &mut Vec<String>) {
    if depth > DEPTH_MAX || faults.len() >= FAULTS_MAX {
        return;
    }
    let Value::Object(keywords) = schema else {
        if *schema == Value::Bool(false) {
            faults.push(format!("{path}: nothing is allowed here"));
        }
        return;
    };
    for (keyword, wanted) in keywords {
        let fault = match (keyword.as_str(), wanted) {
            ("type", wanted) => type_fault(wanted, value),
            ("enum", Value::Array(choices)) if !choices.contains(value) => {
                Some(format!("{value} is none of {wanted}"))
            }
            ("const", wanted) if wanted != value => Some(format!("{value} is not {wanted}")),
            ("required", Value::Array(names)) => missing(names, value),
            ("minimum", wanted) => number_fault(value, wanted, "at least", |v, w| v >= w),
            ("maximum", wanted) => number_fault(value, wanted, "at most", |v, w| v <= w),
            ("minLength" | "minItems", wanted) => {
                size_fault(value, wanted, "at least", |v, w| v >= w)
            }
            ("maxLength" | "maxItems", wanted) => {
                size_fault(value, wanted, "at most", |v, w| v <= w)
            }
            ("anyOf" | "oneOf", Value::Array(choices)) => any(choices, value, path, depth),
            _ => None,
        };
        faults.extend(fault.map(|fault| format!("{path}: {fault}")));
        match (keyword.as_str(), wanted, value) {
            ("allOf", Value::Array(all), _) => {
                all.iter()
                    .for_each(|schema| fit(schema, value, path, depth + 1, faults));
            }
            ("items", items, Value::Array(values)) => {
                for (at, value) in values.iter().enumerate() {
                    inside(items, value, &format!("[{at}]"), path, depth, faults);
                }
            }
            ("properties", Value::Object(properties), Value::Object(values)) => {
                for (name, value) in values {
                    if let Some(schema) = properties.get(name) {
                        inside(schema, value, &format!(".{name}"), path, depth, faults);
                    }
                }
            }
            ("additionalProperties", rest, Value::Object(values)) => {
                let known = keywords.get("properties").and_then(Value::as_object);
                let unknown = |name: &String| known.is_none_or(|known| !known.contains_key(name));
                for (name, value) in values.iter().filter(|(name, _)| unknown(name)) {
                    if faults.len() >= FAULTS_MAX {
                        break;
                    }
                    if *rest == Value::Bool(false) {
                        faults.push(unknown_key(name, known, path));
                    } else {
                        inside(rest, value, &format!(".{name}"), path, depth, faults);
                    }
                }
            }
            _ => {}
        }
    }
}

/// Checks a part of a value, at a place below `path`.
fn inside(
    schema: &Value,
    value: &Value,
    place: &str,
    path: &mut String,
    depth: usize,
    faults: &mut Vec<String>,
) {
    let len = path.len();
    path.push_str(place);
    fit(schema, value, path, depth + 1, faults);
    path.truncate(len);
}

fn unknown_key(name: &str, known: Option<&serde_json::Map<String, Value>>, path: &str) -> String {
    let known: Vec<&str> = known
        .into_iter()
        .flatten()
        .map(|(k, _)| k.as_str())
        .collect();
    if known.is_empty() {
        return format!("{path}.{name}: the module takes no params here");
    }
    format!("{path}.{name}: not known; known are {}", known.join(", "))
}

fn any(choices: &[Value], value: &Value, path: &mut String, depth: usize) -> Option<String> {
    let mut first = None;
    for schema in choices {
        let mut faults = Vec::new();
        fit(schema, value, path, depth + 1, &mut faults);
        if faults.is_empty() {
            return None;
        }
        first.get_or_insert(faults.remove(0));
    }
    first.map(|fault| format!("fits none of what is allowed, first: {fault}"))
}

fn missing(names: &[Value], value: &Value) -> Option<String> {
    let values = value.as_object()?;
    let absent = names
        .iter()
        .filter_map(Value::as_str)
        .filter(|name| !values.contains_key(*name));
    let absent: Vec<&str> = absent.collect();
    (!absent.is_empty()).then(|| format!("{} is missing", absent.join(", ")))
}

fn type_fault(wanted: &Value, value: &Value) -> Option<String> {
    let is = |name: &str| match name {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        "number" => value.is_number(),
        "integer" => {
            value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|f| f.fract() == 0.0)
        }
        _ => true,
    };
    let fits = match wanted {
        Value::String(name) => is(name),
        Value::Array(names) => names.iter().filter_map(Value::as_str).any(is),
        _ => true,
    };
    (!fits).then(|| format!("{value} is not of type {wanted}"))
}

fn number_fault(
    value: &Value,
    wanted: &Value,
    word: &str,
    holds: impl Fn(f64, f64) -> bool,
) -> Option<String> {
    let (number, bound) = (value.as_f64()?, wanted.as_f64()?);
    (!holds(number, bound)).then(|| format!("{value} is not {word} {wanted}"))
}

/// Length of a text in characters, or of a list.
fn size_fault(
    value: &Value,
    wanted: &Value,
    word: &str,
    holds: impl Fn(u64, u64) -> bool,
) -> Option<String> {
    let size = match value {
        Value::String(text) => text.chars().count(),
        Value::Array(values) => values.len(),
        _ => return None,
    } as u64;
    let bound = wanted.as_u64()?;
    (!holds(size, bound)).then(|| format!("its size is {size}, not {word} {bound}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn described(params: &str) -> Description {
        let text = format!(r#"{{"name":"m","version":"1.2.3","params":{params},"later":1}}"#);
        Description::parse(text.as_bytes()).unwrap_or_else(|e| panic!("{e}"))
    }

    fn faults(schema: &str, params: &str) -> String {
        let checked = described(schema).check_params(params);
        checked.err().unwrap_or_default()
    }

    const SCHEMA: &str = r#"{"type":"object","properties":{
        "factor":{"type":"integer","minimum":1,"maximum":9},
        "names":{"type":"array","items":{"type":"string","minLength":1},"maxItems":2},
        "mode":{"anyOf":[{"enum":["fast","slow"]},{"type":"null"}]},
        "inner":{"allOf":[{"type":"object","additionalProperties":{"type":"number"}}]}
      },"required":["factor"],"additionalProperties":false}"#;

    #[test]
    fn params_are_checked() {
        for (params, wanted) in [
            (
                r#"{"factor":3,"names":["a"],"mode":null,"inner":{"x":0.5}}"#,
                "",
            ),
            ("", "params: factor is missing"),
            ("[]", "params: [] is not of type \"object\""),
            (
                r#"{"factor":3.5}"#,
                "params.factor: 3.5 is not of type \"integer\"",
            ),
            (r#"{"factor":0}"#, "params.factor: 0 is not at least 1"),
            (r#"{"factor":10}"#, "params.factor: 10 is not at most 9"),
            (
                r#"{"factr":3,"factor":1}"#,
                "params.factr: not known; known are factor, names, mode, inner",
            ),
            (
                r#"{"factor":1,"names":["","b"]}"#,
                "params.names[0]: its size is 0, not at least 1",
            ),
            (
                r#"{"factor":1,"mode":"fat"}"#,
                "params.mode: fits none of what is allowed, first: params.mode: \"fat\" is none of \
                 [\"fast\",\"slow\"]",
            ),
            (
                r#"{"factor":1,"inner":{"x":"y"}}"#,
                "params.inner.x: \"y\" is not of type \"number\"",
            ),
            (
                "{",
                "not JSON: EOF while parsing an object at line 1 column 1",
            ),
        ] {
            assert_eq!(faults(SCHEMA, params), wanted, "{params}");
        }
        assert_eq!(faults("null", "whatever"), "");
        let none =
            r#"{"type":"object","properties":{},"required":[],"additionalProperties":false}"#;
        assert_eq!(faults(none, "null"), "");
        assert_eq!(
            faults(none, r#"{"x":1}"#),
            "params.x: the module takes no params here"
        );
    }

    #[test]
    fn a_schema_that_never_ends_does() {
        let mut schema = "true".to_owned();
        for _ in 0..DEPTH_MAX + 10 {
            schema = format!(r#"{{"allOf":[{schema}]}}"#);
        }
        assert_eq!(faults(&schema, "{}"), "");
    }

    #[test]
    fn sections_that_are_not_one_are_refused() {
        let long = format!(
            r#"{{"name":"{}","version":""}}"#,
            "a".repeat(DESCRIBE_BYTES_MAX)
        );
        for (text, wanted) in [
            ("", "EOF while parsing"),
            (r#"{"name":"m"}"#, "missing field `version`"),
            (r#"{"name":1,"version":"2"}"#, "invalid type"),
            (&long, "the limit is"),
        ] {
            let error = Description::parse(text.as_bytes()).expect_err("it is refused");
            assert!(error.to_string().contains(wanted), "{error}");
        }
    }
}
