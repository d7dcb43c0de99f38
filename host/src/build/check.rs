//! What a world says that no service, or none in the guest's language, can have: said in the WIT's
//! terms before a compiler or the host says it in its own.

#![expect(
    clippy::indexing_slicing,
    reason = "the ids within a Resolve are places in its own arenas"
)]

use std::collections::HashSet;

use wit_parser::{
    Function, FunctionKind, InterfaceId, Resolve, Type, TypeDefKind, TypeId, WorldItem,
};

use super::world::World;
use super::{BuildError, Language};

/// An interface of the world, and whether it is exported.
struct Item {
    name: String,
    id: InterfaceId,
    exported: bool,
}

fn interfaces(world: &World) -> impl Iterator<Item = Item> {
    let resolve = &world.resolve;
    let of_world = &resolve.worlds[world.id];
    let sides = [(&of_world.imports, false), (&of_world.exports, true)];
    sides.into_iter().flat_map(move |(items, exported)| {
        items.iter().filter_map(move |(key, item)| {
            let WorldItem::Interface { id, .. } = item else {
                return None;
            };
            let name = resolve.name_world_key(key);
            Some(Item {
                name,
                id: *id,
                exported,
            })
        })
    })
}

/// Whether a service can have these interfaces at all, and in this language.
///
/// # Errors
///
/// The first function or type that it cannot have.
pub(super) fn check(world: &World, language: Language) -> Result<(), BuildError> {
    let resolve = &world.resolve;
    for Item { name, id, exported } in interfaces(world) {
        let refuse = |item: &str, why: String| {
            Err(BuildError::Unserved {
                interface: name.clone(),
                item: item.to_owned(),
                why,
            })
        };
        let interface = &resolve.interfaces[id];
        for (item, ty) in &interface.types {
            if exported && matches!(resolve.types[*ty].kind, TypeDefKind::Resource) {
                return refuse(
                    item,
                    "is a resource, which cannot leave its component: pass an id and keep what it \
                     stands for in the service"
                        .to_owned(),
                );
            }
            if language == Language::Go
                && let TypeDefKind::Variant(variant) = &resolve.types[*ty].kind
                && variant
                    .cases
                    .iter()
                    .any(|case| case.name == "tag" && case.ty.is_some())
            {
                return refuse(
                    item,
                    "has a case `tag` with a value, which arrives as 0 in Go (wit-bindgen #1703): \
                     call it something else"
                        .to_owned(),
                );
            }
        }
        for function in interface.functions.values() {
            if is_async(function) && !builds_async(language) {
                return refuse(
                    &function.name,
                    format!(
                        "is an `async func`, which no toolchain builds for {language} here: declare it \
                         as a plain `func`, the host runs calls concurrently anyway"
                    ),
                );
            }
            let params = function.params.iter();
            let params = params.map(|param| (format!("parameter `{}`", param.name), &param.ty));
            let result = function.result.iter();
            let result = result.map(|ty| ("result".to_owned(), ty));
            for (place, ty) in params.chain(result) {
                let types = Types {
                    resolve,
                    may_stream: builds_async(language),
                };
                if let Some((what, advice)) = types.uncarried(ty, &mut HashSet::new()) {
                    return refuse(
                        &function.name,
                        format!("has {what} in its {place}, {advice}"),
                    );
                }
            }
        }
    }
    Ok(())
}

/// Whether the language's toolchain here makes asynchronous components.
fn builds_async(language: Language) -> bool {
    matches!(language, Language::Rust | Language::Python)
}

fn is_async(function: &Function) -> bool {
    matches!(
        function.kind,
        FunctionKind::AsyncFreestanding
            | FunctionKind::AsyncMethod(_)
            | FunctionKind::AsyncStatic(_)
    )
}

/// The types of a package.
#[derive(Clone, Copy)]
struct Types<'a> {
    resolve: &'a Resolve,
    /// Whether there may be streams and futures: not where the language has none, nor within one.
    may_stream: bool,
}

impl Types<'_> {
    /// What in a type no call can carry here, and what to do instead.
    fn uncarried(self, ty: &Type, seen: &mut HashSet<TypeId>) -> Option<(String, String)> {
        let id = match ty {
            Type::ErrorContext => {
                return Some((
                    "an `error-context`".to_owned(),
                    "which no call carries".to_owned(),
                ));
            }
            Type::Id(id) if seen.insert(*id) => *id,
            _ => return None,
        };
        let def = &self.resolve.types[id];
        if self.may_stream
            && let TypeDefKind::Stream(Some(ty)) | TypeDefKind::Future(Some(ty)) = &def.kind
        {
            let within = Self {
                may_stream: false,
                ..self
            };
            return within.uncarried(ty, &mut HashSet::new());
        }
        let mut inside = |ty: &Type| self.uncarried(ty, seen);
        let named = |kind: &str| match &def.name {
            Some(name) => format!("the {kind} `{name}`"),
            None => format!("a `{kind}`"),
        };
        let carried = |kind: &str, instead: &str| {
            let advice = format!("which no call carries: pass {instead}");
            Some((named(kind), advice))
        };
        match &def.kind {
            TypeDefKind::Type(ty) | TypeDefKind::Option(ty) | TypeDefKind::List(ty) => inside(ty),
            TypeDefKind::FixedLengthList(ty, _) => inside(ty),
            TypeDefKind::Record(record) => record.fields.iter().find_map(|field| inside(&field.ty)),
            TypeDefKind::Tuple(tuple) => tuple.types.iter().find_map(inside),
            TypeDefKind::Variant(variant) => {
                let types = variant.cases.iter().filter_map(|case| case.ty.as_ref());
                types.into_iter().find_map(inside)
            }
            TypeDefKind::Result(result) => [result.ok.as_ref(), result.err.as_ref()]
                .into_iter()
                .flatten()
                .find_map(inside),
            TypeDefKind::Stream(_) => carried("stream", "a list, or ids of parts"),
            TypeDefKind::Future(_) => carried("future", "the value itself"),
            TypeDefKind::Map(..) => carried("map", "a list of tuples"),
            _ => None,
        }
    }
}

/// Words that a language reserves and that its bindings do not write in another way.
fn reserved(language: Language) -> &'static [&'static str] {
    match language {
        Language::C => &["restrict"],
        // Since its edition of 2024; the other is a type's name.
        Language::Rust => &["gen", "self"],
        Language::Python => &["self"],
        Language::Go | Language::TypeScript | Language::JavaScript => &[],
    }
}

/// Says which of the WIT's names the language cannot have, where a compiler failed and there are
/// any: what it printed is about generated code then.
pub(super) fn explain(error: BuildError, world: &World, language: Language) -> BuildError {
    if !matches!(
        error,
        BuildError::Failed { .. } | BuildError::Component { .. }
    ) {
        return error;
    }
    let mut places = Vec::new();
    for Item { name, id, .. } in interfaces(world) {
        for (what, word) in names(&world.resolve, id) {
            if reserved(language).contains(&word.as_str()) {
                places.push(format!("{what} of {name}"));
            }
        }
    }
    if places.is_empty() {
        return error;
    }
    places.dedup();
    BuildError::Word {
        language,
        places,
        source: Box::new(error),
    }
}

/// Every name in an interface, with what it is the name of.
fn names(resolve: &Resolve, id: InterfaceId) -> Vec<(String, String)> {
    let interface = &resolve.interfaces[id];
    let mut names = Vec::new();
    for function in interface.functions.values() {
        let full = &function.name;
        names.push((
            format!("function `{full}`"),
            function.item_name().to_owned(),
        ));
        for param in &function.params {
            let name = &param.name;
            names.push((format!("parameter `{name}` of `{full}`"), name.clone()));
        }
    }
    for (full, ty) in &interface.types {
        names.push((format!("type `{full}`"), full.clone()));
        let parts: Vec<&String> = match &resolve.types[*ty].kind {
            TypeDefKind::Record(record) => record.fields.iter().map(|it| &it.name).collect(),
            TypeDefKind::Variant(variant) => variant.cases.iter().map(|it| &it.name).collect(),
            TypeDefKind::Enum(cases) => cases.cases.iter().map(|it| &it.name).collect(),
            TypeDefKind::Flags(flags) => flags.flags.iter().map(|it| &it.name).collect(),
            _ => Vec::new(),
        };
        names.extend(
            parts
                .into_iter()
                .map(|part| (format!("`{part}` of `{full}`"), part.clone())),
        );
    }
    names
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// The world of a WIT whose interface `i` it exports.
    fn world(interface: &str) -> World {
        let root = tempfile::tempdir().unwrap();
        let wit = root.path().join("wit");
        fs::create_dir(&wit).unwrap();
        let text =
            format!("package a:b@1.0.0; interface i {{ {interface} }} world w {{ export i; }}");
        fs::write(wit.join("w.wit"), text).unwrap();
        World::of(root.path(), &wit).unwrap()
    }

    fn refusal(interface: &str, language: Language) -> String {
        check(&world(interface), language).unwrap_err().to_string()
    }

    #[test]
    fn what_no_service_can_have_is_named() {
        for (interface, expected) in [
            (
                "f: func(x: stream<u8>);",
                "a:b/i@1.0.0: `f` has a `stream` in its parameter `x`, which no call carries: pass a \
                 list, or ids of parts",
            ),
            (
                "record r { x: option<future<u8>> } f: func() -> result<r>;",
                "a:b/i@1.0.0: `f` has a `future` in its result, which no call carries: pass the \
                 value itself",
            ),
            (
                "type m = map<string, u8>; f: func() -> m;",
                "a:b/i@1.0.0: `f` has the map `m` in its result, which no call carries: pass a list \
                 of tuples",
            ),
            (
                "resource file; f: func();",
                "a:b/i@1.0.0: `file` is a resource, which cannot leave its component: pass an id and \
                 keep what it stands for in the service",
            ),
        ] {
            assert_eq!(refusal(interface, Language::C), expected, "{interface}");
        }
        check(
            &world("f: func(x: stream<u8>) -> option<future<u8>>;"),
            Language::Rust,
        )
        .unwrap();
        for interface in [
            "f: func(x: stream<stream<u8>>);",
            "record r { x: future<u8> } f: func(x: r) -> stream<r>;",
            "f: func() -> stream;",
        ] {
            let refused = refusal(interface, Language::Rust);
            assert!(refused.contains("which no call carries"), "{refused}");
        }
        check(&world("f: func(x: list<option<string>>);"), Language::C).unwrap();
    }

    #[test]
    fn an_async_function_is_for_languages_that_have_them() {
        let asynchronous = "f: async func();";
        for language in [Language::Rust, Language::Python] {
            check(&world(asynchronous), language).unwrap();
        }
        for language in [
            Language::Go,
            Language::TypeScript,
            Language::JavaScript,
            Language::C,
        ] {
            assert_eq!(
                refusal(asynchronous, language),
                format!(
                    "a:b/i@1.0.0: `f` is an `async func`, which no toolchain builds for {language} here: \
                     declare it as a plain `func`, the host runs calls concurrently anyway"
                )
            );
        }
    }

    #[test]
    fn a_case_that_go_loses_is_refused_for_go() {
        let lost = "variant v { tag(u32), other } f: func() -> v;";
        assert!(refusal(lost, Language::Go).contains("`v` has a case `tag` with a value"));
        check(&world(lost), Language::Rust).unwrap();
        let kept = "variant v { tag, other(u32) } f: func() -> v;";
        check(&world(kept), Language::Go).unwrap();
    }

    #[test]
    fn a_word_of_the_language_is_named_where_a_compiler_failed() {
        let failed = || BuildError::Component {
            step: "compiling",
            folder: "x".into(),
            source: "restrict: no".into(),
        };
        let reserved = world("record r { restrict: u32 } f: func(restrict: r);");
        let message = explain(failed(), &reserved, Language::C).to_string();
        assert_eq!(
            message,
            "these names mean something in c, and have to be others in the WIT: parameter \
             `restrict` of `f` of a:b/i@1.0.0, `restrict` of `r` of a:b/i@1.0.0"
        );
        let fine = explain(failed(), &reserved, Language::Python);
        assert!(matches!(fine, BuildError::Component { .. }), "{fine}");
    }
}
