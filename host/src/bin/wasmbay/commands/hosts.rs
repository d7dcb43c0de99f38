//! `wasmbay hosts`.

use serde_json::json;
use wasmbay::fleet::{HostRecord, Report};

use super::fleet::Fleet;
use crate::args::Nats;
use crate::report::{Exit, Terminal, plain, table};

/// List the hosts of a fleet that are alive
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  wasmbay hosts
  wasmbay hosts --output json | jq -r '.hosts[].name'

Exit codes: 0 done, 1 the fleet cannot be reached, 2 wrong usage.")]
pub(crate) struct Hosts {
    #[command(flatten)]
    nats: Nats,
}

pub(super) async fn run(args: Hosts, terminal: &Terminal) -> anyhow::Result<Exit> {
    let fleet = Fleet::reach(&args.nats).await?;
    let mut hosts = fleet.store.hosts().await?;
    hosts.sort_by(|one, other| one.name.cmp(&other.name));
    let reports = fleet.store.reports().await?;
    if terminal.json() {
        let hosts: Vec<_> = hosts.iter().map(|host| describe(host, &reports)).collect();
        terminal.result_json(&json!({ "hosts": hosts }))?;
    } else if hosts.is_empty() {
        terminal.result("no host is alive; `wasmbay host` starts one")?;
    } else {
        let head = [
            "HOST", "STATE", "SERVICES", "GATEWAY", "LABELS", "VERSION", "SINCE",
        ];
        let mut rows = vec![head.map(str::to_owned).to_vec()];
        rows.extend(hosts.iter().map(|host| row(host, &reports)));
        terminal.result(table(&rows))?;
    }
    Ok(Exit::Done)
}

/// The services on a host.
fn services(host: &HostRecord, reports: &[Report]) -> usize {
    let own = reports
        .iter()
        .filter(|report| report.host == host.name && report.id == host.id);
    own.map(|report| report.services.len()).sum()
}

fn state(host: &HostRecord) -> &'static str {
    if host.leaving { "leaving" } else { "alive" }
}

fn describe(host: &HostRecord, reports: &[Report]) -> serde_json::Value {
    json!({
        "name": host.name,
        "state": state(host),
        "services": services(host, reports),
        "gateway": host.gateway,
        "labels": host.labels,
        "version": host.version,
        "since": host.started,
    })
}

fn row(host: &HostRecord, reports: &[Report]) -> Vec<String> {
    let labels = host
        .labels
        .iter()
        .map(|(key, value)| format!("{key}={value}"));
    let labels: Vec<_> = labels.collect();
    let dash = |text: String| {
        if text.is_empty() {
            "-".to_owned()
        } else {
            text
        }
    };
    vec![
        plain(&host.name),
        state(host).to_owned(),
        services(host, reports).to_string(),
        dash(plain(host.gateway.as_deref().unwrap_or_default())),
        dash(plain(&labels.join(","))),
        plain(&host.version),
        plain(host.started.split('.').next().unwrap_or_default()),
    ]
}
