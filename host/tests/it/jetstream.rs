//! A JetStream that is not there, has no leader, or has no room.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use async_nats::{Client, jetstream};
use wasmbay::host::{Host, HostError, HostOptions};
use wasmbay::nats::ConnectOptions;
use wasmbay::runtime::{Engine, EngineOptions};

use crate::events::{OK, PUBLISH, event, request};
use crate::support::apps::{Services, apply, start};
use crate::support::cli::Cli;
use crate::support::components::{GUEST, PUBLISHES};
use crate::support::nats::Configured;
use crate::support::{DEADLINE, assert_no_message};

const GUESTS: Services<'_> = Services(&[("guest", GUEST, "")], "");

const WIRE: &str = "
    [wire.\"test:events/sink\"]
    mode = \"event\"
    durable = true
    retention = { size = \"1MiB\" }
";

const PUBLISHERS: Services<'_> = Services(&[("publisher", PUBLISHES, "")], WIRE);

async fn connect(server: &Configured) -> Client {
    ConnectOptions::to(server.url()).connect().await.unwrap()
}

async fn host_of(url: &str, services: &Services<'_>, wait: Duration) -> Host {
    let options = HostOptions {
        jetstream_wait: wait,
        ..HostOptions::new(ConnectOptions::to(url))
    };
    let engine = Engine::new(EngineOptions {
        instances: 20,
        cache: None,
    });
    Host::start(&services.app(), engine.unwrap(), options)
        .await
        .unwrap()
}

#[tokio::test]
async fn an_app_that_stores_nothing_asks_nothing_of_a_server_start_core() {
    let server = Configured::start_core("").await;
    let client = connect(&server).await;
    // To such a server it is a subject like any other.
    let mut asked = client.subscribe("$JS.>").await.unwrap();
    client.flush().await.unwrap();
    let host = start(server.url(), &GUESTS).await;
    let count = client.request("bay.app.test.guest.api.v1.count", "".into());
    assert_eq!(&*count.await.unwrap().payload, b"1");
    apply(&host, &GUESTS).await.unwrap();
    assert!(host.stop(DEADLINE).await.is_complete());
    assert_no_message(&client, &mut asked).await;
}

const APP: &str = "name = \"app\"\n[service.guest]\ncomponent = \"guest.wasm\"";

#[tokio::test(flavor = "multi_thread")]
async fn a_start_start_core_warns_of_nothing() {
    let server = Configured::start_core("").await;
    let cli = Cli::new().with(&[("wasmbay.toml", APP), ("guest.wasm", GUEST)]);
    let up = cli.up(&["--no-gateway", "--nats", server.url()]);
    let log = up.stderr();
    let loud: Vec<_> = log
        .lines()
        .filter(|line| !line.contains(" INFO "))
        .collect();
    assert!(loud.is_empty(), "{log}");
    up.stop();
}

#[tokio::test]
async fn an_app_that_stores_events_says_that_there_is_no_jetstream() {
    let server = Configured::start_core("").await;
    let host = host_of(server.url(), &PUBLISHERS, DEADLINE).await;
    let error = apply(&host, &PUBLISHERS).await.unwrap_err();
    assert!(matches!(error, HostError::JetStream { .. }), "{error:?}");
    assert_eq!(
        error.to_string(),
        "app \"app\" stores events, messages or runs, which needs JetStream"
    );
    let why = std::error::Error::source(&error).unwrap().to_string();
    assert!(why.contains("`nats-server -js`"), "{why}");
    assert!(host.stop(DEADLINE).await.is_complete());
}

fn free_ports() -> [u16; 2] {
    let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    listeners.map(|listener| listener.local_addr().unwrap().port())
}

/// One of two servers of a cluster, of which the other may not run.
async fn member(name: &str, own: u16, all: [u16; 2]) -> Configured {
    let routes = all
        .map(|port| format!("\"nats://127.0.0.1:{port}\""))
        .join(", ");
    let lines = format!(
        "server_name: {name}\ncluster {{ name: c, listen: \"127.0.0.1:{own}\", routes: [{routes}] }}"
    );
    Configured::start(&lines).await
}

/// Whether JetStream answers within a second.
async fn answers(client: &Client) -> bool {
    let mut context = jetstream::new(client.clone());
    context.set_timeout(Duration::from_secs(1));
    context.query_account().await.is_ok()
}

#[tokio::test]
async fn a_start_waits_for_the_leader_of_jetstream() {
    let ports = free_ports();
    let first = member("one", ports[0], ports).await;
    let client = connect(&first).await;
    let host = host_of(first.url(), &PUBLISHERS, 3 * DEADLINE).await;
    let applying = apply(&host, &PUBLISHERS);
    let completing = async {
        assert!(!answers(&client).await, "there is a leader already");
        member("two", ports[1], ports).await
    };
    let (applied, second) = tokio::join!(applying, completing);
    applied.unwrap();
    assert_eq!(request(&client, PUBLISH, event(1, 1)).await.payload, OK);
    assert!(host.stop(DEADLINE).await.is_complete());
    drop(second);
}

#[tokio::test]
async fn a_start_without_a_leader_ends_in_time_and_says_what_is_missing() {
    let ports = free_ports();
    let first = member("one", ports[0], ports).await;
    let host = host_of(first.url(), &PUBLISHERS, Duration::from_secs(1)).await;
    let began = Instant::now();
    let error = apply(&host, &PUBLISHERS).await.unwrap_err();
    assert!(began.elapsed() < DEADLINE, "{:?}", began.elapsed());
    let why = std::error::Error::source(&error).unwrap().to_string();
    assert!(
        why.contains("more than half of the servers"),
        "{error}: {why}"
    );
    // What stores nothing does not depend on it.
    let guests = host_of(first.url(), &GUESTS, Duration::ZERO).await;
    apply(&guests, &GUESTS).await.unwrap();
    for host in [host, guests] {
        assert!(host.stop(DEADLINE).await.is_complete());
    }
}
