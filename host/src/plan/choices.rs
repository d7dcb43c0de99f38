//! What a service chose in its own `wire`: another exporter than the app's for an interface that it
//! imports, so that a service can stand between two that share one interface.

use std::collections::BTreeMap;

use super::{ChoiceProblem, PlanError, Wiring, check_functions, events, owned_nearest};
use crate::interface::InterfaceId;
use crate::shape::InterfaceDescription;

impl<'a> Wiring<'a> {
    /// The service that `service` chose for an import; none for events, which all subscribers get.
    pub(super) fn choice(&self, service: &str, import: &InterfaceId) -> Option<&'a str> {
        let chosen = self.app.services.get(service)?.exporter_of(import)?;
        events(self.app, import).is_none().then_some(chosen)
    }

    /// Everything that a service exports, whether or not the app's wires leave it out.
    fn exports(&self, service: &str) -> &'a [InterfaceDescription] {
        let mut services = self.services.iter();
        services
            .find(|described| described.name == service)
            .map_or(&[], |described| described.exports)
    }

    fn export(&self, service: &str, interface: &InterfaceId) -> Option<&'a InterfaceDescription> {
        let mut exports = self.exports(service).iter();
        exports.find(|export| export.id.compatible(interface))
    }

    /// Reports entries that choose nothing.
    pub(super) fn check_choices(&self) -> Vec<PlanError> {
        let mut errors = Vec::new();
        for service in self.services {
            let Some(spec) = self.app.services.get(service.name) else {
                continue;
            };
            for (interface, exporter) in &spec.wires {
                let problem = self.choice_problem(service.imports, interface, exporter);
                errors.extend(problem.map(|problem| PlanError::Choice {
                    service: service.name.to_owned(),
                    interface: interface.clone(),
                    problem,
                }));
            }
        }
        errors
    }

    fn choice_problem(
        &self,
        imports: &[InterfaceDescription],
        interface: &InterfaceId,
        exporter: &str,
    ) -> Option<ChoiceProblem> {
        let nearest = |of: &[InterfaceDescription]| {
            let names: Vec<_> = of.iter().map(|one| one.id.to_string()).collect();
            (owned_nearest(&interface.to_string(), &names), names)
        };
        let Some(import) = imports.iter().find(|i| i.id.answers_to(interface)) else {
            let (nearest, _) = nearest(imports);
            return Some(ChoiceProblem::NotImported { nearest });
        };
        if events(self.app, &import.id).is_some() {
            return Some(ChoiceProblem::Events);
        }
        let exports = self.exports(exporter);
        if exports.iter().any(|e| e.id.answers_to(interface)) {
            return None;
        }
        let (nearest, exports) = nearest(exports);
        Some(ChoiceProblem::NotExported {
            exporter: exporter.to_owned(),
            nearest,
            exports,
        })
    }

    /// Checks an import against the exporter that its service chose.
    pub(super) fn check_chosen(
        &self,
        service: &str,
        import: &InterfaceDescription,
        exporter: &str,
    ) -> Vec<PlanError> {
        if let Some(export) = self.export(exporter, &import.id) {
            return check_functions(service, import, exporter, export);
        }
        let spec = self.app.services.get(service);
        let entry = |export: &InterfaceId| {
            let mut entries = spec.into_iter().flat_map(|spec| spec.wires.keys());
            entries.any(|entry| import.id.answers_to(entry) && export.answers_to(entry))
        };
        let mut exports = self.exports(exporter).iter();
        // What does not answer to the entry is reported with the entry.
        let other = exports.find(|export| entry(&export.id));
        let other = other.map(|found| PlanError::OtherVersion {
            service: service.to_owned(),
            import: import.id.clone(),
            exporter: exporter.to_owned(),
            found: found.id.clone(),
        });
        other.into_iter().collect()
    }

    /// The error of a service whose import would come back to itself.
    pub(super) fn calls_itself(&self, service: &str, import: &InterfaceId) -> PlanError {
        let others = self.services.iter().map(|other| other.name);
        let others =
            others.filter(|other| *other != service && self.export(other, import).is_some());
        PlanError::CallsItself {
            service: service.to_owned(),
            import: import.clone(),
            others: others.map(str::to_owned).collect(),
        }
    }

    /// The interfaces that services answer because an importer chose them.
    pub(super) fn plan_choices(&self) -> BTreeMap<String, BTreeMap<InterfaceId, Vec<String>>> {
        let mut chosen: BTreeMap<String, BTreeMap<InterfaceId, Vec<String>>> = BTreeMap::new();
        for service in self.services {
            for import in service.imports {
                let Some(exporter) = self.choice(service.name, &import.id) else {
                    continue;
                };
                let Some(export) = self.export(exporter, &import.id) else {
                    continue;
                };
                let functions = export.functions.keys().cloned().collect();
                let interfaces = chosen.entry(exporter.to_owned()).or_default();
                interfaces.insert(export.id.clone(), functions);
            }
        }
        chosen
    }
}
