//! `wasmbay history`.

use serde_json::json;
use wasmbay::fleet::Revision;

use super::fleet::{Fleet, changed};
use crate::args::Nats;
use crate::report::{Exit, STRONG, Terminal, plain};

/// Show the revisions of an app: who changed what, when and why
///
/// The last 64 are kept.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  wasmbay history shop
  wasmbay history shop --output json | jq '.revisions[-1].author'

Exit codes: 0 done, 1 there is no such app, 2 wrong usage.")]
pub(crate) struct History {
    /// The app
    #[arg(value_name = "APP")]
    app: String,
    #[command(flatten)]
    nats: Nats,
}

pub(super) async fn run(args: History, terminal: &Terminal) -> anyhow::Result<Exit> {
    let fleet = Fleet::reach(&args.nats).await?;
    fleet.app(&args.app).await?;
    let history = fleet.store.history(&args.app).await?;
    if terminal.json() {
        let revisions: Vec<_> = with_before(&history).map(describe).collect();
        terminal.result_json(&json!({ "app": args.app, "revisions": revisions }))?;
    } else {
        let texts: Vec<_> = with_before(&history).rev().map(text).collect();
        terminal.result(texts.join("\n"))?;
    }
    Ok(Exit::Done)
}

/// Each revision with the one before it.
fn with_before(
    history: &[Revision],
) -> impl DoubleEndedIterator<Item = (Option<&Revision>, &Revision)> {
    history.iter().enumerate().map(|(at, revision)| {
        let before = at.checked_sub(1).and_then(|at| history.get(at));
        (before, revision)
    })
}

/// What a revision changed; nothing where the one before it is not kept.
fn changes(before: Option<&Revision>, revision: &Revision) -> Option<Vec<String>> {
    let is_known = before.is_some() || revision.number == 1;
    let changes = changed(before, revision);
    is_known.then(|| changes.iter().map(ToString::to_string).collect())
}

fn describe((before, revision): (Option<&Revision>, &Revision)) -> serde_json::Value {
    let specification = revision.specification.as_ref();
    json!({
        "revision": revision.number,
        "verb": revision.verb,
        "author": revision.author,
        "at": revision.at,
        "source": revision.source,
        "message": revision.message,
        "forced": revision.forced,
        "changes": changes(before, revision),
        "components": specification.map(|specification| &specification.components),
    })
}

fn text((before, revision): (Option<&Revision>, &Revision)) -> String {
    let Revision {
        number,
        verb,
        author,
        at,
        message,
        forced,
        ..
    } = revision;
    let mut text = format!(
        "{STRONG}{number}{STRONG:#}  {}  {}  {}",
        plain(at.split('.').next().unwrap_or(at)),
        plain(author),
        plain(verb)
    );
    if let Some(message) = message {
        text += &format!("  \"{}\"", plain(message));
    }
    for change in changes(before, revision).unwrap_or_default() {
        text += &format!("\n     {}", plain(&change));
    }
    for line in forced {
        text += &format!("\n     forced: {}", plain(line));
    }
    text
}
