//! Imports of `rustmq:etl/telemetry`, and the numbers that a call has not told yet.
//!
//! Called by: `telemetry`, `rt::slot` (on WebAssembly only).
//! Invariants: a counter is registered when it is first told; all counters that a call touched are
//! told with one call of the host. A module that has none imports nothing for them.

use std::cell::{Cell, RefCell};

use super::Numbered;
use crate::telemetry::{Counter, Histogram, Level};

#[link(wasm_import_module = "rustmq:etl/telemetry@0.1.5")]
unsafe extern "C" {
    #[link_name = "enabled"]
    fn host_enabled(level: u32) -> u32;
    #[link_name = "log"]
    fn host_log(level: u32, text: *const u8, len: usize, values: *const Text, values_len: usize);
    fn counter(name: *const u8, name_len: usize, ret: *mut Numbered);
    fn histogram(
        name: *const u8,
        name_len: usize,
        bounds: *const f64,
        bounds_len: usize,
        ret: *mut Numbered,
    );
    #[link_name = "add"]
    fn host_add(ids: *const u32, ids_len: usize, amounts: *const u64, amounts_len: usize);
    #[link_name = "observe"]
    fn host_observe(id: u32, values: *const f64, values_len: usize);
}

#[repr(C)]
struct Text {
    text: *const u8,
    len: usize,
}

/// The host's answer. What it does not want is said in the log.
///
/// # Safety
/// The host has written it.
unsafe fn registered(answer: Numbered) -> Id {
    // SAFETY: by the contract above
    match unsafe { answer.take() } {
        Ok(id) => Id::Known(id),
        Err(failure) => {
            log(Level::Warn, &failure.message, &[]);
            Id::Refused
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Id {
    Unknown,
    Known(u32),
    /// The host does not want it: what is told is dropped.
    Refused,
}

/// What was not told yet.
#[derive(Debug)]
pub struct Told<T> {
    id: Cell<Id>,
    held: RefCell<Vec<T>>,
}

// SAFETY: a guest has one thread
unsafe impl<T> Sync for Told<T> {}

impl<T> Told<T> {
    pub(crate) const fn new() -> Told<T> {
        Told {
            id: Cell::new(Id::Unknown),
            held: RefCell::new(Vec::new()),
        }
    }
}

thread_local! {
    /// How to tell, once there is something: naming it keeps the imports in the module, so only
    /// what collects numbers does.
    static TELL: Cell<Option<fn()>> = const { Cell::new(None) };
    /// Those that have something to tell.
    static COUNTERS: RefCell<Vec<&'static Counter>> = const { RefCell::new(Vec::new()) };
    static HISTOGRAMS: RefCell<Vec<&'static Histogram>> = const { RefCell::new(Vec::new()) };
}

pub(crate) fn enabled(level: Level) -> bool {
    // SAFETY: no memory is involved
    unsafe { host_enabled(level as u32) != 0 }
}

pub(crate) fn log(level: Level, message: &str, values: &[(&str, &str)]) {
    let text = |text: &str| Text {
        text: text.as_ptr(),
        len: text.len(),
    };
    let values = values
        .iter()
        .flat_map(|(name, value)| [text(name), text(value)]);
    let values: Vec<Text> = values.collect();
    // SAFETY: text and list are read during the call
    unsafe {
        host_log(
            level as u32,
            message.as_ptr(),
            message.len(),
            values.as_ptr(),
            values.len(),
        );
    }
}

pub(crate) fn add(counter: &'static Counter, amount: u64) {
    let mut held = counter.told.held.borrow_mut();
    match held.first_mut() {
        Some(sum) => *sum = sum.saturating_add(amount),
        None => {
            held.push(amount);
            COUNTERS.with_borrow_mut(|touched| touched.push(counter));
            TELL.set(Some(tell_all));
        }
    }
}

pub(crate) fn observe(histogram: &'static Histogram, value: f64) {
    let mut held = histogram.told.held.borrow_mut();
    if held.is_empty() {
        HISTOGRAMS.with_borrow_mut(|touched| touched.push(histogram));
        TELL.set(Some(tell_all));
    }
    held.push(value);
}

/// Tells the host all that the call collected.
pub(crate) fn tell() {
    if let Some(tell) = TELL.take() {
        tell();
    }
}

fn tell_all() {
    tell_counters();
    tell_histograms();
}

fn tell_counters() {
    let (mut ids, mut amounts) = (Vec::new(), Vec::new());
    for touched in COUNTERS.take() {
        let told = &touched.told;
        let held = std::mem::take(&mut *told.held.borrow_mut());
        if let Id::Unknown = told.id.get() {
            let mut ret = Numbered::default();
            // SAFETY: the name is read during the call, which writes the answer into `ret`
            told.id.set(unsafe {
                counter(touched.name.as_ptr(), touched.name.len(), &mut ret);
                registered(ret)
            });
        }
        if let Id::Known(id) = told.id.get() {
            ids.push(id);
            amounts.push(held.iter().sum());
        }
    }
    if !ids.is_empty() {
        // SAFETY: the lists are read during the call
        unsafe { host_add(ids.as_ptr(), ids.len(), amounts.as_ptr(), amounts.len()) };
    }
}

fn tell_histograms() {
    for touched in HISTOGRAMS.take() {
        let told = &touched.told;
        let held = std::mem::take(&mut *told.held.borrow_mut());
        if let Id::Unknown = told.id.get() {
            let (name, bounds) = (touched.name, touched.bounds);
            let mut ret = Numbered::default();
            // SAFETY: name and list are read during the call, which writes the answer into `ret`
            told.id.set(unsafe {
                histogram(
                    name.as_ptr(),
                    name.len(),
                    bounds.as_ptr(),
                    bounds.len(),
                    &mut ret,
                );
                registered(ret)
            });
        }
        if let Id::Known(id) = told.id.get() {
            // SAFETY: the list is read during the call
            unsafe { host_observe(id, held.as_ptr(), held.len()) };
        }
    }
}
