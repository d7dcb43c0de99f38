//! wasmbay runs microservices that are WebAssembly components, wired by their WIT interfaces over
//! NATS.
//!
//! # The life of a call
//!
//! ```text
//!  guest's import ─ lower, encode ─┐
//!  HTTP request ── gateway ────────┤  bay.<app>.<ns>.<pkg>.<iface>.<track>.<function>
//!  any NATS client ── JSON ────────┘                    │ queue group
//!                                                       v
//!  reply <─ encode <─ invoke <─ instance <─ decode <─ admission <─ inbound
//! ```
//!
//! A request message arrives at one of the [`worker`]s, each a thread with a runtime and a NATS
//! connection of its own. [`inbound::nats`] reads it as a [`call::Call`] ([`wire`]), finds the
//! service behind the subject ([`subject`]) and calls it. [`service::Service::call`] is the rest:
//! a place among the running calls, JSON to values ([`json`]) as the function's [`shape`] has them,
//! an instance of the [`component`], the guest itself, and values to JSON again. What the guest
//! imports goes out through [`outbound`] and comes back to another service the same way. Exactly
//! one reply follows, whatever happens in between.
//!
//! # What runs
//!
//! [`manifest`] reads `wasmbay.toml` into an [`manifest::App`], [`app`] checks that its components
//! fit together, and [`host::Host`] makes it so, as often as it changes, without losing a call.
//! [`engine`] is how wasmtime is set up, [`nats`] how a server is run and reached, [`discovery`]
//! how services are found, and [`build`] how sources become components.
//!
//! # Examples
//!
//! ```no_run
//! use std::path::Path;
//!
//! use wasmbay::runtime::engine::{Engine, EngineOptions};
//! use wasmbay::host::{self, Host, HostOptions};
//! use wasmbay::manifest::Manifest;
//! use wasmbay::nats::ConnectOptions;
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let Manifest { app, components, .. } = Manifest::load(Path::new("wasmbay.toml"))?;
//! let engine = Engine::new(EngineOptions::default())?;
//! // Where a service has a folder and no file, `build` makes the file first.
//! let components = host::load(&engine, &components)?;
//!
//! let options = HostOptions::new(ConnectOptions::to("nats://127.0.0.1:4222"));
//! let host = Host::start(&app, engine, options).await?;
//! host.apply(&app, &components).await?;
//! host.stop(host::DEFAULT_GRACE).await;
//! # Ok(())
//! # }
//! ```

pub mod admin;
pub mod build;
pub mod call;
pub mod deployment;
pub mod events;
pub mod gateway;
pub mod host;
pub mod interface;
pub mod interfaces;
pub mod json;
pub mod manifest;
pub mod micro;
pub mod nats;
mod per_core;
pub mod plan;
mod poll;
pub mod runtime;
pub mod shape;
pub mod subject;
mod telemetry;
pub mod text;
pub mod transport;
pub mod wire;
