//! `wasmbay history`.

use wasmbay::fleet::{Revision, changes_of, show_history};

use super::fleet::Fleet;
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
    let fleet = Fleet::reach(&args.nats, Some(&args.app)).await?;
    fleet.app(&args.app).await?;
    let history = fleet.store.history(&args.app).await?;
    if terminal.json() {
        terminal.result_json(&show_history(&args.app, &history))?;
    } else {
        let revisions = history.iter().zip(changes_of(&history));
        let texts: Vec<_> = revisions.rev().map(text).collect();
        terminal.result(texts.join("\n"))?;
    }
    Ok(Exit::Done)
}

fn text((revision, changes): (&Revision, Option<Vec<String>>)) -> String {
    let Revision {
        number,
        verb,
        author,
        at,
        message,
        forced,
        outcome,
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
    for change in changes.unwrap_or_default() {
        text += &format!("\n     {}", plain(&change));
    }
    for line in forced {
        text += &format!("\n     forced: {}", plain(line));
    }
    if let Some(outcome) = outcome {
        text += &format!("\n     {}", plain(&outcome.text()));
    }
    text
}
