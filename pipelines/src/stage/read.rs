//! Input of a lane, cut into batches by policy.
//!
//! Called by: `lane`. Invariants: rows come in offset order, each once, from the offset the
//! reader was set to; a batch has at most the policy's rows and bytes but at least one row; a
//! future that is dropped loses nothing, so a lane may stop waiting at any time; what is held
//! is bounded by one fetch beyond a batch.
//! Refuses: batches that do not decode (named with their offset).

use std::collections::VecDeque;
use std::time::Duration;

use model::batch::{Batch, BatchError, Codec};
use model::ids::{Offset, PartitionId};
use model::port::{LogError, TopicLog};
use model::rows::{Rows, RowsError};
use tokio::time::Instant;

use super::Batching;
use crate::limits::FETCH_BYTES_MAX;

/// Rows that a lane works on together.
#[derive(Clone, Debug)]
pub(crate) struct Input {
    pub rows: Rows,
    pub offsets: Vec<Offset>,
    /// The position after them.
    pub next: Offset,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    #[error(transparent)]
    Log(#[from] LogError),
    #[error("the batch at offset {offset} cannot be read: {source}")]
    Batch { offset: Offset, source: BatchError },
    #[error(transparent)]
    Rows(#[from] RowsError),
    #[error("decoding was stopped")]
    Stopped,
}

/// Part of a batch of the log that was not given out yet.
struct Held {
    rows: Rows,
    offsets: Vec<Offset>,
    from: usize,
    next: Offset,
}

impl Held {
    fn left(&self) -> usize {
        self.offsets.len() - self.from
    }
}

pub(crate) struct Reader {
    partition: PartitionId,
    held: VecDeque<Held>,
    /// From where the next fetch is.
    fetch_at: Offset,
    /// When the first of the held rows came.
    since: Option<Instant>,
}

impl Reader {
    pub fn new(partition: PartitionId, at: Offset) -> Reader {
        Reader {
            partition,
            held: VecDeque::new(),
            fetch_at: at,
            since: None,
        }
    }

    /// Goes on from another offset.
    pub fn seek(&mut self, at: Offset) {
        self.held.clear();
        self.since = None;
        self.fetch_at = at;
    }

    /// The next batch: what is there, up to the most; waits for the first row without end, then until it is
    /// enough as the policy says.
    pub async fn next(
        &mut self,
        log: &dyn TopicLog,
        batching: Batching,
    ) -> Result<Input, ReadError> {
        let limit = Duration::from_millis(batching.wait_ms);
        // more than there is now is not run after
        let end = log.bounds(self.partition)?.end;
        loop {
            let enough = match self.fetch_at < end {
                true => batching.rows_max,
                false => batching.rows,
            };
            if self.full(enough, batching.bytes) {
                return self.cut(batching);
            }
            let before = self.fetch_at;
            match self.fetch(log).await {
                // what is there is not held up by what cannot be read
                Err(_) if !self.held.is_empty() => return self.cut(batching),
                fetched => fetched?,
            }
            if self.fetch_at > before {
                continue;
            }
            if self.full(batching.rows, batching.bytes) {
                return self.cut(batching);
            }
            let moved = log.moved(self.partition, self.fetch_at);
            match self.since {
                None => moved.await?,
                Some(since) if since.elapsed() >= limit => return self.cut(batching),
                Some(since) => match tokio::time::timeout_at(since + limit, moved).await {
                    Ok(moved) => moved?,
                    Err(_) => return self.cut(batching),
                },
            }
        }
    }

    async fn fetch(&mut self, log: &dyn TopicLog) -> Result<(), ReadError> {
        let fetched = log.fetch(self.partition, self.fetch_at, FETCH_BYTES_MAX);
        self.hold(fetched.await?).await
    }

    /// Whether so much is there.
    fn full(&self, rows: u32, bytes: u64) -> bool {
        let held: usize = self.held.iter().map(Held::left).sum();
        let payloads = || -> u64 {
            self.held
                .iter()
                .map(|held| payload(held, held.left()))
                .sum()
        };
        held >= rows as usize || payloads() >= bytes
    }

    async fn hold(&mut self, batches: Vec<Batch>) -> Result<(), ReadError> {
        let compressed = batches.iter().any(|batch| batch.codec() != Codec::None);
        let at = self.fetch_at;
        let decoded = match compressed {
            true => tokio::task::spawn_blocking(move || decode(batches, at))
                .await
                .map_err(|_| ReadError::Stopped)??,
            false => decode(batches, at)?,
        };
        for held in decoded {
            self.fetch_at = self.fetch_at.max(held.next);
            if held.left() > 0 {
                self.since.get_or_insert_with(Instant::now);
                self.held.push_back(held);
            }
        }
        Ok(())
    }

    fn cut(&mut self, batching: Batching) -> Result<Input, ReadError> {
        let mut parts = Vec::new();
        let mut offsets = Vec::new();
        let mut next = self.fetch_at;
        let (mut rows_left, mut bytes_left) = (batching.rows_max as usize, batching.bytes);
        while let Some(held) = self.held.front_mut() {
            // enough already: rows of the next one would only be copied to be joined
            if held.left() > rows_left && rows_left <= batching.rows_max as usize / 2 {
                break;
            }
            let most = held.left().min(rows_left);
            let fits = fitting(held, most, bytes_left);
            // A row larger than the policy goes alone.
            let count = if parts.is_empty() { fits.max(1) } else { fits };
            if count == 0 {
                break;
            }
            bytes_left = bytes_left.saturating_sub(payload(held, count));
            rows_left -= count;
            parts.push(held.rows.slice(held.from, count));
            offsets.extend_from_slice(&held.offsets[held.from..held.from + count]);
            held.from += count;
            if held.left() > 0 {
                next = held.offsets[held.from];
                break;
            }
            next = held.next;
            self.held.pop_front();
            if rows_left == 0 {
                break;
            }
        }
        if self.held.is_empty() {
            self.since = None;
        }
        let rows = match parts.len() {
            1 => parts.swap_remove(0),
            _ => Rows::concat(&parts)?,
        };
        Ok(Input {
            rows,
            offsets,
            next,
        })
    }
}

/// What lies before a batch that cannot be read is given out first; it is met again as the next one.
fn decode(batches: Vec<Batch>, from: Offset) -> Result<Vec<Held>, ReadError> {
    let mut out = Vec::with_capacity(batches.len());
    for batch in batches {
        match opened(&batch, from) {
            Ok(held) => out.push(held),
            Err(source) if out.is_empty() => {
                let offset = batch.base_offset();
                return Err(ReadError::Batch { offset, source });
            }
            Err(_) => break,
        }
    }
    Ok(out)
}

fn opened(batch: &Batch, from: Offset) -> Result<Held, BatchError> {
    let offsets = batch.offsets()?;
    Ok(Held {
        rows: batch.rows()?,
        from: offsets.partition_point(|o| *o < from),
        offsets,
        next: batch.next_offset(),
    })
}

/// Bytes of keys, values and headers of the next `count` rows.
fn payload(held: &Held, count: usize) -> u64 {
    let span = |offsets: &[i32]| (offsets[held.from + count] - offsets[held.from]) as u64;
    let columns = held.rows.columns.as_ref();
    let columns = columns.map_or(0, |columns| columns.span_bytes(held.from, count));
    let headers = held.rows.headers.as_ref();
    let headers = headers.map_or(0, |headers| headers.span_bytes(held.from, count));
    span(held.rows.keys.value_offsets())
        + span(held.rows.values.value_offsets())
        + (columns + headers) as u64
}

/// How many of the next rows have at most so many bytes.
fn fitting(held: &Held, most: usize, bytes: u64) -> usize {
    let (mut low, mut high) = (0, most);
    while low < high {
        let middle = (low + high).div_ceil(2);
        match payload(held, middle) <= bytes {
            true => low = middle,
            false => high = middle - 1,
        }
    }
    low
}

#[cfg(test)]
mod tests {
    use model::batch::HEAD_LEN;

    use super::*;

    fn batch(at: Offset) -> Batch {
        let mut rows = model::rows::RowsBuilder::new();
        rows.push(7, None, Some(b"ab"), &[]);
        rows.push(8, None, Some(b"cd"), &[]);
        let batch = Batch::encode(&rows.finish(), Codec::None, None).expect("two records");
        batch.stamped(at, model::ids::ShardEpoch(0), 0)
    }

    /// One whose checksum is right and whose values are not.
    fn damaged(at: Offset) -> Batch {
        let mut bytes = batch(at).to_bytes().to_vec();
        // the second entry of its directory, which says where the offsets of values are
        let entry = HEAD_LEN + 16;
        assert_eq!(bytes[entry], 5);
        let offsets = HEAD_LEN + usize::from(bytes[entry + 4]);
        bytes[offsets + 4..offsets + 8].fill(0xff);
        let Err(BatchError::Checksum { computed, .. }) = Batch::decode(bytes.clone().into()) else {
            panic!("its checksum is not looked at");
        };
        bytes[32..36].copy_from_slice(&computed.to_le_bytes());
        Batch::decode(bytes.into()).expect("it is damaged inside")
    }

    #[test]
    fn what_lies_before_a_damaged_batch_is_given_out() {
        let held = decode(vec![batch(0), batch(2), damaged(4), batch(6)], 1).expect("two");
        let read: Vec<_> = held.iter().map(|held| (held.from, held.next)).collect();
        assert_eq!(read, [(1, 2), (0, 4)]);
        let error = decode(vec![damaged(4), batch(6)], 4)
            .err()
            .expect("it is damaged");
        assert!(
            error
                .to_string()
                .starts_with("the batch at offset 4 cannot be read: "),
            "{error}"
        );
    }
}
