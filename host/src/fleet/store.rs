//! Where a fleet keeps what it is to run: JetStream.
//!
//! | bucket | has |
//! |---|---|
//! | `bay-fleet-apps` | the revisions of each app, the last [`HISTORY`] of them |
//! | `bay-fleet-components` | objects: the bytes of a component by its digest, its description and its signatures |
//! | `bay-fleet-hosts` | the signs of life of hosts, gone a moment after the last one |
//! | `bay-fleet-reports` | what hosts say of each app |
//! | `bay-fleet-drains` | the hosts that are to run nothing |
//! | `bay-fleet-rollouts` | who decides on a rollout, what hosts say of it, and how those of kept revisions ended; what open runs began with |

mod components;
mod drains;
mod rollouts;
mod signatures;
mod versions;
mod watched;

pub(crate) use rollouts::{RolloutKey, read_rollout};
pub(crate) use watched::{Watched, watch};

use std::collections::BTreeMap;
use std::time::Duration;

use async_nats::jetstream::kv::UpdateErrorKind;
use async_nats::jetstream::object_store::{self, ObjectStore};
use async_nats::jetstream::{self, kv};
use bytes::Bytes;
use futures_util::TryStreamExt as _;
use futures_util::future::{ready, try_join_all};
use serde::Serialize;
use tokio::time::timeout;

use super::records::{self, HostRecord, RecordError, Report, Revision, VERSION};
use super::{DEAD, HISTORY};
use crate::events::stream;
use crate::manifest::{App, Digest};
use crate::subject::{
    FLEET_APPS, FLEET_COMPONENTS, FLEET_DRAINS, FLEET_HOSTS, FLEET_REPORTS, FLEET_ROLLOUTS,
};

/// Time after which an entry of a host is gone from its bucket.
const FORGOTTEN: Duration = Duration::from_secs(3);

/// Time after which a report is gone that its host does not repeat.
const REPORTED: Duration = Duration::from_secs(24 * 3_600);

/// No name of an app.
const NO_APP: &str = "-";

/// The store of a fleet.
#[derive(Clone)]
pub struct Store {
    context: jetstream::Context,
    apps: kv::Store,
    hosts: kv::Store,
    reports: kv::Store,
    drains: kv::Store,
    rollouts: kv::Store,
    components: ObjectStore,
}

/// A revision, and where it stands in its bucket.
#[derive(Clone, Debug, PartialEq)]
pub struct Kept {
    /// The revision.
    pub revision: Revision,
    /// The sequence that the next one has to name.
    pub sequence: u64,
}

/// The store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No host has created it.
    #[error("there is no fleet on this NATS system")]
    NoFleet,
    /// Hosts of an earlier version created it, without what this one needs.
    #[error(
        "the hosts of this fleet are of an earlier version of wasmbay: its store has no bucket `{0}`; start a host of version {VERSION}, which creates it"
    )]
    Earlier(&'static str),
    /// Another revision was written meanwhile.
    #[error("app \"{app}\" was changed by someone else meanwhile")]
    Conflict {
        /// The app.
        app: String,
    },
    /// A revision has more bytes than a message of NATS may have.
    #[error(
        "app \"{app}\" takes {size} bytes, and a message of this NATS system may have {most}; raise `max_payload` of nats-server, or make two apps of it"
    )]
    TooLarge {
        /// The app.
        app: String,
        /// Its bytes.
        size: usize,
        /// The most.
        most: usize,
    },
    /// The bytes of a component are not there.
    #[error("component {} is not in the store; deploy it again", .0.short())]
    Missing(Digest),
    /// The bytes under a digest are others.
    #[error("component {} is corrupted in the store{}; deploy it again", digest.short(), found.as_ref().map(|found| format!(": its bytes have the digest {}", found.short())).unwrap_or_default())]
    Corrupted {
        /// The digest that they should have.
        digest: Digest,
        /// That they have; unknown if not all of them came.
        found: Option<Digest>,
    },
    /// What is kept cannot be read.
    #[error("{what}")]
    Record {
        /// What it is.
        what: String,
        /// Why.
        source: RecordError,
    },
    /// JetStream did not do what it was asked.
    #[error("JetStream cannot {doing}")]
    JetStream {
        /// What it was asked.
        doing: &'static str,
        /// Why.
        source: async_nats::Error,
    },
}

fn failed<E: Into<async_nats::Error>>(doing: &'static str) -> impl Fn(E) -> StoreError {
    move |error| StoreError::JetStream {
        doing,
        source: error.into(),
    }
}

fn unreadable(what: impl Into<String>) -> impl FnOnce(RecordError) -> StoreError {
    let what = what.into();
    move |source| StoreError::Record { what, source }
}

impl Store {
    /// Opens the store of the fleet on this NATS system.
    ///
    /// # Errors
    ///
    /// No host has ever created it, or JetStream cannot be asked.
    pub async fn open(context: jetstream::Context) -> Result<Self, StoreError> {
        const DOING: &str = "open the fleet's store";
        let found = stream::find(&context, &format!("KV_{FLEET_APPS}")).await;
        if found.map_err(failed(DOING))?.is_none() {
            return Err(StoreError::NoFleet);
        }
        let bucket = async |name: &'static str| match context.get_key_value(name).await {
            Ok(bucket) => Ok(bucket),
            Err(error) => {
                let found = stream::find(&context, &format!("KV_{name}")).await;
                Err(match found.map_err(failed(DOING))? {
                    Some(_) => failed(DOING)(error),
                    None => StoreError::Earlier(name),
                })
            }
        };
        let components = context.get_object_store(FLEET_COMPONENTS).await;
        Ok(Self {
            apps: bucket(FLEET_APPS).await?,
            hosts: bucket(FLEET_HOSTS).await?,
            reports: bucket(FLEET_REPORTS).await?,
            drains: bucket(FLEET_DRAINS).await?,
            rollouts: bucket(FLEET_ROLLOUTS).await?,
            components: components.map_err(failed(DOING))?,
            context,
        })
    }

    /// Opens the store, and creates what is missing of it. `copies` servers keep each bucket; without a
    /// number, those that exist stay as they are and new ones are kept once. A new bucket of apps keeps
    /// `history` revisions of each.
    ///
    /// # Errors
    ///
    /// JetStream cannot create it.
    pub async fn create(
        context: jetstream::Context,
        copies: Option<u8>,
        history: u8,
    ) -> Result<Self, StoreError> {
        const DOING: &str = "create the fleet's store";
        let replicas = copies.map_or(1, usize::from);
        let buckets = [
            (
                FLEET_APPS,
                "apps of a wasmbay fleet",
                i64::from(history.min(HISTORY)),
                Duration::ZERO,
            ),
            (FLEET_HOSTS, "hosts of a wasmbay fleet", 1, FORGOTTEN),
            (
                FLEET_REPORTS,
                "what hosts of a wasmbay fleet run",
                1,
                REPORTED,
            ),
            (
                FLEET_DRAINS,
                "drained hosts of a wasmbay fleet",
                1,
                Duration::ZERO,
            ),
            (
                FLEET_ROLLOUTS,
                "rollouts of a wasmbay fleet",
                1,
                Duration::ZERO,
            ),
        ];
        for (bucket, description, history, max_age) in buckets {
            let config = kv::Config {
                bucket: bucket.to_owned(),
                description: description.to_owned(),
                history,
                max_age,
                num_replicas: replicas,
                ..kv::Config::default()
            };
            let name = format!("KV_{bucket}");
            if !keeps(&context, &name, copies).await.map_err(failed(DOING))?
                && let Err(error) = context.create_key_value(config).await
                // Another host may have created it between the two steps.
                && stream::find(&context, &name).await.map_err(failed(DOING))?.is_none()
            {
                return Err(failed(DOING)(error));
            }
        }
        let name = format!("OBJ_{FLEET_COMPONENTS}");
        if !keeps(&context, &name, copies)
            .await
            .map_err(failed(DOING))?
        {
            let config = object_store::Config {
                bucket: FLEET_COMPONENTS.to_owned(),
                description: Some("components of a wasmbay fleet".to_owned()),
                num_replicas: replicas,
                ..object_store::Config::default()
            };
            if let Err(error) = context.create_object_store(config).await
                && stream::find(&context, &name)
                    .await
                    .map_err(failed(DOING))?
                    .is_none()
            {
                return Err(failed(DOING)(error));
            }
        }
        Self::open(context).await
    }

    /// Creates the store again if it was lost; returns whether it was.
    pub(crate) async fn restore(
        &self,
        copies: Option<u8>,
        history: u8,
    ) -> Result<bool, StoreError> {
        let hosts = stream::find(&self.context, &self.hosts.stream_name).await;
        if hosts
            .map_err(failed("look for the fleet's store"))?
            .is_some()
        {
            return Ok(false);
        }
        Self::create(self.context.clone(), copies, history).await?;
        Ok(true)
    }

    /// The last revision of every app, those that were undeployed included, as it is after its rollout.
    ///
    /// # Errors
    ///
    /// One of them cannot be read.
    pub async fn apps(&self) -> Result<BTreeMap<String, Kept>, StoreError> {
        let apps = self.each_app().await?.into_iter();
        apps.map(|(name, kept)| Ok((name, kept?))).collect()
    }

    /// As [`apps`](Self::apps), without a failure of all for one that cannot be read.
    ///
    /// # Errors
    ///
    /// JetStream cannot be asked.
    pub async fn each_app(&self) -> Result<BTreeMap<String, Result<Kept, StoreError>>, StoreError> {
        let names = keys(&self.apps, "list the apps").await?;
        let apps = names
            .into_iter()
            .map(async |name| match self.app(&name).await {
                Ok(kept) => Ok(kept.map(|kept| (name, Ok(kept)))),
                Err(error @ StoreError::Record { .. }) => Ok(Some((name, Err(error)))),
                Err(error) => Err(error),
            });
        let apps = try_join_all(apps).await?;
        Ok(apps.into_iter().flatten().collect())
    }

    /// The last revision of an app, as it is after its rollout.
    ///
    /// # Errors
    ///
    /// It cannot be read.
    pub async fn app(&self, name: &str) -> Result<Option<Kept>, StoreError> {
        let entry = self.apps.entry(name).await;
        let Some(entry) = entry.map_err(failed("read an app"))? else {
            return Ok(None);
        };
        let revision = read_app(name, &entry.value)?;
        Ok(Some(Kept {
            revision: self.ended(name, revision).await?,
            sequence: entry.revision,
        }))
    }

    /// All apps that are deployed, with this one in the place of what is deployed of it.
    ///
    /// # Errors
    ///
    /// One of them cannot be read.
    pub async fn specified(&self, instead: Option<&App>) -> Result<Vec<App>, StoreError> {
        let apps = self.apps().await?.into_values();
        let apps = apps.filter_map(|kept| kept.revision.specification);
        let mut apps: Vec<App> = apps.map(|specification| specification.app).collect();
        if let Some(instead) = instead {
            apps.retain(|app| app.name != instead.name);
            apps.push(instead.clone());
        }
        Ok(apps)
    }

    /// The revisions of an app that are kept, the oldest first.
    ///
    /// # Errors
    ///
    /// One of them cannot be read.
    pub async fn history(&self, name: &str) -> Result<Vec<Revision>, StoreError> {
        const DOING: &str = "read the history of an app";
        if self.app(name).await?.is_none() {
            // Asking for the history of a key that does not exist waits for one.
            return Ok(Vec::new());
        }
        let entries = self.apps.history(name).await.map_err(failed(DOING))?;
        let entries: Vec<_> = entries.try_collect().await.map_err(failed(DOING))?;
        let mut revisions = Vec::new();
        for entry in &entries {
            let revision = read_app(name, &entry.value)?;
            revisions.push(self.ended(name, revision).await?);
        }
        Ok(revisions)
    }

    /// Writes the next revision of an app, if the last one is still that of `after`.
    ///
    /// # Errors
    ///
    /// Another one was written since, or it is too large.
    pub async fn write(
        &self,
        app: &str,
        revision: &Revision,
        after: Option<u64>,
    ) -> Result<(), StoreError> {
        let bytes = to_json(revision);
        let most = self.context.client().server_info().max_payload;
        // Headers count too.
        let size = bytes.len() + 512;
        if most > 0 && size > most {
            let app = app.to_owned();
            return Err(StoreError::TooLarge { app, size, most });
        }
        let written = self.apps.update(app, bytes, after.unwrap_or(0)).await;
        match written {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == UpdateErrorKind::WrongLastRevision => {
                let app = app.to_owned();
                Err(StoreError::Conflict { app })
            }
            Err(error) => Err(failed("write an app")(error)),
        }
    }

    /// The hosts that gave a sign of life a moment ago, by name.
    ///
    /// # Errors
    ///
    /// JetStream cannot be asked, or a record cannot be read.
    pub async fn hosts(&self) -> Result<Vec<HostRecord>, StoreError> {
        let all = all(&self.hosts, "list the hosts").await?;
        let hosts = all
            .into_iter()
            .map(|(name, bytes)| read_host(&name, &bytes));
        hosts.collect()
    }

    /// A host's record, if it gave a sign of life a moment ago.
    pub(crate) async fn host(&self, name: &str) -> Result<Option<HostRecord>, StoreError> {
        let bytes = self.hosts.get(name).await.map_err(failed("read a host"))?;
        bytes.map(|bytes| read_host(name, &bytes)).transpose()
    }

    /// Gives a sign of life.
    pub(crate) async fn beat(&self, record: &HostRecord) -> Result<(), StoreError> {
        let beat = self.hosts.put(&record.name, to_json(record));
        // The next one is worth more than this one.
        let written = timeout(DEAD, beat).await.map_err(failed("keep a host"))?;
        written.map(drop).map_err(failed("keep a host"))
    }

    /// Does once what a host does all the time, so that it is known from the start if it may not: reads
    /// every bucket, and writes a sign of life and a report.
    pub(crate) async fn try_out(&self, record: &HostRecord) -> Result<(), StoreError> {
        const DOING: &str = "list what is kept";
        for bucket in [
            &self.apps,
            &self.hosts,
            &self.reports,
            &self.drains,
            &self.rollouts,
        ] {
            let keys = bucket.keys().await.map_err(failed(DOING))?;
            keys.try_collect::<Vec<_>>().await.map_err(failed(DOING))?;
        }
        self.beat(record).await?;
        self.forget_report(&record.name, NO_APP).await
    }

    /// Takes a host out at once.
    pub(crate) async fn forget_host(&self, name: &str) -> Result<(), StoreError> {
        let forgotten = self.hosts.delete(name).await;
        forgotten.map_err(failed("forget a host"))
    }

    /// What all hosts report.
    ///
    /// # Errors
    ///
    /// JetStream cannot be asked, or a report cannot be read.
    pub async fn reports(&self) -> Result<Vec<Report>, StoreError> {
        let all = all(&self.reports, "list what hosts report").await?;
        let reports = all
            .into_iter()
            .map(|(key, bytes)| read_report(&key, &bytes));
        reports.collect()
    }

    /// Reports on an app.
    pub(crate) async fn report(&self, report: &Report) -> Result<(), StoreError> {
        let key = report_key(&report.host, &report.app);
        let written = self.reports.put(key, to_json(report)).await;
        written.map(drop).map_err(failed("keep a report"))
    }

    /// Takes back what a host reported on an app.
    pub(crate) async fn forget_report(&self, host: &str, app: &str) -> Result<(), StoreError> {
        let forgotten = self.reports.purge(report_key(host, app)).await;
        forgotten.map_err(failed("forget a report"))
    }

    pub(crate) fn apps_bucket(&self) -> &kv::Store {
        &self.apps
    }

    pub(crate) fn hosts_bucket(&self) -> &kv::Store {
        &self.hosts
    }

    pub(crate) fn reports_bucket(&self) -> &kv::Store {
        &self.reports
    }

    pub(crate) fn drains_bucket(&self) -> &kv::Store {
        &self.drains
    }

    pub(crate) fn rollouts_bucket(&self) -> &kv::Store {
        &self.rollouts
    }
}

/// Whether a stream exists; one with another number of copies is given this one.
async fn keeps(
    context: &jetstream::Context,
    name: &str,
    copies: Option<u8>,
) -> Result<bool, async_nats::Error> {
    let Some(stream) = stream::find(context, name).await? else {
        return Ok(false);
    };
    let config = &stream.cached_info().config;
    if let Some(copies) = copies.map(usize::from)
        && config.num_replicas != copies
    {
        let config = jetstream::stream::Config {
            num_replicas: copies,
            ..config.clone()
        };
        context.update_stream(config).await?;
    }
    Ok(true)
}

/// The keys of a bucket, and those that were removed from it and left a marker.
///
/// They come from the state of its stream, at one moment. The bucket's own `keys` reads its messages one
/// by one, and so misses a key that is written again meanwhile, as a host's is by each sign of life.
async fn keys(bucket: &kv::Store, doing: &'static str) -> Result<Vec<String>, StoreError> {
    let subjects = format!("{}>", bucket.prefix);
    let subjects = bucket.stream.info_with_subjects(subjects).await;
    let subjects = subjects.map_err(failed(doing))?;
    let key =
        |(subject, _): (String, usize)| subject.strip_prefix(&*bucket.prefix).map(str::to_owned);
    let keys = subjects.try_filter_map(|subject| ready(Ok(key(subject))));
    keys.try_collect().await.map_err(failed(doing))
}

/// All values of a bucket, without those that went meanwhile.
async fn all(
    bucket: &kv::Store,
    doing: &'static str,
) -> Result<BTreeMap<String, Bytes>, StoreError> {
    let values = keys(bucket, doing).await?.into_iter().map(async |key| {
        let value = bucket.get(&key).await.map_err(failed(doing))?;
        Ok::<_, StoreError>(value.map(|value| (key, value)))
    });
    Ok(try_join_all(values).await?.into_iter().flatten().collect())
}

/// The key of a report. Neither name has a dot.
fn report_key(host: &str, app: &str) -> String {
    format!("{host}.{app}")
}

pub(crate) fn read_app(name: &str, bytes: &[u8]) -> Result<Revision, StoreError> {
    let read = records::read_revision(name, bytes);
    read.map_err(unreadable(format!("app \"{name}\"")))
}

pub(crate) fn read_host(name: &str, bytes: &[u8]) -> Result<HostRecord, StoreError> {
    let read = records::read::<HostRecord>(bytes);
    let record = read.map_err(unreadable(format!("host \"{name}\"")))?;
    if record.name == name {
        Ok(record)
    } else {
        let source = RecordError::Name(record.name);
        Err(unreadable(format!("host \"{name}\""))(source))
    }
}

pub(crate) fn read_report(key: &str, bytes: &[u8]) -> Result<Report, StoreError> {
    let read = records::read::<Report>(bytes);
    let report = read.map_err(unreadable(format!("report \"{key}\"")))?;
    if report_key(&report.host, &report.app) == key {
        Ok(report)
    } else {
        let source = RecordError::Name(report.app);
        Err(unreadable(format!("report \"{key}\""))(source))
    }
}

/// Records are maps with texts as keys, so that writing them does not fail.
fn to_json(value: &impl Serialize) -> Bytes {
    serde_json::to_vec(value).unwrap_or_default().into()
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;
    use crate::nats::{ConnectOptions, ManagedServer, ServerOptions};

    /// A store, with its server and the folder that the server writes to.
    pub(super) async fn alone() -> (TempDir, ManagedServer, Store) {
        let folder = tempfile::tempdir().unwrap();
        let options = ServerOptions {
            data: folder.path().to_owned(),
            ..ServerOptions::default()
        };
        let server = ManagedServer::start(options).await.unwrap();
        let nats = ConnectOptions::to(server.url());
        let context = nats.jetstream(nats.connect().await.unwrap());
        let store = Store::create(context, None, HISTORY).await.unwrap();
        (folder, server, store)
    }

    #[tokio::test]
    async fn hosts_are_listed_while_they_give_signs_of_life() {
        let (_folder, _server, store) = alone().await;
        let hosts = ["a", "b", "c"].map(|name| HostRecord::of(name, "1"));
        for host in &hosts {
            store.beat(host).await.unwrap();
        }
        store.forget_host("gone").await.unwrap();
        let beats = async {
            loop {
                for host in &hosts {
                    store.beat(host).await.unwrap();
                }
            }
        };
        let looks = async {
            for _ in 0..300 {
                assert_eq!(store.hosts().await.unwrap(), hosts);
            }
        };
        tokio::select! {
            () = beats => {}
            () = looks => {}
        }
    }
}
