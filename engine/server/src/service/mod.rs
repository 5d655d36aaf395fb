//! Requests to rooms: every call of the protocol, answered by whoever owns what it asks about.
//!
//! Called by: `door` (through its `Service`), `http`. Calls: metadata, broker, storage, sql,
//! pipelines; `reply` for every error.
//! Invariants: no rule lives here, the rooms decide; changes of topics and pipelines are made one
//! after another (`changing`), so that what was checked is still so when it is done.
//! Refuses: what the rooms refuse; names of internal topics where users' topics are meant.

mod canary;
mod columns;
mod doorkeeper;
mod follow;
mod groups;
mod pipelines;
mod records;
pub mod reply;
mod sql;
pub mod status;
mod taken;
mod topics;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Instant;

pub use doorkeeper::Doorkeeper;
pub(crate) use follow::follow;
pub(crate) use taken::follow_taken;

use broker::Broker;
use bytes::Bytes;
use futures::stream::BoxStream;
use metadata::Metadata;
use model::{Catalog, CatalogView, Modules};
use protocol::{
    ModulePresent, ModuleStored, ProducerOpened, Request, Response, StatusReport, Tiered,
    WireError, code,
};
use storage::Store;

use crate::node::data_dir::Identity;

/// All rooms of a node, as the doors see them.
pub struct Rooms {
    pub(crate) metadata: Metadata,
    pub(crate) store: Store,
    pub(crate) broker: Broker,
    pub(crate) sql: ::sql::Engine,
    pub(crate) pipelines: Arc<::pipelines::Runtime>,
    pub(crate) about: About,
    /// Pipelines that did not start with the node, and why.
    pub(crate) not_started: Mutex<BTreeMap<String, String>>,
    /// Held while topics or pipelines change.
    pub(crate) changing: tokio::sync::Mutex<()>,
    /// What the broker was told of the catalog; taken after `changing`.
    pub(crate) followed: tokio::sync::Mutex<Arc<Catalog>>,
}

/// What a node says of itself.
pub struct About {
    pub identity: Identity,
    pub data_dir: String,
    pub started: Instant,
    /// Known once the doors are open.
    pub addresses: OnceLock<Addresses>,
}

#[derive(Clone, Debug)]
pub struct Addresses {
    pub quic: String,
    pub http: String,
}

/// One response, or the pieces of a long one.
pub enum Answer {
    One(Response),
    Pieces(BoxStream<'static, Result<Bytes, WireError>>),
}

impl Rooms {
    pub(crate) fn catalog(&self) -> Arc<Catalog> {
        self.metadata.catalog()
    }

    /// Answers one request. Not cancel-safe for requests that change something: once begun, a
    /// change is finished even if nobody waits for the answer.
    pub async fn answer(self: Arc<Self>, request: Request) -> Result<Answer, WireError> {
        let response: Response = match request {
            Request::Hello(_) => {
                let message = "hello was said already; it is the first message only";
                return Err(WireError::fix(code::BAD_REQUEST, message));
            }
            Request::Produce(ask) => self.produce(ask).await?.into(),
            Request::Fetch(ask) => self.fetch(ask).await?.into(),
            Request::FetchMany(ask) => self.fetch_many(ask).await.into(),
            Request::Lookup(ask) => self.lookup(ask).await?.into(),
            Request::ProducerOpen(_) => ProducerOpened {
                id: self.broker.producer_open().await.map_err(reply::propose)?,
                epoch: 0,
            }
            .into(),
            Request::TopicCreate(ask) => self.topic_create(ask).await?.into(),
            Request::TopicList(_) => self.topic_list().into(),
            Request::TopicDescribe(ask) => self.topic_describe(&ask.name)?.into(),
            Request::TopicDelete(ask) => self.topic_delete(ask).await?.into(),
            Request::TopicAlter(ask) => self.topic_alter(ask).await?.into(),
            Request::TopicTrim(ask) => self.topic_trim(ask).await?.into(),
            Request::GroupJoin(ask) => self.group_join(ask).await?.into(),
            Request::GroupHeartbeat(ask) => self.group_heartbeat(&ask).await?.into(),
            Request::GroupLeave(ask) => self.group_leave(&ask).await?.into(),
            Request::GroupCommit(ask) => self.group_commit(ask).await?.into(),
            Request::GroupPositions(ask) => self.group_positions(&ask).into(),
            Request::GroupList(_) => self.group_list().into(),
            Request::GroupDescribe(ask) => self.group_describe(&ask.group)?.into(),
            Request::GroupReset(ask) => self.group_reset(ask).await?.into(),
            Request::GroupDelete(ask) => self.group_delete(&ask.group).await?.into(),
            Request::ModuleHas(ask) => ModulePresent {
                present: self.catalog().module(&ask.digest).is_some(),
            }
            .into(),
            Request::ModulePut(ask) => self.module_put(ask.bytes).await?.into(),
            Request::PipelineLint(ask) => self.pipeline_lint(&ask.file).into(),
            Request::PipelinePlan(ask) => self.pipeline_plan(&ask.file).await?.into(),
            Request::PipelineApply(ask) => self.pipeline_apply(ask.file).await?.into(),
            Request::PipelineList(_) => self.pipeline_list().into(),
            Request::PipelineDescribe(ask) => self.pipeline_describe(&ask.name)?.into(),
            Request::PipelineDelete(ask) => self.pipeline_delete(ask).await?.into(),
            Request::CanaryStart(ask) => self.canary_start(ask).await?.into(),
            Request::CanaryShow(ask) => self.canary_show(&ask.pipeline)?.into(),
            Request::CanaryPromote(ask) => self.canary_promote(ask).await?.into(),
            Request::CanaryStop(ask) => self.canary_stop(&ask.pipeline)?.into(),
            Request::Sql(ask) => return Ok(Answer::Pieces(self.sql(ask).await?)),
            Request::Tier(ask) => self.tier(ask.topic).await?.into(),
            Request::Status(_) => StatusReport {
                status: self.status_json(),
            }
            .into(),
        };
        Ok(Answer::One(response))
    }

    async fn module_put(&self, bytes: Bytes) -> Result<ModuleStored, WireError> {
        // refused before it is kept: what is not a module can never run
        ::wasm::Host::inspect(&bytes)
            .map_err(|error| WireError::fix(code::INVALID, format!("not a module: {error}")))?;
        let size = bytes.len() as u64;
        let digest = self.store.put(bytes).await?;
        self.metadata
            .propose(model::Command::ModulePut { digest, size })
            .await
            .map_err(reply::propose)?;
        Ok(ModuleStored { digest })
    }

    async fn tier(&self, topic: Option<String>) -> Result<Tiered, WireError> {
        let moved = match topic {
            None => self.store.tier(None).await,
            Some(name) => {
                let topic = self.topic_named(&name)?;
                let ids = (0..topic.spec.partitions).map(|p| model::PartitionId::new(topic.id, p));
                self.store.tier_of(&ids.collect::<Vec<_>>()).await
            }
        };
        let total = moved.map_err(|error| {
            let message = format!("tiering did not finish: {error}");
            WireError::retry(code::UNAVAILABLE, message)
        })?;
        Ok(Tiered {
            report: serde_json::to_value(total).map_err(reply::bug)?,
        })
    }
}
