//! Does evil when a row says which; all other rows go on as they are. `{"open":"…"}` in the params does
//! it in `open`.
//!
//! A deed that only looks for something it must not find says so in a row: `found …` or `nothing`.

mod deeds;

use rustmq::{Batch, Column, Context, Failure, Lookup, Module, Outbox};
use serde::Deserialize;

/// What a deed has to work with.
pub struct Hands<'a> {
    out: Option<&'a mut Outbox>,
    table: Option<&'a Lookup>,
    /// What was said about a table that no node declares.
    nobody: Option<&'a Failure>,
    /// Of a server that plays along.
    port: u16,
}

impl Hands<'_> {
    fn out(&mut self) -> &mut Outbox {
        self.out.as_mut().expect("a deed for `process`")
    }

    /// The table `large`.
    fn table(&self) -> &Lookup {
        self.table.expect("a deed for `process`")
    }

    /// A new row from the first of the batch.
    fn say(&mut self, text: &str) {
        let value = column(&[text]);
        self.out().emit(0, &[0], &column(&["key"]), &value);
    }

    /// What a probe found; it should be nothing.
    fn found(&mut self, what: Option<String>) {
        let text = what.map_or("nothing".to_owned(), |what| format!("found {what}"));
        self.say(&text);
    }
}

fn column(values: &[&str]) -> Column {
    let mut column = Column::new();
    values
        .iter()
        .for_each(|value| column.push(Some(value.as_bytes())));
    column
}

macro_rules! deeds {
    ($($name:ident),* $(,)?) => {
        fn commit(name: &str, hands: &mut Hands<'_>) -> bool {
            match name {
                $(stringify!($name) => deeds::$name(hands),)*
                _ => return false,
            }
            true
        }
    };
}
include!("deeds.in");

#[derive(Deserialize, rustmq::Params)]
struct Params {
    /// A deed to do in `open`.
    #[serde(default)]
    open: Option<String>,
    /// Of a server that deeds make requests to.
    #[serde(default)]
    port: u16,
}

struct Evil {
    table: Option<Lookup>,
    nobody: Option<Failure>,
    port: u16,
}

impl Module for Evil {
    fn open(context: &Context) -> Result<Evil, Failure> {
        let params: Params = context.params()?;
        if let Some(deed) = params.open {
            let mut hands = Hands { out: None, table: None, nobody: None, port: params.port };
            commit(&deed, &mut hands);
        }
        Ok(Evil {
            table: context.lookup("large").ok(),
            nobody: context.lookup("nobody").err(),
            port: params.port,
        })
    }

    fn process(&mut self, rows: &Batch, out: &mut Outbox) -> Result<(), Failure> {
        let (table, nobody, port) = (self.table.as_ref(), self.nobody.as_ref(), self.port);
        let mut hands = Hands { out: Some(out), table, nobody, port };
        for row in 0..rows.len() {
            let name = rows.values().get(row).unwrap_or_default();
            let name = std::str::from_utf8(name).unwrap_or_default();
            if !commit(name, &mut hands) {
                hands.out().forward(0, &[row as u32]);
            }
        }
        Ok(())
    }
}

rustmq::export!(Evil);
