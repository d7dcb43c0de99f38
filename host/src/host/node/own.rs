//! The one app of a host that runs no other, as `wasmbay up` does. It runs before its host joins the fleet,
//! with a gateway and an admin address of its own; from then on its revisions are taken over as on any host.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::mpsc;

use super::Shared;
use super::driver::StepError;
use crate::fleet::Revision;
use crate::host::{Applied, Host, HostOptions};
use crate::runtime::Component;

/// The one app of a host.
#[derive(Clone)]
pub struct OwnApp {
    /// Its name.
    pub name: String,
    /// With which it is started again after it was undeployed.
    pub options: HostOptions,
}

/// What has become of the one app of a host.
pub enum Told {
    /// A step to a revision was taken, or tried.
    Step {
        /// The revision.
        revision: Arc<Revision>,
        /// What it changed, and the services that failed; or why it changed nothing.
        result: Result<Applied, StepError>,
    },
    /// It is not to run any more, and has stopped.
    Stopped,
}

/// The components that a host has compiled, and need not be fetched. They are known as long as someone has them.
#[derive(Clone)]
pub struct Known(pub(super) Arc<Shared>);

impl Known {
    /// Takes components as known that were compiled for the engine of the host.
    pub async fn add(&self, components: &BTreeMap<String, Arc<Component>>) {
        let mut known = self.0.components.lock().await;
        known.retain(|_, component| component.strong_count() > 0);
        let components = components.values();
        let weak = components.map(|one| (one.digest.clone(), Arc::downgrade(one)));
        known.extend(weak);
    }
}

/// The app, for its driver.
pub(super) struct Own {
    pub(super) app: String,
    pub(super) options: HostOptions,
    /// As it runs already, until its driver takes it over.
    host: Mutex<Option<Host>>,
    told: mpsc::UnboundedSender<Told>,
}

impl Own {
    pub(super) fn new(app: OwnApp) -> (Self, mpsc::UnboundedReceiver<Told>) {
        let OwnApp { name, options } = app;
        let (told, telling) = mpsc::unbounded_channel();
        let own = Self {
            app: name,
            options,
            host: Mutex::default(),
            told,
        };
        (own, telling)
    }

    pub(super) fn adopt(&self, host: Host) {
        *self.host.lock().unwrap_or_else(PoisonError::into_inner) = Some(host);
    }

    pub(super) fn take_host(&self) -> Option<Host> {
        let mut host = self.host.lock().unwrap_or_else(PoisonError::into_inner);
        host.take()
    }

    pub(super) fn tell(&self, told: Told) {
        // An error means that nobody wants to know.
        let _ = self.told.send(told);
    }
}
