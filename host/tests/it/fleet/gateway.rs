//! One gateway for several apps.

use std::net::SocketAddr;

use http::Request;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use serde_json::Value;

use super::{EVERYWHERE, Fleet, echo};
use crate::admin::metrics::samples;
use crate::gateway::auth::Issuer;
use crate::gateway::clients::{Watcher, grpcurl};
use crate::gateway::tls::{ALL, Client, file};
use crate::support::cli::Up;
use crate::support::components::GUEST;
use crate::support::http::{request, send};
use crate::support::{until_ok, until_ok_within};

/// The address of a host's gateway.
pub(super) fn address(host: &Up) -> String {
    address_of(host, "http ")
}

/// An address that a host prints, by its line.
pub(crate) fn address_of(host: &Up, what: &str) -> String {
    let stdout = host.stdout();
    let mut lines = stdout.lines();
    let line = lines.find(|line| line.trim_start().starts_with(what));
    line.unwrap()
        .split("http://")
        .nth(1)
        .unwrap()
        .trim()
        .to_owned()
}

const ROUTE: &str =
    "[[route]]\nmethod = \"GET\"\npath = \"/echo/{text}\"\ncall = \"test:guest/api.echo\"\n";

#[tokio::test]
async fn what_answers_http_itself_runs_where_gateways_are() {
    let app = "name = \"app\"\n[service.echo]\ncomponent = \"echo.wasm\"\nreplicas = 1\n[[route]]\npath = \"/http/*\"\nservice = \"echo\"\n";
    let fleet = Fleet::start(app).await;
    let component = crate::gateway::components::http_echo().await;
    fleet
        .cli
        .write("echo.wasm", std::fs::read(component).unwrap());
    let gateway = ["--gateway", "127.0.0.1:0"];
    let hosts = [
        fleet.host("a", &gateway),
        fleet.host("b", &[]),
        fleet.host("c", &gateway),
    ];
    fleet.run(&["deploy"]).await.done();
    fleet.hosts_of("echo", |hosts| hosts == ["a", "c"]).await;
    for host in [&hosts[0], &hosts[2]] {
        let at = address(host);
        let body = send(&at, "POST", "/http/x", &[], "hello").unwrap().body;
        assert_eq!(body, "hello");
    }
    for host in hosts {
        assert!(host.stop().ends_with("[exit 0]"));
    }
    fleet.stop().await;
}

const WIT: &str = "package test:guest@1.0.0;\ninterface api { /// Says it again.\necho: func(text: string) -> string; }\n";

/// The description of `GET /echo/{text}` in the document of a gateway, once there is that path.
async fn description(at: &str) -> String {
    until_ok("the route is described", async || {
        let document = request(at, "/openapi.json", None).unwrap();
        if document.status != 200 {
            return Err(Value::Null);
        }
        let document = document.json();
        let echo = &document["paths"]["/echo/{text}"]["get"];
        let description = echo["description"].as_str().map(str::to_owned);
        if echo.is_null() {
            Err(document)
        } else {
            Ok(description.unwrap_or_default())
        }
    })
    .await
}

#[tokio::test]
async fn documentation_comments_come_with_what_is_deployed() {
    let fleet = Fleet::start(&format!("{EVERYWHERE}{ROUTE}")).await;
    let gateway = ["--gateway", "127.0.0.1:0"];
    let a = fleet.host("a", &gateway);
    fleet.run(&["deploy"]).await.done();
    assert_eq!(description(&address(&a)).await, "");
    // The component is stored already, so only what is said of it is new, for hosts that read it from now on.
    fleet.cli.write("wit/guest.wit", WIT);
    let more = format!("{EVERYWHERE}{ROUTE}[service.guest.config]\nnew = \"yes\"\n");
    fleet.cli.write("wasmbay.toml", more);
    fleet.run(&["deploy"]).await.done();
    let b = fleet.host("b", &gateway);
    assert_eq!(description(&address(&b)).await, "Says it again.");
    // Who deploys without WIT takes nothing away.
    std::fs::remove_dir_all(fleet.cli.path("wit")).unwrap();
    let more = format!("{EVERYWHERE}{ROUTE}[service.guest.config]\nnew = \"no\"\n");
    fleet.cli.write("wasmbay.toml", more);
    fleet.run(&["deploy"]).await.done();
    let c = fleet.host("c", &gateway);
    assert_eq!(description(&address(&c)).await, "Says it again.");
    for host in [a, b, c] {
        assert!(host.stop().ends_with("[exit 0]"));
    }
    fleet.stop().await;
}

#[tokio::test]
async fn two_apps_share_a_gateway_and_claim_nothing_twice() {
    let fleet = Fleet::start(&format!("{EVERYWHERE}{ROUTE}")).await;
    let a = fleet.host("a", &["--gateway", "127.0.0.1:0"]);
    let at = address(&a);
    let none = request(&at, "/echo/x", None).unwrap();
    assert_eq!(none.status, 404, "{none:?}");
    assert_eq!(request(&at, "/readyz", None).unwrap().status, 200);
    fleet.run(&["deploy"]).await.done();
    let echo = until_ok("the route is there", async || {
        let echo = request(&at, "/echo/x", None).unwrap();
        if echo.status == 200 {
            Ok(echo)
        } else {
            Err(echo)
        }
    })
    .await;
    assert_eq!(echo.body, "\"x\"");

    let second = format!("{EVERYWHERE}{ROUTE}").replace("name = \"app\"", "name = \"second\"");
    fleet.cli.write("wasmbay.toml", &second);
    let refused = fleet.run(&["deploy"]).await.failed();
    let stderr = &refused.stderr;
    assert!(
        stderr.contains("GET /echo/{text} is claimed by app \"app\" already"),
        "{stderr}"
    );
    assert!(
        stderr.contains("POST /rpc/test:guest/api/… is claimed by app \"app\" already"),
        "{stderr}"
    );
    let named = format!("{second}[gateway]\nhosts = [\"second.example\"]\nbody = \"1KiB\"\n");
    fleet.cli.write("wasmbay.toml", &named);
    fleet.run(&["deploy"]).await.done();
    let host = [("Host", "second.example:80")];
    let get = |path: &str| send(&at, "GET", path, &host, "").unwrap();
    until_ok("the second app answers to its name", async || {
        match get("/echo/y") {
            echo if echo.body == "\"y\"" => Ok(()),
            other => Err(other),
        }
    })
    .await;
    assert_eq!(request(&at, "/echo/z", None).unwrap().body, "\"z\"");
    // Each has its own limits.
    let body = format!("[\"{}\"]", "x".repeat(2_000));
    let json = ("Content-Type", "application/json");
    let rpc = "/rpc/test:guest/api/echo";
    let large = send(&at, "POST", rpc, &[host[0], json], &body).unwrap();
    assert_eq!(large.status, 413, "{large:?}");
    assert_eq!(request(&at, rpc, Some(&body)).unwrap().status, 200);
    assert_eq!(get("/readyz").status, 200);

    // A host with a gateway and without the service reaches it over NATS.
    fleet.run(&["undeploy", "second"]).await.done();
    assert_eq!(
        get("/echo/y").body,
        "\"y\"",
        "what names no host answers to the rest"
    );
    fleet.cli.write(
        "wasmbay.toml",
        format!("{EVERYWHERE}require = {{ zone = \"b\" }}\n{ROUTE}"),
    );
    let b = fleet.host("b", &["--label", "zone=b"]);
    fleet.run(&["deploy"]).await.done();
    fleet.hosts_of("guest", |hosts| hosts == ["b"]).await;
    until_ok_within(
        crate::support::PATIENCE,
        "calls go to the other host",
        async || {
            let echo = request(&at, "/echo/far", None).unwrap();
            if echo.body == "\"far\"" {
                Ok(())
            } else {
                Err(echo)
            }
        },
    )
    .await;
    for host in [a, b] {
        assert!(host.stop().ends_with("[exit 0]"));
    }
    fleet.stop().await;
}

#[tokio::test]
async fn the_admin_address_serves_what_an_app_s_does_for_each_app() {
    let fleet = Fleet::start(EVERYWHERE).await;
    let host = fleet.host("a", &["--admin", "127.0.0.1:0"]);
    let at = address_of(&host, "admin ");
    fleet.run(&["deploy"]).await.done();
    let bank = EVERYWHERE
        .replace("\"app\"", "\"bank\"")
        .replace("[service.guest]", "[gateway]\nrpc = false\n[service.vault]");
    let bank = Fleet::on(fleet.url.clone(), &bank);
    bank.run(&["deploy"]).await.done();
    echo(&fleet.connect().await).await.unwrap();
    let get = |path: &str| request(&at, path, None).unwrap();
    for path in [
        "/apps/app/dead-letters",
        "/apps/bank/metrics",
        "/apps/bank/readyz",
        "/apps/bank/healthz",
    ] {
        assert_eq!(get(path).status, 200, "{path}: {:?}", get(path));
    }
    assert_eq!(get("/apps/bank/").json()["app"], "bank");
    for (path, status, why) in [
        (
            "/apps/shop/metrics",
            404,
            "no app of this name runs on this host",
        ),
        ("/apps/app/dead-letters/none", 404, "none"),
        (
            "/apps/app/dead-letters?servce=a",
            400,
            "unknown parameter `servce`",
        ),
        ("/apps/app?x=1", 400, "unknown parameter `x`"),
        ("/apps/app/nothing", 404, "`/` lists the routes"),
    ] {
        let answer = get(path);
        assert_eq!(answer.status, status, "{path}: {answer:?}");
        assert!(answer.body.contains(why), "{path}: {answer:?}");
    }
    let post = request(&at, "/apps/app/metrics", Some("{}")).unwrap();
    assert_eq!(post.status, 405);
    let other = [("Host", "evil.example")];
    let rebound = send(&at, "GET", "/apps/app/dead-letters", &other, "");
    assert_eq!(rebound.unwrap().status, 403);
    let page = samples(&get("/metrics").body);
    let called = "{app=\"app\",service=\"guest\",rpc_method=\"test:guest/api.echo@1.0.0\"}";
    for (name, value) in [
        (
            format!("rpc_server_call_duration_seconds_count{called}"),
            1.0,
        ),
        (
            "wasmbay_calls_limit{app=\"bank\",service=\"vault\"}".to_owned(),
            64.0,
        ),
        ("wasmbay_store_healthy{app=\"bank\"}".to_owned(), 1.0),
    ] {
        assert_eq!(page.get(&name), Some(&value), "{name}: {page:#?}");
    }
    let routes = get("/").json()["routes"].clone();
    let routes = routes.as_array().unwrap();
    assert!(routes.contains(&"POST /apps/{app}/dead-letters/{id}/replay".into()));
    fleet.run(&["undeploy", "bank"]).await.done();
    until_ok("the app is gone from here", async || {
        match get("/apps/bank/metrics") {
            gone if gone.status == 404 => Ok(()),
            other => Err(other),
        }
    })
    .await;
    assert!(host.stop().ends_with("[exit 0]"));
    fleet.stop().await;
}

#[tokio::test]
async fn the_admin_address_shows_what_the_verbs_show() {
    let fleet = Fleet::start(EVERYWHERE).await;
    let host = fleet.host("a", &["--admin", "127.0.0.1:0"]);
    let at = address_of(&host, "admin ");
    fleet.run(&["deploy", "--message", "first"]).await.done();
    let get = |path: &str| request(&at, path, None).unwrap();
    let healthy = get("/healthz");
    assert_eq!(healthy.status, 200);
    for header in ["cache-control: no-store", "x-content-type-options: nosniff"] {
        assert!(healthy.head.contains(header), "{healthy:?}");
    }
    until_ok("the host is ready", async || match get("/readyz") {
        ready if ready.status == 200 => Ok(()),
        other => Err(other),
    })
    .await;
    let printed = fleet.run(&["hosts", "--output", "json"]).await.json();
    assert_eq!(get("/hosts").json(), printed);
    let printed = fleet
        .run(&["history", "app", "--output", "json"])
        .await
        .json();
    assert_eq!(get("/apps/app/history").json(), printed);
    assert_eq!(get("/apps/app").json(), fleet.ps().await);
    assert_eq!(get("/apps").json()["apps"][0], fleet.ps().await);
    assert_eq!(get("/").json()["host"], "a");
    for path in [
        "/apps/none",
        "/apps/none/history",
        "/apps/%2e/history",
        "/nothing",
        "/apps/app/x",
    ] {
        assert_eq!(get(path).status, 404, "{path}");
    }
    assert_eq!(request(&at, "/apps", Some("{}")).unwrap().status, 405);
    let other = [("Host", "evil.example")];
    assert_eq!(send(&at, "GET", "/apps", &other, "").unwrap().status, 403);
    assert!(host.stop().ends_with("[exit 0]"));
    fleet.stop().await;
}

/// As [`GUEST`], of another name.
fn vault() -> Vec<u8> {
    wat::parse_str(GUEST.replace("test:guest", "test:vault")).unwrap()
}

#[tokio::test]
async fn apps_that_ask_who_calls_and_that_do_not_share_a_gateway_with_tls() {
    let issuer = Issuer::start().await;
    let fleet = Fleet::start(&format!("{EVERYWHERE}{ROUTE}[gateway]\nrpc = true\n")).await;
    let closed = EVERYWHERE
        .replace("\"app\"", "\"bank\"")
        .replace("service.guest", "service.vault");
    let closed = format!(
        "{closed}[gateway]\nrpc = true\n[gateway.auth]\ndefault = \"jwt\"\nscopes = [\"vault\"]\n\
         [gateway.auth.jwt]\nissuer = \"https://id.example\"\naudience = [\"shop\"]\njwks = \"http://{}/jwks.json\"\n",
        issuer.address
    );
    let bank = Fleet::on(fleet.url.clone(), &closed);
    bank.cli.write("guest.wasm", vault());
    let [certificate, key, ca] =
        ["server.pem", "server.key", "ca.pem"].map(|name| file(name).display().to_string());
    let host = fleet.host(
        "a",
        &[
            "--gateway",
            "127.0.0.1:0",
            "--gateway-certificate",
            &certificate,
            "--gateway-key",
            &key,
        ],
    );
    let stdout = host.stdout();
    let at = stdout.split("https://").nth(1).unwrap();
    let at = at.split_whitespace().next().unwrap().to_owned();
    let address: SocketAddr = at.parse().unwrap();
    let curl = async |more: &[&str]| grpcurl(&[&["-cacert", &ca], more].concat()).await;
    let health = async |service: &str, wanted: &str| {
        let asked = format!("{{\"service\":\"{service}\"}}");
        until_ok("the gateway's health is that", async || {
            let (_, said) = curl(&["-d", &asked, &at, "grpc.health.v1.Health/Check"]).await;
            said.contains(wanted).then_some(()).ok_or(said)
        })
        .await;
    };
    // Before there is any app: the host is ready, unless it is drained.
    health("", "\"SERVING\"").await;
    fleet.run(&["drain", "a"]).await.done();
    health("", "\"NOT_SERVING\"").await;
    fleet.run(&["uncordon", "a"]).await.done();
    health("", "\"SERVING\"").await;
    health("test.vault.v1.Api", "NotFound").await;
    let mut watcher = Watcher::start(address, "test.vault.v1.Api");
    // It is not there yet.
    assert_eq!(watcher.next().await.as_deref(), Some("3"));
    fleet.run(&["deploy"]).await.done();
    bank.run(&["deploy"]).await.done();
    health("test.guest.v1.Api", "\"SERVING\"").await;
    health("test.vault.v1.Api", "\"SERVING\"").await;
    let came = watcher.until("1").await;
    assert!(came.iter().all(|state| state == "2"), "{came:?}");

    // By gRPC: the one is open, the other asks, and reflection shows to each what it may call.
    let bearer = |token: &str| format!("authorization: Bearer {token}");
    let token = issuer.token("vault");
    let (_, open) = curl(&[&at, "list"]).await;
    assert!(
        open.contains("test.guest.v1.Api") && !open.contains("test.vault"),
        "{open}"
    );
    let protos = bank.cli.path("all.binpb").display().to_string();
    let known = bearer(&token);
    let out = ["-H", &known, "-protoset-out", &protos, &at, "describe"];
    let (_, all) = curl(&out).await;
    assert!(
        all.contains("test.guest.v1.Api") && all.contains("test.vault.v1.Api"),
        "{all}"
    );
    let echo = "\"value\": \"x\"";
    let client = Client::new(None, ALL);
    for (api, token, part, status) in [
        ("guest", None, echo, 200),
        ("vault", None, "Unauthenticated", 401),
        ("vault", Some("x".to_owned()), "Unauthenticated", 401),
        ("vault", Some(issuer.token("a")), "PermissionDenied", 403),
        ("vault", Some(token), echo, 200),
    ] {
        let header = token.as_deref().map(bearer);
        let mut options = vec!["-protoset", &*protos];
        options.extend(header.iter().flat_map(|header| ["-H", &**header]));
        let method = format!("test.{api}.v1.Api/Echo");
        options.extend(["-d", "{\"text\":\"x\"}", &at, &method]);
        let (_, said) = curl(&options).await;
        assert!(said.contains(part), "{api}: {said}");
        // And at the RPC path.
        let request = Request::post(format!("/rpc/test:{api}/api/echo"))
            .header(CONTENT_TYPE, "application/json");
        let request = match token {
            Some(token) => request.header(AUTHORIZATION, format!("Bearer {token}")),
            None => request,
        };
        let (found, body) = client.send(address, request, "[\"x\"]").await;
        assert_eq!(found, status, "{api}: {body}");
    }
    let route = client.send(address, Request::get("/echo/y"), "").await;
    assert_eq!(route, (200, "\"y\"".to_owned()));
    // Who does not trust the certificate does not call, and who does not speak TLS is told.
    let (ran, said) = grpcurl(&["-connect-timeout", "2", &at, "list"]).await;
    assert!(!ran && said.contains("certificate"), "{said}");
    let plain = request(&at, "/echo/y", None).unwrap();
    assert_eq!(plain.status, 400, "{plain:?}");
    assert!(host.stop().ends_with("[exit 0]"));
    watcher.until("UNAVAILABLE").await;
    fleet.stop().await;
}
