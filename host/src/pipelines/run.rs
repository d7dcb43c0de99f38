//! A run of a pipeline: what is known of it, and what comes next. Pure: times are given, and nothing is
//! called or stored here.
//!
//! A run is stored as a whole after each attempt, so it has one entry for each step and not one for each
//! attempt. It keeps the pipeline that it began with.
//!
//! Steps of a group, and items of a step with `each`, are done at the same time: [`Run::next`] returns one call
//! after the other, each of which is under way until its outcome is recorded.

mod editing;
mod ending;
mod filling;
mod function;
mod masking;
mod slot;
mod state;
mod undoing;
mod waiting;

use std::collections::BTreeSet;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::call::{CallError, Code};
use crate::manifest::OnError;
use crate::plan::{JsonText, Pipeline, StepCall};
use crate::shape::{Shape, Signature};
use crate::wire::ErrorDetail;

pub use editing::Edited;
pub(crate) use editing::Unedited;
pub use function::{Coded, Version};
pub(crate) use function::{Heard, Sequence};
pub use slot::Slot;
pub use state::{Cause, Phase, StepFailure, StepRun, StepState, Tried};
pub use waiting::Asleep;

/// The format of journals. Whatever makes a journal one that an earlier wasmbay would read wrongly, or write without
/// a part of it, is another one.
pub(crate) const FORMAT: u32 = 1;

/// Of journals that name none.
const fn first_format() -> u32 {
    1
}

/// A run. Times are milliseconds since 1970.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Run {
    /// What wrote it, by [`FORMAT`].
    #[serde(default = "first_format")]
    pub(crate) format: u32,
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
    /// Who its call was made for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claims: Option<String>,
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
    /// The calls that are under way, as its owner last wrote it.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub(crate) under_way: BTreeSet<Slot>,
    /// Nobody works on it: it waits to be woken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asleep: Option<Asleep>,
    /// What a run of a durable function has beside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub coded: Option<Coded>,
}

/// What comes next.
#[derive(Clone, Debug)]
pub(crate) enum Action {
    /// This step is called with these arguments.
    Call(Slot, Bytes),
    /// This step is undone with these arguments.
    Undo(Slot, Bytes),
    /// The durable function is run, and calls.
    Execute,
    /// Nothing before a call ends that is under way, or before this time.
    Busy(Option<u64>),
    /// Nothing, until this time.
    Wait(u64),
    /// The run has ended.
    Ended,
}

/// How far a step is.
enum Forward {
    /// This is to be called.
    Call(Slot, Bytes),
    /// It is tried again at this time.
    Wait(u64),
    /// It is under way.
    Busy,
    /// It is done, or skipped.
    Settled,
    /// The run fails.
    Failed(Cause),
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
            format: FORMAT,
            id: id.to_owned(),
            pipeline: pipeline.clone(),
            input,
            began: now,
            ended: None,
            hops: 0,
            trace: None,
            claims: None,
            owner: String::new(),
            writes: 0,
            phase: Phase::Running,
            cancelled: false,
            cause: None,
            steps: pipeline.steps.iter().map(|_| StepRun::default()).collect(),
            under_way: BTreeSet::new(),
            asleep: None,
            coded: None,
        }
    }

    /// Whether nothing comes next until somebody wants it.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        matches!(
            self.phase,
            Phase::Completed | Phase::RolledBack | Phase::UndoFailed | Phase::Stopped
        )
    }

    /// What comes next. What needs no call is done by this: steps are skipped, and phases begin and end. A call that
    /// is returned is under way until its outcome is recorded.
    pub(crate) fn next(&mut self, now: u64) -> Action {
        let action = self.settle(now);
        if let Action::Call(slot, _) | Action::Undo(slot, _) = action {
            self.under_way.insert(slot);
        }
        action
    }

    /// What would come next, without a call that is under way for it.
    pub(crate) fn settle(&mut self, now: u64) -> Action {
        if self.phase == Phase::Running
            && let Some(action) = self.forward(now)
        {
            return action;
        }
        if self.phase != Phase::RollingBack {
            return Action::Ended;
        }
        // What is under way may be done, and is undone once that is known.
        if !self.under_way.is_empty() {
            return Action::Busy(None);
        }
        self.backward(now)
    }

    /// The next step; nothing if another phase began.
    fn forward(&mut self, now: u64) -> Option<Action> {
        if let Some(coded) = &self.coded {
            return self.execute(coded.unsure, now);
        }
        if self.cancelled {
            return self.fail(Cause::Cancelled);
        }
        let deadline = self.began.saturating_add(self.pipeline.deadline);
        while let Some(first) = self.pending() {
            if now >= deadline {
                return self.fail(Cause::Deadline);
            }
            let (mut again, mut settled) = (None, false);
            for index in self.beside(first) {
                match self.step_forward(index, now) {
                    Forward::Call(slot, arguments) => return Some(Action::Call(slot, arguments)),
                    Forward::Wait(until) => {
                        let until = until.min(deadline);
                        again = Some(again.map_or(until, |again: u64| again.min(until)));
                    }
                    Forward::Busy => {}
                    Forward::Settled => settled = true,
                    Forward::Failed(cause) => return self.fail(cause),
                }
            }
            match again {
                _ if settled => {}
                again if !self.under_way.is_empty() => return Some(Action::Busy(again)),
                Some(again) => return Some(Action::Wait(again)),
                None => return self.fail(Cause::Unreadable),
            }
        }
        self.phase = Phase::Completed;
        self.ended = Some(now);
        None
    }

    fn pending(&self) -> Option<usize> {
        let mut steps = self.steps.iter();
        steps.position(|step| step.state == StepState::Pending)
    }

    /// The steps that are done at the same time as this one and are pending, itself included.
    fn beside(&self, first: usize) -> Vec<usize> {
        let group = |index: usize| self.pipeline.steps.get(index)?.group.as_ref();
        let own = group(first);
        let is_beside = |index: &usize| *index == first || own.is_some() && group(*index) == own;
        let beside = (first..self.steps.len()).take_while(is_beside);
        let is_pending = |index: &usize| {
            let step = self.steps.get(*index);
            step.is_some_and(|step| step.state == StepState::Pending)
        };
        beside.filter(is_pending).collect()
    }

    fn step_forward(&mut self, index: usize, now: u64) -> Forward {
        let (Some(step), Some(run)) = (self.pipeline.steps.get(index), self.steps.get(index))
        else {
            return Forward::Failed(Cause::Unreadable);
        };
        let slot = Slot::of(index);
        let is_new = run.items.is_none() && run.tried.failure.is_none();
        if let Some(when) = step.when.as_ref().filter(|_| is_new)
            && !self.under_way.contains(&slot)
        {
            match self.fill(&when.value, slot, None) {
                None => return Forward::Failed(Cause::Unreadable),
                Some(value) if !when.holds(&value) => {
                    return self.settled(index, StepState::Skipped);
                }
                Some(_) => {}
            }
        }
        let Some(each) = &step.each else {
            return self.slot_forward(slot, now);
        };
        let (most, at_once) = (each.at_most as usize, each.at_once as usize);
        match self.open_items(index) {
            None => return Forward::Failed(Cause::Unreadable),
            Some(items) if items > most => return Forward::Failed(Cause::Items(index, items)),
            Some(_) => {}
        }
        let pending = self.pending_items(index, at_once);
        if pending.is_empty() {
            return self.settled(index, StepState::Done);
        }
        let mut again = None;
        for slot in pending {
            match self.slot_forward(slot, now) {
                Forward::Busy | Forward::Settled => {}
                Forward::Wait(until) => {
                    again = Some(again.map_or(until, |again: u64| again.min(until)));
                }
                other => return other,
            }
        }
        again.map_or(Forward::Busy, Forward::Wait)
    }

    fn settled(&mut self, index: usize, state: StepState) -> Forward {
        if let Some(step) = self.steps.get_mut(index) {
            step.state = state;
        }
        Forward::Settled
    }

    /// What comes next of one call.
    fn slot_forward(&mut self, slot: Slot, now: u64) -> Forward {
        if let Some(waits) = self.wait_forward(slot, now) {
            return waits;
        }
        if self.under_way.contains(&slot) {
            return Forward::Busy;
        }
        let (Some(step), Some(run)) = (self.pipeline.steps.get(slot.step), self.entry(slot)) else {
            return Forward::Failed(Cause::Unreadable);
        };
        let Some(call) = step.call() else {
            return Forward::Failed(Cause::Unreadable);
        };
        if let Some(failure) = &run.tried.failure {
            if failed_for_good(failure, step.on_error, run.tried.attempts, call) {
                return Forward::Failed(Cause::Step(slot));
            }
            let again = run
                .tried
                .ended
                .saturating_add(call.wait(run.tried.attempts));
            if now < again {
                return Forward::Wait(again);
            }
        }
        match self.arguments(slot, call) {
            Some(arguments) => Forward::Call(slot, body(&arguments)),
            None => Forward::Failed(Cause::Unreadable),
        }
    }

    fn fail<T>(&mut self, cause: Cause) -> Option<T> {
        self.phase = Phase::RollingBack;
        self.cause = Some(cause);
        None
    }

    /// Notes the outcome of an attempt at a step.
    pub(crate) fn record_call(&mut self, slot: Slot, began: u64, ended: u64, outcome: Outcome) {
        self.under_way.remove(&slot);
        let on_error = self.pipeline.steps.get(slot.step).map(|step| step.on_error);
        let Some(run) = self.entry_mut(slot) else {
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

    /// Notes that another owner takes over: what the last one was about to do may have been done.
    pub(crate) fn take_over(&mut self, owner: &str) {
        let mut unknown = std::mem::take(&mut self.under_way);
        if self.phase == Phase::Running {
            match (self.pending(), &mut self.coded) {
                (Some(first), _) => {
                    for index in self.beside(first) {
                        unknown.extend(self.next_slots(index));
                    }
                }
                (None, Some(coded)) => coded.unsure = true,
                (None, None) => {}
            }
        }
        for slot in unknown {
            if let Some(run) = self.entry_mut(slot)
                && run.state == StepState::Pending
            {
                run.unknown = true;
            }
        }
        owner.clone_into(&mut self.owner);
    }

    /// Drops the result of a step that leaves no room in the journal, and fails.
    pub(crate) fn overflow(&mut self, slot: Slot) {
        if let Some(run) = self.entry_mut(slot) {
            run.result = None;
            if let Some(StepFailure::Err(value)) = &mut run.tried.failure {
                *value = RawValue::NULL.to_owned();
            }
        }
        if self.phase == Phase::Running || self.phase == Phase::Completed {
            self.phase = Phase::RollingBack;
            self.ended = None;
            self.cause = Some(Cause::TooLarge);
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

#[cfg(test)]
mod tests;
