//! `wasmbay build`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use clap::ValueHint;
use serde_json::json;
use wasmbay::build::Guest;
use wasmbay::manifest::FILE_NAME;

use super::shown;
use crate::args::Cache;
use crate::progress::Progress;
use crate::project::{Built, Job, Project, build};
use crate::registries::{Pulling, Pulls};
use crate::report::{self, Exit, Terminal, all_of};

/// Build guests
///
/// Builds folders of guests, or all that a manifest names. Nothing is built that has not changed. What a manifest has
/// in registries is fetched.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  wasmbay build                      build every folder of this folder's app
  wasmbay build guests/go/payment guests/c/notifications
  wasmbay build --output json examples/shop")]
pub(crate) struct Build {
    /// Guests' folders, manifests, or folders with a manifest
    #[arg(value_name = "PATH", default_value = "wasmbay.toml", value_hint = ValueHint::AnyPath)]
    paths: Vec<PathBuf>,
    #[command(flatten)]
    cache: Cache,
    #[command(flatten)]
    pulling: Pulling,
}

pub(super) async fn run(args: Build, terminal: &Terminal) -> anyhow::Result<Exit> {
    let progress = Progress::new(*terminal);
    let pulls = args.pulling.with(&args.cache, &progress);
    let mut jobs = Vec::new();
    let mut errors = Vec::new();
    for path in &args.paths {
        match jobs_of(path, &pulls).await {
            Ok(found) => jobs.extend(found),
            Err(error) => errors.push(error),
        }
    }
    let mut seen = BTreeSet::new();
    jobs.retain(|job| seen.insert(job.guest.folder.clone()));
    // Nothing is built from a wrong command line.
    all_of((), std::mem::take(&mut errors))?;
    if jobs.is_empty() {
        terminal.say("nothing to build: every service is a file");
    }

    let (built, errors) = build(jobs, &progress);
    if terminal.json() {
        let all: Vec<_> = built.iter().map(describe).collect();
        terminal.result_json(&json!(all))?;
    } else if !terminal.quiet && !built.is_empty() {
        terminal.result(report::table(&built.iter().map(row).collect::<Vec<_>>()))?;
    }
    all_of(Exit::Done, errors)
}

/// A folder with a manifest is an app, another folder a guest, a file a manifest.
async fn jobs_of(path: &Path, pulls: &Pulls) -> anyhow::Result<Vec<Job>> {
    if path.is_dir() && !path.join(FILE_NAME).is_file() {
        let guest = Guest::open(path)?;
        let name = guest
            .folder
            .file_name()
            .map(|name| name.to_string_lossy().into_owned());
        return Ok(vec![Job {
            name: name.unwrap_or_else(|| guest.world.clone()),
            root: guest.folder.clone(),
            guest,
        }]);
    }
    Ok(Project::load(path, pulls).await?.jobs(None))
}

fn file_size(built: &Built) -> u64 {
    std::fs::metadata(&built.file).map_or(0, |file| file.len())
}

fn row(built: &Built) -> Vec<String> {
    let time = if built.fresh {
        report::time(built.time)
    } else {
        "up to date".to_owned()
    };
    let size = report::size(file_size(built));
    vec![
        built.name.clone(),
        built.guest.language.to_string(),
        size,
        time,
        shown(&built.file),
    ]
}

fn describe(built: &Built) -> serde_json::Value {
    json!({
        "name": built.name,
        "language": built.guest.language.to_string(),
        "folder": built.guest.folder,
        "component": built.file,
        "size": file_size(built),
        "built": built.fresh,
        "seconds": built.time.as_secs_f64(),
    })
}
