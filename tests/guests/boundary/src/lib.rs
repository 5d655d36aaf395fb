//! What the boundary costs, at the level of batches: `params` says which work.
//!
//! Called by: `benches/benches/boundary.rs`, which does the same work in native Rust.

use rustmq::{Batch, Context, Failure, Lookup, Module, Outbox};
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Work {
    Forward,
    Filter,
    Copy,
    Lookup,
}

#[derive(Deserialize)]
struct Params {
    work: Work,
}

struct Boundary {
    work: Work,
    users: Option<Lookup>,
    rows: Vec<u32>,
}

impl Module for Boundary {
    fn open(context: &Context) -> Result<Boundary, Failure> {
        let Params { work } = context.params()?;
        let users = context.lookup("users").ok();
        Ok(Boundary { work, users, rows: Vec::new() })
    }

    fn process(&mut self, batch: &Batch, out: &mut Outbox) -> Result<(), Failure> {
        match self.work {
            Work::Forward => out.forward(0, batch.all_rows()),
            Work::Filter => {
                let values = batch.values();
                let kept = (0..batch.len() as u32).filter(|row| {
                    values.get(*row as usize).is_some_and(|value| value[value.len() - 2] & 1 == 0)
                });
                self.rows.clear();
                self.rows.extend(kept);
                out.forward(0, &self.rows);
            }
            Work::Copy => {
                let (keys, values) = (batch.keys().clone(), batch.values().clone());
                out.emit(0, batch.all_rows(), &keys, &values);
            }
            Work::Lookup => {
                let Some(users) = &self.users else {
                    return Err(Failure::new("lookup", "the node declares no table `users`"));
                };
                out.emit(0, batch.all_rows(), batch.keys(), &users.get_all(batch.keys()));
            }
        }
        Ok(())
    }
}

rustmq::export!(Boundary);
