//! The deployment of a host: an immutable [`Deployment`], made from a plan and swapped at once, so
//! that gateway, admin address and discovery never disagree.
//!
//! The decisions between two deployments are pure functions in `bindings`. This room performs none of
//! them, and knows no connection.

mod bindings;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError, RwLock};

use crate::events::health::StoreHealth;
use crate::events::stream::Share;
use crate::manifest::{App, Percent};
use crate::plan::{Description, Plan};
use crate::runtime::Service;
use crate::stats::Tally;
use crate::transport::Source;
use crate::transport::Wires;
use crate::transport::breaker::Breakers;

pub(crate) use bindings::{Bindings, Bound, Difference, difference, drain_order, orphaned, shared};

use bindings::bindings;

/// The services, bindings and plan that are served at one time.
#[derive(Default)]
pub struct Deployment {
    /// Counts the deployments of this host; 0 serves nothing.
    pub(crate) revision: u64,
    /// The services by name.
    pub(crate) services: BTreeMap<String, Arc<Service>>,
    /// New versions of some of them, which get a share of the calls.
    pub(crate) candidates: BTreeMap<String, Arc<Candidate>>,
    /// The binding of each source of messages.
    pub(crate) bindings: Bindings,
    /// The routes, the events, and the interfaces of each service.
    pub(crate) plan: Plan,
    /// What the plan was made of; nothing before the first.
    pub(crate) app: Option<Arc<App>>,
    /// The consumers of stored messages.
    pub(crate) shares: Vec<Share>,
    /// The consumers of the app's stored events and messages by stream and name, with their service; those of
    /// services that run on other hosts included.
    pub(crate) consumers: BTreeMap<(String, String), String>,
    /// The components of the app's services, those that run on other hosts included.
    pub(crate) described: BTreeMap<String, Description>,
}

impl Deployment {
    /// The deployment of an app with this plan.
    #[must_use]
    pub fn new(app: &App, plan: Plan, services: BTreeMap<String, Arc<Service>>) -> Self {
        let all = bindings(app, &plan);
        let mut deployment = Self {
            revision: 0,
            bindings: Bindings::new(),
            services,
            candidates: BTreeMap::new(),
            plan,
            app: Some(Arc::new(app.clone())),
            shares: Vec::new(),
            consumers: BTreeMap::new(),
            described: BTreeMap::new(),
        };
        deployment.bind(all);
        deployment
    }

    /// The same, with what its components export and import, by which the gateway describes itself.
    #[must_use]
    pub fn described_by(mut self, components: BTreeMap<String, Description>) -> Self {
        self.described = components;
        self
    }

    /// Adds bindings, without those of services that run on other hosts only.
    pub(crate) fn bind(&mut self, bindings: impl IntoIterator<Item = (Source, Bound)>) {
        for (source, bound) in bindings {
            if let Source::Consumer { stream, name } = &source {
                let consumer = (stream.clone(), name.clone());
                self.consumers.insert(consumer, bound.service.clone());
            }
            if self.services.contains_key(&bound.service) {
                self.bindings.insert(source, bound);
            }
        }
    }

    /// Gives these services, which run on as before, the bindings that they had, where no other service
    /// has one there now.
    pub(crate) fn bind_as_before(&mut self, before: &Self, services: &BTreeSet<String>) {
        self.bindings
            .retain(|_, bound| !services.contains(&bound.service));
        let had = before.bindings.iter();
        for (source, bound) in had.filter(|(_, bound)| services.contains(&bound.service)) {
            let bound = || bound.clone();
            self.bindings.entry(source.clone()).or_insert_with(bound);
        }
    }

    /// Whether a service calls what is bound: it imports the interface, and chose no other exporter.
    pub(crate) fn calls(&self, service: &str, callee: &Bound) -> bool {
        let Some(service) = self.services.get(service) else {
            return false;
        };
        let chosen = service.spec.exporter_of(&callee.interface);
        service.imports(&callee.interface) && chosen.is_none_or(|chosen| chosen == callee.service)
    }
}

/// A new version of a service, which gets a share of its calls.
pub(crate) struct Candidate {
    pub(crate) service: Arc<Service>,
    pub(crate) share: Percent,
    /// The revision that it is rolled out by.
    pub(crate) revision: u64,
    /// What the version before had done when that began.
    pub(crate) before: Tally,
    /// What it had done itself, by an earlier revision with the same component.
    pub(crate) own_before: Tally,
}

/// The deployment of now, and the state of what it stores.
#[derive(Default)]
pub struct Current {
    deployment: RwLock<Arc<Deployment>>,
    store: Arc<StoreHealth>,
    wires: Wires,
}

impl Current {
    /// The current deployment. Work that began with it may end with it.
    pub(crate) fn get(&self) -> Arc<Deployment> {
        let deployment = self.deployment.read();
        Arc::clone(&deployment.unwrap_or_else(PoisonError::into_inner))
    }

    /// The state of what the app stores.
    pub(crate) fn store(&self) -> &Arc<StoreHealth> {
        &self.store
    }

    /// The breakers of its wires.
    pub(crate) fn breakers(&self) -> &Arc<Breakers> {
        &self.wires.breakers
    }

    /// What some of its wires do with calls.
    pub(crate) fn wires(&self) -> &Wires {
        &self.wires
    }

    /// Replaces the current deployment, as the next revision.
    pub fn swap(&self, deployment: Deployment) {
        let current = self.deployment.write();
        let mut current = current.unwrap_or_else(PoisonError::into_inner);
        *current = Arc::new(Deployment {
            revision: current.revision + 1,
            ..deployment
        });
    }
}
