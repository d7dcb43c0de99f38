//! More calls than can be answered: a closed loop measures the peak, then a multiple of it is sent at a
//! fixed pace, whatever is answered. Says how much of the peak is left, and whether every call got one
//! reply.

use std::fmt;
use std::io::Write as _;
use std::net::TcpStream;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use serde::Serialize;

use crate::drive::nats::{Connection, Event};
use crate::drive::{self, LOST, Run, Target, check};

/// Time between two batches of calls.
const TICK: Duration = Duration::from_millis(1);

/// What a flood did.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct FloodReport {
    pub(crate) target: String,
    /// Good replies a second in the closed loop.
    pub(crate) peak_per_second: f64,
    /// Calls a second that were sent.
    pub(crate) offered_per_second: f64,
    /// Good replies a second while they were sent.
    pub(crate) goodput_per_second: f64,
    /// Goodput by peak.
    pub(crate) goodput_ratio: f64,
    pub(crate) sent: u64,
    pub(crate) good: u64,
    /// Replies with 429.
    pub(crate) shed: u64,
    /// Replies with another error.
    pub(crate) failed: u64,
    pub(crate) unanswered: u64,
    /// Replies beyond the first of a call.
    pub(crate) doubled: u64,
    pub(crate) first_error: Option<String>,
}

impl fmt::Display for FloodReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}, a flood", self.target)?;
        writeln!(
            f,
            "  peak {:.0}/s, offered {:.0}/s, goodput {:.0}/s: {:.2} of the peak",
            self.peak_per_second,
            self.offered_per_second,
            self.goodput_per_second,
            self.goodput_ratio
        )?;
        writeln!(
            f,
            "  {} sent: {} good, {} shed, {} failed, {} unanswered, {} doubled",
            self.sent, self.good, self.shed, self.failed, self.unanswered, self.doubled
        )?;
        if let Some(error) = &self.first_error {
            writeln!(f, "  first failure: {error}")?;
        }
        Ok(())
    }
}

/// Measures the peak, and then a flood of so many times that.
pub(crate) fn run(run: &Run, factor: f64) -> anyhow::Result<FloodReport> {
    let Target::Nats { address, subject } = &run.target else {
        bail!("a flood goes to a NATS subject");
    };
    let peak = drive::run(run)?;
    let good = peak.calls.saturating_sub(peak.errors) as f64;
    let peak_per_second = good / peak.seconds;
    if good == 0.0 {
        bail!("nothing was answered well: {:?}", peak.first_error);
    }
    let mut connection = Connection::open(address)?;
    let inbox = connection.subscribe_inbox()?;
    let sending = Sending {
        stream: Mutex::new(connection.stream.try_clone()?),
        subject,
        inbox: &inbox,
        body: &run.body,
        rate: peak_per_second * factor,
        duration: run.duration,
        ended: AtomicBool::new(false),
    };
    let began = Instant::now();
    let (sent, received) = thread::scope(|scope| {
        let sender = scope.spawn(|| sending.run());
        let received = receive(run, &mut connection, &sending, began);
        let sent = sender
            .join()
            .map_err(|_| anyhow::anyhow!("the sender failed"));
        (sent, received)
    });
    let ((sent, seconds), received) = (sent??, received?);
    let first = received.seen.iter().filter(|seen| **seen).count() as u64;
    let goodput_per_second = received.good_in_time as f64 / seconds;
    Ok(FloodReport {
        target: run.target.to_string(),
        peak_per_second,
        offered_per_second: sent as f64 / seconds,
        goodput_per_second,
        goodput_ratio: goodput_per_second / peak_per_second,
        sent,
        good: received.good,
        shed: received.shed,
        failed: received.failed,
        unanswered: sent - first,
        doubled: received.doubled,
        first_error: received.first_error,
    })
}

struct Sending<'a> {
    stream: Mutex<TcpStream>,
    subject: &'a str,
    inbox: &'a str,
    body: &'a [u8],
    rate: f64,
    duration: Duration,
    ended: AtomicBool,
}

impl Sending<'_> {
    /// Sends for as long as it takes; returns the number of calls, and the seconds.
    fn run(&self) -> anyhow::Result<(u64, f64)> {
        let sent = self.send();
        self.ended.store(true, Ordering::Release);
        sent
    }

    fn send(&self) -> anyhow::Result<(u64, f64)> {
        let began = Instant::now();
        let (mut sent, mut output) = (0_u64, Vec::new());
        while began.elapsed() < self.duration {
            let due = (began.elapsed().as_secs_f64() * self.rate) as u64;
            output.clear();
            for number in sent..due {
                let (subject, inbox, size) = (self.subject, self.inbox, self.body.len());
                write!(output, "PUB {subject} {inbox}.{number} {size}\r\n")?;
                output.extend_from_slice(self.body);
                output.extend_from_slice(b"\r\n");
            }
            sent = sent.max(due);
            self.write(&output)?;
            thread::sleep(TICK);
        }
        Ok((sent, began.elapsed().as_secs_f64()))
    }

    fn write(&self, bytes: &[u8]) -> anyhow::Result<()> {
        let stream = self.stream.lock();
        let mut stream = stream.map_err(|_| anyhow::anyhow!("the other thread failed"))?;
        Ok(stream.write_all(bytes)?)
    }
}

#[derive(Default)]
struct Received {
    /// Whether the call of each number has a reply.
    seen: Vec<bool>,
    good: u64,
    good_in_time: u64,
    shed: u64,
    failed: u64,
    doubled: u64,
    first_error: Option<String>,
}

/// Reads replies until none has come for as long as an answer may take.
fn receive(
    run: &Run,
    connection: &mut Connection,
    sending: &Sending<'_>,
    began: Instant,
) -> anyhow::Result<Received> {
    let mut received = Received::default();
    let mut last = Instant::now();
    while !sending.ended.load(Ordering::Acquire) || last.elapsed() < LOST {
        if !connection.read()? {
            continue;
        }
        last = Instant::now();
        let in_time = began.elapsed() < run.duration;
        while let Some(event) = connection.next()? {
            match event {
                Event::Ping => sending.write(b"PONG\r\n")?,
                Event::Other => {}
                Event::Message { slot, outcome } => {
                    received.count(slot, outcome.and_then(|body| check(run, body)), in_time)?;
                }
            }
        }
    }
    Ok(received)
}

impl Received {
    fn count(
        &mut self,
        number: usize,
        outcome: Result<(), String>,
        in_time: bool,
    ) -> anyhow::Result<()> {
        if self.seen.len() <= number {
            self.seen.resize(number + 1, false);
        }
        let seen = self.seen.get_mut(number).context("no such call")?;
        if std::mem::replace(seen, true) {
            self.doubled += 1;
            return Ok(());
        }
        match outcome {
            Ok(()) => {
                self.good += 1;
                self.good_in_time += u64::from(in_time);
            }
            Err(error) if error.contains("\"code\":429") => self.shed += 1,
            Err(error) => {
                self.failed += 1;
                self.first_error.get_or_insert(error);
            }
        }
        Ok(())
    }
}
