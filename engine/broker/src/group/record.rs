//! The records of `_offsets`: one per group and partition, the newest counts.
//!
//! Called by: `shard` (writing a commit), `open` (reading them back).
//! Key `{"kind":"position","group":G,"topic":T,"partition":P}`, value `{"offset":O,"metadata":M}`;
//! JSON, so that `_offsets` can be read with the ordinary tools. No value: the position is gone.
//! Invariants: a kind that this version does not know is skipped, so kinds can be added.
//! Refuses: what is not JSON, with the offset of the record.

use model::rows::{Rows, RowsBuilder};
use model::{Batch, Codec, Offset, PartitionId, TopicId};
use serde::{Deserialize, Serialize};

/// A committed position of a group in a partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saved {
    /// The next record the group wants.
    pub offset: Offset,
    /// The committer's own note, kept as it is.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub metadata: String,
}

/// One record of `_offsets`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub group: String,
    pub partition: PartitionId,
    /// `None` forgets the position.
    pub saved: Option<Saved>,
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Key {
    Position {
        group: String,
        topic: u32,
        partition: u32,
    },
    #[serde(other)]
    Unknown,
}

/// A record of `_offsets` that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("record {offset} of _offsets is not a group position: {why}")]
pub struct RecordError {
    pub offset: Offset,
    pub why: String,
}

/// Encodes records as one batch, not yet stamped; `records` is not empty and fits a batch.
pub(crate) fn encode(records: &[Record], now_us: i64) -> Result<Batch, String> {
    let mut rows = RowsBuilder::new();
    for record in records {
        let key = Key::Position {
            group: record.group.clone(),
            topic: record.partition.topic.0,
            partition: record.partition.index,
        };
        let key = serde_json::to_vec(&key).map_err(|error| error.to_string())?;
        let value = match &record.saved {
            Some(saved) => Some(serde_json::to_vec(saved).map_err(|error| error.to_string())?),
            None => None,
        };
        rows.push(now_us, Some(&key), value.as_deref(), &[]);
    }
    Batch::encode(&rows.finish(), Codec::None, None).map_err(|error| error.to_string())
}

/// Reads the records of a batch in order.
pub(crate) fn decode(batch: &Batch) -> Result<Vec<Record>, RecordError> {
    let failed = |why: String| RecordError {
        offset: batch.base_offset(),
        why,
    };
    let rows: Rows = batch.rows().map_err(|error| failed(error.to_string()))?;
    let offsets = batch.offsets().map_err(|error| failed(error.to_string()))?;
    let mut records = Vec::with_capacity(rows.len());
    for (at, offset) in offsets.into_iter().enumerate() {
        let record = rows.record(at);
        let failed = |error: serde_json::Error| RecordError {
            offset,
            why: error.to_string(),
        };
        let key = serde_json::from_slice(record.key.unwrap_or_default()).map_err(failed)?;
        let Key::Position {
            group,
            topic,
            partition,
        } = key
        else {
            continue;
        };
        let saved = match record.value {
            Some(value) => Some(serde_json::from_slice(value).map_err(failed)?),
            None => None,
        };
        let partition = PartitionId {
            topic: TopicId(topic),
            index: partition,
        };
        records.push(Record {
            group,
            partition,
            saved,
        });
    }
    Ok(records)
}
