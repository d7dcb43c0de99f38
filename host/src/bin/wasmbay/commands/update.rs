//! `wasmbay update`.

use std::collections::BTreeSet;
use std::path::PathBuf;

use clap::ValueHint;
use serde_json::json;
use wasmbay::manifest::{Digest, LOCK, Manifest, Reference};

use super::shown;
use crate::args::Cache;
use crate::progress::Progress;
use crate::project::manifest_in;
use crate::registries::{Reach, Update};
use crate::report::{Exit, Terminal, failure, plain};

/// Look up the tags of an app's components again
///
/// Writes into wasmbay.lock what they stand for now, and says what has changed. An app that runs by `wasmbay up`
/// follows.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  wasmbay update
  wasmbay update examples/shop --service payment
  wasmbay update --dry-run --output json | jq '.updated[].reference'")]
pub(crate) struct UpdateArgs {
    /// The app's manifest, or its folder
    #[arg(default_value = "wasmbay.toml", value_hint = ValueHint::FilePath)]
    manifest: PathBuf,
    /// Only the component of this service; may be given several times
    #[arg(long = "service", value_name = "NAME")]
    services: Vec<String>,
    /// Only say what would change
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    cache: Cache,
    #[command(flatten)]
    reach: Reach,
}

pub(super) async fn run(args: UpdateArgs, terminal: &Terminal) -> anyhow::Result<Exit> {
    let path = manifest_in(&args.manifest);
    let read = Manifest::load(&path)?;
    let chosen = chosen(&read, &args.services)?;
    let pulls = args.reach.with(&args.cache, &Progress::new(*terminal));
    let (lock, updates) = pulls.update(&path, &read, &chosen).await?;
    if !args.dry_run {
        lock.write(&path)?;
    }
    let lock = path.with_file_name(LOCK);
    if terminal.json() {
        let text = |digest: &Digest| format!("sha256:{digest}");
        let updated = updates.iter().map(|update| {
            json!({
                "reference": update.reference,
                "from": update.from.as_ref().map(text),
                "to": text(&update.to),
            })
        });
        let updated: Vec<_> = updated.collect();
        terminal.result_json(&json!({ "lock": lock, "updated": updated }))?;
    } else if updates.is_empty() {
        terminal.say("nothing has changed");
    } else {
        let lines: Vec<_> = updates.iter().map(line).collect();
        terminal.result(lines.join("\n"))?;
        if !args.dry_run {
            terminal.note(format_args!("wrote {}", shown(&lock)));
        }
    }
    Ok(Exit::Done)
}

fn line(update: &Update) -> String {
    let Update {
        reference,
        from,
        to,
    } = update;
    match from {
        Some(from) => format!("{reference}: {} → {}", from.short(), to.short()),
        None => format!("{reference}: {} (new)", to.short()),
    }
}

/// The references of these services, or of all.
fn chosen<'r>(read: &'r Manifest, services: &[String]) -> anyhow::Result<BTreeSet<&'r Reference>> {
    if services.is_empty() {
        return Ok(read.references.values().collect());
    }
    let of = |name: &String| {
        let found = read.references.get(name);
        found.ok_or_else(|| {
            let why = match read.app.services.contains_key(name) {
                true => "has its component here and not in a registry",
                false => "is not in the manifest",
            };
            let names: Vec<_> = read.references.keys().map(String::as_str).collect();
            failure(
                format!("service \"{}\" {why}", plain(name)),
                match names.is_empty() {
                    true => "no service has its component in a registry".to_owned(),
                    false => format!("those with one in a registry are {}", names.join(", ")),
                },
            )
        })
    };
    services.iter().map(of).collect()
}
