//! The catalog as a file: one frame around one JSON document, the same bytes that go to another
//! node.
//!
//! Called by: `machine`. Invariants: a snapshot takes the place of an older one whole and
//! durably, and never that of a newer one; what is read back has the checksum it claims.
//! Refuses: damage, newer formats.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use model::Catalog;
use serde::{Deserialize, Serialize};

use crate::disk::Folder;
use crate::error::OpenError;
use crate::frame::{self, Place};
use crate::record::{FORMAT, MetaText};
use crate::types::{LogId, SnapshotMeta};

/// Its name in the folder.
const SNAPSHOT: &str = "snapshot";

/// A catalog and the place in the log that it stands for.
#[derive(Clone)]
pub(crate) struct Image {
    pub meta: SnapshotMeta,
    pub catalog: Arc<Catalog>,
}

#[derive(Serialize, Deserialize)]
struct Text {
    format: u32,
    meta: MetaText,
    catalog: Arc<Catalog>,
}

/// The format alone, readable whatever else there is.
#[derive(Deserialize)]
struct FormatText {
    format: u32,
}

impl Image {
    pub(crate) fn encode(&self) -> io::Result<Vec<u8>> {
        let payload = serde_json::to_vec(&Text {
            format: FORMAT,
            meta: (&self.meta).into(),
            catalog: Arc::clone(&self.catalog),
        })?;
        let mut bytes = Vec::with_capacity(frame::FRAME_HEAD_LEN + payload.len());
        frame::encode(Place::default(), &payload, &mut bytes);
        Ok(bytes)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Image, String> {
        let frame = frame::decode(bytes).filter(|frame| frame.len == bytes.len());
        let frame = frame.ok_or("the snapshot's checksum does not match")?;
        let FormatText { format } =
            serde_json::from_slice(frame.payload).map_err(|error| error.to_string())?;
        if format > FORMAT {
            return Err(format!(
                "it was written by a newer rustmq (format {format}, this one knows {FORMAT}); \
                 use that version"
            ));
        }
        let text: Text =
            serde_json::from_slice(frame.payload).map_err(|error| error.to_string())?;
        Ok(Image {
            meta: text.meta.into(),
            catalog: text.catalog,
        })
    }
}

/// The snapshot in a folder.
pub(crate) struct Snapshots {
    folder: Arc<dyn Folder>,
    /// Of the file that is there; held while another takes its place.
    current: Mutex<Option<SnapshotMeta>>,
}

impl Snapshots {
    /// Reads the snapshot, if there is one.
    pub(crate) fn open(folder: Arc<dyn Folder>) -> Result<(Snapshots, Option<Image>), OpenError> {
        let path = folder.path(SNAPSHOT);
        let read = folder.read(SNAPSHOT);
        let bytes = read.map_err(|error| OpenError::io("read", &path, error))?;
        let image = bytes.map(|bytes| Image::decode(&bytes)).transpose();
        let image = image.map_err(|reason| OpenError::Corrupt {
            path,
            position: 0,
            reason,
        })?;
        let current = Mutex::new(image.as_ref().map(|image| image.meta.clone()));
        Ok((Snapshots { folder, current }, image))
    }

    /// Puts a snapshot in place unless there is one that is as new; answers which is there.
    pub(crate) fn put(&self, meta: &SnapshotMeta, bytes: &[u8]) -> io::Result<SnapshotMeta> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(there) = &*current
            && there.last_log_id >= meta.last_log_id
        {
            return Ok(there.clone());
        }
        self.folder.put(SNAPSHOT, bytes, 0)?;
        *current = Some(meta.clone());
        Ok(meta.clone())
    }

    /// The snapshot that is there, as it would go to another node.
    pub(crate) fn current(&self) -> io::Result<Option<(SnapshotMeta, Vec<u8>)>> {
        let current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(meta) = current.clone() else {
            return Ok(None);
        };
        let bytes = self.folder.read(SNAPSHOT)?.ok_or(io::ErrorKind::NotFound)?;
        Image::decode(&bytes).map_err(io::Error::other)?;
        Ok(Some((meta, bytes)))
    }

    /// Up to where the snapshot that is there goes.
    pub(crate) fn applied(&self) -> Option<LogId> {
        let current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        current.as_ref().and_then(|meta| meta.last_log_id)
    }
}
