//! The books of an app of a fleet balance whatever is killed: hosts each second, a server of three.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_nats::jetstream;

use super::{Fleet, cluster};
use crate::pipelines::balance::{
    Books, Killing, assert_balance, desk_and_counter, keep_books, patient, place_orders,
};
use crate::pipelines::functions::DESK;
use crate::support::cli::Up;
use crate::support::until;

/// The app: its service on every host, and these further lines.
fn manifest(lines: &str) -> String {
    format!(
        "name = \"app\"\n[service.desk]\ncomponent = \"desk.wasm\"\nreplicas = \"all\"\n{lines}"
    )
}

fn write_desk(fleet: &Fleet) {
    fleet.cli.write("desk.wasm", wat::parse_str(DESK).unwrap());
}

/// Places so many orders at a fleet of three of which a host is killed each second.
async fn balances(orders: usize, pace: Duration, lines: &str) -> String {
    let fleet = Fleet::start(&manifest(lines)).await;
    write_desk(&fleet);
    let client = fleet.connect().await;
    let books = Arc::new(Mutex::new(Books::default()));
    keep_books(fleet.connect().await, Arc::clone(&books)).await;
    let mut number = 0;
    let mut start = || -> Up {
        number += 1;
        fleet.host(&format!("h{number}"), &[])
    };
    // There has to be a fleet to deploy to.
    let first = start();
    fleet.run(&["deploy"]).await.done();
    let began = Instant::now();
    let placed = place_orders(&client, orders, pace);
    let killing = Killing::until_few_are_left(&placed, start).await;
    assert_balance(&client, placed, &books).await;
    let (paid, took) = (books.lock().unwrap().paid(), began.elapsed());
    let kills = killing.kills;
    drop((first, killing));
    fleet.stop().await;
    assert!(kills > 3, "{kills}");
    format!("{orders} runs, {paid} paid and reserved, {kills} hosts killed, {took:.0?}")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_books_of_a_fleet_balance_whatever_is_killed() {
    balances(300, Duration::from_millis(40), &desk_and_counter()).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes; `cargo test --test it -- --ignored --nocapture of_many_orders`"]
async fn the_books_of_many_orders_balance() {
    // What is kept of all runs is more than there is room for otherwise.
    let lines = desk_and_counter().replace("deadline = \"30s\"", "deadline = \"2m\"");
    let lines = lines.replace(
        "journal = \"16KiB\"",
        "journal = \"16KiB\", size = \"1GiB\"",
    );
    let counter = "implements = \"test:shop/counter.place@1.0.0\"\n";
    let lines = lines.replace(counter, &format!("{counter}size = \"1GiB\"\n"));
    let told = balances(10_000, Duration::from_millis(15), &lines).await;
    println!("{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_books_balance_when_one_of_three_servers_is_killed() {
    let (mut servers, urls) = cluster::servers().await;
    // What the app stores, its runs too, has as many copies as the stream with the most.
    let copies = "[stream.any]\nsubjects = [\"test.any\"]\nreplicas = 3\n";
    let lines = format!("{}{copies}", patient(&desk_and_counter()));
    let fleet = Fleet::on(urls, &manifest(&lines));
    write_desk(&fleet);
    let hosts = ["a", "b", "c"].map(|name| fleet.host(name, &["--state-replicas", "3"]));
    fleet.run(&["deploy"]).await.done();
    let client = fleet.connect().await;
    let books = Arc::new(Mutex::new(Books::default()));
    keep_books(fleet.connect().await, Arc::clone(&books)).await;
    let jetstream = jetstream::new(client.clone());
    let stream = jetstream.get_stream("bay_app_runs").await.unwrap();
    let info = stream.cached_info();
    assert_eq!(info.config.num_replicas, 3);
    let leader = info.cluster.as_ref().unwrap().leader.clone().unwrap();
    let leader: usize = leader.trim_start_matches('s').parse().unwrap();
    let orders = place_orders(&client, 100, Duration::from_millis(20));
    until("some orders are paid", || {
        books.lock().unwrap().paid() >= 20
    })
    .await;
    // The one that had the last word on the journals.
    drop(servers.remove(leader));
    assert_balance(&client, orders, &books).await;
    drop(hosts);
    fleet.stop().await;
}
