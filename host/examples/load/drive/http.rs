//! Requests over kept-alive HTTP/1.1 connections, one for each call under way.

use std::cell::RefCell;
use std::time::Instant;

use anyhow::{Context as _, bail};
use futures_util::future::try_join_all;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{LOST, Run, Tally, check};

pub(super) fn drive(run: &Run, address: &str, path: &str, tally: &mut Tally) -> anyhow::Result<()> {
    let body = run.body.len();
    let mut request = format!(
        "{} {path} HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\nContent-Length: {body}\r\n\r\n",
        run.method
    )
    .into_bytes();
    request.extend_from_slice(&run.body);
    let tally = RefCell::new(tally);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let slots = (0..run.concurrency).map(|_| slot(run, address, &request, &tally));
        try_join_all(slots).await
    })?;
    Ok(())
}

/// One call after the other. A connection that fails is an error of the call, and opened anew.
async fn slot(
    run: &Run,
    address: &str,
    request: &[u8],
    tally: &RefCell<&mut Tally>,
) -> anyhow::Result<()> {
    let mut connection = Connection::open(address).await?;
    loop {
        let sent = Instant::now();
        let outcome = match timeout(LOST, connection.call(request)).await {
            Ok(Ok((200..300, body))) => check(run, body),
            Ok(Ok((status, body))) => Err(format!("status {status}: {}", body.escape_ascii())),
            Ok(Err(error)) => Err(format!("{error:#}")),
            Err(_) => Err(format!("no answer within {LOST:?}")),
        };
        let broken = connection.broken;
        if !tally.borrow_mut().answered(sent, Instant::now(), outcome) {
            return Ok(());
        }
        if broken {
            connection = Connection::open(address).await?;
        }
    }
}

struct Connection {
    stream: TcpStream,
    input: Vec<u8>,
    /// Whether it cannot be used any more: no answer has come, or none that ends.
    broken: bool,
}

impl Connection {
    async fn open(address: &str) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            input: Vec::with_capacity(16 << 10),
            broken: false,
        })
    }

    /// Sends a request and returns the answer's status and body.
    async fn call(&mut self, request: &[u8]) -> anyhow::Result<(u16, &[u8])> {
        self.broken = true;
        self.input.clear();
        self.stream.write_all(request).await?;
        let head = loop {
            if let Some(end) = find(&self.input, b"\r\n\r\n") {
                break Head::parse(&self.input, end + 4)?;
            }
            self.more().await?;
        };
        let body = match head.length {
            Some(length) => {
                while self.input.len() < head.size + length {
                    self.more().await?;
                }
                self.input.get(head.size..head.size + length)
            }
            None => {
                while !self.input.ends_with(b"0\r\n\r\n") {
                    self.more().await?;
                }
                unchunk(&mut self.input, head.size)?;
                self.input.get(head.size..)
            }
        };
        self.broken = head.close;
        Ok((head.status, body.context("a short body")?))
    }

    async fn more(&mut self) -> anyhow::Result<()> {
        if self.stream.read_buf(&mut self.input).await? == 0 {
            bail!("the server has closed the connection");
        }
        Ok(())
    }
}

struct Head {
    status: u16,
    size: usize,
    /// Bytes of the body; none when it comes in chunks.
    length: Option<usize>,
    close: bool,
}

impl Head {
    fn parse(input: &[u8], size: usize) -> anyhow::Result<Self> {
        let text = std::str::from_utf8(input.get(..size).unwrap_or_default())?;
        let mut lines = text.split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1));
        let mut head = Self {
            status: status.context("no status")?.parse()?,
            size,
            length: Some(0),
            close: false,
        };
        for (name, value) in lines.filter_map(|line| line.split_once(':')) {
            let value = value.trim();
            if name.eq_ignore_ascii_case("content-length") {
                head.length = Some(value.parse()?);
            } else if name.eq_ignore_ascii_case("transfer-encoding") {
                head.length = None;
            } else if name.eq_ignore_ascii_case("connection") {
                head.close = value.eq_ignore_ascii_case("close");
            }
        }
        Ok(head)
    }
}

/// Takes the sizes out of a body in chunks.
fn unchunk(input: &mut Vec<u8>, mut at: usize) -> anyhow::Result<()> {
    loop {
        let rest = input.get(at..).unwrap_or_default();
        let end = find(rest, b"\r\n").context("a chunk without a size")?;
        let digits = std::str::from_utf8(rest.get(..end).unwrap_or_default())?;
        let size = usize::from_str_radix(digits.split(';').next().unwrap_or_default(), 16)?;
        if size == 0 {
            input.truncate(at);
            return Ok(());
        }
        input.drain(at..at + end + 2);
        at += size;
        input.drain(at..(at + 2).min(input.len()));
    }
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}
