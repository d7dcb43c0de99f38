//! Pipelines, checked by the types of what they are and what they call.
//!
//! A [`Pipeline`] has everything that a run of it needs, so a run keeps the one that it began with, whatever is
//! deployed later. Every path in it leads to a value for certain: what may be absent is refused here.

mod check;
mod condition;
mod durable;
mod filled;
mod planned;
mod problem;
pub(crate) mod provided;
mod roots;
mod secret;
mod wait;

use std::time::Duration;

use super::{PlanError, Wiring, events, is_external};
use crate::interface::{FunctionId, InterfaceId};
use crate::manifest::PipelineSpec;
use crate::shape::{Shape, Signature};

use check::Check;
pub use condition::Condition;
pub(crate) use durable::secrets_of;
pub use durable::{Durable, DurableProblem, Import};
pub use filled::{Filled, JsonText, Root, Sources, Token};
pub use planned::{Act, Each, Pipeline, Step, StepCall};
pub use problem::PipelineProblem;
use roots::Scope;
pub(super) use roots::literal;
pub(crate) use secret::mask;
pub use secret::{Secret, Secrets};
pub use wait::WaitFor;

/// The value of a result, and that of its error.
fn sides(signature: &Signature) -> (Option<&Shape>, Option<&Shape>) {
    match &signature.result {
        Some(Shape::Result { ok, err }) => (ok.as_deref(), err.as_deref()),
        value => (value.as_ref(), None),
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Wiring<'_> {
    /// Plans all pipelines of the app; reports what is wrong with them.
    pub(super) fn plan_pipelines(&self, errors: &mut Vec<PlanError>) -> Vec<Pipeline> {
        let mut pipelines = Vec::new();
        for spec in &self.app.pipelines {
            match self.plan_pipeline(spec) {
                Ok(pipeline) => pipelines.push(pipeline),
                Err(found) => errors.extend(found),
            }
        }
        pipelines
    }

    /// The pipeline that is a function of this interface.
    pub(super) fn pipeline(
        &self,
        interface: &InterfaceId,
        function: &str,
    ) -> Option<&PipelineSpec> {
        let mut pipelines = self.app.pipelines.iter();
        pipelines.find(|spec| {
            spec.implements.name == function && interface.answers_to(&spec.implements.interface)
        })
    }

    fn plan_pipeline(&self, spec: &PipelineSpec) -> Result<Pipeline, Vec<PlanError>> {
        let mut check = Check {
            wiring: self,
            spec,
            input: Shape::Record(Box::default()),
            steps: Vec::new(),
            scope: Scope::default(),
            errors: Vec::new(),
        };
        let (function, signature) = match self.type_of(spec) {
            Ok(found) => found,
            Err(problem) => {
                check.report(&spec.place, None, problem);
                return Err(check.errors);
            }
        };
        check.input = Shape::Record(signature.params.clone());
        let (_, own_error) = sides(&signature);
        let steps = spec.steps.iter();
        let steps: Vec<_> = steps
            .filter_map(|step| check.step(step, own_error))
            .collect();
        check.scope = Scope::default();
        let result = check.result(&function, &signature);
        let secret = check.secrets();
        if !check.errors.is_empty() {
            return Err(check.errors);
        }
        Ok(Pipeline {
            name: spec.name.clone(),
            function,
            signature,
            steps,
            result,
            secret,
            secret_result: Vec::new(),
            deadline: millis(spec.bounds.deadline),
            keep: spec.bounds.keep.as_secs(),
            journal: spec.bounds.journal,
            durable: None,
        })
    }

    /// The function that a pipeline is, and its type.
    fn type_of(&self, spec: &PipelineSpec) -> Result<(FunctionId, Signature), PipelineProblem> {
        let wanted = &spec.implements;
        let taken = |interface: &InterfaceId, by: String| PipelineProblem::Taken {
            interface: Box::new(interface.clone()),
            by,
        };
        let mut exporters = self.exporters.iter();
        let exporter = exporters.find(|(_, export)| export.id.answers_to(&wanted.interface));
        if let Some((service, export)) = exporter {
            return Err(taken(
                &export.id,
                format!("exported by service \"{service}\""),
            ));
        }
        let of_importers = self.services.iter().flat_map(|service| {
            let imports = service.imports.iter();
            let same = imports.filter(|import| import.id.answers_to(&wanted.interface));
            same.filter_map(|import| {
                let signature = import.functions.get(&wanted.name)?;
                Some((service.name, import.id.function(&wanted.name), signature))
            })
        });
        let mut of_importers = of_importers;
        let first = of_importers.next();
        let function = first
            .as_ref()
            .map_or(wanted, |(_, function, _)| function)
            .clone();
        if is_external(self.app, &function.interface) {
            return Err(taken(&function.interface, "wired as external".to_owned()));
        }
        if events(self.app, &function.interface).is_some() {
            return Err(taken(&function.interface, "wired as events".to_owned()));
        }
        let signature = match (&spec.signature, &first) {
            (Some(stated), _) => stated,
            (None, Some((_, _, signature))) => *signature,
            (None, None) => return Err(PipelineProblem::NoType(Box::new(wanted.clone()))),
        };
        let all = first.into_iter().chain(of_importers);
        let mut others = all.filter(|(_, _, imported)| *imported != signature);
        if let Some((service, _, imported)) = others.next() {
            return Err(PipelineProblem::OtherType {
                function: Box::new(function),
                service: service.to_owned(),
                stated: Box::new(signature.clone()),
                imported: Box::new(imported.clone()),
            });
        }
        Ok((function, signature.clone()))
    }
}

#[cfg(test)]
mod tests;
