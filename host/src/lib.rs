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
//!  reply <─ encode <─ invoke <─ instance <─ decode <─ admission <─ subscription
//! ```
//!
//! A request message arrives at one of the workers of a [`host`], each a thread with a runtime and
//! a NATS connection of its own. [`transport`] reads it as a [`call::Call`] ([`wire`]), and finds
//! the binding of its subject ([`subject`]). [`runtime::Service::call`] is the rest: admission,
//! JSON to values ([`json`]) by the function's [`shape`], an instance, the guest itself, and values
//! to JSON again. Imports of the guest go out through a [`Backend`](interfaces::Backend) and come
//! in at another service the same way. Every message with a reply subject gets exactly one reply.
//!
//! # Running an app
//!
//! [`manifest`] reads `wasmbay.toml` into a [`manifest::App`], [`plan`] checks that its components
//! fit together, and [`host::Host`] serves it, as often as it changes, without losing a call.
//! [`nats`] runs a server and connects, [`gateway`] is the HTTP front, [`events`] has the streams,
//! retries and dead letters, and [`build`] makes components from sources.
//!
//! # Examples
//!
//! ```no_run
//! use std::collections::BTreeMap;
//! use std::path::{Path, PathBuf};
//!
//! use wasmbay::runtime::{Engine, EngineOptions};
//! use wasmbay::host::{self, Host, HostOptions};
//! use wasmbay::manifest::App;
//! use wasmbay::nats::ConnectOptions;
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let app = App::load(Path::new("wasmbay.toml"))?;
//! let engine = Engine::new(EngineOptions::default())?;
//! let files = BTreeMap::from([("hello".to_owned(), PathBuf::from("hello.wasm"))]);
//! let components = host::load(&engine, &files)?;
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
