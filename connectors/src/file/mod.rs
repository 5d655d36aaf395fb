//! Files and standard input as records: JSON lines, CSV, raw lines; `.zst` by extension.
//!
//! Called by: `rustmq produce`. Calls: `input` (opening), `lines` (splitting), `json` (keys),
//! `csv` (rows to objects).
//! Invariants: values of `jsonl` and `raw` are the bytes of the line; every error names file and
//! line; after an error the iterator has ended; no record above the limit is ever held in full.
//! Refuses: gzip (named in the message), CSV rows whose length differs from the header's.
//!
//! `jsonl`: each non-empty line is a value, valid JSON or not; one `\r` before the newline is
//! dropped. `raw`: each line is a value, empty ones and `\r` included. `csv`: the first row names
//! the columns, each further row becomes a JSON object of strings.

mod csv;
mod error;
mod input;
mod json;
mod lines;
#[cfg(test)]
mod tests;

use std::io::Read;
use std::path::PathBuf;
use std::str::FromStr;

use bytes::Bytes;

pub use error::SourceError;

/// How the bytes of an input become records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Format {
    #[default]
    Jsonl,
    Csv,
    Raw,
}

/// Text of a format that is none.
#[derive(Debug, thiserror::Error)]
#[error("unknown format {0:?}: use jsonl, csv or raw")]
pub struct FormatError(String);

impl FromStr for Format {
    type Err = FormatError;

    fn from_str(text: &str) -> Result<Format, FormatError> {
        match text {
            "jsonl" => Ok(Format::Jsonl),
            "csv" => Ok(Format::Csv),
            "raw" => Ok(Format::Raw),
            other => Err(FormatError(other.to_string())),
        }
    }
}

/// What to read a file as.
#[derive(Clone, Debug)]
pub struct FileSource {
    pub format: Format,
    /// Field (jsonl) or column (csv) whose text becomes the key; refused with `raw`.
    pub key: Option<String>,
    /// Largest key plus value, checked while reading.
    pub record_bytes_max: usize,
}

impl Default for FileSource {
    fn default() -> FileSource {
        FileSource {
            format: Format::Jsonl,
            key: None,
            record_bytes_max: model::limits::RECORD_BYTES_MAX,
        }
    }
}

/// Where the bytes come from.
pub enum Input {
    /// A file; `-` is standard input; `.zst` is decompressed on the way.
    Path(PathBuf),
    /// Any reader, with the name that errors give it.
    Reader {
        name: String,
        reader: Box<dyn Read + Send>,
    },
}

/// One record of an input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceRecord {
    pub key: Option<Bytes>,
    pub value: Bytes,
    /// Line where the record begins, from 1.
    pub line: u64,
}

/// The records of one input, in order; ends after the first error.
pub struct FileRecords {
    rows: Option<Rows>,
    unkeyed: u64,
}

enum Rows {
    Lines {
        lines: lines::Lines,
        skip_empty: bool,
        key: Option<String>,
    },
    Csv(Box<csv::CsvRows>),
}

/// Opens an input. A CSV header is read here, so that a wrong `key` is known before any record.
pub fn open(input: Input, source: FileSource) -> Result<FileRecords, SourceError> {
    let (name, reader) = input::open(input)?;
    let limit = source.record_bytes_max;
    let rows = match source.format {
        Format::Csv => Rows::Csv(Box::new(csv::CsvRows::open(
            name, reader, source.key, limit,
        )?)),
        Format::Jsonl => {
            let lines = lines::Lines::new(name, reader, limit);
            Rows::Lines {
                lines,
                skip_empty: true,
                key: source.key,
            }
        }
        Format::Raw => {
            if let Some(key) = source.key {
                return Err(SourceError::KeyOfRaw { file: name, key });
            }
            let lines = lines::Lines::new(name, reader, limit);
            Rows::Lines {
                lines,
                skip_empty: false,
                key: None,
            }
        }
    };
    Ok(FileRecords {
        rows: Some(rows),
        unkeyed: 0,
    })
}

impl FileRecords {
    /// Records so far that should have had a key and did not: the line is no JSON object or
    /// lacks the field, or the field is null.
    pub fn unkeyed(&self) -> u64 {
        self.unkeyed
    }
}

impl Rows {
    fn next(&mut self) -> Result<Option<SourceRecord>, SourceError> {
        match self {
            Rows::Csv(rows) => rows.next(),
            Rows::Lines {
                lines,
                skip_empty,
                key,
            } => loop {
                let Some((line, mut value)) = lines.next()? else {
                    return Ok(None);
                };
                if *skip_empty {
                    if value.last() == Some(&b'\r') {
                        value.truncate(value.len() - 1);
                    }
                    if value.is_empty() {
                        continue;
                    }
                }
                let key = key
                    .as_deref()
                    .and_then(|field| json::field_text(&value, field));
                lines.check_size(line, key.as_ref().map_or(0, Bytes::len) + value.len())?;
                return Ok(Some(SourceRecord { key, value, line }));
            },
        }
    }

    fn wants_key(&self) -> bool {
        match self {
            Rows::Lines { key, .. } => key.is_some(),
            Rows::Csv(rows) => rows.wants_key(),
        }
    }
}

impl Iterator for FileRecords {
    type Item = Result<SourceRecord, SourceError>;

    fn next(&mut self) -> Option<Self::Item> {
        let rows = self.rows.as_mut()?;
        match rows.next() {
            Ok(Some(record)) => {
                if record.key.is_none() && rows.wants_key() {
                    self.unkeyed += 1;
                }
                Some(Ok(record))
            }
            Ok(None) => {
                self.rows = None;
                None
            }
            Err(error) => {
                self.rows = None;
                Some(Err(error))
            }
        }
    }
}
