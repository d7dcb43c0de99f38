//! Components of functions of any type, as text.

use std::fmt::Write as _;

use super::*;

/// Allocates behind what was allocated before; what shrinks stays where it is.
pub(super) const REALLOC: &str = r#"
    (if (i32.and (i32.ne (local.get 0) (i32.const 0)) (i32.le_u (local.get 3) (local.get 1)))
        (then (return (local.get 0))))
    (global.set $free (i32.and
        (i32.add (global.get $free) (i32.sub (local.get 2) (i32.const 1)))
        (i32.sub (i32.const 0) (local.get 2))))
    (memory.copy (global.get $free) (local.get 0) (local.get 1))
    (global.get $free)
    (global.set $free (i32.add (global.get $free) (local.get 3)))"#;

/// Types as text. Those with names of their own have to be imported before a function uses them.
#[derive(Default)]
struct Types {
    imports: String,
    count: usize,
}

impl Types {
    fn of(&mut self, shape: &Shape) -> String {
        match shape {
            Shape::Bool
            | Shape::U8
            | Shape::U16
            | Shape::U32
            | Shape::U64
            | Shape::S8
            | Shape::S16
            | Shape::S32
            | Shape::S64
            | Shape::F32
            | Shape::F64
            | Shape::Char
            | Shape::String => shape.to_string(),
            Shape::Bytes => "(list u8)".into(),
            Shape::List(item) => format!("(list {})", self.of(item)),
            Shape::Stream(item) => format!("(stream {})", self.of(item)),
            Shape::Future(value) => format!("(future {})", self.of(value)),
            Shape::FixedList(item, len) => format!("(list {} {len})", self.of(item)),
            Shape::Tuple(items) => {
                let items: Vec<_> = items.iter().map(|item| self.of(item)).collect();
                format!("(tuple {})", items.join(" "))
            }
            Shape::Option(some) => format!("(option {})", self.of(some)),
            Shape::Result { ok, err } => {
                let ok = ok.as_ref().map(|ok| self.of(ok)).unwrap_or_default();
                let err = err.as_ref().map(|err| format!("(error {})", self.of(err)));
                format!("(result {ok} {})", err.unwrap_or_default())
            }
            Shape::Record(fields) => {
                let field = |field: &crate::shape::Field| {
                    format!("(field \"{}\" {})", field.name, self.of(&field.shape))
                };
                let fields: Vec<_> = fields.iter().map(field).collect();
                self.named(&format!("(record {})", fields.join(" ")))
            }
            Shape::Variant(cases) => {
                let case = |case: &crate::shape::Case| {
                    let payload = case.payload.as_ref().map(|payload| self.of(payload));
                    format!("(case \"{}\" {})", case.name, payload.unwrap_or_default())
                };
                let cases: Vec<_> = cases.iter().map(case).collect();
                self.named(&format!("(variant {})", cases.join(" ")))
            }
            Shape::Enum(names) => self.named(&format!("(enum \"{}\")", names.join("\" \""))),
            Shape::Flags(names) => self.named(&format!("(flags \"{}\")", names.join("\" \""))),
        }
    }

    fn named(&mut self, definition: &str) -> String {
        let number = self.count;
        self.count += 1;
        let name = format!("$t{number}");
        writeln!(
            self.imports,
            "(type {name}' {definition}) (import \"t{number}\" (type {name} (eq {name}')))"
        )
        .unwrap();
        name
    }

    fn function(&mut self, signature: &Signature) -> String {
        let mut text = String::new();
        for param in &signature.params {
            let ty = self.of(&param.shape);
            write!(text, "(param \"{}\" {ty}) ", param.name).unwrap();
        }
        if let Some(result) = &signature.result {
            let ty = self.of(result);
            write!(text, "(result {ty})").unwrap();
        }
        text
    }
}

/// The core values of a value, as the canonical ABI flattens it.
pub(super) fn core_types(shape: &Shape) -> Vec<&'static str> {
    match shape {
        Shape::U64 | Shape::S64 => vec!["i64"],
        Shape::F32 => vec!["f32"],
        Shape::F64 => vec!["f64"],
        Shape::String | Shape::Bytes | Shape::List(_) => vec!["i32"; 2],
        Shape::FixedList(item, len) => core_types(item).repeat(*len as usize),
        Shape::Tuple(items) => items.iter().flat_map(core_types).collect(),
        Shape::Record(fields) => fields.iter().flat_map(|f| core_types(&f.shape)).collect(),
        Shape::Flags(names) => vec!["i32"; names.len().div_ceil(32)],
        Shape::Variant(cases) => joined(cases.iter().map(|case| case.payload.as_ref())),
        Shape::Option(some) => joined([None, Some(&**some)].into_iter()),
        Shape::Result { ok, err } => joined([ok.as_deref(), err.as_deref()].into_iter()),
        _ => vec!["i32"],
    }
}

fn joined<'s>(payloads: impl Iterator<Item = Option<&'s Shape>>) -> Vec<&'static str> {
    let mut types = vec!["i32"];
    for payload in payloads.flatten() {
        for (index, new) in core_types(payload).into_iter().enumerate() {
            match types.get_mut(index + 1) {
                None => types.push(new),
                Some(old) if *old == new => {}
                Some(old) if matches!((*old, new), ("i32", "f32") | ("f32", "i32")) => *old = "i32",
                Some(old) => *old = "i64",
            }
        }
    }
    types
}

/// The core values of parameters: an address, if they are too many.
fn core_params(signature: &Signature) -> Vec<&'static str> {
    let params = signature.params.iter().flat_map(|p| core_types(&p.shape));
    let params: Vec<_> = params.collect();
    if params.len() > 16 {
        vec!["i32"]
    } else {
        params
    }
}

/// The core value of a result; `None` if it stands in memory.
fn core_type(result: Option<&Shape>) -> Option<&'static [&'static str]> {
    match result.map(core_types).unwrap_or_default()[..] {
        [] => Some(&[]),
        ["i32"] => Some(&["i32"]),
        ["i64"] => Some(&["i64"]),
        ["f32"] => Some(&["f32"]),
        ["f64"] => Some(&["f64"]),
        _ => None,
    }
}

fn libc(realloc: &str, memory: &str) -> String {
    format!(
        r#"(core module $libc
            (memory (export "memory") 64)
            (global $free (mut i32) (i32.const 65536))
            {memory}
            (func (export "realloc") (param i32 i32 i32 i32) (result i32) {realloc}))
        (core instance $libc (instantiate $libc))"#
    )
}

fn options(encoding: &str) -> String {
    format!(
        r#"(memory (core memory $libc "memory")) (realloc (core func $libc "realloc")) string-encoding={encoding}"#
    )
}

/// Exports `relay`, which calls the imported `host` of the same type with what it gets.
pub(super) fn relay(signature: &Signature, encoding: &str, realloc: &str) -> String {
    const RESULT: &str = "(i32.const 1024)";
    let mut types = Types::default();
    let function = types.function(signature);
    let params = core_params(signature);
    let all = params.join(" ");
    let gets: String = (0..params.len())
        .map(|index| format!("(local.get {index}) "))
        .collect();
    let (host, call, result) = match core_type(signature.result.as_ref()) {
        Some(result) => {
            let result = result.join(" ");
            (
                format!("(param {all}) (result {result})"),
                format!("(call $host {gets})"),
                result,
            )
        }
        None => (
            format!("(param {all} i32)"),
            format!("(call $host {gets} {RESULT}) {RESULT}"),
            "i32".to_owned(),
        ),
    };
    let (imports, libc, options) = (&types.imports, libc(realloc, ""), options(encoding));
    format!(
        r#"(component
            {imports}
            (import "host" (func $host {function}))
            {libc}
            (core func $host (canon lower (func $host) {options}))
            (core module $relay
                (import "" "host" (func $host {host}))
                (func (export "relay") (param {all}) (result {result}) {call}))
            (core instance $relay
                (instantiate $relay (with "" (instance (export "host" (func $host))))))
            (func (export "relay") {function}
                (canon lift (core func $relay "relay") {options})))"#
    )
}

/// Constants of these types, as many as there are.
fn constants(types: &[&str], numbers: &[u64]) -> String {
    let constant = |(ty, number): (&&str, &u64)| {
        let (wide, narrow) = (number.cast_signed(), *number as i32);
        match *ty {
            "i32" => format!("(i32.const {narrow}) "),
            "i64" => format!("(i64.const {wide}) "),
            "f32" => format!("(f32.reinterpret_i32 (i32.const {narrow})) "),
            _ => format!("(f64.reinterpret_i64 (i64.const {wide})) "),
        }
    };
    types.iter().zip(numbers).map(constant).collect()
}

/// Exports `give`, which returns core values and memory as they are, as if they were of the type,
/// and `take`, which calls the imported `host` with them.
pub(super) fn hostile(shape: &Shape, encoding: &str, memory: &[u8], numbers: &[u64]) -> String {
    let mut types = Types::default();
    let ty = types.of(shape);
    let mut data = String::new();
    for byte in memory {
        write!(data, "\\{byte:02x}").unwrap();
    }
    let taken = core_params(&signature(std::slice::from_ref(shape), None));
    let given = core_type(Some(shape)).unwrap_or(&["i32"]);
    let (takes, gives) = (constants(&taken, numbers), constants(given, numbers));
    let (taken, given) = (taken.join(" "), given.join(" "));
    let imports = &types.imports;
    let libc = libc("(i32.const 0)", &format!("(data (i32.const 0) \"{data}\")"));
    let options = options(encoding);
    format!(
        r#"(component
            {imports}
            (import "host" (func $host (param "p0" {ty})))
            {libc}
            (core func $host (canon lower (func $host) {options}))
            (core module $guest
                (import "" "host" (func $host (param {taken})))
                (func (export "take") (call $host {takes}))
                (func (export "give") (result {given}) {gives}))
            (core instance $guest
                (instantiate $guest (with "" (instance (export "host" (func $host))))))
            (func (export "take") (canon lift (core func $guest "take")))
            (func (export "give") (result {ty}) (canon lift (core func $guest "give") {options})))"#
    )
}
