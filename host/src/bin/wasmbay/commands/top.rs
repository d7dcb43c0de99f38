//! `wasmbay top`: the services of an app, live.

mod screen;

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use serde::Serialize;
use serde_json::json;
use wasmbay::insight::{self, Counts, Health, HostFigures, ImportFigures};
use wasmbay::nats::Link;

use super::trace::{apps_of, reached};
use crate::args::{WhichApp, duration};
use crate::report::{Exit, Terminal, plain, table};
use screen::Screen;

/// Show the services of an app live: calls, errors, durations, limits
///
/// Without a terminal, with --once or with --output json it prints what happened within one interval and ends.
/// Keys: s sorts by the next column, arrows choose a service, Enter shows what it calls, q ends.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  wasmbay top
  wasmbay top --app shop --every 1s
  wasmbay top --once --output json | jq '.services[] | select(.health.state != \"ready\")'

Exit codes: 0 done, 1 no host answers, 2 wrong usage.")]
pub(crate) struct Top {
    /// Time between two readings
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = interval)]
    every: Duration,
    /// Print one interval and end
    #[arg(long)]
    once: bool,
    #[command(flatten)]
    app: WhichApp,
}

/// Hosts take 150 ms to answer all together, so less would show them now and then.
fn interval(text: &str) -> Result<Duration, String> {
    let every = duration(text)?;
    if (Duration::from_millis(500)..=Duration::from_secs(60)).contains(&every) {
        Ok(every)
    } else {
        Err("accepted: 500ms to 1m".to_owned())
    }
}

/// What hosts said at one time, by app.
struct Reading {
    at: Instant,
    apps: Vec<(String, Vec<HostFigures>)>,
}

/// What a service did between two readings, on all hosts together.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    app: String,
    service: String,
    health: Option<Health>,
    #[serde(flatten)]
    calls: Rates,
    running: usize,
    concurrency: u32,
    waiting: usize,
    instances: usize,
    hosts: Vec<String>,
    imports: Vec<Import>,
}

/// What a service called of another one between two readings.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Import {
    function: String,
    event: bool,
    to: Vec<String>,
    #[serde(flatten)]
    calls: Rates,
}

/// Calls between two readings.
#[derive(Clone, Copy, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Rates {
    calls_per_second: f64,
    errors_per_second: f64,
    p50_seconds: f64,
    p99_seconds: f64,
}

impl Rates {
    fn of(counts: &Counts, elapsed: Duration) -> Self {
        let (calls, errors) = counts.totals();
        let seconds = elapsed.as_secs_f64().max(0.001);
        // Counts of one interval are far from where a float becomes coarse.
        let a_second = |count: u64| u32::try_from(count).map_or(f64::INFINITY, f64::from) / seconds;
        Self {
            calls_per_second: a_second(calls),
            errors_per_second: a_second(errors),
            p50_seconds: insight::quantile(counts, 0.5).as_secs_f64(),
            p99_seconds: insight::quantile(counts, 0.99).as_secs_f64(),
        }
    }
}

/// What is added up of a service on several hosts: its row, its calls, and its imports with theirs.
type Sum<'h> = (Row, Counts, BTreeMap<&'h str, (Import, Counts)>);

/// The rows of what happened between two readings, by app and service.
fn rows(before: &Reading, now: &Reading) -> Vec<Row> {
    let elapsed = now.at.duration_since(before.at);
    let mut rows = Vec::new();
    for (app, hosts) in &now.apps {
        let mut earlier = before.apps.iter();
        let earlier = earlier.find(|(other, _)| other == app);
        let earlier = earlier.map_or(&[][..], |(_, hosts)| hosts);
        let mut services: BTreeMap<&str, Sum<'_>> = BTreeMap::new();
        for host in hosts {
            let mut same = earlier.iter();
            let same = same.find(|other| other.host == host.host);
            for (name, service) in &host.services {
                let before = same.and_then(|host| host.services.get(name));
                let (row, counts, imports) = services
                    .entry(name)
                    .or_insert_with(|| (row(app, name), Counts::default(), BTreeMap::new()));
                row.health = Health::of_all(row.health.iter().chain(&service.health));
                row.running += service.running;
                row.concurrency += service.concurrency;
                row.waiting += service.waiting;
                row.instances += service.instances;
                row.hosts.push(host.host.clone());
                // A host that was not there before has counted for longer than the interval.
                if let Some(before) = before {
                    counts.add(&service.calls.since(Some(&before.calls)));
                }
                for import in &service.imports {
                    let (_, counts) = imports
                        .entry(&import.function)
                        .or_insert_with(|| (called(import), Counts::default()));
                    let mut earlier = before.into_iter().flat_map(|before| &before.imports);
                    let earlier = earlier.find(|other| other.function == import.function);
                    if let Some(earlier) = earlier {
                        counts.add(&import.calls.since(Some(&earlier.calls)));
                    }
                }
            }
        }
        rows.extend(services.into_values().map(|(mut row, counts, imports)| {
            row.calls = Rates::of(&counts, elapsed);
            let imports = imports.into_values().map(|(mut import, counts)| {
                import.calls = Rates::of(&counts, elapsed);
                import
            });
            row.imports = imports.collect();
            row
        }));
    }
    rows
}

fn row(app: &str, service: &str) -> Row {
    Row {
        app: app.to_owned(),
        service: service.to_owned(),
        health: None,
        calls: Rates::default(),
        running: 0,
        concurrency: 0,
        waiting: 0,
        instances: 0,
        hosts: Vec::new(),
        imports: Vec::new(),
    }
}

fn called(import: &ImportFigures) -> Import {
    Import {
        function: import.function.clone(),
        event: import.event,
        to: import.to.clone(),
        calls: Rates::default(),
    }
}

async fn read(link: &Link, app: Option<&String>) -> anyhow::Result<Reading> {
    let mut apps = Vec::new();
    for app in apps_of(link, app.cloned()).await? {
        let hosts = insight::figures(link, &app).await?;
        apps.push((app, hosts));
    }
    let at = Instant::now();
    Ok(Reading { at, apps })
}

pub(super) async fn run(args: Top, terminal: &Terminal) -> anyhow::Result<Exit> {
    let (link, app) = reached(&args.app, "wasmbay top").await?;
    let before = read(&link, app.as_ref()).await?;
    let is_live = std::io::stdout().is_terminal() && std::io::stdin().is_terminal();
    if args.once || terminal.json() || !is_live {
        tokio::time::sleep(args.every).await;
        let rows = rows(&before, &read(&link, app.as_ref()).await?);
        if terminal.json() {
            terminal.result_json(&json!({ "services": rows }))?;
        } else {
            terminal.result(text(&rows))?;
        }
        return Ok(Exit::Done);
    }
    live(&link, app.as_ref(), before, args.every).await
}

/// What was typed.
enum Key {
    End,
    Sort,
    Up,
    Down,
    Details,
    Resized,
}

/// Draws until `q` is typed or nothing can be drawn any more.
async fn live(
    link: &Link,
    app: Option<&String>,
    mut before: Reading,
    every: Duration,
) -> anyhow::Result<Exit> {
    // Restores the terminal when the process panics, too.
    let mut screen = ratatui::try_init()?;
    let (typed, mut keys) = tokio::sync::mpsc::channel(16);
    let (stop, stopped) = mpsc::channel::<()>();
    let reader = std::thread::spawn(move || {
        while matches!(
            stopped.recv_timeout(Duration::ZERO),
            Err(RecvTimeoutError::Timeout)
        ) {
            match event::poll(Duration::from_millis(100)) {
                Ok(false) => {}
                Ok(true) => {
                    let key = event::read().ok().and_then(|event| key(&event));
                    if key.is_some_and(|key| typed.blocking_send(key).is_err()) {
                        return;
                    }
                }
                Err(_) => return,
            }
        }
    });
    let mut shown = Screen::new(every);
    let mut next = tokio::time::interval(every);
    next.reset();
    let ended = loop {
        if let Err(error) = screen.draw(|frame| shown.draw(frame)) {
            break Err(error.into());
        }
        tokio::select! {
            key = keys.recv() => match key {
                None | Some(Key::End) => break Ok(Exit::Done),
                Some(key) => shown.typed(&key),
            },
            _ = next.tick() => match read(link, app).await {
                Ok(now) => {
                    shown.show(rows(&before, &now));
                    before = now;
                }
                // What was read last stays, with why it is not newer.
                Err(error) => shown.say(format!("{error:#}")),
            },
        }
    };
    ratatui::restore();
    // The reader may be about to send.
    drop((stop, keys));
    // Ends within its poll.
    let _ = reader.join();
    ended
}

fn key(event: &Event) -> Option<Key> {
    let key = match event {
        Event::Resize(..) => return Some(Key::Resized),
        Event::Key(key) if key.kind != KeyEventKind::Release => key,
        _ => return None,
    };
    match key.code {
        KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => Some(Key::End),
        KeyCode::Char('q') => Some(Key::End),
        KeyCode::Char('s') => Some(Key::Sort),
        KeyCode::Up | KeyCode::Char('k') => Some(Key::Up),
        KeyCode::Down | KeyCode::Char('j') => Some(Key::Down),
        KeyCode::Enter => Some(Key::Details),
        _ => None,
    }
}

/// A duration as a column shows it.
fn time(seconds: f64) -> String {
    match seconds {
        0.0 => "-".to_owned(),
        s if s < 0.001 => format!("{:.0}us", s * 1e6),
        s if s < 1.0 => format!("{:.1}ms", s * 1e3),
        s => format!("{s:.2}s"),
    }
}

fn rate(a_second: f64) -> String {
    match a_second {
        0.0 => "0".to_owned(),
        r if r < 10.0 => format!("{r:.1}"),
        r => format!("{r:.0}"),
    }
}

/// The heads of the columns.
const HEAD: [&str; 10] = [
    "SERVICE",
    "HEALTH",
    "CALLS/S",
    "ERRORS/S",
    "P50",
    "P99",
    "RUNNING",
    "WAITING",
    "INSTANCES",
    "HOSTS",
];

fn cells(row: &Row) -> [String; 10] {
    [
        plain(&format!("{}/{}", row.app, row.service)),
        row.health
            .as_ref()
            .map_or("-", |h| h.state.as_str())
            .to_owned(),
        rate(row.calls.calls_per_second),
        rate(row.calls.errors_per_second),
        time(row.calls.p50_seconds),
        time(row.calls.p99_seconds),
        format!("{}/{}", row.running, row.concurrency),
        row.waiting.to_string(),
        row.instances.to_string(),
        row.hosts.len().to_string(),
    ]
}

fn text(rows: &[Row]) -> String {
    let head = HEAD.map(str::to_owned).to_vec();
    let lines = rows.iter().map(|row| cells(row).to_vec());
    table(&std::iter::once(head).chain(lines).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A reading of one host of a shop whose `orders` has done so many calls, all of about 2 ms.
    pub(super) fn reading(at: Instant, host: &str, calls: u64, errors: u64) -> Reading {
        let counts = |calls: u64| json!({ "durations": [0, 0, 0, calls], "seconds": 0.002, "errors": { "500 guest": errors } });
        let figures = json!({
            "host": host, "atUs": 1,
            "services": { "orders": {
                "component": "ab", "sinceUs": 1, "running": 1, "waiting": 2, "concurrency": 64, "instances": 3,
                "health": { "state": "failing", "why": ["9 of 10 calls within a minute failed: 9 with 500 guest"] },
                "calls": counts(calls),
                "imports": [{ "function": "shop:payment/payments.charge", "to": ["payment"], "calls": counts(calls / 2) }],
            } },
        });
        let host = serde_json::from_value(figures).unwrap();
        Reading {
            at,
            apps: vec![("shop".to_owned(), vec![host])],
        }
    }

    #[test]
    fn a_row_is_what_happened_between_two_readings_on_hosts_that_were_there_before() {
        let before = Instant::now();
        let after = before + Duration::from_secs(2);
        let found = rows(&reading(before, "a", 100, 3), &reading(after, "a", 140, 5));
        assert_eq!(found.len(), 1);
        let row = &found[0];
        assert!((row.calls.calls_per_second - 20.0).abs() < 1e-9, "{row:?}");
        assert!((row.calls.errors_per_second - 1.0).abs() < 1e-9, "{row:?}");
        assert!(row.calls.p99_seconds > 0.0 && row.imports[0].calls.calls_per_second > 9.0);
        let shown = text(&found);
        assert!(shown.contains("shop/orders  failing  20"), "{shown}");
        // Another host, which has counted for longer than the interval.
        let found = rows(&reading(before, "a", 100, 3), &reading(after, "b", 140, 5));
        assert_eq!(found[0].calls.calls_per_second, 0.0);
        // Started anew.
        let found = rows(&reading(before, "a", 100, 0), &reading(after, "a", 8, 0));
        assert_eq!(found[0].calls.calls_per_second, 0.0);
    }
}
