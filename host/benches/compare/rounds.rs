//! The run: a server, the contestants, rounds in which each is measured once, and the results.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::Context as _;
use wasmbay::nats::{ManagedServer, ServerOptions};

use crate::contest::{Contest, Contestant, Starter, Way};
use crate::drive::Report;
use crate::table::{Cell, Row, Table, Text};
use crate::{Options, events, fleet, guests, in_process, lifecycle, runs, table, watched};

/// One column group of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Load {
    payload: usize,
    concurrency: usize,
}

/// The reports of one contestant under one load, a round each.
type Reports = BTreeMap<(usize, Load), Vec<Report>>;

/// Measures everything that is wanted and shows it.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let folder = tempfile::tempdir()?;
    let server = runtime.block_on(ManagedServer::start(ServerOptions {
        data: folder.path().join("nats"),
        // The contestants' clients take no login from a URL.
        open: true,
        ..ServerOptions::default()
    }))?;
    let nats_pid = server.pid().context("the server has ended")?;

    let mut text = Text::default();
    eprintln!("starting the contestants");
    let contest = Starter::start(options, server.url(), nats_pid, folder.path())?;
    let reports = measure(options, &contest)?;
    if let Some(path) = &options.json {
        let all: Vec<_> = reports
            .iter()
            .map(|((at, load), rounds)| {
                let name = contest
                    .contestants
                    .get(*at)
                    .map(|contestant| &contestant.name);
                serde_json::json!({ "contestant": name, "payload": load.payload, "rounds": rounds })
            })
            .collect();
        std::fs::write(path, serde_json::to_vec_pretty(&all)?)
            .with_context(|| format!("writing {}", path.display()))?;
    }
    for way in [Way::Nats, Way::Gateway] {
        for payload in options.payloads() {
            text.add(tabulate(options, &contest, &reports, way, payload));
        }
    }
    // Their memory and their threads are gone before anything else is measured.
    drop(contest);
    events::tables(
        options,
        &runtime,
        server.url(),
        nats_pid,
        folder.path(),
        &mut text,
    )?;
    runs::table(options, server.url(), nats_pid, folder.path(), &mut text)?;
    text.add(in_process::table(options)?);
    text.add(lifecycle::table(options, server.url(), folder.path())?);
    text.add(watched::table(
        options,
        &runtime,
        server.url(),
        folder.path(),
    )?);
    text.add(fleet::table(
        options,
        &runtime,
        server.url(),
        folder.path(),
    )?);
    runtime.block_on(server.stop());

    println!("{text}");
    if options.write {
        let path = guests::root().join("docs/performance.md");
        table::replace(&path, &text.to_string())
            .with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

fn measure(options: &Options, contest: &Contest) -> anyhow::Result<Reports> {
    let mut reports = Reports::new();
    let contestants = &contest.contestants;
    if contestants.is_empty() {
        return Ok(reports);
    }
    let duration = options.seconds()?;
    let started = Instant::now();
    for round in 0..options.rounds() {
        for payload in options.payloads() {
            for concurrency in options.concurrencies() {
                let load = Load {
                    payload,
                    concurrency,
                };
                for turn in 0..contestants.len() {
                    // The order changes, so that no contestant always follows the same other one.
                    let at = (turn + round) % contestants.len();
                    let Some(contestant) = contestants.get(at) else {
                        continue;
                    };
                    let report = contest.measure(contestant, payload, concurrency, duration)?;
                    if let Some(error) = report.first_error.as_ref().filter(|_| report.errors > 0) {
                        let Report { calls, errors, .. } = &report;
                        eprintln!(
                            "{}: {errors} of {calls} calls failed: {error}",
                            contestant.name
                        );
                    }
                    reports.entry((at, load)).or_default().push(report);
                }
            }
        }
        eprintln!("round {} done after {:.0?}", round + 1, started.elapsed());
    }
    Ok(reports)
}

/// One table: a row for each contestant of the way, three columns for each concurrency.
fn tabulate(
    options: &Options,
    contest: &Contest,
    reports: &Reports,
    way: Way,
    payload: usize,
) -> Option<Table> {
    let of_way = |contestant: &Contestant| contestant.way == way;
    let rows: Vec<usize> = contest
        .contestants
        .iter()
        .enumerate()
        .filter(|(_, contestant)| of_way(contestant))
        .map(|(at, _)| at)
        .collect();
    if rows.is_empty() {
        return None;
    }
    let caption = match way {
        Way::Nats => format!("Over NATS, arguments of {payload} bytes"),
        Way::Gateway => format!("HTTP through a gateway, arguments of {payload} bytes"),
    };
    let mut table = Table::new(caption, &["service"]);
    let concurrencies = options.concurrencies();
    for concurrency in &concurrencies {
        for column in columns(*concurrency) {
            table.column(column);
        }
    }
    for at in &rows {
        let Some(contestant) = contest.contestants.get(*at) else {
            continue;
        };
        let mut row = Row::new(&contestant.name);
        for concurrency in concurrencies.iter().copied() {
            let load = Load {
                payload,
                concurrency,
            };
            let own = reports.get(&(*at, load)).map_or(&[][..], Vec::as_slice);
            let natives = rows.iter().filter(|row| {
                contest
                    .contestants
                    .get(**row)
                    .is_some_and(|other| other.native)
            });
            let natives: Vec<&[Report]> = natives
                .filter_map(|row| reports.get(&(*row, load)).map(Vec::as_slice))
                .collect();
            row.cells(concurrency, own, &natives);
        }
        table.rows.push(row);
    }
    Some(table)
}

/// What is shown of a load: how soon one caller is answered, or how many calls many get answered.
fn columns(concurrency: usize) -> Vec<String> {
    match concurrency {
        1 => vec!["1: p50 µs".to_owned(), "of native".to_owned()],
        many => vec![
            format!("{many}: calls/s"),
            "of native".to_owned(),
            "p99 µs".to_owned(),
            "CPU µs".to_owned(),
        ],
    }
}

impl Row {
    fn cells(&mut self, concurrency: usize, own: &[Report], natives: &[&[Report]]) {
        if concurrency == 1 {
            let p50 = |report: &Report| report.p50_us;
            let best = natives
                .iter()
                .min_by(|a, b| median_of(a, p50).total_cmp(&median_of(b, p50)));
            self.cell(Cell::Tenths(median_of(own, p50)));
            self.cell(Cell::ratio(best.map(|best| ratio(own, best, p50))));
            return;
        }
        let throughput = |report: &Report| report.calls_per_second;
        let best = natives
            .iter()
            .max_by(|a, b| median_of(a, throughput).total_cmp(&median_of(b, throughput)));
        let cpu = |report: &Report| report.cpu_us.get("contestant").copied().unwrap_or_default();
        self.cell(Cell::Count(median_of(own, throughput)));
        self.cell(Cell::ratio(best.map(|best| ratio(own, best, throughput))));
        self.cell(Cell::Count(median_of(own, |report| report.p99_us)));
        self.cell(Cell::Tenths(median_of(own, cpu)));
    }
}

pub(crate) fn median_of<T>(reports: &[T], value: impl Fn(&T) -> f64) -> f64 {
    table::median(reports.iter().map(value).collect())
}

/// The median of the ratios within each round: what slows the machine for a while slows both.
pub(crate) fn ratio<T>(own: &[T], other: &[T], value: impl Fn(&T) -> f64) -> f64 {
    let ratios = own.iter().zip(other).map(|(a, b)| value(a) / value(b));
    table::median(ratios.collect())
}
