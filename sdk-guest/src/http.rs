//! Requests to other services: the host makes them, where the node grants it.
//!
//! ```
//! # extern crate rustmq_sdk as rustmq;
//! use rustmq::{Reject, http};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Deserialize)]
//! struct Order { sku: String }
//!
//! #[derive(Deserialize)]
//! struct Product { name: String }
//!
//! #[derive(Serialize)]
//! struct Named { sku: String, name: String }
//!
//! #[rustmq::map]
//! fn name(order: Order) -> Result<Named, Reject> {
//!     let url = format!("https://products.example/v1/{}", order.sku);
//!     let product: Product = http::get(url).fetch()?.json()?;
//!     Ok(Named { sku: order.sku, name: product.name })
//! }
//!
//! rustmq::testing::http(|request| match request.url.as_str() {
//!     "https://products.example/v1/7" => Ok(http::Response::new(200, r#"{"name":"tea"}"#)),
//!     _ => Ok(http::Response::new(404, "")),
//! });
//! let out = rustmq::testing::run::<name>([r#"{"sku":"7"}"#, r#"{"sku":"8"}"#]);
//! assert_eq!(out.texts("out"), [r#"{"sku":"7","name":"tea"}"#]);
//! assert_eq!(out.rejects[0].code, "http-404");
//! ```
//!
//! One request after the other is slow: [`send`] makes those of a batch together, from a
//! [`Module`](crate::Module)'s `process`. A batch may be worked again, and makes its requests again.
//!
//! Called by: guests. Invariants: a module that does not use it imports nothing for it; the headers that the
//! grant puts in are not seen here.

use std::borrow::Cow;
use std::fmt::{self, Display};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::record::Reject;
use crate::sys;

/// A request to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    pub method: Cow<'static, str>,
    /// Absolute.
    pub url: String,
    pub headers: Vec<(String, String)>,
    pub body: Option<Vec<u8>>,
    /// Where the limits would give it longer.
    pub timeout: Option<Duration>,
}

/// An answer, of any status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    pub status: u16,
    /// Where it came from, if redirects were followed.
    pub url: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Trouble {
    /// The request is none: its method, URL, a header.
    Invalid,
    /// The node does not grant it, or where it would lead.
    Denied,
    /// Its turn would not have come in time.
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

/// No answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    pub trouble: Trouble,
    pub message: String,
}

/// How long rows wait that are to be tried again; the node's policy has the last word.
const RETRY: Duration = Duration::from_secs(1);

pub fn get(url: impl Into<String>) -> Request {
    Request::new("GET", url)
}

pub fn post(url: impl Into<String>) -> Request {
    Request::new("POST", url)
}

/// Makes many requests, several at a time; the answers stand in their order.
pub fn send(requests: &[Request]) -> Vec<Result<Response, Error>> {
    sys::http::send(requests)
}

impl Request {
    pub fn new(method: impl Into<Cow<'static, str>>, url: impl Into<String>) -> Request {
        Request {
            method: method.into(),
            url: url.into(),
            headers: Vec::new(),
            body: None,
            timeout: None,
        }
    }

    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Request {
        self.headers.push((name.into(), value.into()));
        self
    }

    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Request {
        self.body = Some(body.into());
        self
    }

    /// A body of JSON, with its content type.
    pub fn json(self, value: &impl Serialize) -> Result<Request, Reject> {
        let body = serde_json::to_vec(value).map_err(|e| Reject::new("encode", e))?;
        Ok(self.header("content-type", "application/json").body(body))
    }

    pub fn timeout(mut self, timeout: Duration) -> Request {
        self.timeout = Some(timeout);
        self
    }

    /// The answer, of any status.
    pub fn send(self) -> Result<Response, Error> {
        let answer = send(&[self]).pop();
        answer.unwrap_or_else(|| Err(Error::new(Trouble::Other, "the host did not answer")))
    }

    /// The answer if its status is 2xx, else what becomes of the row: see [`Response::ok`] and
    /// [`Error::reject`].
    pub fn fetch(self) -> Result<Response, Reject> {
        self.send().map_err(Error::reject)?.ok()
    }
}

impl Response {
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Response {
        Response {
            status,
            url: String::new(),
            headers: Vec::new(),
            body: body.into(),
        }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        let found = headers.find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// The body as text; what is not UTF-8 is replaced.
    pub fn text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.body)
    }

    /// The body read from JSON.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Reject> {
        let read = serde_json::from_slice(&self.body);
        read.map_err(|e| Reject::new("http-json", format!("the answer is not as expected: {e}")))
    }

    /// Itself if its status is 2xx. 429 and 5xx are to be tried again, after the time that the answer says;
    /// all else rejects the row with the code `http-STATUS`.
    pub fn ok(self) -> Result<Response, Reject> {
        if (200..300).contains(&self.status) {
            return Ok(self);
        }
        let code = format!("http-{}", self.status);
        let message = format!("the answer has status {}", self.status);
        if self.status != 429 && self.status < 500 {
            return Err(Reject::new(code, message));
        }
        let after = self.header("retry-after").and_then(|s| s.parse().ok());
        let after = after.map_or(RETRY, Duration::from_secs);
        Err(Reject::retry(after, code, message))
    }
}

impl Trouble {
    /// As the contract names it.
    pub fn name(self) -> &'static str {
        match self {
            Trouble::Invalid => "invalid",
            Trouble::Denied => "denied",
            Trouble::Rate => "rate",
            Trouble::Resolve => "resolve",
            Trouble::Connect => "connect",
            Trouble::Tls => "tls",
            Trouble::Timeout => "timeout",
            Trouble::TooLarge => "too-large",
            Trouble::Redirect => "redirect",
            Trouble::Protocol => "protocol",
            Trouble::Other => "other",
        }
    }

    /// Whether the same request may be answered later.
    pub fn is_passing(self) -> bool {
        use Trouble::{Connect, Other, Protocol, Rate, Resolve, Timeout};
        matches!(self, Rate | Resolve | Connect | Timeout | Protocol | Other)
    }
}

impl Error {
    pub fn new(trouble: Trouble, message: impl Display) -> Error {
        Error {
            trouble,
            message: message.to_string(),
        }
    }

    /// What becomes of the row: it is tried again where the trouble may pass, else rejected, with the code
    /// `http-TROUBLE`.
    pub fn reject(self) -> Reject {
        let code = format!("http-{}", self.trouble.name());
        match self.trouble.is_passing() {
            true => Reject::retry(RETRY, code, self.message),
            false => Reject::new(code, self.message),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.trouble.name(), self.message)
    }
}

/// With `?`. It is no `std::error::Error`: as one it would become a rejection with the code `error`, and rows
/// whose trouble passes would be given up.
impl From<Error> for Reject {
    fn from(error: Error) -> Reject {
        error.reject()
    }
}
