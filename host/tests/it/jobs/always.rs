//! Jobs that are always to run.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_always_to_run_is_started_again_after_longer_and_longer_waits() {
    let app = App::new("restart = \"always\"\nretry = { backoff = [\"100ms\", \"600ms\"] }").await;
    let mut asked = app.asked().await;
    let _host = app.up();
    for answer in [2, 1, 0] {
        let question = asked.next().await;
        asked.answer(question, answer).await;
    }
    let _runs_on = asked.next().await;
    let four = |runs: &[Run]| runs.first().is_some_and(|run| run.attempts.len() == 4);
    let run = app
        .runs("it runs for the fourth time", four)
        .await
        .remove(0);
    let ends = [Outcome::Trapped, Outcome::Failed, Outcome::Succeeded];
    assert_eq!((&*outcomes(&run), run.ended), (&ends[..], None));
    let waits = run.attempts.windows(2);
    let waits: Vec<_> = waits
        .map(|two| two[1].began - two[0].ended.unwrap())
        .collect();
    assert!((100..).contains(&waits[0]), "{waits:?}");
    assert!(
        (600..).contains(&waits[1]) && (600..).contains(&waits[2]),
        "{waits:?}"
    );
    let refused = app.jobs().run("report").await.unwrap_err().to_string();
    assert!(refused.contains("all the time"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_runs_on_one_host_and_on_another_when_that_is_gone() {
    let app = App::new("restart = \"always\"").await;
    let mut asked = app.asked().await;
    let first = app.up();
    let _runs_on = asked.next().await;
    let second = app.up();
    // One of two hosts has it.
    let listed = app.jobs().list().await.unwrap();
    let hosts: Vec<_> = listed[0]
        .running
        .iter()
        .map(|run| run.host.clone())
        .collect();
    assert!(matches!(&hosts[..], [Some(_)]), "{listed:#?}");
    assert!(asked.receiver.try_recv().is_err());
    // A host that stops does not wait for what never ends.
    let began = std::time::Instant::now();
    assert!(first.stop().contains("exit"));
    assert!(
        began.elapsed() < Duration::from_secs(8),
        "{:?}",
        began.elapsed()
    );
    let _runs_there = asked.next().await;
    second.signal(Signal::KILL);
    let _third = app.up();
    let _runs_there = asked.next().await;
    let run = app.runs("three have had it", |runs| {
        runs.first().is_some_and(|run| run.attempts.len() == 3)
    });
    let run = run.await.remove(0);
    assert_eq!(outcomes(&run), [Outcome::Interrupted, Outcome::Lost]);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_runs_on_as_many_hosts_as_it_is_to_and_what_is_too_much_ends() {
    let app = App::new("restart = \"always\"\nreplicas = 2").await;
    let mut asked = app.asked().await;
    let hosts = [app.up(), app.up(), app.up()];
    let _both = (asked.next().await, asked.next().await);
    let running = async |wanted: usize| {
        let jobs = app.jobs();
        until_ok_within(PATIENCE, "it runs on as many", async || {
            let listed = jobs.list().await.map_err(|error| error.to_string())?;
            let running = listed[0].running.iter();
            let hosts: BTreeSet<_> = running.filter_map(|run| run.host.clone()).collect();
            match hosts.len() == wanted && listed[0].running.len() == wanted {
                true => Ok(()),
                false => Err(format!("{listed:#?}")),
            }
        })
        .await;
    };
    running(2).await;
    let all = manifest("restart = \"always\"\nreplicas = \"all\"");
    app.cli.write("wasmbay.toml", all);
    // A host that has none asks for some time before it adds one.
    let _third = asked.next().await;
    running(3).await;
    app.cli.write(
        "wasmbay.toml",
        manifest("restart = \"always\"\nreplicas = 1"),
    );
    running(1).await;
    drop(hosts);
}
