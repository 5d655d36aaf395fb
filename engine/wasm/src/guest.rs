//! A module, and one warm instance of it.
//!
//! Called by: pipelines: a lane owns a [`Guest`] and calls it from its thread, never from a task.
//! Invariants: one call at a time; after a trap, deadline or limit the store is dropped at once and
//! the guest says so (`is_dead`); what a failed call emitted is dropped with it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow::buffer::ScalarBuffer;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use codec::Format;
use model::ids::{Digest, Offset};
use model::rows::Rows;
use model::schema::{Field, Schema};
use wasmtime::component::{
    ComponentExportIndex, ComponentType, InstancePre, Lift, Lower, Resource, TypedFunc,
};
use wasmtime::{ResourceLimiter, Store, Trap, WasmBacktrace};

use crate::ambient::{Ambient, Surroundings};
use crate::check::ModuleInfo;
use crate::deadline::Clock;
use crate::error::{Fault, OpenError, ProcessError};
use crate::fields::Fields;
use crate::host::{Host, Shared, text};
use crate::http::{Access, Http, Stop};
use crate::limits::{
    CODE_BYTES_MAX, FRAMES_MAX, HOSTCALL_FACTOR, Limiter, Limits, MESSAGE_BYTES_MAX, OF_BOUNDARY,
};
use crate::link::{BatchHandle, ContextHandle, Entries, Lent, OutboxHandle, State};
use crate::lookup::Lookups;
use crate::outbox::{Outbox, Outcome, cut};
use crate::state::{Keyed, Old};
use crate::telemetry::{Labels, Metrics, Telemetry};
use crate::world::{MIGRATION, MODULE, TIMED};

/// What a module is told when it is opened.
#[derive(Debug, Clone, Default)]
pub struct OpenContext {
    /// JSON.
    pub params: String,
    pub inputs: Vec<Edge>,
    /// The ports; an index into it is what `forward` and `emit` take.
    pub outputs: Vec<Edge>,
    pub partition: u32,
    /// Whose it is, for the log.
    pub labels: Labels,
    /// Where its numbers are kept, from one instance to the next.
    pub metrics: Metrics,
    /// The tables that it may look into.
    pub lookups: Lookups,
    /// What it may ask of other services, where its node grants it.
    pub http: Option<Arc<Access>>,
    /// What it has of the machine's time and chance.
    pub ambient: Ambient,
    /// Ends its waiting.
    pub stop: Stop,
}

/// An input or output: its name, and the fields of its rows where there is a schema.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Edge {
    pub name: String,
    pub fields: Option<Arc<Schema>>,
}

impl From<&str> for Edge {
    fn from(name: &str) -> Edge {
        Edge {
            name: name.to_owned(),
            fields: None,
        }
    }
}

/// Rows that calls work on. Shared, as the host keeps them while a call runs.
#[derive(Debug, Clone)]
pub struct Batch {
    pub rows: Rows,
    /// In the stage's source topic, one a row.
    pub offsets: ScalarBuffer<Offset>,
    /// Typed columns of the rows: at least those that the module selected of the input.
    pub columns: Option<RecordBatch>,
    /// The columns alone hold the values, and all of them do: so they are written when asked for.
    pub unwritten: Option<Format>,
}

/// What one call works on.
#[derive(Debug, Clone)]
pub struct Input {
    pub batch: Arc<Batch>,
    /// Index into the context's inputs.
    pub input: u16,
    /// Microseconds since the epoch, UTC.
    pub watermark: i64,
}

/// Which of its functions a guest is called with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    Process,
    /// `on-timers`, of a module that keeps state.
    Timers,
}

/// A compiled, linked module. Cheap to clone.
#[derive(Clone)]
pub struct Module {
    shared: Arc<Shared>,
    pre: InstancePre<State>,
    open: ComponentExportIndex,
    process: ComponentExportIndex,
    /// Of modules that keep state.
    timed: Option<ComponentExportIndex>,
    /// Of those that take over what older ones kept.
    migrate: Option<ComponentExportIndex>,
    info: Arc<ModuleInfo>,
}

/// `record failure`
#[derive(ComponentType, Lift, Lower)]
#[component(record)]
pub(crate) struct Failure {
    pub(crate) code: String,
    pub(crate) message: String,
}

type Answer = (Result<(), Failure>,);
type OpenFunc = TypedFunc<(Resource<ContextHandle>,), Answer>;
type ProcessFunc = TypedFunc<(Resource<BatchHandle>, Resource<OutboxHandle>), Answer>;
type MigrateFunc = TypedFunc<(u32, Entries), Answer>;

/// What a guest exports, beside `open`.
struct Functions {
    process: ProcessFunc,
    timed: Option<ProcessFunc>,
    migrate: Option<MigrateFunc>,
}

impl Batch {
    /// Rows that have no columns.
    pub fn new(rows: Rows, offsets: ScalarBuffer<Offset>) -> Batch {
        Batch {
            rows,
            offsets,
            columns: None,
            unwritten: None,
        }
    }
}

impl Module {
    pub(crate) fn new(
        shared: Arc<Shared>,
        pre: InstancePre<State>,
        info: Arc<ModuleInfo>,
    ) -> wasmtime::Result<Module> {
        let component = pre.component();
        let missing = |name: &str| wasmtime::Error::msg(format!("no export {name}"));
        let inside = component
            .get_export_index(None, MODULE)
            .ok_or_else(|| missing(MODULE))?;
        let export = |name| {
            component
                .get_export_index(Some(&inside), name)
                .ok_or_else(|| missing(name))
        };
        let (open, process) = (export("open")?, export("process")?);
        let optional = |interface, name| {
            let inside = component.get_export_index(None, interface)?;
            component.get_export_index(Some(&inside), name)
        };
        let timed = optional(TIMED, "on-timers");
        let migrate = optional(MIGRATION, "migrate");
        Ok(Module {
            shared,
            pre,
            open,
            process,
            timed,
            migrate,
            info,
        })
    }

    pub fn digest(&self) -> Digest {
        self.info.digest
    }

    /// The engine it was loaded into.
    pub fn host(&self) -> Host {
        Host::of(Arc::clone(&self.shared))
    }

    pub fn info(&self) -> &ModuleInfo {
        &self.info
    }

    /// The state of one lane, empty. It counts as memory of the modules.
    pub fn keyed(&self, limits: &Limits, schema: u32) -> Keyed {
        Keyed::new(limits, schema).counted(&self.shared.memory)
    }

    /// Instantiates and calls the guest's `open`.
    pub fn open(&self, context: &OpenContext, limits: &Limits) -> Result<Guest, OpenError> {
        for (what, count) in [
            ("inputs", context.inputs.len()),
            ("outputs", context.outputs.len()),
        ] {
            if count > usize::from(u16::MAX) {
                return Err(OpenError::Context {
                    what,
                    limit: usize::from(u16::MAX),
                });
            }
        }
        if let Some((what, wanted, limit)) = limits.above_cap() {
            return Err(OpenError::Cap {
                what,
                wanted,
                limit,
            });
        }
        self.fits(context)?;
        if let Some((bytes, limit)) = self.shared.memory.full() {
            return Err(OpenError::Memory { bytes, limit });
        }
        let mut store = self.store(context, limits);
        let (open, functions) =
            self.instantiate(&mut store)
                .map_err(|error| match end_of(&error, &mut store) {
                    ProcessError::Trap { .. } if error.downcast_ref::<Trap>().is_none() => {
                        OpenError::Instantiate(text(&error))
                    }
                    known => OpenError::Run(known),
                })?;
        let handle = Resource::new_borrow(0);
        let answer = guarded(&mut store, |store| open.call(store, (handle,)))?;
        let state = store.data_mut();
        state.opening = false;
        answer_of(answer).map_err(|failed| refused(failed, &mut state.limiter))?;
        state.telemetry.keep();
        let ports = context.outputs.len();
        let live = Live { store, functions };
        Ok(Guest {
            live: Some(live),
            places: vec![None; context.inputs.len()],
            ports,
            limits: limits.clone(),
            digest: self.digest(),
        })
    }

    /// Whether the node gives what the module says it takes.
    fn fits(&self, context: &OpenContext) -> Result<(), OpenError> {
        let Some(describe) = &self.info.describe else {
            return Ok(());
        };
        describe
            .check_params(&context.params)
            .map_err(|faults| OpenError::Params {
                title: describe.title(),
                faults,
            })?;
        let declares = |port: &str| context.outputs.iter().any(|edge| edge.name == port);
        let Some(port) = describe.missing_port(declares) else {
            return Ok(());
        };
        let declared: Vec<&str> = context.outputs.iter().map(|o| o.name.as_str()).collect();
        Err(OpenError::Port {
            title: describe.title(),
            port: port.to_owned(),
            declared: declared.join(", "),
        })
    }

    fn store(&self, context: &OpenContext, limits: &Limits) -> Store<State> {
        let egress = self.shared.egress.clone();
        let (access, stop) = (context.http.clone(), context.stop.clone());
        let state = State {
            limiter: Limiter::new(limits, Arc::clone(&self.shared.memory)),
            clock: Clock::default(),
            surroundings: Surroundings::new(context.ambient.clone(), context.partition),
            context: context.clone(),
            opening: true,
            telemetry: Telemetry::new(context.labels.clone(), context.metrics.clone(), limits),
            fields: Fields::new(context.inputs.len(), context.outputs.len()),
            lent: None,
            outbox: Outbox::default(),
            keyed: None,
            http: Http::new(egress, access, stop, limits),
        };
        let mut store = Store::new(&self.shared.engine, state);
        store.limiter(|state| &mut state.limiter);
        store.set_max_component_handles(limits.handles);
        store.set_hostcall_fuel(limits.output_bytes_max.saturating_mul(HOSTCALL_FACTOR));
        store.epoch_deadline_callback(|mut cx| Ok(cx.data_mut().clock.tick()));
        store.data_mut().clock.begin(limits.open_deadline_ms);
        store.set_epoch_deadline(1);
        store
    }

    fn instantiate(&self, store: &mut Store<State>) -> wasmtime::Result<(OpenFunc, Functions)> {
        let instance = self.pre.instantiate(&mut *store)?;
        let open = instance.get_typed_func(&mut *store, self.open)?;
        let process = instance.get_typed_func(&mut *store, self.process)?;
        let timed = self
            .timed
            .map(|at| instance.get_typed_func(&mut *store, at));
        let timed = timed.transpose()?;
        let migrate = self
            .migrate
            .map(|at| instance.get_typed_func(&mut *store, at));
        let functions = Functions {
            process,
            timed,
            migrate: migrate.transpose()?,
        };
        Ok((open, functions))
    }
}

/// One warm instance. `Send`, not shared.
pub struct Guest {
    live: Option<Live>,
    /// By input: where the selected columns were in the last batch's schema.
    places: Vec<Option<Places>>,
    ports: usize,
    limits: Limits,
    digest: Digest,
}

/// Indices of the selected columns in batches of a schema.
#[derive(Debug, Clone)]
struct Places {
    schema: SchemaRef,
    columns: Arc<[usize]>,
}

struct Live {
    store: Store<State>,
    functions: Functions,
}

impl Guest {
    /// Calls the guest with a batch. After anything but `Failed` the guest is dead.
    pub fn process(&mut self, input: Input) -> Result<Outcome, ProcessError> {
        self.called(input, Entry::Process).0
    }

    /// The same of a guest that keeps state, or calls it with the timers that fire. What it changed
    /// is the state's call: the caller keeps it or drops it.
    pub fn process_with(
        &mut self,
        input: Input,
        entry: Entry,
        keyed: &mut Keyed,
    ) -> Result<Outcome, ProcessError> {
        if let Some(live) = &mut self.live {
            live.store.data_mut().keyed = Some(std::mem::take(keyed));
        }
        let (outcome, kept) = self.called(input, entry);
        if let Some(kept) = kept {
            *keyed = kept;
        }
        outcome
    }

    /// Gives the guest entries that were kept with an older schema. What it puts is the state's call, as
    /// in `process_with`.
    pub fn migrate(&mut self, from: u32, old: &Old, keyed: &mut Keyed) -> Result<(), ProcessError> {
        let Some(mut live) = self.live.take() else {
            return Err(ProcessError::Dead);
        };
        let state = live.store.data_mut();
        (state.keyed, state.outbox) = (Some(std::mem::take(keyed)), Outbox::default());
        self.begin(&mut live);
        let answer = live.migrate(from, old);
        let (ended, kept) = self.ended(live, answer);
        *keyed = kept.unwrap_or_default();
        ended.map(|_| ())
    }

    /// The state comes back whatever happened, also of an instance that is gone.
    fn called(
        &mut self,
        input: Input,
        entry: Entry,
    ) -> (Result<Outcome, ProcessError>, Option<Keyed>) {
        let Some(mut live) = self.live.take() else {
            return (Err(ProcessError::Dead), None);
        };
        let answer = self.lend(&mut live, input).and_then(|()| {
            let answer = live.enter(entry);
            live.store.data_mut().lent = None;
            answer
        });
        self.ended(live, answer)
    }

    /// What a call came to; the guest lives on unless it was its last.
    fn ended(
        &mut self,
        mut live: Live,
        answer: Result<Answer, ProcessError>,
    ) -> (Result<Outcome, ProcessError>, Option<Keyed>) {
        let kept = live.store.data_mut().keyed.take();
        let ended = match answer.and_then(|answer| live.outcome(answer)) {
            Err(error) if !matches!(error, ProcessError::Failed { .. }) => Err(error),
            // it lives on
            other => {
                self.live = Some(live);
                other
            }
        };
        (ended, kept)
    }

    /// Makes ready what the call works on.
    fn lend(&mut self, live: &mut Live, input: Input) -> Result<(), ProcessError> {
        let Input {
            batch,
            input,
            watermark,
        } = input;
        let state = live.store.data_mut();
        let selected = state.fields.selected(input);
        let columns = match self.places.get_mut(usize::from(input)) {
            Some(places) if !selected.is_empty() => pick(places, selected, batch.columns.as_ref())?,
            _ => Arc::default(),
        };
        state.outbox.begin(batch.clone(), self.ports, &self.limits);
        state.lent = Some(Lent {
            batch,
            written: None,
            columns,
            input,
            watermark,
        });
        self.begin(live);
        Ok(())
    }

    /// A call begins, and its time.
    fn begin(&self, live: &mut Live) {
        let state = live.store.data_mut();
        state.limiter.denied = None;
        state.http.begin();
        state.surroundings.begin();
        state.clock.begin(self.limits.deadline_ms);
        live.store.set_epoch_deadline(1);
    }

    /// Whether it has come near its limit of memory, which it does not give back: a new one begins
    /// small again. Runtimes with a collector grow so, and whatever leaks.
    pub fn is_swollen(&self) -> bool {
        let live = self.live.as_ref();
        live.is_some_and(|live| live.store.data().limiter.is_swollen())
    }

    /// Whether a trap, deadline or limit ended the instance; open a new one.
    pub fn is_dead(&self) -> bool {
        self.live.is_none()
    }

    /// The fields of an input that the module selected in `open`: what `Input::columns` must have.
    pub fn selected(&self, input: u16) -> &[Field] {
        let live = self.live.as_ref();
        live.map_or(&[], |live| live.store.data().fields.selected(input))
    }

    pub fn digest(&self) -> Digest {
        self.digest
    }
}

impl Live {
    fn enter(&mut self, entry: Entry) -> Result<Answer, ProcessError> {
        let function = match entry {
            Entry::Process => &self.functions.process,
            Entry::Timers => {
                let timed = self.functions.timed.as_ref();
                timed.ok_or_else(|| no_export("on-timers"))?
            }
        };
        let handles = (Resource::new_borrow(0), Resource::new_borrow(0));
        guarded(&mut self.store, |store| function.call(store, handles))
    }

    fn migrate(&mut self, from: u32, old: &Old) -> Result<Answer, ProcessError> {
        let migrate = self.functions.migrate.as_ref();
        let migrate = migrate.ok_or_else(|| no_export("migrate"))?;
        let entries = Entries::new(&old.0);
        guarded(&mut self.store, |store| {
            migrate.call(store, (from, entries))
        })
    }

    /// What the call said, if it returned ok.
    fn outcome(&mut self, answer: Answer) -> Result<Outcome, ProcessError> {
        let store = &mut self.store;
        let State {
            outbox,
            telemetry,
            limiter,
            ..
        } = store.data_mut();
        if let Err(failed) = answer_of(answer) {
            telemetry.forget();
            *outbox = Outbox::default();
            return Err(refused(failed, limiter));
        }
        let outcome = match outbox.finish() {
            Ok(outcome) => outcome,
            Err(error) => return Err(end_of(&error, store)),
        };
        if let Some((what, limit)) = limiter.denied.filter(|_| outcome.threw()) {
            telemetry.forget();
            return Err(ProcessError::Limit { what, limit });
        }
        telemetry.keep();
        limiter.settle();
        Ok(outcome)
    }
}

/// Where the selected columns are in a batch, in the module's order.
fn pick(
    places: &mut Option<Places>,
    selected: &[Field],
    columns: Option<&RecordBatch>,
) -> Result<Arc<[usize]>, ProcessError> {
    let missing = |name: &str| ProcessError::Failed {
        code: "columns".into(),
        message: format!("the batch came without the column `{name}`: a fault of the host"),
    };
    let Some(columns) = columns else {
        return Err(missing(&selected[0].name));
    };
    let known = places
        .as_ref()
        .filter(|p| Arc::ptr_eq(&p.schema, columns.schema_ref()));
    let indices = match known {
        Some(known) => &known.columns,
        None => {
            let schema = columns.schema();
            let index = |field: &Field| {
                schema
                    .index_of(&field.name)
                    .map_err(|_| missing(&field.name))
            };
            let columns = selected.iter().map(index).collect::<Result<_, _>>()?;
            &places.insert(Places { schema, columns }).columns
        }
    };
    Ok(indices.clone())
}

fn no_export(name: &str) -> ProcessError {
    ProcessError::Failed {
        code: "export".into(),
        message: format!("the module has no `{name}`"),
    }
}

fn answer_of((answer,): Answer) -> Result<(), ProcessError> {
    answer.map_err(|failure| ProcessError::Failed {
        code: cut(&failure.code, CODE_BYTES_MAX),
        message: cut(&failure.message, MESSAGE_BYTES_MAX),
    })
}

/// What a program makes of memory that it was refused is an exception in most languages.
fn refused(failed: ProcessError, limiter: &mut Limiter) -> ProcessError {
    let denied = limiter.denied.take();
    denied.map_or(failed, |(what, limit)| ProcessError::Limit { what, limit })
}

/// Runs a call; a panic of the host inside it ends the guest, not the lane.
fn guarded<T>(
    store: &mut Store<State>,
    call: impl FnOnce(&mut Store<State>) -> wasmtime::Result<T>,
) -> Result<T, ProcessError> {
    match catch_unwind(AssertUnwindSafe(|| call(&mut *store))) {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(end_of(&error, store)),
        Err(_) => Err(ProcessError::Trap {
            message: "the host panicked while it ran the module".into(),
            backtrace: Vec::new(),
        }),
    }
}

/// What an error of wasmtime means.
fn end_of(error: &wasmtime::Error, store: &mut Store<State>) -> ProcessError {
    let state = store.data_mut();
    if state.clock.over {
        return ProcessError::Deadline {
            limit_ms: state.clock.limit_ms(),
        };
    }
    let backtrace = backtrace(error);
    let trap = |message: String| ProcessError::Trap { message, backtrace };
    match error.downcast_ref::<Fault>() {
        Some(Fault::Bad(message)) => return trap(cut(message, MESSAGE_BYTES_MAX)),
        Some(Fault::Limit { what, limit }) => {
            return ProcessError::Limit {
                what,
                limit: *limit,
            };
        }
        Some(Fault::Stopped) => return ProcessError::Stopped,
        None => {}
    }
    if let Some((what, limit)) = state.limiter.denied.take() {
        return ProcessError::Limit { what, limit };
    }
    let said = state.outbox.last_words.take();
    let root = error.root_cause().to_string();
    if let Some((what, limit)) = counted(&root, store) {
        let limit = limit as u64;
        return ProcessError::Limit { what, limit };
    }
    let cause = match error.downcast_ref::<Trap>() {
        Some(Trap::UnreachableCodeReached) => said.unwrap_or_else(|| {
            "the code reached `unreachable` (in Rust: a panic or an abort)".into()
        }),
        Some(Trap::StackOverflow) => "the call stack is exhausted: endless recursion?".into(),
        _ => match root
            .split_once("unknown import: `")
            .and_then(|(_, rest)| rest.split_once('`'))
        {
            Some((name, _)) => format!("the module called {name}, which is not granted"),
            None => root,
        },
    };
    trap(cut(&cause, MESSAGE_BYTES_MAX))
}

/// The limit that wasmtime counts by itself and that an error of it is about: it says so in words only.
fn counted(root: &str, store: &Store<State>) -> Option<(&'static str, usize)> {
    if root.ends_with(": store handle limit exceeded") {
        return Some(("live handles", store.max_component_handles()));
    }
    if root.ends_with(": fuel allocated for hostcalls has been exhausted") {
        return Some((OF_BOUNDARY, store.hostcall_fuel()));
    }
    let (many, _) = root
        .strip_prefix("resource limit exceeded: ")?
        .split_once(" count too high")?;
    let limiter = &store.data().limiter;
    match many {
        "instance" => Some(("core instances", limiter.instances())),
        "memory" => Some(("memories", limiter.memories())),
        "table" => Some(("tables", limiter.tables())),
        _ => None,
    }
}

/// Names of the guest's functions, innermost first, without what only tells how Rust panics.
fn backtrace(error: &wasmtime::Error) -> Vec<String> {
    let Some(trace) = error.downcast_ref::<WasmBacktrace>() else {
        return Vec::new();
    };
    let machinery = [
        "std::",
        "core::panicking",
        "core::result",
        "core::option",
        "__rust",
        "rust_",
    ];
    let frames = trace.frames().iter().filter_map(|frame| frame.func_name());
    let mut names: Vec<String> = frames
        .map(readable)
        .filter(|name| !machinery.iter().any(|prefix| name.starts_with(prefix)))
        .collect();
    names.dedup();
    names.truncate(FRAMES_MAX);
    names
}

/// A symbol as the author wrote it, without crate hashes.
fn readable(symbol: &str) -> String {
    // without a prefix that marks a symbol of Rust, the name comes back as it is
    let name = format!("{:#}", rustc_demangle::demangle(symbol));
    cut(row_function(&name).unwrap_or(&name), 200)
}

/// The function that an attribute of the SDK made a module of: the loop over rows that calls it, and
/// that it is often inlined into, is its `process`.
fn row_function(name: &str) -> Option<&str> {
    let (function, rest) = name.strip_prefix('<')?.split_once(" as rustmq")?;
    rest.ends_with("::process").then_some(function)
}
