//! Why the catalog refuses a command.
//!
//! Called by `catalog`; shown to users through metadata and protocol. Invariant: each message
//! names the thing and what to do.

use crate::ids::{Digest, NameError};
use crate::limits::MODULE_BYTES_MAX;
use crate::port::Advice;
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
    #[error("the catalog is full: it holds at most {max} {what}")]
    Full { what: &'static str, max: usize },
}

impl CatalogError {
    /// What the caller does about it: every refusal here is about the request.
    pub fn advice(&self) -> Advice {
        Advice::Fix
    }

    /// A short stable name for the wire.
    pub fn code(&self) -> &'static str {
        match self {
            CatalogError::NoSuchTopic { .. } | CatalogError::NoSuchPipeline { .. } => "not-found",
            CatalogError::TopicExists { .. } | CatalogError::TopicDiffers { .. } => "exists",
            CatalogError::TopicInUse { .. } | CatalogError::TopicInternal { .. } => "in-use",
            CatalogError::Full { .. } => "full",
            _ => "invalid",
        }
    }
}
