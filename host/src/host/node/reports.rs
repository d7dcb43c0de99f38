//! What a node tells its fleet: signs of life, and reports on apps. Both are told again until they are
//! kept.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::fleet::{BEAT, HostRecord, Report, ServiceState, Store};

/// Time between two attempts to keep a report.
const AGAIN: Duration = Duration::from_millis(500);

/// Time after which every report is repeated: the bucket may have been lost.
const REPEAT: Duration = Duration::from_secs(60);

/// The reports of a node. The last one of each app counts.
#[derive(Default)]
pub(super) struct Reports {
    apps: Mutex<BTreeMap<String, Said>>,
    changed: Notify,
}

#[derive(Default)]
struct Said {
    /// What the app itself says; nothing if it does not run here.
    own: Option<Report>,
    /// A revision that cannot be read, in the place of which an earlier one goes on.
    unread: Option<Report>,
    /// What is reported; nothing if there is nothing to report any more.
    report: Option<Report>,
    is_kept: bool,
}

impl Said {
    /// What is reported: what runs, and that a later revision cannot be read.
    fn both(&self) -> Option<Report> {
        let Some(unread) = &self.unread else {
            return self.own.clone();
        };
        let own = self.own.iter();
        let services = own.flat_map(|own| own.services.clone()).collect();
        Some(Report {
            services,
            ..unread.clone()
        })
    }
}

impl Reports {
    /// Reports on an app, unless that was the last that was said.
    pub(super) fn say(&self, report: Report) {
        let app = report.app.clone();
        self.put(&app, Some(report));
    }

    /// Takes back what was reported on an app.
    pub(super) fn take_back(&self, app: &str) {
        self.put(app, None);
    }

    /// Reports that a revision of an app cannot be read, or that the last one can.
    pub(super) fn unread(&self, app: &str, report: Option<Report>) {
        self.change(app, |said| said.unread = report);
    }

    fn put(&self, app: &str, report: Option<Report>) {
        self.change(app, |said| said.own = report);
    }

    fn change(&self, app: &str, change: impl FnOnce(&mut Said)) {
        let mut apps = self.lock();
        let is_new = !apps.contains_key(app);
        let said = apps.entry(app.to_owned()).or_default();
        change(said);
        let report = said.both();
        if report == said.report && !(is_new && report.is_some()) {
            // Nothing was ever said of it.
            if is_new {
                apps.remove(app);
            }
            return;
        }
        said.report = report;
        said.is_kept = false;
        self.changed.notify_one();
    }

    /// The services that are on their way here, as APP/SERVICE.
    pub(super) fn coming(&self) -> Vec<String> {
        let apps = self.lock();
        let reports = apps.values().filter_map(|said| said.report.as_ref());
        let services = reports.flat_map(|report| {
            let services = report.services.iter();
            services.map(move |(service, said)| (&report.app, service, said.state))
        });
        let coming = services.filter(|(_, _, state)| {
            matches!(state, ServiceState::Fetching | ServiceState::Starting)
        });
        coming
            .map(|(app, service, _)| format!("{app}/{service}"))
            .collect()
    }

    /// Writes down what is said, for ever.
    pub(super) async fn keep(&self, store: Store, host: String) {
        let mut repeat = interval(REPEAT);
        repeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = self.changed.notified() => {}
                _ = repeat.tick() => {
                    let mut apps = self.lock();
                    apps.retain(|_, said| said.report.is_some() || !said.is_kept);
                    apps.values_mut().for_each(|said| said.is_kept = false);
                }
            }
            while !self.keep_all(&store, &host).await {
                sleep(AGAIN).await;
            }
        }
    }

    /// Writes down what is not kept yet; returns whether all is.
    pub(super) async fn keep_all(&self, store: &Store, host: &str) -> bool {
        let unkept: Vec<_> = self
            .lock()
            .iter()
            .filter(|(_, said)| !said.is_kept)
            .map(|(app, said)| (app.clone(), said.report.clone()))
            .collect();
        for (app, report) in unkept {
            let kept = match &report {
                Some(report) => store.report(report).await,
                None => store.forget_report(host, &app).await,
            };
            if let Err(error) = kept {
                tracing::debug!(%error, app, "a report could not be kept");
                return false;
            }
            let mut apps = self.lock();
            if let Some(said) = apps.get_mut(&app)
                && said.report == report
            {
                said.is_kept = true;
            }
        }
        self.lock().values().all(|said| said.is_kept)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Said>> {
        self.apps.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Gives signs of life, for ever: at every beat, and at once when the record changes. Creates the store
/// again if it was lost.
pub(super) async fn beat(
    store: Store,
    (copies, history): (Option<u8>, u8),
    mut record: watch::Receiver<HostRecord>,
) {
    let mut beats = interval(BEAT);
    beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = beats.tick() => {}
            changed = record.changed() => {
                if changed.is_err() {
                    return;
                }
            }
        }
        let now = record.borrow_and_update().clone();
        let Err(error) = store.beat(&now).await else {
            continue;
        };
        tracing::debug!(%error, "a sign of life could not be given");
        match store.restore(copies, history).await {
            Ok(false) => {}
            Ok(true) => tracing::warn!("the fleet's store was lost, and is created again"),
            Err(error) => tracing::debug!(%error, "the fleet's store cannot be looked for"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::{FORMAT, ServiceReport};
    use crate::manifest::Digest;

    fn report(revision: u64, error: Option<&str>) -> Report {
        let service = ServiceReport {
            state: ServiceState::Serving,
            digest: Digest::of(b"a"),
            since: String::new(),
            error: None,
        };
        let services = match error {
            None => BTreeMap::from([("a".to_owned(), service)]),
            Some(_) => BTreeMap::new(),
        };
        Report {
            format: FORMAT,
            host: "x".to_owned(),
            id: "x-1".to_owned(),
            app: "shop".to_owned(),
            revision,
            error: error.map(str::to_owned),
            services,
        }
    }

    #[test]
    fn a_revision_that_cannot_be_read_is_reported_beside_what_runs() {
        let reports = Reports::default();
        let said = || {
            reports
                .lock()
                .get("shop")
                .and_then(|said| said.report.clone())
        };
        // That there is nothing is nothing to say.
        reports.unread("shop", None);
        assert!(reports.lock().is_empty());
        reports.unread("shop", Some(report(3, Some("too new"))));
        assert_eq!(said(), Some(report(3, Some("too new"))));
        reports.say(report(2, None));
        let both = Report {
            services: report(2, None).services,
            ..report(3, Some("too new"))
        };
        assert_eq!(said(), Some(both));
        reports.unread("shop", None);
        assert_eq!(said(), Some(report(2, None)));
        reports.take_back("shop");
        assert_eq!(said(), None);
    }
}
