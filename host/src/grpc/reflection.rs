//! `grpc.reflection.v1` and `v1alpha`: what is served, for clients that were built without it.

use std::collections::{BTreeMap, BTreeSet};

use prost::Message as _;
use prost_types::{DescriptorProto, FileDescriptorProto};

use super::status::Code;
use super::{Api, descriptors, own};

/// The services of reflection: they differ in their names only.
pub const SERVICES: [&str; 2] = [
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
];

/// The one method of both.
pub const METHOD: &str = "ServerReflectionInfo";

#[derive(Clone, PartialEq, prost::Message)]
struct Request {
    #[prost(string, tag = "1")]
    host: String,
    #[prost(oneof = "Wanted", tags = "3, 4, 5, 6, 7")]
    wanted: Option<Wanted>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Wanted {
    #[prost(string, tag = "3")]
    File(String),
    #[prost(string, tag = "4")]
    Symbol(String),
    #[prost(message, tag = "5")]
    Extension(Extension),
    #[prost(string, tag = "6")]
    Extensions(String),
    #[prost(string, tag = "7")]
    Services(String),
}

#[derive(Clone, PartialEq, prost::Message)]
struct Extension {
    #[prost(string, tag = "1")]
    containing_type: String,
    #[prost(int32, tag = "2")]
    number: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Response {
    #[prost(string, tag = "1")]
    valid_host: String,
    #[prost(message, optional, tag = "2")]
    original: Option<Request>,
    #[prost(oneof = "Given", tags = "4, 6, 7")]
    given: Option<Given>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Given {
    #[prost(message, tag = "4")]
    Files(Files),
    #[prost(message, tag = "6")]
    Services(Services),
    #[prost(message, tag = "7")]
    Error(Problem),
}

#[derive(Clone, PartialEq, prost::Message)]
struct Files {
    #[prost(bytes = "vec", repeated, tag = "1")]
    file: Vec<Vec<u8>>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Services {
    #[prost(message, repeated, tag = "1")]
    service: Vec<Service>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Service {
    #[prost(string, tag = "1")]
    name: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Problem {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
}

/// What reflection knows of: the files of some apps and of the host's own services.
pub struct Reflected {
    services: BTreeSet<String>,
    files: BTreeMap<String, FileDescriptorProto>,
    /// The file of each name.
    symbols: BTreeMap<String, String>,
}

impl Reflected {
    /// Everything of these.
    pub fn of<'a>(apis: impl IntoIterator<Item = &'a Api>) -> Self {
        let mut all = Self {
            services: BTreeSet::new(),
            files: BTreeMap::new(),
            symbols: BTreeMap::new(),
        };
        all.add(descriptors::empty_file());
        for file in own::files() {
            all.add(file);
        }
        for file in apis.into_iter().flat_map(Api::files) {
            all.add(file);
        }
        all
    }

    fn add(&mut self, file: FileDescriptorProto) {
        let name = file.name().to_owned();
        // Two apps may have an interface in common; its first file stands for both.
        if self.files.contains_key(&name) {
            return;
        }
        let mut symbols = Vec::new();
        for service in &file.service {
            let full = format!("{}.{}", file.package(), service.name());
            let methods = service.method.iter();
            symbols.extend(methods.map(|method| format!("{full}.{}", method.name())));
            self.services.insert(full.clone());
            symbols.push(full);
        }
        for message in &file.message_type {
            symbols_of(file.package(), message, &mut symbols);
        }
        for one in &file.enum_type {
            symbols.push(format!("{}.{}", file.package(), one.name()));
        }
        let symbols = symbols.into_iter().map(|symbol| (symbol, name.clone()));
        self.symbols.extend(symbols);
        self.files.insert(name, file);
    }

    /// The answer to a request; nothing if it is none.
    #[must_use]
    pub fn answer(&self, request: &[u8]) -> Option<Vec<u8>> {
        let request = Request::decode(request).ok()?;
        let missing = |what: &str| {
            Given::Error(Problem {
                code: Code::NotFound as i32,
                message: format!("there is no {}", crate::text::shown(what)),
            })
        };
        let given = match &request.wanted {
            Some(Wanted::Services(_)) => Given::Services(Services {
                service: self
                    .services
                    .iter()
                    .map(|name| Service { name: name.clone() })
                    .collect(),
            }),
            Some(Wanted::File(name)) => self.file(name).unwrap_or_else(|| missing(name)),
            Some(Wanted::Symbol(name)) => {
                let file = self.symbols.get(name.trim_start_matches('.'));
                let file = file.and_then(|file| self.file(file));
                file.unwrap_or_else(|| missing(name))
            }
            Some(Wanted::Extension(_) | Wanted::Extensions(_)) => missing("extension"),
            None => Given::Error(Problem {
                code: Code::InvalidArgument as i32,
                message: "the request asks for nothing that reflection knows".to_owned(),
            }),
        };
        let response = Response {
            valid_host: request.host.clone(),
            original: Some(request),
            given: Some(given),
        };
        Some(response.encode_to_vec())
    }

    /// A file and what it imports.
    fn file(&self, name: &str) -> Option<Given> {
        let file = self.files.get(name)?;
        let imported = file
            .dependency
            .iter()
            .filter_map(|name| self.files.get(name));
        let files = std::iter::once(file).chain(imported);
        Some(Given::Files(Files {
            file: files.map(prost::Message::encode_to_vec).collect(),
        }))
    }
}

fn symbols_of(scope: &str, message: &DescriptorProto, symbols: &mut Vec<String>) {
    let full = format!("{scope}.{}", message.name());
    for nested in &message.nested_type {
        symbols_of(&full, nested, symbols);
    }
    let enums = message.enum_type.iter();
    symbols.extend(enums.map(|one| format!("{full}.{}", one.name())));
    let fields = message.field.iter();
    symbols.extend(fields.map(|field| format!("{full}.{}", field.name())));
    symbols.push(full);
}
