//! A node: all rooms joined, started in order and stopped in reverse.
//!
//! Called by: `cli::serve`, the demo, tests. Calls: every room.
//! Start: budgets → data directory → certificate → metadata (a new life of this broker) →
//! storage → broker → SQL → sandbox and pipelines → HTTP → native door → the catalog's pipelines →
//! state folder.
//! Invariants: `start` returns when requests are taken, or undoes what it did; `stop` mirrors
//! it; the directory stays locked until everything has let go of it.
//! Refuses: see [`StartError`]; each says what, where and what to do.

mod budget;
pub mod data_dir;
mod descriptors;
mod error;
mod life;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Instant;

use broker::Broker;
use client::state::ServerState;
use metadata::Metadata;
use model::{CatalogView, ShardEpoch};
use storage::{Linger, Store, StoreConfig};
use wasm::http::address::Network;

use crate::config::{
    CacheConfig, CompactionConfig, Config, LimitsConfig, StorageConfig, TierConfig,
};
use crate::door::state_dir::Announced;
use crate::door::{Door, DoorConfig, tls};
use crate::egress::{self, Secrets};
use crate::http::{self, Http};
use crate::service::{About, Addresses, Doorkeeper, Rooms, follow, follow_taken};
use budget::Budget;
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
    /// The program that compiles modules in a process of its own; `None`: this process does it.
    pub compiler: Option<PathBuf>,
    pub storage: StorageConfig,
    pub tier: TierConfig,
    pub compaction: CompactionConfig,
    pub cache: CacheConfig,
    pub limits: LimitsConfig,
    /// Whose modules are taken.
    pub trust: wasm::Trust,
    /// Lent to the workers of the runtime it is started in ([`crate::runtime`]).
    pub linger: Arc<Linger>,
    /// What of the addresses that are not public their requests may reach, and what is put into headers.
    pub networks: Vec<Network>,
    pub secrets: Secrets,
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
            compiler: None,
            storage: StorageConfig::default(),
            tier: TierConfig::default(),
            compaction: CompactionConfig::default(),
            cache: CacheConfig::default(),
            limits: LimitsConfig::default(),
            trust: wasm::Trust::default(),
            linger: Arc::default(),
            networks: Vec::new(),
            secrets: Secrets::default(),
        }
    }

    fn store(&self, dir: &Path, node: &str, epoch: ShardEpoch, budget: &Budget) -> StoreConfig {
        let defaults = StoreConfig::new(dir);
        let (storage, tier, cache) = (&self.storage, &self.tier, &self.cache);
        let compaction = &self.compaction;
        StoreConfig {
            linger: Arc::clone(&self.linger),
            tier_url: storage.url.clone(),
            tier_options: storage.options.clone(),
            node: node.to_string(),
            epoch,
            wal_writer: storage.wal_writer.unwrap_or(defaults.wal_writer),
            segment_bytes: storage.segment_bytes.unwrap_or(defaults.segment_bytes),
            wal_bytes_max: budget.disk.log_pressure,
            wal_bytes_limit: budget.disk.log,
            queue_bytes_max: size(budget.memory.queue),
            tail_bytes_max: size(budget.memory.tail),
            tier_bytes: storage.tier_bytes.unwrap_or(defaults.tier_bytes),
            tier_age_ms: storage.tier_age_ms.unwrap_or(defaults.tier_age_ms),
            tier_tick_ms: tier.tick_ms.unwrap_or(defaults.tier_tick_ms),
            tier_uploads_max: tier.uploads_max.map_or(defaults.tier_uploads_max, size),
            tier_bytes_per_s: tier.bytes_per_s.unwrap_or(defaults.tier_bytes_per_s),
            tier_multipart_bytes: tier
                .multipart_bytes
                .unwrap_or(defaults.tier_multipart_bytes),
            tier_backoff_ms: tier.backoff_ms.unwrap_or(defaults.tier_backoff_ms),
            tier_backoff_ms_max: tier.backoff_ms_max.unwrap_or(defaults.tier_backoff_ms_max),
            tier_merge_objects_min: tier
                .merge_objects_min
                .map_or(defaults.tier_merge_objects_min, size),
            tier_collect_ms: tier.collect_ms.unwrap_or(defaults.tier_collect_ms),
            tier_orphan_grace_ms: tier
                .orphan_grace_ms
                .unwrap_or(defaults.tier_orphan_grace_ms),
            compaction_bytes_min: compaction
                .bytes_min
                .unwrap_or(defaults.compaction_bytes_min),
            compaction_age_ms: compaction.age_ms.unwrap_or(defaults.compaction_age_ms),
            compaction_dirty_percent: compaction
                .dirty_percent
                .and_then(|percent| u32::try_from(percent).ok())
                .unwrap_or(defaults.compaction_dirty_percent),
            compaction_keys_bytes_max: compaction
                .keys_bytes_max
                .map_or(defaults.compaction_keys_bytes_max, size),
            cache_memory_bytes_max: size(budget.memory.cache),
            cache_disk_bytes_max: budget.disk.cache,
            cache_dir: cache.dir.clone(),
            cache_age_ms_max: cache.age_ms_max.unwrap_or(defaults.cache_age_ms_max),
            cache_low_percent: cache
                .low_percent
                .and_then(|percent| u8::try_from(percent).ok())
                .unwrap_or(defaults.cache_low_percent),
            ..defaults
        }
    }

    fn sql(&self, budget: &Budget) -> ::sql::SqlLimits {
        let mut limits = ::sql::SqlLimits::default();
        limits.memory_bytes = size(budget.memory.sql);
        limits.rows_max = self.limits.sql_rows_max.unwrap_or(limits.rows_max);
        limits.timeout_ms = self.limits.sql_timeout_ms.unwrap_or(limits.timeout_ms);
        limits
    }
}

/// Of what lies in memory.
fn size(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

impl From<Config> for NodeConfig {
    fn from(config: Config) -> NodeConfig {
        NodeConfig {
            linger: Arc::default(),
            listen: config.listen,
            http: config.http,
            data_dir: config.data_dir,
            state_dir: Some(client::state::state_dir()),
            compiler: None,
            storage: config.storage,
            tier: config.tier,
            compaction: config.compaction,
            cache: config.cache,
            limits: config.limits,
            trust: config.modules.trust(),
            networks: config.modules.http_networks.unwrap_or_default(),
            secrets: config.secrets,
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
    /// Tells the broker of changes of the catalog; it ends with the rooms.
    _following: [AbortOnDrop; 2],
    certificate_path: PathBuf,
    /// Last, so that the lock is given back when all else is gone.
    data_dir: DataDir,
}

impl Node {
    /// Starts everything; when it returns, requests are taken and pipelines run.
    pub async fn start(config: NodeConfig) -> Result<Node, StartError> {
        let budget = Budget::of(&config)?;
        let data_dir = DataDir::open(&config.data_dir)?;
        let dir = data_dir.path.clone();
        let identity = tls::Identity::open(&dir.join("tls"))?;
        let http = http::bind(config.http).await?;
        let rooms = Arc::new(Box::pin(rooms(&config, &budget, &data_dir)).await?);
        let opened = Box::pin(doors(&config, &budget, &identity, http, &rooms)).await;
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
        let following = tokio::spawn(follow(Arc::downgrade(&rooms), rooms.metadata.watch()));
        let taken = tokio::spawn(follow_taken(Arc::downgrade(&rooms)));
        let mut node = Node {
            announced: None,
            door,
            http,
            _following: [following, taken].map(|task| AbortOnDrop(task.abort_handle())),
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
        let (what, why) = tokio::select! {
            why = self.rooms.store.failed() => ("write-ahead log", why),
            why = self.rooms.metadata.failed() => ("catalog", why),
        };
        format!(
            "the {what} in {} failed: {why}; nothing more is acknowledged. Check the \
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
async fn rooms(
    config: &NodeConfig,
    budget: &Budget,
    data_dir: &DataDir,
) -> Result<Rooms, StartError> {
    let dir = &data_dir.path;
    let metadata = Metadata::open(&dir.join("meta")).await?;
    let leads = life::begin(&metadata, &data_dir.identity.node_id).await?;
    let catalog: Arc<dyn CatalogView> = Arc::new(metadata.clone());
    let followed = catalog.catalog();
    let partitions = broker::partition_configs(&followed);
    let store = config.store(dir, &data_dir.identity.node_id, leads.epoch, budget);
    let store = Box::pin(Store::open(store, partitions)).await?;
    let control = Arc::new(metadata.clone());
    let broker = Box::pin(Broker::open(store.clone(), control, leads));
    let broker = match broker.await {
        Ok(broker) => broker,
        Err(error) => {
            let _ = store.close().await;
            return Err(error.into());
        }
    };
    let sql = ::sql::Engine::new(store.clone(), Arc::clone(&catalog), config.sql(budget))?;
    let cache_dir = Some(dir.join("cache").join("modules"));
    let (secrets, networks) = (config.secrets.clone(), config.networks.clone());
    let egress = egress::Client::new(tokio::runtime::Handle::current(), secrets, networks);
    let host = wasm::Host::new(wasm::HostConfig {
        egress: Some(Arc::new(egress)),
        cache_dir,
        memory_bytes_max: size(budget.memory.modules),
        compiler: config.compiler.clone(),
        trust: config.trust.clone(),
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
    let followed = tokio::sync::Mutex::new(followed);
    Ok(Rooms {
        metadata,
        store,
        broker,
        sql,
        pipelines,
        about,
        not_started: Mutex::default(),
        changing,
        followed,
    })
}

async fn doors(
    config: &NodeConfig,
    budget: &Budget,
    identity: &tls::Identity,
    http: tokio::net::TcpListener,
    rooms: &Arc<Rooms>,
) -> Result<(Door, Http), StartError> {
    let service = Arc::new(Doorkeeper::new(Arc::clone(rooms)));
    let door = DoorConfig {
        connections_max: budget.seats.native,
        ..DoorConfig::new(config.listen)
    };
    let door = Door::open(door, identity, service).await?;
    let http = Http::open(http, Arc::clone(rooms), budget.seats.http);
    let http = http.map_err(StartError::Http)?;
    Ok((door, http))
}

/// Closes the rooms, highest first.
async fn close(rooms: &Rooms) {
    rooms.pipelines.shutdown().await;
    if let Err(error) = rooms.store.close().await {
        tracing::error!("the store did not close cleanly: {error}");
    }
    rooms.metadata.close().await;
}

/// A task that ends when this is dropped.
struct AbortOnDrop(tokio::task::AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}
