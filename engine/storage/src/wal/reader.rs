//! Reads single batches back from WAL segments.
//!
//! Called by: `log::read`, tier and snapshot, from threads that may block.
//! Invariants: what is returned passed the batch's own checksum and length checks, and is the
//! batch that was asked for. Refuses: anything else, named with file and position.

use bytes::Bytes;
use model::{Batch, LogError, Offset, PartitionId};

use super::Location;

/// Reads the batch that stands at `location`.
pub(crate) fn read_batch(
    partition: PartitionId,
    (base, append_time_us): (Offset, i64),
    location: &Location,
) -> Result<Batch, LogError> {
    let damage = |reason: String| LogError::Corrupt {
        partition,
        detail: format!(
            "offset {base}, {} at byte {}: {reason}",
            location.segment.path.display(),
            location.at
        ),
    };
    let mut bytes = vec![0u8; location.size as usize];
    location
        .segment
        .file()
        .and_then(|file| file.read_exact_at(&mut bytes, location.at))
        .map_err(|error| damage(error.to_string()))?;
    let batch = Batch::decode(Bytes::from(bytes)).map_err(|error| damage(error.to_string()))?;
    // The stamp is outside of the batch's own checksum.
    let stamp = (batch.base_offset(), batch.append_time());
    if stamp != (base, append_time_us) {
        let (offset, time) = stamp;
        return Err(damage(format!(
            "it is stamped offset {offset}, time {time}"
        )));
    }
    Ok(batch)
}
