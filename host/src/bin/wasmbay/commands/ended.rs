//! How a host ended, and what is printed of it.

use std::time::Duration;

use serde_json::json;
use wasmbay::host::Drained;

use crate::report::{count, time};

/// How a host ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// It was given the grace time.
    Stopped(Drained),
    /// A second signal came.
    AtOnce,
    /// The signal came before anything was served.
    BeforeServing,
}

impl Ended {
    pub(super) fn is_drained(self) -> bool {
        matches!(self, Self::Stopped(drained) if drained.is_complete())
    }

    pub(super) fn text(self, grace: Duration) -> String {
        let drained = match self {
            Self::Stopped(drained) => drained,
            Self::AtOnce => return "stopped at once: calls may have been lost".to_owned(),
            Self::BeforeServing => return "stopped before anything was served".to_owned(),
        };
        if drained.is_complete() {
            return "stopped: every call was answered".to_owned();
        }
        let mut text = "stopped".to_owned();
        if drained.given_up > 0 {
            let (calls, grace) = (count(drained.given_up, "call"), time(grace));
            text += &format!(": gave up {calls} that still ran after {grace}");
        }
        if !drained.confirmed {
            text += ": NATS did not confirm the end, calls may have been lost";
        }
        text
    }

    pub(super) fn json(self) -> serde_json::Value {
        let Self::Stopped(drained) = self else {
            return json!({ "event": "stopped", "drained": false });
        };
        json!({
            "event": "stopped",
            "drained": drained.is_complete(),
            "givenUp": drained.given_up,
            "confirmed": drained.confirmed,
        })
    }
}
