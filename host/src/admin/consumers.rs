//! The consumers of an app's stored events, messages and open runs: how far they are behind, as JetStream says.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream;
use futures_util::future::ready;
use futures_util::{StreamExt as _, stream};
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep};

use super::Admin;
use crate::deployment::Deployment;
use crate::insight::ConsumerFigures;
use crate::subject;

/// Upper bound of the time for which JetStream is asked. Consumers without an answer are left out.
pub(super) const ASK: Duration = Duration::from_secs(2);

/// Consumers that are asked about at the same time.
const AT_ONCE: usize = 32;

/// Time for which an answer is used, however many ask.
const FRESH: Duration = Duration::from_secs(2);

/// A consumer, by whose it is.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Consumer {
    service: String,
    stream: String,
    name: String,
}

/// What was said last, and when.
pub(super) type Last = Mutex<Option<(Instant, Arc<[ConsumerFigures]>)>>;

impl Consumer {
    pub(super) fn new(service: &str, stream: &str, name: &str) -> Self {
        Self {
            service: service.to_owned(),
            stream: stream.to_owned(),
            name: name.to_owned(),
        }
    }
}

/// Those of the runs of pipelines.
pub(super) fn of_runs(app: &str, deployment: &Deployment) -> impl Iterator<Item = Consumer> {
    let stream = subject::run_stream(app);
    let pipelines = deployment.plan.pipelines.iter();
    pipelines.map(move |pipeline| Consumer::new(&pipeline.name, &stream, &pipeline.name))
}

/// How far they are behind, in their order.
pub(super) async fn ask(
    context: &jetstream::Context,
    consumers: BTreeSet<Consumer>,
) -> Vec<ConsumerFigures> {
    let asked = stream::iter(consumers).map(|consumer| async move {
        let stream = context.get_stream_no_info(&consumer.stream).await.ok()?;
        let info = stream.consumer_info(&consumer.name).await.ok()?;
        Some(ConsumerFigures {
            service: consumer.service,
            stream: consumer.stream,
            consumer: consumer.name,
            pending: info.num_pending,
            in_flight: info.num_ack_pending as u64,
            redelivered: info.num_redelivered as u64,
        })
    });
    let answered = asked.buffer_unordered(AT_ONCE).filter_map(ready);
    let mut answered: Vec<_> = answered.take_until(sleep(ASK)).collect().await;
    answered.sort();
    answered
}

impl Admin {
    /// The consumers of all services of the app, those that run on other hosts included.
    pub(super) async fn consumers(&self) -> Arc<[ConsumerFigures]> {
        let mut last = self.consumers.lock().await;
        if let Some((at, known)) = &*last
            && at.elapsed() < FRESH
        {
            return Arc::clone(known);
        }
        if !self.link.is_connected() {
            return Arc::default();
        }
        let deployment = self.insight.current.get();
        let of_events = deployment.consumers.iter();
        let of_events =
            of_events.map(|((stream, name), service)| Consumer::new(service, stream, name));
        let all = of_events.chain(of_runs(&self.insight.app, &deployment));
        let found: Arc<[_]> = ask(&self.context, all.collect()).await.into();
        *last = Some((Instant::now(), Arc::clone(&found)));
        found
    }
}
