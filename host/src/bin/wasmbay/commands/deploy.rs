//! `wasmbay deploy`.

use std::path::PathBuf;

use serde_json::{Value, json};
use wasmbay::fleet::{Change, Clash, Proposal, Revision, changed, next, next_in_shares};

use super::fleet::{Fleet, gate, signed};
use super::proposal::{Built, Differing, What};
use super::sign::{Signer, Signing};
use super::test::explain;
use super::wait::Written;
use crate::args::{Nats, Waiting};
use crate::report::{Exit, Terminal, count, failure, plain, size};

/// Deploy an app to a fleet
///
/// Builds what is given as a folder, checks that the services fit together, stores the components, and
/// writes the next revision of the app. Then waits until that serves on all hosts where it should, or
/// says what is wrong and where.
///
/// What would break the services and clients of the revision that runs is refused. So is what another
/// app of the fleet claims at the gateway already.
///
/// Where a service has a `rollout`, its new version gets a share of the calls first, and goes on or back by
/// its figures. That is waited for as well, for as long as it takes beside --timeout.
///
/// A `.wasm` file goes to one service of an app that is deployed, whose limits, grants and configuration stay.
///
/// Without --nats, the app is meant that `wasmbay up` runs in its folder, else the fleet of `wasmbay host` on this
/// machine.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  wasmbay deploy examples/shop --message 'cheaper shipping'
  wasmbay deploy --dry-run
  wasmbay deploy --service payment
  wasmbay deploy --service payment --replay payment-recording.json
  wasmbay deploy payment.wasm --service shop/payment
  wasmbay deploy --nats nats://nats.example:4222 --output json | jq .revision

Exit codes: 0 it serves (or was written, with --detach), 1 it does not, or was refused, 2 wrong usage, 78 wrong configuration.")]
pub(crate) struct Deploy {
    #[command(flatten)]
    what: What,
    /// Only say what would change, and what would be refused; see `wasmbay diff`
    #[arg(long, conflicts_with = "detach")]
    dry_run: bool,
    /// Deploy although it breaks what runs; what breaks is written into the history
    #[arg(long)]
    force: bool,
    /// Give new versions all calls at once, whatever their `rollout` says; ends a rollout that is under way
    #[arg(long)]
    at_once: bool,
    /// Refuse the deploy if recorded calls end otherwise than they did; may be repeated. See `wasmbay replay`
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    replay: Vec<PathBuf>,
    #[command(flatten)]
    signing: Signing,
    #[command(flatten)]
    waiting: Waiting,
    #[command(flatten)]
    nats: Nats,
}

pub(super) async fn run(args: Deploy, terminal: &Terminal) -> anyhow::Result<Exit> {
    let signer = args.signing.signer()?;
    let (fleet, mut built) = Built::of(&args.what, &args.nats, terminal).await?;
    if args.at_once {
        built.proposal.rollouts.clear();
    }
    let proposal = &built.proposal;
    let before = proposal.before.as_ref();
    let specification = proposal.specification.clone();
    let path = &args.what.path;
    let source = std::path::absolute(path).unwrap_or_else(|_| path.clone());
    let mut signed = signed(args.waiting.message.clone());
    signed.source = Some(source.display().to_string());
    let mut revision = if args.at_once {
        next(before, "deploy at once", Some(specification), signed)
    } else {
        next_in_shares(before, "deploy", specification, signed)
    };
    let changes = changed(before.map(|kept| &kept.revision), &revision);
    let mut differing = Vec::new();
    for file in &args.replay {
        differing.extend(built.differing(file, terminal).await?);
    }
    if args.dry_run {
        gate_replays(&differing, args.force)?;
        return foretell(&revision, &changes, proposal, terminal);
    }
    if !proposal.clashes.is_empty() {
        return Err(refuse_clashes(&proposal.clashes));
    }
    revision.forced = gate(&proposal.breaks, args.force)?;
    revision
        .forced
        .extend(gate_replays(&differing, args.force)?);
    if !args.waiting.detach && fleet.store.hosts().await?.is_empty() {
        return Err(failure(
            "no host of the fleet is alive",
            "`wasmbay host` starts one; `--detach` deploys for hosts that come later",
        ));
    }
    let promotes = args.at_once && before.is_some_and(|kept| !kept.revision.rollouts().is_empty());
    if proposal.differences.is_empty() && before.is_some() && !promotes {
        return again(&fleet, &built, &signer, &args.waiting, terminal).await;
    }
    built.store(&fleet, &signer).await?;
    if !terminal.json() {
        for change in &changes {
            terminal.note(format_args!("  {change}"));
        }
        for line in &revision.forced {
            terminal.note(format_args!("forced: {line}"));
        }
    }
    let after = before.map(|kept| kept.sequence);
    // Storing components may have taken long.
    fleet.still_runs(proposal.app(), before).await?;
    fleet.store.write(proposal.app(), &revision, after).await?;
    // Another deploy may have collected what was there and named by no revision.
    built.store(&fleet, &signer).await?;
    if let Err(error) = fleet.store.collect().await {
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            "old components are kept"
        );
    }
    let written = Written {
        app: proposal.app(),
        revision: &revision,
        changes: &changes,
    };
    written.wait(&fleet, &args.waiting, terminal).await
}

/// Refuses what answers recorded calls otherwise, unless it is forced; returns a line for each such call.
fn gate_replays(differing: &[Differing], force: bool) -> anyhow::Result<Vec<String>> {
    if differing.is_empty() || force {
        let lines = differing
            .iter()
            .map(|one| format!("a recorded call differs: {}", one.name));
        return Ok(lines.collect());
    }
    let lines: Vec<_> = differing
        .iter()
        .map(|one| format!("\n  {}\n{}", one.name, explain(&one.problems).trim_end()))
        .collect();
    Err(failure(
        format!(
            "it is refused, since recorded calls end otherwise:{}",
            lines.concat()
        ),
        "`wasmbay replay` shows the same; `--force` deploys it all the same",
    ))
}

fn refuse_clashes(clashes: &[Clash]) -> anyhow::Error {
    let lines: Vec<_> = clashes.iter().map(|clash| format!("\n  {clash}")).collect();
    failure(
        format!("two apps would answer the same requests:{}", lines.concat()),
        "give one of them names of its own, `[gateway] hosts = [\"shop.example.com\"]`, or `rpc = false` where the RPC paths are not needed",
    )
}

/// Nothing changes: whatever is wrong with the components in the store is repaired.
async fn again(
    fleet: &Fleet,
    built: &Built,
    signer: &Signer,
    waiting: &Waiting,
    terminal: &Terminal,
) -> anyhow::Result<Exit> {
    let proposal = &built.proposal;
    let Some(before) = &proposal.before else {
        return Ok(Exit::Done);
    };
    let repaired = built.repair(fleet).await?;
    let app = proposal.app();
    let number = before.revision.number;
    terminal.say(format_args!(
        "nothing has changed since revision {number} of {app}"
    ));
    let signed = built.sign(fleet, signer).await?;
    if signed > 0 {
        terminal.say(format_args!("signed {}", count(signed, "component")));
    }
    if repaired > 0 {
        let components = count(repaired, "component");
        terminal.say(format_args!(
            "stored {components} again, whose bytes were not there or others"
        ));
    }
    let mut revision = before.revision.clone();
    if repaired + signed > 0 {
        // So that hosts look again now, and not when they would have tried again.
        let specification = proposal.specification.clone();
        let signed = super::fleet::signed(waiting.message.clone());
        revision = next_in_shares(Some(before), "deploy again", specification, signed);
        let after = Some(before.sequence);
        fleet.store.write(app, &revision, after).await?;
    }
    let written = Written {
        app,
        revision: &revision,
        changes: &[],
    };
    written.wait(fleet, waiting, terminal).await
}

/// Says what a deploy would do; fails if that is nothing, since it would be refused.
fn foretell(
    revision: &Revision,
    changes: &[Change],
    proposal: &Proposal,
    terminal: &Terminal,
) -> anyhow::Result<Exit> {
    let bytes = serde_json::to_vec(revision).map_or(0, |bytes| bytes.len());
    if terminal.json() {
        let mut shown = proposal.json();
        if let Value::Object(shown) = &mut shown {
            let changes: Vec<_> = changes.iter().map(ToString::to_string).collect();
            shown.insert("revision".to_owned(), revision.number.into());
            shown.insert("changes".to_owned(), json!(changes));
            shown.insert("bytes".to_owned(), bytes.into());
        }
        terminal.result_json(&shown)?;
    } else {
        let number = revision.number;
        let mut lines = vec![match proposal.differences.is_empty() {
            true => "nothing would change".to_owned(),
            false => {
                let bytes = size(bytes as u64);
                format!("revision {number} would ({bytes} of specification):")
            }
        }];
        lines.extend(changes.iter().map(|change| format!("  {change}")));
        lines.extend(proposal.lines().iter().map(|line| plain(line)));
        terminal.result(lines.join("\n"))?;
    }
    let refused = proposal.is_refused();
    Ok(if refused { Exit::Failed } else { Exit::Done })
}
