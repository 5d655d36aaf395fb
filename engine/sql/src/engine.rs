//! From a query's text to a stream of rows.
//!
//! Called by the server. Owns the threads queries run on, the memory they share and the places
//! there are.
//! Steps: a place, parse, read-only check, names, plan on a moment, read-only check of the plan,
//! run. Invariants: nothing of a query runs on the caller's threads; a dropped stream stops it.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use datafusion::error::DataFusionError;
use datafusion::execution::memory_pool::{FairSpillPool, TrackConsumersPool};
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::execution::session_state::{SessionState, SessionStateBuilder};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::execute_stream;
use model::port::CatalogView;
use storage::Store;
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use url::Url;

use crate::catalog::{CATALOG, Names, TOPICS};
use crate::cold::STORE_URL;
use crate::error::SqlError;
use crate::limits::{SPILL_BYTES_MAX, STACK_BYTES, SqlLimits};
use crate::statement;
use crate::stop::{Stop, stoppable};
use crate::stream::{Bounds, QueryStream};

/// Consumers of memory that a "not enough" message names.
const CONSUMERS_NAMED: NonZeroUsize = NonZeroUsize::new(3).expect("three is not zero");

/// What one query asks for; what is not said is as the engine's limits are.
#[derive(Debug, Clone, Default)]
pub struct QueryOptions {
    /// Rows at most; never above the engine's own bound.
    pub rows_max: Option<u64>,
    /// Milliseconds at most; never above the engine's own bound.
    pub timeout_ms: Option<u64>,
}

/// SQL over the topics of one store. Cheap to clone.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    catalog: Arc<dyn CatalogView>,
    limits: SqlLimits,
    /// Functions, settings, memory; no tables.
    base: SessionState,
    places: Arc<Semaphore>,
    /// Taken only when the engine is dropped.
    runtime: Option<Runtime>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // An engine may be dropped inside another runtime, where waiting is not allowed.
            runtime.shutdown_background();
        }
    }
}

impl Engine {
    /// An engine with threads of its own.
    ///
    /// # Errors
    /// Threads cannot be started, or DataFusion refuses its own settings.
    pub fn new(
        store: Store,
        catalog: Arc<dyn CatalogView>,
        limits: SqlLimits,
    ) -> Result<Engine, SqlError> {
        let threads = match limits.threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            threads => threads,
        };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(threads)
            .thread_name("sql")
            .thread_stack_size(STACK_BYTES)
            .enable_all()
            .build()
            .map_err(|e| SqlError::Failed {
                message: format!("no threads for queries: {e}"),
            })?;
        let base = base(&store, &limits, threads).map_err(SqlError::executing)?;
        let places = Arc::new(Semaphore::new(limits.queries_max));
        let inner = Inner {
            store,
            catalog,
            limits,
            base,
            places,
            runtime: Some(runtime),
        };
        Ok(Engine {
            inner: Arc::new(inner),
        })
    }

    /// Plans `text` and starts it. Rows come as they are made.
    ///
    /// # Errors
    /// Whatever is known before the first row; the stream has its own.
    pub async fn query(&self, text: &str, options: QueryOptions) -> Result<QueryStream, SqlError> {
        let limits = &self.inner.limits;
        let timeout_ms = options
            .timeout_ms
            .unwrap_or(limits.timeout_ms)
            .min(limits.timeout_ms);
        let rows_max = options
            .rows_max
            .unwrap_or(limits.rows_max)
            .min(limits.rows_max);
        let deadline = Instant::now() + Duration::from_millis(timeout_ms);
        let places = self.inner.places.clone();
        let place = match tokio::time::timeout_at(deadline, places.acquire_owned()).await {
            Ok(Ok(place)) => place,
            _ => {
                return Err(SqlError::Busy {
                    queries_max: limits.queries_max,
                });
            }
        };
        let bounds = Bounds {
            deadline,
            timeout_ms,
            rows_max,
        };
        let engine = self.clone();
        let text = text.to_string();
        let stop = Stop::new(deadline);
        let planned_stop = stop.clone();
        let runtime = self
            .inner
            .runtime
            .as_ref()
            .expect("there until the engine is dropped");
        QueryStream::start(runtime.handle(), bounds, place, stop, async move {
            engine.plan_and_run(&text, &planned_stop).await
        })
        .await
    }

    async fn plan_and_run(
        &self,
        text: &str,
        stop: &Arc<Stop>,
    ) -> Result<SendableRecordBatchStream, SqlError> {
        let inner = &self.inner;
        let names = Names::new(inner.catalog.catalog(), inner.store.clone());
        let mut state = inner.base.clone();
        let tables = datafusion::catalog::MemoryCatalogProviderList::new();
        datafusion::catalog::CatalogProviderList::register_catalog(
            &tables,
            CATALOG.to_string(),
            Arc::new(names.clone()),
        );
        state.register_catalog_list(Arc::new(tables));
        state.mark_start_execution();
        let planning = |e| SqlError::planning(text, e);
        let statement = statement::parse(&state, text)?;
        statement::tables_known(&state, &statement, &names, text)?;
        let plan = state.statement_to_plan(statement).await.map_err(planning)?;
        statement::plan_allowed(&plan)?;
        let plan = state.create_physical_plan(&plan).await.map_err(planning)?;
        let plan = stoppable(plan, stop).map_err(planning)?;
        let context = Arc::new(TaskContext::from(&state));
        execute_stream(plan, context).map_err(SqlError::executing)
    }
}

/// The session all queries start from.
fn base(
    store: &Store,
    limits: &SqlLimits,
    threads: usize,
) -> Result<SessionState, DataFusionError> {
    let pool = TrackConsumersPool::new(FairSpillPool::new(limits.memory_bytes), CONSUMERS_NAMED);
    let environment = RuntimeEnvBuilder::new()
        .with_memory_pool(Arc::new(pool))
        .with_max_temp_directory_size(SPILL_BYTES_MAX)
        .build_arc()?;
    let url = Url::parse(STORE_URL).map_err(|e| DataFusionError::External(Box::new(e)))?;
    environment.register_object_store(&url, store.object_store());
    let config = expr::functions::config()
        .with_target_partitions(threads)
        .with_create_default_catalog_and_schema(false)
        .with_default_catalog_and_schema(CATALOG, TOPICS)
        .with_information_schema(true);
    let builder = SessionStateBuilder::new()
        .with_config(config)
        .with_runtime_env(environment);
    expr::functions::session(builder)
}
