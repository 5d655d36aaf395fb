//! Values that are no text as JSON at the command line: what `produce` reads and `consume` shows.
//!
//! Called by: `cli::produce`, `cli::consume`. Calls: codec. Of topics of Avro; of topics of columns,
//! which are JSON at the server's door, so that a line that does not fit is named by its number;
//! values of all other topics are taken and shown as they are.
//! Invariants: rows keep their order; what cannot be read as the topic's schema is shown as it is.
//! Refuses: a line that the schema has no form for, with the reason.

use std::sync::Arc;

use arrow::array::{Array, BinaryArray};
use codec::Format;
use model::{PayloadCodec, Topic};

/// Between JSON and the form in which a topic keeps its values.
pub struct Translation {
    kept: Format,
    json: Format,
}

impl Translation {
    /// `None` if the topic's values are taken as they are.
    pub fn of(topic: &Topic) -> Option<Translation> {
        let schema = Arc::new(topic.spec.schema.clone()?);
        if !matches!(topic.spec.codec, PayloadCodec::Avro | PayloadCodec::Columns) {
            return None;
        }
        Some(Translation {
            kept: Format::new(topic.spec.codec, Arc::clone(&schema))?,
            json: Format::new(PayloadCodec::Json, schema)?,
        })
    }

    /// JSON objects as the topic keeps them, up to the first that it cannot keep; with the reason.
    pub fn kept(&self, json: &BinaryArray) -> (BinaryArray, Option<String>) {
        let read = self.json.decode(json, &self.json.all());
        let written = match self.kept.write(&read.columns) {
            Ok(written) => written,
            Err(error) => return (BinaryArray::new_null(0), Some(error.to_string())),
        };
        let first = |errors: Vec<(u32, String)>| errors.into_iter().next();
        let (unread, unwritten) = (first(read.errors), first(written.errors));
        // a row that was not read is all null: what is said of that is not the reason
        let bad = match (unread, unwritten) {
            (Some(unread), Some(unwritten)) if unwritten.0 < unread.0 => Some(unwritten),
            (Some(unread), _) => Some(unread),
            (None, unwritten) => unwritten,
        };
        match bad {
            None => (written.values, None),
            Some((row, reason)) => (written.values.slice(0, row as usize), Some(reason)),
        }
    }

    /// The values as JSON objects.
    pub fn shown(&self, kept: &BinaryArray) -> BinaryArray {
        let read = self.kept.decode(kept, &self.kept.all());
        let Ok(json) = self.json.encode(&read.columns) else {
            return kept.clone();
        };
        let is_bad = |row: usize| {
            let row = row as u32;
            read.errors
                .binary_search_by_key(&row, |(bad, _)| *bad)
                .is_ok()
        };
        let value = |row: usize| match kept.is_valid(row) {
            true if is_bad(row) => Some(kept.value(row)),
            true => Some(json.value(row)),
            false => None,
        };
        (0..kept.len()).map(value).collect()
    }
}

#[cfg(test)]
mod tests {
    use model::{Schema, TopicId, TopicSpec};

    use super::*;

    fn translation() -> Translation {
        let schema = serde_json::json!({"type": "record", "name": "r", "fields": [
            {"name": "a", "type": "int"}, {"name": "b", "type": ["null", "string"]}]});
        let spec = TopicSpec {
            codec: PayloadCodec::Avro,
            schema: Some(Schema::from_json(&schema).unwrap()),
            ..TopicSpec::default()
        };
        Translation::of(&Topic::new(TopicId(9), "t", spec)).unwrap()
    }

    #[test]
    fn json_goes_in_and_comes_out() {
        let translation = translation();
        let lines: Vec<&[u8]> = vec![br#"{"a":1,"b":"x"}"#, br#"{"a":-1}"#];
        let (kept, bad) = translation.kept(&BinaryArray::from_vec(lines));
        assert_eq!(bad, None);
        let values: Vec<&[u8]> = kept.iter().flatten().collect();
        assert_eq!(values, [&b"\x02\x02\x02x"[..], b"\x01\x00"]);
        let with_others = BinaryArray::from_opt_vec(vec![
            Some(kept.value(0)),
            None,
            Some(b"?"),
            Some(kept.value(1)),
        ]);
        let shown = translation.shown(&with_others);
        let expected: [Option<&[u8]>; 4] = [
            Some(br#"{"a":1,"b":"x"}"#),
            None,
            Some(b"?"),
            Some(br#"{"a":-1,"b":null}"#),
        ];
        assert_eq!(shown.iter().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn lines_up_to_the_first_bad_one_are_kept() {
        let check = |lines: Vec<&[u8]>, kept: usize, reason: &str| {
            let (values, bad) = translation().kept(&BinaryArray::from_vec(lines));
            assert_eq!((values.len(), bad.as_deref()), (kept, Some(reason)));
        };
        let good: &[u8] = br#"{"a":1}"#;
        check(
            vec![good, br#"{"a":"x"}"#, b"{}"],
            1,
            "field `a` (int64): expected an integer, found string \"x\"",
        );
        check(
            vec![good, good, b"{}", b"{"],
            2,
            "field `a` (Avro int): it is null, and the schema has no null there",
        );
    }
}
