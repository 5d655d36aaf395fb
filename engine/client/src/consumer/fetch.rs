//! The task that reads one partition ahead of the caller.
//!
//! What: `Fetcher::run`, one per partition held, on a stream of its own, so that its long polls
//! hold up nobody. Called by: `Consumer`. Invariants: batches are handed over in order; the next
//! fetch begins where the last one ended; passing trouble is waited out, bounded by
//! `retry_timeout`. Records that retention removed before they were read are skipped, and said.

use std::time::Duration;

use model::batch::Batch;
use model::ids::{Offset, PartitionId};
use model::port::Lookup;
use protocol::{Advice, Fetch, Fetched, Response, code};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::channel::Channel;
use crate::client::Client;
use crate::error::ClientError;

const BACKOFF: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(1);

pub(super) struct Arrival {
    pub partition: PartitionId,
    pub round: u64,
    pub what: What,
}

pub(super) enum What {
    Batches {
        batches: Vec<Batch>,
        from: Offset,
    },
    /// The end seen at the start is reached.
    End,
    Failed(ClientError),
}

pub(super) struct Fetcher {
    pub client: Client,
    pub partition: PartitionId,
    pub round: u64,
    pub position: Offset,
    pub end: Option<Offset>,
    pub bytes_max: u32,
    pub wait_ms: u32,
    pub retry_timeout: Duration,
    pub arrive: mpsc::Sender<Arrival>,
}

impl Fetcher {
    pub(super) async fn run(mut self, stop: CancellationToken) {
        tokio::select! {
            () = self.read_on() => {}
            () = stop.cancelled() => {}
        }
    }

    async fn read_on(&mut self) {
        let mut channel = None;
        let mut trouble: Option<(Instant, Duration)> = None;
        while self.end.is_none_or(|end| self.position < end) {
            let error = match self.fetch(&mut channel).await {
                Ok(batches) => {
                    trouble = None;
                    if !self.hand_over(batches).await {
                        return;
                    }
                    continue;
                }
                Err(error) => error,
            };
            channel = None;
            let (since, pause) = trouble.unwrap_or_else(|| (Instant::now(), BACKOFF));
            let error = match error.code() {
                code::OUT_OF_RANGE => self.skip_lost(error).await.err(),
                _ => Some(error),
            };
            let Some(error) = error else { continue };
            let passing = error.advice() == Advice::Retry;
            if !passing || since.elapsed() >= self.retry_timeout {
                return self.say(What::Failed(error)).await;
            }
            tracing::debug!(partition = %self.partition, %error, "fetch will be tried again");
            tokio::time::sleep(pause).await;
            trouble = Some((since, (pause * 2).min(BACKOFF_MAX)));
        }
        self.say(What::End).await;
    }

    async fn fetch(&self, channel: &mut Option<Channel>) -> Result<Vec<Batch>, ClientError> {
        let channel = match channel {
            Some(channel) => channel,
            None => channel.insert(self.client.channel().await?),
        };
        let fetch = Fetch {
            partition: self.partition,
            from: self.position,
            bytes_max: self.bytes_max,
            wait_ms: self.wait_ms,
        };
        match channel.send(fetch).await?.await? {
            Response::Fetched(Fetched { batches, .. }) => Ok(batches),
            other => Err(ClientError::Unexpected(format!("{other:?}"))),
        }
    }

    /// False when the consumer has gone.
    async fn hand_over(&mut self, batches: Vec<Batch>) -> bool {
        let Some(last) = batches.last() else {
            return true;
        };
        let from = self.position;
        self.position = last.next_offset().max(from);
        let arrival = self.arrival(What::Batches { batches, from });
        self.arrive.send(arrival).await.is_ok()
    }

    /// What was removed cannot be read: goes on with what is kept.
    async fn skip_lost(&mut self, error: ClientError) -> Result<(), ClientError> {
        let earliest = self.client.lookup(self.partition, Lookup::Earliest).await?;
        if earliest <= self.position {
            return Err(error);
        }
        tracing::warn!(
            partition = %self.partition,
            from = self.position,
            to = earliest,
            "records were removed, by retention or a trim, before they were read"
        );
        self.position = earliest;
        Ok(())
    }

    fn arrival(&self, what: What) -> Arrival {
        Arrival {
            partition: self.partition,
            round: self.round,
            what,
        }
    }

    async fn say(&self, what: What) {
        // Without a consumer there is nobody to be told.
        let _ = self.arrive.send(self.arrival(what)).await;
    }
}
