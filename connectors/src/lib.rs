//! Sources and sinks to the outside, one folder each.
//!
//! Called by: server (`rustmq produce`, the demo). Calls: model (limits), files, standard input.
//! Invariants: a source is an iterator of records in input order with the line each one came
//! from; memory is bounded by the record limit and one read chunk, whatever the input holds.
//! Refuses: to know topics, partitions or the network. What a record means is not asked here.

pub mod file;
