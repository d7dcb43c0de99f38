//! Hosts that die, leave and come, while calls flow.

use std::time::Duration;

use rustix::process::Signal;

use super::{EVERYWHERE, Fleet, Load, ONCE, echo, kill, until_answered};
use crate::support::cli::Up;

/// The hosts `a`, `b` and `c`.
fn three(fleet: &Fleet) -> Vec<(String, Up)> {
    let hosts = ["a", "b", "c"].into_iter();
    hosts
        .map(|name| (name.to_owned(), fleet.host(name, &[])))
        .collect()
}

fn take(hosts: &mut Vec<(String, Up)>, name: &str) -> Up {
    let at = hosts.iter().position(|(host, _)| host == name).unwrap();
    hosts.remove(at).1
}

#[tokio::test]
async fn what_a_killed_host_ran_runs_elsewhere_within_five_seconds() {
    let fleet = Fleet::start(ONCE).await;
    let mut hosts = three(&fleet);
    fleet.run(&["deploy"]).await.done();
    let client = fleet.connect().await;
    echo(&client).await.unwrap();
    let on = fleet.hosts_of("guest", |hosts| hosts.len() == 1).await;
    kill(&take(&mut hosts, &on[0]));
    let took = until_answered(&client).await;
    assert!(took < Duration::from_secs(5), "{took:?}");
    fleet
        .hosts_of("guest", |hosts| hosts.len() == 1 && hosts != on)
        .await;
    for (_, host) in hosts {
        assert!(host.stop().ends_with("[exit 0]"));
    }
    fleet.stop().await;
}

#[tokio::test]
async fn calls_go_on_while_one_of_two_replicas_dies() {
    let fleet = Fleet::start(&ONCE.replace("= 1", "= 2")).await;
    let mut hosts = three(&fleet);
    fleet.run(&["deploy"]).await.done();
    let client = fleet.connect().await;
    let on = fleet.hosts_of("guest", |hosts| hosts.len() == 2).await;
    let dying = take(&mut hosts, &on[0]);
    kill(&dying);
    drop(dying);
    // What was under way there is lost; NATS sends whatever comes now to the other one.
    until_answered(&client).await;
    let load = Load::begin(client.clone());
    let other = on[0].clone();
    fleet
        .hosts_of("guest", |hosts| hosts.len() == 2 && !hosts.contains(&other))
        .await;
    let (calls, errors) = load.end().await;
    assert!(calls > 100 && errors.is_empty(), "{calls}: {errors:?}");
    fleet.stop().await;
}

#[tokio::test]
async fn a_host_that_leaves_hands_over_without_a_lost_call() {
    let fleet = Fleet::start(ONCE).await;
    let mut hosts = three(&fleet);
    fleet.run(&["deploy"]).await.done();
    let client = fleet.connect().await;
    let on = fleet.hosts_of("guest", |hosts| hosts.len() == 1).await;
    let load = Load::begin(client.clone());
    let leaving = take(&mut hosts, &on[0]);
    leaving.signal(Signal::TERM);
    let ended = tokio::task::spawn_blocking(move || leaving.end())
        .await
        .unwrap();
    assert!(ended.ends_with("[exit 0]"), "{ended}");
    let (calls, errors) = load.end().await;
    assert!(calls > 10 && errors.is_empty(), "{calls}: {errors:?}");
    // It comes back under its name, and gets its part back, again without a lost call.
    let load = Load::begin(client.clone());
    let back = fleet.host(&on[0], &[]);
    let again = on[0].clone();
    fleet
        .hosts_of("guest", |hosts| hosts == [again.clone()])
        .await;
    let (calls, errors) = load.end().await;
    assert!(calls > 10 && errors.is_empty(), "{calls}: {errors:?}");
    back.stop();
    fleet.stop().await;
}

#[tokio::test]
async fn a_drained_host_hands_over_without_a_lost_call_and_stays() {
    let fleet = Fleet::start(ONCE).await;
    let mut hosts = three(&fleet);
    fleet.run(&["deploy"]).await.done();
    let client = fleet.connect().await;
    let on = fleet.hosts_of("guest", |hosts| hosts.len() == 1).await;
    let name = on[0].as_str();
    let load = Load::begin(client.clone());
    let drained = fleet.run(&["drain", name]).await.done();
    assert!(
        drained.stdout.contains(&format!("{name} runs nothing")),
        "{drained:?}"
    );
    let (calls, errors) = load.end().await;
    assert!(calls > 10 && errors.is_empty(), "{calls}: {errors:?}");
    fleet
        .hosts_of("guest", |hosts| hosts.len() == 1 && hosts != on)
        .await;
    assert_eq!(fleet.state_of(name).await, "drained");
    // It is drained when it is started again, and is asked for nothing.
    assert!(take(&mut hosts, name).stop().ends_with("[exit 0]"));
    hosts.push((name.to_owned(), fleet.host(name, &[])));
    assert_eq!(fleet.state_of(name).await, "drained");
    // Who is left when all others are drained keeps what runs.
    let mut names: Vec<_> = hosts.iter().map(|(name, _)| name.as_str()).collect();
    names.retain(|host| *host != name);
    fleet.run(&["drain", names[0]]).await.done();
    let refused = fleet.run(&["drain", names[1]]).await.failed();
    assert!(
        refused.stderr.contains("app/guest: no host takes services"),
        "{refused:?}"
    );
    assert_eq!(fleet.state_of(names[1]).await, "alive");

    let load = Load::begin(client.clone());
    fleet.run(&["uncordon", name]).await.done();
    fleet.hosts_of("guest", |hosts| hosts == on).await;
    let (calls, errors) = load.end().await;
    assert!(calls > 10 && errors.is_empty(), "{calls}: {errors:?}");
    let unknown = fleet.run(&["drain", "d"]).await.failed();
    assert!(unknown.stderr.contains("there is a, b, c"), "{unknown:?}");
    fleet.run(&["uncordon", "d"]).await.failed();
    drop(hosts);
    fleet.stop().await;
}

#[tokio::test]
async fn a_new_version_replaces_the_old_one_without_a_lost_call() {
    let fleet = Fleet::start(EVERYWHERE).await;
    let hosts = three(&fleet);
    fleet.run(&["deploy"]).await.done();
    let load = Load::begin(fleet.connect().await);
    // The same code with other bytes.
    let text = format!(
        "{}(@custom \"v\" \"2\"))",
        crate::support::components::GUEST
            .trim_end()
            .strip_suffix(')')
            .unwrap()
    );
    fleet.cli.write("guest.wasm", wat::parse_str(text).unwrap());
    let swapped = fleet
        .run(&["deploy", "--output", "json"])
        .await
        .done()
        .json();
    assert!(
        swapped["changes"][0]
            .as_str()
            .unwrap()
            .starts_with("swap guest "),
        "{swapped}"
    );
    let (calls, errors) = load.end().await;
    assert!(calls > 10 && errors.is_empty(), "{calls}: {errors:?}");
    drop(hosts);
    fleet.stop().await;
}

#[tokio::test]
async fn a_host_that_was_paused_does_not_serve_what_is_stale() {
    let fleet = Fleet::start(EVERYWHERE).await;
    let mut hosts = three(&fleet);
    fleet.run(&["deploy"]).await.done();
    let paused = take(&mut hosts, "b");
    paused.signal(Signal::STOP);
    fleet.hosts_of("guest", |hosts| hosts == ["a", "c"]).await;
    fleet.run(&["undeploy", "app"]).await.done();
    paused.signal(Signal::CONT);
    // It learns that it runs what is gone, and stops it.
    fleet
        .hosts_listed_until(|hosts| {
            hosts.len() == 3 && hosts.iter().all(|(_, services)| *services == 0)
        })
        .await;
    let client = fleet.connect().await;
    crate::support::until_ok("nobody answers any more", async || {
        match echo(&client).await {
            Ok(()) => Err("it answers"),
            Err(_) => Ok(()),
        }
    })
    .await;
    fleet.stop().await;
}

impl Fleet {
    /// The state of a host.
    async fn state_of(&self, name: &str) -> String {
        let list = self.run(&["hosts", "--output", "json"]).await.done().json();
        let mut hosts = list["hosts"].as_array().unwrap().iter();
        let host = hosts.find(|host| host["name"] == name).unwrap();
        host["state"].as_str().unwrap().to_owned()
    }

    /// Waits until the list of hosts, with the number of their services, is as wanted.
    async fn hosts_listed_until(&self, wanted: impl Fn(&[(String, u64)]) -> bool) {
        crate::support::until_ok_within(
            crate::support::PATIENCE,
            "the hosts are as wanted",
            async || {
                let list = self.run(&["hosts", "--output", "json"]).await.json();
                let hosts: Vec<_> = list["hosts"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|host| {
                        let name = host["name"].as_str().unwrap().to_owned();
                        (name, host["services"].as_u64().unwrap())
                    })
                    .collect();
                if wanted(&hosts) { Ok(()) } else { Err(list) }
            },
        )
        .await;
    }
}
