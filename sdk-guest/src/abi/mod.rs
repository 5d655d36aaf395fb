//! The boundary by hand: imports of `rustmq:etl` in the canonical ABI.
//!
//! - here `data`; `columns`, `telemetry`, `lookup`, `http` and `state` (with `timers`) are the interfaces of
//!   that name
//!
//! Written out instead of generated, so that a guest does not compile a bindings generator. Every
//! build of a guest checks these signatures: the encoder compares them with the WIT.
//!
//! Called by: `batch`, `outbox`, `rt` (on WebAssembly only).
//! Invariants: a borrowed handle is dropped before the export returns; memory that the host
//! allocated through `cabi_realloc` is owned by the `Vec` made of it.

mod columns;
pub(crate) mod http;
mod lookup;
mod state;
pub(crate) mod telemetry;

pub(crate) use lookup::Lookup;
pub(crate) use state::State;

use crate::column::Column;
use crate::record::Failure;
use crate::typed::Validity;

#[link(wasm_import_module = "rustmq:etl/data@0.1.5")]
unsafe extern "C" {
    #[link_name = "[method]context.params"]
    fn context_params(this: u32, ret: *mut [u32; 2]);
    #[link_name = "[method]context.inputs"]
    fn context_inputs(this: u32, ret: *mut [u32; 2]);
    #[link_name = "[method]context.outputs"]
    fn context_outputs(this: u32, ret: *mut [u32; 2]);
    #[link_name = "[method]context.partition"]
    fn context_partition(this: u32) -> u32;
    #[link_name = "[resource-drop]context"]
    fn context_drop(this: u32);

    #[link_name = "[method]batch.len"]
    fn batch_len(this: u32) -> u32;
    #[link_name = "[method]batch.input"]
    fn batch_input(this: u32) -> u32;
    #[link_name = "[method]batch.keys"]
    fn batch_keys(this: u32, ret: *mut [u32; 6]);
    #[link_name = "[method]batch.values"]
    fn batch_values(this: u32, ret: *mut [u32; 6]);
    #[link_name = "[method]batch.event-times"]
    fn batch_event_times(this: u32, ret: *mut [u32; 2]);
    #[link_name = "[method]batch.offsets"]
    fn batch_offsets(this: u32, ret: *mut [u32; 2]);
    #[link_name = "[method]batch.header"]
    fn batch_header(this: u32, name: *const u8, name_len: usize, ret: *mut [u32; 6]);
    #[link_name = "[method]batch.watermark"]
    fn batch_watermark(this: u32) -> i64;
    #[link_name = "[resource-drop]batch"]
    fn batch_drop(this: u32);

    #[link_name = "[method]outbox.forward"]
    fn outbox_forward(this: u32, port: u32, rows: *const u32, rows_len: usize);
    #[link_name = "[method]outbox.emit"]
    fn outbox_emit(
        this: u32,
        port: u32,
        parents: *const u32,
        parents_len: usize,
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
    #[link_name = "[method]outbox.set-event-times"]
    fn outbox_set_event_times(this: u32, times: *const i64, times_len: usize);
    #[link_name = "[method]outbox.set-header"]
    fn outbox_set_header(
        this: u32,
        name: *const u8,
        name_len: usize,
        offsets: *const u32,
        offsets_len: usize,
        data: *const u8,
        data_len: usize,
        validity: *const u8,
        validity_len: usize,
    );
    #[link_name = "[method]outbox.reject"]
    fn outbox_reject(
        this: u32,
        rows: *const u32,
        rows_len: usize,
        code: *const u8,
        code_len: usize,
        message: *const u8,
        message_len: usize,
    );
    #[link_name = "[method]outbox.retry"]
    fn outbox_retry(
        this: u32,
        rows: *const u32,
        rows_len: usize,
        after_ms: u32,
        code: *const u8,
        code_len: usize,
        message: *const u8,
        message_len: usize,
    );
    #[link_name = "[resource-drop]outbox"]
    fn outbox_drop(this: u32);
}

/// Takes over a list that the host wrote through `cabi_realloc`.
///
/// # Safety
/// `ptr` and `len` come from the host's answer, for a list of `T`.
unsafe fn list<T>(ptr: u32, len: u32) -> Vec<T> {
    // SAFETY: `cabi_realloc` allocated it with the global allocator and the layout of `[T; len]`
    unsafe { Vec::from_raw_parts(ptr as *mut T, len as usize, len as usize) }
}

/// # Safety
/// As [`list`], for UTF-8 text: the host sends nothing else.
unsafe fn string(ptr: u32, len: u32) -> String {
    // SAFETY: by the contract above
    unsafe { String::from_utf8_unchecked(list(ptr, len)) }
}

/// # Safety
/// As [`list`], for a list of strings.
unsafe fn strings([ptr, len]: [u32; 2]) -> Vec<String> {
    // SAFETY: a list of strings is a list of (pointer, length), each string its own allocation
    unsafe { list::<[u32; 2]>(ptr, len) }
        .into_iter()
        .map(|[ptr, len]| unsafe { string(ptr, len) })
        .collect()
}

/// # Safety
/// `parts` is the host's answer for a record `column`.
pub(crate) unsafe fn column(parts: [u32; 6]) -> Column {
    let [offsets, offsets_len, data, data_len, validity, validity_len] = parts;
    // SAFETY: three lists, each its own allocation
    unsafe {
        Column {
            offsets: list(offsets, offsets_len),
            data: list(data, data_len),
            validity: Validity(list(validity, validity_len)),
        }
    }
}

/// `result<u32, failure>` as it comes back.
#[repr(C)]
#[derive(Default)]
struct Numbered {
    is_error: u8,
    /// The number, or the failure.
    parts: [u32; 4],
}

impl Numbered {
    /// # Safety
    /// The host has written it.
    unsafe fn take(self) -> Result<u32, Failure> {
        if self.is_error == 0 {
            return Ok(self.parts[0]);
        }
        let [code, code_len, message, message_len] = self.parts;
        // SAFETY: two texts, each its own allocation
        unsafe {
            Err(Failure::new(
                string(code, code_len),
                string(message, message_len),
            ))
        }
    }
}

pub(crate) struct Context(u32);

impl Context {
    pub(crate) fn new(handle: u32) -> Context {
        Context(handle)
    }

    pub(crate) fn params(&self) -> String {
        let mut ret = [0; 2];
        // SAFETY: a live borrowed handle; the host writes the answer into `ret`
        unsafe {
            context_params(self.0, &mut ret);
            string(ret[0], ret[1])
        }
    }

    pub(crate) fn inputs(&self) -> Vec<String> {
        let mut ret = [0; 2];
        // SAFETY: as in `params`
        unsafe {
            context_inputs(self.0, &mut ret);
            strings(ret)
        }
    }

    pub(crate) fn outputs(&self) -> Vec<String> {
        let mut ret = [0; 2];
        // SAFETY: as in `params`
        unsafe {
            context_outputs(self.0, &mut ret);
            strings(ret)
        }
    }

    pub(crate) fn lookup(&self, name: &str) -> Result<Lookup, Failure> {
        Lookup::open(name)
    }

    pub(crate) fn partition(&self) -> u32 {
        // SAFETY: a live borrowed handle
        unsafe { context_partition(self.0) }
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: dropped once, before the export returns
        unsafe { context_drop(self.0) }
    }
}

pub(crate) struct Rows(u32);

impl Rows {
    pub(crate) fn new(handle: u32) -> Rows {
        Rows(handle)
    }

    pub(crate) fn len(&self) -> usize {
        // SAFETY: a live borrowed handle
        unsafe { batch_len(self.0) as usize }
    }

    pub(crate) fn input(&self) -> u16 {
        // SAFETY: a live borrowed handle
        unsafe { batch_input(self.0) as u16 }
    }

    pub(crate) fn keys(&self) -> Column {
        let mut ret = [0; 6];
        // SAFETY: the host writes the answer into `ret`
        unsafe {
            batch_keys(self.0, &mut ret);
            column(ret)
        }
    }

    pub(crate) fn values(&self) -> Column {
        let mut ret = [0; 6];
        // SAFETY: as in `keys`
        unsafe {
            batch_values(self.0, &mut ret);
            column(ret)
        }
    }

    pub(crate) fn event_times(&self) -> Vec<i64> {
        let mut ret = [0; 2];
        // SAFETY: as in `keys`
        unsafe {
            batch_event_times(self.0, &mut ret);
            list(ret[0], ret[1])
        }
    }

    pub(crate) fn offsets(&self) -> Vec<u64> {
        let mut ret = [0; 2];
        // SAFETY: as in `keys`
        unsafe {
            batch_offsets(self.0, &mut ret);
            list(ret[0], ret[1])
        }
    }

    pub(crate) fn header(&self, name: &str) -> Column {
        let mut ret = [0; 6];
        // SAFETY: as in `keys`; the name is read during the call
        unsafe {
            batch_header(self.0, name.as_ptr(), name.len(), &mut ret);
            column(ret)
        }
    }

    pub(crate) fn watermark(&self) -> i64 {
        // SAFETY: a live borrowed handle
        unsafe { batch_watermark(self.0) }
    }
}

impl Drop for Rows {
    fn drop(&mut self) {
        // SAFETY: dropped once, before the export returns
        unsafe { batch_drop(self.0) }
    }
}

pub(crate) struct Outbox(u32);

impl Outbox {
    pub(crate) fn new(handle: u32) -> Outbox {
        Outbox(handle)
    }

    pub(crate) fn forward(&mut self, port: u16, rows: &[u32]) {
        // SAFETY: the list is read during the call
        unsafe { outbox_forward(self.0, port.into(), rows.as_ptr(), rows.len()) }
    }

    pub(crate) fn emit(&mut self, port: u16, parents: &[u32], keys: &Column, values: &Column) {
        // SAFETY: the lists are read during the call
        unsafe {
            outbox_emit(
                self.0,
                port.into(),
                parents.as_ptr(),
                parents.len(),
                keys.offsets.as_ptr(),
                keys.offsets.len(),
                keys.data.as_ptr(),
                keys.data.len(),
                keys.validity.0.as_ptr(),
                keys.validity.0.len(),
                values.offsets.as_ptr(),
                values.offsets.len(),
                values.data.as_ptr(),
                values.data.len(),
                values.validity.0.as_ptr(),
                values.validity.0.len(),
            );
        }
    }

    pub(crate) fn set_event_times(&mut self, times: &[i64]) {
        // SAFETY: the list is read during the call
        unsafe { outbox_set_event_times(self.0, times.as_ptr(), times.len()) }
    }

    pub(crate) fn set_header(&mut self, name: &str, values: &Column) {
        // SAFETY: the lists are read during the call
        unsafe {
            outbox_set_header(
                self.0,
                name.as_ptr(),
                name.len(),
                values.offsets.as_ptr(),
                values.offsets.len(),
                values.data.as_ptr(),
                values.data.len(),
                values.validity.0.as_ptr(),
                values.validity.0.len(),
            );
        }
    }

    pub(crate) fn reject(&mut self, rows: &[u32], code: &str, message: &str) {
        reject(self.0, rows, code, message);
    }

    pub(crate) fn retry(&mut self, rows: &[u32], after_ms: u32, code: &str, message: &str) {
        // SAFETY: list and texts are read during the call
        unsafe {
            outbox_retry(
                self.0,
                rows.as_ptr(),
                rows.len(),
                after_ms,
                code.as_ptr(),
                code.len(),
                message.as_ptr(),
                message.len(),
            );
        }
    }
}

/// Also the way of a panic's last words: a rejection of no rows.
pub(crate) fn reject(handle: u32, rows: &[u32], code: &str, message: &str) {
    // SAFETY: list and texts are read during the call
    unsafe {
        outbox_reject(
            handle,
            rows.as_ptr(),
            rows.len(),
            code.as_ptr(),
            code.len(),
            message.as_ptr(),
            message.len(),
        );
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        // SAFETY: dropped once, before the export returns
        unsafe { outbox_drop(self.0) }
    }
}
