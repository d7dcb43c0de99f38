//! Imports of interfaces that other services export: each is a call, or an event where the interface
//! is wired so.

use std::sync::Arc;

use wasmtime::component::{Linker, Val};

use super::{Caller, CallerView};
use crate::call::CallError;
use crate::interface::FunctionId;
use crate::json::{self, UnknownKeys};
use crate::plan::{EventWire, Publication};
use crate::shape::{Case, InterfaceDescription, Shape, Signature};
use crate::subject;

/// An imported function, resolved when its service is linked.
struct Import {
    id: FunctionId,
    subject: String,
    signature: Signature,
    /// The publication, if it is an event and no call.
    publication: Option<Publication>,
    on_failure: OnFailure,
    limits: json::Limits,
}

/// The form in which a guest gets the failure of an import.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OnFailure {
    /// The WIT has no value for it: the guest traps.
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

/// Defines every function of an imported interface as a call to its exporter, which the service may
/// have chosen by name, or as an event where the interface is wired so.
pub(crate) fn link<T: CallerView>(
    linker: &mut Linker<T>,
    app: &str,
    interface: &InterfaceDescription,
    events: Option<&EventWire>,
    exporter: Option<&str>,
    limits: &json::Limits,
) -> wasmtime::Result<()> {
    let mut instance = linker.instance(&interface.id.to_string())?;
    for (name, signature) in &interface.functions {
        let id = interface.id.function(name);
        let import = Arc::new(Import {
            subject: match exporter {
                Some(service) => subject::of_service_function(app, service, &id),
                None => subject::of_function(app, &id),
            },
            id,
            signature: signature.clone(),
            publication: events.and_then(|wire| Publication::new(app, wire, name)),
            on_failure: OnFailure::of(signature),
            limits: json::Limits {
                // Services are deployed one at a time, so what answers may know a later type.
                unknown_keys: UnknownKeys::Ignore,
                ..*limits
            },
        });
        instance.func_new_async(name, move |mut store, _, arguments, results| {
            let import = Arc::clone(&import);
            Box::new(async move {
                let caller = store.data_mut().caller();
                import.call(caller, arguments, results).await
            })
        })?;
    }
    Ok(())
}

impl Import {
    async fn call(
        &self,
        caller: &mut Caller,
        arguments: &[Val],
        results: &mut [Val],
    ) -> wasmtime::Result<()> {
        let body = json::encode_arguments(arguments, &self.signature, &self.limits)
            .map_err(|error| wasmtime::format_err!("arguments of {}: {error}", self.id))?;
        let Some((backend, call)) = caller.outgoing(body.into()) else {
            // While it is instantiated a component belongs to no call.
            wasmtime::bail!("{} was called before any call began", self.id);
        };
        let result = match &self.publication {
            Some(publication) => {
                let event = publication.event(arguments, call);
                backend.publish(event).await.map(|()| publication.done())
            }
            None => {
                let reply = backend.call(&self.subject, call).await;
                reply.and_then(|body| self.decode(&body))
            }
        };
        let value = match result {
            Ok(value) => value,
            Err(error) => match self.on_failure.value(&error) {
                Some(value) => Some(value),
                None => {
                    let message = error.message.clone();
                    if let Some(call) = &mut caller.call {
                        call.failed_import = Some(Box::new((self.id.clone(), error)));
                    }
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
        json::decode_result(body, &self.signature, &self.limits)
            .map_err(|error| CallError::bad_reply(format_args!("result of {}: {error}", self.id)))
    }
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
    fn a_failure_becomes_a_value_where_the_type_has_one() {
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
