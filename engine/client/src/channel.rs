//! Many requests under way on one ordered stream, answered in order.
//!
//! What: `Channel` queues requests; a writer task sends them as they were queued, a reader task
//! hands each answer to its asker. Called by: `client`, the producer's lanes, the consumer's
//! fetch loops, benches. Invariants: order of `send` calls = order on the stream; when the
//! stream breaks, everyone who waits is told, nobody waits for ever; both queues are bounded, so
//! an asker waits when the server does not read.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use protocol::frame::Flags;
use protocol::{Frame, Request, Response};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::error::ClientError;
use crate::io::{FrameReader, FrameWriter};
use crate::link::Link;

/// Requests queued before they are written, and written before they are answered.
const QUEUE_MAX: usize = 128;
/// Frames of a long answer that wait for the asker.
const REPLIES_MAX: usize = 8;

/// One ordered stream. When it is dropped, what was sent is still answered.
pub struct Channel {
    requests: mpsc::Sender<(Request, Answer)>,
    dead: CancellationToken,
}

enum Answer {
    One(oneshot::Sender<Result<Response, ClientError>>),
    Many(mpsc::Sender<Result<Response, ClientError>>),
}

impl Answer {
    async fn fail(self, error: ClientError) {
        // The asker may have gone: then nobody needs to know.
        match self {
            Answer::One(asker) => drop(asker.send(Err(error))),
            Answer::Many(asker) => drop(asker.send(Err(error)).await),
        }
    }
}

impl Channel {
    /// `link` lives as long as the stream does.
    pub(crate) fn new(reader: FrameReader, writer: FrameWriter, link: Arc<Link>) -> Channel {
        let (requests, queue) = mpsc::channel(QUEUE_MAX);
        let (sent, awaited) = mpsc::channel(QUEUE_MAX);
        let dead = CancellationToken::new();
        tokio::spawn(write(writer, queue, sent, dead.clone()));
        let reading = read(reader, awaited, dead.clone());
        tokio::spawn(async move {
            let _link = link;
            reading.await;
        });
        Channel { requests, dead }
    }

    /// Whether the stream can still be used.
    pub fn is_alive(&self) -> bool {
        !self.dead.is_cancelled()
    }

    /// Queues a request. What it gives is the answer to come.
    pub async fn send(&self, request: impl Into<Request>) -> Result<Pending, ClientError> {
        let (asker, answer) = oneshot::channel();
        self.queue(request.into(), Answer::One(asker)).await?;
        Ok(Pending { answer })
    }

    /// Queues a request that is answered in many frames.
    pub async fn send_many(&self, request: impl Into<Request>) -> Result<Replies, ClientError> {
        let (asker, replies) = mpsc::channel(REPLIES_MAX);
        self.queue(request.into(), Answer::Many(asker)).await?;
        Ok(Replies {
            replies,
            ended: false,
        })
    }

    async fn queue(&self, request: Request, answer: Answer) -> Result<(), ClientError> {
        self.requests
            .send((request, answer))
            .await
            .map_err(|_| disconnected())
    }
}

fn disconnected() -> ClientError {
    ClientError::Disconnected("the stream is closed".to_owned())
}

/// An answer to come.
pub struct Pending {
    answer: oneshot::Receiver<Result<Response, ClientError>>,
}

impl Future for Pending {
    type Output = Result<Response, ClientError>;

    /// An error of the server is an `Err`.
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.answer).poll(cx).map(|got| match got {
            Ok(Ok(Response::Error(error))) => Err(ClientError::Refused(error)),
            Ok(answer) => answer,
            Err(_) => Err(disconnected()),
        })
    }
}

/// The frames of a long answer.
pub struct Replies {
    replies: mpsc::Receiver<Result<Response, ClientError>>,
    ended: bool,
}

impl Replies {
    /// The next part; `None` when the answer is complete. A broken stream is an error.
    pub async fn next(&mut self) -> Result<Option<Response>, ClientError> {
        if self.ended {
            return Ok(None);
        }
        let got = self.replies.recv().await;
        self.ended = !matches!(got, Some(Ok(ref response)) if !is_error(response));
        match got {
            None => Ok(None),
            Some(Ok(Response::Error(error))) => Err(ClientError::Refused(error)),
            Some(answer) => answer.map(Some),
        }
    }
}

fn is_error(response: &Response) -> bool {
    matches!(response, Response::Error(_))
}

struct Awaited {
    api: u16,
    correlation: u64,
    answer: Answer,
}

async fn write(
    mut writer: FrameWriter,
    mut queue: mpsc::Receiver<(Request, Answer)>,
    sent: mpsc::Sender<Awaited>,
    dead: CancellationToken,
) {
    let mut correlation = 0;
    loop {
        let next = tokio::select! {
            next = queue.recv() => next,
            () = dead.cancelled() => break,
        };
        let Some((request, answer)) = next else { break };
        correlation += 1;
        let frame = match request.encode(correlation) {
            Ok(frame) => frame,
            Err(error) => {
                answer
                    .fail(ClientError::Unsendable(error.to_string()))
                    .await;
                continue;
            }
        };
        // Told to the reader first: the answer may come before `write` returns.
        let awaited = Awaited {
            api: request.api() as u16,
            correlation,
            answer,
        };
        if sent.send(awaited).await.is_err() {
            break;
        }
        let written = tokio::select! {
            written = send(&mut writer, frame, queue.is_empty()) => written,
            () = dead.cancelled() => break,
        };
        if written.is_err() {
            dead.cancel();
        }
    }
    queue.close();
    while let Some((_, answer)) = queue.recv().await {
        answer.fail(disconnected()).await;
    }
    drop(sent);
    if !dead.is_cancelled() {
        // The reader ends the stream when all answers are there; this only says "no more".
        let _ = writer.finish().await;
    }
}

async fn send(
    writer: &mut FrameWriter,
    frame: protocol::Encoded,
    flush: bool,
) -> std::io::Result<()> {
    writer.write(frame).await?;
    if flush { writer.flush().await } else { Ok(()) }
}

async fn read(mut reader: FrameReader, mut sent: mpsc::Receiver<Awaited>, dead: CancellationToken) {
    let _dead: DropGuard = dead.clone().drop_guard();
    let mut awaited = VecDeque::new();
    let mut more = true;
    let reason = loop {
        if !more && awaited.is_empty() {
            return;
        }
        tokio::select! {
            biased;
            next = sent.recv(), if more => match next {
                Some(next) => awaited.push_back(next),
                None => more = false,
            },
            frame = reader.next() => {
                // A request is told of before it is written, so its answer finds it here.
                while let Ok(next) = sent.try_recv() {
                    awaited.push_back(next);
                }
                match frame {
                    Ok(Some(frame)) => match deliver(frame, &mut awaited).await {
                        Ok(()) => {}
                        Err(error) => break error,
                    },
                    Ok(None) => break ClientError::Disconnected("the server ended it".to_owned()),
                    Err(error) => break ClientError::Disconnected(error.to_string()),
                }
            },
            () = dead.cancelled() => break disconnected(),
        }
    };
    dead.cancel();
    sent.close();
    while let Some(next) = sent.recv().await {
        awaited.push_back(next);
    }
    for awaited in awaited {
        awaited.answer.fail(reason.clone()).await;
    }
}

/// Hands a frame to whom it is for. An error means that the stream makes no sense any more.
async fn deliver(frame: Frame, awaited: &mut VecDeque<Awaited>) -> Result<(), ClientError> {
    let unexpected = |reason: &str| ClientError::Unexpected(reason.to_owned());
    let Some(front) = awaited.front() else {
        return Err(unexpected("an answer came that nobody waits for"));
    };
    let ends = frame.flags.has(Flags::END);
    let response = match ends {
        true => None,
        false => Some(Response::decode(&frame).map_err(|error| unexpected(&error.to_string()))?),
    };
    if frame.correlation != front.correlation || frame.api != front.api {
        return Err(match response {
            // Said about the stream, not about a request.
            Some(Response::Error(error)) => ClientError::Refused(error),
            _ => unexpected("answers came in another order than the requests"),
        });
    }
    let keeps = frame.flags.has(Flags::MORE);
    if keeps && let (Answer::Many(asker), Some(response)) = (&front.answer, response.as_ref()) {
        // A long answer has its stream to itself: without an asker the stream is done.
        let left = |_| ClientError::Disconnected("the asker has left".to_owned());
        return asker.send(Ok(response.clone())).await.map_err(left);
    }
    let front = awaited.pop_front().expect("looked at above");
    match (front.answer, response) {
        (Answer::One(asker), Some(response)) => drop(asker.send(Ok(response))),
        (Answer::Many(asker), Some(response)) => drop(asker.send(Ok(response)).await),
        (Answer::Many(_), None) => {}
        (answer @ Answer::One(_), None) => {
            answer
                .fail(unexpected("an answer ended before it began"))
                .await;
        }
    }
    Ok(())
}
