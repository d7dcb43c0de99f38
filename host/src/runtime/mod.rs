//! Components as services that can be called: wasmtime, and nothing of NATS.
//!
//! An [`Engine`] compiles a [`Component`]; a [`Runtime`] adds what all services of a host share; a
//! [`Service`] runs calls, HTTP requests and messages, all of them along one path: admission,
//! instance, guest, statistics.

mod admission;
mod code_cache;
mod component;
mod engine;
mod instance;
mod pool;
mod service;
mod state;

use std::sync::Arc;
use std::time::Instant;

use wasmtime::component::Linker;

pub use component::{Component, ComponentError, MAX_BYTES, MessageHandler};
pub use engine::{
    DEFAULT_INSTANCES, EPOCH_TICK, Engine, EngineError, EngineOptions, MAX_MEMORY,
    MAX_TABLE_ELEMENTS,
};
pub use pool::IDLE;
pub(crate) use service::Admitted;
pub use service::{Exported, Function, Service, ServiceError, Stats, StatsReading};

use pool::Pool;
use state::State;

/// What all services of a host share: the engine, the host interfaces, the pool of idle instances.
/// Cheap to clone.
#[derive(Clone)]
pub struct Runtime {
    engine: Engine,
    /// Building it costs 140 µs, a copy next to nothing.
    linker: Arc<Linker<State>>,
    pool: Arc<Pool>,
}

impl Runtime {
    /// A runtime on this engine.
    ///
    /// # Errors
    ///
    /// A defect: two host interfaces define one name.
    pub fn new(engine: Engine) -> Result<Self, EngineError> {
        let linker = state::linker(engine.wasmtime());
        let linker = linker.map_err(|source| EngineError::Setup {
            instances: engine.instances(),
            source,
        })?;
        Ok(Self {
            engine,
            linker: Arc::new(linker),
            pool: Arc::default(),
        })
    }

    /// The engine.
    #[must_use]
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Drops the instances that have been idle for longer than [`IDLE`].
    pub fn drop_idle(&self, now: Instant) {
        self.pool.drop_idle(now);
    }
}
