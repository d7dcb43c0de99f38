//! A listening socket and its connections, on one worker.

use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::FutureExt;
use hyper_util::server::conn::auto::Builder;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::connection::{self, Answers, Spawn, Tasks};
use super::places::Places;
use super::tls::{self, Tls};

/// The pause after a connection could not be accepted, mostly for want of a file descriptor: trying
/// again at once would only burn the processor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Accepts and serves connections until `closing` says so and all of them have ended, those that get
/// one of the `places`. `begin` makes what answers, and how connections are spoken to.
pub(crate) async fn serve<A: Answers>(
    what: &str,
    listener: std::net::TcpListener,
    closing: watch::Receiver<bool>,
    places: Arc<Places>,
    tls: Option<Arc<Tls>>,
    begin: impl FnOnce(Weak<Tasks>) -> (A, Builder<Spawn>),
) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, "{what} cannot listen");
            return;
        }
    };
    let tasks = Arc::new(Tasks::default());
    let (answers, builder) = begin(Arc::downgrade(&tasks));
    let made = Made {
        answers: Arc::new(answers),
        builder: Arc::new(builder),
        tls,
    };
    accept(&made, listener, closing, places).await;
    tasks.drain().await;
}

/// What connections are served with.
struct Made<A> {
    answers: Arc<A>,
    builder: Arc<Builder<Spawn>>,
    tls: Option<Arc<Tls>>,
}

/// Accepts connections until it is to close, and then waits for the last of them.
async fn accept<A: Answers>(
    made: &Made<A>,
    listener: TcpListener,
    mut closing: watch::Receiver<bool>,
    places: Arc<Places>,
) {
    let watcher = closing.clone();
    let mut connections = JoinSet::new();
    let mut open = |(stream, peer): (TcpStream, SocketAddr)| {
        let Some(place) = places.enter(peer.ip()) else {
            return;
        };
        let (answers, builder) = (Arc::clone(&made.answers), Arc::clone(&made.builder));
        let (tls, mut place, mut closing) = (made.tls.clone(), place, watcher.clone());
        connections.spawn(async move {
            let begun = tls::begin(tls.as_deref(), stream, &mut place, &mut closing).await;
            if let Some(stream) = begun {
                connection::serve(answers, builder, stream, place, closing).await;
            }
        });
        while connections.try_join_next().is_some() {}
    };
    loop {
        let accepted = tokio::select! {
            biased;
            // A dropped sender closes as well.
            _ = closing.wait_for(|closing| *closing) => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok(accepted) => open(accepted),
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    // What the system has already accepted would be reset with the socket.
    while let Some(Ok(accepted)) = listener.accept().now_or_never() {
        open(accepted);
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}
