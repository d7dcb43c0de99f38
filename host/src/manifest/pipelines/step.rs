//! `[[pipeline.NAME.step]]`: what a step is, when it is done, and what undoes it.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::ser::SerializeMap as _;
use serde::{Serialize, Serializer};

use super::act::{self, ActSpec};
use super::template::{Place, Template, TemplateKind};
use super::{Attempts, ERROR, ITEM, parsed};
use crate::interface::{FunctionId, is_label};
use crate::manifest::MAX_NAME;
use crate::manifest::file::Section;
use crate::manifest::keys::{attempts, condition, step, undo};
use crate::manifest::kinds::{Key, Other};
use crate::manifest::values::duration_text;
use crate::text::shown;

/// One step of a pipeline.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct StepSpec {
    /// Its name.
    pub name: String,
    /// Where it was typed.
    #[serde(skip)]
    pub place: Place,
    /// What it is.
    #[serde(flatten)]
    pub act: ActSpec,
    /// What decides whether it is done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub when: Option<ConditionSpec>,
    /// The group of steps that are done at the same time.
    #[serde(rename = "parallel", skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// The list for each item of which it is done.
    #[serde(flatten)]
    pub each: Option<EachSpec>,
    /// What an `err` value means, or an event that did not come.
    #[serde(skip_serializing_if = "OnError::is_fail")]
    pub on_error: OnError,
    /// The pipeline's own error when the step fails.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<Template>,
    /// What undoes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub undo: Option<CallSpec>,
}

impl StepSpec {
    /// Everything that it calls or publishes.
    pub fn calls(&self) -> impl Iterator<Item = &CallSpec> {
        let call = match &self.act {
            ActSpec::Call(call) => Some(call),
            ActSpec::Sleep(_) | ActSpec::Wait(_) => None,
        };
        call.into_iter().chain(&self.undo)
    }

    /// All functions that it calls, publishes or waits for.
    pub fn functions(&self) -> impl Iterator<Item = &FunctionId> {
        let wait = match &self.act {
            ActSpec::Wait(wait) => Some(&wait.event),
            ActSpec::Call(_) | ActSpec::Sleep(_) => None,
        };
        let called = self.calls().map(|call| &call.function);
        called.chain(wait)
    }
}

/// A call or an event with its arguments and attempts.
#[derive(Clone, Debug, PartialEq)]
pub struct CallSpec {
    /// The function; its version may be absent.
    pub function: FunctionId,
    /// Whether it is published as an event.
    pub event: bool,
    /// Where that was typed.
    pub place: Place,
    /// The arguments by parameter.
    pub with: BTreeMap<String, Template>,
    /// Time for one attempt.
    pub timeout: Duration,
    /// How often it is tried.
    pub retry: Attempts,
}

impl CallSpec {
    /// The key under which its function was typed.
    #[must_use]
    pub const fn key(&self) -> &'static str {
        if self.event { "event" } else { "call" }
    }
}

impl Serialize for CallSpec {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry(self.key(), &self.function)?;
        map.serialize_entry("with", &self.with)?;
        map.serialize_entry("timeout", &duration_text(self.timeout))?;
        map.serialize_entry("retry", &self.retry)?;
        map.end()
    }
}

/// A list for each item of which a step is done.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct EachSpec {
    /// A path to the list.
    #[serde(rename = "each")]
    pub list: Template,
    /// Items that it may have.
    pub at_most: u32,
    /// Items that are worked on at the same time.
    pub at_once: u32,
}

/// What decides whether a step is done.
#[derive(Clone, Debug, PartialEq)]
pub struct ConditionSpec {
    /// A path to the value.
    pub value: Template,
    /// The case that it has to be; without one, true or present.
    pub is: Option<Case>,
}

/// What a value has to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Case {
    /// A boolean.
    Boolean(bool),
    /// A case of a variant or an enum, `some` or `none`.
    Named(String),
}

impl Serialize for ConditionSpec {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Some(is) = &self.is else {
            return self.value.serialize(serializer);
        };
        let mut map = serializer.serialize_map(Some(2))?;
        map.serialize_entry("value", &self.value)?;
        map.serialize_entry("is", is)?;
        map.end()
    }
}

/// What an `err` value of a step means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnError {
    /// The run fails.
    #[default]
    Fail,
    /// The step is tried again.
    Retry,
    /// The run goes on.
    Continue,
}

impl OnError {
    #[expect(
        clippy::trivially_copy_pass_by_ref,
        reason = "what serde calls gets a reference"
    )]
    const fn is_fail(&self) -> bool {
        matches!(self, Self::Fail)
    }
}

/// Reads the steps of a pipeline; how many there are has been checked.
pub(super) fn read_all(sections: &[Section<'_>]) -> Vec<StepSpec> {
    let mut steps: Vec<StepSpec> = Vec::new();
    for section in sections {
        let Some(step) = read(section) else {
            continue;
        };
        if steps.iter().any(|other| other.name == step.name) {
            let why = "another step has this name; accepted: another one";
            section.report_key(step::NAME.name, why);
        }
        let is_same = |other: &StepSpec| other.group == step.group;
        if step.group.is_some() && !steps.last().is_some_and(is_same) && steps.iter().any(is_same) {
            let why = "`parallel`: the steps of a group stand one after the other; \
                       accepted: the name of the group of the step before, or another one";
            section.report_key(step::PARALLEL.name, why);
        }
        steps.push(step);
    }
    for section in sections {
        let of = |section: &Section<'_>| {
            let group = section.typed(step::PARALLEL.name)?;
            group.get_ref().as_str().map(str::to_owned)
        };
        let Some(group) = of(section) else { continue };
        let same = sections
            .iter()
            .filter(|other| of(other).as_ref() == Some(&group));
        if same.count() == 1 {
            let why =
                "`parallel`: no other step has this group; accepted: the same at each of its steps";
            section.report_key(step::PARALLEL.name, why);
        }
    }
    steps
}

fn read(section: &Section<'_>) -> Option<StepSpec> {
    section.require(&step::NAME);
    let is_name =
        |name: &str| is_label(name) && name.len() <= MAX_NAME && ![ERROR, ITEM].contains(&name);
    let name = section.text_that(&step::NAME, is_name);
    let on_error = match section
        .one_of(&step::ON_ERROR)
        .map(|on_error| on_error.value)
    {
        Some("retry") => OnError::Retry,
        Some("continue") => OnError::Continue,
        _ => OnError::Fail,
    };
    let is_group = |group: &str| is_label(group) && group.len() <= MAX_NAME;
    let group = section.text_that(&step::PARALLEL, is_group);
    let error = template(section, step::ERROR.name);
    let undo = section.has(step::UNDO.name).then(|| {
        let undo = section.section(&step::UNDO, &undo::TABLE);
        read_call(&undo)
    });
    let (when, each) = (read_when(section), read_each(section));
    let act = act::read(section);
    let name = name?;
    Some(StepSpec {
        name: name.value.to_owned(),
        place: Place::new(section, name.at),
        act: act?,
        when,
        group: group.map(|group| group.value.to_owned()),
        each,
        on_error,
        error,
        undo: undo.flatten(),
    })
}

pub(super) fn template(section: &Section<'_>, key: &str) -> Option<Template> {
    let typed = section.typed(key);
    typed.and_then(|typed| Template::read(section, key, typed))
}

/// A path; anything else is reported with what is accepted.
pub(super) fn path(section: &Section<'_>, key: &str, accepted: &str) -> Option<Template> {
    let template = template(section, key)?;
    if let TemplateKind::Path(_) = template.kind {
        return Some(template);
    }
    section.report_key(key, format!("`{key}`: accepted: {accepted}"));
    None
}

fn read_when(section: &Section<'_>) -> Option<ConditionSpec> {
    const ACCEPTED: &str = "a path to a boolean or an option, such as `$.express`, or \
                            `{ value = \"$.payment\", is = \"card\" }` for a case of a variant";
    if !section.is_table(&step::WHEN) {
        let value = path(section, step::WHEN.name, ACCEPTED)?;
        return Some(ConditionSpec { value, is: None });
    }
    let section = section.section(&step::WHEN, &condition::TABLE);
    section.require(&condition::VALUE);
    section.require(&condition::IS);
    let value = path(
        &section,
        condition::VALUE.name,
        "a path, such as `$.payment`",
    );
    let is = section.value(&condition::IS, |is| match (is.as_bool(), is.as_str()) {
        (Some(is), _) => Some(Case::Boolean(is)),
        (_, Some(is)) => Some(Case::Named(is.to_owned())),
        _ => None,
    });
    Some(ConditionSpec {
        value: value?,
        is: Some(is?.value),
    })
}

fn read_each(section: &Section<'_>) -> Option<EachSpec> {
    let bounds = (
        section.read_or_default(&step::AT_MOST),
        section.read_or_default(&step::AT_ONCE),
    );
    if !section.has(step::EACH.name) {
        for key in [step::AT_MOST.name, step::AT_ONCE.name] {
            let why = format!("`{key}` is for a step with `each`; leave it out");
            section.report_key(key, why);
        }
        return None;
    }
    let list = path(
        section,
        step::EACH.name,
        "a path to a list, such as `$.lines`",
    )?;
    let (at_most, at_once) = bounds;
    Some(EachSpec {
        list,
        at_most,
        at_once,
    })
}

/// Reads `call` or `event`, `with`, `timeout` and `retry`, which a step and its undo have alike.
pub(in crate::manifest) fn read_call(section: &Section<'_>) -> Option<CallSpec> {
    let event = section.has(step::EVENT.name);
    if event {
        let why = "a step has `call` or `event`; leave one of the two out";
        section.report_key(step::CALL.name, why);
    } else {
        section.require(&step::CALL);
    }
    let key = if event { &step::EVENT } else { &step::CALL };
    let call = section.text(key);
    let place = call.as_ref().map(|call| Place::new(section, call.at));
    let function = parsed(section, call, key.name);
    let with = read_values(section, &step::WITH);
    Some(CallSpec {
        function: function?,
        event,
        place: place?,
        with,
        timeout: section.read_or_default(&step::TIMEOUT),
        retry: read_retry(section),
    })
}

/// Reads `retry`.
pub(in crate::manifest) fn read_retry(section: &Section<'_>) -> Attempts {
    let retry = section.section(&step::RETRY, &attempts::TABLE);
    Attempts::read(&retry, &Attempts::default())
}

/// Reads a table of values.
pub(in crate::manifest) fn read_values(
    section: &Section<'_>,
    key: &Key<Other>,
) -> BTreeMap<String, Template> {
    // What is no table is reported by `entries`.
    section.entries(key, Some);
    let typed = section.typed(key.name);
    let typed = typed.and_then(|typed| typed.get_ref().as_table());
    let mut values = BTreeMap::new();
    for (name, value) in typed.into_iter().flatten() {
        let key = format!("{}.{}", key.name, shown(name.get_ref()));
        if let Some(value) = Template::read(section, &key, value) {
            values.insert(name.get_ref().clone().into_owned(), value);
        }
    }
    values
}
