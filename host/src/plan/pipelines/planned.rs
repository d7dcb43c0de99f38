//! What a run needs of a pipeline, and keeps.

use serde::{Deserialize, Serialize};

use super::{Condition, Durable, Filled, Secret, Token, WaitFor};
use crate::interface::FunctionId;
use crate::manifest::OnError;
use crate::plan::Publication;
use crate::shape::Signature;

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
    /// What is stored and never shown.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secret: Vec<Secret>,
    /// What is not shown of the result of a durable function.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secret_result: Vec<Vec<Token>>,
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
        match &self.act {
            Act::Call(call) => Some(call),
            Act::Sleep(_) | Act::Wait(_) => None,
        }
    }

    /// The event that it waits for.
    #[must_use]
    pub const fn wait(&self) -> Option<&WaitFor> {
        match &self.act {
            Act::Wait(wait) => Some(wait),
            Act::Call(_) | Act::Sleep(_) => None,
        }
    }
}

/// What a step is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum Act {
    /// A call, or an event that is published.
    Call(StepCall),
    /// So many milliseconds that pass.
    Sleep(u64),
    /// An event that has to come.
    Wait(WaitFor),
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
    /// What is shown in the place of the arguments, where they have secret values that are known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shown: Option<Filled>,
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
