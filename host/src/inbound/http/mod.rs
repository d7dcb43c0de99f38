//! The gateway: HTTP requests become calls, and results become responses.
//!
//! Every worker accepts connections from one listening socket and serves them on its own thread.
//! A request goes through these modules from top to bottom: `connection` speaks HTTP,
//! `request` reads it, `route` finds what answers, `arguments` makes a call of it or
//! `component` hands it over, and `answer` makes the response. No value is decoded on the way.
//!
//! [`Admin`] is another address, for those who look after the app, behind the same `accept` and
//! `connection`.

mod accept;
mod admin;
mod answer;
mod arguments;
mod component;
mod connection;
mod health;
mod request;
mod route;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, PoisonError, RwLock, Weak};

use async_nats::Client;
use tokio::sync::{Semaphore, watch};

pub use admin::Admin;
pub use connection::{IDLE, LINGER, MAX_STREAMS};

use crate::app::Plan;
use crate::manifest::GatewaySpec;
use crate::outbound::Outbound;
use crate::service::Service;
use connection::Tasks;
use health::Introductions;
use route::Table;

/// An app's HTTP front.
pub struct Gateway {
    app: String,
    spec: GatewaySpec,
    /// None before the first routes are set.
    table: RwLock<Option<Arc<Table>>>,
    closing: watch::Sender<bool>,
    /// One permit for each connection that may be open.
    places: Arc<Semaphore>,
    introductions: tokio::sync::Mutex<Introductions>,
}

/// The gateway as one worker serves it.
struct Front {
    gateway: Arc<Gateway>,
    outbound: Arc<dyn Outbound>,
    client: Client,
    tasks: Weak<Tasks>,
}

impl Gateway {
    /// A gateway without routes: it is alive and not ready.
    #[must_use]
    pub fn new(app: &str, spec: GatewaySpec) -> Self {
        Self {
            app: app.to_owned(),
            places: Arc::new(Semaphore::new(spec.connections as usize)),
            spec,
            table: RwLock::default(),
            closing: watch::Sender::new(false),
            introductions: tokio::sync::Mutex::default(),
        }
    }

    /// Serves these routes from now on. A request that has begun ends with the routes that it
    /// began with.
    pub fn set_routes(&self, plan: &Plan, services: &BTreeMap<String, Arc<Service>>) {
        let table = Arc::new(Table::new(&self.app, plan, services));
        *self.table.write().unwrap_or_else(PoisonError::into_inner) = Some(table);
    }

    fn table(&self) -> Option<Arc<Table>> {
        self.table
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Stops taking connections and has those that are open end with the request they are serving,
    /// or the one that arrives within [`LINGER`]. `/readyz` says so meanwhile.
    pub fn close(&self) {
        self.closing.send_replace(true);
    }

    fn is_closing(&self) -> bool {
        *self.closing.borrow()
    }

    /// Accepts and serves connections on this worker until the gateway is closed and all of them
    /// have ended. `listener` is nonblocking, and a clone of it may serve on every worker.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops its connections and all that runs for them.
    pub fn serve(
        self: Arc<Self>,
        listener: std::net::TcpListener,
        outbound: Arc<dyn Outbound>,
        client: Client,
    ) -> impl Future<Output = ()> + Send + 'static {
        let closing = self.closing.subscribe();
        let (header, places) = (self.spec.header, Arc::clone(&self.places));
        let begin = move |tasks: Weak<Tasks>| {
            let builder = connection::builder(header, Weak::clone(&tasks));
            let front = Front {
                gateway: self,
                outbound,
                client,
                tasks,
            };
            (front, builder)
        };
        accept::serve("the gateway", listener, closing, places, begin)
    }
}
