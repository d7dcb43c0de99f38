//! `wasi:messaging@0.2.0-draft`: messages are resources, so the host keeps their contents.
//!
//! The draft changed without another version: setters of a message got results. The types of a
//! component show which of the two it was written for. Where a setter has no result, a refusal
//! fails the sending of the message.

mod message;

use std::time::Duration;

use wasmtime::StoreContextMut;
use wasmtime::component::{
    ComponentType, Lift, Linker, LinkerInstance, Lower, Resource, ResourceType,
};

use super::{
    Draft, Failure, MessagingCtxView, MessagingView, OutgoingMessage, check_form, outgoing,
    publish, request,
};
use crate::call::Code;
use crate::subject::is_reserved;
use crate::text::shown;
pub(crate) use message::{GuestMessage, push};
use message::{add_message, add_setters, take};

const TYPES: &str = "wasi:messaging/types@0.2.0-draft";
const PRODUCER: &str = "wasi:messaging/producer@0.2.0-draft";
const REQUEST_REPLY: &str = "wasi:messaging/request-reply@0.2.0-draft";

/// The names of the one broker.
const CLIENTS: [&str; 3] = ["", "default", "nats"];

/// Upper bound of the replies that one request waits for.
const MAX_REPLIES: u32 = 1_000;

/// The interface's `error`.
#[derive(Clone, Debug, PartialEq, Eq, ComponentType, Lift, Lower)]
#[component(variant)]
pub(crate) enum Error {
    #[component(name = "timeout")]
    Timeout,
    #[component(name = "connection")]
    Connection(String),
    #[component(name = "permission-denied")]
    PermissionDenied(String),
    #[component(name = "other")]
    Other(String),
}

impl Error {
    /// The text of a handler's error, for a log or a dead letter.
    pub(crate) fn into_message(self) -> String {
        match self {
            Self::Timeout => "timeout".to_owned(),
            Self::Connection(why) => format!("connection: {why}"),
            Self::PermissionDenied(why) => format!("permission denied: {why}"),
            Self::Other(why) => why,
        }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Invalid(why) => Self::Other(why),
            Failure::Denied(why) => Self::PermissionDenied(why),
            Failure::Failed(error) => match error.code {
                Code::Deadline => Self::Timeout,
                Code::Unavailable => Self::Connection(error.message),
                _ => Self::Other(error.message),
            },
        }
    }
}

/// The connection of a guest.
struct Client {
    connected: bool,
}

/// The options of a request.
#[derive(Default)]
struct RequestOptions {
    timeout: Option<Duration>,
    replies: Option<u32>,
}

/// `types`, `producer` and `request-reply`.
pub(super) fn add_to_linker<T: MessagingView>(linker: &mut Linker<T>) -> wasmtime::Result<()> {
    let mut types = linker.instance(TYPES)?;
    add_client(&mut types)?;
    add_message(&mut types)?;
    add_setters(&mut types)?;
    let mut producer = linker.instance(PRODUCER)?;
    producer.func_wrap_async(
        "send",
        |mut store,
         (client, topic, message): (Resource<Client>, String, Resource<GuestMessage>)| {
            Box::new(async move {
                Ok((send(store.data_mut().messaging(), client, topic, message).await?,))
            })
        },
    )?;
    add_request_reply(&mut linker.instance(REQUEST_REPLY)?)
}

fn add_client<T: MessagingView>(types: &mut LinkerInstance<'_, T>) -> wasmtime::Result<()> {
    let client = ResourceType::host::<Client>();
    types.resource("client", client, |mut store, rep| {
        let client = Resource::<Client>::new_own(rep);
        store.data_mut().messaging().table.delete(client)?;
        Ok(())
    })?;
    types.func_wrap(
        "[static]client.connect",
        |mut store: StoreContextMut<'_, T>, (name,): (String,)| {
            if !CLIENTS.contains(&name.as_str()) {
                let why = format!("there is no client \"{}\", only \"default\"", shown(&name));
                return Ok((Err(Error::PermissionDenied(why)),));
            }
            let client = Client { connected: true };
            Ok((Ok(store.data_mut().messaging().table.push(client)?),))
        },
    )?;
    types.func_wrap(
        "[method]client.disconnect",
        |mut store: StoreContextMut<'_, T>, (client,): (Resource<Client>,)| {
            let client = store.data_mut().messaging().table.get_mut(&client)?;
            client.connected = false;
            Ok((Ok::<(), Error>(()),))
        },
    )
}

fn add_request_reply<T: MessagingView>(
    instance: &mut LinkerInstance<'_, T>,
) -> wasmtime::Result<()> {
    let options = ResourceType::host::<RequestOptions>();
    instance.resource("request-options", options, |mut store, rep| {
        let options = Resource::<RequestOptions>::new_own(rep);
        store.data_mut().messaging().table.delete(options)?;
        Ok(())
    })?;
    instance.func_wrap(
        "[constructor]request-options",
        |mut store: StoreContextMut<'_, T>, ()| {
            let options = RequestOptions::default();
            Ok((store.data_mut().messaging().table.push(options)?,))
        },
    )?;
    instance.func_wrap(
        "[method]request-options.set-timeout-ms",
        |mut store: StoreContextMut<'_, T>, (options, timeout): (Resource<RequestOptions>, u32)| {
            let options = store.data_mut().messaging().table.get_mut(&options)?;
            options.timeout = Some(Duration::from_millis(timeout.into()));
            Ok(())
        },
    )?;
    instance.func_wrap(
        "[method]request-options.set-expected-replies",
        |mut store: StoreContextMut<'_, T>, (options, replies): (Resource<RequestOptions>, u32)| {
            let options = store.data_mut().messaging().table.get_mut(&options)?;
            options.replies = Some(replies);
            Ok(())
        },
    )?;
    type Asked = (
        Resource<Client>,
        String,
        Resource<GuestMessage>,
        Option<Resource<RequestOptions>>,
    );
    instance.func_wrap_async(
        "request",
        |mut store, (client, topic, message, options): Asked| {
            Box::new(async move {
                let view = store.data_mut().messaging();
                Ok((ask(view, client, topic, message, options).await?,))
            })
        },
    )?;
    type Replied = (Resource<GuestMessage>, Resource<GuestMessage>);
    instance.func_wrap_async("reply", |mut store, (to, message): Replied| {
        Box::new(async move { Ok((reply(store.data_mut().messaging(), to, message).await?,)) })
    })
}

async fn send(
    mut view: MessagingCtxView<'_>,
    client: Resource<Client>,
    topic: String,
    message: Resource<GuestMessage>,
) -> wasmtime::Result<Result<(), Error>> {
    let GuestMessage {
        body,
        headers,
        refused,
        ..
    } = take(&mut view, message)?;
    if let Err(error) = ready(&view, &client, refused)? {
        return Ok(Err(error));
    }
    let draft = Draft {
        subject: topic,
        reply_to: None,
        headers,
        body,
    };
    Ok(publish(view.caller, draft).await?.map_err(Error::from))
}

async fn ask(
    mut view: MessagingCtxView<'_>,
    client: Resource<Client>,
    topic: String,
    message: Resource<GuestMessage>,
    options: Option<Resource<RequestOptions>>,
) -> wasmtime::Result<Result<Vec<Resource<GuestMessage>>, Error>> {
    let options = match options {
        Some(options) => view.table.delete(options)?,
        None => RequestOptions::default(),
    };
    let message = view.table.get(&message)?;
    let draft = Draft {
        subject: topic,
        reply_to: None,
        headers: message.headers.clone(),
        body: message.body.clone(),
    };
    let refused = message.refused.clone();
    if let Err(error) = ready(&view, &client, refused)? {
        return Ok(Err(error));
    }
    let expected = options.replies.unwrap_or(1);
    if !(1..=MAX_REPLIES).contains(&expected) {
        let why = format!("{expected} replies cannot be expected; accepted: 1 to {MAX_REPLIES}");
        return Ok(Err(Error::Other(why)));
    }
    let replies = request(view.caller, draft, options.timeout, expected as usize).await?;
    match replies {
        Ok(replies) => {
            let replies = replies.into_iter().map(|reply| push(&mut view, reply));
            Ok(Ok(replies.collect::<wasmtime::Result<_>>()?))
        }
        Err(failure) => Ok(Err(failure.into())),
    }
}

/// The handle of an incoming message is the permission to reply to it, also after it was handled.
async fn reply(
    mut view: MessagingCtxView<'_>,
    to: Resource<GuestMessage>,
    message: Resource<GuestMessage>,
) -> wasmtime::Result<Result<(), Error>> {
    let GuestMessage {
        body,
        headers,
        refused,
        ..
    } = take(&mut view, message)?;
    if let Some(why) = refused {
        return Ok(Err(Error::Other(why)));
    }
    let Some(subject) = view.table.get(&to)?.reply_to.clone() else {
        return Ok(Ok(()));
    };
    // The sender chose this subject, and must not gain permissions through the component.
    if is_reserved(&subject) {
        let why = format!("no reply can be sent to \"{}\"", shown(&subject));
        if view.caller.output.admits(why.len()) {
            tracing::warn!(
                service = &*view.caller.service.name,
                "a message was refused: {why}"
            );
        }
        return Ok(Err(Error::PermissionDenied(why)));
    }
    if let Err(failure) = check_form(&subject) {
        return Ok(Err(failure.into()));
    }
    let (backend, call) = outgoing(view.caller, body)?;
    let message = OutgoingMessage {
        subject,
        reply_to: None,
        headers,
        stream: None,
        call,
    };
    let sent = backend.send(message).await;
    Ok(sent.map_err(|error| Failure::Failed(error).into()))
}

/// Checks that the client is connected and that no setter of the message was refused.
fn ready(
    view: &MessagingCtxView<'_>,
    client: &Resource<Client>,
    refused: Option<String>,
) -> wasmtime::Result<Result<(), Error>> {
    if !view.table.get(client)?.connected {
        let why = "the client is disconnected".to_owned();
        return Ok(Err(Error::Connection(why)));
    }
    Ok(refused.map_or(Ok(()), |why| Err(Error::Other(why))))
}
