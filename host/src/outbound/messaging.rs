//! Raw messages for components that were written for `wasmcloud:messaging`: on the subjects that
//! the manifest grants, and on the one where the sender of a message waits for its reply.

use std::sync::Arc;
use std::time::{Duration, Instant};

use wasmtime::component::{ComponentType, Lift, Linker, Lower};

use super::{Outbound, before};
use crate::call::Call;
use crate::instance::State;
use crate::manifest::subjects::{is_reserved, is_subject};

/// The interface by which components send.
const CONSUMER: &str = "wasmcloud:messaging/consumer@0.2.0";

/// Characters of a subject that a message shows.
const SHOWN: usize = 100;

/// A message as the interface has it, `broker-message`.
#[derive(Clone, Debug, PartialEq, Eq, ComponentType, Lift, Lower)]
#[component(record)]
pub struct Message {
    /// The subject that it is published on.
    pub subject: String,
    /// Bytes that mean something to sender and receiver only.
    pub body: Vec<u8>,
    /// Where the sender waits for a reply.
    #[component(name = "reply-to")]
    pub reply_to: Option<String>,
}

/// `wasmcloud:messaging/consumer`.
pub(crate) fn add_to_linker(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    let mut consumer = linker.instance(CONSUMER)?;
    consumer.func_wrap_async(
        "request",
        |mut store, (subject, body, timeout): (String, Vec<u8>, u32)| {
            Box::new(async move {
                let timeout = Duration::from_millis(timeout.into());
                let reply = request(store.data_mut(), subject, body, timeout).await?;
                Ok((reply,))
            })
        },
    )?;
    consumer.func_wrap_async("publish", |mut store, (message,): (Message,)| {
        Box::new(async move { Ok((publish(store.data_mut(), message).await?,)) })
    })
}

async fn request(
    state: &mut State,
    subject: String,
    body: Vec<u8>,
    timeout: Duration,
) -> wasmtime::Result<Result<Message, String>> {
    let (outbound, mut call) = outgoing(state, body)?;
    if let Err(why) = check(state, &subject) {
        return Ok(Err(why));
    }
    call.deadline = call.deadline.min(Instant::now() + timeout);
    let reply = match outbound.ask(&subject, call).await {
        Ok(reply) => reply,
        Err(error) => return Ok(Err(error.message)),
    };
    let (size, limit) = (reply.body.len(), state.spec.limits.message);
    Ok(match size <= limit {
        true => Ok(reply),
        false => Err(format!("the reply has {size} bytes, {limit} are allowed")),
    })
}

async fn publish(state: &mut State, message: Message) -> wasmtime::Result<Result<(), String>> {
    let Message {
        subject,
        body,
        reply_to,
    } = message;
    let (outbound, call) = outgoing(state, body)?;
    // Who gets the message will write there, with rights of its own.
    let checked = check(state, &subject).and_then(|()| {
        reply_to
            .as_deref()
            .map_or(Ok(()), |to| check_reply_to(state, to))
    });
    if let Err(why) = checked {
        return Ok(Err(why));
    }
    let sent = outbound.send(&subject, reply_to.as_deref(), call).await;
    Ok(sent.map_err(|error| error.message))
}

/// What goes along with a message: as with a call, so that a circle of messages ends.
fn outgoing(state: &State, body: Vec<u8>) -> wasmtime::Result<(Arc<dyn Outbound>, Call)> {
    let Some(current) = &state.current else {
        // While it is instantiated a component belongs to no call.
        wasmtime::bail!("{CONSUMER} was called before any call began");
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
fn check(state: &State, subject: &str) -> Result<(), String> {
    check_form(subject)?;
    if state.spec.grants.allows_publish(subject) || is_reply_to(state, subject) {
        return Ok(());
    }
    Err(refuse(state, "publish", subject))
}

/// Whether the component may have replies sent to this subject; if not, why.
fn check_reply_to(state: &State, subject: &str) -> Result<(), String> {
    check_form(subject)?;
    let grants = &state.spec.grants;
    let granted = grants.allows_publish(subject) || grants.allows_subscribe(subject);
    if granted || is_reply_to(state, subject) {
        return Ok(());
    }
    Err(refuse(state, "subscribe", subject))
}

fn check_form(subject: &str) -> Result<(), String> {
    match is_subject(subject) {
        true => Ok(()),
        false => Err(format!("\"{}\" is no subject", shown(subject))),
    }
}

/// Whether it is where the sender of the message that is being handled waits. The sender chose it,
/// and must not get written through the component what it could not write itself.
fn is_reply_to(state: &State, subject: &str) -> bool {
    let reply_to = state.current.as_ref().and_then(|c| c.reply_to.as_deref());
    reply_to == Some(subject) && !is_reserved(subject)
}

fn refuse(state: &State, grant: &str, subject: &str) -> String {
    let service = &*state.spec.name;
    let shown = shown(subject);
    let why = match is_reserved(subject) || subject.starts_with("_INBOX") {
        true => format!("\"{shown}\" cannot be granted"),
        false => format!(
            "\"{shown}\" is not granted; `grants = {{ {grant} = [\"{shown}\"] }}` would allow it"
        ),
    };
    tracing::warn!(service, "a raw message was refused: {why}");
    why
}

fn shown(subject: &str) -> String {
    let start: String = subject.chars().take(SHOWN).collect();
    start.escape_debug().to_string()
}
