//! The native alternative: a service on async-nats, in the shapes that an able engineer would
//! consider, and a hyper server in front of it.

use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener};
use std::thread;

use anyhow::Context as _;
use async_nats::{Client, Message};
use bytes::Bytes;
use clap::ValueEnum;
use futures_util::StreamExt as _;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use tokio::runtime::{Builder, Runtime};

/// How a service uses threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Shape {
    /// A runtime of one thread, each message handled where it arrives.
    Current,
    /// A runtime of one thread and a connection of its own for each core.
    Cores,
    /// A runtime of many threads, each message handled in the loop that receives it.
    Multi,
    /// A runtime of many threads, a task for each message.
    Tasks,
}

impl Shape {
    pub(crate) const ALL: [Self; 4] = [Self::Current, Self::Cores, Self::Multi, Self::Tasks];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Current => "current",
            Self::Cores => "cores",
            Self::Multi => "multi",
            Self::Tasks => "tasks",
        }
    }

    /// Connections, each with a thread of its own.
    pub(crate) fn threads(self) -> anyhow::Result<usize> {
        Ok(match self {
            Self::Cores => thread::available_parallelism()?.get(),
            _ => 1,
        })
    }

    fn runtime(self) -> anyhow::Result<Runtime> {
        let mut builder = match self {
            Self::Current | Self::Cores => Builder::new_current_thread(),
            Self::Multi | Self::Tasks => Builder::new_multi_thread(),
        };
        Ok(builder.enable_all().build()?)
    }

    /// Runs `serve` on as many threads as the shape has connections, until one fails.
    pub(crate) fn run<F>(self, serve: impl Fn() -> F + Clone + Send + 'static) -> anyhow::Result<()>
    where
        F: Future<Output = anyhow::Result<()>> + 'static,
    {
        let mut threads = Vec::new();
        for _ in 0..self.threads()? {
            let serve = serve.clone();
            threads.push(thread::spawn(move || self.runtime()?.block_on(serve())));
        }
        threads.into_iter().try_for_each(|thread| {
            thread
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

#[derive(Deserialize, Serialize)]
pub(crate) struct Item {
    id: u32,
    text: String,
}

#[derive(Deserialize)]
struct Arguments {
    item: Item,
}

/// The work itself.
pub(crate) fn echo(body: &[u8]) -> serde_json::Result<Vec<u8>> {
    serde_json::to_vec(&arguments(body)?)
}

/// The half of it that is left where there is no answer.
pub(crate) fn arguments(body: &[u8]) -> serde_json::Result<Item> {
    let Arguments { item } = serde_json::from_slice(body)?;
    Ok(item)
}

/// Serves the echo on a subject. Prints `ready` for each connection that does.
pub(crate) fn service(shape: Shape, nats: String, subject: String) -> anyhow::Result<()> {
    shape.run(move || serve(shape, nats.clone(), subject.clone()))
}

async fn serve(shape: Shape, nats: String, subject: String) -> anyhow::Result<()> {
    let client = async_nats::connect(nats).await?;
    let mut messages = client.queue_subscribe(subject, "native".to_owned()).await?;
    wasmbay::nats::settled(&client).await?;
    super::ready(None);
    while let Some(message) = messages.next().await {
        if shape == Shape::Tasks {
            let client = client.clone();
            tokio::spawn(async move { answer(&client, message).await });
        } else {
            answer(&client, message).await;
        }
    }
    Ok(())
}

async fn answer(client: &Client, message: Message) {
    let (Some(reply), Ok(body)) = (message.reply, echo(&message.payload)) else {
        return;
    };
    // Only a closed connection refuses, and then the loop ends, too.
    let _ = client.publish(reply, body.into()).await;
}

/// Serves HTTP and asks the subject. Prints `ready` once for each thread that listens.
pub(crate) fn gateway(shape: Shape, nats: String, subject: String) -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let listener = std::sync::Arc::new(listener);
    shape.run(move || {
        let (listener, nats, subject) = (listener.try_clone(), nats.clone(), subject.clone());
        async move { accept(listener?, address, nats, subject).await }
    })
}

async fn accept(
    listener: TcpListener,
    address: SocketAddr,
    nats: String,
    subject: String,
) -> anyhow::Result<()> {
    let client = async_nats::connect(nats).await?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    super::ready(Some(address));
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let (client, subject) = (client.clone(), subject.clone());
        let service = service_fn(move |request| forward(client.clone(), subject.clone(), request));
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

async fn forward(
    client: Client,
    subject: String,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let asked = async {
        let body = request.into_body().collect().await?.to_bytes();
        let reply = client.request(subject, body).await?;
        anyhow::Ok(reply.payload)
    };
    let (status, body) = match asked.await.context("asking the service") {
        Ok(body) => (StatusCode::OK, body),
        Err(error) => (StatusCode::BAD_GATEWAY, format!("{error:#}").into()),
    };
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response.headers_mut().insert(
        hyper::header::CONTENT_TYPE,
        hyper::header::HeaderValue::from_static("application/json"),
    );
    Ok(response)
}
