//! Uses everything that `rustmq:etl` has, so that a component kept of each released version shows
//! that a newer host still runs it: `released/VERSION.wasm`, exercised by the sandbox's tests.
//!
//! What it does with a row is the row's value: `forward`, `emit`, `reject`, `retry`, `drop`;
//! `fail` fails the call.

use rustmq::{Batch, Column, Context, Failure, Module, Outbox};
use serde::Deserialize;

#[derive(Deserialize)]
struct Params {
    tag: String,
}

struct Conformance {
    tag: String,
}

impl Module for Conformance {
    fn open(context: &Context) -> Result<Conformance, Failure> {
        let Params { tag } = context.params()?;
        let (inputs, outputs) = (context.inputs().join(","), context.outputs().join(","));
        let partition = context.partition();
        Ok(Conformance { tag: format!("{tag}/{inputs}/{outputs}/{partition}") })
    }

    fn process(&mut self, batch: &Batch, out: &mut Outbox) -> Result<(), Failure> {
        for row in 0..batch.len() {
            let number = row as u32;
            match batch.values().get(row).unwrap_or_default() {
                b"forward" => out.forward(0, &[number]),
                b"emit" => self.emit(batch, row, out),
                b"reject" => out.reject(&[number], "refused", "as asked"),
                b"retry" => out.retry(&[number], 7, "later", "as asked"),
                b"fail" => return Err(Failure::new("failed", "as asked")),
                _ => {}
            }
        }
        Ok(())
    }
}

impl Conformance {
    /// Everything there is to know of a row, as its value.
    fn emit(&self, batch: &Batch, row: usize, out: &mut Outbox) {
        let text = |bytes: Option<&[u8]>| String::from_utf8_lossy(bytes.unwrap_or(b"-")).into_owned();
        let value = format!(
            "{} input {} offset {} time {} watermark {} header {}",
            self.tag,
            batch.input(),
            batch.offsets()[row],
            batch.event_times()[row],
            batch.watermark(),
            text(batch.header("h").get(row)),
        );
        let (mut keys, mut values, mut headers) = (Column::new(), Column::new(), Column::new());
        keys.push(batch.keys().get(row));
        values.push(Some(value.as_bytes()));
        headers.push(Some(b"set"));
        out.emit(1, &[row as u32], &keys, &values);
        out.set_event_times(&[batch.event_times()[row] + 1]);
        out.set_header("by", &headers);
    }
}

rustmq::export!(Conformance);
