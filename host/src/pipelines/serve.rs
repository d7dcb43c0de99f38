//! What of an app's pipelines runs at a host: a subscription and a worker for each.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_nats::jetstream::Context;
use futures_util::StreamExt as _;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use super::archive::{Archive, Archives, Ready};
use super::front::Front;
use super::journal::Journals;
use super::owner::Work;
use super::room::Room;
use super::stopped;
use super::stream::open_runs;
use super::versions::Versions;
use crate::interfaces::Backend;
use crate::nats::{Link, SubscribeError};
use crate::plan::Pipeline;
use crate::runtime::{Runtime, Service, Stats};
use crate::spans::Spans;
use crate::subject;

/// The waits before open runs are asked for again, doubled from the first to the last.
const FIRST_AGAIN: Duration = Duration::from_millis(100);
const LAST_AGAIN: Duration = Duration::from_secs(2);

/// The pipelines that a host serves.
pub(crate) struct Serving {
    journals: Journals,
    link: Link,
    backend: Arc<dyn Backend>,
    runtime: Handle,
    spans: Spans,
    services: Runtime,
    /// Nothing where versions of services are not kept.
    archives: Option<Archives>,
    room: Arc<Room>,
    served: Mutex<BTreeMap<String, Served>>,
    /// What is not served any more and has not ended.
    leaving: Mutex<Vec<JoinHandle<()>>>,
}

struct Served {
    subject: String,
    pipeline: watch::Sender<Arc<Pipeline>>,
    versions: watch::Sender<Versions>,
    stopping: watch::Sender<bool>,
    stats: Arc<Stats>,
    tasks: Vec<JoinHandle<()>>,
}

/// What serving pipelines begins with.
pub(crate) struct Begins {
    pub(crate) link: Link,
    pub(crate) context: Context,
    pub(crate) backend: Arc<dyn Backend>,
    /// The runtime of the connection, on which everything runs.
    pub(crate) runtime: Handle,
    pub(crate) spans: Spans,
    /// For services that were replaced.
    pub(crate) services: Runtime,
    /// Whether versions of services are kept somewhere, which is to be said.
    pub(crate) is_archived: bool,
}

impl Serving {
    /// Serves nothing of the app of this name yet.
    pub(crate) fn new(app: &str, begins: Begins) -> Self {
        let Begins {
            link,
            context,
            backend,
            runtime,
            spans,
            services,
            is_archived,
        } = begins;
        Self {
            journals: Journals::new(context, app),
            link,
            backend,
            runtime,
            spans,
            services,
            archives: is_archived.then(|| Archives::new(None)),
            room: Arc::default(),
            served: Mutex::default(),
            leaving: Mutex::default(),
        }
    }

    /// Says where versions of services are kept, if somebody waits for that.
    pub(crate) fn open_archive(&self, archive: Arc<dyn Archive>) {
        if let Some(archives) = &self.archives {
            archives.send_replace(Some(archive));
        }
    }

    fn served(&self) -> MutexGuard<'_, BTreeMap<String, Served>> {
        self.served.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Serves these pipelines and no others, durable functions by those of these services that export them.
    /// Runs go on as the pipeline was when they began.
    ///
    /// # Errors
    ///
    /// The connection is closed.
    pub(crate) fn apply(
        &self,
        pipelines: &[Pipeline],
        services: &BTreeMap<String, Arc<Service>>,
    ) -> Result<(), SubscribeError> {
        let mut served = self.served();
        let subject =
            |pipeline: &Pipeline| subject::of_function(&self.journals.app, &pipeline.function);
        let left = served.extract_if(.., |name, served| {
            let mut same = pipelines.iter().filter(|pipeline| pipeline.name == *name);
            !same.any(|pipeline| subject(pipeline) == served.subject)
        });
        for (_, left) in left {
            left.stopping.send_replace(true);
            let mut leaving = self.leaving.lock().unwrap_or_else(PoisonError::into_inner);
            leaving.retain(|task| !task.is_finished());
            leaving.extend(left.tasks);
        }
        for pipeline in pipelines {
            let next = Arc::new(pipeline.clone());
            let durable = pipeline.durable.as_ref();
            let service = durable.and_then(|durable| services.get(&durable.service));
            let imports = durable.map_or(&[][..], |durable| &durable.imports);
            match served.get(&pipeline.name) {
                Some(served) => {
                    served.pipeline.send_replace(next);
                    served
                        .versions
                        .send_if_modified(|versions| versions.replace(service, imports));
                }
                None => {
                    let versions = Versions::of(service, imports);
                    let begun = self.begin(subject(pipeline), next, versions)?;
                    served.insert(pipeline.name.clone(), begun);
                }
            }
        }
        Ok(())
    }

    fn begin(
        &self,
        subject: String,
        pipeline: Arc<Pipeline>,
        versions: Versions,
    ) -> Result<Served, SubscribeError> {
        let messages = self.link.subscribe(&subject, Some(subject::QUEUE_GROUP))?;
        let stats = Arc::new(Stats::default());
        let (stopping, name) = (watch::Sender::new(false), pipeline.name.clone());
        let (pipeline, versions) = (watch::Sender::new(pipeline), watch::Sender::new(versions));
        let front = Front {
            journals: self.journals.clone(),
            link: self.link.clone(),
            pipeline: pipeline.subscribe(),
            stopping: stopping.subscribe(),
            stats: Arc::clone(&stats),
            room: Arc::clone(&self.room),
        };
        let work = Arc::new(Work {
            journals: self.journals.clone(),
            backend: Arc::clone(&self.backend),
            link: self.link.clone(),
            pipeline: pipeline.subscribe(),
            versions: versions.subscribe(),
            ready: Ready::new(
                &self.journals.app,
                self.services.clone(),
                self.archives.as_ref(),
            ),
            tracer: self.spans.tracer(&self.journals.app, &name),
            stopping: stopping.subscribe(),
        });
        let (room, journals) = (Arc::clone(&self.room), self.journals.clone());
        let mut stops = stopping.subscribe();
        let measuring = async move {
            tokio::select! {
                () = room.measure(&journals) => {}
                () = stopped(&mut stops) => {}
            }
        };
        let (journals, waits) = (self.journals.clone(), pipeline.subscribe());
        let mut stops = stopping.subscribe();
        let waking = async move {
            tokio::select! {
                () = journals.wake_by_events(waits) => {}
                never = journals.wake_in_time() => match never {},
                () = stopped(&mut stops) => {}
            }
        };
        let tasks = vec![
            self.runtime.spawn(waking),
            self.runtime.spawn(measuring),
            self.runtime.spawn(front.serve(messages)),
            self.runtime.spawn(work_on(name, work)),
        ];
        Ok(Served {
            subject,
            pipeline,
            versions,
            stopping,
            stats,
            tasks,
        })
    }

    /// The statistics of a pipeline's calls.
    pub(crate) fn stats(&self, pipeline: &str) -> Option<Arc<Stats>> {
        self.served()
            .get(pipeline)
            .map(|served| Arc::clone(&served.stats))
    }

    /// Stops: the steps under way are finished, callers who wait are told that their runs go on, and other
    /// hosts take the runs. Returns the number of tasks that had not ended by the deadline, which are dropped: their
    /// runs are taken over.
    pub(crate) async fn stop(&self, deadline: Instant) -> usize {
        let served = std::mem::take(&mut *self.served());
        let mut tasks =
            std::mem::take(&mut *self.leaving.lock().unwrap_or_else(PoisonError::into_inner));
        for served in served.into_values() {
            served.stopping.send_replace(true);
            tasks.extend(served.tasks);
        }
        let mut given_up = 0;
        for mut task in tasks {
            if tokio::time::timeout_at(deadline.into(), &mut task)
                .await
                .is_err()
            {
                task.abort();
                given_up += 1;
            }
        }
        given_up
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let leaving =
            std::mem::take(&mut *self.leaving.lock().unwrap_or_else(PoisonError::into_inner));
        let served = std::mem::take(&mut *self.served());
        for task in served
            .into_values()
            .flat_map(|served| served.tasks)
            .chain(leaving)
        {
            task.abort();
        }
    }
}

/// Works on the open runs of a pipeline that are handed to this host: of a durable function while it runs here.
async fn work_on(pipeline: String, work: Arc<Work>) {
    let mut runs = JoinSet::new();
    let mut stopping = work.stopping.clone();
    let (mut here, mut away) = (work.versions.clone(), work.versions.clone());
    let is_durable = work.pipeline.borrow().durable.is_some();
    let working = async {
        // A sender that is gone has stopped.
        while here
            .wait_for(|versions| versions.is_here() || !is_durable)
            .await
            .is_ok()
        {
            tokio::select! {
                never = pull(&pipeline, &work, &mut runs) => match never {},
                _ = away.wait_for(|versions| is_durable && !versions.is_here()) => {}
            }
        }
    };
    tokio::select! {
        () = working => {}
        () = stopped(&mut stopping) => {}
    }
    while runs.join_next().await.is_some() {}
}

/// Takes open runs, and begins to work on them.
async fn pull(pipeline: &str, work: &Arc<Work>, runs: &mut JoinSet<()>) -> Infallible {
    let mut again = FIRST_AGAIN;
    loop {
        match open_runs(&work.journals.context, &work.journals.app, pipeline).await {
            Ok(mut open) => {
                while let Some(message) = open.next().await {
                    match message {
                        Ok(message) => {
                            again = FIRST_AGAIN;
                            while runs.try_join_next().is_some() {}
                            let work = Arc::clone(work);
                            runs.spawn(async move { work.run(message).await });
                        }
                        Err(error) => {
                            tracing::debug!(pipeline, %error, "open runs");
                            break;
                        }
                    }
                }
            }
            Err(error) => {
                tracing::warn!(pipeline, %error, "open runs cannot be asked for, trying again");
            }
        }
        tokio::time::sleep(again).await;
        again = (again * 2).min(LAST_AGAIN);
    }
}
