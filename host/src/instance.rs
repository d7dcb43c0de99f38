//! One instance: a store with its bounds, and the one call that it runs at a time.
//!
//! An instance is used by value. [`Instance::invoke`] gives it back only after a call that ended
//! well; one that trapped, timed out or was dropped is gone, and its memory with it.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::oneshot;
use wasmtime::component::{
    ComponentExportIndex, Instance as Wasm, InstancePre, Linker, Resource, ResourceTable, Val,
};
use wasmtime::{
    PoolConcurrencyLimitError, ResourceLimiter, Store, Trap, UpdateDeadline, WasmBacktrace,
};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_config::WasiConfigVariables;
use wasmtime_wasi_http::p2::bindings::ProxyIndices;
use wasmtime_wasi_http::p2::bindings::http::types::{ErrorCode, Scheme};
use wasmtime_wasi_http::{WasiBody, WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

use crate::call::{Blame, CallError, Code, Trace};
use crate::component::HandlerKind;
use crate::engine::Engine;
use crate::interface::FunctionId;
use crate::manifest::{Limits, ServiceSpec};
use crate::outbound::messaging::wasi as wasi_messaging;
use crate::outbound::messaging::wasmcloud::BrokerMessage;
use crate::outbound::messaging::{self, Message};
use crate::outbound::wasi::{self, GuestHttp};
use crate::outbound::{Outbound, keyvalue};

/// Handles of host resources (streams, clocks' pollables, HTTP bodies) that one instance can hold.
/// A runtime holds a handful; a guest that leaks them gets a trap.
const MAX_RESOURCES: usize = 4_096;

/// Memories of one instance. The pool has two for each instance that can exist.
const MAX_MEMORIES: usize = 8;

/// What every instance of one service shares.
pub(crate) struct Blueprint {
    pub(crate) pre: InstancePre<State>,
    pub(crate) spec: Arc<ServiceSpec>,
    /// Where the service's data is.
    pub(crate) bucket: Arc<str>,
    pub(crate) config: Arc<WasiConfigVariables>,
    pub(crate) engine: Engine,
}

/// What the host keeps for one instance.
pub(crate) struct State {
    /// The first field, as [`Current::ended`] has to be dropped before `table`.
    pub(crate) current: Option<Current>,
    wasi: WasiCtx,
    table: ResourceTable,
    http: WasiHttpCtx,
    guest_http: GuestHttp,
    pub(crate) config: Arc<WasiConfigVariables>,
    pub(crate) spec: Arc<ServiceSpec>,
    pub(crate) bucket: Arc<str>,
    bounds: Bounds,
}

/// The call that an instance is running.
pub(crate) struct Current {
    pub(crate) deadline: Instant,
    pub(crate) hops: u8,
    pub(crate) trace: Trace,
    pub(crate) outbound: Arc<dyn Outbound>,
    /// The import whose failure the guest had no value for, and which therefore trapped it.
    pub(crate) failed_import: Option<Box<(FunctionId, CallError)>>,
    /// Told when the call ends well, and dropped when it ends in any other way: before the guest's
    /// side of a response's body is, whose end would else look like that of a complete one.
    pub(crate) ended: Option<oneshot::Sender<()>>,
    /// Where the sender of the raw message that is being handled waits for a reply.
    pub(crate) reply_to: Option<String>,
}

impl State {
    /// Counts what the host keeps for the guest as its memory: so many bytes instead of so many
    /// before.
    ///
    /// # Errors
    ///
    /// It is more than the instance may have.
    pub(crate) fn recount(&mut self, before: usize, after: usize) -> wasmtime::Result<()> {
        let limit = self.bounds.limits.memory;
        if Bounds::grow(&mut self.bounds.memory, before, after, limit) {
            let less = before.saturating_sub(after) as u64;
            self.bounds.memory = self.bounds.memory.saturating_sub(less);
            return Ok(());
        }
        self.bounds.refused = Some(format!("its memory limit of {limit} bytes"));
        wasmtime::bail!("the host keeps too much for the guest")
    }
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView {
            ctx: &mut self.wasi,
            table: &mut self.table,
        }
    }
}

impl WasiHttpView for State {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView {
            ctx: &mut self.http,
            table: &mut self.table,
            hooks: &mut self.guest_http,
        }
    }
}

/// Counts what an instance takes, all its memories and tables together, against its limits.
struct Bounds {
    memory: u64,
    tables: u64,
    limits: Limits,
    /// The limit that was last refused, for the message of the trap that mostly follows.
    refused: Option<String>,
}

impl Bounds {
    fn grow(used: &mut u64, current: usize, desired: usize, limit: u64) -> bool {
        let more = (desired as u64).saturating_sub(current as u64);
        let fits = used.saturating_add(more) <= limit;
        if fits {
            *used += more;
        }
        fits
    }
}

impl ResourceLimiter for Bounds {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let limit = self.limits.memory;
        let fits = Self::grow(&mut self.memory, current, desired, limit);
        if !fits {
            self.refused = Some(format!("its memory limit of {limit} bytes"));
        }
        Ok(fits)
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let limit = self.limits.tables;
        let fits = Self::grow(&mut self.tables, current, desired, u64::from(limit));
        if !fits {
            self.refused = Some(format!("its limit of {limit} table elements"));
        }
        Ok(fits)
    }

    fn instances(&self) -> usize {
        self.limits.instances as usize
    }

    fn memories(&self) -> usize {
        MAX_MEMORIES
    }

    fn tables(&self) -> usize {
        self.limits.instances as usize
    }
}

/// What an HTTP component answers: a response whose body it goes on to write, or an error.
pub(crate) type Head = Result<http::Response<WasiBody>, ErrorCode>;

/// A linker with all that the host itself provides, to be shared by all services.
///
/// # Errors
///
/// A defect: two definitions of one name.
pub(crate) fn base_linker(engine: &wasmtime::Engine) -> wasmtime::Result<Linker<State>> {
    let mut linker = Linker::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker)?;
    wasi::add_config(&mut linker)?;
    wasi::add_logging(&mut linker)?;
    keyvalue::add(&mut linker)?;
    messaging::add_to_linker(&mut linker)?;
    Ok(linker)
}

/// A live instance.
pub(crate) struct Instance {
    pub(crate) store: Store<State>,
    pub(crate) wasm: Wasm,
    pub(crate) calls: u32,
}

impl Instance {
    /// A fresh instance. When the pool is exhausted, idle instances of all services make room.
    pub(crate) async fn new(blueprint: &Blueprint) -> Result<Self, CallError> {
        match Self::instantiate(blueprint).await {
            Err((_, error)) if error.is::<PoolConcurrencyLimitError>() => {
                blueprint.engine.evict_idle();
                Self::instantiate(blueprint).await
            }
            result => result,
        }
        .map_err(
            |(bounds, error)| match error.is::<PoolConcurrencyLimitError>() {
                true => CallError::new(
                    Code::Overloaded,
                    Blame::Host,
                    format!(
                        "all {} instances of this host are in use",
                        blueprint.engine.instances()
                    ),
                ),
                false => {
                    let why = describe_trap(&error);
                    let message = match bounds {
                        Some(limit) => format!("an instance needs more than {limit}: {why}"),
                        None => format!("an instance could not start: {why}"),
                    };
                    CallError::new(Code::Trap, Blame::Guest, message)
                }
            },
        )
    }

    async fn instantiate(blueprint: &Blueprint) -> Result<Self, (Option<String>, wasmtime::Error)> {
        let spec = &blueprint.spec;
        let mut table = ResourceTable::new();
        table.set_max_capacity(MAX_RESOURCES);
        let state = State {
            current: None,
            wasi: wasi::context(spec),
            table,
            http: WasiHttpCtx::new(),
            guest_http: GuestHttp::new(Arc::clone(spec)),
            config: Arc::clone(&blueprint.config),
            spec: Arc::clone(spec),
            bucket: Arc::clone(&blueprint.bucket),
            bounds: Bounds {
                memory: 0,
                tables: 0,
                limits: spec.limits.clone(),
                refused: None,
            },
        };
        let mut store = Store::new(blueprint.engine.wasmtime(), state);
        store.limiter(|state| &mut state.bounds);
        // wasmtime's own yield puts the task back at once, and a runtime with one thread then looks
        // at its timers and sockets only every 61st time. tokio's lets it look first.
        store.epoch_deadline_callback(|_| {
            Ok(UpdateDeadline::YieldCustom(
                1,
                Box::pin(tokio::task::yield_now()),
            ))
        });
        store.set_epoch_deadline(1);
        match blueprint.pre.instantiate_async(&mut store).await {
            Ok(wasm) => Ok(Self {
                store,
                wasm,
                calls: 0,
            }),
            Err(error) => Err((store.data_mut().bounds.refused.take(), error)),
        }
    }

    /// Runs one exported function.
    ///
    /// # Errors
    ///
    /// The guest trapped, by itself or because an import failed that it has no value for.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the instance.
    pub(crate) async fn invoke(
        mut self,
        function: &ComponentExportIndex,
        arguments: &[Val],
        results: &mut [Val],
        current: Current,
    ) -> Result<Self, CallError> {
        self.begin(current);
        let Some(function) = self.wasm.get_func(&mut self.store, function) else {
            return Err(CallError::new(
                Code::Trap,
                Blame::Host,
                "the function is not exported",
            ));
        };
        let called = function
            .call_async(&mut self.store, arguments, results)
            .await;
        self.finish(called)
    }

    /// Hands an HTTP request to the component, which gives the response's head through `head` and
    /// may go on after that: it writes the body.
    ///
    /// # Errors
    ///
    /// As for [`Self::invoke`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the instance.
    pub(crate) async fn handle(
        mut self,
        handler: &ProxyIndices,
        request: http::Request<WasiBody>,
        head: oneshot::Sender<Head>,
        current: Current,
    ) -> Result<Self, CallError> {
        self.begin(current);
        let handled = self.hand_over(handler, request, head).await;
        self.finish(handled)
    }

    /// Hands a raw message to the component's handler, and gives what that returned.
    ///
    /// # Errors
    ///
    /// As for [`Self::invoke`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the instance.
    pub(crate) async fn deliver(
        mut self,
        kind: HandlerKind,
        handler: &ComponentExportIndex,
        message: Message,
        current: Current,
    ) -> Result<(Self, Result<(), String>), CallError> {
        self.begin(current);
        let mut returned = Ok(());
        let handled = match kind {
            HandlerKind::Wasmcloud => self.hand_broker_message(handler, message).await,
            HandlerKind::Wasi => self.hand_message(handler, message).await,
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
        let message = (wasi_messaging::push(self.store.data_mut(), message)?,);
        let (returned,) = handler.call_async(&mut self.store, message).await?;
        Ok(returned.map_err(wasi_messaging::Error::into_message))
    }

    fn begin(&mut self, current: Current) {
        self.calls += 1;
        let state = self.store.data_mut();
        state.current = Some(current);
        state.bounds.refused = None;
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
        let request = view.new_incoming_request(Scheme::Http, request)?;
        let out = view.new_response_outparam(head)?;
        proxy
            .wasi_http_incoming_handler()
            .call_handle(&mut self.store, request, out)
            .await
    }

    fn finish(mut self, called: wasmtime::Result<()>) -> Result<Self, CallError> {
        let current = self.store.data_mut().current.take();
        match called {
            Ok(()) => {
                if let Some(ended) = current.and_then(|current| current.ended) {
                    // Who asked may have gone.
                    let _ = ended.send(());
                }
                Ok(self)
            }
            Err(error) => Err(self.explain(current.and_then(|c| c.failed_import), &error)),
        }
    }

    fn explain(
        &self,
        failed_import: Option<Box<(FunctionId, CallError)>>,
        error: &wasmtime::Error,
    ) -> CallError {
        let state = self.store.data();
        if let Some((function, cause)) = failed_import.map(|failed| *failed) {
            return CallError::new(
                Code::Dependency,
                cause.blame,
                format!("{function} failed: {}", cause.message),
            );
        }
        let why = describe_trap(error);
        if let Some(backtrace) = error.downcast_ref::<WasmBacktrace>() {
            tracing::debug!(service = %state.spec.name, %backtrace, "trap");
        }
        let message = match &state.bounds.refused {
            Some(limit) => format!("the service trapped after it reached {limit}: {why}"),
            None => format!("the service trapped: {why}"),
        };
        CallError::new(Code::Trap, Blame::Guest, message)
    }
}

/// The trap and the function it happened in, on one line.
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
