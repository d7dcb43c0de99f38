//! How calls arrive: as NATS messages, or as HTTP requests at the gateway.

pub mod http;
pub mod nats;
