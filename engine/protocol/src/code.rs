//! The codes of wire errors: the machine-readable half of every refusal.
//!
//! What: one constant per code, in the words that appear on the wire and in `--json` output.
//! Called by: doors and service when they refuse, clients when they decide.
//! Those of log errors are `model::port::LogError::code`.
//! Invariants: a code is never renamed; new ones are added.

pub const BAD_FRAME: &str = "bad-frame";
pub const BAD_REQUEST: &str = "bad-request";
pub const UNSUPPORTED_VERSION: &str = "unsupported-version";
pub const HELLO_FIRST: &str = "hello-first";
pub const STOPPING: &str = "stopping";
pub const OVERLOADED: &str = "overloaded";
pub const NOT_FOUND: &str = "not-found";
pub const EXISTS: &str = "exists";
pub const INVALID: &str = "invalid";
pub const OUT_OF_RANGE: &str = "out-of-range";
pub const OUT_OF_ORDER: &str = "out-of-order";
pub const FENCED: &str = "fenced";
pub const TOO_LARGE: &str = "too-large";
pub const DISK_FULL: &str = "disk-full";
pub const UNKNOWN: &str = "unknown";
pub const CORRUPT: &str = "corrupt";
pub const CLOSED: &str = "closed";
pub const UNAVAILABLE: &str = "unavailable";
pub const UNKNOWN_MEMBER: &str = "unknown-member";
pub const REBALANCE: &str = "rebalance";
pub const TIMEOUT: &str = "timeout";
pub const INTERNAL: &str = "internal";
