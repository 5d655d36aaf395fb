//! From sections to Arrow columns.
//!
//! Called by `Batch::rows`, `offsets` and `check`. Invariants: a plain, aligned section becomes
//! a view over the body; a compressed or misaligned one is copied once into an aligned buffer.
//! Every offset is checked before it is used: first 0, never falling, last the length of the
//! bytes; validity has exactly one bit a cell and zeros after them.

use arrow::array::{BinaryArray, StringArray};
use arrow::buffer::{BooleanBuffer, Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use bytes::Bytes;

use super::format::{self, Head, Section};
use super::{BatchError, compress};
use crate::limits::{HEADER_NAME_BYTES_MAX, HEADERS_MAX, RECORD_BYTES_MAX};
use crate::rows::{Headers, Rows};

/// All columns of the batch.
pub(super) fn rows(head: &Head, body: &Bytes) -> Result<Rows, BatchError> {
    let reader = Reader { head, body };
    let n = head.records as usize;
    let timestamps = reader.required(format::TIMESTAMPS, n * 8, 8)?;
    let columns = reader.typed(n)?;
    Ok(Rows {
        timestamps: ScalarBuffer::new(timestamps, 0, n),
        keys: reader.column(format::KEY_OFFSETS, n)?,
        values: match columns {
            None => reader.column(format::VALUE_OFFSETS, n)?,
            Some(_) => reader.presence(n)?,
        },
        headers: reader.headers(n)?,
        columns,
    })
}

/// The offset deltas, checked to grow and not to pass the last one; `None` where dense.
/// As `i32` bit patterns of `u32`, so that the view stays a view.
pub(super) fn offset_deltas(
    head: &Head,
    body: &Bytes,
) -> Result<Option<ScalarBuffer<i32>>, BatchError> {
    let reader = Reader { head, body };
    let n = head.records as usize;
    let Some(section) = format::find(head, body, format::OFFSET_DELTAS) else {
        return match head.last_offset_delta == head.records - 1 {
            true => Ok(None),
            false => Err(BatchError::Invalid {
                detail: "its offset deltas are missing".into(),
            }),
        };
    };
    let deltas = ScalarBuffer::<i32>::new(reader.load(&section, n * 4, 4)?, 0, n);
    let grows = deltas
        .windows(2)
        .all(|pair| (pair[0] as u32) < pair[1] as u32);
    match grows && deltas[n - 1] as u32 <= head.last_offset_delta {
        true => Ok(Some(deltas)),
        false => Err(section.wrong("offset deltas must grow and not pass the last one")),
    }
}

pub(super) struct Reader<'a> {
    pub(super) head: &'a Head,
    pub(super) body: &'a Bytes,
}

impl Reader<'_> {
    pub(super) fn find(&self, id: u16) -> Option<Section> {
        format::find(self.head, self.body, id)
    }

    /// The section, which must be there.
    pub(super) fn present(&self, id: u16) -> Result<Section, BatchError> {
        self.find(id).ok_or_else(|| BatchError::Section {
            id,
            detail: "it is missing".to_owned(),
        })
    }

    /// The section, which must be there and have `length` bytes.
    pub(super) fn required(
        &self,
        id: u16,
        length: usize,
        align: usize,
    ) -> Result<Buffer, BatchError> {
        self.load(&self.present(id)?, length, align)
    }

    /// The plain bytes of a section of `length` bytes, aligned.
    pub(super) fn load(
        &self,
        section: &Section,
        length: usize,
        align: usize,
    ) -> Result<Buffer, BatchError> {
        if section.decoded_length as usize != length {
            let got = section.decoded_length;
            return Err(section.wrong(format!("it has {got} bytes instead of {length}")));
        }
        let start = section.offset as usize;
        let stored = self.body.slice(start..start + section.length as usize);
        if section.is_compressed() {
            return compress::decompress(self.head.codec, &stored, length)
                .map_err(|detail| section.wrong(detail));
        }
        if stored.as_ptr().align_offset(align) != 0 {
            return Ok(Buffer::from_slice_ref(&stored[..]));
        }
        Ok(Buffer::from(stored))
    }

    /// Offsets of `cells` cells: first 0, never falling.
    pub(super) fn offsets(
        &self,
        section: &Section,
        cells: usize,
    ) -> Result<OffsetBuffer<i32>, BatchError> {
        let buffer = self.load(section, (cells + 1) * 4, 4)?;
        let offsets = ScalarBuffer::<i32>::new(buffer, 0, cells + 1);
        // From 0 and never falling: so none is below zero, that is above `i32::MAX` as u32.
        let monotone = offsets
            .windows(2)
            .fold(true, |ok, pair| ok & (pair[0] <= pair[1]));
        if offsets[0] != 0 || !monotone {
            return Err(section.wrong("offsets must begin at 0 and never fall"));
        }
        // SAFETY: not empty, begins at 0 and never falls, as checked above.
        Ok(unsafe { OffsetBuffer::new_unchecked(offsets) })
    }

    /// One bit a cell; `None` where the section is left out.
    pub(super) fn validity(&self, id: u16, cells: usize) -> Result<Option<NullBuffer>, BatchError> {
        let Some(section) = self.find(id) else {
            return Ok(None);
        };
        Ok(Some(NullBuffer::new(self.checked_bits(&section, cells)?)))
    }

    /// One bit a cell, and none behind the last.
    pub(super) fn checked_bits(
        &self,
        section: &Section,
        cells: usize,
    ) -> Result<BooleanBuffer, BatchError> {
        let bits = self.load(section, cells.div_ceil(8), 1)?;
        let used = cells % 8;
        if used != 0 && bits[bits.len() - 1] >> used != 0 {
            return Err(section.wrong("bits after the last cell are set"));
        }
        Ok(BooleanBuffer::new(bits, 0, cells))
    }

    /// The column whose three sections begin at `id`; all null where its offsets are left out.
    fn column(&self, id: u16, cells: usize) -> Result<BinaryArray, BatchError> {
        let Some(section) = self.find(id) else {
            if let Some(stray) = self.find(id + 1).or_else(|| self.find(id + 2)) {
                return Err(stray.wrong("it has no offsets"));
            }
            return Ok(BinaryArray::new_null(cells));
        };
        let offsets = self.offsets(&section, cells)?;
        let data = self.required(id + 1, offsets[cells] as usize, 1)?;
        let nulls = self.validity(id + 2, cells)?;
        BinaryArray::try_new(offsets, data, nulls).map_err(|e| section.wrong(e.to_string()))
    }

    fn headers(&self, n: usize) -> Result<Option<Headers>, BatchError> {
        let Some(rows) = self.find(format::HEADER_ROWS) else {
            let ids = format::HEADER_NAME_OFFSETS..format::OFFSET_DELTAS;
            return match ids.into_iter().find_map(|id| self.find(id)) {
                Some(stray) => Err(stray.wrong("it has no header rows")),
                None => Ok(None),
            };
        };
        let rows = self.offsets(&rows, n)?;
        let entries = rows[n] as usize;
        let section = self.present(format::HEADER_NAME_OFFSETS)?;
        // Checked against the directory's bounded length before it is used.
        let offsets = self.offsets(&section, entries)?;
        let data = self.required(format::HEADER_NAME_BYTES, offsets[entries] as usize, 1)?;
        let names = StringArray::try_new(offsets, data, None);
        let names = names.map_err(|e| section.wrong(format!("header names: {e}")))?;
        if self.find(format::HEADER_VALUE_OFFSETS).is_none() && entries > 0 {
            // As with keys: no header has a value. Bounded by `entries`, which names paid for.
            return Ok(Some(Headers {
                rows,
                names,
                values: BinaryArray::new_null(entries),
            }));
        }
        let values = self.column(format::HEADER_VALUE_OFFSETS, entries)?;
        Ok(Some(Headers {
            rows,
            names,
            values,
        }))
    }
}

/// That the head tells the truth about the rows, and that every record is within its limits.
pub(super) fn contents_check(head: &Head, rows: &Rows) -> Result<(), BatchError> {
    let largest = rows.timestamps.iter().copied().max().unwrap_or(i64::MIN);
    if head.first_timestamp != rows.timestamps[0] || head.max_timestamp != largest {
        let detail = "the timestamps in its head are not those of its records".to_owned();
        return Err(BatchError::Invalid { detail });
    }
    if let Some((row, bytes)) = large_record(rows) {
        return Err(BatchError::RecordTooLarge { row, bytes });
    }
    let Some(headers) = &rows.headers else {
        return Ok(());
    };
    if let Some((row, count)) = crowded_row(headers) {
        let detail = format!("record {row} has {count} headers; at most {HEADERS_MAX} are allowed");
        return Err(BatchError::Invalid { detail });
    }
    match long_name(headers) {
        Some((row, bytes)) => {
            let detail = format!("record {row} has a header name of {bytes} bytes");
            Err(BatchError::Invalid { detail })
        }
        None => Ok(()),
    }
}

/// The first record over its limit, and its bytes.
pub(super) fn large_record(rows: &Rows) -> Option<(usize, usize)> {
    if rows.bytes() <= RECORD_BYTES_MAX {
        return None;
    }
    let typed = rows.columns.as_ref().map(|columns| columns.row_bytes());
    let (keys, values) = (rows.keys.value_offsets(), rows.values.value_offsets());
    let bytes = |row: usize| {
        let own = (keys[row + 1] - keys[row]) as usize + (values[row + 1] - values[row]) as usize;
        let headers = rows.headers.as_ref();
        let headers = headers.map_or(0, |headers| headers.bytes(row..row + 1));
        own + headers + typed.as_ref().map_or(0, |typed| typed(row))
    };
    let mut all = (0..rows.len()).map(|row| (row, bytes(row)));
    all.find(|(_, bytes)| *bytes > RECORD_BYTES_MAX)
}

/// The first row with too many headers, and how many.
pub(super) fn crowded_row(headers: &Headers) -> Option<(usize, usize)> {
    let counts = headers.rows.lengths().enumerate();
    counts.into_iter().find(|(_, count)| *count > HEADERS_MAX)
}

/// The first row with a header name that is too long, and its bytes.
pub(super) fn long_name(headers: &Headers) -> Option<(usize, usize)> {
    let first = headers.rows[0] as usize;
    let last = headers.rows[headers.rows.len() - 1] as usize;
    let names = headers.names.value_offsets();
    let size = |entry: &usize| (names[entry + 1] - names[*entry]) as usize;
    let entry = (first..last).find(|entry| size(entry) > HEADER_NAME_BYTES_MAX)?;
    let row = headers.rows.partition_point(|end| *end as usize <= entry) - 1;
    Some((row, size(&entry)))
}
