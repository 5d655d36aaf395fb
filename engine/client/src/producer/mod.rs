//! Producing records: batched by partition, in order, each exactly once.
//!
//! What: `Producer` picks the partition of a record and hands it to that partition's `lane`,
//! which batches, numbers, sends and sends again. Called by: the command line, demo, benches.
//! Invariants: records of one `send` caller keep their order within a partition; a record is
//! counted as acked once, after the server acked it; memory for records not yet acked is bounded
//! and `send` waits when it is used up. A lane that failed for good fails every later record.
//! Refuses: records over the size limit, unknown topics.

mod lane;
mod run;

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use model::batch::Codec;
use model::hash::partition_for_key;
use model::ids::PartitionId;
use model::limits::{HEADERS_MAX, RECORD_BYTES_MAX};
use protocol::{ProducerOpen, ProducerOpened, WireError, code};
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::client::Client;
use crate::error::ClientError;
use lane::Lane;

#[derive(Clone, Debug)]
pub struct ProducerConfig {
    /// A batch that is not full is sent this long after its first record.
    pub linger_ms: u64,
    /// A batch is full at this size, before compression.
    pub batch_bytes: usize,
    /// Batches of one partition under way; at most what the broker remembers (5).
    pub in_flight: usize,
    pub codec: Codec,
    /// Records that are not yet acked, all partitions together.
    pub buffer_bytes: usize,
    /// A batch that cannot be delivered for this long fails its partition.
    pub delivery_timeout: Duration,
    /// The wait before the first retry; doubles up to `backoff_max`.
    pub backoff: Duration,
    pub backoff_max: Duration,
}

impl Default for ProducerConfig {
    fn default() -> Self {
        ProducerConfig {
            linger_ms: 5,
            batch_bytes: 1 << 20,
            in_flight: model::limits::PRODUCER_BATCHES_REMEMBERED,
            codec: Codec::None,
            buffer_bytes: 64 << 20,
            delivery_timeout: Duration::from_secs(120),
            backoff: Duration::from_millis(50),
            backoff_max: Duration::from_secs(1),
        }
    }
}

/// A record to be sent.
#[derive(Clone, Debug, Default)]
pub struct Record {
    /// Microseconds since the epoch, UTC; now if `None`.
    pub timestamp: Option<i64>,
    pub key: Option<Bytes>,
    pub value: Option<Bytes>,
    pub headers: Vec<(String, Option<Bytes>)>,
}

impl Record {
    pub fn value(value: impl Into<Bytes>) -> Record {
        Record {
            value: Some(value.into()),
            ..Record::default()
        }
    }

    pub fn with_key(self, key: impl Into<Bytes>) -> Record {
        Record {
            key: Some(key.into()),
            ..self
        }
    }

    pub fn at(self, timestamp_us: i64) -> Record {
        Record {
            timestamp: Some(timestamp_us),
            ..self
        }
    }

    fn bytes(&self) -> usize {
        let some = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
        let headers = self
            .headers
            .iter()
            .map(|(name, value)| name.len() + some(value));
        some(&self.key) + some(&self.value) + headers.sum::<usize>()
    }
}

/// Records of one partition could not be delivered.
#[derive(Clone, Debug, thiserror::Error)]
#[error("topic {topic}{}: {error}", Place(.partition))]
pub struct ProduceError {
    pub topic: String,
    /// `None` when no partition was chosen yet.
    pub partition: Option<u32>,
    pub error: Box<ClientError>,
}

struct Place<'a>(&'a Option<u32>);

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0
            .map_or(Ok(()), |index| write!(f, ", partition {index}"))
    }
}

/// Why nothing gets through to a partition for the moment. It is tried again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    pub topic: String,
    pub partition: u32,
    /// As in `WireError`: `disk-full`, `unavailable`, …
    pub code: String,
    pub message: String,
}

/// What `flush` found delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Acked {
    /// Records acked since the producer was made.
    pub records: u64,
}

/// Sends records. Cloning is cheap; when the last clone goes, what was not flushed is lost.
#[derive(Clone)]
pub struct Producer {
    shared: Arc<Shared>,
}

struct Shared {
    client: Client,
    config: ProducerConfig,
    identity: ProducerOpened,
    topics: RwLock<HashMap<String, Arc<TopicLanes>>>,
    memory: Arc<Semaphore>,
    trouble: watch::Sender<Option<Trouble>>,
    stop: CancellationToken,
    _stop: DropGuard,
}

struct TopicLanes {
    lanes: Vec<Arc<Lane>>,
    sticky: Mutex<Sticky>,
}

/// Where records without a key go: one partition until a batch of it is closed, then the next.
#[derive(Default)]
struct Sticky {
    index: usize,
    batches_seen: u64,
}

impl TopicLanes {
    fn pick(&self, key: Option<&[u8]>) -> usize {
        if let Some(key) = key {
            return partition_for_key(key, self.lanes.len() as u32) as usize;
        }
        if self.lanes.len() == 1 {
            return 0;
        }
        let mut sticky = self.sticky.lock().expect("nothing panics while holding it");
        if self.lanes[sticky.index].batches() != sticky.batches_seen {
            sticky.index = (sticky.index + 1) % self.lanes.len();
            sticky.batches_seen = self.lanes[sticky.index].batches();
        }
        sticky.index
    }
}

impl Client {
    /// A new producer, known to the server under an id of its own.
    pub async fn producer(&self, config: ProducerConfig) -> Result<Producer, ClientError> {
        let identity = self.call(ProducerOpen {}).await?;
        let stop = CancellationToken::new();
        let memory = config
            .buffer_bytes
            .clamp(RECORD_BYTES_MAX * 2, u32::MAX as usize);
        let in_flight = config
            .in_flight
            .clamp(1, model::limits::PRODUCER_BATCHES_REMEMBERED);
        let shared = Shared {
            client: self.clone(),
            config: ProducerConfig {
                in_flight,
                ..config
            },
            identity,
            topics: RwLock::default(),
            memory: Arc::new(Semaphore::new(memory)),
            trouble: watch::Sender::new(None),
            _stop: stop.clone().drop_guard(),
            stop,
        };
        Ok(Producer {
            shared: Arc::new(shared),
        })
    }
}

impl Producer {
    /// Takes a record, waiting while the buffer is full. The record is sent soon after; `flush`
    /// says when it is acked.
    pub async fn send(&self, topic: &str, record: Record) -> Result<(), ProduceError> {
        let lanes = self.lanes(topic).await?;
        let index = lanes.pick(record.key.as_deref());
        self.put(&lanes.lanes[index], record).await
    }

    /// Takes a record for a partition of the caller's choice.
    pub async fn send_to(
        &self,
        topic: &str,
        partition: u32,
        record: Record,
    ) -> Result<(), ProduceError> {
        let lanes = self.lanes(topic).await?;
        let Some(lane) = lanes.lanes.get(partition as usize) else {
            let count = lanes.lanes.len();
            let message = format!("partition {partition} is not one of the {count} of the topic");
            let error = Box::new(WireError::fix(code::NOT_FOUND, message).into());
            return Err(ProduceError {
                topic: topic.to_owned(),
                partition: None,
                error,
            });
        };
        self.put(lane, record).await
    }

    async fn put(&self, lane: &Lane, record: Record) -> Result<(), ProduceError> {
        let bytes = record.bytes();
        if bytes > RECORD_BYTES_MAX || record.headers.len() > HEADERS_MAX {
            let message = format!(
                "a record of {bytes} bytes with {} headers is over the limits of \
                 {RECORD_BYTES_MAX} bytes and {HEADERS_MAX} headers",
                record.headers.len()
            );
            return Err(lane.error(WireError::fix(code::TOO_LARGE, message).into()));
        }
        let cost = (bytes + lane::RECORD_COST_BYTES) as u32;
        let memory = self.shared.memory.acquire_many(cost).await;
        memory.expect("the buffer is never closed").forget();
        lane.push(
            &record,
            record.timestamp.unwrap_or_else(now_us),
            cost as usize,
        )
    }

    /// Sends what is buffered, without waiting for the linger time, and waits until all records
    /// taken so far are acked. The first partition that failed is the error.
    pub async fn flush(&self) -> Result<Acked, ProduceError> {
        let lanes = self.all_lanes();
        let targets: Vec<u64> = lanes.iter().map(|lane| lane.flush_begin()).collect();
        for (lane, target) in lanes.iter().zip(targets) {
            lane.acked(target).await?;
        }
        Ok(Acked {
            records: self.acked(),
        })
    }

    /// What keeps records from getting through once it has lasted a moment, until one does.
    pub fn trouble(&self) -> watch::Receiver<Option<Trouble>> {
        self.shared.trouble.subscribe()
    }

    /// Records acked since the producer was made, also when others failed.
    pub fn acked(&self) -> u64 {
        self.all_lanes()
            .iter()
            .map(|lane| lane.acked_so_far())
            .sum()
    }

    fn all_lanes(&self) -> Vec<Arc<Lane>> {
        let topics = self
            .shared
            .topics
            .read()
            .expect("nothing panics while holding it");
        topics
            .values()
            .flat_map(|topic| topic.lanes.iter().cloned())
            .collect()
    }

    async fn lanes(&self, topic: &str) -> Result<Arc<TopicLanes>, ProduceError> {
        if let Some(lanes) = self.known(topic) {
            return Ok(lanes);
        }
        let failed = |error| ProduceError {
            topic: topic.to_owned(),
            partition: None,
            error: Box::new(error),
        };
        let found = self.shared.client.topic(topic).await.map_err(failed)?;
        let mut topics = self
            .shared
            .topics
            .write()
            .expect("nothing panics while holding it");
        // Another sender may have been here meanwhile: its lanes count.
        if let Some(lanes) = topics.get(topic) {
            return Ok(Arc::clone(lanes));
        }
        let lane = |index: u32| {
            let partition = PartitionId {
                topic: found.topic.id,
                index,
            };
            let lane = Lane::new(topic, partition, &self.shared.config, &self.shared.memory);
            let lane = Arc::new(lane);
            run::spawn(Arc::clone(&lane), &self.shared);
            lane
        };
        let lanes = (0..found.topic.spec.partitions).map(lane).collect();
        let lanes = Arc::new(TopicLanes {
            lanes,
            sticky: Mutex::default(),
        });
        topics.insert(topic.to_owned(), Arc::clone(&lanes));
        Ok(lanes)
    }

    fn known(&self, topic: &str) -> Option<Arc<TopicLanes>> {
        let topics = self
            .shared
            .topics
            .read()
            .expect("nothing panics while holding it");
        topics.get(topic).cloned()
    }
}

fn now_us() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    since.as_micros() as i64
}

/// A counter that only grows.
#[derive(Default)]
struct Count(AtomicU64);

impl Count {
    fn get(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::AcqRel);
    }
}
