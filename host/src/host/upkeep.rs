//! Keeps what JetStream holds for the app: what is lost while the host runs is created again.
//!
//! A stream or consumer that was deleted, or a server that came back with an empty store, would stop
//! events for ever otherwise, since nothing but a deployment creates them.

use std::sync::Arc;
use std::time::Duration;

use async_nats::{Client, jetstream};
use tokio::time::{Instant, sleep};

use super::reconcile::stores;
use crate::deployment::Current;
use crate::events::stream::{Provisioning, Purpose, StoreError};
use crate::jobs;
use crate::nats::Link;
use crate::pipelines;

/// Time between two looks at whether the connection was lost and restored.
const LOOK: Duration = Duration::from_secs(1);

/// The waits between tries to create what is missing, doubled from the first to the last.
const FIRST_RETRY: Duration = Duration::from_millis(250);
const LAST_RETRY: Duration = Duration::from_secs(5);

/// Time between two tries to retire what other hosts used the last time.
const RETIRE: Duration = Duration::from_secs(30);

/// What the upkeep of an app's streams takes.
pub(super) struct Upkeep {
    pub(super) client: Client,
    pub(super) link: Link,
    pub(super) context: jetstream::Context,
    pub(super) host: String,
    pub(super) current: Arc<Current>,
    /// A deployment and this do not meddle with each other.
    pub(super) reconciling: Arc<tokio::sync::Mutex<()>>,
}

impl Upkeep {
    /// Runs until dropped.
    pub(super) async fn run(self) {
        let connects = || {
            let statistics = self.client.statistics();
            statistics
                .connects
                .load(std::sync::atomic::Ordering::Relaxed)
        };
        let (mut connected, mut looked) = (connects(), Instant::now());
        let store = Arc::clone(self.current.store());
        loop {
            let is_wanted = tokio::select! {
                () = store.wanted() => true,
                () = sleep(LOOK) => false,
            };
            let again = connects() != connected;
            connected = connects();
            let retire = store.is_unretired() && looked.elapsed() >= RETIRE;
            if is_wanted || again || retire {
                self.restore().await;
                looked = Instant::now();
                // What was asked for meanwhile is there now, or is asked for again.
                sleep(FIRST_RETRY).await;
            }
        }
    }

    /// Creates what is missing, trying until it is there.
    async fn restore(&self) {
        let store = self.current.store();
        let mut retry = FIRST_RETRY;
        while let Err(error) = self.provision().await {
            let source = std::error::Error::source(&error);
            let why = source.map(ToString::to_string).unwrap_or_default();
            tracing::warn!(%error, why, "what stores events cannot be created, trying again");
            store.report_missing(format_args!("{error}: {why}"));
            sleep(retry).await;
            retry = (retry * 2).min(LAST_RETRY);
        }
        store.report_complete();
    }

    async fn provision(&self) -> Result<(), StoreError> {
        let _step = self.reconciling.lock().await;
        let deployment = self.current.get();
        let Some(app) = &deployment.app else {
            return Ok(());
        };
        let store = self.current.store();
        if !stores(app, &deployment.plan) && !store.is_unretired() {
            return Ok(());
        }
        pipelines::restore(&self.context, app).await?;
        jobs::restore(&self.context, app).await?;
        let provisioning = Provisioning {
            context: &self.context,
            link: &self.link,
            host: &self.host,
            app,
            plan: &deployment.plan,
            shares: &deployment.shares,
            purpose: Purpose::Restore,
        };
        store.report_unretired(provisioning.run().await?.is_unretired);
        let (app, pipelines) = (&app.name, &deployment.plan.pipelines);
        pipelines::provision_events(&self.context, app, pipelines).await?;
        Ok(())
    }
}
