//! A column of byte strings, as it crosses the boundary.
//!
//! Called by: `batch` (reads), `rt` and authors of [`crate::Module`] (build).
//! Invariants: `offsets` has one entry more than rows, starts at 0 and never falls; `validity` is
//! empty while every row is present.

use crate::typed::Validity;

/// Row i is `data[offsets[i]..offsets[i+1]]`, or absent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    pub(crate) offsets: Vec<u32>,
    pub(crate) data: Vec<u8>,
    pub(crate) validity: Validity,
}

impl Default for Column {
    fn default() -> Column {
        Column::new()
    }
}

impl Column {
    pub fn new() -> Column {
        Column {
            offsets: vec![0],
            data: Vec::new(),
            validity: Validity::default(),
        }
    }

    /// Room for `rows` rows of `bytes` bytes together.
    pub fn with_capacity(rows: usize, bytes: usize) -> Column {
        let mut offsets = Vec::with_capacity(rows + 1);
        offsets.push(0);
        Column {
            offsets,
            data: Vec::with_capacity(bytes),
            validity: Validity::default(),
        }
    }

    pub fn len(&self) -> usize {
        self.offsets.len() - 1
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes of all rows, one after the other.
    pub fn bytes(&self) -> &[u8] {
        &self.data
    }

    pub fn offsets(&self) -> &[u32] {
        &self.offsets
    }

    /// A row; `None` when it is absent. Panics past the end.
    #[inline]
    pub fn get(&self, row: usize) -> Option<&[u8]> {
        if !self.validity.is_present(row) {
            return None;
        }
        Some(&self.data[self.offsets[row] as usize..self.offsets[row + 1] as usize])
    }

    pub fn iter(&self) -> impl Iterator<Item = Option<&[u8]>> {
        (0..self.len()).map(|row| self.get(row))
    }

    #[inline]
    pub fn push(&mut self, value: Option<&[u8]>) {
        if let Some(value) = value {
            self.data.extend_from_slice(value);
        }
        self.close(value.is_some());
    }

    /// Adds a row written by `write`; what an error left behind is taken back.
    #[inline]
    pub fn push_with<E>(
        &mut self,
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        let start = self.data.len();
        if let Err(error) = write(&mut self.data) {
            self.data.truncate(start);
            return Err(error);
        }
        self.close(true);
        Ok(())
    }

    #[inline]
    fn close(&mut self, present: bool) {
        let row = self.len();
        self.offsets.push(self.data.len() as u32);
        self.validity.push(row, present);
    }
}

#[cfg(test)]
mod tests {
    use super::Column;

    #[test]
    fn rows_come_back_as_pushed() {
        for absent in 0..20 {
            let mut column = Column::new();
            for row in 0..20 {
                let value = vec![row as u8; row];
                column.push((row % (absent + 1) != absent).then_some(&value[..]));
            }
            for row in 0..20 {
                let expected = (row % (absent + 1) != absent).then(|| vec![row as u8; row]);
                assert_eq!(
                    column.get(row),
                    expected.as_deref(),
                    "row {row}, absent {absent}"
                );
            }
        }
    }

    #[test]
    fn a_failed_write_leaves_nothing() {
        let mut column = Column::new();
        let failed: Result<(), ()> = column.push_with(|bytes| {
            bytes.extend_from_slice(b"half");
            Err(())
        });
        assert!(failed.is_err());
        column.push(Some(b"whole"));
        assert_eq!((column.len(), column.get(0)), (1, Some(&b"whole"[..])));
    }
}
