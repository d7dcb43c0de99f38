//! How wasmtime is set up: one engine for all services of a host.
//!
//! Fresh instances come from a pool, compiled code from a cache on disk, and a ticker bounds how
//! long a guest computes before others get their turn.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use wasmtime::component::Linker;
use wasmtime::{Config, Enabled, InstanceAllocationStrategy, PoolingAllocationConfig};

use crate::instance::{State, base_linker};

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

/// Bytes in the cache of one engine; the oldest files go first. A small Rust guest's has 200 kB, an
/// interpreter's 40 MB. Counted in bytes, since a host of a thousand small services must find all
/// of theirs: one that does not, and drops another's for it, would compile all anew at each start.
const MAX_CACHED: u64 = 8 << 30;

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
    /// What the host provides to every guest. Building it costs 140 µs, a copy next to nothing.
    linker: Linker<State>,
    cache: Option<PathBuf>,
    instances: u32,
    ticking: Arc<AtomicBool>,
    idle: Mutex<Vec<Weak<dyn Evict>>>,
}

/// Something that keeps idle instances and can let go of them when the pool is exhausted.
pub(crate) trait Evict: Send + Sync {
    /// Drops every idle instance.
    fn evict(&self);
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
        let linker = base_linker(&wasmtime).map_err(setup)?;

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
                linker,
                cache: options.cache,
                instances,
                ticking,
                idle: Mutex::default(),
            }),
        })
    }

    /// wasmtime's engine.
    #[must_use]
    pub fn wasmtime(&self) -> &wasmtime::Engine {
        &self.shared.wasmtime
    }

    pub(crate) fn linker(&self) -> &Linker<State> {
        &self.shared.linker
    }

    /// Instances that can exist at one time.
    #[must_use]
    pub fn instances(&self) -> u32 {
        self.shared.instances
    }

    /// Has idle instances of `holder` dropped whenever the pool is exhausted.
    pub(crate) fn register_idle(&self, holder: Weak<dyn Evict>) {
        let mut idle = self.idle();
        idle.retain(|holder| holder.strong_count() > 0);
        idle.push(holder);
    }

    /// Drops every idle instance of every service.
    pub(crate) fn evict_idle(&self) {
        let holders: Vec<_> = self.idle().iter().filter_map(Weak::upgrade).collect();
        for holder in holders {
            holder.evict();
        }
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Weak<dyn Evict>>> {
        self.shared
            .idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The compiled form of a component: from the cache, or compiled and then cached.
    ///
    /// A cache that cannot be read or written costs time, never the start.
    ///
    /// # Cost
    ///
    /// 25 ms (a small Rust guest) to 10 s (an interpreter) to compile, 0.1 to 4 ms from the cache.
    pub(crate) fn compile(
        &self,
        digest: &str,
        bytes: &[u8],
    ) -> wasmtime::Result<wasmtime::component::Component> {
        let Some(file) = self.cached_file(digest) else {
            return wasmtime::component::Component::new(self.wasmtime(), bytes);
        };
        if file.exists() && file.parent().is_some_and(|dir| check_private(dir).is_ok()) {
            // SAFETY: the file lies in a directory that only this user can write to, as was just
            // checked, under the hash of this engine's settings, and was renamed into place by the
            // code below.
            let cached =
                unsafe { wasmtime::component::Component::deserialize_file(self.wasmtime(), &file) };
            match cached {
                Ok(component) => return Ok(component),
                Err(error) => {
                    tracing::warn!(file = %file.display(), error = %error, "compiled code in the cache is unusable, compiling anew");
                }
            }
        }
        let component = wasmtime::component::Component::new(self.wasmtime(), bytes)?;
        if let Err(error) = store(&file, &component) {
            tracing::warn!(file = %file.display(), error = %error, "cannot cache compiled code");
        }
        Ok(component)
    }

    fn cached_file(&self, digest: &str) -> Option<PathBuf> {
        use std::hash::{DefaultHasher, Hash, Hasher};
        let mut hasher = DefaultHasher::new();
        self.wasmtime()
            .precompile_compatibility_hash()
            .hash(&mut hasher);
        let engine = format!("{:016x}", hasher.finish());
        let cache = self.shared.cache.as_ref()?;
        Some(cache.join(engine).join(format!("{digest}.cwasm")))
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

/// Writes beside the target and renames, so that a reader sees all of a file or none.
fn store(
    file: &Path,
    component: &wasmtime::component::Component,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let code = component.serialize()?;
    let Some(dir) = file.parent() else {
        return Ok(());
    };
    create_private(dir)?;
    let mut temporary = tempfile::NamedTempFile::new_in(dir)?;
    io::Write::write_all(&mut temporary, &code)?;
    // The name must not outlive the bytes in a crash: what it names is run without a check.
    temporary.as_file().sync_all()?;
    temporary.persist(file).map_err(|error| error.error)?;
    forget_oldest(dir, MAX_CACHED)?;
    Ok(())
}

/// Keeps the cache from growing with every rebuild.
fn forget_oldest(dir: &Path, limit: u64) -> io::Result<()> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        // Another host may have forgotten it since.
        if let Ok(metadata) = entry.metadata() {
            files.push((metadata.modified()?, metadata.len(), entry.path()));
        }
    }
    files.sort();
    let mut surplus = files
        .iter()
        .map(|(_, bytes, _)| bytes)
        .sum::<u64>()
        .saturating_sub(limit);
    for (_, bytes, path) in files {
        if surplus == 0 {
            break;
        }
        fs::remove_file(&path)?;
        surplus = surplus.saturating_sub(bytes);
    }
    Ok(())
}

/// Creates a directory that nobody else can write to: what lies in it is run as machine code.
fn create_private(dir: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(dir)?;
    check_private(dir)
}

/// Whether only this user can write to a directory.
#[cfg(unix)]
fn check_private(dir: &Path) -> io::Result<()> {
    use std::os::unix::fs::MetadataExt;
    let metadata = fs::symlink_metadata(dir)?;
    if metadata.uid() == rustix::process::geteuid().as_raw() && metadata.mode() & 0o022 == 0 {
        return Ok(());
    }
    let why = format!(
        "{} can be written to by others; `chmod 700` it",
        dir.display()
    );
    Err(io::Error::new(io::ErrorKind::PermissionDenied, why))
}

#[cfg(not(unix))]
fn check_private(_: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::SystemTime;

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

    #[test]
    fn the_oldest_of_what_is_too_much_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        for (age, name) in ["new", "older", "oldest"].into_iter().enumerate() {
            let file = fs::File::create(dir.path().join(name)).unwrap();
            file.set_len(100).unwrap();
            let age = Duration::from_secs(60 * age as u64);
            file.set_modified(SystemTime::now() - age).unwrap();
        }
        let left = |limit| {
            forget_oldest(dir.path(), limit).unwrap();
            let entries = fs::read_dir(dir.path()).unwrap();
            let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name()).collect();
            names.sort();
            names
        };
        assert_eq!(left(300), ["new", "older", "oldest"]);
        assert_eq!(left(299), ["new", "older"]);
        assert_eq!(left(150), ["new"]);
    }
}
