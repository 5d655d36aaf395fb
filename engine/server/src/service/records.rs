//! Records in and out: produce, fetch, lookup.
//!
//! Called by: `service::Rooms::answer`. Calls: the broker.
//! Invariants: nothing is appended to a topic that is not in the catalog as a user's topic.
//! Refuses: writing to internal topics from outside.

use model::{PartitionId, TopicLog};
use protocol::{
    Fetch, FetchMany, Fetched, FetchedMany, Found, Lookup, Part, Produce, Produced, WireError,
    code, limits,
};

use super::Rooms;

impl Rooms {
    pub(super) async fn produce(&self, ask: Produce) -> Result<Produced, WireError> {
        self.check_writable(ask.partition)?;
        let done = self.broker.produce(ask.partition, ask.batch).await?;
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
        Ok(sendable(found))
    }

    /// What cannot be read of one partition stands beside what can of the others.
    pub(super) async fn fetch_many(&self, ask: FetchMany) -> FetchedMany {
        let bytes_max = ask.bytes_max.min(limits::FETCH_BYTES_MAX) as usize;
        let wait_ms = ask.wait_ms.min(limits::FETCH_WAIT_MS_MAX).into();
        let wants: Vec<_> = ask.wants.iter().map(|w| (w.partition, w.from)).collect();
        let found = self.broker.fetch_many(&wants, bytes_max, wait_ms).await;
        let part = |(partition, outcome): (_, Result<_, model::LogError>)| Part {
            partition,
            outcome: outcome.map(sendable).map_err(WireError::from),
        };
        FetchedMany {
            parts: found.into_iter().map(part).collect(),
        }
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
