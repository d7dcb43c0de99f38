//! A run of a pipeline: what is known of it, and what comes next. Pure: times are given, and nothing is
//! called or stored here.
//!
//! A run is stored as a whole after each attempt, so it has one entry for each step and not one for each
//! attempt. It keeps the pipeline that it began with.

mod ending;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::call::{Blame, CallError, Code};
use crate::manifest::OnError;
use crate::plan::{Filled, JsonText, Pipeline, Sources, StepCall};
use crate::shape::{Shape, Signature};
use crate::wire::ErrorDetail;

/// A run. Times are milliseconds since 1970.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Run {
    /// Its id: 32 hexadecimal digits.
    pub id: String,
    /// The pipeline as it was when the run began.
    pub pipeline: Pipeline,
    /// The pipeline's arguments, as an object by parameter.
    pub input: JsonText,
    /// When it began.
    pub began: u64,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<u64>,
    /// Services that its call passed through.
    #[serde(default)]
    pub hops: u8,
    /// The `traceparent` of its call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<String>,
    /// Who works on it: another one at each take-over.
    #[serde(default)]
    pub owner: String,
    /// How often its owners wrote it.
    #[serde(default)]
    pub writes: u64,
    /// Where it stands.
    pub phase: Phase,
    /// Whether somebody wants it to be undone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cancelled: bool,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cause>,
    /// Its steps, as many as of the pipeline.
    pub steps: Vec<StepRun>,
}

/// Where a run stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Its steps are done one after the other.
    Running,
    /// It has failed, and what was done is undone.
    RollingBack,
    /// It has ended: all steps are done.
    Completed,
    /// It has ended: it failed, and what was done is undone.
    RolledBack,
    /// It has ended for now: a step could not be undone, and a person has to look at it.
    UndoFailed,
}

/// One step of a run.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct StepRun {
    /// How it stands.
    #[serde(default)]
    pub state: StepState,
    /// Its attempts.
    #[serde(default, skip_serializing_if = "Tried::is_none")]
    pub tried: Tried,
    /// An attempt at it has an outcome that nobody knows.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unknown: bool,
    /// The value of its result, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<JsonText>,
    /// Attempts to undo it.
    #[serde(default, skip_serializing_if = "Tried::is_none")]
    pub undo: Tried,
}

/// How a step stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StepState {
    /// Not done.
    #[default]
    Pending,
    /// Its condition does not hold.
    Skipped,
    /// Done.
    Done,
    /// It returned an `err` value, and the run went on.
    Declined,
    /// Undone.
    Undone,
}

/// Attempts at one call.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Tried {
    /// How many.
    #[serde(default)]
    pub attempts: u32,
    /// When the first began.
    #[serde(default)]
    pub first: u64,
    /// When the last began.
    #[serde(default)]
    pub last: u64,
    /// When the last ended.
    #[serde(default)]
    pub ended: u64,
    /// How the last failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<StepFailure>,
}

impl Tried {
    fn is_none(&self) -> bool {
        self.attempts == 0
    }

    fn record(&mut self, began: u64, ended: u64, failure: Option<StepFailure>) {
        if self.attempts == 0 {
            self.first = began;
        }
        self.attempts = self.attempts.saturating_add(1);
        (self.last, self.ended, self.failure) = (began, ended, failure);
    }
}

/// How an attempt failed.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum StepFailure {
    /// The function returned an `err` value; `null` for one without a payload.
    Err(JsonText),
    /// The call failed.
    Call(ErrorDetail),
}

/// Why a run failed.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Cause {
    /// The step with this index failed for good.
    Step(usize),
    /// Its time was over before all steps were done.
    Deadline,
    /// Somebody cancelled it, or had it undone after its end.
    Cancelled,
    /// Its journal is full.
    TooLarge,
    /// Its journal does not fit its pipeline.
    Unreadable,
}

/// What comes next.
#[derive(Clone, Debug)]
pub(crate) enum Action {
    /// This step is called with these arguments.
    Call(usize, Bytes),
    /// This step is undone with these arguments.
    Undo(usize, Bytes),
    /// Nothing, until this time.
    Wait(u64),
    /// The run has ended.
    Ended,
}

/// The outcome of a call.
pub(crate) enum Outcome {
    /// It returned; the value, if there is one.
    Ok(Option<JsonText>),
    /// It returned an `err` value.
    Err(JsonText),
    /// It failed.
    Failed(CallError),
}

impl Outcome {
    /// Reads the body of a reply, as this host writes it.
    pub(crate) fn read(signature: &Signature, body: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        enum Sides<'a> {
            #[serde(rename = "ok", borrow)]
            Ok(&'a RawValue),
            #[serde(rename = "err", borrow)]
            Err(&'a RawValue),
        }
        Some(match &signature.result {
            None => Self::Ok(None),
            Some(Shape::Result { ok, .. }) => match serde_json::from_slice(body).ok()? {
                Sides::Ok(value) => Self::Ok(ok.as_ref().map(|_| value.to_owned())),
                Sides::Err(value) => Self::Err(value.to_owned()),
            },
            Some(_) => Self::Ok(Some(serde_json::from_slice(body).ok()?)),
        })
    }
}

/// Whether it is not known if a failed call was carried out.
fn is_unknown(error: &CallError) -> bool {
    let refused = matches!(
        error.code,
        Code::BadArguments | Code::NotFound | Code::TooLarge | Code::Overloaded | Code::TooManyHops
    );
    !refused && !error.undelivered
}

/// Whether a call that failed in this way fails in every way.
fn is_hopeless(error: &ErrorDetail) -> bool {
    let code = Code::from_status(error.code);
    matches!(
        code,
        Some(Code::BadArguments | Code::NotFound | Code::TooLarge | Code::TooManyHops)
    )
}

impl Run {
    /// A run that begins.
    pub(crate) fn new(id: &str, pipeline: &Pipeline, input: JsonText, now: u64) -> Self {
        Self {
            id: id.to_owned(),
            pipeline: pipeline.clone(),
            input,
            began: now,
            ended: None,
            hops: 0,
            trace: None,
            owner: String::new(),
            writes: 0,
            phase: Phase::Running,
            cancelled: false,
            cause: None,
            steps: pipeline.steps.iter().map(|_| StepRun::default()).collect(),
        }
    }

    /// The id of a step for those that it calls: the same for each attempt.
    pub(crate) fn step_id(&self, step: usize, undo: bool) -> String {
        let name = self.pipeline.steps.get(step).map_or("", |step| &*step.name);
        let end = if undo { ".undo" } else { "" };
        format!("{}.{name}{end}", self.id)
    }

    /// Whether nothing comes next until somebody wants it.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        matches!(
            self.phase,
            Phase::Completed | Phase::RolledBack | Phase::UndoFailed
        )
    }

    /// The arguments of a step or its undo; nothing where a result that they need is not there.
    #[must_use]
    pub fn arguments(&self, step: usize, call: &StepCall) -> Option<JsonText> {
        let error = self
            .steps
            .get(step)
            .and_then(|step| step.tried.failure.as_ref());
        let error = error.and_then(|failure| match failure {
            StepFailure::Err(value) => Some(&**value),
            StepFailure::Call(_) => None,
        });
        self.fill(&call.with, error)
    }

    fn fill(&self, filled: &Filled, error: Option<&RawValue>) -> Option<JsonText> {
        let steps: Vec<_> = self
            .steps
            .iter()
            .map(|step| step.result.as_deref())
            .collect();
        filled.json(&Sources {
            input: &self.input,
            steps: &steps,
            error,
        })
    }

    /// What comes next. What needs no call is done by this: steps are skipped, and phases begin and end.
    pub(crate) fn next(&mut self, now: u64) -> Action {
        if self.phase == Phase::Running
            && let Some(action) = self.forward(now)
        {
            return action;
        }
        if self.phase == Phase::RollingBack {
            return self.backward(now);
        }
        Action::Ended
    }

    /// The next step; nothing if another phase began.
    fn forward(&mut self, now: u64) -> Option<Action> {
        if self.cancelled {
            return self.fail(Cause::Cancelled);
        }
        let deadline = self.began.saturating_add(self.pipeline.deadline);
        while let Some(index) = self.pending() {
            if now >= deadline {
                return self.fail(Cause::Deadline);
            }
            let (Some(step), Some(run)) = (self.pipeline.steps.get(index), self.steps.get(index))
            else {
                return self.fail(Cause::Unreadable);
            };
            if let Some(failure) = &run.tried.failure {
                let again = now
                    >= run
                        .tried
                        .ended
                        .saturating_add(step.call.wait(run.tried.attempts));
                if failed_for_good(failure, step.on_error, run.tried.attempts, &step.call) {
                    return self.fail(Cause::Step(index));
                }
                if !again {
                    let until = run
                        .tried
                        .ended
                        .saturating_add(step.call.wait(run.tried.attempts));
                    return Some(Action::Wait(until.min(deadline)));
                }
            } else if let Some(when) = &step.when {
                match self.fill(when, None) {
                    None => return self.fail(Cause::Unreadable),
                    Some(value)
                        if matches!(value.get(), "false" | "null" | "{\"tag\":\"none\"}") =>
                    {
                        self.settle(index, StepState::Skipped);
                        continue;
                    }
                    Some(_) => {}
                }
            }
            let arguments = self.arguments(index, &step.call);
            return match arguments {
                Some(arguments) => Some(Action::Call(index, body(&arguments))),
                None => self.fail(Cause::Unreadable),
            };
        }
        self.phase = Phase::Completed;
        self.ended = Some(now);
        None
    }

    fn pending(&self) -> Option<usize> {
        let mut steps = self.steps.iter();
        steps.position(|step| step.state == StepState::Pending)
    }

    fn settle(&mut self, index: usize, state: StepState) {
        if let Some(step) = self.steps.get_mut(index) {
            step.state = state;
        }
    }

    fn fail<T>(&mut self, cause: Cause) -> Option<T> {
        self.phase = Phase::RollingBack;
        self.cause = Some(cause);
        None
    }

    /// The next step that is to be undone: what was done, and what may have been, the last first.
    fn backward(&mut self, now: u64) -> Action {
        loop {
            let found = self
                .steps
                .iter()
                .enumerate()
                .rev()
                .find_map(|(index, run)| {
                    let undo = self.pipeline.steps.get(index)?.undo.as_ref()?;
                    let to_undo = match run.state {
                        StepState::Done => true,
                        StepState::Pending | StepState::Declined => run.unknown,
                        StepState::Skipped | StepState::Undone => false,
                    };
                    to_undo.then_some((index, undo))
                });
            let Some((index, undo)) = found else {
                self.phase = Phase::RolledBack;
                self.ended = Some(now);
                return Action::Ended;
            };
            let Some(run) = self.steps.get(index) else {
                return Action::Ended;
            };
            if run.undo.failure.is_some() {
                if run.undo.attempts >= undo.attempts {
                    return self.give_up(now);
                }
                let again = run.undo.ended.saturating_add(undo.wait(run.undo.attempts));
                if now < again {
                    return Action::Wait(again);
                }
            }
            if let Some(arguments) = self.arguments(index, undo) {
                return Action::Undo(index, body(&arguments));
            }
            // It needs the result of a step that has none. A service that said `err` to the last attempt
            // has said of all of them that they did nothing; else only a person can find out.
            if let Some(StepFailure::Err(_)) = run.tried.failure {
                if let Some(run) = self.steps.get_mut(index) {
                    run.unknown = false;
                }
                continue;
            }
            let message = "its arguments need the result of the step, which nobody knows";
            let failure = ErrorDetail {
                code: Code::Dependency.status(),
                message: message.to_owned(),
                blame: Blame::Guest,
                run: None,
            };
            if let Some(run) = self.steps.get_mut(index) {
                run.undo.record(now, now, Some(StepFailure::Call(failure)));
            }
            return self.give_up(now);
        }
    }

    fn give_up(&mut self, now: u64) -> Action {
        self.phase = Phase::UndoFailed;
        self.ended = Some(now);
        Action::Ended
    }

    /// Notes the outcome of an attempt at a step.
    pub(crate) fn record_call(&mut self, index: usize, began: u64, ended: u64, outcome: Outcome) {
        let on_error = self.pipeline.steps.get(index).map(|step| step.on_error);
        let Some(run) = self.steps.get_mut(index) else {
            return;
        };
        let failure = match outcome {
            Outcome::Ok(result) => {
                (run.state, run.result, run.unknown) = (StepState::Done, result, false);
                None
            }
            Outcome::Err(value) => {
                if on_error == Some(OnError::Continue) {
                    run.state = StepState::Declined;
                }
                Some(StepFailure::Err(value))
            }
            Outcome::Failed(error) => {
                run.unknown |= is_unknown(&error);
                Some(StepFailure::Call(detail(&error)))
            }
        };
        run.tried.record(began, ended, failure);
    }

    /// Notes the outcome of an attempt to undo a step.
    pub(crate) fn record_undo(&mut self, index: usize, began: u64, ended: u64, outcome: Outcome) {
        let Some(run) = self.steps.get_mut(index) else {
            return;
        };
        let failure = match outcome {
            Outcome::Ok(_) => {
                run.state = StepState::Undone;
                None
            }
            Outcome::Err(value) => Some(StepFailure::Err(value)),
            Outcome::Failed(error) => Some(StepFailure::Call(detail(&error))),
        };
        run.undo.record(began, ended, failure);
    }

    /// Notes that another owner takes over: what the last one was about to do may have been done.
    pub(crate) fn take_over(&mut self, owner: &str) {
        if self.phase == Phase::Running
            && let Some(index) = self.pending()
            && let Some(step) = self.steps.get_mut(index)
        {
            step.unknown = true;
        }
        owner.clone_into(&mut self.owner);
    }

    /// Drops the result of a step that leaves no room in the journal, and fails.
    pub(crate) fn overflow(&mut self, index: usize) {
        if let Some(step) = self.steps.get_mut(index) {
            step.result = None;
            if let Some(StepFailure::Err(value)) = &mut step.tried.failure {
                *value = RawValue::NULL.to_owned();
            }
        }
        if self.phase == Phase::Running || self.phase == Phase::Completed {
            self.phase = Phase::RollingBack;
            self.ended = None;
            self.cause = Some(Cause::TooLarge);
        }
    }

    /// Has what was done undone once more, each step with all of its attempts.
    pub(crate) fn reopen(&mut self) {
        self.phase = Phase::RollingBack;
        self.ended = None;
        self.cause.get_or_insert(Cause::Cancelled);
        for step in &mut self.steps {
            if step.undo.failure.is_some() {
                step.undo = Tried::default();
            }
        }
    }
}

/// Whether a step is not tried again.
fn failed_for_good(
    failure: &StepFailure,
    on_error: OnError,
    attempts: u32,
    call: &StepCall,
) -> bool {
    match failure {
        StepFailure::Err(_) if on_error == OnError::Fail => true,
        StepFailure::Call(error) if is_hopeless(error) => true,
        _ => attempts >= call.attempts,
    }
}

fn detail(error: &CallError) -> ErrorDetail {
    ErrorDetail {
        code: error.code.status(),
        message: error.message.clone(),
        blame: error.blame,
        run: None,
    }
}

fn body(arguments: &RawValue) -> Bytes {
    arguments.get().to_owned().into()
}

impl std::fmt::Display for StepFailure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Err(value) => write!(f, "it returned err: {}", value.get()),
            Self::Call(error) => write!(f, "{} (code {})", error.message, error.code),
        }
    }
}

#[cfg(test)]
mod tests;
