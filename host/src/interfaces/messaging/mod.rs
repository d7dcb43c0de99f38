//! Messages of components: on the subjects that the manifest grants, and on the reply subject of
//! the message that is being handled. Each family of interfaces has a file of its own; grants are
//! the same for all of them, and are here.

pub(crate) mod wasi;
pub(crate) mod wasmcloud;

use std::sync::Arc;
use std::time::{Duration, Instant};

use wasmtime::component::{Linker, ResourceTable};

use super::{Backend, Bounds, Caller, Expected, Message, OutgoingMessage};
use crate::call::{Call, CallError};
use crate::manifest::subjects::is_subject;
use crate::subject::is_reserved;
use crate::text::shown;

/// What the interfaces need of a store.
pub(crate) struct MessagingCtxView<'a> {
    pub(crate) caller: &'a Caller,
    pub(crate) table: &'a mut ResourceTable,
    pub(crate) bounds: &'a mut Bounds,
}

/// Gives the host access to [`MessagingCtxView`] in a store.
pub(crate) trait MessagingView: Send + 'static {
    fn messaging(&mut self) -> MessagingCtxView<'_>;
}

/// A message of a guest, before it is checked.
struct Draft {
    subject: String,
    reply_to: Option<String>,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

/// A message was not sent, or a request has no reply.
enum Failure {
    /// The message is malformed.
    Invalid(String),
    /// The subject is not granted.
    Denied(String),
    /// Sending it failed.
    Failed(CallError),
}

impl Failure {
    fn into_message(self) -> String {
        match self {
            Self::Invalid(why) | Self::Denied(why) => why,
            Self::Failed(error) => error.message,
        }
    }
}

/// The outcome of sending. The outer error is a trap.
type Outcome<T> = wasmtime::Result<Result<T, Failure>>;

/// Every family of interfaces.
pub(crate) fn add_to_linker<T: MessagingView>(linker: &mut Linker<T>) -> wasmtime::Result<()> {
    wasmcloud::add_to_linker(linker)?;
    wasi::add_to_linker(linker)
}

/// Publishes a message; returns when it is on its way.
async fn publish(caller: &Caller, draft: Draft) -> Outcome<()> {
    let Draft {
        subject,
        reply_to,
        headers,
        body,
    } = draft;
    let (backend, call) = outgoing(caller, body)?;
    // A subscriber writes there, with its own permissions.
    let checked = check(caller, &subject).and_then(|()| {
        let check = |to| check_reply_to(caller, to).and_then(|()| check_answers(caller, &subject));
        reply_to.as_deref().map_or(Ok(()), check)
    });
    if let Err(why) = checked {
        return Ok(Err(why));
    }
    let message = OutgoingMessage {
        stream: caller.service.grants.stream_of(&subject).map(Arc::from),
        subject,
        reply_to,
        headers,
        call,
    };
    let sent = backend.send(message).await;
    if sent.is_ok() {
        caller.counts.published.add(1);
    }
    Ok(sent.map_err(Failure::Failed))
}

/// Publishes a message and waits for replies: for `timeout`, and not beyond the deadline of the
/// guest's call.
async fn request(
    caller: &Caller,
    draft: Draft,
    timeout: Option<Duration>,
    replies: usize,
) -> Outcome<Vec<Message>> {
    let Draft {
        subject,
        headers,
        body,
        ..
    } = draft;
    let (backend, mut call) = outgoing(caller, body)?;
    if let Err(why) = check(caller, &subject).and_then(|()| check_answers(caller, &subject)) {
        return Ok(Err(why));
    }
    if let Some(timeout) = timeout {
        call.deadline = call.deadline.min(Instant::now() + timeout);
    }
    let message = OutgoingMessage {
        subject,
        reply_to: None,
        headers,
        stream: None,
        call,
    };
    let expected = Expected {
        replies,
        bytes: caller.service.limits.message,
    };
    let asked = backend.request(message, expected).await;
    Ok(asked.map_err(Failure::Failed))
}

/// The context of a message: hops as with a call, so that a circle of messages ends.
fn outgoing(caller: &Caller, body: Vec<u8>) -> wasmtime::Result<(Arc<dyn Backend>, Call)> {
    match caller.outgoing(body.into()) {
        Some(outgoing) => Ok(outgoing),
        // While it is instantiated a component belongs to no call.
        None => wasmtime::bail!("a message was sent before any call began"),
    }
}

/// Checks that the component may publish on this subject now.
fn check(caller: &Caller, subject: &str) -> Result<(), Failure> {
    check_form(subject)?;
    if caller.service.grants.allows_publish(subject) || is_reply_to(caller, subject) {
        return Ok(());
    }
    Err(refuse(caller, "publish", subject))
}

/// Checks that the component may have replies sent to this subject.
fn check_reply_to(caller: &Caller, subject: &str) -> Result<(), Failure> {
    check_form(subject)?;
    let grants = &caller.service.grants;
    let granted = grants.allows_publish(subject) || grants.allows_subscribe(subject);
    if granted || is_reply_to(caller, subject) {
        return Ok(());
    }
    Err(refuse(caller, "subscribe", subject))
}

/// Checks that the reply to a message can come from a subscriber.
fn check_answers(caller: &Caller, subject: &str) -> Result<(), Failure> {
    match caller.service.grants.stream_of(subject) {
        Some(stream) => Err(Failure::Invalid(format!(
            "\"{}\" is stored by {stream}, and that is all that would reply",
            shown(subject)
        ))),
        None => Ok(()),
    }
}

fn check_form(subject: &str) -> Result<(), Failure> {
    if is_subject(subject) {
        return Ok(());
    }
    let subject = shown(subject);
    Err(Failure::Invalid(format!("\"{subject}\" is no subject")))
}

/// Whether it is the reply subject of the message that is being handled. Its sender chose it, and
/// must not gain permissions through the component.
fn is_reply_to(caller: &Caller, subject: &str) -> bool {
    let reply_to = caller.call.as_ref().and_then(|c| c.reply_to.as_deref());
    reply_to == Some(subject) && !is_reserved(subject)
}

fn refuse(caller: &Caller, grant: &str, subject: &str) -> Failure {
    let service = &*caller.service.name;
    let shown = shown(subject);
    let why = if is_reserved(subject) || subject.starts_with("_INBOX") {
        format!("\"{shown}\" cannot be granted")
    } else {
        format!(
            "\"{shown}\" is not granted; `grants = {{ {grant} = [\"{shown}\"] }}` would allow it"
        )
    };
    if caller.output.admits(why.len()) {
        tracing::warn!(service, "a message was refused: {why}");
    }
    Failure::Denied(why)
}
