//! Metadata: the catalog, replicated and watchable, behind one handle.
//!
//! A broker alone is a cluster of one: the same Raft (openraft), the same log, votes and
//! snapshots as with more, only without timers and without anybody to send to. Data path:
//! `propose` asks the catalog whether a command is granted, reserves room for it, and hands it to
//! Raft (`node`); `store` and `log` make it durable; `machine` applies it and publishes the
//! catalog; `snapshot` keeps the log short.
//! Called by: `server` and `broker` (propose), all rooms through `model::port::CatalogView`.
//! Invariants: a proposal that was answered with success is on the disk; the catalog anybody
//! sees follows from the log; commands are applied in its order, one at a time; what changes
//! nothing is not logged.
//! Refuses: to open over a damaged log; to go on after a failed sync.

mod disk;
mod error;
mod frame;
mod log;
mod machine;
mod network;
mod node;
mod record;
mod snapshot;
mod store;
mod takeover;
#[cfg(test)]
#[allow(
    clippy::result_large_err,
    clippy::type_complexity,
    reason = "openraft's error types, and a twin of a folder"
)]
mod tests;
mod types;

use std::path::Path;
use std::sync::Arc;

use model::port::{BoxFuture, CatalogControl};
use model::{Catalog, CatalogView, Command, Outcome};
use openraft::error::{CheckIsLeaderError, ClientWriteError, ForwardToLeader, RaftError};
use tokio::sync::watch;

use disk::{Folder, RealFolder};
pub use error::OpenError;
pub use model::port::ProposeError;
use network::Alone;
use node::{Node, Settings};
use types::{Member, NodeId};

/// The folder of log and snapshot, in that of the catalog.
const RAFT_DIR: &str = "raft";
/// The first member of a group; those that join later are numbered by the catalog.
const FIRST_NODE: NodeId = 1;

/// The catalog's handle. Clones share it.
#[derive(Clone)]
pub struct Metadata {
    node: Arc<Node>,
}

/// Numbers of the catalog.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct MetadataStatus {
    /// Changes since the catalog began.
    pub version: u64,
    /// Bytes of its log, and of entries that are in no snapshot yet.
    pub log_bytes: u64,
    pub unsnapped_bytes: u64,
}

impl Metadata {
    /// Opens the catalog in `dir`, which is made if it is not there, as a group of one. When it
    /// returns, all that was ever answered is applied.
    pub async fn open(dir: &Path) -> Result<Metadata, OpenError> {
        let raft = dir.join(RAFT_DIR);
        let made = machine::blocking({
            let raft = raft.clone();
            move || RealFolder::create(&raft)
        });
        let folder = made.await;
        let folder = folder.map_err(|error| OpenError::io("create", &raft, error))?;
        let metadata = Metadata::open_in(Arc::new(folder), Settings::ALONE).await?;
        metadata.take_over(dir).await?;
        Ok(metadata)
    }

    async fn open_in(folder: Arc<dyn Folder>, settings: Settings) -> Result<Metadata, OpenError> {
        let node = Node::open(folder, FIRST_NODE, Alone, settings).await?;
        node.lead_alone().await?;
        let node = Arc::new(node);
        Ok(Metadata { node })
    }

    /// Puts a catalog of format 1 into the log, if there is one and it was not done before.
    async fn take_over(&self, dir: &Path) -> Result<(), OpenError> {
        if *self.catalog() == Catalog::new()
            && let Some(catalog) = takeover::read(dir)?
            && catalog != Catalog::new()
        {
            let topics = catalog
                .topics()
                .filter(|topic| !topic.is_internal())
                .count();
            let version = catalog.version();
            let catalog = Box::new(catalog);
            let restored = self.propose(Command::Restore { catalog }).await;
            restored.map_err(|error| OpenError::start(error.to_string()))?;
            tracing::info!(
                version,
                topics,
                "the catalog of an older rustmq was taken over; its files are kept as \
                 catalog.*.taken-over and can be deleted"
            );
        }
        takeover::set_aside(dir)
    }

    /// Applies a command; resolves when it is durable and visible. A caller that goes away does
    /// not break it off.
    pub async fn propose(&self, command: Command) -> Result<Outcome, ProposeError> {
        let metadata = self.clone();
        match tokio::spawn(async move { metadata.proposed(command).await }).await {
            Ok(outcome) => outcome,
            Err(error) => Err(self.stopped(&error)),
        }
    }

    async fn proposed(&self, command: Command) -> Result<Outcome, ProposeError> {
        let node = &self.node;
        // What is decided below must be newer than what anybody was told before.
        if let Err(error) = node.raft.ensure_linearizable().await {
            return Err(match error {
                RaftError::APIError(CheckIsLeaderError::ForwardToLeader(to)) => elsewhere(&to),
                RaftError::APIError(error) => ProposeError::Unavailable {
                    reason: error.to_string(),
                },
                fatal => self.stopped(&fatal),
            });
        }
        let decision = self.catalog().decide(&command)?;
        if !decision.is_change() {
            return Ok(decision.outcome);
        }
        let json = serde_json::to_vec(&command).map_err(|error| self.stopped(&error))?;
        let room = node.store.reserve(log::command_bytes(json.len())).await;
        let _room = room.map_err(|error| match log::is_full(&error) {
            true => ProposeError::DiskFull,
            false => self.stopped(&error),
        })?;
        match node.raft.client_write(command).await {
            Ok(written) => Ok(written.data.0?),
            Err(RaftError::APIError(ClientWriteError::ForwardToLeader(to))) => Err(elsewhere(&to)),
            Err(error) => Err(self.stopped(&error)),
        }
    }

    fn stopped(&self, error: &dyn std::error::Error) -> ProposeError {
        ProposeError::Stopped {
            reason: self.node.why(error),
        }
    }

    /// The catalog as it changes. Of two versions `Catalog::changes` says what differs.
    pub fn watch(&self) -> watch::Receiver<Arc<Catalog>> {
        self.node.catalog.clone()
    }

    /// Resolves, with the reason, when the catalog can take no more commands.
    pub async fn failed(&self) -> String {
        self.node.failed().await
    }

    pub fn status(&self) -> MetadataStatus {
        MetadataStatus {
            version: self.catalog().version(),
            log_bytes: self.node.store.bytes(),
            unsnapped_bytes: *self.node.store.grown().borrow(),
        }
    }

    /// Stops; later proposals are refused. What was answered is on the disk before and after.
    pub async fn close(&self) {
        self.node.close().await;
    }
}

fn elsewhere(to: &ForwardToLeader<NodeId, Member>) -> ProposeError {
    let reason = match to.leader_id {
        Some(id) => format!("broker {id} leads the catalog"),
        None => "no broker leads the catalog now".to_owned(),
    };
    ProposeError::Unavailable { reason }
}

impl CatalogView for Metadata {
    fn catalog(&self) -> Arc<Catalog> {
        Arc::clone(&self.node.catalog.borrow())
    }
}

impl CatalogControl for Metadata {
    fn propose(&self, command: Command) -> BoxFuture<'_, Result<Outcome, ProposeError>> {
        Box::pin(Metadata::propose(self, command))
    }
}
