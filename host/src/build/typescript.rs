//! TypeScript declarations of what a world imports and exports, as the modules of `edge` have it.
//!
//! Each interface becomes a module of its name, so that a service writes
//! `import { get } from 'shop:catalog/products@1.0.0'` and its editor knows what that is. The
//! declarations are for editors and `tsc` only: `esbuild` drops the types without looking at them.

#![expect(
    clippy::indexing_slicing,
    reason = "the ids within a Resolve are places in its own arenas"
)]

use std::fmt::Write as _;

use wit_parser::{
    Docs, Function, FunctionKind, Handle, InterfaceId, Resolve, Type, TypeDef, TypeDefKind, TypeId,
    TypeOwner, WorldId, WorldItem,
};

use super::comments::comment;
use crate::text::camel_case;

/// The declarations of every interface that the world imports or exports.
pub(super) fn declarations(resolve: &Resolve, world: WorldId) -> String {
    let mut text = String::from("// Generated from wit/ when the service is built.\n");
    let world = &resolve.worlds[world];
    let mut seen = Vec::new();
    for item in world.imports.values().chain(world.exports.values()) {
        if let WorldItem::Interface { id, .. } = item
            && !seen.contains(id)
        {
            seen.push(*id);
            interface(&mut text, resolve, *id);
        }
    }
    text
}

fn interface(text: &mut String, resolve: &Resolve, id: InterfaceId) {
    let Some(name) = resolve.id_of(id) else {
        return;
    };
    let interface = &resolve.interfaces[id];
    let mut body = String::new();
    for (name, ty) in &interface.types {
        declare_type(&mut body, resolve, id, name, *ty);
    }
    for function in interface.functions.values() {
        if function.kind == FunctionKind::Freestanding {
            declare_function(&mut body, resolve, function);
        }
    }
    docs(text, "\n", &interface.docs);
    let _ = writeln!(text, "declare module '{name}' {{");
    for line in body.lines() {
        let indent = if line.is_empty() { "" } else { "  " };
        let _ = writeln!(text, "{indent}{line}");
    }
    text.push_str("}\n");
}

fn declare_type(text: &mut String, resolve: &Resolve, within: InterfaceId, name: &str, id: TypeId) {
    let def = &resolve.types[id];
    let pascal = pascal_case(name);
    docs(text, "", &def.docs);
    let _ = match &def.kind {
        TypeDefKind::Record(record) => {
            let _ = writeln!(text, "export interface {pascal} {{");
            for field in &record.fields {
                let mut lines = String::new();
                docs(&mut lines, "", &field.docs);
                for line in lines.lines() {
                    let _ = writeln!(text, "  {line}");
                }
                let _ = writeln!(
                    text,
                    "  {}: {};",
                    camel_case(&field.name),
                    type_name(resolve, &field.ty)
                );
            }
            writeln!(text, "}}")
        }
        TypeDefKind::Resource => class(text, resolve, within, &pascal, id),
        _ => writeln!(
            text,
            "export type {pascal} = {};",
            definition(resolve, within, def)
        ),
    };
}

/// The right side of `type X = …`.
fn definition(resolve: &Resolve, within: InterfaceId, def: &TypeDef) -> String {
    match &def.kind {
        TypeDefKind::Variant(variant) => union(variant.cases.iter().map(|case| {
            let val = case
                .ty
                .as_ref()
                .map(|ty| format!("; val: {}", type_name(resolve, ty)));
            format!("{{ tag: '{}'{} }}", case.name, val.unwrap_or_default())
        })),
        TypeDefKind::Enum(cases) => {
            union(cases.cases.iter().map(|case| format!("'{}'", case.name)))
        }
        TypeDefKind::Flags(flags) => {
            let flags = flags
                .flags
                .iter()
                .map(|flag| format!("{}: boolean", camel_case(&flag.name)));
            format!("{{ {} }}", flags.collect::<Vec<_>>().join("; "))
        }
        // What is taken over by `use` stays the type of its own module.
        TypeDefKind::Type(Type::Id(id)) => {
            match (&resolve.types[*id].owner, &resolve.types[*id].name) {
                (TypeOwner::Interface(owner), Some(name)) if *owner != within => {
                    let module = resolve.id_of(*owner).unwrap_or_default();
                    format!("import('{module}').{}", pascal_case(name))
                }
                _ => type_name(resolve, &Type::Id(*id)),
            }
        }
        kind => kind_name(resolve, kind),
    }
}

fn union(cases: impl Iterator<Item = String>) -> String {
    cases.collect::<Vec<_>>().join(" | ")
}

fn type_name(resolve: &Resolve, ty: &Type) -> String {
    match ty {
        Type::Bool => "boolean".to_owned(),
        Type::Char | Type::String => "string".to_owned(),
        Type::Id(id) => match &resolve.types[*id].name {
            Some(name) => pascal_case(name),
            None => kind_name(resolve, &resolve.types[*id].kind),
        },
        Type::ErrorContext => "unknown".to_owned(),
        Type::U64 | Type::S64 => "bigint".to_owned(),
        _ => "number".to_owned(),
    }
}

fn kind_name(resolve: &Resolve, kind: &TypeDefKind) -> String {
    let side = |tag: &str, ty: &Option<Type>| match ty {
        Some(ty) => format!("{{ tag: '{tag}'; val: {} }}", type_name(resolve, ty)),
        None => format!("{{ tag: '{tag}' }}"),
    };
    match kind {
        TypeDefKind::Type(ty) => type_name(resolve, ty),
        TypeDefKind::List(Type::U8) => "Uint8Array".to_owned(),
        TypeDefKind::List(ty) | TypeDefKind::FixedLengthList(ty, _) => {
            format!("Array<{}>", type_name(resolve, ty))
        }
        TypeDefKind::Tuple(tuple) => {
            let types = tuple.types.iter().map(|ty| type_name(resolve, ty));
            format!("[{}]", types.collect::<Vec<_>>().join(", "))
        }
        TypeDefKind::Option(ty) if is_option(resolve, ty) => {
            format!("{} | {{ tag: 'none' }}", side("some", &Some(*ty)))
        }
        TypeDefKind::Option(ty) => format!("{} | null", type_name(resolve, ty)),
        TypeDefKind::Result(result) => {
            format!("{} | {}", side("ok", &result.ok), side("err", &result.err))
        }
        TypeDefKind::Map(key, value) => format!(
            "Map<{}, {}>",
            type_name(resolve, key),
            type_name(resolve, value)
        ),
        TypeDefKind::Handle(Handle::Own(id) | Handle::Borrow(id)) => {
            type_name(resolve, &Type::Id(*id))
        }
        _ => "unknown".to_owned(),
    }
}

pub(super) fn is_option(resolve: &Resolve, ty: &Type) -> bool {
    let Type::Id(id) = ty else { return false };
    match &resolve.types[*id].kind {
        TypeDefKind::Option(_) => true,
        TypeDefKind::Type(ty) => is_option(resolve, ty),
        _ => false,
    }
}

fn declare_function(text: &mut String, resolve: &Resolve, function: &Function) {
    let name = camel_case(&function.name);
    function_docs(text, resolve, function);
    let signature = signature(resolve, function, 0);
    // A reserved word names an export, but no declaration.
    let _ = if RESERVED.contains(&name.as_str()) {
        writeln!(
            text,
            "function _{name}{signature};\nexport {{ _{name} as {name} }};"
        )
    } else {
        writeln!(text, "export function {name}{signature};")
    };
}

fn class(
    text: &mut String,
    resolve: &Resolve,
    within: InterfaceId,
    name: &str,
    id: TypeId,
) -> std::fmt::Result {
    writeln!(text, "export class {name} {{")?;
    let mut constructs = false;
    for function in resolve.interfaces[within].functions.values() {
        let (prefix, skip) = match function.kind {
            FunctionKind::Constructor(of) if of == id => ("constructor", 0),
            FunctionKind::Method(of) | FunctionKind::AsyncMethod(of) if of == id => ("", 1),
            FunctionKind::Static(of) | FunctionKind::AsyncStatic(of) if of == id => ("static ", 0),
            _ => continue,
        };
        let mut lines = String::new();
        function_docs(&mut lines, resolve, function);
        let signature = signature(resolve, function, skip);
        let _ = match prefix {
            "constructor" => {
                constructs = true;
                let parameters = signature
                    .rsplit_once("): ")
                    .map_or(signature.as_str(), |(front, _)| front);
                writeln!(lines, "constructor{parameters});")
            }
            _ => writeln!(
                lines,
                "{prefix}{}{signature};",
                camel_case(function.item_name())
            ),
        };
        for line in lines.lines() {
            writeln!(text, "  {line}")?;
        }
    }
    if !constructs {
        writeln!(text, "  private constructor();")?;
    }
    writeln!(text, "}}")
}

/// `(sku: string): Product`, without the first `skip` parameters.
fn signature(resolve: &Resolve, function: &Function, skip: usize) -> String {
    let parameters = function.params.iter().skip(skip).map(|parameter| {
        let name = camel_case(&parameter.name);
        let mark = if RESERVED.contains(&name.as_str()) {
            "_"
        } else {
            ""
        };
        format!("{mark}{name}: {}", type_name(resolve, &parameter.ty))
    });
    let parameters = parameters.collect::<Vec<_>>().join(", ");
    let (ok, _) = outcome(resolve, function);
    let ok = ok.unwrap_or_else(|| "void".to_owned());
    let asynchronous = matches!(
        function.kind,
        FunctionKind::AsyncFreestanding
            | FunctionKind::AsyncMethod(_)
            | FunctionKind::AsyncStatic(_)
    );
    if asynchronous {
        format!("({parameters}): Promise<{ok}>")
    } else {
        format!("({parameters}): {ok}")
    }
}

/// What a function returns and what it throws.
fn outcome(resolve: &Resolve, function: &Function) -> (Option<String>, Option<String>) {
    let Some(ty) = &function.result else {
        return (None, None);
    };
    if let Type::Id(id) = ty
        && let TypeDefKind::Result(result) = &resolve.types[*id].kind
    {
        let name = |ty: &Option<Type>| ty.as_ref().map(|ty| type_name(resolve, ty));
        return (
            name(&result.ok),
            Some(name(&result.err).unwrap_or_else(|| "undefined".to_owned())),
        );
    }
    (Some(type_name(resolve, ty)), None)
}

fn function_docs(text: &mut String, resolve: &Resolve, function: &Function) {
    let mut all = function.docs.clone();
    if let (_, Some(error)) = outcome(resolve, function) {
        let contents = all.contents.get_or_insert_default();
        let gap = if contents.is_empty() { "" } else { "\n" };
        contents.push_str(&format!("{gap}@throws {{{error}}}"));
    }
    docs(text, "", &all);
}

fn docs(text: &mut String, before: &str, docs: &Docs) {
    text.push_str(before);
    let Some(contents) = comment(docs) else {
        return;
    };
    let contents = contents.replace("*/", "*\\/");
    if contents.contains('\n') {
        text.push_str("/**\n");
        for line in contents.lines() {
            let _ = writeln!(text, "{}", format!(" * {line}").trim_end());
        }
        text.push_str(" */\n");
    } else {
        let _ = writeln!(text, "/** {contents} */");
    }
}

/// `order-id` as `OrderId`.
fn pascal_case(name: &str) -> String {
    class_name(&camel_case(name))
}

/// A name in camel case with an upper-case letter first.
pub(super) fn class_name(name: &str) -> String {
    let mut chars = name.chars();
    let first = chars.next().map(|first| first.to_ascii_uppercase());
    first.into_iter().chain(chars).collect()
}

/// Words that JavaScript's modules do not take as the name of a function or parameter.
const RESERVED: &[&str] = &[
    "arguments",
    "await",
    "break",
    "case",
    "catch",
    "class",
    "const",
    "continue",
    "debugger",
    "default",
    "delete",
    "do",
    "else",
    "enum",
    "eval",
    "export",
    "extends",
    "false",
    "finally",
    "for",
    "function",
    "if",
    "implements",
    "import",
    "in",
    "instanceof",
    "interface",
    "let",
    "new",
    "null",
    "package",
    "private",
    "protected",
    "public",
    "return",
    "static",
    "super",
    "switch",
    "this",
    "throw",
    "true",
    "try",
    "typeof",
    "var",
    "void",
    "while",
    "with",
    "yield",
];

#[cfg(test)]
mod tests {
    use super::*;

    const WIT: &str = r#"
        package demo:shapes@1.0.0;

        interface base {
            record point { x: s32, on-hand: option<option<u64>> }
        }

        /// Everything that a type can be.
        interface all {
            use base.{point};
            variant shape { none, at(point), named(string) }
            enum colour { light-red, blue }
            flags sides { left, top-right }
            /// Deletes */ it.
            delete: func(new: list<u8>, many: list<tuple<shape, f32>>) -> result<_, colour>;
            nested: func(r: result<u8, string>) -> sides;
            while: func(fetch-URL: u8);
            resource file {
                constructor(path: string);
                read: func(len: u64) -> result<list<u8>>;
                open: static func() -> file;
            }
        }

        world w { export all; }
    "#;

    #[test]
    fn every_kind_of_type_is_declared() {
        let mut resolve = Resolve::default();
        let package = resolve.push_str("shapes.wit", WIT).unwrap();
        let world = resolve.select_world(&[package], None).unwrap();
        assert_eq!(
            declarations(&resolve, world),
            r"// Generated from wit/ when the service is built.

declare module 'demo:shapes/base@1.0.0' {
  export interface Point {
    x: number;
    onHand: { tag: 'some'; val: bigint | null } | { tag: 'none' };
  }
}

/** Everything that a type can be. */
declare module 'demo:shapes/all@1.0.0' {
  export type Point = import('demo:shapes/base@1.0.0').Point;
  export type Shape = { tag: 'none' } | { tag: 'at'; val: Point } | { tag: 'named'; val: string };
  export type Colour = 'light-red' | 'blue';
  export type Sides = { left: boolean; topRight: boolean };
  export class File {
    constructor(path: string);
    /** @throws {undefined} */
    read(len: bigint): Uint8Array;
    static open(): File;
  }
  /**
   * Deletes *\/ it.
   * @throws {Colour}
   */
  function _delete(_new: Uint8Array, many: Array<[Shape, number]>): void;
  export { _delete as delete };
  export function nested(r: { tag: 'ok'; val: number } | { tag: 'err'; val: string }): Sides;
  function _while(fetchURL: number): void;
  export { _while as while };
}
"
        );
    }
}
