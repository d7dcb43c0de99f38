//! The host of `wasmbay up`, as the verbs of a fleet find it: it runs one app, on a NATS system of its own.

use std::path::Path;
use std::time::{Duration, Instant};

use tokio::time::sleep;
use wasmbay::nats::ConnectOptions;

use super::fleet::on_this_machine;
use crate::report::failure;
use crate::running::{Running, Verbs};

/// Time for a host whose app runs to be reached by verbs.
const SOON: Duration = Duration::from_secs(10);

/// Time between two looks.
const LOOK: Duration = Duration::from_millis(20);

/// The NATS system of the host that runs the app of this folder or of one above it, unless another app is meant.
pub(super) async fn reach(
    app: Option<&str>,
    folder: &Path,
) -> anyhow::Result<Option<ConnectOptions>> {
    let started = Instant::now();
    loop {
        let running = Running::find(folder);
        let Some(running) = running.filter(|running| app.is_none_or(|app| app == running.app))
        else {
            return Ok(None);
        };
        let Running { pid, app, .. } = &running;
        match &running.verbs {
            Verbs::Reach => {
                let url = running.nats_url()?;
                if url.is_some() && on_this_machine().is_some() {
                    tracing::warn!(app, pid, "`wasmbay up` is meant, and not `wasmbay host`");
                }
                return Ok(url.map(ConnectOptions::to));
            }
            // There may be a host that is meant.
            Verbs::Never(_) if on_this_machine().is_some() => return Ok(None),
            Verbs::Never(why) => {
                return Err(failure(
                    format!("process {pid} runs {app}, and no verb of a fleet reaches it: {why}"),
                    "`wasmbay host` and `wasmbay deploy` run it where they do",
                ));
            }
            Verbs::Soon if started.elapsed() > SOON => {
                return Err(failure(
                    format!("process {pid} runs {app}, and is not ready for verbs of a fleet"),
                    "its output says why",
                ));
            }
            Verbs::Soon => sleep(LOOK).await,
        }
    }
}
