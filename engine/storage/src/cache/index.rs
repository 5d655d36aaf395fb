//! Which blocks the disk has: their sizes, ages, and the order of their last use.
//!
//! Called by: `disk`, under its lock; a plain struct without clock or I/O.
//! Invariants: the bytes are the sum of the sizes; each name stands once in the order.
//! Refuses: nothing.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, SystemTime};

use super::file::Name;

#[derive(Default)]
pub(super) struct Index {
    entries: HashMap<Name, Entry>,
    /// By the time of their last use, as a count.
    order: BTreeMap<u64, Name>,
    uses: u64,
    bytes: u64,
}

struct Entry {
    size: u64,
    used: u64,
    since: SystemTime,
}

impl Index {
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn contains(&self, name: Name) -> bool {
        self.entries.contains_key(&name)
    }

    pub(super) fn oldest(&self) -> Option<SystemTime> {
        self.entries.values().map(|entry| entry.since).min()
    }

    /// Makes it the most recently used, and answers since when it is there.
    pub(super) fn touch(&mut self, name: Name) -> Option<SystemTime> {
        let entry = self.entries.get_mut(&name)?;
        self.uses += 1;
        self.order.remove(&entry.used);
        self.order.insert(self.uses, name);
        entry.used = self.uses;
        Some(entry.since)
    }

    pub(super) fn insert(&mut self, name: Name, size: u64, since: SystemTime) {
        self.remove(name);
        self.uses += 1;
        let used = self.uses;
        self.order.insert(used, name);
        self.entries.insert(name, Entry { size, used, since });
        self.bytes += size;
    }

    pub(super) fn remove(&mut self, name: Name) {
        if let Some(entry) = self.entries.remove(&name) {
            self.order.remove(&entry.used);
            self.bytes -= entry.size;
        }
    }

    /// Takes out the least recently used until at most `bytes` are left.
    pub(super) fn take_down_to(&mut self, bytes: u64) -> Vec<Name> {
        let mut taken = Vec::new();
        while self.bytes > bytes {
            let Some((_, name)) = self.order.first_key_value() else {
                break;
            };
            taken.push(*name);
            self.remove(taken[taken.len() - 1]);
        }
        taken
    }

    /// Takes out what is older than `age_max`.
    pub(super) fn take_older(&mut self, now: SystemTime, age_max: Duration) -> Vec<Name> {
        let is_old = |entry: &Entry| {
            now.duration_since(entry.since)
                .is_ok_and(|age| age > age_max)
        };
        let old = self.entries.iter().filter(|(_, entry)| is_old(entry));
        let old: Vec<Name> = old.map(|(name, _)| *name).collect();
        old.iter().for_each(|name| self.remove(*name));
        old
    }
}
