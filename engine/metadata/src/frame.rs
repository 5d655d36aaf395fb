//! One command, or one whole catalog, as bytes.
//!
//! A frame, little-endian: magic `RQCF`, payload length u32, index u64, crc32c u32 over length,
//! index and payload, then the payload (JSON). The index is the catalog's version after it.
//! Called by: `journal`. Invariants: a length is checked against the bytes at hand.
//! Refuses: whatever does not have the checksum it claims.

pub(crate) const FRAME_HEAD_LEN: usize = 20;
const MAGIC: [u8; 4] = *b"RQCF";

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Frame<'a> {
    pub index: u64,
    pub payload: &'a [u8],
    /// Bytes it takes, head included.
    pub len: usize,
}

pub(crate) fn encode(index: u64, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(FRAME_HEAD_LEN + payload.len());
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    out.extend_from_slice(&index.to_le_bytes());
    out.extend_from_slice(&checksum(&out[4..16], payload).to_le_bytes());
    out.extend_from_slice(payload);
    out
}

fn checksum(head: &[u8], payload: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(head), payload)
}

/// The frame that begins `bytes`, if a whole one does.
pub(crate) fn decode(bytes: &[u8]) -> Option<Frame<'_>> {
    let head = bytes.get(..FRAME_HEAD_LEN)?;
    if head[..4] != MAGIC {
        return None;
    }
    let u32_at = |at: usize| head[at..at + 4].try_into().map(u32::from_le_bytes).ok();
    let len = FRAME_HEAD_LEN.checked_add(u32_at(4)? as usize)?;
    let payload = bytes.get(FRAME_HEAD_LEN..len)?;
    let index = head[8..16].try_into().map(u64::from_le_bytes).ok()?;
    (checksum(&head[4..16], payload) == u32_at(16)?).then_some(Frame {
        index,
        payload,
        len,
    })
}

/// Where in `bytes` a later whole frame begins.
pub(crate) fn find(bytes: &[u8]) -> Option<usize> {
    (0..bytes.len()).find(|at| bytes[*at..].starts_with(&MAGIC) && decode(&bytes[*at..]).is_some())
}
