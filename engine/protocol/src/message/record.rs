//! Records in and out: the hot path.
//!
//! What: `Produce`, `Fetch`, `FetchMany` and their replies. Called by: client's producer and consumer, doors.
//! Invariants: fixed little-endian fields, then batches exactly as they are stored; a batch is
//! checked when it is read (magic, lengths, checksum) and shares the frame's memory.
//! Refuses: batches that do not decode, more batches than the bytes at hand can hold.

use model::batch::{Batch, HEAD_LEN};
use model::ids::{Offset, PartitionId, ProducerId, TopicId};
use model::port::Bounds;
use serde::{Deserialize, Serialize};

use crate::error::{DecodeError, WireError};
use crate::limits::{FETCH_BATCHES_MAX, FETCH_PARTITIONS_MAX, FRAME_BYTES_MAX};
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

/// Read from many partitions at once: answered as soon as one of them has something, at the
/// latest after `wait_ms`. `bytes_max` is for all together; who is named first is read first.
#[derive(Clone, Debug, PartialEq)]
pub struct FetchMany {
    pub wants: Vec<Want>,
    pub bytes_max: u32,
    pub wait_ms: u32,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Want {
    pub partition: PartitionId,
    pub from: Offset,
}

/// Of the partitions that have something.
#[derive(Clone, Debug)]
pub struct FetchedMany {
    pub parts: Vec<Part>,
}

/// What one partition has, or why it cannot be read.
#[derive(Clone, Debug)]
pub struct Part {
    pub partition: PartitionId,
    pub outcome: Result<Fetched, WireError>,
}

/// Beside batches a frame has room for what names the partitions, and for errors.
const FRAME_ROOM: usize = FRAME_BYTES_MAX - (512 << 10);

impl Fetched {
    /// Drops batches from the end until a frame can hold the rest. The first always fits.
    pub fn shorten(&mut self) {
        self.shorten_to(&mut 0);
    }

    /// The same beside `used` bytes of others, to which it adds its own.
    fn shorten_to(&mut self, used: &mut usize) {
        let mut fits = |batch: &Batch| {
            let is_first = *used == 0;
            let is_fitting = is_first || *used + batch.size() <= FRAME_ROOM;
            *used += batch.size() * usize::from(is_fitting);
            is_fitting
        };
        let count = self.batches.iter().take_while(|batch| fits(batch)).count();
        self.batches.truncate(count);
    }
}

impl FetchedMany {
    /// Drops batches until a frame can hold the rest, and with them what comes behind.
    pub fn shorten(&mut self) {
        let mut used = 0;
        for part in &mut self.parts {
            if let Ok(fetched) = &mut part.outcome {
                fetched.shorten_to(&mut used);
            }
        }
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

/// A count that was written, if `each` bytes of so many can be there.
fn read_count(
    from: &mut Reader,
    what: &'static str,
    max: u32,
    each: usize,
) -> Result<usize, DecodeError> {
    let (at, count) = (from.at(), from.u32()?);
    if count > max {
        return Err(DecodeError::TooMany {
            what,
            value: count.into(),
            max: max.into(),
        });
    }
    let (need, have) = (count as usize * each, from.front(|rest| rest.len()));
    if need > have {
        return Err(DecodeError::Short {
            what,
            at,
            need,
            have,
        });
    }
    Ok(count as usize)
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
        let count = read_count(from, "list of batches", FETCH_BATCHES_MAX, HEAD_LEN)?;
        let batches = (0..count).map(|index| read_batch(from, index));
        Ok(Fetched {
            bounds,
            batches: batches.collect::<Result<_, _>>()?,
        })
    }
}

impl Body for FetchMany {
    const NAME: &'static str = "FetchMany";

    fn write(&self, out: &mut Writer) {
        out.u32(self.bytes_max);
        out.u32(self.wait_ms);
        out.u32(self.wants.len() as u32);
        for want in &self.wants {
            write_partition(out, want.partition);
            out.u64(want.from);
        }
    }

    fn read(from: &mut Reader) -> Result<FetchMany, DecodeError> {
        let (bytes_max, wait_ms) = (from.u32()?, from.u32()?);
        let count = read_count(from, "list of partitions", FETCH_PARTITIONS_MAX, WANT_LEN)?;
        let want = |_| {
            Ok(Want {
                partition: read_partition(from)?,
                from: from.u64()?,
            })
        };
        Ok(FetchMany {
            wants: (0..count).map(want).collect::<Result<_, _>>()?,
            bytes_max,
            wait_ms,
        })
    }
}

/// A partition and an offset.
const WANT_LEN: usize = 16;
/// A partition, whether it failed, and the least that follows: the length of an error.
const PART_LEN_MIN: usize = 13;

impl Body for FetchedMany {
    const NAME: &'static str = "FetchedMany";

    fn write(&self, out: &mut Writer) {
        out.u32(self.parts.len() as u32);
        for Part { partition, outcome } in &self.parts {
            write_partition(out, *partition);
            out.u8(outcome.is_err().into());
            match outcome {
                Ok(fetched) => fetched.write(out),
                Err(error) => out.json_sized(error),
            }
        }
    }

    fn read(from: &mut Reader) -> Result<FetchedMany, DecodeError> {
        let count = read_count(
            from,
            "list of partitions",
            FETCH_PARTITIONS_MAX,
            PART_LEN_MIN,
        )?;
        let part = |_| {
            let partition = read_partition(from)?;
            let outcome = match from.flag()? {
                true => Err(from.json_sized()?),
                false => Ok(Fetched::read(from)?),
            };
            Ok(Part { partition, outcome })
        };
        let parts = (0..count).map(part).collect::<Result<_, _>>()?;
        Ok(FetchedMany { parts })
    }
}

json_bodies!(ProducerOpen, ProducerOpened);
