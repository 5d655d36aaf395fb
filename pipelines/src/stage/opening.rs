//! A generation that is being opened beside the one that runs.
//!
//! Called by: `lane`. Invariants: guests open on a thread of their own; waiting for it may be given up
//! and begun again.

use std::sync::Arc;

use tokio::task::JoinHandle;

use super::Stage;
use super::run::Chain;
use crate::status::Numbers;

/// A chain that is being opened on a thread of its own.
pub(crate) struct Opening {
    pub stage: Arc<Stage>,
    job: JoinHandle<Result<Chain, String>>,
    pub opened: Option<Result<Chain, String>>,
}

impl Opening {
    pub fn start(stage: Arc<Stage>, lane: u32, numbers: Numbers) -> Opening {
        let open = stage.clone();
        let job = tokio::task::spawn_blocking(move || Chain::open(open, lane, &numbers));
        Opening {
            stage,
            job,
            opened: None,
        }
    }

    /// Returns when it is open, or cannot be opened. May be dropped and called again.
    pub async fn finish(&mut self) {
        if self.opened.is_none() {
            let opened = (&mut self.job).await;
            self.opened = Some(opened.unwrap_or_else(|_| Err("opening it panicked".to_string())));
        }
    }
}

/// Returns when what is opening is done; never, when nothing is.
pub(crate) async fn finished(opening: &mut Option<Opening>) {
    match opening {
        Some(opening) if opening.opened.is_none() => opening.finish().await,
        _ => std::future::pending().await,
    }
}
