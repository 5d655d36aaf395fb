//! Write RustMQ modules as plain Rust functions.
//!
//! ```
//! # extern crate rustmq_sdk as rustmq;
//! use rustmq::Reject;
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Deserialize)]
//! struct Raw<'a> { carrier: &'a str, delay: Option<f64> }
//!
//! #[derive(Serialize)]
//! struct Clean<'a> { carrier: &'a str, hours: f64 }
//!
//! #[rustmq::map]
//! fn tidy(row: Raw<'_>) -> Result<Clean<'_>, Reject> {
//!     let delay = row.delay.ok_or_else(|| Reject::new("delay", "no delay"))?;
//!     Ok(Clean { carrier: row.carrier, hours: delay / 60.0 })
//! }
//!
//! let out = rustmq::testing::run::<tidy>([r#"{"carrier":"UA","delay":90}"#, "{}"]);
//! assert_eq!(out.texts("out"), [r#"{"carrier":"UA","hours":1.5}"#]);
//! assert_eq!(out.rejects[0].code, "json");
//! ```
//!
//! - [`macro@map`] one row to one, [`macro@flat_map`] to many, [`macro@filter`], [`macro@route`]
//! - a first parameter `&[u8]`, `Option<&[u8]>` or `&str` takes the value as it is, a struct with
//!   [`macro@Row`] comes from typed columns that the host decoded, any other type is read from JSON;
//!   what is returned goes out the same ways; further parameters: [`Meta`] for key, time and headers,
//!   `&T` for the node's `params`
//! - [`macro@Row`] makes a struct a row of typed columns, with text borrowed from them:
//!
//! ```
//! # extern crate rustmq_sdk as rustmq;
//! #[derive(rustmq::Row)]
//! struct Flight<'a> { carrier: &'a str, dep_delay: Option<f64>, ts: rustmq::Timestamp }
//!
//! #[derive(rustmq::Row)]
//! struct Late<'a> { carrier: &'a str, hours: f64, due: rustmq::Timestamp }
//!
//! #[rustmq::map]
//! fn late(row: Flight<'_>) -> Option<Late<'_>> {
//!     let minutes = row.dep_delay.filter(|minutes| *minutes > 15.0)?;
//!     Some(Late { carrier: row.carrier, hours: minutes / 60.0, due: row.ts })
//! }
//!
//! let flight = r#"{"carrier":"UA","dep_delay":90,"ts":"2013-01-01T05:00:00Z"}"#;
//! let out = rustmq::testing::run::<late>([flight]);
//! let late = r#"{"carrier":"UA","hours":1.5,"due":"2013-01-01T05:00:00.000000Z"}"#;
//! assert_eq!(out.texts("out"), [late]);
//! ```
//!
//! - [`Record`] sets key, event time, headers and port of an output; [`Raw`] writes bytes
//! - [`info!`] and its sisters write to the server's log, [`Counter`] and [`Histogram`] into the
//!   pipeline's status
//! - [`macro@Params`] says what the node's `params` may be: the server checks them, and `module inspect`
//!   shows them
//! - a further parameter `&mut` [`State`] makes a function one that keeps something from batch to
//!   batch, by key; [`Stateful`] is the level below, with timers; both can take over what an older
//!   version kept in another way
//! - a further parameter `users: &` [`Lookup`] is the table `users` that the node declares: the newest value
//!   of every key of a topic
//! - [`http`] makes requests to other services, where the node grants it
//! - [`Module`] is the level below: whole batches, columns; export it with [`export!`]
//! - [`testing`] runs a module natively, with neither broker nor WebAssembly
//!
//! Called by: guests, compiled to `wasm32-unknown-unknown` or `wasm32-wasip2`; natively by tests.
//! Invariants: an error in a row rejects that row and never traps; output order is input order.

mod batch;
mod column;
pub mod describe;
mod fill;
pub mod http;
mod lookup;
mod outbox;
mod record;
#[doc(hidden)]
pub mod row;
#[doc(hidden)]
pub mod rt;
mod state;
mod telemetry;
mod time;
mod typed;
mod value;

#[cfg(target_family = "wasm")]
#[path = "abi/mod.rs"]
mod sys;
#[cfg(not(target_family = "wasm"))]
#[path = "native/mod.rs"]
mod sys;

#[cfg(not(target_family = "wasm"))]
pub mod testing;

pub use batch::{Batch, Context, Meta};
pub use column::Column;
pub use describe::Params;
pub use lookup::Lookup;
pub use outbox::Outbox;
pub use record::{Failure, PortName, Raw, Record, Reject, Tombstone};
pub use row::{Cell, FromColumns, Texts, ToColumns};
pub use rustmq_sdk_macros::{Params, Port, Row, filter, flat_map, map, route};
#[doc(hidden)]
pub use state::Keeping;
pub use state::{Entries, State, Stateful};
pub use telemetry::{Counter, Histogram, Level, log, log_enabled};
pub use time::{Timestamp, TimestampError};
pub use typed::{Bools, Columnar, Field, FieldType, Floats, Ints};
pub use value::{Output, Payload};

/// A module at the level of whole batches. The attributes implement it for you.
pub trait Module: Sized {
    /// What the node's `params` may be. `None`: not said, so the host does not check them.
    const PARAMS: Option<&'static describe::Schema> = None;
    /// The outputs that the module names: a node must declare them. `None`: not said.
    const PORTS: Option<&'static [&'static str]> = None;
    /// Version of the schema of its state; of a [`Stateful`] only.
    #[doc(hidden)]
    const STATE_SCHEMA: Option<u32> = None;
    /// Older versions of it whose state the module takes over; the same.
    #[doc(hidden)]
    const MIGRATES: &'static [u32] = &[];

    /// Called once, before the first batch. An error stops the node with its message.
    fn open(context: &Context) -> Result<Self, Failure>;

    /// Called for each batch. An error applies the node's policy to the whole batch.
    fn process(&mut self, rows: &Batch, out: &mut Outbox) -> Result<(), Failure>;
}

/// Exports a [`Module`] from this crate. The attributes do it for you; one per crate.
#[macro_export]
macro_rules! export {
    ($module:ty) => {
        #[cfg(target_family = "wasm")]
        const _: () = {
            static SLOT: $crate::rt::Slot<$module> = $crate::rt::Slot::new();

            #[used]
            #[unsafe(link_section = "component-type:rustmq:etl@0.1.5:granted")]
            static COMPONENT_TYPE: [u8; $crate::rt::COMPONENT_TYPE.len()] =
                *$crate::rt::COMPONENT_TYPE;

            $crate::exports!($module, $module);
        };
        $crate::used!($module);
    };
}

/// The same of a [`Stateful`].
#[macro_export]
macro_rules! export_stateful {
    ($module:ty) => {
        #[cfg(target_family = "wasm")]
        const _: () = {
            static SLOT: $crate::rt::Slot<$crate::Keeping<$module>> = $crate::rt::Slot::new();

            #[used]
            #[unsafe(link_section = "component-type:rustmq:etl@0.1.5:migrating-granted")]
            static COMPONENT_TYPE: [u8; $crate::rt::STATEFUL_TYPE.len()] =
                *$crate::rt::STATEFUL_TYPE;

            #[unsafe(export_name = "rustmq:etl/timed@0.1.5#on-timers")]
            extern "C" fn on_timers(fired: u32, out: u32) -> *const u8 {
                SLOT.on_timers(fired, out)
            }

            // the schema of the entries, and two columns of three lists each
            #[unsafe(export_name = "rustmq:etl/migration@0.1.5#migrate")]
            unsafe extern "C" fn migrate(
                from: u32,
                a: u32,
                b: u32,
                c: u32,
                d: u32,
                e: u32,
                f: u32,
                g: u32,
                h: u32,
                i: u32,
                j: u32,
                k: u32,
                l: u32,
            ) -> *const u8 {
                // SAFETY: the host calls it as the canonical ABI says
                unsafe { SLOT.migrate(from, [a, b, c, d, e, f], [g, h, i, j, k, l]) }
            }

            $crate::exports!($crate::Keeping<$module>, $module);
        };
        $crate::used!($module);
    };
}

/// Natively nothing is exported, but what would be is no dead code.
#[doc(hidden)]
#[macro_export]
macro_rules! used {
    ($module:ty) => {
        #[cfg(not(target_family = "wasm"))]
        const _: () = $crate::rt::used::<$module>();
    };
}

/// What both export: the functions of `module`, memory, what it says of itself.
#[doc(hidden)]
#[macro_export]
macro_rules! exports {
    ($module:ty, $named:ty) => {
        #[unsafe(export_name = "rustmq:etl/module@0.1.5#open")]
        extern "C" fn open(context: u32) -> *const u8 {
            SLOT.open(context)
        }

        #[unsafe(export_name = "rustmq:etl/module@0.1.5#process")]
        extern "C" fn process(rows: u32, out: u32) -> *const u8 {
            SLOT.process(rows, out)
        }

        // WASI's libc brings its own, but for that of preview 1, which `cargo component` builds for
        #[cfg(any(not(target_os = "wasi"), target_env = "p1"))]
        #[unsafe(export_name = "cabi_realloc")]
        unsafe extern "C" fn realloc(
            old: *mut u8,
            old_len: usize,
            align: usize,
            new_len: usize,
        ) -> *mut u8 {
            // SAFETY: the host calls it as the canonical ABI says
            unsafe { $crate::rt::realloc(old, old_len, align, new_len) }
        }

        const DESCRIPTION: $crate::describe::Description =
            $crate::describe::Description::of::<$module>(
                ::core::env!("CARGO_PKG_NAME"),
                ::core::env!("CARGO_PKG_VERSION"),
            )
            .of_type(::core::concat!(
                ::core::module_path!(),
                "::",
                ::core::stringify!($named)
            ));

        #[used]
        #[unsafe(link_section = "rustmq:describe")]
        static DESCRIBE: [u8; DESCRIPTION.len()] = DESCRIPTION.json();
    };
}
