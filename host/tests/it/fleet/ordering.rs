//! Changes of what the fleet runs, asked of a host's admin address.

use std::collections::BTreeSet;

use serde_json::Value;

use super::gateway::address_of;
use super::{EVERYWHERE, Fleet, echo};
use crate::support::components::GUEST;
use crate::support::http::{Response, request, send};
use crate::support::{PATIENCE, until_ok_within};

/// A form with these parts.
fn form(parts: &[(&str, &str)]) -> String {
    let parts = parts.iter().map(|(name, text)| {
        format!("--b\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{text}\r\n")
    });
    parts.collect::<String>() + "--b--\r\n"
}

const FORM: (&str, &str) = ("Content-Type", "multipart/form-data; boundary=b");
const WASM: (&str, &str) = ("Content-Type", "application/wasm");

fn deploy(at: &str, query: &str, parts: &[(&str, &str)]) -> Response {
    let path = format!("/apps/app/deploy{query}");
    send(at, "POST", &path, &[FORM], &form(parts)).unwrap()
}

fn post(at: &str, path: &str) -> Response {
    send(at, "POST", path, &[], "").unwrap()
}

#[track_caller]
fn written(answer: &Response, revision: u64) -> Value {
    assert_eq!(answer.status, 202, "{answer:?}");
    let body = answer.json();
    assert_eq!(body["revision"], revision, "{body}");
    body
}

#[track_caller]
fn refused(answer: &Response, status: u16, why: &str) {
    assert_eq!(answer.status, status, "{answer:?}");
    let body = answer.json();
    let message = body["error"]["message"].as_str().unwrap();
    assert!(message.contains(why), "{why}: {message}");
}

/// Waits until this revision serves.
async fn until_served(at: &str, revision: u64) {
    until_ok_within(PATIENCE, "the revision serves", async || {
        let app = request(at, "/apps/app", None).unwrap().json();
        let is_served = app["revision"] == revision && app["serves"] == true;
        is_served.then_some(()).ok_or(app)
    })
    .await;
}

#[tokio::test]
async fn an_app_is_deployed_changed_and_undeployed_over_http() {
    let fleet = Fleet::start(EVERYWHERE).await;
    let host = fleet.host("a", &["--admin", "127.0.0.1:0"]);
    let at = address_of(&host, "admin ");
    let both = [("manifest", EVERYWHERE), ("guest", GUEST)];
    let foretold = deploy(&at, "?dry-run=true", &both);
    assert_eq!(foretold.status, 200, "{foretold:?}");
    let foretold = foretold.json();
    assert_eq!(foretold["revision"], 1, "{foretold}");
    assert!(
        foretold["changes"][0]
            .as_str()
            .unwrap()
            .starts_with("start guest")
    );
    assert_eq!(request(&at, "/apps/app", None).unwrap().status, 404);

    written(&deploy(&at, "?message=over%20HTTP", &both), 1);
    until_served(&at, 1).await;
    echo(&fleet.connect().await).await.unwrap();
    let again = deploy(&at, "", &both);
    assert_eq!((again.status, &again.json()["revision"]), (200, &1.into()));

    // A service without a component keeps the one that is deployed.
    let limited = format!("{EVERYWHERE}limits = {{ memory = \"32MiB\" }}\n");
    let limited = written(&deploy(&at, "", &[("manifest", &limited)]), 2);
    assert_eq!(limited["changes"][0], "reconfigure guest", "{limited}");
    let other = GUEST.replace("i32.const 120", "i32.const 121");
    let one = send(&at, "POST", "/apps/app/deploy/guest", &[WASM], &other).unwrap();
    written(&one, 3);
    until_served(&at, 3).await;
    written(&post(&at, "/apps/app/scale?service=guest&replicas=1"), 4);
    let same = post(&at, "/apps/app/scale?service=guest&replicas=1");
    assert_eq!(same.status, 200, "{same:?}");
    written(&post(&at, "/apps/app/rollback?to=1"), 5);
    until_served(&at, 5).await;

    // What clients call takes something else.
    let other = GUEST.replace("(param \"text\" string)", "(param \"words\" string)");
    let breaks = |force: &str| {
        let path = format!("/apps/app/deploy/guest?{force}");
        send(&at, "POST", &path, &[WASM], &other).unwrap()
    };
    refused(&breaks("at-once=true"), 409, "it breaks what runs");
    let forced = written(&breaks("force=true"), 6);
    assert_eq!(forced["forced"].as_array().unwrap().len(), 1, "{forced}");
    written(&post(&at, "/apps/app/undeploy?message=enough"), 7);
    refused(
        &post(&at, "/apps/app/undeploy"),
        409,
        "was undeployed by admin@a",
    );
    refused(
        &post(&at, "/apps/app/scale?service=guest&replicas=1"),
        409,
        "was undeployed",
    );
    let history = request(&at, "/apps/app/history", None).unwrap().json();
    let revisions = history["revisions"].as_array().unwrap();
    assert_eq!(revisions[0]["author"], "admin@a");
    assert_eq!(revisions[0]["message"], "over HTTP");
    let verbs: Vec<_> = revisions
        .iter()
        .map(|one| one["verb"].as_str().unwrap())
        .collect();
    let expected = [
        "deploy",
        "deploy",
        "deploy",
        "scale guest to 1",
        "rollback to 1",
        "deploy",
        "undeploy",
    ];
    assert_eq!(verbs, expected);
    assert!(host.stop().ends_with("[exit 0]"));
    fleet.stop().await;
}

#[tokio::test]
async fn what_is_no_change_is_refused() {
    let fleet = Fleet::start(EVERYWHERE).await;
    let host = fleet.host("a", &["--admin", "127.0.0.1:0"]);
    let at = address_of(&host, "admin ");
    let manifest = ("manifest", EVERYWHERE);
    let large = "#".repeat((1 << 20) + 1);
    let shop = EVERYWHERE.replace("\"app\"", "\"shop\"");
    for (parts, status, why) in [
        (&[][..], 400, "the first part has to be `manifest`"),
        (
            &[("guest", GUEST)],
            400,
            "the first part has to be `manifest`",
        ),
        (&[("manifest", "name = ")], 400, "wasmbay.toml"),
        (
            &[("manifest", &*shop)],
            400,
            "the manifest is of app \"shop\"",
        ),
        (
            &[("manifest", &*large)],
            413,
            "part \"manifest\" has more than 1048576 bytes",
        ),
        (
            &[manifest],
            400,
            "there is no component for guest, and none is deployed",
        ),
        (
            &[manifest, ("guets", GUEST)],
            400,
            "the manifest has no service \"guets\"; it has guest",
        ),
        (
            &[manifest, ("guest", GUEST), ("guest", GUEST)],
            400,
            "two components for service \"guest\"",
        ),
        (
            &[manifest, ("guest", "(component")],
            400,
            "service \"guest\"",
        ),
    ] {
        refused(&deploy(&at, "", parts), status, why);
    }
    let plain = send(&at, "POST", "/apps/app/deploy", &[], EVERYWHERE).unwrap();
    refused(&plain, 415, "multipart/form-data");
    let both = [manifest, ("guest", GUEST)];
    refused(
        &deploy(&at, "?dryrun=true", &both),
        400,
        "unknown parameter `dryrun`",
    );
    let long = format!("?message={}", "m".repeat(1_025));
    refused(&deploy(&at, &long, &both), 400, "`message`: accepted");
    let one = |path: &str, kind| send(&at, "POST", path, &[kind], GUEST).unwrap();
    refused(&one("/apps/app/deploy/guest", WASM), 404, "no such app");
    written(&deploy(&at, "", &both), 1);
    refused(&one("/apps/app/deploy/other", WASM), 404, "no such service");
    let json = ("Content-Type", "application/json");
    refused(
        &one("/apps/app/deploy/guest", json),
        415,
        "application/wasm",
    );
    for (path, status, why) in [
        ("/apps/app/scale?service=guest", 400, "`replicas=N`"),
        (
            "/apps/app/scale?service=guest&replicas=0",
            400,
            "`replicas`",
        ),
        (
            "/apps/app/scale?service=other&replicas=1",
            404,
            "no such service",
        ),
        ("/apps/app/rollback", 404, "there is no earlier revision"),
        ("/apps/app/rollback?to=9", 404, "revision 9 is not kept"),
        ("/apps/%2e/undeploy", 404, "no such app"),
        ("/hosts/b/drain", 404, "no host of this name is alive"),
        ("/hosts/%3e/uncordon", 404, "no host of this name is alive"),
    ] {
        refused(&post(&at, path), status, why);
    }
    assert_eq!(request(&at, "/apps/app/deploy", None).unwrap().status, 405);
    let body = send(&at, "POST", "/apps/app/undeploy", &[], "body").unwrap();
    assert_eq!(body.status, 413, "{body:?}");
    // A page of another origin changes nothing.
    let evil = [("Origin", "http://evil.example")];
    let evil = send(&at, "POST", "/apps/app/undeploy", &evil, "").unwrap();
    assert_eq!(evil.status, 403, "{evil:?}");
    until_served(&at, 1).await;
    assert!(host.stop().ends_with("[exit 0]"));
    fleet.stop().await;
}

#[tokio::test]
async fn hosts_are_drained_over_http_for_who_has_the_token() {
    let fleet = Fleet::start(EVERYWHERE).await;
    let token = "a-token-of-operators";
    fleet.cli.write("token", token);
    let host = fleet.host(
        "a",
        &["--admin", "127.0.0.1:0", "--admin-token-file", "token"],
    );
    let at = address_of(&host, "admin ");
    fleet.run(&["deploy"]).await.done();
    let bearer = format!("Bearer {token}");
    let allowed = [("Authorization", &*bearer)];
    let ask = |method: &str, path: &str| send(&at, method, path, &allowed, "").unwrap();
    assert_eq!(post(&at, "/hosts/a/drain?force=true").status, 401);
    refused(
        &ask("POST", "/hosts/a/drain"),
        409,
        "app/guest: no host takes services",
    );
    let drained = ask("POST", "/hosts/a/drain?force=true&message=disk");
    assert_eq!(drained.status, 202, "{drained:?}");
    until_ok_within(PATIENCE, "it runs nothing", async || {
        let hosts = ask("GET", "/hosts").json();
        let is_drained = hosts["hosts"][0]["state"] == "drained";
        is_drained.then_some(()).ok_or(hosts)
    })
    .await;
    let back = ask("POST", "/hosts/a/uncordon");
    assert_eq!(
        (back.status, &back.json()["wasDrained"]),
        (202, &true.into())
    );
    fleet.hosts_of("guest", |hosts| hosts == ["a"]).await;
    assert!(host.stop().ends_with("[exit 0]"));
    fleet.stop().await;
}

#[tokio::test]
async fn every_route_of_a_host_is_described() {
    let fleet = Fleet::start(EVERYWHERE).await;
    let host = fleet.host("a", &["--admin", "127.0.0.1:0"]);
    let at = address_of(&host, "admin ");
    let index = request(&at, "/", None).unwrap().json();
    let routes = index["routes"].as_array().unwrap().iter();
    let routes: BTreeSet<_> = routes
        .map(|route| route.as_str().unwrap().to_owned())
        .collect();
    let document = request(&at, "/openapi.json", None).unwrap().json();
    let described = document["paths"].as_object().unwrap().iter();
    let described: BTreeSet<_> = described
        .flat_map(|(path, item)| {
            let methods = item.as_object().unwrap().keys();
            let methods = methods.filter(|method| *method != "parameters");
            methods.map(move |method| format!("{} {path}", method.to_ascii_uppercase()))
        })
        .collect();
    assert_eq!(described, routes);
    let ids: Vec<_> = document["paths"]
        .as_object()
        .unwrap()
        .values()
        .flat_map(|item| item.as_object().unwrap().values())
        .filter_map(|operation| operation["operationId"].as_str())
        .collect();
    assert_eq!(
        ids.iter().collect::<BTreeSet<_>>().len(),
        ids.len(),
        "{ids:?}"
    );
    assert!(host.stop().ends_with("[exit 0]"));
    fleet.stop().await;
}
