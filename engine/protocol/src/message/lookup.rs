//! Offsets by meaning: earliest, latest, first at or after a time.
//!
//! What: `Lookup` and `Found`, JSON. Called by: consumers where they begin.

use model::ids::{Offset, PartitionId};
use model::port;
use serde::{Deserialize, Serialize};

use crate::wire::json_bodies;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Lookup {
    pub partition: PartitionId,
    pub at: port::Lookup,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Found {
    pub offset: Offset,
}

json_bodies!(Lookup, Found);
