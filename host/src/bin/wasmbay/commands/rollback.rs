//! `wasmbay rollback`.

use wasmbay::fleet::{NoTarget, breaks_of, changed, next, target};

use super::fleet::{Fleet, gate, signed};
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
    let (number, specification) =
        target(&history, &before.revision, args.to).map_err(|none| nowhere(&none))?;
    let verb = format!("rollback to {number}");
    let message = args.waiting.message.clone();
    let mut revision = next(
        Some(&before),
        verb,
        Some(specification.clone()),
        signed(message),
    );
    let changes = changed(Some(&before.revision), &revision);
    if let Some(running) = &before.revision.specification {
        let described = fleet.store.descriptions(&specification.components).await?;
        let breaks = breaks_of(&fleet.store, running, specification, &described).await?;
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

/// There is no revision to go back to.
fn nowhere(none: &NoTarget) -> anyhow::Error {
    let hint = match none {
        NoTarget::Earlier => "`wasmbay history APP` shows those that are kept".to_owned(),
        NoTarget::Undeployed(_) => "`wasmbay undeploy APP` does that".to_owned(),
        NoTarget::NotKept { kept, .. } => {
            let kept: Vec<_> = kept.iter().map(ToString::to_string).collect();
            format!("there is {}", kept.join(", "))
        }
    };
    failure(none.to_string(), hint)
}
