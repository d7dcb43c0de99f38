//! The contestants' processes: this program itself in another role, or another program. Those that
//! are not being measured are stopped, so that their idle work does not disturb the measurement.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Lines, Write as _};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::process::{Child, ChildStdin, Command, Stdio};

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};

/// A running contestant, or a part of one. Killed when it is dropped.
pub(crate) struct Server {
    pub(crate) name: String,
    /// Where it serves HTTP, if it does.
    pub(crate) address: Option<SocketAddr>,
    child: Child,
    input: Option<ChildStdin>,
    output: Lines<BufReader<File>>,
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
            output: BufReader::new(File::from(OwnedFd::from(output))).lines(),
        };
        for _ in 0..lines {
            let address = server.answer("ready")?;
            if !address.is_empty() {
                server.address = Some(address.parse()?);
            }
        }
        Ok(server)
    }

    /// Starts a server of others, which says on stderr at which URL it serves.
    pub(crate) fn serve(name: &str, command: &mut Command) -> anyhow::Result<Self> {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting {name}"))?;
        let output = child.stderr.take().context("no output")?;
        let mut server = Self {
            name: name.to_owned(),
            address: None,
            input: None,
            child,
            output: BufReader::new(File::from(OwnedFd::from(output))).lines(),
        };
        let line = server.wait("http://")?;
        let url = line.split("http://").nth(1).context("no URL")?;
        server.address = Some(url.trim_end_matches('/').parse()?);
        Ok(server)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a line, and returns the text after the word on the line that comes back.
    pub(crate) fn ask(&mut self, line: &str, word: &str) -> anyhow::Result<String> {
        let input = self.input.as_mut().context("no input")?;
        writeln!(input, "{line}")?;
        self.answer(word)
    }

    fn answer(&mut self, word: &str) -> anyhow::Result<String> {
        self.find(word, |line| {
            Some(line.strip_prefix(word)?.trim().to_owned())
        })
    }

    /// The next line with this text in it.
    pub(crate) fn wait(&mut self, text: &str) -> anyhow::Result<String> {
        self.find(text, |line| line.contains(text).then(|| line.to_owned()))
    }

    fn find(
        &mut self,
        what: &str,
        matches: impl Fn(&str) -> Option<String>,
    ) -> anyhow::Result<String> {
        for line in self.output.by_ref() {
            if let Some(found) = matches(&line?) {
                return Ok(found);
            }
        }
        bail!("{} ended before it said `{what}`", self.name)
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

    /// The memory that the process takes.
    pub(crate) fn memory(&self) -> anyhow::Result<Memory> {
        let rollup = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", self.pid()))?;
        let bytes = |key: &str| {
            rollup
                .lines()
                .find_map(|line| line.strip_prefix(key)?.strip_suffix("kB"))
                .and_then(|kib| kib.trim().parse::<u64>().ok())
                .map(|kib| kib << 10)
                .with_context(|| format!("no {key} in /proc"))
        };
        Ok(Memory {
            all: bytes("Pss:")?,
            anonymous: bytes("Pss_Anon:")?,
            file: bytes("Pss_File:")?,
        })
    }
}

/// Bytes of memory, what is shared with other processes divided by their number (PSS).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    pub(crate) all: u64,
    /// What is no file's.
    pub(crate) anonymous: u64,
    /// Mapped files: the program and compiled components.
    pub(crate) file: u64,
}

impl Memory {
    /// What this is more than another.
    pub(crate) fn beyond(self, other: Self) -> Self {
        Self {
            all: self.all.saturating_sub(other.all),
            anonymous: self.anonymous.saturating_sub(other.anonymous),
            file: self.file.saturating_sub(other.file),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
