//! `rustmq` in one crate: the place where the rooms meet, its doors to the outside, and the
//! command line.
//!
//! - `config` what a node is told; `node` the composition: rooms started in order, stopped in
//!   reverse; `service` requests to rooms; `door` the native protocol; `http` the HTTP door
//! - `runtime` the worker threads
//! - `cli` the commands; `output` what they print; `module` writing and building modules
//!
//! Called by: `main.rs`, tests and the demo (which embed a [`node::Node`]).
//! Invariants: no rule about data lives here: this crate joins, translates and prints.

pub mod cli;
pub mod config;
pub mod demo;
pub mod door;
pub mod egress;
pub mod http;
pub mod module;
pub mod node;
pub mod output;
pub mod runtime;
pub mod service;
pub mod signals;
