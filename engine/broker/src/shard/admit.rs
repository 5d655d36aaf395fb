//! The decision about a commit: pure, reading the shard's state and changing nothing.
//!
//! Called by: `Shard::commit`.
//! Order of the checks: partitions exist; producers (a whole repeat is answered with the offsets
//! of the first time, before positions are compared, since those have moved with it); positions;
//! then offsets are assigned and the batches stamped, `_offsets` last.
//! Invariants: several appends to one partition get adjoining offsets in their order; a repeat is
//! all or nothing, because the commit it repeats was one entry.

use std::collections::{HashMap, HashSet};

use model::limits::{COMMIT_METADATA_BYTES_MAX, GROUP_NAME_BYTES_MAX};
use model::{
    Admission, Append, Batch, Commit, LogError, Offset, PartitionId, PartitionMap, Position,
    ProducerId, TopicId,
};

use super::{OFFSETS, Shard};
use crate::group::record::{self, Record, Saved};

pub(super) enum Decision {
    Write(Plan),
    Duplicate {
        base_offsets: Vec<Offset>,
        until: Vec<(PartitionId, Offset)>,
    },
    Nothing,
}

/// What `enqueue` gets and `apply` does.
pub(super) struct Plan {
    /// Stamped, in the order of the commit; the batch of positions last.
    pub(super) batches: Vec<(PartitionId, Batch)>,
    /// Of the commit's appends.
    pub(super) base_offsets: Vec<Offset>,
    /// First offset in `_offsets`, and the records from there.
    pub(super) positions: Option<(Offset, Vec<Record>)>,
}

pub(super) fn decide(shard: &Shard, commit: &Commit, now_us: i64) -> Result<Decision, LogError> {
    if commit.appends.is_empty() && commit.positions.is_empty() {
        return Ok(Decision::Nothing);
    }
    for append in &commit.appends {
        let own = append.partition.topic != TopicId::OFFSETS;
        if !own || shard.partition(append.partition).is_none() {
            return Err(LogError::NotFound {
                partition: append.partition,
            });
        }
    }
    if let Some(repeat) = producers(shard, &commit.appends)? {
        return Ok(repeat);
    }
    positions(shard, &commit.positions)?;

    let is_alone = commit.appends.len() == 1;
    let mut ends: PartitionMap<Offset> = PartitionMap::default();
    let mut batches = Vec::with_capacity(commit.appends.len() + 1);
    let mut base_offsets = Vec::with_capacity(commit.appends.len());
    for Append { partition, batch } in &commit.appends {
        let end = ends.get(partition).copied();
        let end = end.unwrap_or_else(|| shard.log_end(*partition));
        let batch = batch.clone().stamped(end, shard.epoch, now_us);
        base_offsets.push(end);
        if !is_alone {
            ends.insert(*partition, batch.next_offset());
        }
        batches.push((*partition, batch));
    }
    let records: Vec<Record> = commit.positions.iter().map(record_of).collect();
    let positions = if records.is_empty() {
        None
    } else {
        let base = shard.log_end(OFFSETS);
        let batch = record::encode(&records, now_us).map_err(LogError::Unavailable)?;
        batches.push((OFFSETS, batch.stamped(base, shard.epoch, now_us)));
        Some((base, records))
    };
    Ok(Decision::Write(Plan {
        batches,
        base_offsets,
        positions,
    }))
}

fn record_of(position: &Position) -> Record {
    let Position {
        group,
        partition,
        offset,
        expected: _,
        metadata,
    } = position;
    let saved = (*offset != Position::FORGET).then(|| Saved {
        offset: *offset,
        metadata: metadata.clone(),
    });
    Record {
        group: group.clone(),
        partition: *partition,
        saved,
    }
}

/// `Some` when all appends repeat earlier ones. The table knows batches that are in the log's
/// queue; what stands earlier in this commit is followed here.
fn producers(shard: &Shard, appends: &[Append]) -> Result<Option<Decision>, LogError> {
    let mut base_offsets = Vec::new();
    let mut until = Vec::new();
    let is_alone = appends.len() == 1;
    let mut next: HashMap<(PartitionId, ProducerId), (u16, u32)> = HashMap::new();
    for Append { partition, batch } in appends {
        let (Some(producer), Some(own)) = (batch.producer(), shard.partition(*partition)) else {
            continue;
        };
        let partition = *partition;
        let after = (producer.epoch, producer.sequence.wrapping_add(batch.len()));
        let earlier = (!is_alone).then(|| next.insert((partition, producer.id), after));
        if let Some((epoch, due)) = earlier.flatten() {
            if (epoch, due) != (producer.epoch, producer.sequence) && base_offsets.is_empty() {
                let got = producer.sequence;
                return Err(LogError::OutOfOrder {
                    partition,
                    expected: due,
                    got,
                });
            }
            if base_offsets.is_empty() {
                continue;
            }
        }
        match own.producers.admit(producer, batch.len()) {
            Admission::New => {}
            Admission::Duplicate { base_offset } => {
                base_offsets.push(base_offset);
                let span = batch.next_offset() - batch.base_offset();
                until.push((partition, base_offset + span));
            }
            Admission::Fenced { current } => {
                let reason = format!(
                    "producer {} has epoch {current} now, this batch has {}",
                    producer.id, producer.epoch
                );
                return Err(LogError::Fenced { partition, reason });
            }
            Admission::OutOfOrder { expected } => {
                let got = producer.sequence;
                return Err(LogError::OutOfOrder {
                    partition,
                    expected,
                    got,
                });
            }
        }
    }
    if base_offsets.is_empty() {
        return Ok(None);
    }
    if base_offsets.len() < appends.len() {
        let partition = until[0].0;
        let reason = "a commit repeats some of its batches and not others".to_string();
        return Err(LogError::Invalid { partition, reason });
    }
    Ok(Some(Decision::Duplicate {
        base_offsets,
        until,
    }))
}

fn positions(shard: &Shard, positions: &[Position]) -> Result<(), LogError> {
    let mut seen = HashSet::new();
    for Position {
        group,
        partition,
        offset,
        expected,
        metadata,
    } in positions
    {
        let partition = *partition;
        let invalid = |reason: String| Err(LogError::Invalid { partition, reason });
        let own = shard
            .partition(partition)
            .filter(|_| partition.topic != TopicId::OFFSETS);
        let Some(own) = own else {
            return Err(LogError::NotFound { partition });
        };
        if group.is_empty() || group.len() > GROUP_NAME_BYTES_MAX {
            return invalid(format!(
                "a group name has 1 to {GROUP_NAME_BYTES_MAX} bytes, this one {}",
                group.len()
            ));
        }
        if metadata.len() > COMMIT_METADATA_BYTES_MAX {
            return invalid(format!(
                "a commit carries at most {COMMIT_METADATA_BYTES_MAX} bytes of metadata, not {}",
                metadata.len()
            ));
        }
        if *offset > own.log_end && *offset != Position::FORGET {
            return invalid(format!(
                "group {group} commits offset {offset}, the partition ends at {}",
                own.log_end
            ));
        }
        if positions.len() > 1 && !seen.insert((group.as_str(), partition)) {
            return invalid(format!("group {group} stands twice in one commit"));
        }
        let admitted = shard.positions.admitted(group, partition);
        if expected.is_some() && *expected != admitted {
            let stands = admitted.map_or("nowhere".to_string(), |at| format!("at {at}"));
            let wanted = expected.unwrap_or_default();
            let reason = format!("group {group} stands {stands}, not at {wanted}");
            return Err(LogError::Fenced { partition, reason });
        }
    }
    Ok(())
}
