//! A member of the group that holds the catalog: Raft over this room's log and state machine.
//!
//! Called by: the handle, tests (with several in one process). Invariants: log and snapshot fit
//! together before Raft sees them; a snapshot is due when the entries behind the last one take
//! more than `LOG_BYTES_MAX`, and is asked for by a task that ends with the node; no timer runs
//! for a group of one.
//! Refuses: to open over files that do not fit; whatever openraft refuses, in its words.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use model::Catalog;
use openraft::error::Fatal;
use openraft::network::RaftNetworkFactory;
use openraft::{Config, ServerState, SnapshotPolicy};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::disk::Folder;
use crate::error::OpenError;
use crate::log::held::Held;
use crate::log::{LOG, Log, Sizes};
use crate::machine::Machine;
use crate::snapshot::Snapshots;
use crate::store::Store;
use crate::types::{LogId, Member, NodeId, Raft, Types};

/// Bytes of entries behind the last snapshot from which the next one is taken.
const LOG_BYTES_MAX: u64 = 1 << 20;
/// Entries kept behind a snapshot, so that a follower that was away for a moment need not be sent
/// the whole of it.
const ENTRIES_KEPT: u64 = 100;
/// How long a start may take that waits for nobody else.
const ALONE_WAIT: Duration = Duration::from_secs(30);

/// What differs between a broker alone, a cluster, and tests.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    /// Heartbeats and elections by time: a group of one needs none.
    pub timers: bool,
    pub heartbeat_ms: u64,
    pub log_bytes_max: u64,
    pub entries_kept: u64,
    pub sizes: Sizes,
}

impl Settings {
    pub(crate) const ALONE: Settings = Settings {
        timers: false,
        heartbeat_ms: 1_000,
        log_bytes_max: LOG_BYTES_MAX,
        entries_kept: ENTRIES_KEPT,
        sizes: Sizes::REAL,
    };

    fn config(self) -> Config {
        Config {
            cluster_name: "catalog".to_owned(),
            heartbeat_interval: self.heartbeat_ms,
            election_timeout_min: self.heartbeat_ms * 4,
            election_timeout_max: self.heartbeat_ms * 8,
            enable_tick: self.timers,
            snapshot_policy: SnapshotPolicy::Never,
            max_in_snapshot_log_to_keep: self.entries_kept,
            ..Config::default()
        }
    }
}

/// One member. Dropping it stops it; `close` also waits for that.
pub(crate) struct Node {
    pub id: NodeId,
    pub raft: Raft,
    pub store: Store,
    pub catalog: watch::Receiver<Arc<Catalog>>,
    /// Asks for snapshots; it holds Raft, so it must go with the node.
    due: JoinHandle<()>,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.due.abort();
    }
}

impl Node {
    /// Reads the files of member `id` and starts it as what it was.
    pub(crate) async fn open(
        folder: Arc<dyn Folder>,
        id: NodeId,
        network: impl RaftNetworkFactory<Types>,
        settings: Settings,
    ) -> Result<Node, OpenError> {
        let read = tokio::task::spawn_blocking(move || read(&folder, id, settings.sizes)).await;
        let read = read.map_err(|error| OpenError::start(error.to_string()))?;
        let (log, machine) = read?;
        let store = Store::new(log, machine.snapshots());
        let catalog = machine.watch();
        let config = Arc::new(settings.config());
        let raft = Raft::new(id, config, network, store.clone(), machine).await;
        let raft = raft.map_err(|fatal| OpenError::start(why(&store, &fatal)))?;
        let due = snapshot_when_due(raft.clone(), store.grown(), settings.log_bytes_max);
        Ok(Node {
            id,
            raft,
            store,
            catalog,
            due: tokio::spawn(due),
        })
    }

    /// Makes this node a group of its own unless it is in one, and waits until it leads and has
    /// applied all that its log holds.
    pub(crate) async fn lead_alone(&self) -> Result<(), OpenError> {
        let stopped = |fatal: Fatal<NodeId>| OpenError::start(why(&self.store, &fatal));
        if self.raft.is_initialized().await.map_err(stopped)? {
            // It has led before, and leads at once, unless a crash came before it was elected.
            let elected = self.raft.trigger().elect().await;
            elected.map_err(stopped)?;
        } else {
            let members = BTreeMap::from([(self.id, Member::default())]);
            let founded = self.raft.initialize(members).await;
            founded.map_err(|error| OpenError::start(self.why(&error)))?;
        }
        match tokio::time::timeout(ALONE_WAIT, self.leads()).await {
            Ok(led) => led.map_err(OpenError::start),
            Err(_) => {
                let wait = ALONE_WAIT.as_secs();
                Err(OpenError::start(format!(
                    "it did not come up within {wait} s"
                )))
            }
        }
    }

    async fn leads(&self) -> Result<(), String> {
        let mut metrics = self.raft.metrics();
        loop {
            // Copied out: openraft deadlocks on a borrow that is held.
            let (state, last, applied, running) = {
                let now = metrics.borrow_and_update();
                let running = now.running_state.clone();
                (now.state, now.last_log_index, now.last_applied, running)
            };
            if let Err(fatal) = running {
                return Err(why(&self.store, &fatal));
            }
            let applied = applied.map(|id: LogId| id.index);
            if state == ServerState::Leader && last.is_some() && applied == last {
                return Ok(());
            }
            if metrics.changed().await.is_err() {
                return Err("it stopped".to_owned());
            }
        }
    }

    /// Resolves, with the reason, when it can no longer keep its promises.
    pub(crate) async fn failed(&self) -> String {
        let mut metrics = self.raft.metrics();
        loop {
            let running = metrics.borrow_and_update().running_state.clone();
            match running {
                // Closed, and not failed.
                Err(Fatal::Stopped) => return std::future::pending().await,
                Err(fatal) => return why(&self.store, &fatal),
                Ok(()) => {}
            }
            if metrics.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }

    pub(crate) async fn close(&self) {
        if let Err(error) = self.raft.shutdown().await {
            tracing::error!(%error, "the catalog did not close cleanly");
        }
    }

    /// An error in words: the disk's, if that is at the bottom of it.
    pub(crate) fn why(&self, error: &dyn std::error::Error) -> String {
        self.store.failure().unwrap_or_else(|| error.to_string())
    }
}

fn why(store: &Store, fatal: &Fatal<NodeId>) -> String {
    store.failure().unwrap_or_else(|| fatal.to_string())
}

/// Reads log and snapshot, which must be of one piece.
fn read(folder: &Arc<dyn Folder>, id: NodeId, sizes: Sizes) -> Result<(Log, Machine), OpenError> {
    let path = folder.path(LOG);
    let damaged = |reason| OpenError::Corrupt {
        path: path.clone(),
        position: 0,
        reason,
    };
    let (snapshots, image) = Snapshots::open(Arc::clone(folder))?;
    let snapshot = snapshots.applied();
    if snapshot.is_some() {
        let log = folder.read(LOG);
        let log = log.map_err(|error| OpenError::io("read", &path, error))?;
        log.ok_or_else(|| damaged("it is gone, and the snapshot does not replace it".to_owned()))?;
    }
    let log = Log::open(Arc::clone(folder), id, sizes)?;
    let held = log.held();
    fit(held, snapshot).map_err(damaged)?;
    Ok((log, Machine::open(snapshots, image)))
}

fn fit(held: &Held, snapshot: Option<LogId>) -> Result<(), String> {
    let index = |id: Option<LogId>| id.map_or(0, |id| id.index);
    if held.purged > snapshot {
        let until = index(held.purged);
        return Err(format!(
            "the entries up to {until} were in a snapshot that is gone or older than that"
        ));
    }
    if held.committed > held.last().max(snapshot) {
        let until = index(held.committed);
        return Err(format!("entry {until} was committed and is not there"));
    }
    Ok(())
}

/// Asks for a snapshot whenever the log has grown enough.
async fn snapshot_when_due(raft: Raft, mut grown: watch::Receiver<u64>, log_bytes_max: u64) {
    loop {
        let is_due = *grown.borrow_and_update() > log_bytes_max;
        if is_due && raft.trigger().snapshot().await.is_err() {
            return;
        }
        if grown.changed().await.is_err() {
            return;
        }
    }
}
