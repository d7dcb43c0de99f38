//! `durable` and `undo` of a service: functions whose calls survive the host that works on them, and what
//! undoes the calls that they make.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::ser::SerializeMap as _;
use serde::{Serialize, Serializer};

use super::file::{At, Section};
use super::keys::{durable, grants, service, undo};
use super::kinds::Setting as _;
use super::pipelines::{self, Attempts, CallSpec, PipelineBounds, Place, Template};
use super::services::Grants;
use super::values::duration_text;
use crate::interface::FunctionId;
use crate::text::shown;

/// The functions of a service whose calls survive the host that works on them.
#[derive(Clone, Debug, PartialEq)]
pub struct DurableSpec {
    /// The functions; never empty.
    pub functions: Vec<DurableFunction>,
    /// Time for one attempt of a call that they make.
    pub timeout: Duration,
    /// How often such a call is tried.
    pub retry: Attempts,
    /// Bounds on their runs, for each function.
    pub bounds: PipelineBounds,
}

/// One of them.
#[derive(Clone, Debug, PartialEq)]
pub struct DurableFunction {
    /// The function; its version may be absent.
    pub function: FunctionId,
    /// Where it was typed.
    pub place: Place,
}

impl DurableFunction {
    /// The name of its runs in JetStream and on the command line, where pipelines have theirs.
    #[must_use]
    pub fn runs(&self, service: &str) -> String {
        format!("{service}-{}", self.function.name)
    }
}

impl Serialize for DurableSpec {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        let functions = self.functions.iter().map(|durable| &durable.function);
        map.serialize_entry(durable::FUNCTIONS.name, &functions.collect::<Vec<_>>())?;
        map.serialize_entry(durable::TIMEOUT.name, &duration_text(self.timeout))?;
        map.serialize_entry(durable::RETRY.name, &self.retry)?;
        for (key, value) in self.bounds.written() {
            map.serialize_entry(key, &value)?;
        }
        map.end()
    }
}

/// Reads `durable`: a list of functions, or a table with one.
pub(super) fn read(section: &Section<'_>, granted: &Grants) -> Option<DurableSpec> {
    if !section.has(service::DURABLE.name) {
        return None;
    }
    for (key, endpoints) in [(&grants::TCP, &granted.tcp), (&grants::UDP, &granted.udp)] {
        if !endpoints.is_empty() {
            let why = format!(
                "`grants.{}`: what goes over sockets is not journaled, and a durable function that is run again would do it again; \
                 accepted: in a service of its own, which the durable function calls",
                key.name
            );
            section.report_key(service::GRANTS.name, why);
        }
    }
    if !granted.files.is_empty() {
        let key = grants::FILES.name;
        let why = format!(
            "`grants.{key}`: what is read from files is not journaled, and a durable function that is run again could read something else; \
             accepted: in a service of its own, which the durable function calls"
        );
        section.report_key(service::GRANTS.name, why);
    }
    if granted.blobstore.is_some() {
        let key = grants::BLOBSTORE.name;
        let why = format!(
            "`grants.{key}`: what is done with objects is not journaled, and a durable function that is run again would do it again; \
             accepted: in a service of its own, which the durable function calls, or `{}`",
            grants::KEYVALUE.name
        );
        section.report_key(service::GRANTS.name, why);
    }
    if !section.is_table(&service::DURABLE) {
        let functions = functions(section, section.texts(&service::DURABLE), "durable");
        return Some(DurableSpec {
            functions: functions?,
            timeout: durable::TIMEOUT.values.default(),
            retry: Attempts::default(),
            bounds: PipelineBounds::default(),
        });
    }
    let table = section.section(&service::DURABLE, &durable::TABLE);
    table.require(&durable::FUNCTIONS);
    let functions = functions(&table, table.texts(&durable::FUNCTIONS), "functions");
    Some(DurableSpec {
        functions: functions?,
        timeout: table.read_or_default(&durable::TIMEOUT),
        retry: pipelines::read_retry(&table),
        bounds: pipelines::read_bounds(&table),
    })
}

fn functions(
    section: &Section<'_>,
    typed: Vec<At<&str>>,
    key: &str,
) -> Option<Vec<DurableFunction>> {
    let mut functions: Vec<DurableFunction> = Vec::new();
    for At { value, at } in typed {
        let function: FunctionId = match value.parse() {
            Ok(function) => function,
            Err(error) => {
                section.report(at, format!("`{key}`: {error}"));
                continue;
            }
        };
        let mut others = functions.iter();
        if let Some(other) = others.find(|other| other.function.name == function.name) {
            let why = format!(
                "`{key}`: the runs of `{}` and of `{function}` would have one name; keep one of the two",
                other.function
            );
            section.report(at, why);
        }
        let place = Place::new(section, at);
        functions.push(DurableFunction { function, place });
    }
    (!functions.is_empty()).then_some(functions)
}

/// Reads `undo`: what undoes the calls of imported functions.
pub(super) fn read_undo(section: &Section<'_>) -> BTreeMap<FunctionId, CallSpec> {
    let mut undos = BTreeMap::new();
    for (name, table) in section.named(&service::UNDO, &undo::TABLE) {
        let call = pipelines::read_call(&table);
        match name.value.parse::<FunctionId>() {
            Ok(function) => undos.extend(call.map(|call| (function, call))),
            Err(error) => section.report(name.at, format!("`undo`: {error}")),
        }
    }
    if !undos.is_empty() && !section.has(service::DURABLE.name) {
        let why = format!(
            "`undo` undoes what durable functions call, and the service has none; add `{} = [\"…\"]`",
            shown(service::DURABLE.name)
        );
        section.report_key(service::UNDO.name, why);
    }
    undos
}

/// Reads `secret`: values of functions that are never shown.
pub(super) fn read_secret(section: &Section<'_>) -> BTreeMap<FunctionId, Vec<Template>> {
    // What is no table is reported by `entries`.
    section.entries(&service::SECRET, Some);
    let typed = section.typed(service::SECRET.name);
    let typed = typed.and_then(|typed| typed.get_ref().as_table());
    let mut secret = BTreeMap::new();
    for (name, value) in typed.into_iter().flatten() {
        let key = format!("{}.{}", service::SECRET.name, shown(name.get_ref()));
        match name.get_ref().parse::<FunctionId>() {
            Ok(function) => {
                secret.insert(function, pipelines::read_secret(section, &key, value));
            }
            Err(error) => section.report(name.span().start, format!("`secret`: {error}")),
        }
    }
    secret
}
