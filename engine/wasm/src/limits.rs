//! What a module may use, with defaults, and the limiter that wasmtime asks.
//!
//! Called by: pipelines (from the `limits` of a node), `guest` and `check`.
//! Invariants: every limit has a name, a default and a hard cap here; a guest cannot raise its own,
//! and a pipeline not above the cap. What all
//! modules use together is counted; the bound on it refuses new instances and never traps one
//! that runs, whose rows are not to blame for its neighbours.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use wasmtime::ResourceLimiter;

/// Largest component or core module that is looked at, in bytes.
pub const COMPONENT_BYTES_MAX: usize = model::limits::MODULE_BYTES_MAX;
/// Longest failure code and message kept from a guest, in bytes; the rest is cut.
pub const CODE_BYTES_MAX: usize = 64;
pub const MESSAGE_BYTES_MAX: usize = 4096;
/// Most headers that one `emit` may set, and the longest name in bytes.
pub const HEADERS_PER_EMIT_MAX: usize = 64;
pub const HEADER_NAME_BYTES_MAX: usize = 255;
/// Longest line of a module in the log, in bytes.
pub const LOG_LINE_BYTES_MAX: usize = 1 << 10;
/// What a line costs beside its text: time, level, pipeline, node and lane.
pub const LOG_LINE_BYTES_BESIDE: u64 = 128;
/// Longest name of a counter or histogram in bytes, most bounds.
pub const METRIC_NAME_BYTES_MAX: usize = 64;
pub const HISTOGRAM_BOUNDS_MAX: usize = 32;
/// Most additions to counters and observed values of one call.
pub const TOLD_MAX: usize = 1_000_000;
/// Most names and values beside one line of log.
pub const LOG_VALUES_MAX: usize = 64;
/// Largest `rustmq:describe` section, in bytes.
pub const DESCRIBE_BYTES_MAX: usize = 256 << 10;
/// Most imports and exports of a module that are listed.
pub const NAMES_MAX: usize = 2000;
/// A few calls of the outbox, so that passing a batch on costs no more than it brought.
pub const OUTPUT_BYTES_OF_CALLS: usize = 1 << 10;
/// Output that is always allowed, whatever the amplification says, in bytes.
pub const OUTPUT_BYTES_FLOOR: usize = 1 << 20;
/// What the host needs for each row and for each array that a call makes, beside its bytes.
pub const ROW_BYTES: usize = 8;
pub const COLUMN_BYTES: usize = 256;
/// Frames of a guest's stack that are kept in a trap.
pub const FRAMES_MAX: usize = 16;

/// Longest key and value of the state, what an entry costs beside its bytes.
pub const STATE_KEY_BYTES_MAX: usize = 4 << 10;
pub const STATE_VALUE_BYTES_MAX: usize = 1 << 20;
pub const STATE_ENTRY_BYTES: usize = 96;
/// Most keys of one call about the state, most entries and bytes that one reads.
pub const STATE_KEYS_MAX: usize = 100_000;
pub const STATE_SCAN_ENTRIES_MAX: usize = 10_000;
pub const STATE_READ_BYTES_MAX: usize = 16 << 20;
/// Most bytes of keys and values that one call changes: with its outputs they are one entry of the log.
pub const STATE_CHANGED_BYTES_MAX: usize = 64 << 20;
/// Entries and bytes of older state that a module is given in one call; the bytes of keys and values
/// that differ afterwards, which are one entry of the log with the outputs of a batch.
pub const MIGRATION_ENTRIES: usize = 1_000;
pub const MIGRATION_BYTES: usize = 1 << 20;
pub const MIGRATION_CHANGED_BYTES_MAX: usize = 128 << 20;

/// What an entry of a lookup table costs beside its bytes; keys of one call that asks for them, and
/// bytes of their values.
pub const LOOKUP_ENTRY_BYTES: usize = 96;
pub const LOOKUP_KEYS_MAX: usize = 100_000;
pub const LOOKUP_READ_BYTES_MAX: usize = 64 << 20;
/// Longest method and URL of a request, most headers and bytes of them.
pub const HTTP_METHOD_BYTES_MAX: usize = 16;
pub const HTTP_URL_BYTES_MAX: usize = 8 << 10;
pub const HTTP_HEADERS_MAX: usize = 64;
pub const HTTP_HEADER_BYTES_MAX: usize = 16 << 10;

/// Stack of a guest, in bytes; the same for all.
pub const STACK_BYTES: usize = 512 << 10;
/// Bytes that may cross the boundary in one call, for each byte it may emit.
pub const HOSTCALL_FACTOR: usize = 2;
/// Compiling one module, where it has a process of its own: processor time and wall clock in
/// seconds, memory and compiled code in bytes.
pub const COMPILE_CPU_S: u64 = 120;
pub const COMPILE_WALL_S: u64 = 300;
pub const COMPILE_MEMORY_BYTES: u64 = 2 << 30;
pub const CODE_SIZE_MAX: u64 = 512 << 20;

/// What a limit is of that a module reaches while it runs; `error::remedy` says which key raises it.
pub(crate) const OF_MEMORY: &str = "memory bytes";
pub(crate) const OF_TABLE: &str = "table elements";
pub(crate) const OF_OUTPUT: &str = "output bytes in one call";
pub(crate) const OF_BOUNDARY: &str = "bytes that cross the boundary in one call";
pub(crate) const OF_STATE: &str = "bytes of state";
pub(crate) const OF_TIMERS: &str = "timers";
pub(crate) const OF_REQUESTS: &str = "requests for one batch";

/// Limits of one module in one lane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Linear memory, all memories of the module together, in bytes.
    pub memory_bytes: usize,
    /// Elements of one table.
    pub table_elements: usize,
    /// Core instances, memories and tables inside one component.
    pub instances: usize,
    pub memories: usize,
    pub tables: usize,
    /// Live resource handles.
    pub handles: usize,
    /// Processor time of one `process` call, in milliseconds. The wall clock may take up to
    /// twenty times as long, so that a busy machine does not look like a spinning guest.
    pub deadline_ms: u64,
    /// The same for instantiation and `open`.
    pub open_deadline_ms: u64,
    /// Bytes that one call may emit at most: what the host makes of it, so that keys and headers
    /// that rows inherit and names of fields count for each row.
    pub output_bytes_max: usize,
    /// Bytes of log a second, in each lane; each line costs [`LOG_LINE_BYTES_BESIDE`] more.
    pub log_bytes_per_s: u64,
    /// Counters and histograms.
    pub metrics: usize,
    /// What a module keeps from batch to batch, in each lane, in bytes.
    pub state_bytes: usize,
    /// Timers that are set at a time, in each lane.
    pub timers: usize,
    /// Requests to other services for one batch, and how many of them are under way at a time.
    pub http_requests: usize,
    pub http_at_once: usize,
    /// The same a second, of all lanes of a node together.
    pub http_per_s: u64,
    /// Time of one request with its redirects, and of all for one batch, in milliseconds. It is not
    /// part of `deadline_ms`.
    pub http_timeout_ms: u64,
    pub http_time_ms: u64,
    /// Bytes of a request's body and of an answer's.
    pub http_sent_bytes: usize,
    pub http_received_bytes: usize,
    /// Bytes that one call may emit for each byte it was given (above 1 MiB of output).
    pub output_ratio_max: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            memory_bytes: 64 << 20,
            table_elements: 20_000,
            instances: 64,
            memories: 2,
            tables: 8,
            handles: 1000,
            deadline_ms: 100,
            open_deadline_ms: 1000,
            log_bytes_per_s: 64 << 10,
            metrics: 64,
            state_bytes: 64 << 20,
            timers: 100_000,
            http_requests: 1000,
            http_at_once: 8,
            http_per_s: 100,
            http_timeout_ms: 5_000,
            http_time_ms: 10_000,
            http_sent_bytes: 256 << 10,
            http_received_bytes: 1 << 20,
            output_bytes_max: 64 << 20,
            output_ratio_max: 16,
        }
    }
}

impl Limits {
    /// Most that a module can be given.
    pub const CAPS: Limits = Limits {
        memory_bytes: 1 << 30,
        table_elements: 100_000,
        instances: 64,
        memories: 4,
        tables: 32,
        handles: 10_000,
        deadline_ms: 60_000,
        open_deadline_ms: 60_000,
        log_bytes_per_s: 1 << 20,
        metrics: 256,
        state_bytes: 1 << 30,
        timers: 1_000_000,
        http_requests: 10_000,
        http_at_once: 64,
        http_per_s: 10_000,
        http_timeout_ms: 60_000,
        http_time_ms: 300_000,
        http_sent_bytes: 16 << 20,
        http_received_bytes: 16 << 20,
        output_bytes_max: 256 << 20,
        output_ratio_max: 1000,
    };

    /// What these limits allow, by name, with its unit in the name.
    fn named(&self) -> [(&'static str, u64); 21] {
        [
            (OF_MEMORY, self.memory_bytes as u64),
            (OF_TABLE, self.table_elements as u64),
            ("instances", self.instances as u64),
            ("memories", self.memories as u64),
            ("tables", self.tables as u64),
            ("handles", self.handles as u64),
            ("milliseconds for one call", self.deadline_ms),
            ("milliseconds for `open`", self.open_deadline_ms),
            ("log bytes a second", self.log_bytes_per_s),
            ("metrics", self.metrics as u64),
            (OF_STATE, self.state_bytes as u64),
            (OF_TIMERS, self.timers as u64),
            (OF_REQUESTS, self.http_requests as u64),
            ("requests at a time", self.http_at_once as u64),
            ("requests a second", self.http_per_s),
            ("milliseconds for one request", self.http_timeout_ms),
            (
                "milliseconds for all requests of a batch",
                self.http_time_ms,
            ),
            ("bytes of a request", self.http_sent_bytes as u64),
            ("bytes of an answer", self.http_received_bytes as u64),
            (OF_OUTPUT, self.output_bytes_max as u64),
            (
                "output bytes for an input byte",
                self.output_ratio_max as u64,
            ),
        ]
    }

    /// The first limit above its cap: its name, what is wanted, the cap.
    pub fn above_cap(&self) -> Option<(&'static str, u64, u64)> {
        let caps = Limits::CAPS.named();
        let mut pairs = self.named().into_iter().zip(caps);
        pairs.find_map(|((name, wanted), (_, cap))| (wanted > cap).then_some((name, wanted, cap)))
    }
}

/// Linear memory, state and lookup tables of all live modules of a host.
#[derive(Debug)]
pub(crate) struct MemoryInUse {
    bytes_max: usize,
    bytes: AtomicUsize,
}

impl MemoryInUse {
    pub(crate) fn new(bytes_max: usize) -> MemoryInUse {
        let bytes = AtomicUsize::new(0);
        MemoryInUse { bytes_max, bytes }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn add(&self, bytes: usize) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn sub(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    pub(crate) fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    /// Bytes in use and the bound, if there is no room for another instance.
    pub(crate) fn full(&self) -> Option<(usize, usize)> {
        let bytes = self.bytes();
        (bytes >= self.bytes_max).then_some((bytes, self.bytes_max))
    }
}

/// Bytes that are held outside of linear memory, as part of the memory of all modules.
#[derive(Debug)]
pub(crate) struct Account {
    all: Arc<MemoryInUse>,
    bytes: usize,
}

impl Account {
    pub(crate) fn new(all: &Arc<MemoryInUse>) -> Account {
        let all = Arc::clone(all);
        Account { all, bytes: 0 }
    }

    /// One for something else, of the same whole.
    pub(crate) fn another(&self) -> Account {
        Account::new(&self.all)
    }

    pub(crate) fn set(&mut self, bytes: usize) {
        self.all.add(bytes);
        self.all.sub(self.bytes);
        self.bytes = bytes;
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.all.sub(self.bytes);
    }
}

/// Answers wasmtime's questions and remembers what it denied, so that the trap that usually
/// follows can be named for what it is.
#[derive(Debug)]
pub(crate) struct Limiter {
    memory_bytes: usize,
    memory_used: usize,
    /// `memory_used` after the first call that went well.
    memory_settled: Option<usize>,
    table_elements: usize,
    instances: usize,
    memories: usize,
    tables: usize,
    all: Arc<MemoryInUse>,
    pub(crate) denied: Option<(&'static str, u64)>,
}

impl Limiter {
    pub(crate) fn new(limits: &Limits, all: Arc<MemoryInUse>) -> Limiter {
        Limiter {
            memory_bytes: limits.memory_bytes,
            memory_used: 0,
            memory_settled: None,
            table_elements: limits.table_elements,
            instances: limits.instances,
            memories: limits.memories,
            tables: limits.tables,
            all,
            denied: None,
        }
    }
}

impl Limiter {
    /// A call went well.
    pub(crate) fn settle(&mut self) {
        self.memory_settled.get_or_insert(self.memory_used);
    }

    /// Whether memory grew, call by call, through most of the room that the first call left.
    pub(crate) fn is_swollen(&self) -> bool {
        self.memory_settled.is_some_and(|settled| {
            self.memory_used - settled > (self.memory_bytes - settled) / 4 * 3
        })
    }
}

impl Drop for Limiter {
    fn drop(&mut self) {
        let bytes = self.memory_used;
        self.all.sub(bytes);
    }
}

impl ResourceLimiter for Limiter {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let used = self
            .memory_used
            .saturating_add(desired.saturating_sub(current));
        if used > self.memory_bytes {
            self.denied = Some((OF_MEMORY, self.memory_bytes as u64));
            return Ok(false);
        }
        let grown = used - self.memory_used;
        self.all.add(grown);
        self.memory_used = used;
        Ok(true)
    }

    fn table_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        if desired > self.table_elements {
            self.denied = Some((OF_TABLE, self.table_elements as u64));
            return Ok(false);
        }
        Ok(true)
    }

    fn instances(&self) -> usize {
        self.instances
    }

    fn tables(&self) -> usize {
        self.tables
    }

    fn memories(&self) -> usize {
        self.memories
    }
}
