//! Chosen rows of one set of rows, and many sets made one.
//!
//! Called by operators (forward, filter, route) and by storage (joining batches). Invariants:
//! neighbours in the choice are copied with one `memcpy`; a choice that is one run shares the
//! buffers. Refuses a row that is not there and a column beyond `i32::MAX` bytes before copying.

use std::ops::Range;

use arrow::array::{Array, BinaryArray, GenericByteArray, StringArray};
use arrow::buffer::{NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::ByteArrayType;

use super::{Headers, Rows, RowsError, data_bytes, typed};

impl Rows {
    /// The chosen rows, in the order of the choice; a row may be chosen more than once.
    ///
    /// # Panics
    /// When a row is not there or a column would pass 2 GiB: use [`Rows::try_take`] for
    /// choices that come from outside.
    pub fn take(&self, rows: &[u32]) -> Rows {
        self.try_take(rows)
            .expect("the caller chose rows that are there, and not too many")
    }

    /// As [`Rows::take`], for choices that come from outside.
    pub fn try_take(&self, rows: &[u32]) -> Result<Rows, RowsError> {
        let len = self.len();
        if let Some(row) = rows.iter().copied().find(|row| *row as usize >= len) {
            return Err(RowsError::NoSuchRow { row, rows: len });
        }
        if let Some((from, len)) = one_run(rows) {
            return Ok(self.slice(from, len));
        }
        let headers = self
            .headers
            .as_ref()
            .map(|h| take_headers(h, rows))
            .transpose()?;
        Ok(Rows {
            timestamps: rows
                .iter()
                .map(|row| self.timestamps[*row as usize])
                .collect(),
            keys: gather("keys", &self.keys, rows)?,
            values: gather("values", &self.values, rows)?,
            headers,
            columns: self.columns.as_ref().map(|c| c.take(rows)).transpose()?,
        })
    }

    /// All rows of all parts, in order. Refused when a column would pass `i32::MAX` bytes.
    pub fn concat(parts: &[Rows]) -> Result<Rows, RowsError> {
        if let [one] = parts {
            return Ok(one.clone());
        }
        let keys: Vec<_> = parts.iter().map(|p| &p.keys).collect();
        let values: Vec<_> = parts.iter().map(|p| &p.values).collect();
        let mut timestamps = Vec::with_capacity(parts.iter().map(Rows::len).sum());
        for part in parts {
            timestamps.extend_from_slice(&part.timestamps);
        }
        Ok(Rows {
            timestamps: timestamps.into(),
            keys: join("keys", &keys)?,
            values: join("values", &values)?,
            headers: join_headers(parts)?,
            columns: typed::join(parts)?,
        })
    }

    /// Bytes of keys, values and headers of the chosen rows, to check a budget before taking them.
    /// Rows that are not there count as nothing.
    pub fn taken_bytes(&self, rows: &[u32]) -> u64 {
        match one_run(rows) {
            Some((from, len)) if from + len <= self.len() => self.run_bytes(from, len),
            _ => {
                let values = span_of(self.values.value_offsets(), Some(rows));
                self.key_bytes(Some(rows)) + values + self.header_bytes(Some(rows))
            }
        }
    }

    /// The same of neighbours, which must be there.
    fn run_bytes(&self, from: usize, len: usize) -> u64 {
        let cells = |array: &BinaryArray| span(&array.value_offsets()[from..=from + len]) as u64;
        let headers = self.headers.as_ref();
        let headers = headers.map_or(0, |headers| headers.cost(from..from + len));
        cells(&self.keys) + cells(&self.values) + headers
    }

    /// Bytes of the keys of the chosen rows; `None`: of all.
    pub fn key_bytes(&self, rows: Option<&[u32]>) -> u64 {
        span_of(self.keys.value_offsets(), rows)
    }

    /// Bytes of the headers of the chosen rows, their names included; `None`: of all.
    pub fn header_bytes(&self, rows: Option<&[u32]>) -> u64 {
        let Some(headers) = &self.headers else {
            return 0;
        };
        let Some(rows) = rows else {
            return headers.cost(0..self.len());
        };
        let there = rows
            .iter()
            .map(|row| *row as usize)
            .filter(|row| *row < self.len());
        there.map(|row| headers.cost(row..row + 1)).sum()
    }

    /// Bytes of keys and values of all rows.
    pub fn payload_bytes(&self) -> usize {
        let columns = self.columns.as_ref().map_or(0, |columns| columns.bytes());
        data_bytes(&self.keys) + data_bytes(&self.values) + columns
    }
}

impl Headers {
    /// Bytes of the names and values of the headers of neighbours.
    pub(crate) fn bytes(&self, rows: Range<usize>) -> usize {
        let entries = self.rows[rows.start] as usize..=self.rows[rows.end] as usize;
        let names = span(&self.names.offsets()[entries.clone()]);
        names + span(&self.values.offsets()[entries])
    }

    /// The same, and what each header costs a budget beside them.
    fn cost(&self, rows: Range<usize>) -> u64 {
        let entries = self.rows[rows.end] - self.rows[rows.start];
        (self.bytes(rows) + entries as usize * 8) as u64
    }
}

/// First row and length if the rows are one run of neighbours.
fn one_run(rows: &[u32]) -> Option<(usize, usize)> {
    const CHUNK: usize = 256;
    let first = *rows.first()?;
    let last = *rows.last()?;
    let run = (last as usize).checked_sub(first as usize)? + 1 == rows.len();
    // by chunks, in which nothing ends early: several rows are compared at once
    let follow = |(chunk, rows): (usize, &[u32])| {
        let from = first.wrapping_add((chunk * CHUNK) as u32);
        let numbered = rows.iter().zip(0u32..);
        numbered.fold(true, |all, (row, at)| all & (*row == from.wrapping_add(at)))
    };
    let run = run && rows.chunks(CHUNK).enumerate().all(follow);
    run.then_some((first as usize, rows.len()))
}

/// Splits a choice into runs of neighbours: (first row, how many).
fn runs(rows: &[u32]) -> impl Iterator<Item = (usize, usize)> {
    rows.chunk_by(|a, b| a.checked_add(1) == Some(*b))
        .map(|run| (run[0] as usize, run.len()))
}

/// The chosen cells. Every row must be there.
fn gather<T: ByteArrayType<Offset = i32>>(
    column: &'static str,
    array: &GenericByteArray<T>,
    rows: &[u32],
) -> Result<GenericByteArray<T>, RowsError> {
    let from = array.value_offsets();
    let size = |row: &u32| (from[*row as usize + 1] - from[*row as usize]) as u64;
    let bytes: u64 = rows.iter().map(size).sum();
    let total = i32::try_from(bytes).map_err(|_| RowsError::Overflow { column, bytes })?;
    let mut ends = Vec::with_capacity(rows.len() + 1);
    let mut data = Vec::with_capacity(total as usize);
    ends.push(0i32);
    for (first, len) in runs(rows) {
        let cells = &from[first..=first + len];
        // Both positions are at most `total`; the difference may be below zero.
        let shift = data.len() as i32 - cells[0];
        ends.extend(cells[1..].iter().map(|end| end + shift));
        data.extend_from_slice(&array.value_data()[cells[0] as usize..cells[len] as usize]);
    }
    let nulls = array.nulls().filter(|n| n.null_count() > 0);
    let nulls = nulls.map(|n| {
        rows.iter()
            .map(|r| n.is_valid(*r as usize))
            .collect::<NullBuffer>()
    });
    let offsets = OffsetBuffer::new(ScalarBuffer::from(ends));
    // SAFETY: the cells are whole cells of a valid array of the same type, the offsets begin at
    // 0, grow by the length of each cell and end at the length of `data`, and there is one
    // validity bit a row.
    Ok(unsafe { GenericByteArray::new_unchecked(offsets, data.into(), nulls) })
}

fn take_headers(headers: &Headers, rows: &[u32]) -> Result<Headers, RowsError> {
    let mut entries: Vec<u32> = Vec::new();
    let mut ends = Vec::with_capacity(rows.len() + 1);
    ends.push(0i32);
    for row in rows {
        let range = headers.entries(*row as usize);
        entries.extend(range.start as u32..range.end as u32);
        let count = entries.len() as u64;
        let end = i32::try_from(count);
        let column = "header rows";
        ends.push(end.map_err(|_| RowsError::Overflow {
            column,
            bytes: count,
        })?);
    }
    Ok(Headers {
        rows: OffsetBuffer::new(ScalarBuffer::from(ends)),
        names: gather("header names", &headers.names, &entries)?,
        values: gather("header values", &headers.values, &entries)?,
    })
}

/// All cells of all parts, in order.
fn join<T: ByteArrayType<Offset = i32>>(
    column: &'static str,
    parts: &[&GenericByteArray<T>],
) -> Result<GenericByteArray<T>, RowsError> {
    let bytes: u64 = parts.iter().map(|p| span(p.value_offsets()) as u64).sum();
    let total = i32::try_from(bytes).map_err(|_| RowsError::Overflow { column, bytes })?;
    let mut ends = Vec::with_capacity(parts.iter().map(|p| p.len()).sum::<usize>() + 1);
    let mut data = Vec::with_capacity(total as usize);
    ends.push(0i32);
    for part in parts {
        let from = part.value_offsets();
        let shift = data.len() as i32 - from[0];
        ends.extend(from[1..].iter().map(|end| end + shift));
        data.extend_from_slice(&part.value_data()[from[0] as usize..from[part.len()] as usize]);
    }
    let nulls = parts.iter().any(|p| p.null_count() > 0).then(|| {
        let valid = |p: &&GenericByteArray<T>| {
            let p = *p;
            (0..p.len()).map(|i| p.is_valid(i)).collect::<Vec<_>>()
        };
        parts.iter().flat_map(valid).collect::<NullBuffer>()
    });
    let offsets = OffsetBuffer::new(ScalarBuffer::from(ends));
    // SAFETY: as in `gather`: whole cells of valid arrays, offsets that end at `data.len()`,
    // one validity bit a cell.
    Ok(unsafe { GenericByteArray::new_unchecked(offsets, data.into(), nulls) })
}

/// Bytes of the chosen cells; `None`: of all.
fn span_of(offsets: &[i32], rows: Option<&[u32]>) -> u64 {
    let Some(rows) = rows else {
        return span(offsets) as u64;
    };
    let one = |row: &u32| match offsets.get(*row as usize..*row as usize + 2) {
        Some([from, to]) => (to - from) as u64,
        _ => 0,
    };
    rows.iter().map(one).sum()
}

/// Bytes from the first to the last offset.
fn span(offsets: &[i32]) -> usize {
    offsets
        .last()
        .zip(offsets.first())
        .map_or(0, |(last, first)| (last - first) as usize)
}

fn join_headers(parts: &[Rows]) -> Result<Option<Headers>, RowsError> {
    if parts.iter().all(|p| p.headers.is_none()) {
        return Ok(None);
    }
    let own: Vec<Headers> = parts
        .iter()
        .map(|p| p.headers.clone().unwrap_or_else(|| Headers::none(p.len())))
        .map(|h| {
            let (first, entries) = (h.rows[0] as usize, span(&h.rows));
            Headers {
                names: h.names.slice(first, entries),
                values: h.values.slice(first, entries),
                rows: h.rows,
            }
        })
        .collect();
    let count: u64 = own.iter().map(|h| h.names.len() as u64).sum();
    if i32::try_from(count).is_err() {
        return Err(RowsError::Overflow {
            column: "header rows",
            bytes: count,
        });
    }
    let mut ends = vec![0i32];
    for headers in &own {
        let shift = ends.last().copied().unwrap_or(0) - headers.rows[0];
        ends.extend(headers.rows[1..].iter().map(|end| end + shift));
    }
    let names: Vec<&StringArray> = own.iter().map(|h| &h.names).collect();
    let values: Vec<&BinaryArray> = own.iter().map(|h| &h.values).collect();
    Ok(Some(Headers {
        rows: OffsetBuffer::new(ScalarBuffer::from(ends)),
        names: join("header names", &names)?,
        values: join("header values", &values)?,
    }))
}
