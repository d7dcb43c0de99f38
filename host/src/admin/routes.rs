//! What the admin address serves: one table of method, path and handler.

use futures_util::future::BoxFuture;
use http::{Method, StatusCode};
use tokio::time::Instant;

use super::query::Query;
use super::{Admin, Answer, Refusal};
use crate::gateway::connection::Received;
use crate::gateway::route::not_allowed;

/// One row of the table.
pub(super) struct Route {
    method: &'static str,
    /// Segments, of which `{id}` is any that no other path has there.
    path: &'static str,
    pub(super) handler: Handler,
}

type Handler = for<'a> fn(&'a Admin, AdminRequest<'a>) -> BoxFuture<'a, Result<Answer, Refusal>>;

/// What a handler gets of a request.
pub(super) struct AdminRequest<'a> {
    pub(super) request: &'a mut Received,
    pub(super) query: &'a Query<'a>,
    /// The segment of the path that is `{id}`; empty without one.
    pub(super) id: &'a str,
    pub(super) started: Instant,
}

/// Writes the rows of the table.
macro_rules! routes {
    ($($method:ident $path:literal => $handler:ident,)*) => {
        [$(Route {
            method: stringify!($method),
            path: $path,
            handler: |server, asked| Box::pin(server.$handler(asked)),
        }),*]
    };
}

/// What is served, in the order in which `/` lists it. A GET answers HEAD as well.
static ROUTES: [Route; 25] = routes![
    GET "/dead-letters" => list,
    DELETE "/dead-letters" => purge_many,
    POST "/dead-letters/replay" => replay_many,
    GET "/dead-letters/{id}" => show,
    PUT "/dead-letters/{id}" => edit,
    DELETE "/dead-letters/{id}" => purge,
    POST "/dead-letters/{id}/replay" => replay,
    GET "/runs" => list_runs,
    GET "/runs/{id}" => show_run,
    PUT "/runs/{id}" => edit_run,
    POST "/runs/{id}/cancel" => cancel_run,
    POST "/runs/{id}/retry" => retry_run,
    POST "/runs/{id}/undo" => undo_run,
    GET "/jobs" => list_jobs,
    GET "/jobs/{id}" => show_job,
    POST "/jobs/{id}/run" => run_job,
    GET "/services" => list_services,
    GET "/services/{id}" => show_service,
    GET "/traces" => list_traces,
    GET "/traces/{id}" => show_trace,
    GET "/logs" => list_logs,
    GET "/healthz" => healthz,
    GET "/readyz" => readyz,
    GET "/metrics" => metrics,
    GET "/" => index,
];

/// Why a request is refused that no route is for.
pub(crate) const NOTHING: &str = "there is nothing at this path; `/` lists the routes";

/// The method and path of every route.
pub(crate) fn all() -> impl Iterator<Item = (&'static str, &'static str)> {
    ROUTES.iter().map(|route| (route.method, route.path))
}

/// The route of a request, and the segment that is its `{id}`.
pub(super) fn find<'p>(
    method: &Method,
    path: &'p str,
) -> Result<(&'static Route, &'p str), Refusal> {
    let literal = ROUTES.iter().any(|route| route.path == path);
    let here = ROUTES.iter().filter_map(|route| {
        let id = if literal {
            (route.path == path).then_some("")
        } else {
            route.id(path)
        };
        Some((route, id?))
    });
    let mut allowed = Vec::new();
    for (route, id) in here {
        if route.answers(method) {
            return Ok((route, id));
        }
        allowed.push(route.method);
        if route.method == "GET" {
            allowed.push("HEAD");
        }
    }
    if allowed.is_empty() {
        return Err(Refusal::caller(StatusCode::NOT_FOUND, NOTHING));
    }
    Err(not_allowed(&allowed.join(", ")))
}

impl Route {
    fn answers(&self, method: &Method) -> bool {
        self.method == method.as_str() || self.method == "GET" && *method == Method::HEAD
    }

    /// The segment of a path of this route that is its `{id}`.
    fn id<'p>(&self, path: &'p str) -> Option<&'p str> {
        let (before, after) = self.path.split_once("{id}")?;
        let id = path.strip_prefix(before)?.strip_suffix(after)?;
        (!id.is_empty() && !id.contains('/')).then_some(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The path of the route that is found and the id, or the refusal.
    fn found(method: &str, path: &str) -> String {
        match find(&method.parse().unwrap(), path) {
            Ok((route, id)) => format!("{} {} {id}", route.method, route.path),
            Err(refusal) => {
                let mut headers = refusal.headers.into_iter();
                let allow = headers.find(|(name, _)| name == http::header::ALLOW);
                let allow = allow.map(|(_, value)| value.to_str().unwrap().to_owned());
                let allow = allow.unwrap_or_default();
                format!("{} {allow}", refusal.status.as_u16())
            }
        }
    }

    #[test]
    fn every_row_is_found_by_its_method_and_path() {
        for Route { method, path, .. } in &ROUTES {
            let (asked, id) = if path.contains("{id}") {
                (path.replace("{id}", "a%2Fb"), "a%2Fb")
            } else {
                ((*path).to_owned(), "")
            };
            assert_eq!(found(method, &asked), format!("{method} {path} {id}"));
            if *method == "GET" {
                assert_eq!(found("HEAD", &asked), format!("GET {path} {id}"));
            }
        }
    }

    #[test]
    fn no_row_is_found_by_another() {
        for (method, path, expected) in [
            ("POST", "/", "405 GET, HEAD"),
            ("DELETE", "/readyz", "405 GET, HEAD"),
            ("POST", "/dead-letters", "405 GET, HEAD, DELETE"),
            // `replay` is no id.
            ("GET", "/dead-letters/replay", "405 POST"),
            ("DELETE", "/dead-letters/replay", "405 POST"),
            ("POST", "/dead-letters/1", "405 GET, HEAD, PUT, DELETE"),
            ("GET", "/dead-letters/1/replay", "405 POST"),
            ("get", "/healthz", "405 GET, HEAD"),
            ("GET", "/dead-letters/", "404 "),
            ("GET", "/dead-letters/1/2", "404 "),
            ("POST", "/dead-letters//replay", "404 "),
            ("GET", "/dead-letters/1/", "404 "),
            ("GET", "/dead-letters/{id}/x", "404 "),
            ("GET", "/healthz/", "404 "),
            ("GET", "", "404 "),
            ("OPTIONS", "*", "404 "),
        ] {
            assert_eq!(found(method, path), expected, "{method} {path}");
        }
    }
}
