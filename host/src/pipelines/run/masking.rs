//! A run as it is shown: with nothing of what its pipeline says is secret.

use std::borrow::Cow;
use std::collections::BTreeSet;

use serde_json::Value;
use serde_json::value::RawValue;

use super::{Cause, Run, StepFailure, StepRun};
use crate::plan::{Filled, JsonText, Root, StepCall, mask};

/// Characters from which on a secret text is looked for in messages. Shorter ones stand everywhere.
const LEAST: usize = 4;

impl Run {
    /// The run with a mask in the place of each secret value, and of what was made of it.
    pub(crate) fn masked(&self) -> Cow<'_, Self> {
        let pipeline = &self.pipeline;
        let calls = |run: &Self| {
            let steps = run.pipeline.steps.iter();
            let calls = steps.flat_map(|step| step.call().into_iter().chain(&step.undo));
            calls.cloned().collect::<Vec<StepCall>>()
        };
        let is_shown = calls(self).iter().all(|call| call.shown.is_none());
        if pipeline.secret.is_empty() && pipeline.secret_result.is_empty() && is_shown {
            return Cow::Borrowed(self);
        }
        let mut run = self.clone();
        let mut hidden = BTreeSet::new();
        for secret in &pipeline.secret {
            let Root::Step(index) = secret.of else {
                replace(
                    &mut run.input,
                    |input| mask(input, &secret.path),
                    &mut hidden,
                );
                continue;
            };
            let calls = run.steps.get_mut(index).map(StepRun::calls_mut);
            for result in calls
                .into_iter()
                .flatten()
                .filter_map(|call| call.result.as_mut())
            {
                replace(result, |result| mask(result, &secret.path), &mut hidden);
            }
        }
        for step in &mut run.pipeline.steps {
            step.mask_calls(&mut hidden);
        }
        if let Some(Filled::Json(result)) = &run.pipeline.result {
            let mut result = result.text().to_owned();
            for path in &pipeline.secret_result {
                replace(&mut result, |result| mask(result, path), &mut hidden);
            }
            run.pipeline.result = Some(Filled::constant(result));
        }
        run.mask_edited();
        run.mask_messages(&hidden);
        Cow::Owned(run)
    }

    /// Masks secret texts in what services said of failures.
    fn mask_messages(&mut self, hidden: &BTreeSet<String>) {
        for call in self.steps.iter_mut().flat_map(StepRun::calls_mut) {
            for tried in [&mut call.tried, &mut call.undo] {
                match &mut tried.failure {
                    Some(StepFailure::Err(value)) => mask_value(value, hidden),
                    Some(StepFailure::Call(detail)) => mask_text(&mut detail.message, hidden),
                    Some(StepFailure::Late(_)) | None => {}
                }
            }
        }
        match &mut self.cause {
            Some(Cause::Returned(value)) => mask_value(value, hidden),
            Some(Cause::Function(detail)) => mask_text(&mut detail.message, hidden),
            Some(Cause::Diverged(why)) => mask_text(why, hidden),
            _ => {}
        }
    }
}

impl crate::plan::Step {
    /// Puts what is shown in the place of arguments.
    fn mask_calls(&mut self, hidden: &mut BTreeSet<String>) {
        let call = match &mut self.act {
            crate::plan::Act::Call(call) => Some(call),
            _ => None,
        };
        for call in call.into_iter().chain(&mut self.undo) {
            if let Some(shown) = call.shown.take() {
                if let (Filled::Json(with), Filled::Json(shown)) = (&call.with, &shown) {
                    note(with.text(), shown.text(), hidden);
                }
                call.with = shown;
            }
        }
    }
}

/// Masks a value, and notes the texts that are hidden by it.
fn replace(
    value: &mut JsonText,
    masked: impl Fn(&RawValue) -> JsonText,
    hidden: &mut BTreeSet<String>,
) {
    let masked = masked(value);
    note(value, &masked, hidden);
    *value = masked;
}

/// Notes the texts that a masked value does not have any more.
fn note(value: &RawValue, masked: &RawValue, hidden: &mut BTreeSet<String>) {
    let (before, after) = (texts(value), texts(masked));
    let gone = before.difference(&after);
    hidden.extend(gone.filter(|text| text.chars().count() >= LEAST).cloned());
}

fn texts(value: &RawValue) -> BTreeSet<String> {
    fn collect(value: Value, texts: &mut BTreeSet<String>) {
        match value {
            Value::String(text) => {
                texts.insert(text);
            }
            Value::Array(items) => items.into_iter().for_each(|item| collect(item, texts)),
            Value::Object(entries) => entries
                .into_iter()
                .for_each(|(_, entry)| collect(entry, texts)),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }
    let mut texts = BTreeSet::new();
    if let Ok(value) = serde_json::from_str(value.get()) {
        collect(value, &mut texts);
    }
    texts
}

/// The longest first: one may be within another.
fn longest_first(hidden: &BTreeSet<String>) -> Vec<&String> {
    let mut hidden: Vec<_> = hidden.iter().collect();
    hidden.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
    hidden
}

fn mask_text(text: &mut String, hidden: &BTreeSet<String>) {
    for secret in longest_first(hidden) {
        if text.contains(&**secret) {
            *text = text.replace(&**secret, "***");
        }
    }
}

/// Masks secret texts in the texts of a value, keys of objects included.
fn mask_value(value: &mut JsonText, hidden: &BTreeSet<String>) {
    fn walk(value: &mut Value, hidden: &BTreeSet<String>) {
        match value {
            Value::String(text) => mask_text(text, hidden),
            Value::Array(items) => items.iter_mut().for_each(|item| walk(item, hidden)),
            Value::Object(entries) => {
                let taken = std::mem::take(entries);
                entries.extend(taken.into_iter().map(|(mut key, mut entry)| {
                    mask_text(&mut key, hidden);
                    walk(&mut entry, hidden);
                    (key, entry)
                }));
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }
    let mut read: Value = serde_json::from_str(value.get()).unwrap_or_default();
    let before = read.clone();
    walk(&mut read, hidden);
    if read != before {
        *value = RawValue::from_string(read.to_string()).unwrap_or_default();
    }
}
