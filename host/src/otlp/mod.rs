//! Export to a collector of OpenTelemetry, by OTLP over HTTP, as the variables `OTEL_…` of the environment
//! want it. What is exported, and when, is for the rooms that have it: `spans`, `logs`, and the metrics of
//! the admin address.

mod client;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Uri};
use opentelemetry_http::HttpClient as _;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use percent_encoding::percent_decode_str;
use prost::Message;

pub(crate) use client::Client;

const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
const PROTOCOL: &str = "OTEL_EXPORTER_OTLP_PROTOCOL";
const HEADERS: &str = "OTEL_EXPORTER_OTLP_HEADERS";

const PROTOBUF: HeaderValue = HeaderValue::from_static("application/x-protobuf");

/// A variable of the environment has a value that is not supported.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{variable}={value}: {accepted} is accepted")]
pub struct OtlpError {
    variable: String,
    value: String,
    accepted: String,
}

impl OtlpError {
    pub(crate) fn new(variable: &str, value: &str, accepted: &str) -> Self {
        Self {
            variable: variable.to_owned(),
            value: value.to_owned(),
            accepted: accepted.to_owned(),
        }
    }
}

/// What is exported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signal {
    Traces,
    Metrics,
    Logs,
}

impl Signal {
    /// As variables have it.
    const fn word(self) -> &'static str {
        match self {
            Self::Traces => "TRACES",
            Self::Metrics => "METRICS",
            Self::Logs => "LOGS",
        }
    }

    fn own(self, variable: &str) -> String {
        let rest = variable.trim_start_matches("OTEL_EXPORTER_OTLP_");
        format!("OTEL_EXPORTER_OTLP_{}_{rest}", self.word())
    }
}

/// The environment: a variable that is set and empty is not set, by the specification.
pub(crate) struct Environment<'a>(pub(crate) &'a dyn Fn(&str) -> Option<String>);

impl Environment<'_> {
    pub(crate) fn get(&self, name: &str) -> Option<String> {
        self.0(name).filter(|value| !value.is_empty())
    }

    /// A variable of the signal, or that of all signals; with its name.
    fn of(&self, signal: Signal, variable: &str) -> Option<(String, String)> {
        let names = [signal.own(variable), variable.to_owned()];
        names
            .into_iter()
            .find_map(|name| self.get(&name).map(|value| (name, value)))
    }

    /// A number of 1 to a million.
    pub(crate) fn number(&self, name: &str, default: u32) -> Result<u32, OtlpError> {
        let Some(text) = self.get(name) else {
            return Ok(default);
        };
        match text.parse() {
            Ok(number) if (1..=1_000_000).contains(&number) => Ok(number),
            _ => Err(OtlpError::new(name, &text, "a number from 1 to 1000000")),
        }
    }

    /// The endpoint of a signal and the variable that says so; nothing for one that is not exported.
    ///
    /// # Errors
    ///
    /// A variable asks for what is not supported.
    pub(crate) fn endpoint(&self, signal: Signal) -> Result<Option<(String, String)>, OtlpError> {
        let disabled = self.get("OTEL_SDK_DISABLED");
        let disabled = disabled.is_some_and(|value| value.eq_ignore_ascii_case("true"));
        let Some(endpoint) = self.of(signal, ENDPOINT).filter(|_| !disabled) else {
            return Ok(None);
        };
        let variable = format!("OTEL_{}_EXPORTER", signal.word());
        match self.get(&variable).as_deref() {
            None | Some("otlp") => {}
            Some("none") => return Ok(None),
            Some(other) => return Err(OtlpError::new(&variable, other, "otlp or none")),
        }
        match self.of(signal, PROTOCOL) {
            Some((name, other)) if other != "http/protobuf" => {
                Err(OtlpError::new(&name, &other, "http/protobuf"))
            }
            _ => Ok(Some(endpoint)),
        }
    }
}

/// Sends what one signal exports.
pub(crate) struct Exporter {
    signal: Signal,
    client: Client,
    url: Uri,
    headers: HeaderMap,
    /// Whether the last export failed, which was told.
    failed: AtomicBool,
}

impl Exporter {
    /// The exporter that the environment asks for.
    ///
    /// # Errors
    ///
    /// A variable has a value that is not supported.
    pub(crate) fn new(
        signal: Signal,
        environment: &Environment<'_>,
    ) -> Result<Option<Self>, OtlpError> {
        let Some((variable, endpoint)) = environment.endpoint(signal)? else {
            return Ok(None);
        };
        // The URL of a signal is whole; that of all signals is what theirs are below.
        let url = if variable == ENDPOINT {
            let path = signal.word().to_lowercase();
            format!("{}/v1/{path}", endpoint.trim_end_matches('/'))
        } else {
            endpoint.clone()
        };
        // A login in it would be in every log record of a failure; headers have keys.
        let is_http = |uri: &Uri| {
            let login = uri
                .authority()
                .is_some_and(|host| host.as_str().contains('@'));
            matches!(uri.scheme_str(), Some("http" | "https")) && !login
        };
        let url: Option<Uri> = url.parse().ok().filter(is_http);
        let url = url.ok_or_else(|| {
            OtlpError::new(
                &variable,
                endpoint.split('@').next_back().unwrap_or_default(),
                "a URL such as http://localhost:4318",
            )
        })?;
        let mut headers = HeaderMap::new();
        if let Some((name, text)) = environment.of(signal, HEADERS) {
            read_headers(&text, &mut headers).ok_or_else(|| {
                // Values are secrets as often as not.
                OtlpError::new(&name, "…", "key=value joined by commas, with %-escapes")
            })?;
        }
        headers.insert(CONTENT_TYPE, PROTOBUF);
        Ok(Some(Self {
            signal,
            client: Client::default(),
            url,
            headers,
            failed: AtomicBool::new(false),
        }))
    }

    /// Sends a request; whether the collector took it. What it does not take is lost, which is told once
    /// until it takes something again.
    pub(crate) async fn send(&self, request: &impl Message) -> bool {
        let mut sent = Request::new(Bytes::from(request.encode_to_vec()));
        *sent.method_mut() = Method::POST;
        *sent.uri_mut() = self.url.clone();
        *sent.headers_mut() = self.headers.clone();
        let outcome = match self.client.send_bytes(sent).await {
            Ok(answer) if answer.status().is_success() => Ok(()),
            Ok(answer) => Err(format!("{}: status {}", self.url, answer.status())),
            Err(error) => Err(self.client.take_failure().unwrap_or(error.to_string())),
        };
        let signal = self.signal.word().to_lowercase();
        let failed = self.failed.swap(outcome.is_err(), Ordering::Relaxed);
        match outcome {
            Ok(()) if failed => tracing::info!(signal, "what is exported is taken again"),
            Ok(()) => {}
            Err(error) if !failed => {
                tracing::warn!(signal, %error, "what is exported is not taken, and lost");
            }
            Err(error) => tracing::debug!(signal, %error, "not taken"),
        }
        !self.failed.load(Ordering::Relaxed)
    }
}

/// Reads `key=value` joined by commas, as W3C's baggage has it.
fn read_headers(text: &str, headers: &mut HeaderMap) -> Option<()> {
    for pair in text.split(',').filter(|pair| !pair.trim().is_empty()) {
        let (name, value) = pair.split_once('=')?;
        let name: HeaderName = name.trim().parse().ok()?;
        let value = percent_decode_str(value.trim()).decode_utf8().ok()?;
        headers.insert(name, HeaderValue::from_str(&value).ok()?);
    }
    Some(())
}

/// What the exported is of: a service, with the attributes that the environment adds.
pub(crate) fn resource(service: &str, more: &[(&str, &str)]) -> Resource {
    let detected = opentelemetry_sdk::Resource::builder()
        .with_service_name(service.to_owned())
        .build();
    let own = |name: &str| more.iter().any(|(key, _)| *key == name);
    let attributes = detected.iter().filter(|(key, _)| !own(key.as_str()));
    let mut attributes: Vec<_> = attributes
        .map(|(key, value)| attribute(key.as_str(), &*value.as_str()))
        .collect();
    attributes.extend(more.iter().map(|(key, value)| attribute(key, *value)));
    Resource {
        attributes,
        ..Resource::default()
    }
}

pub(crate) fn attribute(key: &str, value: impl Into<String>) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(text(value)),
        ..KeyValue::default()
    }
}

pub(crate) fn text(value: impl Into<String>) -> AnyValue {
    AnyValue {
        value: Some(Value::StringValue(value.into())),
    }
}

/// The bytes of hexadecimal digits; none of what is none.
pub(crate) fn bytes(hex: Option<&str>) -> Vec<u8> {
    let digits = hex.unwrap_or_default().as_bytes();
    let pairs = digits.chunks_exact(2);
    let byte = |pair: &[u8]| u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok();
    pairs.map(byte).collect::<Option<_>>().unwrap_or_default()
}

/// Nanoseconds since 1970.
pub(crate) fn nanoseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exporter(variables: &[(&str, &str)]) -> Result<Option<Exporter>, String> {
        let get = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        Exporter::new(Signal::Logs, &Environment(&get)).map_err(|error| error.to_string())
    }

    #[test]
    fn an_endpoint_is_whole_or_what_the_signals_are_below() {
        let url = |variables: &[(&str, &str)]| {
            let exporter = exporter(variables).unwrap();
            exporter.map(|exporter| exporter.url.to_string())
        };
        let all = (ENDPOINT, "http://127.0.0.1:1/below/");
        assert_eq!(url(&[]), None);
        assert_eq!(url(&[(ENDPOINT, "")]), None);
        assert_eq!(
            url(&[all]).as_deref(),
            Some("http://127.0.0.1:1/below/v1/logs")
        );
        let own = ("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "https://other/x");
        assert_eq!(url(&[all, own]).as_deref(), Some("https://other/x"));
        for none in [
            ("OTEL_SDK_DISABLED", "true"),
            ("OTEL_LOGS_EXPORTER", "none"),
        ] {
            assert_eq!(url(&[all, none]), None, "{none:?}");
        }
        assert!(url(&[all, ("OTEL_TRACES_EXPORTER", "none")]).is_some());
    }

    #[test]
    fn headers_are_read_and_what_is_not_supported_is_named() {
        let all = (ENDPOINT, "http://127.0.0.1:1");
        let read = exporter(&[all, (HEADERS, "x-key=se%20cret, Other=2")]);
        let headers = read.unwrap().unwrap().headers;
        assert_eq!(
            (&headers["x-key"], &headers["other"]),
            (&"se cret".parse().unwrap(), &"2".parse().unwrap())
        );
        for (name, value, expected) in [
            (
                "OTEL_LOGS_EXPORTER",
                "console",
                "OTEL_LOGS_EXPORTER=console: otlp or none is accepted",
            ),
            (
                PROTOCOL,
                "grpc",
                "OTEL_EXPORTER_OTLP_PROTOCOL=grpc: http/protobuf is accepted",
            ),
            (
                HEADERS,
                "key",
                "OTEL_EXPORTER_OTLP_HEADERS=…: key=value joined by commas, with %-escapes is accepted",
            ),
            (
                "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT",
                "localhost:4318",
                "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT=localhost:4318: a URL such as http://localhost:4318 is accepted",
            ),
        ] {
            assert_eq!(
                exporter(&[all, (name, value)]).err().as_deref(),
                Some(expected)
            );
        }
    }
}
