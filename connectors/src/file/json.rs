//! The key of a JSON line: the text of one top-level field, found without building a tree.
//!
//! Called by: `file` with `--key`. A string gives its text, any other value its JSON as written.
//! Null, a missing field, and a line that is no JSON object give no key.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

pub(super) fn field_text(line: &[u8], field: &str) -> Option<Bytes> {
    let mut json = serde_json::Deserializer::from_slice(line);
    let found = FieldSeed { field }.deserialize(&mut json).ok()??;
    json.end().ok()?;
    let text = found.get();
    match text.as_bytes().first()? {
        b'n' => None,
        b'"' => {
            let text: Cow<'_, str> = serde_json::from_str::<Text<'_>>(text).ok()?.0;
            Some(Bytes::copy_from_slice(text.as_bytes()))
        }
        _ => Some(Bytes::copy_from_slice(text.as_bytes())),
    }
}

/// Borrows where the string has no escapes.
#[derive(serde::Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

struct FieldSeed<'f> {
    field: &'f str,
}

impl<'de> DeserializeSeed<'de> for FieldSeed<'_> {
    type Value = Option<&'de RawValue>;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for FieldSeed<'_> {
    type Value = Option<&'de RawValue>;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a JSON object")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
        let mut found = None;
        while let Some(Text(name)) = map.next_key::<Text<'de>>()? {
            if found.is_none() && name == self.field {
                found = Some(map.next_value::<&'de RawValue>()?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }
}
