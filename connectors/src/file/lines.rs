//! Splits a byte stream into lines without copying them.
//!
//! Called by: `file` for jsonl and raw. A line is a slice of the read chunk it lies in; only a
//! line that crosses the end of a chunk is moved, once per chunk growth.
//! Invariants: held memory ≤ record limit + one chunk; a line above the limit is an error before
//! more of it is read; the last line needs no newline.

use std::io::{self, Read};

use bytes::{Bytes, BytesMut};

use super::SourceError;

/// Bytes that lines are cut from before a new chunk is taken.
const CHUNK_BYTES: usize = 256 * 1024;
/// Bytes asked of the reader at once; the space is zeroed first, so not more than pipes give.
const READ_BYTES: usize = 64 * 1024;

pub(super) struct Lines {
    name: String,
    reader: Box<dyn Read + Send>,
    bytes_max: usize,
    /// Read and not yet given out.
    held: BytesMut,
    /// Bytes of `held` known to have no newline.
    searched: usize,
    line: u64,
    ended: bool,
}

impl Lines {
    pub(super) fn new(name: String, reader: Box<dyn Read + Send>, bytes_max: usize) -> Lines {
        Lines {
            name,
            reader,
            bytes_max,
            held: BytesMut::new(),
            searched: 0,
            line: 0,
            ended: false,
        }
    }

    /// The next line without its newline, and its number from 1.
    pub(super) fn next(&mut self) -> Result<Option<(u64, Bytes)>, SourceError> {
        loop {
            if let Some(at) = memchr::memchr(b'\n', &self.held[self.searched..]) {
                let line = self.held.split_to(self.searched + at + 1).freeze();
                self.searched = 0;
                return self.give(line.slice(..line.len() - 1)).map(Some);
            }
            self.searched = self.held.len();
            // One byte more than the limit may be a `\r` that the caller drops.
            if self.held.len() > self.bytes_max + 1 {
                return Err(self.too_large(self.line + 1));
            }
            if self.ended {
                if self.held.is_empty() {
                    return Ok(None);
                }
                self.searched = 0;
                let line = self.held.split().freeze();
                return self.give(line).map(Some);
            }
            self.fill()?;
        }
    }

    /// Refuses a record above the limit.
    pub(super) fn check_size(&self, line: u64, bytes: usize) -> Result<(), SourceError> {
        if bytes > self.bytes_max {
            Err(self.too_large(line))
        } else {
            Ok(())
        }
    }

    fn give(&mut self, line: Bytes) -> Result<(u64, Bytes), SourceError> {
        self.line += 1;
        Ok((self.line, line))
    }

    fn fill(&mut self) -> Result<(), SourceError> {
        let before = self.held.len();
        // A new chunk only when this one is used up: lines already given out are not copied.
        if self.held.capacity() - before < READ_BYTES / 4 {
            self.held.reserve(CHUNK_BYTES);
        }
        let want = (self.held.capacity() - before).min(READ_BYTES);
        self.held.resize(before + want, 0);
        let read = loop {
            match self.reader.read(&mut self.held[before..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other,
            }
        };
        self.held.truncate(before + *read.as_ref().unwrap_or(&0));
        match read {
            Ok(0) => self.ended = true,
            Ok(_) => {}
            Err(source) => {
                let file = self.name.clone();
                return Err(SourceError::Read {
                    file,
                    line: self.line + 1,
                    source,
                });
            }
        }
        Ok(())
    }

    fn too_large(&self, line: u64) -> SourceError {
        SourceError::TooLarge {
            file: self.name.clone(),
            line,
            bytes_max: self.bytes_max,
        }
    }
}
