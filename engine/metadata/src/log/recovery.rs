//! How a log is read back: the frames up to the first that is not whole.
//!
//! Called by: `Log::open`. What follows on the last whole frame is a torn tail if nothing says
//! that it was durable once: it was never answered for, and is cut. A whole frame, before it or
//! behind it, that was written when the file was durable beyond the damage says otherwise.
//! Invariants: what is built on is on the disk: it is written and synced again, since the
//! process before may have seen a sync fail.
//! Refuses: corruption, another node's log, a newer format; each names the file and the place.

use std::sync::Arc;

use super::held::Held;
use super::{LOG, Log, Sizes};
use crate::disk::{Folder, LogFile};
use crate::error::OpenError;
use crate::frame::{self, Frame};
use crate::record::{FORMAT, Record};
use crate::types::NodeId;

/// What the bytes of a file say.
struct Read {
    number: u64,
    held: Held,
    end: usize,
    previous: u32,
    is_torn: bool,
}

struct Damage {
    position: usize,
    reason: String,
}

pub(super) fn open(
    folder: Arc<dyn Folder>,
    node: NodeId,
    sizes: Sizes,
    bytes: &[u8],
) -> Result<Log, OpenError> {
    let path = folder.path(LOG);
    let read = read(bytes, node).map_err(|damage| OpenError::Corrupt {
        path: path.clone(),
        position: damage.position as u64,
        reason: damage.reason,
    })?;
    let io = |what| {
        let path = path.clone();
        move |error| OpenError::io(what, &path, error)
    };
    let file = folder.open(LOG).map_err(io("open"))?;
    let mut reserved_to = bytes.len() as u64;
    let end = read.end as u64;
    if read.is_torn {
        tracing::warn!(path = %path.display(), at = end, "a torn tail was cut");
        file.cut(end).map_err(io("repair"))?;
        reserved_to = end;
    }
    settle(file.as_ref(), &bytes[..read.end]).map_err(io("repair"))?;
    Ok(Log {
        file,
        folder,
        sizes,
        node,
        number: read.number,
        end,
        synced_to: end,
        reserved_to,
        previous: read.previous,
        promised: 0,
        held: read.held,
        failure: None,
    })
}

fn settle(file: &dyn LogFile, bytes: &[u8]) -> std::io::Result<()> {
    file.write_at(0, bytes)?;
    file.sync()
}

fn read(bytes: &[u8], node: NodeId) -> Result<Read, Damage> {
    let mut end = 0;
    // A file has its name only when its head is durable.
    let head = frame::decode(bytes).filter(|frame| frame.place.position == 0);
    let head = head.ok_or_else(|| Damage {
        position: 0,
        reason: "the head of the log is not whole".to_owned(),
    })?;
    head_check(&head, node).map_err(|reason| Damage {
        position: 0,
        reason,
    })?;
    let number = head.place.file;
    let mut held = Held::default();
    let mut synced_to = head.place.synced_to;
    let mut previous = 0;
    while let Some(frame) = next(&bytes[end..], number, end, previous) {
        if end > 0 {
            let size = frame.len as u64;
            let taken = record(&frame).and_then(|record| held.take(&record, size));
            taken.map_err(|reason| Damage {
                position: end,
                reason,
            })?;
        }
        synced_to = synced_to.max(frame.place.synced_to);
        previous = frame.checksum;
        end += frame.len;
    }
    for frame in frame::find(bytes, number, end) {
        synced_to = synced_to.max(frame.place.synced_to);
    }
    if synced_to > end as u64 {
        return Err(Damage {
            position: end,
            reason: format!("a record is damaged that was durable: all up to byte {synced_to} was"),
        });
    }
    Ok(Read {
        number,
        held,
        end,
        previous,
        is_torn: bytes[end..].iter().any(|byte| *byte != 0),
    })
}

/// The frame that follows at `end`, where `bytes` begin.
fn next(bytes: &[u8], number: u64, end: usize, previous: u32) -> Option<Frame<'_>> {
    let frame = frame::decode(bytes)?;
    let place = frame.place;
    let follows =
        place.file == number && place.position == end as u64 && place.previous == previous;
    follows.then_some(frame)
}

fn record(frame: &Frame<'_>) -> Result<Record, String> {
    serde_json::from_slice(frame.payload)
        .map_err(|error| format!("{error}; if a newer rustmq wrote it, use that one"))
}

fn head_check(frame: &Frame<'_>, node: NodeId) -> Result<(), String> {
    match record(frame)? {
        Record::Head { format, .. } if format > FORMAT => Err(format!(
            "it was written by a newer rustmq (format {format}, this one knows {FORMAT}); use \
             that version"
        )),
        Record::Head { node: own, .. } if own != node => Err(format!(
            "it is the log of node {own}, this is node {node}: give back the files of this node"
        )),
        Record::Head { .. } => Ok(()),
        _ => Err("the log does not begin with its head".to_owned()),
    }
}
