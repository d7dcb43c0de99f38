//! Components as services that can be called: wasmtime, and nothing of NATS.
//!
//! An [`Engine`] compiles a [`Component`]; a [`Runtime`] adds the linker and the pool that all
//! services of a host share; a [`Service`] runs calls, HTTP requests and messages, all of them
//! along one path: admission, instance, guest, statistics.

mod admission;
mod asynchrony;
mod code_cache;
mod component;
mod engine;
mod instance;
mod pool;
mod service;
mod state;
mod turns;

use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Instant;

use wasmtime::component::Linker;

pub(crate) use code_cache::remove_oldest;
pub use component::{Component, ComponentError, MAX_BYTES, MessageHandler, Uncalled};
pub use engine::{
    DEFAULT_INSTANCES, EPOCH_TICK, Engine, EngineError, EngineOptions, MAX_MEMORY,
    MAX_TABLE_ELEMENTS,
};
pub use instance::Exit;
pub use pool::IDLE;
pub(crate) use service::{Admitted, LeftOut, TapedCall, TapedImport};
pub use service::{Exported, Function, Service, ServiceError, Stats, StatsReading};

use engine::Flavor;
use pool::Pool;
use state::State;
use turns::Turns;

use crate::interfaces::Output;
use crate::interfaces::http::Connections;
use crate::manifest::ServiceSpec;
use crate::spans::Spans;

/// What a service has that needs a look from time to time.
type Tended = (Weak<Output>, Weak<Connections>);

/// The engine, the host interfaces and the pool of idle instances, shared by all services of a host.
/// Cheap to clone.
#[derive(Clone)]
pub struct Runtime {
    engine: Engine,
    /// Building one costs 140 µs, a copy next to nothing.
    linkers: Arc<Linkers>,
    pool: Arc<Pool>,
    turns: Turns,
    tended: Arc<Mutex<Vec<Tended>>>,
    spans: Spans,
    /// The folder of the app, in which folders of files are.
    files: Option<Arc<Path>>,
}

/// The host interfaces, for each flavor of components.
struct Linkers {
    plain: Linker<State>,
    /// Built for the first asynchronous component.
    concurrent: OnceLock<Linker<State>>,
}

impl Runtime {
    /// A runtime on this engine.
    ///
    /// # Errors
    ///
    /// Two host interfaces define one name, which is a defect.
    pub fn new(engine: Engine) -> Result<Self, EngineError> {
        let linker = state::linker(&engine, Flavor::Plain);
        let plain = linker.map_err(|source| EngineError::Setup {
            instances: engine.instances(),
            source,
        })?;
        Ok(Self {
            engine,
            linkers: Arc::new(Linkers {
                plain,
                concurrent: OnceLock::new(),
            }),
            pool: Arc::default(),
            turns: Turns::default(),
            tended: Arc::default(),
            spans: Spans::default(),
            files: None,
        })
    }

    /// The same, whose services record spans.
    #[must_use]
    pub fn with_spans(self, spans: Spans) -> Self {
        Self { spans, ..self }
    }

    /// The same, whose services may read folders of this one where they are granted; without it there are
    /// none.
    #[must_use]
    pub fn with_files(self, root: Option<&Path>) -> Self {
        let files = root.map(Into::into);
        Self { files, ..self }
    }

    /// What records the spans of its services.
    #[must_use]
    pub fn spans(&self) -> &Spans {
        &self.spans
    }

    /// The engine.
    #[must_use]
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// The host interfaces for components of this flavor.
    fn linker(&self, flavor: Flavor) -> wasmtime::Result<&Linker<State>> {
        let Linkers { plain, concurrent } = &*self.linkers;
        match (flavor, concurrent.get()) {
            (Flavor::Plain, _) => Ok(plain),
            (Flavor::Concurrent, Some(linker)) => Ok(linker),
            (Flavor::Concurrent, None) => {
                let linker = state::linker(&self.engine, flavor)?;
                Ok(concurrent.get_or_init(|| linker))
            }
        }
    }

    /// Drops the instances that have been idle for longer than [`IDLE`], closes idle connections of
    /// outgoing HTTP, and reports the output that was dropped. To be called every few seconds.
    pub fn drop_idle(&self, now: Instant) {
        self.pool.drop_idle(now);
        let tended: Vec<_> = self.with_tended(|tended| {
            tended.retain(|(output, _)| output.strong_count() > 0);
            let both = |(output, connections): &Tended| output.upgrade().zip(connections.upgrade());
            tended.iter().filter_map(both).collect()
        });
        for (output, connections) in tended {
            output.flush(now);
            connections.close_idle(now);
        }
    }

    /// Output and connections of a new service.
    fn tended(&self, app: &str, spec: &Arc<ServiceSpec>) -> (Arc<Output>, Arc<Connections>) {
        let output = Arc::new(Output::new(app, Arc::clone(spec)));
        let connections = Arc::new(Connections::new());
        let both = (Arc::downgrade(&output), Arc::downgrade(&connections));
        self.with_tended(|tended| tended.push(both));
        (output, connections)
    }

    fn with_tended<T>(&self, work: impl FnOnce(&mut Vec<Tended>) -> T) -> T {
        work(&mut self.tended.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use crate::interfaces::{held, http, output, wasi};
    use crate::json;

    #[test]
    fn the_page_on_isolation_has_the_bounds_of_the_code() {
        let page = include_str!("../../../docs/isolation.md");
        let with_commas = |number: usize| {
            let digits = number.to_string();
            let mut text = String::new();
            for (at, digit) in digits.chars().enumerate() {
                if at > 0 && (digits.len() - at).is_multiple_of(3) {
                    text.push(',');
                }
                text.push(digit);
            }
            text
        };
        for bound in [
            json::DEFAULT_NODES,
            json::DEFAULT_DEPTH as usize,
            wasi::MAX_RANDOM as usize,
            http::MAX_FIELDS,
            http::MAX_FIELD_BYTES,
            http::BODY_CHUNK,
            held::MAX_HANDLES,
            held::MAX_HELD,
            super::instance::fuel(0),
        ] {
            let bound = with_commas(bound);
            assert!(page.contains(&bound), "{bound} is not there");
        }
        assert_eq!((output::MAX_LINES, output::MAX_BYTES), (1_000, 1 << 20));
        for text in [
            format!("{} requests under way", http::MAX_REQUESTS),
            format!("{} of them to one host", http::MAX_REQUESTS_TO_ONE),
        ] {
            assert!(page.contains(&text), "{text}");
        }
    }
}
