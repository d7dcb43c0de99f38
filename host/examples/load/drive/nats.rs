//! Requests over one NATS connection, written and read as raw protocol: next to what a client
//! library costs, the generator then takes almost nothing from the machine.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use super::{LOST, Run, Tally, check};

/// Room for what is read at once.
const READ: usize = 256 << 10;

pub(super) fn drive(
    run: &Run,
    address: &str,
    subject: &str,
    tally: &mut Tally,
) -> anyhow::Result<()> {
    let mut connection = Connection::open(address)?;
    let inbox = connection.subscribe_inbox()?;

    let mut slots: Vec<Slot> = (0..run.concurrency)
        .map(|slot| Slot::new(run, subject, &inbox, slot))
        .collect();
    let mut output = Vec::new();
    for slot in &mut slots {
        slot.send(Instant::now(), &mut output);
    }
    let mut under_way = slots.len();
    while under_way > 0 {
        connection.write(&output)?;
        output.clear();
        let read = connection.read()?;
        let now = Instant::now();
        if !read {
            under_way -= lose(&mut slots, now, tally, &mut output);
        }
        while let Some(event) = connection.next()? {
            let (slot, outcome) = match event {
                Event::Message { slot, outcome } => (slot, outcome),
                Event::Ping => {
                    output.extend_from_slice(b"PONG\r\n");
                    continue;
                }
                Event::Other => continue,
            };
            let outcome = outcome.and_then(|body| check(run, body));
            let slot = slots.get_mut(slot).context("an answer to no call")?;
            // One that was given up may still be answered.
            let Some(sent) = slot.sent.take() else {
                continue;
            };
            if tally.answered(sent, now, outcome) {
                slot.send(now, &mut output);
            } else {
                under_way -= 1;
            }
        }
    }
    Ok(())
}

/// Counts calls without an answer as errors and makes others in their place, or none after the
/// end. Returns the number of those that ended.
fn lose(slots: &mut [Slot], now: Instant, tally: &mut Tally, output: &mut Vec<u8>) -> usize {
    let mut ended = 0;
    for slot in slots {
        if let Some(sent) = slot.sent.filter(|sent| now - *sent > LOST) {
            let why = format!("no answer within {LOST:?}");
            slot.sent = None;
            if tally.answered(sent, now, Err(why)) {
                slot.send(now, output);
            } else {
                ended += 1;
            }
        }
    }
    ended
}

/// A call at a time.
struct Slot {
    /// Its request, ready to be written.
    request: Vec<u8>,
    sent: Option<Instant>,
}

impl Slot {
    fn new(run: &Run, subject: &str, inbox: &str, slot: usize) -> Self {
        let mut request = format!("PUB {subject} {inbox}.{slot} {}\r\n", run.body.len());
        request.reserve(run.body.len());
        let mut request = request.into_bytes();
        request.extend_from_slice(&run.body);
        request.extend_from_slice(b"\r\n");
        Self {
            request,
            sent: None,
        }
    }

    fn send(&mut self, now: Instant, output: &mut Vec<u8>) {
        output.extend_from_slice(&self.request);
        self.sent = Some(now);
    }
}

/// What the server sends.
pub(crate) enum Event<'a> {
    Message {
        slot: usize,
        outcome: Result<&'a [u8], String>,
    },
    Ping,
    /// News of the cluster.
    Other,
}

pub(crate) struct Connection {
    pub(crate) stream: TcpStream,
    input: Vec<u8>,
    /// What of `input` is filled, and how much of that is used up.
    filled: usize,
    used: usize,
}

impl Connection {
    pub(crate) fn open(address: &str) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_millis(500)))?;
        let mut connection = Self {
            stream,
            input: vec![0; READ],
            filled: 0,
            used: 0,
        };
        connection.write(
            b"CONNECT {\"verbose\":false,\"pedantic\":false,\"headers\":true,\"no_responders\":true,\
            \"protocol\":1,\"lang\":\"rust\",\"version\":\"0\",\"name\":\"load\"}\r\n",
        )?;
        Ok(connection)
    }

    /// Subscribes to the replies of an inbox, and returns its name.
    pub(crate) fn subscribe_inbox(&mut self) -> anyhow::Result<String> {
        let inbox = format!("_INBOX.{:x}", rand::random::<u64>());
        self.write(format!("SUB {inbox}.* 1\r\nPING\r\n").as_bytes())?;
        self.wait_for_pong()?;
        Ok(inbox)
    }

    fn write(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        Ok(self.stream.write_all(bytes)?)
    }

    fn wait_for_pong(&mut self) -> anyhow::Result<()> {
        loop {
            if let Some(line) = self.line() {
                let line = String::from_utf8_lossy(&line).into_owned();
                match line.as_str() {
                    "PONG" => return Ok(()),
                    _ if line.starts_with("-ERR") => bail!("the server says {line}"),
                    _ => continue,
                }
            }
            if !self.read()? {
                bail!("the server does not answer");
            }
        }
    }

    /// Takes a whole line, if there is one.
    fn line(&mut self) -> Option<Vec<u8>> {
        let rest = self.rest();
        let end = rest.windows(2).position(|pair| pair == b"\r\n")?;
        let line = rest.get(..end)?.to_vec();
        self.used += end + 2;
        Some(line)
    }

    fn rest(&self) -> &[u8] {
        self.input.get(self.used..self.filled).unwrap_or_default()
    }

    /// Reads what has come, waiting for it a while; whether anything has.
    pub(crate) fn read(&mut self) -> anyhow::Result<bool> {
        self.input.copy_within(self.used..self.filled, 0);
        self.filled -= self.used;
        self.used = 0;
        if self.filled == self.input.len() {
            self.input.resize(self.filled * 2, 0);
        }
        let room = self.input.get_mut(self.filled..).unwrap_or_default();
        match self.stream.read(room) {
            Ok(0) => bail!("the server has closed the connection"),
            Ok(read) => {
                self.filled += read;
                Ok(true)
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The next whole message or ping.
    pub(crate) fn next(&mut self) -> anyhow::Result<Option<Event<'_>>> {
        let rest = self.input.get(self.used..self.filled).unwrap_or_default();
        let Some(end) = rest.iter().position(|byte| *byte == b'\n') else {
            return Ok(None);
        };
        let line = std::str::from_utf8(rest.get(..end).unwrap_or_default())?.trim_end();
        let mut words = line.split(' ');
        let headers = match words.next() {
            Some("MSG") => false,
            Some("HMSG") => true,
            Some("PING") => {
                self.used += end + 1;
                return Ok(Some(Event::Ping));
            }
            Some("INFO") => {
                self.used += end + 1;
                return Ok(Some(Event::Other));
            }
            _ => bail!("the server says {line}"),
        };
        let slot = words.next().and_then(|subject| subject.rsplit('.').next());
        let slot = slot.context("no subject")?.parse()?;
        let mut sizes = words.rev();
        let total: usize = sizes.next().context("no size")?.parse()?;
        let Some(payload) = rest.get(end + 1..end + 1 + total) else {
            return Ok(None);
        };
        if rest.len() < end + 1 + total + 2 {
            return Ok(None);
        }
        self.used += end + 1 + total + 2;
        let outcome = if headers {
            let size: usize = sizes.next().context("no size of headers")?.parse()?;
            let (headers, body) = payload.split_at_checked(size).context("short headers")?;
            outcome(headers, body)
        } else {
            Ok(payload)
        };
        Ok(Some(Event::Message { slot, outcome }))
    }
}

/// An answer with headers is an error if it has a status (no responders) or a service's error.
fn outcome<'a>(headers: &[u8], body: &'a [u8]) -> Result<&'a [u8], String> {
    let text = String::from_utf8_lossy(headers);
    let mut lines = text.lines();
    let status = lines.next().unwrap_or_default();
    match status.strip_prefix("NATS/1.0 ") {
        Some("503") => Err("no responders (503)".to_owned()),
        Some(status) => Err(format!("status {status}")),
        None if lines.any(|line| line.to_ascii_lowercase().starts_with("nats-service-error")) => {
            Err(String::from_utf8_lossy(body).into_owned())
        }
        None => Ok(body),
    }
}
