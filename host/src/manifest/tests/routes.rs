//! Routes, each by itself and against each other.

use super::{parse, problem};

/// The one problem of a route with these lines, without its place and name.
fn route_problem(lines: &str) -> String {
    let problem = problem(&format!("[[route]]\n{lines}"));
    problem
        .split_once("\": ")
        .or(problem.split_once("route: "))
        .unwrap()
        .1
        .to_owned()
}

#[test]
fn routes_are_checked() {
    let call = "call = 'a:b/c.d'";
    let with_path = |path: &str| route_problem(&format!("method = 'GET'\npath = '{path}'\n{call}"));
    let form = "`path`: accepted: `/` and visible ASCII without `?`, `#` and `//`, other characters percent-encoded";
    for path in ["", "a", "/a?b", "/a#b", "/a//b", "/a b", "/é"] {
        assert_eq!(with_path(path), form, "{path}");
    }
    assert_eq!(with_path("/rpc/x"), "`path`: `/rpc` is the gateway's own");
    assert_eq!(
        with_path("/healthz"),
        "`path`: `/healthz` is the gateway's own"
    );
    assert_eq!(with_path("/{a}/{a}"), "`path`: `{a}` stands there twice");
    assert_eq!(
        with_path("/{a}-{b}"),
        "`path`: a segment has at most one parameter"
    );
    assert_eq!(
        with_path("/{*a}/b"),
        "`path`: `{*…}` is accepted at the end only"
    );
    for path in ["/{a", "/a}", "/{}", "/{*}"] {
        assert_eq!(
            with_path(path),
            "`path`: accepted for a parameter: `{name}`, with `{{` and `}}` for braces themselves",
            "{path}"
        );
    }
    assert_eq!(
        with_path("/a/*"),
        "`path`: a prefix goes with `service`; accepted with `call`: `{*rest}` for the rest of the path"
    );
    for path in ["/a", "/{a}/*", "/a*", "/*/*"] {
        assert_eq!(
            route_problem(&format!("path = '{path}'\nservice = 'a'")),
            "`path`: accepted with `service`: a prefix without parameters, such as `/files/*`"
        );
    }
    assert_eq!(
        route_problem(&format!("method = 'GET'\n{call}")),
        "`path` is missing; accepted: `/products/{sku}`, `/files/{*rest}`; with `service` a prefix `/files/*`"
    );
    assert_eq!(
        route_problem(&format!("path = '/a'\n{call}")),
        "`method` is missing; accepted: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"
    );
    assert_eq!(
        route_problem(&format!("method = 'get'\npath = '/a'\n{call}")),
        "`method` is 'get'; accepted: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"
    );
    let either = "accepted: one of `call = \"namespace:package/interface.function\"`, `events = \"…\"` and `service = \"…\"`";
    assert_eq!(route_problem("method = 'GET'\npath = '/a'"), either);
    assert_eq!(
        route_problem(&format!("path = '/a'\nservice = 'a'\n{call}")),
        either
    );
    assert_eq!(
        route_problem("path = '/a/*'\nservice = 'a'\nmethod = 'GET'"),
        "`method` goes with `call`; a `service` gets every request as it is"
    );
    assert_eq!(
        route_problem("path = '/a/*'\nservice = 'aa'"),
        "there is no service `aa`; did you mean `a`? (services: a)"
    );
    let get = format!("method = 'GET'\npath = '/a'\n{call}");
    assert_eq!(
        route_problem(&format!("{get}\nstatus = 99")),
        "`status` is 99; accepted: 200 to 599"
    );
    assert_eq!(
        route_problem(&format!("{get}\nstatus = 600")),
        "`status` is 600; accepted: 200 to 599"
    );
    assert_eq!(
        route_problem(&format!("{get}\nerrors = {{ x = 100 }}")),
        "`errors.x` is 100; accepted: `{ unknown-sku = 404, \"*\" = 422 }`, 200 to 599"
    );
    assert_eq!(
        route_problem(&format!("{get}\nerrors = {{ a_b = 404 }}")),
        "`errors`: `a_b` is no case of an error; accepted: its name in kebab-case, or `*`"
    );
    assert_eq!(
        route_problem(&format!("{get}\nquery = ['a', 'a']")),
        "`query` has `a` twice"
    );
    assert_eq!(
        route_problem("method = 'GET'\npath = '/a'\ncall = 'a:b/c'"),
        "`call`: `a:b/c` is not a function such as `acme:stock/reserve.hold`"
    );
}

#[test]
fn routes_that_answer_the_same_requests_are_refused() {
    let route = |method: &str, path: &str| {
        format!("[[route]]\nmethod = '{method}'\npath = '{path}'\ncall = 'a:b/c.d'\n")
    };
    let prefix = |path: &str| format!("[[route]]\npath = '{path}'\nservice = 'a'\n");
    assert_eq!(
        problem(&(route("GET", "/a/{x}") + &route("GET", "/a/{y}"))),
        "10:8: route \"GET /a/{y}\": `path` answers the same requests as `/a/{x}` of line 6; keep one of the two"
    );
    assert_eq!(
        problem(&(route("GET", "/a") + &route("GET", "/a"))),
        "10:8: route \"GET /a\": `path` answers the same requests as `/a` of line 6; keep one of the two"
    );
    assert_eq!(
        problem(&(prefix("/a/*") + &route("GET", "/a/{x}"))),
        "9:8: route \"GET /a/{x}\": `path` answers the same requests as `/a/{*rest}` of line 5; keep one of the two"
    );
    let app = format!(
        "name = 'a'\n[service.a]\ncomponent = 'a'\n{}{}{}{}{}",
        route("GET", "/a/{x}"),
        route("PUT", "/a/{y}"),
        route("GET", "/a/b"),
        prefix("/c/*"),
        prefix("/*")
    );
    assert_eq!(parse(&app).unwrap().routes.len(), 5);
}

#[test]
fn events_are_followed_by_get() {
    let events =
        |lines: &str| route_problem(&format!("path = '/a/{{id}}'\nevents = 'a:b/c.d'\n{lines}"));
    for (lines, why) in [
        (
            "",
            "`method` is missing; accepted: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS",
        ),
        ("method = 'POST'", "`events` are followed by GET"),
        ("method = 'GET'\nstatus = 200", "`status` goes with `call`"),
        (
            "method = 'GET'\nfilter = { id = 7 }",
            "`filter.id` is 7; accepted: `{ id = \"order.id\" }`: for each parameter of the path a parameter of the event and fields of records below it",
        ),
        (
            "method = 'GET'\nfilter = { id = 'a..b' }",
            "`filter.id`: `a..b` is no path; accepted: names in kebab-case joined by `.`, such as `order.id`",
        ),
    ] {
        assert_eq!(events(lines), why);
    }
    let other =
        route_problem("method = 'GET'\npath = '/a'\ncall = 'a:b/c.d'\nfilter = { id = 'a' }");
    assert_eq!(other, "`filter` goes with `events`");
}
