//! The real binary, run as a person runs it, in a folder of its own.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::{DEADLINE, PATIENCE};

/// A folder in which the binary is run, and its environment.
pub(crate) struct Cli {
    folder: TempDir,
    /// The tools of the checkout, where there are some.
    tools: bool,
}

impl Cli {
    pub(crate) fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            tools: true,
        }
    }

    /// On a machine that has no other program.
    pub(crate) fn without_tools() -> Self {
        Self {
            tools: false,
            ..Self::new()
        }
    }

    /// With these files.
    pub(crate) fn with(self, files: &[(&str, &str)]) -> Self {
        for (path, text) in files {
            self.write(path, text);
        }
        self
    }

    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    pub(crate) fn write(&self, path: &str, contents: impl AsRef<[u8]>) {
        let path = self.path(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, contents).unwrap();
    }

    /// The binary with nothing of this process's surroundings that could change what it prints.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wasmbay"));
        command
            .args(args)
            .current_dir(self.folder.path())
            .env_clear()
            .env("HOME", self.folder.path())
            .stdin(Stdio::null());
        if self.tools {
            let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.tools");
            command
                .env("WASMBAY_TOOLS", tools)
                .env("PATH", std::env::var_os("PATH").unwrap());
        }
        command
    }

    /// What a person sees: stdout, stderr, and the exit code.
    pub(crate) fn run(&self, args: &[&str]) -> String {
        shown(self.command(args), b"")
    }

    pub(crate) fn run_with_input(&self, args: &[&str], input: &[u8]) -> String {
        shown(self.command(args), input)
    }

    /// Starts `wasmbay up` on free ports and waits until it is ready.
    pub(crate) fn up(&self, args: &[&str]) -> Up {
        let listen: &[&str] = if args.contains(&"--no-gateway") {
            &[]
        } else {
            &["--listen", "127.0.0.1:0"]
        };
        let args: Vec<_> = ["up"].iter().chain(listen).chain(args).copied().collect();
        let up = Up::start(self.command(&args));
        up.until_built("ready");
        up
    }

    /// Has snapshots of this folder's output compared with placeholders for what changes.
    pub(crate) fn settings(&self) -> insta::Settings {
        let mut settings = insta::Settings::clone_current();
        settings.set_prepend_module_to_snapshot(false);
        let folder = self.folder.path().canonicalize().unwrap();
        settings.add_filter(&regex_escape(&folder.display().to_string()), "[folder]");
        for (from, to) in [
            (r"\b[0-9a-f]{64}\b", "[digest]"),
            (r"\b[0-9a-f]{12}\b", "[digest]"),
            (r"127\.0\.0\.1:[1-9]\d*", "127.0.0.1:[port]"),
            (r"\b\d+(\.\d+)? ?(ms|s|µs)\b", "[time]"),
            (r"process \d+", "process [pid]"),
            (r"kill \d+", "kill [pid]"),
            (r"\d{4}-\d\d-\d\dT[\d:.]+Z", "[now]"),
        ] {
            settings.add_filter(from, to);
        }
        settings
    }
}

/// Compares what was printed with a reviewed snapshot.
macro_rules! assert_seen {
    ($cli:expr, $name:literal, $seen:expr) => {
        $cli.settings()
            .bind(|| insta::assert_snapshot!($name, $seen))
    };
}
pub(crate) use assert_seen;

fn regex_escape(text: &str) -> String {
    text.chars().fold(String::new(), |mut escaped, c| {
        if !c.is_ascii_alphanumeric() && c != '/' {
            escaped.push('\\');
        }
        escaped.push(c);
        escaped
    })
}

fn shown(mut command: Command, input: &[u8]) -> String {
    let mut line = "$ wasmbay".to_owned();
    for arg in command.get_args() {
        let arg = arg.to_str().unwrap();
        let quote = if arg.contains([' ', '"', '{', '[']) {
            "'"
        } else {
            ""
        };
        write!(line, " {quote}{arg}{quote}").unwrap();
    }
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A program that does not read its input closes it.
    let _ = child.stdin.take().unwrap().write_all(input);
    let output = child.wait_with_output().unwrap();
    let mut seen = line + "\n";
    for (name, bytes) in [("stdout", output.stdout), ("stderr", output.stderr)] {
        if !bytes.is_empty() {
            let text = String::from_utf8(bytes).unwrap();
            writeln!(seen, "[{name}]\n{}", text.trim_end()).unwrap();
        }
    }
    write!(seen, "[{}]", ended(output.status)).unwrap();
    seen
}

fn ended(status: ExitStatus) -> String {
    match status.code() {
        Some(code) => format!("exit {code}"),
        None => status.to_string(),
    }
}

/// A running `wasmbay up`, killed at the end of its test.
pub(crate) struct Up {
    child: Child,
    stdout: Printed,
    stderr: Printed,
}

impl Up {
    pub(crate) fn start(mut command: Command) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = Printed::of(child.stdout.take().unwrap());
        let stderr = Printed::of(child.stderr.take().unwrap());
        Self {
            child,
            stdout,
            stderr,
        }
    }

    pub(crate) fn stdout(&self) -> String {
        self.stdout.text()
    }

    pub(crate) fn stderr(&self) -> String {
        self.stderr.text()
    }

    /// Waits until something is printed, on stdout or stderr.
    pub(crate) fn until(&self, text: &str) {
        self.until_within(text, DEADLINE);
    }

    /// As [`until`](Self::until), for what takes a compiler.
    pub(crate) fn until_built(&self, text: &str) {
        self.until_within(text, PATIENCE);
    }

    fn until_within(&self, text: &str, time: Duration) {
        let deadline = Instant::now() + time;
        while !self.stdout().contains(text) && !self.stderr().contains(text) {
            let printed = || format!("{}\n{}", self.stdout(), self.stderr());
            assert!(
                Instant::now() < deadline,
                "waited in vain for {text:?}:\n{}",
                printed()
            );
            assert!(
                !self.stdout.is_closed() || self.stdout().contains(text),
                "ended before {text:?}:\n{}",
                printed()
            );
            thread::sleep(Duration::from_millis(5));
        }
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// Waits for the end; returns stdout and the exit code.
    pub(crate) fn end(mut self) -> String {
        let deadline = Instant::now() + DEADLINE;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(
                Instant::now() < deadline,
                "does not end:\n{}\n{}",
                self.stdout(),
                self.stderr()
            );
            thread::sleep(Duration::from_millis(5));
        };
        self.stdout.join();
        format!("{}[{}]", self.stdout(), ended(status))
    }

    /// Ends it as Ctrl-C does.
    pub(crate) fn stop(self) -> String {
        self.signal(Signal::INT);
        self.end()
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        // Fails only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What was printed on a stream so far.
struct Printed {
    text: Arc<Mutex<String>>,
    reader: Option<JoinHandle<()>>,
}

impl Printed {
    fn of(stream: impl Read + Send + 'static) -> Self {
        let text = Arc::new(Mutex::new(String::new()));
        let shared = Arc::clone(&text);
        let reader = thread::spawn(move || {
            for line in BufReader::new(stream).lines() {
                let mut text = shared.lock().unwrap();
                text.push_str(&line.unwrap());
                text.push('\n');
            }
        });
        Self {
            text,
            reader: Some(reader),
        }
    }

    fn text(&self) -> String {
        self.text.lock().unwrap().clone()
    }

    fn is_closed(&self) -> bool {
        self.reader.as_ref().is_none_or(JoinHandle::is_finished)
    }

    fn join(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.join().unwrap();
        }
    }
}
