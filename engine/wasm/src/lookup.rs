//! Lookup tables: the newest value of every key of a topic, in memory, as modules see it.
//!
//! Called by: pipelines (one follower fills a table, lanes pin it for a batch), `link::lookup` during a
//! call. Invariants: what somebody has pinned does not change for them; what stood there is put
//! aside once, with the newest pin, and goes with the last that could see it. One lock, held for one
//! change or one call. Bytes are counted, those put aside too.
//! Refuses: to hold more than it was told, before the memory is taken.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::guest::Failure;
use crate::limits::{Account, LOOKUP_ENTRY_BYTES, MemoryInUse};

type Bytes = Box<[u8]>;

/// More than the table may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("more than {bytes_max} bytes")]
pub struct TableFull {
    pub bytes_max: usize,
}

/// The newest value of every key. Cheap to clone: all clones are one table.
#[derive(Debug, Clone, Default)]
pub struct Table(Arc<RwLock<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    entries: HashMap<Bytes, Bytes>,
    /// How many changes there were.
    version: u64,
    /// By version.
    pins: BTreeMap<u64, Pin>,
    /// What the entries take, and what was put aside, about.
    bytes: usize,
    aside: usize,
    account: Option<Account>,
}

/// Those who look at one version.
#[derive(Debug, Default)]
struct Pin {
    holders: usize,
    /// What stood there, of keys that changed before the next version that is pinned.
    before: HashMap<Bytes, Option<Bytes>>,
}

impl Table {
    /// Counted as memory of the modules.
    pub(crate) fn counted(all: &Arc<MemoryInUse>) -> Table {
        let inner = Inner {
            account: Some(Account::new(all)),
            ..Inner::default()
        };
        Table(Arc::new(RwLock::new(inner)))
    }

    fn read(&self) -> RwLockReadGuard<'_, Inner> {
        // whole even if a writer panicked: a change of one key has no step that can
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Inner> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts keys and their values in, in order, so that whoever pins next sees all of them; no value
    /// deletes.
    ///
    /// # Errors
    /// With the next one the entries would take more than `bytes_max`; those before it are in.
    pub fn apply<'a>(
        &self,
        changes: impl IntoIterator<Item = (&'a [u8], Option<&'a [u8]>)>,
        bytes_max: usize,
    ) -> Result<(), TableFull> {
        let mut inner = self.write();
        let mut changes = changes.into_iter();
        let done = changes.try_for_each(|(key, value)| inner.change(key, value, bytes_max));
        inner.version += 1;
        inner.count();
        done
    }

    /// Forgets all entries; who has pinned it still sees them.
    pub fn clear(&self) {
        let mut inner = self.write();
        for (key, value) in std::mem::take(&mut inner.entries) {
            inner.put_aside(&key, Some(value));
        }
        inner.bytes = 0;
        inner.version += 1;
        inner.count();
    }

    /// The table as it is now, for as long as the answer is held.
    pub fn pin(&self) -> Pinned {
        let mut inner = self.write();
        let version = inner.version;
        inner.pins.entry(version).or_default().holders += 1;
        Pinned {
            table: self.clone(),
            version,
        }
    }

    /// Whether both are the same table.
    pub fn is(&self, other: &Table) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    pub fn len(&self) -> usize {
        self.read().entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What the entries take, about.
    pub fn bytes(&self) -> usize {
        self.read().bytes
    }

    /// What is kept only for those who have pinned it, about.
    pub fn bytes_aside(&self) -> usize {
        self.read().aside
    }
}

impl Inner {
    fn change(
        &mut self,
        key: &[u8],
        value: Option<&[u8]>,
        bytes_max: usize,
    ) -> Result<(), TableFull> {
        let known = self.entries.get(key).map(|value| value.len());
        let (old, new) = (cost(key, known), cost(key, value.map(<[u8]>::len)));
        let bytes = self.bytes - old + new;
        if new > old && bytes > bytes_max {
            return Err(TableFull { bytes_max });
        }
        self.bytes = bytes;
        let before = match (value, self.entries.get_mut(key)) {
            (Some(value), Some(known)) => Some(std::mem::replace(known, value.into())),
            (Some(value), None) => self.entries.insert(key.into(), value.into()),
            (None, _) => self.entries.remove(key),
        };
        self.put_aside(key, before);
        Ok(())
    }

    /// For those who see the table as it was.
    fn put_aside(&mut self, key: &[u8], value: Option<Bytes>) {
        let Some((_, newest)) = self.pins.iter_mut().next_back() else {
            return;
        };
        if !newest.before.contains_key(key) {
            self.aside += aside(key, value.as_ref());
            newest.before.insert(key.into(), value);
        }
    }

    fn unpin(&mut self, version: u64) {
        let Some(pin) = self.pins.get_mut(&version) else {
            return;
        };
        pin.holders -= 1;
        if pin.holders > 0 {
            return;
        }
        let gone = self.pins.remove(&version).unwrap_or_default();
        let mut older = self.pins.range_mut(..version).next_back();
        for (key, value) in gone.before {
            let bytes = aside(&key, value.as_ref());
            match &mut older {
                // what it saw at its own time counts
                Some((_, older)) if !older.before.contains_key(&key) => {
                    older.before.insert(key, value);
                }
                _ => self.aside -= bytes,
            }
        }
        self.count();
    }

    fn count(&mut self) {
        let bytes = self.bytes + self.aside;
        if let Some(account) = &mut self.account {
            account.set(bytes);
        }
    }
}

/// What an entry takes, with what the host needs beside its bytes.
fn cost(key: &[u8], value: Option<usize>) -> usize {
    value.map_or(0, |value| key.len() + value + LOOKUP_ENTRY_BYTES)
}

fn aside(key: &[u8], value: Option<&Bytes>) -> usize {
    key.len() + value.map_or(0, |value| value.len()) + LOOKUP_ENTRY_BYTES
}

/// A table at one moment.
#[derive(Debug)]
pub struct Pinned {
    table: Table,
    version: u64,
}

impl Pinned {
    /// Looks keys up under one lock.
    pub fn reading(&self) -> Reading<'_> {
        Reading {
            inner: self.table.read(),
            version: self.version,
        }
    }

    /// Whether it is a moment of this table.
    pub fn is_of(&self, table: &Table) -> bool {
        self.table.is(table)
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        self.table.write().unpin(self.version);
    }
}

/// Nothing changes while it is held: not for long.
#[derive(Debug)]
pub struct Reading<'a> {
    inner: RwLockReadGuard<'a, Inner>,
    version: u64,
}

impl Reading<'_> {
    pub fn get(&self, key: &[u8]) -> Option<&[u8]> {
        for pin in self.inner.pins.range(self.version..) {
            if let Some(value) = pin.1.before.get(key) {
                return value.as_deref();
            }
        }
        self.inner.entries.get(key).map(|value| &value[..])
    }
}

/// The tables of a node at one moment, in the order of their names.
pub type View = Arc<[Arc<Pinned>]>;

/// The tables of a node by their names, and what the batch at work sees of them. Clones are the same;
/// an instance that dies leaves it to the next.
#[derive(Debug, Clone, Default)]
pub struct Lookups {
    names: Arc<[String]>,
    lent: Arc<Mutex<Option<View>>>,
}

impl Lookups {
    pub fn new(names: impl IntoIterator<Item = String>) -> Lookups {
        Lookups {
            names: names.into_iter().collect(),
            lent: Arc::default(),
        }
    }

    /// The same tables for another instance, which works on other batches.
    pub fn another(&self) -> Lookups {
        Lookups {
            names: Arc::clone(&self.names),
            lent: Arc::default(),
        }
    }

    /// What the calls see from now on, one for each name; `None`: no batch is at work.
    pub fn lend(&self, view: Option<View>) {
        *self.lent() = view;
    }

    fn lent(&self) -> MutexGuard<'_, Option<View>> {
        // set as a whole
        self.lent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number that a name has.
    pub(crate) fn number(&self, name: &str) -> Result<u32, Failure> {
        let found = self.names.iter().position(|known| known == name);
        found.map(|number| number as u32).ok_or_else(|| {
            let message = match &self.names[..] {
                [] => format!(
                    "the module asks for the table `{name}`, and the node declares none: give it \
                     `lookups: {{ {name}: TOPIC }}`"
                ),
                names => format!(
                    "the node declares no table `{name}`; its `lookups` are {}",
                    names.join(", ")
                ),
            };
            Failure {
                code: "lookup".into(),
                message,
            }
        })
    }

    /// A table as the batch sees it.
    pub(crate) fn table(&self, call: &str, number: u32) -> Result<Arc<Pinned>, String> {
        let lent = self.lent();
        let Some(view) = &*lent else {
            return Err(format!("{call}: there are no tables outside of a batch"));
        };
        let table = usize::try_from(number).ok().and_then(|at| view.get(at));
        let missing = || {
            let count = view.len();
            format!("{call}: table {number}, but the node declares {count}")
        };
        table.cloned().ok_or_else(missing)
    }
}
