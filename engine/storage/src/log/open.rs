//! Opens a store: recovers the WAL, reads the manifests, joins the two, starts writer and tasks.
//!
//! Called by: whoever composes the broker. Invariants: when it returns, every partition is
//! whole from its start to its end, partly in the tier and partly in the WAL.
//! Lists of the tier that an older epoch wrote are claimed for this one first.
//! Refuses: corruption, gaps between tier and WAL, a log of a later epoch than the catalog's;
//! changes nothing of the WAL then.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use model::{PartitionId, Producer, ProducerTable, ShardEpoch};
use tokio::sync::Notify;

use super::commit::{Committer, Counters};
use super::gather::Gather;
use super::partition::{Beginning, Partition, Slot};
use super::queue::Queue;
use super::room::Room;
use super::save::{LastSaved, Reached};
use super::{Inner, Partitions, Segments, Store, compaction, tiering};
use crate::config::{PartitionConfig, StoreConfig};
use crate::error::{OpenError, TierError};
use crate::io::{Disk, RealDisk, create_dir_durable};
use crate::tail::Tail;
use crate::tier::Tier;
use crate::tier::manifest::{Manifest, PRODUCER_MARKS_MAX, ProducerMark};
use crate::wal::WalWriter;
use crate::wal::recovery::{Found, Recovered, recover};

/// Lists read and claimed at the same time.
const MANIFESTS_AT_ONCE: usize = 16;

impl Store {
    /// Opens the store in `config.dir` with the partitions the catalog knows. A torn tail is
    /// left behind; damage to what was durable is an error that names it, and nothing is changed.
    pub async fn open(
        config: StoreConfig,
        partitions: Vec<PartitionConfig>,
    ) -> Result<Store, OpenError> {
        let disk = Arc::new(RealDisk::new(config.wal_writer));
        Store::open_with(config, partitions, disk, None).await
    }

    /// As `open`, over a given disk and tier.
    pub(crate) async fn open_with(
        config: StoreConfig,
        partitions: Vec<PartitionConfig>,
        disk: Arc<dyn Disk>,
        tier: Option<Tier>,
    ) -> Result<Store, OpenError> {
        let wal_dir = config.dir.join("wal");
        create_dir_durable(&wal_dir).map_err(|error| OpenError::io("create", &wal_dir, error))?;
        let tier = match tier {
            Some(tier) => tier,
            None => Tier::open(&config)?,
        };
        let manifests = manifests(&tier, &partitions).await?;
        let recovered = {
            let (disk, dir) = (Arc::clone(&disk), wal_dir.clone());
            let segment_bytes = config.segment_bytes;
            let recover = move || recover(&disk, &dir, segment_bytes);
            match tokio::task::spawn_blocking(recover).await {
                Ok(recovered) => recovered?,
                Err(error) => {
                    let error = std::io::Error::other(error);
                    return Err(OpenError::io("recover", &wal_dir, error));
                }
            }
        };
        let (inner, committer) = assemble(config, partitions, manifests, (disk, tier), recovered)?;
        start(inner, committer)
    }

    /// A store without a thread and without a task of its own: who opens it lets its writer
    /// take turns. Everything is done on the caller's thread.
    #[cfg(test)]
    pub(super) async fn open_stepped(
        config: StoreConfig,
        partitions: Vec<PartitionConfig>,
        disk: Arc<dyn Disk>,
        tier: Tier,
    ) -> Result<(Store, Committer), OpenError> {
        let manifests = manifests(&tier, &partitions).await?;
        let recovered = recover(&disk, &config.dir.join("wal"), config.segment_bytes)?;
        let (inner, committer) = assemble(config, partitions, manifests, (disk, tier), recovered)?;
        let inner = Arc::new(inner);
        Ok((Store { inner }, committer))
    }
}

/// Refuses a log that a later life than `own` wrote: its offsets would be given a second time.
fn stale_check(found: &BTreeMap<PartitionId, Found>, own: ShardEpoch) -> Result<(), OpenError> {
    for (partition, found) in found {
        let later = found.batches.iter().find(|(_, batch)| batch.epoch > own);
        if let Some((base, batch)) = later {
            return Err(OpenError::Stale {
                partition: *partition,
                base: *base,
                next: batch.next,
                epoch: batch.epoch,
                own,
            });
        }
    }
    Ok(())
}

/// Joins what the WAL and the tier have of each partition.
fn whole(
    partitions: Vec<PartitionConfig>,
    mut manifests: BTreeMap<PartitionId, Manifest>,
    mut found: BTreeMap<PartitionId, Found>,
) -> Result<Partitions, OpenError> {
    let map = Partitions::default();
    for config in partitions {
        let found = found.remove(&config.id).unwrap_or_default();
        let cold = manifests
            .remove(&config.id)
            .unwrap_or_else(|| Manifest::empty(config.id, &config.topic));
        let beginning = join(config.id, found, cold)?;
        map.put(Arc::new(Partition::new(config, beginning)));
    }
    for (partition, found) in found.iter().filter(|(_, found)| !found.batches.is_empty()) {
        let (batches, end) = (found.batches.len(), found.end);
        tracing::warn!(%partition, batches, end, "the WAL has batches of an unknown partition");
    }
    Ok(map)
}

/// Reads the newest manifest of each partition and claims it for this epoch.
async fn manifests(
    tier: &Tier,
    partitions: &[PartitionConfig],
) -> Result<BTreeMap<PartitionId, Manifest>, OpenError> {
    let wrong = |error: TierError| OpenError::tier(&tier.url, &error);
    let numbers = tier.numbers(None).await.map_err(wrong)?;
    let ids = partitions.iter().map(|config| config.id);
    let known: Vec<(PartitionId, u64)> = ids
        .filter_map(|id| Some((id, *numbers.get(&id)?)))
        .collect();
    let read = known.into_iter().map(|(id, number)| async move {
        let newest = tier.manifest(id, number).await.map_err(wrong)?;
        Ok((id, claimed(tier, newest).await))
    });
    let read = futures::stream::iter(read).buffer_unordered(MANIFESTS_AT_ONCE);
    read.try_collect().await
}

/// Claims a list, if the store takes it now: else the next put of this broker does.
async fn claimed(tier: &Tier, newest: Manifest) -> Manifest {
    let (partition, own) = (newest.partition, tier.epoch);
    let newest = match tier.claim(newest.clone()).await {
        Ok(newest) => newest,
        Err(error) => {
            tracing::warn!(%partition, %own, %error, "a list of the tier was not claimed yet");
            newest
        }
    };
    if newest.shard_epoch > own.0 {
        let (writer, epoch) = (&newest.writer, newest.shard_epoch);
        tracing::error!(
            %partition, %own, epoch, writer,
            "another broker owns this partition: this one only reads it"
        );
    }
    newest
}

/// Puts together what WAL and tier have of a partition; refuses a gap.
fn join(id: PartitionId, found: Found, cold: Manifest) -> Result<Beginning, OpenError> {
    let start = found.start.max(cold.start);
    let end = found.end.max(cold.end).max(start);
    // All before it is in the tier or trimmed.
    let mut at = cold.end.max(start);
    let mut index = VecDeque::new();
    let mut producers = found.producers;
    let cold_marks = cold.producers.iter().cloned();
    producers.extend(cold_marks.map(|mark| (mark.base_offset, mark)));
    for (base, batch) in found.batches {
        // Trimmed or tiered, it is still remembered.
        producers.extend(batch.mark(base).map(|mark| (base, mark)));
        if batch.next <= at {
            continue;
        }
        if base > at {
            return Err(OpenError::Gap {
                partition: id,
                from: at,
                to: base,
            });
        }
        at = batch.next;
        index.push_back(Slot {
            base,
            next: batch.next,
            records: batch.records,
            epoch: batch.epoch,
            is_numbered: batch.is_numbered,
            max_timestamp: batch.max_timestamp,
            append_time_us: batch.append_time_us,
            location: batch.location,
        });
    }
    if at < end {
        return Err(OpenError::Gap {
            partition: id,
            from: at,
            to: end,
        });
    }
    let compacted = found.compacted.or(cold.compacted.clone());
    Ok(Beginning {
        start,
        end,
        index,
        cold: Arc::new(cold),
        producers: producer_table(producers.into_values(), found.is_partial),
        compacted,
    })
}

/// From marks in the order of their offsets.
fn producer_table(
    marks: impl ExactSizeIterator<Item = ProducerMark>,
    is_partial: bool,
) -> ProducerTable {
    let mut table = ProducerTable::new();
    let may_lack_some = is_partial || marks.len() >= PRODUCER_MARKS_MAX;
    for mark in marks {
        let producer = Producer {
            id: mark.id,
            epoch: mark.epoch,
            sequence: mark.sequence,
        };
        table.record(producer, mark.records, mark.base_offset);
    }
    if may_lack_some {
        table.forgot_some();
    }
    table
}

/// Puts the store together from what was found.
fn assemble(
    config: StoreConfig,
    partitions: Vec<PartitionConfig>,
    manifests: BTreeMap<PartitionId, Manifest>,
    (disk, tier): (Arc<dyn Disk>, Tier),
    recovered: Recovered,
) -> Result<(Inner, Committer), OpenError> {
    let Recovered {
        segments,
        head,
        sequences,
        torn,
        entries,
        from,
        partitions: found,
    } = recovered;
    stale_check(&found, config.epoch)?;
    let partitions = whole(partitions, manifests, found)?;
    if let Some(torn) = torn {
        let path = torn.path.display();
        tracing::warn!(%path, at = torn.at, "a torn tail, never confirmed, was left behind");
    }
    tracing::debug!(
        entries,
        from = from.0,
        segments = segments.len(),
        "the WAL was read back"
    );
    let wal_dir = config.dir.join("wal");
    let wal = WalWriter::new(wal_dir, config.segment_bytes, head);
    let reached = Reached {
        place: wal.place(),
        sequences: sequences.clone(),
    };
    let saved = LastSaved {
        to: from.0,
        bytes: from.1,
    };
    let inner = Inner {
        disk,
        partitions: Arc::new(partitions),
        segments: Arc::new(Segments(Mutex::new(segments.into()))),
        queue: Arc::new(Queue::new(config.queue_bytes_max, config.epoch)),
        tail: Arc::new(Tail::new(config.tail_bytes_max)),
        counters: Arc::new(Counters::default()),
        tier,
        tier_wake: Arc::new(Notify::new()),
        reclaiming: tokio::sync::Mutex::new(()),
        relieving: tokio::sync::Mutex::new(()),
        moving: tokio::sync::Mutex::new(()),
        reached: Arc::new(Mutex::new(reached)),
        saved: Mutex::new(saved),
        saving: tokio::sync::Mutex::new(()),
        writer: Mutex::new(None),
        tier_loop: Mutex::new(None),
        compaction_loop: Mutex::new(None),
        config,
    };
    let committer = committer(&inner, wal, sequences);
    Ok((inner, committer))
}

/// Starts the writer's thread and the tier's task.
fn start(inner: Inner, committer: Committer) -> Result<Store, OpenError> {
    let wal_dir = inner.config.dir.join("wal");
    let thread = std::thread::Builder::new().name("rustmq-wal".to_owned());
    let writer = thread
        .spawn(move || committer.run())
        .map_err(|error| OpenError::io("start the writer of", &wal_dir, error))?;
    let inner = Arc::new(inner);
    let tick = Duration::from_millis(inner.config.tier_tick_ms.max(1));
    let tier_loop = tokio::spawn(tiering::run(Arc::downgrade(&inner), tick));
    let compaction_loop = tokio::spawn(compaction::run(Arc::downgrade(&inner), tick));
    *inner
        .writer
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner) = Some(writer);
    *inner
        .tier_loop
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner) = Some(tier_loop);
    *inner
        .compaction_loop
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner) = Some(compaction_loop);
    Ok(Store { inner })
}

/// What the writer's thread owns.
fn committer(inner: &Inner, wal: WalWriter, sequences: BTreeMap<u32, u64>) -> Committer {
    Committer {
        queue: Arc::clone(&inner.queue),
        partitions: Arc::clone(&inner.partitions),
        segments: Arc::clone(&inner.segments),
        tail: Arc::clone(&inner.tail),
        counters: Arc::clone(&inner.counters),
        wal,
        sequences,
        reached: Arc::clone(&inner.reached),
        idle: Duration::from_millis(inner.config.idle_mark_ms),
        tier_bytes: inner.config.tier_bytes,
        tier_wake: Arc::clone(&inner.tier_wake),
        wal_bytes_max: inner.config.wal_bytes_max,
        needs_mark: false,
        gather: Gather::default(),
        linger: Arc::clone(&inner.config.linger),
        blocks: inner.tier.blocks.clone(),
        room: Room::new(inner.config.segment_bytes, inner.config.wal_bytes_limit),
    }
}
