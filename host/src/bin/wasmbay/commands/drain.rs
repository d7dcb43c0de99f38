//! `wasmbay drain`.

use std::time::Instant;

use serde_json::json;
use tokio::time::sleep;
use wasmbay::fleet::{DrainRecord, FORMAT, HostRecord, Lack, Report, placement_of, services_on};

use super::fleet::{Fleet, author, now};
use super::wait::LOOK;
use crate::args::{Nats, Waiting};
use crate::report::{Exit, Terminal, count, failure, plain, time};

/// Move everything that a host runs to other hosts, and keep it so
///
/// The host stays in the fleet and runs nothing until `wasmbay uncordon`, also when it is started again.
/// Its services go on until they run elsewhere, so no call is lost. Then waits until it runs nothing.
///
/// Its gateway goes on answering, with services of other hosts, and says at /readyz that requests are
/// better sent elsewhere.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  wasmbay drain b --message 'new disk'
  wasmbay drain b --detach
  wasmbay uncordon b

Exit codes: 0 it runs nothing (or was marked, with --detach), 1 it still does, was refused, or there is no such host, 2 wrong usage.")]
pub(crate) struct Drain {
    /// The host
    #[arg(value_name = "HOST")]
    host: String,
    /// Drain it although services then run nowhere
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    waiting: Waiting,
    #[command(flatten)]
    nats: Nats,
}

pub(super) async fn run(args: Drain, terminal: &Terminal) -> anyhow::Result<Exit> {
    let fleet = Fleet::reach(&args.nats, None).await?;
    let hosts = fleet.store.hosts().await?;
    let Some(host) = hosts.iter().find(|host| host.name == args.host) else {
        return Err(no_host(&args.host, &hosts));
    };
    if !args.force {
        let stranded = stranded(&fleet, &hosts, &host.name).await?;
        if !stranded.is_empty() {
            return Err(failure(
                format!(
                    "without host \"{}\" these run nowhere:{}",
                    host.name,
                    stranded.concat()
                ),
                "start another host that can run them, or `--force`",
            ));
        }
    }
    let record = DrainRecord {
        format: FORMAT,
        host: host.name.clone(),
        author: author(),
        at: now(),
        message: args.waiting.message.clone(),
    };
    fleet.store.drain(&record).await?;
    if args.waiting.detach {
        terminal.say(format_args!(
            "{} is marked as drained; `wasmbay hosts` shows what it still runs",
            host.name
        ));
        return show(&host.name, None, terminal);
    }
    wait(&fleet, &host.name, &args.waiting, terminal).await
}

/// Waits until the host runs nothing.
async fn wait(
    fleet: &Fleet,
    host: &str,
    waiting: &Waiting,
    terminal: &Terminal,
) -> anyhow::Result<Exit> {
    let started = Instant::now();
    loop {
        let hosts = fleet.store.hosts().await?;
        let reports = fleet.store.reports().await?;
        let record = hosts.iter().find(|record| record.name == host);
        let Some(record) = record else {
            terminal.say(format_args!("{host} has left the fleet, and runs nothing"));
            return show(host, Some(0), terminal);
        };
        let services = services_on(record, &reports);
        if record.drained && services == 0 {
            let took = time(started.elapsed());
            terminal.say(format_args!("{host} runs nothing, after {took}"));
            return show(host, Some(0), terminal);
        }
        if started.elapsed() > waiting.timeout {
            let lines = left(record, &reports);
            return Err(failure(
                format!(
                    "host \"{host}\" still runs {} after {}:{}",
                    count(services, "service"),
                    time(waiting.timeout),
                    lines.concat()
                ),
                "it goes on moving them; `wasmbay ps` shows why another host does not serve them yet",
            ));
        }
        sleep(LOOK).await;
    }
}

fn show(host: &str, services: Option<usize>, terminal: &Terminal) -> anyhow::Result<Exit> {
    if terminal.json() {
        terminal.result_json(&json!({ "host": host, "drained": true, "services": services }))?;
    }
    Ok(Exit::Done)
}

/// The services that a host still runs, a line each.
fn left(host: &HostRecord, reports: &[Report]) -> Vec<String> {
    let own = reports
        .iter()
        .filter(|report| report.host == host.name && report.id == host.id);
    let services = own.flat_map(|report| {
        let services = report.services.iter();
        services.map(move |(service, said)| {
            let state = said.state.as_str();
            format!("\n  {}/{}: {state}", plain(&report.app), plain(service))
        })
    });
    services.collect()
}

/// The services that run now and would run nowhere without this host, a line each.
async fn stranded(fleet: &Fleet, hosts: &[HostRecord], host: &str) -> anyhow::Result<Vec<String>> {
    let apps = fleet.store.specified(None).await?;
    let mut others = hosts.to_vec();
    others.retain(|record| record.name != host);
    let (before, after) = (placement_of(&apps, hosts), placement_of(&apps, &others));
    let runs = |(app, service, _): &(&str, &str, &Lack)| {
        let placed = before.of(app, service);
        placed.is_some_and(|placed| !placed.hosts.is_empty())
    };
    let stranded = after.unplaced().filter(runs);
    Ok(stranded
        .map(|(app, service, lack)| format!("\n  {app}/{service}: {lack}"))
        .collect())
}

/// There is no host of this name.
pub(super) fn no_host(host: &str, hosts: &[HostRecord]) -> anyhow::Error {
    let mut names: Vec<_> = hosts.iter().map(|host| plain(&host.name)).collect();
    names.sort();
    let known = if names.is_empty() {
        "`wasmbay host` starts one".to_owned()
    } else {
        format!("there is {}", names.join(", "))
    };
    failure(format!("no host \"{}\" is alive", plain(host)), known)
}
