//! Jobs whose component or manifest changes.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn the_next_run_is_of_the_new_component() {
    let app = App::new("at = \"request\"").await;
    let mut asked = app.asked().await;
    let host = app.up();
    app.request().await;
    let first = asked.next().await;
    assert_eq!(&*first.payload, br#"{"n":1}"#);
    app.cli.write("report.wat", asks(2));
    host.until("swapped report");
    // What runs goes on as it began.
    asked.answer(first, 3).await;
    let again = asked.next().await;
    assert_eq!(&*again.payload, br#"{"n":1}"#);
    asked.answer(again, 0).await;
    assert_eq!(outcomes(&app.first().await), [Outcome::Succeeded]);
    until_ok_within(PATIENCE, "the first is not open any more", async || {
        app.jobs().run("report").await
    })
    .await;
    let next = asked.next().await;
    assert_eq!(&*next.payload, br#"{"n":2}"#);
    asked.answer(next, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_always_runs_is_replaced() {
    let app = App::new("restart = \"always\"").await;
    let mut asked = app.asked().await;
    let _host = app.up();
    let _never_answered = asked.next().await;
    app.cli.write("report.wat", asks(2));
    let next = asked.next().await;
    assert_eq!(&*next.payload, br#"{"n":2}"#);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_runs_when_it_is_deployed_runs_once_for_each_version() {
    let app = App::new("at = \"deploy\"").await;
    let asked = app.answering(0).await;
    let hosts = [app.up(), app.up()];
    assert_eq!(app.first().await.cause, Cause::Deploy);
    drop(hosts);
    let host = app.up();
    app.cli.write("report.wat", asks(2));
    let two = |runs: &[Run]| runs.iter().filter(|run| run.ended.is_some()).count() == 2;
    app.runs("it runs in its second version", two).await;
    drop(host);
    let asked = asked.lock().unwrap().clone();
    assert_eq!(asked, [r#"{"n":1}"#, r#"{"n":2}"#]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_is_taken_out_is_not_run_any_more_and_another_schedule_takes_the_place_of_one() {
    let app = App::new("every = \"1s\"").await;
    app.answering(0).await;
    let host = app.up();
    app.first().await;
    app.cli
        .write("wasmbay.toml", manifest("schedule = \"0 3 1 1 *\""));
    let jobs = app.jobs();
    // At three o'clock, UTC, of some day.
    let is_at_three = |next: u64| next / 1_000 % 86_400 == 3 * 3_600;
    until_ok_within(PATIENCE, "it is due at three", async || {
        let listed = jobs.list().await.map_err(|error| error.to_string())?;
        match &listed[0] {
            job if job.when == "0 3 1 1 *" && job.next.is_some_and(is_at_three) => Ok(()),
            job => Err(format!("{job:#?}")),
        }
    })
    .await;
    let other = manifest("every = \"1s\"").replace("[job.report]", "[job.other]");
    app.cli.write("wasmbay.toml", other);
    until_ok_within(PATIENCE, "the other takes its place", async || {
        let listed = jobs.list().await.map_err(|error| error.to_string())?;
        match &listed[..] {
            [job] if job.job == "other" => Ok(()),
            other => Err(format!("{other:#?}")),
        }
    })
    .await;
    let stream = jetstream::new(app.client.clone())
        .get_stream("bay_app_jobs")
        .await
        .unwrap();
    let left = stream
        .info_with_subjects("bay-job.app.*.report")
        .await
        .unwrap();
    let left: Vec<_> = left.filter_map(|one| async { one.ok() }).collect().await;
    assert!(left.is_empty(), "{left:?}");
    assert!(stream.get_info().await.is_ok());
    drop(host);
}
