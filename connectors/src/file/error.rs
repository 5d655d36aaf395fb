//! What can be wrong with an input file, each with file and line and what to do.
//!
//! Called by: every part of `file`. Messages begin with `FILE:LINE:` where a line is known.

/// Why an input could not be opened or read on.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    #[error("{file}: cannot be opened: {source}")]
    Open {
        file: String,
        source: std::io::Error,
    },
    #[error("{file}: gzip is not supported: decompress it first, or recompress it with zstd")]
    Gzip { file: String },
    #[error("{file}:{line}: cannot be read: {source}")]
    Read {
        file: String,
        line: u64,
        source: std::io::Error,
    },
    #[error("{file}:{line}: the record is larger than {bytes_max} bytes: split it")]
    TooLarge {
        file: String,
        line: u64,
        bytes_max: usize,
    },
    #[error("{file}:{line}: the row has {found} fields, the header has {expected}")]
    Ragged {
        file: String,
        line: u64,
        found: usize,
        expected: usize,
    },
    #[error("{file}:{line}: a quote opened in this row is never closed")]
    QuoteOpen { file: String, line: u64 },
    #[error("{file}:{line}: column {column} is not valid UTF-8")]
    NotText {
        file: String,
        line: u64,
        column: String,
    },
    #[error("{file}:{line}: column {column:?} stands twice in the header")]
    ColumnTwice {
        file: String,
        line: u64,
        column: String,
    },
    #[error("{file}:{line}: no column {key:?} for the key: the columns are {columns}")]
    KeyUnknown {
        file: String,
        line: u64,
        key: String,
        columns: String,
    },
    #[error("{file}: raw lines have no field {key:?} for a key: use jsonl or csv")]
    KeyOfRaw { file: String, key: String },
}
