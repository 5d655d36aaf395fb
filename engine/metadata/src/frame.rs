//! One record of the catalog's log as bytes.
//!
//! A frame, little-endian: magic `RQCL`, payload length u32, file number u64, position u64,
//! synced-to u64, checksum of the frame before it u32, crc32c u32 over all of these but the magic
//! and over the payload, then the payload (JSON). Position is where in the file the frame begins;
//! synced-to is up to where the file was known to be durable when it was written, so that damage
//! below it cannot be taken for a torn tail.
//! Called by: `log`. Invariants: a length is checked against the bytes at hand; what was written
//! to another file or another place is not taken for a frame of this one.
//! Refuses: whatever does not have the checksum it claims.

pub(crate) const FRAME_HEAD_LEN: usize = 40;
const MAGIC: [u8; 4] = *b"RQCL";
/// Where the checksum stands.
const CHECKSUM_AT: usize = 36;

/// Where a frame stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Place {
    /// Of the file: each file that takes the place of another has the next number.
    pub file: u64,
    pub position: u64,
    pub synced_to: u64,
    /// The checksum of the frame before it; 0 for the first one.
    pub previous: u32,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Frame<'a> {
    pub place: Place,
    pub checksum: u32,
    pub payload: &'a [u8],
    /// Bytes it takes, head included.
    pub len: usize,
}

/// Appends a frame to `out`; answers its checksum.
pub(crate) fn encode(place: Place, payload: &[u8], out: &mut Vec<u8>) -> u32 {
    let begin = out.len();
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    out.extend_from_slice(&place.file.to_le_bytes());
    out.extend_from_slice(&place.position.to_le_bytes());
    out.extend_from_slice(&place.synced_to.to_le_bytes());
    out.extend_from_slice(&place.previous.to_le_bytes());
    let checksum = checksum(&out[begin + MAGIC.len()..], payload);
    out.extend_from_slice(&checksum.to_le_bytes());
    out.extend_from_slice(payload);
    checksum
}

fn checksum(head: &[u8], payload: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(head), payload)
}

/// The frame that begins `bytes`, if a whole one does.
pub(crate) fn decode(bytes: &[u8]) -> Option<Frame<'_>> {
    let head = bytes.get(..FRAME_HEAD_LEN)?;
    if !head.starts_with(&MAGIC) {
        return None;
    }
    let u32_at = |at: usize| head[at..at + 4].try_into().map(u32::from_le_bytes).ok();
    let u64_at = |at: usize| head[at..at + 8].try_into().map(u64::from_le_bytes).ok();
    let len = FRAME_HEAD_LEN.checked_add(u32_at(4)? as usize)?;
    let payload = bytes.get(FRAME_HEAD_LEN..len)?;
    let claimed = u32_at(CHECKSUM_AT)?;
    if checksum(&head[MAGIC.len()..CHECKSUM_AT], payload) != claimed {
        return None;
    }
    Some(Frame {
        place: Place {
            file: u64_at(8)?,
            position: u64_at(16)?,
            synced_to: u64_at(24)?,
            previous: u32_at(32)?,
        },
        checksum: claimed,
        payload,
        len,
    })
}

/// The frames of `file` that stand at or after `from` in its bytes, wherever they begin.
pub(crate) fn find(bytes: &[u8], file: u64, from: usize) -> impl Iterator<Item = Frame<'_>> {
    let rest = from..bytes.len();
    rest.filter(|at| bytes[*at..].starts_with(&MAGIC))
        .filter_map(|at| decode(&bytes[at..]).map(|frame| (at as u64, frame)))
        .filter(move |(at, frame)| frame.place.file == file && frame.place.position == *at)
        .map(|(_, frame)| frame)
}
