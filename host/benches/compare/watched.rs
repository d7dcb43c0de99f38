//! What it costs to be looked at: calls with everything on beside the same calls with everything off, and the metrics
//! of many services.

use std::fs;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::contest::{ARGUMENTS, ITEM, Service, manifest, subject};
use crate::drive::{Body, Run, Target, run};
use crate::lifecycle::{Life, middle, time};
use crate::process::Server;
use crate::table::{Cell, Row, Table, median};
use crate::{Options, guests};

/// Calls under way at a time.
const CONCURRENCY: usize = 128;

const PAYLOAD: usize = 100;

/// Services whose metrics are read.
const SERVICES: usize = 1_000;

/// Measures and tabulates, if it is wanted.
pub(crate) fn table(
    options: &Options,
    runtime: &Runtime,
    nats: &str,
    folder: &Path,
) -> anyhow::Result<Option<Table>> {
    if !options.wants("being looked at") {
        return Ok(None);
    }
    eprintln!("measuring what it costs to be looked at");
    let mut table = Table::new("Being looked at".to_owned(), &["what", "measured"]);
    let mut show = |what: String, measured: String| {
        let mut row = Row::new(&what);
        row.cell(Cell::Text(measured));
        table.rows.push(row);
    };
    let ways = [("over NATS", false), ("by the gateway", true)];
    for ((way, _), (off, on, ratio)) in ways.iter().zip(calls(options, nats, folder, ways)?) {
        show(
            format!("calls a second {way}, {CONCURRENCY} at a time, everything off"),
            format!("{off:.0}"),
        );
        show(
            "… with an admin address, and metrics, log records and spans of 1 % exported"
                .to_owned(),
            format!("{on:.0}, which is {ratio:.2} of that"),
        );
    }
    let (taken, bytes) = metrics(options, runtime, nats, folder)?;
    show(
        format!("`/metrics` of {SERVICES} services, each of which has been called"),
        format!(
            "{}, {:.1} MiB",
            time(taken),
            bytes as f64 / f64::from(1 << 20)
        ),
    );
    Ok(Some(table))
}

/// A running `wasmbay up`, and where it is called.
struct Up {
    server: Server,
    app: &'static str,
    gateway: String,
}

/// For each way, medians of the calls a second with everything off and on, and of the ratios within each round.
fn calls(
    options: &Options,
    nats: &str,
    folder: &Path,
    ways: [(&str, bool); 2],
) -> anyhow::Result<Vec<(f64, f64, f64)>> {
    let collector = format!("http://{}", collector()?);
    let hosts = [
        up("unwatched", nats, folder, None)?,
        up("watched", nats, folder, Some(&collector))?,
    ];
    for host in &hosts {
        host.server.pause()?;
    }
    let mut found = Vec::new();
    for (_, by_gateway) in ways {
        let mut rounds = [Vec::new(), Vec::new()];
        for round in 0..options.rounds() {
            for turn in 0..hosts.len() {
                let at = (turn + round) % hosts.len();
                let (Some(host), Some(all)) = (hosts.get(at), rounds.get_mut(at)) else {
                    continue;
                };
                host.server.resume()?;
                let measured = measure(options, nats, host, by_gateway);
                host.server.pause()?;
                all.push(measured.with_context(|| host.app.to_owned())?);
            }
        }
        let [off, on] = rounds;
        let ratios = on.iter().zip(&off).map(|(on, off)| on / off).collect();
        found.push((median(off), median(on), median(ratios)));
    }
    Ok(found)
}

fn up(app: &'static str, nats: &str, folder: &Path, collector: Option<&str>) -> anyhow::Result<Up> {
    let folder = folder.join(app);
    fs::create_dir_all(&folder)?;
    let bench = Service::new("bench", guests::component("rust/bench")?);
    let path = folder.join("wasmbay.toml");
    fs::write(&path, manifest(app, &[bench], "prefer")?)?;
    let mut command = Command::new(env!("CARGO_BIN_EXE_wasmbay"));
    command
        .args([
            "--output",
            "json",
            "up",
            "--no-watch",
            "--listen",
            "127.0.0.1:0",
        ])
        .arg(&path)
        .args(["--nats", nats])
        .env("XDG_CACHE_HOME", folder.join("cache"));
    if let Some(collector) = collector {
        command
            .args(["--admin", "127.0.0.1:0"])
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", collector)
            .env("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
            .env("OTEL_TRACES_SAMPLER_ARG", "0.01");
    }
    let mut server = Server::start(app, &mut command, 0)?;
    let ready: Value = serde_json::from_str(&server.wait("\"event\":\"ready\"")?)?;
    let gateway = ready.get("gateway").and_then(Value::as_str);
    let gateway = gateway.and_then(|url| url.strip_prefix("http://"));
    Ok(Up {
        gateway: gateway.context("no gateway")?.to_owned(),
        server,
        app,
    })
}

/// Calls a second.
fn measure(options: &Options, nats: &str, host: &Up, by_gateway: bool) -> anyhow::Result<f64> {
    let duration = options.seconds()?;
    let (target, body) = if by_gateway {
        let target = Target::Http {
            address: host.gateway.clone(),
            path: "/echo".to_owned(),
        };
        (target, ITEM)
    } else {
        let target = Target::Nats {
            address: nats.trim_start_matches("nats://").to_owned(),
            subject: subject(host.app, "echo"),
        };
        (target, ARGUMENTS)
    };
    let body = Body::new(body, PAYLOAD)?;
    let report = run(&Run {
        target,
        method: "POST".to_owned(),
        expect: Some(body.padded(ITEM)),
        body: body.bytes,
        concurrency: CONCURRENCY,
        duration,
        warm_up: duration / 4,
        processes: Vec::new(),
    })?;
    ensure!(report.errors == 0, "{:?}", report.first_error);
    Ok(report.calls_per_second)
}

/// Takes what is exported, and does nothing with it.
fn collector() -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || take(&stream));
        }
    });
    Ok(address)
}

/// Answers the requests of a connection, until it ends.
fn take(mut stream: &TcpStream) -> io::Result<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let (mut length, mut line) = (0, String::new());
        while reader.read_line(&mut line)? > 0 && line.trim() != "" {
            let (name, value) = line.split_once(':').unwrap_or_default();
            if name.eq_ignore_ascii_case("content-length") {
                length = value.trim().parse().unwrap_or_default();
            }
            line.clear();
        }
        if line.is_empty() {
            return Ok(());
        }
        io::copy(&mut reader.by_ref().take(length), &mut io::sink())?;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")?;
    }
}

/// How long the metrics of many services take to come, and their size.
fn metrics(
    options: &Options,
    runtime: &Runtime,
    nats: &str,
    folder: &Path,
) -> anyhow::Result<(Duration, usize)> {
    let component = fs::read(guests::component("rust/bench")?)?;
    let life = Life {
        nats,
        folder: &folder.join("life"),
        component: &component,
    };
    let manifest = life.manifest("idle", SERVICES)?;
    let host = life.host(&manifest, "cache-idle", &["--admin"])?;
    let address = host.address.context("no admin address")?;
    let body = Body::new(ARGUMENTS, PAYLOAD)?;
    runtime.block_on(async {
        let client = async_nats::connect(nats).await?;
        let (client, body) = (&client, &body.bytes);
        let called = stream::iter(0..SERVICES).map(|index| async move {
            let subject = format!("bay.idle.bay.bench.e{index:03}.v1.echo");
            let reply = client.request(subject, body.clone().into()).await?;
            ensure!(reply.headers.is_none(), "a service has failed");
            Ok(())
        });
        called.buffer_unordered(16).try_collect::<()>().await
    })?;
    let (mut taken, mut bytes) = (Vec::new(), 0);
    for _ in 0..options.rounds() + 2 {
        let started = Instant::now();
        let mut stream = TcpStream::connect(address)?;
        let request = format!("GET /metrics HTTP/1.0\r\nHost: {address}\r\n\r\n");
        stream.write_all(request.as_bytes())?;
        let mut page = String::new();
        stream.read_to_string(&mut page)?;
        taken.push(started.elapsed());
        let counted = page
            .matches("rpc_server_call_duration_seconds_count{")
            .count();
        ensure!(counted == SERVICES, "{counted} services have been called");
        bytes = page.len();
    }
    Ok((middle(&taken)?, bytes))
}
