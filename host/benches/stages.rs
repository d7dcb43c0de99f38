//! What each stage of a call costs: `cargo bench --bench stages`.
//!
//! The bytes a second of the JSON mapping are those of the text.

use std::future::Future;
use std::hint::black_box;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use wasmbay::call::{Call, CallError, Reply, Trace};
use wasmbay::interface::FunctionId;
use wasmbay::interfaces::Backend;
use wasmbay::interfaces::memory::MemoryBackend;
use wasmbay::json;
use wasmbay::manifest::ServiceSpec;
use wasmbay::runtime::{Component, Engine, EngineOptions, Exported, Runtime, Service};
use wasmbay::shape::{Field, Shape, Signature};
use wasmbay::value::Value;
use wasmbay::{subject, wire};

/// Exports `test:echo/echo@1.0.0`, a record's way in and out of a guest.
const ECHO: &str = r#"
(component
  (core module $code
    (memory (export "memory") 1)
    (global $free (mut i32) (i32.const 64))
    (func (export "realloc") (param i32 i32 i32 i32) (result i32)
      (local $at i32)
      (local.set $at (i32.and (i32.add (global.get $free) (i32.const 7)) (i32.const -8)))
      (global.set $free (i32.add (local.get $at) (local.get 3)))
      (local.get $at))
    (func (export "reset") (param i32) (global.set $free (i32.const 64)))
    (func (export "echo") (param i32 i32 i32) (result i32)
      (i32.store (i32.const 16) (local.get 0))
      (i32.store (i32.const 20) (local.get 1))
      (i32.store (i32.const 24) (local.get 2))
      (i32.const 16)))
  (core instance $core (instantiate $code))
  (alias core export $core "memory" (core memory $memory))
  (alias core export $core "realloc" (core func $realloc))
  (type $item' (record (field "id" u32) (field "text" string)))
  (component $echo
    (import "item" (type $item (eq $item')))
    (import "echo" (func $echo (param "item" $item) (result $item)))
    (export $exported "item" (type $item))
    (export "echo" (func $echo) (func (param "item" $exported) (result $exported))))
  (func $lifted (param "item" $item') (result $item')
    (canon lift (core func $core "echo") (memory (core memory $memory)) (realloc (core func $realloc))
      (post-return (core func $core "reset"))))
  (instance $api (instantiate $echo (with "item" (type $item')) (with "echo" (func $lifted))))
  (export "test:echo/echo@1.0.0" (instance $api)))
"#;

/// Exports `test:echo/echo@1.0.0` for bytes.
const ECHO_BYTES: &str = r#"
(component
  (core module $code
    (memory (export "memory") 4)
    (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024))
    (func (export "echo") (param i32 i32) (result i32)
      (i32.store (i32.const 16) (local.get 0))
      (i32.store (i32.const 20) (local.get 1))
      (i32.const 16)))
  (core instance $core (instantiate $code))
  (func $echo (param "input" (list u8)) (result (list u8))
    (canon lift (core func $core "echo") (memory (core memory $core "memory")) (realloc (core func $core "realloc"))))
  (instance $api (export "echo" (func $echo)))
  (export "test:echo/echo@1.0.0" (instance $api)))
"#;

/// 100 bytes of arguments.
const ARGUMENTS: &str = r#"{"item":{"id":7,"text":"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"}}"#;

fn field(name: &str, key: &str, shape: Shape) -> Field {
    Field {
        name: name.into(),
        key: key.into(),
        shape,
    }
}

/// One function of one parameter.
fn takes(shape: Shape) -> Signature {
    Signature {
        params: Box::new([field("input", "input", shape)]),
        result: None,
    }
}

fn order_shape() -> Shape {
    Shape::Record(Box::new([
        field("order-id", "orderId", Shape::U64),
        field("sku", "sku", Shape::String),
        field("quantity", "quantity", Shape::U32),
        field("price", "price", Shape::F64),
        field("note", "note", Shape::Option(Box::new(Shape::String))),
    ]))
}

fn order(id: u64) -> Value {
    let note = Value::String("leave at door".into());
    Value::Record(vec![
        Value::U64(id),
        Value::String("tea-earl-grey".into()),
        Value::U32(12),
        Value::F64(12.95),
        Value::Option(Some(Box::new(note))),
    ])
}

fn bytes(count: u32) -> Value {
    Value::Bytes((0..count).map(|i| (i * 31) as u8).collect())
}

fn mapping(criterion: &mut Criterion) {
    let bodies = [
        ("record of 100 B", order_shape(), order(4711)),
        (
            "records of 10 KiB",
            Shape::List(Box::new(order_shape())),
            Value::List((0..110).map(order).collect()),
        ),
        ("bytes of 10 KiB", Shape::Bytes, bytes(10 << 10)),
    ];
    let limits = json::Limits::default();
    for (name, shape, val) in bodies {
        let signature = takes(shape);
        let args = [val];
        let Ok(body) = json::encode_arguments(&args, &signature, &limits) else {
            unreachable!("{name} is of its own type");
        };
        let mut group = criterion.benchmark_group(format!("json/{name}"));
        group.throughput(Throughput::Bytes(body.len() as u64));
        group.bench_function("decode", |bencher| {
            bencher.iter(|| json::decode_arguments(black_box(&body), &signature, &limits));
        });
        group.bench_function("encode", |bencher| {
            bencher.iter(|| json::encode_arguments(black_box(&args), &signature, &limits));
        });
        group.finish();
    }
}

/// A subject's way from a name, and a name's from a subject.
fn subjects(criterion: &mut Criterion) {
    let Ok(function) = "acme:stock/reserve.hold@1.4.2".parse::<FunctionId>() else {
        unreachable!("a name of the right form");
    };
    let subject = subject::of_function("shop", &function);
    criterion.bench_function("subject/write", |bencher| {
        bencher.iter(|| subject::of_function("shop", black_box(&function)));
    });
    criterion.bench_function("subject/read", |bencher| {
        bencher.iter(|| subject::function_name(black_box(&subject)).map(str::len));
    });
}

/// A call's headers, written by the one who calls and read by the one who is called.
fn headers(criterion: &mut Criterion) {
    let call = call(&Bytes::from_static(ARGUMENTS.as_bytes()));
    let headers = wire::write_call(&call, Instant::now());
    criterion.bench_function("wire/write", |bencher| {
        bencher.iter(|| wire::write_call(black_box(&call), Instant::now()));
    });
    criterion.bench_function("wire/read", |bencher| {
        bencher
            .iter(|| wire::read_call(Some(black_box(&headers)), call.body.clone(), Instant::now()));
    });
}

/// A service that is called without any network.
struct Guest {
    service: Service,
    exported: Arc<Exported>,
    backend: Arc<dyn Backend>,
}

impl Guest {
    fn new(runtime: &Runtime, component: &str, reuse: u32) -> Self {
        let spec = ServiceSpec {
            reuse,
            ..ServiceSpec::new("echo")
        };
        let made = Component::new(runtime.engine(), component.as_bytes()).map(|component| {
            let service = Service::new(runtime, "bench", Arc::new(component), Arc::new(spec));
            service.map(|service| {
                let exported = service.interfaces().next().cloned();
                (exported, service)
            })
        });
        let Ok(Ok((Some(exported), service))) = made else {
            unreachable!("the component is sound");
        };
        Self {
            service,
            exported,
            // The component imports nothing.
            backend: Arc::new(MemoryBackend::default()),
        }
    }

    fn call(&self, body: &Bytes) -> Result<Reply, CallError> {
        let Some(function) = self.exported.functions.get("echo") else {
            unreachable!("the component exports it");
        };
        at_once(self.service.call(function, call(body), &self.backend))
    }
}

fn call(body: &Bytes) -> Call {
    Call {
        body: body.clone(),
        arrived: Instant::now(),
        deadline: Instant::now() + Duration::from_secs(5),
        hops: 0,
        caller: None,
        trace: Trace::default(),
        claims: None,
        identity: None,
        kind: wasmbay::call::Kind::Request,
    }
}

/// Runs what waits for nothing: a guest only gives way to others for a moment.
fn at_once<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(value) = future
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()))
        {
            return value;
        }
    }
}

/// From the arguments' bytes to the result's, and what of it is not the guest.
fn service(criterion: &mut Criterion) {
    let tokio = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let options = EngineOptions {
        cache: None,
        ..EngineOptions::default()
    };
    let (Ok(tokio), Ok(Ok(runtime))) = (tokio, Engine::new(options).map(Runtime::new)) else {
        unreachable!("the machine can run a host");
    };
    let _entered = tokio.enter();
    let (reused, fresh) = (
        Guest::new(&runtime, ECHO, u32::MAX),
        Guest::new(&runtime, ECHO, 1),
    );
    let large = Guest::new(&runtime, ECHO_BYTES, u32::MAX);
    let arguments = Bytes::from_static(ARGUMENTS.as_bytes());
    let Ok(result) = reused.call(&arguments) else {
        unreachable!("the component answers");
    };
    assert!(ARGUMENTS.contains(&*String::from_utf8_lossy(&result.body)));

    criterion.bench_function("service/admit and refuse", |bencher| {
        let broken = Bytes::from_static(b"{");
        bencher.iter(|| reused.call(black_box(&broken)).is_err());
    });
    criterion.bench_function("service/instantiate and drop", |bencher| {
        bencher.iter(|| {
            let warmed = at_once(reused.service.warm());
            let later = Instant::now() + Duration::from_secs(3_600);
            runtime.drop_idle(later);
            warmed.is_ok()
        });
    });
    criterion.bench_function("service/call, reused", |bencher| {
        bencher.iter(|| reused.call(black_box(&arguments)));
    });
    criterion.bench_function("service/call, fresh", |bencher| {
        bencher.iter(|| fresh.call(black_box(&arguments)));
    });

    let (signature, limits) = (takes(Shape::Bytes), json::Limits::default());
    let Ok(arguments) = json::encode_arguments(&[bytes(64 << 10)], &signature, &limits) else {
        unreachable!("bytes are bytes");
    };
    let arguments = Bytes::from(arguments);
    let echoed = large.call(&arguments).map(|reply| reply.body.len());
    assert_eq!(echoed.ok(), Some((64_usize << 10).div_ceil(3) * 4 + 2));
    criterion.bench_function("service/call, reused, list<u8> of 64 KiB", |bencher| {
        bencher.iter(|| large.call(black_box(&arguments)));
    });
}

criterion_group!(benches, mapping, subjects, headers, service);
criterion_main!(benches);
