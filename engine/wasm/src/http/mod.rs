//! What modules say to other services, and what they hear.
//!
//! - [`grant`] what a node allows; [`request`] what is a request, and where redirects lead
//! - [`address`] which addresses may be reached; [`rate`] how many requests a second
//!
//! Called by: `link::http` (from a guest's call), pipelines (grants), the server, whose client makes the
//! requests: it is handed in as an [`Egress`].
//! Invariants: nothing here touches the network; what is decided is a function of its arguments; a guest's
//! call waits no longer than its limits, and not at all once its lane is told to stop.

pub mod address;
pub mod grant;
pub mod rate;
pub mod request;

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::error::over;
use crate::limits::{Limits, OF_REQUESTS};
use grant::{Grant, Rule};
use rate::Rate;

/// What a request and a header take beside their text.
const REQUEST_BYTES: usize = size_of::<Request>();
const HEADER_BYTES: usize = size_of::<(String, String)>();

/// A request as the module made it: nothing of it is checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    pub method: String,
    pub url: String,
    pub headers: Vec<(String, String)>,
    pub body: Option<Vec<u8>>,
    pub timeout_ms: Option<u32>,
}

impl Request {
    /// About what the host holds of it.
    pub(crate) fn bytes(&self) -> usize {
        let header = |(name, value): &(String, String)| name.len() + value.len() + HEADER_BYTES;
        let headers: usize = self.headers.iter().map(header).sum();
        let body = self.body.as_ref().map_or(0, Vec::len);
        REQUEST_BYTES + self.method.len() + self.url.len() + headers + body
    }
}

/// An answer, of any status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    pub status: u16,
    /// Of the last request, where redirects were followed.
    pub url: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trouble {
    Invalid,
    Denied,
    Rate,
    Resolve,
    Connect,
    Tls,
    Timeout,
    TooLarge,
    Redirect,
    Protocol,
    Other,
}

/// No answer, and why. The message is for the module's author and holds no secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failed {
    pub code: Trouble,
    pub message: String,
}

impl Failed {
    pub fn new(code: Trouble, message: impl fmt::Display) -> Failed {
        let message = message.to_string();
        Failed { code, message }
    }
}

pub type Answer = Result<Response, Failed>;

/// What a node allows its module, and the turns that its lanes share.
#[derive(Debug)]
pub struct Access {
    pub grant: Grant,
    rate: Mutex<Rate>,
    began: Instant,
}

impl Access {
    pub fn new(grant: Grant, per_s: u64) -> Access {
        Access {
            grant,
            rate: Mutex::new(Rate::new(per_s)),
            began: Instant::now(),
        }
    }

    /// How long the next request waits; none if that is longer than `most`.
    pub fn turn(&self, most: Duration) -> Option<Duration> {
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        // two numbers: whole even if a writer panicked
        let mut rate = self.rate.lock().unwrap_or_else(PoisonError::into_inner);
        let wait = rate.turn(nanos(self.began.elapsed()), nanos(most))?;
        Some(Duration::from_nanos(wait))
    }
}

/// Tells the guest of a lane to wait no longer. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    pub fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// The lane was told to stop before all answers were there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stopped;

/// The requests of one call, and what they may use.
#[derive(Debug)]
pub struct Sending<'a> {
    pub requests: &'a [Request],
    pub access: &'a Access,
    pub limits: &'a Limits,
    /// For all of them.
    pub time: Duration,
    /// Bytes of all answers together.
    pub bytes_max: usize,
    pub stop: &'a Stop,
}

/// Who makes the requests.
pub trait Egress: fmt::Debug + Send + Sync {
    /// Why no request could be made by a rule, whatever it is.
    fn refuses(&self, rule: &Rule) -> Option<String>;

    /// Makes the requests, as far as they are granted; blocks until all are answered. The answers
    /// stand in their order.
    ///
    /// # Errors
    /// The lane was told to stop.
    fn send(&self, sending: &Sending<'_>) -> Result<Vec<Answer>, Stopped>;
}

/// What one instance may still ask in the call that runs.
#[derive(Debug)]
pub(crate) struct Http {
    egress: Option<Arc<dyn Egress>>,
    access: Option<Arc<Access>>,
    stop: Stop,
    limits: Limits,
    requests: usize,
    time: Duration,
}

impl Http {
    pub(crate) fn new(
        egress: Option<Arc<dyn Egress>>,
        access: Option<Arc<Access>>,
        stop: Stop,
        limits: &Limits,
    ) -> Http {
        Http {
            egress,
            access,
            stop,
            limits: limits.clone(),
            requests: 0,
            time: Duration::ZERO,
        }
    }

    /// A call begins.
    pub(crate) fn begin(&mut self) {
        self.requests = self.limits.http_requests;
        self.time = Duration::from_millis(self.limits.http_time_ms);
    }

    /// So many requests more.
    pub(crate) fn take(&mut self, requests: usize) -> wasmtime::Result<()> {
        let Some(left) = self.requests.checked_sub(requests) else {
            return over(OF_REQUESTS, self.limits.http_requests);
        };
        self.requests = left;
        Ok(())
    }

    /// Who makes the requests, and what they may be; or why none is made, whatever it is.
    pub(crate) fn granted(&self) -> Result<(&dyn Egress, &Access), Failed> {
        match (&self.egress, &self.access) {
            (Some(egress), Some(access)) => Ok((&**egress, access)),
            _ => Err(Failed::new(Trouble::Denied, "the node grants no requests")),
        }
    }

    pub(crate) fn send(&mut self, requests: &[Request]) -> Result<Vec<Answer>, Stopped> {
        let (egress, access) = match self.granted() {
            Ok(granted) => granted,
            Err(denied) => return Ok(requests.iter().map(|_| Err(denied.clone())).collect()),
        };
        let since = Instant::now();
        let answers = egress.send(&Sending {
            requests,
            access,
            limits: &self.limits,
            time: self.time,
            bytes_max: self.limits.memory_bytes / 2,
            stop: &self.stop,
        });
        self.time = self.time.saturating_sub(since.elapsed());
        answers
    }
}
