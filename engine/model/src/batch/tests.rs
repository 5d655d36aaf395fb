//! The batch: round trip, damage, crafted bodies, slices.

use arrow::array::{Array, BinaryArray};
use bytes::Bytes;
use proptest::prelude::*;

use super::format::{
    self, ALIGN, ENTRY_LEN, FLAG_COMPRESSED, FLAG_OPTIONAL, KEY_OFFSETS, Section, TIMESTAMPS,
    VALUE_OFFSETS, VALUE_VALIDITY,
};
use super::*;
use crate::limits::{BATCH_RECORDS_MAX, HEADERS_MAX, RECORD_BYTES_MAX};
use crate::rows::RowsBuilder;

const CODECS: [Codec; 3] = [Codec::None, Codec::Lz4, Codec::Zstd];

fn sample(records: i64) -> Rows {
    let mut builder = RowsBuilder::new();
    for i in 0..records {
        let key = (i % 3 != 0).then(|| format!("key-{i}"));
        let value = (i % 5 != 4).then(|| format!("{{\"n\":{i},\"text\":\"some more text\"}}"));
        let name = format!("h{}", i % 2);
        let header: &[(&str, Option<&[u8]>)] = &[(&name, Some(b"x")), ("none", None)];
        let headers = if i % 4 == 1 { header } else { &[] };
        let (key, value) = (key.as_deref(), value.as_deref());
        builder.push(
            1_000 - i,
            key.map(str::as_bytes),
            value.map(str::as_bytes),
            headers,
        );
    }
    builder.finish()
}

fn rows_any() -> impl Strategy<Value = Rows> {
    let cell = || prop::option::weighted(0.8, prop::collection::vec(0u8..9, 0..40));
    let headers = prop::collection::vec(("[a-zé]{0,3}", cell()), 0..3);
    let record = (any::<i64>(), cell(), cell(), headers);
    (prop::collection::vec(record, 1..60), any::<[bool; 3]>()).prop_map(|(records, with)| {
        let mut builder = RowsBuilder::new();
        for (timestamp, key, value, headers) in &records {
            let headers: Vec<_> = match with[0] {
                true => headers
                    .iter()
                    .map(|(n, v)| (n.as_str(), v.as_deref()))
                    .collect(),
                false => Vec::new(),
            };
            let key = key.as_deref().filter(|_| with[1]);
            let value = value.as_deref().filter(|_| with[2]);
            builder.push(*timestamp, key, value, &headers);
        }
        builder.finish()
    })
}

/// `bytes` at an address that is `off` past a multiple of 8.
fn misaligned(bytes: &[u8], off: usize) -> Bytes {
    let mut room = vec![0; bytes.len() + 16];
    let start = room.as_ptr().align_offset(8) + off;
    room[start..start + bytes.len()].copy_from_slice(bytes);
    Bytes::from(room).slice(start..start + bytes.len())
}

proptest! {
    #[test]
    fn round_trip(
        rows in rows_any(),
        codec in prop::sample::select(&CODECS[..]),
        producer in prop::option::of((any::<u64>(), any::<u16>(), any::<u32>())),
        base in 0..OFFSET_MAX / 2,
        stamp in any::<(u32, i64)>(),
        off in 0usize..8,
    ) {
        let producer = producer.map(|(id, epoch, sequence)| Producer {
            id: ProducerId(id), epoch, sequence,
        });
        let batch = Batch::encode(&rows, codec, producer).unwrap();
        let batch = batch.stamped(base, ShardEpoch(stamp.0), stamp.1);
        let back = Batch::decode(misaligned(&batch.to_bytes(), off)).unwrap();
        prop_assert_eq!(&back, &batch);
        back.check().unwrap();
        prop_assert_eq!(back.rows().unwrap(), rows.clone());
        prop_assert_eq!(back.producer(), producer);
        prop_assert_eq!((back.epoch().0, back.append_time()), stamp);
        prop_assert_eq!(back.first_timestamp(), rows.timestamps[0]);
        prop_assert_eq!(back.max_timestamp(), *rows.timestamps.iter().max().unwrap());
        prop_assert_eq!((back.base_offset(), back.next_offset()), (base, base + rows.len() as u64));
        prop_assert_eq!(Batch::peek_size(&batch.to_bytes()).unwrap(), batch.size());
        // A slice of larger arrays is encoded as if it stood alone.
        let part = rows.slice(rows.len() / 2, rows.len() - rows.len() / 2);
        let back = Batch::encode(&part, codec, None).unwrap().rows().unwrap();
        prop_assert_eq!(back, part.compacted());
    }

    #[test]
    fn slices_keep_offsets(
        rows in rows_any(),
        steps in prop::option::of(prop::collection::vec(1u32..5, 60)),
        rest in 0u32..3,
        at in 0u64..300,
        codec in prop::sample::select(&CODECS[..]),
    ) {
        let mut next = 0;
        let mut grow = |s: &u32| { next += s; next - 1 };
        let deltas: Option<Vec<u32>> =
            steps.map(|s| s.iter().take(rows.len()).map(&mut grow).collect());
        let batch = match &deltas {
            Some(deltas) if rest == 0 => {
                Batch::encode_sparse(&rows, deltas, codec, None).unwrap()
            }
            Some(deltas) => {
                let last = deltas[rows.len() - 1] + rest;
                Batch::encode_compacted(&rows, deltas, last, codec).unwrap()
            }
            None => Batch::encode(&rows, codec, None).unwrap(),
        };
        let rest = if deltas.is_some() { u64::from(rest) } else { 0 };
        let batch = batch.stamped(100, ShardEpoch(3), 9);
        batch.check().unwrap();
        let offsets = batch.offsets().unwrap();
        prop_assert_eq!(offsets.len(), rows.len());
        prop_assert_eq!(offsets.last().unwrap() + 1 + rest, batch.next_offset());
        let keep = offsets.iter().filter(|o| **o >= at).count();
        match batch.slice_from(at).unwrap() {
            None => prop_assert_eq!(keep, 0),
            Some(part) => {
                prop_assert_eq!(part.len() as usize, keep);
                prop_assert_eq!(&part.offsets().unwrap()[..], &offsets[rows.len() - keep..]);
                prop_assert_eq!(part.next_offset(), batch.next_offset());
                prop_assert_eq!((part.epoch(), part.append_time()), (ShardEpoch(3), 9));
                let again = Batch::decode(part.to_bytes()).unwrap().rows().unwrap();
                prop_assert_eq!(again, rows.slice(rows.len() - keep, keep).compacted());
            }
        }
    }
}

impl Rows {
    /// The same rows in buffers of their own, so that they compare equal.
    fn compacted(&self) -> Rows {
        let mut builder = RowsBuilder::new();
        for r in self.records() {
            builder.push(r.timestamp, r.key, r.value, &r.headers.collect::<Vec<_>>());
        }
        builder.finish()
    }
}

#[test]
fn every_flipped_byte_is_found() {
    for codec in CODECS {
        let batch = Batch::encode(&sample(20), codec, None).unwrap();
        let good = batch.to_bytes();
        let stamp = |at: usize| (8..20).contains(&at) || (24..32).contains(&at);
        for at in 0..good.len() {
            for bit in 0..8 {
                let mut bad = good.to_vec();
                bad[at] ^= 1 << bit;
                match Batch::decode(Bytes::from(bad)) {
                    Ok(back) if stamp(at) => assert_eq!(back.rows(), batch.rows()),
                    Ok(_) => panic!("a flip of bit {bit} of byte {at} was not seen"),
                    Err(_) => {}
                }
            }
        }
    }
}

#[test]
fn every_truncation_is_found() {
    for codec in CODECS {
        let good = Batch::encode(&sample(20), codec, None).unwrap().to_bytes();
        for length in 0..good.len() {
            let error = Batch::decode(good.slice(..length)).unwrap_err();
            assert!(
                matches!(error, BatchError::Truncated { .. }),
                "{length}: {error}"
            );
        }
        let long = Bytes::from([&good[..], b"x"].concat());
        assert_eq!(Batch::decode(long), Err(BatchError::Trailing { extra: 1 }));
    }
}

/// Damage that a checksum made afterwards hides must still be an error or rows, never a panic.
#[test]
fn damage_under_a_good_checksum_does_not_panic() {
    for codec in CODECS {
        let good = Batch::encode(&sample(20), codec, None).unwrap().to_bytes();
        for at in 36..good.len() {
            for value in [0, 1, 0x80, 0xff] {
                let mut bad = good.to_vec();
                bad[at] = value;
                if let Ok(batch) = decode_fixed(bad) {
                    let _ = (
                        batch.rows(),
                        batch.offsets(),
                        batch.check(),
                        batch.slice_from(7),
                    );
                }
            }
        }
    }
}

/// Decodes after putting the right checksum in.
pub(super) fn decode_fixed(mut bytes: Vec<u8>) -> Result<Batch, BatchError> {
    match Batch::decode(Bytes::from(bytes.clone())) {
        Err(BatchError::Checksum { computed, .. }) => {
            bytes[32..36].copy_from_slice(&computed.to_le_bytes());
            Batch::decode(Bytes::from(bytes))
        }
        other => other,
    }
}

/// A batch of `records` records with exactly these sections: (id, flags, bytes, decoded length).
pub(super) fn craft(records: u32, codec: Codec, parts: &[(u16, u16, Vec<u8>, u32)]) -> Vec<u8> {
    let mut body = vec![0; parts.len() * ENTRY_LEN];
    for (i, (id, flags, bytes, decoded_length)) in parts.iter().enumerate() {
        let (offset, length) = (body.len() as u32, bytes.len() as u32);
        let (id, flags, decoded_length) = (*id, *flags, *decoded_length);
        let section = Section {
            id,
            flags,
            offset,
            length,
            decoded_length,
        };
        section.write(&mut body[i * ENTRY_LEN..(i + 1) * ENTRY_LEN]);
        body.extend_from_slice(bytes);
        body.resize(body.len().next_multiple_of(ALIGN), 0);
    }
    let head = Head {
        base_offset: 0,
        shard_epoch: 0,
        append_time: 0,
        checksum: 0,
        codec,
        sections: parts.len() as u16,
        records,
        last_offset_delta: records.saturating_sub(1),
        first_timestamp: 0,
        max_timestamp: 0,
        producer: None,
        body_length: body.len() as u32,
    };
    [&head.to_bytes()[..], &body].concat()
}

fn u32s(values: &[u32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

/// Two records with these sections after their timestamps: what `decode` or `rows` say.
fn check(parts: &[(u16, u16, Vec<u8>)], expected: &str) {
    let mut all = vec![(TIMESTAMPS, 0, vec![0; 16], 16)];
    all.extend(
        parts
            .iter()
            .map(|(i, f, b)| (*i, *f, b.clone(), b.len() as u32)),
    );
    let got = decode_fixed(craft(2, Codec::None, &all)).and_then(|b| b.rows());
    let got = got.map_or_else(|e| e.to_string(), |rows| format!("{} rows", rows.len()));
    assert_eq!(got, expected, "{parts:?}");
}

#[test]
fn crafted_sections() {
    let values = |offsets: &[u32]| (VALUE_OFFSETS, 0, u32s(offsets));
    let data = || (VALUE_OFFSETS + 1, 0, b"abc".to_vec());
    let monotone = "section 5 of the batch is wrong: offsets must begin at 0 and never fall";
    check(&[], "2 rows");
    check(&[values(&[0, 1, 3]), data()], "2 rows");
    check(
        &[values(&[0, 1, 3])],
        "section 6 of the batch is wrong: it is missing",
    );
    check(
        &[data()],
        "section 6 of the batch is wrong: it has no offsets",
    );
    check(&[values(&[1, 1, 3]), data()], monotone);
    check(&[values(&[0, 3, 1]), data()], monotone);
    check(&[values(&[0, u32::MAX, 3]), data()], monotone);
    check(&[values(&[0, 1, u32::MAX]), data()], monotone);
    check(&[values(&[0, 1, 4]), data()], {
        "section 6 of the batch is wrong: it has 3 bytes instead of 4"
    });
    check(&[values(&[0, 3]), data()], {
        "section 5 of the batch is wrong: it has 8 bytes instead of 12"
    });
    let validity = |bytes: &[u8]| (VALUE_OFFSETS + 2, 0, bytes.to_vec());
    check(&[values(&[0, 1, 3]), data(), validity(&[0b11])], "2 rows");
    check(&[values(&[0, 1, 3]), data(), validity(&[0b101])], {
        "section 7 of the batch is wrong: bits after the last cell are set"
    });
    check(&[values(&[0, 1, 3]), data(), validity(&[3, 0])], {
        "section 7 of the batch is wrong: it has 2 bytes instead of 1"
    });
    check(&[data(), values(&[0, 1, 3])], {
        "section 5 of the batch is wrong: sections must come in ascending order, each once"
    });
    check(
        &[(800, 0, vec![1])],
        "batch needs section 800, which is not known here: upgrade",
    );
    check(&[(800, FLAG_OPTIONAL, vec![1])], "2 rows");
    check(&[(800, FLAG_OPTIONAL | 4, vec![1])], {
        "section 800 of the batch is wrong: reserved flags are set"
    });
    check(&[(800, FLAG_OPTIONAL | FLAG_COMPRESSED, vec![1])], {
        "section 800 of the batch is wrong: it is compressed in a batch without a codec"
    });
    check(&[(format::HEADER_NAME_OFFSETS, 0, u32s(&[0]))], {
        "section 9 of the batch is wrong: it has no header rows"
    });
    let names = (format::HEADER_NAME_OFFSETS, 0, u32s(&[0, 1]));
    let rows = (format::HEADER_ROWS, 0, u32s(&[0, 0, 1]));
    let not_text = (format::HEADER_NAME_BYTES, 0, vec![0xff]);
    let header = [rows, names, not_text];
    let mut all = vec![(TIMESTAMPS, 0, vec![0; 16], 16)];
    all.extend(
        header
            .into_iter()
            .map(|(i, f, b)| (i, f, b.clone(), b.len() as u32)),
    );
    let error = decode_fixed(craft(2, Codec::None, &all))
        .unwrap()
        .rows()
        .unwrap_err();
    assert!(error.to_string().contains("header names"), "{error}");
}

#[test]
fn unknown_optional_sections_are_kept() {
    let parts = [
        (TIMESTAMPS, 0, vec![0; 8], 8),
        (900, FLAG_OPTIONAL, b"from the future".to_vec(), 15),
    ];
    let batch = decode_fixed(craft(1, Codec::None, &parts)).unwrap();
    assert!(
        batch
            .to_bytes()
            .windows(15)
            .any(|w| w == b"from the future")
    );
    assert_eq!(batch.rows().unwrap().len(), 1);
}

#[test]
fn lying_lengths_are_refused_before_memory_is_taken() {
    let bomb = |decoded| {
        craft(
            1,
            Codec::Zstd,
            &[(TIMESTAMPS, FLAG_COMPRESSED, vec![0; 9], decoded)],
        )
    };
    let error = decode_fixed(bomb(u32::MAX)).unwrap_err();
    assert!(
        matches!(error, BatchError::DecodedTooLarge { .. }),
        "{error}"
    );
    let error = decode_fixed(bomb(1 << 20)).unwrap().rows().unwrap_err();
    assert_eq!(
        error.to_string(),
        "section 1 of the batch is wrong: it has 1048576 bytes instead of 8"
    );
    for codec in [Codec::Lz4, Codec::Zstd] {
        let noise = craft(1, codec, &[(TIMESTAMPS, FLAG_COMPRESSED, vec![7; 9], 8)]);
        assert!(decode_fixed(noise).unwrap().rows().is_err());
    }
    let many = craft(BATCH_RECORDS_MAX as u32 + 1, Codec::None, &[]);
    assert!(matches!(
        decode_fixed(many),
        Err(BatchError::Records { .. })
    ));
    assert!(matches!(
        decode_fixed(craft(0, Codec::None, &[])),
        Err(BatchError::Records { .. })
    ));
    let mut long = craft(1, Codec::None, &[(TIMESTAMPS, 0, vec![0; 8], 8)]);
    long[80..84].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(matches!(
        Batch::peek_size(&long),
        Err(BatchError::TooLarge { .. })
    ));
}

#[test]
fn what_is_over_the_limits_is_not_encoded() {
    let encode = |rows: &Rows| {
        Batch::encode(rows, Codec::Lz4, None)
            .unwrap_err()
            .to_string()
    };
    assert_eq!(encode(&Rows::empty()), "a batch needs at least one record");
    let one = |value: &[u8], headers: &[(&str, Option<&[u8]>)]| {
        let mut builder = RowsBuilder::new();
        builder.push(0, None, Some(b"small"), &[]);
        builder.push(0, None, Some(value), headers);
        builder.finish()
    };
    let large = vec![0; RECORD_BYTES_MAX + 1];
    assert_eq!(
        encode(&one(&large, &[])),
        "record 1 has 8388609 bytes; at most 8388608 are allowed"
    );
    assert_eq!(
        encode(&one(b"", &vec![("h", None); HEADERS_MAX + 1])),
        "record 1 has 257 headers; at most 256 are allowed"
    );
    assert_eq!(
        encode(&one(b"", &[(&"n".repeat(1025), None)])),
        "record 1 has a header name of 1025 bytes; at most 1024 are allowed"
    );
    let nulls = BinaryArray::new_null(BATCH_RECORDS_MAX + 1);
    let times = vec![0i64; BATCH_RECORDS_MAX + 1];
    let many = Rows::new(times.into(), nulls.clone(), nulls, None).unwrap();
    assert_eq!(
        encode(&many),
        "a batch has at most 1000000 records, not 1000001; send several"
    );
    let deltas = Batch::encode_sparse(&sample(3), &[0, 4, 4], Codec::None, None).unwrap_err();
    assert_eq!(
        deltas.to_string(),
        "offset deltas must be one a record, growing, not past the last: record 2"
    );
}

#[test]
fn plain_aligned_columns_are_views() {
    let batch = Batch::encode(&sample(50), Codec::None, None).unwrap();
    let inside = batch.body().as_ptr_range();
    let rows = batch.rows().unwrap();
    assert!(inside.contains(&rows.values.value_data().as_ptr()));
    assert!(inside.contains(&rows.timestamps.inner().as_ptr()));
    assert!(inside.contains(&(rows.values.value_offsets().as_ptr().cast())));
    assert!(rows.keys.nulls().is_some());
}

#[test]
fn a_column_without_a_cell_costs_nothing() {
    let mut builder = RowsBuilder::new();
    (0..100).for_each(|i| builder.push(i, None, Some(b"12345678"), &[]));
    let batch = Batch::encode(&builder.finish(), Codec::None, None).unwrap();
    // Directory of three, timestamps, offsets (101 of them, padded), bytes.
    assert_eq!(batch.body().len(), 3 * 16 + 800 + 408 + 800);
    assert_eq!(batch.rows().unwrap().keys.null_count(), 100);
}

#[test]
fn several_batches_are_taken_off_the_front() {
    let one = Batch::encode(&sample(3), Codec::None, None).unwrap();
    let two = Batch::encode(&sample(9), Codec::Lz4, None).unwrap();
    let mut bytes = Bytes::from([one.to_bytes(), two.to_bytes(), Bytes::from("x")].concat());
    assert_eq!(Batch::decode_prefix(&mut bytes).unwrap(), one);
    assert_eq!(Batch::decode_prefix(&mut bytes).unwrap(), two);
    assert!(Batch::decode_prefix(&mut bytes).is_err());
    assert_eq!(&bytes[..], b"x");
}

#[test]
fn heads_that_lie_about_their_records_are_found_by_check() {
    let batch = Batch::encode(&sample(3), Codec::None, None).unwrap();
    let mut bytes = batch.to_bytes().to_vec();
    bytes[56] ^= 1; // largest timestamp
    let lying = decode_fixed(bytes).unwrap();
    assert_eq!(
        lying.check().unwrap_err().to_string(),
        "batch is wrong: the timestamps in its head are not those of its records"
    );
    let mut bytes = batch.to_bytes().to_vec();
    bytes[44] = 9; // last offset delta, without a section of deltas
    let error = decode_fixed(bytes).unwrap().offsets().unwrap_err();
    assert_eq!(
        error.to_string(),
        "batch is wrong: its offset deltas are missing"
    );
}

/// What the quick look calls right, the whole check does too; and it knows what most producers send.
#[test]
fn the_quick_look_says_yes_only_where_the_whole_check_does() {
    let whole = |batch: &Batch| {
        let rows = batch.rows()?;
        columns::offset_deltas(&batch.head, &batch.body)?;
        columns::contents_check(&batch.head, &rows)
    };
    let times = (TIMESTAMPS, 0, vec![0; 16], 16);
    let bytes = |id, bytes: &[u8]| (id, 0, bytes.to_vec(), bytes.len() as u32);
    let offsets = |id, offsets: &[u32]| bytes(id, &u32s(offsets));
    let mut seen = [0; 2];
    let mut look = |sections: &[(u16, u16, Vec<u8>, u32)]| {
        let Ok(batch) = decode_fixed(craft(2, Codec::None, sections)) else {
            return;
        };
        let is_right = plain::is_right(&batch.head, &batch.body);
        assert!(!is_right || whole(&batch).is_ok(), "{sections:?}");
        seen[usize::from(is_right)] += 1;
    };
    let ends = [0, 1, 3, 4, u32::MAX];
    let all = ends.iter().flat_map(|a| ends.iter().map(move |b| (*a, *b)));
    for (first, second) in all {
        for third in ends {
            let cells = offsets(VALUE_OFFSETS, &[first, second, third]);
            for data in [&b""[..], b"a", b"abc", b"abcd"] {
                let data = bytes(VALUE_OFFSETS + 1, data);
                look(&[times.clone(), cells.clone(), data.clone()]);
                look(&[cells.clone(), data.clone()]);
                let keys = offsets(KEY_OFFSETS, &[0, 1, 1]);
                look(&[times.clone(), keys.clone(), cells.clone(), data.clone()]);
                let keyed = [times.clone(), keys, bytes(KEY_OFFSETS + 1, b"k")];
                look(&[&keyed[..], &[cells.clone(), data]].concat());
            }
            look(&[times.clone(), cells]);
        }
    }
    look(std::slice::from_ref(&times));
    look(&[(TIMESTAMPS, 0, vec![1; 16], 16)]);
    look(&[(TIMESTAMPS, 0, vec![0; 8], 8)]);
    look(&[times.clone(), bytes(VALUE_OFFSETS, &[0; 13])]);
    look(&[times, bytes(VALUE_VALIDITY, &[0b101])]);
    assert!(seen[0] > 100 && seen[1] > 10, "{seen:?}");
}
