//! `wasmbay diff`.

use serde_json::{Value, json};

use super::proposal::{Built, What};
use crate::args::Nats;
use crate::report::{self, Exit, Terminal, plain};

/// Show what a deploy would change
///
/// Builds what is given as a folder, and compares the manifest and its components with what the fleet
/// runs: services, their components, imports, grants, limits and configuration, wires, streams,
/// pipelines, routes and the gateway. Says as well what `wasmbay deploy` would refuse. Values of
/// configuration and environment are not shown.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  wasmbay diff examples/shop
  wasmbay diff --service payment
  wasmbay diff --output json | jq '.differences[] | select(.setting == \"grants.http\")'

Exit codes: 0 nothing differs, 1 something does, 2 it cannot be compared, or wrong usage, 78 wrong configuration.")]
pub(crate) struct Diff {
    #[command(flatten)]
    what: What,
    #[command(flatten)]
    nats: Nats,
}

pub(super) async fn run(args: Diff, terminal: &Terminal) -> anyhow::Result<Exit> {
    match compare(&args, terminal).await {
        Ok(exit) => Ok(exit),
        // 1 is that something differs, as it is for every `diff`.
        Err(error) => Ok(match report::error(&error) {
            Exit::Failed => Exit::Trouble,
            exit => exit,
        }),
    }
}

async fn compare(args: &Diff, terminal: &Terminal) -> anyhow::Result<Exit> {
    let (_, built) = Built::of(&args.what, &args.nats, terminal).await?;
    let proposal = built.proposal;
    let revision = proposal.before.as_ref().map(|kept| &kept.revision);
    let differs = !proposal.differences.is_empty();
    let app = plain(proposal.app());
    if terminal.json() {
        let mut shown = proposal.json();
        if let Value::Object(shown) = &mut shown {
            let revision = revision.map(|revision| revision.number);
            shown.insert("revision".to_owned(), json!(revision));
        }
        terminal.result_json(&shown)?;
    } else if differs || proposal.is_refused() {
        let mut lines = vec![match revision {
            Some(revision) if revision.specification.is_some() => {
                format!("{app}, since revision {}:", revision.number)
            }
            _ => format!("{app}, which is not deployed:"),
        }];
        lines.extend(proposal.lines().iter().map(|line| plain(line)));
        terminal.result(lines.join("\n"))?;
    }
    Ok(if differs { Exit::Failed } else { Exit::Done })
}
