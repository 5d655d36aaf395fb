//! The task of one lane: encodes, numbers, sends, and sends again.
//!
//! What: `spawn` starts it. Called by: `Producer` when a topic is used first.
//! Invariants: batches are numbered once, in order, and keep their number for ever; what is not
//! acked is kept; after any trouble all of it is sent again, in order, on a fresh stream, and
//! the broker's memory of the last five batches keeps it from being written twice. Until the
//! first ack only one batch is under way: a broker takes any first number from a producer it
//! does not know, so a second batch must not overtake a first one that was refused.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use model::batch::{Batch, Producer as Numbered};
use protocol::{Advice, Produce, ProducerOpened, Response, code};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::lane::{Filled, Lane, Look};
use super::{ProducerConfig, Shared, Trouble as Told};
use crate::channel::{Channel, Pending};
use crate::client::Client;
use crate::error::ClientError;

struct Run {
    lane: Arc<Lane>,
    client: Client,
    config: ProducerConfig,
    identity: ProducerOpened,
    stop: CancellationToken,
    channel: Option<Channel>,
    /// Sent or to be sent, oldest first; the first `under_way` have been sent on `channel`.
    kept: VecDeque<Kept>,
    under_way: usize,
    sequence: u32,
    acked_once: bool,
    trouble: Option<Trouble>,
    /// Of all lanes of the producer: the last one's trouble.
    told: watch::Sender<Option<Told>>,
}

/// Trouble that passes sooner is not told.
const TELL_AFTER: Duration = Duration::from_millis(500);

/// A batch that is not acked.
struct Kept {
    batch: Batch,
    cost: usize,
    answer: Option<Pending>,
}

/// Since when nothing gets through.
struct Trouble {
    since: Instant,
    attempts: u32,
}

pub(super) fn spawn(lane: Arc<Lane>, shared: &Shared) {
    let run = Run {
        lane,
        client: shared.client.clone(),
        config: shared.config.clone(),
        identity: shared.identity.clone(),
        stop: shared.stop.clone(),
        channel: None,
        kept: VecDeque::new(),
        under_way: 0,
        sequence: 0,
        acked_once: false,
        trouble: None,
        told: shared.trouble.clone(),
    };
    tokio::spawn(async move {
        let stop = run.stop.clone();
        tokio::select! {
            () = run.deliver() => {}
            () = stop.cancelled() => {}
        }
    });
}

impl Run {
    async fn deliver(mut self) {
        loop {
            let step = self.step().await;
            let Err(error) = step else { continue };
            if let Err(error) = self.recover(error).await {
                let lost = self.kept.iter().map(|kept| kept.cost).sum();
                return self.lane.fail(error, lost);
            }
        }
    }

    fn window(&self) -> usize {
        if self.acked_once {
            self.config.in_flight
        } else {
            1
        }
    }

    /// One thing at a time: send what is kept, settle the oldest answer, or take a new batch.
    async fn step(&mut self) -> Result<(), ClientError> {
        if self.under_way < self.kept.len().min(self.window()) {
            return self.send().await;
        }
        let looks = self.kept.len() < self.window();
        let look = if looks {
            self.lane.look()
        } else {
            Look::Nothing
        };
        let due = match look {
            Look::Batch(filled) => return self.keep(*filled),
            Look::Until(due) => Some(due),
            Look::Nothing => None,
        };
        let oldest = self.kept.front_mut().and_then(|kept| kept.answer.as_mut());
        let answered = oldest.is_some();
        tokio::select! {
            answer = async { oldest.expect("guarded").await }, if answered => {
                self.settle(answer?)
            }
            () = self.lane.woken(), if looks => Ok(()),
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => Ok(()),
        }
    }

    /// Encodes and numbers a batch.
    fn keep(&mut self, filled: Filled) -> Result<(), ClientError> {
        let ProducerOpened { id, epoch } = self.identity;
        let numbered = Numbered {
            id,
            epoch,
            sequence: self.sequence,
        };
        let batch = match Batch::encode(&filled.rows, self.config.codec, Some(numbered)) {
            Ok(batch) => batch,
            Err(error) => {
                // Counted as lost with the rest: it has no place among the kept.
                self.lane.give_back(filled.cost);
                return Err(ClientError::Unsendable(error.to_string()));
            }
        };
        self.sequence = self.sequence.wrapping_add(batch.len());
        self.kept.push_back(Kept {
            batch,
            cost: filled.cost,
            answer: None,
        });
        Ok(())
    }

    /// Sends the oldest batch that is not under way.
    async fn send(&mut self) -> Result<(), ClientError> {
        let channel = match &self.channel {
            Some(channel) => channel,
            None => self.channel.insert(self.client.channel().await?),
        };
        let kept = &mut self.kept[self.under_way];
        let (partition, batch) = (self.lane.partition, kept.batch.clone());
        kept.answer = Some(channel.send(Produce { partition, batch }).await?);
        self.under_way += 1;
        Ok(())
    }

    /// The oldest batch is acked.
    fn settle(&mut self, answer: Response) -> Result<(), ClientError> {
        let Response::Produced(_) = answer else {
            return Err(ClientError::Unexpected(format!("{answer:?}")));
        };
        let kept = self.kept.pop_front().expect("its answer was waited for");
        self.under_way -= 1;
        self.acked_once = true;
        if self.trouble.take().is_some() {
            self.tell_no_more();
        }
        self.lane.done(kept.batch.len().into(), kept.cost);
        Ok(())
    }

    /// After trouble: forgets the stream, waits, lets everything kept be sent again. An error
    /// is final.
    async fn recover(&mut self, error: ClientError) -> Result<(), ClientError> {
        if !is_passing(&error) {
            return Err(error);
        }
        self.channel = None;
        self.under_way = 0;
        self.kept.iter_mut().for_each(|kept| kept.answer = None);
        let fresh = || Trouble {
            since: Instant::now(),
            attempts: 0,
        };
        let trouble = self.trouble.get_or_insert_with(fresh);
        if trouble.since.elapsed() >= self.config.delivery_timeout {
            return Err(error);
        }
        if trouble.since.elapsed() >= TELL_AFTER {
            let told = Told {
                topic: self.lane.topic().to_owned(),
                partition: self.lane.partition.index,
                code: error.code().to_owned(),
                message: error.to_string(),
            };
            self.told.send_replace(Some(told));
        }
        let factor = 1u32 << trouble.attempts.min(16);
        trouble.attempts += 1;
        let pause = self
            .config
            .backoff
            .saturating_mul(factor)
            .min(self.config.backoff_max);
        tracing::debug!(partition = %self.lane.partition, %error, ?pause, "will send again");
        sleep(pause).await;
        Ok(())
    }
}

impl Run {
    /// Another lane's trouble is still one.
    fn tell_no_more(&self) {
        let (topic, partition) = (self.lane.topic(), self.lane.partition.index);
        self.told.send_if_modified(|told| {
            let is_ours = |told: &Told| told.topic == topic && told.partition == partition;
            told.take_if(|told| is_ours(told)).is_some()
        });
    }
}

/// Whether sending the same numbered batch again is right. An unknown outcome is one of these:
/// the number tells the broker whether it has the batch.
fn is_passing(error: &ClientError) -> bool {
    error.advice() == Advice::Retry || error.code() == code::UNKNOWN
}
