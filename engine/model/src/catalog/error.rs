//! Why the catalog refuses a command.
//!
//! Called by `catalog`; shown to users through metadata and protocol. Invariant: each message
//! names the thing and what to do.

use crate::group::GroupError;
use crate::ids::{BrokerId, BrokerLife, Digest, NameError};
use crate::limits::{BROKER_NODE_BYTES_MAX, MODULE_BYTES_MAX, PRODUCER_BLOCK_MAX};
use crate::port::Advice;
use crate::schema::SchemaError;
use crate::topic::SpecError;

/// Why the catalog refuses a command.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CatalogError {
    #[error(transparent)]
    Name(#[from] NameError),
    #[error("topic `{name}`: {error}")]
    Spec { name: String, error: SpecError },
    #[error("internal topic `{name}` must have a name that begins with `_`")]
    NotInternal { name: String },
    #[error("topic `{name}` exists already")]
    TopicExists { name: String },
    #[error("topic `{name}` exists already, but its {difference}; change one of the two")]
    TopicDiffers { name: String, difference: String },
    #[error("topic `{name}` does not exist")]
    NoSuchTopic { name: String },
    #[error("topic `{name}` is internal and stays")]
    TopicInternal { name: String },
    #[error("topic `{name}` is used by pipeline `{pipeline}`; delete that pipeline first")]
    TopicInUse { name: String, pipeline: String },
    #[error("topic `{name}`: {error}")]
    Schema { name: String, error: SchemaError },
    #[error("module {digest} has {size} bytes; 1 to {MODULE_BYTES_MAX} are allowed")]
    ModuleSize { digest: Digest, size: u64 },
    #[error("module {digest} is known with {known} bytes, not {size}")]
    ModuleDiffers {
        digest: Digest,
        size: u64,
        known: u64,
    },
    #[error("pipeline has {count} {what}; at most {max} are allowed")]
    PipelineSize {
        what: &'static str,
        count: usize,
        max: usize,
    },
    #[error("pipeline `{pipeline}` uses topic `{topic}`, which does not exist")]
    PipelineTopic { pipeline: String, topic: String },
    #[error("pipeline `{pipeline}` uses module `{alias}` ({digest}), which is not stored")]
    PipelineModule {
        pipeline: String,
        alias: String,
        digest: Digest,
    },
    #[error("pipeline `{name}` does not exist")]
    NoSuchPipeline { name: String },
    #[error(transparent)]
    GroupName(GroupError),
    #[error("group name `{name}` starts with `_`; such names are internal, choose another")]
    GroupInternal { name: String },
    #[error("group `{name}` does not exist")]
    NoSuchGroup { name: String },
    #[error("the name of a broker has 1 to {BROKER_NODE_BYTES_MAX} bytes, not {bytes}")]
    BrokerNode { bytes: usize },
    #[error("broker {broker} has never started")]
    NoSuchBroker { broker: BrokerId },
    #[error(
        "incarnation {} of broker {} is over: the catalog knows incarnation {current}",
        .by.incarnation, .by.broker
    )]
    Fenced { by: BrokerLife, current: u64 },
    #[error("a block has 1 to {PRODUCER_BLOCK_MAX} producer ids, not {count}")]
    BlockSize { count: u32 },
    #[error("a catalog can only be taken over into an empty one; this one is at version {version}")]
    NotEmpty { version: u64 },
    #[error("the catalog is full: it holds at most {max} {what}")]
    Full { what: &'static str, max: u64 },
}

impl CatalogError {
    /// What the caller does about it: a newer life has taken over, or the request is wrong.
    pub fn advice(&self) -> Advice {
        match self {
            CatalogError::Fenced { .. } => Advice::Fenced,
            _ => Advice::Fix,
        }
    }

    /// A short stable name for the wire.
    pub fn code(&self) -> &'static str {
        match self {
            CatalogError::NoSuchTopic { .. }
            | CatalogError::NoSuchPipeline { .. }
            | CatalogError::NoSuchGroup { .. }
            | CatalogError::NoSuchBroker { .. } => "not-found",
            CatalogError::TopicExists { .. } | CatalogError::TopicDiffers { .. } => "exists",
            CatalogError::TopicInUse { .. } | CatalogError::TopicInternal { .. } => "in-use",
            CatalogError::Full { .. } => "full",
            CatalogError::Fenced { .. } => "fenced",
            _ => "invalid",
        }
    }
}
