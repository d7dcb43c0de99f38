//! A way to a NATS server on which a test watches what one client publishes, and cuts it off at a message.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// What becomes of a message.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Way {
    /// It goes on.
    On,
    /// It never arrives, and nothing after it.
    Lost,
    /// It arrives, and its client hears nothing any more.
    Unanswered,
}

/// Says by its subject what becomes of a message.
type Watch = dyn Fn(&str) -> Way + Send + Sync;

/// What is done at a message that is the last one.
type Cut = dyn Fn() + Send + Sync;

/// The way, until it is dropped.
pub(crate) struct Tap {
    address: SocketAddr,
    accepting: JoinHandle<()>,
}

impl Tap {
    /// A way to the server with this URL. At a message that is lost or unanswered `cut` is called, and the client's
    /// connections are closed; it may connect again.
    pub(crate) async fn to(
        url: &str,
        watch: impl Fn(&str) -> Way + Send + Sync + 'static,
        cut: impl Fn() + Send + Sync + 'static,
    ) -> Self {
        let server = url.trim_start_matches("nats://").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (watch, cut): (Arc<Watch>, Arc<Cut>) = (Arc::new(watch), Arc::new(cut));
        let accepting = tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let (server, watch, cut) = (server.clone(), Arc::clone(&watch), Arc::clone(&cut));
                tokio::spawn(async move {
                    // A server that is down refuses, and the client tries again.
                    if let Ok(server) = TcpStream::connect(&server).await {
                        carry(client, server, &*watch, &*cut).await;
                    }
                });
            }
        });
        Self { address, accepting }
    }

    pub(crate) fn url(&self) -> String {
        format!("nats://{}", self.address)
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Carries one connection until either side closes it or it is cut off.
async fn carry(client: TcpStream, server: TcpStream, watch: &Watch, cut: &Cut) {
    let (client, server) = (client.into_split(), server.into_split());
    let deaf = AtomicBool::new(false);
    tokio::select! {
        () = up(client.0, server.1, &deaf, watch, cut) => {}
        () = down(server.0, client.1, &deaf) => {}
    }
}

/// What the client sends, message by message.
async fn up(
    mut client: OwnedReadHalf,
    mut server: OwnedWriteHalf,
    deaf: &AtomicBool,
    watch: &Watch,
    cut: &Cut,
) {
    let mut read = Vec::new();
    while let Ok(1..) = client.read_buf(&mut read).await {
        while let Some((length, subject)) = operation(&read) {
            let way = subject.map_or(Way::On, |subject| watch(&subject));
            deaf.store(way != Way::On, Ordering::SeqCst);
            let operation: Vec<u8> = read.drain(..length).collect();
            if way != Way::Lost && server.write_all(&operation).await.is_err() {
                return;
            }
            if way != Way::On {
                // What was written is on its way, whatever becomes of this connection.
                let _ = server.shutdown().await;
                return cut();
            }
        }
    }
}

/// What the server sends.
async fn down(mut server: OwnedReadHalf, mut client: OwnedWriteHalf, deaf: &AtomicBool) {
    let mut read = Vec::new();
    while let Ok(1..) = server.read_buf(&mut read).await {
        if deaf.load(Ordering::SeqCst) {
            // Until the connection is closed from the other side.
            return std::future::pending().await;
        }
        if client.write_all(&read).await.is_err() {
            return;
        }
        read.clear();
    }
}

/// The length of the first operation of the protocol, once it is all there, and the subject of one that publishes.
fn operation(read: &[u8]) -> Option<(usize, Option<String>)> {
    let line = read.windows(2).position(|two| two == b"\r\n")? + 2;
    let text = String::from_utf8_lossy(&read[..line]);
    let mut words = text.split_whitespace();
    let publishes = matches!(words.next()?, "PUB" | "HPUB");
    if !publishes {
        return Some((line, None));
    }
    let subject = words.next()?.to_owned();
    let bytes: usize = words.last()?.parse().unwrap();
    let length = line + bytes + 2;
    (read.len() >= length).then_some((length, Some(subject)))
}
