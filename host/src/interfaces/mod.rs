//! The host interfaces that a guest may import: a file for each, with its context, its view of a
//! store (as wasmtime's own crates have it) and `add_to_linker`.
//!
//! Grants are checked here. What leaves the process goes through a [`Backend`], in types of this
//! room; NATS is not known. [`memory`] is a backend for tests.

mod backend;
pub(crate) mod blobs;
pub(crate) mod blobstore;
mod bounds;
mod caller;
pub(crate) mod calls;
pub(crate) mod config;
pub(crate) mod context;
pub(crate) mod files;
pub(crate) mod held;
pub(crate) mod http;
pub(crate) mod identity;
pub(crate) mod keyvalue;
pub(crate) mod logging;
pub mod memory;
pub(crate) mod messaging;
pub(crate) mod otel;
pub(crate) mod output;
pub(crate) mod provided;
pub(crate) mod recorded;
pub(crate) mod sockets;
pub(crate) mod spin;
mod tail;
pub(crate) mod wasi;

pub use backend::{
    Answer, Backend, Expected, Feed, FeedEvent, KeyPage, KeyValue, KeyValueError, Message,
    OutgoingMessage, Pending, Source, Values,
};
pub use blobs::{
    BLOB_CHUNK, BlobError, BlobInfo, BlobName, BlobPage, BlobPending, BlobPlace, Blobs, Written,
};
pub(crate) use bounds::Bounds;
pub(crate) use caller::{Caller, CallerView, CurrentCall};
pub use files::FilesError;
pub(crate) use http::fetch::{self, NotFetched};
pub use http::{Fetch, Fetched};
pub(crate) use output::Output;
pub use provided::{Missing, grant_of, reference};
pub(crate) use recorded::Recorded;
pub(crate) use tail::Tail;
