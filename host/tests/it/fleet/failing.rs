//! What goes wrong, and leaves everything else alone.

use async_nats::jetstream;

use super::{EVERYWHERE, Fleet, crashes, echo};

/// [`EVERYWHERE`], and a service whose component is `other.wasm`.
fn with_other() -> String {
    format!("{EVERYWHERE}[service.other]\ncomponent = \"other.wasm\"\n")
}

#[tokio::test]
async fn a_service_that_crashes_at_start_leaves_others_alone() {
    let fleet = Fleet::start(&with_other()).await;
    fleet.cli.write("other.wasm", crashes());
    let host = fleet.host("a", &[]);
    let failed = fleet.run(&["deploy"]).await.failed();
    assert!(
        failed
            .stderr
            .contains("other on a: service \"other\" does not start"),
        "{failed:?}"
    );
    assert!(
        failed.stderr.contains("`wasmbay rollback app`"),
        "{failed:?}"
    );
    let client = fleet.connect().await;
    echo(&client).await.unwrap();
    let ps = fleet.run(&["ps"]).await.failed();
    assert!(
        ps.stdout.contains("failed") && ps.stdout.contains("1/1"),
        "{ps:?}"
    );
    // The fixed one replaces it.
    fleet.cli.write("other.wasm", super::pays(&["amount"]));
    fleet.run(&["deploy"]).await.done();
    // One that works goes on where the next version does not start.
    fleet.cli.write("other.wasm", crashes());
    let refused = fleet.run(&["deploy", "--force"]).await.failed();
    assert!(refused.stderr.contains("does not start"), "{refused:?}");
    let subject = "bay.app.test.pay.api.v1.charge";
    let reply = client
        .request(subject, "{\"amount\":7}".into())
        .await
        .unwrap();
    assert_eq!(&*reply.payload, b"7");
    host.stop();
    fleet.stop().await;
}

#[tokio::test]
async fn a_corrupted_component_is_refused_until_it_is_deployed_again() {
    let fleet = Fleet::start(&with_other()).await;
    fleet.cli.write("other.wasm", super::pays(&["amount"]));
    // Its store stays.
    fleet.host("a", &[]).stop();
    fleet.run(&["deploy", "--detach"]).await.done();
    let jetstream = jetstream::new(fleet.connect().await);
    let objects = jetstream
        .get_object_store("bay-fleet-components")
        .await
        .unwrap();
    let bytes = super::pays(&["amount"]);
    let digest = wasmbay::manifest::Digest::of(&bytes);
    let others = super::pays(&["amount", "currency"]);
    objects.put(digest.as_str(), &mut &*others).await.unwrap();

    let host = fleet.host("b", &[]);
    fleet.hosts_of("guest", |hosts| hosts == ["b"]).await;
    let ps = crate::support::until_ok("the host has said so", async || {
        let ps = fleet.run(&["ps"]).await;
        if ps.stdout.contains("is corrupted in the store") {
            Ok(ps)
        } else {
            Err(ps)
        }
    })
    .await;
    assert!(
        ps.code == Some(1) && ps.stdout.contains("deploy it again"),
        "{ps:?}"
    );
    let repaired = fleet.run(&["deploy"]).await.done();
    assert!(
        repaired.stdout.contains("stored 1 component again"),
        "{repaired:?}"
    );
    host.stop();
    fleet.stop().await;
}

#[tokio::test]
async fn a_service_that_no_host_can_run_says_why() {
    let fleet = Fleet::start(&format!("{EVERYWHERE}require = {{ zone = \"west\" }}\n")).await;
    let host = fleet.host("a", &[]);
    let failed = fleet.run(&["deploy"]).await.failed();
    assert!(
        failed.stderr.contains("guest: no host has zone=west"),
        "{failed:?}"
    );
    let ps = fleet.run(&["ps"]).await.failed();
    assert!(ps.stdout.contains("unplaced"), "{ps:?}");
    let west = fleet.host("b", &["--label", "zone=west"]);
    fleet.hosts_of("guest", |hosts| hosts == ["b"]).await;
    for host in [host, west] {
        host.stop();
    }
    fleet.stop().await;
}

#[tokio::test]
async fn no_host_takes_more_than_it_has_memory_for() {
    let fleet = Fleet::start(&format!(
        "{}reserve = \"600MiB\"\n[service.other]\ncomponent = \"other.wasm\"\nreplicas = 1\nreserve = \"500MiB\"\n",
        super::ONCE
    ))
    .await;
    fleet.cli.write("other.wasm", super::pays(&["amount"]));
    let small = fleet.host("a", &["--capacity", "1GiB"]);
    let failed = fleet.run(&["deploy"]).await.failed();
    assert!(
        failed.stderr.contains("other: no host has room for the 500MiB that it reserves, the most that one has left is 424MiB"),
        "{failed:?}"
    );
    let ps = fleet.run(&["ps"]).await.failed();
    assert!(
        ps.stdout.contains("unplaced") && ps.stdout.contains("no host has room"),
        "{ps:?}"
    );
    let hosts = fleet.run(&["hosts"]).await.done();
    assert!(hosts.stdout.contains("600MiB/1GiB"), "{hosts:?}");
    let second = fleet.host("b", &["--capacity", "512MiB"]);
    fleet.hosts_of("other", |hosts| hosts == ["b"]).await;
    fleet.hosts_of("guest", |hosts| hosts == ["a"]).await;
    // Neither has room for what the other one runs.
    let refused = fleet.run(&["drain", "b"]).await.failed();
    assert!(
        refused.stderr.contains("app/other: no host has room"),
        "{refused:?}"
    );
    for host in [small, second] {
        host.stop();
    }
    fleet.stop().await;
}

#[tokio::test]
async fn replicas_are_spread_over_zones() {
    let app = super::ONCE.replace("= 1", "= 2");
    let fleet = Fleet::start(&format!("{app}spread = \"zone\"\n")).await;
    let hosts = [("a", "west"), ("b", "west"), ("c", "west"), ("d", "east")];
    let hosts = hosts.map(|(name, zone)| fleet.host(name, &["--label", &format!("zone={zone}")]));
    fleet.run(&["deploy"]).await.done();
    fleet
        .hosts_of("guest", |hosts| {
            hosts.len() == 2 && hosts.contains(&"d".to_owned())
        })
        .await;
    drop(hosts);
    fleet.stop().await;
}

#[tokio::test]
async fn what_a_host_serves_goes_on_while_nats_is_restarted() {
    let fleet = Fleet::start(EVERYWHERE).await;
    let hosts = [fleet.host("a", &[]), fleet.host("b", &[])];
    fleet.run(&["deploy"]).await.done();
    let client = fleet.connect().await;
    let pid = fleet.nats.as_ref().unwrap().server.pid().unwrap();
    let pid = rustix::process::Pid::from_raw(pid.try_into().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    super::until_answered(&client).await;
    fleet.hosts_of("guest", |hosts| hosts == ["a", "b"]).await;
    fleet.run(&["scale", "app/guest", "1"]).await.done();
    for host in hosts {
        host.stop();
    }
    fleet.stop().await;
}

#[tokio::test]
async fn what_a_newer_version_deployed_is_told_and_not_ignored() {
    let fleet = Fleet::start(EVERYWHERE).await;
    let host = fleet.host("a", &[]);
    fleet.run(&["deploy"]).await.done();
    let client = fleet.connect().await;
    let jetstream = jetstream::new(client.clone());
    let [apps, reports] = [
        jetstream.get_key_value("bay-fleet-apps").await.unwrap(),
        jetstream.get_key_value("bay-fleet-reports").await.unwrap(),
    ];
    let written = apps.get("app").await.unwrap().unwrap();
    let written: serde_json::Value = serde_json::from_slice(&written).unwrap();
    let mut newer = written.clone();
    newer["number"] = 2.into();
    newer["wasmbay"] = "9.9.9".into();
    newer["specification"]["app"]["service"]["guest"]["shiny"] = true.into();
    let bytes = serde_json::to_vec(&newer).unwrap();
    apps.put("app", bytes.into()).await.unwrap();
    let why = "wasmbay 9.9.9 wrote it, and this is wasmbay ";
    // The host says so to those who can read it, and goes on with what it runs.
    let report = crate::support::until_ok("the host has said so", async || {
        let report = reports.get("a.app").await.unwrap().unwrap();
        let report: serde_json::Value = serde_json::from_slice(&report).unwrap();
        match report["error"].as_str() {
            Some(error) if error.contains(why) && error.contains("`shiny`") => Ok(report),
            _ => Err(report),
        }
    })
    .await;
    assert_eq!(report["revision"], 2);
    assert_eq!(report["services"]["guest"]["state"], "serving");
    echo(&client).await.unwrap();
    // A verb that cannot read it says that too, and overwrites nothing.
    let ps = fleet.run(&["ps"]).await.failed();
    assert!(ps.stdout.contains(&format!("app \"app\": {why}")), "{ps:?}");
    let refused = fleet.run(&["deploy"]).await.failed();
    assert!(refused.stderr.contains(why), "{refused:?}");
    let mut readable = written;
    readable["number"] = 3.into();
    let bytes = serde_json::to_vec(&readable).unwrap();
    apps.put("app", bytes.into()).await.unwrap();
    crate::support::until_ok("it serves again", async || {
        let ps = fleet.run(&["ps"]).await;
        if ps.code == Some(0) { Ok(()) } else { Err(ps) }
    })
    .await;
    host.stop();
    fleet.stop().await;
}
