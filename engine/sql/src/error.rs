//! Why a query has no answer, and what to do.
//!
//! Called by all of this crate; the server turns these into exit codes and HTTP answers.
//! Invariants: messages say what and what to do, without the engine's own prefixes.

use datafusion::error::DataFusionError;
use model::port::{Advice, LogError};

/// A query that failed, at planning or half way through its rows.
#[derive(Debug, thiserror::Error)]
pub enum SqlError {
    /// The text cannot be understood, or names what is not there.
    #[error("{message}")]
    Text {
        /// What, and what to do.
        message: String,
        /// Byte in the query's text, where it is known.
        offset: Option<usize>,
    },
    /// The statement would change something or reach outside.
    #[error("{what} is not possible: SQL only reads here; {instead}")]
    ReadOnly {
        /// The statement, in a word or two.
        what: String,
        /// What to use.
        instead: &'static str,
    },
    /// Out of time.
    #[error("the query took longer than {timeout_ms} ms: ask for less, or give it more time")]
    Timeout {
        /// The bound.
        timeout_ms: u64,
    },
    /// Out of rows. The rows up to the bound have been delivered.
    #[error("the query has more than {rows_max} rows: add LIMIT, aggregate, or raise the limit")]
    TooManyRows {
        /// The bound.
        rows_max: u64,
    },
    /// Out of memory.
    #[error("the query needs more memory than queries have: ask for less at a time ({detail})")]
    Memory {
        /// The engine's account.
        detail: String,
    },
    /// No place became free in time.
    #[error("{queries_max} queries are running already: try again later")]
    Busy {
        /// The bound.
        queries_max: usize,
    },
    /// The log or the tier could not be read.
    #[error(transparent)]
    Log(#[from] LogError),
    /// A value made the query fail, or the engine did.
    #[error("the query failed: {message}")]
    Failed {
        /// The engine's reason.
        message: String,
    },
}

impl SqlError {
    /// What a caller does about it.
    pub fn advice(&self) -> Advice {
        match self {
            SqlError::Busy { .. } | SqlError::Memory { .. } => Advice::Retry,
            SqlError::Log(error) => error.advice(),
            _ => Advice::Fix,
        }
    }

    /// Line and column, both from 1, in the query's text.
    pub fn position(&self, text: &str) -> Option<(usize, usize)> {
        let SqlError::Text {
            offset: Some(offset),
            ..
        } = self
        else {
            return None;
        };
        let before = text.get(..*offset)?;
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
        Some((line, column))
    }

    /// From an error while `text` was parsed and planned.
    pub(crate) fn planning(text: &str, error: DataFusionError) -> SqlError {
        match SqlError::running(error) {
            Ok(known) => known,
            Err(error) => SqlError::Text {
                message: translated(&error),
                offset: expr::position(text, &error),
            },
        }
    }

    /// From an error while rows were made.
    pub(crate) fn executing(error: DataFusionError) -> SqlError {
        match SqlError::running(error) {
            Ok(known) => known,
            Err(error) => SqlError::Failed {
                message: expr::plain_message(&error),
            },
        }
    }

    /// Errors that mean the same at any time.
    fn running(error: DataFusionError) -> Result<SqlError, DataFusionError> {
        if let Some(log) = log_error(&error) {
            return Ok(SqlError::Log(log));
        }
        match error.find_root() {
            DataFusionError::ResourcesExhausted(detail) => {
                let detail = detail
                    .split(" with top memory")
                    .next()
                    .unwrap_or(detail)
                    .to_string();
                Ok(SqlError::Memory { detail })
            }
            _ => Err(error),
        }
    }
}

/// What the log said, however deep it is wrapped: the tier's reads go through the parquet crate.
fn log_error(error: &DataFusionError) -> Option<LogError> {
    let first: &(dyn std::error::Error + 'static) = error;
    std::iter::successors(Some(first), |error| error.source())
        .find_map(|error| error.downcast_ref::<LogError>())
        .cloned()
}

fn translated(error: &DataFusionError) -> String {
    let message = expr::plain_message(error);
    let name = message
        .split("nvalid function '")
        .nth(1)
        .and_then(|m| m.split('\'').next());
    match name {
        Some(name) if expr::functions::LEFT_OUT.contains(&name) => expr::functions::left_out(name),
        _ => message,
    }
}
