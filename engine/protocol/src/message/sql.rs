//! SQL: one question, an answer in many frames.
//!
//! What: `Sql` (JSON) and `SqlChunk` (a piece of the rendered text). Called by: `rustmq sql`.
//! Invariants: the chunks put together are the answer; an error frame may end them early.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::error::DecodeError;
use crate::wire::{Body, Reader, Writer, json_bodies};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sql {
    pub query: String,
    pub format: SqlFormat,
    /// The server's own limits if `None`.
    pub row_limit: Option<u64>,
    pub timeout_ms: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SqlFormat {
    Table,
    Jsonl,
    Csv,
}

#[derive(Clone, Debug, PartialEq)]
pub struct SqlChunk {
    pub text: Bytes,
}

impl Body for SqlChunk {
    const NAME: &'static str = "SqlChunk";

    fn write(&self, out: &mut Writer) {
        out.bytes(&self.text);
    }

    fn read(from: &mut Reader) -> Result<SqlChunk, DecodeError> {
        Ok(SqlChunk { text: from.rest() })
    }
}

json_bodies!(Sql);
