//! `[pipeline.NAME]`: functions that are made of steps.

mod act;
mod step;
mod template;

use std::time::Duration;

use serde::Serialize;

use super::MAX_NAME;
use super::file::{At, Section};
use super::keys::{self, app, pipeline};
use super::settings::settings;
use super::values::size_text;
use crate::interface::{FunctionId, is_label};
use crate::shape::Signature;
use crate::text::shown;

pub use act::{ActSpec, SleepSpec, WaitSpec};
pub use step::{CallSpec, Case, ConditionSpec, EachSpec, OnError, StepSpec};
pub(super) use step::{read_call, read_retry, read_values};
pub use template::{NoPath, Place, Segment, Template, TemplateKind, ValuePath};

/// Steps that a pipeline may have: a run's journal is written anew after each of them.
const MAX_STEPS: usize = 32;

/// The roots of paths that are no steps: the error of a step, and the item of a step with `each`.
pub(crate) const ERROR: &str = "error";
pub(crate) const ITEM: &str = "item";

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
    /// Paths to values that are never shown.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub secret: Vec<Template>,
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
    let bounds = read_bounds(section);
    let result = section.typed(pipeline::RESULT.name);
    let result = result.and_then(|typed| Template::read(section, "result", typed));
    let prefix = |table: &toml::de::DeTable<'_>| {
        let typed = table
            .get(keys::step::NAME.name)
            .and_then(|name| name.get_ref().as_str());
        format!(
            "pipeline \"{}\": step \"{}\": ",
            shown(name.value),
            shown(typed.unwrap_or_default())
        )
    };
    let sections = section.each(&pipeline::STEP, prefix, &keys::step::TABLE);
    let count = sections.len();
    let steps = step::read_all(&sections);
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
        secret: section
            .typed(pipeline::SECRET.name)
            .map_or_else(Vec::new, |typed| read_secret(section, "secret", typed)),
        bounds,
    })
}

/// Reads a list of paths to values that are never shown.
pub(super) fn read_secret(
    section: &Section<'_>,
    key: &str,
    typed: &toml::Spanned<toml::de::DeValue<'_>>,
) -> Vec<Template> {
    let Some(template) = Template::read(section, key, typed) else {
        return Vec::new();
    };
    if let TemplateKind::List(paths) = template.kind
        && paths
            .iter()
            .all(|path| matches!(path.kind, TemplateKind::Path(_)))
    {
        return paths;
    }
    let why = format!("`{key}`: accepted: a list of paths, such as `[\"$.card\"]`");
    section.report(typed.span().start, why);
    Vec::new()
}

/// Reads the bounds of runs from the keys that a pipeline has for them.
pub(super) fn read_bounds(section: &Section<'_>) -> PipelineBounds {
    PipelineBounds::read(section, &PipelineBounds::default())
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
