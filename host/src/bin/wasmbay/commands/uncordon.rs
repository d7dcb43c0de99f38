//! `wasmbay uncordon`.

use std::time::Instant;

use serde_json::json;
use tokio::time::sleep;
use wasmbay::fleet::is_host_name;

use super::drain::no_host;
use super::fleet::Fleet;
use super::wait::LOOK;
use crate::args::{Nats, duration};
use crate::report::{Exit, Terminal, failure, time};

/// Have a host take services again that was drained
///
/// It gets its part of what runs. A service that moves is stopped where it was when it serves here.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  wasmbay uncordon b

Exit codes: 0 it takes services again, 1 it does not say so, or there is no such host, 2 wrong usage.")]
pub(crate) struct Uncordon {
    /// The host
    #[arg(value_name = "HOST")]
    host: String,
    /// How long to wait until it says so
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration)]
    timeout: std::time::Duration,
    #[command(flatten)]
    nats: Nats,
}

pub(super) async fn run(args: Uncordon, terminal: &Terminal) -> anyhow::Result<Exit> {
    let Uncordon { host, timeout, .. } = &args;
    let fleet = Fleet::reach(&args.nats, None).await?;
    // No other text can be a name, and some are no keys.
    let was_drained = is_host_name(host) && fleet.store.undrain(host).await?;
    let started = Instant::now();
    loop {
        let hosts = fleet.store.hosts().await?;
        let record = hosts.iter().find(|record| record.name == *host);
        match record {
            None if !was_drained => return Err(no_host(host, &hosts)),
            None => {
                terminal.say(format_args!(
                    "{host} is not there, and takes services when it is started"
                ));
                break;
            }
            Some(record) if !record.drained => {
                terminal.say(format_args!("{host} takes services"));
                break;
            }
            Some(_) if started.elapsed() > *timeout => {
                return Err(failure(
                    format!(
                        "host \"{host}\" has not said within {} that it takes services",
                        time(*timeout)
                    ),
                    "the mark is gone; the host follows when it sees that, `wasmbay hosts` shows it",
                ));
            }
            Some(_) => sleep(LOOK).await,
        }
    }
    if terminal.json() {
        terminal
            .result_json(&json!({ "host": host, "drained": false, "wasDrained": was_drained }))?;
    }
    Ok(Exit::Done)
}
