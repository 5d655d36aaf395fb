//! A generation that is being opened beside the one that runs.
//!
//! Called by: `lane`. Invariants: guests open on a thread of their own; it is open when the tables that
//! its modules look into hold all that their topics had; waiting for it may be given up and begun again.

use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use wasm::http::Stop;

use super::Stage;
use super::run::{Chain, NotOpen};
use crate::status::Numbers;

/// A chain that is being opened on a thread of its own.
pub(crate) struct Opening {
    pub stage: Arc<Stage>,
    job: BoxFuture<'static, Result<Chain, NotOpen>>,
    pub opened: Option<Result<Chain, NotOpen>>,
}

impl Opening {
    pub fn start(stage: Arc<Stage>, lane: u32, numbers: Numbers, stop: Stop) -> Opening {
        let open = stage.clone();
        let guests = tokio::task::spawn_blocking(move || Chain::open(open, lane, &numbers, &stop));
        let tables = stage.clone();
        let job = async move {
            let chain = guests.await;
            let chain = chain.unwrap_or_else(|_| Err("opening it panicked".to_string().into()))?;
            for node in &tables.nodes {
                for lookup in &node.lookups {
                    lookup.caught_up().await?;
                }
            }
            Ok(chain)
        };
        Opening {
            stage,
            job: job.boxed(),
            opened: None,
        }
    }

    /// Returns when it is open, or cannot be opened. May be dropped and called again.
    pub async fn finish(&mut self) {
        if self.opened.is_none() {
            self.opened = Some((&mut self.job).await);
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
