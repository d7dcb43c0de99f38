//! `wasi:logging/logging`: log records with the guest's level and context.

use wasmtime::component::{ComponentType, Lift, Linker};

use super::CallerView;
use super::wasi::MAX_LINE;
use crate::telemetry;
use crate::text::one_line;

/// The levels of `wasi:logging`.
#[derive(Clone, Copy, ComponentType, Lift)]
#[component(enum)]
#[repr(u8)]
#[expect(dead_code, reason = "guests construct them, by their number")]
enum Level {
    #[component(name = "trace")]
    Trace,
    #[component(name = "debug")]
    Debug,
    #[component(name = "info")]
    Info,
    #[component(name = "warn")]
    Warn,
    #[component(name = "error")]
    Error,
    #[component(name = "critical")]
    Critical,
}

/// `wasi:logging/logging`.
pub(crate) fn add_to_linker<T: CallerView>(linker: &mut Linker<T>) -> wasmtime::Result<()> {
    linker
        .instance("wasi:logging/logging@0.1.0-draft")?
        .func_wrap(
            "log",
            |mut store: wasmtime::StoreContextMut<'_, T>,
             (level, context, message): (Level, String, String)| {
                let service = &*store.data_mut().caller().service.name;
                let (context, message) =
                    (one_line(&context, MAX_LINE), one_line(&message, MAX_LINE));
                let context = &*context;
                match level {
                    Level::Trace => {
                        tracing::trace!(target: telemetry::GUEST, service, context, "{message}")
                    }
                    Level::Debug => {
                        tracing::debug!(target: telemetry::GUEST, service, context, "{message}")
                    }
                    Level::Info => {
                        tracing::info!(target: telemetry::GUEST, service, context, "{message}")
                    }
                    Level::Warn => {
                        tracing::warn!(target: telemetry::GUEST, service, context, "{message}")
                    }
                    Level::Error | Level::Critical => {
                        tracing::error!(target: telemetry::GUEST, service, context, "{message}");
                    }
                }
                Ok(())
            },
        )
}
