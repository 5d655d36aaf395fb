//! The boundary without WebAssembly: what `abi` is there, in memory, for tests.
//!
//! Called by: `batch`, `outbox`, `testing`.
//! Invariants: refuses what the host refuses, with a panic that says what (the host traps).

pub(crate) mod http;
pub(crate) mod lookup;
mod outbox;
pub(crate) mod state;
pub(crate) mod telemetry;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

pub(crate) use lookup::Lookup;
pub(crate) use outbox::{Call, Emit, Outbox, Values};
pub(crate) use state::State;

use crate::column::Column;
use crate::record::Failure;
use crate::typed::{Bools, Field, FieldType, Floats, Ints};

#[derive(Clone)]
pub(crate) struct Context {
    pub(crate) params: String,
    pub(crate) inputs: Vec<String>,
    pub(crate) outputs: Vec<String>,
    pub(crate) partition: u32,
    pub(crate) said: Rc<RefCell<Said>>,
    pub(crate) lookups: lookup::Tables,
}

/// What a module said in `open` about its columns, by input and by output.
#[derive(Default)]
pub(crate) struct Said {
    pub(crate) selected: BTreeMap<u16, Vec<Field>>,
    pub(crate) declared: BTreeMap<u16, Vec<Field>>,
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

    pub(crate) fn lookup(&self, name: &str) -> Result<Lookup, Failure> {
        Lookup::open(&self.lookups, name)
    }

    pub(crate) fn partition(&self) -> u32 {
        self.partition
    }

    // a test has no schema beyond what the module itself asks for

    pub(crate) fn input_fields(&self, _input: u16) -> Vec<Field> {
        Vec::new()
    }

    pub(crate) fn output_fields(&self, _port: u16) -> Vec<Field> {
        Vec::new()
    }

    pub(crate) fn select(&self, input: u16, fields: &[Field]) -> Result<(), Failure> {
        known("input", input, self.inputs.len())?;
        self.said
            .borrow_mut()
            .selected
            .insert(input, fields.to_vec());
        Ok(())
    }

    pub(crate) fn declare(&self, port: u16, fields: &[Field]) -> Result<(), Failure> {
        known("output", port, self.outputs.len())?;
        self.said
            .borrow_mut()
            .declared
            .insert(port, fields.to_vec());
        Ok(())
    }
}

fn known(what: &'static str, number: u16, count: usize) -> Result<(), Failure> {
    if usize::from(number) < count {
        return Ok(());
    }
    Err(Failure::new(what, format!("{what} {number} of {count}")))
}

/// A typed column of any kind.
#[derive(Clone)]
pub(crate) enum Typed {
    Bools(Bools),
    Ints(Ints),
    Floats(Floats),
    Bytes(Column),
}

impl Typed {
    pub(crate) fn new(kind: FieldType) -> Typed {
        match kind {
            FieldType::Bool => Typed::Bools(Bools::new()),
            FieldType::Int64 | FieldType::Timestamp => Typed::Ints(Ints::new()),
            FieldType::Float64 => Typed::Floats(Floats::new()),
            FieldType::String | FieldType::Bytes => Typed::Bytes(Column::new()),
        }
    }

    fn len(&self) -> usize {
        match self {
            Typed::Bools(column) => column.len(),
            Typed::Ints(column) => column.len(),
            Typed::Floats(column) => column.len(),
            Typed::Bytes(column) => column.len(),
        }
    }
}

#[derive(Default)]
pub(crate) struct Rows {
    pub(crate) input: u16,
    pub(crate) keys: Column,
    pub(crate) values: Column,
    /// Those that the module selected.
    pub(crate) typed: Vec<Typed>,
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

    fn typed(&self, call: &str, column: u16) -> &Typed {
        let count = self.typed.len();
        self.typed
            .get(usize::from(column))
            .unwrap_or_else(|| panic!("{call}: column {column}, but the module selected {count}"))
    }

    pub(crate) fn bools(&self, column: u16) -> Bools {
        match self.typed("get-bools", column) {
            Typed::Bools(bools) => bools.clone(),
            _ => panic!("get-bools: column {column} was selected as another type"),
        }
    }

    pub(crate) fn ints(&self, column: u16) -> Ints {
        match self.typed("get-ints", column) {
            Typed::Ints(ints) => ints.clone(),
            _ => panic!("get-ints: column {column} was selected as another type"),
        }
    }

    pub(crate) fn floats(&self, column: u16) -> Floats {
        match self.typed("get-floats", column) {
            Typed::Floats(floats) => floats.clone(),
            _ => panic!("get-floats: column {column} was selected as another type"),
        }
    }

    pub(crate) fn bytes(&self, column: u16) -> Column {
        match self.typed("get-bytes", column) {
            Typed::Bytes(bytes) => bytes.clone(),
            _ => panic!("get-bytes: column {column} was selected as another type"),
        }
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
