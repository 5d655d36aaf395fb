//! The door of topics that keep columns: JSON in, columns at rest, JSON out.
//!
//! Called by: `service::records`. Calls: codec, on threads that may take their time.
//! Invariants: what is kept has the columns of the topic's schema, all of them; a batch keeps its
//! producer and its number of records, so that a retry is known; batches that are shown stand for
//! the same offsets as those that are kept.
//! Refuses: batches with a record that does not fit the schema, as a whole, with the record's
//! number and the reason; batches of other columns, and of columns for topics that keep bytes.

use std::ops::Range;

use arrow::array::{Array, BinaryArray};
use arrow::buffer::{Buffer, OffsetBuffer};
use codec::Format;
use model::batch::{BatchError, EncodeError};
use model::rows::{Rows, TypedColumns};
use model::{Batch, Codec, Offset};
use protocol::{WireError, code, limits};
use tokio::runtime::{Handle, RuntimeFlavor};

/// JSON in one batch of an answer, unless one record is larger.
const PIECE_BYTES_MAX: usize = 4 << 20;
/// JSON in one answer, unless one batch is larger: with what other topics add it fits a frame.
pub(super) const ANSWER_BYTES_MAX: usize = 8 << 20;

/// The batch with its values as columns, made before this returns: batches of a stream are admitted in its
/// order, each when it is first polled, so none may wait for another thread before that.
pub(super) fn kept(format: &Format, batch: Batch) -> Result<Batch, WireError> {
    let work = || with_columns(format, batch);
    let flavor = Handle::try_current().map(|runtime| runtime.runtime_flavor());
    let done = match flavor {
        // the worker's other tasks go on elsewhere
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        _ => work(),
    };
    done.map_err(|message| WireError::fix(code::INVALID, message))
}

/// A batch for a topic that keeps bytes, which takes no columns.
pub(super) fn bytes_only(batch: Batch) -> Result<Batch, WireError> {
    match batch.has_columns() {
        false => Ok(batch),
        true => {
            let message = "the batch has typed columns, and the topic keeps values of bytes: send \
                           these, or make a topic of `columns`";
            Err(WireError::fix(code::INVALID, message))
        }
    }
}

/// The batches with their values as JSON, from an offset on: as many as have so many bytes, but
/// at least one if there are to be any.
pub(super) async fn shown(
    format: Format,
    batches: Vec<Batch>,
    from: Offset,
    bytes_max: usize,
) -> Result<Vec<Batch>, WireError> {
    blocking(move || {
        let (mut out, mut bytes) = (Vec::new(), 0);
        for batch in batches {
            let pieces = match with_json(&format, batch, from) {
                Ok(pieces) => pieces,
                // what is before it can be sent
                Err(_) if !out.is_empty() => return Ok(out),
                Err(error) => return Err(error),
            };
            for piece in pieces {
                bytes += piece.size();
                let is_full = bytes > bytes_max && !(out.is_empty() && bytes_max > 0);
                if is_full || out.len() == limits::FETCH_BATCHES_MAX as usize {
                    return Ok(out);
                }
                out.push(piece);
            }
        }
        Ok(out)
    })
    .await
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, WireError> {
    let done = tokio::task::spawn_blocking(work).await;
    let done = done.unwrap_or_else(|error| Err(error.to_string()));
    done.map_err(|message| WireError::fix(code::INVALID, message))
}

fn with_columns(format: &Format, batch: Batch) -> Result<Batch, String> {
    let text = |error: BatchError| error.to_string();
    let rows = batch.rows().map_err(text)?;
    if let Some(columns) = &rows.columns {
        fits(format, columns)?;
        return Ok(batch);
    }
    if !batch.is_dense() {
        return Ok(batch); // the broker takes none of these, and says so
    }
    let read = format.columns_of(&rows).map_err(|e| e.to_string())?;
    if let Some((row, message)) = read.errors.first() {
        return Err(format!(
            "record {row} of the batch is no JSON object of the topic's schema: {message}"
        ));
    }
    let columns = TypedColumns::new(read.columns.columns().to_vec());
    let rows = Rows {
        values: presence(&rows),
        columns: Some(columns.map_err(|e| e.to_string())?),
        ..rows
    };
    let kept = Batch::encode(&rows, batch.codec(), batch.producer());
    kept.map_err(|e| e.to_string())
}

/// Whether columns are those of the schema.
fn fits(format: &Format, columns: &TypedColumns) -> Result<(), String> {
    let wanted: Vec<_> = format
        .schema()
        .fields
        .iter()
        .map(|field| field.ty)
        .collect();
    if columns.types().eq(wanted.iter().copied()) {
        return Ok(());
    }
    let has: Vec<String> = columns.types().map(|ty| ty.to_string()).collect();
    Err(format!(
        "the batch has columns of {}, and the topic's schema is {}",
        has.join(", "),
        format.schema()
    ))
}

/// Which records have a value, as values of no bytes.
fn presence(rows: &Rows) -> BinaryArray {
    let offsets = OffsetBuffer::new_zeroed(rows.len());
    BinaryArray::new(offsets, Buffer::default(), rows.values.nulls().cloned())
}

/// What of a batch is at or after an offset, as one batch, or several where the values are too
/// large as JSON.
fn with_json(format: &Format, batch: Batch, from: Offset) -> Result<Vec<Batch>, String> {
    let rows = batch.rows().map_err(|e| e.to_string())?;
    if rows.columns.is_none() {
        return Ok(vec![batch]);
    }
    let offsets = batch.offsets().map_err(|e| e.to_string())?;
    let skip = offsets.partition_point(|offset| *offset < from);
    // a batch without a record there still stands for the offsets
    let (skip, start) = match offsets.get(skip) {
        Some(first) if skip > 0 => (skip, *first),
        _ => (0, batch.base_offset()),
    };
    let rows = rows.slice(skip, rows.len() - skip);
    let range = start..batch.next_offset();
    let mut out = Vec::new();
    pieces(format, &rows, &offsets[skip..], range, &mut out)?;
    let stamp =
        |(base, part): (Offset, Batch)| part.stamped(base, batch.epoch(), batch.append_time());
    Ok(out.into_iter().map(stamp).collect())
}

/// Batches that stand for a range of offsets, each from where the one before ended.
fn pieces(
    format: &Format,
    rows: &Rows,
    offsets: &[Offset],
    range: Range<Offset>,
    out: &mut Vec<(Offset, Batch)>,
) -> Result<(), String> {
    let Range { start, end } = range;
    let made = piece(format, rows, offsets, start..end);
    let is_large = |batch: &Batch| batch.size() > PIECE_BYTES_MAX && rows.len() > 1;
    match made {
        Ok(batch) if !is_large(&batch) => out.push((start, batch)),
        Ok(_) | Err(_) if rows.len() > 1 => {
            let half = rows.len() / 2;
            let (left, right) = offsets.split_at(half);
            let middle = right[0];
            pieces(format, &rows.slice(0, half), left, start..middle, out)?;
            let rows = rows.slice(half, rows.len() - half);
            pieces(format, &rows, right, middle..end, out)?;
        }
        Ok(batch) => out.push((start, batch)),
        Err(error) => {
            let offset = offsets.first().copied().unwrap_or(start);
            return Err(format!(
                "the record at offset {offset} cannot be sent as JSON: {error}; SQL shows it"
            ));
        }
    }
    Ok(())
}

fn piece(
    format: &Format,
    rows: &Rows,
    offsets: &[Offset],
    range: Range<Offset>,
) -> Result<Batch, String> {
    let read = format.columns_of(rows).map_err(|e| e.to_string())?;
    let values = format.values(&read.columns, &rows.values);
    let rows = Rows {
        values: values.map_err(|e| e.to_string())?,
        columns: None,
        ..rows.clone()
    };
    let delta = |offset: Offset| (offset - range.start) as u32;
    let deltas: Vec<u32> = offsets.iter().map(|offset| delta(*offset)).collect();
    let last = delta(range.end - 1);
    let batch = Batch::encode_compacted(&rows, &deltas, last, Codec::None);
    batch.map_err(|e: EncodeError| e.to_string())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use model::batch::Producer;
    use model::rows::RowsBuilder;
    use model::{PayloadCodec, ProducerId, Schema, ShardEpoch};

    use super::*;

    fn format() -> Format {
        let schema = serde_json::json!({"n": "int64", "s": "string"});
        let schema = Arc::new(Schema::from_json(&schema).unwrap());
        Format::new(PayloadCodec::Columns, schema).unwrap()
    }

    fn rows(values: &[Option<&str>]) -> Rows {
        let mut rows = RowsBuilder::new();
        for (at, value) in values.iter().enumerate() {
            rows.push(at as i64, Some(b"k"), value.map(str::as_bytes), &[]);
        }
        rows.finish()
    }

    const VALUES: [Option<&str>; 3] = [Some(r#"{"s":"a","n":1}"#), None, Some("{}")];

    #[test]
    fn json_is_kept_as_columns_and_shown_as_json() {
        let producer = Producer {
            id: ProducerId(1),
            epoch: 2,
            sequence: 3,
        };
        let sent = Batch::encode(&rows(&VALUES), Codec::Zstd, Some(producer)).unwrap();
        let kept = with_columns(&format(), sent.clone()).unwrap();
        assert_eq!(
            (kept.producer(), kept.codec()),
            (Some(producer), Codec::Zstd)
        );
        assert_eq!((kept.len(), kept.next_offset()), (3, sent.next_offset()));
        let columns = kept.rows().unwrap().columns.unwrap();
        assert!(columns.arrays().iter().all(|array| array.null_count() == 2));
        let same = with_columns(&format(), kept.clone()).unwrap();
        assert_eq!(same, kept, "columns come in as they are");
        let kept = kept.stamped(10, ShardEpoch(4), 5);
        let shown = with_json(&format(), kept, 0).unwrap();
        let [shown] = &shown[..] else {
            panic!("one batch: {shown:?}")
        };
        let values: Vec<Option<&[u8]>> = vec![
            Some(br#"{"n":1,"s":"a"}"#),
            None,
            Some(br#"{"n":null,"s":null}"#),
        ];
        let rows = shown.rows().unwrap();
        assert_eq!(rows.values.iter().collect::<Vec<_>>(), values);
        assert_eq!((shown.base_offset(), shown.next_offset()), (10, 13));
        assert_eq!((shown.epoch(), shown.append_time()), (ShardEpoch(4), 5));
    }

    #[test]
    fn what_does_not_fit_is_refused_by_number() {
        let bad = rows(&[Some("{}"), Some(r#"{"n":"x"}"#)]);
        let bad = Batch::encode(&bad, Codec::None, None).unwrap();
        let expected = "record 1 of the batch is no JSON object of the topic's schema: field `n` \
                        (int64): expected an integer, found string \"x\"";
        assert_eq!(with_columns(&format(), bad).unwrap_err(), expected);
        let ints: arrow::array::ArrayRef = Arc::new(arrow::array::Int64Array::from(vec![1]));
        let other = Rows {
            columns: Some(TypedColumns::new(vec![ints]).unwrap()),
            ..rows(&[Some("")])
        };
        let other = Batch::encode(&other, Codec::None, None).unwrap();
        let error = bytes_only(other.clone()).unwrap_err().to_string();
        assert!(error.contains("keeps values of bytes"), "{error}");
        let expected =
            "the batch has columns of int64, and the topic's schema is n: int64, s: string";
        assert_eq!(with_columns(&format(), other).unwrap_err(), expected);
    }

    #[test]
    fn large_batches_are_shown_in_pieces_for_the_same_offsets() {
        let text = "x".repeat(PIECE_BYTES_MAX / 2);
        let value = format!(r#"{{"n":1,"s":"{text}"}}"#);
        let sent = rows(&[Some(&value), Some(&value), None, Some(&value)]);
        let sent = Batch::encode(&sent, Codec::None, None).unwrap();
        let kept = with_columns(&format(), sent).unwrap().rows().unwrap();
        // as compaction leaves them
        let kept = Batch::encode_compacted(&kept, &[2, 5, 6, 9], 12, Codec::None).unwrap();
        let kept = kept.stamped(100, ShardEpoch(0), 0);
        let offsets = kept.offsets().unwrap();
        let shown = with_json(&format(), kept.clone(), 0).unwrap();
        assert!(shown.len() > 1);
        let ends = shown
            .windows(2)
            .all(|two| two[0].next_offset() == two[1].base_offset());
        assert!(ends, "no hole between two");
        assert_eq!(shown[0].base_offset(), kept.base_offset());
        assert_eq!(shown[shown.len() - 1].next_offset(), kept.next_offset());
        let all: Vec<Offset> = shown.iter().flat_map(|b| b.offsets().unwrap()).collect();
        assert_eq!(all, offsets);
        // who goes on in the middle gets what follows, and is not held up by what was before
        for (at, from) in [(1, 103), (1, 105), (3, 107), (0, 110)] {
            let rest = with_json(&format(), kept.clone(), from).unwrap();
            let all: Vec<Offset> = rest.iter().flat_map(|b| b.offsets().unwrap()).collect();
            assert_eq!(all, offsets[at..]);
            assert_eq!(rest[rest.len() - 1].next_offset(), kept.next_offset());
        }
    }
}
