//! Subscribers that were away and find a backlog: how many events a second they take and
//! acknowledge.
//!
//! Each measurement is a process of its own with a consumer that begins at the first event. What
//! it does before a tenth of them is done, its start among it, does not count.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use async_nats::jetstream::consumer::{self, PullConsumer};
use futures_util::{StreamExt as _, TryStreamExt as _};

use super::{ARGUMENTS, Events, per_event, stream_name, subject_of};
use crate::drive::{Body, Process};
use crate::native::Shape;
use crate::process::Server;
use crate::rounds::{median_of, ratio};
use crate::table::{Cell, Row, Table};

const APP: &str = "backlog";

/// Events whose acknowledgements by the stream are outstanding while it is filled.
const WINDOW: usize = 512;

/// How long a subscriber may take for all.
const PATIENCE: Duration = Duration::from_secs(120);

struct Subscriber {
    name: String,
    consumer: &'static str,
    way: Way,
}

enum Way {
    Native(Shape),
    Wasmbay {
        /// Of the wire, in the manifest.
        in_flight: u32,
        /// For the host's process.
        arguments: &'static [&'static str],
    },
}

struct Drained {
    events_per_second: f64,
    cpu_us: f64,
    server_us: f64,
}

fn subscribers() -> Vec<Subscriber> {
    let native = |shape: Shape| Subscriber {
        name: format!("native pull, {}", shape.as_str()),
        consumer: "native",
        way: Way::Native(shape),
    };
    let wasmbay = |name: &str, in_flight, arguments| Subscriber {
        name: name.to_owned(),
        consumer: "bench-sink",
        way: Way::Wasmbay {
            in_flight,
            arguments,
        },
    };
    vec![
        native(Shape::Current),
        native(Shape::Cores),
        native(Shape::Multi),
        wasmbay("wasmbay Rust, in-flight 1000", 1_000, &[]),
        wasmbay("wasmbay Rust, in-flight 256", 256, &[]),
        wasmbay("wasmbay Rust, in-flight 64", 64, &[]),
        wasmbay("wasmbay Rust, one worker", 1_000, &["--workers", "1"]),
    ]
}

/// Measures and tabulates.
pub(super) fn table(events: &Events<'_>, payload: usize) -> anyhow::Result<Table> {
    let count = match payload {
        0..=1024 => events.options.events(),
        // As many bytes, and as much time.
        _ => (events.options.events() / 10).max(1),
    };
    events.stream(APP)?;
    events.runtime.block_on(fill(events, payload, count))?;
    let subscribers = subscribers();
    let mut drained: Vec<Vec<Drained>> = subscribers.iter().map(|_| Vec::new()).collect();
    for round in 0..events.options.rounds() {
        for turn in 0..subscribers.len() {
            let at = (turn + round) % subscribers.len();
            if let (Some(subscriber), Some(drained)) = (subscribers.get(at), drained.get_mut(at)) {
                let measured = measure(events, subscriber, count);
                drained.push(measured.with_context(|| subscriber.name.clone())?);
            }
        }
        eprintln!("round {} done", round + 1);
    }
    let stream = stream_name(APP);
    events
        .runtime
        .block_on(events.context.delete_stream(stream))?;
    Ok(tabulate(&subscribers, &drained, payload, count))
}

async fn fill(events: &Events<'_>, payload: usize, count: u64) -> anyhow::Result<()> {
    let body = bytes::Bytes::from(Body::new(ARGUMENTS, payload)?.bytes);
    let publish = |_| async {
        let stored = events
            .context
            .publish(subject_of(APP), body.clone())
            .await?;
        stored.await?;
        anyhow::Ok(())
    };
    futures_util::stream::iter(0..count)
        .map(publish)
        .buffer_unordered(WINDOW)
        .try_collect::<()>()
        .await
}

fn measure(events: &Events<'_>, subscriber: &Subscriber, count: u64) -> anyhow::Result<Drained> {
    let Subscriber { name, consumer, .. } = subscriber;
    let stream = stream_name(APP);
    // Absent before the first round.
    let gone = events
        .context
        .delete_consumer_from_stream(*consumer, &*stream);
    let _absent = events.runtime.block_on(gone);
    let server = match subscriber.way {
        Way::Native(shape) => {
            let role = ["pull", shape.as_str(), events.nats, &stream, consumer];
            Server::role(name, role, shape.threads()?)?
        }
        Way::Wasmbay {
            in_flight,
            arguments,
        } => {
            let wire = format!("in-flight = {in_flight}");
            events.host(APP, "bench-sink", &wire, arguments)?
        }
    };
    let own = Process {
        name: name.clone(),
        pid: server.pid(),
    };
    let started = Instant::now();
    let mut begin = None;
    loop {
        let info = events.runtime.block_on(info(events, consumer))?;
        let now = Instant::now();
        let left = info.num_pending + info.num_ack_pending as u64;
        if left == 0 {
            let (begun, left, own_before, server_before) =
                begin.context("everything was done before it could be measured")?;
            // Each event once, and no other: else it is not the same work.
            ensure!(
                info.delivered.consumer_sequence == count && info.num_redelivered == 0,
                "events came again: {info:?}"
            );
            return Ok(Drained {
                events_per_second: left as f64 / now.duration_since(begun).as_secs_f64(),
                cpu_us: per_event(own.usage().since(own_before), left),
                server_us: per_event(events.server.usage().since(server_before), left),
            });
        }
        if begin.is_none() && left <= count - count / 10 {
            begin = Some((now, left, own.usage(), events.server.usage()));
        }
        ensure!(started.elapsed() < PATIENCE, "{left} events are left");
        thread::sleep(Duration::from_millis(3));
    }
}

async fn info(events: &Events<'_>, consumer: &str) -> anyhow::Result<consumer::Info> {
    let stream = stream_name(APP);
    let consumer: Result<PullConsumer, _> = events
        .context
        .get_consumer_from_stream(consumer, stream)
        .await;
    Ok(consumer?.cached_info().clone())
}

fn tabulate(
    subscribers: &[Subscriber],
    drained: &[Vec<Drained>],
    payload: usize,
    count: u64,
) -> Table {
    let mut table = Table::new(
        format!("Durable events consumed: a backlog of {count}, arguments of {payload} bytes"),
        &[
            "subscriber",
            "events/s",
            "of native",
            "CPU µs",
            "server's CPU µs",
        ],
    );
    let speed = |drained: &Drained| drained.events_per_second;
    let best = subscribers
        .iter()
        .zip(drained)
        .filter(|(subscriber, _)| matches!(subscriber.way, Way::Native(_)))
        .map(|(_, drained)| drained)
        .max_by(|a, b| median_of(a, speed).total_cmp(&median_of(b, speed)));
    for (subscriber, own) in subscribers.iter().zip(drained) {
        let mut row = Row::new(&subscriber.name);
        row.cell(Cell::Count(median_of(own, speed)));
        row.cell(Cell::ratio(best.map(|best| ratio(own, best, speed))));
        row.cell(Cell::Tenths(median_of(own, |drained| drained.cpu_us)));
        row.cell(Cell::Tenths(median_of(own, |drained| drained.server_us)));
        table.rows.push(row);
    }
    table
}
