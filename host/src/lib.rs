//! wasmbay runs microservices that are WebAssembly components, wired by their WIT interfaces over
//! NATS.

mod admission;
pub mod app;
pub mod build;
pub mod call;
pub mod component;
pub mod discovery;
pub mod engine;
pub mod host;
pub mod inbound;
mod instance;
pub mod interface;
pub mod json;
pub mod manifest;
pub mod nats;
pub mod outbound;
pub mod service;
pub mod shape;
pub mod subject;
pub mod wire;
pub mod worker;
