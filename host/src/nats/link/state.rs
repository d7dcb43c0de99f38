//! What the handle of a connection and the task that reads and writes it share.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use tokio::sync::{Notify, oneshot, watch};

use super::login::Info;
use super::protocol::{self, Message};
use super::subscription::Queue;
use super::{OUTPUT_CAPACITY, PublishError, SubscribeError};
use crate::headers::Headers;
use crate::nats::violations::Violations;

/// Handles messages in the task that reads them; `None` when no more come.
pub(crate) type Handler = Arc<dyn Fn(Option<Message>) + Send + Sync>;

/// Where the messages of a subscription go.
pub(super) enum Sink {
    Queue(Arc<Queue>),
    Handler(Handler),
}

/// Whether there is a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    Connected,
    /// It is being restored.
    Lost,
    /// For good.
    Closed,
}

/// The outcome of publishing at once.
pub(super) enum Tried {
    Done,
    Failed(PublishError),
    /// Too much waits to be written.
    Full,
}

pub(super) struct Shared {
    pub(super) name: String,
    /// What the subjects of replies begin with.
    pub(super) inbox: String,
    /// What the subjects of JetStream's API begin with.
    pub(super) api: String,
    pub(super) violations: Violations,
    state: Mutex<State>,
    status: watch::Sender<Status>,
    /// The same as `status`, for a look without a lock.
    connected: AtomicBool,
    max_payload: AtomicUsize,
    /// Notified when what waited to be written was taken.
    room: Notify,
}

struct State {
    /// The id of the server.
    server: String,
    /// What is to be written.
    output: Vec<u8>,
    /// Wakes the task that writes.
    writer: Option<Waker>,
    /// Whether callers wait for room in `output`.
    crowded: bool,
    subscriptions: BTreeMap<u64, Entry>,
    last_sid: u64,
    /// PINGs that were written to this connection, and PONGs that came from it.
    pings: u64,
    pongs: u64,
    /// What waits for the PONG with a number.
    confirmations: Vec<(u64, oneshot::Sender<()>)>,
    phase: Phase,
}

/// What the state of the connection means for what is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Open,
    /// Subscriptions are made when it is there again, and PINGs sent.
    Lost,
    /// A new connection is used, and what the old one had handed out still comes: until then nothing
    /// is confirmed.
    Moving,
    Closed,
}

struct Entry {
    subject: String,
    group: Option<String>,
    sink: Sink,
    /// The server was told that it ends.
    ended: bool,
    /// The server's words if it refuses it.
    refused: Option<String>,
}

/// The number of a PONG that no PING was sent for yet.
const LATER: u64 = u64::MAX;

impl Shared {
    pub(super) fn new(name: String, inbox: String, api: String, violations: Violations) -> Self {
        Self {
            name,
            inbox,
            api,
            violations,
            state: Mutex::new(State {
                server: String::new(),
                output: Vec::new(),
                writer: None,
                crowded: false,
                subscriptions: BTreeMap::new(),
                last_sid: 0,
                pings: 0,
                pongs: 0,
                confirmations: Vec::new(),
                phase: Phase::Lost,
            }),
            status: watch::Sender::new(Status::Lost),
            connected: AtomicBool::new(false),
            max_payload: AtomicUsize::new(0),
            room: Notify::new(),
        }
    }

    pub(super) fn max_payload(&self) -> usize {
        self.max_payload.load(Ordering::Relaxed)
    }

    pub(super) fn is_connected(&self) -> bool {
        self.connected.load(Ordering::Relaxed)
    }

    pub(super) fn status(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }

    pub(super) fn publish(
        &self,
        subject: &str,
        reply: Option<&str>,
        headers: &Headers,
        payload: &[u8],
    ) -> Tried {
        for subject in [Some(subject), reply].into_iter().flatten() {
            if !protocol::is_subject(subject) {
                let subject = subject.to_owned();
                return Tried::Failed(PublishError::InvalidSubject(subject));
            }
        }
        let (size, limit) = (headers.size() + payload.len(), self.max_payload());
        if size > limit {
            return Tried::Failed(PublishError::TooLarge { size, limit });
        }
        let mut state = self.lock();
        if state.phase == Phase::Closed {
            return Tried::Failed(PublishError::Closed);
        }
        if state.output.len() >= OUTPUT_CAPACITY {
            state.crowded = true;
            return Tried::Full;
        }
        let output = &mut state.output;
        protocol::write_publish(output, subject, reply, headers.as_bytes(), payload);
        state.wake();
        Tried::Done
    }

    /// Publishes when there is room.
    pub(super) async fn publish_later(
        &self,
        subject: &str,
        reply: Option<&str>,
        headers: &Headers,
        payload: &[u8],
    ) -> Result<(), PublishError> {
        loop {
            let mut room = pin!(self.room.notified());
            // What is taken from now on is noticed.
            room.as_mut().enable();
            match self.publish(subject, reply, headers, payload) {
                Tried::Done => return Ok(()),
                Tried::Failed(error) => return Err(error),
                Tried::Full => room.await,
            }
        }
    }

    pub(super) fn subscribe(
        &self,
        subject: &str,
        group: Option<&str>,
        sink: Sink,
    ) -> Result<u64, SubscribeError> {
        for subject in [Some(subject), group].into_iter().flatten() {
            if !protocol::is_subject(subject) {
                return Err(SubscribeError::InvalidSubject(subject.to_owned()));
            }
        }
        let mut state = self.lock();
        if state.phase == Phase::Closed {
            return Err(SubscribeError::Closed);
        }
        state.last_sid += 1;
        let sid = state.last_sid;
        if state.phase != Phase::Lost {
            protocol::write_subscribe(&mut state.output, subject, group, sid);
        }
        let entry = Entry {
            subject: subject.to_owned(),
            group: group.map(str::to_owned),
            sink,
            ended: false,
            refused: None,
        };
        state.subscriptions.insert(sid, entry);
        state.wake();
        Ok(sid)
    }

    /// Tells the server that a subscription ends; what it handed out before still comes.
    pub(super) fn unsubscribe(&self, sid: u64) -> oneshot::Receiver<()> {
        let mut state = self.lock();
        state.end(sid);
        state.confirm()
    }

    /// Drops a subscription.
    pub(super) fn forget(&self, sid: u64) {
        let mut state = self.lock();
        state.end(sid);
        let entry = state.subscriptions.remove(&sid);
        drop(state);
        // Messages are freed outside of the lock.
        drop(entry);
    }

    /// Done when the server has processed everything so far.
    pub(super) fn confirm(&self) -> oneshot::Receiver<()> {
        self.lock().confirm()
    }

    pub(super) fn server(&self) -> String {
        self.lock().server.clone()
    }

    pub(super) fn refused(&self) -> Option<String> {
        let state = self.lock();
        let mut entries = state.subscriptions.values();
        entries.find_map(|entry| entry.refused.clone())
    }

    /// Ends everything.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        if state.phase == Phase::Closed {
            return;
        }
        state.phase = Phase::Closed;
        state.output = Vec::new();
        let confirmations = std::mem::take(&mut state.confirmations);
        let subscriptions = std::mem::take(&mut state.subscriptions);
        drop(state);
        self.connected.store(false, Ordering::Relaxed);
        self.status.send_replace(Status::Closed);
        self.room.notify_waiters();
        drop(confirmations);
        for entry in subscriptions.into_values() {
            match entry.sink {
                Sink::Queue(queue) => queue.close(),
                Sink::Handler(handler) => handler(None),
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code under the lock can panic, so the data of a poisoned one is valid.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the task that reads and writes does.
impl Shared {
    /// Moves what is to be written into an empty buffer; without any, `writer` is woken when there is.
    pub(super) fn take_output(&self, writer: &Waker, buffer: &mut Vec<u8>) {
        let mut state = self.lock();
        if state.output.is_empty() {
            match &mut state.writer {
                Some(known) => known.clone_from(writer),
                None => state.writer = Some(writer.clone()),
            }
            return;
        }
        std::mem::swap(&mut state.output, buffer);
        let crowded = std::mem::take(&mut state.crowded);
        drop(state);
        if crowded {
            self.room.notify_waiters();
        }
    }

    /// Hands a message to its subscription.
    pub(super) fn deliver(&self, sid: u64, message: Message) {
        let state = self.lock();
        let Some(entry) = state.subscriptions.get(&sid) else {
            return;
        };
        match &entry.sink {
            Sink::Queue(queue) => {
                let queue = Arc::clone(queue);
                drop(state);
                // Often enough to be noticed, and no flood.
                if let Some(lost) = queue.push(message)
                    && lost.is_power_of_two()
                {
                    let connection = &self.name;
                    tracing::warn!(
                        connection,
                        lost,
                        "a subscription was read too slowly, messages were dropped"
                    );
                }
            }
            Sink::Handler(handler) => {
                let handler = Arc::clone(handler);
                drop(state);
                handler(Some(message));
            }
        }
    }

    pub(super) fn answer_ping(&self) {
        let mut state = self.lock();
        state.output.extend_from_slice(protocol::PONG);
        state.wake();
    }

    pub(super) fn pong(&self) {
        let mut state = self.lock();
        state.pongs += 1;
        let number = state.pongs;
        let (done, waiting) = std::mem::take(&mut state.confirmations)
            .into_iter()
            .partition(|(at, _)| *at <= number);
        state.confirmations = waiting;
        drop(state);
        confirm_all(done);
    }

    /// Asks the server for a sign of life.
    pub(super) fn ping(&self) {
        self.lock().ping();
    }

    /// Takes what the server said; returns whether it refuses something.
    pub(super) fn refuse(&self, words: &str) -> bool {
        if !self.violations.note(&self.name, words) {
            return false;
        }
        let mut state = self.lock();
        for entry in state.subscriptions.values_mut() {
            let named = format!("Subscription to \"{}\"", entry.subject);
            if words.contains(&named) {
                entry.refused = Some(words.to_owned());
            }
        }
        true
    }

    pub(super) fn set_max_payload(&self, bytes: usize) {
        self.max_payload.store(bytes, Ordering::Relaxed);
    }

    /// The connection was lost; `unwritten` has what was published and not sent.
    pub(super) fn lose(&self, unwritten: Vec<u8>) {
        let mut state = self.lock();
        if state.phase == Phase::Closed {
            return;
        }
        state.phase = Phase::Lost;
        let later = protocol::publications(&state.output, 0);
        state.output = unwritten;
        state.output.extend_from_slice(&later);
        drop(state);
        self.connected.store(false, Ordering::Relaxed);
        self.status.send_replace(Status::Lost);
    }

    /// There is a connection to this server, on which nothing was said yet.
    pub(super) fn resume(&self, server: &Info) {
        self.set_max_payload(server.max_payload);
        let mut state = self.lock();
        state.server.clone_from(&server.server_id);
        if state.phase == Phase::Closed {
            return;
        }
        state.phase = Phase::Open;
        let mut output = Vec::new();
        state.write_subscriptions(&mut output, |_| true);
        let published = std::mem::take(&mut state.output);
        state.output = output;
        (state.pings, state.pongs) = (0, 0);
        state.confirm_anew();
        state.output.extend_from_slice(&published);
        for entry in state.subscriptions.values_mut() {
            entry.refused = None;
        }
        state.wake();
        drop(state);
        self.connected.store(true, Ordering::Relaxed);
        self.status.send_replace(Status::Connected);
    }

    /// The subscriptions as they are written to another connection, and their ids.
    pub(super) fn subscriptions(&self) -> (Vec<u8>, BTreeSet<u64>) {
        let state = self.lock();
        let mut output = Vec::new();
        state.write_subscriptions(&mut output, |_| true);
        let live = state.subscriptions.iter().filter(|(_, entry)| !entry.ended);
        (output, live.map(|(sid, _)| *sid).collect())
    }

    /// Another connection, which knows some subscriptions, takes the place of this one. Returns what
    /// is still to be written to the old one, and the PONGs that it owes then.
    pub(super) fn begin_move(&self, known: &BTreeSet<u64>, server: &Info) -> (Vec<u8>, u64) {
        self.set_max_payload(server.max_payload);
        let mut state = self.lock();
        state.server.clone_from(&server.server_id);
        let mut old = std::mem::take(&mut state.output);
        for sid in state.subscriptions.keys() {
            protocol::write_unsubscribe(&mut old, *sid);
        }
        old.extend_from_slice(protocol::PING);
        let owed = state.pings + 1 - state.pongs;
        let mut output = Vec::new();
        state.write_subscriptions(&mut output, |sid| !known.contains(&sid));
        for sid in known {
            if state.subscriptions.get(sid).is_none_or(|entry| entry.ended) {
                protocol::write_unsubscribe(&mut output, *sid);
            }
        }
        state.output = output;
        (state.pings, state.pongs) = (0, 0);
        for (at, _) in &mut state.confirmations {
            *at = LATER;
        }
        if state.phase == Phase::Open {
            state.phase = Phase::Moving;
        }
        state.wake();
        (old, owed)
    }

    /// Everything that the old connection had handed out has come.
    pub(super) fn end_move(&self) {
        let mut state = self.lock();
        if state.phase == Phase::Moving {
            state.phase = Phase::Open;
            state.confirm_anew();
            state.wake();
        }
    }
}

impl State {
    fn wake(&mut self) {
        if let Some(writer) = self.writer.take() {
            writer.wake();
        }
    }

    fn end(&mut self, sid: u64) {
        let Some(entry) = self.subscriptions.get_mut(&sid) else {
            return;
        };
        let known = !std::mem::replace(&mut entry.ended, true);
        entry.refused = None;
        if known && matches!(self.phase, Phase::Open | Phase::Moving) {
            protocol::write_unsubscribe(&mut self.output, sid);
            self.wake();
        }
    }

    fn ping(&mut self) -> u64 {
        if self.phase != Phase::Open {
            return LATER;
        }
        self.output.extend_from_slice(protocol::PING);
        self.pings += 1;
        self.wake();
        self.pings
    }

    fn confirm(&mut self) -> oneshot::Receiver<()> {
        let (done, confirmed) = oneshot::channel();
        if self.phase != Phase::Closed {
            let number = self.ping();
            self.confirmations.push((number, done));
        }
        confirmed
    }

    /// Everything that waits is confirmed by one more PING.
    fn confirm_anew(&mut self) {
        let number = self.ping();
        for (at, _) in &mut self.confirmations {
            *at = number;
        }
    }

    fn write_subscriptions(&self, output: &mut Vec<u8>, wanted: impl Fn(u64) -> bool) {
        let live = self.subscriptions.iter().filter(|(_, entry)| !entry.ended);
        for (sid, entry) in live.filter(|(sid, _)| wanted(**sid)) {
            let group = entry.group.as_deref();
            protocol::write_subscribe(output, &entry.subject, group, *sid);
        }
    }
}

fn confirm_all(done: Vec<(u64, oneshot::Sender<()>)>) {
    for (_, done) in done {
        // It may not be waited for any more.
        let _ = done.send(());
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("name", &self.name)
            .field("status", &*self.status.borrow())
            .finish_non_exhaustive()
    }
}
