//! A new life of this broker, as the catalog counts them.
//!
//! Called by: `Node::start`, before the log is opened. Calls: metadata.
//! Invariants: nothing is written to the log before the catalog has given the shard a new epoch
//! for it, so whatever an earlier life still writes is older.
//! Refuses: a data directory whose identity is not that of the broker its catalog belongs to.

use broker::BrokerConfig;
use metadata::Metadata;
use model::{CatalogView, Command, Outcome, ProposeError, ShardId};

use super::StartError;

/// Registers the start of `node`; answers which life it is, and what it leads in which epoch.
pub(super) async fn begin(metadata: &Metadata, node: &str) -> Result<BrokerConfig, StartError> {
    let shard = ShardId::FIRST;
    let catalog = metadata.catalog();
    let leader = catalog.shard(shard).and_then(|shard| shard.leader);
    if let Some(owner) = leader.and_then(|leader| catalog.broker(leader))
        && owner.node != node
    {
        return Err(StartError::Identity {
            owner: owner.node.clone(),
            node: node.to_string(),
        });
    }
    let node = node.to_string();
    let started = metadata.propose(Command::BrokerStart { node }).await?;
    let catalog = metadata.catalog();
    match (started, catalog.shard(shard)) {
        (Outcome::Started(life), Some(led)) => Ok(BrokerConfig {
            life,
            shard,
            epoch: led.epoch,
            ..BrokerConfig::default()
        }),
        (started, _) => {
            let reason = format!("it answered a start with {started:?}");
            Err(ProposeError::Stopped { reason }.into())
        }
    }
}
