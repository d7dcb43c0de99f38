//! `wasmbay dlq edit`.

use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use serde_json::json;
use wasmbay::events::dead_letters::DeadLetter;
use wasmbay::interface::FunctionId;
use wasmbay::json::DEFAULT_BYTES;
use wasmbay::shape::Signature;

use super::{Store, explained};
use crate::args::WhichApp;
use crate::commands::call::arguments;
use crate::commands::{discover, editor, pretty::pretty};
use crate::report::{Exit, Terminal, failure};

/// Time that subscribers have to state a type that no stream states.
const PATIENCE: Duration = Duration::from_secs(2);

#[derive(clap::Args)]
pub(crate) struct DlqEdit {
    /// The dead letter's id
    id: String,
    /// The body: an object by parameter, or an array; @FILE reads a file, - reads stdin
    #[arg(value_name = "JSON|@FILE|-")]
    body: Option<String>,
    #[command(flatten)]
    app: WhichApp,
}

pub(super) async fn run(args: DlqEdit, terminal: &Terminal) -> anyhow::Result<Exit> {
    let store = Store::reach(&args.app).await?;
    let id = &args.id;
    let edited = match &args.body {
        Some(_) => {
            let body = arguments(args.body.as_deref())?;
            let dead_letter = store.dead_letters.find(id).await.map_err(explained)?;
            replace(&store, &dead_letter, body).await?
        }
        None => {
            let dead_letter = store.get(id).await?;
            let Some(file) = in_editor(&dead_letter)? else {
                terminal.say("nothing was changed");
                return Ok(Exit::Done);
            };
            let body = std::fs::read(file.path()).context("cannot read what was edited")?;
            match replace(&store, &dead_letter, body.into()).await {
                Ok(edited) => edited,
                Err(error) => {
                    // It should not have to be typed again.
                    let (_, path) = file.keep().context("cannot keep what was edited")?;
                    let path = path.display();
                    return Err(error.context(format!(
                        "nothing was changed; fix {path} and run `wasmbay dlq edit {id} @{path}`"
                    )));
                }
            }
        }
    };
    if terminal.json() {
        terminal.result_json(&json!({ "edited": edited.id, "size": edited.size }))?;
    } else {
        terminal.say(format_args!(
            "edited; `wasmbay dlq replay {id}` delivers it again"
        ));
    }
    Ok(Exit::Done)
}

async fn replace(
    store: &Store,
    dead_letter: &DeadLetter,
    body: Bytes,
) -> anyhow::Result<DeadLetter> {
    // No more was read.
    if body.len() > DEFAULT_BYTES {
        anyhow::bail!("the body has more than {DEFAULT_BYTES} bytes");
    }
    let edited = store
        .dead_letters
        .edit(dead_letter, body, stated(store, dead_letter))
        .await;
    edited.map_err(explained)
}

/// The type of the event, as a subscriber that runs states it.
async fn stated(store: &Store, dead_letter: &DeadLetter) -> Option<Signature> {
    let function: FunctionId = dead_letter.function.parse().ok()?;
    let answering = discover::ask(&store.link, PATIENCE).await.ok()?.into_iter();
    answering
        .filter(|one| one.app == store.app && one.function.name == function.name)
        .filter(|one| one.function.interface.compatible(&function.interface))
        .find_map(|one| one.signature)
}

/// Opens the body in an editor, and returns the file if it changed.
fn in_editor(dead_letter: &DeadLetter) -> anyhow::Result<Option<tempfile::NamedTempFile>> {
    let (before, suffix) = match (
        dead_letter.is_message(),
        std::str::from_utf8(&dead_letter.body),
    ) {
        // Not even a line break is for an editor to add.
        (true, Ok(text)) => (text.to_owned(), ".txt"),
        (true, Err(_)) => {
            return Err(failure(
                "the body is no text that an editor could show",
                format!("give the body: `wasmbay dlq edit {} @FILE`", dead_letter.id),
            ));
        }
        (false, _) => {
            let text = String::from_utf8_lossy(&dead_letter.body);
            (pretty(&text) + "\n", ".json")
        }
    };
    let given = format!("wasmbay dlq edit {}", dead_letter.id);
    let name = format!("dead-letter-{}-", dead_letter.id);
    editor::open(&before, &name, suffix, &given)
}
