//! One thread with its own runtime and its own NATS connection.
//!
//! A host has one worker for each core. They share the services and nothing else: every worker
//! subscribes to every subject in the same queue group, so NATS spreads the calls over them, and a
//! call stays on the thread where its message arrived.

use std::collections::HashMap;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use async_nats::{Client, jetstream};
use tokio::runtime;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::events::health::StoreHealth;
use crate::interfaces::Backend;
use crate::nats::{ConnectOptions, Requests, settled};
use crate::transport::backend::NatsBackend;
use crate::transport::consumer::{self, Failures};
use crate::transport::{Slot, Source, subscription};

/// Time for which a worker that stops waits for NATS to take what is still buffered.
const FLUSH: Duration = Duration::from_secs(2);

/// A handle of one worker.
pub(crate) struct Worker {
    orders: mpsc::UnboundedSender<Order>,
    thread: thread::JoinHandle<()>,
    /// Spawns onto the worker's runtime.
    pub(crate) runtime: runtime::Handle,
    /// Calls over the worker's connection.
    pub(crate) backend: Arc<dyn Backend>,
    /// The worker's connection.
    pub(crate) client: Client,
    /// JetStream over it.
    pub(crate) context: jetstream::Context,
}

/// Why a worker could not start or carry out an order.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The thread or its runtime could not be started.
    #[error("cannot start a worker thread")]
    Thread(#[source] std::io::Error),
    /// NATS could not be reached.
    #[error(transparent)]
    Connect(#[from] crate::nats::ConnectError),
    /// The connection was closed before it could be used.
    #[error(transparent)]
    Request(#[from] crate::nats::RequestError),
    /// A subscription was not accepted.
    #[error("cannot subscribe to {subject}")]
    Subscribe {
        /// The subject.
        subject: String,
        /// Why.
        source: async_nats::SubscribeError,
    },
    /// NATS did not confirm the subscriptions.
    #[error(transparent)]
    Settle(#[from] crate::nats::SettleError),
    /// The worker is gone.
    #[error("a worker stopped before its time")]
    Gone,
}

enum Order {
    /// Serve these too; done when the server has seen the subscriptions.
    Serve(
        Vec<(Source, Arc<Slot>)>,
        oneshot::Sender<Result<(), WorkerError>>,
    ),
    /// Stop serving these (all, without a list); done when every call is answered, with the number
    /// of those that were given up at the deadline.
    Drain(Option<Vec<Source>>, Instant, oneshot::Sender<usize>),
}

impl Worker {
    /// Starts the thread and connects.
    ///
    /// # Errors
    ///
    /// The thread cannot be started or NATS cannot be reached.
    pub(crate) async fn start(
        index: usize,
        workers: usize,
        nats: ConnectOptions,
        app: &str,
        store: Arc<StoreHealth>,
    ) -> Result<Self, WorkerError> {
        let app = app.to_owned();
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(WorkerError::Thread)?;
        let handle = runtime.handle().clone();
        let (orders, inbox) = mpsc::unbounded_channel();
        let (ready, connected) = oneshot::channel();
        let thread = thread::Builder::new()
            .name(format!("wasmbay-{index}"))
            .spawn(move || {
                runtime.block_on(async {
                    match connect(&nats, &store).await {
                        Ok((client, context, backend)) => {
                            let link = Arc::new(consumer::Link {
                                client: client.clone(),
                                backend: Arc::clone(&backend),
                                failures: Failures::new(context.clone(), &app),
                                api: nats.jetstream_prefix(),
                                context: context.clone(),
                                workers,
                                store,
                            });
                            if ready.send(Ok((client, context, backend))).is_ok() {
                                run(link, inbox).await;
                            }
                        }
                        // The host may have been dropped since.
                        Err(error) => drop(ready.send(Err(error))),
                    }
                });
            })
            .map_err(WorkerError::Thread)?;
        let (client, context, backend) = connected.await.map_err(|_| WorkerError::Gone)??;
        Ok(Self {
            orders,
            thread,
            runtime: handle,
            backend,
            client,
            context,
        })
    }

    /// Serves more sources.
    ///
    /// # Errors
    ///
    /// NATS refuses a subscription or does not confirm it.
    pub(crate) async fn serve(&self, slots: Vec<(Source, Arc<Slot>)>) -> Result<(), WorkerError> {
        let (done, served) = oneshot::channel();
        self.orders
            .send(Order::Serve(slots, done))
            .map_err(|_| WorkerError::Gone)?;
        served.await.map_err(|_| WorkerError::Gone)?
    }

    /// Stops serving these sources, or all, once what has arrived is answered. Gives the number
    /// of calls that had not ended at the deadline and were answered with 503.
    pub(crate) async fn drain(&self, sources: Option<Vec<Source>>, deadline: Instant) -> usize {
        let (done, drained) = oneshot::channel();
        // A worker that is gone has nothing left to answer.
        match self.orders.send(Order::Drain(sources, deadline, done)) {
            Ok(()) => drained.await.unwrap_or(0),
            Err(_) => 0,
        }
    }

    /// Writes out what is still buffered, closes the connection and ends the thread. Tasks that
    /// are still running on it are dropped.
    pub(crate) async fn stop(self) {
        match tokio::time::timeout(FLUSH, self.client.flush()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "flush at the end"),
            // Without a server nothing can be written.
            Err(_) => tracing::warn!("NATS did not take the last replies"),
        }
        drop(self.orders);
        let joined = tokio::task::spawn_blocking(move || self.thread.join()).await;
        if !matches!(joined, Ok(Ok(()))) {
            tracing::error!("a worker thread panicked");
        }
    }
}

async fn connect(
    nats: &ConnectOptions,
    store: &Arc<StoreHealth>,
) -> Result<(Client, jetstream::Context, Arc<dyn Backend>), WorkerError> {
    let client = nats.connect().await?;
    let requests = Requests::new(client.clone()).await?;
    let context = nats.jetstream(client.clone());
    let backend = NatsBackend::watched(requests, context.clone(), Arc::clone(store));
    Ok((client, context, Arc::new(backend)))
}

/// A source that this worker serves.
struct Served {
    stop: oneshot::Sender<Instant>,
    task: JoinHandle<usize>,
}

async fn run(link: Arc<consumer::Link>, mut inbox: mpsc::UnboundedReceiver<Order>) {
    let mut served: HashMap<Source, Served> = HashMap::new();
    while let Some(order) = inbox.recv().await {
        match order {
            Order::Serve(slots, done) => {
                // The step that gave the order may have been cancelled since.
                let _ = done.send(subscribe(&link, &mut served, slots).await);
            }
            Order::Drain(sources, deadline, done) => {
                let leaving: Vec<Served> = match sources {
                    None => served.drain().map(|(_, s)| s).collect(),
                    Some(sources) => sources.iter().filter_map(|s| served.remove(s)).collect(),
                };
                let tasks: Vec<_> = leaving
                    .into_iter()
                    .map(|Served { stop, task }| {
                        // A task that has ended by itself needs no order.
                        let _ = stop.send(deadline);
                        task
                    })
                    .collect();
                // Other orders can be carried out meanwhile.
                tokio::spawn(async move {
                    let mut given_up = 0;
                    for task in tasks {
                        match task.await {
                            Ok(calls) => given_up += calls,
                            Err(error) => tracing::error!(%error, "a subscription ended badly"),
                        }
                    }
                    let _ = done.send(given_up);
                });
            }
        }
    }
}

/// Serves these sources; those that are served already go on as they are.
async fn subscribe(
    link: &Arc<consumer::Link>,
    served: &mut HashMap<Source, Served>,
    slots: Vec<(Source, Arc<Slot>)>,
) -> Result<(), WorkerError> {
    for (source, slot) in slots {
        if served.contains_key(&source) {
            continue;
        }
        let (stop, stopped) = oneshot::channel();
        let task = match &source {
            Source::Subject { subject, group } => {
                let (client, backend) = (link.client.clone(), Arc::clone(&link.backend));
                let messages = client
                    .queue_subscribe(subject.clone(), group.clone())
                    .await
                    .map_err(|source| WorkerError::Subscribe {
                        subject: subject.clone(),
                        source,
                    })?;
                tokio::spawn(subscription::serve(
                    client, messages, slot, backend, stopped,
                ))
            }
            Source::Consumer { stream, name } => {
                let (stream, name) = (stream.clone(), name.clone());
                tokio::spawn(consumer::serve(
                    Arc::clone(link),
                    stream,
                    name,
                    slot,
                    stopped,
                ))
            }
        };
        served.insert(source, Served { stop, task });
    }
    Ok(settled(&link.client).await?)
}
