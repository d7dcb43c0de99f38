//! `[gateway.cors]`: pages of other origins that may call functions.

use std::time::Duration;

use serde::Serialize;

use super::file::{At, Section};
use super::keys::{METHODS, cors, gateway};
use super::values::serialize_duration;
use crate::text::shown;

/// Headers that pages may send unless others are named.
const HEADERS: [&str; 12] = [
    "authorization",
    "baggage",
    "content-type",
    "grpc-timeout",
    "idempotency-key",
    "last-event-id",
    "traceparent",
    "tracestate",
    "x-api-key",
    "x-grpc-web",
    "x-request-id",
    "x-user-agent",
];

/// Which pages may call functions, and how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct CorsSpec {
    /// The origins; `*` is any.
    pub origins: Vec<String>,
    /// The methods that their requests may have.
    pub methods: Vec<String>,
    /// The headers that their requests may have.
    pub headers: Vec<String>,
    /// Whether browsers send cookies and certificates along.
    pub credentials: bool,
    /// Time for which browsers remember all that.
    #[serde(serialize_with = "serialize_duration")]
    pub max_age: Duration,
}

/// Reads `cors` of the gateway's part.
pub(super) fn read(top: &Section<'_>) -> Option<CorsSpec> {
    if !top.has(gateway::CORS.name) {
        return None;
    }
    let section = top.section(&gateway::CORS, &cors::TABLE);
    section.require(&cors::ORIGINS);
    let check = |names: Vec<At<&str>>, key: &str, accepted: &str, fits: &dyn Fn(&str) -> bool| {
        let names = names.into_iter().inspect(|name| {
            if !fits(name.value) {
                let why = format!(
                    "`{key}`: `{}` is none; accepted: {accepted}",
                    shown(name.value)
                );
                section.report(name.at, why);
            }
        });
        names
            .map(|name| name.value.to_owned())
            .collect::<Vec<String>>()
    };
    let form = "`https://app.example.com`, with a port where it has one, or `*`";
    let origins = check(section.texts(&cors::ORIGINS), "origins", form, &is_origin);
    let known = |name: &str| METHODS.contains(&name);
    let methods = check(
        section.texts(&cors::METHODS),
        "methods",
        &METHODS.join(", "),
        &known,
    );
    let is_name = |name: &str| name.parse::<http::HeaderName>().is_ok();
    let headers = check(
        section.texts(&cors::HEADERS),
        "headers",
        "names of headers",
        &is_name,
    );
    let credentials = section.read_or_default(&cors::CREDENTIALS);
    if credentials && origins.iter().any(|origin| origin == "*") {
        let why = "`credentials` is for origins that are named, not for `*`: any page could act as its visitor";
        section.report_key(cors::CREDENTIALS.name, why);
    }
    let or = |given: Vec<String>, usual: &[&str]| match given.is_empty() {
        true => usual.iter().map(|name| (*name).to_owned()).collect(),
        false => given,
    };
    Some(CorsSpec {
        origins,
        methods: or(methods, &METHODS),
        headers: or(headers, &HEADERS),
        credentials,
        max_age: section.read_or_default(&cors::MAX_AGE),
    })
}

/// Whether a browser could send this as `Origin`.
fn is_origin(text: &str) -> bool {
    let rest = text
        .strip_prefix("https://")
        .or_else(|| text.strip_prefix("http://"));
    let is_host = |rest: &str| {
        let authority = rest.parse::<http::uri::Authority>();
        authority.is_ok_and(|authority| !authority.as_str().contains('@'))
    };
    text == "*" || rest.is_some_and(|rest| is_host(rest) && !rest.contains(char::is_uppercase))
}
