//! What a node learns from the fleet's buckets, and takes over into what it knows.

use super::Node;
use crate::fleet::{
    RolloutKey, StoreError, Watched, number_of, read_app, read_host, read_report, read_rollout,
};

/// A change of one of the fleet's buckets.
pub(super) enum News {
    App(Watched),
    Host(Watched),
    Report(Watched),
    Drain(Watched),
    Rollout(Watched),
    /// Services of an app run, or do so no longer.
    Ran,
}

/// What a change of a bucket is.
pub(super) type Tell = fn(Watched) -> News;

impl Node {
    /// Whether this host may have to do with an app.
    fn runs(&self, app: &str) -> bool {
        self.shared.own.as_ref().is_none_or(|own| own.app == app)
    }

    /// Takes over what has changed.
    pub(super) fn take(&mut self, news: News) {
        let warn = |error: StoreError| {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "in the fleet's store"
            )
        };
        match news {
            News::Host(Watched {
                key, value: None, ..
            }) => {
                self.view.lose(&key);
                self.stale = true;
            }
            News::Host(Watched {
                key,
                value: Some(value),
                ..
            }) => match read_host(&key, &value) {
                // Of an earlier process of this name.
                Ok(record) if key == self.shared.name && record.id != self.shared.id => {}
                Ok(record) => {
                    let now = tokio::time::Instant::now();
                    self.stale |= self.view.see(record, now);
                }
                Err(error) => warn(error),
            },
            // Others are for hosts that run any app.
            News::App(Watched { key, .. }) if !self.runs(&key) => {}
            News::App(Watched { key, value, .. }) => {
                let read = value.as_ref().map(|value| read_app(&key, value));
                let unread = match read.transpose() {
                    Ok(Some(revision)) => {
                        self.view.revise(&key, revision);
                        None
                    }
                    Ok(None) => {
                        self.view.remove(&key);
                        None
                    }
                    // What ran before goes on.
                    Err(error) => {
                        let number = value.as_deref().and_then(number_of);
                        let unread = self.shared.unread(&key, number, &error);
                        warn(error);
                        Some(unread)
                    }
                };
                self.shared.reports.unread(&key, unread);
                self.stale = true;
            }
            News::Rollout(watched) => match (RolloutKey::parse(&watched.key), &watched.value) {
                (Some(RolloutKey::Ended(..)), Some(value)) => {
                    match read_rollout(&watched.key, value) {
                        Ok(outcome) => self.stale |= self.view.end(outcome),
                        Err(error) => warn(error),
                    }
                }
                (Some(key), _) => {
                    let heard = self.shared.rollouts.hear(&key, &watched);
                    heard.unwrap_or_else(warn);
                }
                (None, _) => {}
            },
            News::Report(Watched { key, value, .. }) => {
                match value.map(|value| read_report(&key, &value)).transpose() {
                    Ok(Some(report)) => self.view.hear(report),
                    Ok(None) => self.view.unhear(&key),
                    Err(error) => warn(error),
                }
                self.stale = true;
            }
            News::Drain(Watched { key, value, .. }) if key == self.shared.name => {
                self.drain(value.is_some());
            }
            News::Drain(_) => {}
            News::Ran => self.stale = true,
        }
    }
}
