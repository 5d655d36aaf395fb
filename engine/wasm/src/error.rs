//! Errors of the sandbox, one small enum per operation.
//!
//! Called by: everything here; pipelines decide by them what becomes of a batch.
//! Invariants: no host path and no host pointer in a message; each says what to do.

use crate::limits::{
    OF_BOUNDARY, OF_MEMORY, OF_OUTPUT, OF_REQUESTS, OF_STATE, OF_TABLE, OF_TIMERS,
};
use crate::world::VERSION;

/// Why a file is not a module at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InspectError {
    #[error("the module has {size} bytes, the limit is {limit}; build it in release mode")]
    TooBig { size: usize, limit: usize },
    #[error("the file is empty; build or copy it again")]
    Empty,
    #[error("not a WebAssembly file (it starts with {starts:?}); give a .wasm file")]
    NotWasm { starts: String },
    #[error(
        "a core WebAssembly module without an embedded component type; build it with \
         `rustmq module build`, or make a component of it with `wasm-tools component new`"
    )]
    NoComponentType,
    #[error("the module is not valid: {0}; it may be damaged, or use a proposal that is off here")]
    Invalid(String),
    #[error("the core module cannot be made a component: {0}")]
    Encode(String),
    #[error(
        "the module's section `rustmq:describe` cannot be read: {0}; build it with the SDK of this \
         version"
    )]
    Describe(String),
    #[error("the module {what} more than {most} names; link fewer into one")]
    Names { what: &'static str, most: usize },
    #[error("the module's signature is wrong: {0}; get the file again from who signed it")]
    Signature(String),
}

/// Why a module is not loaded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    #[error(transparent)]
    Inspect(#[from] InspectError),
    #[error("the module imports {name}, which is not granted: {hint}")]
    Import { name: String, hint: String },
    #[error(
        "the module makes requests to other services ({name}), which its entry under `modules` must \
         grant: `grants: {{ http: [{{ host: api.example.com, methods: [GET] }}] }}`"
    )]
    Http { name: String },
    #[error(
        "the module was built for rustmq:etl {built} and imports {name}; this host offers \
         rustmq:etl {VERSION}, which does not have it: build the module with the SDK of this \
         version, or run a newer server"
    )]
    Version { name: String, built: String },
    #[error(
        "the module is {signed}, and this server takes only modules that a key of modules.trust has \
         signed; sign the file with `rustmq module sign FILE --key KEY` and name it as `source`, or \
         add the signer's key to modules.trust"
    )]
    Trust { signed: String },
    #[error("the grant {name:?} names nothing that this host offers; remove it")]
    Grant { name: String },
    #[error(
        "the module does not export {name}; a module exports the interface `module` of \
         `rustmq:etl` (the SDK's attributes do that)"
    )]
    Export { name: String },
    #[error("the module does not compile: {0}")]
    Compile(String),
    #[error("the module does not fit the world `rustmq:etl/transform`: {0}")]
    Link(String),
}

/// Why the host did not start.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    #[error("the WebAssembly engine does not start: {0}")]
    Engine(String),
    #[error("the engine's ticker thread does not start: {0}")]
    Ticker(String),
}

/// What ended a call into a guest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProcessError {
    /// The module itself said no. The instance lives on.
    #[error("the module failed: {code}: {message}")]
    Failed { code: String, message: String },
    /// The instance is gone; the batch never happened.
    #[error("the module trapped: {message}{}", frames(.backtrace))]
    Trap {
        message: String,
        backtrace: Vec<String>,
    },
    #[error(
        "the module used more than {limit_ms} ms of processor time for one call; make the batch \
         smaller or raise limits.deadline"
    )]
    Deadline { limit_ms: u64 },
    #[error("the module went over its limit of {limit} {what}{}", remedy(.what))]
    Limit { what: &'static str, limit: u64 },
    #[error("the module's instance is gone after an earlier trap; open it again")]
    Dead,
    /// Nobody is to blame: the rows are worked again.
    #[error("the lane was told to stop while the module waited for answers to its requests")]
    Stopped,
}

/// Why no instance could be opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    #[error(
        "the modules that run use {bytes} bytes of memory, of {limit} for all of them: stop some, \
         or raise limits.module_memory_bytes"
    )]
    Memory { bytes: usize, limit: usize },
    #[error("a module cannot be given {wanted} {what}: at most {limit}")]
    Cap {
        what: &'static str,
        wanted: u64,
        limit: u64,
    },
    #[error("the module cannot be instantiated: {0}")]
    Instantiate(String),
    #[error("the module cannot be opened with {what}: at most {limit}")]
    Context { what: &'static str, limit: usize },
    #[error("the module {title} refuses the node's params: {faults}")]
    Params { title: String, faults: String },
    #[error(
        "the module {title} sends rows to the output `{port}`, which the node does not declare; \
         its outputs are {declared}"
    )]
    Port {
        title: String,
        port: String,
        declared: String,
    },
    #[error("in `open`: {0}")]
    Run(#[from] ProcessError),
}

/// What may be done about a limit; of those that are the same for all modules nothing is said.
fn remedy(what: &str) -> &'static str {
    match what {
        OF_MEMORY => "; raise limits.memory of the module if that is right",
        OF_TABLE => "; raise limits.table-elements of the module if that is right",
        OF_OUTPUT => {
            "; make the batch smaller (policy.batch), or raise limits.output or limits.output-ratio"
        }
        OF_BOUNDARY => "; make the batch smaller (policy.batch), or raise limits.output",
        OF_STATE => "; raise limits.state of the module if that is right",
        OF_TIMERS => "; raise limits.timers of the module if that is right",
        OF_REQUESTS => "; make the batch smaller (policy.batch), or raise limits.http-requests",
        _ => "",
    }
}

fn frames(backtrace: &[String]) -> String {
    let mut text = String::new();
    for frame in backtrace {
        text.push_str("\n  in ");
        text.push_str(frame);
    }
    text
}

/// What a host function hands back to end the guest; found again by downcast.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    #[error("{0}")]
    Bad(String),
    #[error("limit of {limit} {what}")]
    Limit { what: &'static str, limit: u64 },
    #[error("told to stop")]
    Stopped,
}

/// Ends the guest at a limit.
pub(crate) fn over<T>(what: &'static str, limit: usize) -> wasmtime::Result<T> {
    let limit = limit as u64;
    Err(wasmtime::Error::new(Fault::Limit { what, limit }))
}

/// Ends the guest with a message.
pub(crate) fn bad<T>(message: String) -> wasmtime::Result<T> {
    Err(wasmtime::Error::new(Fault::Bad(message)))
}
