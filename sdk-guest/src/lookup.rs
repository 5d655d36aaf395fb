//! Tables that the node declares: the newest value of every key of a topic.
//!
//! ```
//! # extern crate rustmq_sdk as rustmq;
//! use rustmq::{Lookup, Reject};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Deserialize)]
//! struct Order { user: String, cents: u64 }
//!
//! #[derive(Deserialize)]
//! struct User { city: String }
//!
//! #[derive(Serialize)]
//! struct Sale { city: String, cents: u64 }
//!
//! #[rustmq::map]
//! fn place(order: Order, users: &Lookup) -> Result<Sale, Reject> {
//!     let user: Option<User> = users.get(&order.user)?;
//!     let user = user.ok_or_else(|| Reject::new("user", format!("no user {}", order.user)))?;
//!     Ok(Sale { city: user.city, cents: order.cents })
//! }
//!
//! let node = rustmq::testing::Harness::new().lookup("users", [("ann", r#"{"city":"Ghent"}"#)]);
//! let out = node.run::<place>([r#"{"user":"ann","cents":5}"#, r#"{"user":"bob","cents":7}"#]);
//! assert_eq!(out.texts("out"), [r#"{"city":"Ghent","cents":5}"#]);
//! assert_eq!(out.rejects[0].message, "no user bob");
//! ```
//!
//! Called by: guests. Invariants: while a batch is worked on a table does not change; between batches it
//! follows its topic. Each call crosses the boundary: ask for many keys at once where there are many.

use serde::de::DeserializeOwned;

use crate::column::Column;
use crate::record::Reject;
use crate::sys;

/// A table of the node's `lookups`. A parameter `users: &Lookup` of a function with an attribute is the
/// table `users`; a [`crate::Module`] opens it with [`crate::Context::lookup`].
#[derive(Debug, Clone)]
pub struct Lookup(pub(crate) sys::Lookup);

impl Lookup {
    /// What stands at a key, read from JSON.
    pub fn get<T: DeserializeOwned>(&self, key: impl AsRef<[u8]>) -> Result<Option<T>, Reject> {
        let Some(bytes) = self.get_bytes(key) else {
            return Ok(None);
        };
        let read = serde_json::from_slice(&bytes);
        read.map(Some)
            .map_err(|e| Reject::new("lookup", format!("what was found does not fit: {e}")))
    }

    pub fn get_bytes(&self, key: impl AsRef<[u8]>) -> Option<Vec<u8>> {
        let mut keys = Column::new();
        keys.push(Some(key.as_ref()));
        self.get_all(&keys).get(0).map(<[u8]>::to_vec)
    }

    /// What stands at many keys, with one call of the host; absent where nothing does, or where the key is
    /// absent.
    pub fn get_all(&self, keys: &Column) -> Column {
        self.0.get(keys)
    }
}
