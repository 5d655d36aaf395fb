//! One ordered stream: frames in, requests to the service, replies out in the same order.
//!
//! What: `Session::run`, one task per stream. Called by: `quic`, `tcp`.
//! Invariants: the service is called in the order of the frames and its futures run together, so
//! that many appends share one sync; replies leave in the order of the requests; when too much
//! is in flight (count or bytes) the stream is not read, which is what slows the sender down.
//! Refuses: anything before a greeting, frames that cannot be (the stream ends with an error that
//! names offset and length; other streams go on), bodies that do not decode (the stream goes on).

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use client::io::{FrameReader, FrameWriter, ReadError};
use futures::StreamExt;
use futures::stream::FuturesOrdered;
use model::port::BoxFuture;
use protocol::{Encoded, Frame, Request, Response, WireError, code, limits};
use tokio::time::{Instant, sleep_until};

use super::{DoorConfig, Hall, Peer, Reply};

pub(super) struct Session {
    hall: Arc<Hall>,
    peer: Peer,
    reader: FrameReader,
    writer: FrameWriter,
    greeted: Arc<AtomicBool>,
    /// What the greeting is answered with when there is no room for this peer.
    refusal: Option<WireError>,
    /// Requests being worked on, oldest first.
    in_flight: FuturesOrdered<InFlight>,
    in_flight_bytes: usize,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Reading,
    /// Nothing is read any more; what is in flight is still answered.
    Ending,
}

/// A request being worked on.
struct InFlight {
    api: u16,
    correlation: u64,
    bytes: usize,
    work: Work,
}

enum Work {
    Running(BoxFuture<'static, Reply>),
    Done(Option<Reply>),
}

struct Done {
    api: u16,
    correlation: u64,
    bytes: usize,
    reply: Reply,
}

impl Future for InFlight {
    type Output = Done;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Done> {
        let reply = match &mut self.work {
            Work::Running(work) => match work.as_mut().poll(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(reply) => reply,
            },
            Work::Done(reply) => reply.take().expect("a finished future is not polled again"),
        };
        let InFlight {
            api,
            correlation,
            bytes,
            ..
        } = *self;
        Poll::Ready(Done {
            api,
            correlation,
            bytes,
            reply,
        })
    }
}

/// Since when a stream is quiet, and when to look at it next.
struct Clock {
    tick: Instant,
    quiet: Instant,
    /// How long it may be.
    idle: Option<Duration>,
}

impl Clock {
    fn moved(&mut self, config: &DoorConfig) {
        self.quiet = Instant::now();
        self.tick = self.quiet + config.frame;
    }
}

/// Why a session ends before its peer ends it.
enum End {
    /// The peer is gone or does not take our bytes.
    Lost,
}

impl Session {
    pub(super) fn new(
        hall: Arc<Hall>,
        peer: Peer,
        mut reader: FrameReader,
        writer: FrameWriter,
        greeted: Arc<AtomicBool>,
    ) -> Session {
        // A further stream of a connection that is known already.
        if greeted.load(Ordering::Relaxed) {
            reader.limit(hall.config.frame_bytes_max);
        }
        let in_flight = FuturesOrdered::new();
        let state = State::Reading;
        Session {
            hall,
            peer,
            reader,
            writer,
            greeted,
            refusal: None,
            in_flight,
            in_flight_bytes: 0,
            state,
        }
    }

    /// The same for a peer that is to hear no more than why it is not let in.
    pub(super) fn refusing(self, error: WireError) -> Session {
        let refusal = Some(error);
        Session { refusal, ..self }
    }

    /// Serves the stream to its end. With `idle`, a silent peer is let go after that time.
    pub(super) async fn run(mut self, idle: Option<Duration>) {
        let (stop, kill) = (self.hall.stop.clone(), self.hall.kill.clone());
        let served = tokio::select! {
            served = self.serve(idle) => served,
            () = kill.cancelled() => Err(End::Lost),
        };
        if served.is_err() {
            return;
        }
        let patience = async {
            stop.cancelled().await;
            tokio::time::sleep(Duration::from_millis(limits::GOODBYE_MS)).await;
        };
        tokio::select! {
            _ = self.writer.finish() => {}
            () = patience => {}
            () = kill.cancelled() => {}
        }
    }

    async fn serve(&mut self, idle: Option<Duration>) -> Result<(), End> {
        let stop = self.hall.stop.clone();
        let first = self.hall.config.first_frame;
        let mut clock = Clock {
            tick: Instant::now() + first,
            quiet: Instant::now(),
            idle,
        };
        loop {
            if self.state == State::Ending && self.in_flight.is_empty() {
                return Ok(());
            }
            let reads = self.state == State::Reading && self.has_room();
            tokio::select! {
                biased;
                Some(done) = self.in_flight.next(), if !self.in_flight.is_empty() => {
                    self.answer_all(done).await?;
                    clock.moved(&self.hall.config);
                }
                frame = self.reader.next(), if reads => {
                    self.take(frame)?;
                    clock.moved(&self.hall.config);
                }
                () = stop.cancelled(), if self.state == State::Reading => {
                    self.state = State::Ending;
                }
                () = sleep_until(clock.tick), if reads && self.in_flight.is_empty() => {
                    self.tick(&mut clock);
                }
            }
        }
    }

    /// Nothing complete has come for a while.
    fn tick(&mut self, clock: &mut Clock) {
        let greeted = self.greeted.load(Ordering::Relaxed);
        if self.reader.is_partial() || !greeted {
            let what = if greeted {
                "the rest of a frame"
            } else {
                "a greeting"
            };
            let error = WireError::retry(code::TIMEOUT, format!("{what} did not come in time"));
            self.state = State::Ending;
            return self.push(
                0,
                0,
                0,
                Work::Done(Some(Reply::One(Response::Error(error)))),
            );
        }
        if clock.idle.is_some_and(|idle| clock.quiet.elapsed() >= idle) {
            self.state = State::Ending;
        }
        clock.tick = Instant::now() + self.hall.config.frame;
    }

    fn has_room(&self) -> bool {
        let config = &self.hall.config;
        self.in_flight.len() < config.in_flight_max
            && self.in_flight_bytes < config.in_flight_bytes_max
    }

    /// What came from the reader: a frame, the end, or nonsense.
    fn take(&mut self, frame: Result<Option<Frame>, ReadError>) -> Result<(), End> {
        match frame {
            Ok(Some(frame)) => {
                self.begin(frame);
                Ok(())
            }
            Ok(None) => {
                self.state = State::Ending;
                Ok(())
            }
            Err(ReadError::Io(error)) => {
                tracing::debug!(peer = %self.peer.addr, %error, "stream broke");
                Err(End::Lost)
            }
            Err(ReadError::Frame(error)) => {
                tracing::debug!(peer = %self.peer.addr, %error, "bad frame");
                self.state = State::Ending;
                // Behind the answers to what came before it.
                let code = match error {
                    protocol::FrameError::Version { .. } => code::UNSUPPORTED_VERSION,
                    _ => code::BAD_FRAME,
                };
                let error = Response::Error(WireError::fix(code, error.to_string()));
                self.push(0, 0, 0, Work::Done(Some(Reply::One(error))));
                Ok(())
            }
        }
    }

    /// Starts the work on one frame.
    fn begin(&mut self, frame: Frame) {
        let work = match self.request(&frame) {
            Ok(request) => self.call(request),
            Err(error) => Work::Done(Some(Reply::One(Response::Error(error)))),
        };
        self.push(frame.api, frame.correlation, frame.size(), work);
    }

    fn push(&mut self, api: u16, correlation: u64, bytes: usize, work: Work) {
        self.in_flight_bytes += bytes;
        self.in_flight.push_back(InFlight {
            api,
            correlation,
            bytes,
            work,
        });
    }

    fn request(&mut self, frame: &Frame) -> Result<Request, WireError> {
        if frame.flags != protocol::frame::Flags::REQUEST {
            self.state = State::Ending;
            return Err(WireError::fix(
                code::BAD_FRAME,
                "a frame came that is not a request",
            ));
        }
        if frame.api == protocol::Api::Hello as u16 {
            return Ok(Request::decode(frame)?);
        }
        if !self.greeted.load(Ordering::Relaxed) {
            self.state = State::Ending;
            let message = "the first frame of a connection must be Hello";
            return Err(WireError::fix(code::HELLO_FIRST, message));
        }
        Ok(Request::decode(frame)?)
    }

    fn call(&mut self, request: Request) -> Work {
        let request = match request {
            Request::Hello(hello) => {
                let answer = match self.refusal.take() {
                    Some(error) => Err(error),
                    None => hello.answer(&self.hall.config.server),
                };
                match answer {
                    Ok(_) => {
                        self.greeted.store(true, Ordering::Relaxed);
                        self.reader.limit(self.hall.config.frame_bytes_max);
                    }
                    Err(_) => self.state = State::Ending,
                }
                return Work::Done(Some(answer.into()));
            }
            request => request,
        };
        let request = bounded(request);
        // What only waits for records must not hold up a stop.
        let waits = matches!(request, Request::Fetch(_) | Request::FetchMany(_));
        let mut work = self.hall.service.call(&self.peer, request);
        if waits {
            let stop = self.hall.stop.clone();
            work = Box::pin(async move {
                tokio::select! {
                    biased;
                    reply = work => reply,
                    () = stop.cancelled() => Reply::One(Response::Error(stopping())),
                }
            });
        }
        // Polled once, here, so that admission happens in the order of the frames.
        let mut cx = Context::from_waker(std::task::Waker::noop());
        match work.as_mut().poll(&mut cx) {
            Poll::Ready(reply) => Work::Done(Some(reply)),
            Poll::Pending => Work::Running(work),
        }
    }

    /// Writes a reply and those that are ready behind it, then sends them off together.
    async fn answer_all(&mut self, first: Done) -> Result<(), End> {
        let mut next = Some(first);
        while let Some(done) = next {
            self.in_flight_bytes -= done.bytes;
            self.answer(done).await?;
            next = futures::FutureExt::now_or_never(self.in_flight.next()).flatten();
        }
        self.writer.flush().await.map_err(|_| End::Lost)
    }

    async fn answer(&mut self, done: Done) -> Result<(), End> {
        let Done {
            api,
            correlation,
            reply,
            ..
        } = done;
        let mut replies = match reply {
            Reply::One(response) => return self.write(api, correlation, response, false).await,
            Reply::Many(replies) => replies,
        };
        while let Some(response) = replies.next().await {
            let failed = matches!(response, Response::Error(_));
            self.write(api, correlation, response, true).await?;
            self.writer.flush().await.map_err(|_| End::Lost)?;
            if failed {
                return Ok(());
            }
        }
        let end = Encoded::end(api, correlation);
        self.writer.write(end).await.map_err(|_| End::Lost)
    }

    async fn write(
        &mut self,
        api: u16,
        correlation: u64,
        mut response: Response,
        more: bool,
    ) -> Result<(), End> {
        match &mut response {
            Response::Fetched(fetched) => fetched.shorten(),
            Response::FetchedMany(fetched) => fetched.shorten(),
            _ => {}
        }
        let frame = response
            .encode(api, correlation, more)
            .unwrap_or_else(|error| {
                let refusal = Response::Error(WireError::bug(format!("the reply: {error}")));
                refusal
                    .encode(api, correlation, false)
                    .expect("an error fits into a frame")
            });
        self.writer.write(frame).await.map_err(|_| End::Lost)
    }
}

/// What a peer may ask for in one go.
fn bounded(mut request: Request) -> Request {
    let (wait_ms, bytes_max) = match &mut request {
        Request::Fetch(fetch) => (&mut fetch.wait_ms, &mut fetch.bytes_max),
        Request::FetchMany(fetch) => (&mut fetch.wait_ms, &mut fetch.bytes_max),
        _ => return request,
    };
    *wait_ms = (*wait_ms).min(limits::FETCH_WAIT_MS_MAX);
    *bytes_max = (*bytes_max).min(limits::FETCH_BYTES_MAX);
    request
}

fn stopping() -> WireError {
    WireError::retry(code::STOPPING, "the server is stopping")
}
