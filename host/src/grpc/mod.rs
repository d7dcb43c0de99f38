//! The functions of an app as gRPC services: names, messages and their bytes. Pure.
//!
//! An interface is a service of the package `namespace.package.track`, a function a method. Types become
//! messages as `docs/grpc.md` has it, without a step that generates code: descriptors for reflection, `.proto`
//! files for clients and the codec are all made from the shapes that the app was planned by.

mod codec;
mod comments;
mod descriptors;
mod names;
mod own;
mod proto;
mod reflection;
pub mod status;
#[cfg(test)]
mod tests;
mod types;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use prost_types::FileDescriptorProto;

pub use codec::CodecError;
pub use own::{HEALTH, Serving, checked, health};
pub use reflection::{METHOD as REFLECTION_METHOD, Reflected, SERVICES as REFLECTION};

use crate::interface::{FunctionId, InterfaceId};
use crate::manifest::{App, ProtoLock};
use crate::plan::exposed::exposed;
use crate::plan::{Description, Plan};
use crate::shape::{Shape, Signature};
use crate::value::Value;
use names::{Scope, snake, upper_camel};
use types::{Builder, Declared, Message};

/// Everything that an app serves by gRPC.
#[derive(Debug, Default)]
pub struct Api {
    packages: Vec<Package>,
    /// By `/package.Service/Method`.
    methods: HashMap<String, Arc<Method>>,
}

/// The interfaces of one WIT package and track.
#[derive(Debug)]
struct Package {
    /// `shop.orders.v1`.
    name: String,
    /// The path of its file.
    file: String,
    services: Vec<Service>,
    declared: Vec<Declared>,
}

/// An interface.
#[derive(Debug)]
struct Service {
    /// The name in its package.
    name: String,
    methods: Vec<Arc<Method>>,
}

/// A function.
#[derive(Debug)]
pub struct Method {
    /// The function.
    pub function: FunctionId,
    /// Its type.
    pub signature: Signature,
    name: String,
    request: Arc<Message>,
    response: Arc<Message>,
}

impl Method {
    /// Reads a request of at most `limit` bytes: the function's arguments.
    ///
    /// # Errors
    ///
    /// The bytes are no request of this function.
    pub fn decode_request(&self, bytes: &[u8], limit: usize) -> Result<Vec<Value>, CodecError> {
        match codec::decode(bytes, &self.request, limit)? {
            Value::Record(arguments) => Ok(arguments),
            other => Ok(vec![other]),
        }
    }

    /// Its name in its service.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Writes a request of at most `limit` bytes: the function's arguments.
    ///
    /// # Errors
    ///
    /// The values are no arguments of this function, or make more bytes.
    pub fn encode_request(
        &self,
        arguments: Vec<Value>,
        limit: usize,
    ) -> Result<Vec<u8>, CodecError> {
        codec::encode(&Value::Record(arguments), &self.request, limit)
    }

    /// Reads a response of at most `limit` bytes: the function's result.
    ///
    /// # Errors
    ///
    /// The bytes are no response of this function.
    pub fn decode_response(&self, bytes: &[u8], limit: usize) -> Result<Option<Value>, CodecError> {
        Ok(match codec::decode(bytes, &self.response, limit)? {
            Value::Record(mut value) => value.pop(),
            result => Some(result),
        })
    }

    /// Writes a response of at most `limit` bytes: the function's result.
    ///
    /// # Errors
    ///
    /// The value is no result of this function, or makes more bytes.
    pub fn encode_response(
        &self,
        result: Option<Value>,
        limit: usize,
    ) -> Result<Vec<u8>, CodecError> {
        let value = match result {
            Some(value @ Value::Result(_)) => value,
            other => Value::Record(other.into_iter().collect()),
        };
        codec::encode(&value, &self.response, limit)
    }
}

/// The parts of one package while it is collected.
#[derive(Default)]
struct Parts {
    /// The functions of each interface.
    interfaces: BTreeMap<String, BTreeMap<String, (FunctionId, Signature)>>,
}

impl Api {
    /// What the gateway of an app serves: the functions that have an RPC path.
    #[must_use]
    pub fn new(app: &App, plan: &Plan, components: &BTreeMap<String, Description>) -> Self {
        Self::with(exposed(app, plan, components), app, components)
    }

    /// What an app calls of gRPC services outside.
    #[must_use]
    pub fn called(app: &App, plan: &Plan, components: &BTreeMap<String, Description>) -> Self {
        let called = plan.grpc_calls.iter();
        let functions =
            called.map(|(function, called)| (function.clone(), called.signature.clone()));
        Self::with(functions.collect(), app, components)
    }

    fn with(
        functions: BTreeMap<FunctionId, Signature>,
        app: &App,
        components: &BTreeMap<String, Description>,
    ) -> Self {
        let mut named: BTreeMap<(String, String), BTreeMap<String, Shape>> = BTreeMap::new();
        let exports = components.values().flat_map(|one| &one.exports);
        let imports = components.values().flat_map(|one| &one.imports);
        for interface in exports.chain(imports) {
            let key = (package_of(&interface.id), interface.id.name.clone());
            let types = named.entry(key).or_default();
            for (name, shape) in &interface.types {
                types.entry(name.clone()).or_insert_with(|| shape.clone());
            }
        }
        Self::of(functions, &named, &app.proto_lock)
    }

    fn of(
        functions: BTreeMap<FunctionId, Signature>,
        named: &BTreeMap<(String, String), BTreeMap<String, Shape>>,
        lock: &ProtoLock,
    ) -> Self {
        let mut packages: BTreeMap<String, Parts> = BTreeMap::new();
        let mut files = HashMap::new();
        for (function, signature) in functions {
            let package = package_of(&function.interface);
            files
                .entry(package.clone())
                .or_insert_with(|| file_of(&package, &function.interface));
            let parts = packages.entry(package).or_default();
            let interface = parts.interfaces.entry(function.interface.name.clone());
            let functions = interface.or_default();
            let one = || (function.clone(), signature);
            // Of two versions of one track the first stands for both: they are compatible.
            functions.entry(function.name.clone()).or_insert_with(one);
        }
        let mut api = Self::default();
        for (name, parts) in packages {
            let file = files.remove(&name).unwrap_or_default();
            let types = named
                .iter()
                .filter(|((package, _), _)| *package == name)
                .map(|((_, interface), types)| (interface.as_str(), types))
                .collect();
            let package = Package::of(name, file, parts, &types, lock);
            for service in &package.services {
                let full = format!("{}.{}", package.name, service.name);
                let methods = service.methods.iter();
                let methods = methods.map(|method| (format!("/{full}/{}", method.name), method));
                api.methods
                    .extend(methods.map(|(path, method)| (path, Arc::clone(method))));
            }
            api.packages.push(package);
        }
        api
    }

    /// The method of a path such as `/shop.orders.v1.Orders/Place`.
    #[must_use]
    pub fn method(&self, path: &str) -> Option<&Arc<Method>> {
        self.methods.get(path)
    }

    /// The method that a function is, and the full name of its service.
    #[must_use]
    pub fn method_of(&self, function: &FunctionId) -> Option<(String, Arc<Method>)> {
        self.packages.iter().find_map(|package| {
            package.services.iter().find_map(|service| {
                let is_it = |method: &&Arc<Method>| {
                    let own = &method.function;
                    own.name == function.name && own.interface.compatible(&function.interface)
                };
                let method = service.methods.iter().find(is_it)?;
                let name = format!("{}.{}", package.name, service.name);
                Some((name, Arc::clone(method)))
            })
        })
    }

    /// Whether there is a service of this full name.
    #[must_use]
    pub fn has_service(&self, name: &str) -> bool {
        self.services().any(|known| known == name)
    }

    /// The full names of its services.
    pub fn services(&self) -> impl Iterator<Item = String> {
        self.packages.iter().flat_map(|package| {
            let services = package.services.iter();
            services.map(|service| format!("{}.{}", package.name, service.name))
        })
    }

    /// The descriptors of its files.
    #[must_use]
    pub fn files(&self) -> Vec<FileDescriptorProto> {
        self.packages.iter().map(descriptors::file).collect()
    }

    /// Its `.proto` files: paths and texts, with the documentation comments of these components.
    #[must_use]
    pub fn protos(&self, components: &BTreeMap<String, Description>) -> BTreeMap<String, String> {
        let comments = comments::comments(self, components);
        let files = self.files().into_iter();
        let files = files.map(|file| (file.name().to_owned(), proto::print(&file, &comments)));
        files.collect()
    }

    /// The numbers of all that is served, added to those of a lock.
    #[must_use]
    pub fn lock(&self, before: &ProtoLock) -> ProtoLock {
        let mut numbers = Vec::new();
        for package in &self.packages {
            for declared in &package.declared {
                collect_numbers(declared, &mut numbers);
            }
        }
        before.updated(numbers)
    }
}

fn collect_numbers(declared: &Declared, all: &mut Vec<(String, BTreeMap<String, u32>)>) {
    match declared {
        Declared::Enum(one) => all.push((one.path.clone(), one.cases.iter().cloned().collect())),
        Declared::Message(message) => {
            let numbers = message.numbers().into_iter();
            let numbers = numbers.map(|(name, number)| (name.to_owned(), number));
            all.push((message.path.clone(), numbers.collect()));
            for nested in &message.nested {
                collect_numbers(nested, all);
            }
        }
    }
}

/// `shop:orders@1.2.0` is `shop.orders.v1`.
fn package_of(id: &InterfaceId) -> String {
    let track = snake(&id.track());
    format!("{}.{}.{track}", snake(&id.namespace), snake(&id.package))
}

/// `shop/orders/v1/orders.proto`.
fn file_of(package: &str, id: &InterfaceId) -> String {
    format!("{}/{}.proto", package.replace('.', "/"), snake(&id.package))
}

impl Package {
    fn of(
        name: String,
        file: String,
        parts: Parts,
        types: &BTreeMap<&str, &BTreeMap<String, Shape>>,
        lock: &ProtoLock,
    ) -> Self {
        let mut scope = Scope::default();
        let services: Vec<_> = parts
            .interfaces
            .into_iter()
            .map(|(interface, functions)| {
                let service = scope.take(upper_camel(&interface));
                (interface, service, functions)
            })
            .collect();
        // A function's messages bear its interface's name too where another one has such a function.
        let mut seen = BTreeSet::new();
        let mut twice = BTreeSet::new();
        for name in services
            .iter()
            .flat_map(|(_, _, functions)| functions.keys())
        {
            if !seen.insert(name.clone()) {
                twice.insert(name.clone());
            }
        }
        let mut planned = Vec::new();
        for (interface, service, functions) in services {
            let mut methods = Scope::default();
            let mut named = Vec::new();
            for (function, (id, signature)) in functions {
                let mut prefix = upper_camel(&function);
                if twice.contains(&function) {
                    prefix.insert_str(0, &upper_camel(&interface));
                }
                let request = scope.take(format!("{prefix}Request"));
                let response = scope.take(format!("{prefix}Response"));
                let method = methods.take(upper_camel(&function));
                named.push((method, request, response, id, signature));
            }
            planned.push((service, named));
        }
        let names = type_names(types, &mut scope);
        let mut builder = Builder::new(name.clone(), lock, names);
        let services = planned.into_iter().map(|(service, named)| Service {
            name: service,
            methods: named
                .into_iter()
                .map(|(name, request, response, function, signature)| {
                    Arc::new(Method {
                        request: builder.request(request, &signature.params),
                        response: builder.response(response, signature.result.as_ref()),
                        function,
                        signature,
                        name,
                    })
                })
                .collect(),
        });
        let services = services.collect();
        Self {
            name,
            file,
            services,
            declared: builder.declared,
        }
    }
}

/// The names of a package's types by the texts of their shapes.
///
/// Types of one name that differ bear their interfaces' names too. Types that are the same have one message, with
/// the first of their names.
fn type_names(
    types: &BTreeMap<&str, &BTreeMap<String, Shape>>,
    scope: &mut Scope,
) -> BTreeMap<String, String> {
    let mut by_name: BTreeMap<String, BTreeMap<String, &str>> = BTreeMap::new();
    for (interface, types) in types {
        for (name, shape) in *types {
            let shapes = by_name.entry(upper_camel(name)).or_default();
            shapes.entry(shape.to_string()).or_insert(interface);
        }
    }
    let mut names = BTreeMap::new();
    for (name, shapes) in by_name {
        let is_one = shapes.len() == 1;
        for (shape, interface) in shapes {
            if names.contains_key(&shape) {
                continue;
            }
            let name = if is_one {
                name.clone()
            } else {
                format!("{}{name}", upper_camel(interface))
            };
            names.insert(shape, scope.take(name));
        }
    }
    names
}
