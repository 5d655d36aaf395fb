//! What Raft does committed entries to: the catalog, published whenever it changes.
//!
//! Called by: Raft, through its traits; calls: `snapshot`. Invariants: entries are applied in the
//! order of the log, each once; what is published follows from the log; the state in memory is
//! that of the snapshot and of the entries behind it, so a start rebuilds it from those.
//! Refuses: snapshots that are damaged. A snapshot there is no space for is not an error: the log
//! is only kept longer.

use std::io::{self, Cursor};
use std::sync::Arc;

use model::Catalog;
use openraft::storage::RaftStateMachine;
use openraft::{AnyError, OptionalSend, RaftSnapshotBuilder};
use tokio::sync::watch;

use crate::log::is_full;
use crate::snapshot::{Image, Snapshots};
use crate::types::{
    Entry, LogId, Payload, Reply, Snapshot, SnapshotMeta, StorageError, StorageIoError,
    StoredMembership, Types,
};

/// The catalog as the log made it.
pub(crate) struct Machine {
    catalog: watch::Sender<Arc<Catalog>>,
    snapshots: Arc<Snapshots>,
    applied: Option<LogId>,
    members: StoredMembership,
}

impl Machine {
    /// As the snapshot has it; the log's entries come later.
    pub(crate) fn open(snapshots: Snapshots, image: Option<Image>) -> Machine {
        let image = image.unwrap_or_else(|| Image {
            meta: SnapshotMeta::default(),
            catalog: Arc::default(),
        });
        Machine {
            catalog: watch::Sender::new(image.catalog),
            snapshots: Arc::new(snapshots),
            applied: image.meta.last_log_id,
            members: image.meta.last_membership,
        }
    }

    /// The catalog as it changes.
    pub(crate) fn watch(&self) -> watch::Receiver<Arc<Catalog>> {
        self.catalog.subscribe()
    }

    pub(crate) fn snapshots(&self) -> Arc<Snapshots> {
        Arc::clone(&self.snapshots)
    }

    fn meta(&self) -> SnapshotMeta {
        let id = self.applied.map_or_else(String::new, |id| id.to_string());
        SnapshotMeta {
            last_log_id: self.applied,
            last_membership: self.members.clone(),
            snapshot_id: id,
        }
    }

    fn entry(&mut self, entry: Entry, catalog: &mut Catalog) -> Reply {
        self.applied = Some(entry.log_id);
        match entry.payload {
            Payload::Blank => Reply::NONE,
            Payload::Normal(command) => Reply(catalog.apply(&command)),
            Payload::Membership(members) => {
                self.members = StoredMembership::new(Some(entry.log_id), members);
                Reply::NONE
            }
        }
    }
}

impl RaftStateMachine<Types> for Machine {
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), StorageError> {
        Ok((self.applied, self.members.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Reply>, StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let before = Arc::clone(&self.catalog.borrow());
        let mut catalog = Catalog::clone(&before);
        let entries = entries.into_iter();
        let replies = entries.map(|entry| self.entry(entry, &mut catalog));
        let replies: Vec<Reply> = replies.collect();
        if catalog.version() != before.version() {
            self.catalog.send_replace(Arc::new(catalog));
        }
        Ok(replies)
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        Builder {
            image: Image {
                meta: self.meta(),
                catalog: Arc::clone(&self.catalog.borrow()),
            },
            snapshots: Arc::clone(&self.snapshots),
        }
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<Cursor<Vec<u8>>>, StorageError> {
        Ok(Box::default())
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: Box<Cursor<Vec<u8>>>,
    ) -> Result<(), StorageError> {
        let bytes = snapshot.into_inner();
        let image = Image::decode(&bytes)
            .map_err(|reason| StorageIoError::read_snapshot(None, AnyError::error(reason)))?;
        let snapshots = Arc::clone(&self.snapshots);
        let put = meta.clone();
        blocking(move || snapshots.put(&put, &bytes))
            .await
            .map_err(|error| StorageIoError::write_snapshot(None, AnyError::new(&error)))?;
        self.applied = meta.last_log_id;
        self.members = meta.last_membership.clone();
        self.catalog.send_replace(image.catalog);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, StorageError> {
        let snapshots = Arc::clone(&self.snapshots);
        let current = blocking(move || snapshots.current()).await;
        let current =
            current.map_err(|error| StorageIoError::read_snapshot(None, AnyError::new(&error)))?;
        Ok(current.map(|(meta, bytes)| Snapshot {
            meta,
            snapshot: Box::new(Cursor::new(bytes)),
        }))
    }
}

/// Writes the catalog of one moment as a snapshot.
pub(crate) struct Builder {
    image: Image,
    snapshots: Arc<Snapshots>,
}

impl RaftSnapshotBuilder<Types> for Builder {
    async fn build_snapshot(&mut self) -> Result<Snapshot, StorageError> {
        let (image, snapshots) = (self.image.clone(), Arc::clone(&self.snapshots));
        let built = blocking(move || {
            let bytes = image.encode()?;
            match snapshots.put(&image.meta, &bytes) {
                Err(error) if is_full(&error) => {
                    tracing::warn!(%error, "no space for a snapshot of the catalog");
                    // The one that is there, or none: Raft goes on with its longer log.
                    Ok(snapshots.current()?.unwrap_or_default())
                }
                put => put.map(|meta| (meta, bytes)),
            }
        });
        let (meta, bytes) = built
            .await
            .map_err(|error| StorageIoError::write_snapshot(None, AnyError::new(&error)))?;
        Ok(Snapshot {
            meta,
            snapshot: Box::new(Cursor::new(bytes)),
        })
    }
}

/// Runs what waits for the disk where it may.
pub(crate) async fn blocking<T: Send + 'static>(
    act: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(act)
        .await
        .unwrap_or_else(|error| Err(io::Error::other(error)))
}
