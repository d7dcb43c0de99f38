//! A step of reconciliation: from what a host serves to what it should serve.
//!
//! [`Host::apply`] prepares everything before it changes what is served, and an app that cannot run
//! changes nothing. Its decisions are pure functions of `deployment`; here is the shell that
//! carries them out. A step can be cancelled and repeated: the sources are recorded before the
//! workers get the order to serve them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::drain::Drain;
use super::load::describe;
use super::neighbours::Conflict;
use super::prepare::{Old, Prepared, Share, bind};
use super::worker::Worker;
use super::{Host, HostError, hinders_jetstream, peers};
use crate::deployment::{Bound, Deployment, Difference, difference, drain_order, orphaned, shared};
use crate::events::stream::{self, Orphan, Provisioning, Purpose};
use crate::jobs;
use crate::manifest::{App, LocalCall, Specification};
use crate::nats::Refusal;
use crate::pipelines;
use crate::plan::{self, Description, Plan, Unreached};
use crate::runtime::Component;
use crate::transport::{Delivery, Slot, Source};

/// Time between two attempts to create what JetStream cannot take yet.
const PROVISION_AGAIN: Duration = Duration::from_millis(500);

/// The slots behind the sources that workers were ordered to serve.
pub(super) type Served = BTreeMap<Source, ServedSource>;

#[derive(Clone)]
pub(super) struct ServedSource {
    pub(super) slot: Arc<Slot>,
    /// Whether every worker has confirmed that it serves the source.
    confirmed: bool,
}

/// The changes that [`Host::apply`] made.
#[derive(Debug, Default)]
pub struct Applied {
    /// New services.
    pub started: Vec<String>,
    /// Services with another component or specification.
    pub replaced: Vec<String>,
    /// Services of which a new version gets a share of the calls from now on.
    pub shared: Vec<String>,
    /// Removed services.
    pub stopped: Vec<String>,
    /// Services that could not be brought up, where that does not refuse all of the step; what ran
    /// before of them goes on.
    pub failed: BTreeMap<String, HostError>,
    /// Services whose new version could not be brought up beside the old one.
    pub refused: BTreeMap<String, HostError>,
}

impl Applied {
    /// Whether nothing changed, and nothing failed.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        let changed = [&self.started, &self.replaced, &self.shared, &self.stopped];
        let failed = [&self.failed, &self.refused];
        changed.iter().all(|services| services.is_empty())
            && failed.iter().all(|services| services.is_empty())
    }
}

/// Checks that the components that are given are those that are specified.
fn check_digests(
    specification: &Specification,
    components: &BTreeMap<String, Arc<Component>>,
) -> Result<(), HostError> {
    for (service, specified) in &specification.components {
        if let Some(component) = components.get(service)
            && component.digest != *specified
        {
            return Err(HostError::OtherComponent {
                service: service.clone(),
                specified: specified.clone(),
                given: component.digest.clone(),
            });
        }
    }
    Ok(())
}

impl Host {
    /// Makes the host run what is specified, with these components: starts new services, replaces
    /// changed ones, stops removed ones, and leaves the others alone. No call is lost: those of a
    /// replaced or stopped service end within the host's grace time, in the background.
    ///
    /// # Errors
    ///
    /// A component is missing or not the specified one, or does not link, fit or start; then
    /// everything runs on as before.
    ///
    /// # Cancel safety
    ///
    /// A dropped future has changed all of the deployment or nothing; the next step finishes what
    /// this one began.
    pub async fn apply(
        &self,
        specification: &Specification,
        components: &BTreeMap<String, Arc<Component>>,
    ) -> Result<Applied, HostError> {
        let mut specified = specification.components.iter();
        if let Some((service, digest)) = specified.find(|(name, _)| !components.contains_key(*name))
        {
            return Err(HostError::NoComponent {
                service: service.clone(),
                specified: digest.clone(),
            });
        }
        let share = Share {
            components,
            kept: &BTreeSet::new(),
            olds: &BTreeMap::new(),
            by_itself: false,
        };
        self.step(specification, &describe(components), share).await
    }

    /// As [`Host::apply`], for the part of an app that runs on this host: the services with a component
    /// here. `described` has those of all its services, by which they are wired. Services in `kept` run
    /// on as they are. Those in `olds` run in two versions: what is specified gets a share of the calls, and
    /// the old version the others. One that does not link or start is left out, and leaves the others alone.
    ///
    /// # Errors
    ///
    /// A component is not the specified one, or the app as a whole cannot run; then everything runs on
    /// as before.
    ///
    /// # Cancel safety
    ///
    /// As for [`Host::apply`].
    pub(super) async fn apply_part(
        &self,
        specification: &Specification,
        described: &BTreeMap<String, Description>,
        components: &BTreeMap<String, Arc<Component>>,
        kept: &BTreeSet<String>,
        olds: &BTreeMap<String, Old>,
    ) -> Result<Applied, HostError> {
        let share = Share {
            components,
            kept,
            olds,
            by_itself: true,
        };
        self.step(specification, described, share).await
    }

    async fn step(
        &self,
        specification: &Specification,
        described: &BTreeMap<String, Description>,
        share: Share<'_>,
    ) -> Result<Applied, HostError> {
        let app = &specification.app;
        if app.name != self.app {
            let (running, wanted) = (self.app.clone(), app.name.clone());
            return Err(HostError::Renamed { running, wanted });
        }
        check_digests(specification, share.components)?;
        let plan = plan::plan(app, described).map_err(HostError::Plan)?;
        let _step = self.reconciling.lock().await;
        let before = self.current.get();
        if before.revision == 0 {
            self.meet_neighbours(app, &plan)?;
        }
        let Prepared {
            services,
            candidates,
            unchanged,
            applied,
        } = self.prepare(app, &plan, share, &before).await?;
        let (shares, orphans) = self.provision_allowed(app, &plan, &before).await?;
        for unreached in newly_unreached(app, described, &before) {
            tracing::warn!("{unreached}");
        }

        let mut next = Deployment::new(app, plan, services);
        next.candidates = candidates;
        let orphaned = orphans.iter().filter_map(|o| orphaned(app, &next.plan, o));
        let further = shares.iter().filter(|share| !share.is_first());
        let further = further.filter_map(|share| shared(app, &next.plan, share));
        let beside: Vec<_> = orphaned.chain(further).collect();
        next.bind(beside);
        next.bind_as_before(&before, &unchanged);
        next.shares = shares;
        next.described.clone_from(described);
        let served = self.served().clone();
        let Difference {
            arriving,
            staying,
            leaving,
        } = difference(served.keys(), &next.bindings);
        let bind = |source: &Source| bind(&next, next.bindings.get(source)?);
        let arriving: Vec<_> = arriving
            .into_iter()
            .filter_map(|source| {
                let slot = Slot::new(bind(&source)?);
                Some((source, Arc::new(slot)))
            })
            .collect();
        // Sources that an earlier step has not finished arriving are served again.
        let unconfirmed = staying.iter().filter_map(|source| {
            let served = served.get(source).filter(|served| !served.confirmed)?;
            Some((source.clone(), Arc::clone(&served.slot)))
        });
        let unserved: Vec<_> = arriving.iter().cloned().chain(unconfirmed).collect();
        // The only step that can fail comes first, and is taken back if it does.
        self.serve(&arriving, &unserved).await?;
        for source in &staying {
            if let (Some(served), Some(binding)) = (served.get(source), bind(source)) {
                served.slot.replace(binding);
            }
        }
        let leaving = self.retire(&leaving);
        if let Some(pipelines) = &self.pipelines {
            // Refused by a connection that is closed, which ends the host.
            if let Err(error) = pipelines.apply(&next.plan.pipelines, &next.services) {
                tracing::error!(%error, "pipelines are not served");
            }
        }
        if let Some(jobs) = &self.jobs {
            jobs.apply(specification, &next.services, self.grace);
        }
        self.local.serve(self.local_calls(app, &next));
        let wires = self.current.wires();
        wires.nest.apply(&app.name, &next.plan.nest_wires);
        wires.outside.apply(app, &next.plan, &next.described);
        self.current
            .breakers()
            .apply(&app.name, &next.plan.breakers);
        self.current.swap(next);
        self.drain_retired(&before, leaving);
        self.compare_with_others();
        self.meet_runs(app).await;
        Ok(applied)
    }

    /// Waits until the server has seen who answers calls that are runs.
    async fn meet_runs(&self, app: &App) {
        let worker = self.workers.first();
        let Some(worker) = worker.filter(|_| app.runs().next().is_some()) else {
            return;
        };
        if let Err(error) = worker.link.settled().await {
            tracing::warn!(%error, "pipelines and durable functions may not be called yet");
        }
    }

    /// Forgets sources that are served; returns them with what is behind them.
    pub(super) fn retire(&self, leaving: &[Source]) -> Vec<(Source, Arc<Slot>)> {
        let mut served = self.served();
        let retired = leaving
            .iter()
            .filter_map(|source| served.remove_entry(source));
        retired
            .map(|(source, served)| (source, served.slot))
            .collect()
    }

    /// The functions of a deployment, with what is behind them and how they are called here.
    fn local_calls(&self, app: &App, next: &Deployment) -> Vec<(String, Arc<Slot>, LocalCall)> {
        let served = self.served();
        let function = |(source, bound): (&Source, &Bound)| {
            let (Source::Subject { subject, .. }, Delivery::Call) = (source, &bound.delivery)
            else {
                return None;
            };
            let wire = app.wire(&bound.interface);
            let local = wire.map(|wire| wire.local).unwrap_or_default();
            Some((
                subject.clone(),
                Arc::clone(&served.get(source)?.slot),
                local,
            ))
        };
        next.bindings.iter().filter_map(function).collect()
    }

    /// Begins to look for hosts whose types do not fit what is deployed now.
    fn compare_with_others(&self) {
        let Some(worker) = self.workers.first() else {
            return;
        };
        let (link, deployment) = (worker.link.clone(), self.current.get());
        let comparing = peers::compare(link, self.app.clone(), self.id.clone(), deployment);
        let comparison = worker.runtime.spawn(comparing);
        let mut last = self
            .comparison
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(last) = last.replace(comparison) {
            last.abort();
        }
    }

    /// Says that the app runs elsewhere too.
    ///
    /// # Errors
    ///
    /// It is another app of the same name.
    fn meet_neighbours(&self, app: &App, plan: &Plan) -> Result<(), HostError> {
        if let Some(Conflict {
            host,
            subject,
            service,
        }) = self.neighbours.conflict(app, plan)
        {
            return Err(HostError::Taken {
                app: app.name.clone(),
                host,
                subject,
                service,
            });
        }
        let hosts = self.neighbours.count();
        if hosts > 0 {
            tracing::info!(
                app = app.name,
                hosts,
                "the app runs on other hosts too, which share its calls"
            );
        }
        Ok(())
    }

    fn served(&self) -> MutexGuard<'_, Served> {
        self.served.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As [`provision`](Self::provision), and fails at once where the login lacks a permission.
    async fn provision_allowed(
        &self,
        app: &App,
        plan: &Plan,
        before: &Deployment,
    ) -> Result<(Vec<stream::Share>, Vec<Orphan>), HostError> {
        let Some(worker) = self.workers.first() else {
            return Ok((Vec::new(), Vec::new()));
        };
        let violations = worker.link.violations();
        let provisioned = self.provision(worker, app, plan, before);
        let provisioned = violations.guard(hinders_jetstream, provisioned);
        provisioned.await?
    }

    /// Creates the streams and consumers of durable events and messages; returns the consumers of messages,
    /// and what waits in those of earlier versions.
    async fn provision(
        &self,
        worker: &Worker,
        app: &App,
        plan: &Plan,
        before: &Deployment,
    ) -> Result<(Vec<stream::Share>, Vec<Orphan>), HostError> {
        let (context, store) = (&worker.context, self.current.store());
        let stores = stores(app, plan);
        let stored = before.app.as_ref();
        let stored = stored.is_some_and(|app| self::stores(app, &before.plan));
        if !stores && !stored {
            // An app that stores nothing does not wait for JetStream. What it has stored once is looked for
            // in the background.
            if worker.client.server_info().jetstream {
                store.report_unknown();
            }
            return Ok((Vec::new(), Vec::new()));
        }
        let wait = match before.revision {
            0 => self.jetstream_wait,
            // What serves goes on.
            _ => Duration::ZERO,
        };
        let until = Instant::now() + wait;
        if stores {
            let available = stream::available(context, until).await;
            available.map_err(|source| HostError::JetStream {
                app: app.name.clone(),
                source,
            })?;
        }
        let provisioning = Provisioning {
            context,
            link: &worker.link,
            host: &self.id,
            app,
            plan,
            shares: &[],
            purpose: Purpose::Apply,
        };
        let provisioned = loop {
            let provisioned = async {
                pipelines::provision(context, app).await?;
                jobs::provision(context, app).await?;
                let provisioned = provisioning.run().await?;
                pipelines::provision_events(context, &app.name, &plan.pipelines).await?;
                Ok::<_, stream::StoreError>(provisioned)
            };
            match provisioned.await {
                Err(error) if error.may_pass() && Instant::now() < until => {
                    tracing::warn!(%error, "trying again");
                    tokio::time::sleep(PROVISION_AGAIN).await;
                }
                provisioned => break provisioned?,
            }
        };
        store.report_complete();
        store.report_unretired(provisioned.is_unretired);
        let orphans = stream::orphans(&provisioning);
        let violations = worker.link.violations();
        let orphans = violations.guard(Refusal::is_of_stream_list, orphans).await;
        let orphans = orphans.unwrap_or_default();
        Ok((provisioned.shares, orphans))
    }

    /// Has every worker serve the unserved sources. If one cannot, the arriving ones are served by
    /// none.
    async fn serve(
        &self,
        arriving: &[(Source, Arc<Slot>)],
        unserved: &[(Source, Arc<Slot>)],
    ) -> Result<(), HostError> {
        if unserved.is_empty() {
            return Ok(());
        }
        self.served().extend(arriving.iter().map(|(source, slot)| {
            let slot = Arc::clone(slot);
            let confirmed = false;
            (source.clone(), ServedSource { slot, confirmed })
        }));
        for worker in self.workers.iter() {
            if let Err(error) = worker.serve(unserved.to_vec()).await {
                let now = std::time::Instant::now();
                super::drain::drain(&self.workers, arriving, now).await;
                for (source, _) in arriving {
                    self.served().remove(source);
                }
                return Err(error.into());
            }
        }
        for (source, _) in unserved {
            if let Some(served) = self.served().get_mut(source) {
                served.confirmed = true;
            }
        }
        Ok(())
    }

    /// Begins the drain of sources that are not served any more, in the background.
    fn drain_retired(&self, before: &Deployment, leaving: Vec<(Source, Arc<Slot>)>) {
        if leaving.is_empty() {
            return;
        }
        let mut leaving: BTreeMap<_, _> = leaving.into_iter().collect();
        let bindings = before
            .bindings
            .iter()
            .filter(|(source, _)| leaving.contains_key(source))
            .map(|(source, bound)| (source.clone(), bound.clone()))
            .collect();
        let order = drain_order(&bindings, |service, callee| before.calls(service, callee));
        let mut layers: Vec<Vec<_>> = order
            .into_iter()
            .map(|layer| {
                layer
                    .iter()
                    .filter_map(|source| leaving.remove_entry(source))
                    .collect()
            })
            .collect();
        // Sources of a step that did not get as far as a deployment.
        layers.push(leaving.into_iter().collect());
        // Calls under way in a service that was replaced still need what it imports.
        let now = self.current.get();
        let callers = before.services.iter().filter(|(name, service)| {
            let replaced = now.services.get(*name);
            let same = replaced.is_some_and(|replaced| Arc::ptr_eq(replaced, service));
            !same
                && bindings
                    .values()
                    .any(|bound| service.imports(&bound.interface))
        });
        self.drains.begin(Drain {
            workers: Arc::clone(&self.workers),
            callers: callers.map(|(_, service)| Arc::clone(service)).collect(),
            layers,
            grace: self.grace,
        });
    }
}

/// Whether an app needs JetStream.
pub(super) fn stores(app: &App, plan: &Plan) -> bool {
    let runs = app.runs().next().is_some() || app.jobs().next().is_some();
    runs || !stream::names(app, plan).is_empty()
}

/// What nothing leads to, without what was so before.
fn newly_unreached(
    app: &App,
    described: &BTreeMap<String, Description>,
    before: &Deployment,
) -> Vec<Unreached> {
    let known = before
        .app
        .as_ref()
        .map(|app| plan::unreached(app, &before.described));
    let known = known.unwrap_or_default();
    let mut all = plan::unreached(app, described);
    all.retain(|unreached| !known.contains(unreached));
    all
}
