//! Versions of durable functions that a host does not have in memory: those that began the runs which it takes
//! over. What keeps them is not known here.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, watch};
use tokio::time::timeout;

use super::run::Version;
use super::versions::Versioned;
use crate::call::CallError;
use crate::manifest::ServiceSpec;
use crate::plan::{EventWire, Import};
use crate::runtime::{Component, Runtime, Service};

/// Time for a host that starts to learn where versions are kept.
const OPENED: Duration = Duration::from_secs(10);

/// Versions of a function that are kept ready.
const READY: usize = 3;

/// What a version of a service is made of, and what its durable function may call.
pub(crate) struct Archived {
    pub(crate) component: Arc<Component>,
    pub(crate) spec: ServiceSpec,
    pub(crate) events: Vec<Arc<EventWire>>,
    pub(crate) imports: Vec<Import>,
}

pub(crate) type Finding<'a> =
    Pin<Box<dyn Future<Output = Result<Option<Archived>, CallError>> + Send + 'a>>;

/// Keeps the versions of services.
pub(crate) trait Archive: Send + Sync {
    /// The version of the service of this durable function, if it is kept.
    fn find<'a>(&'a self, pipeline: &'a str, service: &'a str, version: &'a Version)
    -> Finding<'a>;
}

/// Where an app's versions are kept, once that is known; nothing if they are not kept.
pub(crate) type Archives = watch::Sender<Option<Arc<dyn Archive>>>;

/// The versions of one durable function that came from the archive.
pub(super) struct Ready {
    app: String,
    runtime: Runtime,
    /// Nothing where versions are not kept.
    archive: Option<watch::Receiver<Option<Arc<dyn Archive>>>>,
    versions: Mutex<Vec<Versioned>>,
}

impl Ready {
    pub(super) fn new(app: &str, runtime: Runtime, archives: Option<&Archives>) -> Self {
        Self {
            app: app.to_owned(),
            runtime,
            archive: archives.map(watch::Sender::subscribe),
            versions: Mutex::default(),
        }
    }

    /// A version, from memory or made of what is kept; nothing if it is not kept.
    ///
    /// # Errors
    ///
    /// The archive cannot be asked now, or what it keeps does not run.
    pub(super) async fn find(
        &self,
        pipeline: &str,
        service: &str,
        version: &Version,
    ) -> Result<Option<Versioned>, CallError> {
        let Some(mut opened) = self.archive.clone() else {
            return Ok(None);
        };
        // One fetches it, and others of the function wait for that.
        let mut ready = self.versions.lock().await;
        if let Some(found) = ready.iter().find(|one| one.version == *version) {
            return Ok(Some(found.clone()));
        }
        let opened = timeout(OPENED, opened.wait_for(Option::is_some)).await;
        // An archive that does not open, or is closed, keeps nothing.
        let Some(archive) = opened.ok().and_then(|opened| opened.ok()?.clone()) else {
            return Ok(None);
        };
        let Some(archived) = archive.find(pipeline, service, version).await? else {
            return Ok(None);
        };
        let Archived {
            component,
            spec,
            events,
            imports,
        } = archived;
        let made =
            Service::with_events(&self.runtime, &self.app, component, Arc::new(spec), events);
        let service = Arc::new(made.map_err(CallError::unavailable)?);
        service.warm().await.map_err(CallError::unavailable)?;
        let found = Versioned {
            version: version.clone(),
            service,
            imports: imports.into(),
        };
        ready.insert(0, found.clone());
        ready.truncate(READY);
        Ok(Some(found))
    }
}
