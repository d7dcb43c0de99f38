//! A listening socket and its connections, on one worker.

use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::FutureExt;
use hyper_util::server::conn::auto::Builder;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;

use super::connection::{self, Answers, Spawn, Tasks};

/// The pause after a connection could not be accepted, mostly for want of a file descriptor: trying
/// again at once would only burn the processor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Accepts and serves connections until `closing` is set and all of them have ended, no more at a
/// time than there are `permits`. `begin` returns the handler of requests and the builder of
/// connections.
pub(crate) async fn serve<A: Answers>(
    what: &str,
    listener: std::net::TcpListener,
    closing: watch::Receiver<bool>,
    permits: Arc<Semaphore>,
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
    let (answers, builder) = (Arc::new(answers), Arc::new(builder));
    accept(answers, builder, listener, closing, permits).await;
    tasks.drain().await;
}

/// Accepts connections until it is to close, and then waits for the last of them.
async fn accept<A: Answers>(
    answers: Arc<A>,
    builder: Arc<Builder<Spawn>>,
    listener: TcpListener,
    mut closing: watch::Receiver<bool>,
    permits: Arc<Semaphore>,
) {
    let watcher = closing.clone();
    let mut connections = JoinSet::new();
    let mut open = |stream: TcpStream, permit: OwnedSemaphorePermit| {
        let (answers, builder) = (Arc::clone(&answers), Arc::clone(&builder));
        let serving = connection::serve(answers, builder, stream, watcher.clone());
        connections.spawn(async move {
            serving.await;
            drop(permit);
        });
        while connections.try_join_next().is_some() {}
    };
    loop {
        let accepted = tokio::select! {
            biased;
            // A dropped sender closes as well.
            _ = closing.wait_for(|closing| *closing) => break,
            accepted = next(&permits, &listener) => accepted,
        };
        match accepted {
            Ok((stream, permit)) => open(stream, permit),
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    // Connections that the system has accepted already would be reset with the socket.
    while let Some(Ok((stream, permit))) = next(&permits, &listener).now_or_never() {
        open(stream, permit);
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// The next connection, once there is a permit for it. Further ones wait in the system's queue.
async fn next(
    permits: &Arc<Semaphore>,
    listener: &TcpListener,
) -> std::io::Result<(TcpStream, OwnedSemaphorePermit)> {
    // The semaphore is never closed.
    let permit = Arc::clone(permits)
        .acquire_owned()
        .await
        .map_err(std::io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    Ok((stream, permit))
}
