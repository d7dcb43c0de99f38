//! Files change, the app follows: what is affected is built, loaded and swapped in while the rest
//! runs. What does not build or fit changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde_json::{Value, json};
use wasmbay::fleet::Revision;
use wasmbay::host::{self, Applied, Host, StepError, Told};
use wasmbay::manifest::Digest;

use super::digests;
use super::revisions::Revisions;
use crate::progress::Progress;
use crate::project::{Project, Workbench};
use crate::registries::Pulls;
use crate::report::{self, Terminal, plain, time};
use crate::watch::Watch;

/// How a change gets to what runs.
pub(super) enum Way<'a> {
    /// It is applied here.
    Host(&'a Host),
    /// As a revision, beside those that others write.
    Revisions(Box<Revisions>),
}

pub(super) struct Changes {
    pub(super) bench: Workbench,
    terminal: Terminal,
    pulls: Pulls,
    /// Nothing is watched without it.
    watch: Option<Watch>,
    /// The manifest, or what it names, could not be read at the last change.
    unreadable: bool,
    /// The components that run.
    running: BTreeMap<String, Digest>,
    /// What was last told to be wrong with a revision that someone else wrote, or that is tried again.
    told: Option<String>,
}

impl Changes {
    pub(super) fn new(
        bench: Workbench,
        terminal: Terminal,
        watch: Option<Watch>,
        pulls: Pulls,
    ) -> Self {
        Self {
            running: digests(&bench.components),
            bench,
            terminal,
            pulls: pulls.showing(Progress::beginnings(terminal)),
            watch,
            unreadable: false,
            told: None,
        }
    }

    /// Follows changes for as long as it is polled.
    pub(super) async fn follow(&mut self, mut way: Way<'_>) {
        if let Some(watch) = &mut self.watch {
            watch.follow(&self.bench.project);
        }
        loop {
            let changed = self.next(&mut way).await;
            if let Err(error) = self.take_over(&changed, &mut way).await {
                self.refuse(&error);
            }
        }
    }

    /// Waits for files that change, and says meanwhile what else becomes of the app.
    async fn next(&mut self, way: &mut Way<'_>) -> BTreeSet<PathBuf> {
        let mut watch = self.watch.take();
        let changed = {
            let changing = async {
                match &mut watch {
                    Some(watch) => watch.changed().await,
                    None => std::future::pending().await,
                }
            };
            // Files that have changed are forgotten when it is dropped.
            let mut changing = std::pin::pin!(changing);
            loop {
                let Way::Revisions(revisions) = way else {
                    break changing.await;
                };
                tokio::select! {
                    changed = &mut changing => break changed,
                    told = revisions.told() => self.say(told, &mut revisions.last),
                }
            }
        };
        self.watch = watch;
        changed
    }

    /// Says what has become of the app without a change of files.
    fn say(&mut self, told: Told, last: &mut u64) {
        let (revision, result) = match told {
            Told::Step { revision, result } => (revision, result),
            Told::Stopped => {
                let app = &self.bench.project.app.name;
                self.terminal.event(&json!({ "event": "undeployed" }));
                self.terminal.say(format_args!(
                    "{app} was undeployed; `wasmbay rollback {app}` or a change of its files starts it again"
                ));
                self.running.clear();
                return;
            }
        };
        let mut failed = BTreeSet::new();
        let is_new = std::mem::replace(last, revision.number) != revision.number;
        let applied = match result {
            Ok(mut applied) => {
                failed.extend(applied.failed.keys().cloned());
                let wrong = applied.failed.pop_first();
                match wrong.or_else(|| applied.refused.pop_first()) {
                    Some((_, error)) => self.refuse_again(&revision, error.into()),
                    None => self.told = None,
                }
                applied
            }
            Err(error) => {
                let error = match error {
                    StepError::Host(error) => error.into(),
                    error @ StepError::Store(_) => error.into(),
                };
                return self.refuse_again(&revision, error);
            }
        };
        let specification = revision.specification.as_ref();
        let now = specification.map(|specification| specification.components.clone());
        let mut now = now.unwrap_or_default();
        for service in failed {
            match self.running.get(&service) {
                Some(before) => drop(now.insert(service, before.clone())),
                None => drop(now.remove(&service)),
            }
        }
        if is_new || !applied.is_nothing() {
            Swap {
                applied: &applied,
                old: &self.running,
                new: &now,
                how: How::Revision(&revision),
            }
            .tell(&self.terminal, is_new);
        }
        self.running = now;
    }

    /// What is tried again is told once.
    fn refuse_again(&mut self, revision: &Revision, error: anyhow::Error) {
        let text = told(revision.number, &error);
        if self.told.as_ref() != Some(&text) {
            self.refuse(&error.context(format!("revision {}", revision.number)));
            self.told = Some(text);
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
    async fn reload(&mut self, changed: &BTreeSet<PathBuf>) -> anyhow::Result<bool> {
        let watch = self.watch.as_ref();
        let renews = watch.is_some_and(|watch| watch.renews(changed));
        if !renews && !self.unreadable {
            return Ok(false);
        }
        let loaded = Project::load(&self.bench.project.given, &self.pulls).await;
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
        way: &mut Way<'_>,
    ) -> anyhow::Result<()> {
        let started = Instant::now();
        // Before anything is read, so that what changes from now on is another change, and also when
        // reading fails.
        self.follow_project();
        let renewed = self.reload(changed).await?;
        let touched = self.bench.touch(changed);
        // The same before building.
        self.follow_project();
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
        let applied = match way {
            Way::Host(host) => {
                let applied = host.apply(&specification, components).await;
                applied.context(refused)?
            }
            Way::Revisions(revisions) => {
                let applied = revisions.take_over(&self.bench, &specification).await;
                let told = |error: &_| self.told = Some(told(revisions.last, error));
                applied.inspect_err(told).context(refused)?
            }
        };
        let now = digests(components);
        let swap = Swap {
            applied: &applied,
            old: &self.running,
            new: &now,
            how: How::Files {
                took: started.elapsed(),
                building,
            },
        };
        let watch = self.watch.as_ref();
        let renewed = watch.is_some_and(|watch| watch.is_manifest(changed));
        swap.tell(&self.terminal, renewed);
        self.running = now;
        self.told = None;
        Ok(())
    }

    fn follow_project(&mut self) {
        if let Some(watch) = &mut self.watch {
            watch.follow(&self.bench.project);
        }
    }
}

/// What is told of a revision that does not run.
fn told(number: u64, error: &anyhow::Error) -> String {
    format!("{number} {error:#}")
}

/// What a change did.
struct Swap<'a> {
    applied: &'a Applied,
    old: &'a BTreeMap<String, Digest>,
    new: &'a BTreeMap<String, Digest>,
    how: How<'a>,
}

/// How it came to a change.
enum How<'a> {
    /// Files changed; the time for all of it, and that for building.
    Files { took: Duration, building: Duration },
    /// Someone wrote a revision.
    Revision(&'a Revision),
}

impl How<'_> {
    fn text(&self) -> String {
        match self {
            Self::Files { took, building } => {
                format!("in {} (build {})", time(*took), time(*building))
            }
            Self::Revision(revision) => {
                let (verb, author) = (plain(&revision.verb), plain(&revision.author));
                format!("(revision {}: {verb} by {author})", revision.number)
            }
        }
    }

    fn json(&self) -> Value {
        match self {
            Self::Files { took, building } => json!({
                "seconds": took.as_secs_f64(),
                "buildSeconds": building.as_secs_f64(),
            }),
            Self::Revision(revision) => json!({
                "revision": revision.number,
                "verb": revision.verb,
                "author": revision.author,
            }),
        }
    }
}

impl Swap<'_> {
    fn tell(&self, terminal: &Terminal, renewed: bool) {
        let Applied {
            started,
            replaced,
            shared,
            stopped,
            ..
        } = self.applied;
        if terminal.json() {
            if renewed || !self.applied.is_nothing() {
                let mut event = json!({
                    "event": "applied",
                    "started": started,
                    "replaced": replaced,
                    "shared": shared,
                    "stopped": stopped,
                    "digests": self.new,
                });
                if let (Value::Object(event), Value::Object(how)) = (&mut event, self.how.json()) {
                    event.extend(how);
                }
                terminal.event(&event);
            }
            return;
        }
        let took = self.how.text();
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
        for name in shared {
            let (old, new) = (digest(self.old, name), digest(self.new, name));
            terminal.say(format_args!("a share for {name} {new} beside {old} {took}"));
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
            let what = match self.how {
                How::Files { .. } => "took over the manifest",
                How::Revision(_) => "nothing changes here",
            };
            terminal.say(format_args!("{what} {took}"));
        }
    }
}
