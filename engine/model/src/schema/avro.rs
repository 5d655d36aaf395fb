//! Schemas in Avro's form: the fields of a record, and how each is written.
//!
//! Called by `schema` (what a user wrote) and codec (which reads and writes the datums).
//! Invariants: every field has a column of the topic's types; the canonical form and its
//! fingerprint are those of the specification, so that other implementations know the schema.
//! Refuses, with the field and the reason, what has no column: nested records, arrays, maps,
//! unions of more than null and one type, times of day, decimals.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use serde_json::{Map, Value, json};

use super::{Field, FieldType, SchemaError};
use crate::limits::RECORD_BYTES_MAX;

/// The first two bytes of a single object, before the fingerprint of its schema.
pub const SINGLE_OBJECT_MARK: [u8; 2] = [0xc3, 0x01];

/// What the fingerprint of no bytes is.
const FINGERPRINT_EMPTY: u64 = 0xc15d_213a_a4d7_a795;

/// A record as Avro writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AvroRecord {
    /// With its namespace.
    pub name: String,
    pub fields: Vec<AvroField>,
}

/// One field of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AvroField {
    pub name: String,
    pub ty: AvroType,
    pub branches: Branches,
}

/// Whether a union with null is around a field's type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Branches {
    /// No union: the field is never null.
    None,
    /// A union of this type alone.
    One,
    NullFirst,
    NullLast,
}

/// How a value that is there is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AvroType {
    /// Nothing: the field is always null.
    Null,
    Boolean,
    Int,
    Long,
    Float,
    Double,
    Bytes,
    String,
    Enum {
        name: String,
        symbols: Vec<String>,
    },
    Fixed {
        name: String,
        /// Bytes.
        size: usize,
    },
    /// Days since the epoch.
    Date,
    TimestampMillis,
    TimestampMicros,
}

impl AvroType {
    /// The type of the column that holds it.
    pub fn field_type(&self) -> FieldType {
        match self {
            AvroType::Boolean => FieldType::Bool,
            AvroType::Int | AvroType::Long => FieldType::Int64,
            AvroType::Float | AvroType::Double => FieldType::Float64,
            AvroType::Bytes | AvroType::Fixed { .. } => FieldType::Bytes,
            AvroType::Null | AvroType::String | AvroType::Enum { .. } => FieldType::String,
            AvroType::Date | AvroType::TimestampMillis | AvroType::TimestampMicros => {
                FieldType::Timestamp
            }
        }
    }
}

impl fmt::Display for AvroType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            AvroType::Null => "null",
            AvroType::Boolean => "boolean",
            AvroType::Int => "int",
            AvroType::Long => "long",
            AvroType::Float => "float",
            AvroType::Double => "double",
            AvroType::Bytes => "bytes",
            AvroType::String => "string",
            AvroType::Enum { name, .. } => return write!(f, "enum {name}"),
            AvroType::Fixed { name, size } => return write!(f, "fixed {name} of {size} bytes"),
            AvroType::Date => "date",
            AvroType::TimestampMillis => "timestamp-millis",
            AvroType::TimestampMicros => "timestamp-micros",
        })
    }
}

impl AvroField {
    /// Whether there is a way to write that it is null.
    pub fn has_null(&self) -> bool {
        self.ty == AvroType::Null
            || matches!(self.branches, Branches::NullFirst | Branches::NullLast)
    }
}

impl AvroRecord {
    /// From the JSON of a schema file.
    ///
    /// # Errors
    /// What is no record, or has a field without a column; names the field.
    pub fn parse(schema: &Value) -> Result<AvroRecord, SchemaError> {
        let Value::Object(record) = schema else {
            return Err(whole("it is not a JSON object"));
        };
        if record.get("type").and_then(Value::as_str) != Some("record") {
            return Err(whole("its type is not `record`"));
        }
        let name = full_name(record, "").map_err(whole)?;
        let Some(Value::Array(list)) = record.get("fields") else {
            return Err(whole("it has no list of `fields`"));
        };
        let mut names = Names {
            space: space_of(&name).to_owned(),
            known: BTreeMap::new(),
        };
        let mut fields = Vec::with_capacity(list.len());
        for (index, entry) in list.iter().enumerate() {
            fields.push(names.field(index, entry)?);
        }
        Ok(AvroRecord { name, fields })
    }

    /// The fields as columns.
    pub fn columns(&self) -> Vec<Field> {
        let column = |field: &AvroField| Field {
            name: field.name.clone(),
            ty: field.ty.field_type(),
        };
        self.fields.iter().map(column).collect()
    }

    /// The schema's Parsing Canonical Form, by which implementations compare schemas.
    pub fn canonical(&self) -> String {
        let mut seen = Vec::new();
        let mut out = String::new();
        let _ = write!(
            out,
            r#"{{"name":{},"type":"record","fields":["#,
            quoted(&self.name)
        );
        for (index, field) in self.fields.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            let ty = canonical_type(&field.ty, &mut seen);
            let ty = match field.branches {
                Branches::None => ty,
                Branches::One => format!("[{ty}]"),
                Branches::NullFirst => format!(r#"["null",{ty}]"#),
                Branches::NullLast => format!(r#"[{ty},"null"]"#),
            };
            let _ = write!(
                out,
                r#"{comma}{{"name":{},"type":{ty}}}"#,
                quoted(&field.name)
            );
        }
        out.push_str("]}");
        out
    }

    /// CRC-64-AVRO of the canonical form.
    pub fn fingerprint(&self) -> u64 {
        fingerprint(self.canonical().as_bytes())
    }
}

/// The record that a list of fields stands for: each a union of null and its type.
pub(super) fn derived(fields: &[Field]) -> Value {
    let ty = |ty: FieldType| match ty {
        FieldType::Bool => json!("boolean"),
        FieldType::Int64 => json!("long"),
        FieldType::Float64 => json!("double"),
        FieldType::String => json!("string"),
        FieldType::Bytes => json!("bytes"),
        FieldType::Timestamp => json!({"type": "long", "logicalType": "timestamp-micros"}),
    };
    let field =
        |f: &Field| json!({"name": f.name, "type": ["null", ty(f.ty)], "default": Value::Null});
    let fields: Vec<Value> = fields.iter().map(field).collect();
    json!({"type": "record", "name": "row", "fields": fields})
}

/// CRC-64-AVRO.
fn fingerprint(bytes: &[u8]) -> u64 {
    bytes.iter().fold(FINGERPRINT_EMPTY, |fingerprint, byte| {
        let step = |crc: u64, _| (crc >> 1) ^ (FINGERPRINT_EMPTY & 0u64.wrapping_sub(crc & 1));
        (0..8).fold(fingerprint ^ u64::from(*byte), step)
    })
}

fn quoted(text: &str) -> Value {
    Value::from(text)
}

fn canonical_type(ty: &AvroType, seen: &mut Vec<String>) -> String {
    let (name, rest) = match ty {
        AvroType::Enum { name, symbols } => {
            let symbols = Value::from(symbols.as_slice());
            (name, format!(r#""type":"enum","symbols":{symbols}"#))
        }
        AvroType::Fixed { name, size } => (name, format!(r#""type":"fixed","size":{size}"#)),
        AvroType::Date => return r#""int""#.to_owned(),
        AvroType::TimestampMillis | AvroType::TimestampMicros => return r#""long""#.to_owned(),
        primitive => return format!(r#""{primitive}""#),
    };
    if seen.contains(name) {
        return quoted(name).to_string();
    }
    seen.push(name.clone());
    format!(r#"{{"name":{},{rest}}}"#, quoted(name))
}

fn whole(reason: impl Into<String>) -> SchemaError {
    SchemaError::Avro {
        reason: reason.into(),
    }
}

/// The part of a full name before its last dot.
fn space_of(name: &str) -> &str {
    name.rsplit_once('.').map_or("", |(space, _)| space)
}

/// Whether Avro takes it as a name: a letter or `_`, then letters, digits and `_`.
pub(super) fn is_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    let first = bytes
        .next()
        .is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
    first && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// The name of a record, an enum or a fixed, with its namespace.
fn full_name(named: &Map<String, Value>, around: &str) -> Result<String, String> {
    let Some(name) = named.get("name").and_then(Value::as_str) else {
        return Err("it needs a `name`".to_owned());
    };
    let full = match named.get("namespace").and_then(Value::as_str) {
        _ if name.contains('.') => name.to_owned(),
        Some("") => name.to_owned(),
        Some(space) => format!("{space}.{name}"),
        None if around.is_empty() => name.to_owned(),
        None => format!("{around}.{name}"),
    };
    match full.split('.').all(is_name) {
        true => Ok(full),
        false => Err(format!(
            "`{full}` is no name: a letter or `_`, then letters, digits and `_`"
        )),
    }
}

/// Named types, which are written once and then called by their name.
struct Names {
    /// The record's namespace.
    space: String,
    known: BTreeMap<String, AvroType>,
}

impl Names {
    fn field(&mut self, index: usize, entry: &Value) -> Result<AvroField, SchemaError> {
        let name = entry.get("name").and_then(Value::as_str);
        let (Some(name), Some(ty)) = (name, entry.get("type")) else {
            return Err(whole(format!(
                "field {} needs a `name` and a `type`",
                index + 1
            )));
        };
        let refused = |reason: String| SchemaError::AvroField {
            field: name.to_owned(),
            reason,
        };
        if !is_name(name) {
            return Err(refused(
                "it is no name: a letter or `_`, then letters, digits and `_`".to_owned(),
            ));
        }
        let (ty, branches) = match ty {
            Value::Array(union) => self.union(union),
            ty => self.ty(ty).map(|ty| (ty, Branches::None)),
        }
        .map_err(refused)?;
        Ok(AvroField {
            name: name.to_owned(),
            ty,
            branches,
        })
    }

    fn union(&mut self, union: &[Value]) -> Result<(AvroType, Branches), String> {
        let is_null = |ty: &Value| {
            ty.as_str() == Some("null") || ty.get("type").and_then(Value::as_str) == Some("null")
        };
        let (ty, branches) = match union {
            [one] => (one, Branches::One),
            [null, ty] if is_null(null) => (ty, Branches::NullFirst),
            [ty, null] if is_null(null) => (ty, Branches::NullLast),
            _ => {
                return Err(
                    "a union of more than null and one type has no column; make a field of each"
                        .to_owned(),
                );
            }
        };
        match self.ty(ty)? {
            AvroType::Null if branches != Branches::One => {
                Err("a union has each type once".to_owned())
            }
            ty => Ok((ty, branches)),
        }
    }

    fn ty(&mut self, ty: &Value) -> Result<AvroType, String> {
        let (name, attributes) = match ty {
            Value::String(name) => (name.as_str(), None),
            Value::Object(map) => match map.get("type") {
                Some(Value::String(name)) => (name.as_str(), Some(map)),
                // a type inside a type, which says nothing of its own
                Some(inner @ Value::Object(_)) => return self.ty(inner),
                _ => return Err(format!("`{ty}` is no type")),
            },
            Value::Array(_) => return Err("a union stands in a union".to_owned()),
            _ => return Err(format!("`{ty}` is no type")),
        };
        let logical = attributes.and_then(|map| map.get("logicalType"));
        let logical = logical.and_then(Value::as_str).unwrap_or_default();
        match (name, attributes) {
            ("enum", Some(map)) => self.enumeration(map),
            ("fixed", Some(map)) => self.fixed(map, logical),
            ("record" | "error" | "array" | "map", _) => Err(format!(
                "type `{name}` has no column: a topic's fields are flat; write its parts as fields \
                 of the record"
            )),
            _ => match primitive(name, logical) {
                Some(ty) => ty,
                None => self.named(name),
            },
        }
    }

    fn named(&self, name: &str) -> Result<AvroType, String> {
        let inside = format!("{}.{name}", self.space);
        let known = self.known.get(&inside).or_else(|| self.known.get(name));
        known
            .cloned()
            .ok_or_else(|| format!("type `{name}` is not known"))
    }

    /// Remembers a named type.
    fn define(&mut self, name: String, ty: AvroType) -> Result<AvroType, String> {
        match self.known.insert(name.clone(), ty.clone()) {
            None => Ok(ty),
            Some(_) => Err(format!("type `{name}` is there twice")),
        }
    }

    fn enumeration(&mut self, map: &Map<String, Value>) -> Result<AvroType, String> {
        let name = full_name(map, &self.space)?;
        let Some(Value::Array(list)) = map.get("symbols") else {
            return Err(format!("enum `{name}` has no list of `symbols`"));
        };
        let mut symbols: Vec<String> = Vec::with_capacity(list.len());
        for symbol in list {
            match symbol.as_str() {
                Some(symbol) if is_name(symbol) => symbols.push(symbol.to_owned()),
                _ => return Err(format!("`{symbol}` is no symbol for enum `{name}`")),
            }
        }
        let mut sorted: Vec<&String> = symbols.iter().collect();
        sorted.sort();
        if let Some(twice) = sorted.windows(2).find(|two| two[0] == two[1]) {
            return Err(format!("enum `{name}` has symbol `{}` twice", twice[0]));
        }
        if symbols.is_empty() {
            return Err(format!("enum `{name}` has no symbols"));
        }
        let ty = AvroType::Enum {
            name: name.clone(),
            symbols,
        };
        self.define(name, ty)
    }

    fn fixed(&mut self, map: &Map<String, Value>, logical: &str) -> Result<AvroType, String> {
        if logical == "decimal" {
            return Err(no_decimal());
        }
        let name = full_name(map, &self.space)?;
        let size = map.get("size").and_then(Value::as_u64);
        let size = size.and_then(|size| usize::try_from(size).ok());
        match size.filter(|size| *size <= RECORD_BYTES_MAX) {
            Some(size) => {
                let ty = AvroType::Fixed {
                    name: name.clone(),
                    size,
                };
                self.define(name, ty)
            }
            None => Err(format!(
                "fixed `{name}` needs a `size` of 0 to {RECORD_BYTES_MAX} bytes"
            )),
        }
    }
}

fn no_decimal() -> String {
    "a decimal has no column that keeps its digits; leave `logicalType` out to have its bytes"
        .to_owned()
}

/// A type without a name of its own; `None` if it is none of these. A logical type that is not
/// known counts as the type it stands on, as the specification has it.
fn primitive(name: &str, logical: &str) -> Option<Result<AvroType, String>> {
    let refused = |reason: &str| {
        Some(Err(format!(
            "logical type `{logical}` {reason}; leave it out to have the number"
        )))
    };
    Some(Ok(match (name, logical) {
        ("int", "time-millis") | ("long", "time-micros") => {
            return refused("is a time of day, which has no column");
        }
        ("long", "local-timestamp-millis" | "local-timestamp-micros" | "local-timestamp-nanos") => {
            return refused("has no zone, and a timestamp is UTC");
        }
        ("long", "timestamp-nanos") => {
            return refused("is finer than the microseconds of a timestamp");
        }
        ("bytes", "decimal") => return Some(Err(no_decimal())),
        ("int", "date") => AvroType::Date,
        ("long", "timestamp-millis") => AvroType::TimestampMillis,
        ("long", "timestamp-micros") => AvroType::TimestampMicros,
        ("null", _) => AvroType::Null,
        ("boolean", _) => AvroType::Boolean,
        ("int", _) => AvroType::Int,
        ("long", _) => AvroType::Long,
        ("float", _) => AvroType::Float,
        ("double", _) => AvroType::Double,
        ("bytes", _) => AvroType::Bytes,
        ("string", _) => AvroType::String,
        _ => return None,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Types of a field `f`, a line each; what its column, its Avro type and its canonical form
    /// are, or the error, out.
    fn check(types: &str, expected: &str) {
        let one = |ty: &str| {
            let text = format!(
                r#"{{"type":"record","name":"r","namespace":"n","fields":[{{"name":"f","type":{ty}}}]}}"#
            );
            match AvroRecord::parse(&serde_json::from_str(&text).unwrap()) {
                Ok(record) => {
                    let field = &record.fields[0];
                    let canonical = record.canonical();
                    let canonical = canonical.strip_prefix(
                        r#"{"name":"n.r","type":"record","fields":[{"name":"f","type":"#,
                    );
                    let canonical = canonical.and_then(|rest| rest.strip_suffix("}]}")).unwrap();
                    format!("{}, {}: {canonical}", field.ty.field_type(), field.ty)
                }
                Err(error) => error.to_string(),
            }
        };
        let trim = |text: &str| -> Vec<String> {
            let lines = text.trim().lines();
            lines.map(|line| line.trim().to_owned()).collect()
        };
        let found: Vec<String> = trim(types).iter().map(|ty| one(ty)).collect();
        assert_eq!(found, trim(expected));
    }

    #[test]
    fn types_have_columns() {
        check(
            r#"
            "long"
            {"type":"int","logicalType":"date"}
            ["null","double"]
            [{"type":"long","logicalType":"timestamp-millis"},"null"]
            ["bytes"]
            {"type":{"type":"string","logicalType":"uuid"}}
            {"type":"enum","name":"e","symbols":["A","B"],"doc":"x"}
            ["null",{"type":"fixed","name":"x.y","namespace":"z","size":16,"logicalType":"uuid"}]
            {"type":"int","logicalType":"mine"}
            "null"
            "#,
            r#"
            int64, long: "long"
            timestamp, date: "int"
            float64, double: ["null","double"]
            timestamp, timestamp-millis: ["long","null"]
            bytes, bytes: ["bytes"]
            string, string: "string"
            string, enum n.e: {"name":"n.e","type":"enum","symbols":["A","B"]}
            bytes, fixed x.y of 16 bytes: ["null",{"name":"x.y","type":"fixed","size":16}]
            int64, int: "int"
            string, null: "null"
            "#,
        );
    }

    #[test]
    fn what_has_no_column_is_refused_with_the_reason() {
        check(
            r#"
            {"type":"array","items":"int"}
            ["null","int","string"]
            ["null","null"]
            ["null",["int"]]
            {"type":"bytes","logicalType":"decimal","precision":4}
            {"type":"fixed","name":"d","size":8,"logicalType":"decimal"}
            {"type":"int","logicalType":"time-millis"}
            {"type":"long","logicalType":"local-timestamp-micros"}
            {"type":"long","logicalType":"timestamp-nanos"}
            "integer"
            3
            {"type":"enum","name":"e","symbols":[]}
            {"type":"enum","name":"e","symbols":["A","A"]}
            {"type":"enum","name":"e","symbols":["a-b"]}
            {"type":"fixed","name":"1","size":1}
            {"type":"fixed","name":"f","size":-1}
            "#,
            "
            Avro schema, field `f`: type `array` has no column: a topic's fields are flat; write \
            its parts as fields of the record
            Avro schema, field `f`: a union of more than null and one type has no column; make a field of each
            Avro schema, field `f`: a union has each type once
            Avro schema, field `f`: a union stands in a union
            Avro schema, field `f`: a decimal has no column that keeps its digits; leave \
            `logicalType` out to have its bytes
            Avro schema, field `f`: a decimal has no column that keeps its digits; leave \
            `logicalType` out to have its bytes
            Avro schema, field `f`: logical type `time-millis` is a time of day, which has no \
            column; leave it out to have the number
            Avro schema, field `f`: logical type `local-timestamp-micros` has no zone, and a \
            timestamp is UTC; leave it out to have the number
            Avro schema, field `f`: logical type `timestamp-nanos` is finer than the microseconds \
            of a timestamp; leave it out to have the number
            Avro schema, field `f`: type `integer` is not known
            Avro schema, field `f`: `3` is no type
            Avro schema, field `f`: enum `n.e` has no symbols
            Avro schema, field `f`: enum `n.e` has symbol `A` twice
            Avro schema, field `f`: `\"a-b\"` is no symbol for enum `n.e`
            Avro schema, field `f`: `n.1` is no name: a letter or `_`, then letters, digits and `_`
            Avro schema, field `f`: fixed `n.f` needs a `size` of 0 to 8388608 bytes
            ",
        );
    }

    #[test]
    fn named_types_are_called_by_name() {
        let parse = |text: &str| AvroRecord::parse(&serde_json::from_str(text).unwrap());
        let record = parse(
            r#"{"type":"record","name":"n.r","fields":[
                {"name":"a","type":{"type":"enum","name":"e","symbols":["A"]}},
                {"name":"b","type":["null","e"],"default":null},
                {"name":"c","type":"n.e"}]}"#,
        );
        let canonical = record.unwrap().canonical();
        let fields = [
            r#"{"name":"a","type":{"name":"n.e","type":"enum","symbols":["A"]}}"#,
            r#"{"name":"b","type":["null","n.e"]}"#,
            r#"{"name":"c","type":"n.e"}"#,
        ];
        let fields = fields.join(",");
        let expected = format!(r#"{{"name":"n.r","type":"record","fields":[{fields}]}}"#);
        assert_eq!(canonical, expected);
        let wrong = |text: &str| parse(text).unwrap_err().to_string();
        assert_eq!(wrong("[]"), "Avro schema: it is not a JSON object");
        assert_eq!(
            wrong(r#"{"type":"record","name":"r"}"#),
            "Avro schema: it has no list of `fields`"
        );
        assert_eq!(
            wrong(r#"{"type":"record","fields":[]}"#),
            "Avro schema: it needs a `name`"
        );
        assert_eq!(
            wrong(r#"{"type":"record","name":"r","fields":[{"name":"a"}]}"#),
            "Avro schema: field 1 needs a `name` and a `type`"
        );
    }

    #[test]
    fn fingerprints_are_those_of_the_specification() {
        // from the test data of Apache Avro (schema-tests.txt)
        assert_eq!(fingerprint(br#""null""#), 7_195_948_357_588_979_594);
        assert_eq!(
            fingerprint(br#""boolean""#) as i64,
            -6_970_731_678_124_411_036
        );
        assert_eq!(fingerprint(br#""int""#), 8_247_732_601_305_521_295);
        assert_eq!(fingerprint(b""), FINGERPRINT_EMPTY);
    }
}
