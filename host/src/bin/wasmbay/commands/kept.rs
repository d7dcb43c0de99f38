//! Keeping a host's log records, for `wasmbay logs`.

use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use wasmbay::logs::Export;
use wasmbay::nats::ConnectOptions;

use crate::logging::Logged;

/// Time for the last records; what is not kept by then is lost.
const LAST: Duration = Duration::from_secs(2);

/// Records that are being kept. Ends with the process if it is dropped.
pub(super) struct Kept {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
    export: Option<Export>,
}

impl Kept {
    pub(super) fn start(logged: Logged, nats: ConnectOptions) -> Self {
        let Logged { records, export } = logged;
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(records.keep(nats, stopped));
        Self { stop, task, export }
    }

    /// Keeps what is left.
    pub(super) async fn stop(self) {
        let Self { stop, task, export } = self;
        // An error means that it has ended.
        let _ = stop.send(());
        let exported = async {
            if let Some(export) = export {
                // It waits for the collector.
                let _ = tokio::task::spawn_blocking(move || export.finish()).await;
            }
        };
        let both = async { tokio::join!(task, exported) };
        if timeout(LAST, both).await.is_err() {
            tracing::debug!("the last log records were not kept");
        }
    }
}
