//! What a step is: a call, an event, time that passes, or an event that has to come.

use std::time::Duration;

use serde::ser::SerializeMap as _;
use serde::{Serialize, Serializer};

use super::parsed;
use super::step::{CallSpec, path, read_call, template};
use super::template::{Place, Template};
use crate::interface::FunctionId;
use crate::manifest::file::Section;
use crate::manifest::keys::{step, wait};
use crate::manifest::values::duration_text;

/// What a step is.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum ActSpec {
    /// A call of a function, or an event that is published.
    Call(CallSpec),
    /// Time that passes.
    Sleep(SleepSpec),
    /// An event that has to come.
    Wait(WaitSpec),
}

/// Time that passes before the next step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SleepSpec {
    /// How much.
    pub time: Duration,
    /// Where that was typed.
    pub place: Place,
}

impl Serialize for SleepSpec {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(1))?;
        map.serialize_entry(step::SLEEP.name, &duration_text(self.time))?;
        map.end()
    }
}

/// An event that a run waits for.
#[derive(Clone, Debug, PartialEq)]
pub struct WaitSpec {
    /// The function; its version may be absent.
    pub event: FunctionId,
    /// Where that was typed.
    pub place: Place,
    /// A path from the event's arguments.
    pub key: Template,
    /// What is there in the event that is waited for.
    pub equals: Template,
    /// Time after which the step fails.
    pub timeout: Duration,
    /// Where that was typed.
    pub timeout_place: Place,
}

impl Serialize for WaitSpec {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        /// The table behind the key.
        struct Table<'a>(&'a WaitSpec);

        impl Serialize for Table<'_> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let mut map = serializer.serialize_map(Some(4))?;
                map.serialize_entry(wait::EVENT.name, &self.0.event)?;
                map.serialize_entry(wait::KEY.name, &self.0.key)?;
                map.serialize_entry(wait::EQUALS.name, &self.0.equals)?;
                map.serialize_entry(wait::TIMEOUT.name, &duration_text(self.0.timeout))?;
                map.end()
            }
        }

        let mut map = serializer.serialize_map(Some(1))?;
        map.serialize_entry(step::WAIT_FOR.name, &Table(self))?;
        map.end()
    }
}

/// Reads what a step is.
pub(super) fn read(section: &Section<'_>) -> Option<ActSpec> {
    let (sleep, wait) = (step::SLEEP.name, step::WAIT_FOR.name);
    let own = match (section.has(sleep), section.has(wait)) {
        (false, false) => return read_call(section).map(ActSpec::Call),
        (true, _) => sleep,
        (false, true) => wait,
    };
    for other in [step::CALL.name, step::EVENT.name, wait] {
        if other != own {
            let why =
                "a step has one of `call`, `event`, `sleep` and `wait-for`; leave the others out";
            section.report_key(other, why);
        }
    }
    let calls = [
        step::WITH.name,
        step::EACH.name,
        step::TIMEOUT.name,
        step::RETRY.name,
        step::UNDO.name,
    ];
    let errors = [step::ON_ERROR.name, step::ERROR.name];
    let errors = errors.into_iter().filter(|_| own == sleep);
    for key in calls.into_iter().chain(errors) {
        let why = format!("`{key}`: a step with `{own}` has none; leave it out");
        section.report_key(key, why);
    }
    if own == sleep {
        return Some(ActSpec::Sleep(SleepSpec {
            time: section.read_or_default(&step::SLEEP),
            place: Place::new(section, section.place(sleep)?),
        }));
    }
    if section
        .text(&step::ON_ERROR)
        .is_some_and(|text| text.value == "retry")
    {
        let why = "`on-error`: an event that did not come in time is not waited for again; accepted: fail, continue";
        section.report_key(step::ON_ERROR.name, why);
    }
    read_wait(section).map(ActSpec::Wait)
}

fn read_wait(section: &Section<'_>) -> Option<WaitSpec> {
    let section = section.section(&step::WAIT_FOR, &wait::TABLE);
    section.require(&wait::EVENT);
    section.require(&wait::KEY);
    section.require(&wait::EQUALS);
    let event = section.text(&wait::EVENT);
    let place = event.as_ref().map(|event| Place::new(&section, event.at));
    let event = parsed(&section, event, wait::EVENT.name);
    let key = path(
        &section,
        wait::KEY.name,
        "a path from the event's arguments, such as `$.orderId`",
    );
    let equals = template(&section, wait::EQUALS.name);
    let timeout = section.place(wait::TIMEOUT.name);
    let timeout = timeout.map(|at| Place::new(&section, at));
    Some(WaitSpec {
        event: event?,
        place: place.clone()?,
        key: key?,
        equals: equals?,
        timeout: section.read_or_default(&wait::TIMEOUT),
        timeout_place: timeout.or_else(|| place.clone())?,
    })
}
