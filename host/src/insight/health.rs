//! How a service fares on a host: what was counted within the last minute, as one word with its reasons.
//! Pure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Calls within a minute below which their failures say nothing.
const FEW: u64 = 5;

/// Per cent of failed calls from which a service is degraded, and from which it fails.
const DEGRADED: u64 = 5;
const FAILING: u64 = 50;

/// The state of a service on a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// In one word.
    pub state: HealthState,
    /// Why it is not ready, a line for each reason.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub why: Vec<String>,
}

/// The state of a service in one word; the worst is the greatest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HealthState {
    /// It answers.
    Ready,
    /// It answers, and not everything is well: from 5 % of the last minute's calls failed, something that it
    /// calls is behind an open breaker, or its events cannot be stored.
    Degraded,
    /// From 50 % of the last minute's calls failed.
    Failing,
}

impl HealthState {
    /// The word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Degraded => "degraded",
            Self::Failing => "failing",
        }
    }
}

impl Health {
    /// Of several hosts together: the worst, with all reasons.
    #[must_use]
    pub fn of_all<'h>(all: impl IntoIterator<Item = &'h Self>) -> Option<Self> {
        all.into_iter().cloned().reduce(|mut one, other| {
            one.state = one.state.max(other.state);
            for why in other.why {
                if !one.why.contains(&why) {
                    one.why.push(why);
                }
            }
            one
        })
    }
}

/// What is known of a service's last minute.
#[derive(Debug, Default)]
pub(super) struct Recent {
    pub(super) calls: u64,
    /// Those that failed through no fault of their callers, by code and blame.
    pub(super) faults: BTreeMap<String, u64>,
    /// Wires that it calls whose breaker is open.
    pub(super) open: Vec<String>,
    /// Why its events are not stored.
    pub(super) unstored: Option<String>,
}

pub(super) fn judge(recent: &Recent) -> Health {
    let failed: u64 = recent.faults.values().sum();
    let calls = recent.calls;
    let part = if calls < FEW { 0 } else { failed * 100 / calls };
    let mut state = HealthState::Ready;
    let mut why = Vec::new();
    if part >= DEGRADED {
        state = if part >= FAILING {
            HealthState::Failing
        } else {
            HealthState::Degraded
        };
        let kinds = recent.faults.iter();
        let kinds: Vec<_> = kinds
            .map(|(kind, count)| format!("{count} with {kind}"))
            .collect();
        let kinds = kinds.join(", ");
        why.push(format!(
            "{failed} of {calls} calls within a minute failed: {kinds}"
        ));
    }
    let open = recent.open.iter();
    why.extend(open.map(|wire| format!("the breaker of wire {wire}, which it calls, is open")));
    why.extend(recent.unstored.clone());
    if !why.is_empty() {
        state = state.max(HealthState::Degraded);
    }
    Health { state, why }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(calls: u64, faults: &[(&str, u64)]) -> Health {
        let faults = faults.iter().map(|(kind, n)| ((*kind).to_owned(), *n));
        judge(&Recent {
            calls,
            faults: faults.collect(),
            ..Recent::default()
        })
    }

    #[test]
    fn the_part_of_failed_calls_decides_where_there_are_enough() {
        assert_eq!(of(0, &[]).state, HealthState::Ready);
        assert_eq!(of(4, &[("500 guest", 4)]).state, HealthState::Ready);
        assert_eq!(of(100, &[("500 guest", 4)]).state, HealthState::Ready);
        let degraded = of(100, &[("500 guest", 3), ("504 guest", 2)]);
        assert_eq!(degraded.state, HealthState::Degraded);
        assert_eq!(
            degraded.why,
            ["5 of 100 calls within a minute failed: 3 with 500 guest, 2 with 504 guest"]
        );
        assert_eq!(of(10, &[("500 guest", 5)]).state, HealthState::Failing);
    }

    #[test]
    fn what_it_needs_degrades_it_and_the_worst_of_all_hosts_counts() {
        let open = judge(&Recent {
            open: vec!["shop:payment/payments".to_owned()],
            ..Recent::default()
        });
        assert_eq!(open.state, HealthState::Degraded);
        let unstored = judge(&Recent {
            unstored: Some("stream x is full".to_owned()),
            ..Recent::default()
        });
        let failing = of(10, &[("500 guest", 5)]);
        let all = Health::of_all([&open, &failing, &unstored, &open]).unwrap();
        assert_eq!((all.state, all.why.len()), (HealthState::Failing, 3));
        assert_eq!(Health::of_all([]), None);
    }
}
