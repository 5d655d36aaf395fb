//! Lookup tables of nodes: one copy of a topic in memory for all lanes of this process.
//!
//! - `follow` the task that reads a topic into its table, and goes on with it
//!
//! Called by: `stage::build` (asks for the tables of its nodes), `stage::opening` (waits until they are
//! read), `stage::run` (pins them for a batch), `runtime` (what they do).
//! Invariants: a topic has at most one copy that grows; it goes with its last user. What a batch
//! sees of a table does not change while the batch is worked on.
//! Refuses: tables larger than their limit, which stops the lanes and gives the memory back.

mod follow;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use model::ids::TopicId;
use model::port::TopicLog;
use model::topic::Topic;
use tokio::sync::watch;
use wasm::View;

use crate::operator::OperatorError;
use crate::status::LookupStatus;
pub(crate) use follow::Followed;

/// The tables of this process, by topic.
pub(crate) struct Tables {
    log: Arc<dyn TopicLog>,
    host: Arc<wasm::Host>,
    handle: tokio::runtime::Handle,
    /// Of the runtime: what is seen from outside has changed.
    changed: Arc<watch::Sender<u64>>,
    known: Mutex<BTreeMap<TopicId, Weak<Followed>>>,
}

impl Tables {
    pub fn new(
        log: Arc<dyn TopicLog>,
        host: Arc<wasm::Host>,
        handle: tokio::runtime::Handle,
        changed: Arc<watch::Sender<u64>>,
    ) -> Tables {
        Tables {
            log,
            host,
            handle,
            changed,
            known: Mutex::default(),
        }
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<TopicId, Weak<Followed>>> {
        // whole even if a writer panicked: it is looked up and put into, nothing else
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The table of a topic, which begins to be read if it was not. One that had to be given up is
    /// read anew.
    pub fn of(&self, topic: &Topic, bytes_max: usize) -> Arc<Followed> {
        let mut known = self.known();
        known.retain(|_, table| table.strong_count() > 0);
        let alive = known.get(&topic.id).and_then(Weak::upgrade);
        if let Some(table) = alive.filter(|table| table.grows_to(bytes_max)) {
            return table;
        }
        let table = Followed::start(self, topic, bytes_max);
        known.insert(topic.id, Arc::downgrade(&table));
        table
    }
}

/// A table of a node.
#[derive(Clone)]
pub(crate) struct Lookup {
    /// What the module calls it.
    pub name: String,
    pub table: Arc<Followed>,
    pub bytes_max: usize,
}

impl Lookup {
    /// Returns when all is in the table that its topic has now.
    ///
    /// # Errors
    /// It cannot be used.
    pub async fn caught_up(&self) -> Result<(), String> {
        let table = &self.name;
        let caught_up = self.table.caught_up().await;
        caught_up.map_err(|why| format!("lookup table `{table}`: {why}"))?;
        self.check()
    }

    /// Why the table cannot be used, if it cannot.
    fn trouble(&self) -> Option<String> {
        let large = || self.table.table.bytes() > self.bytes_max;
        let too_large = || large().then(|| self.table.too_large(self.bytes_max));
        self.table.given_up().or_else(too_large)
    }

    fn check(&self) -> Result<(), String> {
        match self.trouble() {
            Some(why) => Err(format!("lookup table `{}`: {why}", self.name)),
            None => Ok(()),
        }
    }

    pub fn status(&self, node: &str, log: &dyn TopicLog) -> LookupStatus {
        let (read, end) = self.table.progress(log);
        LookupStatus {
            node: node.to_string(),
            table: self.name.clone(),
            topic: self.table.name.clone(),
            entries: self.table.table.len() as u64,
            bytes: self.table.table.bytes() as u64,
            bytes_max: self.bytes_max as u64,
            read,
            end,
            without_key: self.table.without_key(),
            fault: self.trouble().or_else(|| self.table.fault()),
        }
    }
}

/// The tables of each of these nodes at this moment; the same table is the same for all of them.
///
/// # Errors
/// The number of a node and why its table cannot be used any more.
pub(crate) fn pin<'a>(
    nodes: impl Iterator<Item = &'a [Lookup]>,
) -> Result<Vec<Option<View>>, (usize, OperatorError)> {
    let mut pinned: Vec<Arc<wasm::Pinned>> = Vec::new();
    let mut views = Vec::new();
    for (number, lookups) in nodes.enumerate() {
        let mut view = Vec::with_capacity(lookups.len());
        for lookup in lookups {
            let table = &lookup.table.table;
            let known = pinned.iter().find(|known| known.is_of(table)).cloned();
            let moment = known.unwrap_or_else(|| {
                let moment = Arc::new(table.pin());
                pinned.push(moment.clone());
                moment
            });
            // in this order: one that was given up is emptied afterwards
            let usable = lookup.check();
            usable.map_err(|why| (number, OperatorError::Lookup(why)))?;
            view.push(moment);
        }
        views.push((!view.is_empty()).then(|| view.into()));
    }
    Ok(views)
}
