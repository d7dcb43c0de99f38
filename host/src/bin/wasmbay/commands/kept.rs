//! Keeping a host's log records, for `wasmbay logs`.

use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use wasmbay::logs::Records;
use wasmbay::nats::ConnectOptions;

/// Time for the last records; what is not kept by then is lost.
const LAST: Duration = Duration::from_secs(2);

/// Records that are being kept. Ends with the process if it is dropped.
pub(super) struct Kept {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Kept {
    pub(super) fn start(records: Records, nats: ConnectOptions) -> Self {
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(records.keep(nats, stopped));
        Self { stop, task }
    }

    /// Keeps what is left.
    pub(super) async fn stop(self) {
        let Self { stop, task } = self;
        // An error means that it has ended.
        let _ = stop.send(());
        if timeout(LAST, task).await.is_err() {
            tracing::debug!("the last log records were not kept");
        }
    }
}
