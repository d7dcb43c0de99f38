//! `wasi:logging/logging`: log records with the guest's level and context.

use wasmtime::StoreContextMut;
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

/// The interface under every name that it has had.
const NAMES: [&str; 2] = ["wasi:logging/logging", "wasi:logging/logging@0.1.0-draft"];

/// `wasi:logging/logging`.
pub(crate) fn add_to_linker<T: CallerView>(linker: &mut Linker<T>) -> wasmtime::Result<()> {
    for name in NAMES {
        linker.instance(name)?.func_wrap("log", log)?;
    }
    Ok(())
}

/// Logs what a guest says.
fn log<T: CallerView>(
    mut store: StoreContextMut<'_, T>,
    (level, context, message): (Level, String, String),
) -> wasmtime::Result<()> {
    let caller = store.data_mut().caller();
    if caller.is_replaying() {
        return Ok(());
    }
    let output = &*caller.output;
    let enabled = match level {
        Level::Trace => tracing::enabled!(target: telemetry::GUEST, tracing::Level::TRACE),
        Level::Debug => tracing::enabled!(target: telemetry::GUEST, tracing::Level::DEBUG),
        Level::Info => tracing::enabled!(target: telemetry::GUEST, tracing::Level::INFO),
        Level::Warn => tracing::enabled!(target: telemetry::GUEST, tracing::Level::WARN),
        Level::Error | Level::Critical => {
            tracing::enabled!(target: telemetry::GUEST, tracing::Level::ERROR)
        }
    };
    if !enabled {
        return Ok(());
    }
    let (context, message) = (one_line(&context, MAX_LINE), one_line(&message, MAX_LINE));
    if !output.admits(context.len() + message.len()) {
        return Ok(());
    }
    let (app, service, context) = (output.app(), output.service(), &*context);
    match level {
        Level::Trace => {
            tracing::trace!(target: telemetry::GUEST, app, service, context, "{message}");
        }
        Level::Debug => {
            tracing::debug!(target: telemetry::GUEST, app, service, context, "{message}");
        }
        Level::Info => {
            tracing::info!(target: telemetry::GUEST, app, service, context, "{message}");
        }
        Level::Warn => {
            tracing::warn!(target: telemetry::GUEST, app, service, context, "{message}");
        }
        Level::Error | Level::Critical => {
            tracing::error!(target: telemetry::GUEST, app, service, context, "{message}");
        }
    }
    Ok(())
}
