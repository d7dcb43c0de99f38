//! One pipeline, checked step by step.

use super::condition::Condition;
use super::filled::Filled;
use super::planned::{Act, Each, Step, StepCall};
use super::problem::{PipelineProblem, Problem};
use super::roots::{self, Known, KnownStep, Roots, Scope};
use super::{millis, sides};
use crate::interface::FunctionId;
use crate::manifest::{
    ActSpec, CallSpec, ConditionSpec, EachSpec, OnError, PipelineSpec, Place, StepSpec, Template,
    TemplateKind, WaitSpec,
};
use crate::plan::{PlanError, Publication, Wiring, events, spells};
use crate::shape::{Shape, Signature};
use crate::text::did_you_mean;

/// A pipeline that is checked, and what is known of it so far.
pub(super) struct Check<'a, 'w> {
    pub(super) wiring: &'a Wiring<'w>,
    pub(super) spec: &'a PipelineSpec,
    /// The function's parameters, as a record.
    pub(super) input: Shape,
    /// The values of the steps so far.
    pub(super) steps: Vec<KnownStep>,
    /// What is known within the step that is checked.
    pub(super) scope: Scope,
    pub(super) errors: Vec<PlanError>,
}

impl Check<'_, '_> {
    pub(super) fn report(&mut self, place: &Place, step: Option<&str>, problem: PipelineProblem) {
        let within = step.map_or_else(String::new, |step| format!("step \"{step}\": "));
        self.errors.push(PlanError::Pipeline {
            place: place.clone(),
            pipeline: self.spec.name.clone(),
            within,
            problem: Box::new(problem),
        });
    }

    pub(super) fn roots<'s>(&'s self, error: Option<&'s Shape>) -> Roots<'s> {
        Roots {
            input: &self.input,
            steps: &self.steps,
            error,
            scope: &self.scope,
        }
    }

    /// Fills a value of this shape in.
    pub(super) fn fill(
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

    pub(super) fn call(
        &mut self,
        step: &StepSpec,
        spec: &CallSpec,
        within: &str,
    ) -> Option<StepCall> {
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
            let given = spec.with.iter().find(|(name, _)| spells(name, &param.name));
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
                .any(|param| spells(given, &param.name))
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
            shown: None,
            timeout: millis(spec.timeout),
            attempts: spec.retry.attempts,
            backoff: spec.retry.backoff.iter().copied().map(millis).collect(),
            event,
        })
    }

    /// Checks a step; its value is known to those after it.
    pub(super) fn step(&mut self, spec: &StepSpec, own_error: Option<&Shape>) -> Option<Step> {
        let name = Some(spec.name.as_str());
        self.scope = Scope {
            group: spec.group.clone(),
            ..Scope::default()
        };
        let before = self.errors.len();
        let when = spec.when.as_ref().and_then(|when| self.when(spec, when));
        let each = spec.each.as_ref().and_then(|each| self.each(spec, each));
        let call = match &spec.act {
            ActSpec::Call(call) => call,
            ActSpec::Sleep(sleep) => {
                let act = self.sleep(spec, sleep);
                self.know(spec, None);
                return act.map(|act| Self::waits(spec, act, when, None));
            }
            ActSpec::Wait(wait) => return self.wait_step(spec, wait, when, own_error),
        };
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

    /// Checks a step that waits for an event, whose arguments are its value.
    fn wait_step(
        &mut self,
        spec: &StepSpec,
        wait: &WaitSpec,
        when: Option<Condition>,
        own_error: Option<&Shape>,
    ) -> Option<Step> {
        let before = self.errors.len();
        let wait = self.wait(spec, wait);
        let error = match (&spec.error, own_error) {
            (None, _) => None,
            (Some(template), _) if spec.on_error == OnError::Continue => {
                let why =
                    "the run goes on with `on-error = \"continue\"`; leave one of the two out";
                let problem = PipelineProblem::NoError(why);
                self.report(&template.place, Some(&spec.name), problem);
                None
            }
            (Some(template), None) => {
                let why = "the pipeline's function has no error with a value; leave it out";
                let problem = PipelineProblem::NoError(why);
                self.report(&template.place, Some(&spec.name), problem);
                None
            }
            (Some(template), Some(own)) => {
                self.fill(Some(&spec.name), "error", template, own, None)
            }
        };
        let arguments = wait.as_ref().map_or_else(Known::anything, |wait| {
            known(spec, &Shape::Record(wait.signature.params.clone()))
        });
        self.know(spec, Some(arguments));
        let wait = wait.filter(|_| self.errors.len() == before)?;
        Some(Self::waits(spec, Act::Wait(wait), when, error))
    }

    fn waits(spec: &StepSpec, act: Act, when: Option<Condition>, error: Option<Filled>) -> Step {
        Step {
            name: spec.name.clone(),
            act,
            when,
            group: spec.group.clone(),
            each: None,
            on_error: spec.on_error,
            error,
            undo: None,
        }
    }

    pub(super) fn know(&mut self, spec: &StepSpec, value: Option<Known>) {
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

    pub(super) fn refuse<T>(
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

    pub(super) fn result(
        &mut self,
        function: &FunctionId,
        signature: &Signature,
    ) -> Option<Filled> {
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
