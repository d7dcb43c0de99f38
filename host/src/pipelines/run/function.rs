//! Runs of durable functions: what such a function calls becomes a step, and what it called before is
//! answered from the steps. Pure.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{
    Action, Cause, Outcome, Phase, Run, StepFailure, StepRun, StepState, detail, failed_for_good,
};
use crate::call::{CallError, Code};
use crate::interfaces::recorded::SEED;
use crate::manifest::OnError;
use crate::plan::provided::FETCH;
use crate::plan::{Act, Filled, Import, JsonText, Root, Secret, Step, StepCall, mask};
use crate::shape::{Shape, Signature};
use crate::text::hex;
use crate::wire::ErrorDetail;

/// What the run of a durable function has beside its steps.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Coded {
    /// From which what is random for the function comes: 64 hexadecimal digits.
    pub seed: String,
    /// What made its steps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<Version>,
    /// An owner died, and may have made a call that is no step yet.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unsure: bool,
}

/// A component with its configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Version {
    /// The digest of the component.
    pub component: String,
    /// A digest of `config` and `env`.
    pub settings: String,
}

impl Coded {
    /// Of a run that begins, with this seed.
    pub(crate) fn new(seed: &[u8; SEED]) -> Self {
        Self {
            seed: hex(seed),
            version: None,
            unsure: false,
        }
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let short = self.component.get(..12).unwrap_or(&self.component);
        let settings = self.settings.get(..8).unwrap_or(&self.settings);
        write!(f, "component {short} (configuration {settings})")
    }
}

/// What the order of a function's calls is of: those of one sequence come in the same order each time that it is
/// run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sequence {
    Calls,
    Fetches,
}

impl Sequence {
    /// Of the function with this name.
    pub(crate) fn of(function: &str) -> Self {
        if function == FETCH {
            Self::Fetches
        } else {
            Self::Calls
        }
    }
}

/// What a durable function hears when it calls.
#[derive(Debug)]
pub(crate) enum Heard {
    /// What it heard before, and when.
    Before(Result<Bytes, CallError>, u64),
    /// The outcome of the step with this index, which has to be called. It is new if `true`.
    Next(usize, bool),
    /// Nothing: the run does not go on with it.
    Over,
}

impl Run {
    /// What comes next in the run of a durable function that has not failed.
    pub(super) fn execute(&mut self, unsure: bool, now: u64) -> Option<Action> {
        // Only the function knows what it may have called.
        if !unsure {
            self.is_over(now)?;
        }
        Some(Action::Execute)
    }

    /// Nothing if the run fails now, because somebody wants it or its time is over.
    fn is_over(&mut self, now: u64) -> Option<()> {
        if self.cancelled {
            return self.fail(Cause::Cancelled);
        }
        if now >= self.began.saturating_add(self.pipeline.deadline) {
            return self.fail(Cause::Deadline);
        }
        Some(())
    }

    /// The index of the step that is the call with this number of a sequence, from 0, or will be.
    pub(crate) fn index_of(&self, sequence: Sequence, number: usize) -> usize {
        let steps = self.pipeline.steps.iter().enumerate();
        let own = steps.filter(|(_, step)| {
            let called = step.call().map(|call| call.function.to_string());
            called.is_some_and(|called| Sequence::of(&called) == sequence)
        });
        let mut own = own.map(|(index, _)| index).skip(number);
        own.next().unwrap_or(self.steps.len())
    }

    /// The function makes the call that is the step with this index, or a new one.
    pub(crate) fn ask(
        &mut self,
        index: usize,
        import: &Import,
        arguments: JsonText,
        version: &Version,
        now: u64,
    ) -> Heard {
        let with = Filled::constant(arguments);
        let (Some(step), Some(run)) = (self.pipeline.steps.get(index), self.steps.get(index))
        else {
            return self.append(index, import, with, version, now);
        };
        let Some(call) = step.call() else {
            return self.fail(Cause::Unreadable).unwrap_or(Heard::Over);
        };
        let (called, function) = (&call.function, &import.call.function);
        if called != function {
            return self.stop(
                format!("call {} is of {function}, and was of {called}", index + 1),
                version,
                now,
            );
        }
        if call.with != with {
            return self.stop(
                format!(
                    "call {}, of {function}, has other arguments than before",
                    index + 1
                ),
                version,
                now,
            );
        }
        match run.heard(&call.signature) {
            Some(heard) => Heard::Before(heard, run.tried.ended),
            None if self.is_over(now).is_none() => Heard::Over,
            None => Heard::Next(index, false),
        }
    }

    /// A call that was not made before, as far as the journal knows.
    fn append(
        &mut self,
        index: usize,
        import: &Import,
        with: Filled,
        version: &Version,
        now: u64,
    ) -> Heard {
        let unsure = self.coded.as_ref().is_some_and(|coded| coded.unsure);
        if !unsure && self.is_over(now).is_none() {
            return Heard::Over;
        }
        let secrets = &import.secrets;
        let shown = match &with {
            Filled::Json(arguments) if !secrets.arguments.is_empty() => {
                let paths = secrets.arguments.iter();
                let own = arguments.text().to_owned();
                Some(paths.fold(own, |masked, path| mask(&masked, path)))
            }
            _ => None,
        };
        let undo = import.undo.as_ref().map(|undo| {
            let Filled::Json(arguments) = &with else {
                return None;
            };
            let with = undo.with.of_call(arguments.text(), index)?;
            let shown = shown.as_ref();
            let shown = shown.and_then(|shown| undo.with.of_call(shown, index));
            Some(StepCall {
                with,
                shown,
                ..undo.clone()
            })
        });
        let undo = match undo {
            Some(None) => return self.fail(Cause::Unreadable).unwrap_or(Heard::Over),
            undo => undo.flatten(),
        };
        self.pipeline.steps.push(Step {
            name: format!("{}-{}", index + 1, import.call.function.name),
            act: Act::Call(StepCall {
                with,
                shown: shown.map(Filled::constant),
                ..import.call.clone()
            }),
            when: None,
            group: None,
            each: None,
            // The function sees it.
            on_error: OnError::Continue,
            error: None,
            undo,
        });
        self.steps.push(StepRun {
            unknown: unsure,
            ..StepRun::default()
        });
        let results = secrets.result.iter().cloned();
        let results = results.map(|path| Secret::of_step(index, path));
        self.pipeline.secret.extend(results);
        if let Some(coded) = &mut self.coded {
            coded.unsure = false;
            coded.version = Some(version.clone());
        }
        match self.is_over(now) {
            Some(()) => Heard::Next(index, true),
            None => Heard::Over,
        }
    }

    /// Takes back a step that was not called: the journal has no room for it.
    pub(crate) fn refuse(&mut self, index: usize) {
        self.pipeline.steps.truncate(index);
        let is_kept = |secret: &Secret| secret.of != Root::Step(index);
        self.pipeline.secret.retain(is_kept);
        self.steps.truncate(index);
        self.fail::<()>(Cause::TooLarge);
    }

    /// What the function hears of a step after an attempt, or when it is tried again.
    pub(crate) fn settle_call(&mut self, index: usize) -> Result<Result<Bytes, CallError>, u64> {
        let (Some(step), Some(run)) = (self.pipeline.steps.get(index), self.steps.get_mut(index))
        else {
            return Ok(Err(CallError::defect("a step is lost")));
        };
        let Some(call) = step.call() else {
            return Ok(Err(CallError::defect("a step calls nothing")));
        };
        let tried = &run.tried;
        if run.state == StepState::Pending
            && let Some(failure) = &tried.failure
        {
            if !failed_for_good(failure, step.on_error, tried.attempts, call) {
                return Err(tried.ended.saturating_add(call.wait(tried.attempts)));
            }
            run.state = StepState::Failed;
        }
        let heard = run.heard(&call.signature);
        Ok(heard.unwrap_or_else(|| Err(CallError::defect("a step has no outcome"))))
    }

    /// Steps that the function asks for each time that it is run. A request that it dropped before it had the answer
    /// may be one or not.
    pub(crate) fn asked_each_time(&self) -> usize {
        let steps = self.pipeline.steps.iter();
        let of = |step: &Step| {
            step.call()
                .map(|call| Sequence::of(&call.function.to_string()))
        };
        steps
            .filter(|step| of(step) != Some(Sequence::Fetches))
            .count()
    }

    /// The function has ended, after so many calls beside its requests.
    pub(crate) fn returned(&mut self, calls: usize, outcome: Outcome, version: &Version, now: u64) {
        if calls < self.asked_each_time() {
            let how = match outcome {
                Outcome::Failed(error) => error.message,
                Outcome::Ok(_) | Outcome::Err(_) => "it returned".to_owned(),
            };
            let all = self.asked_each_time();
            self.stop(
                format!("after call {calls} of {all} {how}, where it went on before"),
                version,
                now,
            );
            return;
        }
        if let Some(coded) = &mut self.coded {
            coded.unsure = false;
            coded.version = Some(version.clone());
        }
        if self.cancelled {
            self.fail::<()>(Cause::Cancelled);
            return;
        }
        let cause = match outcome {
            Outcome::Ok(value) => {
                self.pipeline.result = value.map(Filled::constant);
                self.phase = Phase::Completed;
                self.ended = Some(now);
                return;
            }
            Outcome::Err(value) => Cause::Returned(value),
            Outcome::Failed(error) if error.code == Code::Deadline => Cause::Deadline,
            Outcome::Failed(error) => Cause::Function(detail(&error)),
        };
        self.fail::<()>(cause);
    }

    /// Drops a result that leaves no room in the journal, and fails.
    pub(crate) fn overflow_result(&mut self) {
        self.pipeline.result = None;
        if let Some(Cause::Returned(value)) = &mut self.cause {
            *value = serde_json::value::RawValue::NULL.to_owned();
        }
        (self.phase, self.ended) = (Phase::RollingBack, None);
        self.cause = Some(Cause::TooLarge);
    }

    fn stop(&mut self, why: String, version: &Version, now: u64) -> Heard {
        let before = self.coded.as_ref().and_then(|coded| coded.version.as_ref());
        let versions = match before {
            Some(before) if before != version => {
                format!("it was begun by {before} and is run by {version}")
            }
            _ => format!("{version} is the same: something else than its calls leads its way"),
        };
        self.phase = Phase::Stopped;
        self.ended = Some(now);
        self.cause = Some(Cause::Diverged(format!("{why}; {versions}")));
        Heard::Over
    }

    /// Has a stopped run go on, perhaps with the version that began it.
    pub(crate) fn resume(&mut self) {
        self.phase = Phase::Running;
        (self.ended, self.cause) = (None, None);
    }
}

impl StepRun {
    /// What the function heard of it, once that is known.
    fn heard(&self, signature: &Signature) -> Option<Result<Bytes, CallError>> {
        let text = |value: Option<&JsonText>| value.map_or("null", |value| value.get()).to_owned();
        match (&self.state, &self.tried.failure) {
            // Of an event nobody reads it.
            (StepState::Done, _) => Some(Ok(match &signature.result {
                None => Bytes::new(),
                Some(Shape::Result { .. }) => {
                    format!("{{\"ok\":{}}}", text(self.result.as_ref())).into()
                }
                Some(_) => text(self.result.as_ref()).into(),
            })),
            (StepState::Declined, Some(StepFailure::Err(value))) => {
                Some(Ok(format!("{{\"err\":{}}}", value.get()).into()))
            }
            (StepState::Failed, Some(StepFailure::Call(detail))) => Some(Err(error(detail))),
            _ => None,
        }
    }
}

fn error(detail: &ErrorDetail) -> CallError {
    let code = Code::from_status(detail.code).unwrap_or(Code::Dependency);
    CallError::new(code, detail.blame, detail.message.clone())
}

#[cfg(test)]
mod tests;
