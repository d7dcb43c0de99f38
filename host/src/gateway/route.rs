//! The destination of a request: the gateway's own paths, then the app's routes.
//!
//! A [`Table`] is made of a deployment once and never changed. It reads no bodies and sends nothing.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http::header::ALLOW;
use http::{Method, StatusCode};
use matchit::{Params, Router};
use percent_encoding::percent_decode_str;

use super::answer::{Outcome, Refusal};
use super::arguments::ArgumentPlan;
use super::auth::Access;
use super::explorer::Explorer;
use super::rate::Limiters;
use crate::deployment::Deployment;
use crate::grpc::Api;
use crate::interface::{FunctionId, InterfaceId};
use crate::interfaces::Source;
use crate::manifest::{ApiDocument, GatewaySpec, Route, RpcPaths, keys};
use crate::plan::{KeyPath, PlannedRoute, Publication};
use crate::runtime::Service;
use crate::shape::Signature;
use crate::subject;
use crate::transport::Choice;

/// Names of the gateway's own paths, and of requests without a route, in the access log.
pub(crate) const HEALTHZ: &str = "/healthz";
pub(crate) const READYZ: &str = "/readyz";
pub(crate) const OPENAPI: &str = "/openapi.json";
pub(crate) const RPC: &str = "/rpc/{interface}/{function}";
pub(crate) const NO_ROUTE: &str = "-";
pub(crate) const PREFLIGHT: &str = "preflight";

const RPC_PREFIX: &str = "/rpc/";

/// What a call may take beyond the time that its service gives itself, so that the service's own
/// word on that comes first.
const MARGIN: Duration = Duration::from_secs(1);

/// All that the gateway serves at one time.
pub(crate) struct Table {
    /// A router for each method of [`keys::METHODS`].
    routers: Vec<(Method, Router<Target>)>,
    /// The router of every other method.
    others: Router<Target>,
    /// Functions by `namespace:package/interface/function`, one for each version that is served.
    functions: HashMap<String, Vec<Rpc>>,
    /// Which of all functions are among them.
    rpc: RpcPaths,
    openapi: ApiDocument,
    /// Required functions that no service here answers: their responders have to be looked for.
    pub(crate) external: Vec<(FunctionId, String)>,
    /// What is asked of clients where no route says otherwise.
    pub(crate) access: Access,
    /// The documents of all this, once they were asked for: with RPC paths and, for clients that have none,
    /// without.
    pub(crate) documents: [OnceLock<Bytes>; 2],
    /// The same as gRPC services, once one was called.
    pub(crate) api: OnceLock<Arc<Api>>,
}

/// The target of a route.
#[derive(Clone)]
pub(crate) enum Target {
    /// A function.
    Call(Arc<CallRoute>),
    /// Events.
    Events(Arc<EventRoute>),
    /// An HTTP component.
    Http(Arc<HttpRoute>),
}

/// A route to a function, with everything that does not depend on the request.
pub(crate) struct CallRoute {
    pub(crate) planned: PlannedRoute,
    pub(crate) access: Access,
    pub(crate) way: Way,
    pub(crate) arguments: ArgumentPlan,
    pub(crate) outcome: Outcome,
}

/// A route that clients follow.
pub(crate) struct EventRoute {
    /// As the manifest has it, for the log.
    pub(crate) path: String,
    pub(crate) access: Access,
    pub(crate) source: Source,
    pub(crate) signature: Signature,
    /// What has to be equal to each parameter of the path.
    pub(crate) filter: Vec<(String, KeyPath)>,
}

/// How a function is reached.
pub(crate) enum Way {
    /// By a call.
    Call(Callee),
    /// By publishing an event, which has no result.
    Publish(Box<Publication>),
}

/// Who answers calls of a function.
pub(crate) struct Callee {
    pub(crate) subject: String,
    /// How long an answer can take, where the service is known.
    pub(crate) limit: Option<Duration>,
    /// A call begins a run, for which its caller can have a key.
    pub(crate) begins_run: bool,
}

/// A route to an HTTP component.
pub(crate) struct HttpRoute {
    /// As the manifest has it, for the log.
    pub(crate) path: String,
    pub(crate) access: Access,
    service: Arc<Service>,
    /// A new version of the service that gets a share of the requests.
    canary: Option<(Arc<Service>, Choice)>,
}

impl HttpRoute {
    /// The service that gets the next request.
    pub(crate) fn chosen(&self) -> &Arc<Service> {
        match &self.canary {
            Some((service, choice)) if choice.next() => service,
            _ => &self.service,
        }
    }
}

/// A function that can be called at its RPC path.
pub(crate) struct Rpc {
    interface: InterfaceId,
    pub(crate) way: Way,
}

/// The destination of a request.
pub(crate) enum Destination<'t, 'p> {
    Healthz,
    Readyz,
    /// The document of what is served, where no route has its path.
    OpenApi,
    /// A file of the page that shows it.
    Explorer(Explorer),
    Rpc(&'t Rpc),
    Call(&'t CallRoute, Params<'t, 'p>),
    Events(&'t Arc<EventRoute>, Params<'t, 'p>),
    Http(&'t HttpRoute),
    Refused(Refusal),
}

impl<'t> Destination<'t, '_> {
    /// By which name requests for it are counted and logged.
    pub(super) fn label(&self) -> &'t str {
        match self {
            Self::Healthz => HEALTHZ,
            Self::Readyz => READYZ,
            Self::OpenApi => OPENAPI,
            Self::Explorer(_) => Explorer::PAGE,
            Self::Rpc(_) => RPC,
            Self::Call(route, _) => &route.planned.route.path,
            Self::Events(route, _) => &route.path,
            Self::Http(route) => &route.path,
            Self::Refused(_) => NO_ROUTE,
        }
    }

    /// Whether it is no component and no refusal: what answers itself which pages may ask is asked.
    pub(super) fn calls_function(&self) -> bool {
        matches!(
            self,
            Self::Rpc(_) | Self::Call(..) | Self::Events(..) | Self::OpenApi
        )
    }
}

impl Table {
    pub(crate) fn new(
        app: &str,
        spec: &GatewaySpec,
        deployment: &Deployment,
        limiters: &Limiters,
    ) -> Self {
        let (plan, services) = (&deployment.plan, &deployment.services);
        let deployed = deployment.app.as_deref().map(|app| &app.gateway);
        let usual = Access::usual(spec, deployed, limiters);
        let mut table = Self {
            routers: keys::METHODS
                .iter()
                .filter_map(|name| Some((name.parse().ok()?, Router::new())))
                .collect(),
            others: Router::new(),
            functions: HashMap::new(),
            rpc: spec.rpc.clone(),
            openapi: spec.openapi,
            external: Vec::new(),
            access: usual.clone(),
            documents: Default::default(),
            api: OnceLock::new(),
        };
        for http in &plan.http {
            let service = services.get(&http.service);
            let candidate = deployment.candidates.get(&http.service);
            let takes = |service: &&Arc<Service>| service.http_handler().is_some();
            let new = candidate.map(|candidate| &candidate.service).filter(takes);
            // A version that takes no HTTP requests leaves them all to the other one.
            let old = service.filter(takes);
            let Some(service) = old.or(new) else {
                continue;
            };
            let both = candidate.zip(old.and(new));
            let route = HttpRoute {
                path: http.route.path.clone(),
                access: usual.of(&http.route, limiters),
                service: Arc::clone(service),
                canary: both
                    .map(|(candidate, new)| (Arc::clone(new), Choice::new(candidate.share))),
            };
            table.add(&http.route, &Target::Http(Arc::new(route)));
        }
        // The explicit ones first: a GET route also answers HEAD where no other does.
        let (heads, others): (Vec<_>, Vec<_>) = plan
            .routes
            .iter()
            .partition(|planned| planned.route.method.as_deref() == Some("HEAD"));
        for planned in heads.into_iter().chain(others) {
            let route = CallRoute {
                way: Way::to(app, deployment, &planned.function),
                arguments: ArgumentPlan::new(&planned.signature, &planned.bindings),
                outcome: Outcome::of(&planned.signature),
                access: usual.of(&planned.route, limiters),
                planned: planned.clone(),
            };
            table.add(&planned.route, &Target::Call(Arc::new(route)));
        }
        for events in &plan.followed {
            let interface = &events.function.interface;
            let stream = events.durable.then(|| subject::stream(app, interface));
            let route = EventRoute {
                path: events.route.path.clone(),
                access: usual.of(&events.route, limiters),
                source: Source {
                    subject: subject::of_function(app, &events.function),
                    partitions: events.partitions,
                    stream: stream.map(Into::into),
                },
                signature: events.signature.clone(),
                filter: events.filter.clone(),
            };
            table.add(&events.route, &Target::Events(Arc::new(route)));
        }
        table.add_functions(app, deployment);
        table
    }

    /// The manifest was checked for conflicts, so the only refused insertion is a GET route whose
    /// HEAD is a route of its own.
    fn add(&mut self, route: &Route, target: &Target) {
        let own = route.method.as_deref();
        for pattern in route.patterns() {
            let pattern = normalized(&pattern).into_owned();
            for (method, router) in &mut self.routers {
                let name = method.as_str();
                let answers = own.is_none_or(|own| own == name || own == "GET" && name == "HEAD");
                if answers && let Err(error) = router.insert(pattern.clone(), target.clone()) {
                    tracing::debug!(%method, pattern, %error, "not inserted");
                }
            }
            if own.is_none()
                && let Err(error) = self.others.insert(pattern, target.clone())
            {
                tracing::debug!(path = route.path, %error, "not inserted");
            }
        }
    }

    fn add_functions(&mut self, app: &str, deployment: &Deployment) {
        let plan = &deployment.plan;
        let served = |id: &InterfaceId| {
            let mut served = plan.serves.values().flatten();
            served.any(|(s, _)| s.compatible(id))
        };
        let external = plan
            .required
            .iter()
            .filter(|function| !served(&function.interface))
            .filter(|function| plan.pipeline_of(function).is_none());
        self.external = external
            .map(|function| (function.clone(), subject::of_function(app, function)))
            .collect();
        let exported = plan.serves.values().flatten().flat_map(|(id, names)| {
            let names = names.iter();
            names.map(|name| id.function(name))
        });
        let events = plan.events.iter().flat_map(|wire| {
            let names = wire.functions.keys();
            names.map(|name| wire.interface.function(name))
        });
        let all: BTreeSet<_> = exported
            .chain(plan.required.iter().cloned())
            .chain(
                plan.pipelines
                    .iter()
                    .map(|pipeline| pipeline.function.clone()),
            )
            .chain(events)
            .filter(|function| self.rpc.include(&function.interface))
            .collect();
        for function in all {
            let way = Way::to(app, deployment, &function);
            let FunctionId { interface, name } = function;
            let bare = InterfaceId {
                version: None,
                ..interface.clone()
            };
            let same = self.functions.entry(format!("{bare}/{name}")).or_default();
            // An importer may name an older version of an exported interface; they are one function.
            if !same.iter().any(|rpc| rpc.interface.compatible(&interface)) {
                same.push(Rpc { interface, way });
            }
        }
    }

    /// Whether this is a path of functions that clients of other machines cannot call.
    pub(crate) fn is_local_only(&self, path: &str) -> bool {
        self.is_rpc_local() && path.starts_with(RPC_PREFIX)
    }

    /// Whether clients of other machines cannot call functions, except by routes.
    pub(super) fn is_rpc_local(&self) -> bool {
        self.rpc == RpcPaths::Loopback
    }

    /// The destination of a request; the gateway's own paths come first.
    ///
    /// `path` is [`normalized`].
    pub(crate) fn find<'t, 'p>(&'t self, method: &Method, path: &'p str) -> Destination<'t, 'p> {
        match own(method, path) {
            Some(Ok(Own::Healthz)) => return Destination::Healthz,
            Some(Ok(Own::Readyz)) => return Destination::Readyz,
            Some(Ok(Own::Rpc(name))) => {
                return match self.function(name) {
                    Ok(rpc) => Destination::Rpc(rpc),
                    Err(refusal) => Destination::Refused(refusal),
                };
            }
            Some(Err(refusal)) => return Destination::Refused(refusal),
            None => {}
        }
        let router = self.routers.iter().find(|(own, _)| own == method);
        let router = router.map_or(&self.others, |(_, router)| router);
        match router.at(path) {
            Ok(found) => match found.value {
                Target::Call(route) => Destination::Call(route, found.params),
                Target::Events(route) => Destination::Events(route, found.params),
                Target::Http(route) => Destination::Http(route),
            },
            Err(_) => {
                let is_read = [Method::GET, Method::HEAD].contains(method);
                let own = is_read.then(|| self.document(path)).flatten();
                own.unwrap_or_else(|| Destination::Refused(self.no_route(path)))
            }
        }
    }

    /// What describes all this, where no route has its path.
    fn document(&self, path: &str) -> Option<Destination<'static, 'static>> {
        match self.openapi {
            ApiDocument::None => None,
            _ if path == OPENAPI => Some(Destination::OpenApi),
            ApiDocument::Document => None,
            ApiDocument::Explorer => Explorer::find(path).map(Destination::Explorer),
        }
    }

    fn no_route(&self, path: &str) -> Refusal {
        let answers = |(_, router): &&(Method, Router<Target>)| router.at(path).is_ok();
        let allowed: Vec<_> = self
            .routers
            .iter()
            .filter(answers)
            .map(|(method, _)| method.as_str())
            .collect();
        if allowed.is_empty() {
            return Refusal::caller(StatusCode::NOT_FOUND, "no route has this path");
        }
        not_allowed(&allowed.join(", "))
    }

    /// The function of this name, if it has an RPC path.
    pub(crate) fn rpc(&self, function: &FunctionId) -> Option<&Rpc> {
        let bare = InterfaceId {
            version: None,
            ..function.interface.clone()
        };
        let same = self.functions.get(&format!("{bare}/{}", function.name));
        let mut same = same.into_iter().flatten();
        same.find(|rpc| rpc.interface.compatible(&function.interface))
    }

    /// The function of an RPC path. The version may be left out where only one is served.
    fn function(&self, name: &str) -> Result<&Rpc, Refusal> {
        let missing = |message: String| Refusal::caller(StatusCode::NOT_FOUND, message);
        let name = percent_decode_str(name).decode_utf8_lossy();
        let (path, version) = match name.split_once('@') {
            None => (name.clone(), None),
            Some((path, rest)) => {
                let (version, function) = rest.split_once('/').unwrap_or((rest, ""));
                (Cow::Owned(format!("{path}/{function}")), Some(version))
            }
        };
        let same = self
            .functions
            .get(&*path)
            .map(Vec::as_slice)
            .unwrap_or_default();
        let Some(first) = same.first() else {
            let why = match self.rpc {
                RpcPaths::All | RpcPaths::Loopback => {
                    "no such function; the path is /rpc/namespace:package/interface/function, with @version after the interface or without"
                }
                RpcPaths::None => "functions have no RPC path here (`[gateway] rpc` is false)",
                RpcPaths::Of(_) => {
                    "no such function among those of the interfaces in `[gateway] rpc`"
                }
            };
            return Err(missing(why.to_owned()));
        };
        let versions = || {
            let versions: Vec<_> = same.iter().map(|rpc| rpc.interface.to_string()).collect();
            versions.join(" and ")
        };
        let Some(version) = version else {
            return match same {
                [only] => Ok(only),
                _ => Err(missing(format!("say which version: {}", versions()))),
            };
        };
        let wanted = version.parse().ok().map(|version| InterfaceId {
            version: Some(version),
            ..first.interface.clone()
        });
        same.iter()
            .find(|rpc| {
                wanted
                    .as_ref()
                    .is_some_and(|wanted| rpc.interface.compatible(wanted))
            })
            .ok_or_else(|| {
                missing(format!(
                    "no compatible version is served; there is {}",
                    versions()
                ))
            })
    }
}

impl Way {
    fn to(app: &str, deployment: &Deployment, function: &FunctionId) -> Self {
        let wire = deployment.plan.event_wire(&function.interface);
        let publication = wire.and_then(|wire| Publication::new(app, wire, &function.name));
        match publication {
            Some(publication) => Self::Publish(Box::new(publication)),
            None => Self::Call(Callee {
                subject: subject::of_function(app, function),
                limit: limit(deployment, &function.interface),
                begins_run: deployment.plan.pipeline_of(function).is_some(),
            }),
        }
    }
}

/// How long the service that answers an interface can take, the way to it and back included. What
/// has not come by then was lost, as with a connection to NATS.
fn limit(deployment: &Deployment, interface: &InterfaceId) -> Option<Duration> {
    let mut serves = deployment.plan.serves.iter();
    let (name, _) = serves.find(|(_, ids)| ids.iter().any(|(id, _)| id.compatible(interface)))?;
    let service = deployment.services.get(name)?;
    Some(service.spec.limits.timeout + MARGIN)
}

/// A path of the gateway's own.
pub(crate) enum Own<'p> {
    Healthz,
    Readyz,
    Rpc(&'p str),
}

/// Recognises the gateway's own paths, which no route can have.
pub(crate) fn own<'p>(method: &Method, path: &'p str) -> Option<Result<Own<'p>, Refusal>> {
    let (own, allowed) = match path {
        HEALTHZ => (Own::Healthz, "GET, HEAD"),
        READYZ => (Own::Readyz, "GET, HEAD"),
        _ => (Own::Rpc(path.strip_prefix(RPC_PREFIX)?), "POST"),
    };
    Some(if allowed.split(", ").any(|name| name == method.as_str()) {
        Ok(own)
    } else {
        Err(not_allowed(allowed))
    })
}

pub(crate) fn not_allowed(allowed: &str) -> Refusal {
    let why = format!("this path takes {allowed}");
    let mut refusal = Refusal::caller(StatusCode::METHOD_NOT_ALLOWED, why);
    refusal.add(ALLOW, allowed);
    refusal
}

/// The one spelling of a path: characters that need no percent-encoding without it, the others
/// with capital digits (RFC 3986, 6.2.2). So `/caf%c3%a9` and `/%63af%C3%A9` are one path.
pub(crate) fn normalized(path: &str) -> Cow<'_, str> {
    if !path.contains('%') {
        return Cow::Borrowed(path);
    }
    let mut pieces = path.split('%');
    let mut out = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let byte = piece
            .get(..2)
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        let (Some(byte), Some(rest)) = (byte, piece.get(2..)) else {
            out.push('%');
            out.push_str(piece);
            continue;
        };
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                out.push(char::from(byte));
            }
            _ => {
                out.push('%');
                out.push_str(&piece.get(..2).unwrap_or_default().to_ascii_uppercase());
            }
        }
        out.push_str(rest);
    }
    Cow::Owned(out)
}
