//! The native protocol: frames and messages over any ordered byte stream (a QUIC stream, TLS).
//!
//! What: `table` is the table of contents (every request with its reply), `frame` cuts a byte
//! stream into frames, `message` holds one file per family. Nothing here reads or writes.
//! Called by: `client` and the server's doors, which do the reading and writing.
//! Invariants: a length is compared with `limits` before memory is taken for it; what is encoded
//! decodes to the same value; batch bytes are shared, never copied, on their way in.
//! Refuses: unknown versions and calls, bodies with missing or left-over bytes.

pub mod code;
pub mod error;
pub mod frame;
pub mod limits;
pub mod message;
pub mod table;
pub mod wire;

pub use error::{DecodeError, WireError};
pub use frame::{Encoded, Frame, FrameError, Frames};
pub use message::*;
pub use model::port::Advice;
pub use table::{Api, Request, Response};

/// Written into every frame, and what `Hello` asks for.
pub const PROTOCOL_VERSION: u8 = 1;
/// The name of this protocol in the TLS handshake.
pub const ALPN: &[u8] = b"rustmq/1";
