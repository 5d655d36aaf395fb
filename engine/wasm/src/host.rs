//! The engine: one per process, with its configuration, ticker, linker and code cache.
//!
//! Called by: server (makes it), pipelines (`load`), `module inspect`.
//! Invariants: concurrency support is off (it costs every call); epochs interrupt; instances come
//! from a pool where the address space allows it, else one by one; proposals that no supported
//! guest language needs are off.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use model::ids::Digest;
use wasmtime::component::{Component, InstancePre, Linker};
use wasmtime::{
    Config, Engine, InstanceAllocationStrategy, OptLevel, PoolingAllocationConfig,
    WasmBacktraceDetails, WasmFeatures,
};

use crate::cache::Cache;
use crate::check::{self, Grants, ModuleInfo};
use crate::compile;
use crate::deadline::Ticker;
use crate::error::{HostError, InspectError, LoadError};
use crate::guest::Module;
use crate::http::Egress;
use crate::limits::{Limits, MemoryInUse, STACK_BYTES};
use crate::link::{self, State};
use crate::lookup::Table;
use crate::sign::Trust;

/// Modules that are kept loaded, newest first.
const LOADED_MAX: usize = 16;
/// Live modules that the pool has room for; each reserves address space, not memory.
const POOL_INSTANCES: u32 = 512;
/// Of a module, on average: core instances cost nothing until they are used (one of Python has 40), and
/// memories and tables reserve address space (one of JavaScript has two memories).
const POOL_CORE_PER_INSTANCE: u32 = 64;
const POOL_MEMORIES_PER_INSTANCE: u32 = 2;
const POOL_TABLES_PER_INSTANCE: u32 = 4;
const POOL_TABLE_ELEMENTS: usize = Limits::CAPS.table_elements;

#[derive(Debug, Clone)]
pub struct HostConfig {
    /// Where compiled code is kept between runs; made with mode 0700. `None`: not kept.
    pub cache_dir: Option<PathBuf>,
    /// How often deadlines are looked at, in milliseconds.
    pub epoch_tick_ms: u64,
    /// Linear memory of all live modules together, above which no new one is opened, in bytes.
    pub memory_bytes_max: usize,
    /// The program that compiles a module: called with [`compile::ARGUMENT`] it calls
    /// [`compile::answer`]. `None`: modules are compiled in this process, without a limit on time.
    pub compiler: Option<PathBuf>,
    /// Who must have signed a module.
    pub trust: Trust,
    /// Who makes the requests of modules. `None`: nobody.
    pub egress: Option<Arc<dyn Egress>>,
}

impl Default for HostConfig {
    fn default() -> HostConfig {
        HostConfig {
            cache_dir: None,
            epoch_tick_ms: 5,
            memory_bytes_max: usize::MAX,
            compiler: None,
            trust: Trust::default(),
            egress: None,
        }
    }
}

/// The shared engine. Cheap to clone; lives as long as any module or guest of it.
#[derive(Clone)]
pub struct Host {
    shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub(crate) engine: Engine,
    linker: Linker<State>,
    cache: Option<Cache>,
    compiler: Option<PathBuf>,
    trust: Trust,
    pub(crate) egress: Option<Arc<dyn Egress>>,
    loaded: Mutex<VecDeque<Loaded>>,
    pub(crate) memory: Arc<MemoryInUse>,
    _ticker: Ticker,
}

/// A module of late, so that the next `apply` and the way back cost nothing.
#[derive(Clone)]
struct Loaded {
    pre: InstancePre<State>,
    info: Arc<ModuleInfo>,
}

impl Host {
    pub fn new(config: HostConfig) -> Result<Host, HostError> {
        let engine = match Engine::new(&engine_config(true)) {
            Ok(engine) => engine,
            Err(error) => {
                tracing::info!(%error, "no address space for the instance pool, going without");
                Engine::new(&engine_config(false)).map_err(|e| HostError::Engine(text(&e)))?
            }
        };
        let linker = link::linker(&engine).map_err(|e| HostError::Engine(text(&e)))?;
        let ticker = Ticker::start(&engine, config.epoch_tick_ms)?;
        let cache = config.cache_dir.and_then(|dir| match Cache::open(&dir) {
            Ok(cache) => Some(cache),
            Err(error) => {
                let dir = dir.display();
                tracing::warn!(%dir, %error, "compiled modules are not kept between runs");
                None
            }
        });
        Ok(Host {
            shared: Arc::new(Shared {
                engine,
                linker,
                cache,
                compiler: config.compiler,
                trust: config.trust,
                egress: config.egress,
                loaded: Mutex::default(),
                memory: Arc::new(MemoryInUse::new(config.memory_bytes_max)),
                _ticker: ticker,
            }),
        })
    }

    pub(crate) fn of(shared: Arc<Shared>) -> Host {
        Host { shared }
    }

    /// Linear memory, state and lookup tables of all live modules, in bytes.
    pub fn memory_bytes(&self) -> usize {
        self.shared.memory.bytes()
    }

    /// Most that they may take before no new one is opened, in bytes.
    pub fn memory_bytes_max(&self) -> usize {
        self.shared.memory.bytes_max()
    }

    /// A lookup table, empty. It counts as memory of the modules.
    pub fn table(&self) -> Table {
        Table::counted(&self.shared.memory)
    }

    /// Why no request could be made by a rule of a grant.
    pub fn refuses(&self, rule: &crate::http::grant::Rule) -> Option<String> {
        match &self.shared.egress {
            Some(egress) => egress.refuses(rule),
            None => Some("this host makes no requests for modules".into()),
        }
    }

    /// What a file is, what it imports and exports, and what it would need granted.
    pub fn inspect(bytes: &[u8]) -> Result<ModuleInfo, InspectError> {
        check::inspect(bytes).map(|seen| seen.info)
    }

    /// Whether `load` would refuse the module before compiling it.
    pub fn check(bytes: &[u8], grants: &Grants) -> Result<ModuleInfo, LoadError> {
        let seen = check::inspect(bytes)?;
        check::admit(&seen.info, grants)?;
        Ok(seen.info)
    }

    /// Checks imports against the grants, then compiles (or takes from the cache) and links.
    /// Takes as long as a compilation: not for an async task.
    pub fn load(&self, bytes: &[u8], grants: &Grants) -> Result<Module, LoadError> {
        let digest = Digest::of(bytes);
        let known = self
            .loaded()
            .iter()
            .find(|l| l.info.digest == digest)
            .cloned();
        let Loaded { pre, info } = match known {
            Some(known) => {
                check::admit(&known.info, grants)?;
                known
            }
            None => self.load_new(bytes, grants)?,
        };
        let link = |e: wasmtime::Error| LoadError::Link(text(&e));
        Module::new(Arc::clone(&self.shared), pre, info).map_err(link)
    }

    fn load_new(&self, bytes: &[u8], grants: &Grants) -> Result<Loaded, LoadError> {
        let seen = check::inspect(bytes)?;
        check::admit(&seen.info, grants)?;
        check::vouched(&seen.info, &self.shared.trust)?;
        let shared = &self.shared;
        let component = self.compile(&seen.info, &seen.component)?;
        let link = |e: wasmtime::Error| LoadError::Link(text(&e));
        let pre = if seen.info.stubbed.is_empty() && seen.info.ambient.is_empty() {
            shared.linker.instantiate_pre(&component).map_err(link)?
        } else {
            // `admit` left nothing unknown but what of WASI is provided here, and what is denied
            let mut linker = shared.linker.clone();
            link::wasi::link(&mut linker, &component).map_err(link)?;
            linker.instantiate_pre(&component).map_err(link)?
        };
        let info = Arc::new(seen.info);
        let loaded = Loaded { pre, info };
        let mut kept = self.loaded();
        kept.truncate(LOADED_MAX - 1);
        kept.push_front(loaded.clone());
        Ok(loaded)
    }

    fn loaded(&self) -> MutexGuard<'_, VecDeque<Loaded>> {
        // whole even if a writer panicked: it is pushed to and cut, nothing else
        let loaded = self.shared.loaded.lock();
        loaded.unwrap_or_else(PoisonError::into_inner)
    }

    fn compile(&self, info: &ModuleInfo, component: &[u8]) -> Result<Component, LoadError> {
        let engine = &self.shared.engine;
        if let Some(cache) = &self.shared.cache
            && let Some(component) = cache.get(engine, info.digest)
        {
            return Ok(component);
        }
        let component = match &self.shared.compiler {
            Some(program) => compile::apart(program, engine, component)?,
            None => Component::new(engine, component).map_err(|e| LoadError::Compile(text(&e)))?,
        };
        if let Some(cache) = &self.shared.cache {
            cache.put(engine, info.digest, &component);
        }
        Ok(component)
    }
}

/// What guests may and may not do, the same for compiling and for running; `pool` is how instances
/// are made only.
pub(crate) fn engine_config(pool: bool) -> Config {
    let mut config = Config::new();
    config.concurrency_support(false);
    config.epoch_interruption(true);
    config.cranelift_opt_level(OptLevel::Speed);
    config.max_wasm_stack(STACK_BYTES);
    config.native_unwind_info(false);
    config.wasm_backtrace_details(WasmBacktraceDetails::Disable);
    // what no guest language needs yet is one thing less to get wrong; modules of several memories
    // are on for wasmtime's own adapters between the parts of a component, and off in `check`
    let off = WasmFeatures::THREADS
        | WasmFeatures::SHARED_EVERYTHING_THREADS
        | WasmFeatures::MEMORY64
        | WasmFeatures::RELAXED_SIMD
        | WasmFeatures::STACK_SWITCHING
        | WasmFeatures::WIDE_ARITHMETIC
        | WasmFeatures::CUSTOM_PAGE_SIZES
        | WasmFeatures::EXCEPTIONS
        | WasmFeatures::GC
        | WasmFeatures::FUNCTION_REFERENCES
        | WasmFeatures::CM_ASYNC;
    config.wasm_features(off, false);
    if pool {
        let mut pooling = PoolingAllocationConfig::new();
        pooling
            .total_component_instances(POOL_INSTANCES)
            .total_core_instances(POOL_INSTANCES * POOL_CORE_PER_INSTANCE)
            .total_memories(POOL_INSTANCES * POOL_MEMORIES_PER_INSTANCE)
            .total_tables(POOL_INSTANCES * POOL_TABLES_PER_INSTANCE)
            .table_elements(POOL_TABLE_ELEMENTS);
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(pooling));
    }
    config
}

/// An error of wasmtime with its causes, on one line.
pub(crate) fn text(error: &wasmtime::Error) -> String {
    format!("{error:#}")
}
