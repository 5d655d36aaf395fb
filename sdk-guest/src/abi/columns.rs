//! Imports of `rustmq:etl/columns`, by hand as those of `data`.
//!
//! Called by: `batch`, `outbox` (on WebAssembly only).
//! Invariants: as in `abi`.

use super::{Context, Outbox, Rows, column, list, string};
use crate::column::Column;
use crate::record::Failure;
use crate::typed::{Bools, Field, FieldType, Floats, Ints, Validity};

#[link(wasm_import_module = "rustmq:etl/columns@0.1.5")]
unsafe extern "C" {
    #[link_name = "input-fields"]
    fn input_fields(context: u32, input: u32, ret: *mut [u32; 2]);
    #[link_name = "output-fields"]
    fn output_fields(context: u32, port: u32, ret: *mut [u32; 2]);
    fn select(context: u32, input: u32, fields: *const Named, len: usize, ret: *mut Answer);
    fn declare(context: u32, port: u32, fields: *const Named, len: usize, ret: *mut Answer);

    #[link_name = "get-bools"]
    fn get_bools(rows: u32, column: u32, ret: *mut [u32; 4]);
    #[link_name = "get-ints"]
    fn get_ints(rows: u32, column: u32, ret: *mut [u32; 4]);
    #[link_name = "get-floats"]
    fn get_floats(rows: u32, column: u32, ret: *mut [u32; 4]);
    #[link_name = "get-bytes"]
    fn get_bytes(rows: u32, column: u32, ret: *mut [u32; 6]);

    fn emit(out: u32, port: u32, is_some: u32, parents: *const u32, parents_len: usize);
    #[link_name = "set-keys"]
    fn set_keys(
        out: u32,
        offsets: *const u32,
        offsets_len: usize,
        data: *const u8,
        data_len: usize,
        validity: *const u8,
        validity_len: usize,
    );
    #[link_name = "set-bools"]
    fn set_bools(
        out: u32,
        column: u32,
        values: *const u8,
        values_len: usize,
        validity: *const u8,
        validity_len: usize,
    );
    #[link_name = "set-ints"]
    fn set_ints(
        out: u32,
        column: u32,
        values: *const i64,
        values_len: usize,
        validity: *const u8,
        validity_len: usize,
    );
    #[link_name = "set-floats"]
    fn set_floats(
        out: u32,
        column: u32,
        values: *const f64,
        values_len: usize,
        validity: *const u8,
        validity_len: usize,
    );
    #[link_name = "set-bytes"]
    fn set_bytes(
        out: u32,
        column: u32,
        offsets: *const u32,
        offsets_len: usize,
        data: *const u8,
        data_len: usize,
        validity: *const u8,
        validity_len: usize,
    );
}

/// `record field`
#[repr(C)]
struct Named {
    name: *const u8,
    name_len: usize,
    kind: u8,
}

/// `result<_, failure>` as it comes back.
#[repr(C)]
#[derive(Default)]
struct Answer {
    is_error: u8,
    failure: [u32; 4],
}

fn named(fields: &[Field]) -> Vec<Named> {
    let named = |field: &Field| Named {
        name: field.name.as_ptr(),
        name_len: field.name.len(),
        kind: field.kind as u8,
    };
    fields.iter().map(named).collect()
}

impl Answer {
    /// # Safety
    /// The host has written it.
    unsafe fn take(self) -> Result<(), Failure> {
        if self.is_error == 0 {
            return Ok(());
        }
        let [code, code_len, message, message_len] = self.failure;
        // SAFETY: two texts, each its own allocation
        unsafe {
            Err(Failure {
                code: string(code, code_len),
                message: string(message, message_len),
            })
        }
    }
}

/// # Safety
/// The host's answer for a list of the record `field`.
unsafe fn fields([ptr, len]: [u32; 2]) -> Vec<Field> {
    let kind = |number: u32| match number as u8 {
        0 => FieldType::Bool,
        1 => FieldType::Int64,
        2 => FieldType::Float64,
        3 => FieldType::String,
        4 => FieldType::Bytes,
        _ => FieldType::Timestamp,
    };
    // SAFETY: a record of text and enum is three words, of the last of which one byte counts
    unsafe { list::<[u32; 3]>(ptr, len) }
        .into_iter()
        .map(|[name, name_len, number]| Field {
            // SAFETY: each text is its own allocation
            name: unsafe { string(name, name_len) }.into(),
            kind: kind(number),
        })
        .collect()
}

impl Context {
    pub(crate) fn input_fields(&self, input: u16) -> Vec<Field> {
        let mut ret = [0; 2];
        // SAFETY: a live borrowed handle; the host writes the answer into `ret`
        unsafe {
            input_fields(self.0, input.into(), &mut ret);
            fields(ret)
        }
    }

    pub(crate) fn output_fields(&self, port: u16) -> Vec<Field> {
        let mut ret = [0; 2];
        // SAFETY: as above
        unsafe {
            output_fields(self.0, port.into(), &mut ret);
            fields(ret)
        }
    }

    pub(crate) fn select(&self, input: u16, fields: &[Field]) -> Result<(), Failure> {
        let (named, mut ret) = (named(fields), Answer::default());
        // SAFETY: as above; the names are read during the call
        unsafe {
            select(self.0, input.into(), named.as_ptr(), named.len(), &mut ret);
            ret.take()
        }
    }

    pub(crate) fn declare(&self, port: u16, fields: &[Field]) -> Result<(), Failure> {
        let (named, mut ret) = (named(fields), Answer::default());
        // SAFETY: as above
        unsafe {
            declare(self.0, port.into(), named.as_ptr(), named.len(), &mut ret);
            ret.take()
        }
    }
}

impl Rows {
    pub(crate) fn bools(&self, column: u16) -> Bools {
        let mut ret = [0; 4];
        // SAFETY: a live borrowed handle; the host's two lists are each their own allocation
        unsafe {
            get_bools(self.0, column.into(), &mut ret);
            Bools {
                values: list(ret[0], ret[1]),
                len: self.len(),
                validity: Validity(list(ret[2], ret[3])),
            }
        }
    }

    pub(crate) fn ints(&self, column: u16) -> Ints {
        let mut ret = [0; 4];
        // SAFETY: as above
        unsafe {
            get_ints(self.0, column.into(), &mut ret);
            Ints {
                values: list(ret[0], ret[1]),
                validity: Validity(list(ret[2], ret[3])),
            }
        }
    }

    pub(crate) fn floats(&self, column: u16) -> Floats {
        let mut ret = [0; 4];
        // SAFETY: as above
        unsafe {
            get_floats(self.0, column.into(), &mut ret);
            Floats {
                values: list(ret[0], ret[1]),
                validity: Validity(list(ret[2], ret[3])),
            }
        }
    }

    pub(crate) fn bytes(&self, number: u16) -> Column {
        let mut ret = [0; 6];
        // SAFETY: a live borrowed handle; the host writes the answer into `ret`
        unsafe {
            get_bytes(self.0, number.into(), &mut ret);
            column(ret)
        }
    }
}

impl Outbox {
    pub(crate) fn emit_columns(&mut self, port: u16, parents: Option<&[u32]>) {
        let list = parents.unwrap_or_default();
        // SAFETY: the list is read during the call
        unsafe {
            emit(
                self.0,
                port.into(),
                parents.is_some().into(),
                list.as_ptr(),
                list.len(),
            );
        }
    }

    pub(crate) fn set_keys(&mut self, keys: &Column) {
        // SAFETY: the lists are read during the call
        unsafe {
            set_keys(
                self.0,
                keys.offsets.as_ptr(),
                keys.offsets.len(),
                keys.data.as_ptr(),
                keys.data.len(),
                keys.validity.0.as_ptr(),
                keys.validity.0.len(),
            );
        }
    }

    pub(crate) fn set_bools(&mut self, column: u16, bools: &Bools) {
        let (values, validity) = (&bools.values, &bools.validity.0);
        // SAFETY: the lists are read during the call
        unsafe {
            set_bools(
                self.0,
                column.into(),
                values.as_ptr(),
                values.len(),
                validity.as_ptr(),
                validity.len(),
            );
        }
    }

    pub(crate) fn set_ints(&mut self, column: u16, ints: &Ints) {
        let (values, validity) = (&ints.values, &ints.validity.0);
        // SAFETY: the lists are read during the call
        unsafe {
            set_ints(
                self.0,
                column.into(),
                values.as_ptr(),
                values.len(),
                validity.as_ptr(),
                validity.len(),
            );
        }
    }

    pub(crate) fn set_floats(&mut self, column: u16, floats: &Floats) {
        let (values, validity) = (&floats.values, &floats.validity.0);
        // SAFETY: the lists are read during the call
        unsafe {
            set_floats(
                self.0,
                column.into(),
                values.as_ptr(),
                values.len(),
                validity.as_ptr(),
                validity.len(),
            );
        }
    }

    pub(crate) fn set_bytes(&mut self, column: u16, values: &Column) {
        // SAFETY: the lists are read during the call
        unsafe {
            set_bytes(
                self.0,
                column.into(),
                values.offsets.as_ptr(),
                values.offsets.len(),
                values.data.as_ptr(),
                values.data.len(),
                values.validity.0.as_ptr(),
                values.validity.0.len(),
            );
        }
    }
}
