//! A fleet on three servers of one cluster, of which any one may go.

use std::net::TcpListener;

use async_nats::jetstream;

use super::{EVERYWHERE, Fleet, until_answered};
use crate::support::nats::Configured;

/// Three servers of one cluster, and the URLs of all.
pub(super) async fn servers() -> (Vec<Configured>, String) {
    // Free when the servers take them.
    let ports = [(); 3]
        .map(|()| TcpListener::bind("127.0.0.1:0").unwrap())
        .map(|listener| listener.local_addr().unwrap().port());
    let routes = ports
        .map(|port| format!("\"nats://127.0.0.1:{port}\""))
        .join(", ");
    let mut servers = Vec::new();
    for (at, port) in ports.iter().enumerate() {
        let cluster = format!(
            "server_name: s{at}\ncluster {{ name: c, listen: \"127.0.0.1:{port}\", routes: [{routes}] }}"
        );
        servers.push(Configured::start(&cluster).await);
    }
    let urls: Vec<_> = servers.iter().map(Configured::url).collect();
    let urls = urls.join(",");
    (servers, urls)
}

#[tokio::test]
async fn a_fleet_outlives_one_of_three_servers() {
    let (mut servers, urls) = servers().await;
    let fleet = Fleet::on(urls, EVERYWHERE);
    let hosts = ["a", "b", "c"].map(|name| fleet.host(name, &["--state-replicas", "3"]));
    fleet.run(&["deploy"]).await.done();
    let client = fleet.connect().await;
    let jetstream = jetstream::new(client.clone());
    for name in [
        "KV_bay-fleet-apps",
        "KV_bay-fleet-hosts",
        "OBJ_bay-fleet-components",
    ] {
        let stream = jetstream.get_stream(name).await.unwrap();
        assert_eq!(stream.cached_info().config.num_replicas, 3, "{name}");
    }
    let leader = jetstream.get_stream("KV_bay-fleet-apps").await.unwrap();
    let leader = leader
        .cached_info()
        .cluster
        .as_ref()
        .unwrap()
        .leader
        .clone()
        .unwrap();
    let at: usize = leader.trim_start_matches('s').parse().unwrap();
    drop(servers.remove(at));
    until_answered(&client).await;
    fleet.hosts_of("guest", |hosts| hosts.len() == 3).await;
    // The servers that are left choose another leader before they take a revision.
    crate::support::until_ok_within(
        crate::support::PATIENCE,
        "a revision is taken",
        async || {
            let scaled = fleet.run(&["scale", "app/guest", "1"]).await;
            if scaled.code == Some(0) {
                Ok(())
            } else {
                Err(scaled)
            }
        },
    )
    .await;
    fleet.hosts_of("guest", |hosts| hosts.len() == 1).await;
    drop(hosts);
    fleet.stop().await;
}
