//! One thread with its own runtime and its own NATS connection.
//!
//! A host has one worker for each core. They share the services and nothing else: every worker
//! subscribes to every subject in the same queue group, so NATS spreads the calls over them, and a
//! call stays on the thread of its message.

use std::sync::Arc;
use std::thread;
use std::time::Instant;

use async_nats::{Client, jetstream};
use tokio::runtime;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::deployment::Current;
use crate::events::health::StoreHealth;
use crate::interfaces::Backend;
use crate::nats::{Action, ConnectOptions, Link, Refusal, RequestError, Requests};
use crate::pipelines::{Begins, Serving};
use crate::runtime::Runtime;
use crate::spans::Spans;
use crate::transport::backend::NatsBackend;
use crate::transport::consumer::{self, Failures};
use crate::transport::local::Local;
use crate::transport::{Drained, Slot, Source, Wires, subscription};

/// A handle of one worker.
pub(crate) struct Worker {
    orders: mpsc::UnboundedSender<Order>,
    thread: thread::JoinHandle<()>,
    /// Spawns onto the worker's runtime.
    pub(crate) runtime: runtime::Handle,
    /// Calls over the worker's connection.
    pub(crate) backend: Arc<dyn Backend>,
    /// The worker's connection.
    pub(crate) link: Link,
    /// Another one, of the client library, for JetStream's management and its stores.
    pub(crate) client: Client,
    /// JetStream over that.
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
        source: crate::nats::SubscribeError,
    },
    /// The login may not subscribe to a subject.
    #[error(transparent)]
    Refused(Refusal),
    /// NATS did not confirm the subscriptions.
    #[error(transparent)]
    Settle(#[from] crate::nats::SettleError),
    /// The worker is gone.
    #[error("a worker stopped before its time")]
    Gone,
}

impl WorkerError {
    /// The permission that the NATS login lacks, if that is why.
    #[must_use]
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Refused(refusal) | Self::Request(RequestError::Refused(refusal)) => Some(refusal),
            _ => None,
        }
    }
}

enum Order {
    /// Serve these sources too; done when the server has seen the subscriptions.
    Serve(
        Vec<(Source, Arc<Slot>)>,
        oneshot::Sender<Result<(), WorkerError>>,
    ),
    /// Stop serving these (all, without a list); done when every call is answered.
    Drain(
        Option<Vec<(Source, Arc<Slot>)>>,
        Instant,
        oneshot::Sender<Drained>,
    ),
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
        current: &Current,
        local: &Arc<Local>,
    ) -> Result<Self, WorkerError> {
        let (app, local) = (app.to_owned(), Arc::clone(local));
        let store = Arc::clone(current.store());
        let wires = current.wires().clone();
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
                    match connect(&nats, &store, wires, &local).await {
                        Ok(connected) => {
                            let link = Arc::new(consumer::Link {
                                nats: connected.link.clone(),
                                backend: Arc::clone(&connected.backend),
                                failures: Failures::new(
                                    connected.context.clone(),
                                    connected.link.clone(),
                                    &app,
                                ),
                                context: connected.context.clone(),
                                workers,
                                store,
                            });
                            if ready.send(Ok(connected)).is_ok() {
                                run(link, inbox).await;
                            }
                        }
                        // The host may have been dropped since.
                        Err(error) => drop(ready.send(Err(error))),
                    }
                });
            })
            .map_err(WorkerError::Thread)?;
        let connected = connected.await.map_err(|_| WorkerError::Gone)??;
        let Connected {
            link,
            client,
            context,
            backend,
        } = connected;
        Ok(Self {
            orders,
            thread,
            runtime: handle,
            backend,
            link,
            client,
            context,
        })
    }

    /// Serves the pipelines of the app of this name, none yet. `services` makes those that were replaced, where
    /// their versions are kept.
    pub(crate) fn pipelines(
        &self,
        app: &str,
        spans: &Spans,
        services: &Runtime,
        is_archived: bool,
    ) -> Serving {
        let begins = Begins {
            link: self.link.clone(),
            context: self.context.clone(),
            backend: Arc::clone(&self.backend),
            runtime: self.runtime.clone(),
            spans: spans.clone(),
            services: services.clone(),
            is_archived,
        };
        Serving::new(app, begins)
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

    /// Stops serving these sources, or all, once what has arrived is answered. Calls that
    /// have not ended at the deadline are answered with 503.
    pub(crate) async fn drain(
        &self,
        sources: Option<Vec<(Source, Arc<Slot>)>>,
        deadline: Instant,
    ) -> Drained {
        let (done, drained) = oneshot::channel();
        // A worker that is gone has nothing left to answer.
        match self.orders.send(Order::Drain(sources, deadline, done)) {
            Ok(()) => drained.await.unwrap_or(Drained::NOTHING),
            Err(_) => Drained::NOTHING,
        }
    }

    /// Writes out what is still buffered, closes the connection and ends the thread. Tasks that
    /// are still running on it are dropped. Returns whether NATS took everything by the deadline.
    pub(crate) async fn stop(self, deadline: Instant) -> bool {
        // Without a server nothing can be written.
        let settled = tokio::time::timeout_at(deadline.into(), self.link.settled()).await;
        let taken = matches!(settled, Ok(Ok(())));
        if !taken {
            tracing::warn!("NATS did not take the last replies");
        }
        drop(self.orders);
        let joined = tokio::task::spawn_blocking(move || self.thread.join()).await;
        if !matches!(joined, Ok(Ok(()))) {
            tracing::error!("a worker thread panicked");
        }
        taken
    }
}

/// The connections of a worker.
struct Connected {
    link: Link,
    client: Client,
    context: jetstream::Context,
    backend: Arc<dyn Backend>,
}

async fn connect(
    nats: &ConnectOptions,
    store: &Arc<StoreHealth>,
    wires: Wires,
    local: &Local,
) -> Result<Connected, WorkerError> {
    let link = nats.link().await?;
    let client = nats.connect().await?;
    let requests = Requests::new(link.clone())?;
    let context = nats.jetstream(client.clone());
    let store = Arc::clone(store);
    let backend = NatsBackend::of_worker(requests, context.clone(), store, wires, local);
    Ok(Connected {
        link,
        client,
        context,
        backend,
    })
}

/// A source that this worker serves. While it drains, another step may have the same source served
/// again, with another slot.
struct Served {
    source: Source,
    slot: Arc<Slot>,
    stop: oneshot::Sender<Instant>,
    task: JoinHandle<Drained>,
}

impl Served {
    fn is(&self, source: &Source, slot: &Arc<Slot>) -> bool {
        Arc::ptr_eq(&self.slot, slot) && self.source == *source
    }
}

async fn run(link: Arc<consumer::Link>, mut inbox: mpsc::UnboundedReceiver<Order>) {
    let mut served: Vec<Served> = Vec::new();
    while let Some(order) = inbox.recv().await {
        match order {
            Order::Serve(slots, done) => {
                // The step that gave the order may have been cancelled since.
                let _ = done.send(subscribe(&link, &mut served, slots).await);
            }
            Order::Drain(sources, deadline, done) => {
                let leaves = |served: &mut Served| {
                    let mut leaving = sources.iter().flatten();
                    sources.is_none() || leaving.any(|(source, slot)| served.is(source, slot))
                };
                let tasks: Vec<_> = served
                    .extract_if(.., leaves)
                    .map(|Served { stop, task, .. }| {
                        // A task that has ended by itself needs no order.
                        let _ = stop.send(deadline);
                        task
                    })
                    .collect();
                // Other orders can be carried out meanwhile.
                tokio::spawn(async move {
                    let mut all = Drained::NOTHING;
                    for task in tasks {
                        match task.await {
                            Ok(drained) => all = all.and(drained),
                            Err(error) => tracing::error!(%error, "a subscription ended badly"),
                        }
                    }
                    let _ = done.send(all);
                });
            }
        }
    }
}

/// Serves these sources; those that are served already go on as they are.
async fn subscribe(
    link: &Arc<consumer::Link>,
    served: &mut Vec<Served>,
    slots: Vec<(Source, Arc<Slot>)>,
) -> Result<(), WorkerError> {
    let mut subjects = Vec::new();
    let mut refusals = link.nats.violations().next_refusals();
    for (source, slot) in slots {
        if served.iter().any(|served| served.is(&source, &slot)) {
            continue;
        }
        let serving = Arc::clone(&slot);
        let (stop, stopped) = oneshot::channel();
        let task = match &source {
            Source::Subject { subject, group } => {
                let (nats, backend) = (link.nats.clone(), Arc::clone(&link.backend));
                subjects.push(subject.clone());
                let messages = nats.subscribe(subject, Some(group)).map_err(|source| {
                    WorkerError::Subscribe {
                        subject: subject.clone(),
                        source,
                    }
                })?;
                tokio::spawn(subscription::serve(
                    nats, messages, serving, backend, stopped,
                ))
            }
            Source::Consumer { stream, name } => {
                let (stream, name) = (stream.clone(), name.clone());
                let serving = consumer::serve(Arc::clone(link), stream, name, serving, stopped);
                // Events that are not acknowledged come again, so nothing has to be confirmed.
                tokio::spawn(async move {
                    Drained {
                        given_up: serving.await,
                        confirmed: true,
                    }
                })
            }
        };
        served.push(Served {
            source,
            slot,
            stop,
            task,
        });
    }
    // The server refuses before it confirms.
    link.nats.settled().await?;
    while let Some(refusal) = refusals.ready() {
        if refusal.action == Action::Subscribe && subjects.contains(&refusal.subject) {
            return Err(WorkerError::Refused(refusal));
        }
    }
    Ok(())
}
