//! Rollouts as people and scripts are shown them.

use std::time::Duration;

use serde_json::{Value, json};

use super::{Outcome, Rolling, Share};
use crate::fleet::Revision;
use crate::manifest::values::duration_text;

/// A part of some as a percentage with one decimal place.
#[expect(
    clippy::cast_precision_loss,
    reason = "it is shown with one decimal place"
)]
pub(super) fn part(part: u64, of: u64) -> String {
    let percent = part as f64 * 100.0 / of.max(1) as f64;
    format!("{percent:.1}%")
}

/// A duration in whole milliseconds, or in microseconds below ten of them.
pub(super) fn brief(time: Duration) -> String {
    match time.as_millis() {
        0..10 => format!("{} µs", time.as_micros()),
        millis => format!("{millis} ms"),
    }
}

impl Outcome {
    /// What became of the revision, and why.
    #[must_use]
    pub fn text(&self) -> String {
        let (revision, why) = (self.revision, &self.why);
        if self.went_on {
            format!("revision {revision} went on: {why}")
        } else {
            format!("revision {revision} was rolled back: {why}")
        }
    }
}

/// How far the rollout of a revision is, a line for each of its services; none where there is none.
#[must_use]
pub fn rollout_lines(revision: &Revision, rolling: Option<&Rolling>) -> Vec<String> {
    let number = revision.number;
    let rolling = rolling.filter(|rolling| rolling.revision == number);
    let line = |(name, spec): (&str, &crate::manifest::RolloutSpec)| {
        let (share, time) = (spec.canary.share, duration_text(spec.canary.time));
        let line = format!("{name}: revision {number} gets {share} of the calls");
        let Some((rolling, said)) = rolling.and_then(|r| Some((r, r.services.get(name)?))) else {
            return format!("{line} for {time}; no host says anything of it yet");
        };
        let Share {
            calls,
            errors,
            old_calls,
            old_errors,
            missing,
            ..
        } = said;
        let passed = rolling.elapsed.min(spec.canary.time).as_secs();
        let figures = format!(
            "errors {} of {calls} calls, before {} of {old_calls}",
            part(*errors, *calls),
            part(*old_errors, *old_calls),
        );
        let waits = match missing.as_slice() {
            [] => String::new(),
            missing => format!("; waits for {}", missing.join(", ")),
        };
        format!("{line}, for {passed}s of {time}: {figures}{waits}")
    };
    revision.rollouts().into_iter().map(line).collect()
}

/// The rollout of a revision; null where there is none.
#[must_use]
pub fn show_rolling(revision: &Revision, rolling: Option<&Rolling>) -> Value {
    let rollouts = revision.rollouts();
    if rollouts.is_empty() {
        return Value::Null;
    }
    let rolling = rolling.filter(|rolling| rolling.revision == revision.number);
    let services = rollouts.into_iter().map(|(name, spec)| {
        let said = rolling.and_then(|rolling| rolling.services.get(name));
        let shown = json!({
            "canary": spec.canary.share,
            "for": duration_text(spec.canary.time),
            "figures": said,
        });
        (name.to_owned(), shown)
    });
    json!({
        "host": rolling.map(|rolling| &rolling.host),
        "seconds": rolling.map(|rolling| rolling.elapsed.as_secs_f64()),
        "services": services.collect::<serde_json::Map<_, _>>(),
    })
}

/// How a rollout ended; null where there was none.
#[must_use]
pub fn show_outcome(outcome: Option<&Outcome>) -> Value {
    outcome.map_or(Value::Null, |outcome| {
        json!({
            "revision": outcome.revision,
            "went-on": outcome.went_on,
            "why": outcome.why,
            "host": outcome.host,
            "at": outcome.at,
        })
    })
}
