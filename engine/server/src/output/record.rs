//! One record as one line: `consume --format jsonl` and `raw`.
//!
//! Called by: `cli::consume`. Calls: `time`, base64.
//! Invariants: an object's fields come in one order; text is text, what is not UTF-8 is base64
//! under a name that says so; a null key or value is `null`; `raw` prints the value's bytes and
//! a line feed, nothing for a null value but the line feed.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use super::time::rfc3339_us;

/// What is printed of a record.
#[derive(Clone, Copy, Debug)]
pub struct Line<'a> {
    pub topic: &'a str,
    pub partition: u32,
    pub offset: u64,
    pub timestamp_us: i64,
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
}

/// Appends the record as one JSON object and a line feed.
pub fn jsonl<'h>(
    line: &Line<'_>,
    headers: impl Iterator<Item = (&'h str, Option<&'h [u8]>)>,
    out: &mut Vec<u8>,
) {
    let mut object = Map::new();
    object.insert("topic".into(), line.topic.into());
    object.insert("partition".into(), line.partition.into());
    object.insert("offset".into(), line.offset.into());
    object.insert("timestamp".into(), rfc3339_us(line.timestamp_us).into());
    bytes(&mut object, "key", line.key);
    bytes(&mut object, "value", line.value);
    let mut named = Map::new();
    for (name, value) in headers {
        bytes(&mut named, name, value);
    }
    object.insert("headers".into(), Value::Object(named));
    serde_json::to_writer(&mut *out, &object).expect("a Vec takes everything, keys are strings");
    out.push(b'\n');
}

/// Appends the value and a line feed.
pub fn raw(value: Option<&[u8]>, out: &mut Vec<u8>) {
    out.extend_from_slice(value.unwrap_or_default());
    out.push(b'\n');
}

fn bytes(object: &mut Map<String, Value>, name: &str, value: Option<&[u8]>) {
    match value.map(|bytes| (bytes, std::str::from_utf8(bytes))) {
        None => object.insert(name.into(), Value::Null),
        Some((_, Ok(text))) => object.insert(name.into(), text.into()),
        Some((bytes, Err(_))) => {
            object.insert(format!("{name}_base64"), STANDARD.encode(bytes).into())
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(key: Option<&[u8]>, value: Option<&[u8]>, expect: &str) {
        let line = Line {
            topic: "t",
            partition: 1,
            offset: 7,
            timestamp_us: 1,
            key,
            value,
        };
        let headers = [
            ("h", Some(b"x".as_slice())),
            ("b", Some(b"\xff".as_slice())),
        ];
        let mut out = Vec::new();
        jsonl(&line, headers.into_iter(), &mut out);
        let start =
            r#"{"topic":"t","partition":1,"offset":7,"timestamp":"1970-01-01T00:00:00.000001Z","#;
        let end = r#","headers":{"h":"x","b_base64":"/w=="}}"#;
        assert_eq!(
            String::from_utf8(out).unwrap(),
            format!("{start}{expect}{end}\n")
        );
    }

    #[test]
    fn text_bytes_and_null() {
        check(
            None,
            Some(b"{\"a\":1}"),
            r#""key":null,"value":"{\"a\":1}""#,
        );
        check(Some(b"k"), None, r#""key":"k","value":null"#);
        check(
            Some(b"\xfe"),
            Some(b"\xff\x00"),
            r#""key_base64":"/g==","value_base64":"/wA=""#,
        );
    }

    #[test]
    fn raw_lines() {
        let mut out = Vec::new();
        raw(Some(b"a\xff"), &mut out);
        raw(None, &mut out);
        assert_eq!(out, b"a\xff\n\n");
    }
}
