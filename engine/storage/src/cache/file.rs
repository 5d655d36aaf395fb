//! One block as a file: a head that says what it is, then its bytes.
//!
//! Called by: `disk`. Format 1, little-endian: magic `RQBK`, version `u16`, key length `u16`,
//! position and length of the block in its object `u64` each, crc32c `u32` over all of the file
//! but itself and the magic word, then the key (store URL, newline, path), then the bytes.
//! Invariants: what is read is the block that was asked for, whole, or it is an error.
//! Refuses: files of another version, of another key, cut, grown or changed.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::Path;

use bytes::Bytes;
use model::Digest;

use super::BlockKey;

const MAGIC: &[u8; 4] = b"RQBK";
const VERSION: u16 = 1;
/// Magic, version, key length, position, length, checksum.
const HEAD_LEN: usize = 28;
/// Where the checksum stands.
const CRC_AT: usize = 24;
/// What a file is called after its name.
const SUFFIX: &str = ".block";

/// A file's name: part of the digest of its key.
pub(super) type Name = u128;

/// What the file of a block says about it.
pub(super) struct Head {
    bytes: Vec<u8>,
}

impl Head {
    pub(super) fn new(scope: &str, key: &BlockKey) -> Head {
        let text = format!("{scope}\n{}", key.path);
        // Longer ones are cut: the name is made of all of it, this is the second look.
        let text = &text.as_bytes()[..text.len().min(usize::from(u16::MAX))];
        let mut bytes = Vec::with_capacity(HEAD_LEN + text.len());
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&(text.len() as u16).to_le_bytes());
        bytes.extend_from_slice(&key.at.to_le_bytes());
        bytes.extend_from_slice(&key.len.to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(text);
        Head { bytes }
    }

    fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The size of the file of a block with so many bytes.
    pub(super) fn file_size(&self, block_len: u64) -> u64 {
        self.len() as u64 + block_len
    }

    fn checksum(&self, block: &[u8]) -> u32 {
        let head = crc32c::crc32c(&self.bytes[MAGIC.len()..CRC_AT]);
        let key = crc32c::crc32c_append(head, &self.bytes[HEAD_LEN..]);
        crc32c::crc32c_append(key, block)
    }

    fn sealed(mut self, block: &[u8]) -> Vec<u8> {
        let crc = self.checksum(block);
        self.bytes[CRC_AT..HEAD_LEN].copy_from_slice(&crc.to_le_bytes());
        self.bytes
    }
}

/// The name of a block's file, and whether a name is one.
pub(super) fn name_of(scope: &str, key: &BlockKey) -> Name {
    let text = format!("{scope}\n{}\n{}\n{}", key.path, key.at, key.len);
    let digest = Digest::of(text.as_bytes()).0;
    let mut first = [0; 16];
    first.copy_from_slice(&digest[..16]);
    Name::from_be_bytes(first)
}

pub(super) fn file_name(name: Name) -> String {
    format!("{name:032x}{SUFFIX}")
}

pub(super) fn parse_file_name(text: &str) -> Option<Name> {
    let hex = text.strip_suffix(SUFFIX)?;
    if hex.len() != 32 {
        return None;
    }
    Name::from_str_radix(hex, 16).ok()
}

/// Writes the whole file. Not synced: a file that a crash cut short does not pass its checksum.
pub(super) fn write(path: &Path, head: Head, block: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).open(path)?;
    file.write_all(&head.sealed(block))?;
    file.write_all(block)
}

/// The block, if the file is what its head and its checksum say.
pub(super) fn read(path: &Path, head: &Head, block_len: u64) -> io::Result<Bytes> {
    let damaged = |what| io::Error::new(io::ErrorKind::InvalidData, what);
    let mut file = File::open(path)?;
    let size = head.file_size(block_len);
    if file.metadata()?.len() != size {
        return Err(damaged("its size is not the block's"));
    }
    let mut bytes = Vec::with_capacity(size as usize);
    // The file may grow meanwhile: no more than was bought is read.
    Read::by_ref(&mut file).take(size).read_to_end(&mut bytes)?;
    if bytes.len() as u64 != size {
        return Err(damaged("it ends early"));
    }
    let (there, block) = bytes.split_at(head.len());
    let is_same = there[..CRC_AT] == head.bytes[..CRC_AT];
    if !is_same || there[HEAD_LEN..] != head.bytes[HEAD_LEN..] {
        return Err(damaged("its head is of another block"));
    }
    if there[CRC_AT..HEAD_LEN] != head.checksum(block).to_le_bytes() {
        return Err(damaged("its checksum is wrong"));
    }
    let at = head.len();
    Ok(Bytes::from(bytes).slice(at..))
}
