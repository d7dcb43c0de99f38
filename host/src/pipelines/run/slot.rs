//! The single calls of a run: of a step, or of an item of a step with `each`.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{Run, StepRun, StepState};
use crate::plan::StepCall;

/// A step, or an item of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Slot {
    /// The step's index.
    pub step: usize,
    /// The item's index, of a step with `each`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub item: Option<usize>,
}

impl Slot {
    /// A step of its own.
    pub(crate) const fn of(step: usize) -> Self {
        Self { step, item: None }
    }
}

impl StepRun {
    /// Its calls: itself, or its items.
    pub(crate) fn calls(&self) -> impl DoubleEndedIterator<Item = &Self> {
        let own = self.items.is_none().then_some(self);
        own.into_iter().chain(self.items.iter().flatten())
    }

    pub(crate) fn calls_mut(&mut self) -> Vec<&mut Self> {
        if self.items.is_none() {
            return vec![self];
        }
        self.items.iter_mut().flatten().collect()
    }

    /// Whether it was done, or may have been.
    pub(super) fn is_to_undo(&self) -> bool {
        match self.state {
            StepState::Done => true,
            StepState::Pending | StepState::Declined | StepState::Failed => self.unknown,
            StepState::Skipped | StepState::Undone => false,
        }
    }
}

impl Run {
    /// The id of a call for those that it reaches: the same for each attempt.
    pub(crate) fn step_id(&self, slot: Slot, undo: bool) -> String {
        let name = self.slot_name(slot);
        let end = if undo { ".undo" } else { "" };
        format!("{}.{name}{end}", self.id)
    }

    /// The name of a step, with the number of the item from 0.
    pub(crate) fn slot_name(&self, slot: Slot) -> String {
        let step = self.pipeline.steps.get(slot.step);
        let name = step.map_or("", |step| &*step.name);
        match slot.item {
            Some(item) => format!("{name}.{item}"),
            None => name.to_owned(),
        }
    }

    pub(super) fn entry(&self, slot: Slot) -> Option<&StepRun> {
        let step = self.steps.get(slot.step)?;
        match slot.item {
            Some(item) => step.items.as_ref()?.get(item),
            None => Some(step),
        }
    }

    pub(super) fn entry_mut(&mut self, slot: Slot) -> Option<&mut StepRun> {
        let step = self.steps.get_mut(slot.step)?;
        match slot.item {
            Some(item) => step.items.as_mut()?.get_mut(item),
            None => Some(step),
        }
    }

    /// Makes the entries of a step's items; returns how many there are. A list with too many has none.
    pub(super) fn open_items(&mut self, index: usize) -> Option<usize> {
        if let Some(items) = self.steps.get(index)?.items.as_ref() {
            return Some(items.len());
        }
        let each = self.pipeline.steps.get(index)?.each.as_ref()?;
        let list = self.fill(&each.list, Slot::of(index), None)?;
        let items: Vec<&RawValue> = serde_json::from_str(list.get()).ok()?;
        let items = items.len();
        if items <= each.at_most as usize {
            let step = self.steps.get_mut(index)?;
            step.items = Some(vec![StepRun::default(); items]);
        }
        Some(items)
    }

    /// The first items of a step that are not done.
    pub(super) fn pending_items(&self, index: usize, most: usize) -> Vec<Slot> {
        let items = self.steps.get(index).and_then(|step| step.items.as_ref());
        let items = items.into_iter().flatten().enumerate();
        items
            .filter(|(_, item)| item.state == StepState::Pending)
            .map(|(item, _)| Slot {
                step: index,
                item: Some(item),
            })
            .take(most)
            .collect()
    }

    /// The calls of a pending step that may be under way.
    pub(super) fn next_slots(&mut self, index: usize) -> Vec<Slot> {
        let step = self.pipeline.steps.get(index);
        if step.is_some_and(|step| step.call().is_none()) {
            return Vec::new();
        }
        let each = step.and_then(|step| step.each.as_ref());
        let Some(at_once) = each.map(|each| each.at_once as usize) else {
            return vec![Slot::of(index)];
        };
        // Whatever the list is, it was not worked on if it cannot be read.
        let _ = self.open_items(index);
        self.pending_items(index, at_once)
    }

    /// The last call that is to be undone, and how.
    pub(super) fn last_done(&self) -> Option<(Slot, &StepCall)> {
        let steps = self.steps.iter().zip(&self.pipeline.steps).enumerate();
        let steps = steps.rev().filter_map(|(index, (run, step))| {
            let undo = step.undo.as_ref()?;
            let position = run.calls().rev().position(StepRun::is_to_undo)?;
            let item = run.items.as_ref().map(|items| items.len() - 1 - position);
            Some((Slot { step: index, item }, undo))
        });
        let mut steps = steps;
        steps.next()
    }

    /// The call whose undo has failed.
    pub(crate) fn not_undone(&self) -> Option<Slot> {
        let failed = |call: &StepRun| call.undo.failure.is_some();
        let mut steps = self.steps.iter().enumerate();
        steps.find_map(|(step, run)| {
            let position = run.calls().position(failed)?;
            let item = run.items.is_some().then_some(position);
            Some(Slot { step, item })
        })
    }
}
