//! Errors of opening and of the tier. Errors of reading and appending are `model::LogError`.
//!
//! Called by: every room of this crate.
//! Invariants: a message says what, where (file, position, partition, offset) and what to do.
//! Refuses: nothing.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use model::{LogError, PartitionId, ShardEpoch};

use crate::tier::remote::{advice, said};

/// Why a store did not open. Nothing was changed on disk beyond a torn tail cut off.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("cannot {what} {path}: {source}; check that the folder exists and is writable")]
    Io {
        what: &'static str,
        path: PathBuf,
        source: std::io::Error,
    },
    #[error(
        "the write-ahead log is damaged: {path} at byte {position}: {reason}{lost}; bytes that \
         were known durable have changed, so nothing was cut: restore this file from a copy, or \
         move the folder away to start empty"
    )]
    Corrupt {
        path: PathBuf,
        position: u64,
        reason: String,
        lost: String,
    },
    #[error(
        "partition {partition} has a gap: offsets {from} to {to} are neither in the write-ahead \
         log nor in the tier; restore the missing files"
    )]
    Gap {
        partition: PartitionId,
        from: u64,
        to: u64,
    },
    #[error("the tier at {url} does not open: {reason}")]
    Tier { url: String, reason: String },
    #[error(
        "the write-ahead log has offsets {base} to {next} of partition {partition} from epoch \
         {epoch} of its shard, and the catalog is only in epoch {own}: the catalog is older than \
         the log, as after restoring a part of the data directory; restore both from the same \
         moment"
    )]
    Stale {
        partition: PartitionId,
        base: u64,
        next: u64,
        /// In which they were written.
        epoch: ShardEpoch,
        /// In which the store was to be opened.
        own: ShardEpoch,
    },
}

impl OpenError {
    /// What the tier said when the store opened, and what to look at.
    pub(crate) fn tier(url: &str, error: &TierError) -> OpenError {
        let reason = match error {
            TierError::Store { what, path, source } => {
                let advice = advice(url, source).map(|advice| format!("; {advice}"));
                let said = said(source);
                format!("cannot {what} {path}: {said}{}", advice.unwrap_or_default())
            }
            other => other.to_string(),
        };
        OpenError::Tier {
            url: url.to_owned(),
            reason,
        }
    }

    pub(crate) fn io(what: &'static str, path: &Path, source: std::io::Error) -> OpenError {
        OpenError::Io {
            what,
            path: path.to_owned(),
            source,
        }
    }
}

/// Why something did not reach the tier, or did not come back from it.
#[derive(Debug, thiserror::Error)]
pub enum TierError {
    #[error("the tier cannot {what} {path}: {}; it will be tried again", said(.source))]
    Store {
        what: &'static str,
        path: String,
        source: object_store::Error,
    },
    #[error("the tier is left alone for a while: {reason}; it will be tried again")]
    Resting { reason: String },
    #[error(
        "{path} is damaged where it has offsets {base} to {next} of partition {partition}: {reason}"
    )]
    Damaged {
        path: String,
        partition: PartitionId,
        base: u64,
        next: u64,
        reason: String,
    },
    #[error(
        "manifest {path} was written by {writer} in epoch {epoch}, and this broker is in epoch \
         {own}: {}", fenced_advice(.partition, .epoch, .own)
    )]
    Fenced {
        path: String,
        writer: String,
        partition: PartitionId,
        /// Of that manifest.
        epoch: ShardEpoch,
        /// Of who was refused.
        own: ShardEpoch,
    },
    #[error("manifest {path} is damaged: {reason}")]
    Manifest { path: String, reason: String },
    /// Told to all who waited for the same bytes.
    #[error(transparent)]
    Shared(Arc<TierError>),
    #[error(transparent)]
    Log(#[from] LogError),
}

/// What it means that another's manifest stands where one was to be put.
fn fenced_advice(partition: &PartitionId, epoch: &ShardEpoch, own: &ShardEpoch) -> String {
    if epoch < own {
        return format!(
            "an older owner of partition {partition} still writes; stop it, then restart this \
             broker, so that it reads what stands there"
        );
    }
    format!(
        "another broker owns partition {partition}, so this one stopped tiering it; stop one of \
         the two, or give each a storage.url of its own"
    )
}

impl TierError {
    pub(crate) fn store(what: &'static str, path: &str, source: object_store::Error) -> TierError {
        TierError::Store {
            what,
            path: path.to_owned(),
            source,
        }
    }

    /// The error itself where nobody else was told it.
    pub(crate) fn shared(error: Arc<TierError>) -> TierError {
        Arc::try_unwrap(error).unwrap_or_else(TierError::Shared)
    }

    /// Whether it is the store's doing, so that asking again later may help.
    pub fn is_passing(&self) -> bool {
        match self {
            TierError::Store { .. } | TierError::Resting { .. } => true,
            TierError::Shared(error) => error.is_passing(),
            _ => false,
        }
    }

    /// Whether asking again is of no use.
    fn is_damage(&self) -> bool {
        match self {
            TierError::Damaged { .. } | TierError::Manifest { .. } => true,
            TierError::Shared(error) => error.is_damage(),
            _ => false,
        }
    }

    /// The same said to a reader of a partition. Damage stays damage: asking again is no use.
    pub(crate) fn into_read(self, partition: PartitionId) -> LogError {
        if !self.is_damage() {
            return self.into_log();
        }
        LogError::Corrupt {
            partition,
            detail: format!("{self}; restore it from a copy, or read on after it"),
        }
    }

    /// The same said to someone who asks for no partition.
    pub(crate) fn into_log(self) -> LogError {
        match self {
            TierError::Log(error) => error,
            TierError::Shared(error) => match &*error {
                TierError::Log(error) => error.clone(),
                other => LogError::Unavailable(other.to_string()),
            },
            other => LogError::Unavailable(other.to_string()),
        }
    }
}
