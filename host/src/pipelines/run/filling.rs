//! The values that a run is filled in with: arguments, conditions, results.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::{OnError, Run, Slot, StepFailure, StepState};
use crate::plan::{Filled, JsonText, Root, Sources, Step, StepCall};
use crate::shape::Shape;

impl Run {
    /// The arguments of a call or its undo; nothing where a result that they need is not there.
    #[must_use]
    pub fn arguments(&self, slot: Slot, call: &StepCall) -> Option<JsonText> {
        let failure = self.entry(slot).and_then(|run| run.tried.failure.as_ref());
        let error = failure.and_then(|failure| match failure {
            StepFailure::Err(value) => Some(&**value),
            StepFailure::Call(_) | StepFailure::Late(_) => None,
        });
        self.fill(&call.with, slot, error)
    }

    /// A value of a step, or of an item of one.
    pub(super) fn fill(
        &self,
        filled: &Filled,
        slot: Slot,
        error: Option<&RawValue>,
    ) -> Option<JsonText> {
        let results: Vec<_> = (0..self.steps.len())
            .map(|index| match slot.item {
                _ if !filled.needs(Root::Step(index)) => None,
                // To its own undo it is the result of the item.
                Some(_) if index == slot.step => {
                    let run = self.entry(slot)?;
                    run.result.as_deref().map(Cow::Borrowed)
                }
                _ => self.result_of(index),
            })
            .collect();
        let list = match (slot.item, self.pipeline.steps.get(slot.step)) {
            (
                Some(_),
                Some(Step {
                    each: Some(each), ..
                }),
            ) if filled.needs(Root::Item) => self.fill(&each.list, Slot::of(slot.step), None),
            _ => None,
        };
        let items = list
            .as_ref()
            .and_then(|list| serde_json::from_str::<Vec<&RawValue>>(list.get()).ok());
        let item = items.zip(slot.item);
        let item = item.and_then(|(items, index)| items.get(index).copied());
        let steps: Vec<_> = results.iter().map(Option::as_deref).collect();
        filled.json(&Sources {
            input: &self.input,
            steps: &steps,
            error,
            item,
        })
    }

    /// What a step returned; of one with `each` the list of what its items returned, once all are done.
    pub(crate) fn result_of(&self, index: usize) -> Option<Cow<'_, RawValue>> {
        let run = self.steps.get(index)?;
        let Some(items) = &run.items else {
            return run.result.as_deref().map(Cow::Borrowed);
        };
        if !matches!(run.state, StepState::Done | StepState::Undone) {
            return None;
        }
        let step = self.pipeline.steps.get(index)?;
        let value = match &step.call()?.signature.result {
            Some(Shape::Result { ok, .. }) => ok.as_deref(),
            value => value.as_ref(),
        };
        // An option of an option is written in full.
        let nested = step.on_error == OnError::Continue && matches!(value, Some(Shape::Option(_)));
        let mut text = String::from("[");
        for (index, item) in items.iter().enumerate() {
            if index > 0 {
                text.push(',');
            }
            match &item.result {
                Some(result) if nested => {
                    text.push_str("{\"tag\":\"some\",\"val\":");
                    text.push_str(result.get());
                    text.push('}');
                }
                Some(result) => text.push_str(result.get()),
                None if step.on_error == OnError::Continue => text.push_str("null"),
                None => return None,
            }
        }
        text.push(']');
        RawValue::from_string(text).ok().map(Cow::Owned)
    }
}
