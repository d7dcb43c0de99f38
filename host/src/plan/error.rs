//! The errors of a plan, each with its fix.

use super::{BreakerProblem, DurableProblem, GrpcProblem, NestProblem, PipelineProblem};
use crate::interface::{FunctionId, InterfaceId};
use crate::manifest::Place;
use crate::shape::{Field, Signature};
use crate::text::did_you_mean;

/// The services of an app do not fit together.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum PlanError {
    /// An import without an exporter.
    #[error(
        "service \"{service}\": imports {import}, which no service exports; add a service that exports it, or \
         `[wire.\"{import}\"] external = true`{}", suggestion(.nearest)
    )]
    NoExporter {
        /// The importing service.
        service: String,
        /// The imported interface.
        import: InterfaceId,
        /// The exported interface with the nearest name.
        nearest: Option<String>,
    },
    /// A job whose component cannot be run.
    #[error(
        "job \"{job}\": its component does not export wasi:cli/run of WASI 0.2 or 0.3, by which it is run; build a \
         program with a `main`, such as by `cargo build --target wasm32-wasip2`, or make it a `[service.{job}]`"
    )]
    NoCommand {
        /// The job.
        job: String,
    },
    /// An import of which only incompatible versions are exported.
    #[error(
        "service \"{service}\": imports {import}, but \"{exporter}\" exports {}, which is not compatible; build both \
         against one version", version(.found)
    )]
    OtherVersion {
        /// The importing service.
        service: String,
        /// The imported interface.
        import: InterfaceId,
        /// A service that exports the interface.
        exporter: String,
        /// The exported version.
        found: InterfaceId,
    },
    /// An interface with several exporters and no wire that chooses.
    #[error(
        "{interface} is exported by {}; choose one: `[wire.\"{interface}\"] service = \"…\"`", quoted(.services)
    )]
    Ambiguous {
        /// The interface.
        interface: InterfaceId,
        /// The exporting services.
        services: Vec<String>,
    },
    /// A component that exports two versions of an interface with the same subjects.
    #[error(
        "service \"{service}\": exports both {one} and {two}, which callers cannot tell apart; export one of them"
    )]
    Twice {
        /// The exporting service.
        service: String,
        /// One version.
        one: InterfaceId,
        /// The other.
        two: InterfaceId,
    },
    /// A wire to a service that does not export the interface.
    #[error("wire \"{interface}\": service \"{service}\" does not export it{} (it exports: {})", suggestion(.nearest), list(.exports))]
    NotExported {
        /// The wire's interface.
        interface: InterfaceId,
        /// The wire's service.
        service: String,
        /// The nearest of the service's exports.
        nearest: Option<String>,
        /// All of them.
        exports: Vec<String>,
    },
    /// A wire that nothing uses.
    #[error("wire \"{interface}\": no service imports it and no route calls it; remove the wire{}", suggestion(.nearest))]
    Unused {
        /// The wire's interface.
        interface: InterfaceId,
        /// The imported interface with the nearest name.
        nearest: Option<String>,
    },
    /// A wire for calls of an interface that no service exports.
    #[error("wire \"{interface}\": no service exports it; remove the wire{}", suggestion(.nearest))]
    NothingToCall {
        /// The wire's interface.
        interface: InterfaceId,
        /// The exported interface with the nearest name.
        nearest: Option<String>,
    },
    /// An imported function that the exporter has not.
    #[error("service \"{service}\": imports {function}, which \"{exporter}\" does not export{}", suggestion(.nearest))]
    NoFunction {
        /// The importing service.
        service: String,
        /// The imported function.
        function: FunctionId,
        /// The service that exports the interface.
        exporter: String,
        /// The nearest of the interface's functions.
        nearest: Option<String>,
    },
    /// An imported function that the exporter has with another type.
    #[error(
        "service \"{service}\": imports {function} as `{wanted}`, but \"{exporter}\" exports it as `{found}`; build both \
         against one version of the WIT"
    )]
    Mismatch {
        /// The importing service.
        service: String,
        /// The imported function.
        function: FunctionId,
        /// The importer's type.
        wanted: Box<Signature>,
        /// The service that exports the interface.
        exporter: String,
        /// The exporter's type.
        found: Box<Signature>,
    },
    /// Something that does not fit between the app and a NestJS service.
    #[error("{place}{of}: {problem}")]
    Nest {
        /// Where it stands; empty for a wire as a whole.
        place: Place,
        /// The pattern or the wire.
        of: String,
        /// What does not fit.
        problem: NestProblem,
    },
    /// A wire to a gRPC service that cannot be.
    #[error("wire \"{interface}\": {problem}")]
    Grpc {
        /// The wire.
        interface: InterfaceId,
        /// What does not fit.
        problem: GrpcProblem,
    },
    /// A breaker of a wire that cannot be.
    #[error("{place}wire \"{interface}\": {problem}")]
    Breaker {
        /// Where it stands; empty for the wire as a whole.
        place: Place,
        /// The wire's interface.
        interface: InterfaceId,
        /// What is wrong.
        problem: BreakerProblem,
    },
    /// A service whose calls of an interface would come back to itself.
    #[error(
        "service \"{service}\": imports {import}, which it exports itself, so it would call itself; {}",
        another(.service, .import, .others)
    )]
    CallsItself {
        /// The service.
        service: String,
        /// The interface.
        import: InterfaceId,
        /// The other services that export it.
        others: Vec<String>,
    },
    /// A wrong entry of a service's own `wire`.
    #[error("service \"{service}\": `wire.\"{interface}\"`: {problem}")]
    Choice {
        /// The importing service.
        service: String,
        /// The interface.
        interface: InterfaceId,
        /// The problem.
        problem: ChoiceProblem,
    },
    /// A wrong wire of events.
    #[error("wire \"{interface}\": {problem}")]
    Event {
        /// The interface.
        interface: InterfaceId,
        /// The problem.
        problem: EventProblem,
    },
    /// An interface that is to have RPC paths and that nothing in the app exports, imports or calls.
    #[error("`[gateway] rpc`: no service exports or imports {interface}{}", suggestion(.nearest))]
    NoRpc {
        /// The interface.
        interface: InterfaceId,
        /// The app's interface with the nearest name.
        nearest: Option<String>,
    },
    /// A pipeline that cannot run.
    #[error("{place}pipeline \"{pipeline}\": {within}{problem}")]
    Pipeline {
        /// Where in the manifest.
        place: Place,
        /// The pipeline.
        pipeline: String,
        /// Its step, as the beginning of a sentence.
        within: String,
        /// The problem.
        problem: Box<PipelineProblem>,
    },
    /// A function that cannot be durable.
    #[error("{place}service \"{service}\": {problem}")]
    Durable {
        /// Where in the manifest.
        place: Place,
        /// The service.
        service: String,
        /// The problem.
        problem: Box<DurableProblem>,
    },
    /// A route that cannot be served.
    #[error("route \"{route}\": {problem}")]
    Route {
        /// Method and path.
        route: String,
        /// The problem.
        problem: RouteProblem,
    },
}

pub(super) fn suggestion(nearest: &Option<String>) -> String {
    nearest
        .as_ref()
        .map_or_else(String::new, |name| format!("; did you mean `{name}`?"))
}

fn version(id: &InterfaceId) -> String {
    id.version
        .as_ref()
        .map_or_else(|| "it without a version".to_owned(), ToString::to_string)
}

/// The fix for a service that would call itself.
fn another(service: &str, import: &InterfaceId, others: &[String]) -> String {
    match others.first() {
        Some(other) => format!(
            "choose who answers it: `[service.{service}.wire]` with `\"{import}\" = \"{other}\"`"
        ),
        None => "add another service that exports it".to_owned(),
    }
}

fn quoted(names: &[String]) -> String {
    names
        .iter()
        .map(|name| format!("\"{name}\""))
        .collect::<Vec<_>>()
        .join(" and ")
}

pub(super) fn list(names: &[String]) -> String {
    if names.is_empty() {
        "nothing".to_owned()
    } else {
        names.join(", ")
    }
}

/// The problem of an entry of a service's own `wire`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChoiceProblem {
    /// The service does not import the interface.
    #[error("the service does not import it; remove the entry{}", suggestion(.nearest))]
    NotImported {
        /// The nearest of its imports.
        nearest: Option<String>,
    },
    /// The chosen service does not export the interface.
    #[error("service \"{exporter}\" does not export it{} (it exports: {})", suggestion(.nearest), list(.exports))]
    NotExported {
        /// The chosen service.
        exporter: String,
        /// The nearest of its exports.
        nearest: Option<String>,
        /// All of them.
        exports: Vec<String>,
    },
    /// The interface is wired as events.
    #[error(
        "the interface is wired as events, which every service that exports it gets; remove the entry"
    )]
    Events,
}

impl EventProblem {
    /// Its words without the key of the manifest that it is of.
    fn without_key(&self) -> String {
        let text = self.to_string();
        let words = text.strip_prefix("`order-by`: ").map(str::to_owned);
        words.unwrap_or(text)
    }
}

/// The problem of a wire of events.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EventProblem {
    /// Nothing uses the wire.
    #[error("no service exports or imports it and no route calls it; remove the wire{}", suggestion(.nearest))]
    Unused {
        /// The known interface with the nearest name.
        nearest: Option<String>,
    },
    /// A function with a result value.
    #[error(
        "service \"{service}\": `{function}` is `{signature}`, which cannot be an event: an event has no \
         result value; accepted: nothing, or a `result` without a value for ok"
    )]
    Result {
        /// A service that exports or imports the interface.
        service: String,
        /// The function's name.
        function: String,
        /// Its type.
        signature: Box<Signature>,
    },
    /// A function of two services with different types.
    #[error(
        "\"{one}\" and \"{other}\" export `{function}` as `{first}` and `{second}`; build both against one version of the WIT"
    )]
    Disagree {
        /// A service that exports the interface.
        one: String,
        /// Another one.
        other: String,
        /// The function's name.
        function: String,
        /// Its type in the first service.
        first: Box<Signature>,
        /// Its type in the other service.
        second: Box<Signature>,
    },
    /// The key is not there.
    #[error("`order-by`: `{function}` has no {what} `{name}`{suggestion} (there are: {})", list(.known))]
    NoKey {
        /// The function's name.
        function: String,
        /// `parameter` or `field`.
        what: &'static str,
        /// The missing part of the path.
        name: String,
        /// The suggestion of a name, as the end of a sentence.
        suggestion: String,
        /// The parameters or fields that are there.
        known: Vec<String>,
    },
    /// The key cannot be compared.
    #[error(
        "`order-by`: `{path}` of `{function}` cannot be a key; accepted: text, an integer, a boolean or an enum, \
         below records only"
    )]
    Key {
        /// The function's name.
        function: String,
        /// The path up to the failing part.
        path: String,
    },
    /// A subscriber of the manifest that does not export the interface.
    #[error("`subscriber.{service}`: the service does not export the interface (those that do: {})", list(.subscribers))]
    NoSubscriber {
        /// The service.
        service: String,
        /// The services that export it.
        subscribers: Vec<String>,
    },
}

/// The problem of a route.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RouteProblem {
    /// The interface is not exported.
    #[error("calls a function of {interface}, which no service exports{}", suggestion(.nearest))]
    NoInterface {
        /// The interface that the route names.
        interface: InterfaceId,
        /// The one with the nearest name.
        nearest: Option<String>,
    },
    /// The interface is external, and no service of the app has its types.
    #[error(
        "calls a function of {interface}, whose types are unknown: it is external, and no service imports it"
    )]
    UnknownTypes {
        /// The interface.
        interface: InterfaceId,
    },
    /// The interface is exported in incompatible versions.
    #[error("`call` must say which version it means: {one} or {two}")]
    Versions {
        /// One of them.
        one: InterfaceId,
        /// Another.
        two: InterfaceId,
    },
    /// The interface has no such function.
    #[error("{interface} has no function `{name}`{suggestion} (it has: {})", list(.functions))]
    NoFunction {
        /// The interface.
        interface: InterfaceId,
        /// The name that the route has.
        name: String,
        /// The suggestion of a name, as the end of a sentence.
        suggestion: String,
        /// All of them.
        functions: Vec<String>,
    },
    /// Its interface is not wired as events.
    #[error(
        "`events` names {interface}, which is not wired as events; add `[wire.\"{interface}\"]` with `mode = \"event\"`"
    )]
    NoEvents {
        /// The interface.
        interface: InterfaceId,
    },
    /// A parameter of the path that says nothing of the events.
    #[error(
        "`{{{name}}}` of its path chooses no events; add it to `filter`: what has to be equal to it in an event"
    )]
    Unfiltered {
        /// The parameter.
        name: String,
    },
    /// A filter by what is not in the path.
    #[error("`filter.{name}`: its path has no `{{{name}}}` (it has: {})", list(.params))]
    FilterParam {
        /// The name.
        name: String,
        /// Those that are there.
        params: Vec<String>,
    },
    /// A filter by what is not in the event, or cannot be compared.
    #[error("`filter.{name}`: `{path}` is nothing of the event that can be compared: {}", problem.without_key())]
    Filter {
        /// The parameter of the path.
        name: String,
        /// What it should be equal to.
        path: String,
        /// Why.
        problem: Box<EventProblem>,
    },
    /// A name in path or query is no parameter of the function.
    #[error("`{name}` in its {place} is no parameter of the function{suggestion} (parameters: {})", list(.params))]
    NoParam {
        /// `path` or `query`.
        place: &'static str,
        /// The name.
        name: String,
        /// The suggestion of a name, as the end of a sentence.
        suggestion: String,
        /// All of them.
        params: Vec<String>,
    },
    /// A parameter is bound more than once.
    #[error("parameter `{name}` is bound twice; keep one of the two")]
    Twice {
        /// The parameter.
        name: String,
    },
    /// A parameter cannot be read from text.
    #[error(
        "parameter `{name}` is a `{shape}`, which cannot come from the {place}; accepted there: {}{}",
        accepted(.place), fix(.place)
    )]
    NotText {
        /// `path` or `query`.
        place: &'static str,
        /// The parameter.
        name: String,
        /// Its type.
        shape: String,
    },
    /// `errors` on a function that has none.
    #[error("`errors` is set, but the function has no error: `{0}`")]
    NoErrors(Box<Signature>),
    /// A key of `errors` on an error without cases.
    #[error("`errors` has `{case}`, but the function's error has no cases; accepted: `*`")]
    NoCases {
        /// The key.
        case: String,
    },
    /// A key of `errors` that is no case.
    #[error("`errors` has `{case}`, which is no case of the function's error{suggestion} (cases: {})", list(.cases))]
    NoCase {
        /// The key.
        case: String,
        /// The suggestion of a name, as the end of a sentence.
        suggestion: String,
        /// All of them.
        cases: Vec<String>,
    },
    /// The service is no HTTP component.
    #[error(
        "service \"{service}\" exports neither `wasi:http/incoming-handler@0.2` nor `wasi:http/handler@0.3`; name one of its functions with `call`"
    )]
    NoHttp {
        /// The service.
        service: String,
    },
}

fn accepted(place: &str) -> &'static str {
    match place {
        "query" => "text, numbers, booleans, enums, options and lists of them",
        _ => "text, numbers, booleans and enums",
    }
}

fn fix(place: &str) -> &'static str {
    if place == "query" {
        "; use a method with a body, such as POST"
    } else {
        ""
    }
}

impl RouteProblem {
    pub(super) fn no_param(place: &'static str, name: &str, params: &[Field]) -> Self {
        let params: Vec<_> = params.iter().map(|param| param.name.to_string()).collect();
        let suggestion = did_you_mean(name, params.iter().map(String::as_str));
        Self::NoParam {
            place,
            name: name.to_owned(),
            suggestion,
            params,
        }
    }
}
