//! Steps that wait, for a time or for an event, and runs that nobody works on meanwhile.

use serde::{Deserialize, Serialize};

use super::{Forward, Run, Slot, StepFailure, StepState};
use crate::manifest::OnError;
use crate::plan::{Act, JsonText, WaitFor};

/// A run that nobody works on, until it is woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Asleep {
    /// The sequence of the message by which it is open. Who wakes it replaces that one and no other, so that it
    /// wakes once.
    pub open: u64,
}

impl Asleep {
    /// A run that is open by the message of this sequence.
    pub(crate) const fn new(open: u64) -> Self {
        Self { open }
    }
}

/// An event that a run waits for now.
#[derive(Debug)]
pub(crate) struct Awaited<'r> {
    pub(crate) slot: Slot,
    pub(crate) wait: &'r WaitFor,
    /// The key that it has to have, as JSON.
    pub(crate) key: JsonText,
}

impl Run {
    /// What comes next of a step that waits; nothing of one that calls.
    pub(super) fn wait_forward(&mut self, slot: Slot, now: u64) -> Option<Forward> {
        let step = self.pipeline.steps.get(slot.step)?;
        let (millis, is_event) = match &step.act {
            Act::Call(_) => return None,
            Act::Sleep(millis) => (*millis, false),
            Act::Wait(wait) => (wait.timeout, true),
        };
        let goes_on = step.on_error == OnError::Continue;
        let entry = self.entry_mut(slot)?;
        let until = *entry.until.get_or_insert(now.saturating_add(millis));
        if now < until {
            return Some(Forward::Wait(until));
        }
        let began = until.saturating_sub(millis);
        if !is_event {
            entry.state = StepState::Done;
            entry.tried.record(began, now, None);
            return Some(Forward::Settled);
        }
        let late = StepFailure::Late(millis);
        entry.tried.record(began, now, Some(late));
        if goes_on {
            entry.state = StepState::Declined;
            return Some(Forward::Settled);
        }
        Some(Forward::Failed(super::Cause::Step(slot)))
    }

    /// The events that it waits for now.
    pub(crate) fn awaited(&self) -> Vec<Awaited<'_>> {
        if self.phase != super::Phase::Running || self.cancelled {
            return Vec::new();
        }
        self.waited_for()
    }

    /// The events that it waited for when it was last worked on.
    pub(crate) fn waited_for(&self) -> Vec<Awaited<'_>> {
        let Some(first) = self.pending() else {
            return Vec::new();
        };
        let slots = self.beside(first).into_iter().map(Slot::of);
        let awaited = slots.filter_map(|slot| {
            let wait = self.pipeline.steps.get(slot.step)?.wait()?;
            self.entry(slot)?.until?;
            let key = self.key_of(slot, wait)?;
            Some(Awaited { slot, wait, key })
        });
        awaited.collect()
    }

    /// The key that the event of a step has to have, as JSON.
    pub(crate) fn key_of(&self, slot: Slot, wait: &WaitFor) -> Option<JsonText> {
        self.fill(&wait.equals, slot, None)
    }

    /// The first step that waits for an event, and the event's arguments. An event is taken once.
    pub(crate) fn wants_event(
        &self,
        stream: &str,
        sequence: u64,
        subject: &str,
        body: &[u8],
    ) -> Option<(Slot, JsonText)> {
        let mut steps = self.pipeline.steps.iter().zip(&self.steps);
        let is_taken = steps.any(|(step, entry)| {
            let wait = step.wait();
            entry.event == Some(sequence) && wait.is_some_and(|wait| wait.stream == stream)
        });
        if is_taken {
            return None;
        }
        self.awaited().into_iter().find_map(|awaited| {
            let Awaited { slot, wait, key } = awaited;
            if wait.stream != stream || !wait.is_of(subject) {
                return None;
            }
            let arguments = wait.read(body)?;
            let is_same = wait.key_of(&arguments) == Some(key.get());
            is_same.then_some((slot, arguments))
        })
    }

    /// Gives a step the event that it waits for. Returns which one it was.
    pub(crate) fn take_event(
        &mut self,
        stream: &str,
        sequence: u64,
        subject: &str,
        body: &[u8],
        now: u64,
    ) -> Option<Slot> {
        let (slot, arguments) = self.wants_event(stream, sequence, subject, body)?;
        let timeout = self.pipeline.steps.get(slot.step)?.wait()?.timeout;
        let entry = self.entry_mut(slot)?;
        let began = entry.until.unwrap_or(now).saturating_sub(timeout);
        entry.tried.record(began, now, None);
        (entry.state, entry.result) = (StepState::Done, Some(arguments));
        entry.event = Some(sequence);
        Some(slot)
    }
}
