//! The configuration of wasmtime: one engine for all services of a host, and a second one for those whose
//! components are asynchronous, once there is one.
//!
//! Fresh instances come from a pool, compiled code from a cache on disk, and a ticker bounds the
//! time for which a guest computes before it yields.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::thread;
use std::time::Duration;

use wasmtime::component::Component;
use wasmtime::{Config, Enabled, EngineWeak, InstanceAllocationStrategy, PoolingAllocationConfig};

use super::code_cache::CodeCache;
use super::turns;

/// Time for which a guest computes before it yields. Short enough that a busy guest adds little to
/// the calls of others on its thread, long enough that waking the ticker costs next to nothing.
pub const EPOCH_TICK: Duration = Duration::from_millis(5);

/// Default of [`EngineOptions::instances`].
pub const DEFAULT_INSTANCES: u32 = 1_000;

/// Upper bound of a service's memory limit. The pool reserves address space, not memory, of this
/// size for each instance.
pub const MAX_MEMORY: u64 = 4 << 30;

/// Upper bound of the elements of one table.
pub const MAX_TABLE_ELEMENTS: u32 = 1_000_000;

/// Core instances of a component: two to five (its own, the adapter's, shims).
const CORE_INSTANCES_EACH: u32 = 5;

/// Memories of a component: most have one; an instance with more takes from the share of others.
const MEMORIES_EACH: u32 = 2;

/// Stacks of an asynchronous component: each of its tasks that runs or blocks has one.
const STACKS_EACH: u32 = 4;

/// Bytes of the stack of a guest's own frames: wasmtime's default, half of a host stack.
const WASM_STACK: usize = 512 << 10;

/// Bytes of a slot's memory that stay resident between two instances: the kernel's `PAGEMAP_SCAN`
/// finds the touched pages, so that most instances cost a copy of those and no page fault. Without
/// it the same setting would clear all of it each time, which is five times slower.
const KEEP_RESIDENT: usize = 1 << 20;

/// The options of the engine.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// Instances that exist at one time, all services together.
    pub instances: u32,
    /// The directory of compiled code; `None` compiles anew at each start.
    pub cache: Option<PathBuf>,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            instances: DEFAULT_INSTANCES,
            cache: default_cache(),
        }
    }
}

/// `$XDG_CACHE_HOME/wasmbay`, else `~/.cache/wasmbay`.
fn default_cache() -> Option<PathBuf> {
    let absolute = |name| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|p| p.is_absolute())
    };
    absolute("XDG_CACHE_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".cache")))
        .map(|dir| dir.join("wasmbay"))
}

/// The engine could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// wasmtime refused its configuration; on Linux most often for want of address space.
    #[error("cannot set up the WebAssembly engine for {instances} instances")]
    Setup {
        /// The number of instances asked for.
        instances: u32,
        /// The error of wasmtime.
        source: wasmtime::Error,
    },
    /// The thread that has guests yield could not be started.
    #[error("cannot start the epoch ticker")]
    Ticker(#[source] io::Error),
}

/// The engine, its ticker and its cache. Cheap to clone.
#[derive(Clone)]
pub struct Engine {
    shared: Arc<Shared>,
}

struct Shared {
    plain: wasmtime::Engine,
    concurrent: OnceLock<Result<wasmtime::Engine, Arc<EngineError>>>,
    cache: CodeCache,
    instances: u32,
    ticker: Arc<Ticker>,
}

/// Which of a host's two engines runs a component.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flavor {
    /// The one for all that need no more: plain calls cost less than half there.
    Plain,
    /// The one for WASI 0.3 and the component model's async.
    Concurrent,
}

/// What has guests yield.
#[derive(Default)]
struct Ticker {
    stopped: AtomicBool,
    engines: RwLock<Vec<EngineWeak>>,
}

impl Engine {
    /// Sets the engine up, and raises the process's soft limit of open files to its hard one: the
    /// code of each component keeps its file open, and 1,024 files, the usual soft limit, are fewer
    /// than a host of a thousand services needs.
    ///
    /// # Errors
    ///
    /// The machine cannot give the address space that the pool needs.
    pub fn new(options: EngineOptions) -> Result<Self, EngineError> {
        allow_files();
        let instances = options.instances.max(1);
        let plain = wasmtime_for(Flavor::Plain, instances)?;
        let ticker = Arc::new(Ticker::default());
        ticker.add(&plain);
        let ticking = Arc::clone(&ticker);
        thread::Builder::new()
            .name("wasmbay-epoch".to_owned())
            .spawn(move || ticking.run())
            .map_err(EngineError::Ticker)?;
        Ok(Self {
            shared: Arc::new(Shared {
                plain,
                concurrent: OnceLock::new(),
                cache: CodeCache::new(options.cache),
                instances,
                ticker,
            }),
        })
    }

    /// wasmtime's engine for components of this flavor. The one for asynchronous components is set up when it is
    /// first asked for.
    ///
    /// # Errors
    ///
    /// The machine cannot give the address space that a second pool needs.
    pub(crate) fn wasmtime(&self, flavor: Flavor) -> Result<&wasmtime::Engine, Arc<EngineError>> {
        let shared = &self.shared;
        match flavor {
            Flavor::Plain => Ok(&shared.plain),
            Flavor::Concurrent => {
                let set_up = shared.concurrent.get_or_init(|| {
                    let engine = wasmtime_for(flavor, shared.instances)?;
                    shared.ticker.add(&engine);
                    Ok(engine)
                });
                set_up.as_ref().map_err(Arc::clone)
            }
        }
    }

    /// Instances that can exist at one time.
    #[must_use]
    pub fn instances(&self) -> u32 {
        self.shared.instances
    }

    /// Components that were found in the cache, and those that were compiled.
    pub(crate) fn compiled(&self) -> (u64, u64) {
        self.shared.cache.counts()
    }

    /// The compiled form of a component: from the cache, or compiled and then cached.
    pub(crate) fn compile(
        &self,
        flavor: Flavor,
        digest: &str,
        bytes: &[u8],
    ) -> wasmtime::Result<Component> {
        let engine = self.wasmtime(flavor).map_err(wasmtime::Error::new)?;
        self.shared.cache.compile(engine, digest, bytes)
    }
}

fn wasmtime_for(flavor: Flavor, instances: u32) -> Result<wasmtime::Engine, EngineError> {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(instances)
        .total_core_instances(instances.saturating_mul(CORE_INSTANCES_EACH))
        .total_memories(instances.saturating_mul(MEMORIES_EACH))
        .total_tables(instances.saturating_mul(CORE_INSTANCES_EACH))
        .total_stacks(match flavor {
            Flavor::Plain => instances,
            Flavor::Concurrent => instances.saturating_mul(STACKS_EACH),
        })
        .table_elements(MAX_TABLE_ELEMENTS as usize)
        .max_memory_size(usize::try_from(MAX_MEMORY).unwrap_or(usize::MAX))
        // Services are bounded by their own limits, whose errors name them.
        .max_component_instance_size(16 << 20)
        .max_core_instance_size(16 << 20)
        .max_memories_per_module(16)
        .max_tables_per_module(64)
        .max_core_instances_per_component(256)
        .max_memories_per_component(64)
        .max_tables_per_component(256);
    if PoolingAllocationConfig::is_pagemap_scan_available() {
        pool.pagemap_scan(Enabled::Yes)
            .linear_memory_keep_resident(KEEP_RESIDENT)
            .table_keep_resident(64 << 10);
    }
    let is_concurrent = flavor == Flavor::Concurrent;
    let mut config = Config::new();
    config
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool))
        .epoch_interruption(true)
        .max_wasm_stack(WASM_STACK)
        .concurrency_support(is_concurrent)
        .wasm_component_model_async(is_concurrent)
        .wasm_component_model_more_async_builtins(is_concurrent)
        .wasm_component_model_async_stackful(is_concurrent)
        .wasm_component_model_fixed_length_lists(true);
    let setup = |source| EngineError::Setup { instances, source };
    wasmtime::Engine::new(&config).map_err(setup)
}

impl Ticker {
    fn add(&self, engine: &wasmtime::Engine) {
        let mut engines = self.engines.write().unwrap_or_else(PoisonError::into_inner);
        engines.push(engine.weak());
    }

    fn run(&self) {
        while !self.stopped.load(Ordering::Relaxed) {
            thread::sleep(EPOCH_TICK);
            let engines = self.engines.read().unwrap_or_else(PoisonError::into_inner);
            for engine in engines.iter().filter_map(EngineWeak::upgrade) {
                engine.increment_epoch();
            }
            drop(engines);
            turns::tick();
        }
    }
}

/// A host can run with fewer open files than it needs; a file that cannot be opened then is an error.
#[cfg(unix)]
fn allow_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let maximum = getrlimit(Resource::Nofile).maximum;
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::debug!(%error, "the limit of open files stays as it is");
    }
}

#[cfg(not(unix))]
fn allow_files() {}

impl Drop for Shared {
    fn drop(&mut self) {
        self.ticker.stopped.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_files_can_be_open_as_the_system_allows() {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
        let before = getrlimit(Resource::Nofile);
        let few = Rlimit {
            current: before.maximum.map(|most| most.min(1_000)),
            ..before
        };
        setrlimit(Resource::Nofile, few).unwrap();
        Engine::new(EngineOptions {
            instances: 1,
            cache: None,
        })
        .unwrap();
        assert_eq!(getrlimit(Resource::Nofile).current, before.maximum);
    }
}
