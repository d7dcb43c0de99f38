//! Jobs, on hosts that are real processes: when they run, where, and what becomes of them.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_nats::jetstream;
use async_nats::{Client, Message};
use futures_util::StreamExt as _;
use rustix::process::Signal;
use serde_json::Value;
use tokio::sync::mpsc;
use wasmbay::jobs::{Cause, Jobs, Outcome, Run};
use wasmbay::nats::settled;

use crate::support::cli::{Cli, Up};
use crate::support::http;
use crate::support::nats::Nats;
use crate::support::{PATIENCE, until_ok_within};

mod always;
mod changes;
mod ends;
mod guests;
mod operated;
mod refused;

/// Where commands of [`ASKS`] ask.
const ASK: &str = "bay.app.test.other.api.v1.ask";

/// A command that prints, asks somebody outside what to do, and returns well (0), with an error (1), traps (2) or
/// asks again (3). Says `n` of what it was built with.
fn asks(n: u32) -> String {
    format!(
        r#"
(component
  (import "test:other/api@1.0.0" (instance $other
    (export "ask" (func (param "n" u32) (result u32)))))
  (core func $ask-core (canon lower (func $other "ask")))
  (core module $code
    (import "other" "ask" (func $ask (param i32) (result i32)))
    (func (export "run") (result i32)
      (local $answer i32)
      (loop $again
        (local.set $answer (call $ask (i32.const {n})))
        (br_if $again (i32.eq (local.get $answer) (i32.const 3))))
      (if (i32.eq (local.get $answer) (i32.const 2)) (then unreachable))
      (local.get $answer)))
  (core instance $core (instantiate $code
    (with "other" (instance (export "ask" (func $ask-core))))))
  (func $run (result (result)) (canon lift (core func $core "run")))
  (instance $command (export "run" (func $run)))
  (export "wasi:cli/run@0.2.3" (instance $command)))
"#
    )
}

/// A job of [`asks`] with these lines.
fn manifest(lines: &str) -> String {
    format!(
        "name = \"app\"\n[wire.\"test:other/api\"]\nexternal = true\n[job.report]\ncomponent = \"report.wat\"\n{lines}"
    )
}

/// A NATS system, and a folder with an app of one job.
struct App {
    nats: Nats,
    client: Client,
    cli: Cli,
}

impl App {
    async fn new(lines: &str) -> Self {
        let nats = Nats::start().await;
        let client = nats.connect().await;
        let cli = Cli::new().with(&[("wasmbay.toml", &manifest(lines)), ("report.wat", &asks(1))]);
        Self { nats, client, cli }
    }

    /// Starts a process that runs the app.
    fn up(&self) -> Up {
        self.cli.up(&["--no-gateway", "--nats", self.nats.url()])
    }

    /// The same, with an admin address.
    fn up_with(&self, more: &[&str]) -> Up {
        let args = ["--no-gateway", "--nats", self.nats.url()];
        self.cli.up(&[&args, more].concat())
    }

    fn jobs(&self) -> Jobs {
        Jobs::new(jetstream::new(self.client.clone()), "app")
    }

    /// What is asked of the test, to be answered by it.
    async fn asked(&self) -> Asked {
        let mut calls = self.client.subscribe(ASK).await.unwrap();
        settled(&self.client).await.unwrap();
        let (sender, receiver) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Some(message) = calls.next().await {
                if sender.send(message).is_err() {
                    return;
                }
            }
        });
        Asked {
            client: self.client.clone(),
            receiver,
        }
    }

    /// Answers everything that is asked with this; returns what was asked so far.
    async fn answering(&self, answer: u32) -> Arc<Mutex<Vec<String>>> {
        let mut asked = self.asked().await;
        let log = Arc::<Mutex<Vec<String>>>::default();
        let kept = Arc::clone(&log);
        tokio::spawn(async move {
            while let Some(message) = asked.receiver.recv().await {
                let body = String::from_utf8_lossy(&message.payload).into_owned();
                kept.lock().unwrap().push(body);
                asked.answer(message, answer).await;
            }
        });
        log
    }

    /// The runs of the job, the first one first, once `wanted` holds of them.
    async fn runs(&self, what: &str, wanted: impl Fn(&[Run]) -> bool) -> Vec<Run> {
        let jobs = self.jobs();
        until_ok_within(PATIENCE, what, async || {
            let mut runs = jobs.history("report").await.map_err(|e| e.to_string())?;
            runs.reverse();
            match wanted(&runs) {
                true => Ok(runs),
                false => Err(format!("{runs:#?}")),
            }
        })
        .await
    }

    /// The first run, once it has ended.
    async fn first(&self) -> Run {
        let ended = |runs: &[Run]| runs.first().is_some_and(|run| run.ended.is_some());
        self.runs("the run has ended", ended).await.remove(0)
    }

    async fn request(&self) -> String {
        let jobs = self.jobs();
        until_ok_within(PATIENCE, "the job is known", async || {
            jobs.run("report").await
        })
        .await
    }
}

/// Calls that the test answers.
struct Asked {
    client: Client,
    receiver: mpsc::UnboundedReceiver<Message>,
}

impl Asked {
    async fn next(&mut self) -> Message {
        let next = tokio::time::timeout(PATIENCE, self.receiver.recv()).await;
        next.unwrap().unwrap()
    }

    async fn answer(&self, message: Message, answer: u32) {
        let reply = message.reply.unwrap();
        let answer = answer.to_string().into();
        self.client.publish(reply, answer).await.unwrap();
    }
}

fn outcomes(run: &Run) -> Vec<Outcome> {
    let ended = run.attempts.iter().filter_map(|attempt| attempt.outcome);
    ended.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_time_is_run_once_in_all_hosts() {
    let app = App::new("every = \"1s\"").await;
    let asked = app.answering(0).await;
    let _hosts = [app.up(), app.up(), app.up()];
    let many = |runs: &[Run]| runs.iter().filter(|run| run.ended.is_some()).count() >= 6;
    let runs = app.runs("six times have come", many).await;
    let asked = asked.lock().unwrap().len();
    let done: Vec<_> = runs.iter().filter(|run| run.ended.is_some()).collect();
    // What was begun since they were listed was asked, too.
    assert!(
        (done.len()..=done.len() + 2).contains(&asked),
        "{asked}: {runs:#?}"
    );
    for run in &done {
        assert_eq!(outcomes(run), [Outcome::Succeeded], "{run:#?}");
        assert_eq!((run.cause, run.due % 1_000), (Cause::Schedule, 0));
    }
    let times: BTreeSet<_> = runs.iter().map(|run| run.due).collect();
    assert_eq!(times.len(), runs.len(), "{runs:#?}");
    // None is left out, but for those that a slow machine could not come to, which are counted.
    let mut passed = runs.iter().skip(1).map(|run| 1 + u64::from(run.missed));
    let (first, last) = (runs[0].due, runs[runs.len() - 1].due);
    assert_eq!(
        (last - first) / 1_000,
        passed.by_ref().sum::<u64>(),
        "{runs:#?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn another_host_runs_again_what_a_killed_one_had_begun() {
    let app = App::new("at = \"request\"\nretry = { attempts = 1 }").await;
    let mut asked = app.asked().await;
    let first = app.up();
    let id = app.request().await;
    drop(asked.next().await);
    let _second = app.up();
    first.signal(Signal::KILL);
    let again = asked.next().await;
    asked.answer(again, 0).await;
    let run = app.first().await;
    assert_eq!(run.id, id);
    // An attempt whose host was lost does not count.
    assert_eq!(outcomes(&run), [Outcome::Lost, Outcome::Succeeded]);
    assert_ne!(run.attempts[0].host, run.attempts[1].host);
    assert_eq!(
        (run.outcome, run.tried, run.lost),
        (Some(Outcome::Succeeded), 1, 1)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_was_paused_does_not_end_what_another_one_took_over() {
    let app = App::new("at = \"request\"").await;
    let mut asked = app.asked().await;
    let first = app.up();
    app.request().await;
    let held = asked.next().await;
    let _second = app.up();
    first.signal(Signal::STOP);
    let again = asked.next().await;
    asked.answer(again, 0).await;
    let run = app.first().await;
    asked.answer(held, 1).await;
    first.signal(Signal::CONT);
    first.until("another host goes on with a run");
    assert_eq!(app.first().await, run);
    assert_eq!(run.outcome, Some(Outcome::Succeeded));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_due_while_a_run_is_under_way_is_skipped_and_recorded() {
    let app = App::new("every = \"1s\"").await;
    let mut asked = app.asked().await;
    let _hosts = [app.up(), app.up()];
    let held = asked.next().await;
    let skipped = |run: &&Run| run.outcome == Some(Outcome::Skipped);
    let some = |runs: &[Run]| runs.iter().filter(skipped).count() >= 2;
    let runs = app.runs("two times are skipped", some).await;
    let under_way = runs.iter().find(|run| run.ended.is_none()).unwrap();
    let why = runs.iter().find(skipped).unwrap().attempts[0].why.clone();
    assert_eq!(why, Some(format!("run {} was under way", under_way.id)));
    // Nothing else was begun.
    assert!(asked.receiver.try_recv().is_err());
    asked.answer(held, 0).await;
    let next = asked.next().await;
    asked.answer(next, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn times_that_were_missed_while_no_host_was_there_are_run_once() {
    let app = App::new("every = \"1s\"").await;
    let asked = app.answering(0).await;
    let host = app.up();
    app.first().await;
    assert!(host.stop().contains("exit"));
    let before = asked.lock().unwrap().len();
    let runs = app.runs("it has run", |_| true).await;
    let last = runs.last().unwrap().due;
    // Times go by.
    until_ok_within(PATIENCE, "three times have gone by", async || {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let gone = now.unwrap().as_millis() > u128::from(last) + 4_200;
        gone.then_some(()).ok_or("they have not")
    })
    .await;
    assert_eq!(asked.lock().unwrap().len(), before);
    let _host = app.up();
    let later = |runs: &[Run]| runs.last().is_some_and(|run| run.due > last);
    let runs = app.runs("one of them is run", later).await;
    let late = runs.iter().find(|run| run.due > last).unwrap();
    assert!(late.missed >= 3, "{late:#?}");
    assert_eq!((late.due - last) / 1_000, u64::from(late.missed) + 1);
}
