//! What becomes of a row whose request has no answer, or no value; names of metrics. Natively.

extern crate rustmq_sdk as rustmq;

use rustmq::http::{self, Error, Response, Trouble};
use rustmq::testing::{self, Row, run};
use rustmq::{Counter, Raw, Reject};

#[rustmq::map]
fn asks(path: &str) -> Result<Raw<Vec<u8>>, Reject> {
    let answer = http::get(format!("https://a.example/{path}")).send()?;
    let body: String = answer.json()?;
    Ok(Raw(body.into()))
}

#[test]
fn a_question_mark_tries_again_where_the_trouble_may_pass() {
    testing::http(|request| match request.url.rsplit('/').next() {
        Some("late") => Err(Error::new(Trouble::Timeout, "no answer")),
        Some("denied") => Err(Error::new(Trouble::Denied, "not granted")),
        Some("html") => Ok(Response::new(200, "<html>")),
        _ => Ok(Response::new(200, "\"tea\"")),
    });
    let out = run::<asks>(["x", "denied", "html", "late", "x"]);
    let codes = |refused: &[testing::Refused]| -> Vec<(usize, String)> {
        refused.iter().map(|r| (r.row, r.code.clone())).collect()
    };
    assert_eq!(
        codes(&out.rejects),
        [(1, "http-denied".to_owned()), (2, "http-json".to_owned())]
    );
    assert_eq!(codes(&out.retries), [(3, "http-timeout".to_owned())]);
    assert_eq!(out.texts("out"), ["tea"]);
}

#[rustmq::map]
fn or_nothing(text: Option<&str>) -> Raw<String> {
    Raw(format!("{text:?}"))
}

#[test]
fn text_or_nothing_is_no_json() {
    let nothing = Row {
        value: None,
        ..Row::new("")
    };
    let out = run::<or_nothing>([Row::new("null"), nothing, Row::new(b"\xff")]);
    assert_eq!(out.texts("out"), ["Some(\"null\")", "None"]);
    assert_eq!(out.rejects[0].code, "utf-8");
}

static ODD: Counter = Counter::new("Rows seen");

#[rustmq::filter]
fn counts(_: &[u8]) -> bool {
    ODD.add(1);
    true
}

#[test]
#[should_panic(expected = "a metric's name is `[a-z][a-z0-9_]*`")]
fn a_metric_has_a_name_that_the_host_takes() {
    run::<counts>(["x"]);
}
