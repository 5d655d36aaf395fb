//! From Arrow columns to an encoded batch.
//!
//! Called by `Batch::encode` and its siblings. Invariants: limits are checked before the body
//! is laid out; plain columns are copied whole into a body of known size; slices of larger
//! arrays are written as if they stood alone.

use std::borrow::Cow;

use arrow::array::{Array, BinaryArray};
use arrow::buffer::{BooleanBuffer, OffsetBuffer};
use bytes::Bytes;

use super::columns::{crowded_row, large_record, long_name};
use super::compress::Compressor;
use super::format::{self, ALIGN, ENTRY_LEN, Head, Section};
use super::{BODY_BYTES_MAX, Batch, Codec, EncodeError, Producer, typed};
use crate::limits::{BATCH_BYTES_MAX, BATCH_DECODED_BYTES_MAX, BATCH_RECORDS_MAX};
use crate::rows::{Headers, Rows};

#[cfg(target_endian = "big")]
compile_error!("columns are copied as they lie in memory, which must be little-endian");

/// One section before it is laid out.
pub(super) struct Plain<'a> {
    pub id: u16,
    pub bytes: Cow<'a, [u8]>,
}

/// Encodes rows; `deltas` and the last one the batch stands for where offsets are not dense.
pub(super) fn encode(
    rows: &Rows,
    deltas: Option<(&[u32], u32)>,
    codec: Codec,
    producer: Option<Producer>,
) -> Result<Batch, EncodeError> {
    rows_check(rows)?;
    let records = rows.len() as u32;
    let last_offset_delta = deltas_check(rows.len(), deltas)?;
    let dense = last_offset_delta == records - 1;
    let deltas = deltas.map(|(deltas, _)| deltas).filter(|_| !dense);
    let plain = sections(rows, deltas);
    let decoded: usize = plain.iter().map(|p| p.bytes.len()).sum();
    if decoded > BATCH_DECODED_BYTES_MAX {
        return Err(EncodeError::TooLarge {
            bytes: decoded,
            limit: BATCH_DECODED_BYTES_MAX,
        });
    }
    let count = plain.len() as u16;
    let body = body(plain, codec)?;
    if body.len() > BODY_BYTES_MAX {
        return Err(EncodeError::TooLarge {
            bytes: body.len(),
            limit: BATCH_BYTES_MAX,
        });
    }
    let mut head = Head {
        base_offset: 0,
        shard_epoch: 0,
        append_time: 0,
        checksum: 0,
        codec,
        sections: count,
        records,
        last_offset_delta,
        first_timestamp: rows.timestamps[0],
        max_timestamp: rows.timestamps.iter().copied().max().unwrap_or(i64::MIN),
        producer,
        body_length: body.len() as u32,
    };
    head.checksum = head.compute_checksum(&body);
    Ok(Batch {
        head,
        body: Bytes::from(body),
    })
}

fn rows_check(rows: &Rows) -> Result<(), EncodeError> {
    if rows.is_empty() {
        return Err(EncodeError::Empty);
    }
    if rows.len() > BATCH_RECORDS_MAX {
        return Err(EncodeError::TooManyRecords {
            records: rows.len(),
        });
    }
    rows.check()?;
    if let Some((row, bytes)) = large_record(rows) {
        return Err(EncodeError::RecordTooLarge { row, bytes });
    }
    let Some(headers) = &rows.headers else {
        return Ok(());
    };
    if let Some((row, headers)) = crowded_row(headers) {
        return Err(EncodeError::TooManyHeaders { row, headers });
    }
    match long_name(headers) {
        Some((row, bytes)) => Err(EncodeError::HeaderName { row, bytes }),
        None => Ok(()),
    }
}

/// The last offset delta.
fn deltas_check(rows: usize, deltas: Option<(&[u32], u32)>) -> Result<u32, EncodeError> {
    let Some((deltas, last)) = deltas else {
        return Ok((rows - 1) as u32);
    };
    if deltas.len() != rows {
        return Err(EncodeError::Deltas {
            row: rows.min(deltas.len()),
        });
    }
    match deltas.windows(2).position(|pair| pair[0] >= pair[1]) {
        Some(row) => Err(EncodeError::Deltas { row: row + 1 }),
        None if deltas[rows - 1] > last => Err(EncodeError::Deltas { row: rows - 1 }),
        None => Ok(last),
    }
}

/// All sections in the order of their ids.
fn sections<'a>(rows: &'a Rows, deltas: Option<&[u32]>) -> Vec<Plain<'a>> {
    let mut out = Vec::with_capacity(format::COLUMN_TYPES as usize);
    let timestamps = rows.timestamps.inner().as_slice();
    out.push(Plain {
        id: format::TIMESTAMPS,
        bytes: Cow::Borrowed(timestamps),
    });
    column(&mut out, format::KEY_OFFSETS, &rows.keys, 0, rows.len());
    match (&rows.columns, rows.values.nulls()) {
        (None, _) => column(&mut out, format::VALUE_OFFSETS, &rows.values, 0, rows.len()),
        (Some(_), Some(nulls)) if nulls.null_count() > 0 => out.push(Plain {
            id: format::VALUE_VALIDITY,
            bytes: Cow::Owned(bits(nulls.inner())),
        }),
        (Some(_), _) => {}
    }
    if let Some(headers) = &rows.headers {
        header_sections(&mut out, headers);
    }
    if let Some(deltas) = deltas {
        let bytes = deltas.iter().flat_map(|d| d.to_le_bytes()).collect();
        out.push(Plain {
            id: format::OFFSET_DELTAS,
            bytes: Cow::Owned(bytes),
        });
    }
    if let Some(columns) = &rows.columns {
        typed::sections(&mut out, columns);
    }
    out
}

fn header_sections<'a>(out: &mut Vec<Plain<'a>>, headers: &'a Headers) {
    let first = headers.rows[0] as usize;
    let last = headers.rows[headers.rows.len() - 1] as usize;
    if first == last {
        return; // A slice of rows without headers: as if there were none.
    }
    out.push(Plain {
        id: format::HEADER_ROWS,
        bytes: rebased(&headers.rows, 0, headers.rows.len()),
    });
    let (names, data) = (headers.names.offsets(), headers.names.value_data());
    let cells = last - first;
    let range = names[first] as usize..names[last] as usize;
    out.push(Plain {
        id: format::HEADER_NAME_OFFSETS,
        bytes: rebased(names, first, cells + 1),
    });
    out.push(Plain {
        id: format::HEADER_NAME_BYTES,
        bytes: Cow::Borrowed(&data[range]),
    });
    column(
        out,
        format::HEADER_VALUE_OFFSETS,
        &headers.values,
        first,
        cells,
    );
}

/// Offsets, bytes and validity of cells `from..from + cells`; nothing at all if all are null.
fn column<'a>(
    out: &mut Vec<Plain<'a>>,
    id: u16,
    array: &'a BinaryArray,
    from: usize,
    cells: usize,
) {
    let nulls = array
        .nulls()
        .map(|n| n.slice(from, cells))
        .filter(|n| n.null_count() > 0);
    if nulls.as_ref().is_some_and(|n| n.null_count() == cells) {
        return;
    }
    let offsets = array.offsets();
    let range = offsets[from] as usize..offsets[from + cells] as usize;
    out.push(Plain {
        id,
        bytes: rebased(offsets, from, cells + 1),
    });
    out.push(Plain {
        id: id + 1,
        bytes: Cow::Borrowed(&array.value_data()[range]),
    });
    if let Some(nulls) = nulls {
        out.push(Plain {
            id: id + 2,
            bytes: Cow::Owned(bits(nulls.inner())),
        });
    }
}

/// `count` offsets from `from` on, so that the first is 0. As they lie where they do already.
pub(super) fn rebased(offsets: &OffsetBuffer<i32>, from: usize, count: usize) -> Cow<'_, [u8]> {
    let first = offsets[from];
    if first == 0 {
        let bytes = offsets.inner().inner().as_slice();
        return Cow::Borrowed(&bytes[from * 4..(from + count) * 4]);
    }
    let moved = offsets[from..from + count]
        .iter()
        .flat_map(|o| (o - first).to_le_bytes());
    Cow::Owned(moved.collect())
}

/// One bit a cell, from bit 0 on, zeros after the last.
pub(super) fn bits(of: &BooleanBuffer) -> Vec<u8> {
    let cells = of.len();
    let mut bits = of.sliced().as_slice()[..cells.div_ceil(8)].to_vec();
    if let (used @ 1.., Some(last)) = (cells % 8, bits.last_mut()) {
        *last &= (1u8 << used) - 1;
    }
    bits
}

/// Directory and sections.
fn body(plain: Vec<Plain<'_>>, codec: Codec) -> Result<Vec<u8>, EncodeError> {
    let failed = |e: std::io::Error| EncodeError::Compress(e.to_string());
    let mut compressor = Compressor::new(codec).map_err(failed)?;
    let mut stored = Vec::with_capacity(plain.len());
    for Plain { id, bytes } in plain {
        let decoded_length = bytes.len() as u32;
        stored.push(match compressor.compress(&bytes).map_err(failed)? {
            Some(frame) => (
                id,
                format::FLAG_COMPRESSED,
                decoded_length,
                Cow::Owned(frame),
            ),
            None => (id, 0, decoded_length, bytes),
        });
    }
    let directory = stored.len() * ENTRY_LEN;
    let aligned = stored
        .iter()
        .map(|s| s.3.len().next_multiple_of(ALIGN))
        .sum::<usize>();
    let mut body = Vec::with_capacity(directory + aligned);
    body.resize(directory, 0);
    for (index, (id, flags, decoded_length, bytes)) in stored.iter().enumerate() {
        let (offset, length) = (body.len() as u32, bytes.len() as u32);
        let section = Section {
            id: *id,
            flags: *flags,
            offset,
            length,
            decoded_length: *decoded_length,
        };
        section.write(&mut body[index * ENTRY_LEN..(index + 1) * ENTRY_LEN]);
        body.extend_from_slice(bytes);
        body.resize(body.len().next_multiple_of(ALIGN), 0);
    }
    Ok(body)
}
