//! Steps that wait: for some time, or for an event that has the same key as the run.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::check::Check;
use super::filled::{Filled, JsonText, Token, find};
use super::millis;
use super::planned::Act;
use super::problem::PipelineProblem;
use super::roots::{Roots, Scope};
use crate::interface::FunctionId;
use crate::json::{self, Limits, UnknownKeys};
use crate::manifest::{SleepSpec, StepSpec, TemplateKind, WaitSpec};
use crate::plan::{Publication, events};
use crate::shape::{Shape, Signature};

/// An event that a run waits for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct WaitFor {
    /// The function.
    pub function: FunctionId,
    /// Its type, whose arguments are the step's result.
    pub signature: Signature,
    /// The subject of its events, without a partition.
    pub subject: String,
    /// The stream that stores them.
    pub stream: String,
    /// What leads to the key in the arguments.
    pub key: Vec<Token>,
    /// What the key has to be.
    pub equals: Filled,
    /// Milliseconds after which the step fails.
    pub timeout: u64,
}

impl WaitFor {
    /// Whether a message of this subject is one of its events.
    #[must_use]
    pub fn is_of(&self, subject: &str) -> bool {
        let rest = subject.strip_prefix(&*self.subject);
        rest.is_some_and(|rest| {
            let partition = rest.strip_prefix('.');
            rest.is_empty() || partition.is_some_and(|partition| !partition.contains('.'))
        })
    }

    /// The arguments of an event, as this host writes them; nothing if they are of another type.
    #[must_use]
    pub fn read(&self, body: &[u8]) -> Option<JsonText> {
        let limits = Limits {
            bytes: body.len().max(Limits::default().bytes),
            unknown_keys: UnknownKeys::Ignore,
            ..Limits::default()
        };
        let values = json::decode_arguments(body, &self.signature, &limits).ok()?;
        let text = json::encode_arguments(&values, &self.signature, &limits).ok()?;
        RawValue::from_string(String::from_utf8(text).ok()?).ok()
    }

    /// The key of an event with these arguments.
    #[must_use]
    pub fn key_of<'a>(&self, arguments: &'a RawValue) -> Option<&'a str> {
        find(arguments, &self.key)
    }
}

impl Check<'_, '_> {
    pub(super) fn sleep(&mut self, step: &StepSpec, sleep: &SleepSpec) -> Option<Act> {
        if self.passes(sleep.time) {
            return Some(Act::Sleep(millis(sleep.time)));
        }
        let problem = PipelineProblem::Beyond {
            key: "sleep",
            time: sleep.time,
            deadline: self.spec.bounds.deadline,
        };
        self.report(&sleep.place, Some(&step.name), problem);
        None
    }

    /// Whether so much time can pass within a run.
    fn passes(&self, time: Duration) -> bool {
        time < self.spec.bounds.deadline
    }

    pub(super) fn wait(&mut self, step: &StepSpec, spec: &WaitSpec) -> Option<WaitFor> {
        let name = Some(step.name.as_str());
        if !self.passes(spec.timeout) {
            let problem = PipelineProblem::Beyond {
                key: "timeout",
                time: spec.timeout,
                deadline: self.spec.bounds.deadline,
            };
            self.report(&spec.timeout_place, name, problem);
        }
        let (function, signature) = match self.wiring.resolve(&spec.event) {
            Ok((function, signature)) => (function, signature.clone()),
            Err(problem) => {
                let (key, problem) = ("wait-for.event", Box::new(problem));
                self.report(&spec.place, name, PipelineProblem::NoCall { key, problem });
                return None;
            }
        };
        let app = self.wiring.app;
        let publication = match events(app, &function.interface) {
            None => Err("is not wired as events"),
            Some(wire) => {
                let publication = Publication::of(&app.name, wire, &function, &signature);
                let stream = publication.stream().map(str::to_owned);
                let why =
                    "is wired as events that nothing stores, so one that comes early would be lost";
                stream.map(|stream| (publication, stream)).ok_or(why)
            }
        };
        let (publication, stream) = match publication {
            Ok(found) => found,
            Err(why) => {
                let interface = Box::new(function.interface);
                let problem = PipelineProblem::NotStored { interface, why };
                self.report(&spec.place, name, problem);
                return None;
            }
        };
        let arguments = Shape::Record(signature.params.clone());
        let TemplateKind::Path(path) = &spec.key.kind else {
            return None;
        };
        let of_event = Roots {
            input: &arguments,
            steps: &[],
            error: None,
            scope: &Scope::default(),
        };
        let (key, shape) = match of_event.member(path, Shape::is_key) {
            Ok(found) => found,
            Err(problem) => return self.refuse(step, "wait-for.key", &spec.key, problem),
        };
        let equals = self.fill(name, "wait-for.equals", &spec.equals, &shape, None)?;
        self.passes(spec.timeout).then(|| WaitFor {
            function,
            subject: publication.subject().to_owned(),
            signature,
            stream,
            key,
            equals,
            timeout: millis(spec.timeout),
        })
    }
}
