//! Every bound of this room, named once.
//!
//! Called by: the spec reader, the planner, lanes. Invariant: nothing that a file, a guest or a
//! log can make grow is without a name here. What all rooms share is in `model::limits`.

/// Largest pipeline file read, in bytes.
pub const SPEC_BYTES_MAX: usize = 1 << 20;
/// Deepest nesting of mappings and lists in a pipeline file.
pub const SPEC_DEPTH_MAX: usize = 32;
/// Most YAML nodes in a pipeline file, those repeated by aliases counted each time.
pub const SPEC_NODES_MAX: usize = 50_000;
/// Most diagnostics kept of one file; a file with more has one cause.
pub const DIAGNOSTICS_MAX: usize = 200;
/// Most nodes in one pipeline.
pub const NODES_MAX: usize = 500;
/// Most hosts that a module can be granted.
pub const HTTP_RULES_MAX: usize = 64;
/// Most outputs of one node: a guest names them with 16 bits.
pub const PORTS_MAX: usize = 256;
/// Longest pipeline, node, port, module or column name.
pub const NAME_BYTES_MAX: usize = 100;
/// Largest schema file inlined into a pipeline file.
pub const SCHEMA_BYTES_MAX: usize = 256 << 10;
/// Longest SQL expression in a pipeline file.
pub const EXPRESSION_BYTES_MAX: usize = 16 << 10;

/// Most records in one batch of a lane.
pub const BATCH_ROWS_MAX: u32 = 100_000;
/// Rows that a lane which is behind may take at once, where its pipeline does not say how many.
pub const BATCH_ROWS_GROWN: u32 = 16_000;
/// A batch that took no longer may be followed by one of twice its rows, in milliseconds; and no longer
/// than this part of the shortest deadline of a module.
pub const BATCH_QUICK_MS: u64 = 5;
pub const BATCH_QUICK_PER_DEADLINE: u32 = 20;
/// Batches after a fault before they become larger again.
pub const PACE_REST_BATCHES: u32 = 1_000;
/// Most bytes in one batch of a lane.
pub const BATCH_BYTES_MAX: u64 = 16 << 20;
/// Longest time a lane waits for a batch to fill, in milliseconds.
pub const BATCH_WAIT_MS_MAX: u64 = 60_000;
/// Most tries of the same rows before the policy's `then`.
pub const RETRY_MAX: u32 = 1_000;

/// Commits a lane may have under way: each waits for a sync, work on the next batch goes on.
pub const COMMITS_IN_FLIGHT_MAX: usize = 4;
/// Bytes asked of one fetch: enough for several batches, little enough for many lanes.
pub const FETCH_BYTES_MAX: usize = 4 << 20;
/// Rows that may kill the guest before a lane's breaker opens; see `stage::run`.
pub const BREAKER_ROWS_MAX: u32 = 32;
/// Calls of one batch for rows behind those that were given up; then the batch ends before them.
pub const GIVEN_UP_CALLS_MAX: u32 = 32;
/// Most bytes of rows that a module puts on one output for one batch, in all its calls together:
/// what arrays can hold.
pub const PORT_BYTES_MAX: usize = i32::MAX as usize;
/// Timers that fire in one call of a module.
pub const TIMERS_PER_CALL_MAX: usize = 1_000;
/// Most lookup tables of one node; what one may take in memory, where its node does not say, and at
/// most.
pub const LOOKUPS_MAX: usize = 32;
pub const LOOKUP_BYTES: u64 = 256 << 20;
pub const LOOKUP_BYTES_MAX: u64 = 4 << 30;
/// Good rows that win back one of `BREAKER_ROWS_MAX`.
pub const BREAKER_ROWS_PER_CREDIT: u32 = 100;
/// Wait of a lane whose module found no memory to be opened again in, in milliseconds.
pub const MEMORY_WAIT_MS: u64 = 1_000;
/// First and longest wait after a log error that says "try again", in milliseconds.
pub const LOG_BACKOFF_MS: u64 = 20;
pub const LOG_BACKOFF_MS_MAX: u64 = 5_000;
/// Positions that are forgotten in one commit.
pub const POSITIONS_FORGOTTEN_AT_ONCE: usize = 1_000;
/// Hand-overs a lane remembers for its status.
pub const HANDOVERS_KEPT_MAX: usize = 16;
/// Batches that wait for a canary, and the bytes they hold on to; beyond that they are left out.
pub const CANARY_QUEUE_BATCHES_MAX: usize = 16;
pub const CANARY_QUEUE_BYTES_MAX: usize = 32 << 20;
/// How much lower the priority of a canary's thread is.
pub const CANARY_NICE: i32 = 10;
/// Examples kept of each difference, bytes of a value in one, rows shown of a record.
pub const CANARY_EXAMPLES_PER_DIFFERENCE_MAX: u64 = 3;
pub const CANARY_TEXT_BYTES_MAX: usize = 200;
pub const CANARY_TEXT_ROWS_MAX: usize = 5;
/// Longest message put into a dead letter's header, in bytes.
pub const MESSAGE_BYTES_MAX: usize = 1_000;
