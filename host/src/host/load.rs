//! From files to what a host is to run: components, whether they fit, and their specification.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use super::HostError;
use crate::manifest::{App, Specification};
use crate::plan::{self, Description, Plan};
use crate::runtime::{Component, Engine};

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
    plan::plan(app, &describe(components)).map_err(HostError::Plan)
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

pub(super) fn describe(
    components: &BTreeMap<String, Arc<Component>>,
) -> BTreeMap<String, Description> {
    let components = components.iter();
    components
        .map(|(name, component)| (name.clone(), component.description()))
        .collect()
}
