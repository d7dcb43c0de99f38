//! How a run and its steps stand, as it is stored.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Slot;
use crate::manifest::duration_text;
use crate::plan::JsonText;
use crate::wire::ErrorDetail;

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
    /// It has ended for now: the durable function took another way than before, and a person has to decide.
    Stopped,
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
    /// The arguments of its undo, in the place of those that its pipeline says: a person has edited them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undo_with: Option<JsonText>,
    /// Whether a person has edited its result or the arguments of its undo.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub edited: bool,
    /// Attempts to undo it.
    #[serde(default, skip_serializing_if = "Tried::is_none")]
    pub undo: Tried,
    /// When it is over, if it waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<u64>,
    /// The sequence of the event that it waited for, in the stream of its wire.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<u64>,
    /// Of a step with `each` that has begun: one for each item, which has the attempts and the result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub items: Option<Vec<StepRun>>,
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
    /// Its call failed, and the durable function went on.
    Failed,
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

    pub(super) fn record(&mut self, began: u64, ended: u64, failure: Option<StepFailure>) {
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
    /// The event did not come within so many milliseconds.
    Late(u64),
}

/// Why a run failed.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Cause {
    /// This step failed for good.
    Step(Slot),
    /// The list of the step with this index has so many items, more than it may.
    Items(usize, usize),
    /// Its time was over before all steps were done.
    Deadline,
    /// Somebody cancelled it, or had it undone after its end.
    Cancelled,
    /// Its journal is full.
    TooLarge,
    /// Its journal does not fit its pipeline.
    Unreadable,
    /// The durable function returned this `err` value; `null` for one without a payload.
    Returned(JsonText),
    /// The durable function failed.
    Function(ErrorDetail),
    /// The durable function took another way than before.
    Diverged(String),
}

impl std::fmt::Display for StepFailure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Err(value) => write!(f, "it returned err: {}", value.get()),
            Self::Call(error) => write!(f, "{} (code {})", error.message, error.code),
            Self::Late(millis) => {
                let within = duration_text(Duration::from_millis(*millis));
                write!(f, "no event came within {within}")
            }
        }
    }
}
