//! One moment of a partition as SQL reads it: objects of the tier, then batches that are hot.
//!
//! Called by: `sql`. Invariants: offsets below `cold_end` come from the objects only, the rest
//! from `hot` only, so there is no gap and no double. Refuses: nothing.

use arrow::datatypes::SchemaRef;
use model::{Batch, Offset, PartitionId};

use crate::tier::manifest::ColdObject;

#[derive(Clone, Debug)]
pub struct Snapshot {
    pub partition: PartitionId,
    pub topic: String,
    /// Records before it were trimmed: rows below are not to be shown.
    pub start: Offset,
    /// The high watermark at that moment.
    pub end: Offset,
    pub manifest_version: u64,
    /// In offset order; paths are those of `Store::object_store`.
    pub cold: Vec<ColdObject>,
    /// Where the objects end and the hot batches begin.
    pub cold_end: Offset,
    /// Whole batches from `cold_end` (or `start`, if that is later) to `end`.
    pub hot: Vec<Batch>,
    /// Columns of the objects. An object written before the topic had its schema lacks the
    /// typed ones.
    pub schema: SchemaRef,
}

impl Snapshot {
    /// Records between start and end, cold and hot.
    pub fn records(&self) -> u64 {
        self.end.saturating_sub(self.start)
    }
}
