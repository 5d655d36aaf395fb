//! What modules say to other services, and what they hear.
//!
//! Called by: `link::http` (from a guest's call), the server, whose client makes the requests.
//! Invariants: nothing here touches the network; what is decided is a function of its arguments.

use std::fmt;

/// A request as the module made it: nothing of it is checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    pub method: String,
    pub url: String,
    pub headers: Vec<(String, String)>,
    pub body: Option<Vec<u8>>,
    pub timeout_ms: Option<u32>,
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
