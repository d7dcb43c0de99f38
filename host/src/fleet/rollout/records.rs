//! What is written down of rollouts.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Time;
use crate::stats::Tally;

/// How a rollout ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// [`FORMAT`](crate::fleet::FORMAT).
    pub format: u32,
    /// The app.
    pub app: String,
    /// The revision.
    pub revision: u64,
    /// Whether the new version gets all calls; otherwise none, and what ran before goes on.
    pub went_on: bool,
    /// Why.
    pub why: String,
    /// The host that decided.
    pub host: String,
    /// When, as RFC 3339, by the clock of that host.
    pub at: String,
}

/// How far a rollout is, as the host says that decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rolling {
    /// The revision.
    pub revision: u64,
    /// The host that decides.
    pub host: String,
    /// The time that has passed.
    pub elapsed: Duration,
    /// By service.
    pub services: BTreeMap<String, Share>,
}

/// What the two versions of a service have done, all hosts together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// Calls of the new version.
    pub calls: u64,
    /// Those that failed.
    pub errors: u64,
    /// The 99th percentile of their durations, in microseconds.
    pub p99_us: u64,
    /// Calls of the old version.
    pub old_calls: u64,
    /// Those that failed.
    pub old_errors: u64,
    /// The 99th percentile of their durations, in microseconds.
    pub old_p99_us: u64,
    /// Hosts that do not run the new version yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<String>,
}

/// The right of one host to decide on a rollout, and what the next one has to know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Lease {
    pub(crate) format: u32,
    pub(crate) app: String,
    pub(crate) revision: u64,
    pub(crate) host: String,
    /// The process; see [`HostRecord::id`](crate::fleet::HostRecord::id).
    pub(crate) id: String,
    pub(crate) elapsed_ms: u64,
    pub(crate) missing_ms: u64,
    pub(crate) services: BTreeMap<String, Share>,
}

/// What a host says of the services that are rolled out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HostTally {
    pub(crate) format: u32,
    pub(crate) app: String,
    pub(crate) revision: u64,
    pub(crate) host: String,
    pub(crate) services: BTreeMap<String, ServiceTally>,
}

/// What a host says of one of them. Figures of the old version begin with the new one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ServiceTally {
    /// Whether both versions run.
    pub(crate) runs: bool,
    /// Why the new one cannot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) failed: Option<String>,
    pub(crate) old: Tally,
    pub(crate) new: Tally,
}

impl Share {
    pub(crate) fn of(old: &Tally, new: &Tally, missing: &[String]) -> Self {
        let [old_p99_us, p99_us] = [old, new].map(|tally| {
            let p99 = tally.durations.quantile(0.99);
            u64::try_from(p99.as_micros()).unwrap_or(u64::MAX)
        });
        Self {
            calls: new.calls(),
            errors: new.errors,
            p99_us,
            old_calls: old.calls(),
            old_errors: old.errors,
            old_p99_us,
            missing: missing.to_vec(),
        }
    }
}

impl Lease {
    pub(crate) fn time(&self) -> Time {
        Time {
            elapsed: Duration::from_millis(self.elapsed_ms),
            missing: Duration::from_millis(self.missing_ms),
        }
    }

    pub(crate) fn set_time(&mut self, time: Time) {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        self.elapsed_ms = millis(time.elapsed);
        self.missing_ms = millis(time.missing);
    }

    pub(crate) fn rolling(self) -> Rolling {
        Rolling {
            elapsed: self.time().elapsed,
            revision: self.revision,
            host: self.host,
            services: self.services,
        }
    }
}
