//! A durable function that makes three calls, in each language: its host is killed between two of them, and another
//! one answers the first from the journal.

use rustix::process::Signal;

use super::hosts::TAKEN_OVER;
use super::*;
use crate::examples::{CACHE, guest};
use crate::support::cli::Cli;

const THRICE: &str = "bay.app.bay.bench.thrice.v1.thrice";

/// An app whose function calls what a test answers.
const APP: &str = r#"
name = "app"

[service.thrice]
component = "thrice.wasm"
durable = ["bay:bench/thrice.thrice"]

[wire."bay:bench/echo"]
external = true
"#;

/// Answers each call with a text that says how many came before it; the second one not at all, once.
async fn answer(client: Client) -> (Arc<Mutex<Vec<Called>>>, tokio::sync::mpsc::Receiver<()>) {
    let subject = "bay.app.bay.bench.echo.v1.echo";
    let mut messages = client.subscribe(subject).await.unwrap();
    settled(&client).await.unwrap();
    let (silent, silences) = tokio::sync::mpsc::channel(1);
    let calls: Arc<Mutex<Vec<Called>>> = Arc::default();
    let kept = Arc::clone(&calls);
    tokio::spawn(async move {
        while let Some(message) = messages.next().await {
            let call = called(&message);
            kept.lock().unwrap().push(call.clone());
            let before = call.body["item"]["text"].as_str().unwrap();
            if before == "a b" && !silent.is_closed() && silent.try_send(()).is_ok() {
                continue;
            }
            let text = match before {
                "a" => "a b",
                "a b" => "a b c",
                _ => "a b c d",
            };
            let item = json!({"id": call.body["item"]["id"], "text": text}).to_string();
            let to = message.reply.unwrap();
            client.publish(to, item.into()).await.unwrap();
        }
    });
    (calls, silences)
}

async fn survives(language: &str) {
    let folder = format!("guests/{language}/bench-thrice");
    let component = tokio::task::block_in_place(|| guest(&folder));
    let cli = Cli::new().with(&[("wasmbay.toml", APP)]);
    cli.write("thrice.wasm", component);
    let nats = Nats::start().await;
    let client = nats.connect().await;
    let (calls, mut silences) = answer(nats.connect().await).await;
    let options = ["--no-gateway", "--cache", CACHE, "--nats", nats.url()];
    let start = || tokio::task::block_in_place(|| cli.up(&options));
    let first = start();
    let item = r#"{"item":{"id":7,"text":"a"}}"#;
    client.publish(THRICE, item.into()).await.unwrap();
    let silence = tokio::time::timeout(DEADLINE, silences.recv()).await;
    // The second call was made.
    silence.unwrap().unwrap();
    silences.close();
    first.signal(Signal::KILL);
    drop(first);

    let _second = start();
    let runs = runs(&client);
    let ended = async || {
        let page = runs.list(true, None, None, 10).await.unwrap();
        let run = page.runs.first().ok_or("no run".to_owned())?;
        match run.phase {
            Phase::Completed => Ok(run.id.clone()),
            other => Err(format!("{other:?}: {:?}", run.why)),
        }
    };
    let id = crate::support::until_ok_within(TAKEN_OVER, "the run has ended", ended).await;
    let shown = runs.show(&id).await.unwrap();
    assert_eq!(shown.reply.unwrap().get(), r#"{"id":7,"text":"a b c d"}"#);
    // The first was not called again, and the second with what the first had returned.
    let calls = calls.lock().unwrap().clone();
    let made: Vec<_> = calls
        .iter()
        .map(|call| (&*call.step, &call.body["item"]["text"]))
        .collect();
    let step = |number: usize| format!("{id}.{number}-echo");
    let (one, two, three) = (step(1), step(2), step(3));
    let (a, ab, abc) = (json!("a"), json!("a b"), json!("a b c"));
    let expected = [(&*one, &a), (&*two, &ab), (&*two, &ab), (&*three, &abc)];
    assert_eq!(made, expected, "{language}");
    nats.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_in_rust_survives_its_host() {
    survives("rust").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_in_go_survives_its_host() {
    survives("go").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_in_python_survives_its_host() {
    survives("python").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_in_c_survives_its_host() {
    survives("c").await;
}
