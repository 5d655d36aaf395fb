//! The attributes, natively through the harness: data in, text out.

extern crate rustmq_sdk as rustmq;

use std::time::Duration;

use rustmq::describe::Description;
use rustmq::testing::{Harness, Outcome, Row, run};
use rustmq::{Lookup, Meta, Port, Raw, Record, Reject, Tombstone};
use serde::{Deserialize, Serialize};

#[derive(Deserialize)]
struct Flight<'a> {
    carrier: &'a str,
    delay: Option<f64>,
}

#[derive(Serialize)]
struct Hours<'a> {
    carrier: &'a str,
    hours: f64,
}

#[rustmq::map]
fn tidy(row: Flight<'_>) -> Result<Hours<'_>, Reject> {
    let delay = row.delay.ok_or_else(|| Reject::new("delay", "no delay"))?;
    Ok(Hours {
        carrier: row.carrier,
        hours: delay / 60.0,
    })
}

#[rustmq::map]
fn length(row: &[u8]) -> Option<usize> {
    (!row.is_empty()).then_some(row.len())
}

#[rustmq::filter]
fn late(row: Flight) -> bool {
    row.delay.is_some_and(|delay| delay > 15.0)
}

#[rustmq::flat_map]
fn words(text: &str) -> Vec<Raw<String>> {
    text.split(' ').map(|word| Raw(word.to_owned())).collect()
}

#[rustmq::flat_map]
fn pieces(row: &[u8], meta: &Meta) -> Result<impl Iterator<Item = Record<usize>>, Reject> {
    let text = std::str::from_utf8(row)?;
    let time = meta.event_time();
    let lengths: Vec<usize> = text.split(',').map(str::len).collect();
    Ok(lengths
        .into_iter()
        .map(move |n| Record::new(n).key(format!("k{n}")).event_time(time + 1)))
}

#[derive(Port)]
enum Lane {
    Late,
    OnTime,
}

#[rustmq::route]
fn lanes(row: Flight<'_>) -> Result<Lane, Reject> {
    let delay = row.delay.ok_or(Reject::new("delay", "no delay"))?;
    Ok(if delay > 15.0 {
        Lane::Late
    } else {
        Lane::OnTime
    })
}

#[derive(Deserialize, rustmq::Params)]
struct Config {
    /// What follows, "quoted".
    #[serde(default)]
    suffix: String,
}

#[rustmq::map]
fn marked(row: &str, config: &Config, meta: Meta<'_>) -> Record<Raw<String>> {
    let key = meta.key().map(String::from_utf8_lossy).unwrap_or_default();
    let from = meta
        .header("from")
        .map(String::from_utf8_lossy)
        .unwrap_or_default();
    let text = format!("{key}/{row}/{from}{}", config.suffix);
    let record = Record::new(Raw(text)).header("by", "marked");
    if row == "aside" {
        record.to("aside")
    } else {
        record
    }
}

#[rustmq::map]
fn forget(row: Option<&[u8]>) -> Result<Record<Tombstone>, Reject> {
    if row == Some(b"later") {
        return Err(Reject::retry(Duration::from_millis(250), "busy", "later"));
    }
    Ok(Record::new(Tombstone))
}

/// Everything that Params knows.
#[derive(Deserialize, rustmq::Params)]
#[serde(rename_all = "kebab-case")]
#[allow(dead_code)]
struct Many {
    per_row: u32,
    #[serde(rename = "as")]
    named: Option<Vec<f64>>,
    mode: Mode,
    rest: std::collections::BTreeMap<String, bool>,
}

#[derive(Deserialize, rustmq::Params)]
#[serde(rename_all = "lowercase")]
#[allow(dead_code)]
enum Mode {
    Fast,
    VerySlow,
}

#[rustmq::filter]
fn many(_: &[u8], _: &Many) -> bool {
    true
}

macro_rules! said {
    ($module:ty) => {{
        const SAID: Description = Description::of::<$module>("m", "1");
        const JSON: [u8; SAID.len()] = SAID.json();
        String::from_utf8(JSON.to_vec()).expect("JSON is text")
    }};
}

#[test]
fn modules_describe_themselves() {
    let none = r#"{"type":"object","properties":{},"required":[],"additionalProperties":false}"#;
    let ended = |params: &str, ports: &str| {
        format!(
            r#"{{"name":"m","version":"1","params":{params},"ports":{ports},"state_schema":null}}"#
        )
    };
    assert_eq!(said!(tidy), ended(none, "null"));
    assert_eq!(said!(lanes), ended(none, r#"["late","on_time"]"#));
    let object = |properties: &str, required: &str| {
        let open = r#"{"type":"object","properties":{"#;
        let end = r#"],"additionalProperties":false}"#;
        format!(r#"{open}{properties}}},"required":[{required}{end}"#)
    };
    let suffix = concat!(
        r#""suffix":{"description":"What follows, \"quoted\".","#,
        r#""allOf":[{"type":"string"}]}"#
    );
    assert_eq!(said!(marked), ended(&object(suffix, ""), "null"));
    let parts = concat!(
        r#""per-row":{"type":"integer","minimum":0,"maximum":4294967295},"#,
        r#""as":{"anyOf":[{"type":"array","items":{"type":"number"}},{"type":"null"}]},"#,
        r#""mode":{"enum":["fast","veryslow"]},"#,
        r#""rest":{"type":"object","additionalProperties":{"type":"boolean"}}"#
    );
    let params = object(parts, r#""per-row","mode","rest""#);
    let said_of_it = r#"{"type":"object","description":"Everything that Params knows.","#;
    let params = params.replacen(r#"{"type":"object","#, said_of_it, 1);
    assert_eq!(said!(many), ended(&params, "null"));
}

fn check(outcome: &Outcome, expected: &str) {
    let mut text = String::new();
    for row in &outcome.rows {
        let key = row.key.as_deref().map(String::from_utf8_lossy);
        let value = if row.value.is_some() {
            row.text()
        } else {
            "(none)".into()
        };
        let headers: Vec<String> = row
            .headers
            .iter()
            .map(|(name, value)| format!(" {name}={}", String::from_utf8_lossy(value)))
            .collect();
        let key = key.map(|key| format!("{key}:")).unwrap_or_default();
        text += &format!(
            "{} {} {key}{value} @{}{}\n",
            row.parent,
            row.port,
            row.event_time,
            headers.concat()
        );
    }
    for refused in &outcome.rejects {
        text += &format!(
            "{} reject {}: {}\n",
            refused.row, refused.code, refused.message
        );
    }
    for refused in &outcome.retries {
        text += &format!(
            "{} retry {}: {}\n",
            refused.row, refused.code, refused.message
        );
    }
    let expected: Vec<&str> = expected
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    assert_eq!(text.lines().collect::<Vec<_>>(), expected);
}

#[test]
fn map_writes_json_and_keeps_key_and_time() {
    let rows = [
        Row::new(r#"{"carrier":"UA","delay":90}"#)
            .key("a")
            .event_time(7),
        Row::new(r#"{"carrier":"AA"}"#),
        Row::new(r#"{"carrier":"DL","delay":30}"#).header("h", "1"),
        Row::new("{}"),
        Row::default(),
    ];
    check(
        &run::<tidy>(rows),
        r#"
        0 out a:{"carrier":"UA","hours":1.5} @7
        2 out {"carrier":"DL","hours":0.5} @0 h=1
        1 reject delay: no delay
        3 reject json: missing field `carrier` at line 1 column 2
        4 reject no-value: the record has no value
        "#,
    );
    assert_eq!(
        tidy(Flight {
            carrier: "X",
            delay: Some(60.0)
        })
        .map(|h| h.hours),
        Ok(1.0)
    );
}

#[test]
fn map_drops_what_is_none() {
    check(&run::<length>(["abc", "", "x"]), "0 out 3 @0\n2 out 1 @0");
}

#[test]
fn filter_forwards_rows_as_they_are() {
    let rows = [
        r#"{"carrier":"UA","delay":90}"#,
        r#"{"carrier":"AA"}"#,
        "not json",
    ];
    check(
        &run::<late>(rows),
        r#"
        0 out {"carrier":"UA","delay":90} @0
        2 reject json: expected ident at line 1 column 2
        "#,
    );
}

#[test]
fn flat_map_makes_many_of_one() {
    check(
        &run::<words>(["a b", "c"]),
        "0 out a @0\n0 out b @0\n1 out c @0",
    );
    let rows = [Row::new("ab,c").event_time(5), Row::new(vec![0xff, 0xfe])];
    check(
        &run::<pieces>(rows),
        "0 out k2:2 @6\n0 out k1:1 @6\n\
         1 reject error: invalid utf-8 sequence of 1 bytes from index 0",
    );
}

#[test]
fn route_sends_rows_by_name() {
    let rows = [
        r#"{"carrier":"UA","delay":90}"#,
        r#"{"carrier":"B6","delay":1}"#,
    ];
    let outcome = Harness::new()
        .outputs(["late", "on_time"])
        .run::<lanes>(rows);
    assert_eq!(outcome.texts("late"), [rows[0]]);
    assert_eq!(outcome.texts("on_time"), [rows[1]]);
    let outcome = Harness::new().outputs(["late"]).run::<lanes>(rows);
    assert_eq!(
        outcome.rejects[0].message,
        "no output \"on_time\"; the node declares: late"
    );
}

#[test]
fn params_key_headers_and_ports() {
    let rows = [
        Row::new("x")
            .key("k")
            .header("from", "web")
            .header("by", "hand"),
        Row::new("aside"),
        Row::new("y"),
    ];
    let harness = Harness::new().outputs(["out", "aside"]);
    let harness = harness.params(&serde_json::json!({ "suffix": "!" }));
    check(
        &harness.run::<marked>(rows),
        "0 out k:k/x/web! @0 from=web by=marked\n2 out /y/! @0 by=marked\n\
         1 aside /aside/! @0 by=marked",
    );
    let wrong = Harness::new()
        .params(&serde_json::json!({ "suffix": 1 }))
        .open::<marked>();
    assert_eq!(wrong.err().map(|f| f.code), Some("params".into()));
}

#[test]
fn a_retry_ends_the_batch_there() {
    check(
        &run::<forget>(["a", "later", "b"]),
        "0 out (none) @0\n1 retry busy: later",
    );
}

#[rustmq::filter]
fn known(name: &str, people: &Lookup, r#type: &Lookup) -> Result<bool, Reject> {
    let kind: Option<String> = r#type.get("kind")?;
    Ok(people.get_bytes(name).is_some() && kind.as_deref() == Some("person"))
}

#[test]
fn parameters_are_tables_of_their_names() {
    let node = || Harness::new().lookup("people", [("ann", "1"), ("bob", "")]);
    let with = |kind: &str| node().lookup("type", [("kind", kind)]);
    let texts = |harness: Harness| harness.run::<known>(["ann", "eve", "bob"]).texts("out");
    assert_eq!(texts(with("\"person\"")), ["ann", "bob"]);
    assert!(texts(with("\"thing\"")).is_empty());
    let refused = with("{").run::<known>(["ann"]).rejects.remove(0);
    assert_eq!(refused.code, "lookup");
    assert!(
        refused.message.starts_with("what was found does not fit"),
        "{refused:?}"
    );
    let failure = node().open::<known>().err().expect("a table is missing");
    assert_eq!(
        failure.message,
        "the test gives no table `type`, but people"
    );
}
