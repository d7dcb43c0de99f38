//! A server that is killed while runs are under way.

use super::balance::{Books, assert_balance, desk_and_counter, keep_books, patient, place_orders};
use super::functions::DESK;
use super::*;
use crate::support::cli::Cli;
use crate::support::nats::Configured;

#[tokio::test(flavor = "multi_thread")]
async fn the_books_balance_when_the_server_is_killed() {
    let mut nats = Configured::start("").await;
    let lines = patient(&desk_and_counter());
    let text = format!("name = \"app\"\n[service.desk]\ncomponent = \"desk.wat\"\n{lines}");
    let cli = Cli::new().with(&[("wasmbay.toml", &text), ("desk.wat", DESK)]);
    let books = Arc::new(Mutex::new(Books::default()));
    let connect = async |url: &str| async_nats::connect(url).await.unwrap();
    keep_books(connect(nats.url()).await, Arc::clone(&books)).await;
    let _host = cli.up(&["--no-gateway", "--nats", nats.url()]);
    let client = connect(nats.url()).await;
    let orders = place_orders(&client, 100, Duration::ZERO);
    for paid in [10, 60] {
        until("some orders are paid", || {
            books.lock().unwrap().paid() >= paid
        })
        .await;
        nats.crash().await;
    }
    assert_balance(&client, orders, &books).await;
}
