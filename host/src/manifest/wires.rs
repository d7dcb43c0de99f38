//! `[wire."…"]` and `[service.NAME.wire]`: the choice of who answers an interface.

use std::collections::BTreeMap;

use serde::ser::SerializeMap as _;
use serde::{Serialize, Serializer};
use toml::de::DeValue;

use super::breakers::{self, BreakerSpec};
use super::events::{self, EventSpec};
use super::file::{At, Section};
use super::grpc::{self, GrpcAddress, GrpcSpec};
use super::keys::{app, service, wire};
use super::nest::{self, NestSpec};
use super::services::check_service;
use crate::interface::InterfaceId;

/// The choice of who answers an interface.
#[derive(Clone, Debug, PartialEq)]
pub struct Wire {
    /// The interface; without a version, all of its versions.
    pub interface: InterfaceId,
    /// Who answers.
    pub provider: Provider,
    /// The way of calls whose callee is on the caller's host.
    pub local: LocalCall,
    /// When calls are not sent because too many have failed.
    pub breaker: Option<BreakerSpec>,
}

/// The way of calls whose callee is on the caller's host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LocalCall {
    /// In the process.
    #[default]
    Prefer,
    /// Over NATS, as from any other host.
    Never,
}

/// Who answers an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Provider {
    /// The one service that exports the interface.
    Exporter,
    /// The service of that name.
    Service(String),
    /// Something that is not in this app.
    External,
    /// A NestJS microservice.
    Nest(NestSpec),
    /// A gRPC service.
    Grpc(GrpcSpec),
    /// No service answers: what is imported are events, for every service that exports the interface.
    Events(Box<EventSpec>),
}

impl Provider {
    /// Whether nothing of this app answers.
    #[must_use]
    pub const fn is_external(&self) -> bool {
        matches!(self, Self::External | Self::Nest(_) | Self::Grpc(_))
    }
}

impl Serialize for Wire {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if let Provider::Events(spec) = &self.provider {
            return spec.serialize(serializer);
        }
        let mut map = serializer.serialize_map(None)?;
        match &self.provider {
            Provider::Service(name) => map.serialize_entry(wire::SERVICE.name, name)?,
            Provider::External => map.serialize_entry(wire::EXTERNAL.name, &true)?,
            Provider::Nest(spec) => {
                map.serialize_entry(wire::EXTERNAL.name, NEST)?;
                for (name, value) in spec.entries() {
                    map.serialize_entry(name, &value)?;
                }
            }
            Provider::Grpc(spec) => {
                map.serialize_entry(wire::EXTERNAL.name, &spec.address.to_string())?;
                for (name, value) in spec.entries() {
                    map.serialize_entry(name, &value)?;
                }
            }
            Provider::Exporter | Provider::Events(_) => {}
        }
        match (self.local, &self.provider, &self.breaker) {
            (LocalCall::Never, _, _) => map.serialize_entry(wire::LOCAL.name, NEVER)?,
            // A wire says something.
            (LocalCall::Prefer, Provider::Exporter, None) => {
                map.serialize_entry(wire::LOCAL.name, PREFER)?;
            }
            (LocalCall::Prefer, _, _) => {}
        }
        if let Some(breaker) = &self.breaker {
            map.serialize_entry(wire::BREAKER.name, &breaker.policy)?;
            if let Some(fallback) = &breaker.fallback {
                map.serialize_entry(wire::FALLBACK.name, fallback)?;
            }
        }
        map.end()
    }
}

const NEST: &str = "nest";
const PREFER: &str = "prefer";
const NEVER: &str = "never";

/// Reads all wires of the app.
pub(super) fn read(top: &Section<'_>, declared: &[&str]) -> Vec<Wire> {
    let mut wires: Vec<Wire> = Vec::new();
    for (name, section) in top.named(&app::WIRE, &wire::TABLE) {
        let mode = section.one_of(&wire::MODE);
        let provider = match mode {
            Some(mode) if mode.value == "event" => Some(events::read(&section, declared)),
            None if section.has(wire::MODE.name) => None,
            _ => read_provider(&section, declared),
        };
        let interface: InterfaceId = match name.value.parse() {
            Ok(interface) => interface,
            Err(error) => {
                section.report(name.at, error.to_string());
                continue;
            }
        };
        let mut others = wires.iter();
        if let Some(other) = others.find(|other| meet(&other.interface, &interface)) {
            section.report(
                name.at,
                format!(
                    "`{}` is wired already; keep one of the two",
                    other.interface
                ),
            );
        }
        let local = section.one_of(&wire::LOCAL);
        let local = if local.is_some_and(|local| local.value == NEVER) {
            LocalCall::Never
        } else {
            LocalCall::Prefer
        };
        let breaker = breakers::read(&section, declared);
        wires.extend(provider.map(|provider| Wire {
            interface,
            provider,
            local,
            breaker,
        }));
    }
    wires
}

/// Reads `[service.NAME.wire]`: who answers what this service imports.
pub(super) fn read_chosen(
    own: &str,
    section: &Section<'_>,
    declared: &[&str],
) -> BTreeMap<InterfaceId, String> {
    let mut chosen: BTreeMap<InterfaceId, String> = BTreeMap::new();
    for (name, exporter) in section.entries(&service::WIRE, DeValue::as_str) {
        let at = name.at;
        let interface: InterfaceId = match name.value.parse() {
            Ok(interface) => interface,
            Err(error) => {
                section.report(at, format!("`wire`: {error}"));
                continue;
            }
        };
        if let Some(other) = chosen.keys().find(|other| meet(other, &interface)) {
            section.report(
                at,
                format!("`wire`: `{other}` is wired already; keep one of the two"),
            );
        }
        if exporter == own {
            section.report(
                at,
                format!("`wire`: the service would call itself for `{interface}`; accepted: another service that exports it"),
            );
        }
        let value = exporter;
        check_service(section, At { value, at }, declared);
        chosen.insert(interface, exporter.to_owned());
    }
    chosen
}

/// Whether some interface is meant by both.
fn meet(one: &InterfaceId, other: &InterfaceId) -> bool {
    one.answers_to(other) || other.answers_to(one)
}

/// What `external` says of who answers.
enum Outside {
    Any,
    Nest,
    Grpc(GrpcAddress),
}

/// Reads a wire for calls.
fn read_provider(section: &Section<'_>, declared: &[&str]) -> Option<Provider> {
    for key in events::keys().chain([wire::NEST.name]) {
        section.report_key(
            key,
            format!("`{key}` is for events; accepted: with `mode = \"event\"`"),
        );
    }
    let service = section.text(&wire::SERVICE);
    let external = section.value(&wire::EXTERNAL, |value| match value {
        DeValue::Boolean(true) => Some(Outside::Any),
        DeValue::String(text) if text == NEST => Some(Outside::Nest),
        DeValue::String(text) => text.parse().ok().map(Outside::Grpc),
        _ => None,
    });
    let external = external.map(|external| external.value);
    let is_nest = matches!(external, Some(Outside::Nest));
    if !matches!(external, Some(Outside::Grpc(_))) {
        for key in [wire::PROTO_SERVICE.name, wire::METHODS.name] {
            section.report_key(key, format!("`{key}` is for `external = \"grpc://…\"`"));
        }
    }
    for key in [wire::PATTERNS.name, wire::STREAMS.name] {
        if !is_nest {
            section.report_key(key, format!("`{key}` is for `external = \"nest\"`"));
        }
    }
    match (
        section.has(wire::SERVICE.name),
        section.has(wire::EXTERNAL.name),
    ) {
        (true, false) => service.map(|service| {
            check_service(section, service, declared);
            Provider::Service(service.value.to_owned())
        }),
        (false, true) => {
            let why = "`local` is for interfaces that a service of the app exports";
            section.report_key(wire::LOCAL.name, why);
            match external? {
                Outside::Any => Some(Provider::External),
                Outside::Nest => nest::read_wire(section).map(Provider::Nest),
                Outside::Grpc(address) => Some(Provider::Grpc(grpc::read_wire(section, address))),
            }
        }
        (false, false)
            if section.has(wire::LOCAL.name)
                || section.has(wire::BREAKER.name)
                || section.has(wire::FALLBACK.name) =>
        {
            Some(Provider::Exporter)
        }
        _ => {
            section.report_here(
                "accepted: `service = \"…\"`, `external = true`, `breaker = {}` or `mode = \"event\"`",
            );
            None
        }
    }
}
