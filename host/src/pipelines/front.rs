//! Calls of pipelines: each begins a run, or is another call for one that has begun, and waits for its end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::Subject;
use bytes::Bytes;
use futures_util::StreamExt as _;
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, timeout_at};

use super::journal::{self, HEADROOM, JournalError, Journals};
use super::room::Room;
use super::run::{Coded, Run};
use super::{is_key, now, stopped};
use crate::call::{Call, CallError, Code};
use crate::headers::Headers;
use crate::json::{self, Limits, UnknownKeys};
use crate::nats::{Link, Message, Subscription};
use crate::plan::Pipeline;
use crate::poll;
use crate::runtime::Stats;
use crate::text::hex;
use crate::{subject, wire};

/// Calls of one pipeline that wait at this host at the same time. Beyond it 429.
const WAITING: usize = 1_024;

/// Time between two looks at the journal of a run that somebody waits for: the word of its end may be lost.
const LOOK: Duration = Duration::from_secs(1);

/// Upper bound of the time before the caller's deadline at which it is told that the run goes on, so that it
/// learns that before it gives up.
const MARGIN: Duration = Duration::from_millis(250);

/// Services that a call may have passed through, as for a service unless it says otherwise.
const HOPS: u8 = crate::manifest::keys::limits::HOPS.values.default;

/// The calls of one pipeline.
pub(super) struct Front {
    pub(super) journals: Journals,
    pub(super) link: Link,
    pub(super) pipeline: watch::Receiver<Arc<Pipeline>>,
    pub(super) stopping: watch::Receiver<bool>,
    pub(super) stats: Arc<Stats>,
    pub(super) room: Arc<Room>,
}

impl Front {
    /// Answers calls until it stops, and then those that have come. Callers who wait then are told that
    /// their runs go on.
    pub(super) async fn serve(self, mut messages: Subscription) {
        let front = Arc::new(self);
        let mut calls = JoinSet::new();
        let mut stopping = front.stopping.clone();
        loop {
            tokio::select! {
                () = stopped(&mut stopping) => break,
                Some(_) = calls.join_next() => {}
                message = messages.next() => match message {
                    Some(message) => front.begin(&mut calls, message).await,
                    None => break,
                },
            }
        }
        if messages.unsubscribe().await.is_err() {
            tracing::warn!("NATS did not confirm the end of a subscription, calls may be lost");
        }
        while let std::task::Poll::Ready(Some(message)) = poll::ready(&mut messages) {
            front.begin(&mut calls, message).await;
        }
        while calls.join_next().await.is_some() {}
    }

    async fn begin(self: &Arc<Self>, calls: &mut JoinSet<()>, message: Message) {
        if message
            .reply
            .as_ref()
            .is_some_and(|to| subject::is_reserved(to))
        {
            let subject = &*message.subject;
            tracing::warn!(
                subject,
                "a call was dropped: no reply is sent to subjects of NATS or of hosts"
            );
            return;
        }
        if calls.len() >= WAITING {
            let error = CallError::overloaded("more calls of the pipeline wait than are allowed");
            return self.reply(message.reply, Err(error)).await;
        }
        let front = Arc::clone(self);
        calls.spawn(async move {
            let to = message.reply.clone();
            let began = Instant::now();
            let pipeline = Arc::clone(&front.pipeline.borrow());
            let result = front.answer(&pipeline, message).await;
            let result = result
                .map_err(|error| error.within(format_args!("pipeline \"{}\"", pipeline.name)));
            // A run that goes on has not failed.
            let error = result
                .as_ref()
                .err()
                .filter(|error| error.code != Code::Accepted);
            front.stats.record(began.elapsed(), error);
            front.reply(to, result).await;
        });
    }

    async fn reply(&self, to: Option<Subject>, result: Result<Bytes, CallError>) {
        let Some(to) = to else {
            if let Err(error) = result {
                tracing::warn!(%error, "a call without a reply subject failed");
            }
            return;
        };
        let result = result.and_then(|body| match body.len() {
            bytes if bytes <= self.link.max_payload() => Ok(body),
            bytes => Err(CallError::result_too_large(format_args!(
                "the result has {bytes} bytes, more than NATS carries"
            ))),
        });
        let (headers, body) = match result {
            Ok(body) => (Headers::new(), body),
            Err(error) => wire::write_error(&error),
        };
        if let Err(error) = self.link.publish(&to, None, &headers, &body).await {
            tracing::warn!(%error, "a reply could not be sent");
        }
    }

    async fn answer(&self, pipeline: &Pipeline, message: Message) -> Result<Bytes, CallError> {
        if let Some(why) = message.malformed {
            return Err(CallError::bad_arguments(why));
        }
        let waits = message.reply.is_some();
        let key = message
            .headers
            .as_ref()
            .and_then(|headers| headers.get(wire::MESSAGE_ID));
        let key = key.map(str::to_owned);
        let call = wire::read_call(message.headers.as_ref(), message.payload, Instant::now())?;
        let id = match &key {
            Some(key) if is_key(key) => id_of(&pipeline.name, key),
            Some(_) => {
                let why = "header Nats-Msg-Id: expected 1 to 255 visible ASCII characters";
                return Err(CallError::bad_arguments(why));
            }
            None => hex(&rand::random::<[u8; 16]>()),
        };
        let run = self.read(pipeline, &id, &call)?;
        let text = journal::text(&run).map_err(CallError::defect)?;
        let limit = pipeline
            .journal
            .min(self.link.max_payload().saturating_sub(HEADROOM));
        if text.len() > limit {
            let bytes = text.len();
            return Err(CallError::request_too_large(format_args!(
                "the journal of the run would begin with {bytes} bytes, {limit} are allowed"
            )));
        }
        // Before the run begins, so that no end is missed.
        let subject = subject::ended_run(&self.journals.app, &id);
        let ends = self.link.subscribe(&subject, None);
        let ends = ends.map_err(CallError::unavailable)?;
        if key.is_some()
            && let Some(reply) = self.look(&pipeline.name, &id).await?
        {
            return reply;
        }
        if let Err(full) = self.room.take(text.len()) {
            return Err(CallError::unavailable(full));
        }
        match self.journals.begin(&run, text).await {
            // One that has begun is another call for the same run.
            Ok(()) | Err(JournalError::Changed) => {}
            Err(error) => return Err(CallError::unavailable(error)),
        }
        if !waits {
            return Ok(Bytes::new());
        }
        self.wait(&pipeline.name, &id, &call, ends).await
    }

    /// The run that a call begins.
    fn read(&self, pipeline: &Pipeline, id: &str, call: &Call) -> Result<Run, CallError> {
        if call.hops >= HOPS {
            return Err(CallError::too_many_hops(call.hops, HOPS));
        }
        let limits = Limits {
            bytes: self.link.max_payload(),
            // A service may have been built against a later version of the type.
            unknown_keys: match call.caller {
                Some(_) => UnknownKeys::Ignore,
                None => UnknownKeys::Refuse,
            },
            ..Limits::default()
        };
        let misfit = |error: json::JsonError| {
            let why = format!("arguments: {error}");
            if error.is_too_large() {
                CallError::request_too_large(why)
            } else {
                CallError::bad_arguments(why)
            }
        };
        let arguments =
            json::decode_arguments(&call.body, &pipeline.signature, &limits).map_err(misfit)?;
        let text =
            json::encode_arguments(&arguments, &pipeline.signature, &limits).map_err(misfit)?;
        let text = match String::from_utf8(text) {
            Ok(text) if text.is_empty() => "{}".to_owned(),
            Ok(text) => text,
            Err(error) => return Err(CallError::defect(error)),
        };
        let input = RawValue::from_string(text).map_err(CallError::defect)?;
        let durable = pipeline.durable.as_ref();
        Ok(Run {
            coded: durable.map(|_| Coded::new(&rand::random())),
            hops: call.hops,
            trace: call.trace.parent.clone(),
            claims: call.claims.as_deref().map(str::to_owned),
            ..Run::new(id, pipeline, input, now())
        })
    }

    /// The reply of a run that has ended.
    async fn look(
        &self,
        pipeline: &str,
        id: &str,
    ) -> Result<Option<Result<Bytes, CallError>>, CallError> {
        let stored = self.journals.read(Some(pipeline), id).await;
        let stored = stored.map_err(CallError::unavailable)?;
        let ended = stored.filter(|stored| stored.run.has_ended());
        Ok(ended.map(|stored| stored.run.reply()))
    }

    async fn wait(
        &self,
        pipeline: &str,
        id: &str,
        call: &Call,
        mut ends: Subscription,
    ) -> Result<Bytes, CallError> {
        let left = call.time_left();
        let until = call.deadline - MARGIN.min(left / 10);
        let mut stopping = self.stopping.clone();
        let mut looks = tokio::time::interval_at((Instant::now() + LOOK).into(), LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let waiting = async {
            loop {
                tokio::select! {
                    Some(end) = ends.next() => match end.malformed {
                        None => return Some(wire::read_reply(end.headers.as_ref(), end.payload)),
                        Some(_) => continue,
                    },
                    _ = looks.tick() => match self.look(pipeline, id).await {
                        Ok(Some(reply)) => return Some(reply),
                        Ok(None) => {}
                        Err(error) => tracing::debug!(%error, "the journal of a run"),
                    },
                    () = stopped(&mut stopping) => return None,
                }
            }
        };
        match timeout_at(until.into(), waiting).await {
            Ok(Some(reply)) => reply,
            Ok(None) | Err(_) => Err(CallError::goes_on(id)),
        }
    }
}

/// The id of the run that a key stands for.
fn id_of(pipeline: &str, key: &str) -> String {
    let digest = Sha256::digest(format!("{pipeline}\n{key}"));
    hex(digest.get(..16).unwrap_or_default())
}
