//! Events published: by a guest that is called, by a native service that does the same, and by a
//! native program that does nothing else.

use std::collections::BTreeMap;

use anyhow::Context as _;

use super::{ARGUMENTS, Events, per_event, subject_of};
use crate::drive::{Body, Process, Report, Run, Target, run};
use crate::native::Shape;
use crate::process::Server;
use crate::rounds::{median_of, ratio};
use crate::table::{Cell, Row, Table};

const APP: &str = "publish";

const STORED: &str = r#"{"ok":null}"#;

struct Publisher {
    name: String,
    /// Whether the best of these is what the others are measured against.
    native: bool,
    server: Server,
    /// Where it is called; without it, it needs no calls.
    subject: Option<String>,
}

struct Published {
    per_second: f64,
    p50_us: f64,
    cpu_us: f64,
}

/// Measures and tabulates.
pub(super) fn table(events: &Events<'_>, payload: usize) -> anyhow::Result<Table> {
    let body = Body::new(ARGUMENTS, payload)?.bytes;
    let stream = events.stream(APP)?;
    let mut publishers = start(events, &body)?;
    let concurrencies = events.options.concurrencies();
    let mut all: BTreeMap<(usize, usize), Vec<Published>> = BTreeMap::new();
    for round in 0..events.options.rounds() {
        for concurrency in concurrencies.iter().copied() {
            for turn in 0..publishers.len() {
                let at = (turn + round) % publishers.len();
                let Some(publisher) = publishers.get_mut(at) else {
                    continue;
                };
                publisher.server.resume()?;
                let published = measure(events, publisher, &body, concurrency);
                publisher.server.pause()?;
                events.runtime.block_on(async { stream.purge().await })?;
                let published = published.with_context(|| publisher.name.clone())?;
                all.entry((at, concurrency)).or_default().push(published);
            }
        }
        eprintln!("round {} done", round + 1);
    }
    Ok(tabulate(&publishers, &concurrencies, &all, payload))
}

/// All of them, each stopped until its turn.
fn start(events: &Events<'_>, body: &[u8]) -> anyhow::Result<Vec<Publisher>> {
    let (nats, to) = (events.nats, subject_of(APP));
    let body = std::str::from_utf8(body)?;
    let mut publishers = vec![Publisher {
        name: "native publisher, not called".to_owned(),
        native: false,
        server: Server::role("native publisher", ["publisher", nats, &to, body], 1)?,
        subject: None,
    }];
    for shape in [Shape::Current, Shape::Cores, Shape::Tasks] {
        let name = format!("native service, {}", shape.as_str());
        let subject = format!("native.publisher.{}", shape.as_str());
        let role = ["publish", shape.as_str(), nats, &subject, &to];
        publishers.push(Publisher {
            native: true,
            server: Server::role(&name, role, shape.threads()?)?,
            subject: Some(subject),
            name,
        });
    }
    publishers.push(Publisher {
        name: "wasmbay Rust".to_owned(),
        native: false,
        server: events.host(APP, "bench-publishes", "", &[])?,
        subject: Some(format!("bay.{APP}.bay.bench.publisher.v1.publish")),
    });
    for publisher in &publishers {
        publisher.server.pause()?;
    }
    Ok(publishers)
}

fn measure(
    events: &Events<'_>,
    publisher: &mut Publisher,
    body: &[u8],
    concurrency: usize,
) -> anyhow::Result<Published> {
    let duration = events.options.seconds()?;
    let process = Process {
        name: "contestant".to_owned(),
        pid: publisher.server.pid(),
    };
    let Some(subject) = &publisher.subject else {
        let before = process.usage();
        let asked = format!("{concurrency} {}", duration.as_millis());
        let answer = publisher.server.ask(&asked, "published")?;
        let (published, microseconds) = answer.split_once(' ').context("no number")?;
        let (published, microseconds) = (published.parse()?, microseconds.parse::<f64>()?);
        return Ok(Published {
            per_second: published as f64 * 1e6 / microseconds,
            // Only shown for one at a time.
            p50_us: microseconds / published as f64,
            cpu_us: per_event(process.usage().since(before), published),
        });
    };
    let Report {
        errors,
        first_error,
        calls_per_second,
        p50_us,
        cpu_us,
        ..
    } = run(&Run {
        target: Target::Nats {
            address: events.nats.trim_start_matches("nats://").to_owned(),
            subject: subject.clone(),
        },
        method: String::new(),
        body: body.to_vec(),
        expect: Some(STORED.as_bytes().to_vec()),
        concurrency,
        duration,
        warm_up: duration / 4,
        processes: vec![process],
    })?;
    if let Some(error) = first_error.filter(|_| errors > 0) {
        eprintln!("{}: {errors} calls failed: {error}", publisher.name);
    }
    Ok(Published {
        per_second: calls_per_second,
        p50_us,
        cpu_us: cpu_us.get("contestant").copied().unwrap_or_default(),
    })
}

fn tabulate(
    publishers: &[Publisher],
    concurrencies: &[usize],
    all: &BTreeMap<(usize, usize), Vec<Published>>,
    payload: usize,
) -> Table {
    let mut table = Table::new(
        format!("Durable events published, arguments of {payload} bytes"),
        &["publisher"],
    );
    for concurrency in concurrencies {
        match concurrency {
            1 => table.column("1: p50 µs".to_owned()),
            many => table.column(format!("{many}: events/s")),
        }
        table.column("of native".to_owned());
        table.column("CPU µs".to_owned());
    }
    for (at, publisher) in publishers.iter().enumerate() {
        let mut row = Row::new(&publisher.name);
        for concurrency in concurrencies {
            let of = |at| all.get(&(at, *concurrency)).map_or(&[][..], Vec::as_slice);
            let natives =
                (0..publishers.len()).filter(|at| publishers.get(*at).is_some_and(|p| p.native));
            let speed = |published: &Published| match concurrency {
                1 => 1e6 / published.p50_us,
                _ => published.per_second,
            };
            let best = natives
                .map(of)
                .max_by(|a, b| median_of(a, speed).total_cmp(&median_of(b, speed)));
            let own = of(at);
            match concurrency {
                1 => row.cell(Cell::Tenths(median_of(own, |published| published.p50_us))),
                _ => row.cell(Cell::Count(median_of(own, speed))),
            }
            // As everywhere: a ratio of times for one at a time, of throughput for many.
            row.cell(Cell::ratio(best.map(|best| match concurrency {
                1 => ratio(own, best, |published| published.p50_us),
                _ => ratio(own, best, speed),
            })));
            row.cell(Cell::Tenths(median_of(own, |published| published.cpu_us)));
        }
        table.rows.push(row);
    }
    table
}
