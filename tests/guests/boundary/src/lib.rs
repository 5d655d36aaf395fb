//! What the boundary costs, at the level of batches: `params` says which work.
//!
//! Called by: `benches/benches/boundary.rs`, which does the same work in native Rust.

use rustmq::{Batch, Context, Failure, Module, Outbox};
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Work {
    Forward,
    Filter,
    Copy,
}

#[derive(Deserialize)]
struct Params {
    work: Work,
}

struct Boundary {
    work: Work,
    rows: Vec<u32>,
}

impl Module for Boundary {
    fn open(context: &Context) -> Result<Boundary, Failure> {
        let Params { work } = context.params()?;
        Ok(Boundary { work, rows: Vec::new() })
    }

    fn process(&mut self, batch: &Batch, out: &mut Outbox) -> Result<(), Failure> {
        self.rows.clear();
        let all = 0..batch.len() as u32;
        match self.work {
            Work::Forward => {
                self.rows.extend(all);
                out.forward(0, &self.rows);
            }
            Work::Filter => {
                let values = batch.values();
                let kept = all.filter(|row| {
                    values.get(*row as usize).is_some_and(|value| value[value.len() - 2] & 1 == 0)
                });
                self.rows.extend(kept);
                out.forward(0, &self.rows);
            }
            Work::Copy => {
                self.rows.extend(all);
                let (keys, values) = (batch.keys().clone(), batch.values().clone());
                out.emit(0, &self.rows, &keys, &values);
            }
        }
        Ok(())
    }
}

rustmq::export!(Boundary);
