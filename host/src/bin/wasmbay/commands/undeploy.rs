//! `wasmbay undeploy`.

use wasmbay::fleet::{changed, next};

use super::fleet::{Fleet, signed};
use super::wait::Written;
use crate::args::{Nats, Waiting};
use crate::report::{Exit, Terminal};

/// Stop an app on all hosts of a fleet
///
/// Calls under way are finished. The history stays, so `wasmbay rollback APP` deploys the app again; so
/// does what the app has stored in JetStream.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  wasmbay undeploy shop --message 'moved to the other fleet'

Exit codes: 0 it runs nowhere, 1 it does, or there is no such app, 2 wrong usage.")]
pub(crate) struct Undeploy {
    /// The app
    #[arg(value_name = "APP")]
    app: String,
    #[command(flatten)]
    waiting: Waiting,
    #[command(flatten)]
    nats: Nats,
}

pub(super) async fn run(args: Undeploy, terminal: &Terminal) -> anyhow::Result<Exit> {
    let fleet = Fleet::reach(&args.nats, Some(&args.app)).await?;
    let (before, _) = fleet.deployed(&args.app).await?;
    let message = args.waiting.message.clone();
    let revision = next(Some(&before), "undeploy", None, signed(message));
    let changes = changed(Some(&before.revision), &revision);
    let after = Some(before.sequence);
    fleet.store.write(&args.app, &revision, after).await?;
    let written = Written {
        app: &args.app,
        revision: &revision,
        changes: &changes,
    };
    written.wait(&fleet, &args.waiting, terminal).await
}
