//! Everything that needs more than one module: a real `nats-server`, processes, the network.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failed step of a test's own helper fails the test"
)]

mod admin;
mod between;
mod blobstore;
mod breakers;
mod build;
mod cases;
mod cli;
mod component;
mod concurrent;
mod courier;
mod docs;
mod durable;
mod environment;
mod events;
mod examples;
mod files;
mod fleet;
mod follow;
mod gateway;
mod host;
mod identity;
mod isolation;
mod javascript;
mod jetstream;
mod jobs;
mod keyvalue;
mod local;
mod malformed;
mod messaging;
mod mqtt;
mod nats;
mod nestjs;
mod outside;
mod page;
mod permissions;
mod pipelines;
mod recording;
mod registries;
mod service;
mod shipped;
mod side_by_side;
mod sockets;
mod spans;
mod spin;
mod streams;
mod support;
