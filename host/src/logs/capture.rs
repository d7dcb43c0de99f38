//! From events of `tracing` to records.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use serde_json::{Map, Value};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::sync::mpsc;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use super::keep::QUEUE;
use super::{Export, Record};
use crate::otlp::{Environment, OtlpError};
use crate::telemetry;
use crate::text::one_line;

/// Bytes of a message or of the text of a field; the rest is left out.
const MAX_TEXT: usize = 16 << 10;

/// What keeping a record does is not recorded, or there would be no end.
const OWN: [&str; 4] = [
    "wasmbay::logs",
    "wasmbay::nats",
    "wasmbay::otlp",
    "async_nats",
];

/// Prints a line.
type Print = Box<dyn Fn(&str) + Send + Sync>;

/// Makes records of events: a layer of `tracing`'s subscriber.
pub struct Capture {
    host: String,
    app: Arc<OnceLock<String>>,
    print: Option<Print>,
    queue: mpsc::Sender<Record>,
    lost: Arc<AtomicU64>,
    /// To the collector of OpenTelemetry, if there is one.
    export: Option<mpsc::Sender<Record>>,
}

/// The records that wait to be kept.
pub struct Records {
    app: Arc<OnceLock<String>>,
    pub(super) host: String,
    pub(super) queue: mpsc::Receiver<Record>,
    /// Records that found no room.
    pub(super) lost: Arc<AtomicU64>,
}

/// Captures the records of the host of this name.
#[must_use]
pub fn capture(host: &str) -> (Capture, Records) {
    let (sender, queue) = mpsc::channel(QUEUE);
    let (app, lost) = (Arc::default(), Arc::<AtomicU64>::default());
    let capture = Capture {
        host: host.to_owned(),
        app: Arc::clone(&app),
        print: None,
        queue: sender,
        lost: Arc::clone(&lost),
        export: None,
    };
    let records = Records {
        app,
        host: host.to_owned(),
        queue,
        lost,
    };
    (capture, records)
}

impl Capture {
    /// The same, which prints each record as a line of JSON, too.
    #[must_use]
    pub fn printing(mut self, print: impl Fn(&str) + Send + Sync + 'static) -> Self {
        self.print = Some(Box::new(print));
        self
    }

    /// The same, which sends each record to the collector that the environment names, too.
    ///
    /// # Errors
    ///
    /// A variable has a value that is not supported; the error names both.
    pub fn exporting(mut self) -> Result<(Self, Option<Export>), OtlpError> {
        let get = |name: &str| std::env::var(name).ok();
        let started = Export::start(&Environment(&get))?;
        let (export, sender) = started.unzip();
        self.export = sender;
        Ok((self, export))
    }

    fn record(&self, event: &Event<'_>) -> Record {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let Fields(mut fields) = fields;
        let mut text = |name: &str| match fields.remove(name) {
            Some(Value::String(text)) => Some(text),
            Some(other) => Some(other.to_string()),
            None => None,
        };
        let (app, service) = (text("app"), text("service"));
        let message = text("message").unwrap_or_default();
        let trace = telemetry::current_trace();
        let metadata = event.metadata();
        Record {
            // Formatting fails for years beyond 9999 only.
            timestamp: OffsetDateTime::now_utc()
                .format(&Rfc3339)
                .unwrap_or_default(),
            level: metadata.level().to_string(),
            host: self.host.clone(),
            target: metadata.target().to_owned(),
            app: app.or_else(|| self.app.get().cloned()),
            service,
            trace_id: trace.map(|(trace, _)| format!("{trace:032x}")),
            span_id: trace.map(|(_, span)| format!("{span:016x}")),
            message,
            fields,
        }
    }
}

impl Records {
    /// Says that the host has one app: records that name none are of this one from now on.
    pub fn set_app(&self, app: &str) {
        // It has the name for as long as the host runs.
        let _ = self.app.set(app.to_owned());
    }
}

impl<S: Subscriber> Layer<S> for Capture {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let target = event.metadata().target();
        let is_own = OWN.iter().any(|own| target.starts_with(own));
        let is_kept = !is_own && !self.queue.is_closed();
        let export = self.export.as_ref().filter(|_| !is_own);
        if self.print.is_none() && !is_kept && export.is_none() {
            return;
        }
        let record = self.record(event);
        if let Some(export) = export
            && export.try_send(record.clone()).is_err()
        {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        if let Some(print) = &self.print {
            print(&record.to_json());
        }
        if is_kept && self.queue.try_send(record).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The fields of an event, as JSON.
#[derive(Default)]
struct Fields(Map<String, Value>);

impl Fields {
    fn put(&mut self, field: &Field, value: impl Into<Value>) {
        // Of the `log` crate: where in its source it was logged.
        if !field.name().starts_with("log.") {
            self.0.insert(field.name().to_owned(), value.into());
        }
    }
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, one_line(value, MAX_TEXT).into_owned());
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        let mut text = value.to_string();
        let mut source = value.source();
        while let Some(cause) = source {
            text = format!("{text}: {cause}");
            source = cause.source();
        }
        self.put(field, one_line(&text, MAX_TEXT).into_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let text = format!("{value:?}");
        self.put(field, one_line(&text, MAX_TEXT).into_owned());
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    #[test]
    fn an_event_is_a_record_with_its_trace() {
        let (capture, mut records) = capture("a");
        let subscriber = tracing_subscriber::registry().with(capture);
        records.set_app("shop");
        tracing::subscriber::with_default(subscriber, || {
            let within = telemetry::set_current_trace(Some((7, 9)));
            tracing::warn!(target: "guest", app = "bank", service = "vault", stream = "stdout", "it is {}", 5);
            telemetry::set_current_trace(within);
            tracing::info!(target: "wasmbay::host", count = 3, "up");
            tracing::info!(target: "async_nats::connector", "not this");
        });
        let first = records.queue.try_recv().unwrap();
        let read: Record = serde_json::from_str(&first.to_json()).unwrap();
        assert_eq!(read, first);
        let (trace, span) = (format!("{:032x}", 7), format!("{:016x}", 9));
        assert_eq!(
            (&*first.level, &*first.host, &*first.target, &*first.message),
            ("WARN", "a", "guest", "it is 5")
        );
        assert_eq!(
            [first.app, first.service, first.trace_id, first.span_id],
            [
                Some("bank".into()),
                Some("vault".into()),
                Some(trace),
                Some(span)
            ]
        );
        assert_eq!(first.fields["stream"], "stdout");
        let second = records.queue.try_recv().unwrap();
        assert_eq!(
            (second.app.as_deref(), second.trace_id),
            (Some("shop"), None)
        );
        assert_eq!(second.fields["count"], 3);
        assert!(records.queue.try_recv().is_err());
    }

    #[test]
    fn records_without_room_are_lost_and_counted() {
        let (capture, records) = capture("a");
        let subscriber = tracing_subscriber::registry().with(capture);
        tracing::subscriber::with_default(subscriber, || {
            for _ in 0..QUEUE + 3 {
                tracing::info!(target: "guest", "again");
            }
        });
        assert_eq!(records.lost.load(Ordering::Relaxed), 3);
        assert_eq!(records.queue.len(), QUEUE);
    }
}
