//! NestJS services on the same NATS: `[[nest]]`, what their clients call here, and wires with
//! `external = "nest"`, what is called there.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Serialize, Serializer};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::file::Section;
use super::keys::{app, nest, wire};
use super::kinds::{Key, Other};
use super::pipelines::Place;
use crate::interface::FunctionId;
use crate::nest::Pattern;
use crate::subject;
use crate::text::shown;

/// Requests and events of NestJS clients that become calls of a function.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct NestHandler {
    /// What they are found by.
    pub pattern: Pattern,
    /// The function.
    #[serde(serialize_with = "text")]
    pub call: FunctionId,
    /// The queue group that shares them; a NestJS service with this queue gets its part.
    pub queue: String,
    /// Whether a list is answered element by element.
    pub stream: bool,
    /// Where it stands.
    #[serde(skip)]
    pub place: Place,
}

fn text<S: Serializer>(function: &FunctionId, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(function)
}

/// The handlers of a NestJS service that answer an interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NestSpec {
    /// The pattern of each function.
    pub patterns: BTreeMap<String, Pattern>,
    /// Functions whose list is gathered from a stream.
    pub streams: BTreeSet<String>,
}

impl NestSpec {
    /// Its entries in a wire.
    pub(super) fn entries(&self) -> impl Iterator<Item = (&'static str, serde_json::Value)> {
        let streams = (!self.streams.is_empty()).then(|| serde_json::json!(self.streams));
        let patterns = serde_json::json!(self.patterns);
        let streams = streams.map(|streams| (wire::STREAMS.name, streams));
        [(wire::PATTERNS.name, patterns)].into_iter().chain(streams)
    }
}

/// Reads `[[nest]]`.
pub(super) fn read(top: &Section<'_>) -> Vec<NestHandler> {
    let name = |table: &DeTable<'_>| match table.get("call").map(|call| call.get_ref()) {
        Some(DeValue::String(call)) => format!("nest \"{}\": ", shown(call)),
        _ => "nest: ".to_owned(),
    };
    let mut handlers: Vec<NestHandler> = Vec::new();
    for section in top.each(&app::NEST, name, &nest::TABLE) {
        section.require(&nest::PATTERN);
        section.require(&nest::CALL);
        let at = section
            .typed(nest::PATTERN.name)
            .map(|typed| typed.span().start);
        let pattern = section.typed(nest::PATTERN.name);
        let pattern = pattern.and_then(|typed| read_pattern(&section, nest::PATTERN.name, typed));
        let call = section.text(&nest::CALL).and_then(|call| {
            let read = call.value.parse::<FunctionId>();
            let told = read.map_err(|error| section.report(call.at, format!("`call`: {error}")));
            told.ok()
        });
        let is_token = |queue: &str| {
            !queue.is_empty() && !queue.contains(|c: char| c.is_whitespace() || c.is_control())
        };
        let queue = section.text_that(&nest::QUEUE, is_token);
        let stream = section.read_or_default(&nest::STREAM);
        let (Some(pattern), Some(call), Some(at)) = (pattern, call, at) else {
            continue;
        };
        if handlers
            .iter()
            .any(|other| other.pattern.subject() == pattern.subject())
        {
            section.report(
                at,
                format!("`pattern`: `{pattern}` is there twice; keep one of the two"),
            );
        }
        handlers.push(NestHandler {
            pattern,
            call,
            queue: queue.map_or_else(|| subject::QUEUE_GROUP.to_owned(), |q| q.value.to_owned()),
            stream,
            place: Place::new(&section, at),
        });
    }
    handlers
}

/// Reads `patterns` and `streams` of a wire.
pub(super) fn read_wire(section: &Section<'_>) -> Option<NestSpec> {
    section.require(&wire::PATTERNS);
    let patterns = read_patterns(section, &wire::PATTERNS);
    let mut streams = BTreeSet::new();
    for stream in section.texts(&wire::STREAMS) {
        if !patterns.contains_key(stream.value) {
            let why = format!(
                "`streams`: there is no pattern of `{}`",
                shown(stream.value)
            );
            section.report(stream.at, why);
        }
        streams.insert(stream.value.to_owned());
    }
    Some(NestSpec { patterns, streams })
}

/// Reads a table of patterns by function.
pub(super) fn read_patterns(
    section: &Section<'_>,
    table: &Key<Other>,
) -> BTreeMap<String, Pattern> {
    // What is no table is reported by `entries`.
    section.entries(table, Some);
    let typed = section.typed(table.name);
    let typed = typed.and_then(|typed| typed.get_ref().as_table());
    let mut patterns = BTreeMap::new();
    for (name, value) in typed.into_iter().flatten() {
        let key = format!("{}.{}", table.name, shown(name.get_ref()));
        if let Some(pattern) = read_pattern(section, &key, value) {
            patterns.insert(name.get_ref().clone().into_owned(), pattern);
        }
    }
    patterns
}

fn read_pattern(section: &Section<'_>, key: &str, typed: &Spanned<DeValue<'_>>) -> Option<Pattern> {
    let pattern = pattern(typed.get_ref());
    let checked = match &pattern {
        Some(pattern) => pattern.check().map_err(|error| error.to_string()),
        None => Err("accepted: a text, an integer, or a table of them".to_owned()),
    };
    if let Err(why) = checked {
        section.report(typed.span().start, format!("`{key}`: {why}"));
        return None;
    }
    pattern
}

fn pattern(value: &DeValue<'_>) -> Option<Pattern> {
    match value {
        DeValue::String(text) => Some(Pattern::Text(text.clone().into_owned())),
        DeValue::Integer(number) => {
            let number = i64::from_str_radix(number.as_str(), number.radix());
            number.ok().map(Pattern::Number)
        }
        DeValue::Table(entries) => {
            let entry = |(key, value): (&Spanned<_>, &Spanned<DeValue<'_>>)| {
                let key: &toml::de::DeString<'_> = key.get_ref();
                Some((key.clone().into_owned(), pattern(value.get_ref())?))
            };
            let entries: Option<BTreeMap<_, _>> = entries.iter().map(entry).collect();
            entries
                .filter(|entries| !entries.is_empty())
                .map(Pattern::Table)
        }
        _ => None,
    }
}
