//! The manifest's routes: each by itself, then all of them against each other.

use std::collections::{BTreeMap, HashSet};

use serde::Serialize;
use toml::de::{DeTable, DeValue};

use super::auth::{self, Auth, AuthSpec};
use super::file::{At, Section, integer};
use super::keys::{METHODS, STATUSES, app, route};
use super::rate::{self, RateSpec};
use super::services::check_service;
use crate::interface::{FunctionId, is_label};
use crate::text::shown;

/// One entry of the gateway's table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Route {
    /// The method; none means every method, which is so exactly for [`Target::Http`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// The path as it was typed; see [`Route::patterns`].
    pub path: String,
    /// What answers.
    #[serde(flatten)]
    pub target: Target,
    /// How a client has to say who it is; none is as by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth: Option<Auth>,
    /// What the client's token or key has to allow.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub scopes: Vec<String>,
    /// How many requests a client may make here; none is as at the gateway.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<RateSpec>,
}

/// What answers a route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Target {
    /// A function, called with what the request holds.
    Function {
        /// The function; its version may be absent.
        #[serde(rename = "call")]
        function: FunctionId,
        /// Parameters that come from the query string although the method has a body.
        query: Vec<String>,
        /// The status of a result, when it is not the usual one.
        #[serde(skip_serializing_if = "Option::is_none")]
        status: Option<u16>,
        /// The status of each error case; `*` stands for those not named.
        errors: BTreeMap<String, u16>,
    },
    /// Events, which the client follows.
    Events {
        /// The kind of event; its version may be absent.
        #[serde(rename = "events")]
        function: FunctionId,
        /// By parameter of the path, what has to be equal to it: a parameter of the event and fields.
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        filter: BTreeMap<String, String>,
    },
    /// A component that exports `wasi:http/incoming-handler` or `wasi:http/handler`, below a prefix.
    Http {
        /// The service.
        service: String,
    },
}

/// First segments of the gateway's own paths.
const RESERVED: [&str; 3] = ["rpc", "healthz", "readyz"];

const PATH_FORM: &str =
    "accepted: `/` and visible ASCII without `?`, `#` and `//`, other characters percent-encoded";

impl Route {
    /// Whether it says itself what it asks of clients.
    #[must_use]
    pub const fn asks_itself(&self) -> bool {
        self.auth.is_some() || !self.scopes.is_empty()
    }

    /// The patterns for a [`matchit::Router`] that the route stands for, the same that were
    /// checked for conflicts: the path itself, or what a prefix covers.
    #[must_use]
    pub fn patterns(&self) -> Vec<String> {
        match (&self.target, self.path.strip_suffix("/*")) {
            (Target::Http { .. }, Some("")) => vec!["/".to_owned(), "/{*rest}".to_owned()],
            (Target::Http { .. }, Some(prefix)) => {
                vec![
                    prefix.to_owned(),
                    format!("{prefix}/"),
                    format!("{prefix}/{{*rest}}"),
                ]
            }
            _ => vec![self.path.clone()],
        }
    }

    /// The names of the path's parameters in order: `sku` of `/products/{sku}`.
    #[must_use]
    pub fn path_params(&self) -> Vec<&str> {
        path_params(&self.path)
    }

    /// `GET /products/{sku}`, as messages and logs name the route.
    #[must_use]
    pub fn label(&self) -> String {
        match &self.method {
            Some(method) => format!("{method} {}", self.path),
            None => self.path.clone(),
        }
    }
}

pub(super) fn read(top: &Section<'_>, declared: &[&str], spec: Option<&AuthSpec>) -> Vec<Route> {
    let mut router = Routers::default();
    let mut routes = Vec::new();
    for section in top.each(&app::ROUTE, prefix, &route::TABLE) {
        let Some((route, at)) = read_route(&section, declared, spec) else {
            continue;
        };
        match router.insert(&route, section.line(at)) {
            Ok(()) => routes.push(route),
            Err(why) => section.report(at, why),
        }
    }
    routes
}

/// How messages name a route: by what was typed, right or wrong.
fn prefix(table: &DeTable<'_>) -> String {
    let typed = |key: &str| table.get(key).and_then(|value| value.get_ref().as_str());
    match (typed(route::METHOD.name), typed(route::PATH.name)) {
        (Some(method), Some(path)) => format!("route \"{} {}\": ", shown(method), shown(path)),
        (None, Some(path)) => format!("route \"{}\": ", shown(path)),
        _ => "route: ".to_owned(),
    }
}

/// Reads one route; also gives the place of its path.
fn read_route(
    section: &Section<'_>,
    declared: &[&str],
    spec: Option<&AuthSpec>,
) -> Option<(Route, usize)> {
    let (auth, scopes) = auth::read_of_route(section, spec);
    let rate = rate::read(section, &route::RATE);
    let method = section.one_of(&route::METHOD);
    section.require(&route::PATH);
    let path = section.text(&route::PATH);
    let call = section.text(&route::CALL);
    let service = section.text(&route::SERVICE);
    let events = section.text(&route::EVENTS);
    if !section.has(route::EVENTS.name) {
        section.report_key(route::FILTER.name, "`filter` goes with `events`");
    }
    let target = match (
        section.has(route::CALL.name),
        section.has(route::SERVICE.name),
        section.has(route::EVENTS.name),
    ) {
        (true, false, false) => {
            section.require(&route::METHOD);
            read_call(section, call)
        }
        (false, false, true) => {
            section.require(&route::METHOD);
            if let Some(other) = method.filter(|method| method.value != "GET") {
                section.report(other.at, "`events` are followed by GET");
            }
            for key in [route::QUERY.name, route::STATUS.name, route::ERRORS.name] {
                section.report_key(key, format!("`{key}` goes with `call`"));
            }
            read_events(section, events)
        }
        (false, true, false) => {
            let (method, query) = (route::METHOD.name, route::QUERY.name);
            for key in [method, query, route::STATUS.name, route::ERRORS.name] {
                let why =
                    format!("`{key}` goes with `call`; a `service` gets every request as it is");
                section.report_key(key, why);
            }
            service.map(|service| {
                check_service(section, service, declared);
                Target::Http {
                    service: service.value.to_owned(),
                }
            })
        }
        _ => {
            section.report_here("accepted: one of `call = \"namespace:package/interface.function\"`, `events = \"…\"` and `service = \"…\"`");
            None
        }
    };
    let (path, target) = (path?, target?);
    if let Err(why) = check_path(path.value, &target) {
        section.report(path.at, format!("`path`: {why}"));
        return None;
    }
    // Without its method a route would be taken for one of every method, and conflict.
    let complete = method.is_some() || matches!(target, Target::Http { .. });
    let method = method.map(|method| method.value.to_owned());
    complete.then(|| {
        (
            Route {
                method,
                path: path.value.to_owned(),
                target,
                auth,
                scopes,
                rate,
            },
            path.at,
        )
    })
}

fn read_call(section: &Section<'_>, call: Option<At<&str>>) -> Option<Target> {
    let query = section.texts(&route::QUERY);
    let mut seen = HashSet::new();
    for name in &query {
        if !seen.insert(name.value) {
            section.report(
                name.at,
                format!("`query` has `{}` twice", shown(name.value)),
            );
        }
    }
    let mut errors = BTreeMap::new();
    for (case, status) in section.entries(&route::ERRORS, status) {
        if case.value != "*" && !is_label(case.value) {
            let message = format!(
                "`errors`: `{}` is no case of an error; accepted: its name in kebab-case, or `*`",
                shown(case.value)
            );
            section.report(case.at, message);
        }
        errors.insert(case.value.to_owned(), status);
    }
    let status = section.value(&route::STATUS, status);
    let call = call?;
    let function: FunctionId = match call.value.parse() {
        Ok(function) => function,
        Err(error) => {
            section.report(call.at, format!("`call`: {error}"));
            return None;
        }
    };
    let query = query
        .into_iter()
        .map(|name| name.value.to_owned())
        .collect();
    Some(Target::Function {
        function,
        query,
        status: status.map(|status| status.value),
        errors,
    })
}

fn read_events(section: &Section<'_>, events: Option<At<&str>>) -> Option<Target> {
    let mut filter = BTreeMap::new();
    for (name, path) in section.entries(&route::FILTER, DeValue::as_str) {
        if path.is_empty() || !path.split('.').all(is_label) {
            let why = format!(
                "`filter.{}`: `{}` is no path; accepted: names in kebab-case joined by `.`, such as `order.id`",
                shown(name.value),
                shown(path)
            );
            section.report(name.at, why);
        }
        filter.insert(name.value.to_owned(), path.to_owned());
    }
    let events = events?;
    match events.value.parse() {
        Ok(function) => Some(Target::Events { function, filter }),
        Err(error) => {
            section.report(events.at, format!("`events`: {error}"));
            None
        }
    }
}

fn status(value: &DeValue<'_>) -> Option<u16> {
    let status = u16::try_from(integer(value.as_integer()?)?).ok()?;
    STATUSES.contains(&status).then_some(status)
}

fn check_path(path: &str, target: &Target) -> Result<(), String> {
    let visible = path
        .chars()
        .all(|c| c.is_ascii_graphic() && !matches!(c, '?' | '#'));
    if !path.starts_with('/') || path.contains("//") || !visible {
        return Err(PATH_FORM.to_owned());
    }
    let first = path.split('/').nth(1).unwrap_or_default();
    if RESERVED.contains(&first) {
        return Err(format!("`/{first}` is the gateway's own"));
    }
    if let Target::Http { .. } = target {
        return match path.strip_suffix("/*") {
            Some(prefix) if !prefix.contains(['*', '{', '}']) => Ok(()),
            _ => Err(
                "accepted with `service`: a prefix without parameters, such as `/files/*`"
                    .to_owned(),
            ),
        };
    }
    let params = path_params(path);
    let mut seen = HashSet::new();
    if let Some(twice) = params.iter().find(|name| !seen.insert(**name)) {
        return Err(format!("`{{{twice}}}` stands there twice"));
    }
    if path.ends_with("/*") {
        return Err("a prefix goes with `service`; accepted with `call`: `{*rest}` for the rest of the path".to_owned());
    }
    // A router of its own tells a malformed path from one that only conflicts with another.
    matchit::Router::new()
        .insert(path, ())
        .map_err(|error| match error {
            matchit::InsertError::InvalidParamSegment => {
                "a segment has at most one parameter".to_owned()
            }
            matchit::InsertError::InvalidCatchAll => {
                "`{*…}` is accepted at the end only".to_owned()
            }
            _ => "accepted for a parameter: `{name}`, with `{{` and `}}` for braces themselves"
                .to_owned(),
        })
}

/// The names in braces; doubled braces stand for themselves.
fn path_params(path: &str) -> Vec<&str> {
    let mut names = Vec::new();
    let mut rest = path;
    while let Some((_, after)) = rest.split_once('{') {
        rest = match after.strip_prefix('{') {
            Some(literal) => literal,
            None => match after.split_once('}') {
                Some((name, after)) => {
                    names.push(name.strip_prefix('*').unwrap_or(name));
                    after
                }
                None => return names,
            },
        };
    }
    names
}

/// A router for each method, as paths of different methods do not conflict, and the lines of its
/// patterns.
#[derive(Default)]
struct Routers(BTreeMap<&'static str, (matchit::Router<()>, BTreeMap<String, usize>)>);

impl Routers {
    fn insert(&mut self, route: &Route, line: usize) -> Result<(), String> {
        let own = route.method.as_deref();
        for method in METHODS
            .iter()
            .filter(|method| own.is_none_or(|own| own == **method))
        {
            let (router, lines) = self.0.entry(method).or_default();
            for pattern in route.patterns() {
                router.insert(&pattern, ()).map_err(|error| match error {
                    matchit::InsertError::Conflict { with } => {
                        let line = lines.get(&with).map_or_else(String::new, |line| format!(" of line {line}"));
                        format!("`path` answers the same requests as `{with}`{line}; keep one of the two")
                    }
                    other => format!("`path`: {other}"),
                })?;
                lines.insert(pattern, line);
            }
        }
        Ok(())
    }
}
