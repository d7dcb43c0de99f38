//! Waiting until a revision has arrived on all hosts, and saying what is wrong if it does not.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::time::sleep;
use wasmbay::fleet::{
    Change, HostRecord, Outcome, Progress, ReplicaState, Revision, placement_of, progress,
    show_lacks, show_outcome, show_replicas,
};

use super::fleet::Fleet;
use crate::args::Waiting;
use crate::report::{Exit, Terminal, count, failure, plain, time};

/// Time between two looks.
pub(super) const LOOK: Duration = Duration::from_millis(200);

/// Time for which something has to be wrong before it is told: hosts report one after the other, and
/// one that is gone is known for a moment.
const SETTLE: Duration = Duration::from_secs(4);

/// A revision that was written.
pub(super) struct Written<'a> {
    pub(super) app: &'a str,
    pub(super) revision: &'a Revision,
    pub(super) changes: &'a [Change],
}

impl Written<'_> {
    /// Waits as it was asked for, and tells how it ended.
    pub(super) async fn wait(
        &self,
        fleet: &Fleet,
        waiting: &Waiting,
        terminal: &Terminal,
    ) -> anyhow::Result<Exit> {
        let Self { app, revision, .. } = self;
        let number = revision.number;
        if waiting.detach {
            terminal.say(format_args!(
                "{app} revision {number} is written; `wasmbay ps {app}` shows how far it is"
            ));
            if terminal.json() {
                terminal.result_json(&self.json(None, None))?;
            }
            return Ok(Exit::Done);
        }
        let started = Instant::now();
        let mut told = BTreeSet::new();
        let mut wrong_since = None;
        let rollouts = revision.rollouts();
        let longest = rollouts.values().map(|spec| spec.canary.time).max();
        let timeout = waiting.timeout + longest.unwrap_or_default();
        for (service, spec) in &rollouts {
            let share = spec.text();
            terminal.note(format_args!(
                "{service}: its new version gets {share}, and then all or none"
            ));
        }
        let (mut rolls, mut outcome) = (!rollouts.is_empty(), None);
        loop {
            if rolls && let Some(ended) = self.ended(fleet).await? {
                outcome = Some(self.rolled_out(&ended, terminal)?);
                rolls = false;
            }
            if let Some(outcome) = outcome.as_ref().filter(|outcome| !outcome.went_on) {
                return self.rolled_back(outcome, terminal);
            }
            let hosts = fleet.store.hosts().await?;
            let reports = fleet.store.reports().await?;
            let own = revision.specification.as_ref().map(|s| &s.app);
            let placement = placement_of(&fleet.store.specified(own).await?, &hosts);
            let now = progress(revision, app, &placement, &hosts, &reports);
            self.tell(&now, &mut told, terminal);
            if self.is_done(&now) && !rolls {
                let took = started.elapsed();
                return self.done(&now, &hosts, took, outcome.as_ref(), terminal);
            }
            let stuck = now.is_stuck() && revision.specification.is_some() && !rolls;
            let since = stuck.then(|| *wrong_since.get_or_insert_with(Instant::now));
            wrong_since = since;
            let settled = since.is_some_and(|since| since.elapsed() > SETTLE);
            if settled || started.elapsed() > timeout {
                let newer = fleet.find(app).await?;
                let newer = newer.filter(|newer| newer.revision.number > number);
                let newer = newer.map(|newer| newer.revision);
                return self.failed(&now, newer.as_ref(), timeout, terminal);
            }
            sleep(LOOK).await;
        }
    }

    /// What has become of the rollout; nothing while it is under way.
    async fn ended(&self, fleet: &Fleet) -> anyhow::Result<Option<Revision>> {
        let last = fleet.find(self.app).await?.map(|kept| kept.revision);
        Ok(last.filter(|last| last.number != self.revision.number || last.outcome.is_some()))
    }

    /// How the rollout ended, which is said at once if the new version went on.
    ///
    /// # Errors
    ///
    /// Another revision took the place of this one.
    fn rolled_out(&self, ended: &Revision, terminal: &Terminal) -> anyhow::Result<Outcome> {
        let outcome = ended.outcome.as_ref();
        let outcome = outcome.filter(|_| ended.number == self.revision.number);
        let Some(outcome) = outcome else {
            return Err(self.replaced(ended));
        };
        if outcome.went_on && !terminal.json() {
            terminal.say(format_args!("{} {}", self.app, plain(&outcome.text())));
        }
        Ok(outcome.clone())
    }

    fn rolled_back(&self, outcome: &Outcome, terminal: &Terminal) -> anyhow::Result<Exit> {
        let app = self.app;
        if terminal.json() {
            let shown = self.json(None, Some(false));
            terminal.result_json(&with_outcome(shown, Some(outcome)))?;
            return Ok(Exit::Failed);
        }
        Err(failure(
            format!("{app} {}", plain(&outcome.text())),
            format!("what ran before goes on; `wasmbay history {app}` shows both"),
        ))
    }

    /// Another revision took the place of this one.
    fn replaced(&self, newer: &Revision) -> anyhow::Error {
        let Self { app, revision, .. } = self;
        let number = revision.number;
        let (newer, author) = (newer.number, plain(&newer.author));
        failure(
            format!(
                "revision {number} of {app} was replaced by revision {newer} of {author} before it served everywhere"
            ),
            format!("`wasmbay history {app}` shows both"),
        )
    }

    fn is_done(&self, now: &Progress) -> bool {
        match self.revision.specification {
            Some(_) => now.is_done(),
            None => now.leaving.is_empty(),
        }
    }

    /// Says once of each replica that it serves.
    fn tell(&self, now: &Progress, told: &mut BTreeSet<(String, String)>, terminal: &Terminal) {
        for replica in &now.replicas {
            let key = (replica.service.clone(), replica.host.clone());
            if matches!(replica.state, ReplicaState::Serving(_)) && told.insert(key) {
                let (service, host) = (&replica.service, &replica.host);
                if terminal.verbose {
                    terminal.note(format_args!("{service} serves on {host}"));
                }
            }
        }
    }

    fn done(
        &self,
        now: &Progress,
        hosts: &[HostRecord],
        took: Duration,
        outcome: Option<&Outcome>,
        terminal: &Terminal,
    ) -> anyhow::Result<Exit> {
        let Self { app, revision, .. } = self;
        if terminal.json() {
            let shown = self.json(Some(now), Some(true));
            terminal.result_json(&with_outcome(shown, outcome))?;
            return Ok(Exit::Done);
        }
        let took = time(took);
        if revision.specification.is_none() {
            terminal.say(format_args!("{app} runs nowhere any more, after {took}"));
            return Ok(Exit::Done);
        }
        let on: BTreeSet<_> = now.replicas.iter().map(|replica| &replica.host).collect();
        for (service, lack) in &now.lacks {
            terminal.note(format_args!("warning: {service}: {lack}"));
        }
        terminal.say(format_args!(
            "{app} revision {} serves: {} on {} of {}, after {took}",
            revision.number,
            count(now.replicas.len(), "replica"),
            on.len(),
            count(hosts.len(), "host"),
        ));
        Ok(Exit::Done)
    }

    fn failed(
        &self,
        now: &Progress,
        newer: Option<&Revision>,
        waited: Duration,
        terminal: &Terminal,
    ) -> anyhow::Result<Exit> {
        let Self { app, revision, .. } = self;
        let number = revision.number;
        if terminal.json() {
            terminal.result_json(&self.json(Some(now), Some(false)))?;
            return Ok(Exit::Failed);
        }
        if let Some(newer) = newer {
            return Err(self.replaced(newer));
        }
        let mut lines = wrong(now);
        if revision.specification.is_none() {
            let left = now.leaving.iter();
            lines = left
                .map(|(host, services)| format!("{} still on {host}", services.join(", ")))
                .collect();
        }
        let what = if revision.specification.is_some() {
            "does not serve everywhere"
        } else {
            "is not stopped everywhere"
        };
        let what = format!("revision {number} of {app} {what}");
        let after = if now.is_stuck() {
            String::new()
        } else {
            format!(" after {}", time(waited))
        };
        let lines: Vec<_> = lines.iter().map(|line| format!("\n  {line}")).collect();
        Err(failure(
            format!("{what}{after}:{}", lines.concat()),
            format!(
                "what ran before goes on, and hosts try again; `wasmbay ps {app}` shows how far they are, `wasmbay rollback {app}` goes back"
            ),
        ))
    }

    pub(super) fn json(&self, now: Option<&Progress>, serves: Option<bool>) -> Value {
        let changes: Vec<_> = self.changes.iter().map(ToString::to_string).collect();
        json!({
            "app": self.app,
            "revision": self.revision.number,
            "changes": changes,
            "forced": self.revision.forced,
            "serves": serves,
            "replicas": now.map(show_replicas),
            "lacks": now.map(show_lacks),
        })
    }
}

/// The same with how a rollout ended, if there was one.
fn with_outcome(mut shown: Value, outcome: Option<&Outcome>) -> Value {
    if let (Some(shown), Some(outcome)) = (shown.as_object_mut(), outcome) {
        shown.insert("outcome".to_owned(), show_outcome(Some(outcome)));
    }
    shown
}

/// What is wrong and where, a line each.
pub(super) fn wrong(now: &Progress) -> Vec<String> {
    let lacks = now.lacks.iter();
    let mut lines: Vec<_> = lacks
        .map(|(service, lack)| format!("{service}: {lack}"))
        .collect();
    for replica in &now.replicas {
        let state = match &replica.state {
            ReplicaState::Serving(_) => continue,
            ReplicaState::Waiting => "the host has not said anything of it".to_owned(),
            ReplicaState::Coming(state) => state.as_str().to_owned(),
            ReplicaState::Failed(error) => plain(error),
        };
        lines.push(format!("{} on {}: {state}", replica.service, replica.host));
    }
    lines
}
