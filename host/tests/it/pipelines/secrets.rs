//! Values that are stored with a run and never shown.

use super::hosts::Hosts;
use super::*;
use crate::support::cli::Cli;

const SECRET: &str = "o-1-of-hers";

#[tokio::test(flavor = "multi_thread")]
async fn secret_values_are_stored_and_never_shown() {
    let lines = manifest("").replace(
        "deadline = \"30s\"",
        "secret = [\"$.orderId\", \"$reserve.id\"]",
    );
    let order = format!(r#"{{"order-id":"{SECRET}","count":2,"tell":true}}"#);
    let hosts = Hosts::of(("types", TYPES), &lines, &order).await;
    let shop = hosts
        .shop(|name, _| match name {
            "reserve" => Some(Answer::Ok(r#"{"ok":{"id":"shelf-77"}}"#)),
            "charge" => Some(Answer::Ok(r#"{"err":"o-1-of-hers has no money"}"#)),
            "release" => Some(Answer::Ok(r#"{"err":"shelf-77 is empty"}"#)),
            _ => None,
        })
        .await;
    let host = hosts.start();
    hosts.begin().await;
    assert_eq!(hosts.until_ended().await, Phase::UndoFailed);
    // The services got it, and it is stored.
    assert_eq!(shop.calls()[1].body["order"], SECRET);
    let context = jetstream::new(hosts.client.clone());
    let stream = context.get_stream("bay_app_runs").await.unwrap();
    let journal = stream.get_last_raw_message_by_subject("bay-run.app.run.checkout.*");
    let journal = String::from_utf8(journal.await.unwrap().payload.to_vec()).unwrap();
    assert!(journal.contains(SECRET) && journal.contains("shelf-77"));

    let id = all(&hosts.client).await.runs.remove(0).id;
    let cli = Cli::new();
    let url = hosts.nats.url();
    for args in [
        vec!["runs", "ls", "--app", "app", "--nats", url],
        vec!["runs", "show", &id, "--app", "app", "--nats", url],
        vec![
            "runs", "show", &id, "--app", "app", "--nats", url, "--output", "json",
        ],
        vec![
            "runs", "ls", "--all", "--app", "app", "--nats", url, "--output", "json",
        ],
    ] {
        let printed = tokio::task::block_in_place(|| cli.run(&args));
        assert!(printed.contains("***"), "{printed}");
        assert!(
            !printed.contains(SECRET) && !printed.contains("shelf-77"),
            "{printed}"
        );
    }
    let shown = runs(&hosts.client).show(&id).await.unwrap();
    let shown = serde_json::to_value(shown).unwrap();
    assert_eq!(shown["input"]["orderId"], "***");
    assert_eq!(shown["steps"][1]["call"]["arguments"]["order"], "***");
    assert_eq!(shown["steps"][0]["undo"]["arguments"]["reservation"], "***");
    host.until("a run has failed and is not undone");
    let logged = host.stderr();
    assert!(
        !logged.contains(SECRET) && !logged.contains("shelf-77"),
        "{logged}"
    );
}
