//! Rows of typed columns, natively through the harness: JSON in, columns, JSON out.

extern crate rustmq_sdk as rustmq;

use std::borrow::Cow;

use rustmq::testing::{Harness, Outcome, Row, run};
use rustmq::{
    Batch, Context, Failure, Field, FieldType, Floats, Meta, Module, Outbox, Port, Raw, Record,
    Reject, Texts, Timestamp,
};
use serde::{Deserialize, Serialize};

#[derive(rustmq::Row)]
struct Flight<'a> {
    carrier: &'a str,
    dep_delay: Option<f64>,
    ts: Timestamp,
    #[row(rename = "type")]
    kind: Option<Cow<'a, str>>,
}

#[derive(rustmq::Row)]
struct Late<'a> {
    carrier: &'a str,
    hours: f64,
    due: Timestamp,
    known: bool,
}

#[rustmq::map]
fn late(row: Flight<'_>) -> Result<Option<Late<'_>>, Reject> {
    let minutes = row
        .dep_delay
        .ok_or_else(|| Reject::new("delay", "no delay"))?;
    Ok((minutes > 15.0).then(|| Late {
        carrier: row.carrier,
        hours: minutes / 60.0,
        due: row.ts.plus_minutes(minutes as i64),
        known: row.kind.is_some_and(|kind| kind != "?"),
    }))
}

const FLIGHTS: [&str; 7] = [
    r#"{"carrier":"UA","dep_delay":90,"ts":"2013-01-01T05:00:00Z","type":"A320"}"#,
    r#"{"carrier":"AA","dep_delay":1.5,"ts":0}"#,
    r#"{"dep_delay":16,"ts":0}"#,
    r#"{"carrier":"AA","ts":0}"#,
    r#"{"carrier":7,"dep_delay":20,"ts":0}"#,
    "not json",
    r#"{"carrier":"é","dep_delay":30,"ts":0,"extra":[]}"#,
];

/// Outputs of a module as text: `parent key=value`, then `! row code: message`.
fn text(outcome: &Outcome) -> Vec<String> {
    let mut lines = Vec::new();
    for row in &outcome.rows {
        let key = row
            .key
            .as_deref()
            .map_or("-".into(), String::from_utf8_lossy);
        lines.push(format!("{}{} {key}={}", row.port, row.parent, row.text()));
    }
    for refused in &outcome.rejects {
        lines.push(format!(
            "! {} {}: {}",
            refused.row, refused.code, refused.message
        ));
    }
    lines
}

#[test]
fn a_map_reads_columns_and_makes_columns() {
    assert_eq!(
        text(&run::<late>(FLIGHTS)),
        [
            r#"out0 -={"carrier":"UA","hours":1.5,"due":"2013-01-01T06:30:00.000000Z","known":true}"#,
            r#"out6 -={"carrier":"é","hours":0.5,"due":"1970-01-01T00:30:00.000000Z","known":false}"#,
            "! 2 null: field `carrier` is null",
            "! 3 delay: no delay",
            "! 4 schema: field `carrier` (String): found 7",
            "! 5 schema: not a JSON object: expected ident at line 1 column 2",
        ]
    );
}

#[derive(Deserialize, rustmq::Row)]
struct Params {
    factor: i32,
}

#[derive(rustmq::Row)]
struct Number {
    n: i32,
    data: Option<Vec<u8>>,
}

/// A row with all that a record can have, out of plain text.
#[rustmq::flat_map]
fn count(text: &str, params: &Params, meta: Meta<'_>) -> Vec<Record<Number>> {
    let number = |n: usize| Number {
        n: n as i32 * params.factor,
        data: (n > 1).then(|| vec![0xff; n]),
    };
    let time = meta.event_time();
    (0..text.len())
        .map(|n| match n {
            0 => Record::new(number(n)),
            1 => Record::new(number(n)).key("own").event_time(time + 1),
            _ => Record::new(number(n)).to("rest").header("n", n.to_string()),
        })
        .collect()
}

#[test]
fn records_of_rows_say_more() {
    let harness = Harness::new().params(&serde_json::json!({"factor": 2}));
    let rows = [Row::new("abc").key("k").event_time(5), Row::new("d")];
    let outcome = harness.outputs(["out", "rest"]).run::<count>(rows);
    assert_eq!(
        text(&outcome),
        [
            r#"out0 k={"n":0,"data":null}"#,
            r#"out0 own={"n":2,"data":null}"#,
            r#"out1 -={"n":0,"data":null}"#,
            r#"rest0 k={"n":4,"data":"//8="}"#,
        ]
    );
    let times: Vec<i64> = outcome.rows.iter().map(|row| row.event_time).collect();
    assert_eq!(times, [5, 6, 0, 5]);
    assert_eq!(outcome.rows[3].headers, [("n".to_owned(), b"2".to_vec())]);
}

/// JSON in, columns out.
#[rustmq::map]
fn typed(row: Params) -> Number {
    Number {
        n: row.factor,
        data: None,
    }
}

#[derive(Serialize)]
struct Plain {
    n: i64,
}

/// Columns in, JSON out.
#[rustmq::map]
fn plain(row: Number) -> Plain {
    Plain {
        n: i64::from(row.n) + 1,
    }
}

#[test]
fn either_side_may_be_json() {
    assert_eq!(
        text(&run::<typed>([r#"{"factor":3}"#])),
        [r#"out0 -={"n":3,"data":null}"#]
    );
    assert_eq!(text(&run::<plain>([r#"{"n":3}"#])), [r#"out0 -={"n":4}"#]);
    let far = run::<plain>([r#"{"n":3000000000}"#]);
    let message = "field `n` is 3000000000, which its type cannot hold";
    assert_eq!(text(&far), [format!("! 0 range: {message}")]);
}

/// A row of columns, a record without a value, or what has no number.
#[rustmq::map]
fn told(row: Option<Number>) -> Plain {
    Plain {
        n: row.map_or(-1, |row| i64::from(row.n)),
    }
}

#[test]
fn a_row_may_be_absent() {
    let tombstone = || Row {
        value: None,
        ..Row::default()
    };
    let rows = [
        Row::new(r#"{"n":3}"#),
        tombstone(),
        Row::new("{}"),
        Row::new(r#"{"n":4,"data":"//8="}"#),
    ];
    let expected = [
        r#"out0 -={"n":3}"#,
        r#"out1 -={"n":-1}"#,
        r#"out3 -={"n":4}"#,
        "! 2 null: field `n` is null",
    ];
    assert_eq!(text(&run::<told>(rows)), expected);
    // the columns decide, not JSON, which would take it
    let wrong = text(&run::<told>([r#"{"n":1,"data":[255]}"#]));
    assert!(
        wrong[0].starts_with("! 0 schema: field `data`"),
        "{wrong:?}"
    );
    assert_eq!(
        text(&run::<plain>([tombstone()])),
        ["! 0 null: field `n` is null"]
    );
}

#[rustmq::filter]
fn small(row: Number) -> bool {
    row.n < 10
}

#[derive(Port)]
enum Size {
    Small,
    Large,
}

#[rustmq::route]
fn sizes(row: Number) -> Result<Size, Reject> {
    match row.n {
        n if n < 0 => Err(Reject::new("negative", n)),
        n if n < 10 => Ok(Size::Small),
        _ => Ok(Size::Large),
    }
}

#[rustmq::flat_map]
fn halves<'a>(row: Flight<'a>) -> impl Iterator<Item = Raw<&'a str>> {
    let first = row.carrier.chars().next().map_or(0, char::len_utf8);
    let (left, right) = row.carrier.split_at(first);
    [left, right].into_iter().map(Raw)
}

#[test]
fn rows_are_passed_on_as_they_came() {
    let rows = [r#"{"n":3,"more":1}"#, r#"{"n":30}"#, r#"{"n":-1}"#];
    let kept = run::<small>(rows);
    assert_eq!(
        text(&kept),
        [r#"out0 -={"n":3,"more":1}"#, r#"out2 -={"n":-1}"#]
    );
    let routed = Harness::new()
        .outputs(["small", "large"])
        .run::<sizes>(rows);
    assert_eq!(
        text(&routed),
        [
            r#"small0 -={"n":3,"more":1}"#,
            r#"large1 -={"n":30}"#,
            "! 2 negative: -1"
        ]
    );
    assert_eq!(text(&run::<halves>(FLIGHTS))[..2], ["out0 -=U", "out0 -=A"]);
}

/// The level below: whole columns.
struct Doubled;

impl Module for Doubled {
    fn open(context: &Context) -> Result<Doubled, Failure> {
        context.select(0, &[Field::new("x", FieldType::Float64)])?;
        context.declare(0, &[Field::new("x", FieldType::Float64)])?;
        Ok(Doubled)
    }

    fn process(&mut self, rows: &Batch, out: &mut Outbox) -> Result<(), Failure> {
        let values = rows.floats(0);
        let doubled: Vec<f64> = values.values().iter().map(|x| x * 2.0).collect();
        out.emit_columns(0, None);
        out.set_floats(0, &Floats::from(doubled));
        Ok(())
    }
}

#[test]
fn a_module_of_whole_columns() {
    let out = run::<Doubled>([r#"{"x":1}"#, r#"{"x":2.5}"#]);
    assert_eq!(out.texts("out"), [r#"{"x":2.0}"#, r#"{"x":5.0}"#]);
}

/// All of its rows, twice.
struct Passes;

impl Module for Passes {
    fn open(_: &Context) -> Result<Passes, Failure> {
        Ok(Passes)
    }

    fn process(&mut self, rows: &Batch, out: &mut Outbox) -> Result<(), Failure> {
        out.forward(0, rows.all_rows());
        out.emit(0, rows.all_rows(), rows.keys(), rows.values());
        Ok(())
    }
}

#[test]
fn a_module_passes_all_rows_on() {
    // more than the numbers of a block
    let texts: Vec<String> = (0..37).map(|n| n.to_string()).collect();
    let out = run::<Passes>(texts.iter().map(String::as_str));
    assert_eq!(out.texts("out"), [&texts[..], &texts[..]].concat());
}

/// The same level with rows as structs of columns.
struct Speeds;

#[derive(rustmq::Row)]
#[allow(dead_code, reason = "only its columns are used")]
struct Leg<'a> {
    miles: f64,
    hours: Option<f64>,
    carrier: &'a str,
}

#[derive(rustmq::Row)]
#[allow(dead_code, reason = "only its columns are used")]
struct Speed<'a> {
    mph: Option<f64>,
    carrier: &'a str,
}

impl Module for Speeds {
    fn open(context: &Context) -> Result<Speeds, Failure> {
        context.select_row::<Leg<'_>>(0)?;
        context.declare_row::<Speed<'_>>(0)?;
        Ok(Speeds)
    }

    fn process(&mut self, rows: &Batch, out: &mut Outbox) -> Result<(), Failure> {
        let legs = rows.columns::<Leg<'_>>();
        assert_eq!(legs.miles.validity(), None);
        assert_eq!(legs.hours.validity(), Some(&[0b101][..]));
        let mut speeds = SpeedColumns {
            mph: Floats::new(),
            carrier: Texts::new(),
        };
        for row in 0..rows.len() {
            let hours = legs.hours.get(row);
            speeds
                .mph
                .push(hours.map(|hours| legs.miles.values()[row] / hours));
            speeds.carrier.push(legs.carrier.get(row));
        }
        out.emit_rows::<Speed<'_>>(0, None, &speeds);
        Ok(())
    }
}

#[test]
fn a_module_of_rows_as_columns() {
    let out = run::<Speeds>([
        r#"{"miles":100,"hours":2,"carrier":"UA"}"#,
        r#"{"miles":100,"carrier":"AA"}"#,
        r#"{"miles":90,"hours":3,"carrier":"é"}"#,
    ]);
    let expected = [
        r#"{"mph":50.0,"carrier":"UA"}"#,
        r#"{"mph":null,"carrier":"AA"}"#,
        r#"{"mph":30.0,"carrier":"é"}"#,
    ];
    assert_eq!(out.texts("out"), expected);
}

#[derive(rustmq::Row)]
struct Maybe {
    n: Option<i64>,
    flag: bool,
}

#[derive(rustmq::Row)]
struct Known {
    n: Option<f64>,
    is_set: bool,
    half: i64,
}

/// Fails, gives nothing or gives a row, by what is in it.
#[rustmq::map]
fn known(row: Maybe) -> Result<Option<Known>, Reject> {
    if row.n == Some(13) {
        return Err(Reject::new("luck", "13"));
    }
    Ok((row.n != Some(7)).then(|| Known {
        n: row.n.map(|n| n as f64),
        is_set: row.flag,
        half: row.n.unwrap_or(-2) / 2,
    }))
}

/// Rows by the dozen, with nulls and without: each is what its own row says, and comes from there.
#[test]
fn a_map_of_many_rows_is_the_map_of_each() {
    for (rows, nulls) in [(1, 0), (40, 0), (40, 3), (65, 1), (64, 64)] {
        let null = |n: usize| nulls > 0 && n.is_multiple_of(nulls);
        let given = |n: usize| match null(n) {
            true => format!(r#"{{"flag":{}}}"#, n.is_multiple_of(3)),
            false => format!(r#"{{"n":{n},"flag":{}}}"#, n.is_multiple_of(3)),
        };
        let out = run::<known>((0..rows).map(given).collect::<Vec<_>>());
        let made = |n: usize| {
            let (number, half) = match null(n) {
                true => ("null".into(), -1),
                false => (format!("{:?}", n as f64), n as i64 / 2),
            };
            let set = n.is_multiple_of(3);
            format!(r#"out{n} -={{"n":{number},"is_set":{set},"half":{half}}}"#)
        };
        let goes = |n: &usize| null(*n) || ![7, 13].contains(n);
        let mut expected: Vec<String> = (0..rows).filter(goes).map(made).collect();
        if rows > 13 && !null(13) {
            expected.push("! 13 luck: 13".into());
        }
        assert_eq!(text(&out), expected, "{rows} rows, null each {nulls}");
    }
}

#[derive(rustmq::Row)]
struct Given<'a> {
    small: i32,
    count: Option<u32>,
    name: &'a str,
}

#[derive(rustmq::Row)]
struct Made {
    double: i64,
    share: Option<f64>,
    is_odd: bool,
    is_named: Option<bool>,
}

/// Its type says that it gives one for each.
#[rustmq::map]
fn made(row: Given<'_>) -> Made {
    Made {
        double: i64::from(row.small) * 2,
        share: row.count.filter(|n| *n > 1).map(|n| 1.0 / f64::from(n)),
        is_odd: row.small % 2 != 0,
        is_named: (!row.name.is_empty()).then_some(row.name.len() > 1),
    }
}

#[derive(rustmq::Row)]
struct Named {
    name: String,
    small: i32,
}

/// As well, with what has to be freed.
#[rustmq::map]
fn named(row: Given<'_>) -> Named {
    Named {
        name: row.name.to_uppercase(),
        small: row.small,
    }
}

/// Blocks of rows, what is left of them, and batches with rows that cannot be read: each row is what it
/// would be alone.
#[test]
fn a_map_that_is_sure_gives_what_it_gives_alone() {
    let row = |n: usize| match n {
        // the ends of what the fields hold
        3 => r#"{"small":-2147483648,"count":4294967295,"name":"é"}"#.to_owned(),
        _ if n.is_multiple_of(5) => format!(r#"{{"small":{n},"count":1,"name":""}}"#),
        _ => format!(r#"{{"small":{n},"count":{n},"name":"n{n}"}}"#),
    };
    let rows: Vec<String> = (0..40).map(row).collect();
    let wrong = [
        (
            r#"{"small":2147483648,"name":"n"}"#,
            "range: field `small` is 2147483648, which its type cannot hold",
        ),
        (
            r#"{"small":-2147483649,"name":"n"}"#,
            "range: field `small` is -2147483649, which its type cannot hold",
        ),
        (
            r#"{"small":1,"count":-1,"name":"n"}"#,
            "range: field `count` is -1, which its type cannot hold",
        ),
        (
            r#"{"small":1,"count":4294967296,"name":"n"}"#,
            "range: field `count` is 4294967296, which its type cannot hold",
        ),
        (r#"{"count":1,"name":"n"}"#, "null: field `small` is null"),
        (r#"{"small":1,"count":1}"#, "null: field `name` is null"),
        (
            r#"{"small":9223372036854775807,"name":"n"}"#,
            "range: field `small` is 9223372036854775807, which its type cannot hold",
        ),
        (
            r#"{"small":-9223372036854775808,"name":"n"}"#,
            "range: field `small` is -9223372036854775808, which its type cannot hold",
        ),
    ];
    let alone: Vec<String> = rows
        .iter()
        .map(|row| text(&run::<made>([row.clone()])).remove(0))
        .collect();
    let at = |n: usize, line: &str| line.replacen("out0", &format!("out{n}"), 1);
    for count in 0..rows.len() {
        let expected: Vec<String> = (0..count).map(|n| at(n, &alone[n])).collect();
        assert_eq!(
            text(&run::<made>(rows[..count].to_vec())),
            expected,
            "{count} rows"
        );
        let names = text(&run::<named>(rows[..count].to_vec()));
        let name = |n: usize| match n {
            3 => r#"out3 -={"name":"É","small":-2147483648}"#.to_owned(),
            _ if n.is_multiple_of(5) => format!(r#"out{n} -={{"name":"","small":{n}}}"#),
            _ => format!(r#"out{n} -={{"name":"N{n}","small":{n}}}"#),
        };
        assert_eq!(
            names,
            (0..count).map(name).collect::<Vec<_>>(),
            "{count} names"
        );
        for (row, refused) in wrong {
            let mut rows = rows[..count].to_vec();
            rows.insert(count / 2, row.to_owned());
            let mut expected: Vec<String> = (0..count / 2).map(|n| at(n, &alone[n])).collect();
            expected.extend((count / 2..count).map(|n| at(n + 1, &alone[n])));
            expected.push(format!("! {} {refused}", count / 2));
            assert_eq!(text(&run::<made>(rows)), expected, "{count} rows and {row}");
        }
    }
}
