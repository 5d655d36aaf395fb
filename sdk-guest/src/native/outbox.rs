//! The outbox of a test: the calls in order, each checked as the host checks it.
//!
//! Called by: `outbox`, `testing`.

use std::cell::{RefCell, RefMut};
use std::rc::Rc;

use super::{Said, Typed};
use crate::column::Column;
use crate::typed::{Bools, Field, FieldType, Floats, Ints};

/// One call into the outbox, with what later calls set on it.
pub(crate) enum Call {
    Forward {
        port: u16,
        rows: Vec<u32>,
    },
    Emit(Emit),
    Reject {
        rows: Vec<u32>,
        code: String,
        message: String,
    },
    Retry {
        rows: Vec<u32>,
        code: String,
        message: String,
    },
}

pub(crate) struct Emit {
    pub(crate) port: u16,
    pub(crate) parents: Vec<u32>,
    /// `None`: those of the parents.
    pub(crate) keys: Option<Column>,
    pub(crate) values: Values,
    pub(crate) event_times: Option<Vec<i64>>,
    pub(crate) headers: Vec<(String, Column)>,
}

pub(crate) enum Values {
    Bytes(Column),
    /// Declared fields; without a column where it was not set.
    Columns(Vec<(Field, Option<Typed>)>),
}

#[derive(Clone)]
pub(crate) struct Outbox {
    pub(crate) rows: usize,
    pub(crate) ports: usize,
    pub(crate) said: Rc<RefCell<Said>>,
    pub(crate) calls: Rc<RefCell<Vec<Call>>>,
}

impl Outbox {
    pub(crate) fn forward(&mut self, port: u16, rows: &[u32]) {
        self.check("forward", Some(port), rows);
        let rows = rows.to_vec();
        self.calls.borrow_mut().push(Call::Forward { port, rows });
    }

    pub(crate) fn emit(&mut self, port: u16, parents: &[u32], keys: &Column, values: &Column) {
        self.check("emit", Some(port), parents);
        for (what, column) in [("keys", keys), ("values", values)] {
            fits(&format!("emit: {what}"), column.len(), parents.len());
        }
        let values = Values::Bytes(values.clone());
        self.begin(port, parents.to_vec(), Some(keys.clone()), values);
    }

    pub(crate) fn emit_columns(&mut self, port: u16, parents: Option<&[u32]>) {
        let all: Vec<u32> = (0..self.rows as u32).collect();
        let parents = parents.unwrap_or(&all).to_vec();
        self.check("emit", Some(port), &parents);
        let Some(fields) = self.said.borrow().declared.get(&port).cloned() else {
            panic!("emit: no fields were declared for port {port} in `open`");
        };
        let values = Values::Columns(fields.into_iter().map(|field| (field, None)).collect());
        self.begin(port, parents, None, values);
    }

    fn begin(&mut self, port: u16, parents: Vec<u32>, keys: Option<Column>, values: Values) {
        self.calls.borrow_mut().push(Call::Emit(Emit {
            port,
            parents,
            keys,
            values,
            event_times: None,
            headers: Vec::new(),
        }));
    }

    /// The emit that `call` adds to.
    fn last(&self, call: &str) -> RefMut<'_, Emit> {
        RefMut::map(self.calls.borrow_mut(), |calls| match calls.last_mut() {
            Some(Call::Emit(emit)) => emit,
            _ => panic!("{call}: there is no emit before it"),
        })
    }

    pub(crate) fn set_event_times(&mut self, times: &[i64]) {
        let mut emit = self.last("set-event-times");
        fits("set-event-times", times.len(), emit.parents.len());
        emit.event_times = Some(times.to_vec());
    }

    pub(crate) fn set_header(&mut self, name: &str, values: &Column) {
        let mut emit = self.last("set-header");
        fits("set-header", values.len(), emit.parents.len());
        emit.headers.push((name.to_owned(), values.clone()));
    }

    pub(crate) fn set_keys(&mut self, keys: &Column) {
        let mut emit = self.last("set-keys");
        fits("set-keys", keys.len(), emit.parents.len());
        emit.keys = Some(keys.clone());
    }

    pub(crate) fn set_bools(&mut self, column: u16, bools: &Bools) {
        let typed = Typed::Bools(bools.clone());
        self.set("set-bools", column, typed, &[FieldType::Bool]);
    }

    pub(crate) fn set_ints(&mut self, column: u16, ints: &Ints) {
        let kinds = [FieldType::Int64, FieldType::Timestamp];
        self.set("set-ints", column, Typed::Ints(ints.clone()), &kinds);
    }

    pub(crate) fn set_floats(&mut self, column: u16, floats: &Floats) {
        let typed = Typed::Floats(floats.clone());
        self.set("set-floats", column, typed, &[FieldType::Float64]);
    }

    pub(crate) fn set_bytes(&mut self, column: u16, values: &Column) {
        let kinds = [FieldType::String, FieldType::Bytes];
        self.set("set-bytes", column, Typed::Bytes(values.clone()), &kinds);
    }

    fn set(&mut self, call: &str, column: u16, values: Typed, kinds: &[FieldType]) {
        let mut emit = self.last(call);
        let rows = emit.parents.len();
        let Values::Columns(columns) = &mut emit.values else {
            panic!("{call}: there is no emit of columns before it");
        };
        let count = columns.len();
        let Some((field, place)) = columns.get_mut(usize::from(column)) else {
            panic!("{call}: column {column}, but {count} were declared");
        };
        let (name, kind) = (&field.name, field.kind);
        assert!(
            kinds.contains(&kind),
            "{call}: field `{name}` was declared as {kind:?}"
        );
        assert!(place.is_none(), "{call}: field `{name}` was set already");
        fits(&format!("{call}: field `{name}`"), values.len(), rows);
        *place = Some(values);
    }

    pub(crate) fn reject(&mut self, rows: &[u32], code: &str, message: &str) {
        self.check("reject", None, rows);
        let (rows, code, message) = (rows.to_vec(), code.to_owned(), message.to_owned());
        self.calls.borrow_mut().push(Call::Reject {
            rows,
            code,
            message,
        });
    }

    pub(crate) fn retry(&mut self, rows: &[u32], _after_ms: u32, code: &str, message: &str) {
        self.check("retry", None, rows);
        let (rows, code, message) = (rows.to_vec(), code.to_owned(), message.to_owned());
        self.calls.borrow_mut().push(Call::Retry {
            rows,
            code,
            message,
        });
    }

    fn check(&self, call: &str, port: Option<u16>, rows: &[u32]) {
        if let Some(port) = port {
            let ports = self.ports;
            assert!(
                usize::from(port) < ports,
                "{call}: port {port}, but {ports} outputs"
            );
        }
        let len = self.rows;
        if let Some(row) = rows.iter().find(|row| **row as usize >= len) {
            panic!("{call}: row {row}, but the batch has {len} rows");
        }
    }
}

fn fits(what: &str, len: usize, rows: usize) {
    assert!(len == rows, "{what}: {len} values for {rows} rows");
}
