//! A step of reconciliation: from what a host serves to what it should serve.
//!
//! [`Host::apply`] prepares everything before it changes what is served, and an app that cannot run
//! changes nothing. Its decisions are pure functions of `deployment`; here is the shell that
//! carries them out. A step can be cancelled and repeated: the sources are recorded before the
//! workers get the order to serve them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, MutexGuard, PoisonError};

use super::drain::Drain;
use super::neighbours::Conflict;
use super::{Host, HostError, peers};
use crate::deployment::{Bound, Deployment, Difference, difference, drain_order, orphaned};
use crate::events::stream::{self, Orphan, Provisioning, Purpose};
use crate::manifest::{App, Specification};
use crate::plan::{self, Plan};
use crate::runtime::{Component, Engine, Service};
use crate::transport::{Binding, Slot, Source};

/// The slots behind the sources that workers were ordered to serve.
pub(super) type Served = BTreeMap<Source, ServedSource>;

#[derive(Clone)]
pub(super) struct ServedSource {
    slot: Arc<Slot>,
    /// Whether every worker has confirmed that it serves the source.
    confirmed: bool,
}

/// The changes that [`Host::apply`] made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// New services.
    pub started: Vec<String>,
    /// Services with another component or specification.
    pub replaced: Vec<String>,
    /// Removed services.
    pub stopped: Vec<String>,
}

/// Reads and compiles the file of each service.
///
/// # Errors
///
/// The first file that is no component that can be run.
///
/// # Cost
///
/// Blocks for as long as compiling takes; see [`Component::new`].
pub fn load(
    engine: &Engine,
    files: &BTreeMap<String, PathBuf>,
) -> Result<BTreeMap<String, Arc<Component>>, HostError> {
    files
        .iter()
        .map(|(service, path)| {
            let component =
                Component::load(engine, path).map_err(|source| HostError::Component {
                    service: service.clone(),
                    path: path.clone(),
                    source,
                })?;
            Ok((service.clone(), Arc::new(component)))
        })
        .collect()
}

/// Plans the wiring of the components of an app.
///
/// # Errors
///
/// Everything that does not fit.
pub fn check(app: &App, components: &BTreeMap<String, Arc<Component>>) -> Result<Plan, HostError> {
    let described = components
        .iter()
        .map(|(name, component)| (name.clone(), component.description()))
        .collect();
    plan::plan(app, &described).map_err(HostError::Plan)
}

/// Specifies an app with these components.
///
/// # Errors
///
/// A service has no component.
pub fn specify(
    app: &App,
    components: &BTreeMap<String, Arc<Component>>,
) -> Result<Specification, HostError> {
    let digest = |name: &String| Some((name.clone(), components.get(name)?.digest.clone()));
    let digests = app.services.keys().filter_map(digest).collect();
    Ok(Specification::new(app.clone(), digests)?)
}

/// Checks that the components are those that are specified.
fn check_digests(
    specification: &Specification,
    components: &BTreeMap<String, Arc<Component>>,
) -> Result<(), HostError> {
    for (service, specified) in &specification.components {
        let (service, specified) = (service.clone(), specified.clone());
        match components.get(&service) {
            Some(component) if component.digest == specified => {}
            Some(component) => {
                return Err(HostError::OtherComponent {
                    service,
                    specified,
                    given: component.digest.clone(),
                });
            }
            None => return Err(HostError::NoComponent { service, specified }),
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
        let app = &specification.app;
        if app.name != self.app {
            let (running, wanted) = (self.app.clone(), app.name.clone());
            return Err(HostError::Renamed { running, wanted });
        }
        check_digests(specification, components)?;
        let plan = check(app, components)?;
        let _step = self.reconciling.lock().await;
        let before = self.current.get();
        if before.revision == 0 {
            self.meet_neighbours(app, &plan)?;
        }
        let (services, applied) = self
            .prepare(app, &plan, components, &before.services)
            .await?;
        let orphans = self.provision(app, &plan).await?;

        let mut next = Deployment::new(app, plan, services);
        let orphaned = orphans.iter().filter_map(|o| orphaned(app, &next.plan, o));
        let orphaned: Vec<_> = orphaned.collect();
        next.bindings.extend(orphaned);
        let served = self.served().clone();
        let Difference {
            arriving,
            staying,
            leaving,
        } = difference(served.keys(), &next.bindings);
        let bind = |source: &Source| bind(&next.services, next.bindings.get(source)?);
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
        self.served().retain(|source, _| !leaving.contains(source));
        self.current.swap(next);
        self.drain_retired(&before, leaving);
        self.compare_with_others();
        Ok(applied)
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

    /// Creates the streams and consumers of durable events; returns what waits in those of earlier
    /// versions.
    async fn provision(&self, app: &App, plan: &Plan) -> Result<Vec<Orphan>, HostError> {
        if let Some(worker) = self.workers.first() {
            let provisioning = Provisioning {
                context: &worker.context,
                link: &worker.link,
                host: &self.id,
                app,
                plan,
                purpose: Purpose::Apply,
            };
            let unretired = provisioning.run().await?;
            self.current.store().report_complete();
            self.current.store().report_unretired(unretired);
            return Ok(stream::orphans(&provisioning).await);
        }
        Ok(Vec::new())
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
                let sources: Vec<Source> = arriving.iter().map(|(s, _)| s.clone()).collect();
                let now = std::time::Instant::now();
                super::drain::drain(&self.workers, Some(&sources), now).await;
                self.served().retain(|source, _| !sources.contains(source));
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
    fn drain_retired(&self, before: &Deployment, leaving: Vec<Source>) {
        if leaving.is_empty() {
            return;
        }
        let bindings = before
            .bindings
            .iter()
            .filter(|(source, _)| leaving.contains(source))
            .map(|(source, bound)| (source.clone(), bound.clone()))
            .collect();
        let mut layers = drain_order(&bindings, |service, interface| {
            before.imports(service, interface)
        });
        // Sources of a step that did not get as far as a deployment.
        let unknown = leaving.into_iter().filter(|s| !bindings.contains_key(s));
        layers.push(unknown.collect());
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

    /// The services of the app: running ones where nothing about them changed, else new ones,
    /// linked and with a first instance.
    async fn prepare(
        &self,
        app: &App,
        plan: &Plan,
        components: &BTreeMap<String, Arc<Component>>,
        running: &BTreeMap<String, Arc<Service>>,
    ) -> Result<(BTreeMap<String, Arc<Service>>, Applied), HostError> {
        let mut services = BTreeMap::new();
        let mut applied = Applied::default();
        for (name, spec) in &app.services {
            let Some(component) = components.get(name) else {
                continue;
            };
            let old = running.get(name);
            let imports = component.imports.iter();
            let events: Vec<_> = imports
                .filter_map(|import| plan.event_wire(&import.id).cloned())
                .collect();
            let same = |old: &&Arc<Service>| {
                *old.spec == *spec
                    && old.component.digest == component.digest
                    && old.publishes_alike(&events)
            };
            if let Some(old) = old.filter(same) {
                services.insert(name.clone(), Arc::clone(old));
                continue;
            }
            let spec = Arc::new(spec.clone());
            let service = Service::with_events(
                &self.runtime,
                &self.app,
                Arc::clone(component),
                spec,
                events,
            )?;
            warn_of_grants(&service);
            service.warm().await.map_err(|source| HostError::Warm {
                service: name.clone(),
                source,
            })?;
            services.insert(name.clone(), Arc::new(service));
            match old {
                Some(_) => applied.replaced.push(name.clone()),
                None => applied.started.push(name.clone()),
            }
        }
        applied.stopped = running
            .keys()
            .filter(|n| !services.contains_key(*n))
            .cloned()
            .collect();
        Ok((services, applied))
    }
}

/// A binding of a running service.
fn bind(services: &BTreeMap<String, Arc<Service>>, bound: &Bound) -> Option<Binding> {
    let service = services.get(&bound.service)?;
    let exported = service.interface(&bound.interface).or_else(|| {
        service
            .messages()
            .filter(|messages| messages.id == bound.interface)
    })?;
    Some(Binding {
        service: Arc::clone(service),
        exported: Arc::clone(exported),
        delivery: bound.delivery.clone(),
    })
}

/// Warns of a component and grants that do not fit together: neither is wrong, but messages that the
/// operator expects would never come.
fn warn_of_grants(service: &Service) {
    let name = &service.spec.name;
    match (service.messages(), service.spec.grants.subscribe.is_empty()) {
        (Some(handler), true) => tracing::warn!(
            service = name,
            "it exports {}, but is granted no subject: `grants = {{ subscribe = [\"…\"] }}`",
            handler.id
        ),
        (None, false) => tracing::warn!(
            service = name,
            "it is granted subjects to subscribe to, but exports neither wasmcloud:messaging/handler@0.2.0 nor \
             wasi:messaging/incoming-handler@0.2.0-draft"
        ),
        _ => {}
    }
}
