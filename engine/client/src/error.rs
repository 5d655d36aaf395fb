//! What a caller of the client is told.
//!
//! What: `ConnectError` (the server was not reached: exit code 3 of the command line) and
//! `ClientError` (everything after). Invariants: each says what to do next.

use std::path::PathBuf;

use protocol::{Advice, WireError};

/// The server was not reached.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ConnectError {
    #[error(
        "no server is running ({path} is not there): start one with `rustmq serve`, \
         or name one with --server ADDR and --ca FILE"
    )]
    NoServer { path: PathBuf },
    #[error(
        "no server is running (stale {path}: process {pid} is gone): \
         start one with `rustmq serve`"
    )]
    Stale { path: PathBuf, pid: u32 },
    #[error("cannot use {path}: {reason}")]
    StateFile { path: PathBuf, reason: String },
    #[error(
        "no certificate is known for {server}: give its certificate with --ca FILE or RUSTMQ_CA \
         (the server keeps it in DATA_DIR/tls/cert.pem)"
    )]
    NoCertificate { server: String },
    #[error("cannot read the certificate {path}: {reason}")]
    CaFile { path: PathBuf, reason: String },
    #[error("`{server}` is not an address: {reason}; write HOST:PORT")]
    Address { server: String, reason: String },
    #[error("cannot reach {server}: {reason}; is the server running there?")]
    Unreachable { server: String, reason: String },
    #[error(
        "the certificate of {server} is not the expected one: {reason}; \
         check --server, or give its certificate with --ca FILE"
    )]
    Certificate { server: String, reason: String },
    #[error("{server} refused the connection: {error}")]
    Refused { server: String, error: WireError },
}

impl ConnectError {
    /// Whether waiting can help.
    pub fn is_passing(&self) -> bool {
        match self {
            ConnectError::Unreachable { .. }
            | ConnectError::NoServer { .. }
            | ConnectError::Stale { .. } => true,
            ConnectError::Refused { error, .. } => error.advice == Advice::Retry,
            _ => false,
        }
    }
}

/// A request did not succeed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ClientError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// Whether the request had an effect is not known.
    #[error("connection to the server was lost: {0}")]
    Disconnected(String),
    #[error("{0}")]
    Refused(#[from] WireError),
    #[error("the server's answer does not fit the request: {0}")]
    Unexpected(String),
    #[error("the request cannot be sent: {0}")]
    Unsendable(String),
}

impl ClientError {
    pub fn advice(&self) -> Advice {
        match self {
            ClientError::Connect(error) if error.is_passing() => Advice::Retry,
            ClientError::Connect(_) => Advice::Fix,
            ClientError::Disconnected(_) => Advice::Retry,
            ClientError::Refused(error) => error.advice,
            ClientError::Unexpected(_) => Advice::Bug,
            ClientError::Unsendable(_) => Advice::Fix,
        }
    }

    /// The code of a refusal, empty otherwise.
    pub fn code(&self) -> &str {
        match self {
            ClientError::Refused(error) => &error.code,
            _ => "",
        }
    }
}
