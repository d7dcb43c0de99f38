//! What a component has of WASI 0.3 and of the component model's async: looked for when it does not
//! compile, since the compiler names the first byte that it does not know.

use wasmparser::{
    CanonicalFunction, CanonicalOption, ComponentDefinedType, ComponentType,
    ComponentTypeDeclaration, InstanceTypeDeclaration, Parser, Payload,
};

/// Interfaces that are named before the rest is left out.
const NAMED: usize = 4;

/// What was found; `None` if the component has nothing of it, or is not one.
pub(super) fn found(bytes: &[u8]) -> Option<String> {
    let binary = wat::parse_bytes(bytes).ok()?;
    let mut found = Found::default();
    for payload in Parser::new(0).parse_all(&binary).map_while(Result::ok) {
        match payload {
            Payload::ComponentImportSection(imports) => {
                for import in imports.into_iter().map_while(Result::ok) {
                    found.interface("imports", import.name.name);
                }
            }
            Payload::ComponentExportSection(exports) => {
                for export in exports.into_iter().map_while(Result::ok) {
                    found.interface("exports", export.name.name);
                }
            }
            Payload::ComponentTypeSection(types) => {
                for ty in types.into_iter().map_while(Result::ok) {
                    found.ty(&ty);
                }
            }
            Payload::ComponentCanonicalSection(functions) => {
                for function in functions.into_iter().map_while(Result::ok) {
                    found.function(&function);
                }
            }
            _ => {}
        }
    }
    found.into_text()
}

#[derive(Default)]
struct Found {
    interfaces: Vec<String>,
    uses: Vec<&'static str>,
}

impl Found {
    fn interface(&mut self, direction: &str, name: &str) {
        let version = name.split_once('@').map_or("", |(_, version)| version);
        let line = format!("{direction} {name}");
        if name.starts_with("wasi:")
            && version.starts_with("0.3")
            && !self.interfaces.contains(&line)
        {
            self.interfaces.push(line);
        }
    }

    fn uses(&mut self, what: &'static str) {
        if !self.uses.contains(&what) {
            self.uses.push(what);
        }
    }

    fn ty(&mut self, ty: &ComponentType<'_>) {
        match ty {
            ComponentType::Defined(ComponentDefinedType::Future(_)) => self.uses("`future`"),
            ComponentType::Defined(ComponentDefinedType::Stream(_)) => self.uses("`stream`"),
            ComponentType::Func(func) if func.async_ => self.uses("`async func`"),
            ComponentType::Instance(items) => {
                for item in items {
                    if let InstanceTypeDeclaration::Type(ty) = item {
                        self.ty(ty);
                    }
                }
            }
            ComponentType::Component(items) => {
                for item in items {
                    if let ComponentTypeDeclaration::Type(ty) = item {
                        self.ty(ty);
                    }
                }
            }
            _ => {}
        }
    }

    fn function(&mut self, function: &CanonicalFunction) {
        use CanonicalFunction::{Lift, Lower, ResourceDrop, ResourceNew, ResourceRep};
        match function {
            Lift { options, .. } | Lower { options, .. } => {
                if options.contains(&CanonicalOption::Async) {
                    self.uses("`async` lifting or lowering");
                }
            }
            ResourceNew { .. } | ResourceDrop { .. } | ResourceRep { .. } => {}
            // Tasks, waitables, streams, futures and threads.
            _ => self.uses("async built-in functions"),
        }
    }

    fn into_text(self) -> Option<String> {
        let Self { interfaces, uses } = self;
        let left_out = interfaces.len().saturating_sub(NAMED);
        let mut found: Vec<_> = interfaces.into_iter().take(NAMED).collect();
        if left_out > 0 {
            found.push(format!("{left_out} more interfaces of it"));
        }
        if !uses.is_empty() {
            found.push(format!("it uses {}", uses.join(", ")));
        }
        (!found.is_empty()).then(|| found.join("; "))
    }
}
