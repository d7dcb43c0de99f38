//! The modules of JavaScript between a service's source and `componentize-qjs`: they compare what
//! the source exports with the world, and convert what the tool would change on its way.
//!
//! The tool looks the exports up when they are called, and takes them for what it needs. The entry
//! made here looks all of them up when the component is made, so that a service which misses one
//! is not built. Names are those of the declarations and of JSON; the tool's own differ where a
//! word of WIT is in upper case.

#![expect(
    clippy::indexing_slicing,
    reason = "the ids within a Resolve are places in its own arenas"
)]

use std::collections::{BTreeSet, HashMap};
use std::fmt::Write as _;
use std::path::Path;

use serde::Deserialize;
use wit_parser::{
    Function, FunctionKind, InterfaceId, Resolve, Type, TypeDefKind, TypeId, WorldId, WorldItem,
    WorldKey,
};

use super::BuildError;
use super::componentize::write;
use super::typescript::{class_name, is_option};
use super::world::World;
use crate::text::{camel_case, nearest};

pub(super) mod exact;
mod widen;

use widen::widen;

const VALUES: &str = include_str!("values.js");
const GLOBALS: &str = include_str!("globals.js");

/// What a source has that says `URL` or `URLSearchParams`, and only then: esbuild leaves out an
/// injected file without side effects that nothing refers to.
const URL: &str = include_str!("url/url.js");
const URL_FILE: &str = "url/url.js";
const URL_PACKAGE: &str = r#"{ "sideEffects": false }"#;

/// Declarations of what `globals.js` adds.
pub(super) const GLOBALS_TYPES: &str = include_str!("globals.d.ts");

/// Stands before the names of the tool's own modules, until the bundle is made: their names without
/// it are those of the modules made here.
const RAW: &str = "wasmbay-raw:";

/// Stands before the list of what the source does not export, in what the tool prints.
const MARK: &str = "wasmbay-exports: ";

/// The world that the tool reads, as text.
pub(super) const WIT: &str = "world.wit";

/// The modules of a world.
pub(super) struct Edge {
    /// Files by their names.
    files: Vec<(String, String)>,
    /// Which file stands for which imported interface.
    aliases: Vec<(String, String)>,
}

impl Edge {
    /// # Errors
    ///
    /// If two exported interfaces would be one object of the source.
    pub(super) fn of(world: &World, folder: &Path, entry: &Path) -> Result<Self, BuildError> {
        let mut types = Types::new(&world.resolve);
        let widened = widen(world, folder)?;
        let globals = GLOBALS.replace("VERSION", &widened.version);
        let mut edge = Self {
            files: vec![
                ("values.js".to_owned(), VALUES.to_owned()),
                ("globals.js".to_owned(), globals),
                (WIT.to_owned(), widened.wit),
            ],
            aliases: Vec::new(),
        };
        let of_world = &world.resolve.worlds[world.id];
        for (key, item) in &of_world.imports {
            if let WorldItem::Interface { id, .. } = item {
                let name = world.resolve.name_world_key(key);
                let file = format!("import-{}.js", edge.files.len());
                let text = imported(&mut types, &name, *id);
                edge.files.push((file.clone(), text));
                // The tool knows the interface without its version, too.
                if let Some((unversioned, _)) = name.split_once('@') {
                    edge.aliases.push((unversioned.to_owned(), file.clone()));
                }
                edge.aliases.push((name, file));
            }
        }
        let text = entry_module(&mut types, world.id, folder, entry)?;
        edge.files.push(("entry.js".to_owned(), text));
        let helpers = HELPERS.join(", ");
        let text = format!(
            "import {{ {helpers} }} from './values.js';\nexport {{ {helpers} }};\n{}",
            types.text
        );
        edge.files.extend([
            ("types.js".to_owned(), text),
            (URL_FILE.to_owned(), URL.to_owned()),
            ("url/package.json".to_owned(), URL_PACKAGE.to_owned()),
        ]);
        Ok(edge)
    }

    pub(super) fn write(&self, into: &Path) -> Result<(), BuildError> {
        for (name, text) in &self.files {
            write(&into.join(name), text.as_bytes())?;
        }
        Ok(())
    }

    /// The arguments with which esbuild bundles `entry.js`, where the files are in `folder`.
    pub(super) fn arguments(&self, folder: &Path) -> Vec<String> {
        let alias = |(name, file): &(String, String)| {
            format!("--alias:{name}={}", folder.join(file).display())
        };
        let mut arguments = vec![
            format!("--external:{RAW}*"),
            format!("--inject:{}", folder.join(URL_FILE).display()),
        ];
        // Of two versions of an interface neither is the one without a version.
        let mut once = BTreeSet::new();
        let twice: BTreeSet<&str> = (self.aliases.iter())
            .map(|(name, _)| name.as_str())
            .filter(|name| !once.insert(*name))
            .collect();
        let unique = |(name, _): &&(String, String)| !twice.contains(name.as_str());
        arguments.extend(self.aliases.iter().filter(unique).map(alias));
        arguments
    }

    /// Writes the names of the tool's modules back into a bundle.
    pub(super) fn finish(bundle: &str) -> String {
        bundle.replace(&format!("\"{RAW}"), "\"")
    }
}

const HELPERS: [&str; 14] = [
    "u8", "u16", "u32", "u64", "s8", "s16", "s32", "s64", "list", "bytes", "record", "tuple",
    "option", "variant",
];

/// The converters of types that do not pass as they are: each one a constant of `types.js`.
struct Types<'a> {
    resolve: &'a Resolve,
    text: String,
    known: HashMap<TypeId, Option<String>>,
}

impl<'a> Types<'a> {
    fn new(resolve: &'a Resolve) -> Self {
        Self {
            resolve,
            text: String::new(),
            known: HashMap::new(),
        }
    }

    fn optional(&mut self, ty: Option<&Type>) -> Option<String> {
        ty.and_then(|ty| self.of(ty))
    }

    /// The converter's name in `types.js`.
    fn of(&mut self, ty: &Type) -> Option<String> {
        let name = match ty {
            Type::U8 => "u8",
            Type::U16 => "u16",
            Type::U32 => "u32",
            Type::U64 => "u64",
            Type::S8 => "s8",
            Type::S16 => "s16",
            Type::S32 => "s32",
            Type::S64 => "s64",
            Type::Id(id) => {
                if let Some(known) = self.known.get(id) {
                    return known.clone();
                }
                let made = self.define(*id);
                self.known.insert(*id, made.clone());
                return made;
            }
            _ => return None,
        };
        Some(name.to_owned())
    }

    fn define(&mut self, id: TypeId) -> Option<String> {
        let resolve = self.resolve;
        let made = match &resolve.types[id].kind {
            TypeDefKind::Type(ty) => return self.of(ty),
            TypeDefKind::List(Type::U8) => return Some("bytes".to_owned()),
            // The tool may have arrays of its own for numbers, too.
            TypeDefKind::List(ty) | TypeDefKind::FixedLengthList(ty, _) => {
                let item = self.of(ty);
                let numbers = matches!(ty, Type::F32 | Type::F64);
                if item.is_none() && !numbers {
                    return None;
                }
                format!("list({})", or_null(item))
            }
            TypeDefKind::Record(record) => {
                let fields = record.fields.iter();
                let fields = fields.map(|field| (field.name.as_str(), Some(field.ty)));
                self.record(fields)?
            }
            TypeDefKind::Flags(flags) => {
                let flags = flags.flags.iter();
                self.record(flags.map(|flag| (flag.name.as_str(), None)))?
            }
            TypeDefKind::Tuple(tuple) => {
                let types: Vec<_> = tuple.types.iter().map(|ty| self.of(ty)).collect();
                if types.iter().all(Option::is_none) {
                    return None;
                }
                format!("tuple({})", join(types))
            }
            TypeDefKind::Option(ty) => {
                let some = self.of(ty)?;
                if is_option(resolve, ty) {
                    format!("variant({{ none: null, some: {some} }})")
                } else {
                    format!("option({some})")
                }
            }
            TypeDefKind::Result(result) => {
                let ok = self.optional(result.ok.as_ref());
                let err = self.optional(result.err.as_ref());
                self.variant([("ok", ok), ("err", err)].into_iter())?
            }
            TypeDefKind::Variant(variant) => {
                let cases: Vec<_> = (variant.cases.iter())
                    .map(|case| (case.name.as_str(), self.optional(case.ty.as_ref())))
                    .collect();
                self.variant(cases.into_iter())?
            }
            // Resources are objects of the tool's, and the rest is refused before.
            _ => return None,
        };
        let name = format!("t{}", id.index());
        let _ = writeln!(self.text, "export const {name} = {made};");
        Some(name)
    }

    /// A record or flags, unless nothing in it changes, keys included.
    fn record<'f>(
        &mut self,
        fields: impl Iterator<Item = (&'f str, Option<Type>)>,
    ) -> Option<String> {
        let mut changes = false;
        let fields: Vec<String> = fields
            .map(|(name, ty)| {
                let (key, raw) = (camel_case(name), tool_case(name));
                let ty = self.optional(ty.as_ref());
                changes |= key != raw || ty.is_some();
                format!("['{key}', '{raw}', {}]", or_null(ty))
            })
            .collect();
        changes.then(|| format!("record({})", fields.join(", ")))
    }

    fn variant<'c>(
        &self,
        cases: impl Iterator<Item = (&'c str, Option<String>)>,
    ) -> Option<String> {
        let mut changes = false;
        let cases: Vec<String> = cases
            .map(|(name, ty)| {
                changes |= ty.is_some();
                format!("'{name}': {}", or_null(ty))
            })
            .collect();
        changes.then(|| format!("variant({{ {} }})", cases.join(", ")))
    }

    /// `[parameters], ok, err`, without the first `skip` parameters.
    fn signature(&mut self, function: &Function, skip: usize) -> String {
        let imported = |ty: Option<String>| ty.map(|ty| format!("t.{ty}"));
        let params = function.params.iter().skip(skip);
        let params: Vec<_> = params.map(|param| imported(self.of(&param.ty))).collect();
        let (mut ok, mut err) = (function.result, None);
        if let Some(Type::Id(id)) = ok
            && let TypeDefKind::Result(result) = &self.resolve.types[id].kind
        {
            (ok, err) = (result.ok, result.err);
        }
        let ok = or_null(imported(self.optional(ok.as_ref())));
        let err = or_null(imported(self.optional(err.as_ref())));
        format!("[{}], {ok}, {err}", join(params))
    }

    /// `['key', 'the tool's key', [parameters], ok, err]`.
    fn entry(&mut self, function: &Function, skip: usize) -> String {
        let name = function.item_name();
        let signature = self.signature(function, skip);
        format!(
            "['{}', '{}', {signature}]",
            camel_case(name),
            tool_case(name)
        )
    }
}

/// The module of an imported interface.
fn imported(types: &mut Types<'_>, name: &str, id: InterfaceId) -> String {
    let interface = &types.resolve.interfaces[id];
    let mut text = String::new();
    let mut exports = Vec::new();
    for function in interface.functions.values() {
        if function.kind == FunctionKind::Freestanding {
            let (local, raw) = (format!("f{}", exports.len()), tool_case(&function.name));
            let signature = types.signature(function, 0);
            let _ = writeln!(text, "const {local} = imported(raw.{raw}, {signature});");
            exports.push((camel_case(&function.name), local));
        }
    }
    for (name, ty) in &interface.types {
        let of: Vec<&Function> = (interface.functions.values())
            .filter(|function| function.kind.resource() == Some(*ty))
            .collect();
        if of.is_empty() {
            continue;
        }
        let (mut constructor, mut methods, mut statics) = ("null".to_owned(), vec![], vec![]);
        for function in of {
            match function.kind {
                FunctionKind::Constructor(_) => {
                    let signature = types.signature(function, 0);
                    let params = signature.rsplitn(3, ", ").last().unwrap_or("null");
                    params.clone_into(&mut constructor);
                }
                FunctionKind::Static(_) => statics.push(types.entry(function, 0)),
                _ => methods.push(types.entry(function, 1)),
            }
        }
        let local = format!("f{}", exports.len());
        let _ = writeln!(
            text,
            "const {local} = resource(raw.{}, {constructor}, [{}], [{}]);",
            class_name(&tool_case(name)),
            methods.join(", "),
            statics.join(", ")
        );
        exports.push((class_name(&camel_case(name)), local));
    }
    let pairs = |separator: &str, swap: bool| {
        let pair = |(name, local): &(String, String)| {
            if swap {
                format!("{local}{separator}{name}")
            } else {
                format!("{name}{separator}{local}")
            }
        };
        exports.iter().map(pair).collect::<Vec<_>>().join(", ")
    };
    if exports.is_empty() {
        return "export default {};\n".to_owned();
    }
    format!(
        "import * as raw from '{RAW}{name}';\n\
         import * as t from './types.js';\n\
         import {{ imported, resource }} from './values.js';\n\
         {text}\
         export {{ {} }};\n\
         export default {{ {} }};\n",
        pairs(" as ", true),
        pairs(": ", false),
    )
}

/// The module that the tool begins with.
fn entry_module(
    types: &mut Types<'_>,
    world: WorldId,
    folder: &Path,
    entry: &Path,
) -> Result<String, BuildError> {
    let resolve = types.resolve;
    let mut text = String::new();
    let mut exports: Vec<(String, String)> = Vec::new();
    for (key, item) in &resolve.worlds[world].exports {
        let local = format!("e{}", exports.len());
        let full = resolve.name_world_key(key);
        let name = match (key, item) {
            (WorldKey::Interface(id), _) => resolve.interfaces[*id].name.as_deref(),
            (WorldKey::Name(name), _) => Some(name.as_str()),
        };
        let name = name.unwrap_or_default();
        let _ = match item {
            WorldItem::Interface { id, .. } => {
                let functions = resolve.interfaces[*id].functions.values();
                let functions: Vec<_> = functions
                    .filter(|function| function.kind == FunctionKind::Freestanding)
                    .map(|function| types.entry(function, 0))
                    .collect();
                writeln!(
                    text,
                    "const {local} = exported(service, '{full}', '{}', [{}]);",
                    camel_case(name),
                    functions.join(", ")
                )
            }
            WorldItem::Function(function) => {
                let entry = types.entry(function, 0);
                writeln!(text, "const {local} = exportedFunction(service, {entry});")
            }
            WorldItem::Type { .. } => continue,
        };
        let raw = tool_case(name);
        if let Some((other, _)) = exports.iter().find(|(_, other)| *other == raw) {
            return Err(BuildError::OneObject {
                folder: folder.to_owned(),
                first: other.clone(),
                second: full,
                object: camel_case(name),
            });
        }
        exports.push((full, raw));
    }
    let exports: Vec<String> = (exports.iter().enumerate())
        .map(|(at, (_, raw))| format!("e{at} as {raw}"))
        .collect();
    let entry = serde_json::Value::from(entry.to_string_lossy());
    Ok(format!(
        "import './globals.js';\n\
         import * as service from {entry};\n\
         import * as t from './types.js';\n\
         import {{ complete, exported, exportedFunction }} from './values.js';\n\
         {text}\
         complete();\n\
         export {{ {} }};\n",
        exports.join(", ")
    ))
}

fn or_null(name: Option<String>) -> String {
    name.unwrap_or_else(|| "null".to_owned())
}

fn join(names: Vec<Option<String>>) -> String {
    names
        .into_iter()
        .map(or_null)
        .collect::<Vec<_>>()
        .join(", ")
}

/// A name as the tool has it, which changes words in upper case: `fetch-URL` is `fetchUrl`.
fn tool_case(name: &str) -> String {
    camel_case(&name.to_ascii_lowercase())
}

/// What a world says and its source does not export.
#[derive(Debug, Deserialize)]
struct Problem {
    interface: Option<String>,
    export: String,
    function: Option<String>,
    what: String,
    #[serde(default, rename = "type")]
    kind: String,
    #[serde(default)]
    has: Vec<String>,
}

/// The lines for people, from what the tool printed when the entry ended in an error; none if it
/// ended for another reason.
pub(super) fn problems(printed: &str) -> Vec<String> {
    let list = printed
        .split_once(MARK)
        .and_then(|(_, rest)| rest.lines().next())
        .and_then(|line| serde_json::from_str::<Vec<Problem>>(line).ok());
    list.unwrap_or_default().iter().map(Problem::line).collect()
}

impl Problem {
    fn line(&self) -> String {
        let export = &self.export;
        let name = match (&self.interface, &self.function) {
            (Some(interface), Some(function)) => format!("`{export}.{function}` of {interface}"),
            (Some(interface), None) => format!("`{export}` of {interface}"),
            (None, _) => format!("`{export}`"),
        };
        let short = self.function.as_deref().unwrap_or(export);
        let fault = match self.what.as_str() {
            "async" => {
                "is an async function, and has to return its value, not a promise".to_owned()
            }
            "no-function" => format!("is {} instead of a function", article(&self.kind)),
            "no-object" => format!(
                "is {} instead of an object with the interface's functions",
                article(&self.kind)
            ),
            _ => "is not exported".to_owned(),
        };
        let hint = match nearest(short, self.has.iter().map(String::as_str)) {
            _ if self.what != "absent" => String::new(),
            Some(near) => format!("; did you mean `{near}`?"),
            None if self.has == ["default"] => {
                format!("; a default export is not looked at: write `export const {export} = …`")
            }
            None if self.has.is_empty() => "; there are no exports".to_owned(),
            None => format!("; there is `{}`", self.has.join("`, `")),
        };
        format!("{name} {fault}{hint}")
    }
}

fn article(kind: &str) -> String {
    match kind {
        "undefined" => "undefined".to_owned(),
        "object" => "an object".to_owned(),
        kind => format!("a {kind}"),
    }
}

#[cfg(test)]
mod tests;
