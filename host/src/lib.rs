//! wasmbay runs microservices that are WebAssembly components, wired by their WIT interfaces over
//! NATS.

pub mod app;
pub mod build;
pub mod call;
pub mod interface;
pub mod json;
pub mod manifest;
pub mod nats;
pub mod shape;
pub mod subject;
