//! The page of an admin address in browsers: with many services, with runs to be dealt with, and of a fleet.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use tokio::task::spawn_blocking;
use wasmbay::host::{Host, HostOptions};
use wasmbay::nats::ConnectOptions;
use wasmbay::pipelines::Phase;
use wasmbay::spans::Spans;

use crate::fleet::Fleet;
use crate::fleet::gateway::address_of;
use crate::pipelines::{Answer, CHECKOUT, ORDER, PLACE, Shop, TYPES, WIRES, place, runs};
use crate::support::apps::{Bench, Services, start_with};
use crate::support::browser::{BROWSERS, browse, is_painted};
use crate::support::components::{CALLER, OTHER};
use crate::support::nats::Nats;
use crate::support::until_ok;

/// Services, of which each ten call each other in a row.
const MANY: usize = 100;

/// Bytes a second that the page may take while nobody touches it.
const TRAFFIC: f64 = 10_240.0;

/// A host with an admin address, its server and a client of that.
async fn start(services: &Services<'_>) -> (Bench, String) {
    let nats = Nats::start().await;
    let options = HostOptions {
        admin: Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))),
        spans: Spans::default().keep_last(),
        ..HostOptions::new(ConnectOptions::to(nats.url()))
    };
    let host: Host = start_with(options, services).await;
    let url = format!("http://{}", host.admin().unwrap());
    let client = nats.connect().await;
    (Bench { nats, host, client }, url)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_a_hundred_services_is_soon_there_and_takes_little() {
    let names: Vec<_> = (0..MANY).map(|number| format!("s{number:02}")).collect();
    let texts = names.iter().enumerate().map(|(number, name)| {
        let own = format!("test:{name}/api");
        if number % 10 == 9 {
            return OTHER.replace("test:other/api", &own);
        }
        let next = format!("test:s{:02}/api", number + 1);
        CALLER
            .replace("test:other/api", &next)
            .replace("test:caller/api", &own)
    });
    let texts: Vec<_> = texts.collect();
    let services = names.iter().zip(&texts);
    let services: Vec<_> = services
        .map(|(name, text)| (&**name, &**text, ""))
        .collect();
    let (bench, url) = start(&Services(&services, "")).await;
    // Every service has something to show.
    let (client, stop) = (bench.client.clone(), Arc::new(AtomicBool::new(false)));
    let stopped = Arc::clone(&stop);
    let load = tokio::spawn(async move {
        while !stopped.load(Ordering::Relaxed) {
            for first in (0..MANY).step_by(10) {
                let subject = format!("bay.app.test.s{first:02}.api.v1.ask");
                let reply = client.request(subject, "[1]".into()).await.unwrap();
                assert_eq!(&*reply.payload, b"2");
            }
        }
    });
    for browser in BROWSERS {
        let url = url.clone();
        let found = spawn_blocking(move || browse("page.mjs", browser, &url, &["many"]));
        let found = found.await.unwrap();
        is_painted(&found);
        if let Some(traffic) = found["traffic"].as_f64() {
            assert!(traffic < TRAFFIC, "{found}");
        }
    }
    stop.store(true, Ordering::Relaxed);
    load.await.unwrap();
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_are_retried_cancelled_and_undone_on_the_page() {
    let waits = CHECKOUT.replace(
        "attempts = 2, backoff = [\"20ms\"] }\n",
        "attempts = 9, backoff = [\"1h\"] }\n",
    );
    assert_ne!(waits, CHECKOUT);
    let lines = format!("{WIRES}{waits}").replace("deadline = \"30s\"", "deadline = \"1d\"");
    // What is called: a card that is declined with an undo that fails, a bank that is away, and all as usual.
    const DECLINED: u8 = 0;
    const AWAY: u8 = 1;
    const USUAL: u8 = 2;
    let (bench, url) = start(&Services(&[("types", TYPES, "")], &lines)).await;
    let mode = Arc::new(AtomicU8::new(USUAL));
    let decided = Arc::clone(&mode);
    let shop = Shop::open(&bench.client, move |function, _| {
        match (decided.load(Ordering::SeqCst), function) {
            (DECLINED, "charge") => Some(Answer::Ok(r#"{"err":"declined"}"#)),
            (DECLINED, "release") => Some(Answer::Ok(r#"{"err":"no such shelf"}"#)),
            (AWAY, "charge") => Some(Answer::Trap),
            _ => None,
        }
    })
    .await;
    for (number, browser) in (1..).zip(BROWSERS) {
        mode.store(DECLINED, Ordering::SeqCst);
        place(&bench.client, ORDER, &[]).await.unwrap_err();
        mode.store(USUAL, Ordering::SeqCst);
        place(&bench.client, ORDER, &[]).await.unwrap();
        mode.store(AWAY, Ordering::SeqCst);
        let reply = bench.client.new_inbox();
        let sent = bench.client.publish_with_reply(PLACE, reply, ORDER.into());
        sent.await.unwrap();
        until_ok("one waits for its next attempt", async || {
            let page = runs(&bench.client)
                .list(false, None, None, 100)
                .await
                .unwrap();
            let mut waiting = page.runs.iter().filter(|run| run.phase == Phase::Running);
            let run = waiting.next().ok_or("no run")?;
            let shown = runs(&bench.client).show(&run.id).await.unwrap();
            let call = shown.steps[1].call.as_ref();
            call.and_then(|call| call.failure())
                .map(drop)
                .ok_or("no failure")
        })
        .await;
        mode.store(USUAL, Ordering::SeqCst);
        let (url, rows) = (url.clone(), (3 * number).to_string());
        let found = spawn_blocking(move || browse("page.mjs", browser, &url, &["runs", &rows]));
        found.await.unwrap();
        let page = runs(&bench.client)
            .list(true, None, None, 100)
            .await
            .unwrap();
        let phases: Vec<_> = page.runs.iter().map(|run| run.phase).collect();
        assert_eq!(phases, vec![Phase::RolledBack; 3 * number]);
        // Once for each of them when it failed or was cancelled or undone, and those whose undo had failed.
        assert_eq!(shop.count("refund"), 2 * number);
        assert_eq!(shop.count("release"), 5 * number);
    }
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_of_a_fleet_has_all_apps_and_hosts_and_asks_for_a_token() {
    let app = "name = \"app\"\n[service.guest]\ncomponent = \"guest.wasm\"\nreplicas = \"all\"\n";
    let fleet = Fleet::start(app).await;
    let second = "name = \"second\"\n[service.other]\ncomponent = \"other.wasm\"\nreplicas = 1\nrequire = { zone = \"west\" }\n";
    fleet.cli.write("second/wasmbay.toml", second);
    fleet
        .cli
        .write("second/other.wasm", wat::parse_str(OTHER).unwrap());
    let token = "a-token-of-this-test";
    fleet.cli.write("token", token);
    let file = fleet.cli.path("token").display().to_string();
    let hosts = [
        fleet.host("a", &["--admin", "127.0.0.1:0", "--label", "zone=west"]),
        fleet.host("b", &["--admin", "0.0.0.0:0", "--admin-token-file", &file]),
    ];
    fleet.run(&["deploy"]).await.done();
    fleet.hosts_of("guest", |hosts| hosts == ["a", "b"]).await;
    fleet.run(&["deploy", "second"]).await.done();
    let url = format!("http://{}", address_of(&hosts[0], "admin "));
    let guarded = address_of(&hosts[1], "admin ");
    let (_, port) = guarded.rsplit_once(':').unwrap();
    let guarded = format!("http://127.0.0.1:{port}");
    for browser in BROWSERS {
        let (url, guarded) = (url.clone(), guarded.clone());
        let found =
            spawn_blocking(move || browse("page.mjs", browser, &url, &["fleet", &guarded, token]));
        found.await.unwrap();
    }
    for host in hosts {
        assert!(host.stop().ends_with("[exit 0]"));
    }
    fleet.stop().await;
}
