//! Ranges of objects out of the store, each checked before anyone sees it.
//!
//! Called by: `reader`, `Tier::read_whole`, and SQL through `Store`. A piece is what has a
//! checksum: a row group or a footer by the manifest, a column chunk by the footer, a whole object
//! of format 1. Pieces that touch are fetched with one request.
//! Invariants: bytes leave here, and enter the cache, only with the checksum they should have; a
//! mismatch is believed when the store says it twice.
//! Refuses: damaged bytes, with the object, the row group, the partition and its offsets.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::try_join_all;
use model::PartitionId;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

use super::Tier;
use super::footer::{Footer, Sparse};
use super::manifest::ColdObject;
use crate::cache::BlockKey;
use crate::error::TierError;

/// Something of an object that has a checksum.
#[derive(Clone, Debug)]
pub(crate) struct Piece {
    pub at: u64,
    pub len: u64,
    pub crc32c: u32,
    pub of: PieceOf,
}

/// What a piece is, for who must be told that it is damaged.
#[derive(Clone, Debug)]
pub(crate) enum PieceOf {
    Whole,
    Foot,
    Group { group: u32, base: u64, rows: u64 },
    Chunk { group: u32, rows: u64 },
}

impl Piece {
    pub(crate) fn end(&self) -> u64 {
        self.at.saturating_add(self.len)
    }

    fn name(&self) -> String {
        match &self.of {
            PieceOf::Whole => "the object".to_owned(),
            PieceOf::Foot => "the footer".to_owned(),
            PieceOf::Group { group, base, rows } => {
                format!("row group {group} with {rows} rows from offset {base} on")
            }
            PieceOf::Chunk { group, rows } => {
                format!("a column of row group {group} with {rows} rows")
            }
        }
    }

    /// The piece's part of `bytes`, which begin at `at` in the object.
    fn check(&self, at: u64, bytes: &Bytes) -> Result<(), String> {
        let from = self.at.saturating_sub(at) as usize;
        let part = bytes.get(from..from + self.len as usize);
        let part = part.ok_or_else(|| format!("{} was cut short", self.name()))?;
        let crc32c = crc32c::crc32c(part);
        if crc32c == self.crc32c {
            return Ok(());
        }
        let (name, expected) = (self.name(), self.crc32c);
        Err(format!(
            "the checksum of {name} is {crc32c:08x}, not {expected:08x}"
        ))
    }
}

impl ColdObject {
    /// Row group `number` of this partition; all of the object in format 1.
    pub(crate) fn piece(&self, number: usize) -> Option<Piece> {
        if self.foot.is_none() {
            return (number == 0).then(|| self.whole());
        }
        let group = self.groups.get(number)?;
        Some(Piece {
            at: group.at,
            len: group.len,
            crc32c: group.crc32c,
            of: PieceOf::Group {
                group: self.group + number as u32,
                base: group.base,
                rows: group.rows,
            },
        })
    }

    fn foot_piece(&self) -> Piece {
        self.foot.as_ref().map_or_else(
            || self.whole(),
            |foot| Piece {
                at: foot.at,
                len: foot.len,
                crc32c: foot.crc32c,
                of: PieceOf::Foot,
            },
        )
    }

    fn whole(&self) -> Piece {
        Piece {
            at: 0,
            len: self.size,
            crc32c: self.crc32c,
            of: PieceOf::Whole,
        }
    }
}

impl Tier {
    /// Pieces of an object that follow each other without a gap, with one request.
    pub(crate) async fn fetch(
        &self,
        partition: PartitionId,
        object: &ColdObject,
        pieces: &[Piece],
    ) -> Result<Bytes, TierError> {
        let (Some(first), Some(last)) = (pieces.first(), pieces.last()) else {
            return Ok(Bytes::new());
        };
        let key = block(object, first.at, last.end().saturating_sub(first.at));
        let range = key.at..key.at.saturating_add(key.len);
        let fetch = || fetch_checked(&self.objects, partition, object, pieces, range);
        self.blocks.get(&key, fetch).await
    }

    /// Has a piece fetched in the background, for a reader that comes to it next.
    pub(crate) fn fetch_ahead(&self, partition: PartitionId, object: &ColdObject, piece: Piece) {
        let (objects, object) = (Arc::clone(&self.objects), object.clone());
        let key = block(&object, piece.at, piece.len);
        let range = piece.at..piece.end();
        let fetch = async move || {
            let pieces = std::slice::from_ref(&piece);
            fetch_checked(&objects, partition, &object, pieces, range).await
        };
        self.blocks.ahead(key, fetch);
    }

    /// The footer of an object.
    pub(crate) async fn footer(
        &self,
        partition: PartitionId,
        object: &ColdObject,
    ) -> Result<Arc<Footer>, TierError> {
        if let Some(footer) = self.footers.get(&object.path) {
            return Ok(footer);
        }
        let piece = object.foot_piece();
        let bytes = self
            .fetch(partition, object, std::slice::from_ref(&piece))
            .await?;
        let bytes = Sparse::new(object.size, piece.at, bytes);
        let parsed = Footer::parse(object, &bytes);
        let footer = Arc::new(parsed.map_err(|reason| damaged(partition, object, reason))?);
        self.footers.put(&footer);
        Ok(footer)
    }

    /// Any ranges of an object, by way of the column chunks they lie in.
    pub(crate) async fn fetch_ranges(
        &self,
        partition: PartitionId,
        object: &ColdObject,
        ranges: &[Range<u64>],
    ) -> Result<Vec<Bytes>, TierError> {
        let footer = self.footer(partition, object).await?;
        let whole = object.whole();
        let pieces = |range: &Range<u64>| match object.foot {
            Some(_) => footer.chunks(range.start, range.end),
            None => std::slice::from_ref(&whole),
        };
        let runs = runs(ranges.iter().flat_map(pieces));
        let fetch = async |run: &Vec<Piece>| {
            let at = run.first().map_or(0, |piece| piece.at);
            let bytes = self.fetch(partition, object, run).await?;
            Ok::<_, TierError>((at, bytes))
        };
        let runs: Vec<(u64, Bytes)> = try_join_all(runs.iter().map(fetch)).await?;
        let slice = |range: &Range<u64>| {
            let after = runs.partition_point(|(at, _)| *at <= range.start);
            let run = after.checked_sub(1).and_then(|run| runs.get(run));
            let found = run.and_then(|(at, bytes)| {
                let (from, to) = (range.start.checked_sub(*at)?, range.end.checked_sub(*at)?);
                let (from, to) = (usize::try_from(from).ok()?, usize::try_from(to).ok()?);
                (from <= to && to <= bytes.len()).then(|| bytes.slice(from..to))
            });
            found.ok_or_else(|| {
                let reason = format!("bytes {range:?} are in no column");
                damaged(partition, object, reason)
            })
        };
        ranges.iter().map(slice).collect()
    }
}

/// The cache's name for bytes of an object.
fn block(object: &ColdObject, at: u64, len: u64) -> BlockKey {
    let path = Arc::from(object.path.as_str());
    BlockKey { path, at, len }
}

/// Asks the store, and asks again where the answer is not what it should be.
async fn fetch_checked(
    objects: &Arc<dyn ObjectStore>,
    partition: PartitionId,
    object: &ColdObject,
    pieces: &[Piece],
    range: Range<u64>,
) -> Result<Bytes, TierError> {
    let mut is_second = false;
    loop {
        let bytes = fetch_range(objects, partition, object, range.clone()).await?;
        let check = |piece: &Piece| piece.check(range.start, &bytes);
        let Err(reason) = pieces.iter().try_for_each(check) else {
            return Ok(bytes);
        };
        if is_second {
            return Err(damaged(partition, object, reason));
        }
        let path = &object.path;
        tracing::warn!(path, %partition, reason, "bytes of the tier are fetched again");
        is_second = true;
    }
}

/// A range of an object as the store has it.
async fn fetch_range(
    objects: &Arc<dyn ObjectStore>,
    partition: PartitionId,
    object: &ColdObject,
    range: Range<u64>,
) -> Result<Bytes, TierError> {
    let path = Path::from(object.path.as_str());
    let wanted = range.end - range.start;
    let got = objects.get_range(&path, range).await;
    if got.as_ref().is_ok_and(|bytes| bytes.len() as u64 == wanted) {
        return got.map_err(|error| TierError::store("read", &object.path, error));
    }
    // A range that is not there, or not all of it: the object was cut, if its size says so.
    match objects.head(&path).await {
        Ok(meta) if meta.size != object.size => {
            let reason = format!("it has {} bytes, not {}", meta.size, object.size);
            Err(damaged(partition, object, reason))
        }
        _ => got.map_err(|error| TierError::store("read", &object.path, error)),
    }
}

/// Each piece once, joined where they touch.
fn runs<'a>(pieces: impl Iterator<Item = &'a Piece>) -> Vec<Vec<Piece>> {
    let mut pieces: Vec<&Piece> = pieces.collect();
    pieces.sort_by_key(|piece| piece.at);
    pieces.dedup_by_key(|piece| piece.at);
    let mut runs: Vec<Vec<Piece>> = Vec::new();
    for piece in pieces {
        match runs.last_mut() {
            Some(run) if run.last().is_some_and(|last| last.end() == piece.at) => {
                run.push(piece.clone());
            }
            _ => runs.push(vec![piece.clone()]),
        }
    }
    runs
}

/// Names what is damaged as closely as it is known.
pub(crate) fn damaged(partition: PartitionId, object: &ColdObject, reason: String) -> TierError {
    TierError::Damaged {
        path: object.path.clone(),
        partition,
        base: object.base,
        next: object.next,
        reason,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_that_touch_are_one_request() {
        let piece = |at, len| Piece {
            at,
            len,
            crc32c: 0,
            of: PieceOf::Whole,
        };
        let pieces = [
            piece(40, 10),
            piece(4, 6),
            piece(10, 5),
            piece(4, 6),
            piece(50, 1),
        ];
        let runs = runs(pieces.iter());
        let ranges: Vec<_> = runs
            .iter()
            .map(|run| (run[0].at, run[run.len() - 1].end()))
            .collect();
        assert_eq!(ranges, [(4, 15), (40, 51)]);
    }
}
