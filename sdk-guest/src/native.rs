//! The boundary without WebAssembly: what `abi` is there, in memory, for tests.
//!
//! Called by: `batch`, `outbox`, `testing`.
//! Invariants: refuses what the host refuses, with a panic that says what (the host traps).

use std::cell::RefCell;
use std::rc::Rc;

use crate::column::Column;

#[derive(Clone)]
pub(crate) struct Context {
    pub(crate) params: String,
    pub(crate) inputs: Vec<String>,
    pub(crate) outputs: Vec<String>,
    pub(crate) partition: u32,
}

impl Context {
    pub(crate) fn params(&self) -> String {
        self.params.clone()
    }

    pub(crate) fn inputs(&self) -> Vec<String> {
        self.inputs.clone()
    }

    pub(crate) fn outputs(&self) -> Vec<String> {
        self.outputs.clone()
    }

    pub(crate) fn partition(&self) -> u32 {
        self.partition
    }
}

#[derive(Default)]
pub(crate) struct Rows {
    pub(crate) input: u16,
    pub(crate) keys: Column,
    pub(crate) values: Column,
    pub(crate) event_times: Vec<i64>,
    pub(crate) offsets: Vec<u64>,
    pub(crate) headers: Vec<Vec<(String, Vec<u8>)>>,
    pub(crate) watermark: i64,
}

impl Rows {
    pub(crate) fn len(&self) -> usize {
        self.values.len()
    }

    pub(crate) fn input(&self) -> u16 {
        self.input
    }

    pub(crate) fn keys(&self) -> Column {
        self.keys.clone()
    }

    pub(crate) fn values(&self) -> Column {
        self.values.clone()
    }

    pub(crate) fn event_times(&self) -> Vec<i64> {
        self.event_times.clone()
    }

    pub(crate) fn offsets(&self) -> Vec<u64> {
        self.offsets.clone()
    }

    pub(crate) fn header(&self, name: &str) -> Column {
        let mut column = Column::new();
        for headers in &self.headers {
            let found = headers.iter().rev().find(|(known, _)| known == name);
            column.push(found.map(|(_, value)| &value[..]));
        }
        column
    }

    pub(crate) fn watermark(&self) -> i64 {
        self.watermark
    }
}

/// One call into the outbox.
pub(crate) enum Call {
    Forward {
        port: u16,
        rows: Vec<u32>,
    },
    Emit {
        port: u16,
        parents: Vec<u32>,
        keys: Column,
        values: Column,
        event_times: Option<Vec<i64>>,
        headers: Vec<(String, Column)>,
    },
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

#[derive(Clone)]
pub(crate) struct Outbox {
    pub(crate) rows: usize,
    pub(crate) ports: usize,
    pub(crate) calls: Rc<RefCell<Vec<Call>>>,
}

impl Outbox {
    pub(crate) fn forward(&mut self, port: u16, rows: &[u32]) {
        self.check("forward", Some(port), rows);
        self.calls.borrow_mut().push(Call::Forward {
            port,
            rows: rows.to_vec(),
        });
    }

    pub(crate) fn emit(&mut self, port: u16, parents: &[u32], keys: &Column, values: &Column) {
        self.check("emit", Some(port), parents);
        for (what, column) in [("keys", keys), ("values", values)] {
            let (len, rows) = (column.len(), parents.len());
            assert!(len == rows, "emit: {len} {what} for {rows} rows");
        }
        self.calls.borrow_mut().push(Call::Emit {
            port,
            parents: parents.to_vec(),
            keys: keys.clone(),
            values: values.clone(),
            event_times: None,
            headers: Vec::new(),
        });
    }

    pub(crate) fn set_event_times(&mut self, times: &[i64]) {
        match self.calls.borrow_mut().last_mut() {
            Some(Call::Emit {
                event_times,
                parents,
                ..
            }) => {
                let (len, rows) = (times.len(), parents.len());
                assert!(len == rows, "set-event-times: {len} times for {rows} rows");
                *event_times = Some(times.to_vec());
            }
            _ => panic!("set-event-times: there is no emit before it"),
        }
    }

    pub(crate) fn set_header(&mut self, name: &str, values: &Column) {
        match self.calls.borrow_mut().last_mut() {
            Some(Call::Emit {
                headers, parents, ..
            }) => {
                let (len, rows) = (values.len(), parents.len());
                assert!(len == rows, "set-header: {len} values for {rows} rows");
                headers.push((name.to_owned(), values.clone()));
            }
            _ => panic!("set-header: there is no emit before it"),
        }
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
