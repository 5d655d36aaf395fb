//! Records in and out: the hot path.
//!
//! What: `Produce`, `Fetch` and their replies. Called by: client's producer and consumer, doors.
//! Invariants: fixed little-endian fields, then batches exactly as they are stored; a batch is
//! checked when it is read (magic, lengths, checksum) and shares the frame's memory.
//! Refuses: batches that do not decode, more batches than the bytes at hand can hold.

use model::batch::{Batch, HEAD_LEN};
use model::ids::{Offset, PartitionId, ProducerId, TopicId};
use model::port::Bounds;
use serde::{Deserialize, Serialize};

use crate::error::DecodeError;
use crate::limits::{FETCH_BATCHES_MAX, FRAME_BYTES_MAX};
use crate::wire::{Body, Reader, Writer, json_bodies};

/// Append one batch. Answered when it is as durable as the topic asks for.
#[derive(Clone, Debug)]
pub struct Produce {
    pub partition: PartitionId,
    pub batch: Batch,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Produced {
    pub base_offset: Offset,
    pub append_time_us: i64,
    /// The batch had been appended before; nothing was added now.
    pub duplicate: bool,
}

/// Read batches from `from` on. Waits up to `wait_ms` while there is nothing.
#[derive(Clone, Debug, PartialEq)]
pub struct Fetch {
    pub partition: PartitionId,
    pub from: Offset,
    pub bytes_max: u32,
    pub wait_ms: u32,
}

/// Whole batches: the first may begin before the offset asked for.
#[derive(Clone, Debug)]
pub struct Fetched {
    pub bounds: Bounds,
    pub batches: Vec<Batch>,
}

impl Fetched {
    /// Drops batches from the end until a frame can hold the rest. The first always fits.
    pub fn shorten(&mut self) {
        const ROOM: usize = FRAME_BYTES_MAX - (64 << 10);
        let mut bytes = 0;
        let fits = |batch: &Batch| {
            bytes += batch.size();
            bytes <= ROOM
        };
        let count = self
            .batches
            .iter()
            .map(fits)
            .take_while(|fits| *fits)
            .count();
        self.batches.truncate(count.max(1));
    }
}

/// A fresh producer id.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProducerOpen {}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProducerOpened {
    pub id: ProducerId,
    pub epoch: u16,
}

fn write_partition(out: &mut Writer, partition: PartitionId) {
    out.u32(partition.topic.0);
    out.u32(partition.index);
}

fn read_partition(from: &mut Reader) -> Result<PartitionId, DecodeError> {
    Ok(PartitionId {
        topic: TopicId(from.u32()?),
        index: from.u32()?,
    })
}

fn write_batch(out: &mut Writer, batch: &Batch) {
    out.slice(&batch.head());
    out.bytes(batch.body());
}

fn read_batch(from: &mut Reader, index: usize) -> Result<Batch, DecodeError> {
    let at = from.at();
    from.front(Batch::decode_prefix)
        .map_err(|error| DecodeError::Batch {
            index,
            at,
            reason: error.to_string(),
        })
}

impl Body for Produce {
    const NAME: &'static str = "Produce";

    fn write(&self, out: &mut Writer) {
        write_partition(out, self.partition);
        write_batch(out, &self.batch);
    }

    fn read(from: &mut Reader) -> Result<Produce, DecodeError> {
        Ok(Produce {
            partition: read_partition(from)?,
            batch: read_batch(from, 0)?,
        })
    }
}

impl Body for Produced {
    const NAME: &'static str = "Produced";

    fn write(&self, out: &mut Writer) {
        out.u64(self.base_offset);
        out.i64(self.append_time_us);
        out.u8(self.duplicate.into());
    }

    fn read(from: &mut Reader) -> Result<Produced, DecodeError> {
        let (base_offset, append_time_us) = (from.u64()?, from.i64()?);
        Ok(Produced {
            base_offset,
            append_time_us,
            duplicate: from.flag()?,
        })
    }
}

impl Body for Fetch {
    const NAME: &'static str = "Fetch";

    fn write(&self, out: &mut Writer) {
        write_partition(out, self.partition);
        out.u64(self.from);
        out.u32(self.bytes_max);
        out.u32(self.wait_ms);
    }

    fn read(from: &mut Reader) -> Result<Fetch, DecodeError> {
        Ok(Fetch {
            partition: read_partition(from)?,
            from: from.u64()?,
            bytes_max: from.u32()?,
            wait_ms: from.u32()?,
        })
    }
}

impl Body for Fetched {
    const NAME: &'static str = "Fetched";

    fn write(&self, out: &mut Writer) {
        out.u64(self.bounds.start);
        out.u64(self.bounds.end);
        out.u32(self.batches.len() as u32);
        self.batches
            .iter()
            .for_each(|batch| write_batch(out, batch));
    }

    fn read(from: &mut Reader) -> Result<Fetched, DecodeError> {
        let bounds = Bounds {
            start: from.u64()?,
            end: from.u64()?,
        };
        let (at, count) = (from.at(), from.u32()?);
        if count > FETCH_BATCHES_MAX {
            let (value, max) = (count.into(), FETCH_BATCHES_MAX.into());
            return Err(DecodeError::TooMany {
                what: "batch count",
                value,
                max,
            });
        }
        let (need, have) = (count as usize * HEAD_LEN, from.front(|rest| rest.len()));
        if need > have {
            return Err(DecodeError::Short {
                what: "batch list",
                at,
                need,
                have,
            });
        }
        let batches = (0..count as usize).map(|index| read_batch(from, index));
        Ok(Fetched {
            bounds,
            batches: batches.collect::<Result<_, _>>()?,
        })
    }
}

json_bodies!(ProducerOpen, ProducerOpened);
