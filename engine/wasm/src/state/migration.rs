//! The state of a lane on its way from one schema to another.
//!
//! Called by: pipelines, before the first batch of a version that keeps its state in another way.
//! Invariants: the new state begins with the timers and the watermark of the old one and without
//! entries; the old one is not touched, and comes back where the migration or the batch after it fails;
//! what differs is told as changes of that batch, so that one commit has both or neither.
//! Refuses: more differences than one commit holds.

use std::collections::BTreeMap;
use std::ops::Bound;

use super::{Keyed, Scanned, TIMER};
use crate::error::ProcessError;
use crate::limits::{
    Account, Limits, MIGRATION_BYTES, MIGRATION_CHANGED_BYTES_MAX, MIGRATION_ENTRIES,
};

/// Some entries of the older state, in the order of keys.
#[derive(Debug, Default)]
pub struct Old(pub(crate) Scanned);

impl Old {
    pub fn is_empty(&self) -> bool {
        self.0.keys.is_empty()
    }

    /// The key that these entries begin with.
    pub fn first(&self) -> Option<&[u8]> {
        self.0.keys.first().map(Vec::as_slice)
    }

    pub fn last(&self) -> Option<&[u8]> {
        self.0.keys.last().map(Vec::as_slice)
    }
}

impl Keyed {
    /// Begins anew, with the timers and the watermark of what was kept so far. A migration that was not
    /// committed is forgotten.
    pub fn migrate(&mut self, limits: &Limits, schema: u32) {
        self.back();
        self.begin();
        let old = std::mem::take(self);
        let timers = old
            .base
            .range::<[u8], _>((Bound::Included(&[TIMER][..]), Bound::Unbounded));
        let base: BTreeMap<_, _> = timers.map(|(k, v)| (k.clone(), v.clone())).collect();
        let mut new = Keyed {
            watermark: old.watermark,
            moved: old.watermark,
            account: old.account.as_ref().map(Account::another),
            ..Keyed::new(limits, schema)
        };
        for (key, value) in &base {
            let sums = new.effect(key, None, Some(value.len()));
            new.sums[0].add(sums);
        }
        new.base = base;
        new.before = Some(Box::new(old));
        new.count();
        *self = new;
    }

    /// The next entries of the older state behind a key; none at its end, or where there is none.
    pub fn old(&self, after: Option<&[u8]>) -> Old {
        let old = self.before.as_ref();
        Old(old.map_or_else(Scanned::default, |old| {
            old.page(b"", after, MIGRATION_ENTRIES, MIGRATION_BYTES)
        }))
    }

    /// A call of the module went well: what it put is part of the new state.
    pub fn keep_migrated(&mut self) {
        self.keep_call();
        self.settle();
    }

    /// All entries were given.
    ///
    /// # Errors
    /// What differs is more than one commit holds.
    pub fn migrated(&self) -> Result<(), ProcessError> {
        let mut bytes = 0;
        if let Some(before) = &self.before {
            self.differs(before, |key, value| {
                bytes += key.len() + value.map_or(0, <[u8]>::len)
            });
        }
        match bytes <= MIGRATION_CHANGED_BYTES_MAX {
            true => Ok(()),
            false => Err(ProcessError::Limit {
                what: "bytes of state that one migration changes",
                limit: MIGRATION_CHANGED_BYTES_MAX as u64,
            }),
        }
    }

    /// Whether the log does not know of its migration yet.
    pub fn is_migrated(&self) -> bool {
        self.before.is_some()
    }

    /// What the log knows: itself, unless it was migrated since.
    pub fn committed(&self) -> &Keyed {
        self.before.as_deref().unwrap_or(self)
    }

    /// Becomes what the log knows. A batch at work is dropped with the migration.
    pub fn back(&mut self) {
        if let Some(before) = self.before.take() {
            *self = *before;
        }
    }

    /// What was committed or handed to the log, for somebody who goes on with it apart: counted once more.
    pub fn copy(&self) -> Keyed {
        let mut copy = Keyed {
            base: self.base.clone(),
            sums: [self.sums[0], Default::default(), Default::default()],
            bytes_max: self.bytes_max,
            timers_max: self.timers_max,
            schema: self.schema,
            watermark: self.watermark,
            moved: self.watermark,
            account: self.account.as_ref().map(Account::another),
            ..Keyed::default()
        };
        copy.count();
        copy
    }

    /// Goes through what is in only one of the two, or not the same in both; an absent value is one that
    /// is gone.
    pub(super) fn differs(&self, before: &Keyed, mut each: impl FnMut(&[u8], Option<&[u8]>)) {
        let mut old = before.base.iter().peekable();
        self.walk(Bound::Unbounded, |key, value| {
            while let Some((gone, _)) = old.next_if(|(old, _)| old[..] < *key) {
                each(gone, None);
            }
            let known = old.next_if(|(old, _)| old[..] == *key);
            if known.is_none_or(|(_, old)| old[..] != *value) {
                each(key, Some(value));
            }
            true
        });
        old.for_each(|(gone, _)| each(gone, None));
    }
}
