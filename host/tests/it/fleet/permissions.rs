//! A fleet whose logins may do what `docs/deploy/nats-permissions.conf` says, and nothing else.

use std::path::Path;
use std::time::{Duration, Instant};

use super::{Fleet, Ran, folder};
use crate::support::cli::Up;
use crate::support::components::{CALLER, GUEST, OTHER, RETURNS_ERROR};
use crate::support::nats::{Configured, program};
use crate::support::{PATIENCE, until_ok_within};

const PERMISSIONS: &str = include_str!("../../../../docs/deploy/nats-permissions.conf");

/// An app with all that needs permissions: calls, stored events, runs, and a service with keys.
const SHOP: &str = r#"
name = "shop"

[service.guest]
component = "guest.wasm"

[service.caller]
component = "caller.wasm"

[service.other]
component = "other.wasm"

[service.sink]
component = "sink.wasm"

[wire."test:caller/api"]
local = "never"

[wire."test:other/api"]
local = "never"

[wire."test:events/sink"]
mode = "event"
durable = true
retry = { attempts = 2, backoff = ["10ms"] }

[pipeline.flow]
implements = "test:flow/api.go"
type = "func(text: string) -> string"
result = "$echo"

[[pipeline.flow.step]]
name = "echo"
call = "test:guest/api.echo"
with = { text = "$.text" }
undo = { call = "test:guest/api.echo", with = { text = "undone" } }
"#;

/// Time within which a refusal has to be said; a time-out of NATS takes five seconds.
const AT_ONCE: Duration = Duration::from_secs(4);

/// A server with these permissions, and the app.
async fn start(permissions: &str) -> (Configured, Fleet) {
    let server = Configured::start(permissions).await;
    let mut fleet = Fleet::on(server.url().to_owned(), SHOP);
    fleet.cli = folder(SHOP);
    for (file, text) in [
        ("guest.wasm", GUEST),
        ("caller.wasm", CALLER),
        ("other.wasm", OTHER),
        ("sink.wasm", RETURNS_ERROR),
    ] {
        fleet.cli.write(file, wat::parse_str(text).unwrap());
    }
    (server, fleet)
}

/// How a user logs in.
fn login(server: &Configured, user: &str) -> [String; 4] {
    [
        "--nats".to_owned(),
        server.url_of(user),
        "--nats-inbox-prefix".to_owned(),
        format!("_INBOX.{user}"),
    ]
}

impl Fleet {
    /// Runs a verb as a user.
    async fn run_as(&self, server: &Configured, user: &str, args: &[&str]) -> Ran {
        let login = login(server, user);
        let login = login.iter().map(String::as_str);
        self.run(&args.iter().copied().chain(login).collect::<Vec<_>>())
            .await
    }

    /// Fails if the verb is not refused at once, with these words.
    async fn refused(&self, server: &Configured, user: &str, args: &[&str], words: &str) {
        let began = Instant::now();
        let ran = self.run_as(server, user, args).await;
        let took = began.elapsed();
        assert_eq!(ran.code, Some(78), "{ran:?}");
        let told = format!("error: the NATS login may not {words}");
        assert!(ran.stderr.contains(&told), "{told}: {ran:?}");
        assert!(took < AT_ONCE, "{took:?}: {ran:?}");
    }

    fn host_as(&self, server: &Configured, user: &str, name: &str) -> Up {
        let login = login(server, user);
        let login: Vec<_> = login.iter().map(String::as_str).collect();
        self.host(name, &login)
    }
}

/// Runs the script that makes logins with JWTs, in the folder of the app.
fn make_logins(fleet: &Fleet, args: &[&str]) {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/deploy/nats-jwt.mjs");
    let made = std::process::Command::new("node")
        .arg(script)
        .args(args)
        .current_dir(fleet.cli.path(""))
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&made.stderr);
    assert!(made.status.success(), "{args:?}: {told}");
}

#[tokio::test]
async fn each_kind_of_login_does_its_work_with_a_jwt() {
    let mut fleet = Fleet::on(String::new(), SHOP);
    for (file, text) in [
        ("guest.wasm", GUEST),
        ("caller.wasm", CALLER),
        ("other.wasm", OTHER),
        ("sink.wasm", RETURNS_ERROR),
    ] {
        fleet.cli.write(file, wat::parse_str(text).unwrap());
    }
    make_logins(&fleet, &["logins"]);
    let config = std::fs::read_to_string(fleet.cli.path("logins/nats-jwt.conf")).unwrap();
    let server = Configured::start(&config).await;
    server.url().clone_into(&mut fleet.url);
    let login = |name: &str, kind: &str| {
        let creds = format!("logins/{name}.creds");
        let inbox = format!("_INBOX.{kind}");
        let login = ["--nats-creds", &creds, "--nats-inbox-prefix", &inbox];
        login.map(str::to_owned)
    };
    let with = |args: &[&str], login: [String; 4]| {
        let args = args.iter().map(|arg| (*arg).to_owned());
        args.chain(login).collect::<Vec<_>>()
    };
    let run = async |args: &[&str], name: &str, kind: &str| {
        let args = with(args, login(name, kind));
        let args: Vec<_> = args.iter().map(String::as_str).collect();
        fleet.run(&args).await
    };
    let args = login("host", "host");
    let args: Vec<_> = args.iter().map(String::as_str).collect();
    let host = fleet.host("a", &args);
    run(&["deploy"], "deployer", "deployer").await.done();
    run(&["ps"], "operator", "operator").await.done();
    run(&["runs", "ls", "--app", "shop"], "operator", "operator")
        .await
        .done();
    let call = ["call", "test:guest/api.echo", "[\"hi\"]", "--app", "shop"];
    let called = run(&call, "client", "client").await.done();
    assert_eq!(called.stdout, "\"hi\"\n");
    for (args, kind, words) in [
        (
            &["undeploy", "shop"][..],
            "operator",
            "publish on $KV.bay-fleet-apps.shop",
        ),
        (
            &["undeploy", "shop"],
            "host",
            "publish on $KV.bay-fleet-apps.shop",
        ),
        (
            &["drain", "a", "--force"],
            "deployer",
            "publish on $KV.bay-fleet-drains.a",
        ),
        (
            &["ps"],
            "client",
            "publish on $JS.API.STREAM.INFO.KV_bay-fleet-apps",
        ),
    ] {
        let began = Instant::now();
        let ran = run(args, kind, kind).await;
        assert_eq!(ran.code, Some(78), "{ran:?}");
        let told = format!("error: the NATS login may not {words}");
        assert!(ran.stderr.contains(&told), "{told}: {ran:?}");
        assert!(began.elapsed() < AT_ONCE, "{ran:?}");
    }
    // One more login of a kind, of which the server was told nothing.
    make_logins(&fleet, &["logins", "deployer", "anna"]);
    run(&["scale", "shop/guest", "1"], "anna", "deployer")
        .await
        .done();
    host.stop();
    fleet.stop().await;
}

#[tokio::test]
async fn a_host_that_may_not_deploy_says_so_over_http() {
    let (server, fleet) = start(PERMISSIONS).await;
    let login = login(&server, "host");
    let login = login.iter().map(String::as_str);
    let admin = ["--admin", "127.0.0.1:0"];
    let host = fleet.host("a", &login.chain(admin).collect::<Vec<_>>());
    fleet.run_as(&server, "deployer", &["deploy"]).await.done();
    let at = super::gateway::address_of(&host, "admin ");
    let began = Instant::now();
    let path = "/apps/shop/scale?service=guest&replicas=3";
    let refused = crate::support::http::send(&at, "POST", path, &[], "").unwrap();
    assert_eq!(refused.status, 403, "{refused:?}");
    let why = "the NATS login may not publish on $KV.bay-fleet-apps.shop";
    assert!(refused.body.contains(why), "{refused:?}");
    assert!(began.elapsed() < AT_ONCE);
    host.stop();
    fleet.stop().await;
}

#[tokio::test]
async fn each_login_can_do_its_work_and_nothing_else() {
    let (server, fleet) = start(PERMISSIONS).await;
    let [a, b] = ["a", "b"].map(|name| fleet.host_as(&server, "host", name));
    let deployer = async |args: &[&str]| fleet.run_as(&server, "deployer", args).await.done();
    let operator = async |args: &[&str]| fleet.run_as(&server, "operator", args).await.done();
    let client = async |args: &[&str]| fleet.run_as(&server, "client", args).await.done();
    deployer(&["deploy"]).await;
    deployer(&["deploy"]).await;
    deployer(&["scale", "shop/guest", "1"]).await;
    deployer(&["scale", "shop/caller", "1"]).await;
    deployer(&["scale", "shop/other", "1"]).await;
    for verb in [&["ps"][..], &["hosts"], &["history", "shop"]] {
        operator(verb).await;
        deployer(verb).await;
    }
    operator(&["drain", "b"]).await;
    operator(&["uncordon", "b"]).await;
    // From service to service, and over NATS in each case.
    let asked = client(&["call", "test:caller/api.ask", "[41]"]).await;
    assert_eq!(asked.stdout.trim(), "42");
    let went = client(&["call", "test:flow/api.go", "[\"hi\"]"]).await;
    assert_eq!(went.stdout.trim(), "\"hi\"");

    let runs = operator(&["runs", "ls", "--all", "--app", "shop", "--output", "json"]).await;
    let run = runs.json()["runs"][0]["id"].as_str().unwrap().to_owned();
    operator(&["runs", "show", &run, "--app", "shop"]).await;
    operator(&["runs", "undo", &run, "--app", "shop"]).await;
    let of_shop = ["--app", "shop", "--output", "json"];
    until_ok_within(PATIENCE, "the run is undone", async || {
        let shown = operator(&[&["runs", "show", &run][..], &of_shop].concat()).await;
        let undone = shown.stdout.contains("rolled-back");
        if undone { Ok(()) } else { Err(shown) }
    })
    .await;

    // It refuses this number, so that the event becomes a dead letter.
    let event = ["--app", "shop", "--output", "json"];
    let options = wasmbay::nats::ConnectOptions {
        inbox_prefix: Some("_INBOX.client".to_owned()),
        ..wasmbay::nats::ConnectOptions::to(server.url_of("client"))
    };
    let publisher = options.connect().await.unwrap();
    let happened = "bay.shop.test.events.sink.v1.happened";
    let published = publisher.request(happened, r#"{"key":1,"n":13}"#.into());
    published.await.unwrap();
    let id = until_ok_within(PATIENCE, "there is a dead letter", async || {
        let listed = operator(&[&["dlq", "ls"][..], &event].concat())
            .await
            .json();
        listed[0]["id"].as_str().map(str::to_owned).ok_or(listed)
    })
    .await;
    let at = ["--app", "shop"];
    operator(&[&["dlq", "show", &id][..], &at].concat()).await;
    operator(&[&["dlq", "edit", &id, r#"{"key":1,"n":12}"#][..], &at].concat()).await;
    operator(&[&["dlq", "replay", &id][..], &at].concat()).await;
    until_ok_within(PATIENCE, "it is handled", async || {
        let listed = operator(&[&["dlq", "ls"][..], &event].concat())
            .await
            .json();
        listed
            .as_array()
            .unwrap()
            .is_empty()
            .then_some(())
            .ok_or(listed)
    })
    .await;

    deployer(&["rollback", "shop", "--to", "1", "--force"]).await;
    let stopped = b.stop();
    assert!(stopped.ends_with("[exit 0]"), "{stopped}");
    deployer(&["undeploy", "shop"]).await;
    let log = a.stderr();
    assert!(!log.contains("may not"), "{log}");
    a.stop();
}

#[tokio::test]
async fn what_a_login_may_not_is_named_at_once() {
    // A deployer of one app, and a host that cannot report.
    let permissions = PERMISSIONS.replace("$KV.bay-fleet-apps.*", "$KV.bay-fleet-apps.other");
    assert_ne!(permissions, PERMISSIONS);
    let (server, fleet) = start(&permissions).await;
    let host = ["host", "--name", "c"];
    let info = "publish on $JS.API.INFO";
    fleet.refused(&server, "client", &host, info).await;
    let a = fleet.host_as(&server, "host", "a");

    let put = "publish on $KV.bay-fleet-apps.shop";
    fleet.refused(&server, "deployer", &["deploy"], put).await;
    // The operator may look, and the client may not.
    let reads = "publish on $JS.API.DIRECT.GET.OBJ_bay-fleet-components";
    let stores = "publish on $O.bay-fleet-components";
    let stored = fleet.run_as(&server, "operator", &["deploy"]).await;
    assert!(
        stored.stderr.contains(reads) || stored.stderr.contains(stores),
        "{stored:?}"
    );
    let opens = "publish on $JS.API.STREAM.INFO.KV_bay-fleet-apps";
    for verb in [
        &["ps"][..],
        &["hosts"],
        &["history", "shop"],
        &["scale", "shop/guest", "1"],
        &["rollback", "shop"],
        &["undeploy", "shop"],
        &["deploy"],
    ] {
        fleet.refused(&server, "client", verb, opens).await;
    }
    let names = "publish on $JS.API.STREAM.NAMES";
    for verb in ["dlq", "runs"] {
        fleet.refused(&server, "client", &[verb, "ls"], names).await;
        let one = [verb, "ls", "--app", "shop"];
        fleet
            .refused(&server, "client", &one, "publish on $JS.API")
            .await;
    }
    let call = ["call", "test:guest/api.echo", "[\"hi\"]"];
    fleet.refused(&server, "host", &["deploy"], put).await;
    let own = fleet
        .run(&[&call[..], &["--nats", &server.url_of("client")]].concat())
        .await;
    assert!(
        own.stderr.contains("may not subscribe to _INBOX."),
        "{own:?}"
    );
    assert!(own.stderr.contains("--nats-inbox-prefix"), "{own:?}");
    a.stop();
}

#[tokio::test]
async fn what_a_host_may_not_is_in_what_it_reports_and_in_what_its_callers_get() {
    // It cannot call, store events, or subscribe to an app's functions.
    let cases = [
        ("\"bay.>\", \"bay-run.>\"", "\"bay-run.>\"", None),
        ("\"$JS.API.STREAM.CREATE.*\", ", "", Some("host")),
        (
            "\"$JS.ACK.>\", \"$JS.FC.>\", \"$KV.>\"",
            "\"$KV.bay-fleet-hosts.>\"",
            Some("host"),
        ),
        (
            "subscribe = [\"bay.>\", ",
            "subscribe = [",
            Some("the NATS login may not subscribe to bay.shop."),
        ),
    ];
    for (granted, less, refused) in cases {
        let permissions = PERMISSIONS.replacen(granted, less, 1);
        assert_ne!(permissions, PERMISSIONS, "{granted}");
        let (server, fleet) = start(&permissions).await;
        if refused == Some("host") {
            let began = Instant::now();
            let host = fleet
                .run_as(&server, "host", &["host", "--name", "a"])
                .await;
            assert_eq!(host.code, Some(78), "{host:?}");
            assert!(
                host.stderr
                    .contains("error: the NATS login may not publish on $"),
                "{host:?}"
            );
            assert!(began.elapsed() < AT_ONCE, "{host:?}");
            continue;
        }
        let a = fleet.host_as(&server, "host", "a");
        let deployed = fleet
            .run_as(&server, "deployer", &["deploy", "--timeout", "20s"])
            .await;
        match refused {
            Some(why) => {
                let deployed = deployed.failed();
                assert!(deployed.stderr.contains(why), "{deployed:?}");
                let ps = fleet.run_as(&server, "operator", &["ps"]).await;
                assert!(ps.stdout.contains(why), "{ps:?}");
            }
            None => {
                deployed.done();
                let ask = ["call", "test:caller/api.ask", "[41]"];
                let began = Instant::now();
                let asked = fleet.run_as(&server, "client", &ask).await.failed();
                let why = "the NATS login may not publish on bay.shop.test.other.api.v1.ask";
                assert!(asked.stderr.contains(why), "{asked:?}");
                assert!(began.elapsed() < AT_ONCE, "{asked:?}");
            }
        }
        a.stop();
    }
}

#[tokio::test]
async fn the_configuration_of_the_documentation_is_valid() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/deploy");
    let mut command = std::process::Command::new(program().await);
    command
        .arg("-t")
        .arg("-c")
        .arg(folder.join("nats-server.conf"));
    for user in ["HOST", "DEPLOYER", "OPERATOR", "CLIENT"] {
        let without = command.output().unwrap();
        let told = String::from_utf8_lossy(&without.stderr).into_owned();
        assert!(told.contains(&format!("{user}_PASSWORD")), "{told}");
        command.env(format!("{user}_PASSWORD"), "secret");
    }
    assert!(command.status().unwrap().success());
}
