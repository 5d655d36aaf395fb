//! Metadata: the catalog made durable and watchable behind one handle.
//!
//! Called by: `server` (proposes), all rooms through `model::port::CatalogView` (read).
//! Invariants: a proposal that was answered with success is on the disk; the catalog anybody
//! sees follows from the journal; commands are applied in the order of the journal, one at a
//! time; what changes nothing is not journaled.
//! Refuses: to open over a damaged journal; to go on after a failed sync. Later the same handle
//! stands in front of a Raft group; one node is a group of one voter.

mod error;
mod frame;
mod journal;

#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use model::{Catalog, CatalogView, Command, Outcome};
use tokio::sync::watch;

pub use error::{OpenError, ProposeError};
use journal::Journal;

/// The journal's size above which a snapshot replaces it, bytes.
const JOURNAL_BYTES_MAX: u64 = 1 << 20;

/// The catalog's handle. Clones share it.
#[derive(Clone)]
pub struct Metadata {
    inner: Arc<Inner>,
}

struct Inner {
    journal: Mutex<Journal>,
    catalog: watch::Sender<Arc<Catalog>>,
    journal_bytes_max: u64,
}

impl Metadata {
    /// Opens the catalog in `dir`, which is made if it is not there. A torn last command is
    /// cut: it was never answered.
    pub async fn open(dir: &Path) -> Result<Metadata, OpenError> {
        Metadata::open_with(dir, JOURNAL_BYTES_MAX).await
    }

    async fn open_with(dir: &Path, journal_bytes_max: u64) -> Result<Metadata, OpenError> {
        let owned = dir.to_owned();
        let opened = tokio::task::spawn_blocking(move || Journal::open(&owned)).await;
        let (journal, catalog) = match opened {
            Ok(opened) => opened?,
            Err(error) => return Err(OpenError::io("read", dir, std::io::Error::other(error))),
        };
        let catalog = watch::Sender::new(Arc::new(catalog));
        let journal = Mutex::new(journal);
        Ok(Metadata {
            inner: Arc::new(Inner {
                journal,
                catalog,
                journal_bytes_max,
            }),
        })
    }

    /// Applies a command; resolves when it is durable and visible. A caller that goes away does
    /// not break it off.
    pub async fn propose(&self, command: Command) -> Result<Outcome, ProposeError> {
        let inner = Arc::clone(&self.inner);
        match tokio::task::spawn_blocking(move || inner.propose(&command)).await {
            Ok(outcome) => outcome,
            Err(error) => Err(ProposeError::Stopped {
                reason: error.to_string(),
            }),
        }
    }

    /// The catalog as it changes.
    pub fn watch(&self) -> watch::Receiver<Arc<Catalog>> {
        self.inner.catalog.subscribe()
    }
}

impl CatalogView for Metadata {
    fn catalog(&self) -> Arc<Catalog> {
        Arc::clone(&self.inner.catalog.borrow())
    }
}

impl Inner {
    fn propose(&self, command: &Command) -> Result<Outcome, ProposeError> {
        let mut journal = self.journal.lock().unwrap_or_else(PoisonError::into_inner);
        journal.check()?;
        let before = Arc::clone(&self.catalog.borrow());
        let mut catalog = Catalog::clone(&before);
        let outcome = catalog.apply(command)?;
        if catalog.version() == before.version() {
            return Ok(outcome);
        }
        journal.append(catalog.version(), command)?;
        let catalog = Arc::new(catalog);
        self.catalog.send_replace(Arc::clone(&catalog));
        if journal.bytes() > self.journal_bytes_max
            && let Err(error) = journal.replace_by_snapshot(&catalog)
        {
            // The command stands in the journal; only its growth is not stopped.
            tracing::warn!(%error, "no snapshot of the catalog could be written");
        }
        Ok(outcome)
    }
}
