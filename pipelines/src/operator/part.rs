//! Rows of a chunk that a guest is given in one call.
//!
//! Called by: `wasm`. Invariants: rows share what they hold with their chunk, but for those that were chosen
//! with gaps between them; a part of no rows is one.

use std::ops::Deref;
use std::rc::Rc;

use arrow::buffer::ScalarBuffer;
use model::ids::Offset;
use wasm::Batch;

use super::{Chunk, OperatorError};

#[derive(Clone)]
pub(super) struct Part<'c> {
    /// The number of the input they came from.
    pub input: u16,
    chunk: Rows<'c>,
    /// Of the chunk's rows.
    offsets: ScalarBuffer<Offset>,
    from: usize,
    pub len: usize,
}

#[derive(Clone)]
enum Rows<'c> {
    Lent(&'c Chunk),
    Own(Rc<Chunk>),
}

impl Deref for Rows<'_> {
    type Target = Chunk;

    fn deref(&self) -> &Chunk {
        match self {
            Rows::Lent(chunk) => chunk,
            Rows::Own(chunk) => chunk,
        }
    }
}

impl<'c> Part<'c> {
    /// All rows of a chunk. `offsets` are those of the lane's batch, by origin.
    pub fn all(input: u16, chunk: &'c Chunk, offsets: &[Offset]) -> Part<'c> {
        let origins = chunk.origins.iter();
        Part {
            input,
            offsets: origins.map(|origin| offsets[*origin as usize]).collect(),
            from: 0,
            len: chunk.len(),
            chunk: Rows::Lent(chunk),
        }
    }

    /// Rows `from..from + len` of these.
    pub fn range(&self, from: usize, len: usize) -> Part<'c> {
        Part {
            from: self.from + from,
            len,
            ..self.clone()
        }
    }

    /// The chosen ones of these, in that order. Nothing is copied of rows that follow each other.
    pub fn only(&self, rows: &[u32]) -> Result<Part<'c>, OperatorError> {
        let first = rows.first().copied().unwrap_or_default();
        if rows.iter().zip(first..).all(|(row, at)| *row == at) {
            return Ok(self.range(first as usize, rows.len()));
        }
        let rows: Vec<u32> = rows.iter().map(|row| row + self.from as u32).collect();
        let offset = |row: &u32| self.offsets[*row as usize];
        Ok(Part {
            input: self.input,
            offsets: rows.iter().map(offset).collect(),
            from: 0,
            len: rows.len(),
            chunk: Rows::Own(Rc::new(self.chunk.take(&rows)?)),
        })
    }

    pub fn origins(&self) -> &[u32] {
        &self.chunk.origins[self.from..self.from + self.len]
    }

    /// The least origin of these rows and of those behind them, which may have come from earlier ones.
    pub fn first(&self) -> u32 {
        first_of(&self.chunk.origins[self.from..])
    }

    pub fn batch(&self) -> Batch {
        let all = Batch {
            columns: self.chunk.columns.clone(),
            unwritten: self.chunk.unwritten.clone(),
            ..Batch::new(self.chunk.rows.clone(), self.offsets.clone())
        };
        if self.len == self.chunk.len() {
            return all;
        }
        let (from, len) = (self.from, self.len);
        Batch {
            rows: all.rows.slice(from, len),
            offsets: all.offsets.slice(from, len),
            columns: all.columns.map(|columns| columns.slice(from, len)),
            unwritten: all.unwritten,
        }
    }
}

pub(super) fn first_of(origins: &[u32]) -> u32 {
    origins.iter().copied().min().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use model::rows::RowsBuilder;

    use super::*;

    #[test]
    fn parts_of_parts_are_the_rows_they_name() {
        let mut rows = RowsBuilder::new();
        (0..8).for_each(|row| rows.push(row, None, Some(b"v"), &[]));
        let chunk = Chunk {
            rows: rows.finish(),
            origins: vec![7, 0, 1, 2, 3, 4, 5, 6],
            ..Chunk::empty()
        };
        let offsets: Vec<Offset> = (100..108).collect();
        let check = |part: Part<'_>, times: &[i64], shares: bool| {
            let batch = part.batch();
            assert_eq!(&batch.rows.timestamps[..], times);
            let origins = times.iter().map(|row| (*row as u32 + 7) % 8);
            assert_eq!(part.origins(), origins.collect::<Vec<_>>());
            let offsets = part
                .origins()
                .iter()
                .map(|origin| offsets[*origin as usize]);
            assert_eq!(&batch.offsets[..], offsets.collect::<Vec<_>>());
            assert_eq!(matches!(part.chunk, Rows::Lent(_)), shares);
        };
        let all = || Part::all(0, &chunk, &offsets);
        check(all(), &[0, 1, 2, 3, 4, 5, 6, 7], true);
        let some = all().range(2, 5);
        assert_eq!((some.first(), all().first()), (1, 0));
        check(
            some.only(&[1, 2, 3]).expect("they are there"),
            &[3, 4, 5],
            true,
        );
        check(some.only(&[]).expect("none is some"), &[], true);
        let chosen = some.only(&[0, 2, 4]).expect("they are there");
        check(chosen.clone(), &[2, 4, 6], false);
        check(
            chosen.range(1, 2).only(&[1]).expect("it is there"),
            &[6],
            false,
        );
    }
}
