//! Messages become calls, and calls become replies: exactly one for each message that asks for it.
//!
//! A subscription lives on one worker, whose runtime has one thread. A call is polled at once
//! where its message arrived, so that a short one never changes threads or waits in a queue; what
//! has not finished by then (it waits for an import, or the guest has used up its turn) goes on
//! as a task beside the loop.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use async_nats::client::{PublishError, PublishErrorKind};
use async_nats::{Client, Message, Subject, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt;
use tokio::sync::{oneshot, watch};
use tokio::task::{self, JoinError, JoinSet};

use crate::call::{Blame, CallError, Code};
use crate::events::{self, Subscription};
use crate::nats::settled;
use crate::outbound::{Outbound, messaging};
use crate::service::{Exported, Service};
use crate::subject;
use crate::turn::{First, Place, TURN, waiting};
use crate::wire;

/// Messages that wait in a subscription for their turn. What comes beyond is answered with 429 at
/// once, long before the client library would drop messages without a word.
pub const MAX_BACKLOG: usize = 8_192;

/// Bytes that wait in a subscription for their turn; beyond it the same.
pub const MAX_BACKLOG_BYTES: usize = 64 << 20;

/// What stands behind a subject: replaced while calls flow, never empty.
pub struct Slot(watch::Sender<Arc<Occupant>>);

/// A service and the interface for which it answers.
#[derive(Clone)]
pub struct Occupant {
    /// The service.
    pub service: Arc<Service>,
    /// The interface.
    pub exported: Arc<Exported>,
    /// How its events are delivered, when they are stored.
    pub subscription: Option<Arc<Subscription>>,
    /// Whether it is handed the messages as they are. Then they are no calls, and the host itself
    /// never replies to one. All occupants of a slot agree on it.
    pub raw: bool,
}

impl Slot {
    /// A slot with its first occupant.
    #[must_use]
    pub fn new(occupant: Occupant) -> Self {
        Self(watch::Sender::new(Arc::new(occupant)))
    }

    /// Puts another service in the place. Calls that are under way end where they began.
    pub fn replace(&self, occupant: Occupant) {
        self.0.send_replace(Arc::new(occupant));
    }

    /// Who answers now.
    #[must_use]
    pub fn occupant(&self) -> Arc<Occupant> {
        Arc::clone(&self.0.borrow())
    }
}

/// Serves a subscription until `stop` is sent, and then until every message that the server had
/// handed out is answered: by the service until the time that was sent, with 503 from then on.
/// Gives the number of the latter.
pub(crate) async fn serve(
    client: Client,
    messages: Subscriber,
    slot: Arc<Slot>,
    outbound: Arc<dyn Outbound>,
    mut stop: oneshot::Receiver<Instant>,
) -> usize {
    let mut changes = slot.0.subscribe();
    let occupant = copy(&mut changes);
    let mut inbound = Inbound {
        raw: occupant.raw,
        occupant,
        changes,
        link: Arc::new(Link { client, outbound }),
        messages,
        backlog: VecDeque::new(),
        backlog_bytes: 0,
        parked: JoinSet::new(),
        parked_replies: HashMap::new(),
    };
    let deadline = loop {
        if inbound.backlog.is_empty() {
            tokio::select! {
                biased;
                // Without a word from its owner there is no time left.
                deadline = &mut stop => break deadline.unwrap_or_else(|_| Instant::now()),
                Ok(()) = inbound.changes.changed() => inbound.occupant = copy(&mut inbound.changes),
                Some(ended) = inbound.parked.join_next_with_id() => inbound.settle(ended).await,
                first = inbound.messages.next() => match first {
                    Some(message) => inbound.queue(message, Instant::now()),
                    // The connection was closed: nothing more can come.
                    None => break Instant::now(),
                },
            }
        } else {
            match stop.try_recv() {
                Ok(deadline) => break deadline,
                Err(oneshot::error::TryRecvError::Closed) => break Instant::now(),
                Err(oneshot::error::TryRecvError::Empty) => {}
            }
        }
        inbound.take_waiting().await;
        inbound.answer(TURN).await;
        // The connection's own task reads and writes now.
        task::yield_now().await;
    };
    inbound.drain(deadline).await
}

/// The worker's connection: for replies, and for what guests import.
struct Link {
    client: Client,
    outbound: Arc<dyn Outbound>,
}

/// One subscription's state.
struct Inbound {
    link: Arc<Link>,
    messages: Subscriber,
    /// Who answers: a copy of what is in the slot, in which all workers would count their calls.
    occupant: Arc<Occupant>,
    changes: watch::Receiver<Arc<Occupant>>,
    raw: bool,
    /// Messages that wait for their turn, with the time of their arrival.
    backlog: VecDeque<(Instant, Message)>,
    backlog_bytes: usize,
    parked: JoinSet<()>,
    /// Where the parked calls' replies go, for those that have to be given up.
    parked_replies: HashMap<task::Id, Subject>,
}

impl Inbound {
    /// Moves what has arrived into the backlog, and sheds what is too much.
    async fn take_waiting(&mut self) {
        let mut lost = 0;
        let arrived = Instant::now();
        while let Poll::Ready(Some(message)) = waiting(&mut self.messages) {
            if self.backlog.len() < MAX_BACKLOG && self.backlog_bytes < MAX_BACKLOG_BYTES {
                self.queue(message, arrived);
            } else {
                let to = self.reply_of(&message);
                lost += u32::from(to.is_none());
                let why = format!("{} messages wait before this one", self.backlog.len());
                let error = CallError::new(Code::Overloaded, Blame::Host, why);
                reply(&self.link.client, to, Err(error)).await;
            }
        }
        if lost > 0 {
            let service = &self.occupant.service.spec.name;
            tracing::warn!(
                service,
                lost,
                "too many messages wait, further ones that nobody waits for are lost"
            );
        }
    }

    /// Answers messages of the backlog for a while, and parks what takes longer than its turn.
    async fn answer(&mut self, turn: Duration) {
        if self.changes.has_changed().unwrap_or_default() {
            self.occupant = copy(&mut self.changes);
        }
        let began = Instant::now();
        let mut place = Place::new();
        while began.elapsed() < turn
            && let Some((arrived, message)) = self.backlog.pop_front()
        {
            self.backlog_bytes -= message.length;
            let to = self.reply_of(&message);
            let occupant = Arc::clone(&self.occupant);
            let link = Arc::clone(&self.link);
            let call = answer(link, message, arrived, occupant);
            match place.first(call).await {
                First::Done => {}
                First::Waits(call) => {
                    let parked = self.parked.spawn(call);
                    if let Some(to) = to {
                        self.parked_replies.insert(parked.id(), to);
                    }
                }
                First::Panicked => reply(&self.link.client, to, Err(self.host_failed())).await,
            }
        }
        while let Some(ended) = self.parked.try_join_next_with_id() {
            self.settle(ended).await;
        }
    }

    /// Where the host replies to a message, if it does.
    fn reply_of(&self, message: &Message) -> Option<Subject> {
        message.reply.clone().filter(|_| !self.raw)
    }

    fn host_failed(&self) -> CallError {
        let service = &self.occupant.service.spec.name;
        let why = format!("service \"{service}\": the host failed, its log says why");
        CallError::new(Code::Trap, Blame::Host, why)
    }

    fn queue(&mut self, message: Message, arrived: Instant) {
        self.backlog_bytes += message.length;
        self.backlog.push_back((arrived, message));
    }

    /// Forgets a parked call that has ended, and replies for one that could not.
    async fn settle(&mut self, ended: Result<(task::Id, ()), JoinError>) {
        match ended {
            Ok((id, ())) => drop(self.parked_replies.remove(&id)),
            Err(panic) => {
                let to = self.parked_replies.remove(&panic.id());
                reply(&self.link.client, to, Err(self.host_failed())).await;
            }
        }
    }

    /// Stops the flow and answers everything that had arrived before it stopped.
    async fn drain(mut self, deadline: Instant) -> usize {
        // `Subscriber::drain` forgets the subscription as soon as its UNSUB is written, and drops
        // what the server sends until it has read that. A maximum that is never reached keeps the
        // subscription on this side. A server reads at most nine digits of a maximum and takes a
        // longer one for none, so on that side it ends at once.
        const NEVER: u64 = 10_000_000_000;
        let stopped = match self.messages.unsubscribe_after(NEVER).await {
            Ok(()) => settled(&self.link.client).await.is_ok(),
            Err(_) => false,
        };
        if !stopped {
            tracing::warn!("NATS did not confirm the end of a subscription, calls may be lost");
        }
        self.take_waiting().await;
        while !self.backlog.is_empty() && Instant::now() < deadline {
            self.answer(TURN).await;
            task::yield_now().await;
        }
        let finish = async {
            while let Some(ended) = self.parked.join_next_with_id().await {
                self.settle(ended).await;
            }
        };
        // Also when all has ended there can be some whose turn did not come.
        let _ = tokio::time::timeout_at(deadline.into(), finish).await;
        self.give_up().await
    }

    /// Ends what still runs, and tells its callers and those whose turn did not come.
    async fn give_up(mut self) -> usize {
        self.parked.abort_all();
        let mut given_up = self.backlog.len();
        let backlog = std::mem::take(&mut self.backlog);
        let unheard = backlog.iter().map(|(_, m)| self.reply_of(m));
        for to in unheard {
            reply(&self.link.client, to, Err(stopped())).await;
        }
        while let Some(ended) = self.parked.join_next_with_id().await {
            let Err(aborted) = ended else {
                // It ended by itself, and has replied.
                continue;
            };
            given_up += 1;
            let to = self.parked_replies.remove(&aborted.id());
            reply(&self.link.client, to, Err(stopped())).await;
        }
        given_up
    }
}

fn copy(changes: &mut watch::Receiver<Arc<Occupant>>) -> Arc<Occupant> {
    Arc::new(Occupant::clone(&changes.borrow_and_update()))
}

fn stopped() -> CallError {
    let why = "the host stopped before the call had ended";
    CallError::new(Code::Unavailable, Blame::Host, why)
}

/// The life of one message.
async fn answer(link: Arc<Link>, message: Message, arrived: Instant, occupant: Arc<Occupant>) {
    if occupant.raw {
        // Boxed, so that calls do not carry its state about.
        return Box::pin(deliver(link, message, arrived, occupant)).await;
    }
    let Message {
        subject,
        reply: to,
        headers,
        payload,
        ..
    } = message;
    let Occupant {
        service, exported, ..
    } = &*occupant;
    let result = async {
        check_wait(service, arrived)?;
        let call = wire::read_call(headers.as_ref(), payload, arrived)?;
        let name = subject::function_name(&subject).unwrap_or_default();
        let function = exported.function(name)?;
        let result = service.call(function, call, &link.outbound).await?;
        if to.is_none()
            && let Some(error) = events::returned_error(&function.signature, &result)
        {
            let error: String = String::from_utf8_lossy(error).chars().take(500).collect();
            tracing::warn!(service = service.spec.name, function = %function.id, error, "an event failed");
        }
        Ok(result)
    };
    let result: Result<Bytes, CallError> = result.await;
    if let (None, Err(error)) = (&to, &result) {
        log_unheard(error);
    }
    reply(&link.client, to, result).await;
}

/// The life of one raw message. What comes of it is for the guest alone to say.
async fn deliver(link: Arc<Link>, message: Message, arrived: Instant, occupant: Arc<Occupant>) {
    let service = &occupant.service;
    let subject = message.subject.clone();
    let delivered: Result<_, CallError> = async {
        check_wait(service, arrived)?;
        let call = wire::read_raw(message.headers.as_ref(), arrived);
        let message = messaging::Message {
            headers: wire::read_headers(message.headers.as_ref()),
            subject: message.subject.into_string(),
            body: message.payload.into(),
            reply_to: message.reply.map(Subject::into_string),
        };
        service.deliver(message, call, &link.outbound).await
    }
    .await;
    match delivered {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            let error: String = error.chars().take(500).collect();
            let (service, subject) = (&service.spec.name, subject.as_str());
            tracing::warn!(service, subject, error, "a raw message failed");
        }
        Err(error) => log_unheard(&error),
    }
}

/// What has waited here counts as waiting for the service.
fn check_wait(service: &Service, arrived: Instant) -> Result<(), CallError> {
    let waited = arrived.elapsed();
    if waited <= service.spec.limits.wait {
        return Ok(());
    }
    let why = format!(
        "service \"{}\": waited {waited:?} for its turn",
        service.spec.name
    );
    Err(CallError::new(Code::Overloaded, Blame::Host, why))
}

fn log_unheard(error: &CallError) {
    // The service itself logs what its code did.
    let (code, blame) = (error.code.status(), error.blame.as_str());
    tracing::debug!(
        code,
        blame,
        "a message that nobody waits for failed: {error}"
    );
}

/// Sends the one reply of a message, if it asked for one.
async fn reply(client: &Client, to: Option<Subject>, result: Result<Bytes, CallError>) {
    let Some(to) = to else {
        return;
    };
    let sent = match result {
        Ok(body) => {
            let size = body.len();
            match client.publish(to.clone(), body).await {
                Err(error) if error.kind() == PublishErrorKind::MaxPayloadExceeded => {
                    let why = format!("the result has {size} bytes, more than NATS carries");
                    let error = CallError::new(Code::TooLarge, Blame::Guest, why);
                    send_error(client, to, &error).await
                }
                sent => sent,
            }
        }
        Err(error) => send_error(client, to, &error).await,
    };
    if let Err(error) = sent {
        tracing::warn!(%error, "a reply could not be sent");
    }
}

async fn send_error(client: &Client, to: Subject, error: &CallError) -> Result<(), PublishError> {
    let (headers, body) = wire::write_error(error);
    client.publish_with_headers(to, headers, body).await
}
