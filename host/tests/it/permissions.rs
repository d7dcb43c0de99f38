//! A host with a login that may do only what `docs/nats.md` says it needs.

use std::num::NonZeroUsize;

use futures_util::{FutureExt as _, StreamExt as _};
use wasmbay::events::dead_letters::{DeadLetters, Filter};
use wasmbay::host::{Host, HostError, HostOptions};
use wasmbay::jobs::{Jobs, Outcome, Run};
use wasmbay::micro::Answer;
use wasmbay::nats::{ConnectOptions, settled};
use wasmbay::runtime::{Engine, EngineOptions};

use crate::support::apps::{Services, apply, start, start_with};
use crate::support::cli::Cli;
use crate::support::components::{CALLER, COMMAND, GUEST, OTHER};
use crate::support::nats::Configured;
use crate::support::{DEADLINE, until, until_ok};

/// The users `host` with these permissions, and `admin` with all.
fn users(publish: &[String], subscribe: &[String]) -> String {
    format!(
        "authorization {{ users = [
          {{ user: admin, password: admin }}
          {{ user: host, password: host, permissions: {{
            publish: {{ allow: {publish:?} }}
            subscribe: {{ allow: {subscribe:?} }} }} }} ] }}"
    )
}

/// The subjects of a table in `docs/nats.md`, for an app called "app" with a service "guest".
fn documented(heading: &str) -> Vec<String> {
    let text = include_str!("../../../docs/nats.md");
    let (_, section) = text.split_once(heading).unwrap();
    let table = section.lines().skip_while(|line| !line.starts_with("| `"));
    table
        .take_while(|line| line.starts_with('|'))
        .map(|line| line.split('`').nth(1).unwrap())
        .map(|subject| subject.replace("APP", "app").replace("SERVICE", "guest"))
        .collect()
}

async fn host_on(url: String) -> Host {
    let options = HostOptions {
        workers: NonZeroUsize::MIN,
        ..HostOptions::new(ConnectOptions::to(url))
    };
    let engine = Engine::new(EngineOptions {
        instances: 20,
        cache: None,
    });
    Host::start(&SERVICES.app(), engine.unwrap(), options)
        .await
        .unwrap()
}

const SERVICES: Services<'_> = Services(
    &[
        ("guest", GUEST, ""),
        ("caller", CALLER, ""),
        ("other", OTHER, ""),
    ],
    "",
);

#[tokio::test]
async fn the_documented_permissions_are_enough_for_calls() {
    let (publish, subscribe) = (documented("## Publish"), documented("## Subscribe"));
    let server = Configured::start(&users(&publish, &subscribe)).await;
    let host = start(&server.url_of("host"), &SERVICES).await;
    let client = ConnectOptions::to(server.url_of("admin"))
        .connect()
        .await
        .unwrap();
    let ask = client.request("bay.app.test.caller.api.v1.ask", r#"{"n":41}"#.into());
    assert_eq!(&*ask.await.unwrap().payload, b"42");
    let ping = client.request("$SRV.PING.guest", "".into()).await.unwrap();
    assert!(!ping.payload.is_empty());
    assert!(host.stop(DEADLINE).await.is_complete());
}

#[tokio::test]
async fn the_documented_permissions_are_enough_for_durable_events() {
    use crate::support::components::RETURNS_ERROR;
    const WIRE: &str = "
        [wire.\"test:events/sink\"]
        mode = \"event\"
        durable = true
        retry = { attempts = 2, backoff = [\"10ms\"] }
    ";
    let (publish, subscribe) = (documented("## Publish"), documented("## Subscribe"));
    let server = Configured::start(&users(&publish, &subscribe)).await;
    let services = Services(&[("guest", RETURNS_ERROR, "")], WIRE);
    let host = start(&server.url_of("host"), &services).await;
    let admin = ConnectOptions::to(server.url_of("admin"));
    let client = admin.connect().await.unwrap();
    let link = admin.link().await.unwrap();
    // It refuses this number, so that the event is retried and becomes a dead letter.
    let event = client.request(
        "bay.app.test.events.sink.v1.happened",
        r#"{"key":1,"n":13}"#.into(),
    );
    event.await.unwrap();
    let dead_letters = DeadLetters::new(async_nats::jetstream::new(client), link, "app");
    let entry = until_ok("there is one dead letter", async || {
        let page = dead_letters.list(&Filter::default(), None, 10).await;
        <[_; 1]>::try_from(page.unwrap().entries)
    })
    .await;
    assert_eq!(entry[0].dead_letter().unwrap().attempts.len(), 2);
    assert!(host.stop(DEADLINE).await.is_complete());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_documented_permissions_are_enough_for_jobs() {
    const APP: &str = "name = \"app\"\n[job.guest]\ncomponent = \"guest.wat\"\nevery = \"1s\"";
    let (publish, subscribe) = (documented("## Publish"), documented("## Subscribe"));
    let server = Configured::start(&users(&publish, &subscribe)).await;
    let cli = Cli::new().with(&[("wasmbay.toml", APP), ("guest.wat", COMMAND)]);
    let host = cli.up(&["--no-gateway", "--nats", &server.url_of("host")]);
    let admin = ConnectOptions::to(server.url_of("admin"));
    let client = admin.connect().await.unwrap();
    let jobs = Jobs::new(async_nats::jetstream::new(client), "app");
    let is_done = |run: &Run| run.outcome == Some(Outcome::Succeeded);
    until_ok("it has run twice", async || {
        let runs = jobs
            .history("guest")
            .await
            .map_err(|error| error.to_string())?;
        let done = runs.iter().filter(|run| is_done(run)).count();
        if done >= 2 {
            Ok(())
        } else {
            Err(format!("{runs:?}"))
        }
    })
    .await;
    assert!(!host.stderr().contains("may not"), "{}", host.stderr());
}

#[tokio::test]
async fn a_subscription_that_is_refused_fails_the_start_and_names_the_subject() {
    let publish = documented("## Publish");
    let subscribe = ["_INBOX.>", "$SRV.>"].map(str::to_owned);
    let server = Configured::start(&users(&publish, &subscribe)).await;
    let host = host_on(server.url_of("host")).await;
    let error = apply(&host, &SERVICES).await.unwrap_err();
    assert!(matches!(error, HostError::Worker(_)), "{error:?}");
    let error = error.to_string();
    assert!(error.contains("may not subscribe to bay.app."), "{error}");
    host.stop(DEADLINE).await;
}

const APP: &str = "name = \"app\"\n[service.guest]\ncomponent = \"guest.wasm\"";

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_is_refused_is_a_wrong_configuration() {
    let publish = documented("## Publish");
    let subscribe = ["_INBOX.>", "$SRV.>"].map(str::to_owned);
    let server = Configured::start(&users(&publish, &subscribe)).await;
    let cli = Cli::new().with(&[("wasmbay.toml", APP), ("guest.wasm", GUEST)]);
    let url = server.url_of("host");
    let said = cli.run(&["up", "--no-gateway", "--no-watch", "--nats", &url]);
    assert!(said.contains("may not subscribe to bay.app."), "{said}");
    assert!(said.contains("[exit 78]"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn replies_come_below_the_prefix_that_the_login_may_subscribe_to() {
    let own = |subject: String| subject.replace("_INBOX.", "_MINE.");
    let publish: Vec<_> = documented("## Publish").into_iter().map(own).collect();
    let subscribe: Vec<_> = documented("## Subscribe").into_iter().map(own).collect();
    let server = Configured::start(&users(&publish, &subscribe)).await;
    let url = server.url_of("host");
    let options = ConnectOptions {
        inbox_prefix: Some("_MINE".to_owned()),
        ..ConnectOptions::to(url.clone())
    };
    let host = start_with(HostOptions::new(options), &SERVICES).await;
    let cli = Cli::new();
    let call = ["call", "caller/api.ask", "[41]", "--nats", &url];
    let said = cli.run(&[&call[..], &["--nats-inbox-prefix", "_MINE"]].concat());
    assert!(said.contains("[stdout]\n42\n"), "{said}");
    let said = cli.run(&[&call[..], &["--timeout", "1s"]].concat());
    assert!(said.contains("may not subscribe to _INBOX."), "{said}");
    let said = cli.run(&[&call[..], &["--nats-inbox-prefix", "mine.>"]].concat());
    assert!(said.contains("tokens of letters"), "{said}");
    assert!(host.stop(DEADLINE).await.is_complete());
}

/// The services that answer a ping of a client with other inboxes than the host's, where the host may
/// reply as `responses` says. Ends when the host was refused a reply, or all have answered.
async fn answering(responses: &str) -> Vec<String> {
    let own = |subject: String| subject.replace("_INBOX.", "_MINE.");
    let publish: Vec<_> = documented("## Publish").into_iter().map(own).collect();
    let subscribe: Vec<_> = documented("## Subscribe").into_iter().map(own).collect();
    let users = users(&publish, &subscribe).replace(
        "permissions: {",
        &format!("permissions: {{ allow_responses: {responses}, "),
    );
    let server = Configured::start(&users).await;
    let options = ConnectOptions {
        inbox_prefix: Some("_MINE".to_owned()),
        ..ConnectOptions::to(server.url_of("host"))
    };
    let violations = options.violations.clone();
    let host = start_with(HostOptions::new(options), &SERVICES).await;
    let client = ConnectOptions::to(server.url_of("admin"))
        .connect()
        .await
        .unwrap();
    let ask = client.request("bay.app.test.caller.api.v1.ask", r#"{"n":41}"#.into());
    assert_eq!(&*ask.await.unwrap().payload, b"42");
    let inbox = client.new_inbox();
    let mut replies = client.subscribe(inbox.clone()).await.unwrap();
    let ping = client.publish_with_reply("$SRV.PING", inbox, "".into());
    ping.await.unwrap();
    let mut names = Vec::new();
    until_ok("all have answered, or one was refused", async || {
        settled(&client).await.unwrap();
        while let Some(Some(reply)) = replies.next().now_or_never() {
            let answer: Answer = serde_json::from_slice(&reply.payload).unwrap();
            names.push(answer.name);
        }
        let is_refused = violations.of("_INBOX.").is_some();
        (names.len() == 3 || is_refused)
            .then_some(())
            .ok_or(names.clone())
    })
    .await;
    assert!(host.stop(DEADLINE).await.is_complete());
    names.sort();
    names
}

#[tokio::test]
async fn discovery_answers_as_often_as_the_host_may_reply_to_a_message() {
    let all = answering("{ max: 100, expires: \"1m\" }").await;
    assert_eq!(all, ["caller", "guest", "other"]);
    assert_eq!(answering("true").await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_start_core_is_enough_for_calls_and_warns_of_nothing() {
    let subjects: Vec<_> = documented("## Publish")
        .into_iter()
        .filter(|subject| !subject.starts_with("$JS") && !subject.starts_with("$KV"))
        .collect();
    let server = Configured::start(&users(&subjects, &documented("## Subscribe"))).await;
    let cli = Cli::new().with(&[("wasmbay.toml", APP), ("guest.wasm", GUEST)]);
    let url = server.url_of("host");
    let up = cli.up(&["--no-gateway", "--log", "wasmbay=debug", "--nats", &url]);
    up.until("streams cannot be listed");
    let log = up.stderr();
    assert!(!log.contains(" WARN ") && !log.contains(" ERROR "), "{log}");
    up.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_credentials_file_of_the_environment_is_used_where_a_server_is_named() {
    let cli = Cli::new().with(&[("wasmbay.toml", APP), ("guest.wasm", GUEST)]);
    let said = |args: &[&str]| {
        let mut command = cli.command(args);
        let output = command.env("NATS_CREDS", "gone.creds").output().unwrap();
        String::from_utf8(output.stderr).unwrap()
    };
    let with_server = said(&["up", "--no-gateway", "--nats", "nats://127.0.0.1:1"]);
    assert!(with_server.contains("gone.creds"), "{with_server}");
    let without = said(&["check"]);
    assert!(!without.contains("gone.creds"), "{without}");
}

#[tokio::test]
async fn a_permission_that_is_refused_later_is_noted() {
    let publish: Vec<_> = documented("## Publish")
        .into_iter()
        .filter(|subject| !subject.starts_with("bay.app"))
        .collect();
    let server = Configured::start(&users(&publish, &documented("## Subscribe"))).await;
    let options = ConnectOptions::to(server.url_of("host"));
    let violations = options.violations.clone();
    let client = options.connect().await.unwrap();
    client.publish("bay.app.test", "".into()).await.unwrap();
    until("the server refuses", || {
        violations.of("bay.app.test").is_some()
    })
    .await;
}
