//! Jobs as operators see them: by the command line, at the admin address, in metrics.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_lists_runs_and_tells() {
    let app = App::new("schedule = \"0 3 1 1 *\"\nretry = { attempts = 1 }").await;
    let mut asked = app.asked().await;
    let _host = app.up();
    let url = app.nats.url().to_owned();
    let wasmbay = async |args: &[&str]| {
        let mut command = app.cli.command(&[args, &["--nats", &url]].concat());
        let ran = tokio::task::spawn_blocking(move || command.output().unwrap());
        let ran = ran.await.unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (ran.status.code(), text(ran.stdout), text(ran.stderr))
    };
    until_ok_within(PATIENCE, "the job is listed", async || {
        let (code, stdout, stderr) = wasmbay(&["jobs"]).await;
        match stdout.contains("report  schedule 0 3 1 1 *") && code == Some(0) {
            true => Ok(()),
            false => Err((code, stdout, stderr)),
        }
    })
    .await;
    let (begun, answer) = tokio::join!(wasmbay(&["jobs", "run", "app/report", "--wait"]), async {
        let question = asked.next().await;
        let (code, stdout, stderr) = wasmbay(&["jobs", "run", "report"]).await;
        assert_eq!(code, Some(1), "{stdout}");
        assert!(stderr.contains("a job has one run at a time"), "{stderr}");
        let (_, listed, _) = wasmbay(&["jobs"]).await;
        assert!(listed.contains(" on "), "{listed}");
        asked.answer(question, 1).await;
    });
    let ((code, _, stderr), ()) = (begun, answer);
    assert_eq!(code, Some(1), "{stderr}");
    assert!(
        stderr.contains("failed") && stderr.contains("`run` returned an error"),
        "{stderr}"
    );

    let (code, text, _) = wasmbay(&["jobs", "history", "report"]).await;
    assert_eq!(code, Some(0));
    for cell in ["request", "failed", "`run` returned an error"] {
        assert!(text.contains(cell), "{text}");
    }
    let (_, json, _) = wasmbay(&["jobs", "history", "report", "--output", "json"]).await;
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["runs"][0]["outcome"], "failed");
    assert_eq!(json["runs"][0]["attempts"][0]["number"], 1);
    let (_, json, _) = wasmbay(&["jobs", "--output", "json"]).await;
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["jobs"][0]["last"]["outcome"], "failed");
    assert_eq!(json["jobs"][0]["key"], "schedule");

    let (code, _, stderr) = wasmbay(&["jobs", "run", "repotr"]).await;
    assert_eq!(code, Some(1));
    assert!(
        stderr.contains("no job \"repotr\" in app (jobs: report)"),
        "{stderr}"
    );
    let (code, _, stderr) = wasmbay(&["jobs", "run", "app/report", "--app", "other"]).await;
    assert_eq!(code, Some(1));
    assert!(stderr.contains("name two apps"), "{stderr}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_admin_address_has_the_same_and_metrics() {
    let app = App::new("at = \"request\"\nretry = { attempts = 1 }").await;
    app.answering(0).await;
    let _host = app.up_with(&["--admin", "127.0.0.1:0"]);
    let announced = std::fs::read(app.cli.path(".wasmbay/host.json")).unwrap();
    let announced: Value = serde_json::from_slice(&announced).unwrap();
    let address = announced["admin"].as_str().unwrap();
    let address = address.strip_prefix("http://").unwrap();
    let ask = async |method: &str, path: &str| {
        let answer = http::send(address, method, path, &[], "").unwrap();
        (answer.status, answer.body)
    };
    let (status, listed) = ask("GET", "/jobs").await;
    assert_eq!(status, 200, "{listed}");
    let run = until_ok_within(PATIENCE, "it is run", async || {
        match ask("POST", "/jobs/report/run").await {
            (202, begun) => Ok(begun),
            other => Err(other),
        }
    });
    let run: Value = serde_json::from_str(&run.await).unwrap();
    let ended = app.first().await;
    assert_eq!(run["run"], *ended.id);
    let (status, history) = ask("GET", "/jobs/report").await;
    let history: Value = serde_json::from_str(&history).unwrap();
    assert_eq!(
        (status, &history["runs"][0]["outcome"]),
        (200, &"succeeded".into())
    );
    assert_eq!(ask("GET", "/jobs/other").await.0, 404);
    let (_, metrics) = ask("GET", "/metrics").await;
    for line in [
        "wasmbay_job_attempts_total{app=\"app\",job=\"report\",outcome=\"succeeded\"} 1",
        "wasmbay_job_running{app=\"app\",job=\"report\"} 0",
        "wasmbay_job_last_success_timestamp_seconds{app=\"app\",job=\"report\"} ",
        "rpc_method=\"wasi:cli/run.run@0.2.3\"",
    ] {
        assert!(metrics.contains(line), "{line}: {metrics}");
    }
}
