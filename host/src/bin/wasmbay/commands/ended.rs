//! How a host ended, and what is printed of it.

use std::time::{Duration, Instant};

use serde_json::json;
use wasmbay::host::Drained;
use wasmbay::nats::STOP_DEADLINE;

use super::server::Server;
use crate::report::{Exit, Terminal, count, time};

/// Time that a server of the host's own has at least, after the grace time, before it is killed.
const LAST: Duration = Duration::from_secs(1);

/// Ends the server of a host that has ended, within what is left of the grace time, and says how both did.
pub(super) async fn conclude(
    ended: anyhow::Result<(Ended, Instant)>,
    server: Server,
    grace: Duration,
    terminal: &Terminal,
) -> anyhow::Result<Exit> {
    match &ended {
        // Told to stop at once: what is left is ended with the process.
        Ok((Ended::AtOnce, _)) => {}
        // What is left of the grace time, since there is one for all.
        Ok((_, deadline)) => {
            let left = deadline.saturating_duration_since(Instant::now());
            server.stop(left.clamp(LAST, STOP_DEADLINE)).await;
        }
        Err(_) => server.stop(STOP_DEADLINE).await,
    }
    let (ended, _) = ended?;
    terminal.say(ended.text(grace));
    terminal.event(&ended.json());
    Ok(if ended.is_drained() {
        Exit::Done
    } else {
        Exit::Failed
    })
}

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
    fn is_drained(self) -> bool {
        matches!(self, Self::Stopped(drained) if drained.is_complete())
    }

    fn text(self, grace: Duration) -> String {
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

    fn json(self) -> serde_json::Value {
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
