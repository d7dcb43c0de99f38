//! Raw messages of components: on the subjects that the manifest grants, and on the one where the
//! sender of a message waits for its reply. Each family of interfaces has a file of its own; what
//! a component may do is the same in all of them, and is here.

pub(crate) mod wasi;
pub(crate) mod wasmcloud;

use std::sync::Arc;
use std::time::{Duration, Instant};

use wasmtime::component::Linker;

use super::{Outbound, before};
use crate::call::{Call, CallError};
use crate::instance::State;
use crate::manifest::subjects::{is_reserved, is_subject};

/// Characters of a subject that a message shows.
const SHOWN: usize = 100;

/// A raw message that has come in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// The subject that it was published on.
    pub subject: String,
    /// Bytes that mean something to sender and receiver only.
    pub body: Vec<u8>,
    /// Where the sender waits for a reply.
    pub reply_to: Option<String>,
    /// The headers that its sender chose.
    pub headers: Vec<(String, String)>,
}

/// A raw message on its way out.
#[derive(Clone, Debug)]
pub struct Sending {
    /// Where it is published.
    pub subject: String,
    /// Where the guest, or whom it speaks for, waits for a reply.
    pub reply_to: Option<String>,
    /// The headers that the guest chose.
    pub headers: Vec<(String, String)>,
    /// The stream that has to store it; without one it reaches who listens at that moment.
    pub stream: Option<Arc<str>>,
    /// The body and what travels along.
    pub call: Call,
}

/// What a request waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expected {
    /// Replies after which there is nothing to wait for.
    pub replies: usize,
    /// Bytes that all replies together may have.
    pub bytes: usize,
}

/// What a guest wants to send.
struct Draft {
    subject: String,
    reply_to: Option<String>,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

/// Why a message was not sent, or a request has no reply.
enum Failure {
    /// It makes no sense.
    Invalid(String),
    /// It is not granted.
    Denied(String),
    /// It was tried.
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

/// What becomes of something that a guest sends. The outer error is a trap.
type Outcome<T> = wasmtime::Result<Result<T, Failure>>;

/// Every family of interfaces.
pub(crate) fn add_to_linker(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    wasmcloud::add_to_linker(linker)?;
    wasi::add_to_linker(linker)
}

/// Publishes a message; done when it is on its way.
async fn publish(state: &mut State, draft: Draft) -> Outcome<()> {
    let Draft {
        subject,
        reply_to,
        headers,
        body,
    } = draft;
    let (outbound, call) = outgoing(state, body)?;
    // Who gets the message will write there, with rights of its own.
    let checked = check(state, &subject).and_then(|()| {
        let check = |to| check_reply_to(state, to).and_then(|()| check_answers(state, &subject));
        reply_to.as_deref().map_or(Ok(()), check)
    });
    if let Err(why) = checked {
        return Ok(Err(why));
    }
    let sending = Sending {
        stream: state.spec.grants.stream_of(&subject).map(Arc::from),
        subject,
        reply_to,
        headers,
        call,
    };
    Ok(outbound.send(sending).await.map_err(Failure::Failed))
}

/// Publishes a message and waits for replies, at the longest for `timeout` and until the guest
/// itself has to have ended.
async fn request(
    state: &mut State,
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
    let (outbound, mut call) = outgoing(state, body)?;
    if let Err(why) = check(state, &subject).and_then(|()| check_answers(state, &subject)) {
        return Ok(Err(why));
    }
    if let Some(timeout) = timeout {
        call.deadline = call.deadline.min(Instant::now() + timeout);
    }
    let sending = Sending {
        subject,
        reply_to: None,
        headers,
        stream: None,
        call,
    };
    let expected = Expected {
        replies,
        bytes: state.spec.limits.message,
    };
    let asked = outbound.ask(sending, expected).await;
    Ok(asked.map_err(Failure::Failed))
}

/// What goes along with a message: as with a call, so that a circle of messages ends.
fn outgoing(state: &State, body: Vec<u8>) -> wasmtime::Result<(Arc<dyn Outbound>, Call)> {
    let Some(current) = &state.current else {
        // While it is instantiated a component belongs to no call.
        wasmtime::bail!("a message was sent before any call began");
    };
    let call = Call {
        body: body.into(),
        deadline: before(current.deadline),
        hops: current.hops.saturating_add(1),
        caller: Some(state.spec.name.clone()),
        trace: current.trace.clone(),
    };
    Ok((Arc::clone(&current.outbound), call))
}

/// Whether the component may publish on this subject now; if not, why.
fn check(state: &State, subject: &str) -> Result<(), Failure> {
    check_form(subject)?;
    if state.spec.grants.allows_publish(subject) || is_reply_to(state, subject) {
        return Ok(());
    }
    Err(refuse(state, "publish", subject))
}

/// Whether the component may have replies sent to this subject; if not, why.
fn check_reply_to(state: &State, subject: &str) -> Result<(), Failure> {
    check_form(subject)?;
    let grants = &state.spec.grants;
    let granted = grants.allows_publish(subject) || grants.allows_subscribe(subject);
    if granted || is_reply_to(state, subject) {
        return Ok(());
    }
    Err(refuse(state, "subscribe", subject))
}

/// Whether somebody who handles the message can be the one who replies.
fn check_answers(state: &State, subject: &str) -> Result<(), Failure> {
    match state.spec.grants.stream_of(subject) {
        Some(stream) => Err(Failure::Invalid(format!(
            "\"{}\" is stored by {stream}, and that is all that would reply",
            shown(subject)
        ))),
        None => Ok(()),
    }
}

fn check_form(subject: &str) -> Result<(), Failure> {
    match is_subject(subject) {
        true => Ok(()),
        false => Err(Failure::Invalid(format!(
            "\"{}\" is no subject",
            shown(subject)
        ))),
    }
}

/// Whether it is where the sender of the message that is being handled waits. The sender chose it,
/// and must not get written through the component what it could not write itself.
fn is_reply_to(state: &State, subject: &str) -> bool {
    let reply_to = state.current.as_ref().and_then(|c| c.reply_to.as_deref());
    reply_to == Some(subject) && !is_reserved(subject)
}

fn refuse(state: &State, grant: &str, subject: &str) -> Failure {
    let service = &*state.spec.name;
    let shown = shown(subject);
    let why = match is_reserved(subject) || subject.starts_with("_INBOX") {
        true => format!("\"{shown}\" cannot be granted"),
        false => format!(
            "\"{shown}\" is not granted; `grants = {{ {grant} = [\"{shown}\"] }}` would allow it"
        ),
    };
    tracing::warn!(service, "a raw message was refused: {why}");
    Failure::Denied(why)
}

fn shown(text: &str) -> String {
    let start: String = text.chars().take(SHOWN).collect();
    start.escape_debug().to_string()
}
