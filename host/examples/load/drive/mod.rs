//! The generator of load: the same clock, the same histogram and the same closed loop for a NATS
//! subject and for an HTTP URL. One thread, so that it takes as little as it can from what it
//! measures on the same machine.

mod http;
pub(crate) mod nats;
mod process;

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use hdrhistogram::Histogram;
use serde::Serialize;

pub(crate) use process::Process;
use process::Usage;

/// How long an answer may take before its call counts as lost.
pub(crate) const LOST: Duration = Duration::from_secs(5);

/// What is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// A subject of the server at this address.
    Nats { address: String, subject: String },
    /// A path of the server at this address.
    Http { address: String, path: String },
}

impl FromStr for Target {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let (scheme, rest) = text
            .split_once("://")
            .context("expected nats://… or http://…")?;
        let (address, path) = rest.split_once('/').unwrap_or((rest, ""));
        let address = address.to_owned();
        match scheme {
            "nats" if path.is_empty() => bail!("expected nats://host:port/subject"),
            "nats" => Ok(Self::Nats {
                address,
                subject: path.to_owned(),
            }),
            "http" => Ok(Self::Http {
                address,
                path: format!("/{path}"),
            }),
            _ => bail!("expected nats://… or http://…, not {scheme}://"),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nats { address, subject } => write!(f, "nats://{address}/{subject}"),
            Self::Http { address, path } => write!(f, "http://{address}{path}"),
        }
    }
}

/// A call's body, and what was put in for its `{pad}`.
pub(crate) struct Body {
    pub(crate) bytes: Vec<u8>,
    pad: String,
}

impl Body {
    const PAD: &str = "{pad}";

    /// A body of `size` bytes, if the template has a place for padding.
    pub(crate) fn new(template: &str, size: usize) -> anyhow::Result<Self> {
        let bare = template.replace(Self::PAD, "").len();
        let pads = template.matches(Self::PAD).count();
        let pad = match pads {
            0 => String::new(),
            1 => "x".repeat(size.saturating_sub(bare)),
            _ => bail!("{} stands more than once in the body", Self::PAD),
        };
        Ok(Self {
            bytes: template.replace(Self::PAD, &pad).into_bytes(),
            pad,
        })
    }

    /// Another text with the same padding.
    pub(crate) fn padded(&self, template: &str) -> Vec<u8> {
        template.replace(Self::PAD, &self.pad).into_bytes()
    }
}

/// One measurement to be made.
#[derive(Clone)]
pub(crate) struct Run {
    pub(crate) target: Target,
    pub(crate) method: String,
    pub(crate) body: Vec<u8>,
    pub(crate) expect: Option<Vec<u8>>,
    pub(crate) concurrency: usize,
    pub(crate) duration: Duration,
    pub(crate) warm_up: Duration,
    pub(crate) processes: Vec<Process>,
}

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) target: String,
    pub(crate) concurrency: usize,
    pub(crate) seconds: f64,
    /// Calls that were answered, with an error or without.
    pub(crate) calls: u64,
    pub(crate) errors: u64,
    pub(crate) first_error: Option<String>,
    pub(crate) calls_per_second: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) p999_us: f64,
    /// Microseconds of CPU for each call, by process; `load` is the generator itself.
    pub(crate) cpu_us: BTreeMap<String, f64>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}, {} at a time", self.target, self.concurrency)?;
        writeln!(
            f,
            "  {:.0} calls/s ({} in {:.2} s), {} errors",
            self.calls_per_second, self.calls, self.seconds, self.errors
        )?;
        if let Some(error) = &self.first_error {
            writeln!(f, "  first error: {error}")?;
        }
        writeln!(
            f,
            "  p50 {:.1} µs, p99 {:.1} µs, p99.9 {:.1} µs",
            self.p50_us, self.p99_us, self.p999_us
        )?;
        for (name, cpu) in &self.cpu_us {
            writeln!(f, "  {name}: {cpu:.2} µs of CPU a call")?;
        }
        Ok(())
    }
}

/// Makes one measurement. Blocks for as long as it takes.
pub(crate) fn run(run: &Run) -> anyhow::Result<Report> {
    let mut tally = Tally::new(run)?;
    match &run.target {
        Target::Nats { address, subject } => nats::drive(run, address, subject, &mut tally),
        Target::Http { address, path } => http::drive(run, address, path, &mut tally),
    }
    .with_context(|| format!("driving {}", run.target))?;
    tally.report(run)
}

/// What both drivers count in: it knows the time, and so when the warm-up and the run are over.
struct Tally {
    latencies: Histogram<u64>,
    errors: u64,
    first_error: Option<String>,
    /// When what is answered begins and ends to count.
    begin: Instant,
    end: Instant,
    processes: Vec<Process>,
    before: Option<(Instant, Vec<Usage>)>,
    after: Option<(Instant, Vec<Usage>)>,
}

impl Tally {
    fn new(run: &Run) -> anyhow::Result<Self> {
        let begin = Instant::now() + run.warm_up;
        let mut processes = run.processes.clone();
        processes.push(Process {
            name: "load".to_owned(),
            pid: std::process::id(),
        });
        Ok(Self {
            latencies: Histogram::new_with_bounds(100, 60_000_000_000, 3)?,
            errors: 0,
            first_error: None,
            begin,
            end: begin + run.duration,
            processes,
            before: None,
            after: None,
        })
    }

    /// Counts an answer; whether another call should follow.
    fn answered(&mut self, sent: Instant, now: Instant, outcome: Result<(), String>) -> bool {
        if now < self.begin {
            // An error before it counts would hide that nothing works.
            if let Err(error) = outcome {
                self.first_error.get_or_insert(error);
            }
            return true;
        }
        if self.before.is_none() {
            self.before = Some((now, self.usage()));
        }
        if now >= self.end {
            if self.after.is_none() {
                self.after = Some((now, self.usage()));
            }
            return false;
        }
        let nanoseconds = u64::try_from((now - sent).as_nanos()).unwrap_or(u64::MAX);
        self.latencies.saturating_record(nanoseconds);
        if let Err(error) = outcome {
            self.errors += 1;
            self.first_error.get_or_insert(error);
        }
        true
    }

    fn usage(&self) -> Vec<Usage> {
        self.processes.iter().map(Process::usage).collect()
    }

    fn report(self, run: &Run) -> anyhow::Result<Report> {
        let (Some((begin, before)), Some((end, after))) = (&self.before, &self.after) else {
            match self.first_error {
                Some(error) => bail!("nothing was answered: {error}"),
                None => bail!("nothing was answered"),
            }
        };
        let calls = self.latencies.len();
        let seconds = (*end - *begin).as_secs_f64();
        let microseconds = |quantile| self.latencies.value_at_quantile(quantile) as f64 / 1e3;
        let mut cpu_us = BTreeMap::new();
        for ((process, before), after) in self.processes.iter().zip(before).zip(after) {
            let used = after.since(*before).as_secs_f64() * 1e6 / calls.max(1) as f64;
            *cpu_us.entry(process.name.clone()).or_default() += used;
        }
        Ok(Report {
            target: run.target.to_string(),
            concurrency: run.concurrency,
            seconds,
            calls,
            errors: self.errors,
            first_error: self.first_error,
            calls_per_second: calls as f64 / seconds,
            p50_us: microseconds(0.5),
            p99_us: microseconds(0.99),
            p999_us: microseconds(0.999),
            cpu_us,
        })
    }
}

/// Whether an answer is the one that was to come.
pub(crate) fn check(run: &Run, body: &[u8]) -> Result<(), String> {
    match &run.expect {
        Some(expected) if expected != body => {
            let start = body.get(..200).unwrap_or(body);
            Err(format!("unexpected answer: {}", start.escape_ascii()))
        }
        _ => Ok(()),
    }
}
