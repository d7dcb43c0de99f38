//! The data of one store: the contexts of the host interfaces, put together.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use wasmtime::component::{Linker, ResourceTable};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

use super::engine::{Engine, Flavor};
use super::instance::Blueprint;
use crate::interfaces::blobstore::{self, BlobstoreCtx, BlobstoreCtxView, BlobstoreView};
use crate::interfaces::held::{MAX_HANDLES, MAX_HELD, held_bytes};
use crate::interfaces::http::{self, GuestHttp};
use crate::interfaces::keyvalue::{self, KeyValueCtx, KeyValueCtxView, KeyValueView};
use crate::interfaces::messaging::{self, MessagingCtxView, MessagingView};
use crate::interfaces::otel::{self, OtelCtxView, OtelView};
use crate::interfaces::sockets::{self, Sockets, SocketsView};
use crate::interfaces::{
    Bounds, Caller, CallerView, Recorded, Tail, config, context, identity, logging, spin, wasi,
};

/// What an instance is for.
#[derive(Clone, Copy)]
pub(super) enum Of<'a> {
    /// Calls, one after the other.
    Calls,
    /// A run of a durable function, with its time and random.
    Run(&'a Arc<Recorded>),
    /// A run of a job, whose last lines are kept.
    Job(&'a Arc<Tail>),
}

/// The data of a store.
pub(super) struct State {
    /// The first field, so that the `ended` of its call is dropped before `table`.
    pub(super) caller: Caller,
    wasi: WasiCtx,
    table: ResourceTable,
    http: WasiHttpCtx,
    pub(super) guest_http: GuestHttp,
    keyvalue: KeyValueCtx,
    blobstore: BlobstoreCtx,
    sockets: Arc<Sockets>,
    /// Whether it has used a socket in its last call.
    pub(super) sockets_used: Arc<AtomicBool>,
    pub(super) bounds: Bounds,
    /// Ticks that its call has computed for.
    pub(super) ticks: u32,
}

impl State {
    /// The state of a new instance, for a run if it is for one.
    pub(super) fn new(blueprint: &Blueprint, of: Of<'_>) -> Self {
        let (recorded, tail) = match of {
            Of::Calls => (None, None),
            Of::Run(recorded) => (Some(recorded), None),
            Of::Job(tail) => (None, Some(tail)),
        };
        let Blueprint {
            spec,
            output,
            connections,
            sockets,
            folders,
            tracer,
            counts,
            ..
        } = blueprint;
        let sockets_used = Arc::new(AtomicBool::new(false));
        let mut table = ResourceTable::new();
        table.set_max_capacity(MAX_HANDLES);
        let guest_http = GuestHttp::new(
            Arc::clone(spec),
            Arc::clone(output),
            Arc::clone(connections),
            Arc::clone(tracer),
        );
        Self {
            caller: Caller {
                service: Arc::clone(spec),
                output: Arc::clone(output),
                recorded: recorded.cloned(),
                counts: Arc::clone(counts),
                tracer: Arc::clone(tracer),
                instance: None,
                call: None,
            },
            wasi: wasi::context(
                output,
                (&spec.env, &spec.args),
                (recorded, tail),
                (sockets, &sockets_used),
                folders,
            ),
            sockets: Arc::clone(sockets),
            sockets_used,
            table,
            http: WasiHttpCtx::new(),
            guest_http,
            keyvalue: KeyValueCtx {
                bucket: Arc::clone(&blueprint.bucket),
            },
            blobstore: BlobstoreCtx::new(Arc::clone(&blueprint.objects)),
            bounds: Bounds::new(spec.limits.clone(), Arc::clone(counts)),
            ticks: 0,
        }
    }
}

impl State {
    /// Bytes that the host holds for the instance.
    pub(super) fn held(&mut self) -> usize {
        held_bytes(&mut self.table)
    }

    /// Counts what the host holds for the instance against its bound.
    ///
    /// # Errors
    ///
    /// It is too much.
    pub(super) fn check_held(&mut self) -> wasmtime::Result<()> {
        if self.held() <= MAX_HELD {
            return Ok(());
        }
        self.bounds.refused = Some(format!(
            "its limit of {MAX_HELD} bytes that the host holds for it (header fields, bodies and other resources)"
        ));
        wasmtime::bail!("the host holds too much for the guest")
    }
}

/// A linker with all host interfaces for components of this flavor.
///
/// # Errors
///
/// Two definitions of one name, which is a defect.
pub(super) fn linker(engine: &Engine, flavor: Flavor) -> wasmtime::Result<Linker<State>> {
    let engine = engine.wasmtime(flavor).map_err(wasmtime::Error::new)?;
    let mut linker = Linker::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    http::add_to_linker(&mut linker)?;
    config::add_to_linker(&mut linker)?;
    context::add_to_linker(&mut linker)?;
    identity::add_to_linker(&mut linker)?;
    logging::add_to_linker(&mut linker)?;
    keyvalue::add_to_linker(&mut linker)?;
    blobstore::add_to_linker(&mut linker)?;
    messaging::add_to_linker(&mut linker)?;
    otel::add_to_linker(&mut linker)?;
    sockets::add_to_linker(&mut linker)?;
    spin::add_to_linker(&mut linker)?;
    if flavor == Flavor::Concurrent {
        wasmtime_wasi::p3::add_to_linker(&mut linker)?;
        wasmtime_wasi_http::p3::add_to_linker(&mut linker)?;
        sockets::add_concurrent_to_linker(&mut linker)?;
    }
    Ok(linker)
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView {
            ctx: &mut self.wasi,
            table: &mut self.table,
        }
    }
}

impl SocketsView for State {
    fn granted(&self) -> &Arc<Sockets> {
        &self.sockets
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

impl CallerView for State {
    fn caller(&mut self) -> &mut Caller {
        &mut self.caller
    }
}

impl KeyValueView for State {
    fn keyvalue(&mut self) -> KeyValueCtxView<'_> {
        KeyValueCtxView {
            ctx: &self.keyvalue,
            caller: &self.caller,
            table: &mut self.table,
        }
    }
}

impl BlobstoreView for State {
    fn blobstore(&mut self) -> BlobstoreCtxView<'_> {
        BlobstoreCtxView {
            ctx: &self.blobstore,
            caller: &self.caller,
            table: &mut self.table,
        }
    }
}

impl MessagingView for State {
    fn messaging(&mut self) -> MessagingCtxView<'_> {
        MessagingCtxView {
            caller: &self.caller,
            table: &mut self.table,
            bounds: &mut self.bounds,
        }
    }
}

impl OtelView for State {
    fn otel(&mut self) -> OtelCtxView<'_> {
        OtelCtxView {
            caller: &mut self.caller,
            http: &mut self.guest_http,
        }
    }
}

#[cfg(test)]
mod tests;
