//! NATS: a managed server, connections, and requests over them.
//!
//! [`ManagedServer`] runs a real `nats-server` for an app without one, [`ConnectOptions`] opens
//! connections to it or to any other, [`Requests`] sends requests over a connection and matches the
//! replies, and [`settled`] waits until the server has processed every earlier subscription.
//! Nothing here knows of services, subjects or calls.

mod address;
mod connect;
mod delivered;
mod folder;
mod launch;
mod link;
mod nkey;
mod reconnects;
mod requests;
mod server;
mod services;
mod violations;
mod waiting;

pub use address::redact;
pub use connect::{
    CLIENT_CAPACITY, CONNECT_TIMEOUT, ConnectCause, ConnectError, ConnectOptions, PING_INTERVAL,
    SETTLE_DEADLINE, SUBSCRIPTION_CAPACITY, SettleError, settled,
};
pub(crate) use delivered::Delivered;
pub(crate) use link::{Asking, Bound};
pub use link::{
    Link, Malformed, Message, OUTPUT_CAPACITY, PublishError, SUBSCRIPTION_BYTES, SubscribeError,
    Subscription,
};
pub use nkey::Nkey;
pub use reconnects::Reconnects;
pub use requests::{MAX_OUTSTANDING, RequestError, Requests};
pub(crate) use requests::{is_acknowledgement, wire_size};
pub use server::{
    INSTALL, ManagedServer, READY_DEADLINE, RESTART_DELAY_MAX, STOP_DEADLINE, ServerError,
    ServerOptions,
};
pub(crate) use services::{ask_services, find_service};
pub use violations::{Action, Refusal, Violations};
