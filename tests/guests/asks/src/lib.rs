//! Asks other services what its rows say, `METHOD URL BODY`, all of a batch at once. It uses all of
//! `http`, so that a component kept of each released version (`../conformance/released/VERSION-http.wasm`)
//! shows that a newer host still runs it.
//!
//! An answer goes out as `STATUS BODY`, with what the header `x-seen` of it says behind that. A row without
//! an answer is tried again or rejected, by its trouble.

use std::time::Duration;

use rustmq::http::{self, Request, Response};
use rustmq::{Batch, Column, Context, Failure, Module, Outbox};

struct Asks;

impl Module for Asks {
    fn open(_: &Context) -> Result<Asks, Failure> {
        Ok(Asks)
    }

    fn process(&mut self, rows: &Batch, out: &mut Outbox) -> Result<(), Failure> {
        let asked = |row| request(row, rows.values().get(row).unwrap_or_default());
        let requests: Vec<Request> = (0..rows.len()).map(asked).collect();
        let (mut parents, mut keys, mut values) = (Vec::new(), Column::new(), Column::new());
        for (row, answer) in (0..).zip(http::send(&requests)) {
            match answer {
                Ok(answer) => {
                    parents.push(row);
                    keys.push(rows.keys().get(row as usize));
                    values.push(Some(shown(&answer).as_bytes()));
                }
                Err(error) if error.trouble.is_passing() => {
                    out.retry(&[row], 10, error.trouble.name(), &error.message);
                }
                Err(error) => out.reject(&[row], error.trouble.name(), &error.message),
            }
        }
        if !parents.is_empty() {
            out.emit(0, &parents, &keys, &values);
        }
        Ok(())
    }
}

fn request(row: usize, value: &[u8]) -> Request {
    let text = String::from_utf8_lossy(value);
    let mut words = text.splitn(3, ' ');
    let mut next = || words.next().map(str::to_owned);
    let (method, url, body) = (next().unwrap_or_default(), next().unwrap_or_default(), next());
    let request = Request::new(method, url)
        .header("x-row", row.to_string())
        .timeout(Duration::from_secs(60));
    match body {
        Some(body) => request.body(body),
        None => request,
    }
}

fn shown(answer: &Response) -> String {
    let seen = answer.header("x-seen").unwrap_or_default();
    format!("{} {}{seen}", answer.status, answer.text())
}

rustmq::export!(Asks);
