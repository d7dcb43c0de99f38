//! Jobs: components that are run at times, once, or all the time, once in all hosts of an app.
//!
//! When a run is due is kept by the server: a message that it hands out at that time (`clock`). Who gets it
//! opens a run, on the condition that none of the job is open, and says when the next one is due. An open run
//! is a message of a work queue: the host that is handed it is its owner (`owner`), runs the component and says
//! every second that it lives. Where it falls silent another host is handed the run. What comes next in a run is
//! decided by [`Run`], which is pure, and kept in JetStream with each change, on the condition that nobody else
//! changed it.
//!
//! This room knows nothing of what the components do.

mod clock;
mod operate;
mod owner;
mod run;
mod serve;
mod store;
mod stream;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub use operate::{JobError, Jobs, ListedJob, RunningJob};
pub use run::{Attempt, Cause, Outcome, Run};
pub(crate) use serve::{JobCount, Serving};
pub(crate) use stream::{provision, restore};

/// Time without a word of a run's owner after which another host takes over.
pub const ACK_WAIT: Duration = Duration::from_secs(4);

/// Time between two words of an owner.
const PROGRESS: Duration = Duration::from_secs(1);

/// The waits before something is tried again that JetStream did not do, doubled from the first to the last.
const FIRST_AGAIN: Duration = Duration::from_millis(100);
const LAST_AGAIN: Duration = Duration::from_secs(2);

/// Milliseconds since 1970.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    // A clock before 1970 is wrong whatever is made of it.
    let since = since.unwrap_or_default().as_millis();
    u64::try_from(since).unwrap_or(u64::MAX)
}
