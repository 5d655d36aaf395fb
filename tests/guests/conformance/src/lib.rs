//! Uses everything that the SDK has of `rustmq:etl`, so that a component kept of each released version
//! shows that a newer host still runs it: `released/VERSION.wasm`, exercised by the sandbox's tests.
//!
//! What it does with a row is the row's value: `lookup` emits what the table `users` has for the keys,
//! where the node declares it; `forward`, `emit`, `reject`, `retry`, `drop`; `columns`
//! emits all of the input's typed columns, where it has some; `log` writes a line; `fail` fails the
//! call. Rows and the lengths of their values are counted.

use rustmq::{
    Batch, Column, Context, Counter, Failure, FieldType, Histogram, Lookup, Module, Outbox,
};
use serde::Deserialize;

static ROWS: Counter = Counter::new("rows");
static BYTES: Histogram = Histogram::new("bytes", &[4.0, 6.0]);

#[derive(Deserialize)]
struct Params {
    tag: String,
}

struct Conformance {
    tag: String,
    /// Of the typed columns, in the input's order.
    kinds: Vec<FieldType>,
    users: Option<Lookup>,
}

impl Module for Conformance {
    fn open(context: &Context) -> Result<Conformance, Failure> {
        let Params { tag } = context.params()?;
        let (inputs, outputs) = (context.inputs().join(","), context.outputs().join(","));
        let partition = context.partition();
        let fields = context.input_fields(0);
        if !fields.is_empty() {
            if context.output_fields(0) != fields {
                return Err(Failure::new("fields", "the output has others than the input"));
            }
            context.select(0, &fields)?;
            context.declare(0, &fields)?;
        }
        Ok(Conformance {
            tag: format!("{tag}/{inputs}/{outputs}/{partition}"),
            kinds: fields.iter().map(|field| field.kind).collect(),
            users: context.lookup("users").ok(),
        })
    }

    fn process(&mut self, batch: &Batch, out: &mut Outbox) -> Result<(), Failure> {
        for row in 0..batch.len() {
            let number = row as u32;
            let value = batch.values().get(row).unwrap_or_default();
            ROWS.add(1);
            BYTES.observe(value.len() as f64);
            match value {
                b"forward" => out.forward(0, &[number]),
                b"emit" => self.emit(batch, row, out),
                b"lookup" => self.lookup(batch, out),
                b"columns" => self.columns(batch, out),
                b"log" => rustmq::info!(row = row; "as asked"),
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

    /// All rows of the batch, with what their keys stand for.
    fn lookup(&self, batch: &Batch, out: &mut Outbox) {
        let Some(users) = &self.users else { return };
        let rows: Vec<u32> = (0..batch.len() as u32).collect();
        out.emit(0, &rows, batch.keys(), &users.get_all(batch.keys()));
    }

    /// All rows of the batch as columns, twice: in order, and backwards with their keys.
    fn columns(&self, batch: &Batch, out: &mut Outbox) {
        out.emit_columns(0, None);
        for (number, kind) in (0..).zip(&self.kinds) {
            match kind {
                FieldType::Bool => out.set_bools(number, &batch.bools(number)),
                FieldType::Int64 | FieldType::Timestamp => {
                    out.set_ints(number, &batch.ints(number));
                }
                FieldType::Float64 => out.set_floats(number, &batch.floats(number)),
                FieldType::String | FieldType::Bytes => {
                    out.set_bytes(number, &batch.bytes(number));
                }
            }
        }
        let backwards: Vec<u32> = (0..batch.len() as u32).rev().collect();
        out.emit_columns(0, Some(&backwards));
        let mut keys = Column::new();
        for row in &backwards {
            keys.push(batch.keys().get(*row as usize));
        }
        out.set_keys(&keys);
    }
}

rustmq::export!(Conformance);
