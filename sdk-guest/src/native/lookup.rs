//! The lookup tables of a test: what its harness was given.
//!
//! Called by: `lookup`, `testing`.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use crate::column::Column;
use crate::record::Failure;

/// What is in one, by key.
pub(crate) type Entries = BTreeMap<Vec<u8>, Vec<u8>>;

/// The tables of a node, by name.
pub(crate) type Tables = Rc<RefCell<BTreeMap<String, Entries>>>;

#[derive(Debug, Clone)]
pub struct Lookup {
    tables: Tables,
    name: String,
}

impl Lookup {
    pub(crate) fn open(tables: &Tables, name: &str) -> Result<Lookup, Failure> {
        let known = tables.borrow();
        if known.contains_key(name) {
            let (tables, name) = (tables.clone(), name.to_owned());
            return Ok(Lookup { tables, name });
        }
        let message = match known.is_empty() {
            true => format!("the test gives no table `{name}`: see `Harness::lookup`"),
            false => {
                let known: Vec<&str> = known.keys().map(String::as_str).collect();
                format!("the test gives no table `{name}`, but {}", known.join(", "))
            }
        };
        Err(Failure::new("lookup", message))
    }

    pub(crate) fn get(&self, keys: &Column) -> Column {
        let tables = self.tables.borrow();
        let table = tables.get(&self.name);
        let mut values = Column::new();
        for key in keys.iter() {
            let value = key.and_then(|key| table?.get(key));
            values.push(value.map(Vec::as_slice));
        }
        values
    }
}
