//! `wasmbay jobs`: what runs at times, and what it has run.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use wasmbay::jobs::{self, Attempt, JobError, ListedJob, Outcome, Run};
use wasmbay::text::shown;

use super::call::reach;
use super::dlq::only;
use crate::args::WhichApp;
use crate::report::{Exit, Terminal, failure, plain, table, time};

/// Time between two looks at a run that is waited for.
const LOOK: Duration = Duration::from_millis(200);

/// List the jobs of an app, run one now, and see what they have run
///
/// A job is a component that is run at times, once, or all the time, once in all hosts of its app.
#[derive(clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
Examples:
  wasmbay jobs
  wasmbay jobs run shop/report --wait
  wasmbay jobs history report

Exit codes: 0 done, 1 it could not be done, or the run that was waited for did not succeed, 2 wrong usage."
)]
pub(crate) struct Jobs {
    #[command(subcommand)]
    verb: Option<JobsVerb>,
    #[command(flatten)]
    app: WhichApp,
}

#[derive(clap::Subcommand)]
enum JobsVerb {
    /// Run a job now, whatever its schedule
    ///
    /// Some host runs it, as if it were due. A job has one run at a time.
    Run(JobsRun),
    /// List the runs of a job that are kept, attempt by attempt, the last one first
    History(JobsHistory),
}

#[derive(clap::Args)]
struct JobsRun {
    /// The job, as JOB or APP/JOB
    #[arg(value_name = "JOB")]
    job: String,
    /// Wait until the run has ended, and print what it printed last
    #[arg(long)]
    wait: bool,
    #[command(flatten)]
    app: WhichApp,
}

#[derive(clap::Args)]
struct JobsHistory {
    /// The job, as JOB or APP/JOB
    #[arg(value_name = "JOB")]
    job: String,
    /// List no more than these runs
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    /// Print the last lines of each attempt, too
    #[arg(long)]
    lines: bool,
    #[command(flatten)]
    app: WhichApp,
}

pub(super) async fn run(args: Jobs, terminal: &Terminal) -> anyhow::Result<Exit> {
    match args.verb {
        None => list(&args.app, terminal).await,
        Some(JobsVerb::Run(args)) => begin(args, terminal).await,
        Some(JobsVerb::History(args)) => history(args, terminal).await,
    }
}

/// The jobs of the app that is meant.
async fn reach_jobs(args: &WhichApp) -> anyhow::Result<jobs::Jobs> {
    let (nats, app) = reach(args)?;
    let nats = nats.named("wasmbay jobs");
    let context = nats.jetstream(nats.connect().await?);
    let app = match app {
        Some(app) => app,
        None => only(&context, "jobs", "jobs").await?,
    };
    Ok(jobs::Jobs::new(context, &app))
}

/// The jobs of the app that is meant, and the one of them.
async fn reach_job(mut args: WhichApp, job: &str) -> anyhow::Result<(jobs::Jobs, String)> {
    let name = match job.split_once('/') {
        Some((app, name)) => {
            if args.app.as_deref().is_some_and(|named| named != app) {
                return Err(failure(
                    format!("`{}` and `--app` name two apps", shown(job)),
                    "leave one of them out",
                ));
            }
            args.app = Some(app.to_owned());
            name
        }
        None => job,
    };
    Ok((reach_jobs(&args).await?, name.to_owned()))
}

async fn list(app: &WhichApp, terminal: &Terminal) -> anyhow::Result<Exit> {
    let jobs = reach_jobs(app).await?.list().await?;
    if terminal.json() {
        terminal.result_json(&json!({ "jobs": jobs }))?;
        return Ok(Exit::Done);
    }
    if jobs.is_empty() {
        terminal.say("no jobs");
        return Ok(Exit::Done);
    }
    let head = ["JOB", "WHEN", "NEXT", "LAST", "ENDED", "RUNNING"];
    let head = head.iter().map(|cell| (*cell).to_owned()).collect();
    let rows: Vec<Vec<String>> = std::iter::once(head).chain(jobs.iter().map(row)).collect();
    terminal.result(table(&rows))?;
    Ok(Exit::Done)
}

fn row(job: &ListedJob) -> Vec<String> {
    let running = job.running.iter().map(|run| match &run.host {
        Some(host) => format!("on {}", plain(host)),
        None if run.attempt > 0 => format!("after attempt {}", run.attempt),
        None => "waits for a host".to_owned(),
    });
    let running = running.collect::<Vec<_>>().join(", ");
    let last = job.last.as_ref();
    vec![
        plain(&job.job),
        plain(&format!("{} {}", job.key, job.when)),
        job.next.map_or_else(|| "-".to_owned(), seconds),
        last.and_then(|run| run.outcome)
            .map_or("-", Outcome::as_str)
            .to_owned(),
        last.and_then(|run| run.ended)
            .map_or_else(|| "-".to_owned(), seconds),
        if running.is_empty() {
            "-".to_owned()
        } else {
            running
        },
    ]
}

async fn begin(args: JobsRun, terminal: &Terminal) -> anyhow::Result<Exit> {
    let (jobs, job) = reach_job(args.app, &args.job).await?;
    let id = jobs.run(&job).await.map_err(explained)?;
    if !args.wait {
        if terminal.json() {
            terminal.result_json(&json!({ "job": job, "run": id }))?;
        } else {
            terminal.say(format_args!(
                "run {id} of {job} begins; `wasmbay jobs history {job}` tells how it goes"
            ));
        }
        return Ok(Exit::Done);
    }
    let run = loop {
        match jobs.look(&job, &id).await? {
            Some(run) if run.ended.is_some() => break run,
            _ => tokio::time::sleep(LOOK).await,
        }
    };
    let outcome = run.outcome.unwrap_or(Outcome::Lost);
    if terminal.json() {
        terminal.result_json(&json!(run))?;
    } else {
        let last = run.attempts.last();
        for line in last.iter().flat_map(|attempt| &attempt.output) {
            terminal.result(plain(line))?;
        }
        let took = run.ended.unwrap_or_default().saturating_sub(run.due);
        let why = last.and_then(|attempt| attempt.why.as_deref());
        let why = why.map(|why| format!(": {}", shown(why)));
        terminal.note(format_args!(
            "run {id} of {job} {} after {}{}",
            outcome.as_str(),
            time(Duration::from_millis(took)),
            why.unwrap_or_default()
        ));
    }
    Ok(match outcome {
        Outcome::Succeeded => Exit::Done,
        _ => Exit::Failed,
    })
}

async fn history(args: JobsHistory, terminal: &Terminal) -> anyhow::Result<Exit> {
    let (jobs, job) = reach_job(args.app, &args.job).await?;
    let mut runs = jobs.history(&job).await.map_err(explained)?;
    runs.truncate(usize::try_from(args.limit).unwrap_or(usize::MAX));
    if terminal.json() {
        terminal.result_json(&json!({ "job": job, "runs": runs }))?;
        return Ok(Exit::Done);
    }
    if runs.is_empty() {
        terminal.say(format_args!("{job} has not run"));
        return Ok(Exit::Done);
    }
    let head = [
        "RUN", "BY", "ATTEMPT", "BEGAN", "TOOK", "HOST", "OUTCOME", "WHY",
    ];
    let head: Vec<String> = head.iter().map(|cell| (*cell).to_owned()).collect();
    let mut rows = vec![head];
    for run in &runs {
        for attempt in run.attempts.iter().rev() {
            rows.push(attempt_row(run, attempt));
        }
    }
    terminal.result(table(&rows))?;
    if args.lines {
        for run in &runs {
            for attempt in run.attempts.iter().rev().filter(|a| !a.output.is_empty()) {
                terminal.result(format_args!(
                    "\n{} attempt {}",
                    plain(&run.id),
                    attempt.number
                ))?;
                for line in &attempt.output {
                    terminal.result(format_args!("  {}", plain(line)))?;
                }
            }
        }
    }
    Ok(Exit::Done)
}

fn attempt_row(run: &Run, attempt: &Attempt) -> Vec<String> {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let until = attempt
        .ended
        .unwrap_or_else(|| u64::try_from(now.as_millis()).unwrap_or(u64::MAX));
    let took = Duration::from_millis(until.saturating_sub(attempt.began));
    let cause = json!(run.cause);
    vec![
        plain(&run.id),
        cause.as_str().unwrap_or_default().to_owned(),
        match attempt.number {
            0 => "-".to_owned(),
            number => number.to_string(),
        },
        seconds(attempt.began),
        time(took),
        plain(&attempt.host),
        attempt
            .outcome
            .map_or("running", Outcome::as_str)
            .to_owned(),
        shown(attempt.why.as_deref().unwrap_or_default()).into_owned(),
    ]
}

/// A time without fractions of a second.
fn seconds(millis: u64) -> String {
    let seconds = i64::try_from(millis / 1_000).unwrap_or(i64::MAX);
    let time = OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    time.format(&Rfc3339).unwrap_or_default()
}

/// An error with where to look.
fn explained(error: JobError) -> anyhow::Error {
    match error {
        JobError::NotFound { .. } => failure(
            error.to_string(),
            "`wasmbay jobs` lists those that are there",
        ),
        JobError::Busy { ref job, .. } => {
            let hint = format!("`wasmbay jobs history {job}` tells how it goes");
            failure(error.to_string(), hint)
        }
        error => error.into(),
    }
}
