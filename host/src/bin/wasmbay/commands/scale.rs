//! `wasmbay scale`.

use wasmbay::fleet::{changed, scaled};
use wasmbay::manifest::Replicas;

use super::fleet::{Fleet, ServiceName, no_service, signed};
use super::wait::Written;
use crate::args::{Nats, Waiting};
use crate::report::{Exit, Terminal};

/// Run a service on more or fewer hosts of a fleet
///
/// Writes the next revision of the app. The next `wasmbay deploy` sets what its manifest says.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  wasmbay scale shop/orders 3
  wasmbay scale shop/orders all

Exit codes: 0 it serves so, 1 it does not, or there is no such service, 2 wrong usage.")]
pub(crate) struct Scale {
    /// The app and the service
    #[arg(value_name = "APP/SERVICE")]
    service: ServiceName,
    /// The number of hosts, or `all`
    #[arg(value_name = "N")]
    replicas: Replicas,
    #[command(flatten)]
    waiting: Waiting,
    #[command(flatten)]
    nats: Nats,
}

pub(super) async fn run(args: Scale, terminal: &Terminal) -> anyhow::Result<Exit> {
    let fleet = Fleet::reach(&args.nats, Some(&args.service.app)).await?;
    let ServiceName { app, service } = &args.service;
    let (before, specification) = fleet.deployed(app).await?;
    let signed = signed(args.waiting.message.clone());
    let revision = scaled(&before, service, args.replicas, signed);
    let revision = revision.ok_or_else(|| no_service(&specification.app, service))?;
    let changes = changed(Some(&before.revision), &revision);
    let revision = if changes.is_empty() {
        before.revision
    } else {
        let after = Some(before.sequence);
        fleet.store.write(app, &revision, after).await?;
        revision
    };
    let written = Written {
        app,
        revision: &revision,
        changes: &changes,
    };
    written.wait(&fleet, &args.waiting, terminal).await
}
