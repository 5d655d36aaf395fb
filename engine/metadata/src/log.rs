//! The catalog's log: votes, entries, commit marks and purges, in the order they came, in one
//! file that is written anew when most of it is dead.
//!
//! Called by: `store` (for Raft) and the handle (to reserve room), from threads that may block.
//! `held` is what the records say, `recovery` how they are read back.
//! Invariants: a vote and an entry are durable when their call returns; commit marks and purges
//! need not be, and go to the disk with what comes after them; what was reserved fits on a full
//! disk; the new file is whole and durable before it takes the place of the old one.
//! Refuses: to go on after a sync, or a write that is not undone, has failed.

pub(crate) mod held;
mod recovery;

use std::io;
use std::ops::RangeBounds;
use std::sync::Arc;

use crate::disk::{Folder, LogFile};
use crate::error::OpenError;
use crate::frame::{self, FRAME_HEAD_LEN, Place};
use crate::record::{FORMAT, Record};
use crate::types::{Entry, LogId, NodeId, Vote};
use held::Held;

/// Its name in the folder.
pub(crate) const LOG: &str = "log";

/// How the file grows and shrinks, in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    /// Kept free behind what commands were promised, for votes, commit marks and purges.
    pub reserve: u64,
    /// The file grows by multiples of this.
    pub growth: u64,
    /// Dead bytes from which the file is written anew, if they are also most of it.
    pub dead_max: u64,
}

impl Sizes {
    pub(crate) const REAL: Sizes = Sizes {
        reserve: 64 << 10,
        growth: 256 << 10,
        dead_max: 256 << 10,
    };
}

pub(crate) struct Log {
    folder: Arc<dyn Folder>,
    file: Box<dyn LogFile>,
    sizes: Sizes,
    node: NodeId,
    /// Counts the files that took this one's place.
    number: u64,
    /// Where the next frame goes, and up to where the file is durable and has space.
    end: u64,
    synced_to: u64,
    reserved_to: u64,
    /// Checksum of the last frame.
    previous: u32,
    /// Bytes of commands that are on their way here.
    promised: u64,
    held: Held,
    failure: Option<String>,
}

impl Log {
    /// Reads the log of `node`; makes it if it is not there.
    pub(crate) fn open(
        folder: Arc<dyn Folder>,
        node: NodeId,
        sizes: Sizes,
    ) -> Result<Log, OpenError> {
        let path = folder.path(LOG);
        let bytes = folder.read(LOG);
        match bytes.map_err(|error| OpenError::io("read", &path, error))? {
            Some(bytes) => recovery::open(folder, node, sizes, &bytes),
            None => Log::create(folder, (node, 1), sizes, Held::default(), 0)
                .map_err(|error| OpenError::io("create", &path, error)),
        }
    }

    /// A new file that says what `held` does, in the place of any other.
    fn create(
        folder: Arc<dyn Folder>,
        (node, number): (NodeId, u64),
        sizes: Sizes,
        held: Held,
        promised: u64,
    ) -> io::Result<Log> {
        let format = FORMAT;
        let mut records = vec![Record::Head { format, node }];
        records.extend(held.records());
        let payloads = records.iter().map(serde_json::to_vec);
        let payloads = payloads.collect::<Result<Vec<_>, _>>()?;
        let len: usize = payloads.iter().map(|p| FRAME_HEAD_LEN + p.len()).sum();
        let mut place = Place {
            file: number,
            position: 0,
            // All of it is durable before the file has its name.
            synced_to: len as u64,
            previous: 0,
        };
        let mut bytes = Vec::with_capacity(len);
        for payload in &payloads {
            place.position = bytes.len() as u64;
            place.previous = frame::encode(place, payload, &mut bytes);
        }
        let room = sizes.growth.max(promised + sizes.reserve);
        let file = folder.put(LOG, &bytes, room)?;
        Ok(Log {
            folder,
            file,
            sizes,
            node,
            number,
            end: len as u64,
            synced_to: len as u64,
            reserved_to: len as u64 + room,
            previous: place.previous,
            promised,
            held,
            failure: None,
        })
    }

    /// The state the records add up to.
    pub(crate) fn held(&self) -> &Held {
        &self.held
    }

    /// Why nothing more is taken, if so.
    pub(crate) fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    /// Bytes of the file up to its end.
    pub(crate) fn bytes(&self) -> u64 {
        self.end
    }

    pub(crate) fn entries(&self, range: impl RangeBounds<u64>) -> Vec<Entry> {
        self.held.entries(range)
    }

    /// Makes sure that a command of so many bytes will fit, and whatever Raft must write beside
    /// it. To be given back by `release` when the command is written, or will not be.
    pub(crate) fn reserve(&mut self, bytes: u64) -> io::Result<()> {
        self.check()?;
        let needed = self.end + self.promised + bytes + self.sizes.reserve;
        if needed > self.reserved_to {
            let to = needed.next_multiple_of(self.sizes.growth);
            if let Err(error) = self.file.reserve(self.reserved_to, to) {
                return Err(if is_full(&error) {
                    error
                } else {
                    self.fail(error)
                });
            }
            self.reserved_to = to;
        }
        self.promised += bytes;
        Ok(())
    }

    pub(crate) fn release(&mut self, bytes: u64) {
        self.promised = self.promised.saturating_sub(bytes);
    }

    pub(crate) fn append(&mut self, entries: Vec<Entry>) -> io::Result<()> {
        let records = entries.iter().map(|entry| Record::Entry(entry.into()));
        let records: Vec<Record> = records.collect();
        self.write(&records)?;
        self.sync()
    }

    pub(crate) fn vote(&mut self, vote: Vote) -> io::Result<()> {
        self.write(&[Record::Vote(vote.into())])?;
        self.sync()
    }

    /// Not durable before something else is: after a crash an older mark may be there, and the
    /// entries behind it are committed again.
    pub(crate) fn committed(&mut self, id: LogId) -> io::Result<()> {
        self.write(&[Record::Committed(id.into())])
    }

    /// Takes back entries from `id` on.
    pub(crate) fn truncate(&mut self, id: LogId) -> io::Result<()> {
        self.write(&[Record::Truncate(id.into())])?;
        self.sync()
    }

    /// Forgets entries up to `id`: a durable snapshot has them.
    pub(crate) fn purge(&mut self, id: LogId) -> io::Result<()> {
        self.write(&[Record::Purge(id.into())])?;
        let live = self.held.bytes();
        let dead = self.end.saturating_sub(live);
        if dead < self.sizes.dead_max || dead < live {
            return Ok(());
        }
        match self.rewrite() {
            // The old file is as good, only longer.
            Err(error) if is_full(&error) => {
                let path = self.folder.path(LOG);
                tracing::warn!(path = %path.display(), "no space to shorten the catalog's log");
                Ok(())
            }
            Err(error) => Err(self.fail(error)),
            Ok(()) => Ok(()),
        }
    }

    fn rewrite(&mut self) -> io::Result<()> {
        let next = Log::create(
            Arc::clone(&self.folder),
            (self.node, self.number + 1),
            self.sizes,
            self.held.clone(),
            self.promised,
        )?;
        *self = next;
        Ok(())
    }

    /// Writes records behind each other and holds what they say.
    fn write(&mut self, records: &[Record]) -> io::Result<()> {
        self.check()?;
        let mut bytes = Vec::new();
        let mut place = Place {
            file: self.number,
            position: self.end,
            synced_to: self.synced_to,
            previous: self.previous,
        };
        let mut sizes = Vec::with_capacity(records.len());
        for record in records {
            let payload = serde_json::to_vec(record)?;
            place.position = self.end + bytes.len() as u64;
            place.previous = frame::encode(place, &payload, &mut bytes);
            sizes.push((FRAME_HEAD_LEN + payload.len()) as u64);
        }
        if let Err(error) = self.file.write_at(self.end, &bytes) {
            if is_full(&error) && self.file.cut(self.end).is_ok() {
                self.reserved_to = self.end;
                return Err(error);
            }
            return Err(self.fail(error));
        }
        for (record, size) in records.iter().zip(sizes) {
            let held = self.held.take(record, size);
            held.map_err(|reason| self.fail(io::Error::other(reason)))?;
        }
        self.end += bytes.len() as u64;
        self.reserved_to = self.reserved_to.max(self.end);
        self.previous = place.previous;
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        if let Err(error) = self.file.sync() {
            return Err(self.fail(error));
        }
        self.synced_to = self.end;
        Ok(())
    }

    fn check(&self) -> io::Result<()> {
        match &self.failure {
            None => Ok(()),
            Some(reason) => Err(io::Error::other(reason.clone())),
        }
    }

    /// Ends the log: what of it is on the disk is unknown.
    fn fail(&mut self, error: io::Error) -> io::Error {
        let reason = format!("{}: {error}", self.folder.path(LOG).display());
        tracing::error!(%reason, "the catalog's log failed");
        self.failure = Some(reason.clone());
        io::Error::new(error.kind(), reason)
    }
}

/// Whether space is all that is missing.
pub(crate) fn is_full(error: &io::Error) -> bool {
    use io::ErrorKind::{QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded)
}

/// Bytes a command takes in the log, and a little more.
pub(crate) fn command_bytes(json: usize) -> u64 {
    const AROUND: usize = 200;
    (FRAME_HEAD_LEN + json + AROUND) as u64
}
