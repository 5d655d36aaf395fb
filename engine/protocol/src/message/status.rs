//! The state of a server, and moving data to the tier by hand.
//!
//! What: `Tier` and `Status`, JSON. Called by: `rustmq status`, the demo, tests.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::wire::json_bodies;

/// Move what can be moved now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tier {
    /// All topics if `None`.
    pub topic: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tiered {
    /// What was moved: the store's own report.
    pub report: Value,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StatusReport {
    pub status: Value,
}

json_bodies!(Tier, Tiered, Status, StatusReport);
