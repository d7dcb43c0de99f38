//! `wasmbay rollback`.

use wasmbay::fleet::Revision;
use wasmbay::manifest::Specification;

use super::fleet::{Fleet, changed, gate, next};
use super::wait::Written;
use crate::args::{Nats, Waiting};
use crate::report::{Exit, Terminal, failure};

/// Go back to an earlier revision of an app
///
/// Writes what that revision specified as the next one. As with deploy, what would break the services
/// and clients of the revision that runs is refused.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  wasmbay rollback shop              to what ran before the last change
  wasmbay rollback shop --to 7

Exit codes: 0 it serves, 1 it does not, was refused, or there is no such revision, 2 wrong usage.")]
pub(crate) struct Rollback {
    /// The app
    #[arg(value_name = "APP")]
    app: String,
    /// The revision; otherwise the last one that is another than the one of now
    #[arg(long, value_name = "REV")]
    to: Option<u64>,
    /// Go back although it breaks what runs; what breaks is written into the history
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    waiting: Waiting,
    #[command(flatten)]
    nats: Nats,
}

pub(super) async fn run(args: Rollback, terminal: &Terminal) -> anyhow::Result<Exit> {
    let fleet = Fleet::reach(&args.nats, Some(&args.app)).await?;
    let before = fleet.app(&args.app).await?;
    let history = fleet.store.history(&args.app).await?;
    let (number, specification) = target(&history, &before.revision, args.to)?;
    let verb = format!("rollback to {number}");
    let message = args.waiting.message.clone();
    let mut revision = next(Some(&before), verb, Some(specification.clone()), message);
    let changes = changed(Some(&before.revision), &revision);
    if let Some(running) = &before.revision.specification {
        let described = fleet.store.descriptions(&specification.components).await?;
        let breaks = fleet.breaks(running, specification, &described).await?;
        revision.forced = gate(&breaks, args.force)?;
    }
    let revision = if changes.is_empty() {
        before.revision
    } else {
        let after = Some(before.sequence);
        fleet.store.write(&args.app, &revision, after).await?;
        revision
    };
    let written = Written {
        app: &args.app,
        revision: &revision,
        changes: &changes,
    };
    written.wait(&fleet, &args.waiting, terminal).await
}

/// The revision to go back to.
fn target<'a>(
    history: &'a [Revision],
    now: &Revision,
    to: Option<u64>,
) -> anyhow::Result<(u64, &'a Specification)> {
    let of = |revision: &'a Revision| Some((revision.number, revision.specification.as_ref()?));
    let Some(to) = to else {
        let mut earlier = history.iter().rev().filter(|one| one.number < now.number);
        let other = earlier
            .find(|one| one.specification.is_some() && one.specification != now.specification);
        return other.and_then(of).ok_or_else(|| {
            failure(
                "there is no earlier revision to go back to",
                "`wasmbay history APP` shows those that are kept",
            )
        });
    };
    let found = history.iter().find(|one| one.number == to);
    match found.map(of) {
        Some(Some(found)) => Ok(found),
        Some(None) => Err(failure(
            format!("revision {to} is that the app was undeployed"),
            "`wasmbay undeploy APP` does that",
        )),
        None => {
            let kept: Vec<_> = history.iter().map(|one| one.number.to_string()).collect();
            Err(failure(
                format!("revision {to} is not kept"),
                format!("there is {}", kept.join(", ")),
            ))
        }
    }
}
