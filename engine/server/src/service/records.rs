//! Records in and out: produce, fetch, lookup.
//!
//! Called by: `service::Rooms::answer`. Calls: the broker.
//! Invariants: nothing is appended to a topic that is not in the catalog as a user's topic; clients
//! of a topic that keeps columns see JSON (`columns`).
//! Refuses: writing to internal topics from outside.

use std::sync::Arc;

use codec::Format;
use model::{Batch, Offset, PartitionId, PayloadCodec, TopicLog};
use protocol::{
    Fetch, FetchMany, Fetched, FetchedMany, Found, Lookup, Part, Produce, Produced, WireError,
    code, limits,
};

use super::{Rooms, columns};

impl Rooms {
    pub(super) async fn produce(&self, ask: Produce) -> Result<Produced, WireError> {
        self.check_writable(ask.partition)?;
        let batch = match self.columns_of(ask.partition) {
            Some(format) => columns::kept(&format, ask.batch)?,
            None => columns::bytes_only(ask.batch)?,
        };
        let done = self.broker.produce(ask.partition, batch).await?;
        Ok(Produced {
            base_offset: done.base_offset,
            append_time_us: done.append_time,
            duplicate: done.duplicate,
        })
    }

    fn check_writable(&self, partition: PartitionId) -> Result<(), WireError> {
        let catalog = self.catalog();
        match catalog.topic_by_id(partition.topic) {
            Some(topic) if !topic.is_internal() => Ok(()),
            Some(topic) => {
                let message = format!("topic {} is internal: it is not produced to", topic.name);
                Err(WireError::fix(code::INVALID, message))
            }
            None => Err(model::LogError::NotFound { partition }.into()),
        }
    }

    pub(super) async fn fetch(&self, ask: Fetch) -> Result<Fetched, WireError> {
        let bytes_max = ask.bytes_max.min(limits::FETCH_BYTES_MAX) as usize;
        let wait_ms = ask.wait_ms.min(limits::FETCH_WAIT_MS_MAX).into();
        let found = self
            .broker
            .fetch_wait(ask.partition, ask.from, bytes_max, wait_ms)
            .await?;
        let mut left = columns::ANSWER_BYTES_MAX;
        let from = || ask.from;
        self.shown(ask.partition, from, sendable(found), &mut left)
            .await
    }

    /// How a partition's values are read, if it keeps them as columns.
    fn columns_of(&self, partition: PartitionId) -> Option<Format> {
        let catalog = self.catalog();
        let spec = &catalog.topic_by_id(partition.topic)?.spec;
        if spec.codec != PayloadCodec::Columns {
            return None;
        }
        Format::new(spec.codec, Arc::new(spec.schema.clone()?))
    }

    /// With values of columns as the JSON that clients get, as much as is left of an answer.
    async fn shown(
        &self,
        partition: PartitionId,
        from: impl FnOnce() -> Offset,
        found: Fetched,
        left: &mut usize,
    ) -> Result<Fetched, WireError> {
        let Some(format) = self.columns_of(partition) else {
            return Ok(found);
        };
        let batches = columns::shown(format, found.batches, from(), *left).await?;
        *left = left.saturating_sub(batches.iter().map(Batch::size).sum());
        Ok(Fetched { batches, ..found })
    }

    /// What cannot be read of one partition stands beside what can of the others.
    pub(super) async fn fetch_many(&self, ask: FetchMany) -> FetchedMany {
        let bytes_max = ask.bytes_max.min(limits::FETCH_BYTES_MAX) as usize;
        let wait_ms = ask.wait_ms.min(limits::FETCH_WAIT_MS_MAX).into();
        let wants: Vec<_> = ask.wants.iter().map(|w| (w.partition, w.from)).collect();
        let found = self.broker.fetch_many(&wants, bytes_max, wait_ms).await;
        let mut parts = Vec::with_capacity(found.len());
        let mut left = columns::ANSWER_BYTES_MAX;
        for (partition, outcome) in found {
            let outcome = match outcome {
                Ok(found) => {
                    let want = || wants.iter().find(|(wanted, _)| *wanted == partition);
                    let from = || want().map_or(0, |(_, from)| *from);
                    self.shown(partition, from, sendable(found), &mut left)
                        .await
                }
                Err(error) => Err(WireError::from(error)),
            };
            parts.push(Part { partition, outcome });
        }
        FetchedMany { parts }
    }

    pub(super) async fn lookup(&self, ask: Lookup) -> Result<Found, WireError> {
        Ok(Found {
            offset: TopicLog::lookup(&self.broker, ask.partition, ask.at).await?,
        })
    }
}

fn sendable(found: broker::Fetched) -> Fetched {
    let mut batches = found.batches;
    batches.truncate(limits::FETCH_BATCHES_MAX as usize);
    Fetched {
        bounds: found.bounds,
        batches,
    }
}
