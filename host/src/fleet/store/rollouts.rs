//! Rollouts: who decides, what hosts say, and how they ended.
//!
//! | key | has |
//! |---|---|
//! | `APP.lease` | the host that decides, how much time has passed, and what is known of both versions |
//! | `APP.host.HOST` | what a host has seen of both versions |
//! | `APP.ended.REVISION` | how the rollout of a revision ended; written once, kept as long as the revision |
//!
//! `APP.runs` is of `versions.rs`.

use async_nats::jetstream::kv::{CreateErrorKind, UpdateErrorKind};
use serde::de::DeserializeOwned;

use super::{Store, StoreError, failed, to_json, unreadable};
use crate::fleet::rollout::{HostTally, Lease, Outcome, Rolling};
use crate::fleet::{HISTORY, Revision, records};

/// The key of an entry. No name of an app or host has a dot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RolloutKey {
    Lease(String),
    Host(String, String),
    Ended(String, u64),
}

impl RolloutKey {
    /// Reads a key; those of later versions are none.
    pub(crate) fn parse(key: &str) -> Option<Self> {
        let mut tokens = key.split('.');
        let app = tokens.next()?.to_owned();
        let parsed = match (tokens.next()?, tokens.next()) {
            ("lease", None) => Self::Lease(app),
            ("host", Some(host)) => Self::Host(app, host.to_owned()),
            ("ended", Some(number)) => Self::Ended(app, number.parse().ok()?),
            _ => return None,
        };
        tokens.next().is_none().then_some(parsed)
    }

    fn text(&self) -> String {
        match self {
            Self::Lease(app) => format!("{app}.lease"),
            Self::Host(app, host) => format!("{app}.host.{host}"),
            Self::Ended(app, number) => format!("{app}.ended.{number}"),
        }
    }
}

/// Reads an entry.
pub(crate) fn read_rollout<T: DeserializeOwned>(key: &str, bytes: &[u8]) -> Result<T, StoreError> {
    let read = records::read::<T>(bytes);
    read.map_err(unreadable(format!("rollout \"{key}\"")))
}

impl Store {
    /// A revision as it is after its rollout.
    pub(super) async fn ended(
        &self,
        app: &str,
        revision: Revision,
    ) -> Result<Revision, StoreError> {
        if revision.stable.is_none() {
            return Ok(revision);
        }
        let outcome = self.outcome(app, revision.number).await?;
        Ok(revision.ended(outcome.as_ref()))
    }

    async fn outcome(&self, app: &str, number: u64) -> Result<Option<Outcome>, StoreError> {
        let key = RolloutKey::Ended(app.to_owned(), number).text();
        let found = self.rollouts.get(&*key).await;
        let found = found.map_err(failed("read how a rollout ended"))?;
        found.map(|bytes| read_rollout(&key, &bytes)).transpose()
    }

    /// How all rollouts ended whose revisions are kept.
    pub(crate) async fn outcomes(&self) -> Result<Vec<Outcome>, StoreError> {
        let all = super::all(&self.rollouts, "list how rollouts ended").await?;
        let ended = all
            .into_iter()
            .filter(|(key, _)| matches!(RolloutKey::parse(key), Some(RolloutKey::Ended(..))));
        ended
            .map(|(key, bytes)| read_rollout(&key, &bytes))
            .collect()
    }

    /// How far the rollout of an app is, as far as a host has said so.
    ///
    /// # Errors
    ///
    /// JetStream cannot be asked, or what is there cannot be read.
    pub async fn rolling(&self, app: &str) -> Result<Option<Rolling>, StoreError> {
        let key = RolloutKey::Lease(app.to_owned()).text();
        let found = self.rollouts.get(&*key).await;
        let found = found.map_err(failed("read how far a rollout is"))?;
        let lease = found.map(|bytes| read_rollout::<Lease>(&key, &bytes));
        Ok(lease.transpose()?.map(Lease::rolling))
    }

    /// Takes or renews a lease, if it is still as it was at this sequence; returns the new one.
    pub(crate) async fn lease(
        &self,
        lease: &Lease,
        after: Option<u64>,
    ) -> Result<Option<u64>, StoreError> {
        const DOING: &str = "take the lease of a rollout";
        let key = RolloutKey::Lease(lease.app.clone()).text();
        let bytes = to_json(lease);
        match after {
            None => match self.rollouts.create(&key, bytes).await {
                Ok(sequence) => Ok(Some(sequence)),
                Err(error) if error.kind() == CreateErrorKind::AlreadyExists => Ok(None),
                Err(error) => Err(failed(DOING)(error)),
            },
            Some(after) => match self.rollouts.update(&key, bytes, after).await {
                Ok(sequence) => Ok(Some(sequence)),
                Err(error) if error.kind() == UpdateErrorKind::WrongLastRevision => Ok(None),
                Err(error) => Err(failed(DOING)(error)),
            },
        }
    }

    /// Says what a host has seen.
    pub(crate) async fn tally(&self, tally: &HostTally) -> Result<(), StoreError> {
        let key = RolloutKey::Host(tally.app.clone(), tally.host.clone()).text();
        let written = self.rollouts.put(key, to_json(tally)).await;
        written
            .map(drop)
            .map_err(failed("say what a rollout has seen"))
    }

    /// Writes down how a rollout ended, unless that is known; and forgets about those whose revisions are
    /// not kept any more.
    pub(crate) async fn end(&self, outcome: &Outcome) -> Result<(), StoreError> {
        const DOING: &str = "write down how a rollout ended";
        let Outcome { app, revision, .. } = outcome;
        let key = RolloutKey::Ended(app.clone(), *revision).text();
        match self.rollouts.create(&key, to_json(outcome)).await {
            Err(error) if error.kind() != CreateErrorKind::AlreadyExists => {
                return Err(failed(DOING)(error));
            }
            _ => {}
        }
        let kept = revision.saturating_sub(u64::from(HISTORY));
        for old in self.outcomes().await? {
            if old.app == *app && old.revision < kept {
                self.erase(&RolloutKey::Ended(old.app, old.revision))
                    .await?;
            }
        }
        Ok(())
    }

    /// Removes an entry; with a sequence, only if it is still as it was there. Watchers are told.
    pub(crate) async fn forget(
        &self,
        key: &RolloutKey,
        sequence: Option<u64>,
    ) -> Result<(), StoreError> {
        let purged = self.rollouts.purge_expect_revision(key.text(), sequence);
        match purged.await {
            Ok(()) => Ok(()),
            // Another host has taken it since, or removed it.
            Err(error) if error.kind() == UpdateErrorKind::WrongLastRevision => Ok(()),
            Err(error) => Err(failed("forget a rollout")(error)),
        }
    }

    /// Removes an entry that nobody watches any more, with everything that says that it was there.
    async fn erase(&self, key: &RolloutKey) -> Result<(), StoreError> {
        let subject = format!("{}{}", self.rollouts.prefix, key.text());
        let erased = self.rollouts.stream.purge().filter(subject).await;
        erased.map(drop).map_err(failed("forget a rollout"))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::fleet::FORMAT;
    use crate::fleet::store::tests::alone;

    #[test]
    fn a_key_is_read_as_it_is_written() {
        let name = |text: &str| text.to_owned();
        for key in [
            RolloutKey::Lease(name("shop")),
            RolloutKey::Host(name("shop"), name("a")),
            RolloutKey::Ended(name("shop"), 7),
        ] {
            assert_eq!(RolloutKey::parse(&key.text()), Some(key));
        }
        for key in [
            "",
            "shop",
            "shop.lease.x",
            "shop.host",
            "shop.ended.x",
            "shop.host.a.b",
        ] {
            assert_eq!(RolloutKey::parse(key), None, "{key}");
        }
    }

    #[tokio::test]
    async fn what_a_rollout_has_left_is_removed_as_it_was_left() {
        let (_folder, server, store) = alone().await;
        let lease = Lease {
            format: FORMAT,
            app: "shop".to_owned(),
            revision: 1,
            host: "a".to_owned(),
            id: "a-1".to_owned(),
            elapsed_ms: 0,
            missing_ms: 0,
            services: BTreeMap::new(),
        };
        let first = store.lease(&lease, None).await.unwrap();
        let second = store.lease(&lease, first).await.unwrap();
        let key = RolloutKey::Lease("shop".to_owned());
        store.forget(&key, first).await.unwrap();
        assert!(store.rolling("shop").await.unwrap().is_some());
        store.forget(&key, second).await.unwrap();
        assert!(store.rolling("shop").await.unwrap().is_none());

        let outcome = |revision| Outcome {
            format: FORMAT,
            app: "shop".to_owned(),
            revision,
            went_on: true,
            why: String::new(),
            host: "a".to_owned(),
            at: String::new(),
        };
        let last = u64::from(HISTORY) + 2;
        for revision in [1, last] {
            store.end(&outcome(revision)).await.unwrap();
        }
        assert_eq!(store.outcomes().await.unwrap(), [outcome(last)]);
        // The mark that the lease is gone, and what is kept.
        let info = store.rollouts.stream.get_info().await.unwrap();
        assert_eq!(info.state.messages, 2);
        server.stop().await;
    }
}
