//! Imports of `rustmq:etl/state` and `rustmq:etl/timers`.
//!
//! Called by: `state` (on WebAssembly only). Invariants: those of `abi`.

use super::column;
use crate::column::Column;

/// A column as it goes out: offsets, data, validity.
type Parts = (*const u32, usize, *const u8, usize, *const u8, usize);

#[link(wasm_import_module = "rustmq:etl/state@0.1.5")]
unsafe extern "C" {
    #[link_name = "get"]
    fn host_get(
        offsets: *const u32,
        offsets_len: usize,
        data: *const u8,
        data_len: usize,
        validity: *const u8,
        validity_len: usize,
        ret: *mut [u32; 6],
    );
    #[link_name = "put"]
    fn host_put(
        key_offsets: *const u32,
        key_offsets_len: usize,
        key_data: *const u8,
        key_data_len: usize,
        key_validity: *const u8,
        key_validity_len: usize,
        value_offsets: *const u32,
        value_offsets_len: usize,
        value_data: *const u8,
        value_data_len: usize,
        value_validity: *const u8,
        value_validity_len: usize,
    );
    #[link_name = "scan"]
    fn host_scan(
        prefix: *const u8,
        prefix_len: usize,
        has_after: u32,
        after: *const u8,
        after_len: usize,
        limit: u32,
        ret: *mut [u32; 12],
    );
}

#[link(wasm_import_module = "rustmq:etl/timers@0.1.5")]
unsafe extern "C" {
    #[link_name = "set"]
    fn host_set(
        offsets: *const u32,
        offsets_len: usize,
        data: *const u8,
        data_len: usize,
        validity: *const u8,
        validity_len: usize,
        times: *const i64,
        times_len: usize,
    );
    #[link_name = "clear"]
    fn host_clear(
        offsets: *const u32,
        offsets_len: usize,
        data: *const u8,
        data_len: usize,
        validity: *const u8,
        validity_len: usize,
        times: *const i64,
        times_len: usize,
    );
}

/// The host's: there is one a call.
#[derive(Default)]
pub(crate) struct State(());

impl State {
    pub(crate) fn get(&self, keys: &Column) -> Column {
        let mut ret = [0; 6];
        let (offsets, offsets_len, data, data_len, validity, validity_len) = parts(keys);
        // SAFETY: the lists are read during the call, which writes the answer into `ret`
        unsafe {
            host_get(
                offsets,
                offsets_len,
                data,
                data_len,
                validity,
                validity_len,
                &mut ret,
            );
            column(ret)
        }
    }

    pub(crate) fn put(&self, keys: &Column, values: &Column) {
        let (a, b, c, d, e, f) = parts(keys);
        let (g, h, i, j, k, l) = parts(values);
        // SAFETY: the lists are read during the call
        unsafe { host_put(a, b, c, d, e, f, g, h, i, j, k, l) }
    }

    pub(crate) fn scan(&self, prefix: &[u8], after: Option<&[u8]>, limit: u32) -> (Column, Column) {
        let mut ret = [0; 12];
        let behind = after.unwrap_or_default();
        // SAFETY: the lists are read during the call, which writes two columns into `ret`
        unsafe {
            host_scan(
                prefix.as_ptr(),
                prefix.len(),
                u32::from(after.is_some()),
                behind.as_ptr(),
                behind.len(),
                limit,
                &mut ret,
            );
            let [a, b, c, d, e, f, g, h, i, j, k, l] = ret;
            (column([a, b, c, d, e, f]), column([g, h, i, j, k, l]))
        }
    }

    pub(crate) fn timers(&self, keys: &Column, times: &[i64], set: bool) {
        let (a, b, c, d, e, f) = parts(keys);
        let (g, h) = (times.as_ptr(), times.len());
        // SAFETY: the lists are read during the call
        unsafe {
            match set {
                true => host_set(a, b, c, d, e, f, g, h),
                false => host_clear(a, b, c, d, e, f, g, h),
            }
        }
    }
}

fn parts(column: &Column) -> Parts {
    let validity = &column.validity.0;
    (
        column.offsets.as_ptr(),
        column.offsets.len(),
        column.data.as_ptr(),
        column.data.len(),
        validity.as_ptr(),
        validity.len(),
    )
}
