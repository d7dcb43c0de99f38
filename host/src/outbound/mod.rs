//! What a guest's imports reach.
//!
//! An import of an interface that another service exports becomes a [`Call`] through
//! [`Outbound`], or an [`Event`] where it is wired as one; what the host itself provides is in
//! `wasi.rs` and `keyvalue.rs`.

pub(crate) mod keyvalue;
pub mod messaging;
pub mod nats;
pub(crate) mod wasi;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::jetstream::kv;
use bytes::Bytes;
use wasmtime::component::{Linker, Val};

use crate::app::EventWire;
use crate::call::{Blame, Call, CallError, Code};
use crate::events::{Event, Publication};
use crate::instance::State;
use crate::interface::FunctionId;
use crate::json;
use crate::shape::{Case, InterfaceDescription, Shape, Signature};
use crate::subject;
use messaging::{Expected, Message, Sending};

/// What is left to a guest, at the most, after its import has run out of time.
const LAST_WORDS: Duration = Duration::from_millis(20);

/// The way to other services.
pub trait Outbound: Send + Sync {
    /// Calls the function that answers on `subject`. Ends by the call's deadline, whatever happens.
    fn call<'a>(
        &'a self,
        subject: &'a str,
        call: Call,
    ) -> Pin<Box<dyn Future<Output = Result<Bytes, CallError>> + Send + 'a>>;

    /// Publishes an event; done when it is stored, if it is one that is to be stored. Ends by the
    /// deadline, as a call does.
    fn publish<'a>(
        &'a self,
        event: Event,
    ) -> Pin<Box<dyn Future<Output = Result<(), CallError>> + Send + 'a>>;

    /// Opens the bucket of this name, which is made if there is none. There is nothing to keep data
    /// in unless an implementation says otherwise.
    fn data<'a>(
        &'a self,
        bucket: &'a str,
    ) -> Pin<Box<dyn Future<Output = Result<kv::Store, CallError>> + Send + 'a>> {
        Box::pin(async move {
            let message = format!("there is nothing to keep {bucket} in");
            Err(CallError::new(Code::Unavailable, Blame::Host, message))
        })
    }

    /// Publishes a raw message; done when it is stored, if it is one that is to be stored. Whether
    /// the subject is granted is for the caller to know.
    fn send<'a>(
        &'a self,
        message: Sending,
    ) -> Pin<Box<dyn Future<Output = Result<(), CallError>> + Send + 'a>> {
        Box::pin(std::future::ready(Err(no_messages(&message.subject))))
    }

    /// Publishes a raw message and gives the replies that have come until the message's deadline:
    /// at least one, and no more than expected.
    fn ask<'a>(
        &'a self,
        message: Sending,
        expected: Expected,
    ) -> Pin<Box<dyn Future<Output = Result<Vec<Message>, CallError>> + Send + 'a>> {
        let _ = expected;
        Box::pin(std::future::ready(Err(no_messages(&message.subject))))
    }
}

fn no_messages(subject: &str) -> CallError {
    let why = format!("there is no way to send a message on {subject}");
    CallError::new(Code::Unavailable, Blame::Host, why)
}

/// An imported function, resolved when its service is linked.
struct Import {
    id: FunctionId,
    subject: String,
    signature: Signature,
    /// How it publishes, when it is no call but an event.
    publication: Option<Publication>,
    on_failure: OnFailure,
    limits: json::Limits,
}

/// How a guest learns that a call it made has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OnFailure {
    /// Its WIT has no place for it: the guest traps.
    Trap,
    /// The error type is a `string`.
    Message,
    /// The error type has a case `unavailable` with a `string`.
    Unavailable,
    /// The error type has a case `unavailable` without payload.
    BareUnavailable,
    /// The error type is an enum with the case `unavailable`.
    EnumUnavailable,
}

/// Defines every function of an imported interface as a call to whoever exports it, or as an event
/// when it is wired so.
pub(crate) fn link(
    linker: &mut Linker<State>,
    app: &str,
    interface: &InterfaceDescription,
    events: Option<&EventWire>,
    limits: &json::Limits,
) -> wasmtime::Result<()> {
    let mut instance = linker.instance(&interface.id.to_string())?;
    for (name, signature) in &interface.functions {
        let id = interface.id.function(name);
        let import = Arc::new(Import {
            subject: subject::of_function(app, &id),
            id,
            signature: signature.clone(),
            publication: events.and_then(|wire| Publication::new(app, wire, name)),
            on_failure: OnFailure::of(signature),
            limits: *limits,
        });
        instance.func_new_async(name, move |mut store, _, arguments, results| {
            let import = Arc::clone(&import);
            Box::new(async move { import.call(store.data_mut(), arguments, results).await })
        })?;
    }
    Ok(())
}

impl Import {
    async fn call(
        &self,
        state: &mut State,
        arguments: &[Val],
        results: &mut [Val],
    ) -> wasmtime::Result<()> {
        let caller = state.spec.name.clone();
        let Some(current) = &mut state.current else {
            // While it is instantiated a component belongs to no call.
            wasmtime::bail!("{} was called before any call began", self.id);
        };
        let body = json::encode_arguments(arguments, &self.signature, &self.limits)
            .map_err(|error| wasmtime::format_err!("arguments of {}: {error}", self.id))?;
        let call = Call {
            body: body.into(),
            deadline: before(current.deadline),
            hops: current.hops.saturating_add(1),
            caller: Some(caller),
            trace: current.trace.clone(),
        };
        let outbound = Arc::clone(&current.outbound);
        let result = match &self.publication {
            Some(publication) => {
                let event = publication.event(arguments, call);
                outbound.publish(event).await.map(|()| publication.done())
            }
            None => {
                let reply = outbound.call(&self.subject, call).await;
                reply.and_then(|body| self.decode(&body))
            }
        };
        let value = match result {
            Ok(value) => value,
            Err(error) => match self.on_failure.value(&error) {
                Some(value) => Some(value),
                None => {
                    let message = error.message.clone();
                    current.failed_import = Some(Box::new((self.id.clone(), error)));
                    wasmtime::bail!("{} failed: {message}", self.id);
                }
            },
        };
        if let (Some(result), Some(value)) = (results.first_mut(), value) {
            *result = value;
        }
        Ok(())
    }

    fn decode(&self, body: &[u8]) -> Result<Option<Val>, CallError> {
        json::decode_result(body, &self.signature, &self.limits).map_err(|error| {
            CallError::new(
                Code::Dependency,
                Blame::Guest,
                format!("result of {}: {error}", self.id),
            )
        })
    }
}

/// The deadline of an import: so much before its caller's own that a guest whose import runs out of
/// time can still say so.
fn before(deadline: Instant) -> Instant {
    let left = deadline.saturating_duration_since(Instant::now());
    deadline - (left / 10).min(LAST_WORDS)
}

impl OnFailure {
    fn of(signature: &Signature) -> Self {
        let Some(Shape::Result { err: Some(err), .. }) = &signature.result else {
            return Self::Trap;
        };
        match &**err {
            Shape::String => Self::Message,
            Shape::Enum(cases) if cases.iter().any(|c| &**c == UNAVAILABLE) => {
                Self::EnumUnavailable
            }
            Shape::Variant(cases) => match cases.iter().find(|case| &*case.name == UNAVAILABLE) {
                Some(Case { payload: None, .. }) => Self::BareUnavailable,
                Some(Case {
                    payload: Some(Shape::String),
                    ..
                }) => Self::Unavailable,
                _ => Self::Trap,
            },
            _ => Self::Trap,
        }
    }

    fn value(self, error: &CallError) -> Option<Val> {
        let message = || Val::String(error.message.clone());
        let unavailable = UNAVAILABLE.to_owned();
        let value = match self {
            Self::Trap => return None,
            Self::Message => message(),
            Self::Unavailable => Val::Variant(unavailable, Some(Box::new(message()))),
            Self::BareUnavailable => Val::Variant(unavailable, None),
            Self::EnumUnavailable => Val::Enum(unavailable),
        };
        Some(Val::Result(Err(Some(Box::new(value)))))
    }
}

/// The case of an error type that means "the service could not be reached or failed".
const UNAVAILABLE: &str = "unavailable";

#[cfg(test)]
mod tests {
    use super::*;

    fn on_failure(err: Shape) -> OnFailure {
        let result = Shape::Result {
            ok: None,
            err: Some(Box::new(err)),
        };
        OnFailure::of(&Signature {
            params: Box::default(),
            result: Some(result),
        })
    }

    fn case(payload: Option<Shape>) -> Shape {
        Shape::Variant(
            [Case {
                name: UNAVAILABLE.into(),
                payload,
            }]
            .into(),
        )
    }

    #[test]
    fn a_failure_becomes_a_value_where_the_type_has_a_place_for_it() {
        assert_eq!(on_failure(Shape::String), OnFailure::Message);
        assert_eq!(on_failure(case(None)), OnFailure::BareUnavailable);
        assert_eq!(
            on_failure(case(Some(Shape::String))),
            OnFailure::Unavailable
        );
        let cases: [Box<str>; 2] = ["busy".into(), UNAVAILABLE.into()];
        assert_eq!(
            on_failure(Shape::Enum(cases.into())),
            OnFailure::EnumUnavailable
        );
    }

    #[test]
    fn a_failure_traps_where_the_type_has_none() {
        assert_eq!(on_failure(case(Some(Shape::U32))), OnFailure::Trap);
        assert_eq!(on_failure(Shape::U8), OnFailure::Trap);
        let plain = Signature {
            params: Box::default(),
            result: Some(Shape::String),
        };
        assert_eq!(OnFailure::of(&plain), OnFailure::Trap);
    }
}
