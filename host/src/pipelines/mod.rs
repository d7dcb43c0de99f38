//! Pipelines: functions that are made of steps, whose runs survive the host that works on them.
//!
//! A call of such a function begins a [`Run`]: `front` stores it as an open run and waits for its end. The
//! open runs of a pipeline are a work queue of JetStream; a host that gets one is its owner, works on it
//! (`owner`) and stores the whole run in its journal after each attempt (`journal`), each time only if the
//! journal is as the owner left it. So of two hosts that believe they own a run one can write. What comes
//! next is decided by [`Run`] alone, which is pure.
//!
//! This room knows neither what the steps' services are nor how they are reached: it calls functions through
//! a [`Backend`](crate::interfaces::Backend).
//!
//! A durable function is a pipeline whose steps are what its code calls. Its owner runs it (`execute`) with a
//! backend that asks the owner (`recorder`).

mod archive;
mod attempt;
mod doze;
mod execute;
mod front;
mod journal;
mod operate;
mod owner;
mod provided;
mod recorder;
mod room;
mod run;
mod serve;
mod stream;
mod versions;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;

pub(crate) use archive::{Archive, Archived, Finding};
pub(crate) use journal::open_versions;
pub use operate::{Listed, Page, RunError, Runs, ShownCall, ShownEvent, ShownRun, ShownStep};
pub use run::{
    Asleep, Cause, Coded, Edited, Phase, Run, Slot, StepFailure, StepRun, StepState, Tried, Version,
};
pub(crate) use serve::{Begins, Serving};
pub(crate) use stream::{provision, provision_events, restore};

/// Time without a word of a run's owner after which another host takes over.
pub const ACK_WAIT: Duration = Duration::from_secs(4);

/// The owner of what an operator wrote.
const OPERATOR: &str = "operator";

/// Time between two words of an owner.
const PROGRESS: Duration = Duration::from_secs(1);

/// Waits until what is served stops; a sender that is gone has stopped.
async fn stopped(stopping: &mut watch::Receiver<bool>) {
    let _ = stopping.wait_for(|stops| *stops).await;
}

/// Whether a text can be the key of a run: what HTTP and NATS carry without changing it.
pub(crate) fn is_key(key: &str) -> bool {
    let mut bytes = key.bytes();
    (1..=255).contains(&key.len()) && bytes.all(|byte| byte.is_ascii_graphic() || byte == b' ')
}

/// Milliseconds since 1970.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    // A clock before 1970 is wrong whatever is made of it.
    let since = since.unwrap_or_default().as_millis();
    u64::try_from(since).unwrap_or(u64::MAX)
}
