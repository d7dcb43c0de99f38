//! The services that run a durable function at this host: the present one, and those that it replaced, so that
//! runs are ended by what began them.

use std::sync::Arc;

use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::run::Version;
use crate::manifest::{Digest, ServiceSpec};
use crate::plan::Import;
use crate::runtime::Service;
use crate::text::hex;

/// Replaced services that are kept for runs which they began.
const REPLACED: usize = 3;

/// The services of one durable function, the present one first; none where it does not run.
#[derive(Clone, Default)]
pub(crate) struct Versions(Vec<Versioned>);

/// One of them.
#[derive(Clone)]
pub(super) struct Versioned {
    pub(super) version: Version,
    pub(super) service: Arc<Service>,
    /// What it may call, as it was planned.
    pub(super) imports: Arc<[Import]>,
}

impl Versions {
    /// This service alone, if there is one.
    pub(super) fn of(service: Option<&Arc<Service>>, imports: &[Import]) -> Self {
        let present = service.map(|service| Versioned {
            version: Version::of(service),
            service: Arc::clone(service),
            imports: imports.into(),
        });
        Self(present.into_iter().collect())
    }

    /// Puts another service in the place of the present one, or none. Returns whether anything changed.
    pub(super) fn replace(&mut self, service: Option<&Arc<Service>>, imports: &[Import]) -> bool {
        let present = self.0.first();
        let same = present.map(|present| Arc::as_ptr(&present.service)) == service.map(Arc::as_ptr);
        if same && present.is_none_or(|present| *present.imports == *imports) {
            return false;
        }
        let mut next = Self::of(service, imports);
        if let Some(Versioned { version, .. }) = next.0.first().cloned() {
            let replaced = self.0.drain(..).filter(|other| other.version != version);
            next.0.extend(replaced.take(REPLACED));
        }
        *self = next;
        true
    }

    /// Whether the function runs here.
    pub(super) fn is_here(&self) -> bool {
        !self.0.is_empty()
    }

    /// This version.
    pub(super) fn find(&self, wanted: &Version) -> Option<Versioned> {
        self.0.iter().find(|one| one.version == *wanted).cloned()
    }

    /// The present one.
    pub(super) fn present(&self) -> Option<Versioned> {
        self.0.first().cloned()
    }
}

impl Version {
    fn of(service: &Service) -> Self {
        Self::specified(&service.component.digest, &service.spec)
    }

    /// A component with what is specified of its service.
    pub(crate) fn specified(component: &Digest, spec: &ServiceSpec) -> Self {
        let settings = Sha256::digest(json!([spec.config, spec.env]).to_string());
        Self {
            component: component.to_string(),
            settings: hex(settings.get(..8).unwrap_or_default()),
        }
    }
}
