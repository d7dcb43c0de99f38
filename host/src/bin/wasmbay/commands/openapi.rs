//! `wasmbay openapi`.

use std::path::PathBuf;

use clap::ValueHint;
use wasmbay::host;
use wasmbay::openapi;
use wasmbay::runtime::Engine;

use crate::args::Cache;
use crate::progress::Progress;
use crate::project::{Project, Workbench, manifest_in};
use crate::registries::Pulling;
use crate::report::{Exit, Terminal};

/// Print what an app's gateway serves as OpenAPI
///
/// The document is OpenAPI 3.1: routes and RPC paths, with the schemas of their values. What needs it is built
/// first. A gateway that runs serves the same at /openapi.json.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  wasmbay openapi > openapi.json
  wasmbay openapi examples/shop | npx openapi-typescript -o shop.ts

Exit codes: 0 done, 1 something does not build, 78 the app is wrong.")]
pub(crate) struct OpenApi {
    /// The app's manifest, or its folder
    #[arg(default_value = "wasmbay.toml", value_hint = ValueHint::FilePath)]
    manifest: PathBuf,
    #[command(flatten)]
    cache: Cache,
    #[command(flatten)]
    pulling: Pulling,
}

pub(super) async fn run(args: OpenApi, terminal: &Terminal) -> anyhow::Result<Exit> {
    let progress = Progress::new(*terminal);
    let pulls = args.pulling.with(&args.cache, &progress);
    let project = Project::load(&manifest_in(&args.manifest), &pulls).await?;
    let engine: Engine = args.cache.looking_engine()?;
    let mut bench = Workbench::new(project, engine);
    bench.prepare(&progress).await?;
    let app = &bench.project.app;
    let plan = host::check(app, &bench.components)?;
    let described = bench.components.iter();
    let described = described.map(|(name, component)| (name.clone(), component.description()));
    let document = openapi::document(app, &plan, &described.collect());
    terminal.result_json(&document)?;
    Ok(Exit::Done)
}
