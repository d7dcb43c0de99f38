//! Pipelines, checked by the types of what they are and what they call.
//!
//! A [`Pipeline`] has everything that a run of it needs, so a run keeps the one that it began with, whatever is
//! deployed later. Every path in it leads to a value for certain: what may be absent is refused here.

mod filled;
mod problem;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{PlanError, Wiring, events, is_external};
use crate::interface::{FunctionId, InterfaceId};
use crate::manifest::{CallSpec, OnError, PipelineSpec, Place, StepSpec, Template, TemplateKind};
use crate::shape::{Shape, Signature};
use crate::text::did_you_mean;

use filled::Known;
pub use filled::{Filled, JsonText, Root, Sources};
use problem::Problem;

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
}

/// One step of a pipeline.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Step {
    /// Its name.
    pub name: String,
    /// What is called.
    pub call: StepCall,
    /// The value that decides whether it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<Filled>,
    /// What an `err` value means.
    pub on_error: OnError,
    /// The pipeline's own error for an `err` value of the step, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Filled>,
    /// What undoes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undo: Option<StepCall>,
}

/// A call of a step or its undo.
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

/// What is wrong with a pipeline.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PipelineProblem {
    /// No type is known of the function that it is.
    #[error(
        "`implements`: no service imports {0}, so its type is not known; add `type = \"func(…) -> …\"`"
    )]
    NoType(Box<FunctionId>),
    /// The stated type is another than that of an importer.
    #[error(
        "`type` is `{stated}`, but service \"{service}\" imports {function} as `{imported}`; leave `type` out, or build the service against it"
    )]
    OtherType {
        /// The function.
        function: Box<FunctionId>,
        /// The importer.
        service: String,
        /// The type in the manifest.
        stated: Box<Signature>,
        /// The importer's type.
        imported: Box<Signature>,
    },
    /// Something else answers the interface.
    #[error(
        "`implements`: {interface} is {by}, so a call would reach one or the other; choose an interface of its own"
    )]
    Taken {
        /// The interface.
        interface: Box<InterfaceId>,
        /// What answers it.
        by: String,
    },
    /// What is called is not there.
    #[error("`call`: {0}")]
    NoCall(Box<super::RouteProblem>),
    /// What is called is an event.
    #[error(
        "`call`: {0} is wired as events, which have no result; accepted: a function that is called"
    )]
    Event(Box<InterfaceId>),
    /// The pipeline calls itself.
    #[error("`call`: the pipeline is {0} itself")]
    Itself(Box<FunctionId>),
    /// A parameter that the function does not have.
    #[error("`with.{name}`: {function} has no such parameter{suggestion}; it takes {takes}")]
    NoParameter {
        /// The name.
        name: String,
        /// The function.
        function: Box<FunctionId>,
        /// The nearest parameter, as the end of a sentence.
        suggestion: String,
        /// All of them.
        takes: String,
    },
    /// A parameter without a value.
    #[error("`with.{name}` is missing; {function} takes {takes}")]
    Missing {
        /// The parameter.
        name: String,
        /// The function.
        function: Box<FunctionId>,
        /// All of them.
        takes: String,
    },
    /// A value that does not fit.
    #[error("`{key}`: {problem}")]
    Value {
        /// Its key.
        key: String,
        /// Why it does not fit.
        problem: Box<Problem>,
    },
    /// A result of a function that has none.
    #[error("`result`: {function} is `{signature}`, which returns no value; leave it out")]
    NoResult {
        /// The function.
        function: Box<FunctionId>,
        /// Its type.
        signature: Box<Signature>,
    },
    /// No result of a function that has one.
    #[error("`result` is missing; {function} returns {shape}")]
    ResultMissing {
        /// The function.
        function: Box<FunctionId>,
        /// The type of the value.
        shape: String,
    },
    /// An error of a step that fits nothing.
    #[error(
        "its `err` value is {step}, which is no value of the pipeline's own error {own}; add `error = …`, `on-error = \"continue\"`, or build both against one type"
    )]
    Error {
        /// The step's error.
        step: String,
        /// The pipeline's error.
        own: String,
    },
    /// An error where there is none.
    #[error("`error`: {0}")]
    NoError(&'static str),
    /// An `on-error` that means nothing.
    #[error("`on-error`: {0} returns no `result`; leave it out")]
    NoErr(Box<FunctionId>),
}

/// A value on its way into a [`Filled`], and what it is for.
struct Check<'a, 'w> {
    wiring: &'a Wiring<'w>,
    spec: &'a PipelineSpec,
    /// The function's parameters, as a record.
    input: Shape,
    /// The values of the steps so far.
    steps: Vec<(String, Option<Known>)>,
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

    /// Fills a value of this shape in.
    fn fill(
        &mut self,
        step: Option<&str>,
        key: &str,
        template: &Template,
        shape: &Shape,
        error: Option<&Shape>,
    ) -> Option<Filled> {
        let roots = filled::Roots {
            input: &self.input,
            steps: &self.steps,
            error,
        };
        match roots.fill(template, shape) {
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
                self.report(
                    &spec.place,
                    name,
                    PipelineProblem::NoCall(Box::new(problem)),
                );
                return None;
            }
        };
        if events(self.wiring.app, &function.interface).is_some() {
            let event = PipelineProblem::Event(Box::new(function.interface));
            self.report(&spec.place, name, event);
            return None;
        }
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
        })
    }

    /// Checks a step; its value is known to those after it.
    fn step(&mut self, spec: &StepSpec, own_error: Option<&Shape>) -> Option<Step> {
        let name = Some(spec.name.as_str());
        let when = spec.when.as_ref().map(|template| self.when(spec, template));
        let call = self.call(spec, &spec.call, "");
        let Some(call) = call else {
            // Paths to it would be reported as well, and mislead.
            self.steps
                .push((spec.name.clone(), Some(Known::anything())));
            return None;
        };
        let (value, err) = sides(&call.signature);
        let fallible = matches!(call.signature.result, Some(Shape::Result { .. }));
        if !fallible && spec.on_error != OnError::Fail {
            let function = Box::new(call.function.clone());
            self.report(&spec.place, name, PipelineProblem::NoErr(function));
        }
        let error = self.error(spec, fallible, err, own_error);
        let may_be_absent = spec.when.is_some() || spec.on_error == OnError::Continue;
        let certain = value.map(|shape| Known::new(shape.clone(), false));
        let known = value.map(|shape| Known::new(shape.clone(), may_be_absent));
        self.steps.push((spec.name.clone(), certain));
        let undo = spec
            .undo
            .as_ref()
            .map(|undo| self.call(spec, undo, "undo."));
        self.steps.pop();
        self.steps.push((spec.name.clone(), known));
        let undo = match undo {
            Some(undo) => Some(undo?),
            None => None,
        };
        let when = match when {
            Some(when) => Some(when?),
            None => None,
        };
        Some(Step {
            name: spec.name.clone(),
            call,
            when,
            on_error: spec.on_error,
            error,
            undo,
        })
    }

    fn when(&mut self, spec: &StepSpec, template: &Template) -> Option<Filled> {
        let roots = filled::Roots {
            input: &self.input,
            steps: &self.steps,
            error: None,
        };
        let TemplateKind::Path(path) = &template.kind else {
            return None;
        };
        match roots.condition(path) {
            Ok(filled) => Some(filled),
            Err(problem) => {
                let (key, problem) = ("when".to_owned(), Box::new(problem));
                let problem = PipelineProblem::Value { key, problem };
                self.report(&template.place, Some(&spec.name), problem);
                None
            }
        }
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
            && filled::fits(err, own)
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
