//! The services of a step of reconciliation: which run on, which are made anew, and which run in two versions.
//! Nothing here is served yet.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::reconcile::Applied;
use super::{Host, HostError};
use crate::deployment::{Bound, Candidate, Deployment};
use crate::manifest::{App, Percent, ServiceSpec};
use crate::plan::{EventWire, Plan};
use crate::runtime::{Component, Service};
use crate::transport::{Binding, Canary, Choice};

/// The services of an app that a host runs: all of them, or its part of a fleet's.
#[derive(Clone, Copy)]
pub(super) struct Share<'a> {
    pub(super) components: &'a BTreeMap<String, Arc<Component>>,
    /// Services that run on as they are, whatever is specified.
    pub(super) kept: &'a BTreeSet<String>,
    /// Services whose old version runs on beside the specified one.
    pub(super) olds: &'a BTreeMap<String, Old>,
    /// Whether a service that does not start leaves the others alone.
    pub(super) by_itself: bool,
}

/// The old version of a service, and the share of the calls that the new one gets.
pub(super) struct Old {
    pub(super) spec: ServiceSpec,
    pub(super) component: Arc<Component>,
    pub(super) share: Percent,
    /// The revision that rolls the new version out.
    pub(super) revision: u64,
}

/// The services of a step, ready to be served.
#[derive(Default)]
pub(super) struct Prepared {
    pub(super) services: BTreeMap<String, Arc<Service>>,
    /// The new versions of some of them, which get a share.
    pub(super) candidates: BTreeMap<String, Arc<Candidate>>,
    /// Those that run on although they should change.
    pub(super) unchanged: BTreeSet<String>,
    pub(super) applied: Applied,
}

/// What a service is made of.
struct Wanted<'a> {
    component: &'a Arc<Component>,
    spec: &'a ServiceSpec,
    events: Vec<Arc<EventWire>>,
}

impl<'a> Wanted<'a> {
    fn new(component: &'a Arc<Component>, spec: &'a ServiceSpec, plan: &Plan) -> Self {
        let imports = component.imports.iter();
        let events = imports.filter_map(|import| plan.event_wire(&import.id).cloned());
        Self {
            component,
            spec,
            events: events.collect(),
        }
    }

    /// Whether that is what a running service is made of.
    fn is(&self, service: &Service) -> bool {
        service.spec.runs_as(self.spec)
            && service.component.digest == self.component.digest
            && service.publishes_alike(&self.events)
    }
}

impl Host {
    /// The services of the app: running ones where nothing about them changed, else new ones,
    /// linked and with a first instance.
    pub(super) async fn prepare(
        &self,
        app: &App,
        plan: &Plan,
        share: Share<'_>,
        before: &Deployment,
    ) -> Result<Prepared, HostError> {
        let mut prepared = Prepared::default();
        for (name, spec) in &app.services {
            if let Some(old) = share.olds.get(name) {
                let new = share.components.get(name);
                let new = new.map(|component| Wanted::new(component, spec, plan));
                self.two(&mut prepared, old, new, plan, before).await;
                continue;
            }
            let running = before.services.get(name);
            if let Some(running) = running.filter(|_| share.kept.contains(name)) {
                prepared.keep(name, running);
                continue;
            }
            let Some(component) = share.components.get(name) else {
                continue;
            };
            let wanted = Wanted::new(component, spec, plan);
            if let Some(running) = running.filter(|running| wanted.is(running)) {
                prepared.services.insert(name.clone(), Arc::clone(running));
                continue;
            }
            // A new version that had a share gets all.
            let candidate = before.candidates.get(name);
            let candidate = candidate.filter(|candidate| wanted.is(&candidate.service));
            let service = match candidate {
                Some(candidate) => Ok(Arc::clone(&candidate.service)),
                None => self.begin(wanted).await,
            };
            match service {
                Ok(service) => {
                    prepared.services.insert(name.clone(), service);
                    match running {
                        Some(_) => prepared.applied.replaced.push(name.clone()),
                        None => prepared.applied.started.push(name.clone()),
                    }
                }
                Err(error) if share.by_itself => {
                    if let Some(running) = running {
                        prepared.keep(name, running);
                    }
                    prepared.applied.failed.insert(name.clone(), error);
                }
                Err(error) => return Err(error),
            }
        }
        let mut stopped: Vec<_> = before.services.keys().cloned().collect();
        stopped.retain(|name| !prepared.services.contains_key(name));
        prepared.applied.stopped = stopped;
        Ok(prepared)
    }

    /// A service in two versions. The new one is left out where it is not here, does not start, or the old one does
    /// not: it would get all calls.
    async fn two(
        &self,
        prepared: &mut Prepared,
        old: &Old,
        new: Option<Wanted<'_>>,
        plan: &Plan,
        before: &Deployment,
    ) {
        let (share, revision) = (old.share, old.revision);
        let old = Wanted::new(&old.component, &old.spec, plan);
        let name = &old.spec.name.clone();
        let running = before.services.get(name);
        let was = before.candidates.get(name);
        let there = running.filter(|running| old.is(running));
        let there = there.or_else(|| Some(&was.filter(|was| old.is(&was.service))?.service));
        let old = match there {
            Some(there) => Arc::clone(there),
            None => match self.begin(old).await {
                Ok(began) => {
                    match running {
                        Some(_) => prepared.applied.replaced.push(name.clone()),
                        None => prepared.applied.started.push(name.clone()),
                    }
                    began
                }
                Err(error) => {
                    // Whatever runs is better than nothing.
                    if let Some(running) = running {
                        prepared.keep(name, running);
                    }
                    prepared.applied.failed.insert(name.clone(), error);
                    // Whether it would start is known all the same.
                    if let Some(new) = new
                        && let Err(error) = self.begin(new).await
                    {
                        prepared.applied.refused.insert(name.clone(), error);
                    }
                    return;
                }
            },
        };
        prepared.services.insert(name.clone(), Arc::clone(&old));
        let Some(new) = new else {
            prepared.unchanged.insert(name.clone());
            return;
        };
        let is_same_old = running.is_some_and(|running| Arc::ptr_eq(running, &old));
        let candidate = match was.filter(|was| new.is(&was.service)) {
            Some(was) if is_same_old && was.share == share && was.revision == revision => {
                Arc::clone(was)
            }
            was => {
                let service = match was {
                    Some(was) => Ok(Arc::clone(&was.service)),
                    None => self.begin(new).await,
                };
                let service = match service {
                    Ok(service) => service,
                    Err(error) => {
                        prepared.unchanged.insert(name.clone());
                        prepared.applied.refused.insert(name.clone(), error);
                        return;
                    }
                };
                prepared.applied.shared.push(name.clone());
                Arc::new(Candidate {
                    share,
                    revision,
                    before: old.tally(),
                    own_before: service.tally(),
                    service,
                })
            }
        };
        prepared.candidates.insert(name.clone(), candidate);
    }

    /// A service that is linked and has a first instance.
    async fn begin(&self, wanted: Wanted<'_>) -> Result<Arc<Service>, HostError> {
        let Wanted {
            component,
            spec,
            events,
        } = wanted;
        let (component, spec) = (Arc::clone(component), Arc::new(spec.clone()));
        let name = spec.name.clone();
        let service = Service::with_events(&self.runtime, &self.app, component, spec, events)?;
        let warm = service.warm().await;
        warm.map_err(|source| HostError::Warm {
            service: name,
            source,
        })?;
        Ok(Arc::new(service))
    }
}

impl Prepared {
    /// Lets a service run on although it should change.
    fn keep(&mut self, name: &str, running: &Arc<Service>) {
        self.services.insert(name.to_owned(), Arc::clone(running));
        self.unchanged.insert(name.to_owned());
    }
}

/// A binding of a running service, and of its new version if that has a share. Where only one of the two
/// exports the interface it gets everything.
pub(super) fn bind(deployment: &Deployment, bound: &Bound) -> Option<Binding> {
    let of = |service: &Arc<Service>| {
        let exported = service.interface(&bound.interface).or_else(|| {
            service
                .messages()
                .filter(|messages| messages.id == bound.interface)
        })?;
        Some(Binding {
            service: Arc::clone(service),
            exported: Arc::clone(exported),
            delivery: bound.delivery.clone(),
            canary: None,
        })
    };
    let old = deployment.services.get(&bound.service).and_then(of);
    let candidate = deployment.candidates.get(&bound.service);
    let new = candidate.and_then(|candidate| Some((of(&candidate.service)?, candidate.share)));
    match (old, new) {
        (Some(old), Some((new, share))) => Some(Binding {
            canary: Some(Arc::new(Canary {
                binding: new,
                choice: Choice::new(share),
            })),
            ..old
        }),
        (old, new) => old.or(new.map(|(new, _)| new)),
    }
}
