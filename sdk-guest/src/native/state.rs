//! The state of a test: kept by its thread until the harness takes it away.
//!
//! Called by: `state`, `testing`.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use crate::column::Column;

/// What a lane keeps.
#[derive(Debug, Clone, Default)]
pub(crate) struct Store {
    pub(crate) entries: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(crate) timers: BTreeSet<(i64, Vec<u8>)>,
}

thread_local! {
    static STORE: RefCell<Store> = RefCell::default();
}

/// Puts a lane's state in the place of another, which comes back.
pub(crate) fn swap(store: Store) -> Store {
    STORE.replace(store)
}

#[derive(Default)]
pub(crate) struct State(());

impl State {
    pub(crate) fn get(&self, keys: &Column) -> Column {
        let mut values = Column::new();
        STORE.with_borrow(|store| {
            for key in keys.iter().flatten() {
                values.push(store.entries.get(key).map(Vec::as_slice));
            }
        });
        values
    }

    pub(crate) fn put(&self, keys: &Column, values: &Column) {
        STORE.with_borrow_mut(|store| {
            for (key, value) in keys.iter().flatten().zip(values.iter()) {
                match value {
                    Some(value) => drop(store.entries.insert(key.to_vec(), value.to_vec())),
                    None => drop(store.entries.remove(key)),
                }
            }
        });
    }

    pub(crate) fn scan(&self, prefix: &[u8], after: Option<&[u8]>, limit: u32) -> (Column, Column) {
        let (mut keys, mut values) = (Column::new(), Column::new());
        let from = match after.filter(|after| *after >= prefix) {
            Some(after) => Bound::Excluded(after),
            None => Bound::Included(prefix),
        };
        STORE.with_borrow(|store| {
            let found = store.entries.range::<[u8], _>((from, Bound::Unbounded));
            let found = found.take_while(|(key, _)| key.starts_with(prefix));
            for (key, value) in found.take(limit as usize) {
                keys.push(Some(key));
                values.push(Some(value));
            }
        });
        (keys, values)
    }

    pub(crate) fn timers(&self, keys: &Column, times: &[i64], set: bool) {
        STORE.with_borrow_mut(|store| {
            for (key, time) in keys.iter().flatten().zip(times) {
                let timer = (*time, key.to_vec());
                match set {
                    true => store.timers.insert(timer),
                    false => store.timers.remove(&timer),
                };
            }
        });
    }
}
