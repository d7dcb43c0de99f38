//! What a person changes of a run whose undo has failed, so that it can be tried again.

use serde_json::Value;
use serde_json::value::RawValue;

use super::{Phase, Run, Slot};
use crate::json::{self, JsonError, Limits};
use crate::plan::JsonText;
use crate::shape::Shape;

/// What is edited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Edited {
    /// The arguments of the undo.
    #[default]
    Undo,
    /// The result of the step, which undos may take.
    Result,
}

/// Why it cannot be.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unedited {
    /// The run is not kept for a person.
    #[error("its undo has not failed")]
    State,
    /// There is no such step.
    #[error("there is no such step that was called; accepted: {0}")]
    NoStep(String),
    /// The step is undone by nothing.
    #[error("step \"{0}\" has no undo")]
    NoUndo(String),
    /// The step's function returns nothing.
    #[error("the function of step \"{0}\" returns no value")]
    NoResult(String),
    /// The value is of another type.
    #[error("step \"{step}\": {what}: {error}")]
    Misfit {
        /// The step.
        step: String,
        /// What is edited.
        what: &'static str,
        /// Where it does not fit.
        error: JsonError,
    },
}

impl Run {
    /// Puts a value in the place of what a person edits: of the step of this name, or of the one whose undo has failed. A
    /// mask in it stands for what it hides.
    pub(crate) fn edit(
        &mut self,
        step: Option<&str>,
        what: Edited,
        body: &[u8],
    ) -> Result<(), Unedited> {
        if self.phase != Phase::UndoFailed {
            return Err(Unedited::State);
        }
        let slot = self.slot_to_edit(step)?;
        let unmasked = self.unmask(slot, what, body);
        let body = unmasked.as_deref().unwrap_or(body);
        let name = self.slot_name(slot);
        let planned = self.pipeline.steps.get(slot.step);
        let limits = Limits::default();
        let misfit = |what: &'static str| {
            let step = name.clone();
            move |error| Unedited::Misfit { step, what, error }
        };
        let text = match what {
            Edited::Undo => {
                let undo = planned.and_then(|step| step.undo.as_ref());
                let undo = undo.ok_or_else(|| Unedited::NoUndo(name.clone()))?;
                let values = json::decode_arguments(body, &undo.signature, &limits);
                let values = values.map_err(misfit("arguments of its undo"))?;
                json::encode_arguments(&values, &undo.signature, &limits)
                    .map_err(misfit("arguments of its undo"))?
            }
            Edited::Result => {
                let call = planned.and_then(|step| step.call());
                let shape = call.and_then(|call| match &call.signature.result {
                    Some(Shape::Result { ok, .. }) => ok.as_deref(),
                    value => value.as_ref(),
                });
                let shape = shape.ok_or_else(|| Unedited::NoResult(name.clone()))?;
                let value = json::decode_value(body, shape, &limits).map_err(misfit("result"))?;
                json::encode_value(&value, shape, &limits).map_err(misfit("result"))?
            }
        };
        let text = if text.is_empty() {
            "{}".into()
        } else {
            String::from_utf8_lossy(&text)
        };
        let text = RawValue::from_string(text.into_owned()).ok();
        if let Some(entry) = self.entry_mut(slot) {
            match what {
                Edited::Undo => entry.undo_with = text,
                Edited::Result => entry.result = text,
            }
            entry.edited = true;
        }
        Ok(())
    }

    /// The call that is meant: by its name, or the one whose undo has failed.
    fn slot_to_edit(&self, step: Option<&str>) -> Result<Slot, Unedited> {
        let slots = || {
            let steps = self.steps.iter().enumerate();
            let slots = steps.flat_map(|(step, run)| {
                let items = run.items.as_ref().map(Vec::len);
                let own = items.is_none().then_some(Slot::of(step));
                let items = (0..items.unwrap_or(0)).map(move |item| Slot {
                    step,
                    item: Some(item),
                });
                own.into_iter().chain(items)
            });
            slots.filter(|slot| self.entry(*slot).is_some_and(super::StepRun::is_to_undo))
        };
        let found = match step {
            Some(step) => slots().find(|slot| self.slot_name(*slot) == step),
            None => self.not_undone(),
        };
        found.ok_or_else(|| {
            let names: Vec<_> = slots().map(|slot| self.slot_name(slot)).collect();
            Unedited::NoStep(names.join(", "))
        })
    }

    /// A body in which masks are what they hide; nothing where there are none.
    fn unmask(&self, slot: Slot, what: Edited, body: &[u8]) -> Option<Vec<u8>> {
        let masked = self.masked();
        let of = |run: &Self| match what {
            Edited::Undo => run.undo_arguments(slot),
            Edited::Result => run.entry(slot)?.result.clone(),
        };
        let (stored, shown) = (of(self)?, of(&masked)?);
        if stored.get() == shown.get() {
            return None;
        }
        let value = |text: &str| serde_json::from_str::<Value>(text).ok();
        let (stored, shown) = (value(stored.get())?, value(shown.get())?);
        let mut edited = serde_json::from_slice(body).ok()?;
        restore(&mut edited, &shown, &stored);
        serde_json::to_vec(&edited).ok()
    }

    /// What its undo is called with, as far as that is known.
    pub(crate) fn undo_arguments(&self, slot: Slot) -> Option<JsonText> {
        let edited = self.entry(slot)?.undo_with.clone();
        let undo = self.pipeline.steps.get(slot.step)?.undo.as_ref()?;
        edited.or_else(|| self.arguments(slot, undo))
    }

    /// Hides in what was edited what is hidden in what stood there before.
    pub(super) fn mask_edited(&mut self) {
        for step in 0..self.steps.len() {
            let items = self.steps.get(step).and_then(|step| step.items.as_ref());
            let items = items.map(Vec::len);
            let slots: Vec<Slot> = match items {
                None => vec![Slot::of(step)],
                Some(items) => (0..items)
                    .map(|item| Slot {
                        step,
                        item: Some(item),
                    })
                    .collect(),
            };
            for slot in slots {
                self.mask_slot(slot);
            }
        }
    }

    fn mask_slot(&mut self, slot: Slot) {
        let Some(edited) = self.entry(slot).and_then(|entry| entry.undo_with.clone()) else {
            return;
        };
        let undo = self.pipeline.steps.get(slot.step);
        let undo = undo.and_then(|step| step.undo.as_ref());
        let shown = undo.and_then(|undo| self.arguments(slot, undo));
        let value = |text: &str| serde_json::from_str::<Value>(text).ok();
        let masked = match (
            value(edited.get()),
            shown.and_then(|shown| value(shown.get())),
        ) {
            (Some(mut edited), Some(shown)) => {
                hide(&mut edited, &shown);
                serde_json::value::to_raw_value(&edited).ok()
            }
            // Nobody knows what of it is secret.
            _ => serde_json::value::to_raw_value(MASK).ok(),
        };
        if let Some(entry) = self.entry_mut(slot) {
            entry.undo_with = masked;
        }
    }
}

const MASK: &str = "***";

/// Puts what was stored in the place of each mask that was shown and left.
fn restore(edited: &mut Value, shown: &Value, stored: &Value) {
    if edited == MASK && shown == MASK {
        *edited = stored.clone();
        return;
    }
    match (edited, shown, stored) {
        (Value::Object(edited), Value::Object(shown), Value::Object(stored)) => {
            for (key, value) in edited {
                if let (Some(shown), Some(stored)) = (shown.get(key), stored.get(key)) {
                    restore(value, shown, stored);
                }
            }
        }
        (Value::Array(edited), Value::Array(shown), Value::Array(stored)) => {
            for ((value, shown), stored) in edited.iter_mut().zip(shown).zip(stored) {
                restore(value, shown, stored);
            }
        }
        _ => {}
    }
}

/// Puts a mask where one is in what is shown.
fn hide(edited: &mut Value, shown: &Value) {
    match (edited, shown) {
        (edited, Value::String(shown)) if shown == MASK => *edited = Value::from(MASK),
        (Value::Object(edited), Value::Object(shown)) => {
            for (key, value) in edited {
                if let Some(shown) = shown.get(key) {
                    hide(value, shown);
                }
            }
        }
        (Value::Array(edited), Value::Array(shown)) => {
            for (value, shown) in edited.iter_mut().zip(shown) {
                hide(value, shown);
            }
        }
        _ => {}
    }
}
