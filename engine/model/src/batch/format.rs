//! The bytes of a batch: head, directory, sections. All little-endian.
//!
//! ```text
//! head, 88 bytes                          | directory, 16 bytes a section
//!   0 magic u32 "RMQB"                    |   0 id u16
//!   4 version u8, 5 reserved u8, 6 u16    |   2 flags u16: 1 optional, 2 compressed
//!   8 base offset u64        (stamp)      |   4 offset u32, from the start of the body
//!  16 shard epoch u32        (stamp)      |   8 length u32, as stored
//!  20 reserved u32                        |  12 decoded length u32
//!  24 append time i64, us    (stamp)      | sections follow in the order of the directory, ids
//!  32 crc32c u32 of all from 36 on        | ascending, each at the next multiple of 8; padding
//!  36 attributes u16: 0-1 codec,          | is zero. Compressed: one lz4 or zstd frame.
//!     2 has producer                      |   1 timestamps i64[n]
//!  38 section count u16                   |   2 key offsets u32[n+1]   3 bytes   4 validity
//!  40 records u32                         |   5 value offsets u32[n+1] 6 bytes   7 validity
//!  44 last offset delta u32 (>= 14's last)|   8 header rows u32[n+1]: entries m = last
//!  48 first timestamp i64, us             |   9 name offsets u32[m+1] 10 bytes
//!  56 largest timestamp i64, us           |  11 value offsets u32[m+1] 12 bytes 13 validity
//!  64 producer id u64                     |  14 offset deltas u32[n], growing
//!  72 base sequence u32                   | Validity: one bit a cell, lowest first, 1 = there;
//!  76 producer epoch u16, 78 reserved u16 | left out where all are. Keys (2-4) are left out if
//!  80 body length u32, 84 reserved u32    | no record has one; values likewise.
//! ```
//!
//! Values as typed columns (of topics of `columns`) stand in sections of their own instead of 5
//! and 6: 15 has a byte a column, its type (1 bool, 2 int64, 3 float64, 4 string, 5 bytes, 6
//! timestamp in microseconds, UTC); column `i` has its values at 16 + 3 i (bits, 8 bytes each, or
//! offsets u32[n+1]), the bytes of text and bytes at 17 + 3 i, its validity at 18 + 3 i. Then 7
//! says which records have a value.
//!
//! Called by `batch` only. Invariants: reserved bits are zero; what decodes encodes to the same
//! bytes. Refuses before it takes memory.

use super::{BODY_BYTES_MAX, BatchError, Codec, Producer};
use crate::ids::ProducerId;
use crate::limits::{
    BATCH_DECODED_BYTES_MAX, BATCH_RECORDS_MAX, BATCH_SECTIONS_MAX, COLUMNS_MAX, OFFSET_MAX,
};

/// "RMQB".
pub const MAGIC: u32 = u32::from_le_bytes(*b"RMQB");
/// The only version so far.
pub const VERSION: u8 = 1;
/// Bytes of the fixed header.
pub const HEAD_LEN: usize = 88;
/// Bytes of one directory entry.
pub(super) const ENTRY_LEN: usize = 16;
/// Where the checksummed part begins.
const CHECKED_FROM: usize = 36;
/// Sections begin at multiples of this.
pub(super) const ALIGN: usize = 8;

pub(super) const TIMESTAMPS: u16 = 1;
pub(super) const KEY_OFFSETS: u16 = 2;
pub(super) const VALUE_OFFSETS: u16 = 5;
pub(super) const VALUE_VALIDITY: u16 = 7;
pub(super) const HEADER_ROWS: u16 = 8;
pub(super) const HEADER_NAME_OFFSETS: u16 = 9;
pub(super) const HEADER_NAME_BYTES: u16 = 10;
pub(super) const HEADER_VALUE_OFFSETS: u16 = 11;
pub(super) const OFFSET_DELTAS: u16 = 14;
pub(super) const COLUMN_TYPES: u16 = 15;
/// The first of three of the first column.
pub(super) const COLUMNS: u16 = 16;
/// Ids up to this are known and never optional.
pub(super) const KNOWN_MAX: u16 = COLUMNS + 3 * COLUMNS_MAX as u16 - 1;

pub(super) const FLAG_OPTIONAL: u16 = 1;
pub(super) const FLAG_COMPRESSED: u16 = 2;

const ATTRIBUTE_CODEC: u16 = 0b011;
const ATTRIBUTE_PRODUCER: u16 = 0b100;

/// The fixed header, as values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Head {
    pub base_offset: u64,
    pub shard_epoch: u32,
    pub append_time: i64,
    pub checksum: u32,
    pub codec: Codec,
    pub sections: u16,
    pub records: u32,
    pub last_offset_delta: u32,
    pub first_timestamp: i64,
    pub max_timestamp: i64,
    pub producer: Option<Producer>,
    pub body_length: u32,
}

/// One entry of the directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Section {
    pub id: u16,
    pub flags: u16,
    pub offset: u32,
    pub length: u32,
    pub decoded_length: u32,
}

/// `N` bytes at `at`. The caller has checked the length.
fn bytes_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes_at(bytes, at))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes_at(bytes, at))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes_at(bytes, at))
}

fn invalid(detail: impl Into<String>) -> BatchError {
    BatchError::Invalid {
        detail: detail.into(),
    }
}

impl Head {
    /// Reads the header at the front of `bytes` and checks what can be checked without a body.
    pub fn read(bytes: &[u8]) -> Result<Head, BatchError> {
        if bytes.len() < HEAD_LEN {
            return Err(BatchError::Truncated {
                needed: HEAD_LEN,
                have: bytes.len(),
            });
        }
        let magic = u32_at(bytes, 0);
        if magic != MAGIC {
            return Err(BatchError::Magic { found: magic });
        }
        if bytes[4] != VERSION {
            return Err(BatchError::Version { found: bytes[4] });
        }
        let body_length = u32_at(bytes, 80);
        if body_length as usize > BODY_BYTES_MAX {
            return Err(BatchError::TooLarge {
                bytes: u64::from(body_length) + HEAD_LEN as u64,
            });
        }
        let attributes = u16_at(bytes, 36);
        let reserved = bytes[5] != 0
            || u16_at(bytes, 6) != 0
            || u32_at(bytes, 20) != 0
            || u16_at(bytes, 78) != 0
            || u32_at(bytes, 84) != 0
            || attributes & !(ATTRIBUTE_CODEC | ATTRIBUTE_PRODUCER) != 0;
        if reserved {
            return Err(invalid("reserved bits of its head are set"));
        }
        let head = Head {
            base_offset: u64_at(bytes, 8),
            shard_epoch: u32_at(bytes, 16),
            append_time: u64_at(bytes, 24) as i64,
            checksum: u32_at(bytes, 32),
            codec: codec_of(attributes)?,
            sections: u16_at(bytes, 38),
            records: u32_at(bytes, 40),
            last_offset_delta: u32_at(bytes, 44),
            first_timestamp: u64_at(bytes, 48) as i64,
            max_timestamp: u64_at(bytes, 56) as i64,
            producer: producer_of(attributes, bytes)?,
            body_length,
        };
        head.counts_check()?;
        Ok(head)
    }

    fn counts_check(&self) -> Result<(), BatchError> {
        if self.records == 0 || self.records as usize > BATCH_RECORDS_MAX {
            return Err(BatchError::Records {
                records: self.records,
            });
        }
        if self.last_offset_delta < self.records - 1 {
            return Err(invalid("it has more records than offsets"));
        }
        if self.base_offset > OFFSET_MAX - u64::from(self.last_offset_delta) - 1 {
            return Err(invalid("its offsets are beyond the largest offset"));
        }
        let sections = self.sections as usize;
        if sections > BATCH_SECTIONS_MAX || sections * ENTRY_LEN > self.body_length as usize {
            return Err(invalid(format!("it has no room for {sections} sections")));
        }
        Ok(())
    }

    /// The header as bytes.
    pub fn to_bytes(&self) -> [u8; HEAD_LEN] {
        let mut out = [0u8; HEAD_LEN];
        let mut put = |at: usize, bytes: &[u8]| out[at..at + bytes.len()].copy_from_slice(bytes);
        let codec = match self.codec {
            Codec::None => 0,
            Codec::Lz4 => 1,
            Codec::Zstd => 2,
        };
        let flag = if self.producer.is_some() {
            ATTRIBUTE_PRODUCER
        } else {
            0
        };
        put(0, &MAGIC.to_le_bytes());
        put(4, &[VERSION]);
        put(8, &self.base_offset.to_le_bytes());
        put(16, &self.shard_epoch.to_le_bytes());
        put(24, &self.append_time.to_le_bytes());
        put(32, &self.checksum.to_le_bytes());
        put(36, &(codec | flag).to_le_bytes());
        put(38, &self.sections.to_le_bytes());
        put(40, &self.records.to_le_bytes());
        put(44, &self.last_offset_delta.to_le_bytes());
        put(48, &self.first_timestamp.to_le_bytes());
        put(56, &self.max_timestamp.to_le_bytes());
        if let Some(producer) = self.producer {
            put(64, &producer.id.0.to_le_bytes());
            put(72, &producer.sequence.to_le_bytes());
            put(76, &producer.epoch.to_le_bytes());
        }
        put(80, &self.body_length.to_le_bytes());
        out
    }

    /// The crc32c of this head, less the stamp, and `body`.
    pub fn compute_checksum(&self, body: &[u8]) -> u32 {
        crc32c::crc32c_append(crc32c::crc32c(&self.to_bytes()[CHECKED_FROM..]), body)
    }

    pub fn checksum_check(&self, body: &[u8]) -> Result<(), BatchError> {
        let (found, computed) = (self.checksum, self.compute_checksum(body));
        if found != computed {
            return Err(BatchError::Checksum { found, computed });
        }
        Ok(())
    }
}

fn codec_of(attributes: u16) -> Result<Codec, BatchError> {
    match attributes & ATTRIBUTE_CODEC {
        0 => Ok(Codec::None),
        1 => Ok(Codec::Lz4),
        2 => Ok(Codec::Zstd),
        other => Err(invalid(format!("its codec {other} is not known here"))),
    }
}

fn producer_of(attributes: u16, bytes: &[u8]) -> Result<Option<Producer>, BatchError> {
    if attributes & ATTRIBUTE_PRODUCER == 0 {
        return match bytes[64..78].iter().all(|b| *b == 0) {
            true => Ok(None),
            false => Err(invalid("it has no producer, but bytes where one would be")),
        };
    }
    Ok(Some(Producer {
        id: ProducerId(u64_at(bytes, 64)),
        sequence: u32_at(bytes, 72),
        epoch: u16_at(bytes, 76),
    }))
}

impl Section {
    /// Entry `index` of the directory at the front of `body`, which has that many.
    fn read(body: &[u8], index: usize) -> Section {
        let at = index * ENTRY_LEN;
        Section {
            id: u16_at(body, at),
            flags: u16_at(body, at + 2),
            offset: u32_at(body, at + 4),
            length: u32_at(body, at + 8),
            decoded_length: u32_at(body, at + 12),
        }
    }

    pub fn write(&self, out: &mut [u8]) {
        out[0..2].copy_from_slice(&self.id.to_le_bytes());
        out[2..4].copy_from_slice(&self.flags.to_le_bytes());
        out[4..8].copy_from_slice(&self.offset.to_le_bytes());
        out[8..12].copy_from_slice(&self.length.to_le_bytes());
        out[12..16].copy_from_slice(&self.decoded_length.to_le_bytes());
    }

    pub fn is_compressed(&self) -> bool {
        self.flags & FLAG_COMPRESSED != 0
    }

    /// An error about this section.
    pub fn wrong(&self, detail: impl Into<String>) -> BatchError {
        BatchError::Section {
            id: self.id,
            detail: detail.into(),
        }
    }
}

/// The sections of a body whose directory is in bounds.
pub(super) fn sections(head: &Head, body: &[u8]) -> impl Iterator<Item = Section> {
    (0..head.sections as usize).map(|index| Section::read(body, index))
}

/// The section `id`, if there is one.
pub(super) fn find(head: &Head, body: &[u8], id: u16) -> Option<Section> {
    sections(head, body).find(|s| s.id == id)
}

/// Checks the directory: known sections, ascending, in bounds, without holes or overlap, and
/// not too large when decompressed.
pub(super) fn directory_check(head: &Head, body: &[u8]) -> Result<(), BatchError> {
    let mut end = head.sections as usize * ENTRY_LEN;
    let mut last_id = 0u16;
    let mut decoded = 0u64;
    for section in sections(head, body) {
        if section.id <= last_id {
            return Err(section.wrong("sections must come in ascending order, each once"));
        }
        last_id = section.id;
        if section.flags & !(FLAG_OPTIONAL | FLAG_COMPRESSED) != 0 {
            return Err(section.wrong("reserved flags are set"));
        }
        let optional = section.flags & FLAG_OPTIONAL != 0;
        if section.id > KNOWN_MAX && !optional {
            return Err(BatchError::UnknownSection { id: section.id });
        }
        if section.id <= KNOWN_MAX && optional {
            return Err(section.wrong("it is marked optional, which it is not"));
        }
        let start = end.next_multiple_of(ALIGN);
        if section.offset as usize != start {
            return Err(section.wrong(format!("it begins at {}, not {start}", section.offset)));
        }
        if section.length as usize > body.len().saturating_sub(start) {
            return Err(section.wrong("it ends after the batch"));
        }
        padding_check(body, end, start)?;
        end = start + section.length as usize;
        match section.is_compressed() {
            true if head.codec == Codec::None => {
                return Err(section.wrong("it is compressed in a batch without a codec"));
            }
            false if section.length != section.decoded_length => {
                return Err(section.wrong("two lengths, but it is not compressed"));
            }
            _ => {}
        }
        decoded += u64::from(section.decoded_length);
        if decoded > BATCH_DECODED_BYTES_MAX as u64 {
            return Err(BatchError::DecodedTooLarge { bytes: decoded });
        }
    }
    if body.len() != end.next_multiple_of(ALIGN) {
        let have = body.len();
        return Err(invalid(format!(
            "its body has {have} bytes where its sections need {end}"
        )));
    }
    padding_check(body, end, body.len())
}

fn padding_check(body: &[u8], from: usize, to: usize) -> Result<(), BatchError> {
    match body[from..to].iter().all(|b| *b == 0) {
        true => Ok(()),
        false => Err(invalid("its padding is not zero")),
    }
}
