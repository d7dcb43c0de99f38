//! Hosts on a hub and on its leaf node, each with a JetStream of its own.

use std::net::TcpListener;
use std::path::Path;

use tokio::process::Child;
use wasmbay::host::HostOptions;
use wasmbay::nats::ConnectOptions;

use super::*;
use crate::examples::root;
use crate::support::apps::start_with;

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// A server with this name, which is also its domain, and further lines of its configuration.
fn server(folder: &Path, name: &str, port: u16, lines: &str) -> Child {
    let store = folder.join(name);
    let config = format!(
        "server_name: {name}\nlisten: \"127.0.0.1:{port}\"\n\
         jetstream {{ store_dir: \"{}\", domain: {name} }}\n{lines}\n",
        store.display()
    );
    let path = folder.join(format!("{name}.conf"));
    std::fs::write(&path, config).unwrap();
    let own = root().join(".tools/bin/nats-server");
    let mut server = if own.exists() {
        Command::new(own)
    } else {
        Command::new("nats-server")
    };
    let server = server.arg("-c").arg(&path).stderr(Stdio::null());
    server.kill_on_drop(true).spawn().unwrap_or_else(|error| {
        panic!("{error}; install it by {}", wasmbay::nats::INSTALL);
    })
}

async fn connect(port: u16) -> Client {
    until_ok("the server is there", async || {
        let options = ConnectOptions::to(format!("nats://127.0.0.1:{port}"));
        options.connect().await
    })
    .await
}

#[tokio::test]
async fn hosts_on_hub_and_leaf_that_use_one_domain_store_each_event_once() {
    let folder = tempfile::tempdir().unwrap();
    let [hub, leaf, leafnodes] = [free_port(), free_port(), free_port()];
    let listen = format!("leafnodes {{ listen: \"127.0.0.1:{leafnodes}\" }}");
    let remote =
        format!("leafnodes {{ remotes = [{{ url: \"nats-leaf://127.0.0.1:{leafnodes}\" }}] }}");
    let _hub = server(folder.path(), "hub", hub, &listen);
    let _leaf = server(folder.path(), "leaf", leaf, &remote);
    let (at_hub, at_leaf) = (connect(hub).await, connect(leaf).await);
    let judge = Judge::new(&at_hub, |_, _, _| Verdict::Ok).await;
    // The leaf is connected when it reaches the judge.
    until_ok("the judge is reached", async || {
        let subject = "bay.app.test.judge.verdict.v1.judge-x";
        at_leaf.request(subject, event(0, 999).into()).await
    })
    .await;
    let a = sink("a");
    let lines = durable(QUICK);
    let start = async |port, services: &[(&str, &str, &str)]| {
        let options = ConnectOptions {
            js_domain: Some("hub".to_owned()),
            ..ConnectOptions::to(format!("nats://127.0.0.1:{port}"))
        };
        start_with(HostOptions::new(options), &Services(services, &lines)).await
    };
    let first = start(hub, &[("a", &a, "")]).await;
    let second = start(leaf, &[("a", &a, ""), ("publisher", PUBLISHES, "")]).await;
    for n in 0..20 {
        assert_eq!(request(&at_leaf, PUBLISH, event(1, n)).await.payload, OK);
    }
    until("all were handled", || judge.counts("a").len() == 20).await;
    let in_hub = jetstream::with_domain(at_leaf.clone(), "hub");
    let stored = in_hub.get_stream(STREAM).await.unwrap();
    assert_eq!(stored.cached_info().state.messages, 20);
    let in_leaf = jetstream::with_domain(at_leaf.clone(), "leaf");
    assert!(in_leaf.get_stream(STREAM).await.is_err());
    let counts = judge.counts("a");
    assert!(counts.values().all(|count| *count == 1), "{counts:?}");
    for host in [first, second] {
        assert_eq!(host.stop(DEADLINE).await.given_up, 0);
    }
}
