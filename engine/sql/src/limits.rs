//! What all queries together, and each of them, may take.
//!
//! Called by the server's configuration. A query may ask for less than these, never for more.

/// Longest text of a query, in bytes.
pub const QUERY_BYTES_MAX: usize = 1 << 20;
/// Batches a query runs ahead of its reader.
pub const BATCHES_AHEAD: usize = 2;
/// Stack of the threads that plan and run queries: planning recurses.
pub const STACK_BYTES: usize = expr::limits::PLAN_STACK_BYTES;
/// Files that sorts and joins may spill, all queries together, in bytes.
pub const SPILL_BYTES_MAX: u64 = 4 << 30;

/// Bounds of one engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SqlLimits {
    /// Memory that sorts, joins and groups of all queries share, in bytes.
    pub memory_bytes: usize,
    /// Rows one query may return.
    pub rows_max: u64,
    /// From the start of planning until the last row is read, in milliseconds.
    pub timeout_ms: u64,
    /// Queries at a time; more wait for as long as their own timeout.
    pub queries_max: usize,
    /// Threads for all queries; 0 means one per processor.
    pub threads: usize,
}

impl Default for SqlLimits {
    fn default() -> Self {
        SqlLimits {
            memory_bytes: 512 << 20,
            rows_max: 10_000_000,
            timeout_ms: 300_000,
            queries_max: 8,
            threads: 0,
        }
    }
}
