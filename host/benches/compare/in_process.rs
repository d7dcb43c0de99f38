//! What the sandbox costs without any network: the same echo in one process, from a native function
//! to a service of the host.

use std::future::Future;
use std::hint::black_box;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use wasmbay::call::{Call, Trace};
use wasmbay::interfaces::Backend;
use wasmbay::interfaces::memory::MemoryBackend;
use wasmbay::manifest::ServiceSpec;
use wasmbay::runtime::{Component, Engine, EngineOptions, Exported, Runtime, Service};
use wasmtime::component::{
    ComponentExportIndex, ComponentType, InstancePre, Lift, Linker, Lower, ResourceTable,
};
use wasmtime::{PoolingAllocationConfig, Store};
use wasmtime_wasi::{WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};

use crate::drive::Body;
use crate::table::{Cell, Row, Table, median};
use crate::{Options, guests, native};

const INTERFACE: &str = "bay:bench/echo@1.0.0";

/// A way to make the call: prepared once, then made again and again.
type Way<'a> = (&'static str, Box<dyn FnMut() -> anyhow::Result<()> + 'a>);

/// Measures and tabulates, if it is wanted.
pub(crate) fn table(options: &Options) -> anyhow::Result<Option<Table>> {
    if !options.wants("in process") {
        return Ok(None);
    }
    eprintln!("measuring in process");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let _entered = runtime.enter();
    let arguments = Body::new(r#"{"item":{"id":7,"text":"{pad}"}}"#, 100)?.bytes;
    let file = guests::component("rust/bench")?;
    let engine = Engine::new(EngineOptions {
        cache: None,
        ..EngineOptions::default()
    })?;
    let bytes = std::fs::read(&file)?;
    let bare = Bare::new(&bytes).map_err(plain)?;
    let component = Arc::new(Component::new(&engine, &bytes)?);
    let runtime = Runtime::new(engine)?;
    let mut reused = bare.instance().map_err(plain)?;
    let item = Item {
        id: 7,
        text: "x".repeat(70),
    };
    let served = [u32::MAX, 1].map(|reuse| InProcess::new(&runtime, &component, reuse));
    let [reused_service, fresh_service] = served;
    let (reused_service, fresh_service) = (reused_service?, fresh_service?);
    let body = Bytes::from(arguments);
    let ways: Vec<Way<'_>> = vec![
        (
            "native: JSON to a record and back",
            Box::new(|| {
                black_box(native::echo(black_box(&body))?);
                Ok(())
            }),
        ),
        (
            "wasmtime, one instance, typed, no JSON",
            Box::new(|| reused.echo(&item).map_err(plain)),
        ),
        (
            "wasmtime, an instance for each call",
            Box::new(|| {
                let instance = bare.instance();
                instance.and_then(|mut i| i.echo(&item)).map_err(plain)
            }),
        ),
        (
            "wasmbay service, reused",
            Box::new(|| reused_service.call(&body)),
        ),
        (
            "wasmbay service, fresh",
            Box::new(|| fresh_service.call(&body)),
        ),
    ];
    let mut table = Table::new(
        "In process, arguments of 100 bytes".to_owned(),
        &["call", "ns"],
    );
    for (name, nanoseconds) in measure(ways, options.rounds())? {
        let mut row = Row::new(name);
        row.cell(Cell::Count(nanoseconds));
        table.rows.push(row);
    }
    Ok(Some(table))
}

/// wasmtime's errors are not the standard library's.
fn plain(error: wasmtime::Error) -> anyhow::Error {
    anyhow::anyhow!("{error:#}")
}

/// Medians over the rounds, in nanoseconds a call.
fn measure(mut ways: Vec<Way<'_>>, rounds: usize) -> anyhow::Result<Vec<(&'static str, f64)>> {
    const TURN: Duration = Duration::from_millis(150);
    let mut taken: Vec<Vec<f64>> = vec![Vec::new(); ways.len()];
    // The first round warms up.
    for round in 0..=rounds {
        for ((_, call), taken) in ways.iter_mut().zip(&mut taken) {
            let (started, mut calls) = (Instant::now(), 0_u32);
            while started.elapsed() < TURN {
                for _ in 0..100 {
                    call()?;
                }
                calls += 100;
            }
            if round > 0 {
                taken.push(started.elapsed().as_nanos() as f64 / f64::from(calls));
            }
        }
    }
    Ok(ways
        .iter()
        .map(|(name, _)| *name)
        .zip(taken.into_iter().map(median))
        .collect())
}

/// The record of `bay:bench/echo`.
#[derive(Clone, ComponentType, Lift, Lower)]
#[component(record)]
struct Item {
    id: u32,
    text: String,
}

/// The component on wasmtime alone, with the settings that matter the same as the host's.
struct Bare {
    engine: wasmtime::Engine,
    pre: InstancePre<Granted>,
    function: ComponentExportIndex,
}

/// WASI that grants nothing: the guest's runtime imports it.
struct Granted {
    wasi: WasiCtx,
    table: ResourceTable,
}

impl WasiView for Granted {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView {
            ctx: &mut self.wasi,
            table: &mut self.table,
        }
    }
}

struct BareInstance {
    store: Store<Granted>,
    echo: wasmtime::component::TypedFunc<(Item,), (Item,)>,
}

impl Bare {
    fn new(component: &[u8]) -> wasmtime::Result<Self> {
        let mut pool = PoolingAllocationConfig::new();
        if PoolingAllocationConfig::is_pagemap_scan_available() {
            pool.pagemap_scan(wasmtime::Enabled::Yes)
                .linear_memory_keep_resident(1 << 20)
                .table_keep_resident(64 << 10);
        }
        let mut config = wasmtime::Config::new();
        config
            .allocation_strategy(wasmtime::InstanceAllocationStrategy::Pooling(pool))
            .concurrency_support(false);
        let engine = wasmtime::Engine::new(&config)?;
        let component = wasmtime::component::Component::new(&engine, component)?;
        let mut linker = Linker::new(&engine);
        wasmtime_wasi::p2::add_to_linker_sync(&mut linker)?;
        let interface = component.get_export_index(None, INTERFACE);
        let function = component
            .get_export_index(interface.as_ref(), "echo")
            .ok_or_else(|| wasmtime::format_err!("no echo"))?;
        Ok(Self {
            pre: linker.instantiate_pre(&component)?,
            engine,
            function,
        })
    }

    fn instance(&self) -> wasmtime::Result<BareInstance> {
        let granted = Granted {
            wasi: WasiCtxBuilder::new().build(),
            table: ResourceTable::new(),
        };
        let mut store = Store::new(&self.engine, granted);
        let instance = self.pre.instantiate(&mut store)?;
        let echo = instance.get_typed_func(&mut store, self.function)?;
        Ok(BareInstance { store, echo })
    }
}

impl BareInstance {
    fn echo(&mut self, item: &Item) -> wasmtime::Result<()> {
        let (item,) = self.echo.call(&mut self.store, (item.clone(),))?;
        black_box(item);
        Ok(())
    }
}

/// The component as a service of the host, called without NATS.
struct InProcess {
    service: Service,
    exported: Arc<Exported>,
    backend: Arc<dyn Backend>,
}

impl InProcess {
    fn new(runtime: &Runtime, component: &Arc<Component>, reuse: u32) -> anyhow::Result<Self> {
        let spec = ServiceSpec {
            reuse,
            ..ServiceSpec::new("bench")
        };
        let service = Service::new(runtime, "bench", Arc::clone(component), Arc::new(spec))?;
        let exported = service.interfaces().next().context("no interface")?.clone();
        Ok(Self {
            service,
            exported,
            // The component imports nothing.
            backend: Arc::new(MemoryBackend::default()),
        })
    }

    fn call(&self, body: &Bytes) -> anyhow::Result<()> {
        let function = self.exported.functions.get("echo").context("no echo")?;
        let call = Call {
            body: body.clone(),
            arrived: Instant::now(),
            deadline: Instant::now() + Duration::from_secs(5),
            hops: 0,
            caller: None,
            trace: Trace::default(),
            claims: None,
            identity: None,
            kind: wasmbay::call::Kind::Request,
        };
        let mut called = pin!(self.service.call(function, call, &self.backend));
        // Nothing wakes it up: it gives way to others when a tick passes, and is then asked again.
        let mut context = Context::from_waker(Waker::noop());
        loop {
            match called.as_mut().poll(&mut context) {
                Poll::Ready(Ok(body)) => {
                    black_box(body);
                    return Ok(());
                }
                Poll::Ready(Err(error)) => bail!(error),
                Poll::Pending => {}
            }
        }
    }
}
