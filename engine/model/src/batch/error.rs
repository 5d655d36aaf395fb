//! What can be wrong with a batch: one enum for reading, one for writing.
//!
//! Called by `batch` only; shown to users through broker and protocol. Invariant: each message
//! says what was found and what was due.

use crate::limits::{
    BATCH_BYTES_MAX, BATCH_DECODED_BYTES_MAX, BATCH_RECORDS_MAX, HEADER_NAME_BYTES_MAX,
    HEADERS_MAX, RECORD_BYTES_MAX,
};
use crate::rows::RowsError;

/// Why bytes are not a batch, or its sections not rows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    #[error("{have} bytes are too few for a batch, which needs {needed}")]
    Truncated { needed: usize, have: usize },
    #[error("{extra} bytes follow after the batch")]
    Trailing { extra: usize },
    #[error("not a batch: it begins with {found:#010x}")]
    Magic { found: u32 },
    #[error("batch version {found} is not known here; the newest known is 1: upgrade")]
    Version { found: u8 },
    #[error("the checksum of the batch is {found:#010x} where its bytes give {computed:#010x}")]
    Checksum { found: u32, computed: u32 },
    #[error("batch of {bytes} bytes; at most {BATCH_BYTES_MAX} are allowed")]
    TooLarge { bytes: u64 },
    #[error("batch of {bytes} bytes uncompressed; at most {BATCH_DECODED_BYTES_MAX} are allowed")]
    DecodedTooLarge { bytes: u64 },
    #[error("batch of {records} records; 1 to {BATCH_RECORDS_MAX} are allowed")]
    Records { records: u32 },
    #[error("record {row} of the batch has {bytes} bytes; at most {RECORD_BYTES_MAX} are allowed")]
    RecordTooLarge { row: usize, bytes: usize },
    #[error("batch needs section {id}, which is not known here: upgrade")]
    UnknownSection { id: u16 },
    #[error("section {id} of the batch is wrong: {detail}")]
    Section { id: u16, detail: String },
    #[error("batch is wrong: {detail}")]
    Invalid { detail: String },
}

/// Why rows cannot be encoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    #[error("a batch needs at least one record")]
    Empty,
    #[error(transparent)]
    Rows(#[from] RowsError),
    #[error("a batch has at most {BATCH_RECORDS_MAX} records, not {records}; send several")]
    TooManyRecords { records: usize },
    #[error("record {row} has {bytes} bytes; at most {RECORD_BYTES_MAX} are allowed")]
    RecordTooLarge { row: usize, bytes: usize },
    #[error("record {row} has {headers} headers; at most {HEADERS_MAX} are allowed")]
    TooManyHeaders { row: usize, headers: usize },
    #[error(
        "record {row} has a header name of {bytes} bytes; at most {HEADER_NAME_BYTES_MAX} are \
         allowed"
    )]
    HeaderName { row: usize, bytes: usize },
    #[error("batch of {bytes} bytes; at most {limit} are allowed: send several")]
    TooLarge { bytes: usize, limit: usize },
    #[error("offset deltas must be one a record, growing, not past the last: record {row}")]
    Deltas { row: usize },
    #[error("compression failed: {0}")]
    Compress(String),
}
