//! A server that is killed while runs are under way.

use super::killed::{Books, assert_balance, insist, keep_books};
use super::*;
use crate::support::cli::Cli;
use crate::support::nats::Configured;

#[tokio::test(flavor = "multi_thread")]
async fn the_books_balance_when_the_server_is_killed() {
    const ORDERS: usize = 100;
    let mut nats = Configured::start("").await;
    let text = format!(
        "name = \"app\"\n[service.types]\ncomponent = \"types.wat\"\n{}",
        manifest("")
    );
    // What was asked for when the server died has no answer: the step is tried again after this.
    let step = "[[pipeline.checkout.step]]\n";
    assert!(text.contains(step));
    let text = text.replace(step, &format!("{step}timeout = \"1s\"\n"));
    let text = text.replace("undo = { ", "undo = { timeout = \"1s\", ");
    // However long it takes until the server is back.
    let text = text.replace("attempts = 2,", "attempts = 50,");
    let text = text.replace("attempts = 3,", "attempts = 50,");
    let cli = Cli::new().with(&[("wasmbay.toml", &text), ("types.wat", TYPES)]);
    let books = Arc::new(Mutex::new(Books::default()));
    let connect = async |url: &str| async_nats::connect(url).await.unwrap();
    keep_books(connect(nats.url()).await, Arc::clone(&books)).await;
    let _host = cli.up(&["--no-gateway", "--nats", nats.url()]);
    let client = connect(nats.url()).await;
    let orders = (0..ORDERS).map(|number| tokio::spawn(insist(client.clone(), number)));
    let orders: Vec<_> = orders.collect();
    for charged in [10, 60] {
        until("some orders are paid", || {
            books.lock().unwrap().charged.len() >= charged
        })
        .await;
        nats.crash().await;
    }
    assert_balance(&client, orders, &books).await;
}
