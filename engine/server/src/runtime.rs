//! The worker threads of a process, and the allocator that they share.
//!
//! Called by: `cli`, benchmarks. Calls: `storage::Linger`, before a worker of a node sleeps.
//! Batches are made by one thread and let go by another (doors, the log's writer, lanes), where
//! the system's allocator lets both wait for one lock; this one does not.

use std::sync::Arc;

use storage::Linger;
use tokio::runtime::{Builder, Handle, Runtime};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Room for the deep recursion of SQL planning in unoptimised builds.
const STACK_BYTES: usize = 8 << 20;

/// Workers of a client.
pub fn client() -> std::io::Result<Runtime> {
    workers().build()
}

/// Workers of a node whose store has the same `linger`.
pub fn node(linger: &Arc<Linger>) -> std::io::Result<Runtime> {
    let linger = Arc::clone(linger);
    // a machine's only core has others to serve
    let is_shared = std::thread::available_parallelism().is_ok_and(|cores| cores.get() > 1);
    let before_sleep = move || {
        if let Ok(runtime) = Handle::try_current()
            && is_shared
        {
            let metrics = runtime.metrics();
            linger.before_sleep(|| metrics.global_queue_depth() > 0);
        }
    };
    workers().on_thread_park(before_sleep).build()
}

fn workers() -> Builder {
    let mut builder = Builder::new_multi_thread();
    builder.enable_all().thread_stack_size(STACK_BYTES);
    builder
}
