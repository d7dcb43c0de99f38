//! `wasmbay dlq edit`.

use std::io::{IsTerminal as _, Write as _};
use std::process::Command;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use serde_json::json;
use wasmbay::events::dead_letters::DeadLetter;
use wasmbay::interface::FunctionId;
use wasmbay::json::DEFAULT_BYTES;
use wasmbay::shape::Signature;

use super::{Post, explained};
use crate::args::DlqEdit;
use crate::commands::call::arguments;
use crate::commands::{discover, pretty::pretty};
use crate::report::{Exit, Terminal, failure};

/// How long subscribers may take to tell a type that no stream tells.
const PATIENCE: Duration = Duration::from_secs(2);

pub(super) async fn run(args: DlqEdit, terminal: &Terminal) -> anyhow::Result<Exit> {
    let post = Post::reach(&args.place).await?;
    let id = &args.id;
    let edited = match &args.body {
        Some(_) => {
            let body = arguments(args.body.as_deref())?;
            let letter = post.letters.find(id).await.map_err(explained)?;
            replace(&post, &letter, body).await?
        }
        None => {
            let letter = post.get(id).await?;
            let Some(file) = in_editor(&letter)? else {
                terminal.say("nothing was changed");
                return Ok(Exit::Done);
            };
            let body = std::fs::read(file.path()).context("cannot read what was edited")?;
            match replace(&post, &letter, body.into()).await {
                Ok(edited) => edited,
                Err(error) => {
                    // Nobody should have to type it again.
                    let (_, path) = file.keep().context("cannot keep what was edited")?;
                    let path = path.display();
                    return Err(error.context(format!(
                        "nothing was changed; mend {path} and run `wasmbay dlq edit {id} @{path}`"
                    )));
                }
            }
        }
    };
    match terminal.json() {
        true => terminal.result_json(&json!({ "edited": edited.id, "size": edited.size }))?,
        false => terminal.say(format_args!(
            "edited; `wasmbay dlq replay {id}` delivers it again"
        )),
    }
    Ok(Exit::Done)
}

async fn replace(post: &Post, letter: &DeadLetter, body: Bytes) -> anyhow::Result<DeadLetter> {
    // No more was read.
    if body.len() > DEFAULT_BYTES {
        anyhow::bail!("the body has more than {DEFAULT_BYTES} bytes");
    }
    let edited = post.letters.edit(letter, body, told(post, letter)).await;
    edited.map_err(explained)
}

/// The type of the letter's event as a subscriber tells it that runs.
async fn told(post: &Post, letter: &DeadLetter) -> Option<Signature> {
    let function: FunctionId = letter.function.parse().ok()?;
    let answering = discover::ask(&post.client, PATIENCE)
        .await
        .ok()?
        .into_iter();
    answering
        .filter(|one| one.app == post.app && one.function.name == function.name)
        .filter(|one| one.function.interface.compatible(&function.interface))
        .find_map(|one| one.signature)
}

/// Has the body edited, and gives the file if it changed.
fn in_editor(letter: &DeadLetter) -> anyhow::Result<Option<tempfile::NamedTempFile>> {
    let named = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let editor = named("VISUAL").or_else(|| named("EDITOR"));
    let (Some(editor), true) = (editor, std::io::stdin().is_terminal()) else {
        return Err(failure(
            "there is no body, and no $EDITOR on a terminal to write one",
            format!(
                "give the body: `wasmbay dlq edit {} @FILE`, or - for stdin",
                letter.id
            ),
        ));
    };
    let (before, suffix) = match (letter.is_message(), std::str::from_utf8(&letter.body)) {
        // Not even a line break is for an editor to add.
        (true, Ok(text)) => (text.to_owned(), ".txt"),
        (true, Err(_)) => {
            return Err(failure(
                "the body is no text that an editor could show",
                format!("give the body: `wasmbay dlq edit {} @FILE`", letter.id),
            ));
        }
        (false, _) => {
            let text = String::from_utf8_lossy(&letter.body);
            (pretty(&text) + "\n", ".json")
        }
    };
    let mut file = tempfile::Builder::new()
        .prefix(&format!("letter-{}-", letter.id))
        .suffix(suffix)
        .tempfile()?;
    file.write_all(before.as_bytes())?;
    // It may have arguments of its own.
    let ended = Command::new("sh")
        .args(["-c", &format!("{editor} \"$1\""), "sh"])
        .arg(file.path())
        .status()
        .with_context(|| format!("cannot run {editor}"))?;
    if !ended.success() {
        anyhow::bail!("{editor} failed: {ended}");
    }
    let after = std::fs::read(file.path()).context("cannot read what was edited")?;
    Ok((after != before.as_bytes()).then_some(file))
}
