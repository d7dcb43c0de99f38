//! The gateway: HTTP requests become calls, and results become responses.
//!
//! Every worker accepts connections from one listening socket and serves them on its own thread.
//! A request goes through these modules from top to bottom: `connection` speaks HTTP,
//! `request` reads it, `route` finds what answers, `arguments` makes a call of it or
//! `component` hands it over, and `answer` makes the response. No value is decoded on the way.

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
use std::time::Duration;

use async_nats::Client;
use futures_util::FutureExt;
use hyper_util::server::conn::auto::Builder;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;

pub use connection::{IDLE, LINGER, MAX_STREAMS};

use crate::app::Plan;
use crate::manifest::GatewaySpec;
use crate::outbound::Outbound;
use crate::service::Service;
use connection::{Spawn, Tasks};
use health::Introductions;
use route::Table;

/// The pause after a connection could not be accepted, which mostly means that the process has no
/// file descriptor left: trying again at once would only burn the processor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

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
    builder: Builder<Spawn>,
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
        async move {
            let listener = match TcpListener::from_std(listener) {
                Ok(listener) => listener,
                Err(error) => {
                    tracing::error!(%error, "the gateway cannot listen");
                    return;
                }
            };
            let tasks = Arc::new(Tasks::default());
            let front = Front {
                builder: connection::builder(self.spec.header, Arc::downgrade(&tasks)),
                gateway: self,
                outbound,
                client,
                tasks: Arc::downgrade(&tasks),
            };
            accept(Arc::new(front), listener, closing).await;
            tasks.drain().await;
        }
    }
}

/// Accepts connections until the gateway closes, and then waits for the last of them.
async fn accept(front: Arc<Front>, listener: TcpListener, mut closing: watch::Receiver<bool>) {
    let watcher = closing.clone();
    let mut connections = JoinSet::new();
    let mut open = |stream: TcpStream, place: OwnedSemaphorePermit| {
        let serving = connection::serve(Arc::clone(&front), stream, watcher.clone());
        connections.spawn(async move {
            serving.await;
            drop(place);
        });
        while connections.try_join_next().is_some() {}
    };
    let places = &front.gateway.places;
    loop {
        let accepted = tokio::select! {
            biased;
            // A gateway that is gone closes as well.
            _ = closing.wait_for(|closing| *closing) => break,
            accepted = next(places, &listener) => accepted,
        };
        match accepted {
            Ok((stream, place)) => open(stream, place),
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    // What the system has already accepted would be reset with the socket.
    while let Some(Ok((stream, place))) = next(places, &listener).now_or_never() {
        open(stream, place);
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// The next connection, once there is a place for it. Those that find none wait in the system's
/// own queue.
async fn next(
    places: &Arc<Semaphore>,
    listener: &TcpListener,
) -> std::io::Result<(TcpStream, OwnedSemaphorePermit)> {
    // The semaphore is never closed.
    let place = Arc::clone(places)
        .acquire_owned()
        .await
        .map_err(std::io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    Ok((stream, place))
}
