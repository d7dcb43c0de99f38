//! `[pipeline.NAME]`: functions that are made of steps.

mod template;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Serialize, Serializer};

use super::MAX_NAME;
use super::file::{At, Section};
use super::keys::{app, attempts, pipeline, step, undo};
use super::kinds::settings;
use super::values::{duration_text, size_text};
use crate::interface::{FunctionId, is_label};
use crate::shape::Signature;
use crate::text::shown;

pub use template::{NoPath, Place, Segment, Template, TemplateKind, ValuePath};

/// Steps that a pipeline may have: a run's journal is written anew after each of them.
const MAX_STEPS: usize = 32;

/// The root of paths that is no step.
pub(crate) const ERROR: &str = "error";

/// A function that is made of steps.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct PipelineSpec {
    /// The name in the manifest.
    #[serde(skip)]
    pub name: String,
    /// Where it was typed.
    #[serde(skip)]
    pub place: Place,
    /// The function that it is.
    pub implements: FunctionId,
    /// The function's type, where it was stated.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub signature: Option<Signature>,
    /// The steps in order; never empty.
    #[serde(rename = "step")]
    pub steps: Vec<StepSpec>,
    /// What the function returns.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result: Option<Template>,
    /// Bounds on its runs.
    #[serde(flatten)]
    pub bounds: PipelineBounds,
}

settings! {
    /// Bounds on the runs of a pipeline.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct PipelineBounds in pipeline {
        /// Time for all steps.
        pub deadline: Duration = DEADLINE,
        /// Runs that are worked on at the same time.
        pub in_flight: u32 = IN_FLIGHT,
        /// Bytes of the journal of one run.
        pub journal: usize = JOURNAL,
        /// Time for which a run is kept that has ended.
        pub keep: Duration = KEEP,
        /// Bytes of all runs.
        pub size: u64 = SIZE,
    }
}

/// One step of a pipeline.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct StepSpec {
    /// Its name.
    pub name: String,
    /// Where it was typed.
    #[serde(skip)]
    pub place: Place,
    /// What is called.
    #[serde(flatten)]
    pub call: CallSpec,
    /// What decides whether it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub when: Option<Template>,
    /// What an `err` value means.
    pub on_error: OnError,
    /// The pipeline's own error when the step fails.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<Template>,
    /// What undoes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub undo: Option<CallSpec>,
}

/// A call with its arguments and attempts.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CallSpec {
    /// The function; its version may be absent.
    #[serde(rename = "call")]
    pub function: FunctionId,
    /// Where that was typed.
    #[serde(skip)]
    pub place: Place,
    /// The arguments by parameter.
    pub with: BTreeMap<String, Template>,
    /// Time for one attempt.
    #[serde(serialize_with = "as_text")]
    pub timeout: Duration,
    /// How often it is tried.
    pub retry: Attempts,
}

settings! {
    /// How often a call is tried.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Attempts in attempts {
        /// In all.
        pub attempts: u32 = ATTEMPTS,
        /// The waits between attempts; never empty, the last one repeats.
        pub backoff: Vec<Duration> = BACKOFF,
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

fn as_text<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&duration_text(*duration))
}

/// Reads all pipelines of an app with these services.
pub(super) fn read(top: &Section<'_>, services: &[&str]) -> Vec<PipelineSpec> {
    let mut pipelines: Vec<PipelineSpec> = Vec::new();
    for (name, section) in top.named(&app::PIPELINE, &pipeline::TABLE) {
        if !is_label(name.value) || name.value.len() > MAX_NAME {
            section.report(
                name.at,
                "this is no name of a pipeline; accepted: words of letters and digits joined by `-`, starting with a letter",
            );
        }
        if services.contains(&name.value) {
            let why = "a service has this name, and discovery shows both; accepted: another name";
            section.report(name.at, why);
        }
        let Some(read) = read_one(&section, name) else {
            continue;
        };
        let mut others = pipelines.iter();
        if let Some(other) = others.find(|other| same(&other.implements, &read.implements)) {
            let why = format!(
                "`implements`: pipeline \"{}\" is `{}` already; keep one of the two",
                other.name, other.implements
            );
            section.report_key(pipeline::IMPLEMENTS.name, why);
        }
        pipelines.push(read);
    }
    pipelines
}

fn same(one: &FunctionId, other: &FunctionId) -> bool {
    let meet =
        one.interface.answers_to(&other.interface) || other.interface.answers_to(&one.interface);
    one.name == other.name && meet
}

fn read_one(section: &Section<'_>, name: At<&str>) -> Option<PipelineSpec> {
    section.require(&pipeline::IMPLEMENTS);
    let implements = parsed(section, section.text(&pipeline::IMPLEMENTS), "implements");
    let signature = section.text(&pipeline::TYPE);
    let signature = parsed(section, signature, "type");
    let bounds = PipelineBounds::read(section, &PipelineBounds::default());
    let result = section.typed(pipeline::RESULT.name);
    let result = result.and_then(|typed| Template::read(section, "result", typed));
    let mut steps: Vec<StepSpec> = Vec::new();
    let prefix = |table: &toml::de::DeTable<'_>| {
        let typed = table
            .get(step::NAME.name)
            .and_then(|name| name.get_ref().as_str());
        format!(
            "pipeline \"{}\": step \"{}\": ",
            shown(name.value),
            shown(typed.unwrap_or_default())
        )
    };
    let sections = section.each(&pipeline::STEP, prefix, &step::TABLE);
    let count = sections.len();
    for section in &sections {
        if let Some(step) = read_step(section) {
            if steps.iter().any(|other| other.name == step.name) {
                section.report_key(
                    step::NAME.name,
                    "another step has this name; accepted: another one",
                );
            }
            steps.push(step);
        }
    }
    if !section.has(pipeline::STEP.name) || count > MAX_STEPS {
        section.report_here(format!(
            "`step`: accepted: 1 to {MAX_STEPS} of `[[pipeline.{}.step]]`",
            shown(name.value)
        ));
    }
    Some(PipelineSpec {
        name: name.value.to_owned(),
        place: Place::new(section, name.at),
        implements: implements?,
        signature,
        steps,
        result,
        bounds,
    })
}

fn read_step(section: &Section<'_>) -> Option<StepSpec> {
    section.require(&step::NAME);
    let is_name = |name: &str| is_label(name) && name.len() <= MAX_NAME && name != ERROR;
    let name = section.text_that(&step::NAME, is_name);
    let on_error = match section
        .one_of(&step::ON_ERROR)
        .map(|on_error| on_error.value)
    {
        Some("retry") => OnError::Retry,
        Some("continue") => OnError::Continue,
        _ => OnError::Fail,
    };
    let template = |key: &str| {
        let typed = section.typed(key);
        typed.and_then(|typed| Template::read(section, key, typed))
    };
    let when = template(step::WHEN.name);
    if let Some(Template { kind, .. }) = &when
        && !matches!(kind, TemplateKind::Path(_))
    {
        let why = "`when`: accepted: a path to a boolean or an option, such as `$.express`";
        section.report_key(step::WHEN.name, why);
    }
    let error = template(step::ERROR.name);
    let undo = section.has(step::UNDO.name).then(|| {
        let undo = section.section(&step::UNDO, &undo::TABLE);
        read_call(&undo)
    });
    let call = read_call(section);
    let name = name?;
    Some(StepSpec {
        name: name.value.to_owned(),
        place: Place::new(section, name.at),
        call: call?,
        when,
        on_error,
        error,
        undo: undo.flatten(),
    })
}

/// Reads `call`, `with`, `timeout` and `retry`, which a step and its undo have alike.
fn read_call(section: &Section<'_>) -> Option<CallSpec> {
    section.require(&step::CALL);
    let call = section.text(&step::CALL);
    let place = call.as_ref().map(|call| Place::new(section, call.at));
    let function = parsed(section, call, "call");
    // Tables other than this are reported by `entries`.
    section.entries(&step::WITH, Some);
    let mut with = BTreeMap::new();
    let typed = section
        .typed(step::WITH.name)
        .and_then(|with| with.get_ref().as_table());
    for (name, value) in typed.into_iter().flatten() {
        let key = format!("with.{}", shown(name.get_ref()));
        if let Some(value) = Template::read(section, &key, value) {
            with.insert(name.get_ref().clone().into_owned(), value);
        }
    }
    let retry = section.section(&step::RETRY, &attempts::TABLE);
    Some(CallSpec {
        function: function?,
        place: place?,
        with,
        timeout: section.read_or_default(&step::TIMEOUT),
        retry: Attempts::read(&retry, &Attempts::default()),
    })
}

/// What a text means, or nothing and a report.
fn parsed<T>(section: &Section<'_>, typed: Option<At<&str>>, key: &str) -> Option<T>
where
    T: std::str::FromStr<Err: std::fmt::Display>,
{
    let At { value, at } = typed?;
    match value.parse() {
        Ok(value) => Some(value),
        Err(error) => {
            section.report(at, format!("`{key}`: {error}"));
            None
        }
    }
}

impl PipelineBounds {
    /// The bound on a journal, for people.
    #[must_use]
    pub fn journal_text(&self) -> String {
        size_text(self.journal as u64)
    }
}
