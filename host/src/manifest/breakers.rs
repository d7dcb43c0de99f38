//! `breaker` and `fallback` of a wire for calls.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Serialize, Serializer};

use super::Percent;
use super::file::Section;
use super::keys::{breaker, fallback, wire};
use super::pipelines::{Template, read_values};
use super::services::check_service;
use super::settings::settings;

/// When calls of a wire are not sent, and what answers instead.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BreakerSpec {
    /// When they are not sent.
    pub policy: BreakerPolicy,
    /// What answers instead; without one it is an error.
    pub fallback: Option<Fallback>,
}

settings! {
    /// When a breaker opens, and for how long.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct BreakerPolicy in breaker {
        /// Part of the calls within the window that have failed.
        pub errors: Percent = ERRORS,
        /// Time for which calls count.
        pub window: Duration = WINDOW,
        /// Calls within the window below which it stays closed.
        pub calls: u32 = CALLS,
        /// Time for which no call is sent.
        pub open: Duration = OPEN,
    }
}

/// What answers while a breaker is open.
#[derive(Clone, Debug, PartialEq)]
pub enum Fallback {
    /// A service that exports the interface.
    Service(String),
    /// What the functions return, by their names.
    Values(BTreeMap<String, Template>),
}

impl Serialize for Fallback {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Service(name) => serializer.collect_map([(fallback::SERVICE.name, name)]),
            Self::Values(values) => serializer.collect_map([(fallback::VALUES.name, values)]),
        }
    }
}

/// Reads `breaker` and `fallback` of a wire.
pub(super) fn read(section: &Section<'_>, declared: &[&str]) -> Option<BreakerSpec> {
    let is_event = section.has(wire::MODE.name)
        && section
            .one_of(&wire::MODE)
            .is_some_and(|mode| mode.value == "event");
    for key in [wire::BREAKER.name, wire::FALLBACK.name] {
        if is_event {
            section.report_key(key, format!("`{key}` is for calls; events have `retry`"));
        }
    }
    if !section.has(wire::BREAKER.name) {
        let why = "`fallback` answers while a breaker is open; add `breaker = {}`";
        section.report_key(wire::FALLBACK.name, why);
        return None;
    }
    let policy = section.section(&wire::BREAKER, &breaker::TABLE);
    let policy = BreakerPolicy::read(&policy, &BreakerPolicy::default());
    let fallback = section
        .has(wire::FALLBACK.name)
        .then(|| read_fallback(section, declared));
    Some(BreakerSpec {
        policy,
        fallback: fallback.flatten(),
    })
}

fn read_fallback(wire: &Section<'_>, declared: &[&str]) -> Option<Fallback> {
    let section = wire.section(&wire::FALLBACK, &fallback::TABLE);
    match (
        section.text(&fallback::SERVICE),
        section.has(fallback::VALUES.name),
    ) {
        (Some(service), false) => {
            check_service(&section, service, declared);
            Some(Fallback::Service(service.value.to_owned()))
        }
        (None, true) => Some(Fallback::Values(read_values(&section, &fallback::VALUES))),
        _ => {
            section
                .report_here("accepted: either `service = \"…\"` or `values = { FUNCTION = … }`");
            None
        }
    }
}
