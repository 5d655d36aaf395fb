//! File source: formats, keys, compression, limits, and what each bad input says.

use std::io::{self, Read};

use proptest::prelude::*;

use super::*;

/// Gives at most `step` bytes a read, as a pipe does.
struct Drip {
    bytes: Vec<u8>,
    at: usize,
    step: usize,
}

impl Read for Drip {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let most = into.len().min(self.step).min(self.bytes.len() - self.at);
        into[..most].copy_from_slice(&self.bytes[self.at..self.at + most]);
        self.at += most;
        Ok(most)
    }
}

fn source(format: Format, key: Option<&str>, bytes_max: usize) -> FileSource {
    FileSource {
        format,
        key: key.map(str::to_string),
        record_bytes_max: bytes_max,
    }
}

fn input(bytes: &[u8], step: usize) -> Input {
    let reader = Box::new(Drip {
        bytes: bytes.to_vec(),
        at: 0,
        step,
    });
    Input::Reader {
        name: "in".to_string(),
        reader,
    }
}

/// Reads `text` and renders every record as `LINE KEY|VALUE`, an error as its message.
fn check(format: Format, key: Option<&str>, text: &[u8], want: &[&str]) {
    for step in [1, 3, 1 << 20] {
        let mut got = Vec::new();
        match open(input(text, step), source(format, key, 40)) {
            Err(error) => got.push(error.to_string()),
            Ok(records) => got.extend(records.map(|record| match record {
                Err(error) => error.to_string(),
                Ok(SourceRecord { key, value, line }) => {
                    let key = key.map_or("-".into(), |key| key.escape_ascii().to_string());
                    format!("{line} {key}|{}", value.escape_ascii())
                }
            })),
        }
        assert_eq!(got, want, "reading {step} bytes at a time");
    }
}

#[test]
fn jsonl_keeps_bytes_and_skips_empty_lines() {
    check(
        Format::Jsonl,
        None,
        b"{\"a\":1}\n\n not json \r\n\r\n\xff\xfe\nlast",
        &[
            r#"1 -|{\"a\":1}"#,
            "3 -| not json ",
            r"5 -|\xff\xfe",
            "6 -|last",
        ],
    );
    check(Format::Jsonl, None, b"", &[]);
    check(Format::Jsonl, None, b"\n\n", &[]);
}

#[test]
fn jsonl_key_is_the_text_of_a_field() {
    check(
        Format::Jsonl,
        Some("k"),
        br#"{"k":"a\u00e9"}
{"x":{"k":1},"k":"b","k":2}
{"k": 1.50}
{"k":null}
{"x":1}
[1]
{"k":"cut
{"k":true,"x":[1,{}]}
"#,
        &[
            r#"1 a\xc3\xa9|{\"k\":\"a\\u00e9\"}"#,
            r#"2 b|{\"x\":{\"k\":1},\"k\":\"b\",\"k\":2}"#,
            r#"3 1.50|{\"k\": 1.50}"#,
            r#"4 -|{\"k\":null}"#,
            r#"5 -|{\"x\":1}"#,
            "6 -|[1]",
            r#"7 -|{\"k\":\"cut"#,
            r#"8 true|{\"k\":true,\"x\":[1,{}]}"#,
        ],
    );
    let mut records = open(
        input(b"1\n{\"k\":2}\n{}\n", 64),
        source(Format::Jsonl, Some("k"), 40),
    )
    .unwrap();
    assert_eq!(records.by_ref().count(), 3);
    assert_eq!(records.unkeyed(), 2);
}

#[test]
fn raw_keeps_every_line() {
    check(
        Format::Raw,
        None,
        b"a\r\n\nb\x00c",
        &["1 -|a\\r", "2 -|", "3 -|b\\x00c"],
    );
    let refused = "in: raw lines have no field \"k\" for a key: use jsonl or csv";
    check(Format::Raw, Some("k"), b"a", &[refused]);
}

#[test]
fn csv_rows_become_objects_of_strings() {
    check(
        Format::Csv,
        Some("b"),
        b"\xef\xbb\xbfa,b\r\n1,x\r\n\"q\"\"\ny\",\r\n\r\n NA , z \n",
        &[
            r#"2 x|{\"a\":\"1\",\"b\":\"x\"}"#,
            r#"3 |{\"a\":\"q\\\"\\ny\",\"b\":\"\"}"#,
            r#"6  z |{\"a\":\" NA \",\"b\":\" z \"}"#,
        ],
    );
    check(
        Format::Csv,
        Some("b"),
        b"a,b\nx\"y,\"p\"q\n\",\",\"a\r\n\"\r\n",
        &[
            r#"2 pq|{\"a\":\"x\\\"y\",\"b\":\"pq\"}"#,
            r#"3 a\r\n|{\"a\":\",\",\"b\":\"a\\r\\n\"}"#,
        ],
    );
    check(Format::Csv, None, b"", &[]);
    check(Format::Csv, None, b"a,b\n", &[]);
}

#[test]
fn csv_errors_name_the_line() {
    check(
        Format::Csv,
        None,
        b"a,b\n1,2\n1,2,3\n4,5\n",
        &[
            r#"2 -|{\"a\":\"1\",\"b\":\"2\"}"#,
            "in:3: the row has 3 fields, the header has 2",
        ],
    );
    check(
        Format::Csv,
        None,
        b"a\n1\n\"2\n3",
        &[
            r#"2 -|{\"a\":\"1\"}"#,
            "in:3: a quote opened in this row is never closed",
        ],
    );
    check(
        Format::Csv,
        None,
        b"a,a\n",
        &["in:1: column \"a\" stands twice in the header"],
    );
    check(
        Format::Csv,
        Some("c"),
        b"a,b\n1,2\n",
        &["in:1: no column \"c\" for the key: the columns are a, b"],
    );
    check(
        Format::Csv,
        None,
        b"a\n\xff\n",
        &["in:2: column \"a\" is not valid UTF-8"],
    );
}

#[test]
fn a_record_above_the_limit_is_refused_without_being_held() {
    let refused = "in:2: the record is larger than 40 bytes: split it";
    let long = [b"ok\n".to_vec(), vec![b'x'; 41], b"\nmore".to_vec()].concat();
    check(Format::Raw, None, &long, &["1 -|ok", refused]);
    let fits = [vec![b'x'; 40], b"\r\n".to_vec()].concat();
    let line = format!("1 -|{}", "x".repeat(40));
    check(Format::Jsonl, None, &fits, &[&line]);

    for (format, head) in [(Format::Jsonl, ""), (Format::Csv, "a\n\"")] {
        // No memory could hold this input; it is refused long before.
        let endless = head.as_bytes().chain(io::repeat(b'x').take(1 << 50));
        let endless = Input::Reader {
            name: "in".to_string(),
            reader: Box::new(endless),
        };
        let mut records = open(endless, source(format, None, 1 << 20)).unwrap();
        let error = records.next().unwrap().unwrap_err();
        assert!(matches!(error, SourceError::TooLarge { .. }), "{error}");
        assert!(records.next().is_none(), "ends after an error");
    }
}

#[test]
fn files_compressed_and_not() {
    let dir = tempfile::tempdir().unwrap();
    let text = b"a,b\n1,2\n";
    let plain = dir.path().join("t.csv");
    std::fs::write(&plain, text).unwrap();
    let packed = dir.path().join("t.csv.zst");
    // Two frames: what `cat a.zst b.zst` gives.
    let frames = [
        zstd::encode_all(&text[..4], 3).unwrap(),
        zstd::encode_all(&text[4..], 3).unwrap(),
    ];
    std::fs::write(&packed, frames.concat()).unwrap();
    for path in [plain, packed.clone()] {
        let records = open(Input::Path(path), source(Format::Csv, None, 99)).unwrap();
        let values: Vec<_> = records.map(|record| record.unwrap().value).collect();
        assert_eq!(values, [&br#"{"a":"1","b":"2"}"#[..]]);
    }
    std::fs::write(&packed, &frames.concat()[..20]).unwrap();
    let failed = match open(Input::Path(packed), source(Format::Csv, None, 99)) {
        Err(error) => error,
        Ok(mut records) => records
            .find_map(Result::err)
            .expect("a cut frame is an error"),
    };
    assert!(matches!(failed, SourceError::Read { .. }), "{failed}");

    let gzip = dir.path().join("t.gz");
    std::fs::write(&gzip, b"").unwrap();
    let missing = dir.path().join("none");
    for (path, want) in [
        (gzip, "gzip is not supported"),
        (missing, "cannot be opened"),
    ] {
        let error = open(Input::Path(path), FileSource::default())
            .err()
            .unwrap()
            .to_string();
        assert!(error.contains(want), "{error}");
    }
    let error = open(Input::Path(dir.path().into()), FileSource::default())
        .err()
        .unwrap();
    assert!(matches!(error, SourceError::Open { .. }), "{error}");
}

#[test]
fn formats_have_names() {
    assert_eq!("csv".parse::<Format>().unwrap(), Format::Csv);
    let error = "xml".parse::<Format>().unwrap_err().to_string();
    assert_eq!(error, "unknown format \"xml\": use jsonl, csv or raw");
}

proptest! {
    /// Whatever the bytes and however they arrive, the lines are those of a plain split.
    #[test]
    fn lines_are_those_of_a_plain_split(
        bytes in prop::collection::vec(prop_oneof![Just(b'\n'), Just(b'\r'), any::<u8>()], 0..400),
        step in 1usize..50,
    ) {
        let mut want: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').collect();
        if want.last().is_some_and(|last| last.is_empty()) {
            want.pop();
        }
        let records = open(input(&bytes, step), source(Format::Raw, None, 1000)).unwrap();
        let got: Vec<_> = records.map(|record| record.unwrap()).collect();
        prop_assert_eq!(got.len(), want.len());
        for (at, record) in got.iter().enumerate() {
            prop_assert_eq!(&record.value[..], want[at]);
            prop_assert_eq!(record.line, at as u64 + 1);
        }
    }

    /// Any table written as CSV comes back as the same strings.
    #[test]
    fn csv_gives_back_any_text(rows in prop::collection::vec(("\\PC{0,8}", "[\"\\\\,\n\r x]{0,6}"), 1..20)) {
        let mut text = csv_of(&[("a".to_string(), "b".to_string())]);
        text.extend(csv_of(&rows));
        let records = open(input(&text, 7), source(Format::Csv, None, 1000)).unwrap();
        let got: Vec<(String, String)> = records
            .map(|record| {
                let value: serde_json::Value =
                    serde_json::from_slice(&record.unwrap().value).unwrap();
                let text = |name: &str| value[name].as_str().unwrap().to_string();
                (text("a"), text("b"))
            })
            .collect();
        prop_assert_eq!(got, rows);
    }
}

fn csv_of(rows: &[(String, String)]) -> Vec<u8> {
    let quoted = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
    rows.iter()
        .flat_map(|(a, b)| format!("{},{}\n", quoted(a), quoted(b)).into_bytes())
        .collect()
}
