//! Files change, the app follows: what is affected is built, loaded and swapped in while the rest
//! runs. What does not build or fit changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde_json::json;
use wasmbay::host::{self, Applied, Host};
use wasmbay::manifest::Digest;

use super::digests;
use crate::progress::Progress;
use crate::project::{Project, Workbench};
use crate::report::{self, Terminal, time};
use crate::watch::Watch;

pub(super) struct Changes<'a> {
    pub(super) bench: Workbench,
    pub(super) host: &'a Host,
    pub(super) terminal: Terminal,
    pub(super) watch: Watch,
    /// The manifest, or what it names, could not be read at the last change.
    pub(super) unreadable: bool,
}

impl Changes<'_> {
    /// Follows changes for as long as it is polled.
    pub(super) async fn follow(mut self) {
        let mut running = digests(&self.bench.components);
        self.watch.follow(&self.bench.project);
        loop {
            let changed = self.watch.changed().await;
            if let Err(error) = self.take_over(&changed, &mut running).await {
                self.refuse(&error);
            }
        }
    }

    fn refuse(&self, error: &anyhow::Error) {
        let reports = report::reports(error).into_iter();
        let errors = reports.flat_map(|report| [report.messages, report.causes].concat());
        let errors: Vec<_> = errors.collect();
        self.terminal
            .event(&json!({ "event": "refused", "errors": errors }));
        report::error(error);
        self.terminal.note("what ran before goes on");
    }

    /// Reads the manifest again if it changed, or what it names; returns whether that was taken over.
    fn reload(&mut self, changed: &BTreeSet<PathBuf>) -> anyhow::Result<bool> {
        let renews = self.watch.renews(changed);
        if !renews && !self.unreadable {
            return Ok(false);
        }
        let loaded = Project::load(&self.bench.project.given);
        self.unreadable = loaded.is_err();
        let project = match loaded {
            Ok(project) => project,
            Err(error) if renews => return Err(error),
            // It was reported, and what runs is followed meanwhile.
            Err(_) => return Ok(false),
        };
        if project.app.gateway != self.bench.project.app.gateway {
            self.terminal
                .note("[gateway] takes effect at the next start");
        }
        self.bench.replace(project);
        Ok(true)
    }

    async fn take_over(
        &mut self,
        changed: &BTreeSet<PathBuf>,
        running: &mut BTreeMap<String, Digest>,
    ) -> anyhow::Result<()> {
        let started = Instant::now();
        // Before anything is read, so that what changes from now on is another change, and also when
        // reading fails.
        self.watch.follow(&self.bench.project);
        let renewed = self.reload(changed)?;
        let touched = self.bench.touch(changed);
        // The same before building.
        self.watch.follow(&self.bench.project);
        if !renewed && !touched {
            return Ok(());
        }
        let building = self
            .bench
            .prepare(&Progress::beginnings(self.terminal))
            .await?;
        let Workbench {
            project,
            components,
            ..
        } = &self.bench;
        let refused = "the change cannot be taken over";
        let specification = host::specify(&project.app, components).context(refused)?;
        let applied = self.host.apply(&specification, components).await;
        let applied = applied.context(refused)?;
        let now = digests(components);
        let swap = Swap {
            applied: &applied,
            old: running,
            new: &now,
            took: started.elapsed(),
            building,
        };
        swap.tell(&self.terminal, self.watch.is_manifest(changed));
        *running = now;
        Ok(())
    }
}

/// What a change did.
struct Swap<'a> {
    applied: &'a Applied,
    old: &'a BTreeMap<String, Digest>,
    new: &'a BTreeMap<String, Digest>,
    took: Duration,
    building: Duration,
}

impl Swap<'_> {
    fn tell(&self, terminal: &Terminal, renewed: bool) {
        let Applied {
            started,
            replaced,
            stopped,
            ..
        } = self.applied;
        if terminal.json() {
            if renewed || !self.applied.is_nothing() {
                terminal.event(&json!({
                    "event": "applied",
                    "started": started,
                    "replaced": replaced,
                    "stopped": stopped,
                    "digests": self.new,
                    "seconds": self.took.as_secs_f64(),
                    "buildSeconds": self.building.as_secs_f64(),
                }));
            }
            return;
        }
        let took = format!("in {} (build {})", time(self.took), time(self.building));
        let digest = |of: &BTreeMap<String, Digest>, name: &String| {
            of.get(name)
                .map(|digest| digest.short().to_owned())
                .unwrap_or_default()
        };
        for name in replaced {
            let (old, new) = (digest(self.old, name), digest(self.new, name));
            if old == new {
                terminal.say(format_args!("reconfigured {name} {took}"));
            } else {
                terminal.say(format_args!("swapped {name} {old} → {new} {took}"));
            }
        }
        for name in started {
            terminal.say(format_args!(
                "started {name} {} {took}",
                digest(self.new, name)
            ));
        }
        for name in stopped {
            terminal.say(format_args!("stopped {name}"));
        }
        if renewed && self.applied.is_nothing() {
            terminal.say(format_args!("took over the manifest {took}"));
        }
    }
}
