//! The way to NATS: a server of one's own, a connection, and requests over it.
//!
//! [`ManagedServer`] runs a real `nats-server` for an app that was given none, [`ConnectOptions`]
//! opens connections to that one or to any other, [`Requests`] asks questions over a connection and
//! matches the replies, and [`settled`] waits until the server knows every subscription made so
//! far. Nothing here knows of services, subjects or calls.

mod address;
mod connect;
mod folder;
mod launch;
mod requests;
mod server;
mod services;
mod waiting;

pub use address::redact;
pub use connect::{
    CLIENT_CAPACITY, CONNECT_TIMEOUT, ConnectCause, ConnectError, ConnectOptions, Nkey,
    PING_INTERVAL, SETTLE_DEADLINE, SUBSCRIPTION_CAPACITY, SettleError, settled,
};
pub use requests::{MAX_OUTSTANDING, RequestError, Requests, wire_size};
pub use server::{
    INSTALL, ManagedServer, READY_DEADLINE, RESTART_DELAY_MAX, STOP_DEADLINE, ServerError,
    ServerOptions,
};
pub(crate) use services::ask_services;
