//! `wasi:otel`: what a guest records of its work itself, added to what the host records of it: spans within
//! that of its call, log records, and metrics.
//!
//! Whether a trace is recorded stays the host's decision. A span is taken if it is of the call's own trace;
//! while it is open, what the guest calls is within it.

mod figures;
mod values;

use opentelemetry::trace::{
    Event, Link, SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceState,
};
use opentelemetry_sdk::trace::{SpanEvents, SpanLinks};
use serde_json::{Map, Value};
use wasmtime::component::{HasData, Linker};

use super::caller::CurrentCall;
use super::http::GuestHttp;
use super::{Caller, CallerView, logging};
use crate::spans::SpanData;
use crate::telemetry;
use values::{MAX_VALUE, attributes, context_of, cut, json_of, scope, text_of, time};

mod bindings {
    wasmtime::component::bindgen!({
        path: "../wit",
        inline: "
            package wasmbay:host;
            world otel {
                import wasi:otel/tracing@0.2.0-rc.2;
                import wasi:otel/logs@0.2.0-rc.2;
                import wasi:otel/metrics@0.2.0-rc.2;
            }
        ",
        world: "wasmbay:host/otel",
    });
}

use bindings::wasi::otel::{logs, metrics, tracing as spans, types};

/// Spans that a guest may have open within a call; what it begins beyond them changes nothing.
const MAX_OPEN: usize = 64;

/// Events and links of a span; more are dropped and counted, as in OpenTelemetry's SDKs.
const MAX_ITEMS: usize = 128;

/// What the interface needs of a store.
pub(crate) struct OtelCtxView<'a> {
    pub(crate) caller: &'a mut Caller,
    pub(crate) http: &'a mut GuestHttp,
}

/// Gives the interface access to an [`OtelCtxView`] in a store.
pub(crate) trait OtelView: CallerView {
    fn otel(&mut self) -> OtelCtxView<'_>;
}

struct Access;

impl HasData for Access {
    type Data<'a> = OtelCtxView<'a>;
}

/// `wasi:otel`.
pub(crate) fn add_to_linker<T: OtelView>(linker: &mut Linker<T>) -> wasmtime::Result<()> {
    // It has types only, and is an import nonetheless.
    linker.instance("wasi:otel/types@0.2.0-rc.2")?;
    spans::add_to_linker::<T, Access>(linker, T::otel)?;
    logs::add_to_linker::<T, Access>(linker, T::otel)?;
    metrics::add_to_linker::<T, Access>(linker, T::otel)
}

/// The spans that a guest has begun within its call, each with the parent that there was before.
#[derive(Default)]
pub(crate) struct OpenSpans(Vec<(SpanId, Option<String>)>);

impl CurrentCall {
    /// The span of the call itself.
    fn outer(&self) -> Option<SpanContext> {
        let outer = self.spans.0.first().map(|(_, before)| before);
        context_of(outer.unwrap_or(&self.trace.parent).as_deref()?)
    }

    /// Whether it is of the call's trace, and that is recorded.
    fn is_recorded(&self, context: &spans::SpanContext) -> bool {
        let outer = self.outer().filter(SpanContext::is_sampled);
        outer.is_some_and(|outer| outer.trace_id().to_string() == context.trace_id)
    }

    fn open(&mut self, context: &spans::SpanContext) {
        if self.spans.0.len() >= MAX_OPEN || !self.is_recorded(context) {
            return;
        }
        let Ok(id) = SpanId::from_hex(&context.span_id) else {
            return;
        };
        if id == SpanId::INVALID || context.span_id.len() != 16 {
            return;
        }
        let parent = format!("00-{}-{id:016x}-01", context.trace_id);
        let before = self.trace.parent.replace(parent);
        self.spans.0.push((id, before));
    }

    /// Spans end in any order: what was begun within one goes on in the one around it.
    fn close(&mut self, id: SpanId) {
        let Some(at) = self.spans.0.iter().rposition(|(open, _)| *open == id) else {
            return;
        };
        let (_, before) = self.spans.0.remove(at);
        match self.spans.0.get_mut(at) {
            Some((_, inner)) => *inner = before,
            None => self.trace.parent = before,
        }
    }
}

impl OtelCtxView<'_> {
    /// The call, unless the guest does what it did before.
    fn call(&mut self) -> Option<&mut CurrentCall> {
        if self.caller.is_replaying() {
            return None;
        }
        self.caller.call.as_mut()
    }

    /// Says to what else follows the trace within which span the guest is.
    fn follow(&mut self) {
        if let Some(call) = &self.caller.call {
            self.http.follow(&call.trace);
            telemetry::set_current_trace(call.trace.ids());
        }
    }
}

impl spans::Host for OtelCtxView<'_> {
    fn on_start(&mut self, context: spans::SpanContext) {
        if let Some(call) = self.call() {
            call.open(&context);
            self.follow();
        }
    }

    fn on_end(&mut self, span: spans::SpanData) {
        let Some(call) = self.call() else {
            return;
        };
        let (Ok(id), true) = (
            SpanId::from_hex(&span.span_context.span_id),
            call.is_recorded(&span.span_context),
        ) else {
            return;
        };
        call.close(id);
        self.follow();
        let Some(data) = span_data(span) else {
            return;
        };
        if self.caller.output.admits(size_of_span(&data)) {
            self.caller.tracer.add(data);
        }
    }

    fn outer_span_context(&mut self) -> spans::SpanContext {
        let call = self.caller.call.as_ref();
        let outer = call.and_then(CurrentCall::outer);
        let outer = outer.unwrap_or(SpanContext::NONE);
        spans::SpanContext {
            trace_id: outer.trace_id().to_string(),
            span_id: outer.span_id().to_string(),
            trace_flags: if outer.is_sampled() {
                spans::TraceFlags::SAMPLED
            } else {
                spans::TraceFlags::empty()
            },
            is_remote: true,
            trace_state: Vec::new(),
        }
    }
}

/// Bytes of text of a span, about.
fn size_of_span(span: &SpanData) -> usize {
    let of = |attributes: &[opentelemetry::KeyValue]| -> usize {
        let sizes = attributes
            .iter()
            .map(|pair| pair.key.as_str().len() + pair.value.as_str().len());
        sizes.sum()
    };
    let events = span.events.iter();
    let events = events.map(|event| event.name.len() + of(&event.attributes));
    let state = |context: &SpanContext| context.trace_state().header().len();
    let links = span.links.iter();
    let links = links.map(|link| state(&link.span_context) + of(&link.attributes));
    let scope = &span.instrumentation_scope;
    let scope: usize = scope.name().len()
        + scope
            .attributes()
            .map(|pair| pair.key.as_str().len() + pair.value.as_str().len())
            .sum::<usize>();
    let why = match &span.status {
        Status::Error { description } => description.len(),
        Status::Ok | Status::Unset => 0,
    };
    let own = span.name.len() + state(&span.span_context) + of(&span.attributes);
    own + why + scope + events.sum::<usize>() + links.sum::<usize>()
}

/// `None` for ids that are none.
fn span_data(span: spans::SpanData) -> Option<SpanData> {
    let own = remote(&span.span_context)?;
    let parent = SpanId::from_hex(&span.parent_span_id).unwrap_or(SpanId::INVALID);
    let (attributes, dropped) = attributes(span.attributes);
    let mut events = SpanEvents::default();
    let total = span.events.len();
    for event in span.events.into_iter().take(MAX_ITEMS) {
        let (attributes, dropped) = values::attributes(event.attributes);
        let (name, time) = (cut(event.name, MAX_VALUE), time(&event.time));
        events
            .events
            .push(Event::new(name, time, attributes, dropped));
    }
    let lost = u32::try_from(total - events.events.len()).unwrap_or(u32::MAX);
    events.dropped_count = span.dropped_events.saturating_add(lost);
    let mut links = SpanLinks::default();
    let total = span.links.len();
    for link in span.links.into_iter().take(MAX_ITEMS) {
        let (attributes, dropped) = values::attributes(link.attributes);
        if let Some(context) = remote(&link.span_context) {
            links.links.push(Link::new(context, attributes, dropped));
        }
    }
    let lost = u32::try_from(total - links.links.len()).unwrap_or(u32::MAX);
    links.dropped_count = span.dropped_links.saturating_add(lost);
    Some(SpanData {
        span_context: own,
        parent_span_id: parent,
        parent_span_is_remote: false,
        span_kind: match span.span_kind {
            spans::SpanKind::Client => SpanKind::Client,
            spans::SpanKind::Server => SpanKind::Server,
            spans::SpanKind::Producer => SpanKind::Producer,
            spans::SpanKind::Consumer => SpanKind::Consumer,
            spans::SpanKind::Internal => SpanKind::Internal,
        },
        name: cut(span.name, MAX_VALUE).into(),
        start_time: time(&span.start_time),
        end_time: time(&span.end_time),
        attributes,
        dropped_attributes_count: span.dropped_attributes.saturating_add(dropped),
        events,
        links,
        status: match span.status {
            spans::Status::Unset => Status::Unset,
            spans::Status::Ok => Status::Ok,
            spans::Status::Error(why) => Status::error(cut(why, MAX_VALUE)),
        },
        instrumentation_scope: scope(span.instrumentation_scope),
    })
}

/// `None` for ids that are none.
fn remote(context: &spans::SpanContext) -> Option<SpanContext> {
    let sampled = context.trace_flags.contains(spans::TraceFlags::SAMPLED);
    let state = context.trace_state.iter().map(|(key, value)| (key, value));
    let found = SpanContext::new(
        opentelemetry::trace::TraceId::from_hex(&context.trace_id).ok()?,
        SpanId::from_hex(&context.span_id).ok()?,
        if sampled {
            TraceFlags::SAMPLED
        } else {
            TraceFlags::default()
        },
        context.is_remote,
        TraceState::from_key_value(state).unwrap_or_default(),
    );
    found.is_valid().then_some(found)
}

impl logs::Host for OtelCtxView<'_> {
    fn on_emit(&mut self, record: logs::LogRecord) {
        if self.caller.is_replaying() {
            return;
        }
        // The first number of each of the four of a level.
        let level = match record.severity_number.unwrap_or(9) {
            0..=4 => tracing::Level::TRACE,
            5..=8 => tracing::Level::DEBUG,
            9..=12 => tracing::Level::INFO,
            13..=16 => tracing::Level::WARN,
            _ => tracing::Level::ERROR,
        };
        let message = record.body.as_deref().map(text_of).unwrap_or_default();
        let scope = record.instrumentation_scope;
        let context = scope.map(|scope| scope.name).unwrap_or_default();
        let mut more: Map<String, Value> = record
            .attributes
            .into_iter()
            .flatten()
            .take(MAX_ITEMS)
            .map(|pair| (pair.key, json_of(&pair.value)))
            .collect();
        if let Some(event) = record.event_name {
            more.insert("event.name".to_owned(), event.into());
        }
        let attributes = (!more.is_empty()).then(|| Value::Object(more).to_string());
        let call = self.caller.call.as_ref();
        let within = call.and_then(|call| call.trace.ids());
        // A record may be of a span that is not the innermost.
        let own = record.span_id.as_deref().map(SpanId::from_hex);
        let within = match (within, own) {
            (Some((trace, _)), Some(Ok(own))) if own != SpanId::INVALID => {
                Some((trace, u64::from_be_bytes(own.to_bytes())))
            }
            (within, _) => within,
        };
        let outside = telemetry::set_current_trace(within);
        let output = &self.caller.output;
        logging::write(level, output, &context, attributes.as_deref(), &message);
        telemetry::set_current_trace(outside);
    }
}

impl metrics::Host for OtelCtxView<'_> {
    fn export(&mut self, metrics: metrics::ResourceMetrics) -> Result<(), String> {
        if self.caller.is_replaying() || !self.caller.tracer.takes_metrics() {
            return Ok(());
        }
        let (metrics, size) = figures::exported(metrics);
        if !self.caller.output.admits(size) {
            return Err("the service has sent as much as it may in a second".to_owned());
        }
        let caller = &mut *self.caller;
        let instance = caller
            .instance
            .get_or_insert_with(|| format!("{:016x}", rand::random::<u64>()));
        caller.tracer.add_metrics(instance, metrics);
        Ok(())
    }
}
