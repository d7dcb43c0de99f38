//! The versions that the services of an app had, in the fleet's store: runs of durable functions are ended by what began
//! them.

use std::sync::Arc;

use super::Shared;
use super::driver::{FetchError, explain};
use crate::call::CallError;
use crate::fleet::StoreError;
use crate::pipelines::{Archive, Archived, Finding, Version};
use crate::plan;

/// The versions of one app.
pub(super) struct StoredVersions {
    shared: Arc<Shared>,
    app: String,
}

impl StoredVersions {
    pub(super) fn new(shared: &Arc<Shared>, app: &str) -> Self {
        Self {
            shared: Arc::clone(shared),
            app: app.to_owned(),
        }
    }

    async fn version(
        &self,
        pipeline: &str,
        service: &str,
        version: &Version,
    ) -> Result<Option<Archived>, FetchError> {
        let store = &self.shared.store;
        let specified = store.specified_version(&self.app, service, version).await?;
        let Some(specification) = specified else {
            return Ok(None);
        };
        let (app, components) = (&specification.app, &specification.components);
        let described = store.descriptions(components).await?;
        let (Some(spec), Some(digest), Some(description)) = (
            app.services.get(service),
            components.get(service),
            described.get(service),
        ) else {
            return Ok(None);
        };
        // One that this host would refuse today does not run.
        let Ok(plan) = plan::plan(app, &described) else {
            return Ok(None);
        };
        let mut pipelines = plan.pipelines.iter();
        let durable = pipelines.find(|one| one.name == pipeline);
        let Some(durable) = durable.and_then(|one| one.durable.as_ref()) else {
            return Ok(None);
        };
        let component = self.shared.component(digest, description).await?;
        tracing::info!(
            app = self.app,
            service,
            digest = digest.short(),
            "a run goes on with the version that began it"
        );
        let imports = component.imports.iter();
        let events = imports.filter_map(|import| plan.event_wire(&import.id).cloned());
        Ok(Some(Archived {
            events: events.collect(),
            spec: spec.clone(),
            imports: durable.imports.clone(),
            component,
        }))
    }
}

impl Archive for StoredVersions {
    fn find<'a>(
        &'a self,
        pipeline: &'a str,
        service: &'a str,
        version: &'a Version,
    ) -> Finding<'a> {
        Box::pin(async move {
            match self.version(pipeline, service, version).await {
                Ok(found) => Ok(found),
                Err(FetchError::Store(StoreError::Missing(_))) => Ok(None),
                Err(error) => Err(CallError::unavailable(explain(&error))),
            }
        })
    }
}
