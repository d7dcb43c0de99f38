//! `wasi:logging/logging`: log records with the guest's level and context.

use tracing::Level;
use wasmtime::StoreContextMut;
use wasmtime::component::{ComponentType, Lift, Linker};

use super::wasi::MAX_LINE;
use super::{CallerView, Output};
use crate::telemetry;
use crate::text::one_line;

/// The levels of `wasi:logging`.
#[derive(Clone, Copy, ComponentType, Lift)]
#[component(enum)]
#[repr(u8)]
#[expect(dead_code, reason = "guests construct them, by their number")]
enum Severity {
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

impl From<Severity> for Level {
    fn from(severity: Severity) -> Self {
        match severity {
            Severity::Trace => Self::TRACE,
            Severity::Debug => Self::DEBUG,
            Severity::Info => Self::INFO,
            Severity::Warn => Self::WARN,
            Severity::Error | Severity::Critical => Self::ERROR,
        }
    }
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
    (severity, context, message): (Severity, String, String),
) -> wasmtime::Result<()> {
    let caller = store.data_mut().caller();
    if !caller.is_replaying() {
        write(severity.into(), &caller.output, &context, None, &message);
    }
    Ok(())
}

/// A record of a guest, with attributes as JSON if it has any; within the bounds of its service.
pub(super) fn write(
    level: Level,
    output: &Output,
    context: &str,
    attributes: Option<&str>,
    message: &str,
) {
    // The level of a record is part of the program's text, so each has a place in it.
    macro_rules! at_level {
        ($write:ident) => {
            match level {
                Level::TRACE => $write!(Level::TRACE),
                Level::DEBUG => $write!(Level::DEBUG),
                Level::INFO => $write!(Level::INFO),
                Level::WARN => $write!(Level::WARN),
                Level::ERROR => $write!(Level::ERROR),
            }
        };
    }
    macro_rules! enabled {
        ($level:expr) => {
            tracing::enabled!(target: telemetry::GUEST, $level)
        };
    }
    if !at_level!(enabled) {
        return;
    }
    let (context, message) = (one_line(context, MAX_LINE), one_line(message, MAX_LINE));
    let attributes = attributes.map(|attributes| one_line(attributes, MAX_LINE));
    let attributes = attributes.as_deref();
    let size = context.len() + message.len() + attributes.map_or(0, str::len);
    if !output.admits(size) {
        return;
    }
    let (app, service, context) = (output.app(), output.service(), &*context);
    macro_rules! record {
        ($level:expr) => {
            tracing::event!(target: telemetry::GUEST, $level, app, service, context, attributes, "{message}")
        };
    }
    at_level!(record);
}
