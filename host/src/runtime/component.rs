//! Loading a component: compiled code, and the exports and imports by its own types.
//!
//! A component that cannot be wired is refused, naming the type's path. Nothing is instantiated,
//! and no other component is known.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};

use wasmtime::component::types::{ComponentInstance, ComponentItem, Type};
use wasmtime::component::{Component as Compiled, ComponentExportIndex};

use super::asynchrony;
use super::engine::{Engine, Flavor};
use crate::interface::{FunctionId, IdError, InterfaceId};
use crate::interfaces::Missing;
use crate::interfaces::provided::{is_for_hosts, missing};
use crate::manifest::Digest;
use crate::plan::Description;
use crate::shape::{Docs, InterfaceDescription, Shape, ShapeError, Signature};
use crate::text::shown;

/// Upper bound of the bytes of a component.
pub const MAX_BYTES: u64 = 256 << 20;

/// The interfaces of components that handle HTTP requests: of WASI 0.2 and of 0.3.
const HTTP_HANDLERS: [&str; 2] = ["wasi:http/incoming-handler@0.2", "wasi:http/handler@0.3."];

/// The interface of components that are run: of WASI 0.2 and of 0.3.
const COMMANDS: [&str; 2] = ["wasi:cli/run@0.2.", "wasi:cli/run@0.3."];

/// The same of any version.
const COMMAND: &str = "wasi:cli/run@";

/// The type of its function `run`.
const RUN: &str = "func() -> result";

/// The interfaces of components that handle messages.
const BROKER_HANDLER: &str = "wasmcloud:messaging/handler@0.2.";
const MESSAGE_HANDLER: &str = "wasi:messaging/incoming-handler@0.2.0-draft";

/// The cases of the error of [`MESSAGE_HANDLER`].
const ERROR_CASES: [&str; 4] = ["timeout", "connection", "permission-denied", "other"];

/// The type of the function of [`BROKER_HANDLER`].
const HANDLE_MESSAGE: &str = "func(msg: record { subject: string, body: list<u8>, reply-to: option<string> }) -> result<_, string>";

/// A compiled component with its exports and imports.
pub struct Component {
    /// The digest of the file's bytes.
    pub digest: Digest,
    /// The file's size in bytes.
    pub size: usize,
    /// The exported interfaces.
    pub exports: Vec<InterfaceDescription>,
    /// The imported interfaces of other services.
    pub imports: Vec<InterfaceDescription>,
    /// The imported interfaces of the host, such as `wasi:config/store@0.2.0-rc.1`.
    pub host_imports: Vec<String>,
    /// Those among them that this host does not provide.
    pub missing: Vec<Missing>,
    /// The name under which it exports `wasi:http/incoming-handler` or, of WASI 0.3, `wasi:http/handler`, when it does.
    pub http: Option<String>,
    /// The handler of messages, if there is one.
    pub messages: Option<MessageHandler>,
    /// `wasi:cli/run`, by which a job runs it, if it exports that.
    pub command: Option<InterfaceDescription>,
    /// What it exports besides, and no call reaches.
    pub uncalled: Vec<Uncalled>,
    /// The functions among [`Self::imports`] that are `async func`s.
    pub(crate) async_imports: BTreeSet<FunctionId>,
    pub(crate) flavor: Flavor,
    /// The documentation comments of its interfaces. The bytes have none, so who loads it may add them.
    pub docs: BTreeMap<InterfaceId, Docs>,
    pub(crate) compiled: Compiled,
}

/// An export that no call reaches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uncalled {
    /// The export.
    pub export: String,
    /// Why it is not called, and the fix.
    pub why: &'static str,
}

impl fmt::Display for Uncalled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.export, self.why)
    }
}

/// The interface by which a component handles messages.
#[derive(Clone, Debug)]
pub struct MessageHandler {
    /// The interface with its one function.
    pub interface: InterfaceDescription,
    pub(crate) kind: HandlerKind,
}

/// The family of the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HandlerKind {
    /// `wasmcloud:messaging/handler`.
    Wasmcloud,
    /// `wasi:messaging/incoming-handler`.
    Wasi,
}

/// A file is no component that can be run.
#[derive(Debug, thiserror::Error)]
pub enum ComponentError {
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is larger than [`MAX_BYTES`].
    #[error("{size} bytes are more than a component may have ({MAX_BYTES})")]
    TooLarge {
        /// The file's size.
        size: u64,
    },
    /// The bytes are those of a core module.
    #[error(
        "this is a core WebAssembly module, not a component; build it for wasm32-wasip2, or wrap it with `wasm-tools component new`"
    )]
    CoreModule,
    /// The bytes are not WebAssembly.
    #[error("this is not WebAssembly: it starts with {start} instead of `\\0asm`")]
    NotWasm {
        /// The first bytes, escaped.
        start: String,
    },
    /// The bytes do not validate or compile.
    #[error("the component is broken or uses what this host does not support")]
    Invalid(#[source] wasmtime::Error),
    /// A function's type cannot be carried by messages.
    #[error("{direction} {interface}: function \"{function}\"")]
    Shape {
        /// `export` or `import`.
        direction: &'static str,
        /// The interface.
        interface: String,
        /// The function.
        function: String,
        /// The type and its path.
        source: ShapeError,
    },
    /// An interface has something other than plain functions.
    #[error("{direction} {interface}: {what}")]
    Unwirable {
        /// `export` or `import`.
        direction: &'static str,
        /// The interface.
        interface: String,
        /// What it holds, and the fix.
        what: String,
    },
    /// An interface's name is not of the component model's form.
    #[error("{direction} with a name that cannot be wired")]
    Name {
        /// `export` or `import`.
        direction: &'static str,
        /// The reason.
        source: IdError,
    },
}

impl Component {
    /// Reads and compiles a file; see [`Component::new`].
    ///
    /// # Errors
    ///
    /// The file cannot be read, or is not a component that can be wired.
    pub fn load(engine: &Engine, path: &Path) -> Result<Self, ComponentError> {
        let read = |source| ComponentError::Read {
            path: path.to_owned(),
            source,
        };
        let size = std::fs::metadata(path).map_err(read)?.len();
        if size > MAX_BYTES {
            return Err(ComponentError::TooLarge { size });
        }
        Self::new(engine, &std::fs::read(path).map_err(read)?)
    }

    /// Compiles a component from its bytes, or from its text format.
    ///
    /// # Errors
    ///
    /// The bytes are not a component that can be wired.
    ///
    /// # Cost
    ///
    /// Compiling takes 25 ms to 10 s of all cores, unless the engine's cache has the code.
    pub fn new(engine: &Engine, bytes: &[u8]) -> Result<Self, ComponentError> {
        check_preamble(bytes)?;
        let digest = Digest::of(bytes);
        let flavor = match asynchrony::is_needed(bytes) {
            true => Flavor::Concurrent,
            false => Flavor::Plain,
        };
        let compiled = engine.compile(flavor, digest.as_str(), bytes);
        let compiled = compiled.map_err(ComponentError::Invalid)?;

        let mut component = Self {
            digest,
            size: bytes.len(),
            exports: Vec::new(),
            imports: Vec::new(),
            host_imports: Vec::new(),
            missing: Vec::new(),
            http: None,
            messages: None,
            command: None,
            uncalled: Vec::new(),
            async_imports: BTreeSet::new(),
            flavor,
            docs: BTreeMap::new(),
            compiled,
        };
        let ty = component.compiled.component_type();
        let engine = &component.compiled.engine().clone();
        for (name, item) in ty.exports(engine) {
            match item.ty {
                ComponentItem::ComponentInstance(_)
                    if HTTP_HANDLERS.iter().any(|start| name.starts_with(start)) =>
                {
                    component.http = Some(name.to_owned());
                }
                ComponentItem::ComponentInstance(instance)
                    if name.starts_with(BROKER_HANDLER) || name == MESSAGE_HANDLER =>
                {
                    let handler = describe_handler(engine, name, &instance)?;
                    if let Some(other) = component.messages.replace(handler) {
                        return Err(ComponentError::Unwirable {
                            direction: "export",
                            interface: name.to_owned(),
                            what: format!("it exports {} too; keep one", other.interface.id),
                        });
                    }
                }
                ComponentItem::ComponentInstance(instance)
                    if COMMANDS.iter().any(|start| name.starts_with(start)) =>
                {
                    component.command = Some(describe_command(engine, name, &instance)?);
                    let why = "the start of a command; `[job.NAME]` runs it, and a service is called by an interface of its own";
                    component.add_uncalled(name, why);
                }
                ComponentItem::ComponentInstance(_) if is_host_provided(name) => {
                    let why = if name.starts_with(COMMAND) {
                        "the start of a command by another version of WASI; accepted: 0.2 and 0.3"
                    } else {
                        "of other hosts; export an interface of your own"
                    };
                    component.add_uncalled(name, why);
                }
                // Without a package it is no interface that others could import:
                // componentize-py exports such an instance for its own start.
                ComponentItem::ComponentInstance(_) if !name.contains(':') => {}
                ComponentItem::ComponentInstance(instance) => {
                    component
                        .exports
                        .push(describe(engine, "export", name, &instance)?);
                }
                // Toolchains add functions such as `init` beside the interfaces. They have no
                // subject, so no client can call them.
                ComponentItem::ComponentFunc(_) => {
                    let why = "a function outside of any interface; move it into one that the world exports";
                    component.add_uncalled(name, why);
                }
                _ => {}
            }
        }
        for (name, item) in ty.imports(engine) {
            match item.ty {
                ComponentItem::ComponentInstance(instance) if is_for_hosts(name) => {
                    component.host_imports.push(name.to_owned());
                    if !is_of_types_alone(engine, &instance) {
                        component.missing.extend(missing(name));
                    }
                }
                ComponentItem::ComponentInstance(instance) => {
                    let interface = describe(engine, "import", name, &instance)?;
                    let functions = async_functions(engine, &instance);
                    let functions = functions
                        .iter()
                        .map(|function| interface.id.function(function));
                    component.async_imports.extend(functions);
                    // An interface of types alone needs no service.
                    if !interface.functions.is_empty() {
                        component.imports.push(interface);
                    }
                }
                // A type that an interface refers to by its name.
                ComponentItem::Type(_) => {}
                _ => {
                    return Err(ComponentError::Unwirable {
                        direction: "import",
                        interface: format!("`{name}`"),
                        what: "it stands outside of any interface; move it into one".to_owned(),
                    });
                }
            }
        }
        let (called, empty): (Vec<_>, Vec<_>) = std::mem::take(&mut component.exports)
            .into_iter()
            .partition(|interface| !interface.functions.is_empty());
        component.exports = called;
        for InterfaceDescription { id, .. } in empty {
            component.add_uncalled(&id.to_string(), "an interface without functions");
        }
        Ok(component)
    }

    fn add_uncalled(&mut self, export: &str, why: &'static str) {
        let export = shown(export).into_owned();
        self.uncalled.push(Uncalled { export, why });
    }

    /// Whether a call, a request or a message can reach it.
    #[must_use]
    pub fn is_callable(&self) -> bool {
        !self.exports.is_empty() || self.http.is_some() || self.messages.is_some()
    }

    /// The description of the component for a plan.
    #[must_use]
    pub fn description(&self) -> Description {
        Description {
            exports: self.exports.clone(),
            imports: self.imports.clone(),
            http: self.http.is_some(),
            messages: self
                .messages
                .as_ref()
                .map(|handler| handler.interface.id.clone()),
            command: self.command.is_some(),
            concurrent: self.flavor == Flavor::Concurrent,
            docs: self.docs.clone(),
        }
    }

    /// Whether it may do several things at once, so that its clock cannot stand still.
    pub(crate) fn is_asynchronous(&self) -> bool {
        self.flavor == Flavor::Concurrent
    }

    /// The memories and tables that one instance takes; `None` if that is known only when it is
    /// instantiated.
    #[must_use]
    pub fn resources_required(&self) -> Option<wasmtime::ResourcesRequired> {
        self.compiled.resources_required()
    }

    /// Where the function is found in every instance of this component.
    pub(crate) fn export_index(
        &self,
        interface: &InterfaceId,
        function: &str,
    ) -> Option<ComponentExportIndex> {
        let instance = self
            .compiled
            .get_export_index(None, &*interface.to_string())?;
        self.compiled.get_export_index(Some(&instance), function)
    }
}

/// The names of the functions that are `async func`s.
fn async_functions(engine: &wasmtime::Engine, instance: &ComponentInstance) -> Vec<String> {
    let is_async = |item: &ComponentItem| match item {
        ComponentItem::ComponentFunc(function) => function.async_(),
        _ => false,
    };
    let items = instance.exports(engine);
    let functions = items.filter(|(_, item)| is_async(&item.ty));
    functions.map(|(name, _)| name.to_owned()).collect()
}

/// Whether nothing has to be provided for an import.
fn is_of_types_alone(engine: &wasmtime::Engine, instance: &ComponentInstance) -> bool {
    let mut items = instance.exports(engine);
    items.all(|(_, item)| matches!(item.ty, ComponentItem::Type(_)))
}

/// Interfaces that the host answers itself, or that are meant for other hosts.
fn is_host_provided(name: &str) -> bool {
    name.starts_with("wasi:") || name.starts_with("wasmcloud:messaging/")
}

/// The exported start of a command, checked against the type of its interface.
fn describe_command(
    engine: &wasmtime::Engine,
    name: &str,
    instance: &ComponentInstance,
) -> Result<InterfaceDescription, ComponentError> {
    let command = describe(engine, "export", name, instance)?;
    let run = command.functions.get("run");
    if command.functions.len() == 1 && run.is_some_and(|run| run.to_string() == RUN) {
        return Ok(command);
    }
    Err(ComponentError::Unwirable {
        direction: "export",
        interface: name.to_owned(),
        what: format!("it has to have `run: {RUN}` and nothing else"),
    })
}

/// The exported message handler, checked against the type of its interface.
fn describe_handler(
    engine: &wasmtime::Engine,
    name: &str,
    instance: &ComponentInstance,
) -> Result<MessageHandler, ComponentError> {
    let (interface, kind, wanted) = if name == MESSAGE_HANDLER {
        let wanted = "handle: func(message: message) -> result<_, error>".to_owned();
        (
            message_handler(engine, name, instance)?,
            HandlerKind::Wasi,
            wanted,
        )
    } else {
        let handler = describe(engine, "export", name, instance)?;
        let signature = handler.functions.get("handle-message");
        let typed = signature.is_some_and(|signature| signature.to_string() == HANDLE_MESSAGE);
        let wanted = format!("handle-message: {HANDLE_MESSAGE}");
        (typed.then_some(handler), HandlerKind::Wasmcloud, wanted)
    };
    match interface.filter(|interface| interface.functions.len() == 1) {
        Some(interface) => Ok(MessageHandler { interface, kind }),
        None => Err(ComponentError::Unwirable {
            direction: "export",
            interface: name.to_owned(),
            what: format!("it has to have `{wanted}` and nothing else"),
        }),
    }
}

/// The interface whose message is a resource, if it has its one function. The function has no
/// signature: only the host calls it.
fn message_handler(
    engine: &wasmtime::Engine,
    name: &str,
    instance: &ComponentInstance,
) -> Result<Option<InterfaceDescription>, ComponentError> {
    let direction = "export";
    let id: InterfaceId = name
        .parse()
        .map_err(|source| ComponentError::Name { direction, source })?;
    let mut functions = BTreeMap::new();
    for (function, item) in instance.exports(engine) {
        let ComponentItem::ComponentFunc(func) = item.ty else {
            // The types that it uses.
            continue;
        };
        let owns = func.params().map(|(_, ty)| matches!(ty, Type::Own(_)));
        let (result, results) = (func.results().next(), func.results());
        let error = match result {
            Some(Type::Result(result)) if result.ok().is_none() => result.err(),
            _ => None,
        };
        let cases = match error {
            Some(Type::Variant(error)) => error.cases().map(|case| case.name.to_owned()).collect(),
            _ => Vec::new(),
        };
        let typed = owns.eq([true]) && results.len() == 1 && cases == ERROR_CASES;
        if function != "handle" || !typed || func.async_() {
            return Ok(None);
        }
        let signature = Signature {
            params: Box::default(),
            result: None,
        };
        functions.insert(function.to_owned(), signature);
    }
    Ok(Some(InterfaceDescription {
        id,
        functions,
        types: BTreeMap::new(),
    }))
}

fn describe(
    engine: &wasmtime::Engine,
    direction: &'static str,
    name: &str,
    instance: &ComponentInstance,
) -> Result<InterfaceDescription, ComponentError> {
    let id: InterfaceId = name
        .parse()
        .map_err(|source| ComponentError::Name { direction, source })?;
    let unwirable = |what| ComponentError::Unwirable {
        direction,
        interface: name.to_owned(),
        what,
    };
    let mut functions = BTreeMap::new();
    let mut types = BTreeMap::new();
    for (function, item) in instance.exports(engine) {
        match item.ty {
            ComponentItem::ComponentFunc(func) => {
                let signature = Signature::of(&func).map_err(|source| ComponentError::Shape {
                    direction,
                    interface: name.to_owned(),
                    function: function.to_owned(),
                    source,
                })?;
                functions.insert(function.to_owned(), signature);
            }
            // One that no message can carry is refused by a function that has it.
            ComponentItem::Type(ty) => {
                let shape = Shape::of(&ty).ok().filter(Shape::is_nominal);
                types.extend(shape.map(|shape| (function.to_owned(), shape)));
            }
            ComponentItem::Resource(_) => {
                return Err(unwirable(format!(
                    "resource \"{function}\" cannot leave its component; pass an id and keep what it stands for in the service"
                )));
            }
            _ => return Err(unwirable(format!("\"{function}\" is no function"))),
        }
    }
    Ok(InterfaceDescription {
        id,
        functions,
        types,
    })
}

/// Refuses files that are often taken for components, with a better error than wasmtime's.
fn check_preamble(bytes: &[u8]) -> Result<(), ComponentError> {
    let text =
        bytes.iter().find(|b| !b.is_ascii_whitespace()) == Some(&b'(') || bytes.starts_with(b";;");
    match bytes {
        [0, b'a', b's', b'm', 1, 0, 0, 0, ..] => Err(ComponentError::CoreModule),
        [0, b'a', b's', b'm', ..] => Ok(()),
        _ if text && is_text_of_module(bytes) => Err(ComponentError::CoreModule),
        _ if text => Ok(()),
        _ => {
            let start = bytes.get(..8).unwrap_or(bytes);
            let start = if start.is_empty() {
                "nothing".to_owned()
            } else {
                format!("`{}`", start.escape_ascii())
            };
            Err(ComponentError::NotWasm { start })
        }
    }
}

/// Whether the text format begins with `(module`, after space and comments.
fn is_text_of_module(bytes: &[u8]) -> bool {
    let mut rest = bytes.trim_ascii_start();
    loop {
        rest = if rest.starts_with(b";;") {
            let end = rest.iter().position(|b| *b == b'\n');
            end.and_then(|end| rest.get(end..)).unwrap_or_default()
        } else if rest.starts_with(b"(;") {
            let Some(after) = behind_comment(rest) else {
                return false;
            };
            after
        } else {
            break;
        }
        .trim_ascii_start();
    }
    let keyword = rest.strip_prefix(b"(").map(<[u8]>::trim_ascii_start);
    let behind = keyword.and_then(|keyword| keyword.strip_prefix(b"module"));
    let ends = |byte: &u8| byte.is_ascii_whitespace() || matches!(byte, b'(' | b')' | b';' | b'$');
    behind.is_some_and(|behind| behind.first().is_none_or(ends))
}

/// The text behind the block comment that it begins with. They nest.
fn behind_comment(text: &[u8]) -> Option<&[u8]> {
    let mut depth = 0_usize;
    let mut at = 0;
    loop {
        match text.get(at..at + 2)? {
            b"(;" => depth += 1,
            b";)" => depth -= 1,
            _ => {
                at += 1;
                continue;
            }
        }
        at += 2;
        if depth == 0 {
            return text.get(at..);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_core_module_is_known_by_its_text() {
        for text in [
            "(module)",
            "\n\t( module (func))",
            ";; one\n;; two\n(module $name)",
            "(; a (; nested ;) comment ;) (module(func))",
            "(module",
        ] {
            assert!(is_text_of_module(text.as_bytes()), "{text}");
            let refused = check_preamble(text.as_bytes());
            assert!(matches!(refused, Err(ComponentError::CoreModule)), "{text}");
        }
        for text in [
            "(component (core module))",
            ";; (module)\n(component)",
            "(; (module) ;)(component)",
            "(; without an end",
            "(modules)",
            ";;",
            "(",
        ] {
            assert!(!is_text_of_module(text.as_bytes()), "{text}");
        }
    }
}
