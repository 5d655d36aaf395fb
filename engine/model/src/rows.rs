//! Records as columns: what a batch decodes to and what operators exchange.
//!
//! Called by batch, storage, wasm, expr, pipelines, sql. Invariants: all columns have the same
//! number of rows (`check`); a clone shares the buffers; slices share them too. A null key is
//! no key, a null value is a tombstone. Timestamps are microseconds since the epoch, UTC.
//! Refuses columns of more than `i32::MAX` bytes and row numbers that are not there.

mod builder;
mod gather;
#[cfg(test)]
mod tests;
mod typed;

use arrow::array::{Array, BinaryArray, BinaryBuilder, StringArray};
use arrow::buffer::{OffsetBuffer, ScalarBuffer};

pub use builder::RowsBuilder;
pub use typed::TypedColumns;

/// Records as columns. The fields are public so that columns move without copying; what is
/// built by hand should pass [`Rows::check`].
#[derive(Debug, Clone, PartialEq)]
pub struct Rows {
    /// Event times: microseconds since the epoch, UTC.
    pub timestamps: ScalarBuffer<i64>,
    /// Null where a record has no key.
    pub keys: BinaryArray,
    /// Null where a record is a tombstone. Where there are `columns`, all others have no bytes.
    pub values: BinaryArray,
    /// `None` if no record has a header.
    pub headers: Option<Headers>,
    /// What the values are, in topics of `columns`; elsewhere `None`.
    pub columns: Option<TypedColumns>,
}

/// Headers of all records: entries of row `i` are `rows[i]..rows[i + 1]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Headers {
    pub rows: OffsetBuffer<i32>,
    pub names: StringArray,
    pub values: BinaryArray,
}

impl Headers {
    /// Bytes of names and values of `count` rows from row `from` on, which must exist.
    pub fn span_bytes(&self, from: usize, count: usize) -> usize {
        let (first, last) = (self.rows[from] as usize, self.rows[from + count] as usize);
        let span = |offsets: &[i32]| (offsets[last] - offsets[first]) as usize;
        span(self.names.value_offsets()) + span(self.values.value_offsets())
    }
}

/// Why columns do not make rows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RowsError {
    #[error("column {column} has {got} rows where there are {expected}")]
    Uneven {
        column: &'static str,
        expected: usize,
        got: usize,
    },
    #[error("row {row} does not exist: there are {rows}")]
    NoSuchRow { row: u32, rows: usize },
    #[error(
        "column {column} would have {bytes} bytes; a column holds at most {}",
        i32::MAX
    )]
    Overflow { column: &'static str, bytes: u64 },
    #[error("typed columns: {0}")]
    Typed(String),
}

impl RowsError {
    fn typed(error: arrow::error::ArrowError) -> RowsError {
        RowsError::Typed(error.to_string())
    }
}

/// One record of [`Rows`].
#[derive(Debug, Clone)]
pub struct RecordRef<'a> {
    /// Microseconds since the epoch, UTC.
    pub timestamp: i64,
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
    pub headers: HeaderIter<'a>,
}

/// The headers of one record, in order.
#[derive(Debug, Clone)]
pub struct HeaderIter<'a> {
    headers: Option<&'a Headers>,
    next: usize,
    end: usize,
}

impl<'a> Iterator for HeaderIter<'a> {
    type Item = (&'a str, Option<&'a [u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        let headers = self.headers.filter(|_| self.next < self.end)?;
        let entry = self.next;
        self.next += 1;
        Some((headers.names.value(entry), cell(&headers.values, entry)))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.end - self.next;
        (left, Some(left))
    }
}

impl ExactSizeIterator for HeaderIter<'_> {}

/// The bytes of one cell, `None` where it is null.
fn cell(array: &BinaryArray, index: usize) -> Option<&[u8]> {
    array.is_valid(index).then(|| array.value(index))
}

impl Headers {
    /// The entries of row `i`.
    fn entries(&self, i: usize) -> std::ops::Range<usize> {
        self.rows[i] as usize..self.rows[i + 1] as usize
    }

    /// No headers for `rows` rows.
    fn none(rows: usize) -> Headers {
        Headers {
            rows: OffsetBuffer::new_zeroed(rows),
            names: StringArray::new_null(0),
            values: BinaryArray::new_null(0),
        }
    }
}

impl Rows {
    /// No rows.
    pub fn empty() -> Rows {
        RowsBuilder::new().finish()
    }

    /// Rows of these columns, checked.
    pub fn new(
        timestamps: ScalarBuffer<i64>,
        keys: BinaryArray,
        values: BinaryArray,
        headers: Option<Headers>,
    ) -> Result<Rows, RowsError> {
        let rows = Rows {
            timestamps,
            keys,
            values,
            headers,
            columns: None,
        };
        rows.check()?;
        Ok(rows)
    }

    /// Whether all columns have the same number of rows.
    pub fn check(&self) -> Result<(), RowsError> {
        let expected = self.len();
        let same = |column, got| match got == expected {
            true => Ok(()),
            false => Err(RowsError::Uneven {
                column,
                expected,
                got,
            }),
        };
        same("keys", self.keys.len())?;
        same("values", self.values.len())?;
        if let Some(columns) = &self.columns {
            same("typed", columns.len())?;
            if data_bytes(&self.values) > 0 {
                let wrong = "the values have bytes beside them".to_owned();
                return Err(RowsError::Typed(wrong));
            }
        }
        let Some(headers) = &self.headers else {
            return Ok(());
        };
        same("headers", headers.rows.len() - 1)?;
        let entries = headers.names.len();
        let last = headers.rows[expected] as usize;
        let (column, got) = ("header values", headers.values.len());
        if got != entries {
            return Err(RowsError::Uneven {
                column,
                expected: entries,
                got,
            });
        }
        if last > entries {
            return Err(RowsError::Uneven {
                column: "header names",
                expected: last,
                got: entries,
            });
        }
        Ok(())
    }

    /// How many records.
    pub fn len(&self) -> usize {
        self.timestamps.len()
    }

    /// Whether there is no record.
    pub fn is_empty(&self) -> bool {
        self.timestamps.is_empty()
    }

    /// Bytes of all columns, as they would be encoded without compression.
    pub fn bytes(&self) -> usize {
        let headers = self.headers.as_ref().map_or(0, |h| {
            let entries = (h.rows[self.len()] - h.rows[0]) as usize;
            h.span_bytes(0, self.len()) + entries * 8 + self.len() * 4
        });
        self.len() * 16 + self.payload_bytes() + headers
    }

    /// The record at `i`, which must be less than `len()`.
    pub fn record(&self, i: usize) -> RecordRef<'_> {
        let range = self.headers.as_ref().map_or(0..0, |h| h.entries(i));
        RecordRef {
            timestamp: self.timestamps[i],
            key: cell(&self.keys, i),
            value: cell(&self.values, i),
            headers: HeaderIter {
                headers: self.headers.as_ref(),
                next: range.start,
                end: range.end,
            },
        }
    }

    /// All records in order.
    pub fn records(&self) -> impl ExactSizeIterator<Item = RecordRef<'_>> {
        (0..self.len()).map(|i| self.record(i))
    }

    /// Rows `from..from + len`, sharing the buffers. The range must be inside.
    pub fn slice(&self, from: usize, len: usize) -> Rows {
        Rows {
            timestamps: self.timestamps.slice(from, len),
            keys: self.keys.slice(from, len),
            values: self.values.slice(from, len),
            headers: self.headers.as_ref().map(|h| Headers {
                rows: h.rows.slice(from, len),
                names: h.names.clone(),
                values: h.values.clone(),
            }),
            columns: self.columns.as_ref().map(|c| c.slice(from, len)),
        }
    }

    /// The value of the first header `name` of each row, null where there is none.
    pub fn header(&self, name: &str) -> BinaryArray {
        let Some(headers) = &self.headers else {
            return BinaryArray::new_null(self.len());
        };
        let mut column = BinaryBuilder::with_capacity(self.len(), 0);
        for i in 0..self.len() {
            let entry = headers.entries(i).find(|e| headers.names.value(*e) == name);
            column.append_option(entry.and_then(|e| cell(&headers.values, e)));
        }
        column.finish()
    }

    /// The same rows with the header `name` set to `value` on every row.
    pub fn with_header(&self, name: &str, value: &[u8]) -> Result<Rows, RowsError> {
        let column = BinaryArray::from_iter_values(std::iter::repeat_n(value, self.len()));
        self.with_headers(&[(name.to_owned(), column)])
    }

    /// The same rows with headers set from columns of one cell a row. A header that is there
    /// already under that name is replaced; a null cell leaves the row without it.
    pub fn with_headers(&self, columns: &[(String, BinaryArray)]) -> Result<Rows, RowsError> {
        let rows = self.len();
        for (_, column) in columns {
            if column.len() != rows {
                let (expected, got) = (rows, column.len());
                return Err(RowsError::Uneven {
                    column: "header",
                    expected,
                    got,
                });
            }
        }
        let mut entries = builder::HeadersBuilder::default();
        for i in 0..rows {
            for (name, value) in self.record(i).headers {
                if !columns.iter().any(|(set, _)| set == name) {
                    entries.push(name, value)?;
                }
            }
            for (name, column) in columns {
                if column.is_valid(i) {
                    entries.push(name, Some(column.value(i)))?;
                }
            }
            entries.end_row();
        }
        Ok(Rows {
            headers: entries.finish(),
            ..self.clone()
        })
    }
}

/// Bytes of the cells of `array`, without what a slice leaves out.
fn data_bytes(array: &BinaryArray) -> usize {
    let offsets = array.value_offsets();
    (offsets[array.len()] - offsets[0]) as usize
}
