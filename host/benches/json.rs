//! What the JSON mapping costs: `cargo bench -p wasmbay --bench json`.
//!
//! Each body is read into values and written back. The bytes a second are those of the JSON text.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use wasmbay::json::{self, Limits};
use wasmbay::shape::{Field, Shape, Signature};
use wasmtime::component::Val;

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

fn order(id: u64) -> Val {
    let note = Val::String("leave at door".into());
    Val::Record(vec![
        ("order-id".into(), Val::U64(id)),
        ("sku".into(), Val::String("tea-earl-grey".into())),
        ("quantity".into(), Val::U32(12)),
        ("price".into(), Val::Float64(12.95)),
        ("note".into(), Val::Option(Some(Box::new(note)))),
    ])
}

fn mapping(criterion: &mut Criterion) {
    let bodies = [
        ("record of 100 B", order_shape(), order(4711)),
        (
            "records of 10 KiB",
            Shape::List(Box::new(order_shape())),
            Val::List((0..110).map(order).collect()),
        ),
        (
            "bytes of 10 KiB",
            Shape::Bytes,
            Val::List((0..10_240_u32).map(|i| Val::U8((i * 31) as u8)).collect()),
        ),
    ];
    let limits = Limits::default();
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

criterion_group!(benches, mapping);
criterion_main!(benches);
