//! How a returned value becomes a row.
//!
//! Called by: `rt::Emitter`.
//! Invariants: whatever serde can serialize is JSON; only [`Raw`] and [`Tombstone`] are not.

use serde::Serialize;

use crate::column::Column;
use crate::record::{Raw, Record, Reject, Tombstone};

/// A value of a record.
pub trait Payload {
    #[doc(hidden)]
    fn write_to(&self, values: &mut Column) -> Result<(), Reject>;
}

impl<T: Serialize> Payload for T {
    #[inline]
    fn write_to(&self, values: &mut Column) -> Result<(), Reject> {
        values
            .push_with(|bytes| serde_json::to_writer(bytes, self))
            .map_err(|e| Reject::new("encode", e))
    }
}

impl<B: AsRef<[u8]>> Payload for Raw<B> {
    fn write_to(&self, values: &mut Column) -> Result<(), Reject> {
        values.push(Some(self.0.as_ref()));
        Ok(())
    }
}

impl Payload for Tombstone {
    fn write_to(&self, values: &mut Column) -> Result<(), Reject> {
        values.push(None);
        Ok(())
    }
}

/// A row to be: a value alone, or a [`Record`].
pub trait Output {
    type Value: Payload;
    #[doc(hidden)]
    fn into_record(self) -> Record<Self::Value>;
}

impl<T: Payload> Output for T {
    type Value = T;

    #[inline]
    fn into_record(self) -> Record<T> {
        Record::new(self)
    }
}

impl<T: Payload> Output for Record<T> {
    type Value = T;

    #[inline]
    fn into_record(self) -> Record<T> {
        self
    }
}
