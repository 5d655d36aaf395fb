//! Producer ids, which nobody has had before: taken from the catalog in blocks.
//!
//! Called by: `broker` (producers, names of group members). Calls: the catalog.
//! Invariants: an id is given once; what is left of a block when the broker stops is lost and
//! never given again, so a restart needs no memory of it.
//! Refuses: what the catalog refuses, an earlier life of this broker above all.

use std::ops::Range;

use model::{BrokerLife, CatalogControl, Command, Outcome, ProducerId, ProposeError};
use tokio::sync::Mutex;

/// Ids taken from the catalog at a time.
const BLOCK: u32 = 1_000;

#[derive(Default)]
pub(crate) struct ProducerIds {
    /// Given by the catalog and not handed out. Held while the next block is fetched, so that
    /// those who wait share it.
    left: Mutex<Range<u64>>,
}

impl ProducerIds {
    pub(crate) async fn next(
        &self,
        catalog: &dyn CatalogControl,
        by: BrokerLife,
    ) -> Result<ProducerId, ProposeError> {
        let mut left = self.left.lock().await;
        if let Some(id) = left.next() {
            return Ok(ProducerId(id));
        }
        let command = Command::ProducerBlock { by, count: BLOCK };
        let given = catalog.propose(command).await?;
        let Outcome::Producers { first, count } = given else {
            let reason = format!("it answered a block of producer ids with {given:?}");
            return Err(ProposeError::Stopped { reason });
        };
        *left = first.0 + 1..first.0 + u64::from(count);
        Ok(first)
    }
}
