//! Values of `wasi:otel`, which are JSON, as OpenTelemetry has them; within bounds.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};
use opentelemetry::{Array, InstrumentationScope, KeyValue, StringValue, Value};

use super::bindings::wasi::clocks::wall_clock::Datetime;
use super::types;

/// Attributes of a span, an event, or a link; more are dropped and counted, as in OpenTelemetry's SDKs.
const MAX_ATTRIBUTES: usize = 128;

/// Bytes of a name or a value; more are cut off.
pub(super) const MAX_VALUE: usize = 4 << 10;

/// The text up to so many bytes. What is cut off is given back: spans wait and are kept.
pub(super) fn cut(mut text: String, most: usize) -> String {
    text.truncate(text.floor_char_boundary(most));
    text.shrink_to_fit();
    text
}

/// Attributes, and how many were dropped.
pub(super) fn attributes(pairs: Vec<types::KeyValue>) -> (Vec<KeyValue>, u32) {
    let dropped = pairs.len().saturating_sub(MAX_ATTRIBUTES);
    let kept = pairs.into_iter().take(MAX_ATTRIBUTES);
    let kept = kept.map(|pair| KeyValue::new(cut(pair.key, MAX_VALUE), value(&pair.value)));
    (kept.collect(), u32::try_from(dropped).unwrap_or(u32::MAX))
}

/// A value, or the text of what is no JSON.
fn value(json: &str) -> Value {
    match json_of(json) {
        serde_json::Value::Bool(value) => value.into(),
        serde_json::Value::Number(number) => match number.as_i64() {
            Some(number) => number.into(),
            None => number.as_f64().unwrap_or(f64::NAN).into(),
        },
        serde_json::Value::String(text) => cut(text, MAX_VALUE).into(),
        serde_json::Value::Array(items) => array(&items)
            .map(Value::Array)
            .unwrap_or_else(|| cut(json.to_owned(), MAX_VALUE).into()),
        other => cut(other.to_string(), MAX_VALUE).into(),
    }
}

/// An array whose items are of one kind; OpenTelemetry has no others.
fn array(items: &[serde_json::Value]) -> Option<Array> {
    let all = items.iter().take(MAX_ATTRIBUTES);
    match items.first()? {
        serde_json::Value::Bool(_) => Some(Array::Bool(
            all.map(|item| item.as_bool()).collect::<Option<_>>()?,
        )),
        serde_json::Value::String(_) => {
            let text = |item: &serde_json::Value| {
                let text = item.as_str()?.to_owned();
                Some(StringValue::from(cut(text, MAX_VALUE)))
            };
            Some(Array::String(all.map(text).collect::<Option<_>>()?))
        }
        serde_json::Value::Number(_) => {
            let integers: Option<_> = all.clone().map(|item| item.as_i64()).collect();
            match integers {
                Some(integers) => Some(Array::I64(integers)),
                None => Some(Array::F64(
                    all.map(|item| item.as_f64()).collect::<Option<_>>()?,
                )),
            }
        }
        _ => None,
    }
}

/// What is no JSON is a text.
pub(super) fn json_of(json: &str) -> serde_json::Value {
    serde_json::from_str(json).unwrap_or_else(|_| json.into())
}

/// A text without its quotes, and all else as JSON.
pub(super) fn text_of(json: &str) -> String {
    match json_of(json) {
        serde_json::Value::String(text) => text,
        _ => json.to_owned(),
    }
}

/// What lies beyond the clock's range is its beginning.
pub(super) fn time(time: &Datetime) -> SystemTime {
    let since = Duration::from_secs(time.seconds)
        .checked_add(Duration::from_nanos(time.nanoseconds.into()))
        .unwrap_or_default();
    UNIX_EPOCH.checked_add(since).unwrap_or(UNIX_EPOCH)
}

pub(super) fn scope(scope: types::InstrumentationScope) -> InstrumentationScope {
    let mut built = InstrumentationScope::builder(cut(scope.name, MAX_VALUE))
        .with_attributes(attributes(scope.attributes).0);
    if let Some(version) = scope.version {
        built = built.with_version(cut(version, MAX_VALUE));
    }
    if let Some(url) = scope.schema_url {
        built = built.with_schema_url(cut(url, MAX_VALUE));
    }
    built.build()
}

/// The span of a `traceparent`.
pub(super) fn context_of(parent: &str) -> Option<SpanContext> {
    let sampled = parent
        .get(53..55)
        .and_then(|flags| u8::from_str_radix(flags, 16).ok())?;
    let context = SpanContext::new(
        TraceId::from_hex(parent.get(3..35)?).ok()?,
        SpanId::from_hex(parent.get(36..52)?).ok()?,
        TraceFlags::new(sampled & 1),
        true,
        TraceState::NONE,
    );
    Some(context)
}
