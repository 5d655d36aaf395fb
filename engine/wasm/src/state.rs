//! What a module keeps from batch to batch: the keyed state of one node in one lane, in memory.
//!
//! Called by: pipelines (loads it from its changelog, commits what changed), `link::state` and
//! `link::timers` during a call. Invariants: three layers, each over the one below: what is
//! committed or about to be (`base`), what the batch at work changed, what the call at work
//! changed; a call that fails leaves nothing in the second, a batch that is not committed nothing
//! in the first. Timers and the watermark are entries like others, under a first byte that no guest
//! can name. Bytes and timers are counted over all layers. What was migrated holds on to what it was
//! made of, until the difference is handed to the log as part of the next batch.
//! Refuses: more than its limits, keys and values that are too long, by `over`.

mod migration;

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use wasmtime::Result;

use crate::error::over;
use crate::limits::{
    Account, Limits, MemoryInUse, OF_STATE, OF_TIMERS, STATE_CHANGED_BYTES_MAX, STATE_ENTRY_BYTES,
    STATE_KEY_BYTES_MAX, STATE_READ_BYTES_MAX, STATE_SCAN_ENTRIES_MAX, STATE_VALUE_BYTES_MAX,
};

pub use migration::Old;

/// First bytes of keys in the changelog: what is known of the state itself, entries, timers.
const META: u8 = 0;
const ENTRY: u8 = 1;
const TIMER: u8 = 2;
/// Bytes of a timer's time in its key.
const TIME_BYTES: usize = 8;

type Bytes = Box<[u8]>;
type Layer = BTreeMap<Bytes, Option<Bytes>>;

/// A timer: its time in microseconds since the epoch, UTC, and its key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timer {
    pub time: i64,
    pub key: Vec<u8>,
}

/// Why a changelog cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    #[error("a record of the state has a key that is none of the state's")]
    Key,
    #[error("the record about the state itself has {0} bytes, not 12")]
    Meta(usize),
}

/// What a layer adds to the sums of those below.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Sums {
    bytes: i64,
    timers: i64,
}

impl Sums {
    fn add(&mut self, other: Sums) {
        self.bytes += other.bytes;
        self.timers += other.timers;
    }
}

/// See the head of this file. `Default` is what stands in while a call has it.
#[derive(Debug, Default)]
pub struct Keyed {
    base: BTreeMap<Bytes, Bytes>,
    batch: Layer,
    call: Layer,
    sums: [Sums; 3],
    /// Keys and values in `call`.
    changed: usize,
    bytes_max: usize,
    timers_max: usize,
    schema: u32,
    /// Of the lane, committed or about to be.
    watermark: i64,
    moved: i64,
    account: Option<Account>,
    /// What it was migrated from, while the log says so.
    before: Option<Box<Keyed>>,
}

/// Entries of a scan.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Scanned {
    pub(crate) keys: Vec<Vec<u8>>,
    pub(crate) values: Vec<Vec<u8>>,
}

impl Keyed {
    /// Nothing kept yet; `schema` is the module's.
    pub fn new(limits: &Limits, schema: u32) -> Keyed {
        Keyed {
            bytes_max: limits.state_bytes,
            timers_max: limits.timers,
            schema,
            watermark: i64::MIN,
            moved: i64::MIN,
            ..Keyed::default()
        }
    }

    /// The same, counted as memory of the modules.
    pub(crate) fn counted(self, all: &Arc<MemoryInUse>) -> Keyed {
        Keyed {
            account: Some(Account::new(all)),
            ..self
        }
    }

    /// The limits of the module that works with it from now on.
    pub fn limit(&mut self, limits: &Limits) {
        (self.bytes_max, self.timers_max) = (limits.state_bytes, limits.timers);
    }

    /// Version of the schema that it is kept with.
    pub fn schema(&self) -> u32 {
        self.schema
    }

    /// Takes a record of the changelog, in its order; the schema is the one that it was kept with.
    ///
    /// # Errors
    /// What no state has written.
    pub fn load(
        &mut self,
        key: &[u8],
        value: Option<&[u8]>,
    ) -> std::result::Result<(), StateError> {
        match key.first() {
            Some(&META) => return self.load_meta(value),
            Some(&(ENTRY | TIMER)) => {}
            _ => return Err(StateError::Key),
        }
        let sums = self.effect(
            key,
            self.base.get(key).map(|v| v.len()),
            value.map(<[u8]>::len),
        );
        self.sums[0].add(sums);
        match value {
            Some(value) => self.base.insert(key.into(), value.into()),
            None => self.base.remove(key),
        };
        self.count();
        Ok(())
    }

    /// Takes an entry by the key that its module gave it.
    pub fn load_entry(&mut self, key: &[u8], value: &[u8]) {
        // the key of an entry is one of the state's
        let _ = self.load(&entry_key(key), Some(value));
    }

    fn load_meta(&mut self, value: Option<&[u8]>) -> std::result::Result<(), StateError> {
        let value = value.unwrap_or_default();
        let (Some((schema, rest)), 12) = (value.split_first_chunk::<4>(), value.len()) else {
            return Err(StateError::Meta(value.len()));
        };
        self.schema = u32::from_le_bytes(*schema);
        let time = rest.first_chunk::<8>().copied().unwrap_or_default();
        self.watermark = i64::from_le_bytes(time);
        self.moved = self.watermark;
        Ok(())
    }

    /// A batch begins, or the same one again: what was not kept is gone.
    pub fn begin(&mut self) {
        self.batch.clear();
        self.drop_call();
        self.sums[1] = Sums::default();
        self.moved = self.watermark;
    }

    /// What the call changed is part of the batch.
    pub fn keep_call(&mut self) {
        self.batch.append(&mut self.call);
        self.changed = 0;
        let sums = std::mem::take(&mut self.sums[2]);
        self.sums[1].add(sums);
    }

    /// The call never happened.
    pub fn drop_call(&mut self) {
        self.call.clear();
        self.changed = 0;
        self.sums[2] = Sums::default();
    }

    /// The batch is about to be committed: the next one builds on it.
    pub fn keep(&mut self) {
        self.settle();
        self.before = None;
    }

    fn settle(&mut self) {
        for (key, value) in std::mem::take(&mut self.batch) {
            match value {
                Some(value) => self.base.insert(key, value),
                None => self.base.remove(&key),
            };
        }
        let sums = std::mem::take(&mut self.sums[1]);
        self.sums[0].add(sums);
        self.watermark = self.moved;
        self.count();
    }

    fn count(&mut self) {
        let bytes = self.sums[0].bytes.max(0) as usize;
        if let Some(account) = &mut self.account {
            account.set(bytes);
        }
    }

    /// What the batch changed, and a migration before it, as records of the changelog.
    pub fn changes(&self) -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
        let mut changes = Vec::with_capacity(self.batch.len() + 1);
        let migrated = self.before.is_some();
        if self.moved != self.watermark || !self.batch.is_empty() || migrated {
            let mut meta = self.schema.to_le_bytes().to_vec();
            meta.extend(self.moved.to_le_bytes());
            changes.push((vec![META], Some(meta)));
        }
        if let Some(before) = &self.before {
            self.differs(before, |key, value| {
                changes.push((key.to_vec(), value.map(<[u8]>::to_vec)));
            });
            return changes;
        }
        let owned = |(key, value): (&Bytes, &Option<Bytes>)| {
            (key.to_vec(), value.as_ref().map(|value| value.to_vec()))
        };
        changes.extend(self.batch.iter().map(owned));
        changes
    }

    /// Entries and timers that the batch changed.
    pub fn changed(&self) -> usize {
        self.batch.len()
    }

    /// Before the batch, and with what it moved.
    pub fn watermark(&self) -> i64 {
        self.watermark
    }

    pub fn moved(&self) -> i64 {
        self.moved
    }

    /// Moves the watermark, never back.
    pub fn advance(&mut self, to: i64) {
        self.moved = self.moved.max(to);
    }

    /// Bytes that are held, about.
    pub fn bytes(&self) -> usize {
        self.total().bytes.max(0) as usize
    }

    pub fn entries(&self) -> usize {
        self.base.len()
    }

    /// Keys and values that are kept, in order.
    pub fn kept(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let (from, to) = (&[ENTRY][..], &[TIMER][..]);
        let range = (Bound::Included(from), Bound::Excluded(to));
        let entries = self.base.range::<[u8], _>(range);
        entries.map(|(key, value)| (&key[1..], &value[..]))
    }

    /// The timers that the watermark has passed, in order.
    pub fn due(&self) -> Vec<Timer> {
        let mut end = vec![TIMER];
        end.extend(ordered(self.moved.saturating_add(1)));
        let mut due = Vec::new();
        self.walk(Bound::Included(&[TIMER]), |key, _| {
            if key >= end.as_slice() {
                return false;
            }
            let Some(time) = key[1..].first_chunk::<TIME_BYTES>() else {
                return true;
            };
            due.push(Timer {
                time: from_ordered(*time),
                key: key[1 + TIME_BYTES..].to_vec(),
            });
            true
        });
        due
    }

    /// Whether a timer is set.
    pub fn has(&self, timer: &Timer) -> bool {
        self.lookup(&timer_key(timer.time, &timer.key)).is_some()
    }

    /// They fire now, whatever becomes of it: part of the batch.
    pub fn fire(&mut self, timers: &[Timer]) {
        for timer in timers {
            let key = timer_key(timer.time, &timer.key);
            let before = self.lookup(&key).map(<[u8]>::len);
            let sums = self.effect(&key, before, None);
            self.sums[1].add(sums);
            self.batch.insert(key.into(), None);
        }
    }

    pub(crate) fn get(&self, key: &[u8]) -> Option<&[u8]> {
        self.lookup(&entry_key(key))
    }

    pub(crate) fn put(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<()> {
        limit(
            "bytes in a key of the state",
            key.len(),
            STATE_KEY_BYTES_MAX,
        )?;
        let len = value.map_or(0, <[u8]>::len);
        limit("bytes in a value of the state", len, STATE_VALUE_BYTES_MAX)?;
        self.change(entry_key(key), value)
    }

    pub(crate) fn set_timer(&mut self, key: &[u8], time: i64) -> Result<()> {
        limit(
            "bytes in a key of the state",
            key.len(),
            STATE_KEY_BYTES_MAX,
        )?;
        self.change(timer_key(time, key), Some(&[]))
    }

    pub(crate) fn clear_timer(&mut self, key: &[u8], time: i64) -> Result<()> {
        self.change(timer_key(time, key), None)
    }

    /// As `wit/state.wit` says.
    pub(crate) fn scan(&self, prefix: &[u8], after: Option<&[u8]>, most: u32) -> Scanned {
        let most = (most as usize).min(STATE_SCAN_ENTRIES_MAX);
        self.page(prefix, after, most, STATE_READ_BYTES_MAX)
    }

    /// Entries in order: at most so many, and of so many bytes unless the first alone has more.
    fn page(&self, prefix: &[u8], after: Option<&[u8]>, most: usize, bytes_max: usize) -> Scanned {
        let prefix = entry_key(prefix);
        let after = after.map(entry_key).filter(|after| *after >= prefix);
        let from = match &after {
            Some(after) => Bound::Excluded(after.as_slice()),
            None => Bound::Included(prefix.as_slice()),
        };
        let (mut found, mut bytes) = (Scanned::default(), 0);
        if most == 0 {
            return found;
        }
        self.walk(from, |key, value| {
            bytes += key.len() + value.len();
            let room = found.keys.is_empty() || bytes <= bytes_max;
            if !key.starts_with(&prefix) || !room {
                return false;
            }
            found.keys.push(key[1..].to_vec());
            found.values.push(value.to_vec());
            found.keys.len() < most
        });
        found
    }

    fn lookup(&self, key: &[u8]) -> Option<&[u8]> {
        match self.call.get(key) {
            Some(value) => value.as_deref(),
            None => self.before_call(key),
        }
    }

    fn before_call(&self, key: &[u8]) -> Option<&[u8]> {
        match self.batch.get(key) {
            Some(value) => value.as_deref(),
            None => self.base.get(key).map(|value| &value[..]),
        }
    }

    /// A change of the call at work.
    fn change(&mut self, key: Vec<u8>, value: Option<&[u8]>) -> Result<()> {
        let before = self.lookup(&key).map(<[u8]>::len);
        if before.is_none() && value.is_none() {
            return Ok(());
        }
        let sums = self.effect(&key, before, value.map(<[u8]>::len));
        let total = self.total();
        if sums.bytes > 0 {
            let bytes = (total.bytes + sums.bytes).max(0) as usize;
            limit(OF_STATE, bytes, self.bytes_max)?;
        }
        if sums.timers > 0 {
            let timers = (total.timers + sums.timers).max(0) as usize;
            limit(OF_TIMERS, timers, self.timers_max)?;
        }
        let held = |key: &[u8], value: Option<usize>| {
            key.len() + value.unwrap_or_default() + STATE_ENTRY_BYTES
        };
        let replaced = self.call.get(key.as_slice());
        let replaced = replaced.map_or(0, |old| held(&key, old.as_ref().map(|v| v.len())));
        // what was not there before the call need not be told to be gone
        let is_undone = value.is_none() && self.before_call(&key).is_none();
        let kept = match is_undone {
            true => 0,
            false => held(&key, value.map(<[u8]>::len)),
        };
        let changed = self.changed - replaced + kept;
        limit(
            "bytes of state changed in one call",
            changed,
            STATE_CHANGED_BYTES_MAX,
        )?;
        self.changed = changed;
        self.sums[2].add(sums);
        match is_undone {
            true => drop(self.call.remove(key.as_slice())),
            false => drop(self.call.insert(key.into(), value.map(Into::into))),
        }
        Ok(())
    }

    fn total(&self) -> Sums {
        let mut total = Sums::default();
        self.sums.iter().for_each(|sums| total.add(*sums));
        total
    }

    /// What a change from one length to another adds.
    fn effect(&self, key: &[u8], before: Option<usize>, after: Option<usize>) -> Sums {
        let cost = |len: Option<usize>| len.map_or(0, |len| entry_bytes(key, len));
        let one = |len: Option<usize>| i64::from(len.is_some() && key.first() == Some(&TIMER));
        Sums {
            bytes: cost(after) - cost(before),
            timers: one(after) - one(before),
        }
    }

    /// Goes through all layers at once, in the order of keys, while `each` says so.
    fn walk(&self, from: Bound<&[u8]>, mut each: impl FnMut(&[u8], &[u8]) -> bool) {
        let range = (from, Bound::Unbounded);
        let mut base = self.base.range::<[u8], _>(range).peekable();
        let mut batch = self.batch.range::<[u8], _>(range).peekable();
        let mut call = self.call.range::<[u8], _>(range).peekable();
        loop {
            let heads = [
                base.peek().map(|(key, _)| *key),
                batch.peek().map(|(key, _)| *key),
                call.peek().map(|(key, _)| *key),
            ];
            let Some(key) = heads.into_iter().flatten().min() else {
                return;
            };
            let mut value = base.next_if(|(k, _)| *k == key).map(|(_, v)| &v[..]);
            for layer in [&mut batch, &mut call] {
                if let Some((_, over)) = layer.next_if(|(k, _)| *k == key) {
                    value = over.as_deref();
                }
            }
            if let Some(value) = value
                && !each(key, value)
            {
                return;
            }
        }
    }
}

fn limit(what: &'static str, wanted: usize, limit: usize) -> Result<()> {
    match wanted <= limit {
        true => Ok(()),
        false => over(what, limit),
    }
}

/// What an entry costs, with what the host needs beside its bytes.
fn entry_bytes(key: &[u8], value: usize) -> i64 {
    (key.len() + value + STATE_ENTRY_BYTES) as i64
}

fn entry_key(key: &[u8]) -> Vec<u8> {
    let mut whole = Vec::with_capacity(1 + key.len());
    whole.push(ENTRY);
    whole.extend_from_slice(key);
    whole
}

fn timer_key(time: i64, key: &[u8]) -> Vec<u8> {
    let mut whole = Vec::with_capacity(1 + TIME_BYTES + key.len());
    whole.push(TIMER);
    whole.extend(ordered(time));
    whole.extend_from_slice(key);
    whole
}

/// Bytes whose order is that of the numbers.
fn ordered(time: i64) -> [u8; TIME_BYTES] {
    ((time as u64) ^ (1 << 63)).to_be_bytes()
}

fn from_ordered(bytes: [u8; TIME_BYTES]) -> i64 {
    (u64::from_be_bytes(bytes) ^ (1 << 63)) as i64
}
