//! Imports of interfaces that other services export: each is a call, or an event where the interface
//! is wired so.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use wasmtime::StoreContextMut;
use wasmtime::component::{Accessor, Linker};

use super::{Answer, Backend, Caller, CallerView, Values};
use crate::call::CallError;
use crate::interface::FunctionId;
use crate::json::{self, UnknownKeys};
use crate::plan::{EventWire, Publication};
use crate::shape::{Case, InterfaceDescription, Shape, Signature, TypeId};
use crate::spans::{Description, KeyValue, SpanKind, Tracer};
use crate::stats::Stats;
use crate::subject;
use crate::value::streams::Account;
use crate::value::{self, Imported, Value};

/// An imported function, resolved when its service is linked.
pub(crate) struct Import {
    /// Its full name.
    pub(crate) id: FunctionId,
    /// Counts of what this service has called or published.
    pub(crate) stats: Stats,
    subject: String,
    signature: Signature,
    identity: TypeId,
    has_streams: bool,
    /// The publication, if it is an event and no call.
    publication: Option<Publication>,
    on_failure: OnFailure,
    limits: json::Limits,
    tracer: Arc<Tracer>,
}

/// The form in which a guest gets the failure of an import.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OnFailure {
    /// The WIT has no value for it: the guest traps.
    Trap,
    /// The error type is a `string`.
    Message,
    /// The error type has a case `unavailable` with a `string`, which has this number.
    Unavailable(u32),
    /// The error type has a case `unavailable` without payload.
    BareUnavailable(u32),
    /// The error type is an enum with the case `unavailable`.
    EnumUnavailable(u32),
}

/// Where the functions of an imported interface lead, and how.
pub(crate) struct Wiring<'a> {
    pub(crate) app: &'a str,
    /// The wire, where they are events.
    pub(crate) events: Option<&'a EventWire>,
    /// The exporter, if the service has chosen one by name.
    pub(crate) exporter: Option<&'a str>,
    /// Those among them that are `async func`s.
    pub(crate) async_functions: &'a BTreeSet<FunctionId>,
    pub(crate) limits: json::Limits,
    pub(crate) tracer: &'a Arc<Tracer>,
}

/// Defines every function of an imported interface as a call to its exporter, or as an event.
pub(crate) fn link<T: CallerView>(
    linker: &mut Linker<T>,
    interface: &InterfaceDescription,
    wiring: &Wiring<'_>,
) -> wasmtime::Result<Vec<Arc<Import>>> {
    let Wiring {
        app,
        events,
        exporter,
        async_functions,
        limits,
        tracer,
    } = *wiring;
    let mut instance = linker.instance(&interface.id.to_string())?;
    let mut imports = Vec::new();
    for (name, signature) in &interface.functions {
        let id = interface.id.function(name);
        let import = Arc::new(Import {
            subject: match exporter {
                Some(service) => subject::of_service_function(app, service, &id),
                None => subject::of_function(app, &id),
            },
            id,
            stats: Stats::default(),
            signature: signature.clone(),
            identity: signature.identity(),
            has_streams: signature.stream().is_some(),
            publication: events.and_then(|wire| Publication::new(app, wire, name)),
            on_failure: OnFailure::of(signature),
            limits: json::Limits {
                // Services are deployed one at a time, so what answers may know a later type.
                unknown_keys: UnknownKeys::Ignore,
                ..limits
            },
            tracer: Arc::clone(tracer),
        });
        imports.push(Arc::clone(&import));
        let is_async = async_functions.contains(&import.id);
        value::define(&mut instance, name, signature, is_async, import)?;
    }
    Ok(imports)
}

impl<T: CallerView> Imported<T> for Arc<Import> {
    fn account(&self, data: &mut T) -> Arc<Account> {
        let call = data.caller().call.as_ref();
        call.and_then(|call| call.streams.clone())
            .unwrap_or_default()
    }

    fn call<'a>(
        &self,
        store: StoreContextMut<'a, T>,
        arguments: Vec<Value>,
    ) -> Pin<Box<dyn Future<Output = wasmtime::Result<Option<Value>>> + Send + 'a>> {
        let import = Self::clone(self);
        Box::pin(async move { Import::call(&import, store, arguments).await })
    }

    fn call_concurrent<'a>(
        &self,
        store: &'a Accessor<T>,
        arguments: Vec<Value>,
    ) -> Pin<Box<dyn Future<Output = wasmtime::Result<Option<Value>>> + Send + 'a>> {
        let import = Self::clone(self);
        Box::pin(async move { Import::call(&import, store, arguments).await })
    }
}

/// A store as an import has it: its own until it returns, or now and then.
trait Lends: Send {
    fn with<R>(&mut self, work: impl FnOnce(&mut Caller) -> R) -> R;
}

impl<T: CallerView> Lends for StoreContextMut<'_, T> {
    fn with<R>(&mut self, work: impl FnOnce(&mut Caller) -> R) -> R {
        work(self.data_mut().caller())
    }
}

impl<T: CallerView> Lends for &Accessor<T> {
    fn with<R>(&mut self, work: impl FnOnce(&mut Caller) -> R) -> R {
        Accessor::with(self, |mut store| work(store.data_mut().caller()))
    }
}

impl Import {
    async fn call(
        &self,
        mut store: impl Lends,
        arguments: Vec<Value>,
    ) -> wasmtime::Result<Option<Value>> {
        let outgoing = store.with(|caller| caller.outgoing(Bytes::new()));
        let Some((backend, mut call)) = outgoing else {
            // While it is instantiated a component belongs to no call.
            wasmtime::bail!("{} was called before any call began", self.id);
        };
        let (started, deadline) = (call.arrived, call.deadline);
        let span = self.tracer.begin(&mut call.trace, call.arrived);
        let answer = match &self.publication {
            Some(publication) => {
                call.body = self.encode(&arguments)?;
                let event = publication.event(&arguments, call);
                let published = backend.publish(event).await;
                if published.is_ok() {
                    store.with(|caller| caller.counts.published.add(1));
                }
                published.map(|()| Answer::Value(publication.done()))
            }
            None => {
                let values = Values {
                    arguments,
                    signature: &self.signature,
                    identity: self.identity,
                    limits: self.limits,
                };
                if self.has_streams {
                    backend.call_streams(&self.subject, values, call).await
                } else {
                    match backend.call_values(&self.subject, values, call) {
                        Ok(pending) => pending.await,
                        Err((arguments, mut call)) => {
                            call.body = self.encode(&arguments)?;
                            let body = backend.call(&self.subject, call).await;
                            body.map(Answer::Json)
                        }
                    }
                }
            }
        };
        let result = match answer {
            Ok(Answer::Value(value)) => Ok(value),
            Ok(Answer::Json(body)) => match self.decode(&body) {
                Ok(value) => Ok(value),
                Err(error) => Err(self.bad_reply(&error, &*backend, deadline).await),
            },
            Err(error) => Err(error),
        };
        self.stats.record(started.elapsed(), result.as_ref().err());
        span.end(result.as_ref().err(), || self.describe());
        match result {
            Ok(value) => Ok(value),
            Err(error) => match self.on_failure.value(&error) {
                Some(value) => Ok(Some(value)),
                None => {
                    let message = error.message.clone();
                    store.with(|caller| {
                        if let Some(call) = &mut caller.call {
                            call.failed_import = Some(Box::new((self.id.clone(), error)));
                        }
                    });
                    wasmtime::bail!("{} failed: {message}", self.id);
                }
            },
        }
    }

    /// Its type.
    pub(crate) fn signature(&self) -> &Signature {
        &self.signature
    }

    /// Whether this is where it is called, or a partition of where it is published.
    pub(crate) fn is_at(&self, subject: &str) -> bool {
        let rest = subject.strip_prefix(&*self.subject);
        rest.is_some_and(|rest| rest.is_empty() || self.is_event() && rest.starts_with('.'))
    }

    /// Whether calling it publishes an event.
    pub(crate) fn is_event(&self) -> bool {
        self.publication.is_some()
    }

    /// What its spans are of, by OpenTelemetry's conventions for RPC and for messaging.
    fn describe(&self) -> Description {
        if self.publication.is_some() {
            return Description {
                kind: SpanKind::Producer,
                name: format!("publish {}", self.id).into(),
                attributes: vec![
                    KeyValue::new("messaging.system", "nats"),
                    KeyValue::new("messaging.operation.name", "publish"),
                    KeyValue::new("messaging.operation.type", "send"),
                    KeyValue::new("messaging.destination.name", self.subject.clone()),
                ],
            };
        }
        Description {
            kind: SpanKind::Client,
            name: self.id.to_string().into(),
            attributes: vec![
                KeyValue::new("rpc.system.name", "wasmbay"),
                KeyValue::new("rpc.method", self.id.to_string()),
            ],
        }
    }

    fn encode(&self, arguments: &[Value]) -> wasmtime::Result<Bytes> {
        let body = json::encode_arguments(arguments, &self.signature, &self.limits);
        let body =
            body.map_err(|error| wasmtime::format_err!("arguments of {}: {error}", self.id))?;
        Ok(body.into())
    }

    fn decode(&self, body: &[u8]) -> Result<Option<Value>, json::JsonError> {
        json::decode_result(body, &self.signature, &self.limits)
    }

    /// The error of a reply that does not decode, which names who answers with another type. Boxed, as
    /// calls that succeed do not need room for it.
    fn bad_reply<'a>(
        &'a self,
        error: &'a json::JsonError,
        backend: &'a dyn Backend,
        deadline: Instant,
    ) -> BoxFuture<'a, CallError> {
        Box::pin(async move {
            let id = &self.id;
            let misfit = backend
                .misfit(&self.subject, &self.signature, deadline)
                .await;
            match misfit {
                Some(misfit) => {
                    CallError::bad_reply(format_args!("result of {id}: {error}; {misfit}"))
                }
                None => CallError::bad_reply(format_args!("result of {id}: {error}")),
            }
        })
    }
}

impl OnFailure {
    fn of(signature: &Signature) -> Self {
        let Some(Shape::Result { err: Some(err), .. }) = &signature.result else {
            return Self::Trap;
        };
        let named = match &**err {
            Shape::String => return Self::Message,
            Shape::Enum(cases) => {
                let mut cases = (0..).zip(cases);
                let found = cases.find(|(_, name)| &***name == UNAVAILABLE);
                found.map(|(case, _)| Self::EnumUnavailable(case))
            }
            Shape::Variant(cases) => {
                let mut cases = (0..).zip(cases);
                match cases.find(|(_, case)| &*case.name == UNAVAILABLE) {
                    Some((case, Case { payload: None, .. })) => Some(Self::BareUnavailable(case)),
                    Some((
                        case,
                        Case {
                            payload: Some(Shape::String),
                            ..
                        },
                    )) => Some(Self::Unavailable(case)),
                    _ => None,
                }
            }
            _ => None,
        };
        named.unwrap_or(Self::Trap)
    }

    fn value(self, error: &CallError) -> Option<Value> {
        let message = || Value::String(error.message.clone());
        let value = match self {
            Self::Trap => return None,
            Self::Message => message(),
            Self::Unavailable(case) => Value::Variant(case, Some(Box::new(message()))),
            Self::BareUnavailable(case) => Value::Variant(case, None),
            Self::EnumUnavailable(case) => Value::Enum(case),
        };
        Some(Value::Result(Err(Some(Box::new(value)))))
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
        let other = Case {
            name: "busy".into(),
            payload: None,
        };
        let unavailable = Case {
            name: UNAVAILABLE.into(),
            payload,
        };
        Shape::Variant([other, unavailable].into())
    }

    #[test]
    fn a_failure_becomes_a_value_where_the_type_has_one() {
        assert_eq!(on_failure(Shape::String), OnFailure::Message);
        assert_eq!(on_failure(case(None)), OnFailure::BareUnavailable(1));
        assert_eq!(
            on_failure(case(Some(Shape::String))),
            OnFailure::Unavailable(1)
        );
        let cases: [Box<str>; 2] = ["busy".into(), UNAVAILABLE.into()];
        assert_eq!(
            on_failure(Shape::Enum(cases.into())),
            OnFailure::EnumUnavailable(1)
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
