//! What a function over rows returns: records, rejections, ports.
//!
//! Called by: guests; `value` writes records, `rt` sorts out rejections.
//! Invariants: what a record does not say is inherited from its parent row.

use std::borrow::Cow;
use std::fmt::Display;
use std::time::Duration;

/// Why a module cannot open, or a whole batch cannot be processed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub code: String,
    pub message: String,
}

impl Failure {
    pub fn new(code: impl Into<String>, message: impl Display) -> Failure {
        Failure {
            code: code.into(),
            message: message.to_string(),
        }
    }
}

/// Why a row is refused. The node's policy decides: dead letter, drop or stop.
///
/// Any error turns into one with `?`; its code is then `error`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reject {
    pub(crate) code: Cow<'static, str>,
    pub(crate) message: String,
    pub(crate) retry_after_ms: Option<u32>,
}

impl Reject {
    /// This row will never succeed. `code` is short and stable, `message` is for people.
    pub fn new(code: impl Into<Cow<'static, str>>, message: impl Display) -> Reject {
        Reject {
            code: code.into(),
            message: message.to_string(),
            retry_after_ms: None,
        }
    }

    /// A passing trouble: present this row and those after it again, after a while.
    pub fn retry(
        after: Duration,
        code: impl Into<Cow<'static, str>>,
        message: impl Display,
    ) -> Reject {
        let after_ms = u32::try_from(after.as_millis()).unwrap_or(u32::MAX);
        Reject {
            retry_after_ms: Some(after_ms),
            ..Reject::new(code, message)
        }
    }
}

impl<E: std::error::Error> From<E> for Reject {
    fn from(error: E) -> Reject {
        Reject::new("error", error)
    }
}

/// An output with its own key, event time, headers or port; what is not set is inherited from
/// the row it was made from.
#[derive(Debug, Clone, PartialEq)]
pub struct Record<T> {
    pub(crate) value: T,
    pub(crate) key: Option<Option<Vec<u8>>>,
    pub(crate) event_time: Option<i64>,
    pub(crate) headers: Vec<(String, Vec<u8>)>,
    pub(crate) port: Option<Cow<'static, str>>,
}

impl<T> Record<T> {
    pub fn new(value: T) -> Record<T> {
        Record {
            value,
            key: None,
            event_time: None,
            headers: Vec::new(),
            port: None,
        }
    }

    pub fn key(mut self, key: impl Into<Vec<u8>>) -> Record<T> {
        self.key = Some(Some(key.into()));
        self
    }

    pub fn without_key(mut self) -> Record<T> {
        self.key = Some(None);
        self
    }

    /// Microseconds since the epoch, UTC.
    pub fn event_time(mut self, micros: i64) -> Record<T> {
        self.event_time = Some(micros);
        self
    }

    pub fn header(mut self, name: impl Into<String>, value: impl Into<Vec<u8>>) -> Record<T> {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// The output it goes to, by its name in the pipeline; the first one otherwise.
    pub fn to(mut self, port: impl Into<Cow<'static, str>>) -> Record<T> {
        self.port = Some(port.into());
        self
    }
}

/// A value that is bytes already, not to be written as JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Raw<B>(pub B);

/// A record without a value: in a compacted topic it deletes its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tombstone;

/// What [`macro@crate::route`] may return: the name of an output.
/// `#[derive(rustmq::Port)]` makes one of an enum: `OnTime` is the output `on_time`.
pub trait PortName {
    fn port(&self) -> &str;
}

impl PortName for &str {
    fn port(&self) -> &str {
        self
    }
}

impl PortName for String {
    fn port(&self) -> &str {
        self
    }
}

impl PortName for Cow<'_, str> {
    fn port(&self) -> &str {
        self
    }
}
