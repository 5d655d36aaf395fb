//! A node: all rooms joined, started in order and stopped in reverse.
//!
//! Called by: `cli::serve`, the demo, tests. Calls: every room.
//! Start: data directory → certificate → metadata → storage → broker → SQL → sandbox and
//! pipelines → HTTP → native door → the catalog's pipelines → state folder.
//! Invariants: `start` returns when requests are taken, or undoes what it did; `stop` mirrors
//! it; the directory stays locked until everything has let go of it.
//! Refuses: see [`StartError`]; each says what, where and what to do.

pub mod data_dir;
mod error;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use broker::{Broker, BrokerConfig};
use client::state::ServerState;
use metadata::Metadata;
use model::CatalogView;
use storage::{Store, StoreConfig};

use crate::config::{Config, LimitsConfig, StorageConfig};
use crate::door::state_dir::Announced;
use crate::door::{Door, DoorConfig, tls};
use crate::http::{self, Http};
use crate::service::{About, Addresses, Doorkeeper, Rooms};
use data_dir::DataDir;
pub use error::StartError;

/// What a node is started with.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    pub listen: SocketAddr,
    pub http: SocketAddr,
    pub data_dir: PathBuf,
    /// Where clients on this machine find the node; `None`: it is not announced.
    pub state_dir: Option<PathBuf>,
    pub storage: StorageConfig,
    pub limits: LimitsConfig,
}

impl NodeConfig {
    /// On free ports of this machine, not announced: tests and embedded nodes.
    pub fn local(data_dir: impl Into<PathBuf>) -> NodeConfig {
        let free = SocketAddr::from(([127, 0, 0, 1], 0));
        NodeConfig {
            listen: free,
            http: free,
            data_dir: data_dir.into(),
            state_dir: None,
            storage: StorageConfig::default(),
            limits: LimitsConfig::default(),
        }
    }

    fn store(&self, dir: &Path, node: &str) -> StoreConfig {
        let mut config = StoreConfig::new(dir);
        let storage = &self.storage;
        config.tier_url = storage.url.clone();
        config.tier_options = BTreeMap::clone(&storage.options);
        config.node = node.to_string();
        config.wal_writer = storage.wal_writer.unwrap_or(config.wal_writer);
        config.segment_bytes = storage.segment_bytes.unwrap_or(config.segment_bytes);
        config.tier_bytes = storage.tier_bytes.unwrap_or(config.tier_bytes);
        config.tier_age_ms = storage.tier_age_ms.unwrap_or(config.tier_age_ms);
        if let Some(bytes) = storage.tail_bytes_max {
            config.tail_bytes_max = usize::try_from(bytes).unwrap_or(usize::MAX);
        }
        config
    }

    fn sql(&self) -> ::sql::SqlLimits {
        let mut limits = ::sql::SqlLimits::default();
        if let Some(bytes) = self.limits.sql_memory_bytes {
            limits.memory_bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        }
        limits.rows_max = self.limits.sql_rows_max.unwrap_or(limits.rows_max);
        limits.timeout_ms = self.limits.sql_timeout_ms.unwrap_or(limits.timeout_ms);
        limits
    }
}

impl From<Config> for NodeConfig {
    fn from(config: Config) -> NodeConfig {
        NodeConfig {
            listen: config.listen,
            http: config.http,
            data_dir: config.data_dir,
            state_dir: Some(client::state::state_dir()),
            storage: config.storage,
            limits: config.limits,
        }
    }
}

/// A running node. Stop it with [`Node::stop`]; dropping it closes its doors and leaves the rest
/// to recovery.
pub struct Node {
    announced: Option<Announced>,
    door: Door,
    http: Http,
    rooms: Arc<Rooms>,
    certificate_path: PathBuf,
    /// Last, so that the lock is given back when all else is gone.
    data_dir: DataDir,
}

impl Node {
    /// Starts everything; when it returns, requests are taken and pipelines run.
    pub async fn start(config: NodeConfig) -> Result<Node, StartError> {
        let data_dir = DataDir::open(&config.data_dir)?;
        let dir = data_dir.path.clone();
        let identity = tls::Identity::open(&dir.join("tls"))?;
        let http = http::bind(config.http).await?;
        let rooms = Arc::new(Box::pin(rooms(&config, &data_dir)).await?);
        let opened = Box::pin(doors(&config, &identity, http, &rooms)).await;
        let (door, http) = match opened {
            Ok(doors) => doors,
            Err(error) => {
                close(&rooms).await;
                return Err(error);
            }
        };
        let addresses = Addresses {
            quic: door.addr().to_string(),
            http: http.addr().to_string(),
        };
        let state = ServerState {
            pid: std::process::id(),
            quic: addresses.quic.clone(),
            http: addresses.http.clone(),
            certificate_path: identity.certificate_path.clone(),
            certificate_pem: identity.certificate_pem.clone(),
            data_dir: dir,
        };
        let _ = rooms.about.addresses.set(addresses);
        {
            let _alone = rooms.changing.lock().await;
            Box::pin(rooms.pipelines_restart()).await;
        }
        let mut node = Node {
            announced: None,
            door,
            http,
            rooms,
            certificate_path: identity.certificate_path,
            data_dir,
        };
        if let Some(state_dir) = &config.state_dir {
            match Announced::write(state_dir, state) {
                Ok(announced) => node.announced = Some(announced),
                Err(error) => {
                    node.stop().await;
                    return Err(error.into());
                }
            }
        }
        Ok(node)
    }

    /// The native door's address, QUIC and TCP.
    pub fn quic_addr(&self) -> SocketAddr {
        self.door.addr()
    }

    pub fn http_addr(&self) -> SocketAddr {
        self.http.addr()
    }

    /// The certificate to trust, a PEM file.
    pub fn certificate_path(&self) -> &Path {
        &self.certificate_path
    }

    pub fn data_dir(&self) -> &Path {
        &self.data_dir.path
    }

    /// How a client in this process reaches the node.
    pub fn client_config(&self) -> client::ClientConfig {
        client::ClientConfig::at(self.quic_addr().to_string(), &self.certificate_path)
    }

    /// The store, for tests and the demo.
    pub fn store(&self) -> &Store {
        &self.rooms.store
    }

    /// Resolves, with the reason, when the node can no longer keep its promises.
    pub async fn failed(&self) -> String {
        let why = self.rooms.store.failed().await;
        format!(
            "the write-ahead log in {} failed: {why}; nothing more is acknowledged. Check the \
             disk, then start again: what was acknowledged is recovered",
            self.data_dir.path.display()
        )
    }

    /// Stops in reverse order. What was acknowledged is on disk before and after.
    pub async fn stop(self) {
        let Node {
            announced,
            door,
            http,
            rooms,
            data_dir,
            ..
        } = self;
        drop(announced);
        tokio::join!(door.stop(), http.stop());
        close(&rooms).await;
        drop(rooms);
        drop(data_dir);
    }
}

/// Opens the rooms, lowest first.
async fn rooms(config: &NodeConfig, data_dir: &DataDir) -> Result<Rooms, StartError> {
    let dir = &data_dir.path;
    let metadata = Metadata::open(&dir.join("meta")).await?;
    let catalog: Arc<dyn CatalogView> = Arc::new(metadata.clone());
    let partitions = broker::partition_configs(&catalog.catalog());
    let store = config.store(dir, &data_dir.identity.node_id);
    let store = Box::pin(Store::open(store, partitions)).await?;
    let broker = Box::pin(Broker::open(
        store.clone(),
        Arc::clone(&catalog),
        BrokerConfig::default(),
    ));
    let broker = match broker.await {
        Ok(broker) => broker,
        Err(error) => {
            let _ = store.close().await;
            return Err(error.into());
        }
    };
    let sql = ::sql::Engine::new(store.clone(), Arc::clone(&catalog), config.sql())?;
    let cache_dir = Some(dir.join("cache").join("modules"));
    let host = wasm::Host::new(wasm::HostConfig {
        cache_dir,
        ..wasm::HostConfig::default()
    })?;
    let deps = pipelines::Deps {
        log: Arc::new(broker.clone()),
        catalog,
        modules: Arc::new(store.clone()),
        host: Arc::new(host),
    };
    let pipelines = Arc::new(pipelines::Runtime::new(
        deps,
        tokio::runtime::Handle::current(),
    ));
    let about = About {
        identity: data_dir.identity.clone(),
        data_dir: dir.display().to_string(),
        started: Instant::now(),
        addresses: OnceLock::new(),
    };
    let changing = tokio::sync::Mutex::new(());
    Ok(Rooms {
        metadata,
        store,
        broker,
        sql,
        pipelines,
        about,
        changing,
    })
}

async fn doors(
    config: &NodeConfig,
    identity: &tls::Identity,
    http: tokio::net::TcpListener,
    rooms: &Arc<Rooms>,
) -> Result<(Door, Http), StartError> {
    let service = Arc::new(Doorkeeper::new(Arc::clone(rooms)));
    let door = Door::open(DoorConfig::new(config.listen), identity, service).await?;
    let http = Http::open(http, Arc::clone(rooms)).map_err(StartError::Http)?;
    Ok((door, http))
}

/// Closes the rooms, highest first.
async fn close(rooms: &Rooms) {
    rooms.pipelines.shutdown().await;
    if let Err(error) = rooms.store.close().await {
        tracing::error!("the store did not close cleanly: {error}");
    }
}
