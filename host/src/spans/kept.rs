//! The last spans of a host, kept in its memory for whoever looks at them there.

use std::cmp::Reverse;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use opentelemetry::Value;
use opentelemetry::trace::{SpanId, Status, TraceId};
use serde::{Deserialize, Serialize};

use super::{Finished, SpanKind};

/// Spans that are kept; the oldest make room.
const CAPACITY: usize = 4_096;

/// Traces whose spans are kept for longer, because something was refused or failed in them.
const TELLING: usize = 512;

/// Spans of those that are kept beyond [`CAPACITY`].
const LONGER: usize = 2_048;

/// The last spans.
#[derive(Default)]
pub(super) struct Kept(Mutex<Last>);

#[derive(Default)]
struct Last {
    /// Of all traces, the oldest first.
    spans: VecDeque<Arc<Finished>>,
    /// Those which others took the place of there and whose traces tell something: a host that has much to do
    /// would forget within seconds what somebody looks for.
    longer: VecDeque<Arc<Finished>>,
    /// The last traces that do, in the order in which they did.
    telling: VecDeque<TraceId>,
    is_telling: HashSet<TraceId>,
}

impl Kept {
    pub(super) fn add(&self, finished: Arc<Finished>) {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let forgotten = last.add(finished);
        // Freed without the lock.
        drop((last, forgotten));
    }

    /// All of them, in the order in which they ended.
    pub(super) fn read(&self) -> Vec<Arc<Finished>> {
        let last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let all = last.longer.iter().chain(&last.spans);
        all.map(Arc::clone).collect()
    }
}

impl Last {
    /// Adds a span; returns the one that makes room for it.
    fn add(&mut self, finished: Arc<Finished>) -> Option<Arc<Finished>> {
        let trace = finished.span.span_context.trace_id();
        if finished.is_telling() && self.is_telling.insert(trace) {
            self.telling.push_back(trace);
            if self.telling.len() > TELLING
                && let Some(first) = self.telling.pop_front()
            {
                self.is_telling.remove(&first);
            }
        }
        self.spans.push_back(finished);
        if self.spans.len() <= CAPACITY {
            return None;
        }
        let oldest = self.spans.pop_front()?;
        let trace = oldest.span.span_context.trace_id();
        if !self.is_telling.contains(&trace) {
            return Some(oldest);
        }
        self.longer.push_back(oldest);
        if self.longer.len() > LONGER {
            return self.longer.pop_front();
        }
        None
    }
}

impl Finished {
    /// Whether it has failed, or returned an `err` value.
    fn is_telling(&self) -> bool {
        let mut attributes = self.span.attributes.iter();
        matches!(self.span.status, Status::Error { .. })
            || attributes.any(|pair| pair.key.as_str() == REFUSAL)
    }
}

/// A span as a host shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SpanRecord {
    /// The trace's id, 32 hexadecimal digits.
    pub trace: String,
    /// The span's own id, 16 hexadecimal digits.
    pub span: String,
    /// The id of the span that it is a part of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// The app.
    pub app: String,
    /// The service, pipeline, or `gateway`.
    pub service: String,
    /// `server`, `client`, `producer`, `consumer` or `internal`.
    pub kind: String,
    /// What was done.
    pub name: String,
    /// When it began, in microseconds since 1970.
    pub start_us: u64,
    /// How long it took, in microseconds.
    pub duration_us: u64,
    /// Why it failed, if it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// More of it, by OpenTelemetry's names.
    pub attributes: BTreeMap<String, String>,
}

/// A trace in a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TraceSummary {
    /// Its id.
    pub trace: String,
    /// The name of its first span.
    pub name: String,
    /// The service of its first span.
    pub service: String,
    /// When it began, in microseconds since 1970.
    pub start_us: u64,
    /// From its first span's begin to its last span's end, in microseconds.
    pub duration_us: u64,
    /// The number of its spans.
    pub spans: usize,
    /// The error of its innermost failed span.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The innermost `err` value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusal: Option<String>,
    /// All services with a span of it.
    pub services: Vec<String>,
}

impl TraceSummary {
    /// The traces of several hosts, the last begun first.
    pub(crate) fn merge(parts: impl IntoIterator<Item = Self>) -> Vec<Self> {
        let mut traces: BTreeMap<String, Self> = BTreeMap::new();
        for part in parts {
            match traces.entry(part.trace.clone()) {
                Entry::Vacant(entry) => {
                    entry.insert(part);
                }
                Entry::Occupied(mut entry) => entry.get_mut().add(part),
            }
        }
        let mut traces: Vec<_> = traces.into_values().collect();
        traces.sort_by_key(|trace| Reverse(trace.start_us));
        traces
    }

    fn add(&mut self, mut other: Self) {
        if other.start_us < self.start_us {
            std::mem::swap(self, &mut other);
        }
        // The part that began later is further in.
        let end = (self.start_us + self.duration_us).max(other.start_us + other.duration_us);
        self.duration_us = end - self.start_us;
        self.spans += other.spans;
        self.error = other.error.or_else(|| self.error.take());
        self.refusal = other.refusal.or_else(|| self.refusal.take());
        self.services.append(&mut other.services);
        self.services.sort();
        self.services.dedup();
    }
}

/// The attribute with an `err` value.
pub(crate) const REFUSAL: &str = "wasmbay.err";

/// As spans have it.
pub(crate) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

impl SpanRecord {
    pub(super) fn of(finished: &Finished) -> Self {
        let Finished { origin, span } = finished;
        let context = &span.span_context;
        let began = span.start_time.duration_since(UNIX_EPOCH);
        let took = span.end_time.duration_since(span.start_time);
        let parent = span.parent_span_id;
        let attributes = span.attributes.iter().map(|pair| {
            let value = match &pair.value {
                Value::String(text) => text.to_string(),
                other => other.to_string(),
            };
            (pair.key.to_string(), value)
        });
        // Of a span that a guest has recorded.
        let events = span.events.iter().map(|event| {
            let more = event.attributes.iter();
            let more: Vec<_> = more
                .map(|pair| format!("{}={}", pair.key, pair.value))
                .collect();
            (format!("event {}", event.name), more.join(", "))
        });
        let attributes: BTreeMap<_, _> = attributes.chain(events).collect();
        Self {
            trace: context.trace_id().to_string(),
            span: context.span_id().to_string(),
            parent: (parent != SpanId::INVALID).then(|| parent.to_string()),
            app: origin.app.clone(),
            service: origin.service.clone(),
            kind: match span.span_kind {
                SpanKind::Server => "server",
                SpanKind::Client => "client",
                SpanKind::Producer => "producer",
                SpanKind::Consumer => "consumer",
                SpanKind::Internal => "internal",
            }
            .to_owned(),
            name: span.name.to_string(),
            start_us: began.map_or(0, micros),
            duration_us: took.map_or(0, micros),
            error: match &span.status {
                // The gateway's own span has no more than its status.
                Status::Error { description } if description.is_empty() => {
                    Some(attributes.get("error.type").cloned().unwrap_or_default())
                }
                Status::Error { description } => Some(description.to_string()),
                Status::Unset | Status::Ok => None,
            },
            attributes,
        }
    }

    fn end_us(&self) -> u64 {
        self.start_us.saturating_add(self.duration_us)
    }
}

/// The traces that spans belong to, the last begun first.
pub(crate) fn summarise(spans: &[SpanRecord]) -> Vec<TraceSummary> {
    let mut traces: BTreeMap<&str, Vec<&SpanRecord>> = BTreeMap::new();
    for span in spans {
        traces.entry(&span.trace).or_default().push(span);
    }
    let summaries = traces.into_iter().filter_map(|(trace, mut spans)| {
        spans.sort_by_key(|span| (span.start_us, Reverse(span.duration_us)));
        let first = spans.first()?;
        let end = spans.iter().map(|span| span.end_us()).max()?;
        let mut services: Vec<_> = spans.iter().map(|span| span.service.clone()).collect();
        services.sort();
        services.dedup();
        // A failure goes from the inside out, so the last to begin says most.
        let error = spans.iter().rev().find_map(|span| span.error.clone());
        let refusals = spans.iter().rev();
        let mut refusal = refusals.filter_map(|span| span.attributes.get(REFUSAL));
        Some(TraceSummary {
            trace: trace.to_owned(),
            name: first.name.clone(),
            service: first.service.clone(),
            start_us: first.start_us,
            duration_us: end.saturating_sub(first.start_us),
            spans: spans.len(),
            refusal: refusal.next().cloned(),
            error,
            services,
        })
    });
    let mut summaries: Vec<_> = summaries.collect();
    summaries.sort_by_key(|trace| Reverse(trace.start_us));
    summaries
}

/// Now, as spans have it.
pub(crate) fn now_us() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, micros)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(trace: &str, service: &str, start_us: u64, duration_us: u64) -> SpanRecord {
        SpanRecord {
            trace: trace.to_owned(),
            span: format!("{start_us:016x}"),
            parent: None,
            app: "shop".to_owned(),
            service: service.to_owned(),
            kind: "server".to_owned(),
            name: format!("of {service}"),
            start_us,
            duration_us,
            error: None,
            attributes: BTreeMap::new(),
        }
    }

    #[test]
    fn a_trace_is_named_by_its_first_span_and_says_the_innermost_error() {
        let inner = SpanRecord {
            error: Some("it trapped".to_owned()),
            ..span("a", "payment", 30, 10)
        };
        let outer = SpanRecord {
            error: Some("a dependency failed".to_owned()),
            ..span("a", "orders", 10, 40)
        };
        // Spans end from the inside out.
        let found = summarise(&[inner, outer, span("b", "catalog", 60, 1)]);
        let [newest, failed] = &*found else {
            unreachable!("{found:?}")
        };
        assert_eq!((&*newest.name, newest.spans), ("of catalog", 1));
        assert_eq!((&*failed.name, failed.duration_us), ("of orders", 40));
        assert_eq!(failed.error.as_deref(), Some("it trapped"));
        assert_eq!(failed.services, ["orders", "payment"]);
    }

    #[test]
    fn parts_of_a_trace_on_several_hosts_are_one() {
        let first = summarise(&[span("a", "gateway", 10, 40)]);
        let failed = SpanRecord {
            error: Some("it trapped".to_owned()),
            ..span("a", "orders", 20, 60)
        };
        let second = summarise(&[failed, span("b", "orders", 90, 1)]);
        for order in [[&first, &second], [&second, &first]] {
            let merged = TraceSummary::merge(order.into_iter().flatten().cloned());
            assert_eq!(merged.len(), 2);
            let trace = &merged[1];
            assert_eq!((&*trace.service, trace.start_us), ("gateway", 10));
            assert_eq!((trace.duration_us, trace.spans), (70, 2));
            assert_eq!(trace.error.as_deref(), Some("it trapped"));
        }
    }

    #[test]
    fn an_err_value_is_shown() {
        let mut refused = span("a", "payment", 30, 10);
        let value = (REFUSAL.to_owned(), "\"declined\"".to_owned());
        refused.attributes.extend([value]);
        let found = summarise(&[refused]);
        assert_eq!(found[0].refusal.as_deref(), Some("\"declined\""));
    }
}
