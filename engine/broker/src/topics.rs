//! Live partitions: which exist, and how their state comes back when the broker opens.
//!
//! Called by: `broker` (open, topic created, altered, deleted), server (`partition_configs` for
//! `Store::open`). Calls: the store.
//! Invariants: `_offsets` is always there, is never tiered (its live part is small and is
//! rewritten at the head of the WAL) and is fsync'd; a partition is admitted to only after the
//! store knows it, and no longer before the store drops it.
//! Producer sequences come back from the store, which reads them from batch headers in the WAL
//! and keeps them in the manifest for what has moved to Parquet.

use model::{Catalog, Durability, LogError, PartitionId, Producer, ProducerTable, Topic};
use storage::{PartitionConfig, ProducerMark, Store};

use crate::error::OpenError;
use crate::group::record;
use crate::shard::{OFFSETS, Partition, Shard};

/// Bytes of one read while state is rebuilt.
const REBUILD_READ_BYTES: usize = 4 << 20;

/// The name of the topic of `TopicId::OFFSETS`.
pub const OFFSETS_TOPIC: &str = "_offsets";

/// Every partition that `Store::open` must know: those of the catalog and `_offsets`.
pub fn partition_configs(catalog: &Catalog) -> Vec<PartitionConfig> {
    let mut configs = vec![offsets_config()];
    for topic in catalog.topics() {
        configs.extend(PartitionConfig::of_topic(topic));
    }
    configs
}

pub(crate) fn offsets_config() -> PartitionConfig {
    PartitionConfig {
        tier: false,
        ..PartitionConfig::new(OFFSETS, OFFSETS_TOPIC)
    }
}

/// Rebuilds the shard's state from what the store holds.
pub(crate) async fn rebuild(
    store: &Store,
    catalog: &Catalog,
    shard: &mut Shard,
) -> Result<(), OpenError> {
    for config in partition_configs(catalog) {
        let (id, durability) = (config.id, config.durability);
        if store.bounds(id).is_err() {
            store.partition_create(config);
        }
        let failed = |source| OpenError::Partition {
            partition: id,
            source,
        };
        let partition = load(store, id, durability).map_err(failed)?;
        shard.partition_insert(id, partition);
    }
    positions(store, shard).await
}

/// Takes the partitions of a new topic. Again for a topic that is there: nothing changes.
pub(crate) fn create(store: &Store, shard: &mut Shard, topic: &Topic) -> Result<(), LogError> {
    for config in PartitionConfig::of_topic(topic) {
        let (id, durability) = (config.id, config.durability);
        if shard.partition(id).is_some() {
            continue;
        }
        if store.bounds(id).is_err() {
            store.partition_create(config);
        }
        shard.partition_insert(id, load(store, id, durability)?);
    }
    Ok(())
}

/// Follows a topic's settings. Of a topic that is not here: nothing changes.
pub(crate) fn alter(store: &Store, shard: &mut Shard, topic: &Topic) -> Result<(), LogError> {
    for config in PartitionConfig::of_topic(topic) {
        if let Some(partition) = shard.partition_mut(config.id) {
            partition.durability = config.durability;
            store.partition_alter(config)?;
        }
    }
    Ok(())
}

fn load(store: &Store, id: PartitionId, durability: Durability) -> Result<Partition, LogError> {
    let mut producers = ProducerTable::default();
    for mark in store.producers(id)? {
        let ProducerMark {
            id,
            epoch,
            sequence,
            base_offset,
            records,
        } = mark;
        producers.record(
            Producer {
                id,
                epoch,
                sequence,
            },
            records,
            base_offset,
        );
    }
    Ok(Partition {
        log_end: store.log_end(id)?,
        durability,
        producers,
    })
}

/// Reads `_offsets` from its start; the newest record of a group and partition counts.
async fn positions(store: &Store, shard: &mut Shard) -> Result<(), OpenError> {
    let failed = |source| OpenError::Partition {
        partition: OFFSETS,
        source,
    };
    let bounds = store.bounds(OFFSETS).map_err(failed)?;
    let mut from = bounds.start;
    while from < bounds.end {
        let batches = store
            .read(OFFSETS, from, REBUILD_READ_BYTES)
            .await
            .map_err(failed)?;
        let Some(last) = batches.last() else { break };
        from = last.next_offset();
        for batch in &batches {
            let mut records = record::decode(batch)?;
            records.retain(|record| shard.partition(record.partition).is_some());
            shard.positions.restore(records);
        }
    }
    Ok(())
}
