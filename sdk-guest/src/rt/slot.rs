//! The exported functions' other half, on WebAssembly.
//!
//! Called by: code of [`crate::export!`].
//! Invariants: one thread, entered once at a time; the answer's memory lives until the next call; what a
//! panic says reaches the host: by the outbox, and in a migration, which has none, by the log.

use std::alloc::{Layout, alloc, handle_alloc_error, realloc as grow};
use std::cell::{Cell, UnsafeCell};

use crate::batch::{Batch, Context};
use crate::outbox::Outbox;
use crate::record::Failure;
use crate::telemetry::Level;
use crate::{Entries, Keeping, Module, Stateful, sys};

/// The opened module and the memory of its last answer.
pub struct Slot<M> {
    module: UnsafeCell<Option<M>>,
    answer: UnsafeCell<Answer>,
}

// SAFETY: a guest has one thread, and the host enters it once at a time
unsafe impl<M> Sync for Slot<M> {}

/// `result<_, failure>` as the canonical ABI lays it out; the texts live until the next call.
#[repr(C)]
struct Answer {
    is_error: u32,
    code: *const u8,
    code_len: usize,
    message: *const u8,
    message_len: usize,
    texts: Option<Failure>,
}

/// Tells the host, with the handle of the outbox where there is one.
type Last = (fn(u32, &str), u32);

thread_local! {
    /// Where a panic leaves its last words while a call runs. Naming a function keeps its import in the
    /// module, so each call says which.
    static LAST: Cell<Option<Last>> = const { Cell::new(None) };
}

impl<M: Module> Slot<M> {
    #[allow(clippy::new_without_default)]
    pub const fn new() -> Slot<M> {
        Slot {
            module: UnsafeCell::new(None),
            answer: UnsafeCell::new(Answer {
                is_error: 0,
                code: std::ptr::null(),
                code_len: 0,
                message: std::ptr::null(),
                message_len: 0,
                texts: None,
            }),
        }
    }

    pub fn open(&self, context: u32) -> *const u8 {
        run_constructors();
        std::panic::set_hook(Box::new(last_words));
        let context = Context(sys::Context::new(context));
        let opened = M::open(&context).map(|module| {
            // SAFETY: one thread, entered once at a time
            unsafe { *self.module.get() = Some(module) }
        });
        drop(context);
        sys::telemetry::tell();
        self.answer(opened)
    }

    pub fn process(&self, rows: u32, out: u32) -> *const u8 {
        self.call(rows, out, M::process)
    }

    fn call(
        &self,
        rows: u32,
        out: u32,
        call: impl FnOnce(&mut M, &Batch, &mut Outbox) -> Result<(), Failure>,
    ) -> *const u8 {
        let batch = Batch::new(sys::Rows::new(rows));
        let mut outbox = Outbox(sys::Outbox::new(out));
        // SAFETY: one thread, entered once at a time
        let done = match unsafe { &mut *self.module.get() } {
            Some(module) => {
                LAST.set(Some((by_outbox, out)));
                let done = call(module, &batch, &mut outbox);
                LAST.set(None);
                done
            }
            None => Err(Failure::new("open", "the module was not opened")),
        };
        drop((batch, outbox));
        sys::telemetry::tell();
        self.answer(done)
    }

    fn answer(&self, result: Result<(), Failure>) -> *const u8 {
        // SAFETY: one thread; the host has read the last answer before it enters again
        let answer = unsafe { &mut *self.answer.get() };
        answer.texts = result.err();
        answer.is_error = u32::from(answer.texts.is_some());
        if let Some(failure) = &answer.texts {
            answer.code = failure.code.as_ptr();
            answer.code_len = failure.code.len();
            answer.message = failure.message.as_ptr();
            answer.message_len = failure.message.len();
        }
        (&raw const *answer).cast()
    }
}

impl<M: Stateful> Slot<Keeping<M>> {
    pub fn on_timers(&self, fired: u32, out: u32) -> *const u8 {
        self.call(fired, out, Keeping::on_timers)
    }

    /// # Safety
    /// Called by the host as the canonical ABI says: two columns that it wrote.
    pub unsafe fn migrate(&self, from: u32, keys: [u32; 6], values: [u32; 6]) -> *const u8 {
        // SAFETY: by the contract above
        let old = unsafe { Entries::new(sys::column(keys), sys::column(values)) };
        // SAFETY: one thread, entered once at a time
        let done = match unsafe { &mut *self.module.get() } {
            Some(module) => {
                // a module that migrates from nothing logs nothing by itself
                LAST.set((!M::MIGRATES.is_empty()).then_some((by_log, 0)));
                let done = module.migrate(from, &old);
                LAST.set(None);
                done
            }
            None => Err(Failure::new("open", "the module was not opened")),
        };
        sys::telemetry::tell();
        self.answer(done)
    }
}

fn last_words(panic: &std::panic::PanicHookInfo<'_>) {
    let Some((tell, outbox)) = LAST.get() else {
        return;
    };
    let said = panic.payload_as_str().unwrap_or("a panic without text");
    let place = panic.location().map(|at| {
        // no paths of the machine it was built on
        let file = at
            .file()
            .rsplit_once("/src/")
            .map_or(at.file(), |(_, file)| file);
        format!(" (at {file}:{})", at.line())
    });
    tell(
        outbox,
        &format!("panic: {said}{}", place.unwrap_or_default()),
    );
}

fn by_outbox(outbox: u32, message: &str) {
    sys::reject(outbox, &[], "panic", message);
}

fn by_log(_: u32, message: &str) {
    sys::telemetry::log(Level::Error, message, &[]);
}

/// The linker's constructors, once. Naming them also keeps the linker from wrapping every
/// export in a call of them.
fn run_constructors() {
    static DONE: std::sync::Once = std::sync::Once::new();
    unsafe extern "C" {
        fn __wasm_call_ctors();
    }
    // SAFETY: synthesized by the linker, without arguments
    DONE.call_once(|| unsafe { __wasm_call_ctors() });
}

/// `cabi_realloc`.
///
/// # Safety
/// Called by the host as the canonical ABI says.
pub unsafe fn realloc(old: *mut u8, old_len: usize, align: usize, new_len: usize) -> *mut u8 {
    if new_len == 0 {
        return align as *mut u8;
    }
    // SAFETY: align is a power of two by the ABI; `old` came from here with this layout
    unsafe {
        let layout = Layout::from_size_align_unchecked(new_len, align);
        let memory = if old_len == 0 {
            alloc(layout)
        } else {
            grow(
                old,
                Layout::from_size_align_unchecked(old_len, align),
                new_len,
            )
        };
        if memory.is_null() {
            handle_alloc_error(layout);
        }
        memory
    }
}
