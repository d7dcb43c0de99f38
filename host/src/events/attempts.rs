//! The attempt store: failed attempts at stored events that are tried again, in a bucket of the app.

use async_nats::jetstream::{Context, kv};
use tokio::sync::OnceCell;

use super::dead_letters::Attempt;
use crate::subject;

/// Keeps the attempts at an event until it is handled or becomes a dead letter.
pub(crate) struct AttemptStore {
    context: Context,
    app: String,
    bucket: OnceCell<kv::Store>,
}

impl AttemptStore {
    /// The attempt store of the app with this name. Opens its bucket when it is first used.
    pub(crate) fn new(context: Context, app: &str) -> Self {
        Self {
            context,
            app: app.to_owned(),
            bucket: OnceCell::new(),
        }
    }

    async fn bucket(&self) -> Result<&kv::Store, async_nats::Error> {
        let open = || async {
            let bucket = subject::attempts_bucket(&self.app);
            Ok(self.context.get_key_value(bucket).await?)
        };
        self.bucket.get_or_try_init(open).await
    }

    /// The failed attempts so far.
    pub(crate) async fn read(&self, key: &str) -> Result<Vec<Attempt>, async_nats::Error> {
        match self.bucket().await?.get(key).await? {
            Some(text) => Ok(serde_json::from_slice(&text)?),
            None => Ok(Vec::new()),
        }
    }

    /// Replaces the attempts.
    pub(crate) async fn write(
        &self,
        key: &str,
        attempts: &[Attempt],
    ) -> Result<(), async_nats::Error> {
        let text = serde_json::to_vec(attempts)?;
        self.bucket().await?.put(key, text.into()).await?;
        Ok(())
    }

    /// Removes the attempts of an event that is done with.
    pub(crate) async fn remove(&self, key: &str) {
        // The bucket's own way leaves a marker for each key, which take up the room of others.
        let removed = async {
            let bucket = self.bucket().await?;
            let subject = format!("{}{key}", bucket.prefix);
            bucket.stream.purge().filter(subject).await?;
            Ok::<_, async_nats::Error>(())
        };
        if let Err(error) = removed.await {
            // They expire with their age.
            tracing::debug!(%error, key, "attempts at an event");
        }
    }
}
