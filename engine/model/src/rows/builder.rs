//! Builds rows record by record.
//!
//! Called by producers, connectors, tests and `Rows::with_headers`. Invariants: columns stay of
//! even length; headers cost nothing until the first one comes. Refuses more than `i32::MAX`
//! bytes in a column.

use arrow::array::{BinaryArray, NullBufferBuilder, StringArray};
use arrow::buffer::{Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};

use super::{Headers, Rows, RowsError};

/// Builds [`Rows`] one record at a time.
#[derive(Debug, Default)]
pub struct RowsBuilder {
    timestamps: Vec<i64>,
    keys: Column,
    values: Column,
    headers: HeadersBuilder,
}

impl RowsBuilder {
    /// An empty builder.
    pub fn new() -> RowsBuilder {
        RowsBuilder::default()
    }

    /// Adds a record. `timestamp` is in microseconds since the epoch, UTC; no key and no value
    /// are `None`.
    ///
    /// # Panics
    /// When a column grows beyond 2 GiB; callers bound their batch by [`RowsBuilder::bytes`].
    pub fn push(
        &mut self,
        timestamp: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[(&str, Option<&[u8]>)],
    ) {
        const BOUNDED: &str = "the caller bounds a batch far below 2 GiB";
        self.timestamps.push(timestamp);
        self.keys.push(key).expect(BOUNDED);
        self.values.push(value).expect(BOUNDED);
        for (name, value) in headers {
            self.headers.push(name, *value).expect(BOUNDED);
        }
        self.headers.end_row();
    }

    /// How many records are in it.
    pub fn len(&self) -> usize {
        self.timestamps.len()
    }

    /// Whether there is no record in it.
    pub fn is_empty(&self) -> bool {
        self.timestamps.is_empty()
    }

    /// Bytes of all columns so far, uncompressed.
    pub fn bytes(&self) -> usize {
        self.len() * 16 + self.keys.data.len() + self.values.data.len() + self.headers.bytes()
    }

    /// The rows.
    pub fn finish(self) -> Rows {
        Rows {
            timestamps: self.timestamps.into(),
            keys: self.keys.finish(),
            values: self.values.finish(),
            headers: self.headers.finish(),
            columns: None,
        }
    }
}

/// One column of byte strings.
#[derive(Debug)]
struct Column {
    ends: Vec<i32>,
    data: Vec<u8>,
    nulls: NullBufferBuilder,
}

impl Default for Column {
    fn default() -> Column {
        Column {
            ends: vec![0],
            data: Vec::new(),
            nulls: NullBufferBuilder::new(0),
        }
    }
}

impl Column {
    fn push(&mut self, cell: Option<&[u8]>) -> Result<(), RowsError> {
        match cell {
            Some(bytes) => {
                self.data.extend_from_slice(bytes);
                self.nulls.append_non_null();
            }
            None => self.nulls.append_null(),
        }
        let bytes = self.data.len() as u64;
        let end = i32::try_from(bytes);
        self.ends.push(end.map_err(|_| RowsError::Overflow {
            column: "bytes",
            bytes,
        })?);
        Ok(())
    }

    fn finish(self) -> BinaryArray {
        let (offsets, data, nulls) = self.parts();
        BinaryArray::new(offsets, data, nulls)
    }

    fn parts(mut self) -> (OffsetBuffer<i32>, Buffer, Option<NullBuffer>) {
        let nulls = self.nulls.finish();
        (OffsetBuffer::new(self.ends.into()), self.data.into(), nulls)
    }
}

/// Headers of rows, built entry by entry.
#[derive(Debug, Default)]
pub(super) struct HeadersBuilder {
    /// Where the entries of each finished row end.
    ends: Vec<i32>,
    names: Column,
    values: Column,
}

impl HeadersBuilder {
    /// Adds an entry to the row that is not ended yet.
    pub(super) fn push(&mut self, name: &str, value: Option<&[u8]>) -> Result<(), RowsError> {
        self.names.push(Some(name.as_bytes()))?;
        self.values.push(value)
    }

    /// Ends a row.
    pub(super) fn end_row(&mut self) {
        // As many entries as offsets of `names`, which are within i32.
        self.ends.push((self.names.ends.len() - 1) as i32);
    }

    fn bytes(&self) -> usize {
        match self.names.ends.len() - 1 {
            0 => 0,
            n => self.names.data.len() + self.values.data.len() + n * 8 + self.ends.len() * 4,
        }
    }

    /// `None` if there was no entry at all.
    pub(super) fn finish(self) -> Option<Headers> {
        if self.names.ends.len() == 1 {
            return None;
        }
        let mut rows = Vec::with_capacity(self.ends.len() + 1);
        rows.push(0);
        rows.extend(self.ends);
        let (offsets, data, nulls) = self.names.parts();
        let names = StringArray::try_new(offsets, data, nulls);
        Some(Headers {
            rows: OffsetBuffer::new(ScalarBuffer::from(rows)),
            names: names.expect("the names came in as str, cut where they were joined"),
            values: self.values.finish(),
        })
    }
}
