//! `wasmbay hosts`.

use wasmbay::fleet::{HostRecord, Placement, Report, placement_of, services_on, show_hosts};
use wasmbay::manifest::values::size_text;

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
    let fleet = Fleet::reach(&args.nats, None).await?;
    let mut hosts = fleet.store.hosts().await?;
    hosts.sort_by(|one, other| one.name.cmp(&other.name));
    let reports = fleet.store.reports().await?;
    let placement = placement_of(&fleet.store.specified(None).await?, &hosts);
    if terminal.json() {
        terminal.result_json(&show_hosts(&hosts, &placement, &reports))?;
    } else if hosts.is_empty() {
        terminal.result("no host is alive; `wasmbay host` starts one")?;
    } else {
        let head = [
            "HOST", "STATE", "SERVICES", "MEMORY", "GATEWAY", "LABELS", "VERSION", "SINCE",
        ];
        let mut rows = vec![head.map(str::to_owned).to_vec()];
        rows.extend(hosts.iter().map(|host| row(host, &placement, &reports)));
        terminal.result(table(&rows))?;
    }
    Ok(Exit::Done)
}

fn row(host: &HostRecord, placement: &Placement, reports: &[Report]) -> Vec<String> {
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
    let services = services_on(host, reports);
    vec![
        plain(&host.name),
        host.state(services).to_owned(),
        services.to_string(),
        memory(placement.reserved(&host.name), host.capacity),
        dash(plain(host.gateway.as_deref().unwrap_or_default())),
        dash(plain(&labels.join(","))),
        plain(&host.version),
        plain(host.started.split('.').next().unwrap_or_default()),
    ]
}

/// What is reserved of a host's memory.
fn memory(reserved: u64, capacity: Option<u64>) -> String {
    let reserved = size_text(reserved);
    match capacity {
        Some(capacity) => format!("{reserved}/{}", size_text(capacity)),
        None => reserved,
    }
}
