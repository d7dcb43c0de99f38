//! `wasmbay doctor`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use clap::ValueHint;
use serde_json::json;
use wasmbay::build::{Tool, ToolStatus, Tools, detect, tools_of};
use wasmbay::manifest::{FILE_NAME, Manifest};

use crate::project::manifest_in;
use crate::report::{Exit, STRONG, Terminal, count, plain, table};

/// See which tools are there, and how to get those that are missing
///
/// In the folder of an app, its own languages are what is needed; anywhere else, every tool is.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  wasmbay doctor
  wasmbay doctor examples/shop
  wasmbay doctor --output json | jq -r '.tools[] | select(.path == null) | .install'

Exit codes: 0 everything needed is there, 1 something is missing.")]
pub(crate) struct Doctor {
    /// The app's manifest, or its folder; otherwise wasmbay.toml where there is one
    #[arg(value_hint = ValueHint::FilePath)]
    manifest: Option<PathBuf>,
}

pub(super) fn run(args: Doctor, terminal: &Terminal) -> anyhow::Result<Exit> {
    let manifest = manifest(args.manifest)?;
    let root = manifest.as_ref().map_or(Path::new("."), |read| &read.root);
    let needed = manifest.as_ref().map_or_else(usual, needed);
    // In the order of `Tool::ALL`.
    let tools: Vec<(ToolStatus, bool)> = Tools::near(root)
        .all()
        .into_iter()
        .zip(Tool::ALL)
        .map(|(status, tool)| (status, needed.contains(&tool)))
        .collect();
    let missing = tools
        .iter()
        .filter(|(status, needed)| *needed && status.found.is_none())
        .count();
    let app = manifest.as_ref().map(|read| read.app.name.as_str());
    if terminal.json() {
        let tools: Vec<_> = tools
            .iter()
            .map(|(status, needed)| describe(status, *needed))
            .collect();
        terminal.result_json(&json!({
            "version": env!("CARGO_PKG_VERSION"),
            "app": app,
            "tools": tools,
        }))?;
    } else {
        terminal.result(text(&tools, missing, app))?;
    }
    Ok(if missing == 0 {
        Exit::Done
    } else {
        Exit::Failed
    })
}

/// The manifest that was named, or the one in this folder, if there is one.
fn manifest(named: Option<PathBuf>) -> anyhow::Result<Option<Manifest>> {
    let here = Path::new(FILE_NAME);
    match named {
        Some(named) => Ok(Some(Manifest::load(&manifest_in(&named))?)),
        None if here.is_file() => Ok(Some(Manifest::load(here)?)),
        None => Ok(None),
    }
}

/// What is needed where no app says so.
fn usual() -> BTreeSet<Tool> {
    let tools = Tool::ALL.into_iter();
    tools.filter(|tool| !tool.is_optional()).collect()
}

/// What running this app takes on a machine that has nothing but wasmbay.
fn needed(manifest: &Manifest) -> BTreeSet<Tool> {
    // A folder that is no guest is `check`'s to report.
    let guests = manifest
        .components
        .values()
        .filter(|path| path.is_dir())
        .filter_map(|path| Some(tools_of(path, detect(path).ok()?)));
    guests
        .flat_map(|tools| tools.iter().copied())
        .chain([Tool::NatsServer])
        .collect()
}

fn describe(status: &ToolStatus, needed: bool) -> serde_json::Value {
    let found = status.found.as_ref();
    json!({
        "name": status.name,
        "neededFor": status.needed_for,
        "needed": needed,
        "path": found.map(|(path, _)| path),
        "version": found.map(|(_, version)| version),
        "install": status.install,
    })
}

fn text(tools: &[(ToolStatus, bool)], missing: usize, app: Option<&str>) -> String {
    let mut rows = Vec::new();
    let mut installs = Vec::new();
    for (status, needed) in tools {
        let state = match (&status.found, needed) {
            (Some((_, version)), _) => plain(version),
            (None, true) => "missing".to_owned(),
            (None, false) => "not here, not needed".to_owned(),
        };
        let path = status
            .found
            .as_ref()
            .map(|(path, _)| path.display().to_string());
        rows.push(vec![
            status.name.to_owned(),
            state,
            status.needed_for.to_owned(),
            path.unwrap_or_default(),
        ]);
        if status.found.is_none() && *needed && !installs.contains(&&status.install) {
            installs.push(&status.install);
        }
    }
    let mut text = table(&rows);
    let of = app.map_or_else(String::new, |app| format!(" for {app}"));
    match missing {
        0 => text.push_str(&format!("\n\nEverything{of} is there.")),
        _ => {
            text.push_str(&format!(
                "\n\n{STRONG}{} missing{of}.{STRONG:#} Install what you need by:",
                count(missing, "tool")
            ));
            for install in installs {
                text.push_str(&format!("\n  {install}"));
            }
        }
    }
    text
}
