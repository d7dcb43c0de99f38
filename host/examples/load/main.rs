//! Drives a NATS subject or an HTTP URL and measures what a call costs:
//!
//! ```text
//! cargo run --release --example load -- nats://127.0.0.1:4222/bay.hello.bay.hello.greeter.v1.greet \
//!     --body '{"name":"Ada"}' --concurrency 128 --process host=4711
//! cargo run --release --example load -- http://127.0.0.1:8080/hello/Ada --method GET
//! cargo run --release --example load -- nats://127.0.0.1:4222/bay.hello.bay.hello.greeter.v1.greet --flood 4
//! ```
//!
//! As many calls as `--concurrency` says are under way at any time; the next one starts when one
//! is answered.

#![expect(clippy::print_stdout, reason = "a program's output")]

mod drive;
mod flood;

use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use drive::{Body, Process, Run, Target};
use serde::Serialize;

/// Drives a NATS subject or an HTTP URL and measures what a call costs.
#[derive(Parser)]
struct Args {
    /// `nats://host:port/subject` or `http://host:port/path`.
    target: Target,
    /// The body of each call; `{pad}` in it becomes as many letters as `--size` needs.
    #[arg(long, default_value = "")]
    body: String,
    /// Bytes of the body, when it has a `{pad}`.
    #[arg(long, default_value_t = 0)]
    size: usize,
    /// Count every answer that is not exactly this (with the same `{pad}`) as an error.
    #[arg(long)]
    expect: Option<String>,
    /// The HTTP method.
    #[arg(long, default_value = "POST")]
    method: String,
    /// Calls under way at the same time; over HTTP, each has its own connection.
    #[arg(long, short, default_value_t = 16)]
    concurrency: usize,
    /// Seconds that are measured.
    #[arg(long, short, default_value_t = 10.0)]
    duration: f64,
    /// Seconds before that.
    #[arg(long, short, default_value_t = 1.0)]
    warm_up: f64,
    /// A process whose CPU time is reported, as `name=pid`; can be repeated.
    #[arg(long)]
    process: Vec<NamedProcess>,
    /// Then send so many times as many calls as were answered, and say what is answered of those. For
    /// NATS.
    #[arg(long, value_name = "FACTOR")]
    flood: Option<f64>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Clone)]
struct NamedProcess(Process);

impl FromStr for NamedProcess {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let (name, pid) = text.split_once('=').context("expected name=pid")?;
        Ok(Self(Process {
            name: name.to_owned(),
            pid: pid.parse()?,
        }))
    }
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let body = Body::new(&args.body, args.size)?;
    let expect = args.expect.as_deref().map(|text| body.padded(text));
    let run = Run {
        target: args.target,
        method: args.method,
        expect,
        body: body.bytes,
        concurrency: args.concurrency,
        duration: Duration::try_from_secs_f64(args.duration)?,
        warm_up: Duration::try_from_secs_f64(args.warm_up)?,
        processes: args.process.into_iter().map(|named| named.0).collect(),
    };
    match args.flood {
        Some(factor) => print(&flood::run(&run, factor)?, args.json),
        None => print(&drive::run(&run)?, args.json),
    }
}

fn print(report: &(impl Serialize + Display), json: bool) -> anyhow::Result<()> {
    if json {
        println!("{}", serde_json::to_string_pretty(report)?);
    } else {
        print!("{report}");
    }
    Ok(())
}
