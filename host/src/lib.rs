//! wasmbay runs microservices that are WebAssembly components, wired by their WIT interfaces over
//! NATS.
//!
//! # The life of a call
//!
//! ```text
//!  guest's import ─ interfaces ────┐
//!  HTTP request ─── gateway ───────┤  bay.<app>.<ns>.<pkg>.<iface>.<track>.<function>
//!  any NATS client ─ JSON ─────────┘                    │ queue group
//!                                                       v
//!  reply <─ encode <─ guest <─ instance <─ decode <─ admission <─ subscription
//! ```
//!
//! A message arrives at one of the workers of a [`host`], each a thread with a runtime and a NATS
//! connection of its own. A subscription of [`transport`] reads it as a [`call::Call`] ([`wire`]),
//! finds the binding behind the subject ([`subject`]) and calls its service. [`runtime::Service`] is
//! the rest, one path for calls, HTTP requests and messages: admission, JSON to [`value`]s ([`json`]) as
//! the function's [`shape`] has them, an instance, the guest, statistics, and values to JSON. What the
//! guest imports is one of the [`interfaces`]; what has to leave the process goes through their
//! backend and comes back to another service the same way. Exactly one reply follows, whatever happens
//! in between.
//!
//! # The life of an event
//!
//! ```text
//!  guest's import ─ publication ─> core subject ─────────────> subscription of each service
//!                            └──> stream ─> consumer of each service ─> call ─┬─ ok: ack
//!                                              ^                              ├─ retry: nak, attempt store
//!                                              └──────── replay <─ dead letter ┘
//! ```
//!
//! Which interfaces are events is planned ([`plan::EventWire`]), and the guest does not know: its
//! import publishes ([`plan::Publication`]) instead of calling. A core event reaches the subscribers
//! of that moment. A durable one is stored by a stream of its wire ([`events`]), from which each
//! subscribing service has a consumer; its outcome decides whether it is acknowledged, comes again
//! after a while, or becomes a dead letter that an operator edits, replays or purges.
//!
//! # Running an app
//!
//! [`manifest`] reads `wasmbay.toml`, [`plan`] checks that the services of an app fit together, and
//! [`host::Host::apply`] is a step from what a host serves to what it should: it links and warms what
//! is new, swaps the [`deployment`], and drains what is gone, without losing a call. [`nats`] runs and
//! reaches a server, [`micro`] is how services are discovered, [`build`] makes components of sources.
//!
//! [`host::Node`] is a host of a [`fleet`]: it watches what is deployed, and runs a [`host::Host`] for each app
//! with the services that are placed on it.
//!
//! The rooms stand one above the other, in the order of `host/ARCHITECTURE.md`, and use only what
//! stands below them. A test holds that.
//!
//! # Examples
//!
//! ```no_run
//! use std::path::Path;
//!
//! use wasmbay::host::{self, Host, HostOptions};
//! use wasmbay::manifest::Manifest;
//! use wasmbay::nats::ConnectOptions;
//! use wasmbay::runtime::{Engine, EngineOptions};
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let Manifest { app, components, .. } = Manifest::load(Path::new("wasmbay.toml"))?;
//! let engine = Engine::new(EngineOptions::default())?;
//! // Where a service has a folder and no file, `build` makes the file first.
//! let components = host::load(&engine, &components)?;
//!
//! let options = HostOptions::new(ConnectOptions::to("nats://127.0.0.1:4222"));
//! let host = Host::start(&app, engine, options).await?;
//! host.apply(&host::specify(&app, &components)?, &components).await?;
//! host.stop(host::DEFAULT_GRACE).await;
//! # Ok(())
//! # }
//! ```

mod admin;
pub mod build;
pub mod call;
pub mod cases;
pub mod claims;
pub mod deployment;
pub mod events;
pub mod fleet;
pub mod gateway;
pub mod grpc;
pub mod headers;
pub mod host;
pub mod insight;
pub mod interface;
pub mod interfaces;
pub mod jobs;
pub mod json;
pub mod logs;
pub mod manifest;
pub mod micro;
pub mod nats;
pub mod nest;
pub mod openapi;
pub mod otlp;
mod per_core;
pub mod pipelines;
pub mod plan;
mod poll;
mod programs;
pub mod registry;
#[cfg(test)]
mod rooms;
pub mod runtime;
pub mod shape;
pub mod spans;
mod stats;
pub mod subject;
mod telemetry;
pub mod text;
pub mod transport;
pub mod value;
pub mod wire;
