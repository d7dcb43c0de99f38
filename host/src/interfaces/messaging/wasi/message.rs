//! The resource `message`. Its contents are in the host, and count as memory of the instance.

use std::str::FromStr as _;

use async_nats::{HeaderName, HeaderValue};
use wasmtime::StoreContextMut;
use wasmtime::component::{LinkerInstance, Resource, ResourceType, Val};

use super::TYPES;
use crate::interfaces::Message;
use crate::interfaces::messaging::{MessagingCtxView, MessagingView};
use crate::text::shown;
use crate::wire;

/// Bytes of a message besides its contents, roughly.
const OVERHEAD: usize = 128;

/// A message of a guest: created by it, or received.
pub(crate) struct GuestMessage {
    pub(super) topic: Option<String>,
    pub(super) reply_to: Option<String>,
    pub(super) body: Vec<u8>,
    /// The headers, the content type among them.
    pub(super) headers: Vec<(String, String)>,
    /// The refusal of a setter without a result.
    pub(super) refused: Option<String>,
}

impl GuestMessage {
    /// Bytes of memory that it takes.
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
        let same = |other: &str| {
            if is_content_type(name) {
                is_content_type(other)
            } else {
                other == name
            }
        };
        self.headers.retain(|(other, _)| !same(other));
    }

    /// Replaces the metadata: all or nothing.
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

/// Adds a message to the table of the guest.
pub(crate) fn push(
    view: &mut MessagingCtxView<'_>,
    message: impl Into<GuestMessage>,
) -> wasmtime::Result<Resource<GuestMessage>> {
    let message = message.into();
    view.bounds.recount(0, message.size())?;
    Ok(view.table.push(message)?)
}

/// Removes a message from the table of the guest.
pub(super) fn take(
    view: &mut MessagingCtxView<'_>,
    message: Resource<GuestMessage>,
) -> wasmtime::Result<GuestMessage> {
    let message = view.table.delete(message)?;
    view.bounds.recount(message.size(), 0)?;
    Ok(message)
}

fn change<T>(
    view: &mut MessagingCtxView<'_>,
    message: &Resource<GuestMessage>,
    change: impl FnOnce(&mut GuestMessage) -> T,
) -> wasmtime::Result<T> {
    let message = view.table.get_mut(message)?;
    let before = message.size();
    let changed = change(message);
    let after = message.size();
    view.bounds.recount(before, after)?;
    Ok(changed)
}

pub(super) fn add_message<T: MessagingView>(
    types: &mut LinkerInstance<'_, T>,
) -> wasmtime::Result<()> {
    type Borrowed = (Resource<GuestMessage>,);
    let message = ResourceType::host::<GuestMessage>();
    types.resource("message", message, |mut store, rep| {
        take(&mut store.data_mut().messaging(), Resource::new_own(rep)).map(drop)
    })?;
    types.func_wrap(
        "[constructor]message",
        |mut store: StoreContextMut<'_, T>, (body,): (Vec<u8>,)| {
            let message = GuestMessage {
                topic: None,
                reply_to: None,
                body,
                headers: Vec::new(),
                refused: None,
            };
            Ok((push(&mut store.data_mut().messaging(), message)?,))
        },
    )?;
    types.func_wrap(
        "[method]message.topic",
        |mut store: StoreContextMut<'_, T>, (message,): Borrowed| {
            let message = store.data_mut().messaging().table.get(&message)?;
            Ok((message.topic.clone(),))
        },
    )?;
    types.func_wrap(
        "[method]message.content-type",
        |mut store: StoreContextMut<'_, T>, (message,): Borrowed| {
            let message = store.data_mut().messaging().table.get(&message)?;
            Ok((message.content_type(),))
        },
    )?;
    types.func_wrap(
        "[method]message.data",
        |mut store: StoreContextMut<'_, T>, (message,): Borrowed| {
            let message = store.data_mut().messaging().table.get(&message)?;
            Ok((message.body.clone(),))
        },
    )?;
    types.func_wrap(
        "[method]message.metadata",
        |mut store: StoreContextMut<'_, T>, (message,): Borrowed| {
            let message = store.data_mut().messaging().table.get(&message)?;
            Ok((message.metadata(),))
        },
    )?;
    types.func_wrap(
        "[method]message.set-data",
        |mut store: StoreContextMut<'_, T>, (message, body): (Resource<GuestMessage>, Vec<u8>)| {
            change(&mut store.data_mut().messaging(), &message, |message| {
                message.body = body
            })
        },
    )?;
    types.func_wrap(
        "[method]message.remove-metadata",
        |mut store: StoreContextMut<'_, T>, (message, key): (Resource<GuestMessage>, String)| {
            change(&mut store.data_mut().messaging(), &message, |message| {
                message.remove(&key)
            })
        },
    )
}

/// The setters, which got results in the later text of the draft.
pub(super) fn add_setters<T: MessagingView>(
    types: &mut LinkerInstance<'_, T>,
) -> wasmtime::Result<()> {
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

/// Changes a message, or returns why not; `None` for arguments of other types.
type Set = fn(&mut GuestMessage, &[Val]) -> Option<Result<(), String>>;

/// Defines a method. If it has a result in the component, its error is `fail` of the refusal of
/// `set`.
fn setter<T: MessagingView>(
    types: &mut LinkerInstance<'_, T>,
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
            let mut view = store.data_mut().messaging();
            let Some(done) = change(&mut view, &message, |message| set(message, arguments))? else {
                wasmtime::bail!("{TYPES}: {name} has other parameters");
            };
            match (results.first_mut(), done) {
                (Some(result), done) => *result = Val::Result(done.map(|()| None).map_err(fail)),
                (None, Ok(())) => {}
                (None, Err(why)) => change(&mut view, &message, |m| m.refused = Some(why))?,
            }
            Ok(())
        },
    )
}
