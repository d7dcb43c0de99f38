//! The routes of a plan: one entry for each route of the manifest.

use std::collections::BTreeMap;

use crate::interface::FunctionId;
use crate::manifest::Route;
use crate::shape::{Shape, Signature};
use crate::text::did_you_mean;

use super::{Bindings, RouteProblem, Wiring};

/// The status of an error case that its route does not map: the request was understood, and the
/// service, working as it should, declines. To monitors and retrying clients, 500 would mean that
/// the service is broken, 400 that the request is malformed.
pub const UNMAPPED_ERROR: u16 = 422;

/// A route that calls a function.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct PlannedRoute {
    /// The route of the manifest.
    pub route: Route,
    /// The function, in the version of its exporter.
    pub function: FunctionId,
    /// Its type.
    pub signature: Signature,
    /// The bindings of its parameters.
    pub bindings: Bindings,
    /// The status of a result: the route's, or 200, or 204 when there is no value.
    pub status: u16,
    /// The status of each error case, as the route has them.
    pub errors: BTreeMap<String, u16>,
}

/// A prefix of an HTTP component.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PlannedHttp {
    /// The route of the manifest.
    pub route: Route,
    /// The service.
    pub service: String,
}

impl PlannedRoute {
    pub(super) fn new(
        route: &Route,
        function: FunctionId,
        signature: &Signature,
        query: &[String],
        status: Option<u16>,
        errors: &BTreeMap<String, u16>,
    ) -> Result<Self, RouteProblem> {
        check_errors(signature, errors)?;
        let usual = match &signature.result {
            None | Some(Shape::Result { ok: None, .. }) => 204,
            Some(_) => 200,
        };
        Ok(Self {
            route: route.clone(),
            function,
            bindings: Bindings::new(route, signature, query)?,
            signature: signature.clone(),
            status: status.unwrap_or(usual),
            errors: errors.clone(),
        })
    }

    /// The status of an error of the function, by the name of its case if it has one.
    #[must_use]
    pub fn error_status(&self, case: Option<&str>) -> u16 {
        let own = case.and_then(|case| self.errors.get(case));
        own.or_else(|| self.errors.get("*"))
            .copied()
            .unwrap_or(UNMAPPED_ERROR)
    }
}

fn check_errors(signature: &Signature, errors: &BTreeMap<String, u16>) -> Result<(), RouteProblem> {
    if errors.is_empty() {
        return Ok(());
    }
    let Some(Shape::Result { err, .. }) = &signature.result else {
        return Err(RouteProblem::NoErrors(Box::new(signature.clone())));
    };
    let cases: Vec<String> = match err.as_deref() {
        Some(Shape::Variant(cases)) => cases.iter().map(|case| case.name.to_string()).collect(),
        Some(Shape::Enum(cases)) => cases.iter().map(ToString::to_string).collect(),
        _ => Vec::new(),
    };
    match errors
        .keys()
        .find(|case| *case != "*" && !cases.contains(case))
    {
        None => Ok(()),
        Some(case) if cases.is_empty() => Err(RouteProblem::NoCases { case: case.clone() }),
        Some(case) => {
            let suggestion = did_you_mean(case, cases.iter().map(String::as_str));
            Err(RouteProblem::NoCase {
                case: case.clone(),
                suggestion,
                cases,
            })
        }
    }
}

impl Wiring<'_> {
    pub(super) fn plan_http(
        &self,
        route: &Route,
        service: &str,
    ) -> Result<PlannedHttp, RouteProblem> {
        let service = service.to_owned();
        if self
            .services
            .iter()
            .any(|described| described.name == service && described.http)
        {
            Ok(PlannedHttp {
                route: route.clone(),
                service,
            })
        } else {
            Err(RouteProblem::NoHttp { service })
        }
    }
}
