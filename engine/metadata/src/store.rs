//! The catalog's log as Raft wants it.
//!
//! Called by: Raft, through its traits; by the handle, to reserve room for a command.
//! Invariants: every call to the log is made by a thread that may block, one at a time; a vote is
//! durable when `save_vote` returns, an entry when its callback is called.
//! Refuses: what the log refuses; for Raft every such error is final.

use std::fmt::Debug;
use std::io;
use std::ops::RangeBounds;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use openraft::storage::{LogFlushed, RaftLogStorage};
use openraft::{AnyError, LogState, OptionalSend, RaftLogReader};
use tokio::sync::watch;

use crate::log::Log;
use crate::machine::blocking;
use crate::snapshot::Snapshots;
use crate::types::{Entry, LogId, StorageError, StorageIoError, Types, Vote};

/// The log of this node. Clones share it.
#[derive(Clone)]
pub(crate) struct Store {
    /// Held while the disk is at work, never across an await.
    log: Arc<Mutex<Log>>,
    snapshots: Arc<Snapshots>,
    /// Bytes of entries that are in no snapshot.
    grown: watch::Sender<u64>,
}

/// Room in the log for one command; dropped, it is given back.
pub(crate) struct Room {
    store: Store,
    bytes: u64,
}

impl Drop for Room {
    fn drop(&mut self) {
        self.store.log().release(self.bytes);
    }
}

impl Store {
    pub(crate) fn new(log: Log, snapshots: Arc<Snapshots>) -> Store {
        let grown = log.held().bytes_behind(snapshots.applied());
        Store {
            log: Arc::new(Mutex::new(log)),
            snapshots,
            grown: watch::Sender::new(grown),
        }
    }

    /// Bytes of entries that are in no snapshot, as they grow.
    pub(crate) fn grown(&self) -> watch::Receiver<u64> {
        self.grown.subscribe()
    }

    /// Bytes of the log's file.
    pub(crate) fn bytes(&self) -> u64 {
        self.log().bytes()
    }

    /// Why nothing more is taken, if so.
    pub(crate) fn failure(&self) -> Option<String> {
        self.log().failure().map(str::to_owned)
    }

    /// Makes sure that a command will not find the disk full.
    pub(crate) async fn reserve(&self, bytes: u64) -> io::Result<Room> {
        self.with(move |log| log.reserve(bytes)).await?;
        let store = self.clone();
        Ok(Room { store, bytes })
    }

    /// A panic under the lock leaves a log whose file and memory may differ; its checks at the
    /// next start are what is relied on.
    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn with<T: Send + 'static>(
        &self,
        act: impl FnOnce(&mut Log) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let store = self.clone();
        blocking(move || act(&mut store.log())).await
    }

    async fn write(
        &self,
        act: impl FnOnce(&mut Log) -> io::Result<()> + Send + 'static,
    ) -> Result<(), StorageError> {
        let written = self.with(act).await;
        Ok(written.map_err(|error| StorageIoError::write_logs(AnyError::new(&error)))?)
    }

    async fn read<T: Send + 'static>(
        &self,
        act: impl FnOnce(&mut Log) -> T + Send + 'static,
    ) -> Result<T, StorageError> {
        let read = self.with(|log| Ok(act(log))).await;
        Ok(read.map_err(|error| StorageIoError::read_logs(AnyError::new(&error)))?)
    }
}

impl RaftLogReader<Types> for Store {
    async fn try_get_log_entries<R: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: R,
    ) -> Result<Vec<Entry>, StorageError> {
        let range = (range.start_bound().cloned(), range.end_bound().cloned());
        self.read(move |log| log.entries(range)).await
    }
}

impl RaftLogStorage<Types> for Store {
    type LogReader = Store;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, StorageError> {
        self.read(|log| LogState {
            last_purged_log_id: log.held().purged,
            last_log_id: log.held().last(),
        })
        .await
    }

    async fn get_log_reader(&mut self) -> Store {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), StorageError> {
        let vote = *vote;
        self.write(move |log| log.vote(vote)).await
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, StorageError> {
        self.read(|log| log.held().vote).await
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), StorageError> {
        match committed {
            None => Ok(()),
            Some(id) => self.write(move |log| log.committed(id)).await,
        }
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, StorageError> {
        self.read(|log| log.held().committed).await
    }

    async fn append<I>(
        &mut self,
        entries: I,
        callback: LogFlushed<Types>,
    ) -> Result<(), StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        let snapshots = Arc::clone(&self.snapshots);
        let appended = self.with(move |log| {
            log.append(entries)?;
            Ok(log.held().bytes_behind(snapshots.applied()))
        });
        let appended = appended.await;
        if let Ok(grown) = &appended {
            self.grown.send_replace(*grown);
        }
        callback.log_io_completed(appended.map(|_| ()));
        Ok(())
    }

    async fn truncate(&mut self, id: LogId) -> Result<(), StorageError> {
        self.write(move |log| log.truncate(id)).await
    }

    async fn purge(&mut self, id: LogId) -> Result<(), StorageError> {
        self.write(move |log| log.purge(id)).await
    }
}
