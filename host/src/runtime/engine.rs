//! How wasmtime is set up: one engine for all services of a host.
//!
//! Fresh instances come from a pool, compiled code from a cache on disk, and a ticker bounds how
//! long a guest computes before others get their turn.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use wasmtime::component::Component;
use wasmtime::{Config, Enabled, InstanceAllocationStrategy, PoolingAllocationConfig};

use super::code_cache::CodeCache;

/// How long a guest computes before it gives way to others. Short enough that a busy guest adds
/// little to its neighbours' calls, long enough that waking the ticker costs nothing to speak of.
pub const EPOCH_TICK: Duration = Duration::from_millis(5);

/// Instances that exist at one time in a host, unless [`EngineOptions::instances`] says otherwise.
pub const DEFAULT_INSTANCES: u32 = 1_000;

/// The largest memory that a service's limit can allow. The pool reserves address space, not
/// memory, of this size for each instance.
pub const MAX_MEMORY: u64 = 4 << 30;

/// The most table elements that a service's limit can allow in one table.
pub const MAX_TABLE_ELEMENTS: u32 = 1_000_000;

/// A component takes two to five of these (its own, the adapter's, shims).
const CORE_INSTANCES_EACH: u32 = 5;

/// Most components have one memory; an instance with more takes from its neighbours' share.
const MEMORIES_EACH: u32 = 2;

/// The stack of a guest's own frames. wasmtime's default, half of what a host stack has.
const WASM_STACK: usize = 512 << 10;

/// What stays resident of a slot's memory between two instances: the kernel's `PAGEMAP_SCAN`
/// finds the touched pages, so that most instances cost a copy of those and no page fault.
/// Without it the same setting would clear all of it each time, which is five times slower.
const KEEP_RESIDENT: usize = 1 << 20;

/// What the host's operator can choose.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// Instances that exist at one time, all services together.
    pub instances: u32,
    /// Where compiled code is kept; `None` compiles anew at each start.
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

/// Why the engine could not be set up or could not compile.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// wasmtime refused its configuration; on Linux most often for want of address space.
    #[error("cannot set up the WebAssembly engine for {instances} instances")]
    Setup {
        /// The number of instances asked for.
        instances: u32,
        /// wasmtime's own words.
        source: wasmtime::Error,
    },
    /// The thread that bounds the guests' turns could not be started.
    #[error("cannot start the epoch ticker")]
    Ticker(#[source] io::Error),
}

/// The engine, its ticker and its cache. Cheap to clone.
#[derive(Clone)]
pub struct Engine {
    shared: Arc<Shared>,
}

struct Shared {
    wasmtime: wasmtime::Engine,
    cache: CodeCache,
    instances: u32,
    ticking: Arc<AtomicBool>,
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
        let mut pool = PoolingAllocationConfig::new();
        pool.total_component_instances(instances)
            .total_core_instances(instances.saturating_mul(CORE_INSTANCES_EACH))
            .total_memories(instances.saturating_mul(MEMORIES_EACH))
            .total_tables(instances.saturating_mul(CORE_INSTANCES_EACH))
            .total_stacks(instances)
            .table_elements(MAX_TABLE_ELEMENTS as usize)
            .max_memory_size(usize::try_from(MAX_MEMORY).unwrap_or(usize::MAX))
            // What a service may use is bounded by its own limits, which name themselves.
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

        let mut config = Config::new();
        config
            .allocation_strategy(InstanceAllocationStrategy::Pooling(pool))
            .epoch_interruption(true)
            .max_wasm_stack(WASM_STACK)
            // Plain calls cost less than half without it. A component that needs it is refused
            // when it is loaded, by name.
            .concurrency_support(false)
            .wasm_component_model_fixed_length_lists(true);
        let setup = |source| EngineError::Setup { instances, source };
        let wasmtime = wasmtime::Engine::new(&config).map_err(setup)?;

        let ticking = Arc::new(AtomicBool::new(true));
        let ticker = (wasmtime.weak(), Arc::clone(&ticking));
        thread::Builder::new()
            .name("wasmbay-epoch".to_owned())
            .spawn(move || {
                let (engine, ticking) = ticker;
                while ticking.load(Ordering::Relaxed) {
                    thread::sleep(EPOCH_TICK);
                    let Some(engine) = engine.upgrade() else {
                        return;
                    };
                    engine.increment_epoch();
                }
            })
            .map_err(EngineError::Ticker)?;

        Ok(Self {
            shared: Arc::new(Shared {
                wasmtime,
                cache: CodeCache::new(options.cache),
                instances,
                ticking,
            }),
        })
    }

    /// wasmtime's engine.
    #[must_use]
    pub fn wasmtime(&self) -> &wasmtime::Engine {
        &self.shared.wasmtime
    }

    /// Instances that can exist at one time.
    #[must_use]
    pub fn instances(&self) -> u32 {
        self.shared.instances
    }

    /// The compiled form of a component: from the cache, or compiled and then cached.
    pub(crate) fn compile(&self, digest: &str, bytes: &[u8]) -> wasmtime::Result<Component> {
        self.shared.cache.compile(self.wasmtime(), digest, bytes)
    }
}

/// With fewer files than a host needs it can still run; what it then cannot open is told there.
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
        self.ticking.store(false, Ordering::Relaxed);
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
