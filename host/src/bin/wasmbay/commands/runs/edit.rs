//! `wasmbay runs edit`.

use anyhow::Context as _;
use serde_json::json;
use wasmbay::pipelines::{Edited, ShownRun, ShownStep};

use super::{explained, reach_runs};
use crate::args::WhichApp;
use crate::commands::call::arguments;
use crate::commands::{editor, pretty::pretty};
use crate::report::{Exit, Terminal};

#[derive(clap::Args)]
pub(crate) struct RunsEdit {
    /// The run's id
    id: String,
    /// The arguments: an object by parameter, or an array; @FILE reads a file, - reads stdin
    #[arg(value_name = "JSON|@FILE|-")]
    body: Option<String>,
    /// The step, or an item of one as `charge.2`; without it the one whose undo has failed
    #[arg(long, value_name = "NAME")]
    step: Option<String>,
    /// Edit the result of the step, which undos may take, and not the arguments of its undo
    #[arg(long)]
    result: bool,
    #[command(flatten)]
    app: WhichApp,
}

pub(super) async fn run(args: RunsEdit, terminal: &Terminal) -> anyhow::Result<Exit> {
    let runs = reach_runs(&args.app).await?;
    let (id, step) = (&args.id, args.step.as_deref());
    let what = match args.result {
        true => Edited::Result,
        false => Edited::Undo,
    };
    let edited = match &args.body {
        Some(_) => {
            let body = arguments(args.body.as_deref())?;
            let edited = runs.edit(id, step, what, &body, None);
            edited.await.map_err(explained)?
        }
        None => {
            let shown = runs.show(id).await.map_err(explained)?;
            let given = given(&args);
            let before = before(&shown, step, what);
            let name = format!("run-{id}-");
            let Some(file) = editor::open(&before, &name, ".json", &given)? else {
                terminal.say("nothing was changed");
                return Ok(Exit::Done);
            };
            let body = std::fs::read(file.path()).context("cannot read what was edited")?;
            let edited = runs.edit(id, step, what, &body, Some(shown.revision));
            match edited.await.map_err(explained) {
                Ok(edited) => edited,
                Err(error) => {
                    // It should not have to be typed again.
                    let (_, path) = file.keep().context("cannot keep what was edited")?;
                    let path = path.display();
                    return Err(error.context(format!(
                        "nothing was changed; fix {path} and run `{given} @{path}`"
                    )));
                }
            }
        }
    };
    if terminal.json() {
        terminal.result_json(&json!({ "edited": id, "revision": edited.revision }))?;
    } else {
        terminal.say(format_args!(
            "edited; `wasmbay runs retry {id}` tries to undo it again"
        ));
    }
    Ok(Exit::Done)
}

/// The command without a body.
fn given(args: &RunsEdit) -> String {
    let step = args.step.as_ref().map(|step| format!(" --step {step}"));
    let result = if args.result { " --result" } else { "" };
    format!(
        "wasmbay runs edit {}{}{result}",
        args.id,
        step.unwrap_or_default()
    )
}

/// What stands there now; `null` where nobody knows it.
fn before(run: &ShownRun, step: Option<&str>, what: Edited) -> String {
    let step = step.or(run.run.step.as_deref());
    let mut steps = run.steps.iter().flat_map(|step| match &step.items[..] {
        [] => std::slice::from_ref(step),
        items => items,
    });
    let step: Option<&ShownStep> = steps.find(|one| Some(&*one.name) == step);
    let text = step.and_then(|step| match what {
        Edited::Undo => step.undo.as_ref()?.arguments.as_ref(),
        Edited::Result => step.result.as_ref(),
    });
    pretty(text.map_or("null", |text| text.get())) + "\n"
}
