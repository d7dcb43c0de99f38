//! One module for each verb.

mod alone;
pub(crate) mod build;
pub(crate) mod call;
pub(crate) mod check;
pub(crate) mod completions;
pub(crate) mod deploy;
pub(crate) mod diff;
mod discover;
pub(crate) mod dlq;
pub(crate) mod doctor;
pub(crate) mod drain;
mod editor;
pub(crate) mod emit;
mod ended;
mod fleet;
pub(crate) mod history;
pub(crate) mod host;
pub(crate) mod hosts;
pub(crate) mod inspect;
pub(crate) mod jobs;
mod kept;
pub(crate) mod logs;
pub(crate) mod man;
pub(crate) mod new;
pub(crate) mod openapi;
mod pretty;
mod proposal;
pub(crate) mod proto;
pub(crate) mod ps;
pub(crate) mod pull;
pub(crate) mod push;
pub(crate) mod record;
pub(crate) mod replay;
pub(crate) mod rollback;
pub(crate) mod runs;
pub(crate) mod scale;
mod server;
pub(crate) mod sign;
mod signals;
pub(crate) mod test;
pub(crate) mod top;
pub(crate) mod trace;
pub(crate) mod uncordon;
pub(crate) mod undeploy;
pub(crate) mod up;
pub(crate) mod update;
mod wait;

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context as _;
use clap::CommandFactory as _;
use wasmbay::runtime::{Engine, EngineOptions};

use crate::args::{Args, Cache, Verb};
use crate::report::{Exit, Terminal};
use crate::{logging, nats};

/// Instances for a verb that makes none: the pool's address space is not worth reserving.
const NO_INSTANCES: u32 = 1;

/// Does what was typed.
pub(crate) async fn run(args: Args, terminal: &Terminal, started: Instant) -> anyhow::Result<Exit> {
    let Some(verb) = args.verb else {
        Args::command().color(args.common.color).print_help()?;
        return Ok(Exit::Done);
    };
    // A host has its own options for its log.
    let verb = match verb {
        Verb::Up(args) => return up::run(args, terminal, started).await,
        Verb::Host(args) => return host::run(args, terminal, started).await,
        other => other,
    };
    logging::start(terminal)?;
    nats::allowed(answer(verb, terminal)).await
}

/// Does what prints a result and ends.
async fn answer(verb: Verb, terminal: &Terminal) -> anyhow::Result<Exit> {
    match verb {
        Verb::Up(_) | Verb::Host(_) => Ok(Exit::Done),
        Verb::Deploy(args) => deploy::run(args, terminal).await,
        Verb::Diff(args) => diff::run(args, terminal).await,
        Verb::Ps(args) => ps::run(args, terminal).await,
        Verb::Hosts(args) => hosts::run(args, terminal).await,
        Verb::Drain(args) => drain::run(args, terminal).await,
        Verb::Uncordon(args) => uncordon::run(args, terminal).await,
        Verb::Scale(args) => scale::run(args, terminal).await,
        Verb::History(args) => history::run(args, terminal).await,
        Verb::Rollback(args) => rollback::run(args, terminal).await,
        Verb::Undeploy(args) => undeploy::run(args, terminal).await,
        Verb::Build(args) => build::run(args, terminal).await,
        Verb::Check(args) => check::run(args, terminal).await,
        Verb::Inspect(args) => inspect::run(args, terminal).await,
        Verb::Push(args) => push::run(args, terminal).await,
        Verb::Pull(args) => pull::run(args, terminal).await,
        Verb::Update(args) => update::run(args, terminal).await,
        Verb::Test(args) => test::run(args, terminal).await,
        Verb::Record(args) => record::run(args, terminal).await,
        Verb::Replay(args) => replay::run(args, terminal).await,
        Verb::Openapi(args) => openapi::run(args, terminal).await,
        Verb::Proto(args) => proto::run(args, terminal).await,
        Verb::Call(args) => call::run(args, terminal).await,
        Verb::Emit(args) => emit::run(args, terminal).await,
        Verb::Dlq(args) => dlq::run(args, terminal).await,
        Verb::Logs(args) => logs::run(args, terminal).await,
        Verb::Runs(args) => runs::run(args, terminal).await,
        Verb::Jobs(args) => jobs::run(args, terminal).await,
        Verb::Top(args) => top::run(args, terminal).await,
        Verb::Trace(args) => trace::run(args, terminal).await,
        Verb::New(args) => new::run(args, terminal),
        Verb::Doctor(args) => doctor::run(args, terminal),
        Verb::Sign(args) => sign::run(&args, terminal),
        Verb::Completions(args) => completions::run(&args),
        Verb::Man(args) => man::run(&args),
    }
}

impl Cache {
    /// The folder, if there is one.
    pub(crate) fn folder(&self) -> Option<PathBuf> {
        let chosen = self.folder.clone();
        chosen.or_else(|| EngineOptions::default().cache)
    }

    /// The engine's options with this cache.
    fn engine(&self, instances: u32) -> EngineOptions {
        EngineOptions {
            instances,
            cache: self.folder(),
        }
    }

    /// An engine for looking at components.
    fn looking_engine(&self) -> anyhow::Result<Engine> {
        Engine::new(self.engine(NO_INSTANCES)).context("the engine")
    }
}

/// A path as it is shorter: from the working directory where that is above it.
fn shown(path: &Path) -> String {
    let here = std::env::current_dir().unwrap_or_default();
    let inside = path
        .strip_prefix(&here)
        .ok()
        .filter(|inside| *inside != Path::new(""));
    let path = inside.unwrap_or(path);
    path.strip_prefix(".").unwrap_or(path).display().to_string()
}
