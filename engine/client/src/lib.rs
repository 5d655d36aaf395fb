//! The native client: connect, ask, produce, consume.
//!
//! What: `Client` finds and pins the server (`config`, `state`, `tls`), speaks QUIC or TCP
//! (`link`), pipelines requests over one ordered stream (`channel`); `producer` and `consumer`
//! stand on that; `io` moves frames and `quic` sets up its endpoints, both shared with the server's doors.
//! Called by: the command line, the demo, tests, benches.
//! Invariants: no record is acked to the caller before the server acked it; what was not acked
//! is sent again in order; nothing is trusted but the server's own certificate or the given CA.
//! Refuses: to talk without a certificate; to wait for a server for more than three seconds.

mod admin;
mod channel;
mod client;
mod config;
pub mod consumer;
mod error;
pub mod io;
mod link;
pub mod producer;
pub mod quic;
pub mod state;
mod tls;

pub use channel::{Channel, Pending, Replies};
pub use client::{Client, SqlStream};
pub use config::{ClientConfig, Transport};
pub use consumer::{Consumer, ConsumerConfig, Delivery, Start};

pub use error::{ClientError, ConnectError};
pub use producer::{Acked, ProduceError, Producer, ProducerConfig, Record, Trouble};
