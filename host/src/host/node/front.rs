//! The threads of a node's gateway.

use std::net::{SocketAddr, TcpListener};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use tokio::runtime;
use tokio::sync::{oneshot, watch};
use tokio::time::timeout_at;

use crate::gateway::{SharedGateway, Tls};

/// A gateway that listens, with a thread for each core.
pub(super) struct Listening {
    pub(super) gateway: Arc<SharedGateway>,
    pub(super) address: SocketAddr,
    /// Each ends with its thread.
    threads: Vec<oneshot::Receiver<()>>,
    /// Dropped to cut what has not ended.
    cut: watch::Sender<bool>,
}

impl Listening {
    pub(super) fn start(
        listener: &TcpListener,
        threads: NonZeroUsize,
        tls: Option<Tls>,
    ) -> Result<Self, std::io::Error> {
        let mut listening = Self {
            gateway: Arc::new(SharedGateway::new(tls)),
            address: listener.local_addr()?,
            threads: Vec::new(),
            cut: watch::Sender::new(false),
        };
        for index in 0..threads.get() {
            let runtime = runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            let gateway = Arc::clone(&listening.gateway);
            let listener = listener.try_clone()?;
            let mut cut = listening.cut.subscribe();
            let (ends, ended) = oneshot::channel();
            thread::Builder::new()
                .name(format!("gateway-{index}"))
                .spawn(move || {
                    runtime.block_on(async {
                        tokio::select! {
                            () = gateway.serve(listener, index) => {}
                            // An error means that the gateway was dropped.
                            _ = cut.wait_for(|cut| *cut) => {}
                        }
                    });
                    drop(ends);
                })?;
            listening.threads.push(ended);
        }
        Ok(listening)
    }

    /// Takes no further connections, and waits until those that are open have ended, until the deadline.
    pub(super) async fn close(self, deadline: Instant) {
        self.gateway.close();
        let all = futures_util::future::join_all(self.threads);
        if timeout_at(deadline.into(), all).await.is_err() {
            tracing::warn!("connections of the gateway were cut");
        }
        self.cut.send_replace(true);
    }
}
