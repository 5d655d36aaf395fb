//! The end of a run: what was left is damaged, one bit at a time, with and without a checkpoint.
//!
//! Called by: `run`. Invariants: works on copies. Refuses (answers what is wrong): damage that is
//! not named, and whatever a checkpoint changes but the time.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use model::{Offset, PartitionId};

use super::{FLIPS, Rng, Run, SEGMENT_BYTES, number};
use crate::error::OpenError;
use crate::io::Disk;
use crate::tests::disk::SimDisk;
use crate::wal::reader::read_batch;
use crate::wal::recovery::{FoundBatch, recover};

/// Files by path.
pub(super) type Files = BTreeMap<PathBuf, Vec<u8>>;

impl Run {
    /// Flips bits below what is known durable: each must be named. So must what is read of a log
    /// with a checkpoint; a damaged checkpoint, or one that is newer than its log, is not used.
    pub(super) fn damage(&mut self, before: &Files) -> Result<(), String> {
        let (mut files, mut known) = (self.disk.files(), self.disk.known());
        self.report.bytes_crc = files.iter().fold(0, |crc, (path, bytes)| {
            let crc = crc32c::crc32c_append(crc, path.to_string_lossy().as_bytes());
            crc32c::crc32c_append(crc, bytes)
        });
        let path = Path::new("/proof/wal/checkpoint");
        known.remove(path);
        let saved = files.remove(path).ok_or("the checkpoint is gone")?;
        for _ in 0..FLIPS {
            let (path, at) = place(&known, &mut self.rng);
            let bit = 1 << self.rng.below(8);
            self.report.flips += 1;
            let flipped = |bytes: &mut Vec<u8>| bytes[at] ^= bit;
            let edited = edited(&files, &path, flipped);
            check_named(found(&edited), &path, at, known[&path])?;
            let with_saved = with(&edited, &saved);
            match found(&with_saved) {
                Err(_) => {}
                Ok(holds) if holds == found(&files).unwrap() => {}
                Ok(_) => {
                    let path = path.display();
                    return Err(format!(
                        "behind a checkpoint a flip in {path} at {at} changed records"
                    ));
                }
            }
        }
        let whole = found(&files);
        if found(&with(&files, &saved)) != whole {
            return Err("with its checkpoint the log says something else".to_owned());
        }
        for _ in 0..FLIPS {
            let mut saved = saved.clone();
            let at = self.rng.below(saved.len() as u64) as usize;
            saved[at] ^= 1 << self.rng.below(8);
            self.report.flips += 1;
            if found(&with(&files, &saved)) != whole {
                return Err(format!(
                    "a flip in the checkpoint at {at} changed what is found"
                ));
            }
        }
        let mut before = before.clone();
        before.remove(path);
        if found(&with(&before, &saved)) != found(&before) {
            return Err("an older log with a newer checkpoint is not what it was".to_owned());
        }
        Ok(())
    }
}

/// Any byte of what is known.
fn place(known: &BTreeMap<PathBuf, usize>, rng: &mut Rng) -> (PathBuf, usize) {
    let mut at = rng.below(known.values().sum::<usize>() as u64) as usize;
    for (path, known) in known {
        if at < *known {
            return (path.clone(), at);
        }
        at -= known;
    }
    unreachable!("the place is below the sum")
}

fn edited(files: &Files, path: &Path, edit: impl FnOnce(&mut Vec<u8>)) -> Files {
    let mut files = files.clone();
    edit(files.get_mut(path).unwrap());
    files
}

fn with(files: &Files, saved: &[u8]) -> Files {
    let mut files = files.clone();
    files.insert("/proof/wal/checkpoint".into(), saved.to_vec());
    files
}

/// By partition: where it begins and ends, and of each batch that is not trimmed base, next
/// offset and values.
type Holds = BTreeMap<PartitionId, (Offset, Offset, Vec<(Offset, Offset, Vec<u64>)>)>;

/// What a log holds, all its batches read; or what is damaged, and whether that was named with
/// its file.
fn found(files: &Files) -> Result<Holds, (Option<PathBuf>, String)> {
    let disk = SimDisk::default();
    for (path, bytes) in files {
        disk.put(path, bytes.clone());
    }
    let disk: Arc<dyn Disk> = Arc::new(disk);
    let recovered = recover(&disk, Path::new("/proof/wal"), SEGMENT_BYTES);
    let recovered = recovered.map_err(|error| match error {
        OpenError::Corrupt { ref path, .. } => (Some(path.clone()), error.to_string()),
        error => (None, error.to_string()),
    })?;
    let mut holds = Holds::new();
    for (id, found) in recovered.partitions {
        let mut batches = Vec::new();
        // What was trimmed may or may not be there.
        let kept = |(_, batch): &(Offset, FoundBatch)| batch.next > found.start;
        for (base, batch) in found.batches.into_iter().filter(kept) {
            let stamp = (base, batch.epoch, batch.append_time_us);
            let read = read_batch(id, stamp, &batch.location);
            let read = read.map_err(|error| (None, error.to_string()))?;
            let rows = read.rows().unwrap();
            let values = (0..rows.len()).map(|row| number(rows.values.value(row)));
            batches.push((base, batch.next, values.collect()));
        }
        holds.insert(id, (found.start, found.end, batches));
    }
    Ok(holds)
}

fn check_named(
    found: Result<Holds, (Option<PathBuf>, String)>,
    path: &Path,
    at: usize,
    known: usize,
) -> Result<(), String> {
    let got = match found {
        Err((Some(named), _)) if named == path => return Ok(()),
        Ok(_) => "was not noticed".to_owned(),
        Err((_, error)) => format!("was answered: {error}"),
    };
    let path = path.display();
    Err(format!("a flip in {path} at {at} below {known} {got}"))
}
