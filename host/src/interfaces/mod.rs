//! What a guest may import: a file for each interface, with its context, what it needs of a store
//! (a view, as wasmtime's own crates have it) and `add_to_linker`.
//!
//! Whether something is granted is checked here. What has to leave the process goes through a
//! [`Backend`]; [`memory`] is one for tests.

mod backend;
mod bounds;
mod caller;
pub(crate) mod calls;
pub(crate) mod config;
pub(crate) mod held;
pub(crate) mod http;
pub(crate) mod keyvalue;
pub(crate) mod logging;
pub mod memory;
pub(crate) mod messaging;
pub(crate) mod output;
pub(crate) mod provided;
pub(crate) mod wasi;

pub use backend::{
    Backend, Expected, KeyPage, KeyValue, KeyValueError, Message, OutgoingMessage, Pending,
};
pub(crate) use bounds::Bounds;
pub(crate) use caller::{Caller, CallerView, CurrentCall};
pub(crate) use output::Output;
pub use provided::Missing;
