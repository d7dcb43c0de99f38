//! `wasmbay runs`: the runs of pipelines.

mod edit;
mod show;

use serde_json::json;
use wasmbay::pipelines::{self, RunError};

use super::call::reach;
use super::dlq::only;
use crate::args::WhichApp;
use crate::report::{Exit, Terminal, failure};

/// Look at runs of pipelines, cancel, undo, edit and retry them
///
/// A run is one call of a function that is made of steps, or of a durable one. One that has ended is kept for the pipeline's
/// `keep`; one that could not be undone, until it is.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  wasmbay runs ls
  wasmbay runs ls --all --pipeline checkout
  wasmbay runs show 9f86d081884c7d659a2feaa0c55ad015
  wasmbay runs retry 9f86d081884c7d659a2feaa0c55ad015")]
pub(crate) struct Runs {
    #[command(subcommand)]
    verb: RunsVerb,
}

#[derive(clap::Subcommand)]
pub(crate) enum RunsVerb {
    /// List the runs that are open: those that hosts work on, and those that could not be undone
    Ls(RunsLs),
    /// Show one: its steps with times, attempts, arguments and results
    Show(One),
    /// Undo a run once more that could not be undone, or go on with one that is stopped
    ///
    /// Each step that could not be undone has all of its attempts again. A durable function is run again, by the
    /// version that began it where that is kept.
    Retry(One),
    /// Edit what the undo of a run takes that could not be undone, in $VISUAL or $EDITOR without a body
    ///
    /// The value is checked against the function's type. `wasmbay runs retry` uses it.
    Edit(edit::RunsEdit),
    /// Cancel one that runs or is stopped: after the step that is under way, what was done is undone
    Cancel(One),
    /// Undo a run that is completed
    Undo(One),
}

/// Which runs are listed.
#[derive(clap::Args)]
pub(crate) struct RunsLs {
    /// List those that have ended, too, as long as they are kept
    #[arg(long)]
    all: bool,
    /// Those of this pipeline, or of a durable function: its service and its own name, as `orders-place`
    #[arg(long, value_name = "NAME")]
    pipeline: Option<String>,
    /// List no more than these
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    /// Go on where a list has ended: what it said is the next one
    #[arg(long, value_name = "NEXT")]
    after: Option<u64>,
    #[command(flatten)]
    app: WhichApp,
}

#[derive(clap::Args)]
pub(crate) struct One {
    /// The run's id
    id: String,
    #[command(flatten)]
    app: WhichApp,
}

pub(super) async fn run(args: Runs, terminal: &Terminal) -> anyhow::Result<Exit> {
    match args.verb {
        RunsVerb::Ls(args) => list(args, terminal).await,
        RunsVerb::Show(One { id, app }) => {
            let runs = reach_runs(&app).await?;
            show::run(&runs.show(&id).await.map_err(explained)?, terminal)
        }
        RunsVerb::Retry(One { id, app }) => {
            let runs = reach_runs(&app).await?;
            runs.retry(&id).await.map_err(explained)?;
            said(&id, "is tried once more", terminal)
        }
        RunsVerb::Edit(args) => edit::run(args, terminal).await,
        RunsVerb::Cancel(One { id, app }) => {
            let runs = reach_runs(&app).await?;
            runs.cancel(&id).await.map_err(explained)?;
            said(&id, "is cancelled", terminal)
        }
        RunsVerb::Undo(One { id, app }) => {
            let runs = reach_runs(&app).await?;
            runs.undo(&id).await.map_err(explained)?;
            said(&id, "is being undone", terminal)
        }
    }
}

/// The runs of the app that is meant.
async fn reach_runs(args: &WhichApp) -> anyhow::Result<pipelines::Runs> {
    let (nats, app) = reach(args)?;
    let nats = nats.named("wasmbay runs");
    let context = nats.jetstream(nats.connect().await?);
    let app = match app {
        Some(app) => app,
        None => only(&context, "runs", "runs").await?,
    };
    Ok(pipelines::Runs::new(context, &app))
}

async fn list(args: RunsLs, terminal: &Terminal) -> anyhow::Result<Exit> {
    let runs = reach_runs(&args.app).await?;
    let limit = usize::try_from(args.limit).unwrap_or(usize::MAX);
    let page = runs.list(args.all, args.pipeline.as_deref(), args.after, limit);
    let page = page.await.map_err(explained)?;
    if terminal.json() {
        terminal.result(serde_json::to_string_pretty(&page)?)?;
        return Ok(Exit::Done);
    }
    show::list(&page.runs, args.all, terminal)?;
    if let Some(next) = page.next {
        terminal.note(format_args!("there are more: `--after {next}` lists them"));
    }
    Ok(Exit::Done)
}

fn said(id: &str, how: &str, terminal: &Terminal) -> anyhow::Result<Exit> {
    if terminal.json() {
        terminal.result_json(&json!({ "run": id }))?;
    } else {
        terminal.say(format_args!(
            "run {id} {how}; `wasmbay runs show {id}` tells how it goes"
        ));
    }
    Ok(Exit::Done)
}

/// An error with where to look.
fn explained(error: RunError) -> anyhow::Error {
    match error {
        RunError::NotFound(_) | RunError::NoId(_) => failure(
            error.to_string(),
            "`wasmbay runs ls --all` lists those that are there",
        ),
        error => error.into(),
    }
}
