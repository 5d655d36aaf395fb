//! The write-ahead log: one sequence of entries for all partitions of a broker, in segments.
//!
//! Called by: `log`, which owns the one thread that writes and the state that is rebuilt.
//! Invariants: a position counts bytes over all segments, so positions order everything; an
//! entry is whole or absent; what `synced_to` of a valid entry covers was durable.
//! Refuses: writing after a failed write or sync; opening over corruption.

mod damage;
pub(crate) mod entry;
pub(crate) mod reader;
pub(crate) mod recovery;
pub(crate) mod segment;
pub(crate) mod writer;

#[cfg(test)]
mod every_byte;
#[cfg(test)]
mod tests;

pub(crate) use entry::{Control, Kind};
pub(crate) use segment::{Location, Segment, remove_segments};
pub(crate) use writer::{RollError, WalWriter};
