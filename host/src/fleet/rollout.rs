//! Rollouts: a new version of a service has a share of the calls first, and goes on or back by its figures
//! beside those of the old one. Pure.
//!
//! A rollout is of a revision: when one of its services goes back, the revision does, since its services
//! were made for each other. Whoever holds the lease of an app adds up what the hosts say, takes a [`step`],
//! and writes down how it ended. That is a word on a revision which a deployer wrote, and no revision: a
//! host chooses between what was deployed, and deploys nothing.

mod records;
mod shown;

use std::collections::BTreeMap;
use std::time::Duration;

pub(crate) use records::{HostTally, Lease, ServiceTally};
pub use records::{Outcome, Rolling, Share};
pub use shown::{rollout_lines, show_outcome, show_rolling};

use super::Revision;
use crate::manifest::{RolloutSpec, Specification};
use crate::stats::Tally;
use shown::{brief, part};

/// Time between two steps.
pub(crate) const TICK: Duration = Duration::from_secs(1);

/// Time after which a lease that nobody renews is another host's to take: three renewals were missed.
pub(crate) const LEASE: Duration = Duration::from_secs(3);

/// Time in all for which the new version may be missing on some host.
const MISSING: Duration = Duration::from_secs(300);

/// Calls that take a new version back at once when every one of them fails.
const FIRST: u64 = 5;

/// Calls of each version before their 99th percentiles are compared.
const FOR_P99: u64 = 100;

/// How far the 99th percentile has to be above the old one: less is noise of new instances.
const ABOVE: Duration = Duration::from_millis(5);

/// The services of a specification that are rolled out in the place of another one: those whose manifest says
/// so, and that are another component or run otherwise.
#[must_use]
pub fn rollouts<'a>(
    old: &Specification,
    new: &'a Specification,
) -> BTreeMap<&'a str, &'a RolloutSpec> {
    let services = new.app.services.iter();
    let rolled = services.filter_map(|(name, spec)| {
        let rollout = spec.rollout.as_ref()?;
        let before = old.app.services.get(name)?;
        let is_same = before.runs_as(spec) && old.components.get(name) == new.components.get(name);
        (!is_same).then_some((name.as_str(), rollout))
    });
    rolled.collect()
}

/// What is known of a service in two versions, all hosts together.
#[derive(Clone, Debug, Default)]
pub(crate) struct Observed {
    pub(crate) old: Tally,
    pub(crate) new: Tally,
    /// Hosts that should run the new version and do not say that they do.
    pub(crate) missing: Vec<String>,
    /// A host on which it does not start, and why.
    pub(crate) failed: Option<(String, String)>,
}

/// How long a rollout has been under way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Time {
    /// While the new versions ran on all hosts.
    pub(crate) elapsed: Duration,
    /// While they did not.
    pub(crate) missing: Duration,
}

/// The end of a rollout, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    On(String),
    Back(String),
}

/// Takes a step: after this long since the last one, with what is known now of each service. Says when the
/// rollout has ended.
pub(crate) fn step(
    services: &BTreeMap<&str, &RolloutSpec>,
    time: &mut Time,
    passed: Duration,
    observed: &BTreeMap<String, Observed>,
) -> Option<End> {
    let nothing = Observed::default();
    let of = |name: &str| observed.get(name).unwrap_or(&nothing);
    for name in services.keys() {
        if let Some((host, error)) = &of(name).failed {
            return Some(End::Back(format!(
                "{name} does not start on {host}: {error}"
            )));
        }
    }
    let missing = services.keys().find(|name| !of(name).missing.is_empty());
    match missing {
        None => time.elapsed += passed,
        Some(name) => {
            time.missing += passed;
            if time.missing > MISSING {
                let hosts = of(name).missing.join(", ");
                let within = MISSING.as_secs() / 60;
                return Some(End::Back(format!(
                    "{name} was not there on {hosts} within {within}m"
                )));
            }
        }
    }
    let mut on = Vec::new();
    for (name, spec) in services {
        let Observed { old, new, .. } = of(name);
        match judge(spec, time.elapsed, old, new) {
            Some(End::Back(why)) => return Some(End::Back(format!("{name}: {why}"))),
            Some(End::On(why)) => on.push(format!("{name}: {why}")),
            None => {}
        }
    }
    (on.len() == services.len()).then(|| End::On(on.join("; ")))
}

/// What follows from the figures of one service after this time.
fn judge(spec: &RolloutSpec, elapsed: Duration, old: &Tally, new: &Tally) -> Option<End> {
    let (calls, errors) = (new.calls(), new.errors);
    let is_over = elapsed >= spec.canary.time;
    let fails_more = above(errors, calls, old.errors, old.calls());
    if calls >= FIRST && errors >= calls && fails_more {
        return Some(End::Back(format!("each of its {calls} calls failed")));
    }
    let is_enough = calls >= u64::from(spec.canary.calls);
    if !is_enough && !is_over {
        return None;
    }
    let most = spec.rollback_on.errors;
    if above(errors, calls, most.0.into(), WHOLE) && fails_more {
        let errors = part(errors, calls);
        return Some(End::Back(format!(
            "errors {errors} of {calls} calls, at most {most}"
        )));
    }
    if let Some(times) = spec.rollback_on.p99
        && calls.min(old.calls()) >= FOR_P99
    {
        let [before, now] = [old, new].map(|tally| tally.durations.quantile(0.99));
        if now > before * times.0 / 100 && now > before + ABOVE {
            let [before, now] = [before, now].map(brief);
            return Some(End::Back(format!(
                "p99 {now} of {calls} calls, at most {times} the {before} of the version before"
            )));
        }
    }
    if !is_over {
        return None;
    }
    let errors = part(errors, calls);
    Some(End::On(match calls {
        _ if is_enough => format!("errors {errors} of {calls} calls"),
        0 => "nobody called it".to_owned(),
        _ => {
            let least = spec.canary.calls;
            format!("errors {errors} of only {calls} calls, where {least} would tell more")
        }
    }))
}

/// 100%.
const WHOLE: u64 = 10_000;

/// Whether a part of some is more than another part of others; a part of nothing is none.
fn above(part: u64, of: u64, other: u64, of_other: u64) -> bool {
    let (part, of) = (u128::from(part), u128::from(of.max(1)));
    let (other, of_other) = (u128::from(other), u128::from(of_other.max(1)));
    part * of_other > other * of
}

impl Revision {
    /// The services of which a new version has a share of the calls; none once that has ended.
    #[must_use]
    pub fn rollouts(&self) -> BTreeMap<&str, &RolloutSpec> {
        match (&self.stable, &self.specification) {
            (Some(old), Some(new)) => rollouts(old, new),
            _ => BTreeMap::new(),
        }
    }

    /// The revision as it is after its rollout ended: with what runs now, and how it came to that.
    #[must_use]
    pub fn ended(mut self, outcome: Option<&Outcome>) -> Self {
        let Some(outcome) = outcome.filter(|outcome| outcome.revision == self.number) else {
            return self;
        };
        if let Some(old) = self.stable.take() {
            if !outcome.went_on {
                self.refused = self.specification.replace(old);
            }
            self.outcome = Some(outcome.clone());
        }
        self
    }

    /// What it asked for, whatever became of that.
    #[must_use]
    pub fn asked(&self) -> Option<&Specification> {
        self.refused.as_ref().or(self.specification.as_ref())
    }

    /// What runs beside the services that are rolled out, for the next revision: a deploy during a rollout
    /// takes its place, and what was there before goes on.
    #[must_use]
    pub fn works(&self) -> Option<&Specification> {
        self.stable.as_ref().or(self.specification.as_ref())
    }
}

#[cfg(test)]
mod tests;
