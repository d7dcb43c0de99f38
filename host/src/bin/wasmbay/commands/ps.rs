//! `wasmbay ps`.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;
use wasmbay::fleet::{
    AllFigures, Figures, Progress, ReplicaState, Revision, Rolling, add_health, figures,
    placement_of, progress, rollout_lines, show_app, sum,
};
use wasmbay::nats::PublishError;

use super::fleet::Fleet;
use super::wait::wrong;
use crate::args::Nats;
use crate::report::{Exit, Terminal, plain, table};

/// Show what a fleet runs: every service, where, in which state, and what is wrong
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  wasmbay ps
  wasmbay ps shop --output json | jq '.apps[].replicas[] | select(.state != \"serving\")'

Exit codes: 0 everything serves, 1 something does not, or there is no such app, 2 wrong usage.")]
pub(crate) struct Ps {
    /// The app; otherwise all
    #[arg(value_name = "APP")]
    app: Option<String>,
    #[command(flatten)]
    nats: Nats,
}

/// An app with how far it is.
struct Shown {
    app: String,
    revision: Revision,
    progress: Progress,
    rolling: Option<Rolling>,
}

pub(super) async fn run(args: Ps, terminal: &Terminal) -> anyhow::Result<Exit> {
    let fleet = Fleet::reach(&args.nats, args.app.as_deref()).await?;
    if let Some(app) = &args.app {
        fleet.deployed(app).await?;
    }
    let (mut apps, mut unread) = (BTreeMap::new(), Vec::new());
    for (app, kept) in fleet.store.each_app().await? {
        match kept {
            Ok(kept) => drop(apps.insert(app, kept)),
            Err(error) => unread.push(format!("{:#}", anyhow::Error::from(error))),
        }
    }
    let link = fleet.link().await?;
    let told = async {
        let hosts = fleet.store.hosts().await?;
        Ok::<_, anyhow::Error>((hosts, fleet.store.reports().await?))
    };
    let (told, figures) = tokio::join!(told, figures(&link));
    let (hosts, reports) = told?;
    let figures: Result<AllFigures, PublishError> = figures;
    let mut figures = figures?;
    add_health(&fleet.optional_link().await?, &mut figures).await;
    let specified = apps.values();
    let specified = specified.filter_map(|kept| kept.revision.specification.as_ref());
    let placement = placement_of(specified.map(|s| &s.app), &hosts);
    apps.retain(|app, _| args.app.as_ref().is_none_or(|only| only == app));
    let mut shown = Vec::new();
    for (app, kept) in apps {
        let progress = progress(&kept.revision, &app, &placement, &hosts, &reports);
        // What was undeployed and has stopped is in the history only.
        if kept.revision.specification.is_none() && progress.leaving.is_empty() {
            continue;
        }
        let rolling = if kept.revision.rollouts().is_empty() {
            None
        } else {
            fleet.store.rolling(&app).await?
        };
        shown.push(Shown {
            app,
            revision: kept.revision,
            progress,
            rolling,
        });
    }
    if terminal.json() {
        let show = |shown: &Shown| {
            let rolling = shown.rolling.as_ref();
            let (app, revision) = (&shown.app, &shown.revision);
            show_app(app, revision, &shown.progress, &figures, rolling)
        };
        let apps: Vec<_> = shown.iter().map(show).collect();
        terminal.result_json(&json!({ "apps": apps, "unread": unread }))?;
    } else if shown.is_empty() && unread.is_empty() {
        terminal.result("nothing is deployed; `wasmbay deploy` deploys an app")?;
    } else {
        terminal.result(text(&shown, &figures, &unread))?;
    }
    let is_well = |shown: &Shown| shown.progress.is_done();
    Ok(if unread.is_empty() && shown.iter().all(is_well) {
        Exit::Done
    } else {
        Exit::Failed
    })
}

fn text(shown: &[Shown], figures: &AllFigures, unread: &[String]) -> String {
    let head = [
        "APP", "REV", "SERVICE", "REPLICAS", "STATE", "HEALTH", "HOSTS", "CALLS", "ERRORS", "SINCE",
    ];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    let mut notes: Vec<_> = unread.iter().map(|line| plain(line)).collect();
    for Shown {
        app,
        revision,
        progress,
        rolling,
    } in shown
    {
        let specification = revision.specification.iter();
        for service in specification.flat_map(|s| s.app.services.keys()) {
            rows.push(row(app, revision.number, service, progress, figures));
            if let Some(health) = sum(figures, app, service, None).health {
                let state = health.state.as_str();
                let why = health.why.iter();
                notes.extend(why.map(|why| format!("{app}/{service} is {state}: {}", plain(why))));
            }
        }
        notes.extend(
            wrong(progress)
                .into_iter()
                .map(|line| format!("{app}/{line}")),
        );
        let rolled = rollout_lines(revision, rolling.as_ref());
        notes.extend(rolled.iter().map(|line| format!("{app}/{}", plain(line))));
        if let Some(outcome) = &revision.outcome {
            notes.push(format!("{app}: {}", plain(&outcome.text())));
        }
        for (host, services) in &progress.leaving {
            let services = services.join(", ");
            notes.push(format!(
                "{app}: {services} on {host} until it runs elsewhere or has ended"
            ));
        }
    }
    let mut text = table(&rows);
    if !notes.is_empty() {
        text = format!("{text}\n\n{}", notes.join("\n"));
    }
    text
}

fn row(
    app: &str,
    revision: u64,
    service: &str,
    progress: &Progress,
    figures: &AllFigures,
) -> Vec<String> {
    let own: Vec<_> = progress
        .replicas
        .iter()
        .filter(|replica| replica.service == service)
        .collect();
    let mut serving = 0;
    let mut states = BTreeSet::new();
    let mut since = "-";
    for replica in &own {
        states.insert(replica.state.as_str());
        if let ReplicaState::Serving(at) = &replica.state {
            serving += 1;
            since = since.max(at.split('.').next().unwrap_or(at));
        }
    }
    if own.is_empty() {
        states.insert("unplaced");
    }
    let states: Vec<_> = states.into_iter().collect();
    let hosts: Vec<_> = own.iter().map(|replica| replica.host.as_str()).collect();
    let hosts = if hosts.is_empty() {
        "-".to_owned()
    } else {
        hosts.join(",")
    };
    let Figures {
        calls,
        errors,
        health,
    } = sum(figures, app, service, None);
    vec![
        app.to_owned(),
        revision.to_string(),
        service.to_owned(),
        format!("{serving}/{}", own.len()),
        states.join(","),
        health
            .map_or("-", |health| health.state.as_str())
            .to_owned(),
        plain(&hosts),
        calls.to_string(),
        errors.to_string(),
        plain(since),
    ]
}
