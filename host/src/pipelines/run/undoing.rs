//! A run that has failed: what was done is undone, the last first.

use super::{
    Action, Cause, Outcome, Phase, Run, Slot, StepFailure, StepRun, StepState, Tried, body, detail,
};
use crate::call::{Blame, Code};
use crate::wire::ErrorDetail;

impl Run {
    /// The next step that is to be undone: what was done, and what may have been, the last first.
    pub(super) fn backward(&mut self, now: u64) -> Action {
        loop {
            let Some((slot, undo)) = self.last_done() else {
                self.phase = Phase::RolledBack;
                self.ended = Some(now);
                return Action::Ended;
            };
            let Some(run) = self.entry(slot) else {
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
            let edited = run.undo_with.clone();
            if let Some(arguments) = edited.or_else(|| self.arguments(slot, undo)) {
                return Action::Undo(slot, body(&arguments));
            }
            // It needs the result of a step that has none. A service that said `err` to the last attempt
            // has said of all of them that they did nothing; else only a person can find out.
            if let Some(StepFailure::Err(_)) = run.tried.failure {
                if let Some(run) = self.entry_mut(slot) {
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
            if let Some(run) = self.entry_mut(slot) {
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

    /// Notes the outcome of an attempt to undo a step.
    pub(crate) fn record_undo(&mut self, slot: Slot, began: u64, ended: u64, outcome: Outcome) {
        self.under_way.remove(&slot);
        let Some(run) = self.entry_mut(slot) else {
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
        if let Some(step) = self.steps.get_mut(slot.step)
            && step.items.is_some()
            && !step.calls().any(StepRun::is_to_undo)
        {
            step.state = StepState::Undone;
        }
    }

    /// Has what was done undone once more, each step with all of its attempts.
    pub(crate) fn reopen(&mut self) {
        self.phase = Phase::RollingBack;
        self.ended = None;
        self.cause.get_or_insert(Cause::Cancelled);
        for call in self.steps.iter_mut().flat_map(StepRun::calls_mut) {
            if call.undo.failure.is_some() {
                call.undo = Tried::default();
            }
        }
    }
}
