//! The catalog of format 1, which had no Raft: read once, put into the log, set aside.
//!
//! Format 1 was `catalog.snapshot` and `catalog.journal` behind it: frames of magic `RQCF`,
//! payload length u32, index u64, crc32c u32 over these and the payload, then JSON: a whole
//! catalog in the one, commands in the other; the index is the catalog's version after it.
//! Called by: `Metadata::open`. Invariants: the files stay as they were until the log holds what
//! they say; they are renamed then, the journal first, since it does not stand without its
//! snapshot. To be removed when nobody can have a data directory of format 1.
//! Refuses: damage, as the broker of format 1 did.

use std::fs::File;
use std::io;
use std::path::Path;

use model::{Catalog, Command};

use crate::error::OpenError;

const JOURNAL: &str = "catalog.journal";
const SNAPSHOT: &str = "catalog.snapshot";
/// What the files are called when they have been taken over.
const ASIDE: &str = "taken-over";

const FRAME_HEAD_LEN: usize = 20;
const MAGIC: [u8; 4] = *b"RQCF";

struct Frame<'a> {
    index: u64,
    payload: &'a [u8],
    len: usize,
}

/// What the files of format 1 say; `None` if there are none.
pub(crate) fn read(dir: &Path) -> Result<Option<Catalog>, OpenError> {
    let (snapshot, journal) = (dir.join(SNAPSHOT), dir.join(JOURNAL));
    let (Some(snapshot_bytes), Some(journal_bytes)) = (file(&snapshot)?, file(&journal)?) else {
        return one_of_two(&snapshot, &journal);
    };
    let mut catalog = snapshot_read(&snapshot, &snapshot_bytes)?;
    replay(&journal, &journal_bytes, &mut catalog)?;
    Ok(Some(catalog))
}

/// A young catalog has no snapshot yet; one that was taken over may have lost its journal to that.
fn one_of_two(snapshot: &Path, journal: &Path) -> Result<Option<Catalog>, OpenError> {
    let mut catalog = Catalog::new();
    if let Some(bytes) = file(snapshot)? {
        return snapshot_read(snapshot, &bytes).map(Some);
    }
    let Some(bytes) = file(journal)? else {
        return Ok(None);
    };
    replay(journal, &bytes, &mut catalog)?;
    Ok(Some(catalog))
}

/// Renames the files, so that they are not read again; nobody needs them any more.
pub(crate) fn set_aside(dir: &Path) -> Result<(), OpenError> {
    for name in [JOURNAL, SNAPSHOT] {
        let path = dir.join(name);
        let renamed = match std::fs::rename(&path, dir.join(format!("{name}.{ASIDE}"))) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Ok(()) => File::open(dir).and_then(|dir| dir.sync_all()),
            failed => failed,
        };
        renamed.map_err(|error| OpenError::io("rename", &path, error))?;
    }
    Ok(())
}

fn file(path: &Path) -> Result<Option<Vec<u8>>, OpenError> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(OpenError::io("read", path, error)),
    }
}

fn damaged(path: &Path, position: usize, reason: impl ToString) -> OpenError {
    OpenError::Corrupt {
        path: path.to_owned(),
        position: position as u64,
        reason: reason.to_string(),
    }
}

fn snapshot_read(path: &Path, bytes: &[u8]) -> Result<Catalog, OpenError> {
    let frame = decode(bytes).filter(|frame| frame.len == bytes.len());
    let frame = frame.ok_or_else(|| damaged(path, 0, "the snapshot's checksum does not match"))?;
    let catalog: Catalog =
        serde_json::from_slice(frame.payload).map_err(|error| damaged(path, 0, error))?;
    match catalog.version() == frame.index {
        true => Ok(catalog),
        false => Err(damaged(path, 0, format!("it says version {}", frame.index))),
    }
}

/// Applies the journal's commands, up to a torn tail, which was never answered.
fn replay(path: &Path, bytes: &[u8], catalog: &mut Catalog) -> Result<(), OpenError> {
    let mut at = 0;
    while let Some(frame) = decode(&bytes[at..]) {
        let due = catalog.version() + 1;
        // A crash between snapshot and new journal left commands the snapshot has.
        if frame.index >= due {
            if frame.index != due {
                let reason = format!("command {} where {due} is due", frame.index);
                return Err(damaged(path, at, reason));
            }
            let command: Command =
                serde_json::from_slice(frame.payload).map_err(|error| damaged(path, at, error))?;
            let applied = catalog.apply(&command);
            applied.map_err(|error| damaged(path, at, error))?;
            if catalog.version() != frame.index {
                let reason = format!("command {} changes nothing", frame.index);
                return Err(damaged(path, at, reason));
            }
        }
        at += frame.len;
    }
    let is_whole = |ahead: &usize| decode(&bytes[at + ahead..]).is_some();
    match (0..bytes.len() - at).find(is_whole) {
        None => Ok(()),
        Some(ahead) => {
            let reason = format!("a command is damaged; the next whole one is {ahead} bytes on");
            Err(damaged(path, at, reason))
        }
    }
}

fn decode(bytes: &[u8]) -> Option<Frame<'_>> {
    let head = bytes.get(..FRAME_HEAD_LEN)?;
    if !head.starts_with(&MAGIC) {
        return None;
    }
    let u32_at = |at: usize| head[at..at + 4].try_into().map(u32::from_le_bytes).ok();
    let len = FRAME_HEAD_LEN.checked_add(u32_at(4)? as usize)?;
    let payload = bytes.get(FRAME_HEAD_LEN..len)?;
    let index = head[8..16].try_into().map(u64::from_le_bytes).ok()?;
    let checksum = crc32c::crc32c_append(crc32c::crc32c(&head[4..16]), payload);
    (checksum == u32_at(16)?).then_some(Frame {
        index,
        payload,
        len,
    })
}
