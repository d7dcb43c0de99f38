//! One instance: a store, and the one call that it runs at a time.
//!
//! An instance is used by value. [`Instance::invoke`] returns it only after a call that ended well;
//! one that trapped, timed out or was dropped is gone, and its memory with it.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame, SizeHint};
use tokio::sync::oneshot;
use wasmtime::component::{
    Accessor, ComponentExportIndex, Instance as Wasm, InstancePre, Resource, ResourceTableError,
};
use wasmtime::{PoolConcurrencyLimitError, Store, Trap, UpdateDeadline, WasmBacktrace};
use wasmtime_wasi::I32Exit;
use wasmtime_wasi_http::p2::bindings::ProxyIndices;
use wasmtime_wasi_http::p2::bindings::http::types::Scheme;
use wasmtime_wasi_http::p3;
use wasmtime_wasi_http::p3::bindings::ServiceIndices;
use wasmtime_wasi_http::{WasiBody, WasiHttpView as _};

use super::Runtime;
use super::component::HandlerKind;
use super::engine::Flavor;
use super::pool::{Lease, Share};
use super::state::{Of, State};
use super::turns;
use crate::call::CallError;
use crate::interface::{FunctionId, InterfaceId};
use crate::interfaces::files::Folders;
use crate::interfaces::held::{MAX_HANDLES, MAX_HELD};
use crate::interfaces::http::Connections;
use crate::interfaces::messaging::MessagingView as _;
use crate::interfaces::messaging::wasi as wasi_messaging;
use crate::interfaces::messaging::wasmcloud::BrokerMessage;
use crate::interfaces::sockets::Sockets;
use crate::interfaces::{CurrentCall, Message, Output};
use crate::json;
use crate::manifest::ServiceSpec;
use crate::spans::Tracer;
use crate::telemetry::Counts;
use crate::value::streams::{self, Account, Broken};
use crate::value::{self, ResultPath, Value};

/// The linked component and the context that all instances of one service share.
pub(super) struct Blueprint {
    pub(super) pre: InstancePre<State>,
    pub(super) flavor: Flavor,
    pub(super) spec: Arc<ServiceSpec>,
    /// What it writes to the log.
    pub(super) output: Arc<Output>,
    /// The connections of its outgoing HTTP.
    pub(super) connections: Arc<Connections>,
    /// The endpoints that it may reach over sockets.
    pub(super) sockets: Arc<Sockets>,
    /// The folders that it may read.
    pub(super) folders: Folders,
    /// Records its spans.
    pub(super) tracer: Arc<Tracer>,
    /// What it has done beside its calls.
    pub(super) counts: Arc<Counts>,
    /// Bytes that the host copies out of an instance in one go; see [`fuel`].
    pub(super) fuel: usize,
    /// The bucket with the service's data.
    pub(super) bucket: Arc<str>,
    /// The bucket with the service's objects.
    pub(super) objects: Arc<str>,
    pub(super) runtime: Runtime,
    /// Its idle instances.
    pub(super) share: Share,
}

/// The answer of an HTTP component: a response whose body it goes on to write, or the name of an error.
pub(super) type Head = Result<http::Response<WasiBody>, String>;

/// Where a component takes HTTP requests.
pub(super) enum HandlerIndices {
    /// `wasi:http/incoming-handler` of WASI 0.2.
    P2(ProxyIndices),
    /// `wasi:http/handler` of WASI 0.3.
    P3(ServiceIndices),
}

impl HandlerIndices {
    pub(super) fn new(pre: &InstancePre<State>, handler: &InterfaceId) -> wasmtime::Result<Self> {
        if handler.name == "handler" {
            return ServiceIndices::new(pre).map(Self::P3);
        }
        ProxyIndices::new(pre).map(Self::P2)
    }
}

/// How a command has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Well.
    Done,
    /// `run` returned an error.
    Error,
    /// It exited with a status other than 0.
    Status(i32),
}

/// A live instance.
pub(super) struct Instance {
    pub(super) store: Store<State>,
    pub(super) wasm: Wasm,
    flavor: Flavor,
    pub(super) calls: u32,
    /// Whether its last call has left streams open, which nothing writes any more.
    has_open_streams: bool,
    /// Whether its last call asked for anything outside of the host.
    pub(super) acted: bool,
    /// Last, so that it is given back when everything else is.
    _lease: Lease,
}

/// An HTTP request whose guest failed.
pub(super) struct Failed {
    pub(super) error: CallError,
    /// Whether it had asked for anything outside of the host before.
    pub(super) acted: bool,
}

impl Instance {
    /// A fresh instance. When all that can exist do, the idle ones of all services make room. The
    /// last ones are for services that have less than their part of all.
    pub(super) async fn new(blueprint: &Blueprint) -> Result<Self, CallError> {
        Self::of(blueprint, Of::Calls).await
    }

    /// The same for something else than calls.
    pub(super) async fn of(blueprint: &Blueprint, of: Of<'_>) -> Result<Self, CallError> {
        let instances = blueprint.runtime.engine.instances();
        let lease = blueprint.share.lease();
        if !lease.is_granted(instances) {
            blueprint.share.evict_soon();
            if !lease.is_granted(instances) {
                let own = lease.others_of_service();
                return Err(CallError::overloaded(format_args!(
                    "the service has {own} of the host's {instances} instances, and the few that are left are for other services"
                )));
            }
        }
        match Self::instantiate(blueprint, of, lease).await {
            Err((_, error)) if error.is::<PoolConcurrencyLimitError>() => {
                blueprint.share.evict();
                Self::instantiate(blueprint, of, blueprint.share.lease()).await
            }
            result => result,
        }
        .map_err(|(refused, error)| {
            if error.is::<PoolConcurrencyLimitError>() {
                let why = format!("all {instances} instances of this host are in use");
                return CallError::overloaded(why);
            }
            let why = describe_trap(&error);
            CallError::trap(match refused {
                Some(limit) => format!("an instance needs more than {limit}: {why}"),
                None => format!("an instance could not start: {why}"),
            })
        })
    }

    async fn instantiate(
        blueprint: &Blueprint,
        of: Of<'_>,
        lease: Lease,
    ) -> Result<Self, (Option<String>, wasmtime::Error)> {
        let (state, counts) = (State::new(blueprint, of), &blueprint.counts);
        let mut store = Store::new(blueprint.pre.engine(), state);
        store.limiter(|state| &mut state.bounds);
        store.set_hostcall_fuel(blueprint.fuel);
        store.set_max_component_handles(MAX_HANDLES);
        let turns = blueprint.runtime.turns.clone();
        store.epoch_deadline_callback(move |mut store| {
            let state = store.data_mut();
            state.check_held()?;
            state.ticks = state.ticks.saturating_add(1);
            let turn = turns.next(state.ticks);
            Ok(UpdateDeadline::YieldCustom(1, Box::pin(turn)))
        });
        store.set_epoch_deadline(1);
        let created = {
            let mut created = pin!(blueprint.pre.instantiate_async(&mut store));
            poll_fn(|context| turns::poll(created.as_mut(), context, counts, None)).await
        };
        match created {
            Ok(wasm) => Ok(Self {
                store,
                wasm,
                flavor: blueprint.flavor,
                calls: 0,
                has_open_streams: false,
                acted: false,
                _lease: lease,
            }),
            Err(error) => Err((store.data_mut().bounds.refused.take(), error)),
        }
    }

    /// Runs one exported function, and returns its result if it has one. A result with streams goes through `early`
    /// as soon as the guest returns it, which goes on to write them.
    ///
    /// # Errors
    ///
    /// The guest trapped, by itself or because of a failed import without a value for the failure.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the instance.
    pub(super) async fn invoke(
        mut self,
        (function, path): (&ComponentExportIndex, ResultPath),
        arguments: &[Value],
        mut call: CurrentCall,
        early: Option<Early>,
    ) -> Result<(Self, Option<Value>), CallError> {
        // Before the store, which it outlives otherwise: what nobody writes any more looks like an end.
        let written = Written::of(self.flavor, &mut call);
        let within = call.trace.ids();
        self.begin(call);
        let Some(function) = self.wasm.get_func(&mut self.store, function) else {
            return Err(CallError::defect("the function is not exported"));
        };
        let counts = Arc::clone(&self.store.data().caller.counts);
        let called = {
            let mut called = pin!(async {
                let result = value::call(function, &mut self.store, arguments, path).await?;
                let result = match (result, early) {
                    (Some(result), Some(early)) => self.give(result, early, &written)?,
                    (result, _) => result,
                };
                self.finish_tasks().await?;
                wasmtime::Result::Ok(result)
            });
            poll_fn(|context| turns::poll(called.as_mut(), context, &counts, within)).await
        };
        let mut result = None;
        let instance = self.finish(called.map(|value| result = value))?;
        written.settle();
        Ok((instance, result))
    }

    /// Runs a command to its end.
    ///
    /// # Errors
    ///
    /// As for [`Self::invoke`]; a command that exits has ended, whatever its status.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the instance.
    pub(super) async fn command(
        mut self,
        (function, path): (&ComponentExportIndex, ResultPath),
        call: CurrentCall,
    ) -> Result<Exit, CallError> {
        let within = call.trace.ids();
        self.begin(call);
        let Some(function) = self.wasm.get_func(&mut self.store, function) else {
            return Err(CallError::defect("the function is not exported"));
        };
        let counts = Arc::clone(&self.store.data().caller.counts);
        let ran: wasmtime::Result<_> = {
            let mut ran = pin!(async {
                let result = value::call(function, &mut self.store, &[], path).await?;
                self.finish_tasks().await?;
                wasmtime::Result::Ok(result)
            });
            poll_fn(|context| turns::poll(ran.as_mut(), context, &counts, within)).await
        };
        let exit = match &ran {
            Ok(Some(Value::Result(Err(_)))) => Exit::Error,
            Ok(_) => Exit::Done,
            Err(error) => match error.downcast_ref() {
                Some(I32Exit(0)) => Exit::Done,
                Some(I32Exit(status)) => Exit::Status(*status),
                None => Exit::Error,
            },
        };
        let exited = ran.or_else(|error| match error.is::<I32Exit>() {
            true => Ok(None),
            false => Err(error),
        });
        self.finish(exited.map(drop))?;
        Ok(exit)
    }

    /// Hands an HTTP request to the component, which sends the response's head through `head` and
    /// may go on after that: it writes the body.
    ///
    /// # Errors
    ///
    /// As for [`Self::invoke`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the instance.
    pub(super) async fn handle(
        mut self,
        handler: &HandlerIndices,
        request: http::Request<WasiBody>,
        head: oneshot::Sender<Head>,
        call: CurrentCall,
    ) -> Result<Self, Failed> {
        let within = call.trace.ids();
        self.begin(call);
        let counts = Arc::clone(&self.store.data().caller.counts);
        let handled = {
            let mut handled = pin!(async {
                match handler {
                    HandlerIndices::P2(handler) => self.hand_over(handler, request, head).await,
                    HandlerIndices::P3(handler) => {
                        self.hand_over_concurrently(handler, request, head).await
                    }
                }
            });
            poll_fn(|context| turns::poll(handled.as_mut(), context, &counts, within)).await
        };
        let state = self.store.data();
        let call = state.caller.call.as_ref();
        let acted = call.is_some_and(|call| call.acted.load(Ordering::Relaxed));
        let used = state.sockets_used.load(Ordering::Relaxed);
        self.acted = acted || used || state.guest_http.sent;
        let acted = self.acted;
        self.finish(handled)
            .map_err(|error| Failed { error, acted })
    }

    /// Hands a message to the component's handler, and returns the handler's result.
    ///
    /// # Errors
    ///
    /// As for [`Self::invoke`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the instance.
    pub(super) async fn deliver(
        mut self,
        kind: HandlerKind,
        handler: &ComponentExportIndex,
        message: Message,
        call: CurrentCall,
    ) -> Result<(Self, Result<(), String>), CallError> {
        let within = call.trace.ids();
        self.begin(call);
        let mut returned = Ok(());
        let counts = Arc::clone(&self.store.data().caller.counts);
        let handled = {
            let mut handled = pin!(async {
                let returned = match kind {
                    HandlerKind::Wasmcloud => self.hand_broker_message(handler, message).await,
                    HandlerKind::Wasi => self.hand_message(handler, message).await,
                }?;
                self.finish_tasks().await?;
                wasmtime::Result::Ok(returned)
            });
            poll_fn(|context| turns::poll(handled.as_mut(), context, &counts, within)).await
        };
        let instance = self.finish(handled.map(|value| returned = value))?;
        Ok((instance, returned))
    }

    async fn hand_broker_message(
        &mut self,
        handler: &ComponentExportIndex,
        message: Message,
    ) -> wasmtime::Result<Result<(), String>> {
        let handler = self
            .wasm
            .get_typed_func::<(BrokerMessage,), (Result<(), String>,)>(&mut self.store, handler)?;
        let message = (message.into(),);
        let (returned,) = handler.call_async(&mut self.store, message).await?;
        Ok(returned)
    }

    async fn hand_message(
        &mut self,
        handler: &ComponentExportIndex,
        message: Message,
    ) -> wasmtime::Result<Result<(), String>> {
        type Given = (Resource<wasi_messaging::GuestMessage>,);
        type Returned = (Result<(), wasi_messaging::Error>,);
        let handler = self
            .wasm
            .get_typed_func::<Given, Returned>(&mut self.store, handler)?;
        let message = (wasi_messaging::push(
            &mut self.store.data_mut().messaging(),
            message,
        )?,);
        let (returned,) = handler.call_async(&mut self.store, message).await?;
        Ok(returned.map_err(wasi_messaging::Error::into_message))
    }

    /// Lets what an asynchronous guest still does go on to its end: a task may return before it ends, and may
    /// have begun others. All of that belongs to the call, whose deadline, limits and trace it has.
    async fn finish_tasks(&mut self) -> wasmtime::Result<()> {
        if self.flavor == Flavor::Plain {
            return Ok(());
        }
        let call = self.store.data().caller.call.as_ref();
        let streams = call.and_then(|call| call.streams.clone());
        let ended = async |store: &Accessor<State>| {
            poll_fn(|context| store.poll_no_interesting_tasks(context)).await;
            if let Some(streams) = streams {
                streams.futures_closed().await;
            }
        };
        self.store.run_concurrent(ended).await
    }

    /// Gives a result with streams to who waits for it; any other is returned.
    fn give(
        &mut self,
        result: Value,
        early: Early,
        written: &Written,
    ) -> wasmtime::Result<Option<Value>> {
        let account = written.0.clone().unwrap_or_default();
        if !streams::attach_all([&result], &mut self.store, &account)? {
            return Ok(Some(result));
        }
        // The call may be given up already; then nobody reads, which the guest learns.
        let _ = early.send(result);
        Ok(None)
    }

    fn begin(&mut self, call: CurrentCall) {
        self.calls += 1;
        let state = self.store.data_mut();
        let recorded = state.caller.recorded.is_some();
        state.guest_http.begin(&call, recorded);
        state.sockets_used.store(false, Ordering::Relaxed);
        state.caller.call = Some(call);
        state.bounds.refused = None;
        state.ticks = 0;
        self.store.set_epoch_deadline(1);
    }

    async fn hand_over(
        &mut self,
        handler: &ProxyIndices,
        request: http::Request<WasiBody>,
        head: oneshot::Sender<Head>,
    ) -> wasmtime::Result<()> {
        let proxy = handler.load(&mut self.store, &self.wasm)?;
        let mut view = self.store.data_mut().http();
        let request = view.new_incoming_request(
            match scheme_of(&request) == http::uri::Scheme::HTTPS {
                true => Scheme::Https,
                false => Scheme::Http,
            },
            request,
        )?;
        let out = view.new_response_outparam_from_callback(move |answer| {
            // The request may be given up already.
            let _ = head.send(answer.map_err(|error| format!("{error:?}")));
        })?;
        proxy
            .wasi_http_incoming_handler()
            .call_handle(&mut self.store, request, out)
            .await?;
        self.finish_tasks().await
    }

    async fn hand_over_concurrently(
        &mut self,
        handler: &ServiceIndices,
        request: http::Request<WasiBody>,
        head: oneshot::Sender<Head>,
    ) -> wasmtime::Result<()> {
        let service = handler.load(&mut self.store, &self.wasm)?;
        let view = self.store.data_mut().http();
        let (scheme, authority) = (scheme_of(&request), authority_of(&request));
        let (mut request, sent) = p3::Request::from_http(view.hooks, request);
        request.scheme = Some(scheme);
        request.authority = authority;
        let handled = async |store: &Accessor<State>| -> wasmtime::Result<()> {
            let (taken, mut is_taken) = oneshot::channel();
            let answer = match service.handle(store, request).await? {
                Ok(response) => {
                    let response = store.with(|store| response.into_http(store, sent))?;
                    Ok(response.map(|body| Taken::new(body, taken).boxed_unsync()))
                }
                Err(error) => Err(format!("{error:?}")),
            };
            // The request may be given up already.
            let _ = head.send(answer);
            // What the guest has written goes on its way in this loop alone.
            let _ = (&mut is_taken).await;
            poll_fn(|context| store.poll_no_interesting_tasks(context)).await;
            Ok(())
        };
        self.store.run_concurrent(handled).await?
    }

    fn finish(mut self, called: wasmtime::Result<()>) -> Result<Self, CallError> {
        let Some(call) = self.store.data_mut().caller.call.take() else {
            return called.map(|()| self).map_err(CallError::trap);
        };
        match called {
            Ok(()) => {
                if let Some(ended) = call.ended {
                    // The response may be dropped already.
                    let _ = ended.send(());
                }
                if let Some(streams) = call.streams.filter(|streams| streams.has_open()) {
                    streams.fail("it was left open at the end of the call that writes it");
                    self.has_open_streams = true;
                }
                Ok(self)
            }
            Err(error) => {
                let error = self.explain(call.failed_import, &error);
                if let Some(streams) = call.streams {
                    streams.fail(error.message.as_str());
                }
                Err(error)
            }
        }
    }

    fn explain(
        &self,
        failed_import: Option<Box<(FunctionId, CallError)>>,
        error: &wasmtime::Error,
    ) -> CallError {
        let state = self.store.data();
        if let Some((function, cause)) = failed_import.map(|failed| *failed) {
            return CallError::import_failed(function, &cause);
        }
        if let Some(broken) = error
            .chain()
            .find_map(|cause| cause.downcast_ref::<Broken>())
        {
            return CallError::stream_broken(broken);
        }
        let why = describe_trap(error);
        let backtrace = error.downcast_ref::<WasmBacktrace>();
        let mut limit = state.bounds.refused.clone();
        if is_out_of_fuel(error) {
            let fuel = self.store.hostcall_fuel();
            if backtrace.is_none() {
                let message = state.caller.service.limits.message;
                return CallError::result_too_large(format!(
                    "result: it takes more than {fuel} bytes in memory, as the message limit of {message} bytes allows"
                ));
            }
            limit = Some(format!(
                "its limit of {fuel} bytes for one call to the host"
            ));
        } else if let Some(ResourceTableError::Full) = error.downcast_ref() {
            limit = Some(format!("its limit of {MAX_HANDLES} host resources"));
        }
        let mut trapped = CallError::trap(match limit {
            Some(limit) => format!("the service trapped after it reached {limit}: {why}"),
            None => format!("the service trapped: {why}"),
        });
        trapped.backtrace = backtrace.map(|backtrace| backtrace.to_string().into());
        trapped
    }

    /// Whether another call can have it: what its calls left behind leaves that one half of what the
    /// host may hold.
    pub(super) fn is_reusable(&mut self) -> bool {
        !self.has_open_streams && self.store.data_mut().held() <= MAX_HELD / 2
    }
}

/// The scheme by which a request came. One on a connection has none of its own; who received it knows.
fn scheme_of(request: &http::Request<WasiBody>) -> http::uri::Scheme {
    let scheme = request.extensions().get::<http::uri::Scheme>();
    scheme.cloned().unwrap_or(http::uri::Scheme::HTTP)
}

/// Whom a request is for: HTTP/2 has it in the URI, HTTP/1.1 in a header.
fn authority_of(request: &http::Request<WasiBody>) -> Option<http::uri::Authority> {
    let header = || request.headers().get(http::header::HOST)?.to_str().ok();
    let named = request.uri().authority().cloned();
    named.or_else(|| header()?.parse().ok())
}

/// Who waits for a result with streams.
pub(crate) type Early = oneshot::Sender<Value>;

/// Has the streams that a call writes be broken when it does not end well.
struct Written(Option<Arc<Account>>);

impl Written {
    fn of(flavor: Flavor, call: &mut CurrentCall) -> Self {
        if flavor == Flavor::Concurrent {
            call.streams = Some(Arc::default());
        }
        Self(call.streams.clone())
    }

    fn settle(mut self) {
        self.0 = None;
    }
}

impl Drop for Written {
    fn drop(&mut self) {
        if let Some(account) = &self.0 {
            account.fail("the call that writes it was given up");
        }
    }
}

/// A response's body that says when all of it was taken, or nobody wants more.
struct Taken {
    body: WasiBody,
    all: Option<oneshot::Sender<Infallible>>,
}

impl Taken {
    fn new(body: WasiBody, all: oneshot::Sender<Infallible>) -> Self {
        let all = (!body.is_end_stream()).then_some(all);
        Self { body, all }
    }
}

impl Body for Taken {
    type Data = Bytes;
    type Error = wasmtime_wasi_http::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        if !matches!(frame, Some(Ok(_))) {
            self.all = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Bytes that the host copies out of an instance in one go, be it a result or the arguments of one
/// call to the host: they are counted before they are copied. Within them are the values that JSON can
/// hold, and the texts and bytes of a message of that size: texts take twice its bytes where a guest
/// has UTF-16, and of four bytes of base64 there are three.
pub(super) fn fuel(message: usize) -> usize {
    message.saturating_mul(2) + json::DEFAULT_NODES * size_of::<Value>()
}

/// wasmtime's error for it has no public type.
fn is_out_of_fuel(error: &wasmtime::Error) -> bool {
    let cause = error.root_cause().to_string();
    cause.ends_with("fuel allocated for hostcalls has been exhausted")
}

/// The trap and its function, on one line.
fn describe_trap(error: &wasmtime::Error) -> String {
    let cause = match error.downcast_ref::<Trap>() {
        Some(trap) => trap.to_string(),
        None => error.root_cause().to_string(),
    };
    let function = error
        .downcast_ref::<WasmBacktrace>()
        .and_then(|trace| trace.frames().iter().find_map(|frame| frame.func_name()));
    match function {
        Some(name) => format!("{cause} (in {name})"),
        None => cause,
    }
}
