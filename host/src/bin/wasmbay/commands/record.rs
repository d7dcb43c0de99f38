//! `wasmbay record`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::ValueHint;
use serde_json::json;
use tokio::time::Instant;
use wasmbay::cases::CasesFile;
use wasmbay::insight;

use super::fleet::ServiceName;
use super::shown;
use super::trace::reached;
use crate::args::{Nats, WhichApp, duration};
use crate::report::{Exit, Terminal, count, failure, plain};

/// The pause between two looks at what hosts have kept.
const PAUSE: Duration = Duration::from_millis(500);

/// Record calls of a running service, with what answered its imports
///
/// Asks the hosts that run it for the calls that end meanwhile, and writes them as contract cases, which
/// `wasmbay replay` runs against another version. Values that the manifest calls `secret` are `***`.
/// Nothing is slower while nothing is recorded.
///
/// Without --nats, the app of this folder, or of one above it, has to run, or a fleet on this machine.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  wasmbay record shop/payment --for 1m
  wasmbay record shop/orders --calls 20 --out tests/orders/recorded.json

Exit codes: 0 done, 1 no host runs the service, or no call came, 2 wrong usage.")]
pub(crate) struct Record {
    /// The app and the service
    #[arg(value_name = "APP/SERVICE")]
    service: ServiceName,
    /// For how long; Ctrl-C ends it before
    #[arg(long = "for", value_name = "TIME", default_value = "1m", value_parser = duration)]
    time: Duration,
    /// End with so many calls
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    calls: u32,
    /// The file that is written; otherwise SERVICE-recording.json
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    out: Option<PathBuf>,
    #[command(flatten)]
    nats: Nats,
}

pub(super) async fn run(args: Record, terminal: &Terminal) -> anyhow::Result<Exit> {
    let ServiceName { app, service } = args.service;
    let out = args
        .out
        .unwrap_or_else(|| format!("{service}-recording.json").into());
    if out.exists() {
        return Err(failure(
            format!("{} is there already", shown(&out)),
            "`--out FILE` names another one",
        ));
    }
    let which = WhichApp {
        app: Some(app.clone()),
        nats: args.nats,
    };
    let (link, _) = reached(&which, "wasmbay record").await?;
    let most = usize::try_from(args.calls).unwrap_or(usize::MAX);
    let end = Instant::now() + args.time;
    let (mut cases, mut hosts) = (Vec::new(), BTreeSet::new());
    let mut left_out: BTreeMap<String, u64> = BTreeMap::new();
    let mut over = false;
    loop {
        let parts = insight::record(&link, &app, &service).await?;
        for part in parts {
            if hosts.insert(part.host.clone()) {
                terminal.note(format_args!(
                    "recording {app}/{service} on {}",
                    plain(&part.host)
                ));
            }
            cases.extend(part.cases);
            for (why, number) in part.left_out {
                *left_out.entry(why).or_default() += number;
            }
        }
        if hosts.is_empty() {
            return Err(failure(
                format!("no host answers that runs service \"{service}\" of app \"{app}\""),
                "`wasmbay ps` shows what runs",
            ));
        }
        if over || cases.len() >= most {
            break;
        }
        over = tokio::select! {
            () = tokio::time::sleep_until(end.min(Instant::now() + PAUSE)) => Instant::now() >= end,
            _ = tokio::signal::ctrl_c() => true,
        };
    }
    cases.truncate(most);
    for (why, number) in &left_out {
        let calls = count(usize::try_from(*number).unwrap_or(usize::MAX), "call");
        terminal.note(format_args!("left out {calls}: {}", plain(why)));
    }
    if cases.is_empty() {
        return Err(failure(
            format!("no call of {app}/{service} ended that can be kept"),
            "`--for 10m` waits longer",
        ));
    }
    let calls = cases.len();
    let file = CasesFile {
        service: Some(service.clone()),
        cases,
        ..CasesFile::default()
    };
    let mut text = serde_json::to_vec_pretty(&file)?;
    text.push(b'\n');
    // It may have come into being meanwhile.
    let written = File::create_new(&out).and_then(|mut file| file.write_all(&text));
    written.with_context(|| format!("cannot write {}", shown(&out)))?;
    if terminal.json() {
        terminal.result_json(&json!({ "file": out, "calls": calls, "leftOut": left_out }))?;
    }
    terminal.say(format_args!(
        "recorded {} of {app}/{service} in {}",
        count(calls, "call"),
        shown(&out)
    ));
    Ok(Exit::Done)
}
