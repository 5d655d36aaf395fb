//! Imports of `rustmq:etl/lookup`.
//!
//! Called by: `lookup` (on WebAssembly only). Invariants: those of `abi`.

use super::{Numbered, column};
use crate::column::Column;
use crate::record::Failure;

#[link(wasm_import_module = "rustmq:etl/lookup@0.1.5")]
unsafe extern "C" {
    #[link_name = "table"]
    fn host_table(name: *const u8, name_len: usize, ret: *mut Numbered);
    #[link_name = "get"]
    fn host_get(
        table: u32,
        offsets: *const u32,
        offsets_len: usize,
        data: *const u8,
        data_len: usize,
        validity: *const u8,
        validity_len: usize,
        ret: *mut [u32; 6],
    );
}

/// A table by its number.
#[derive(Debug, Clone)]
pub struct Lookup(u32);

impl Lookup {
    pub(crate) fn open(name: &str) -> Result<Lookup, Failure> {
        let mut ret = Numbered::default();
        // SAFETY: the name is read during the call, which writes the answer into `ret`
        unsafe {
            host_table(name.as_ptr(), name.len(), &mut ret);
            ret.take().map(Lookup)
        }
    }

    pub(crate) fn get(&self, keys: &Column) -> Column {
        let mut ret = [0; 6];
        // SAFETY: the lists are read during the call, which writes the answer into `ret`
        unsafe {
            host_get(
                self.0,
                keys.offsets.as_ptr(),
                keys.offsets.len(),
                keys.data.as_ptr(),
                keys.data.len(),
                keys.validity.0.as_ptr(),
                keys.validity.0.len(),
                &mut ret,
            );
            column(ret)
        }
    }
}
