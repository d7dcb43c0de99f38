//! What tests start and stop, and how they wait.

pub(crate) mod apps;
pub(crate) mod browser;
pub(crate) mod cli;
pub(crate) mod components;
pub(crate) mod http;
pub(crate) mod nats;
pub(crate) mod postgres;
pub(crate) mod raw;
pub(crate) mod registry;
pub(crate) mod shown;
pub(crate) mod tap;

use std::fmt::Debug;
use std::thread;
use std::time::{Duration, Instant};

use async_nats::{Client, Subscriber};
use futures_util::{FutureExt as _, StreamExt as _};
use tokio::time::sleep;
use wasmbay::nats::settled;

/// How long anything that a test waits for may take, on a slow machine under load.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// How long what involves compilers, or six services at once, may take on such a machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// The pause between two looks at a condition.
const POLL: Duration = Duration::from_millis(5);

/// Waits until a condition holds; fails the test by the name of it if it never does.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    until_ok(what, async || {
        holds().then_some(()).ok_or("it does not hold")
    })
    .await;
}

/// Waits until `look` returns `Ok`, and returns its value; fails the test with the last `Err` if it
/// never does.
pub(crate) async fn until_ok<T, E: Debug>(
    what: &str,
    look: impl AsyncFnMut() -> Result<T, E>,
) -> T {
    until_ok_within(DEADLINE, what, look).await
}

/// As [`until_ok`], within a time of its own.
pub(crate) async fn until_ok_within<T, E: Debug>(
    time: Duration,
    what: &str,
    mut look: impl AsyncFnMut() -> Result<T, E>,
) -> T {
    let deadline = Instant::now() + time;
    loop {
        match look().await {
            Ok(value) => return value,
            Err(state) => check(deadline, what, &state),
        }
        sleep(POLL).await;
    }
}

/// As [`until_ok`], for tests that block their thread.
pub(crate) fn until_ok_blocking<T, E: Debug>(what: &str, look: impl FnMut() -> Result<T, E>) -> T {
    until_ok_blocking_within(DEADLINE, what, look)
}

/// As [`until_ok_blocking`], within a time of its own.
pub(crate) fn until_ok_blocking_within<T, E: Debug>(
    time: Duration,
    what: &str,
    mut look: impl FnMut() -> Result<T, E>,
) -> T {
    let deadline = Instant::now() + time;
    loop {
        match look() {
            Ok(value) => return value,
            Err(state) => check(deadline, what, &state),
        }
        thread::sleep(POLL);
    }
}

fn check(deadline: Instant, what: &str, state: &impl Debug) {
    assert!(
        Instant::now() < deadline,
        "waited in vain until {what}: {state:?}"
    );
}

/// Fails if the subscription has a message. Everything that the server had delivered before has
/// arrived after a round trip of the subscriber's connection.
pub(crate) async fn assert_no_message(client: &Client, messages: &mut Subscriber) {
    settled(client).await.unwrap();
    let message = messages.next().now_or_never();
    assert!(message.is_none(), "{message:?}");
}
