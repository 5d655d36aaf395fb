//! What the fuzzer does with its bytes; also run by `cargo test` over seeds.
//!
//! Called by `fuzz_targets/batch.rs` and `tests/fuzz_seeds.rs`. Invariants: bytes from outside
//! never panic; what decodes encodes to the same bytes; rows survive being encoded again.

use bytes::Bytes;
use rustmq_model::batch::{Batch, BatchError, Codec};

/// Decodes `data` as it is, and once more with the right checksum, so that what lies behind it
/// is reached.
pub fn run(data: &[u8]) {
    let mut bytes = data.to_vec();
    if let Err(BatchError::Checksum { computed, .. }) = decode(&bytes) {
        bytes[32..36].copy_from_slice(&computed.to_le_bytes());
        let _ = decode(&bytes);
    }
}

fn decode(bytes: &[u8]) -> Result<(), BatchError> {
    let batch = Batch::decode(Bytes::copy_from_slice(bytes))?;
    assert_eq!(
        &batch.to_bytes()[..],
        bytes,
        "what decodes encodes to the same bytes"
    );
    assert!(batch.next_offset() - batch.base_offset() >= u64::from(batch.len()));
    if let Ok(offsets) = batch.offsets() {
        assert_eq!(offsets.len(), batch.len() as usize);
        let middle = offsets[offsets.len() / 2];
        if let Ok(Some(part)) = batch.slice_from(middle) {
            assert!(part.base_offset() >= middle || part == batch);
        }
    }
    let Ok(rows) = batch.rows() else {
        return Ok(());
    };
    rows.check().expect("decoded columns are even");
    assert_eq!(rows.records().count(), batch.len() as usize);
    let checked = batch.check();
    match Batch::encode(&rows, Codec::None, batch.producer()) {
        Ok(again) => {
            let again = again.rows().expect("what was encoded decodes");
            assert_eq!(again.columns, rows.columns);
            for (a, b) in again.records().zip(rows.records()) {
                assert_eq!((a.timestamp, a.key, a.value), (b.timestamp, b.key, b.value));
                assert!(a.headers.eq(b.headers));
            }
        }
        Err(error) => assert!(
            checked.is_err(),
            "check let pass what cannot be encoded: {error}"
        ),
    }
    Ok(())
}
