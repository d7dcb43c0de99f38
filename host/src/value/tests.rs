//! Values against wasmtime's own `Val`: guests and hosts get the same, and the same is refused.

mod components;
mod val;

use std::pin::Pin;
use std::sync::{Arc, LazyLock, Mutex};

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use wasmtime::component::{Accessor, Component, Instance, Linker, Val};
use wasmtime::{Config, Engine, Store, StoreContextMut};

use super::arbitrary::{arbitrary_pair, fields, list, option, record, result, variant};
use super::streams::Account;
use super::{Imported, ResultPath, Value, call, define};
use crate::shape::{Shape, Signature};
use components::{REALLOC, core_types, relay};
use val::{from_val, to_val};

static ENGINE: LazyLock<Engine> = LazyLock::new(|| engine(false));
static CONCURRENT: LazyLock<Engine> = LazyLock::new(|| engine(true));

fn engine(is_concurrent: bool) -> Engine {
    let mut config = Config::new();
    config
        .concurrency_support(is_concurrent)
        .wasm_component_model_async_stackful(is_concurrent)
        .wasm_component_model_fixed_length_lists(true);
    Engine::new(&config).unwrap()
}

const ENCODINGS: [&str; 3] = ["utf8", "utf16", "latin1+utf16"];

/// What values go through.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Path {
    /// The one that is tested.
    Values,
    /// wasmtime's own.
    Vals,
}

/// A function of the host, which keeps its arguments and waits before it returns.
#[derive(Clone)]
struct Host {
    seen: Arc<Mutex<Option<Vec<Value>>>>,
    returned: Option<Value>,
}

impl Imported<()> for Host {
    fn account(&self, _: &mut ()) -> Arc<Account> {
        Arc::default()
    }

    fn call<'a>(
        &self,
        _: StoreContextMut<'a, ()>,
        arguments: Vec<Value>,
    ) -> Pin<Box<dyn Future<Output = wasmtime::Result<Option<Value>>> + Send + 'a>> {
        self.clone().answer(arguments)
    }

    fn call_concurrent<'a>(
        &self,
        _: &'a Accessor<()>,
        arguments: Vec<Value>,
    ) -> Pin<Box<dyn Future<Output = wasmtime::Result<Option<Value>>> + Send + 'a>> {
        self.clone().answer(arguments)
    }
}

impl Host {
    fn answer(
        self,
        arguments: Vec<Value>,
    ) -> Pin<Box<dyn Future<Output = wasmtime::Result<Option<Value>>> + Send>> {
        Box::pin(async move {
            *self.seen.lock().unwrap() = Some(arguments);
            tokio::task::yield_now().await;
            Ok(self.returned)
        })
    }

    fn define(&self, linker: &mut Linker<()>, signature: &Signature, path: Path) {
        let mut root = linker.root();
        if path == Path::Values {
            return define(&mut root, "host", signature, false, self.clone()).unwrap();
        }
        let (host, signature) = (self.clone(), signature.clone());
        root.func_new_async("host", move |_, _, arguments, results| {
            let arguments = arguments.iter().zip(&signature.params);
            let arguments = arguments.map(|(val, param)| from_val(val, &param.shape));
            *host.seen.lock().unwrap() = Some(arguments.collect());
            if let (Some(returned), Some(shape)) = (&host.returned, &signature.result) {
                results[0] = to_val(returned, shape).unwrap();
            }
            Box::new(async {
                tokio::task::yield_now().await;
                Ok(())
            })
        })
        .unwrap();
    }
}

fn signature(params: &[Shape], result: Option<Shape>) -> Signature {
    let names: Vec<_> = (0..params.len()).map(|i| format!("p{i}")).collect();
    let names = names.iter().map(String::as_str);
    let params: Vec<_> = names.zip(params.iter().cloned()).collect();
    Signature {
        params: fields(&params),
        result,
    }
}

fn cause(error: &wasmtime::Error) -> String {
    error.root_cause().to_string()
}

fn is_out_of_fuel(cause: &str) -> bool {
    cause.contains("fuel allocated for hostcalls has been exhausted")
}

/// Calls an exported function by one of the paths.
async fn called(
    store: &mut Store<()>,
    instance: &Instance,
    name: &str,
    signature: &Signature,
    arguments: &[Value],
    path: Path,
) -> Result<Option<Value>, String> {
    let function = instance.get_func(&mut *store, name).unwrap();
    if path == Path::Values {
        let result_path = if Engine::same(store.engine(), &CONCURRENT) {
            ResultPath::concurrent(signature)
        } else {
            ResultPath::PLAIN
        };
        let called = call(function, store, arguments, result_path).await;
        return called.map_err(|error| cause(&error));
    }
    let params = arguments.iter().zip(&signature.params);
    let params: Vec<_> = params
        .map(|(value, param)| to_val(value, &param.shape).unwrap())
        .collect();
    let mut results = vec![Val::Bool(false); usize::from(signature.result.is_some())];
    let called = function.call_async(store, &params, &mut results).await;
    called.map_err(|error| cause(&error))?;
    let results = results.iter().zip(&signature.result);
    Ok(results.map(|(val, shape)| from_val(val, shape)).next())
}

/// Calls a guest that calls the host with its own arguments, and returns what that returns: what
/// the host got, and what came back.
async fn relayed(
    component: &Component,
    signature: &Signature,
    arguments: &[Value],
    returned: Option<&Value>,
    [exported, imported]: [Path; 2],
    fuel: usize,
) -> (Option<Vec<Value>>, Result<Option<Value>, String>) {
    let host = Host {
        seen: Arc::default(),
        returned: returned.cloned(),
    };
    let mut linker = Linker::new(component.engine());
    host.define(&mut linker, signature, imported);
    let mut store = Store::new(component.engine(), ());
    store.set_hostcall_fuel(fuel);
    let instance = linker.instantiate_async(&mut store, component).await;
    let instance = instance.unwrap();
    let called = called(
        &mut store, &instance, "relay", signature, arguments, exported,
    )
    .await;
    let seen = host.seen.lock().unwrap().take();
    (seen, called)
}

fn component(text: &str) -> Component {
    component_for(&ENGINE, text)
}

fn component_for(engine: &Engine, text: &str) -> Component {
    match Component::new(engine, text) {
        Ok(component) => component,
        Err(error) => panic!("{error:?}\n{text}"),
    }
}

fn wait<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.unwrap().block_on(future)
}

/// Whatever stands between caller and host, each gets what the other gave.
fn check_relay(
    signature: &Signature,
    arguments: &[Value],
    returned: Option<&Value>,
    encoding: &str,
) {
    let text = relay(signature, encoding, REALLOC);
    for engine in [&*ENGINE, &*CONCURRENT] {
        let component = component_for(engine, &text);
        for exported in [Path::Values, Path::Vals] {
            for imported in [Path::Values, Path::Vals] {
                let paths = [exported, imported];
                let relayed = relayed(&component, signature, arguments, returned, paths, 128 << 20);
                let (seen, got) = wait(relayed);
                assert_eq!(got.as_ref().map(Option::as_ref), Ok(returned), "{paths:?}");
                assert_eq!(seen.as_deref(), Some(arguments), "{paths:?}");
            }
        }
    }
}

/// What lifting a value consumes.
fn cost(value: &Value) -> usize {
    let all = |values: &[Value]| values.iter().map(|value| 32 + cost(value)).sum();
    let payload = |value: &Option<Box<Value>>| value.as_deref().map_or(0, |v| 32 + cost(v));
    match value {
        Value::String(text) => text.len(),
        Value::Bytes(bytes) => bytes.len(),
        Value::List(values)
        | Value::FixedList(values)
        | Value::Tuple(values)
        | Value::Record(values) => all(values),
        Value::Variant(_, value) | Value::Option(value) => payload(value),
        Value::Result(Ok(value) | Err(value)) => payload(value),
        _ => 0,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn every_function_gets_and_returns_what_it_does_with_val(
        params in vec(arbitrary_pair(), 0..5),
        result in proptest::option::of(arbitrary_pair()),
        encoding in select(&ENCODINGS[..]),
    ) {
        let (shapes, arguments): (Vec<_>, Vec<_>) = params.into_iter().unzip();
        let (shape, returned) = result.unzip();
        check_relay(&signature(&shapes, shape), &arguments, returned.as_ref(), encoding);
    }

    /// A guest that passes and returns core values and memory as no compiler does.
    #[test]
    fn what_a_hostile_guest_gives_is_taken_or_refused_as_with_val(
        (shape, _) in arbitrary_pair(),
        memory in vec(select(&b"\0\0\0\0\x01\x02\x03\x08\x10a\xc3\xa9\xd8\xff"[..]), 512),
        numbers in vec(prop_oneof![
            3 => 0..4_u64,
            4 => (0..64_u64).prop_map(|number| number * 8),
            2 => select(vec![0xd800, 0x11_0000, 65_528, 65_536, 0xffff_ffff, 1 << 31, u64::MAX]),
            1 => any::<u64>(),
        ], 16),
        encoding in select(&ENCODINGS[..]),
    ) {
        let takes = signature(std::slice::from_ref(&shape), None);
        let gives = signature(&[], Some(shape.clone()));
        let component = component(&components::hostile(&shape, encoding, &memory, &numbers));
        let run = async |path| {
            let host = Host { seen: Arc::default(), returned: None };
            let mut linker = Linker::new(&ENGINE);
            host.define(&mut linker, &takes, path);
            let mut got = Vec::new();
            for (name, signature) in [("give", &gives), ("take", &signature(&[], None))] {
                let mut store = Store::new(&ENGINE, ());
                store.set_hostcall_fuel(1 << 20);
                let instance = linker.instantiate_async(&mut store, &component).await.unwrap();
                let called = called(&mut store, &instance, name, signature, &[], path).await;
                got.push((called, host.seen.lock().unwrap().take()));
            }
            got
        };
        let (values, vals) = (wait(run(Path::Values)), wait(run(Path::Vals)));
        for (values, vals) in values.into_iter().zip(vals) {
            // A value takes no more than a `Val`, so what was too much for that may be taken here.
            if !matches!(&vals.0, Err(cause) if is_out_of_fuel(cause)) {
                prop_assert_eq!(values, vals);
            }
        }
    }

    #[test]
    fn a_value_of_another_type_is_refused(
        (shape, fits) in arbitrary_pair(),
        (_, other) in arbitrary_pair(),
    ) {
        let takes = signature(std::slice::from_ref(&shape), None);
        let gives = signature(&[], Some(shape.clone()));
        let paths = [Path::Values; 2];
        for value in [fits, other] {
            let is_of_type = to_val(&value, &shape).is_some();
            let taking = component(&relay(&takes, "utf8", REALLOC));
            let arguments = std::slice::from_ref(&value);
            let (seen, got) =
                wait(relayed(&taking, &takes, arguments, None, paths, usize::MAX));
            prop_assert_eq!(got.is_ok(), is_of_type, "{:?}", got);
            prop_assert_eq!(seen.is_some(), is_of_type);
            let giving = component(&relay(&gives, "utf8", REALLOC));
            let (_, got) = wait(relayed(&giving, &gives, &[], Some(&value), paths, usize::MAX));
            prop_assert_eq!(got.is_ok(), is_of_type, "{:?}", got);
        }
    }

    #[test]
    fn a_result_consumes_fuel_for_what_it_takes((shape, value) in arbitrary_pair()) {
        let signature = signature(&[], Some(shape));
        let component = component(&relay(&signature, "utf8", REALLOC));
        let paths = [Path::Values; 2];
        let cost = cost(&value);
        let (_, got) = wait(relayed(&component, &signature, &[], Some(&value), paths, cost));
        prop_assert_eq!(got, Ok(Some(value.clone())));
        if let Some(less) = cost.checked_sub(1) {
            let (_, got) = wait(relayed(&component, &signature, &[], Some(&value), paths, less));
            prop_assert!(matches!(&got, Err(cause) if is_out_of_fuel(cause)), "{:?}", got);
        }
    }
}

#[test]
fn functions_have_any_number_of_core_values() {
    for count in [
        0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 40,
    ] {
        let arguments: Vec<_> = (0..count).map(Value::U32).collect();
        let shapes = vec![Shape::U32; count as usize];
        for (shape, returned) in [
            (None, None),
            (Some(Shape::S8), Some(Value::S8(-1))),
            (Some(Shape::String), Some(Value::String("é".into()))),
        ] {
            let signature = signature(&shapes, shape);
            check_relay(&signature, &arguments, returned.as_ref(), "utf8");
        }
    }
}

/// An `async func` that gives `count` numbers, the first one that which the host gives for as many, and is lifted in
/// this way.
fn gives(count: usize, is_lifted_async: bool) -> String {
    let numbers = |ty: &str| vec![ty; count].join(" ");
    let result = match count {
        0 => String::new(),
        _ => format!("(result (tuple {}))", numbers("u32")),
    };
    let params: String = (0..count)
        .map(|i| format!("(param \"p{i}\" u32)"))
        .collect();
    // With more than four the arguments of a call that does not wait are in memory, with more than 16 all are.
    let stores: String = (0..count)
        .map(|i| format!("(i32.store (i32.const {}) (i32.const {i}))", 64 + 4 * i))
        .collect();
    let (passes, takes) = match count {
        0..=4 => {
            let values: String = (0..count).map(|i| format!("(i32.const {i})")).collect();
            (values, numbers("i32"))
        }
        _ => ("(i32.const 64)".into(), "i32".into()),
    };
    let first = |i| match i {
        0 => "(i32.load (i32.const 32))".to_owned(),
        _ => format!("(i32.const {i})"),
    };
    let in_memory = "(i32.store (i32.const 64) (i32.load (i32.const 32))) (i32.const 64)";
    let (returns, returned) = match count {
        0..=16 => ((0..count).map(first).collect(), numbers("i32")),
        _ => (in_memory.to_owned(), "i32".into()),
    };
    let (export, give) = if is_lifted_async {
        (
            "async",
            format!("(func (export \"give\") {stores} (call $wait) (call $return {returns}))"),
        )
    } else {
        let (ty, value) = match count {
            0 => ("", String::new()),
            1 => ("(result i32)", first(0)),
            _ => ("(result i32)", in_memory.to_owned()),
        };
        (
            "",
            format!("(func (export \"give\") {ty} {stores} (call $wait) {value})"),
        )
    };
    let give = give.replace(
        "(call $wait)",
        &format!("(call $subtask (call $host {passes} (i32.const 32)))"),
    );
    format!(
        r#"(component
          (import "host" (func $host async {params} (result u32)))
          (core module $memory (memory (export "memory") 1)
            (func (export "realloc") (param i32 i32 i32 i32) (result i32) unreachable))
          (core instance $memory (instantiate $memory))
          (core func $host' (canon lower (func $host) async (memory (core memory $memory "memory"))))
          (core func $return (canon task.return {result} (memory (core memory $memory "memory"))))
          (core func $new (canon waitable-set.new))
          (core func $join (canon waitable.join))
          (core func $wait (canon waitable-set.wait (memory (core memory $memory "memory"))))
          (core module $m
            (import "" "memory" (memory 1))
            (import "" "host" (func $host (param {takes} i32) (result i32)))
            (import "" "return" (func $return (param {returned})))
            (import "" "new" (func $new (result i32)))
            (import "" "join" (func $join (param i32 i32)))
            (import "" "wait" (func $wait (param i32 i32) (result i32)))
            (func $subtask (param $status i32) (local $set i32)
              ;; What has returned at once has no handle.
              (br_if 0 (i32.eq (local.get $status) (i32.const 2)))
              (local.set $set (call $new))
              (call $join (i32.shr_u (local.get $status) (i32.const 4)) (local.get $set))
              (drop (call $wait (local.get $set) (i32.const 16))))
            {give})
          (core instance $m (instantiate $m (with "" (instance
            (export "memory" (memory $memory "memory")) (export "host" (func $host'))
            (export "return" (func $return)) (export "new" (func $new))
            (export "join" (func $join)) (export "wait" (func $wait))))))
          (func (export "give") async {result}
            (canon lift (core func $m "give") {export} (memory (core memory $memory "memory")))))"#
    )
}

#[test]
fn asynchronous_functions_have_any_number_of_core_values() {
    for count in [
        0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 40,
    ] {
        let result = (count > 0).then(|| Shape::Tuple(vec![Shape::U32; count].into()));
        let takes = signature(&vec![Shape::U32; count], Some(Shape::U32));
        let gives_signature = signature(&[], result);
        let mut expected: Vec<_> = (0..count).map(|i| Value::U32(i as u32)).collect();
        let passed = expected.clone();
        if let Some(first) = expected.first_mut() {
            *first = Value::U32(7);
        }
        let expected = (count > 0).then_some(Value::Tuple(expected));
        for is_lifted_async in [true, false] {
            let component = component_for(&CONCURRENT, &gives(count, is_lifted_async));
            let host = Host {
                seen: Arc::default(),
                returned: Some(Value::U32(7)),
            };
            let mut linker = Linker::new(&CONCURRENT);
            define(&mut linker.root(), "host", &takes, true, host.clone()).unwrap();
            let mut store = Store::new(&CONCURRENT, ());
            let got = wait(async {
                let instance = linker
                    .instantiate_async(&mut store, &component)
                    .await
                    .unwrap();
                called(
                    &mut store,
                    &instance,
                    "give",
                    &gives_signature,
                    &[],
                    Path::Values,
                )
                .await
            });
            assert_eq!(got, Ok(expected.clone()), "{count} {is_lifted_async}");
            assert_eq!(*host.seen.lock().unwrap(), Some(passed.clone()));
        }
    }
}

#[test]
fn large_lists_of_bytes_pass() {
    let bytes: Vec<_> = (0..1_000_000_u32).map(|i| (i * 31) as u8).collect();
    let value = Value::Record(vec![
        Value::Bytes(bytes.clone()),
        Value::List(vec![Value::Bytes(Vec::new()), Value::Bytes(bytes)]),
    ]);
    let shape = record(&[("a", Shape::Bytes), ("b", list(Shape::Bytes))]);
    let signature = signature(std::slice::from_ref(&shape), Some(shape.clone()));
    let component = component(&relay(&signature, "utf8", REALLOC));
    let paths = [Path::Values; 2];
    // Twice the bytes, and five values.
    let fuel = 2_000_000 + 5 * size_of::<Value>();
    let arguments = std::slice::from_ref(&value);
    let relayed = relayed(&component, &signature, arguments, Some(&value), paths, fuel);
    let (seen, got) = wait(relayed);
    assert!(got == Ok(Some(value.clone())));
    assert!(seen == Some(vec![value]));
}

#[test]
fn memory_that_a_guest_does_not_have_is_not_written() {
    let many = Shape::Tuple(vec![Shape::U64; 17].into());
    let full = Value::Tuple(vec![Value::U64(7); 17]);
    const END: u32 = 64 * 65_536;
    let beyond = [END - 8, END - 1, END, u32::MAX - 7, u32::MAX];
    for address in [0, 1, 2, 3, 4, 8].into_iter().chain(beyond) {
        let realloc = format!("(i32.const {})", address.cast_signed());
        for (shape, value, align, size) in [
            (Shape::String, Value::String("text".repeat(10)), 2, 80),
            (Shape::Bytes, Value::Bytes(vec![7; 40]), 1, 40),
            (list(Shape::U64), Value::List(vec![Value::U64(7); 5]), 8, 40),
            (
                list(Shape::String),
                Value::List(vec![Value::String(String::new()); 5]),
                4,
                40,
            ),
            (many.clone(), full.clone(), 8, 136),
        ] {
            let allowed = address.is_multiple_of(align)
                && END.checked_sub(address).is_some_and(|r| r >= size);
            let signature = signature(&[shape], None);
            let component = component(&relay(&signature, "utf16", &realloc));
            let arguments = [value];
            let [values, vals] = [Path::Values, Path::Vals].map(|path| {
                let paths = [path, Path::Vals];
                wait(relayed(
                    &component,
                    &signature,
                    &arguments,
                    None,
                    paths,
                    1 << 20,
                ))
            });
            assert_eq!(values, vals, "{address}");
            assert_eq!(values.1.is_ok(), allowed, "{address}: {values:?}");
        }
    }
}

#[test]
fn post_return_gets_what_the_function_returned() {
    let text = r#"(component
            (core module $m
                (memory (export "memory") 1)
                (data (i32.const 8) "\20\00\00\00\02\00\00\00")
                (data (i32.const 32) "hi")
                (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 0))
                (func (export "text") (param i32) (result i32) (i32.const 8))
                (func (export "done") (param i32)
                    (if (i32.ne (local.get 0) (i32.const 8)) (then unreachable))))
            (core instance $m (instantiate $m))
            (func (export "text") (param "n" u32) (result string)
                (canon lift (core func $m "text") (memory (core memory $m "memory"))
                    (realloc (core func $m "realloc")) (post-return (core func $m "done")))))"#;
    let component = component(text);
    let mut store = Store::new(&ENGINE, ());
    wait(async {
        let linker = Linker::new(&ENGINE);
        let instance = linker.instantiate_async(&mut store, &component).await;
        let text = instance.unwrap().get_func(&mut store, "text").unwrap();
        // Twice: a post-return that did not run would not let the function be called again.
        for _ in 0..2 {
            let argument = [Value::U32(1)];
            let got = call(text, &mut store, &argument, ResultPath::PLAIN)
                .await
                .unwrap();
            assert_eq!(got, Some(Value::String("hi".into())));
        }
        let error = call(text, &mut store, &[], ResultPath::PLAIN)
            .await
            .unwrap_err();
        assert_eq!(cause(&error), "expected 1 values, found 0");
    });
}

#[test]
fn an_import_of_other_core_values_is_not_linked() {
    let imported = signature(&[Shape::U32], Some(Shape::U32));
    let component = component(&relay(&imported, "utf8", REALLOC));
    for (other, what) in [
        (signature(&[Shape::String], Some(Shape::U32)), "parameters"),
        (signature(&[], Some(Shape::U32)), "parameters"),
        (signature(&[Shape::U32], None), "results"),
        (signature(&[Shape::U32], Some(Shape::String)), "results"),
    ] {
        let mut linker = Linker::new(&ENGINE);
        let host = Host {
            seen: Arc::default(),
            returned: None,
        };
        host.define(&mut linker, &other, Path::Values);
        let Err(error) = linker.instantiate_pre(&component) else {
            panic!("{other} is linked");
        };
        let error = format!("{error:?}");
        assert!(
            error.contains(&format!("type mismatch with {what}")),
            "{error}"
        );
    }
}

#[test]
fn values_are_equal_by_content() {
    let nan = |bits| Value::F64(f64::from_bits(bits));
    assert_eq!(nan(0x7ff8 << 48), nan(0xfff8_0000_0000_0001));
    assert_eq!(Value::F32(f32::NAN), Value::F32(-f32::NAN));
    assert_ne!(Value::F32(0.0), Value::F32(-0.0));
    assert_ne!(Value::F64(0.0), Value::F64(-0.0));
    assert_ne!(Value::List(Vec::new()), Value::Tuple(Vec::new()));
    assert_ne!(Value::U8(1), Value::S8(1));
    let of = |value| Value::Variant(1, Some(Box::new(value)));
    assert_eq!(of(Value::Bool(true)), of(Value::Bool(true)));
    assert_ne!(of(Value::Bool(true)), of(Value::Bool(false)));
    assert_ne!(of(Value::Bool(true)), Value::Variant(1, None));
}

#[test]
fn cases_share_core_values() {
    // A float and an integer of 64 bits, a text and nothing: the slots are those of the widest.
    let payloads = variant(&[
        ("a", Some(Shape::F32)),
        ("b", Some(Shape::S64)),
        ("c", Some(Shape::String)),
        ("d", Some(result(Some(Shape::F64), None))),
        ("e", None),
    ]);
    assert_eq!(core_types(&payloads), ["i32", "i64", "i64"]);
    let case = |number, value| Value::Variant(number, Some(Box::new(value)));
    let ok = Value::Result(Ok(Some(Box::new(Value::F64(-2.5)))));
    for value in [
        case(0, Value::F32(-1.5)),
        case(1, Value::S64(i64::MIN)),
        case(2, Value::String("text".into())),
        case(3, ok),
        case(3, Value::Result(Err(None))),
        Value::Variant(4, None),
    ] {
        let shapes = [payloads.clone(), option(payloads.clone())];
        let arguments = [value.clone(), Value::Option(Some(Box::new(value.clone())))];
        let signature = signature(&shapes, Some(payloads.clone()));
        check_relay(&signature, &arguments, Some(&value), "utf8");
    }
}
