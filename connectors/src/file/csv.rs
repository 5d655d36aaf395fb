//! CSV rows as JSON objects of strings, in the order of the header's columns.
//!
//! Called by: `file` for csv. Calls: `lines`, so memory is bounded as it is there.
//! RFC 4180: commas, double quotes that may hold commas, line ends and doubled quotes; CRLF or
//! LF; a byte order mark before the header is dropped; empty lines are skipped. A quote inside an
//! unquoted field is an ordinary character.
//! Invariants: a record's line is the one where it begins, whatever its fields hold; a quote that
//! never closes takes no more memory than the record limit and one line.
//! Refuses: ragged rows, columns named twice, open quotes, fields that are not UTF-8.

use std::io::Read;

use bytes::{BufMut, Bytes, BytesMut};

use super::lines::Lines;
use super::{SourceError, SourceRecord};

/// Values are cut from blocks of this size, so that most need no allocation of their own.
const BLOCK_BYTES: usize = 64 * 1024;

pub(super) struct CsvRows {
    name: String,
    lines: Lines,
    fields: Fields,
    /// `{"first":` and `,"next":` for each column.
    names: Vec<String>,
    columns: Vec<String>,
    key: Option<usize>,
    block: BytesMut,
}

/// The fields of one row, unquoted, one after the other.
#[derive(Default)]
struct Fields {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl CsvRows {
    pub(super) fn open(
        name: String,
        reader: Box<dyn Read + Send>,
        key: Option<String>,
        bytes_max: usize,
    ) -> Result<CsvRows, SourceError> {
        let mut rows = CsvRows {
            lines: Lines::new(name.clone(), reader, bytes_max),
            name,
            fields: Fields::default(),
            names: Vec::new(),
            columns: Vec::new(),
            key: None,
            block: BytesMut::new(),
        };
        if let Some(line) = rows.read()? {
            rows.header(line, key)?;
        }
        Ok(rows)
    }

    pub(super) fn wants_key(&self) -> bool {
        self.key.is_some()
    }

    pub(super) fn next(&mut self) -> Result<Option<SourceRecord>, SourceError> {
        let Some(line) = self.read()? else {
            return Ok(None);
        };
        let (found, expected) = (self.fields.ends.len(), self.names.len());
        if found != expected {
            return Err(SourceError::Ragged {
                file: self.name.clone(),
                line,
                found,
                expected,
            });
        }
        let value = self.object(line)?;
        let key = self
            .key
            .map(|column| Bytes::copy_from_slice(self.fields.get(column)));
        self.lines
            .check_size(line, value.len() + key.as_ref().map_or(0, Bytes::len))?;
        Ok(Some(SourceRecord { key, value, line }))
    }

    fn header(&mut self, line: u64, key: Option<String>) -> Result<(), SourceError> {
        for at in 0..self.fields.ends.len() {
            let column = match std::str::from_utf8(self.fields.get(at)) {
                Ok(column) => column.to_string(),
                Err(_) => return Err(self.not_text(line, at)),
            };
            if self.columns.contains(&column) {
                return Err(SourceError::ColumnTwice {
                    file: self.name.clone(),
                    line,
                    column,
                });
            }
            let open = if at == 0 { '{' } else { ',' };
            self.names.push(format!(
                "{open}{}:",
                serde_json::Value::from(column.as_str())
            ));
            self.columns.push(column);
        }
        if let Some(key) = key {
            let file = self.name.clone();
            let Some(at) = self.columns.iter().position(|column| *column == key) else {
                let columns = self.columns.join(", ");
                return Err(SourceError::KeyUnknown {
                    file,
                    line,
                    key,
                    columns,
                });
            };
            self.key = Some(at);
        }
        Ok(())
    }

    /// Reads the next row into `fields` and says on which line it begins.
    fn read(&mut self) -> Result<Option<u64>, SourceError> {
        let (first, mut line) = loop {
            let Some((first, mut line)) = self.lines.next()? else {
                return Ok(None);
            };
            if first == 1 && line.starts_with(b"\xef\xbb\xbf") {
                line = line.slice(3..);
            }
            if !line.is_empty() && *line != *b"\r" {
                break (first, line);
            }
        };
        self.fields.clear();
        let mut quoted = false;
        loop {
            quoted = self.fields.take(&line, quoted);
            if !quoted {
                return Ok(Some(first));
            }
            self.lines.check_size(first, self.fields.bytes.len())?;
            match self.lines.next()? {
                Some((_, next)) => line = next,
                None => {
                    return Err(SourceError::QuoteOpen {
                        file: self.name.clone(),
                        line: first,
                    });
                }
            }
        }
    }

    fn object(&mut self, line: u64) -> Result<Bytes, SourceError> {
        let names: usize = self.names.iter().map(String::len).sum();
        let need = names + self.fields.bytes.len() + 2 * self.fields.ends.len() + 2;
        if self.block.capacity() < need {
            self.block.reserve(need.max(BLOCK_BYTES));
        }
        for (at, name) in self.names.iter().enumerate() {
            let Ok(text) = std::str::from_utf8(self.fields.get(at)) else {
                return Err(self.not_text(line, at));
            };
            self.block.put_slice(name.as_bytes());
            put_string(&mut self.block, text);
        }
        self.block.put_u8(b'}');
        Ok(self.block.split().freeze())
    }

    fn not_text(&self, line: u64, at: usize) -> SourceError {
        let column = match self.columns.get(at) {
            Some(name) => format!("{name:?}"),
            None => (at + 1).to_string(),
        };
        SourceError::NotText {
            file: self.name.clone(),
            line,
            column,
        }
    }
}

impl Fields {
    fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }

    fn get(&self, at: usize) -> &[u8] {
        let from = if at == 0 { 0 } else { self.ends[at - 1] };
        &self.bytes[from..self.ends[at]]
    }

    /// Takes the fields of one line; `quoted` says that it begins inside of quotes, and so does
    /// the answer for the line that follows.
    fn take(&mut self, line: &[u8], quoted: bool) -> bool {
        let mut rest = line;
        let mut inside = quoted;
        loop {
            if !inside && rest.first() == Some(&b'"') {
                inside = true;
                rest = &rest[1..];
            }
            if inside {
                let Some(after) = self.take_quoted(rest) else {
                    return true;
                };
                inside = false;
                rest = after;
            }
            let end = memchr::memchr(b',', rest);
            let plain = &rest[..end.unwrap_or(rest.len())];
            let last = end.is_none() && plain.last() == Some(&b'\r');
            self.bytes
                .extend_from_slice(&plain[..plain.len() - usize::from(last)]);
            self.ends.push(self.bytes.len());
            match end {
                Some(at) => rest = &rest[at + 1..],
                None => return false,
            }
        }
    }

    /// Takes up to the closing quote and gives what follows it; `None`: the line ended first.
    fn take_quoted<'l>(&mut self, mut rest: &'l [u8]) -> Option<&'l [u8]> {
        loop {
            let Some(at) = memchr::memchr(b'"', rest) else {
                self.bytes.extend_from_slice(rest);
                self.bytes.push(b'\n');
                return None;
            };
            self.bytes.extend_from_slice(&rest[..at]);
            rest = &rest[at + 1..];
            if rest.first() != Some(&b'"') {
                return Some(rest);
            }
            self.bytes.push(b'"');
            rest = &rest[1..];
        }
    }
}

/// Writes a JSON string; text without anything to escape is copied whole.
fn put_string(out: &mut BytesMut, text: &str) {
    let plain = text
        .bytes()
        .all(|byte| byte >= 0x20 && byte != b'"' && byte != b'\\');
    if plain {
        out.put_u8(b'"');
        out.put_slice(text.as_bytes());
        out.put_u8(b'"');
    } else {
        serde_json::to_writer(out.writer(), text).expect("writing a string to memory");
    }
}
