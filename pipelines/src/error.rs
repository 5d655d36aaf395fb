//! Why a pipeline was not started or removed.
//!
//! Called by: `runtime`. Invariant: each message says what to do.

use model::port::LogError;

use crate::stage::build::NoTopic;

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    NoTopic(#[from] NoTopic),
    #[error(
        "pipeline `{pipeline}` cannot take this change while it exists ({what}); delete it first, \
         then apply it again"
    )]
    Reset { pipeline: String, what: String },
    #[error("the start of source `{source_name}` cannot be found: {error}")]
    Start {
        source_name: String,
        error: LogError,
    },
    #[error("the positions of pipeline `{pipeline}` cannot be written: {error}")]
    Positions { pipeline: String, error: LogError },
    #[error("the runtime is shutting down")]
    Closed,
}

#[derive(Debug, thiserror::Error)]
pub enum RemoveError {
    #[error("no pipeline `{0}` runs")]
    Unknown(String),
    #[error("pipeline `{pipeline}` was stopped, but its positions are still there: {error}")]
    Positions { pipeline: String, error: LogError },
}
