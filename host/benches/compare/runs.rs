//! Functions whose progress is stored: a pipeline of three steps and a durable function with three calls, beside a
//! native service that makes three calls and keeps its own progress in a key-value bucket.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context as _;
use async_nats::{Client, Message, jetstream};
use futures_util::StreamExt as _;

use crate::contest::{ARGUMENTS, ITEM};
use crate::drive::{Body, Process, Report, Run, Target, run};
use crate::native::Shape;
use crate::process::Server;
use crate::rounds::{median_of, ratio};
use crate::table::{Cell, Row, Table, Text};
use crate::{Options, guests};

/// Calls under way at a time.
const CONCURRENCY: [usize; 2] = [1, 64];

const PAYLOAD: usize = 100;

/// The steps of a run.
const STEPS: usize = 3;

struct Contestant {
    name: String,
    kind: Kind,
    subject: String,
    /// By their places among the servers.
    servers: Vec<usize>,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    /// The best of these is what the other runs are measured against.
    Native,
    /// A run of this many steps.
    Steps(usize),
    /// The same calls with nothing stored.
    Unstored,
    /// One call of the function that the steps call.
    Call,
    /// Two messages that a stream has acknowledged, one after the other.
    Publishes,
}

impl Kind {
    fn is_run(self) -> bool {
        !matches!(self, Self::Call | Self::Publishes)
    }
}

/// Measures and tabulates.
pub(crate) fn table(
    options: &Options,
    nats: &str,
    nats_pid: u32,
    folder: &Path,
    text: &mut Text,
) -> anyhow::Result<()> {
    if !options.wants("runs") {
        return Ok(());
    }
    eprintln!("measuring runs");
    let (servers, contestants) = start(nats, folder)?;
    for server in &servers {
        server.pause()?;
    }
    let mut all: BTreeMap<(usize, usize), Vec<Report>> = BTreeMap::new();
    for round in 0..options.rounds() {
        for concurrency in CONCURRENCY {
            for turn in 0..contestants.len() {
                let at = (turn + round) % contestants.len();
                let Some(contestant) = contestants.get(at) else {
                    continue;
                };
                let own = contestant.servers.iter().filter_map(|at| servers.get(*at));
                let own: Vec<&Server> = own.collect();
                own.iter().try_for_each(|server| server.resume())?;
                let report = measure(options, nats, nats_pid, contestant, &own, concurrency);
                own.iter().try_for_each(|server| server.pause())?;
                let report = report.with_context(|| contestant.name.clone())?;
                if let Some(error) = report.first_error.as_ref().filter(|_| report.errors > 0) {
                    let name = &contestant.name;
                    eprintln!("{name}: {} calls failed: {error}", report.errors);
                }
                all.entry((at, concurrency)).or_default().push(report);
            }
        }
        eprintln!("round {} done", round + 1);
    }
    text.add(Some(tabulate(&contestants, &all)));
    text.add(Some(steps(&contestants, &all)));
    Ok(())
}

fn start(nats: &str, folder: &Path) -> anyhow::Result<(Vec<Server>, Vec<Contestant>)> {
    let echo = ["native", Shape::Current.as_str(), nats, "runs.echo"];
    let mut servers = vec![Server::role("native steps", echo, 1)?];
    let mut contestants = Vec::new();
    for shape in [Shape::Current, Shape::Tasks] {
        let name = format!("native, own writes, {}", shape.as_str());
        let subject = format!("runs.native.{}", shape.as_str());
        let role = ["runs", shape.as_str(), nats, &subject, "runs.echo"];
        servers.push(Server::role(&name, role, shape.threads()?)?);
        contestants.push(Contestant {
            name,
            kind: Kind::Native,
            subject,
            servers: vec![0, servers.len() - 1],
        });
    }
    let subject = "runs.publishes".to_owned();
    let role = ["runs-publishes", Shape::Current.as_str(), nats, &subject];
    servers.push(Server::role("native publishes", role, 1)?);
    contestants.push(Contestant {
        name: "native, two publishes to a stream".to_owned(),
        kind: Kind::Publishes,
        subject,
        servers: vec![servers.len() - 1],
    });
    let path = folder.join("runs.toml");
    std::fs::write(&path, manifest()?)?;
    let path = path.display().to_string();
    let role = ["serve", "--manifest", &path, "--nats", nats];
    servers.push(Server::role("wasmbay host of runs", role, 1)?);
    let host = servers.len() - 1;
    for (name, steps, function) in [
        (
            "wasmbay, pipeline of three steps",
            STEPS,
            "pipeline.v1.three",
        ),
        ("wasmbay, durable function", STEPS, "thrice.v1.thrice"),
        ("wasmbay, pipeline of one step", 1, "pipeline.v1.one"),
    ] {
        contestants.push(Contestant {
            name: name.to_owned(),
            kind: Kind::Steps(steps),
            subject: format!("bay.runs.bay.bench.{function}"),
            servers: vec![host],
        });
    }
    let path = folder.join("plain.toml");
    let (thrice, bench) = components()?;
    let text = format!(
        "name = \"plain\"\n{}{}",
        service("thrice", &thrice, ""),
        service("bench", &bench, "")
    );
    std::fs::write(&path, text)?;
    let path = path.display().to_string();
    let role = ["serve", "--manifest", &path, "--nats", nats];
    servers.push(Server::role("wasmbay host of plain", role, 1)?);
    for (name, kind, function) in [
        (
            "wasmbay, the same function, nothing stored",
            Kind::Unstored,
            "thrice.v1.thrice",
        ),
        ("wasmbay, a plain call", Kind::Call, "echo.v1.echo"),
    ] {
        contestants.push(Contestant {
            name: name.to_owned(),
            kind,
            subject: format!("bay.plain.bay.bench.{function}"),
            servers: vec![servers.len() - 1],
        });
    }
    Ok((servers, contestants))
}

fn components() -> anyhow::Result<(String, String)> {
    let path = |guest| anyhow::Ok(guests::component(guest)?.display().to_string());
    Ok((path("rust/bench-thrice")?, path("rust/bench")?))
}

fn service(name: &str, component: &str, lines: &str) -> String {
    format!(
        "[service.{name}]\ncomponent = \"{component}\"\nlimits = {{ concurrency = 256 }}\n{lines}"
    )
}

fn manifest() -> anyhow::Result<String> {
    let (thrice, bench) = components()?;
    let durable = "durable = { functions = [\"bay:bench/thrice.thrice\"], size = \"1GiB\", keep = \"60s\" }\n";
    let pipeline = |name: &str, steps: usize| {
        let all = (1..=steps).map(|step| {
            let from = match step {
                1 => "$.item".to_owned(),
                later => format!("$s{}", later - 1),
            };
            format!(
                "[[pipeline.{name}.step]]\nname = \"s{step}\"\ncall = \"bay:bench/echo.echo\"\nwith = {{ item = \"{from}\" }}\n"
            )
        });
        let all: String = all.collect();
        format!(
            "[pipeline.{name}]\nimplements = \"bay:bench/pipeline.{name}@1.0.0\"\n\
             type = \"func(item: record {{ id: u32, text: string }}) -> record {{ id: u32, text: string }}\"\n\
             size = \"1GiB\"\nkeep = \"60s\"\nresult = \"$s{steps}\"\n{all}"
        )
    };
    Ok(format!(
        "name = \"runs\"\n{}{}{}{}",
        service("thrice", &thrice, durable),
        service("bench", &bench, ""),
        pipeline("three", STEPS),
        pipeline("one", 1)
    ))
}

fn measure(
    options: &Options,
    nats: &str,
    nats_pid: u32,
    contestant: &Contestant,
    servers: &[&Server],
    concurrency: usize,
) -> anyhow::Result<Report> {
    let duration = options.seconds()?;
    let body = Body::new(ARGUMENTS, PAYLOAD)?;
    let mut processes = vec![Process {
        name: "nats-server".to_owned(),
        pid: nats_pid,
    }];
    processes.extend(servers.iter().map(|server| Process {
        name: "contestant".to_owned(),
        pid: server.pid(),
    }));
    run(&Run {
        target: Target::Nats {
            address: nats.trim_start_matches("nats://").to_owned(),
            subject: contestant.subject.clone(),
        },
        method: String::new(),
        expect: Some(body.padded(ITEM)),
        body: body.bytes,
        concurrency,
        duration,
        warm_up: duration / 4,
        processes,
    })
}

fn tabulate(contestants: &[Contestant], all: &BTreeMap<(usize, usize), Vec<Report>>) -> Table {
    let mut table = Table::new(
        format!("Runs of {STEPS} calls, arguments of {PAYLOAD} bytes"),
        &["function"],
    );
    for concurrency in CONCURRENCY {
        match concurrency {
            1 => table.column("1: p50 µs".to_owned()),
            many => table.column(format!("{many}: runs/s")),
        }
        table.column("of native".to_owned());
    }
    let runs = contestants.iter().enumerate();
    for (at, contestant) in runs.filter(|(_, one)| one.kind.is_run()) {
        let mut row = Row::new(&contestant.name);
        for concurrency in CONCURRENCY {
            let of = |at| all.get(&(at, concurrency)).map_or(&[][..], Vec::as_slice);
            let speed = |report: &Report| match concurrency {
                1 => 1e6 / report.p50_us,
                _ => report.calls_per_second,
            };
            let natives = (0..contestants.len()).filter(|at| {
                contestants
                    .get(*at)
                    .is_some_and(|one| one.kind == Kind::Native)
            });
            let best = natives
                .map(of)
                .max_by(|a, b| median_of(a, speed).total_cmp(&median_of(b, speed)));
            let own = of(at);
            match concurrency {
                1 => row.cell(Cell::Tenths(median_of(own, |report| report.p50_us))),
                _ => row.cell(Cell::Count(median_of(own, speed))),
            }
            // As everywhere: a ratio of times for one at a time, of throughput for many.
            row.cell(Cell::ratio(best.map(|best| match concurrency {
                1 => ratio(own, best, |report| report.p50_us),
                _ => ratio(own, best, speed),
            })));
        }
        table.rows.push(row);
    }
    table
}

/// A step beside a call and beside two publishes, by the rate of runs: what begins and ends a run is part of its steps.
fn steps(contestants: &[Contestant], all: &BTreeMap<(usize, usize), Vec<Report>>) -> Table {
    let [_, many] = CONCURRENCY;
    let title = format!("A durable step, arguments of {PAYLOAD} bytes");
    let mut table = Table::new(title, &["what"]);
    for column in ["a second", "of plain calls", "of two publishes"] {
        table.column(match column {
            "a second" => format!("{many}: {column}"),
            of => of.to_owned(),
        });
    }
    let of = |at| all.get(&(at, many)).map_or(&[][..], Vec::as_slice);
    let with = |kind| {
        let at = contestants.iter().position(|one| one.kind == kind);
        at.map(of).unwrap_or_default()
    };
    let (calls, publishes) = (with(Kind::Call), with(Kind::Publishes));
    let rate = |report: &Report| report.calls_per_second;
    for (at, contestant) in contestants.iter().enumerate() {
        let (name, steps) = match contestant.kind {
            Kind::Steps(1) => (format!("{}: with its run", contestant.name), 1),
            Kind::Steps(steps) => (format!("{}: one of {steps}", contestant.name), steps),
            Kind::Call | Kind::Publishes => (contestant.name.clone(), 1),
            Kind::Native | Kind::Unstored => continue,
        };
        let steps = u32::try_from(steps).map_or(1.0, f64::from);
        let mut row = Row::new(&name);
        row.cell(Cell::Count(steps * median_of(of(at), rate)));
        for other in [calls, publishes] {
            row.cell(Cell::Ratio(steps * ratio(of(at), other, rate)));
        }
        table.rows.push(row);
    }
    table
}

/// Serves a function that publishes what it is called with to a stream, twice, and each time waits until that is stored.
pub(crate) fn publishes(shape: Shape, nats: String, subject: String) -> anyhow::Result<()> {
    shape.run(move || {
        let (nats, subject) = (nats.clone(), subject.clone());
        async move {
            let client = async_nats::connect(nats).await?;
            let context = jetstream::new(client.clone());
            let to = format!("stored.{subject}");
            let config = jetstream::stream::Config {
                name: to.replace('.', "-"),
                subjects: vec![format!("{to}.*")],
                // As journals are stored: the next one takes the place of the last.
                max_messages_per_subject: 1,
                max_bytes: 1 << 30,
                max_age: std::time::Duration::from_secs(60),
                ..jetstream::stream::Config::default()
            };
            context.create_or_update_stream(config).await?;
            let mut messages = client.queue_subscribe(subject, "native".to_owned()).await?;
            wasmbay::nats::settled(&client).await?;
            crate::ready(None);
            while let Some(message) = messages.next().await {
                let (client, context, to) = (client.clone(), context.clone(), to.clone());
                tokio::spawn(async move { twice(&client, &context, &to, message).await });
            }
            Ok(())
        }
    })
}

async fn twice(
    client: &Client,
    context: &jetstream::Context,
    to: &str,
    message: Message,
) -> anyhow::Result<()> {
    let reply = message.reply.context("the message has no reply subject")?;
    let to = format!("{to}.{:032x}", rand::random::<u128>());
    for _ in 0..2 {
        let stored = context.publish(to.clone(), message.payload.clone()).await?;
        stored.await?;
    }
    // The item stands within the arguments.
    let result = message
        .payload
        .slice(8..message.payload.len().saturating_sub(1));
    client.publish(reply, result).await?;
    Ok(())
}

/// Serves a function that makes its calls one after the other, and writes to a bucket how far it is before the
/// first and after each of them.
pub(crate) fn native(
    shape: Shape,
    nats: String,
    subject: String,
    steps: String,
) -> anyhow::Result<()> {
    shape.run(move || {
        let (nats, subject, steps) = (nats.clone(), subject.clone(), steps.clone());
        async move {
            let client = async_nats::connect(nats).await?;
            let context = jetstream::new(client.clone());
            let config = jetstream::kv::Config {
                bucket: subject.replace('.', "-"),
                max_bytes: 1 << 30,
                ..jetstream::kv::Config::default()
            };
            let bucket = context.create_or_update_key_value(config).await?;
            let mut messages = client.queue_subscribe(subject, "native".to_owned()).await?;
            wasmbay::nats::settled(&client).await?;
            crate::ready(None);
            while let Some(message) = messages.next().await {
                let (client, bucket, steps) = (client.clone(), bucket.clone(), steps.clone());
                tokio::spawn(async move { three(&client, &bucket, &steps, message).await });
            }
            Ok(())
        }
    })
}

async fn three(
    client: &Client,
    bucket: &jetstream::kv::Store,
    steps: &str,
    message: Message,
) -> anyhow::Result<()> {
    let reply = message.reply.context("the message has no reply subject")?;
    let key = format!("{:032x}", rand::random::<u128>());
    let mut state = vec![message.payload];
    let progress = |state: &[bytes::Bytes]| state.join(&b'\n').into();
    let mut revision = bucket.create(&key, progress(&state)).await?;
    for _ in 0..STEPS {
        let asked = state.last().cloned().unwrap_or_default();
        let item = client.request(steps.to_owned(), asked).await?.payload;
        let next = [&b"{\"item\":"[..], &item, b"}"].concat();
        state.push(next.into());
        revision = bucket.update(&key, progress(&state), revision).await?;
    }
    // What came last is the result; it stands within the arguments of a next step.
    let last = state.last().cloned().unwrap_or_default();
    let result = last.slice(8..last.len().saturating_sub(1));
    client.publish(reply, result).await?;
    bucket.purge(&key).await?;
    Ok(())
}
