//! Live partitions: which exist, and how their state comes back when the broker opens.
//!
//! Called by: `broker` (open, topic created, altered, deleted), server (`partition_configs` for
//! `Store::open`). Calls: the store.
//! Invariants: `_offsets` is always there, is never tiered (its live part is small, and compaction
//! writes it again at the head of the WAL) and is fsync'd; a partition is admitted to only after the
//! store knows it, and no longer before the store drops it.
//! Producer sequences come back from the store, which reads them from batch headers in the WAL
//! and keeps them in the manifest for what has moved to Parquet.

use std::collections::BTreeMap;

use model::{Catalog, Durability, LogError, PartitionId, Topic};
use storage::{CompactionConfig, PartitionConfig, Store};

use crate::error::OpenError;
use crate::group::record::{self, Record};
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
        compact: Some(CompactionConfig::default()),
        ..PartitionConfig::new(OFFSETS, OFFSETS_TOPIC)
    }
}

/// Rebuilds the shard's state from what the store holds. Answers positions of partitions that
/// are gone, which are to be forgotten.
pub(crate) async fn rebuild(
    store: &Store,
    catalog: &Catalog,
    shard: &mut Shard,
) -> Result<Vec<Record>, OpenError> {
    for config in partition_configs(catalog) {
        let (id, own) = (config.id, Own::of(&config));
        if store.bounds(id).is_err() {
            store.partition_create(config);
        }
        let failed = |source| OpenError::Partition {
            partition: id,
            source,
        };
        let partition = load(store, id, own).map_err(failed)?;
        shard.partition_insert(id, partition);
    }
    positions(store, shard).await
}

/// Takes the partitions of a new topic. Again for a topic that is there: nothing changes.
pub(crate) fn create(store: &Store, shard: &mut Shard, topic: &Topic) -> Result<(), LogError> {
    for config in PartitionConfig::of_topic(topic) {
        let (id, own) = (config.id, Own::of(&config));
        if shard.partition(id).is_some() {
            continue;
        }
        if store.bounds(id).is_err() {
            store.partition_create(config);
        }
        shard.partition_insert(id, load(store, id, own)?);
    }
    Ok(())
}

/// Follows a topic's settings. Of a topic that is not here: nothing changes.
pub(crate) fn alter(store: &Store, shard: &mut Shard, topic: &Topic) -> Result<(), LogError> {
    for config in PartitionConfig::of_topic(topic) {
        if let Some(partition) = shard.partition_mut(config.id) {
            partition.durability = config.durability;
            partition.is_compacted = config.compact.is_some();
            store.partition_alter(config)?;
        }
    }
    Ok(())
}

/// What the shard must know of a partition beside its log.
struct Own {
    durability: Durability,
    is_compacted: bool,
}

impl Own {
    fn of(config: &PartitionConfig) -> Own {
        Own {
            durability: config.durability,
            is_compacted: config.compact.is_some(),
        }
    }
}

fn load(store: &Store, id: PartitionId, own: Own) -> Result<Partition, LogError> {
    Ok(Partition {
        log_end: store.log_end(id)?,
        durability: own.durability,
        is_compacted: own.is_compacted,
        producers: store.producers(id)?,
    })
}

/// Reads `_offsets` from its start; the newest record of a group and partition counts.
async fn positions(store: &Store, shard: &mut Shard) -> Result<Vec<Record>, OpenError> {
    let failed = |source| OpenError::Partition {
        partition: OFFSETS,
        source,
    };
    let bounds = store.bounds(OFFSETS).map_err(failed)?;
    let mut from = bounds.start;
    let mut gone = BTreeMap::new();
    while from < bounds.end {
        let batches = store
            .read(OFFSETS, from, REBUILD_READ_BYTES)
            .await
            .map_err(failed)?;
        let Some(last) = batches.last() else { break };
        from = last.next_offset();
        for batch in &batches {
            let records = record::decode(batch)?.into_iter();
            let (ours, others): (Vec<Record>, Vec<Record>) =
                records.partition(|record| shard.partition(record.partition).is_some());
            shard.positions.restore(ours);
            for record in others {
                gone.insert((record.group, record.partition), record.saved.is_some());
            }
        }
    }
    gone.retain(|_, is_saved| *is_saved);
    let forget = |(group, partition)| Record {
        group,
        partition,
        saved: None,
    };
    Ok(gone.into_keys().map(forget).collect())
}
