//! A running query: rows as they come, within time and number.
//!
//! Called by the engine, which starts it, and by whoever reads the rows.
//! Invariants: the query runs on the engine's threads, at most a few batches ahead; it ends at
//! its deadline whether or not somebody reads; the place is free when the stream is dropped and
//! the work has stopped; after an error or the end there is nothing more.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use datafusion::execution::SendableRecordBatchStream;
use futures::{Stream, StreamExt};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

use crate::error::SqlError;
use crate::limits::BATCHES_AHEAD;
use crate::stop::Stop;

/// How far a query may go.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub deadline: Instant,
    pub timeout_ms: u64,
    pub rows_max: u64,
}

impl Bounds {
    fn timeout(&self) -> SqlError {
        SqlError::Timeout {
            timeout_ms: self.timeout_ms,
        }
    }
}

/// The rows of a query. Dropping it stops the query.
pub struct QueryStream {
    schema: SchemaRef,
    batches: mpsc::Receiver<Sent>,
    expired: Pin<Box<tokio::time::Sleep>>,
    bounds: Bounds,
    rows: u64,
    done: bool,
    _task: Task,
}

/// `None` is the regular end: a channel that closes without it means the task broke.
type Sent = Result<Option<RecordBatch>, SqlError>;

/// A task that ends with its owner.
struct Task {
    handle: JoinHandle<()>,
    stop: Arc<Stop>,
}

impl Drop for Task {
    fn drop(&mut self) {
        self.stop.drop_query();
        self.handle.abort();
    }
}

impl QueryStream {
    /// Runs `plan` and then its rows on `runtime`; resolves when planning is done.
    pub(crate) async fn start(
        runtime: &Handle,
        bounds: Bounds,
        place: OwnedSemaphorePermit,
        stop: Arc<Stop>,
        plan: impl Future<Output = Result<SendableRecordBatchStream, SqlError>> + Send + 'static,
    ) -> Result<QueryStream, SqlError> {
        let (planned, schema) = oneshot::channel();
        let (sender, batches) = mpsc::channel(BATCHES_AHEAD);
        let handle = runtime.spawn(async move {
            let _place = place;
            let rows = match timeout_at(bounds.deadline, plan).await {
                Ok(Ok(rows)) => rows,
                Ok(Err(error)) => {
                    let _ = planned.send(Err(error));
                    return;
                }
                Err(_) => {
                    let _ = planned.send(Err(bounds.timeout()));
                    return;
                }
            };
            if planned.send(Ok(rows.schema())).is_ok()
                && timeout_at(bounds.deadline, drive(rows, &sender))
                    .await
                    .is_err()
            {
                let _ = sender.try_send(Err(bounds.timeout()));
            }
        });
        let task = Task { handle, stop };
        // A plan that never yields is given up here, so the caller is not held.
        let schema = match timeout_at(bounds.deadline, schema).await {
            Ok(Ok(schema)) => schema?,
            Ok(Err(_)) => {
                let message = "the query engine failed while planning: this is a bug".to_string();
                return Err(SqlError::Failed { message });
            }
            Err(_) => return Err(bounds.timeout()),
        };
        let expired = Box::pin(tokio::time::sleep_until(bounds.deadline));
        Ok(QueryStream {
            schema,
            batches,
            expired,
            bounds,
            rows: 0,
            done: false,
            _task: task,
        })
    }

    /// Columns of the rows.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Rows read so far.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// All rows that are left.
    ///
    /// # Errors
    /// The first error of the stream.
    pub async fn collect_all(mut self) -> Result<Vec<RecordBatch>, SqlError> {
        let mut all = Vec::new();
        while let Some(batch) = self.next().await {
            all.push(batch?);
        }
        Ok(all)
    }

    /// Counts a batch; the part of it within the bound, and whether the bound is passed.
    fn counted(&mut self, batch: RecordBatch) -> (RecordBatch, bool) {
        let left = self.bounds.rows_max - self.rows;
        let rows = batch.num_rows() as u64;
        self.rows += rows.min(left);
        match rows > left {
            true => (batch.slice(0, left as usize), true),
            false => (batch, false),
        }
    }
}

/// Moves rows to the reader until they end, fail, or nobody reads.
async fn drive(mut rows: SendableRecordBatchStream, sender: &mpsc::Sender<Sent>) {
    while let Some(batch) = rows.next().await {
        let batch = batch.map(Some).map_err(SqlError::executing);
        let last = batch.is_err();
        if sender.send(batch).await.is_err() || last {
            return;
        }
    }
    let _ = sender.send(Ok(None)).await;
}

impl Stream for QueryStream {
    type Item = Result<RecordBatch, SqlError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        loop {
            if this.done {
                return Poll::Ready(None);
            }
            match this.batches.poll_recv(cx) {
                Poll::Ready(Some(Ok(Some(batch)))) if batch.num_rows() == 0 => {}
                Poll::Ready(Some(Ok(Some(batch)))) => {
                    let (batch, beyond) = this.counted(batch);
                    if !beyond {
                        return Poll::Ready(Some(Ok(batch)));
                    }
                    if batch.num_rows() > 0 {
                        // The error follows when the reader comes back for more.
                        this.batches = failed(SqlError::TooManyRows {
                            rows_max: this.bounds.rows_max,
                        });
                        return Poll::Ready(Some(Ok(batch)));
                    }
                    this.done = true;
                    let rows_max = this.bounds.rows_max;
                    return Poll::Ready(Some(Err(SqlError::TooManyRows { rows_max })));
                }
                Poll::Ready(Some(Err(error))) => {
                    this.done = true;
                    if Instant::now() >= this.bounds.deadline {
                        // Whatever broke, it broke because time was up.
                        return Poll::Ready(Some(Err(this.bounds.timeout())));
                    }
                    return Poll::Ready(Some(Err(error)));
                }
                Poll::Ready(Some(Ok(None))) => {
                    this.done = true;
                    return Poll::Ready(None);
                }
                Poll::Ready(None) => {
                    this.done = true;
                    let message = "the query engine stopped half way: this is a bug".to_string();
                    return Poll::Ready(Some(Err(SqlError::Failed { message })));
                }
                Poll::Pending => {
                    // The task ends itself in time, unless it computes without yielding.
                    std::task::ready!(this.expired.as_mut().poll(cx));
                    this.done = true;
                    return Poll::Ready(Some(Err(this.bounds.timeout())));
                }
            }
        }
    }
}

/// A channel with nothing but an error in it.
fn failed(error: SqlError) -> mpsc::Receiver<Sent> {
    let (sender, receiver) = mpsc::channel(1);
    let _ = sender.try_send(Err(error));
    receiver
}
