//! How runs end, and what follows.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_fails_is_tried_as_often_as_was_said_after_the_waits_that_were() {
    let app =
        App::new("at = \"request\"\nretry = { attempts = 3, backoff = [\"100ms\", \"500ms\"] }")
            .await;
    let mut asked = app.asked().await;
    let _host = app.up();
    app.request().await;
    for answer in [1, 2, 1] {
        let question = asked.next().await;
        asked.answer(question, answer).await;
    }
    let run = app.first().await;
    let ends = [Outcome::Failed, Outcome::Trapped, Outcome::Failed];
    assert_eq!(
        (&*outcomes(&run), run.outcome),
        (&ends[..], Some(Outcome::Failed))
    );
    assert_eq!((run.tried, run.cause), (3, Cause::Request));
    let waits = run.attempts.windows(2);
    let waits: Vec<_> = waits
        .map(|two| two[1].began - two[0].ended.unwrap())
        .collect();
    assert!(
        (100..).contains(&waits[0]) && (500..).contains(&waits[1]),
        "{waits:?}"
    );
    let why = run.attempts[1].why.as_deref().unwrap();
    assert!(why.contains("unreachable"), "{why}");
    assert_eq!(
        run.attempts[2].why.as_deref(),
        Some("`run` returned an error")
    );
    // Nothing is left of it that would be run.
    let listed = app.jobs().list().await.unwrap();
    assert!(listed[0].running.is_empty(), "{listed:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_takes_too_long_is_stopped() {
    let app =
        App::new("at = \"request\"\nretry = { attempts = 1 }\nlimits = { timeout = \"300ms\" }")
            .await;
    let mut asked = app.asked().await;
    let _host = app.up();
    app.request().await;
    let _never_answered = asked.next().await;
    let run = app.first().await;
    assert_eq!(outcomes(&run), [Outcome::TimedOut], "{run:#?}");
    let took = run.attempts[0].ended.unwrap() - run.attempts[0].began;
    // What it calls has ended a little before.
    assert!((270..5_000).contains(&took), "{took}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_stops_lets_a_run_end_in_time_or_hands_it_to_another() {
    let app = App::new("at = \"request\"\nretry = { attempts = 1 }").await;
    let mut asked = app.asked().await;
    let patient = app.up_with(&["--grace", "30s"]);
    app.request().await;
    let held = asked.next().await;
    patient.signal(Signal::TERM);
    patient.until("draining");
    asked.answer(held, 0).await;
    let run = app.first().await;
    assert_eq!(outcomes(&run), [Outcome::Succeeded]);
    drop(patient);

    let hasty = app.up_with(&["--grace", "1s"]);
    let id = app.request().await;
    let _never_answered = asked.next().await;
    let _other = app.up();
    hasty.signal(Signal::TERM);
    let again = asked.next().await;
    asked.answer(again, 0).await;
    let both = |runs: &[Run]| runs.iter().filter(|run| run.ended.is_some()).count() == 2;
    let runs = app.runs("both have ended", both).await;
    let handed = runs.iter().find(|run| run.id == id).unwrap();
    assert_eq!(outcomes(handed), [Outcome::Interrupted, Outcome::Succeeded]);
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_that_have_ended_are_kept_so_many_and_so_long() {
    let app = App::new("at = \"request\"\nkeep = { runs = 2, age = \"1h\" }").await;
    app.answering(0).await;
    let _host = app.up();
    let mut ids = Vec::new();
    for _ in 0..4 {
        let id = app.request().await;
        let ended = |runs: &[Run]| runs.iter().any(|run| run.id == id && run.ended.is_some());
        app.runs("it has ended", ended).await;
        let idle = async || match app.jobs().list().await.unwrap()[0].running.is_empty() {
            true => Ok(()),
            false => Err("it is open"),
        };
        until_ok_within(PATIENCE, "it is not open any more", idle).await;
        ids.push(id);
    }
    let runs = app
        .runs("the last two are kept", |runs| runs.len() == 2)
        .await;
    let kept: Vec<_> = runs.into_iter().map(|run| run.id).collect();
    assert!(
        kept.iter().all(|id| ids[2..].contains(id)),
        "{kept:?} of {ids:?}"
    );
    let stream = jetstream::new(app.client.clone());
    let stream = stream.get_stream("bay_app_jobs").await.unwrap();
    let subject = format!("bay-job.app.run.report.{}", kept[0]);
    let stored = stream
        .get_last_raw_message_by_subject(&subject)
        .await
        .unwrap();
    assert_eq!(stored.headers.get("Nats-TTL").unwrap().as_str(), "3600");
}
