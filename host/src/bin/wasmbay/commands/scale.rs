//! `wasmbay scale`.

use std::str::FromStr;

use wasmbay::manifest::Replicas;
use wasmbay::text::nearest;

use super::fleet::{Fleet, changed, next};
use super::wait::Written;
use crate::args::{Nats, Waiting};
use crate::report::{Exit, Terminal, failure};

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

/// A service of an app, as it is typed.
#[derive(Clone, Debug)]
struct ServiceName {
    app: String,
    service: String,
}

impl FromStr for ServiceName {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('/') {
            Some((app, service)) if !app.is_empty() && !service.is_empty() => Ok(Self {
                app: app.to_owned(),
                service: service.to_owned(),
            }),
            _ => Err("accepted: APP/SERVICE, such as shop/orders"),
        }
    }
}

pub(super) async fn run(args: Scale, terminal: &Terminal) -> anyhow::Result<Exit> {
    let fleet = Fleet::reach(&args.nats).await?;
    let ServiceName { app, service } = &args.service;
    let (before, mut specification) = fleet.deployed(app).await?;
    let names: Vec<_> = specification.app.services.keys().cloned().collect();
    let Some(spec) = specification.app.services.get_mut(service) else {
        let meant = nearest(service, names.iter().map(String::as_str));
        let meant = meant.map(|name| format!("; did you mean `{name}`?"));
        let meant = meant.unwrap_or_default();
        return Err(failure(
            format!("app \"{app}\" has no service \"{service}\"{meant}"),
            format!("there is {}", names.join(", ")),
        ));
    };
    spec.replicas = args.replicas;
    let verb = format!("scale {service} to {}", args.replicas);
    let message = args.waiting.message.clone();
    let revision = next(Some(&before), verb, Some(specification), message);
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
