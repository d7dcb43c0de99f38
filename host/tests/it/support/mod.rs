//! What tests start and stop, and how they wait.

pub(crate) mod apps;
pub(crate) mod cli;
pub(crate) mod components;
pub(crate) mod http;
pub(crate) mod nats;
pub(crate) mod shown;

use std::time::Duration;

use tokio::time::{Instant, sleep};

/// How long anything that a test waits for may take, on a slow machine under load.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// How long what involves compilers, or six services at once, may take on such a machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// Waits until a condition holds; fails the test by the name of it if it never does.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !holds() {
        assert!(
            Instant::now() < deadline,
            "waited {DEADLINE:?} in vain until {what}"
        );
        sleep(Duration::from_millis(5)).await;
    }
}
