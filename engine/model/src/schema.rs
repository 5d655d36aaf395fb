//! The typed fields of a topic's values, and the ways a user may write them down.
//!
//! Called by topic, codec, expr, sql, pipelines and the command line. Invariants: every field
//! is nullable; names are unique and do not clash with the columns every topic has; the order
//! is the order it was written in. Refuses unknown types by naming the field.

pub mod avro;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field as ArrowField, Schema as ArrowSchema, SchemaRef, TimeUnit};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::limits::{AVRO_SCHEMA_BYTES_MAX, FIELD_NAME_BYTES_MAX, SCHEMA_FIELDS_MAX};
use avro::AvroRecord;

/// Columns every topic has; a field of a schema cannot have one of these names.
pub const SYSTEM_COLUMNS: [&str; 8] = [
    "_partition",
    "_offset",
    "_timestamp",
    "_key",
    "_value",
    "_headers",
    "_value_text",
    "_key_text",
];

/// The type of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FieldType {
    Bool,
    Int64,
    Float64,
    String,
    Bytes,
    /// Microseconds since the epoch, UTC; RFC 3339 in JSON.
    Timestamp,
}

impl FieldType {
    /// By the name a user writes; common aliases are accepted.
    pub fn parse(text: &str) -> Option<FieldType> {
        Some(match text {
            "bool" | "boolean" => FieldType::Bool,
            "int64" | "int" | "integer" | "s64" | "long" => FieldType::Int64,
            "float64" | "float" | "double" | "number" | "f64" => FieldType::Float64,
            "string" | "text" | "utf8" => FieldType::String,
            "bytes" | "binary" => FieldType::Bytes,
            "timestamp" => FieldType::Timestamp,
            _ => return None,
        })
    }

    /// The type whose Arrow type it is; exactly, with its unit and zone.
    pub fn of_arrow(ty: &DataType) -> Option<FieldType> {
        Some(match ty {
            DataType::Boolean => FieldType::Bool,
            DataType::Int64 => FieldType::Int64,
            DataType::Float64 => FieldType::Float64,
            DataType::Utf8 => FieldType::String,
            DataType::Binary => FieldType::Bytes,
            DataType::Timestamp(TimeUnit::Microsecond, Some(zone)) if &**zone == "UTC" => {
                FieldType::Timestamp
            }
            _ => return None,
        })
    }

    /// The Arrow type that holds it.
    pub fn to_arrow(self) -> DataType {
        match self {
            FieldType::Bool => DataType::Boolean,
            FieldType::Int64 => DataType::Int64,
            FieldType::Float64 => DataType::Float64,
            FieldType::String => DataType::Utf8,
            FieldType::Bytes => DataType::Binary,
            FieldType::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        }
    }
}

impl fmt::Display for FieldType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FieldType::Bool => "bool",
            FieldType::Int64 => "int64",
            FieldType::Float64 => "float64",
            FieldType::String => "string",
            FieldType::Bytes => "bytes",
            FieldType::Timestamp => "timestamp",
        })
    }
}

/// One named, nullable field.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Field {
    pub name: String,
    #[serde(rename = "type")]
    pub ty: FieldType,
}

/// The fields of a value, in order.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Schema {
    pub fields: Vec<Field>,
    /// The Avro schema that the fields were read from, as JSON; how they are written in Avro.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub avro: Option<String>,
}

impl fmt::Display for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, field) in self.fields.iter().enumerate() {
            let comma = if i == 0 { "" } else { ", " };
            write!(f, "{comma}{}: {}", field.name, field.ty)?;
        }
        Ok(())
    }
}

/// Why a schema is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SchemaError {
    #[error(
        "a schema is a map of field names to types, a list of {{name, type}}, a JSON Schema \
         object with `properties`, or a record of an Avro schema"
    )]
    Shape,
    #[error("a schema needs at least one field")]
    Empty,
    #[error("a schema has at most {SCHEMA_FIELDS_MAX} fields; this one has {fields}")]
    TooMany { fields: usize },
    #[error(
        "field `{field}` has type `{ty}`; the types are bool, int64, float64, string, bytes and \
         timestamp"
    )]
    Type { field: String, ty: String },
    #[error("field {index} of the list needs `name` and `type`, both text, and nothing else")]
    Entry {
        /// Counted from 1.
        index: usize,
    },
    #[error("field `{field}` is there twice")]
    Twice { field: String },
    #[error("field name `{field}` is taken by a column every topic has; choose another")]
    System { field: String },
    #[error("field {index} has a name of {length} bytes; it needs 1 to {FIELD_NAME_BYTES_MAX}")]
    NameLength {
        /// Counted from 1.
        index: usize,
        length: usize,
    },
    #[error("field `{field}` is missing; a new version keeps all fields and adds at the end")]
    Dropped { field: String },
    #[error("field `{field}` is {old} and cannot become {new}; add a field of another name")]
    Retyped {
        field: String,
        old: FieldType,
        new: FieldType,
    },
    #[error("field `{field}` is not where it was; a new version adds at the end")]
    Moved { field: String },
    #[error("Avro schema: {reason}")]
    Avro { reason: String },
    #[error("Avro schema, field `{field}`: {reason}")]
    AvroField { field: String, reason: String },
    #[error(
        "values of `{codec}` do not say which schema they were written with, so it cannot change; \
         make another topic"
    )]
    Fixed { codec: crate::topic::PayloadCodec },
}

impl SchemaError {
    /// The field that is wrong, if it is a certain one.
    fn field(&self) -> Option<&str> {
        match self {
            SchemaError::Type { field, .. }
            | SchemaError::Twice { field }
            | SchemaError::System { field }
            | SchemaError::Dropped { field }
            | SchemaError::Retyped { field, .. }
            | SchemaError::Moved { field }
            | SchemaError::AvroField { field, .. } => Some(field),
            _ => None,
        }
    }

    /// Line and column of the field that is wrong in the JSON it was read from, counted from 1;
    /// of the beginning if it is none or not to be found.
    pub fn place(&self, json: &str) -> (usize, usize) {
        let name = self.field().map(|field| Value::from(field).to_string());
        let name = name.unwrap_or_default();
        let is_named = |at: &usize| {
            let (before, after) = (&json[..*at], &json[*at + name.len()..]);
            let before = before.trim_end().strip_suffix(':').map(str::trim_end);
            before.is_some_and(|before| before.ends_with("\"name\""))
                || after.trim_start().starts_with(':')
        };
        let mut found = json.match_indices(&name).map(|(at, _)| at);
        let at = match name.is_empty() {
            true => 0,
            false => found.find(is_named).unwrap_or_default(),
        };
        let before = &json[..at];
        let line_start = before.rfind('\n').map_or(0, |end| end + 1);
        let line = before.matches('\n').count() + 1;
        (line, before[line_start..].chars().count() + 1)
    }
}

impl Schema {
    /// A checked schema of these fields.
    pub fn new(fields: Vec<Field>) -> Result<Schema, SchemaError> {
        let schema = Schema { fields, avro: None };
        schema.check()?;
        Ok(schema)
    }

    /// From what a user wrote: an inline map (`{carrier: string}`), a list of
    /// `{name, type}`, `{fields: [..]}`, a JSON Schema object with `properties`, or an Avro
    /// schema of `"type": "record"`.
    pub fn from_json(value: &Value) -> Result<Schema, SchemaError> {
        if value.get("type").and_then(Value::as_str) == Some("record") {
            let schema = Schema {
                fields: AvroRecord::parse(value)?.columns(),
                avro: Some(value.to_string()),
            };
            schema.check()?;
            return Ok(schema);
        }
        let fields = match value {
            Value::Array(list) => from_list(list)?,
            Value::Object(map) => match (map.get("properties"), map.get("fields")) {
                (Some(Value::Object(properties)), _) => properties
                    .iter()
                    .map(from_property)
                    .collect::<Result<_, _>>()?,
                (_, Some(Value::Array(list))) => from_list(list)?,
                _ => map
                    .iter()
                    .map(|(n, ty)| field(n, ty))
                    .collect::<Result<_, _>>()?,
            },
            _ => return Err(SchemaError::Shape),
        };
        Schema::new(fields)
    }

    /// Whether what was written with `before` can be read with this one: all its fields are here
    /// in their places, and new ones (which are null there) behind them.
    pub fn extends(&self, before: &Schema) -> Result<(), SchemaError> {
        for (old, new) in before.fields.iter().zip(&self.fields) {
            if old != new {
                return Err(self.lost(old));
            }
        }
        match before.fields.get(self.fields.len()) {
            Some(old) => Err(self.lost(old)),
            None => Ok(()),
        }
    }

    /// How the fields are written in Avro: as the schema in Avro's form says, else each as a
    /// union of null and its type.
    ///
    /// # Errors
    /// A field whose name Avro does not take.
    pub fn to_avro(&self) -> Result<AvroRecord, SchemaError> {
        match &self.avro {
            None => AvroRecord::parse(&avro::derived(&self.fields)),
            Some(text) => {
                let json = serde_json::from_str(text);
                let json = json.map_err(|error| SchemaError::Avro {
                    reason: format!("not JSON: {error}"),
                })?;
                AvroRecord::parse(&json)
            }
        }
    }

    /// The Avro schema of values in Avro, as JSON: what other programs write and read them with.
    pub fn avro_text(&self) -> String {
        let derived = || avro::derived(&self.fields).to_string();
        self.avro.clone().unwrap_or_else(derived)
    }

    fn avro_check(&self, text: &str) -> Result<(), SchemaError> {
        let refused = |reason: String| Err(SchemaError::Avro { reason });
        if text.len() > AVRO_SCHEMA_BYTES_MAX {
            let length = text.len();
            return refused(format!(
                "it has {length} bytes; the most are {AVRO_SCHEMA_BYTES_MAX}"
            ));
        }
        match self.to_avro()?.columns() == self.fields {
            true => Ok(()),
            false => refused("its fields are not those of the list beside it".to_owned()),
        }
    }

    /// What became of a field that is not in its place.
    fn lost(&self, old: &Field) -> SchemaError {
        let field = old.name.clone();
        match self.fields.iter().find(|new| new.name == field) {
            None => SchemaError::Dropped { field },
            Some(new) if new.ty == old.ty => SchemaError::Moved { field },
            Some(new) => SchemaError::Retyped {
                field,
                old: old.ty,
                new: new.ty,
            },
        }
    }

    /// Whether names and number of fields are allowed.
    pub fn check(&self) -> Result<(), SchemaError> {
        if self.fields.is_empty() {
            return Err(SchemaError::Empty);
        }
        if self.fields.len() > SCHEMA_FIELDS_MAX {
            return Err(SchemaError::TooMany {
                fields: self.fields.len(),
            });
        }
        let mut seen = BTreeSet::new();
        for (i, field) in self.fields.iter().enumerate() {
            let name = field.name.as_str();
            if name.is_empty() || name.len() > FIELD_NAME_BYTES_MAX {
                return Err(SchemaError::NameLength {
                    index: i + 1,
                    length: name.len(),
                });
            }
            if SYSTEM_COLUMNS.contains(&name) {
                return Err(SchemaError::System {
                    field: name.to_owned(),
                });
            }
            if !seen.insert(name) {
                return Err(SchemaError::Twice {
                    field: name.to_owned(),
                });
            }
        }
        self.avro
            .as_deref()
            .map_or(Ok(()), |text| self.avro_check(text))
    }

    /// The field of that name.
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.fields.iter().find(|f| f.name == name)
    }

    /// As Arrow sees it: all nullable, timestamps in microseconds UTC.
    pub fn to_arrow(&self) -> SchemaRef {
        let field = |f: &Field| ArrowField::new(&f.name, f.ty.to_arrow(), true);
        Arc::new(ArrowSchema::new(
            self.fields.iter().map(field).collect::<Vec<_>>(),
        ))
    }
}

fn field(name: &str, ty: &Value) -> Result<Field, SchemaError> {
    let found = ty.as_str().and_then(FieldType::parse);
    let error = || SchemaError::Type {
        field: name.to_owned(),
        ty: ty.as_str().map_or_else(|| ty.to_string(), str::to_owned),
    };
    Ok(Field {
        name: name.to_owned(),
        ty: found.ok_or_else(error)?,
    })
}

fn from_list(list: &[Value]) -> Result<Vec<Field>, SchemaError> {
    let one = |(i, entry): (usize, &Value)| {
        let wrong = SchemaError::Entry { index: i + 1 };
        let map = entry.as_object().ok_or_else(|| wrong.clone())?;
        match (map.get("name"), map.get("type")) {
            (Some(Value::String(name)), Some(ty @ Value::String(_))) if map.len() == 2 => {
                field(name, ty)
            }
            _ => Err(wrong),
        }
    };
    list.iter().enumerate().map(one).collect()
}

/// One property of a JSON Schema: `type` may be a list with `null`; a string with format
/// `date-time` is a timestamp.
fn from_property((name, property): (&String, &Value)) -> Result<Field, SchemaError> {
    let types: Vec<&Value> = match property.get("type") {
        Some(Value::Array(types)) => types.iter().filter(|t| *t != "null").collect(),
        Some(ty) => vec![ty],
        None => Vec::new(),
    };
    let format = property.get("format").and_then(Value::as_str);
    let encoding = property.get("contentEncoding").and_then(Value::as_str);
    match types.as_slice() {
        [ty] if *ty == "string" && format == Some("date-time") => Ok(Field {
            name: name.clone(),
            ty: FieldType::Timestamp,
        }),
        [ty] if *ty == "string" && encoding == Some("base64") => Ok(Field {
            name: name.clone(),
            ty: FieldType::Bytes,
        }),
        [ty] => field(name, ty),
        _ => field(name, property.get("type").unwrap_or(&Value::Null)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(json: &str, expected: &str) {
        let got = Schema::from_json(&serde_json::from_str(json).unwrap());
        assert_eq!(
            got.map_or_else(|e| e.to_string(), |s| s.to_string()),
            expected,
            "{json}"
        );
    }

    #[test]
    fn the_three_ways_to_write_it() {
        check(r#"{"b":"string","a":"int"}"#, "b: string, a: int64");
        check(
            r#"[{"name":"t","type":"timestamp"},{"name":"x","type":"f64"}]"#,
            "t: timestamp, x: float64",
        );
        check(r#"{"fields":[{"name":"ok","type":"bool"}]}"#, "ok: bool");
        check(
            r#"{"type":"object","properties":{
                "n":{"type":["integer","null"]},"d":{"type":"number"},"s":{"type":"string"},
                "t":{"type":"string","format":"date-time"},"k":{"type":"boolean"}}}"#,
            "n: int64, d: float64, s: string, t: timestamp, k: bool",
        );
    }

    #[test]
    fn refused() {
        let shape = SchemaError::Shape.to_string();
        let types = "the types are bool, int64, float64, string, bytes and timestamp";
        check("3", &shape);
        check("{}", "a schema needs at least one field");
        check(
            r#"{"a":"varchar"}"#,
            &format!("field `a` has type `varchar`; {types}"),
        );
        check(
            r#"{"a":{"x":1}}"#,
            &format!("field `a` has type `{{\"x\":1}}`; {types}"),
        );
        check(
            r#"{"properties":{"a":{"type":["string","integer"]}}}"#,
            &format!("field `a` has type `[\"string\",\"integer\"]`; {types}"),
        );
        check(
            r#"[{"name":"a"}]"#,
            "field 1 of the list needs `name` and `type`, both text, and nothing else",
        );
        check(
            r#"[{"name":"a","type":"int"},{"name":"a","type":"int"}]"#,
            "field `a` is there twice",
        );
        check(
            r#"{"_key":"int"}"#,
            "field name `_key` is taken by a column every topic has; choose another",
        );
        check(
            r#"{"":"int"}"#,
            "field 1 has a name of 0 bytes; it needs 1 to 256",
        );
    }

    #[test]
    fn what_is_wrong_has_a_place() {
        let check = |json: &str, expected: (usize, usize)| {
            let error = Schema::from_json(&serde_json::from_str(json).unwrap()).unwrap_err();
            assert_eq!(error.place(json), expected, "{error}");
        };
        check("{\n  \"b\": \"int\",\n  \"a\": \"varchar\"\n}", (3, 3));
        check(
            "[{\"name\":\n\"int\",\"type\":\"int\"},\n {\"type\":\"a\", \"name\" : \"a\"}]",
            (3, 24),
        );
        check(
            "{\"type\":\"record\",\"name\":\"a\",\n\"fields\":[\n\
             {\"name\":\"c\",\"type\":{\"type\":\"map\"}}]}",
            (3, 9),
        );
        check("3", (1, 1));
    }

    #[test]
    fn avro_schemas_have_columns() {
        let text = r#"{"type":"record","name":"r","fields":[{"name":"a","type":"int"}]}"#;
        let schema = Schema::from_json(&serde_json::from_str(text).unwrap()).unwrap();
        assert_eq!(schema.to_string(), "a: int64");
        assert_eq!(schema.avro_text(), text);
        let json = serde_json::to_string(&schema).unwrap();
        assert_eq!(serde_json::from_str::<Schema>(&json).unwrap(), schema);
        let other = Schema {
            avro: Some(text.replace("int", "string")),
            ..schema
        };
        let reason = "Avro schema: its fields are not those of the list beside it";
        assert_eq!(other.check().unwrap_err().to_string(), reason);
        let list = Schema::from_json(&serde_json::json!({"a": "int64", "t": "timestamp"}));
        let list = list.unwrap();
        let derived: Value = serde_json::from_str(&list.avro_text()).unwrap();
        let derived = Schema::from_json(&derived).unwrap();
        assert_eq!(derived.fields, list.fields);
        assert_eq!(derived.to_avro(), list.to_avro());
    }

    #[test]
    fn a_new_version_only_adds_at_the_end() {
        let schema = |json: &str| Schema::from_json(&serde_json::from_str(json).unwrap()).unwrap();
        let before = schema(r#"{"a":"int64","b":"string"}"#);
        let check = |json: &str, expected: &str| {
            let got = schema(json).extends(&before);
            assert_eq!(
                got.map_or_else(|e| e.to_string(), |()| "ok".to_owned()),
                expected
            );
        };
        check(r#"{"a":"int64","b":"string"}"#, "ok");
        check(r#"{"a":"int64","b":"string","c":"bool"}"#, "ok");
        let missing = "field `b` is missing; a new version keeps all fields and adds at the end";
        check(r#"{"a":"int64"}"#, missing);
        check(r#"{"a":"int64","c":"bool"}"#, missing);
        check(
            r#"{"a":"int64","b":"bytes"}"#,
            "field `b` is string and cannot become bytes; add a field of another name",
        );
        check(
            r#"{"a":"int64","c":"bool","b":"string"}"#,
            "field `b` is not where it was; a new version adds at the end",
        );
    }

    #[test]
    fn arrow_and_serde() {
        let schema = Schema::from_json(&serde_json::json!({"t": "timestamp", "s": "string"}));
        let schema = schema.unwrap();
        let arrow = schema.to_arrow();
        assert!(arrow.fields().iter().all(|f| f.is_nullable()));
        assert_eq!(arrow.field(1).data_type(), &DataType::Utf8);
        let json = serde_json::to_string(&schema).unwrap();
        assert_eq!(
            json,
            r#"{"fields":[{"name":"t","type":"timestamp"},{"name":"s","type":"string"}]}"#
        );
        assert_eq!(serde_json::from_str::<Schema>(&json).unwrap(), schema);
    }
}
