//! Pipelines, checked by the types of what they are and what they call.
//!
//! A [`Pipeline`] has everything that a run of it needs, so a run keeps the one that it began with, whatever is
//! deployed later. Every path in it leads to a value for certain: what may be absent is refused here.

mod condition;
mod durable;
mod filled;
mod problem;
mod roots;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{PlanError, Publication, Wiring, events, is_external};
use crate::interface::{FunctionId, InterfaceId};
use crate::manifest::{
    ActSpec, CallSpec, ConditionSpec, EachSpec, OnError, PipelineSpec, Place, StepSpec, Template,
    TemplateKind,
};
use crate::shape::{Shape, Signature};
use crate::text::did_you_mean;

pub use condition::Condition;
pub use durable::{Durable, DurableProblem, Import};
pub use filled::{Filled, JsonText, Root, Sources};
pub use problem::PipelineProblem;
use problem::Problem;
use roots::{Known, KnownStep, Roots, Scope};

/// A function that is made of steps.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Pipeline {
    /// Its name.
    pub name: String,
    /// The function, in the version of its importers.
    pub function: FunctionId,
    /// Its type.
    pub signature: Signature,
    /// The steps in order.
    pub steps: Vec<Step>,
    /// The value that it returns; of a `result`, the ok side.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<Filled>,
    /// Milliseconds for all steps.
    pub deadline: u64,
    /// Seconds for which a run is kept that has ended.
    pub keep: u64,
    /// Bytes of the journal of a run.
    pub journal: usize,
    /// Where its steps come from, if they are not those of a manifest: what a durable function calls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub durable: Option<Durable>,
}

/// One step of a pipeline.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Step {
    /// Its name.
    pub name: String,
    /// What it is.
    pub act: Act,
    /// What decides whether it is done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<Condition>,
    /// The group of steps that are done at the same time: those beside it that have the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// The list for each item of which it is done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub each: Option<Each>,
    /// What an `err` value means.
    pub on_error: OnError,
    /// The pipeline's own error for an `err` value of the step, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Filled>,
    /// What undoes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undo: Option<StepCall>,
}

impl Step {
    /// The call that it is.
    #[must_use]
    pub const fn call(&self) -> Option<&StepCall> {
        let Act::Call(call) = &self.act;
        Some(call)
    }
}

/// What a step is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum Act {
    /// A call, or an event that is published.
    Call(StepCall),
}

/// A list for each item of which a step is done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Each {
    /// The list.
    pub list: Filled,
    /// Items that it may have.
    pub at_most: u32,
    /// Items that are worked on at the same time.
    pub at_once: u32,
}

/// A call of a step or its undo, or an event that is published.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct StepCall {
    /// The function.
    pub function: FunctionId,
    /// Its type.
    pub signature: Signature,
    /// The arguments, as an object by parameter.
    pub with: Filled,
    /// Milliseconds for one attempt.
    pub timeout: u64,
    /// Attempts in all.
    pub attempts: u32,
    /// Milliseconds between attempts; the last one repeats.
    pub backoff: Vec<u64>,
    /// Where it is published, if it is an event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<Publication>,
}

impl StepCall {
    /// Milliseconds to wait after so many failed attempts.
    #[must_use]
    pub fn wait(&self, attempts: u32) -> u64 {
        let index = attempts.saturating_sub(1) as usize;
        let wait = self.backoff.get(index).or(self.backoff.last());
        wait.copied().unwrap_or(0)
    }
}

/// A value on its way into a [`Filled`], and what it is for.
struct Check<'a, 'w> {
    wiring: &'a Wiring<'w>,
    spec: &'a PipelineSpec,
    /// The function's parameters, as a record.
    input: Shape,
    /// The values of the steps so far.
    steps: Vec<KnownStep>,
    /// What is known within the step that is checked.
    scope: Scope,
    errors: Vec<PlanError>,
}

impl Check<'_, '_> {
    fn report(&mut self, place: &Place, step: Option<&str>, problem: PipelineProblem) {
        let within = step.map_or_else(String::new, |step| format!("step \"{step}\": "));
        self.errors.push(PlanError::Pipeline {
            place: place.clone(),
            pipeline: self.spec.name.clone(),
            within,
            problem: Box::new(problem),
        });
    }

    fn roots<'s>(&'s self, error: Option<&'s Shape>) -> Roots<'s> {
        Roots {
            input: &self.input,
            steps: &self.steps,
            error,
            scope: &self.scope,
        }
    }

    /// Fills a value of this shape in.
    fn fill(
        &mut self,
        step: Option<&str>,
        key: &str,
        template: &Template,
        shape: &Shape,
        error: Option<&Shape>,
    ) -> Option<Filled> {
        match self.roots(error).fill(template, shape) {
            Ok(filled) => Some(filled),
            Err((place, problem)) => {
                let problem = Box::new(problem);
                let key = key.to_owned();
                self.report(&place, step, PipelineProblem::Value { key, problem });
                None
            }
        }
    }

    fn call(&mut self, step: &StepSpec, spec: &CallSpec, within: &str) -> Option<StepCall> {
        let name = Some(step.name.as_str());
        let own = &self.spec.implements;
        if spec.function.name == own.name && spec.function.interface.answers_to(&own.interface) {
            let itself = PipelineProblem::Itself(Box::new(spec.function.clone()));
            self.report(&spec.place, name, itself);
            return None;
        }
        let (function, signature) = match self.wiring.resolve(&spec.function) {
            Ok((function, signature)) => (function, signature.clone()),
            Err(problem) => {
                let (key, problem) = (spec.key(), Box::new(problem));
                self.report(&spec.place, name, PipelineProblem::NoCall { key, problem });
                return None;
            }
        };
        let app = self.wiring.app;
        let event = match (events(app, &function.interface), spec.event) {
            (Some(wire), true) => Some(Publication::of(&app.name, wire, &function, &signature)),
            (None, false) => None,
            (wire, _) => {
                let interface = Box::new(function.interface);
                let problem = match wire {
                    Some(_) => PipelineProblem::Event(interface),
                    None => PipelineProblem::NoEvent(interface),
                };
                self.report(&spec.place, name, problem);
                return None;
            }
        };
        let mut with = Vec::new();
        let before = self.errors.len();
        for param in &signature.params {
            let given = spec
                .with
                .iter()
                .find(|(name, _)| super::spells(name, &param.name));
            let value = match given {
                Some((given, template)) => {
                    let key = format!("{within}with.{given}");
                    self.fill(name, &key, template, &param.shape, None)
                }
                // A missing key is none.
                None if matches!(param.shape, Shape::Option(_)) => continue,
                None => {
                    let missing = PipelineProblem::Missing {
                        name: param.name.to_string(),
                        function: Box::new(function.clone()),
                        takes: signature.parameters(),
                    };
                    self.report(&spec.place, name, missing);
                    None
                }
            };
            with.extend(value.map(|value| (param.key.to_string(), value)));
        }
        for (given, template) in &spec.with {
            if !signature
                .params
                .iter()
                .any(|param| super::spells(given, &param.name))
            {
                let names = signature.params.iter().map(|param| &*param.name);
                let unknown = PipelineProblem::NoParameter {
                    name: given.clone(),
                    function: Box::new(function.clone()),
                    suggestion: did_you_mean(given, names),
                    takes: signature.parameters(),
                };
                self.report(&template.place, name, unknown);
            }
        }
        (self.errors.len() == before).then(|| StepCall {
            function,
            signature,
            with: Filled::Object(with),
            timeout: millis(spec.timeout),
            attempts: spec.retry.attempts,
            backoff: spec.retry.backoff.iter().copied().map(millis).collect(),
            event,
        })
    }

    /// Checks a step; its value is known to those after it.
    fn step(&mut self, spec: &StepSpec, own_error: Option<&Shape>) -> Option<Step> {
        let name = Some(spec.name.as_str());
        self.scope = Scope {
            group: spec.group.clone(),
            ..Scope::default()
        };
        let before = self.errors.len();
        let when = spec.when.as_ref().and_then(|when| self.when(spec, when));
        let each = spec.each.as_ref().and_then(|each| self.each(spec, each));
        let ActSpec::Call(call) = &spec.act;
        let Some(call) = self.call(spec, call, "") else {
            // Paths to it would be reported as well, and mislead.
            self.know(spec, Some(Known::anything()));
            return None;
        };
        let (value, err) = match &call.event {
            Some(_) => (None, None),
            None => sides(&call.signature),
        };
        let is_result = matches!(call.signature.result, Some(Shape::Result { .. }));
        let fallible = is_result && call.event.is_none();
        if !fallible && spec.on_error != OnError::Fail {
            let function = Box::new(call.function.clone());
            self.report(&spec.place, name, PipelineProblem::NoErr(function));
        }
        let error = self.error(spec, fallible, err, own_error);
        let undo = spec.undo.as_ref().and_then(|undo| {
            self.know(spec, value.map(|shape| Known::new(shape.clone(), false)));
            self.scope.undoes = true;
            let undo = self.call(spec, undo, "undo.");
            self.steps.pop();
            undo
        });
        self.know(spec, value.map(|shape| known(spec, shape)));
        (self.errors.len() == before).then(|| Step {
            name: spec.name.clone(),
            act: Act::Call(call),
            when,
            group: spec.group.clone(),
            each,
            on_error: spec.on_error,
            error,
            undo,
        })
    }

    fn know(&mut self, spec: &StepSpec, value: Option<Known>) {
        self.steps.push(KnownStep {
            name: spec.name.clone(),
            group: spec.group.clone(),
            value,
        });
    }

    fn when(&mut self, spec: &StepSpec, when: &ConditionSpec) -> Option<Condition> {
        let TemplateKind::Path(path) = &when.value.kind else {
            return None;
        };
        match self.roots(None).condition(path, when.is.as_ref()) {
            Ok((condition, narrowed)) => {
                self.scope.narrowed = narrowed;
                Some(condition)
            }
            Err(problem) => self.refuse(spec, "when", &when.value, problem),
        }
    }

    fn each(&mut self, spec: &StepSpec, each: &EachSpec) -> Option<Each> {
        let TemplateKind::Path(path) = &each.list.kind else {
            return None;
        };
        match self.roots(None).list(path) {
            Ok((list, item)) => {
                self.scope.item = Some(item);
                Some(Each {
                    list,
                    at_most: each.at_most,
                    at_once: each.at_once,
                })
            }
            Err(problem) => {
                self.scope.item = Some(Known::anything());
                self.refuse(spec, "each", &each.list, problem)
            }
        }
    }

    fn refuse<T>(
        &mut self,
        spec: &StepSpec,
        key: &str,
        template: &Template,
        problem: Problem,
    ) -> Option<T> {
        let (key, problem) = (key.to_owned(), Box::new(problem));
        let problem = PipelineProblem::Value { key, problem };
        self.report(&template.place, Some(&spec.name), problem);
        None
    }

    /// The pipeline's own error for an `err` value of a step.
    fn error(
        &mut self,
        spec: &StepSpec,
        fallible: bool,
        err: Option<&Shape>,
        own: Option<&Shape>,
    ) -> Option<Filled> {
        let name = Some(spec.name.as_str());
        if let Some(template) = &spec.error {
            let why = match own {
                _ if !fallible => "the step's function returns no `result`; leave it out",
                _ if spec.on_error == OnError::Continue => {
                    "the run goes on with `on-error = \"continue\"`; leave one of the two out"
                }
                None => "the pipeline's function has no error with a value; leave it out",
                Some(own) => return self.fill(name, "error", template, own, err),
            };
            self.report(&template.place, name, PipelineProblem::NoError(why));
            return None;
        }
        // A pipeline whose function has no place for an error fails as one that traps.
        let own = own.filter(|_| fallible && spec.on_error != OnError::Continue)?;
        if let Some(err) = err
            && roots::fits(err, own)
        {
            return Some(Filled::error());
        }
        let step = err.map_or_else(|| "without a value".to_owned(), ToString::to_string);
        let problem = PipelineProblem::Error {
            step,
            own: own.to_string(),
        };
        self.report(&spec.place, name, problem);
        None
    }

    fn result(&mut self, function: &FunctionId, signature: &Signature) -> Option<Filled> {
        let (value, _) = sides(signature);
        let place = self.spec.place.clone();
        match (&self.spec.result, value) {
            (None, None) => None,
            (Some(template), Some(shape)) => self.fill(None, "result", template, shape, None),
            (Some(template), None) => {
                let problem = PipelineProblem::NoResult {
                    function: Box::new(function.clone()),
                    signature: Box::new(signature.clone()),
                };
                self.report(&template.place, None, problem);
                None
            }
            (None, Some(shape)) => {
                let problem = PipelineProblem::ResultMissing {
                    function: Box::new(function.clone()),
                    shape: shape.to_string(),
                };
                self.report(&place, None, problem);
                None
            }
        }
    }
}

/// The value of a step, each call of which has one of this shape.
fn known(spec: &StepSpec, shape: &Shape) -> Known {
    let declines = spec.on_error == OnError::Continue;
    let optional = |shape: Shape| Shape::Option(Box::new(shape));
    match &spec.each {
        None => Known::new(shape.clone(), spec.when.is_some() || declines),
        Some(_) => {
            let item = if declines {
                optional(shape.clone())
            } else {
                shape.clone()
            };
            Known::new(Shape::List(Box::new(item)), spec.when.is_some())
        }
    }
}

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
        if !check.errors.is_empty() {
            return Err(check.errors);
        }
        Ok(Pipeline {
            name: spec.name.clone(),
            function,
            signature,
            steps,
            result,
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
