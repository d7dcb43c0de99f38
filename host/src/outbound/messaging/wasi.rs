//! `wasi:messaging@0.2.0-draft`: messages are resources, so the host keeps what they hold.
//!
//! What a guest has the host keep counts as memory of its instance.
//!
//! The draft changed without another version: setters of a message got results. A component says
//! by its own types which of the two it was written for. Where it has no place for a refusal,
//! sending the message fails.

use std::str::FromStr as _;
use std::time::Duration;

use async_nats::{HeaderName, HeaderValue};
use wasmtime::StoreContextMut;
use wasmtime::component::{
    ComponentType, Lift, Linker, LinkerInstance, Lower, Resource, ResourceType, Val,
};
use wasmtime_wasi::WasiView as _;

use super::{Draft, Failure, Message, Sending, check_form, outgoing, publish, request, shown};
use crate::call::Code;
use crate::instance::State;
use crate::manifest::subjects::is_reserved;
use crate::wire;

const TYPES: &str = "wasi:messaging/types@0.2.0-draft";
const PRODUCER: &str = "wasi:messaging/producer@0.2.0-draft";
const REQUEST_REPLY: &str = "wasi:messaging/request-reply@0.2.0-draft";

/// The names under which a guest may ask for the one broker that there is.
const CLIENTS: [&str; 3] = ["", "default", "nats"];

/// Replies that one request may wait for.
const MAX_REPLIES: u32 = 1_000;

/// Bytes that a message takes besides what the guest put into it, roughly.
const OVERHEAD: usize = 128;

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
    /// What a handler's error says, in a log or a dead letter.
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

/// A connection, as far as the guest knows.
struct Client {
    connected: bool,
}

/// A message that a guest has made or was given.
pub(crate) struct GuestMessage {
    topic: Option<String>,
    reply_to: Option<String>,
    body: Vec<u8>,
    /// The content type among them.
    headers: Vec<(String, String)>,
    /// What a setter refused that could not say so.
    refused: Option<String>,
}

/// What a guest wants of a request.
#[derive(Default)]
struct RequestOptions {
    timeout: Option<Duration>,
    replies: Option<u32>,
}

impl GuestMessage {
    /// Bytes that it takes here.
    fn size(&self) -> usize {
        let headers = self.headers.iter();
        let headers: usize = headers.map(|(n, v)| OVERHEAD + n.len() + v.len()).sum();
        OVERHEAD + self.body.len() + headers
    }

    fn content_type(&self) -> Option<String> {
        let mut headers = self.headers.iter();
        headers
            .find(|(name, _)| is_content_type(name))
            .map(|(_, value)| value.clone())
    }

    fn metadata(&self) -> Option<Vec<(String, String)>> {
        let headers = self.headers.iter();
        let metadata: Vec<_> = headers
            .filter(|(name, _)| !is_content_type(name))
            .cloned()
            .collect();
        (!metadata.is_empty()).then_some(metadata)
    }

    fn put(&mut self, name: &str, value: &str) -> Result<(), String> {
        check_header(name, value)?;
        self.remove(name);
        self.headers.push((name.to_owned(), value.to_owned()));
        Ok(())
    }

    fn remove(&mut self, name: &str) {
        let same = |other: &str| match is_content_type(name) {
            true => is_content_type(other),
            false => other == name,
        };
        self.headers.retain(|(other, _)| !same(other));
    }

    /// All or nothing.
    fn set(&mut self, metadata: &[(&str, &str)]) -> Result<(), String> {
        metadata
            .iter()
            .try_for_each(|(name, value)| check_header(name, value))?;
        self.headers.retain(|(name, _)| is_content_type(name));
        for (name, value) in metadata {
            let (name, value) = ((*name).to_owned(), (*value).to_owned());
            self.headers.push((name, value));
        }
        Ok(())
    }
}

impl From<Message> for GuestMessage {
    fn from(message: Message) -> Self {
        Self {
            topic: Some(message.subject),
            reply_to: message.reply_to,
            body: message.body,
            headers: message.headers,
            refused: None,
        }
    }
}

fn is_content_type(name: &str) -> bool {
    name.eq_ignore_ascii_case(wire::CONTENT_TYPE)
}

fn check_header(name: &str, value: &str) -> Result<(), String> {
    if wire::is_own_header(name) {
        return Err(format!("\"{}\" is for the host to set", shown(name)));
    }
    // A colon would end the name on the wire.
    let plain = |b: u8| b.is_ascii_graphic() && b != b':';
    if name.is_empty() || !name.bytes().all(plain) || HeaderName::from_str(name).is_err() {
        return Err(format!("\"{}\" is no name of a header", shown(name)));
    }
    match HeaderValue::from_str(value) {
        Ok(_) => Ok(()),
        Err(_) => Err(format!("the value of \"{}\" has a line break", shown(name))),
    }
}

/// Has the guest own a message.
pub(crate) fn push(
    state: &mut State,
    message: impl Into<GuestMessage>,
) -> wasmtime::Result<Resource<GuestMessage>> {
    let message = message.into();
    state.recount(0, message.size())?;
    Ok(state.ctx().table.push(message)?)
}

/// Takes a message that the guest no longer owns.
fn take(state: &mut State, message: Resource<GuestMessage>) -> wasmtime::Result<GuestMessage> {
    let message = state.ctx().table.delete(message)?;
    state.recount(message.size(), 0)?;
    Ok(message)
}

fn change<T>(
    state: &mut State,
    message: &Resource<GuestMessage>,
    change: impl FnOnce(&mut GuestMessage) -> T,
) -> wasmtime::Result<T> {
    let message = state.ctx().table.get_mut(message)?;
    let before = message.size();
    let changed = change(message);
    let after = message.size();
    state.recount(before, after)?;
    Ok(changed)
}

/// `types`, `producer` and `request-reply`.
pub(super) fn add_to_linker(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    let mut types = linker.instance(TYPES)?;
    add_client(&mut types)?;
    add_message(&mut types)?;
    add_setters(&mut types)?;
    let mut producer = linker.instance(PRODUCER)?;
    producer.func_wrap_async(
        "send",
        |mut store,
         (client, topic, message): (Resource<Client>, String, Resource<GuestMessage>)| {
            Box::new(async move { Ok((send(store.data_mut(), client, topic, message).await?,)) })
        },
    )?;
    add_request_reply(&mut linker.instance(REQUEST_REPLY)?)
}

fn add_client(types: &mut LinkerInstance<'_, State>) -> wasmtime::Result<()> {
    let client = ResourceType::host::<Client>();
    types.resource("client", client, |mut store, rep| {
        let client = Resource::<Client>::new_own(rep);
        store.data_mut().ctx().table.delete(client)?;
        Ok(())
    })?;
    types.func_wrap(
        "[static]client.connect",
        |mut store: StoreContextMut<'_, State>, (name,): (String,)| {
            if !CLIENTS.contains(&name.as_str()) {
                let why = format!("there is no client \"{}\", only \"default\"", shown(&name));
                return Ok((Err(Error::PermissionDenied(why)),));
            }
            let client = Client { connected: true };
            Ok((Ok(store.data_mut().ctx().table.push(client)?),))
        },
    )?;
    types.func_wrap(
        "[method]client.disconnect",
        |mut store: StoreContextMut<'_, State>, (client,): (Resource<Client>,)| {
            let client = store.data_mut().ctx().table.get_mut(&client)?;
            client.connected = false;
            Ok((Ok::<(), Error>(()),))
        },
    )
}

fn add_message(types: &mut LinkerInstance<'_, State>) -> wasmtime::Result<()> {
    type Store<'a> = StoreContextMut<'a, State>;
    type Borrowed = (Resource<GuestMessage>,);
    let message = ResourceType::host::<GuestMessage>();
    types.resource("message", message, |mut store, rep| {
        take(store.data_mut(), Resource::new_own(rep)).map(drop)
    })?;
    types.func_wrap(
        "[constructor]message",
        |mut store: Store<'_>, (body,): (Vec<u8>,)| {
            let message = GuestMessage {
                topic: None,
                reply_to: None,
                body,
                headers: Vec::new(),
                refused: None,
            };
            Ok((push(store.data_mut(), message)?,))
        },
    )?;
    types.func_wrap(
        "[method]message.topic",
        |mut store: Store<'_>, (message,): Borrowed| {
            let message = store.data_mut().ctx().table.get(&message)?;
            Ok((message.topic.clone(),))
        },
    )?;
    types.func_wrap(
        "[method]message.content-type",
        |mut store: Store<'_>, (message,): Borrowed| {
            let message = store.data_mut().ctx().table.get(&message)?;
            Ok((message.content_type(),))
        },
    )?;
    types.func_wrap(
        "[method]message.data",
        |mut store: Store<'_>, (message,): Borrowed| {
            let message = store.data_mut().ctx().table.get(&message)?;
            Ok((message.body.clone(),))
        },
    )?;
    types.func_wrap(
        "[method]message.metadata",
        |mut store: Store<'_>, (message,): Borrowed| {
            let message = store.data_mut().ctx().table.get(&message)?;
            Ok((message.metadata(),))
        },
    )?;
    types.func_wrap(
        "[method]message.set-data",
        |mut store: Store<'_>, (message, body): (Resource<GuestMessage>, Vec<u8>)| {
            change(store.data_mut(), &message, |message| message.body = body)
        },
    )?;
    types.func_wrap(
        "[method]message.remove-metadata",
        |mut store: Store<'_>, (message, key): (Resource<GuestMessage>, String)| {
            change(store.data_mut(), &message, |message| message.remove(&key))
        },
    )
}

/// What became results in the draft's later text.
fn add_setters(types: &mut LinkerInstance<'_, State>) -> wasmtime::Result<()> {
    setter(
        types,
        "set-content-type",
        |_| None,
        |message, arguments| {
            let [Val::String(value)] = arguments else {
                return None;
            };
            Some(message.put(wire::CONTENT_TYPE, value))
        },
    )?;
    let invalid = |why| {
        let why = Val::Option(Some(Box::new(Val::String(why))));
        let invalid = Val::Variant("invalid".to_owned(), Some(Box::new(why)));
        Some(Box::new(invalid))
    };
    setter(types, "add-metadata", invalid, |message, arguments| {
        let [Val::String(name), Val::String(value)] = arguments else {
            return None;
        };
        Some(message.put(name, value))
    })?;
    setter(types, "set-metadata", invalid, |message, arguments| {
        let [Val::List(pairs)] = arguments else {
            return None;
        };
        let pairs: Option<Vec<(&str, &str)>> = pairs.iter().map(pair).collect();
        Some(message.set(&pairs?))
    })
}

fn pair(value: &Val) -> Option<(&str, &str)> {
    let Val::Tuple(pair) = value else {
        return None;
    };
    match pair.as_slice() {
        [Val::String(name), Val::String(value)] => Some((name, value)),
        _ => None,
    }
}

/// Changes a message, or says why not. Gives nothing for arguments of other types.
type Set = fn(&mut GuestMessage, &[Val]) -> Option<Result<(), String>>;

/// Defines a method whose result, if the component has it at all, is `fail` of what `set` refuses.
fn setter(
    types: &mut LinkerInstance<'_, State>,
    name: &'static str,
    fail: fn(String) -> Option<Box<Val>>,
    set: Set,
) -> wasmtime::Result<()> {
    types.func_new(
        &format!("[method]message.{name}"),
        move |mut store, _, arguments, results| {
            let Some((Val::Resource(message), arguments)) = arguments.split_first() else {
                wasmtime::bail!("{TYPES}: {name} is no method of the message that it is called on");
            };
            let message = Resource::try_from_resource_any(*message, &mut store)?;
            let state = store.data_mut();
            let Some(done) = change(state, &message, |message| set(message, arguments))? else {
                wasmtime::bail!("{TYPES}: {name} has other parameters");
            };
            match (results.first_mut(), done) {
                (Some(result), done) => *result = Val::Result(done.map(|()| None).map_err(fail)),
                (None, Ok(())) => {}
                (None, Err(why)) => change(state, &message, |m| m.refused = Some(why))?,
            }
            Ok(())
        },
    )
}

fn add_request_reply(instance: &mut LinkerInstance<'_, State>) -> wasmtime::Result<()> {
    type Store<'a> = StoreContextMut<'a, State>;
    let options = ResourceType::host::<RequestOptions>();
    instance.resource("request-options", options, |mut store, rep| {
        let options = Resource::<RequestOptions>::new_own(rep);
        store.data_mut().ctx().table.delete(options)?;
        Ok(())
    })?;
    instance.func_wrap(
        "[constructor]request-options",
        |mut store: Store<'_>, ()| {
            let options = RequestOptions::default();
            Ok((store.data_mut().ctx().table.push(options)?,))
        },
    )?;
    instance.func_wrap(
        "[method]request-options.set-timeout-ms",
        |mut store: Store<'_>, (options, timeout): (Resource<RequestOptions>, u32)| {
            let options = store.data_mut().ctx().table.get_mut(&options)?;
            options.timeout = Some(Duration::from_millis(timeout.into()));
            Ok(())
        },
    )?;
    instance.func_wrap(
        "[method]request-options.set-expected-replies",
        |mut store: Store<'_>, (options, replies): (Resource<RequestOptions>, u32)| {
            let options = store.data_mut().ctx().table.get_mut(&options)?;
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
                let state = store.data_mut();
                Ok((ask(state, client, topic, message, options).await?,))
            })
        },
    )?;
    type Replied = (Resource<GuestMessage>, Resource<GuestMessage>);
    instance.func_wrap_async("reply", |mut store, (to, message): Replied| {
        Box::new(async move { Ok((reply(store.data_mut(), to, message).await?,)) })
    })
}

async fn send(
    state: &mut State,
    client: Resource<Client>,
    topic: String,
    message: Resource<GuestMessage>,
) -> wasmtime::Result<Result<(), Error>> {
    let GuestMessage {
        body,
        headers,
        refused,
        ..
    } = take(state, message)?;
    if let Err(error) = ready(state, &client, refused)? {
        return Ok(Err(error));
    }
    let draft = Draft {
        subject: topic,
        reply_to: None,
        headers,
        body,
    };
    Ok(publish(state, draft).await?.map_err(Error::from))
}

async fn ask(
    state: &mut State,
    client: Resource<Client>,
    topic: String,
    message: Resource<GuestMessage>,
    options: Option<Resource<RequestOptions>>,
) -> wasmtime::Result<Result<Vec<Resource<GuestMessage>>, Error>> {
    let options = match options {
        Some(options) => state.ctx().table.delete(options)?,
        None => RequestOptions::default(),
    };
    let message = state.ctx().table.get(&message)?;
    let draft = Draft {
        subject: topic,
        reply_to: None,
        headers: message.headers.clone(),
        body: message.body.clone(),
    };
    let refused = message.refused.clone();
    if let Err(error) = ready(state, &client, refused)? {
        return Ok(Err(error));
    }
    let expected = options.replies.unwrap_or(1);
    if !(1..=MAX_REPLIES).contains(&expected) {
        let why = format!("{expected} replies cannot be expected; accepted: 1 to {MAX_REPLIES}");
        return Ok(Err(Error::Other(why)));
    }
    let replies = request(state, draft, options.timeout, expected as usize).await?;
    match replies {
        Ok(replies) => {
            let replies = replies.into_iter().map(|reply| push(state, reply));
            Ok(Ok(replies.collect::<wasmtime::Result<_>>()?))
        }
        Err(failure) => Ok(Err(failure.into())),
    }
}

/// A handle to a message that came in is the right to reply to it, also when it is no longer the
/// one that is being handled.
async fn reply(
    state: &mut State,
    to: Resource<GuestMessage>,
    message: Resource<GuestMessage>,
) -> wasmtime::Result<Result<(), Error>> {
    let GuestMessage {
        body,
        headers,
        refused,
        ..
    } = take(state, message)?;
    if let Some(why) = refused {
        return Ok(Err(Error::Other(why)));
    }
    let Some(subject) = state.ctx().table.get(&to)?.reply_to.clone() else {
        return Ok(Ok(()));
    };
    // Whoever sent it chose this, and must not get written what it could not write itself.
    if is_reserved(&subject) {
        let why = format!("nobody can be replied to on \"{}\"", shown(&subject));
        tracing::warn!(
            service = &*state.spec.name,
            "a raw message was refused: {why}"
        );
        return Ok(Err(Error::PermissionDenied(why)));
    }
    if let Err(failure) = check_form(&subject) {
        return Ok(Err(failure.into()));
    }
    let (outbound, call) = outgoing(state, body)?;
    let sending = Sending {
        subject,
        reply_to: None,
        headers,
        stream: None,
        call,
    };
    let sent = outbound.send(sending).await;
    Ok(sent.map_err(|error| Failure::Failed(error).into()))
}

/// Whether something can be sent with this client, as far as it and the message tell.
fn ready(
    state: &mut State,
    client: &Resource<Client>,
    refused: Option<String>,
) -> wasmtime::Result<Result<(), Error>> {
    if !state.ctx().table.get(client)?.connected {
        let why = "the client is disconnected".to_owned();
        return Ok(Err(Error::Connection(why)));
    }
    Ok(refused.map_or(Ok(()), |why| Err(Error::Other(why))))
}
