//! Every bound of the native protocol and its doors, by name.
//!
//! What: sizes in bytes, times in milliseconds, counts.
//! Called by: `frame`, the server's doors, the client.
//! Invariants: a frame holds the largest batch; what a peer may send before it said who it is
//! is much smaller than what it may send after.

/// What follows the length field of the largest frame.
pub use model::limits::FRAME_BYTES_MAX;
/// The same for the first frame of a connection.
pub const FIRST_FRAME_BYTES_MAX: usize = 64 << 10;
/// A reader asks for memory in steps of at most this, so that a length alone costs nothing.
pub const READ_STEP_BYTES: usize = 256 << 10;
/// Parts of a frame up to this size are copied together; larger ones are shared.
pub const COPY_BYTES_MAX: usize = 2 << 10;

/// Connections of one door (a TCP connection counts as one).
pub const CONNECTIONS_MAX: usize = 4_096;
/// Streams that a peer may hold open on one QUIC connection.
pub const STREAMS_MAX: u32 = 1_024;
/// Requests of one stream being worked on; beyond it the stream is not read.
pub const IN_FLIGHT_MAX: usize = 64;
/// Request bytes of one stream being worked on; beyond it the stream is not read.
pub const IN_FLIGHT_BYTES_MAX: usize = 64 << 20;
/// From the first packet to the end of the TLS handshake.
pub const HANDSHAKE_MS: u64 = 3_000;
/// From the end of the handshake to the first complete frame.
pub const FIRST_FRAME_MS: u64 = 5_000;
/// From the first byte of a frame to its last.
pub const FRAME_MS: u64 = 60_000;
/// A QUIC connection without any packet for this long is gone.
pub const IDLE_MS: u64 = 12_000;
/// A client sends something at least this often.
pub const KEEP_ALIVE_MS: u64 = 3_000;
/// A TCP connection without a request for this long is closed.
pub const TCP_IDLE_MS: u64 = 600_000;
/// What requests in flight get to finish when the server stops.
pub const STOP_MS: u64 = 5_000;
/// What a peer gets to take its last replies then; one that is gone takes none.
pub const GOODBYE_MS: u64 = 500;
/// A client gives up connecting after this.
pub const CONNECT_MS: u64 = 3_000;

/// Bytes of one stream that may be under way before the reader takes them.
pub const STREAM_WINDOW_BYTES: u32 = 8 << 20;
/// Bytes of one connection that may be under way.
pub const CONNECTION_WINDOW_BYTES: u32 = 64 << 20;
/// Bytes that a socket may hold for a side that is busy with something else; what the system
/// allows of it.
pub const SOCKET_BUFFER_BYTES: usize = 4 << 20;
/// A UDP payload is no longer than this: what fits into a jumbo frame of 9,000 bytes.
pub const DATAGRAM_BYTES_MAX: u16 = 8_952;
/// A long poll waits no longer than this, whatever the caller asks for.
pub const FETCH_WAIT_MS_MAX: u32 = 30_000;
/// A fetch returns no more than this beside its first batch.
pub const FETCH_BYTES_MAX: u32 = 16 << 20;
/// Partitions that one fetch of many names.
pub const FETCH_PARTITIONS_MAX: u32 = 1_024;
/// Batches in one fetch reply, of each partition.
pub const FETCH_BATCHES_MAX: u32 = 65_536;
