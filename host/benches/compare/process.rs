//! The contestants' processes: this program itself in another role, or another program. Whoever is
//! not being measured is stopped, so that nobody's idle work is anybody else's noise.

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Lines, Write as _};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};

/// A running contestant, or a part of one. Killed when it is dropped.
pub(crate) struct Server {
    pub(crate) name: String,
    /// Where it serves HTTP, if it does.
    pub(crate) address: Option<SocketAddr>,
    child: Child,
    input: Option<ChildStdin>,
    output: Lines<BufReader<ChildStdout>>,
}

impl Server {
    /// Starts this program in another role.
    pub(crate) fn role<A: AsRef<OsStr>>(
        name: &str,
        arguments: impl IntoIterator<Item = A>,
        lines: usize,
    ) -> anyhow::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(arguments);
        Self::start(name, &mut command, lines)
    }

    /// Starts a program that prints a line `ready`, with the address of its HTTP server if it has
    /// one, `lines` times.
    pub(crate) fn start(name: &str, command: &mut Command, lines: usize) -> anyhow::Result<Self> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting {name}"))?;
        let output = child.stdout.take().context("no output")?;
        let mut server = Self {
            name: name.to_owned(),
            address: None,
            input: child.stdin.take(),
            child,
            output: BufReader::new(output).lines(),
        };
        for _ in 0..lines {
            let address = server.answer("ready")?;
            if !address.is_empty() {
                server.address = Some(address.parse()?);
            }
        }
        Ok(server)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a line, and gives what follows the word on the line that comes back.
    pub(crate) fn ask(&mut self, line: &str, word: &str) -> anyhow::Result<String> {
        let input = self.input.as_mut().context("no input")?;
        writeln!(input, "{line}")?;
        self.answer(word)
    }

    fn answer(&mut self, word: &str) -> anyhow::Result<String> {
        for line in self.output.by_ref() {
            if let Some(rest) = line?.strip_prefix(word) {
                return Ok(rest.trim().to_owned());
            }
        }
        bail!("{} ended before it said `{word}`", self.name)
    }

    pub(crate) fn pause(&self) -> anyhow::Result<()> {
        self.signal(Signal::STOP)
    }

    pub(crate) fn resume(&self) -> anyhow::Result<()> {
        self.signal(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        kill_process(Pid::from_child(&self.child), signal)
            .with_context(|| format!("{} has ended", self.name))
    }

    /// Bytes of memory that are in use: all, and those that are no file's.
    pub(crate) fn memory(&self) -> anyhow::Result<(u64, u64)> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()))?;
        let kib = |key: &str| {
            status
                .lines()
                .find_map(|line| line.strip_prefix(key))
                .and_then(|rest| rest.split_whitespace().next())
                .and_then(|kib| kib.parse::<u64>().ok())
                .with_context(|| format!("no {key} in /proc"))
        };
        Ok((kib("VmRSS:")? << 10, kib("RssAnon:")? << 10))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
