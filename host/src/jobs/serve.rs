//! What of an app's jobs runs at a host.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_nats::jetstream::Context;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::clock::{Clock, Timed, Wanted};
use super::owner::Work;
use super::run::Outcome;
use super::store::Store;
use crate::interfaces::Backend;
use crate::manifest::Specification;
use crate::runtime::Service;
use crate::text::hex;

/// Upper bound of the time for handing runs over, within the time for stopping.
const HANDING_OVER: Duration = Duration::from_secs(2);

/// The jobs that a host serves.
pub(crate) struct Serving {
    store: Store,
    host: String,
    /// Where jobs run, each on one of them.
    places: Vec<(Handle, Arc<dyn Backend>)>,
    wanted: watch::Sender<Arc<Wanted>>,
    /// Begins runs, once the app has had a job.
    clock: Mutex<Option<JoinHandle<()>>>,
    served: Mutex<BTreeMap<String, Served>>,
    /// What is not served any more and has not ended.
    leaving: Mutex<Vec<JoinHandle<()>>>,
    counts: Arc<Counts>,
}

struct Served {
    service: watch::Sender<Arc<Service>>,
    stopping: watch::Sender<Option<Instant>>,
    task: JoinHandle<()>,
}

impl Serving {
    /// Serves nothing yet. What it asks of JetStream it asks on the first of the places.
    pub(crate) fn new(
        app: &str,
        host: &str,
        context: Context,
        places: Vec<(Handle, Arc<dyn Backend>)>,
    ) -> Self {
        Self {
            store: Store::new(context, app),
            host: host.to_owned(),
            places,
            wanted: watch::Sender::default(),
            clock: Mutex::default(),
            served: Mutex::default(),
            leaving: Mutex::default(),
            counts: Arc::default(),
        }
    }

    /// Serves the jobs that are among these services and no others, and sees to it that runs of all jobs of the
    /// app begin. What runs of a job that is served no more may end within the grace time.
    pub(crate) fn apply(
        &self,
        specification: &Specification,
        services: &BTreeMap<String, Arc<Service>>,
        grace: Duration,
    ) {
        let wanted = wanted(specification);
        if !wanted.is_empty() {
            self.begin_clock();
        }
        self.wanted.send_if_modified(|before| {
            let differs = **before != wanted;
            if differs {
                *before = Arc::new(wanted);
            }
            differs
        });
        let jobs = services.iter().filter(|(_, one)| one.spec.job.is_some());
        let jobs: BTreeMap<_, _> = jobs.collect();
        let mut served = locked(&self.served);
        for (_, left) in served.extract_if(.., |name, _| !jobs.contains_key(name)) {
            left.stopping.send_replace(Some(Instant::now() + grace));
            let mut leaving = locked(&self.leaving);
            leaving.retain(|task| !task.is_finished());
            leaving.push(left.task);
        }
        for (name, service) in jobs {
            match served.get(name) {
                Some(served) => {
                    served.service.send_if_modified(|before| {
                        let differs = !Arc::ptr_eq(before, service);
                        *before = Arc::clone(service);
                        differs
                    });
                }
                None => {
                    if let Some(begun) = self.begin(name, service) {
                        served.insert(name.clone(), begun);
                    }
                }
            }
        }
    }

    fn begin_clock(&self) {
        let mut clock = locked(&self.clock);
        if let (None, Some((runtime, _))) = (&*clock, self.places.first()) {
            let ticking = Clock {
                store: self.store.clone(),
                host: self.host.clone(),
                wanted: self.wanted.subscribe(),
                counts: Arc::clone(&self.counts),
            };
            *clock = Some(runtime.spawn(ticking.run()));
        }
    }

    fn begin(&self, name: &str, service: &Arc<Service>) -> Option<Served> {
        // A job computes for long, so not all of them on one thread.
        let mut hasher = DefaultHasher::new();
        name.hash(&mut hasher);
        let many = u64::try_from(self.places.len()).unwrap_or(u64::MAX).max(1);
        let place = usize::try_from(hasher.finish() % many).unwrap_or_default();
        let (runtime, backend) = self.places.get(place)?;
        let (service, stopping) = (
            watch::Sender::new(Arc::clone(service)),
            watch::Sender::new(None),
        );
        let work = Work {
            store: self.store.clone(),
            host: self.host.clone(),
            job: name.to_owned(),
            backend: Arc::clone(backend),
            service: service.subscribe(),
            wanted: self.wanted.subscribe(),
            stopping: stopping.subscribe(),
            counts: Arc::clone(&self.counts),
        };
        Some(Served {
            service,
            stopping,
            task: runtime.spawn(work.run()),
        })
    }

    /// What was counted of each job since the host started.
    pub(crate) fn counts(&self) -> Vec<(String, JobCount)> {
        let counts = locked(&self.counts.0);
        let all = counts.iter();
        all.map(|(job, count)| (job.clone(), count.clone()))
            .collect()
    }

    /// Stops: what runs may end until the deadline; then it is handed to another host, which runs it again.
    /// Returns the number of jobs for which that was not done in time.
    pub(crate) async fn stop(&self, deadline: Instant) -> usize {
        if let Some(clock) = locked(&self.clock).take() {
            clock.abort();
        }
        let served = std::mem::take(&mut *locked(&self.served));
        let mut tasks = std::mem::take(&mut *locked(&self.leaving));
        // Some of the time is for handing over, and for the services that they call.
        let left = deadline.saturating_duration_since(Instant::now());
        let until = deadline - (left / 5).min(HANDING_OVER);
        for served in served.into_values() {
            served.stopping.send_replace(Some(until));
            tasks.push(served.task);
        }
        let mut given_up = 0;
        for mut task in tasks {
            let ended = tokio::time::timeout_at(deadline.into(), &mut task).await;
            if ended.is_err() {
                task.abort();
                given_up += 1;
            }
        }
        given_up
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let clock = locked(&self.clock).take();
        let served = std::mem::take(&mut *locked(&self.served));
        let leaving = std::mem::take(&mut *locked(&self.leaving));
        let served = served.into_values().map(|served| served.task);
        for task in served.chain(leaving).chain(clock) {
            task.abort();
        }
    }
}

/// The jobs of a specification.
fn wanted(specification: &Specification) -> Wanted {
    let jobs = specification.app.jobs();
    let timed = jobs.map(|(name, spec, job)| {
        let component = specification.components.get(name).map(ToString::to_string);
        let settings = json!([component, spec.args, spec.env, spec.config]);
        let version = hex(Sha256::digest(settings.to_string())
            .get(..6)
            .unwrap_or_default());
        let timed = Timed {
            spec: job.clone(),
            replicas: spec.replicas,
            version,
        };
        (name.clone(), timed)
    });
    timed.collect()
}

/// What a host counts of jobs.
#[derive(Default)]
pub(super) struct Counts(Mutex<BTreeMap<String, JobCount>>);

/// What a host counts of one job.
#[derive(Clone, Default)]
pub(crate) struct JobCount {
    /// Whether it runs here.
    pub(crate) running: bool,
    /// Attempts by how they ended, and runs that were skipped.
    pub(crate) ended: BTreeMap<Outcome, u64>,
    /// When it last succeeded here, in milliseconds since 1970.
    pub(crate) succeeded: Option<u64>,
}

impl Counts {
    pub(super) fn started(&self, job: &str) {
        self.of(job, |count| count.running = true);
    }

    pub(super) fn stopped(&self, job: &str) {
        self.of(job, |count| count.running = false);
    }

    pub(super) fn ended(&self, job: &str, outcome: Outcome, now: u64) {
        self.of(job, |count| {
            *count.ended.entry(outcome).or_default() += 1;
            if outcome == Outcome::Succeeded {
                count.succeeded = Some(now);
            }
        });
    }

    fn of(&self, job: &str, change: impl FnOnce(&mut JobCount)) {
        let mut counts = locked(&self.0);
        change(counts.entry(job.to_owned()).or_default());
    }
}

fn locked<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
