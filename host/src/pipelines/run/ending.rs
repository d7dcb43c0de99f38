//! What the callers of a run get at its end.

use bytes::Bytes;
use serde_json::value::RawValue;

use super::{Cause, Phase, Run, Slot, StepFailure, StepRun, StepState};
use crate::call::{Blame, CallError, Code};
use crate::plan::JsonText;
use crate::shape::Shape;

impl Run {
    /// The reply to the run's callers, once it has ended.
    ///
    /// # Errors
    ///
    /// The error of a run that failed otherwise than with the pipeline's own `err`.
    pub(crate) fn reply(&self) -> Result<Bytes, CallError> {
        let failed =
            |code, why: String| Err(CallError::new(code, Blame::Guest, why).of_run(&self.id));
        let may_fail = matches!(self.pipeline.signature.result, Some(Shape::Result { .. }));
        if self.phase == Phase::Completed {
            let value = match &self.pipeline.result {
                Some(filled) => match self.fill(filled, Slot::of(self.steps.len()), None) {
                    Some(value) => Some(value),
                    None => {
                        return failed(
                            Code::Dependency,
                            "the journal of the run does not fit its pipeline".to_owned(),
                        );
                    }
                },
                None => None,
            };
            let text = value.as_ref().map_or("null", |value| value.get());
            return Ok(match (&self.pipeline.signature.result, may_fail) {
                (None, _) => Bytes::new(),
                (_, true) => format!("{{\"ok\":{text}}}").into(),
                (_, false) => text.to_owned().into(),
            });
        }
        if self.phase == Phase::Stopped {
            // It may still be completed.
            return Err(CallError::goes_on(&self.id));
        }
        if self.phase == Phase::RolledBack
            && let Some(value) = self.own_error()
        {
            return Ok(format!("{{\"err\":{}}}", value.get()).into());
        }
        let code = match &self.cause {
            Some(Cause::Deadline) => Code::Deadline,
            Some(Cause::Step(slot)) if self.is_late(*slot) => Code::Deadline,
            Some(Cause::Cancelled) => Code::Unavailable,
            Some(Cause::TooLarge) => Code::TooLarge,
            Some(Cause::Function(error)) if self.phase == Phase::RolledBack => {
                Code::from_status(error.code).unwrap_or(Code::Dependency)
            }
            _ => Code::Dependency,
        };
        let end = match (self.phase, self.undone()) {
            (Phase::UndoFailed, _) => format!("{}; the run is kept", self.why_not_undone()),
            (_, true) => "what was done is undone".to_owned(),
            (_, false) => "nothing had to be undone".to_owned(),
        };
        failed(code, format!("{}; {end}", self.why()))
    }

    /// Whether a step waited for an event that did not come.
    fn is_late(&self, slot: Slot) -> bool {
        let failure = self.entry(slot).and_then(|run| run.tried.failure.as_ref());
        matches!(failure, Some(StepFailure::Late(_)))
    }

    fn undone(&self) -> bool {
        let mut calls = self.steps.iter().flat_map(StepRun::calls);
        calls.any(|call| call.state == StepState::Undone)
    }

    /// The pipeline's own `err` value, if that is why the run failed.
    fn own_error(&self) -> Option<JsonText> {
        if let Some(Cause::Returned(value)) = &self.cause {
            return Some(value.clone());
        }
        let Some(Cause::Step(slot)) = self.cause else {
            return None;
        };
        let error = &self.pipeline.steps.get(slot.step)?.error;
        let value = match &self.entry(slot)?.tried.failure {
            Some(StepFailure::Err(value)) => value,
            Some(StepFailure::Late(_)) => return self.fill(error.as_ref()?, slot, None),
            Some(StepFailure::Call(_)) | None => return None,
        };
        match (&self.pipeline.signature.result, error) {
            (Some(Shape::Result { err: Some(_), .. }), Some(error)) => {
                self.fill(error, slot, Some(value))
            }
            (Some(Shape::Result { err: None, .. }), _) => Some(RawValue::NULL.to_owned()),
            _ => None,
        }
    }

    /// Why it failed, for people.
    #[must_use]
    pub fn why(&self) -> String {
        match &self.cause {
            None => "it has not failed".to_owned(),
            Some(Cause::Step(slot)) => {
                let failure = self.entry(*slot).and_then(|run| run.tried.failure.as_ref());
                let why = failure.map(StepFailure::to_string).unwrap_or_default();
                format!("step \"{}\": {why}", self.slot_name(*slot))
            }
            Some(Cause::Items(index, items)) => {
                let step = self.pipeline.steps.get(*index);
                let most = step
                    .and_then(|step| step.each.as_ref())
                    .map(|each| each.at_most);
                format!(
                    "step \"{}\": its list has {items} items, {} are allowed",
                    self.slot_name(Slot::of(*index)),
                    most.unwrap_or_default()
                )
            }
            Some(Cause::Deadline) => {
                let deadline = std::time::Duration::from_millis(self.pipeline.deadline);
                format!("its steps were not done within {deadline:?}")
            }
            Some(Cause::Cancelled) => "it was cancelled".to_owned(),
            Some(Cause::TooLarge) => {
                format!(
                    "its journal would have more than {} bytes",
                    self.pipeline.journal
                )
            }
            Some(Cause::Returned(value)) => format!("it returned err: {}", value.get()),
            Some(Cause::Function(error)) => format!("{} (code {})", error.message, error.code),
            Some(Cause::Diverged(why)) => why.clone(),
            Some(Cause::Unreadable) => "its journal does not fit its pipeline".to_owned(),
        }
    }

    /// Which step could not be undone, and why, for people.
    #[must_use]
    pub fn why_not_undone(&self) -> String {
        let failed = self.not_undone().and_then(|slot| {
            let failure = self.entry(slot)?.undo.failure.as_ref()?;
            let name = self.slot_name(slot);
            Some(format!("step \"{name}\" could not be undone: {failure}"))
        });
        failed.unwrap_or_default()
    }
}
