//! Spans of OpenTelemetry: what a host did for a trace, and for how long.
//!
//! A `Span` begins where a call does and ends with its outcome. Whether it is recorded follows from
//! the caller's `traceparent` or from the sampler, before anything is written down: a call of a trace
//! that is not sampled costs a look at its flags, and a host without an exporter not even that. What
//! fails or takes long is recorded all the same when it ends, without the calls below it.
//!
//! Finished spans go through a bounded queue to a thread of their own (`otlp`), which exports them. A
//! full queue loses spans and counts them; it never holds up a call. A host that somebody may look at
//! keeps the last of them in memory (`kept`), exporter or not. Metrics that guests have collected go the
//! same way to the same collector.

mod clock;
mod kept;
mod otlp;
mod sampler;

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use opentelemetry::InstrumentationScope;
use opentelemetry::trace::{SpanContext, SpanId, Status, TraceFlags, TraceId, TraceState};
use opentelemetry_proto::tonic::metrics::v1::{ResourceMetrics, ScopeMetrics};
pub(crate) use opentelemetry_sdk::trace::SpanData;
use opentelemetry_sdk::trace::{SpanEvents, SpanLinks};
use tokio::sync::{mpsc, oneshot};

use clock::Clock;
use kept::Kept;
pub(crate) use kept::{REFUSAL, micros, now_us, summarise};
pub use kept::{SpanRecord, TraceSummary};
pub(crate) use opentelemetry::KeyValue;
pub(crate) use opentelemetry::trace::SpanKind;
use sampler::Sampler;

use crate::call::{Blame, CallError, Code, Trace, traceparent};
use crate::otlp::{Environment, OtlpError, resource};

/// Duration from which a call is recorded although its trace is not sampled.
pub const SLOW: Duration = Duration::from_secs(1);

/// Records spans, or nothing. Cheap to clone.
#[derive(Clone, Default)]
pub struct Spans {
    recorder: Option<Arc<Recorder>>,
    /// To the exporter, if it takes the metrics of guests.
    metrics: Option<mpsc::Sender<Command>>,
}

/// Samples, and passes on what has finished.
struct Recorder {
    sampler: Sampler,
    /// To the exporter, if there is one.
    queue: Option<mpsc::Sender<Command>>,
    lost: AtomicU64,
    clock: Clock,
    kept: Option<Kept>,
}

/// What the exporting thread is told.
enum Command {
    Export(Arc<Finished>),
    /// Metrics of a guest.
    Metrics(Box<ResourceMetrics>),
    /// Export everything so far, and say so.
    Flush(oneshot::Sender<()>),
}

#[derive(Clone)]
struct Finished {
    origin: Arc<Origin>,
    span: SpanData,
}

/// Whose spans they are: `service.namespace` and `service.name` of their resource.
#[derive(Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Origin {
    app: String,
    service: String,
}

/// Records the spans of one service, or of a gateway.
pub(crate) struct Tracer {
    spans: Spans,
    origin: Arc<Origin>,
}

/// A span that has begun.
#[must_use]
pub(crate) struct Span<'t>(Option<Begun<'t>>);

struct Begun<'t> {
    recorder: &'t Recorder,
    origin: &'t Arc<Origin>,
    started: Instant,
    trace: TraceId,
    /// Invalid in the first span of a trace.
    parent: SpanId,
    /// `None` where the trace is not sampled.
    own: Option<SpanId>,
}

/// What a span is of.
pub(crate) struct Description {
    pub(crate) kind: SpanKind,
    pub(crate) name: Cow<'static, str>,
    pub(crate) attributes: Vec<KeyValue>,
}

impl Spans {
    /// Spans as the variables `OTEL_…` of the environment want them: none without an endpoint.
    ///
    /// # Errors
    ///
    /// A variable has a value that is not supported; the error names both.
    pub fn from_environment() -> Result<Self, OtlpError> {
        let get = |name: &str| std::env::var(name).ok();
        otlp::start(&Environment(&get))
    }

    fn new(recorder: Option<Recorder>, metrics: Option<mpsc::Sender<Command>>) -> Self {
        Self {
            recorder: recorder.map(Arc::new),
            metrics,
        }
    }

    /// The same, and the last spans are kept in memory to be looked at. Where nothing is exported, this
    /// samples up to ten traces a second: all of what a person does, and nothing that load would notice.
    #[must_use]
    pub fn keep_last(&self) -> Self {
        let mut recorder = match &self.recorder {
            Some(recorder) => Recorder::new(recorder.sampler.clone(), recorder.queue.clone()),
            None => Recorder::new(Sampler::a_few(), None),
        };
        recorder.kept = Some(Kept::default());
        Self::new(Some(recorder), self.metrics.clone())
    }

    /// The last spans, in the order in which they ended.
    pub(crate) fn last(&self, wanted: impl Fn(&SpanRecord) -> bool) -> Vec<SpanRecord> {
        let recorder = self.recorder.as_ref();
        let kept = recorder.and_then(|recorder| recorder.kept.as_ref());
        let spans = kept.map(Kept::read).unwrap_or_default();
        let spans = spans.iter().map(|finished| SpanRecord::of(finished));
        spans.filter(|span| wanted(span)).collect()
    }

    /// Whether spans are recorded at all.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.recorder.is_some()
    }

    /// Spans that were lost because more came than could be exported.
    #[must_use]
    pub fn lost(&self) -> u64 {
        let recorder = self.recorder.as_ref();
        recorder.map_or(0, |recorder| recorder.lost.load(Ordering::Relaxed))
    }

    /// Records the spans of a service of an app.
    pub(crate) fn tracer(&self, app: &str, service: &str) -> Tracer {
        let (app, service) = (app.to_owned(), service.to_owned());
        Tracer {
            spans: self.clone(),
            origin: Arc::new(Origin { app, service }),
        }
    }

    /// Waits until everything so far was exported, or the time is over.
    pub async fn flush(&self, time: Duration) {
        let recorder = self.recorder.as_ref();
        let queue = recorder.and_then(|recorder| recorder.queue.as_ref());
        let Some(queue) = queue.or(self.metrics.as_ref()) else {
            return;
        };
        let (done, flushed) = oneshot::channel();
        let flush = async {
            if queue.send(Command::Flush(done)).await.is_ok() {
                // Dropped when the exporting thread is gone.
                let _ = flushed.await;
            }
        };
        if tokio::time::timeout(time, flush).await.is_err() {
            tracing::warn!("spans could not be exported in time");
        }
    }
}

/// Trace, parent and whether it is sampled, of a `traceparent` that was checked.
fn parse(parent: &str) -> Option<(TraceId, SpanId, bool)> {
    let trace = TraceId::from_hex(parent.get(3..35)?).ok()?;
    let span = SpanId::from_hex(parent.get(36..52)?).ok()?;
    let flags = u8::from_str_radix(parent.get(53..55)?, 16).ok()?;
    Some((trace, span, flags & 1 == 1))
}

impl Tracer {
    /// Begins a span of a trace. Where it is recorded it becomes the parent of what follows; where
    /// there was no trace, one begins.
    pub(crate) fn begin(&self, trace: &mut Trace, started: Instant) -> Span<'_> {
        Span(self.spans.recorder.as_deref().map(|recorder| {
            let sampler = &recorder.sampler;
            let parent = trace.parent.as_deref().and_then(parse);
            let (trace_id, parent_id, sampled) = match parent {
                Some((trace, parent, sampled)) => {
                    (trace, parent, sampler.samples(trace, Some(sampled)))
                }
                None => {
                    let id = TraceId::from(rand::random_range(1..=u128::MAX));
                    (id, SpanId::INVALID, sampler.samples(id, None))
                }
            };
            let own = SpanId::from(rand::random_range(1..=u64::MAX));
            if sampled || parent.is_none() {
                let (trace_id, own) = (trace_id.to_bytes(), own.to_bytes());
                let (trace_id, own) = (u128::from_be_bytes(trace_id), u64::from_be_bytes(own));
                trace.parent = Some(traceparent(trace_id, own, sampled));
            }
            Begun {
                recorder,
                origin: &self.origin,
                started,
                trace: trace_id,
                parent: parent_id,
                own: sampled.then_some(own),
            }
        }))
    }
}

/// Of what guests record themselves.
impl Tracer {
    /// Adds a span of a trace that is recorded.
    pub(crate) fn add(&self, span: SpanData) {
        if let Some(recorder) = &self.spans.recorder {
            recorder.pass_on(&self.origin, span);
        }
    }

    /// Whether there is a collector for metrics.
    pub(crate) fn takes_metrics(&self) -> bool {
        self.spans.metrics.is_some()
    }

    /// Passes on metrics of one instance. What the exporter has no room for is lost, and the guest's next
    /// ones are there soon.
    pub(crate) fn add_metrics(&self, instance: &str, scope_metrics: Vec<ScopeMetrics>) {
        let Some(queue) = &self.spans.metrics else {
            return;
        };
        let Origin { app, service } = &*self.origin;
        let more = [
            ("service.namespace", &**app),
            ("service.instance.id", instance),
        ];
        let metrics = ResourceMetrics {
            resource: Some(resource(service, &more)),
            scope_metrics,
            ..ResourceMetrics::default()
        };
        if queue.try_send(Command::Metrics(Box::new(metrics))).is_err() {
            tracing::debug!(app, service, "metrics of a guest were lost");
        }
    }
}

/// How what a span is of has failed.
pub(crate) struct Failure<'e> {
    /// The status.
    pub(crate) code: u16,
    pub(crate) blame: Blame,
    pub(crate) message: &'e str,
    /// Where a guest was when it trapped.
    pub(crate) backtrace: Option<&'e str>,
}

impl<'e> From<&'e CallError> for Failure<'e> {
    fn from(error: &'e CallError) -> Self {
        Self {
            code: error.code.status(),
            blame: error.blame,
            message: &error.message,
            backtrace: error.backtrace.as_deref(),
        }
    }
}

impl Failure<'_> {
    /// Whether it is one: a run of a pipeline that goes on is none.
    fn is_failure(&self) -> bool {
        self.code >= Code::BadArguments.status()
    }

    /// Whether it is worth a span that nobody asked for: not those of callers and of load, which could
    /// be a flood.
    fn is_telling(&self) -> bool {
        self.blame != Blame::Caller && self.code != Code::Overloaded.status()
    }
}

impl Span<'_> {
    /// Whether it is recorded whatever its outcome is.
    pub(crate) fn is_sampled(&self) -> bool {
        self.0.as_ref().is_some_and(|begun| begun.own.is_some())
    }

    /// Ends it.
    pub(crate) fn end<'e, F: Into<Failure<'e>>>(
        self,
        failure: Option<F>,
        describe: impl FnOnce() -> Description,
    ) {
        let Some(begun) = self.0 else {
            return;
        };
        let took = begun.started.elapsed();
        let failure = failure.map(Into::into).filter(Failure::is_failure);
        let kept = took >= SLOW || failure.as_ref().is_some_and(Failure::is_telling);
        if kept || begun.own.is_some() {
            begun.finish(took, failure, describe());
        }
    }
}

impl Begun<'_> {
    fn finish(self, took: Duration, failure: Option<Failure<'_>>, what: Description) {
        let Description {
            kind,
            name,
            mut attributes,
        } = what;
        let mut status = Status::Unset;
        if let Some(failure) = failure {
            attributes.push(KeyValue::new("error.type", failure.code.to_string()));
            attributes.push(KeyValue::new("wasmbay.blame", failure.blame.as_str()));
            if let Some(backtrace) = failure.backtrace {
                let backtrace = KeyValue::new("exception.stacktrace", backtrace.to_owned());
                attributes.push(backtrace);
            }
            // By the conventions a server's span is no error where the client is at fault.
            if kind != SpanKind::Server || failure.blame != Blame::Caller {
                status = Status::error(failure.message.to_owned());
            }
        }
        let own = self.own;
        let own = own.unwrap_or_else(|| SpanId::from(rand::random_range(1..=u64::MAX)));
        let start_time = self.recorder.clock.at(self.started);
        let end_time = start_time.checked_add(took).unwrap_or(start_time);
        let span = SpanData {
            span_context: SpanContext::new(
                self.trace,
                own,
                TraceFlags::SAMPLED,
                false,
                TraceState::NONE,
            ),
            parent_span_id: self.parent,
            parent_span_is_remote: kind == SpanKind::Server || kind == SpanKind::Consumer,
            span_kind: kind,
            name,
            start_time,
            end_time,
            attributes,
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status,
            instrumentation_scope: InstrumentationScope::builder("wasmbay")
                .with_version(env!("CARGO_PKG_VERSION"))
                .build(),
        };
        self.recorder.pass_on(self.origin, span);
    }
}

impl Recorder {
    fn new(sampler: Sampler, queue: Option<mpsc::Sender<Command>>) -> Self {
        Self {
            sampler,
            queue,
            lost: AtomicU64::new(0),
            clock: Clock::default(),
            kept: None,
        }
    }

    /// Passes on a span that has ended.
    fn pass_on(&self, origin: &Arc<Origin>, span: SpanData) {
        let origin = Arc::clone(origin);
        let finished = Arc::new(Finished { origin, span });
        if let Some(kept) = &self.kept {
            kept.add(Arc::clone(&finished));
        }
        let Some(queue) = &self.queue else {
            return;
        };
        if queue.try_send(Command::Export(finished)).is_err() {
            let lost = self.lost.fetch_add(1, Ordering::Relaxed) + 1;
            // Often enough to be noticed, and no flood.
            if lost.is_power_of_two() {
                tracing::warn!(lost, "more spans come than are exported, some are lost");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::is_traceparent;

    fn tracer(sampler: &str, capacity: usize) -> (Tracer, mpsc::Receiver<Command>) {
        let (sender, receiver) = mpsc::channel(capacity);
        let sampler = Sampler::parse(Some(sampler), None).unwrap();
        let spans = Spans::new(Some(Recorder::new(sampler, Some(sender))), None);
        (spans.tracer("shop", "orders"), receiver)
    }

    fn described() -> Description {
        Description {
            kind: SpanKind::Server,
            name: "a/b.c".into(),
            attributes: Vec::new(),
        }
    }

    fn next(queue: &mut mpsc::Receiver<Command>) -> Option<SpanData> {
        match queue.try_recv() {
            Ok(Command::Export(finished)) => Some(finished.span.clone()),
            _ => None,
        }
    }

    fn trap() -> CallError {
        CallError::trap("it trapped".to_owned())
    }

    const OK: Option<&CallError> = None;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_sampled_call_is_the_parent_of_what_it_calls() {
        let (tracer, mut queue) = tracer("parentbased_always_off", 8);
        let mut trace = Trace {
            parent: Some(PARENT.to_owned()),
            ..Trace::default()
        };
        let span = tracer.begin(&mut trace, Instant::now());
        let passed_on = trace.parent.clone().unwrap();
        assert!(is_traceparent(&passed_on));
        span.end(OK, described);
        let data = next(&mut queue).unwrap();
        let (id, own) = (data.span_context.trace_id(), data.span_context.span_id());
        assert_eq!(id.to_string(), PARENT[3..35]);
        assert_eq!(data.parent_span_id.to_string(), PARENT[36..52]);
        assert_eq!(passed_on, format!("00-{id}-{own}-01"));
        assert_eq!(data.status, Status::Unset);
    }

    #[test]
    fn what_is_not_sampled_passes_as_it_came_unless_it_fails() {
        let (tracer, mut queue) = tracer("parentbased_always_on", 8);
        let unsampled = PARENT.replace("-01", "-00");
        let begin = |trace: &mut Trace| {
            *trace = Trace {
                parent: Some(unsampled.clone()),
                ..Trace::default()
            };
        };
        let mut trace = Trace::default();
        begin(&mut trace);
        tracer.begin(&mut trace, Instant::now()).end(OK, described);
        assert_eq!(trace.parent.as_deref(), Some(&*unsampled));
        assert!(next(&mut queue).is_none());
        // By its caller's fault, because too many call, or no failure at all: no news.
        let overloaded = CallError::overloaded("busy");
        let goes_on = CallError::goes_on("9f86");
        for error in [CallError::bad_arguments("$: no"), overloaded, goes_on] {
            let span = tracer.begin(&mut trace, Instant::now());
            span.end(Some(&error), described);
            assert!(next(&mut queue).is_none(), "{error}");
        }
        tracer
            .begin(&mut trace, Instant::now())
            .end(Some(&trap()), described);
        let data = next(&mut queue).unwrap();
        assert_eq!(data.parent_span_id.to_string(), unsampled[36..52]);
        assert_eq!(data.status, Status::error("it trapped"));
        assert!(
            data.attributes
                .contains(&KeyValue::new("error.type", "500"))
        );
        assert!(
            data.attributes
                .contains(&KeyValue::new("wasmbay.blame", "guest"))
        );
        // And what took long.
        let long_ago = Instant::now().checked_sub(SLOW).unwrap();
        tracer.begin(&mut trace, long_ago).end(OK, described);
        let data = next(&mut queue).unwrap();
        assert!(data.end_time.duration_since(data.start_time).unwrap() >= SLOW);
    }

    #[test]
    fn a_call_without_a_trace_begins_one_and_all_below_it_are_alike() {
        for (sampler, flags) in [("always_on", "01"), ("always_off", "00")] {
            let (tracer, mut queue) = tracer(sampler, 8);
            let mut trace = Trace::default();
            tracer.begin(&mut trace, Instant::now()).end(OK, described);
            let parent = trace.parent.unwrap();
            assert!(
                is_traceparent(&parent) && parent.ends_with(flags),
                "{parent}"
            );
            let data = next(&mut queue);
            assert_eq!(data.is_some(), flags == "01");
            assert!(data.is_none_or(|data| data.parent_span_id == SpanId::INVALID));
        }
    }

    #[test]
    fn a_full_queue_loses_spans_and_counts_them() {
        let (tracer, mut queue) = tracer("always_on", 2);
        for _ in 0..5 {
            tracer
                .begin(&mut Trace::default(), Instant::now())
                .end(OK, described);
        }
        assert_eq!(tracer.spans.lost(), 3);
        assert!(next(&mut queue).is_some() && next(&mut queue).is_some());
    }

    #[test]
    fn the_last_spans_are_kept_with_and_without_an_exporter() {
        let end = |spans: &Spans, error: Option<&CallError>| {
            let tracer = spans.tracer("shop", "orders");
            tracer
                .begin(&mut Trace::default(), Instant::now())
                .end(error, described);
        };
        let spans = Spans::default().keep_last();
        for _ in 0..5_000 {
            end(&spans, None);
        }
        // A few are sampled; what fails is kept as well, up to the bound.
        let sampled = spans.last(|_| true).len();
        assert!((1..100).contains(&sampled), "{sampled}");
        for _ in 0..5_000 {
            end(&spans, Some(&trap()));
        }
        let kept = spans.last(|_| true);
        assert_eq!(kept.len(), 4_096);
        assert!(
            kept.iter()
                .all(|span| span.error.as_deref() == Some("it trapped"))
        );

        // What failed is not forgotten for all that went well since, as far as there is room.
        let spans = Spans::new(
            Some(Recorder::new(
                Sampler::parse(Some("always_on"), None).unwrap(),
                None,
            )),
            None,
        );
        let spans = spans.keep_last();
        for failing in 0..3_000 {
            end(&spans, (failing % 10 == 0).then(trap).as_ref());
        }
        for _ in 0..8_000 {
            end(&spans, None);
        }
        let kept = spans.last(|_| true);
        let failed = kept.iter().filter(|span| span.error.is_some());
        assert_eq!((kept.len(), failed.count()), (4_096 + 300, 300));
        assert!(kept.is_sorted_by_key(|span| span.start_us));

        let (tracer, mut queue) = tracer("always_on", 8);
        let both = tracer.spans.keep_last();
        end(&both, None);
        assert_eq!(
            (both.last(|_| true).len(), next(&mut queue).is_some()),
            (1, true)
        );
    }

    #[test]
    fn without_an_exporter_nothing_is_touched() {
        let spans = Spans::default();
        let tracer = spans.tracer("shop", "orders");
        let mut trace = Trace::default();
        tracer
            .begin(&mut trace, Instant::now())
            .end(Some(&trap()), described);
        assert_eq!(trace, Trace::default());
        assert!(!spans.is_on());
    }
}
