//! What stands between a service in JavaScript and its world: its exports are compared with the
//! world when it is built, and integers of every type pass as they are.

mod toolbox;

use std::cell::RefCell;
use std::fs;
use std::path::Path;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tempfile::TempDir;
use wasmbay::build::{BuildError, Guest, Tools};
use wasmtime::component::{Component, Func, Instance, Linker, ResourceTable, Val};
use wasmtime::{Engine, Store};
use wasmtime_wasi::p2::pipe::MemoryOutputPipe;
use wasmtime_wasi::{WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};

/// A guest in JavaScript for the only world of the WIT.
fn guest(wit: &str, source: &str) -> (TempDir, Guest) {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir_all(root.path().join("wit")).unwrap();
    fs::write(root.path().join("wit/world.wit"), wit).unwrap();
    let folder = root.path().join("service");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("index.js"), source).unwrap();
    let guest = Guest::open(&folder).unwrap();
    (root, guest)
}

fn build(guest: &Guest) -> Result<Vec<u8>, BuildError> {
    let tools = Tools::near(Path::new(env!("CARGO_MANIFEST_DIR")));
    let component = guest.build(&tools, &mut |_| ())?;
    Ok(fs::read(component).unwrap())
}

const SHOP: &str = "package a:shop@1.0.0;
    interface till { open-drawer: func() -> u32; price: func(sku: string) -> u64; }
    world service { export till; }";

/// What the build says of a source for the shop's till.
fn refusal(source: &str) -> Vec<String> {
    let (_root, guest) = guest(SHOP, source);
    match build(&guest).unwrap_err() {
        BuildError::Exports {
            world, problems, ..
        } => {
            assert_eq!(world, "service");
            assert!(!guest.component().exists());
            problems
        }
        other => panic!("{other}"),
    }
}

#[test]
fn a_source_that_lacks_an_export_of_its_world_is_not_built() {
    for (source, expected) in [
        (
            "export const tills = { openDrawer() {}, price() {} };",
            "`till` of a:shop/till@1.0.0 is not exported; did you mean `tills`?",
        ),
        (
            "export default { till: { openDrawer() {}, price() {} } };",
            "`till` of a:shop/till@1.0.0 is not exported; a default export is not looked at: write `export const till = …`",
        ),
        (
            "export {}; globalThis.till = {};",
            "`till` of a:shop/till@1.0.0 is not exported; there are no exports",
        ),
        (
            "export const till = 'x';",
            "`till` of a:shop/till@1.0.0 is a string instead of an object with the interface's functions",
        ),
        (
            "export const till = { opendrawer() {}, price() {} };",
            "`till.openDrawer` of a:shop/till@1.0.0 is not exported; did you mean `opendrawer`?",
        ),
        (
            "export const till = { openDrawer: 3, price() {} };",
            "`till.openDrawer` of a:shop/till@1.0.0 is a number instead of a function",
        ),
        (
            "export const till = { async openDrawer() {}, price() {} };",
            "`till.openDrawer` of a:shop/till@1.0.0 is an async function, and has to return its value, not a promise",
        ),
    ] {
        assert_eq!(refusal(source), [expected], "{source}");
    }
    assert_eq!(refusal("export const till = {};").len(), 2);
}

#[test]
fn exports_may_be_a_class_of_the_sources_own() {
    let (_root, guest) = guest(
        SHOP,
        "class Base { openDrawer() { return this.drawer; } }
         class Till extends Base { drawer = 3; price() { return 7n; } }
         export const till = new Till();",
    );
    let mut service = Service::new(&build(&guest).unwrap());
    let got = service.call("a:shop/till@1.0.0", "open-drawer", &[]);
    assert_eq!(got.unwrap(), Val::U32(3));
}

#[test]
fn a_broken_source_ends_in_its_own_error() {
    let (_root, guest) = guest(SHOP, "throw new Error('no luck');");
    let error = build(&guest).unwrap_err().to_string();
    assert!(error.contains("no luck"), "{error}");
}

#[test]
fn two_exported_interfaces_of_one_name_are_refused() {
    let wit = "package a:shop@1.0.0;
        interface till { open: func(); }
        world service { export till; export b:shop/till@2.0.0; }
        package b:shop@2.0.0 { interface till { open: func(); } }";
    let (_root, guest) = guest(wit, "export const till = { open() {} };");
    let error = build(&guest).unwrap_err().to_string();
    assert!(
        error.starts_with(
            "a:shop/till@1.0.0 and b:shop/till@2.0.0 would both be the export `till` of "
        ),
        "{error}"
    );
}

/// What an instance and its host share.
struct State {
    wasi: WasiCtx,
    table: ResourceTable,
    /// What the next imported function is to be called with.
    expected: Vec<Val>,
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView {
            ctx: &mut self.wasi,
            table: &mut self.table,
        }
    }
}

/// A component, and an instance of it that is replaced after a trap.
struct Service {
    engine: Engine,
    component: Component,
    running: Option<(Store<State>, Instance)>,
    stderr: MemoryOutputPipe,
}

impl Service {
    fn new(component: &[u8]) -> Self {
        let engine = Engine::default();
        Self {
            component: Component::new(&engine, component).unwrap(),
            engine,
            running: None,
            stderr: MemoryOutputPipe::new(1 << 16),
        }
    }

    fn start(&mut self) -> (Store<State>, Instance) {
        self.stderr = MemoryOutputPipe::new(1 << 16);
        let mut linker: Linker<State> = Linker::new(&self.engine);
        wasmtime_wasi::p2::add_to_linker_sync(&mut linker).unwrap();
        let mut callee = linker.instance("t:ints/callee@1.0.0").unwrap();
        for (ty, ..) in TYPES {
            for place in PLACES.iter().chain(&["two", "fails"]) {
                let echo = |mut store: wasmtime::StoreContextMut<'_, State>,
                            _: wasmtime::component::types::ComponentFunc,
                            params: &[Val],
                            results: &mut [Val]| {
                    let expected = std::mem::take(&mut store.data_mut().expected);
                    assert_eq!(params, expected);
                    results[0] = answer(params);
                    Ok(())
                };
                let fails = |mut store: wasmtime::StoreContextMut<'_, State>,
                             _: wasmtime::component::types::ComponentFunc,
                             params: &[Val],
                             results: &mut [Val]| {
                    let expected = std::mem::take(&mut store.data_mut().expected);
                    assert_eq!(params, expected);
                    results[0] = parity(&params[0]);
                    Ok(())
                };
                let name = format!("{ty}-{place}");
                match *place {
                    "fails" => callee.func_new(&name, fails).unwrap(),
                    _ => callee.func_new(&name, echo).unwrap(),
                }
            }
        }
        let state = State {
            wasi: WasiCtxBuilder::new().stderr(self.stderr.clone()).build(),
            table: ResourceTable::new(),
            expected: Vec::new(),
        };
        let mut store = Store::new(&self.engine, state);
        let instance = linker.instantiate(&mut store, &self.component).unwrap();
        (store, instance)
    }

    fn call(&mut self, interface: &str, function: &str, params: &[Val]) -> Result<Val, String> {
        let (mut store, instance) = match self.running.take() {
            Some(running) => running,
            None => self.start(),
        };
        store.data_mut().expected = params.to_vec();
        let interface = instance
            .get_export_index(&mut store, None, interface)
            .unwrap();
        let index = instance
            .get_export_index(&mut store, Some(&interface), function)
            .unwrap();
        let function: Func = instance.get_func(&mut store, index).unwrap();
        let mut results = [Val::Bool(false)];
        match function.call(&mut store, params, &mut results) {
            Ok(()) => {
                self.running = Some((store, instance));
                let [result] = results;
                Ok(result)
            }
            Err(_) => Err(String::from_utf8_lossy(&self.stderr.contents()).into_owned()),
        }
    }
}

/// What an echo answers: its only parameter, or all of them.
fn answer(params: &[Val]) -> Val {
    match params {
        [one] => one.clone(),
        all => Val::Tuple(all.to_vec()),
    }
}

/// Even numbers are ok and odd ones an error.
fn parity(value: &Val) -> Val {
    let value = Some(Box::new(value.clone()));
    let odd = text(value.as_ref().unwrap()).ends_with(['1', '3', '5', '7', '9']);
    Val::Result(if odd { Err(value) } else { Ok(value) })
}

fn text(value: &Val) -> String {
    match value {
        Val::U8(value) => value.to_string(),
        Val::U16(value) => value.to_string(),
        Val::U32(value) => value.to_string(),
        Val::U64(value) => value.to_string(),
        Val::S8(value) => value.to_string(),
        Val::S16(value) => value.to_string(),
        Val::S32(value) => value.to_string(),
        Val::S64(value) => value.to_string(),
        other => panic!("{other:?}"),
    }
}

fn integer(ty: &str, value: i128) -> Val {
    match ty {
        "u8" => Val::U8(value.try_into().unwrap()),
        "u16" => Val::U16(value.try_into().unwrap()),
        "u32" => Val::U32(value.try_into().unwrap()),
        "u64" => Val::U64(value.try_into().unwrap()),
        "s8" => Val::S8(value.try_into().unwrap()),
        "s16" => Val::S16(value.try_into().unwrap()),
        "s32" => Val::S32(value.try_into().unwrap()),
        _ => Val::S64(value.try_into().unwrap()),
    }
}

/// Every type of integer, with its bounds.
const TYPES: [(&str, i128, i128); 8] = [
    ("u8", 0, u8::MAX as i128),
    ("u16", 0, u16::MAX as i128),
    ("u32", 0, u32::MAX as i128),
    ("u64", 0, u64::MAX as i128),
    ("s8", i8::MIN as i128, i8::MAX as i128),
    ("s16", i16::MIN as i128, i16::MAX as i128),
    ("s32", i32::MIN as i128, i32::MAX as i128),
    ("s64", i64::MIN as i128, i64::MAX as i128),
];

/// Where an integer can be in a value.
const PLACES: [&str; 8] = [
    "plain", "list", "record", "variant", "tuple", "option", "nested", "either",
];

fn ints_wit() -> String {
    let (mut types, mut echo, mut texts) = (String::new(), String::new(), String::new());
    for (ty, ..) in TYPES {
        types += &format!(
            "record r-{ty} {{ first-one: {ty}, name: string, many: list<{ty}>, fetch-URL: {ty} }}
             variant v-{ty} {{ none, one({ty}), many(list<{ty}>) }}\n"
        );
        let name = |place: &str| match place {
            "plain" => ty.to_owned(),
            "list" => format!("list<{ty}>"),
            "record" => format!("r-{ty}"),
            "variant" => format!("v-{ty}"),
            "tuple" => format!("tuple<{ty}, string, {ty}>"),
            "option" => format!("option<{ty}>"),
            "nested" => format!("option<option<{ty}>>"),
            _ => format!("list<result<{ty}, {ty}>>"),
        };
        for place in PLACES {
            let whole = name(place);
            echo += &format!("{ty}-{place}: func(x: {whole}) -> {whole};\n");
        }
        echo += &format!(
            "{ty}-two: func(x: {ty}, y: {ty}) -> tuple<{ty}, {ty}>;
             {ty}-fails: func(x: {ty}) -> result<{ty}, {ty}>;\n"
        );
        texts += &format!(
            "{ty}-shown: func(x: {ty}) -> string;
             {ty}-read: func(x: string) -> {ty};
             {ty}-read-list: func(x: string) -> list<{ty}>;
             {ty}-send: func(x: string) -> bool;\n"
        );
    }
    let names: Vec<_> = (TYPES.iter())
        .map(|(ty, ..)| format!("r-{ty}, v-{ty}"))
        .collect();
    let uses = format!("use types.{{{}}};", names.join(", "));
    format!(
        "package t:ints@1.0.0;
         interface types {{ {types} }}
         interface callee {{ {uses} {echo} }}
         interface echo {{ {uses} {echo} }}
         interface texts {{ {texts} }}
         world service {{ import callee; export echo; export texts; }}"
    )
}

/// Passes on whatever it is called with, if every integer in it is of the type that it has to be.
const INTS: &str = r#"
import callee from 't:ints/callee@1.0.0';

const wide = (name) => name.startsWith('u64') || name.startsWith('s64');

function check(name, value) {
  switch (typeof value) {
    case 'bigint':
      if (!wide(name)) throw new Error(`${name}: a bigint`);
      break;
    case 'number':
      if (wide(name) || !Number.isInteger(value)) throw new Error(`${name}: ${value}`);
      break;
    case 'object':
      if (value !== null) for (const part of Object.values(value)) check(name, part);
  }
}

const echo = {};
for (const name of Object.keys(callee)) {
  echo[name] = (...values) => {
    values.forEach((value) => check(name, value));
    if (name.endsWith('Record') && !('fetchURL' in values[0])) throw new Error('no fetchURL');
    return callee[name](...values);
  };
}

const texts = {};
for (const name of ['u8', 'u16', 'u32', 'u64', 's8', 's16', 's32', 's64']) {
  const read = (text) => (wide(name) && /^-?\d+$/.test(text) ? BigInt(text) : Number(text));
  texts[`${name}Shown`] = (value) => String(value);
  texts[`${name}Read`] = (text) => read(text);
  texts[`${name}ReadList`] = (text) => [read('0'), read(text)];
  texts[`${name}Send`] = (text) => {
    callee[`${name}Record`]({ firstOne: read('0'), name: '', many: [read(text)], fetchURL: read('0') });
    return true;
  };
}
export { echo, texts };
"#;

fn record(first: Val, many: Vec<Val>) -> Val {
    Val::Record(vec![
        ("first-one".to_owned(), first.clone()),
        ("name".to_owned(), Val::String("x".to_owned())),
        ("many".to_owned(), Val::List(many)),
        ("fetch-URL".to_owned(), first),
    ])
}

/// Values of a type in a place, from three integers.
fn placed(ty: &str, place: &str, [a, b, c]: [i128; 3]) -> Vec<Val> {
    let int = |value| integer(ty, value);
    let some = |value| Val::Option(Some(Box::new(value)));
    let text = Val::String("x".to_owned());
    match place {
        "plain" => vec![int(a)],
        "list" => vec![Val::List(vec![]), Val::List(vec![int(a), int(b), int(c)])],
        "record" => vec![record(int(a), vec![int(b), int(c)])],
        "variant" => vec![
            Val::Variant("none".to_owned(), None),
            Val::Variant("one".to_owned(), Some(Box::new(int(a)))),
            Val::Variant(
                "many".to_owned(),
                Some(Box::new(Val::List(vec![int(b), int(c)]))),
            ),
        ],
        "tuple" => vec![Val::Tuple(vec![int(a), text, int(b)])],
        "option" => vec![Val::Option(None), some(int(a))],
        "nested" => vec![
            Val::Option(None),
            some(Val::Option(None)),
            some(some(int(a))),
        ],
        _ => vec![Val::List(vec![
            Val::Result(Ok(Some(Box::new(int(a))))),
            Val::Result(Err(Some(Box::new(int(b))))),
        ])],
    }
}

/// Integers of a type, those at its edges and at those of the tool's types first of all.
fn integers(least: i128, most: i128) -> impl Strategy<Value = i128> {
    let edges: Vec<i128> = [
        0,
        1 << 7,
        1 << 8,
        1 << 15,
        1 << 16,
        1 << 31,
        1 << 32,
        1 << 53,
        1 << 63,
    ]
    .into_iter()
    .flat_map(|edge: i128| [edge - 1, edge, edge + 1, -edge - 1, -edge, 1 - edge])
    .chain([
        least,
        least + 1,
        most - 1,
        most,
        most - (1 << 31),
        most - (1 << 31) + 1,
    ])
    .filter(|edge| (least..=most).contains(edge))
    .collect();
    prop_oneof![prop::sample::select(edges), least..=most]
}

#[test]
fn integers_of_every_type_and_place_pass_as_they_are() {
    let (_root, guest) = guest(&ints_wit(), INTS);
    let service = RefCell::new(Service::new(&build(&guest).unwrap()));
    for (ty, least, most) in TYPES {
        let int = || integers(least, most);
        let mut runner = TestRunner::new(Config {
            cases: 48,
            failure_persistence: None,
            ..Config::default()
        });
        let checked = runner.run(&[int(), int(), int()], |[a, b, c]| {
            for place in PLACES {
                for value in placed(ty, place, [a, b, c]) {
                    let name = format!("{ty}-{place}");
                    let value = [value];
                    let got = service_call(&mut service.borrow_mut(), "echo", &name, &value);
                    prop_assert_eq!(got, Ok(value[0].clone()));
                }
            }
            let two = [integer(ty, a), integer(ty, b)];
            let got = service_call(
                &mut service.borrow_mut(),
                "echo",
                &format!("{ty}-two"),
                &two,
            );
            prop_assert_eq!(got, Ok(Val::Tuple(two.to_vec())));
            let one = [integer(ty, c)];
            let got = service_call(
                &mut service.borrow_mut(),
                "echo",
                &format!("{ty}-fails"),
                &one,
            );
            prop_assert_eq!(got, Ok(parity(&one[0])));
            let got = service_call(
                &mut service.borrow_mut(),
                "texts",
                &format!("{ty}-shown"),
                &one,
            );
            prop_assert_eq!(got, Ok(Val::String(c.to_string())));
            let text = [Val::String(c.to_string())];
            let got = service_call(
                &mut service.borrow_mut(),
                "texts",
                &format!("{ty}-read"),
                &text,
            );
            prop_assert_eq!(got, Ok(integer(ty, c)));
            Ok(())
        });
        checked.unwrap();
    }
}

fn service_call(
    service: &mut Service,
    interface: &str,
    function: &str,
    params: &[Val],
) -> Result<Val, String> {
    service.call(&format!("t:ints/{interface}@1.0.0"), function, params)
}

#[test]
fn a_number_that_its_type_cannot_hold_is_an_error() {
    let (_root, guest) = guest(&ints_wit(), INTS);
    let mut service = Service::new(&build(&guest).unwrap());
    for (ty, least, most) in TYPES {
        let outside = [(least - 1).to_string(), (most + 1).to_string()];
        let others = ["1.5", "NaN", "Infinity", "1e300"].map(str::to_owned);
        for number in outside.into_iter().chain(others) {
            for function in ["read", "read-list", "send"] {
                let text = [Val::String(number.clone())];
                let error = service_call(&mut service, "texts", &format!("{ty}-{function}"), &text);
                let error = error.unwrap_err();
                let named = error.contains(&format!("is no {ty}: it has to be"))
                    || error.contains(&format!("is no exact {ty}: write it as a bigint"));
                assert!(named, "{ty}-{function}({number}): {error}");
            }
        }
    }
}
