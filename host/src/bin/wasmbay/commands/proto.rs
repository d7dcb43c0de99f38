//! `wasmbay proto`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::ValueHint;
use wasmbay::grpc::Api;
use wasmbay::host;
use wasmbay::manifest::PROTO_LOCK;

use super::shown;
use crate::args::Cache;
use crate::progress::Progress;
use crate::project::{Project, Workbench, manifest_in};
use crate::registries::Pulling;
use crate::report::{Exit, Terminal, count, failure};

/// Print what an app's gateway serves by gRPC as .proto files
///
/// A service for each interface that has RPC paths, made from its WIT types. A gateway that runs serves the same,
/// with reflection. What needs it is built first.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  wasmbay proto examples/shop
  wasmbay proto --out proto
  wasmbay proto --out proto --check    # in CI
  wasmbay proto --lock

Exit codes: 0 done, 1 something does not build, or is not as it was written, 78 the app is wrong.")]
pub(crate) struct Proto {
    /// The app's manifest, or its folder
    #[arg(default_value = "wasmbay.toml", value_hint = ValueHint::FilePath)]
    manifest: PathBuf,
    /// Write the files below this folder
    #[arg(long, value_name = "FOLDER", value_hint = ValueHint::DirPath)]
    out: Option<PathBuf>,
    /// Write wasmbay.proto-lock beside the manifest: numbers stay when fields are added, moved or removed
    #[arg(long)]
    lock: bool,
    /// Write nothing: fail if a file of --out or wasmbay.proto-lock would change
    #[arg(long)]
    check: bool,
    #[command(flatten)]
    cache: Cache,
    #[command(flatten)]
    pulling: Pulling,
}

/// A file with what it is to have.
struct Wanted {
    path: PathBuf,
    text: String,
}

pub(super) async fn run(args: Proto, terminal: &Terminal) -> anyhow::Result<Exit> {
    let progress = Progress::new(*terminal);
    let pulls = args.pulling.with(&args.cache, &progress);
    let project = Project::load(&manifest_in(&args.manifest), &pulls).await?;
    let engine = args.cache.looking_engine()?;
    let mut bench = Workbench::new(project, engine);
    bench.prepare(&progress).await?;
    let app = &bench.project.app;
    let plan = host::check(app, &bench.components)?;
    let described = bench.components.iter();
    let described = described
        .map(|(name, component)| (name.clone(), component.description()))
        .collect();
    let api = Api::new(app, &plan, &described);
    let mut wanted = Vec::new();
    let lock = bench.project.manifest.with_file_name(PROTO_LOCK);
    if args.lock || args.check && lock.exists() {
        wanted.push(Wanted {
            text: api.lock(&app.proto_lock).to_string(),
            path: lock,
        });
    }
    let protos = api.protos(&described);
    if let Some(out) = &args.out {
        wanted.extend(protos.iter().map(|(path, text)| Wanted {
            path: out.join(path),
            text: text.clone(),
        }));
    }
    if args.check {
        return check(&wanted, terminal);
    }
    if !wanted.is_empty() {
        for file in &wanted {
            write(file)?;
        }
        let written: Vec<_> = wanted.iter().map(|file| shown(&file.path)).collect();
        let files = count(written.len(), "file");
        terminal.say(format_args!("wrote {files}: {}", written.join(", ")));
        return Ok(Exit::Done);
    }
    if terminal.json() {
        terminal.result_json(&serde_json::json!(protos))?;
        return Ok(Exit::Done);
    }
    let texts = protos
        .iter()
        .map(|(path, text)| format!("// {path}\n{text}"));
    let texts: Vec<_> = texts.collect();
    terminal.result(texts.join("\n").trim_end())?;
    Ok(Exit::Done)
}

fn write(file: &Wanted) -> anyhow::Result<()> {
    let folder = file.path.parent().unwrap_or(Path::new(""));
    fs::create_dir_all(folder)
        .and_then(|()| fs::write(&file.path, &file.text))
        .with_context(|| format!("cannot write {}", shown(&file.path)))
}

fn check(wanted: &[Wanted], terminal: &Terminal) -> anyhow::Result<Exit> {
    let is_stale =
        |file: &&Wanted| fs::read_to_string(&file.path).ok().as_deref() != Some(&*file.text);
    let stale: Vec<_> = wanted.iter().filter(is_stale).collect();
    let Some(first) = stale.first() else {
        terminal.say(format_args!(
            "{} as the app has it",
            count(wanted.len(), "file")
        ));
        return Ok(Exit::Done);
    };
    let names: Vec<_> = stale.iter().map(|file| shown(&file.path)).collect();
    let is_lock = first.path.ends_with(PROTO_LOCK);
    let hint = match is_lock {
        true => "`wasmbay proto --lock` writes the numbers of now",
        false => "`wasmbay proto --out FOLDER` writes them anew",
    };
    let why = format!("not as the app has it: {}", names.join(", "));
    Err(failure(why, hint))
}
