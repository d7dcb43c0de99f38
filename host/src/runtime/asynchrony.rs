//! Whether a component needs WASI 0.3 or the component model's async. Those run on an engine of their own,
//! since plain calls cost less than half without what it does for them.

use wasmparser::{
    CanonicalFunction, CanonicalOption, Chunk, ComponentDefinedType, ComponentType,
    ComponentTypeDeclaration, InstanceTypeDeclaration, Parser, Payload,
};

/// Whether anything in the component, or in one within it, is asynchronous. Bytes that are no component
/// need nothing.
///
/// # Cost
///
/// Its core modules, which are nearly all of it, are not read.
pub(super) fn is_needed(bytes: &[u8]) -> bool {
    wat::parse_bytes(bytes).is_ok_and(|binary| is_needed_by(&binary).unwrap_or(false))
}

fn is_needed_by(mut bytes: &[u8]) -> wasmparser::Result<bool> {
    let (mut parser, mut outer) = (Parser::new(0), Vec::new());
    loop {
        let (consumed, payload) = match parser.parse(bytes, true)? {
            Chunk::Parsed { consumed, payload } => (consumed, payload),
            Chunk::NeedMoreData(_) => return Ok(false),
        };
        bytes = bytes.get(consumed..).unwrap_or_default();
        let found = match payload {
            Payload::ModuleSection {
                unchecked_range, ..
            } => {
                let length = unchecked_range.end - unchecked_range.start;
                let length = usize::try_from(length).unwrap_or(usize::MAX);
                bytes = bytes.get(length..).unwrap_or_default();
                false
            }
            Payload::ComponentSection { parser: inner, .. } => {
                outer.push(std::mem::replace(&mut parser, inner));
                false
            }
            Payload::End(_) => {
                let Some(next) = outer.pop() else {
                    return Ok(false);
                };
                parser = next;
                false
            }
            Payload::ComponentImportSection(imports) => {
                let mut imports = imports.into_iter().map_while(Result::ok);
                imports.any(|import| is_of_wasi_3(import.name.name))
            }
            Payload::ComponentExportSection(exports) => {
                let mut exports = exports.into_iter().map_while(Result::ok);
                exports.any(|export| is_of_wasi_3(export.name.name))
            }
            Payload::ComponentTypeSection(types) => {
                let mut types = types.into_iter().map_while(Result::ok);
                types.any(|ty| is_async(&ty))
            }
            Payload::ComponentCanonicalSection(functions) => {
                let mut functions = functions.into_iter().map_while(Result::ok);
                functions.any(|function| is_async_function(&function))
            }
            _ => false,
        };
        if found {
            return Ok(true);
        }
    }
}

fn is_of_wasi_3(name: &str) -> bool {
    let version = name.split_once('@').map_or("", |(_, version)| version);
    name.starts_with("wasi:") && version.starts_with("0.3.")
}

fn is_async(ty: &ComponentType<'_>) -> bool {
    match ty {
        ComponentType::Defined(
            ComponentDefinedType::Future(_) | ComponentDefinedType::Stream(_),
        ) => true,
        ComponentType::Func(function) => function.async_,
        ComponentType::Instance(items) => items.iter().any(|item| match item {
            InstanceTypeDeclaration::Type(ty) => is_async(ty),
            _ => false,
        }),
        ComponentType::Component(items) => items.iter().any(|item| match item {
            ComponentTypeDeclaration::Type(ty) => is_async(ty),
            _ => false,
        }),
        _ => false,
    }
}

fn is_async_function(function: &CanonicalFunction) -> bool {
    use CanonicalFunction::{Lift, Lower, ResourceDrop, ResourceNew, ResourceRep};
    match function {
        Lift { options, .. } | Lower { options, .. } => options.contains(&CanonicalOption::Async),
        ResourceNew { .. } | ResourceDrop { .. } | ResourceRep { .. } => false,
        // Tasks, waitables, streams, futures and threads.
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asynchronous_is_found_at_any_depth() {
        for text in [
            "(component (type (func async)))",
            "(component (type (instance (type (func async)) (export \"f\" (func (type 0))))))",
            "(component (component (type (stream u8))))",
            "(component (core module) (component) (type (future)))",
            "(component (import \"wasi:clocks/types@0.3.0\" (instance)))",
            "(component (core func (canon waitable-set.new)))",
        ] {
            assert!(is_needed(text.as_bytes()), "{text}");
        }
        for text in [
            "(component)",
            "(component (core module (func)) (type (func)))",
            "(component (import \"wasi:clocks/wall-clock@0.2.3\" (instance)))",
            "(module)",
            "no WebAssembly",
        ] {
            assert!(!is_needed(text.as_bytes()), "{text}");
        }
    }
}
