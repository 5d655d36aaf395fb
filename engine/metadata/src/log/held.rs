//! What the records of the log add up to: the vote, the entries, and how far they are known to
//! be committed. Pure.
//!
//! Called by: `log` after it wrote a record, `recovery` when it reads one. Invariants: entries
//! have no holes between them; what is purged is not there.
//! Refuses: a record that cannot follow on those before it.

use std::collections::BTreeMap;
use std::ops::{Bound, RangeBounds};

use crate::record::Record;
use crate::types::{Entry, LogId, Vote};

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Held {
    pub vote: Option<Vote>,
    pub committed: Option<LogId>,
    pub purged: Option<LogId>,
    entries: BTreeMap<u64, Entry>,
    /// Bytes of each entry's frame, and of all.
    sizes: BTreeMap<u64, u64>,
    bytes: u64,
}

impl Held {
    /// Takes in what a record says, which takes `size` bytes on the disk.
    pub(crate) fn take(&mut self, record: &Record, size: u64) -> Result<(), String> {
        match record {
            Record::Head { .. } => return Err("the head of a file stands inside of it".to_owned()),
            Record::Vote(vote) => self.vote = Some((*vote).into()),
            Record::Committed(id) => self.committed = Some((*id).into()),
            Record::Entry(text) => {
                let entry: Entry = text.clone().into();
                let index = entry.log_id.index;
                if let Some(due) = self.due().filter(|due| *due != index) {
                    return Err(format!("entry {index} stands where {due} is due"));
                }
                self.bytes += size;
                self.sizes.insert(index, size);
                self.entries.insert(index, entry);
            }
            Record::Truncate(id) => {
                let from = LogId::from(*id).index;
                self.drop_entries(|index| index >= from);
            }
            Record::Purge(id) => {
                let id = LogId::from(*id);
                self.drop_entries(|index| index <= id.index);
                self.purged = self.purged.max(Some(id));
            }
        }
        Ok(())
    }

    /// The index of the next entry; `None`: any.
    fn due(&self) -> Option<u64> {
        Some(self.entries.last_key_value()?.0 + 1)
    }

    fn drop_entries(&mut self, is_gone: impl Fn(u64) -> bool) {
        self.entries.retain(|index, _| !is_gone(*index));
        let gone = self.sizes.extract_if(.., |index, _| is_gone(*index));
        self.bytes -= gone.map(|(_, size)| size).sum::<u64>();
    }

    /// The records that say the same, in as few as can be.
    pub(crate) fn records(&self) -> Vec<Record> {
        let mut records = Vec::with_capacity(self.entries.len() + 3);
        records.extend(self.vote.map(|vote| Record::Vote(vote.into())));
        records.extend(self.purged.map(|id| Record::Purge(id.into())));
        let entries = self.entries.values();
        records.extend(entries.map(|entry| Record::Entry(entry.into())));
        records.extend(self.committed.map(|id| Record::Committed(id.into())));
        records
    }

    pub(crate) fn entries(&self, range: impl RangeBounds<u64>) -> Vec<Entry> {
        let bounds = (range.start_bound().cloned(), range.end_bound().cloned());
        match bounds {
            // An empty range, which a map does not take.
            (Bound::Included(from), Bound::Excluded(to)) if from >= to => Vec::new(),
            bounds => self.entries.range(bounds).map(|(_, e)| e.clone()).collect(),
        }
    }

    /// The id of the last entry, be it purged.
    pub(crate) fn last(&self) -> Option<LogId> {
        let last = self.entries.values().next_back();
        last.map(|entry| entry.log_id).or(self.purged)
    }

    /// Bytes of all entries.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes of the entries behind `id`.
    pub(crate) fn bytes_behind(&self, id: Option<LogId>) -> u64 {
        let from = id.map_or(0, |id| id.index + 1);
        self.sizes.range(from..).map(|(_, size)| size).sum()
    }
}
