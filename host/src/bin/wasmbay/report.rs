//! What reaches the user: results on stdout, notes on stderr, and how it ended.

use std::error::Error;
use std::fmt::Display;
use std::io::{self, ErrorKind, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anstyle::{AnsiColor, Style};
use wasmbay::build::{BuildError, detect};
use wasmbay::fleet::StoreError;
use wasmbay::host::{HostError, Listening, NodeError};
use wasmbay::manifest::{LockError, ManifestError, ReferenceError};
use wasmbay::nats::{Action, Refusal, ServerError};
use wasmbay::registry::RegistryError;
use wasmbay::runtime::ComponentError;
use wasmbay::text::one_line;

use crate::args::{Common, Output};
use crate::background;

const ERROR: Style = AnsiColor::Red.on_default().bold();
const HINT: Style = AnsiColor::Cyan.on_default().bold();
/// What heads a table, and names that matter.
pub(crate) const STRONG: Style = Style::new().bold();
/// What matters less.
pub(crate) const WEAK: Style = Style::new().dimmed();

/// Time that the streams get at the end of the process for what a slow reader has not read yet.
const FLUSH: Duration = Duration::from_secs(1);

/// How a verb ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Exit {
    /// All was done.
    Done = 0,
    /// Something failed.
    Failed = 1,
    /// There is no answer, where 1 is one: as for `diff`.
    Trouble = 2,
    /// The configuration is wrong: sysexits' `EX_CONFIG`.
    Configuration = 78,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// How to print.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terminal {
    pub(crate) output: Output,
    pub(crate) quiet: bool,
    pub(crate) verbose: bool,
}

impl Terminal {
    /// Takes over the options, and the choice of colour for the whole process.
    pub(crate) fn new(common: &Common) -> Self {
        match common.color {
            clap::ColorChoice::Auto => anstream::ColorChoice::Auto,
            clap::ColorChoice::Always => anstream::ColorChoice::Always,
            clap::ColorChoice::Never => anstream::ColorChoice::Never,
        }
        .write_global();
        Self {
            output: common.output,
            quiet: common.quiet,
            verbose: common.verbose,
        }
    }

    pub(crate) fn json(&self) -> bool {
        self.output == Output::Json
    }

    /// Prints a result.
    pub(crate) fn result(&self, text: impl Display) -> io::Result<()> {
        let mut out = anstream::stdout().lock();
        writeln!(out, "{text}")?;
        out.flush()
    }

    /// Prints a result as JSON.
    pub(crate) fn result_json(&self, value: &serde_json::Value) -> io::Result<()> {
        let mut text = serde_json::to_vec_pretty(value)?;
        text.push(b'\n');
        let mut out = anstream::stdout().lock();
        out.write_all(&text)?;
        out.flush()
    }

    /// Prints what happens, unless `--quiet` or JSON is asked for.
    pub(crate) fn say(&self, text: impl Display) {
        if !self.quiet && !self.json() {
            self.print(text);
        }
    }

    /// Prints what happens as JSON, for a script.
    pub(crate) fn event(&self, event: &serde_json::Value) {
        if self.json() {
            self.print(event);
        }
    }

    fn print(&self, text: impl Display) {
        match background::streams() {
            Some(streams) => streams.stdout.write(&styled(&io::stdout(), &text)),
            // A reader that has gone misses nothing that the exit code does not say.
            None => drop(self.result(text)),
        }
    }

    /// Prints a line of progress on stderr, unless `--quiet` is asked for.
    pub(crate) fn note(&self, text: impl Display) {
        if !self.quiet {
            print_error(text);
        }
    }
}

/// Prints on stderr. Without a reader, the exit code is all that can be said.
fn print_error(text: impl Display) {
    match background::streams() {
        Some(streams) => streams.stderr.write(&styled(&io::stderr(), text)),
        None => drop(writeln!(anstream::stderr().lock(), "{text}")),
    }
}

/// A line as a stream shows it: with or without colours.
fn styled(stream: &impl anstream::stream::RawStream, text: impl Display) -> Vec<u8> {
    let choice = anstream::AutoStream::choice(stream);
    let mut line = anstream::AutoStream::new(Vec::new(), choice);
    // Writing to memory does not fail.
    let _ = writeln!(line, "{text}");
    line.into_inner()
}

/// Waits until what was printed in the background is written, for a moment.
pub(crate) fn flush() {
    let Some(streams) = background::streams() else {
        return;
    };
    let deadline = Instant::now() + FLUSH;
    streams.stderr.flush(deadline);
    streams.stdout.flush(deadline);
}

/// Something that this program found wrong itself, with the command that fixes it.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Failure {
    message: String,
    hint: Option<String>,
    exit: Exit,
}

/// A failure with the command that fixes it.
pub(crate) fn failure(message: impl Into<String>, hint: impl Into<String>) -> anyhow::Error {
    Failure {
        message: message.into(),
        hint: Some(hint.into()),
        exit: Exit::Failed,
    }
    .into()
}

/// Several failures, each reported by itself.
#[derive(Debug, thiserror::Error)]
#[error("{} errors", .0.len())]
pub(crate) struct Failures(pub(crate) Vec<anyhow::Error>);

/// The value, or everything that is wrong.
pub(crate) fn all_of<T>(value: T, errors: Vec<anyhow::Error>) -> anyhow::Result<T> {
    if errors.is_empty() {
        Ok(value)
    } else {
        Err(Failures(errors).into())
    }
}

/// Prints an error, and returns how the process has to end.
pub(crate) fn error(error: &anyhow::Error) -> Exit {
    if is_broken_pipe(error) {
        return Exit::Done;
    }
    print_error(text(error).trim_end());
    exit(error)
}

/// The lines of an error: `error:`, `caused by:`, `hint:`.
fn text(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for report in reports(error) {
        for message in &report.messages {
            text.push_str(&format!("{ERROR}error:{ERROR:#} {}\n", plain(message)));
        }
        for cause in &report.causes {
            let cause = plain(cause);
            text.push_str(&format!("{STRONG}caused by:{STRONG:#} {cause}\n"));
        }
        if let Some(hint) = &report.hint {
            text.push_str(&format!("{HINT}hint:{HINT:#} {}\n", plain(hint)));
        }
    }
    text
}

/// Text that others wrote, without what a terminal would obey or what could disguise a line of it.
pub(crate) fn plain(text: &str) -> String {
    let lines = text.lines().map(|line| one_line(line, usize::MAX));
    lines.collect::<Vec<_>>().join("\n")
}

/// An error as it is printed: what is wrong, why, and what fixes it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Report {
    /// One for each thing that is wrong.
    pub(crate) messages: Vec<String>,
    /// Why, the nearest cause first.
    pub(crate) causes: Vec<String>,
    /// The command that fixes it.
    pub(crate) hint: Option<String>,
}

/// Takes an error apart.
pub(crate) fn reports(error: &anyhow::Error) -> Vec<Report> {
    if let Some(Failures(errors)) = error.downcast_ref() {
        return errors.iter().flat_map(reports).collect();
    }
    let messages = if let Some(ManifestError::Refused(problems)) = error.downcast_ref() {
        problems.iter().map(ToString::to_string).collect()
    } else if let Some(HostError::Plan(problems)) = error.downcast_ref() {
        problems.iter().map(ToString::to_string).collect()
    } else {
        vec![error.to_string()]
    };
    let mut causes: Vec<String> = Vec::new();
    for cause in error.chain().skip(1) {
        let cause = cause.to_string();
        // Errors of other libraries tend to repeat their source in their own text.
        let said = |text: &String| text.contains(&cause);
        if !causes.iter().any(said) && !messages.iter().any(said) {
            causes.push(cause);
        }
    }
    vec![Report {
        messages,
        causes,
        hint: error.chain().find_map(hint),
    }]
}

/// What to do where there is no manifest.
fn no_manifest(path: &Path) -> String {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    if detect(folder).is_ok() {
        return format!(
            "this is a guest's folder: `wasmbay build {}` builds it, `wasmbay up DIR` runs the app that names it",
            folder.display()
        );
    }
    "`wasmbay new --lang rust hello` writes a first app; `wasmbay up DIR` runs the one in another folder"
        .to_owned()
}

/// The command that fixes what is wrong, where its message does not have it already.
fn hint(error: &(dyn Error + 'static)) -> Option<String> {
    if let Some(failure) = error.downcast_ref::<Failure>() {
        return failure.hint.clone();
    }
    if let Some(ManifestError::Read { path, source }) = error.downcast_ref() {
        return (source.kind() == ErrorKind::NotFound).then(|| no_manifest(path));
    }
    if let Some(HostError::Unguarded { .. }) = error.downcast_ref() {
        return Some(
            "`--admin-token-file FILE` has it ask for a token, such as one of `openssl rand -hex 32`; `--admin 127.0.0.1:8090` keeps it on this machine"
                .to_owned(),
        );
    }
    if let Some(HostError::Listen { what, source, .. }) = error.downcast_ref() {
        let option = match what {
            Listening::Gateway => "--listen",
            Listening::Admin => "--admin",
        };
        return (source.kind() == ErrorKind::AddrInUse)
            .then(|| format!("`{option} 127.0.0.1:0` takes a port that is free"));
    }
    if let Some(ServerError::InUse { pid: Some(pid), .. }) = error.downcast_ref() {
        return Some(format!(
            "`wasmbay call` reaches the app that runs; `kill {pid}` stops it"
        ));
    }
    if let Some(ServerError::NotFound) = error.downcast_ref() {
        return Some(
            "`wasmbay up --nats nats://HOST:4222` uses one that runs elsewhere".to_owned(),
        );
    }
    if let Some(error) = error.downcast_ref::<StoreError>() {
        return match error {
            StoreError::NoFleet => Some(
                "`wasmbay host` starts a first host; `--nats` chooses another NATS system"
                    .to_owned(),
            ),
            StoreError::Conflict { app } => Some(format!(
                "`wasmbay history {app}` shows by whom; look at it, then do it again"
            )),
            _ => None,
        };
    }
    if let Some(error) = error.downcast_ref::<RegistryError>() {
        return at_registry(error);
    }
    if let Some(refusal) = refusal(error) {
        return Some(
            if refusal.action == Action::Subscribe && refusal.subject.starts_with("_INBOX.") {
                "`--nats-inbox-prefix` names the inboxes that the login may subscribe to".to_owned()
            } else {
                "the user's permissions in nats-server have to include it".to_owned()
            },
        );
    }
    if let Some(ComponentError::NotWasm { .. }) = error.downcast_ref() {
        return Some("name a component's `.wasm` file, or a guest's folder to build it".to_owned());
    }
    None
}

/// What helps where a registry does not do what was asked.
fn at_registry(error: &RegistryError) -> Option<String> {
    Some(match error {
        RegistryError::Unauthorized { registry, .. } => {
            format!("`docker login {registry}`; its file is read here, ~/.docker/config.json")
        }
        RegistryError::Denied { registry, .. } => {
            format!("`docker login {registry}` as someone who may")
        }
        RegistryError::NotFound { registry, .. } => {
            format!("some registries say so of what needs a login, too: `docker login {registry}`")
        }
        RegistryError::RateLimited { registry, .. } => {
            format!("`docker login {registry}` is counted apart from others")
        }
        RegistryError::Insecure { host } => {
            format!("`--insecure-registry {host}`, or WASMBAY_INSECURE_REGISTRIES={host}")
        }
        RegistryError::Unreachable { host, .. } if error.lacks_tls() => {
            format!("it answers without TLS: `--insecure-registry {host}` allows that")
        }
        RegistryError::NoCache => "`--cache DIR` names one".to_owned(),
        _ => return None,
    })
}

/// The permission that a login lacks, also where another error says nothing more than it.
fn refusal<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a Refusal> {
    if let Some(NodeError::Refused(refusal)) = error.downcast_ref() {
        return Some(refusal);
    }
    match error.downcast_ref() {
        Some(HostError::Refused(refusal)) => Some(refusal),
        Some(HostError::Worker(error)) => error.refusal(),
        _ => error.downcast_ref(),
    }
}

/// How the process ends after this error.
pub(crate) fn exit(error: &anyhow::Error) -> Exit {
    if let Some(Failures(errors)) = error.downcast_ref() {
        return errors.iter().map(exit).max().unwrap_or(Exit::Failed);
    }
    let exits = error.chain().find_map(|cause| {
        if let Some(failure) = cause.downcast_ref::<Failure>() {
            return Some(failure.exit);
        }
        if cause.is::<ManifestError>() || cause.is::<ComponentError>() || cause.is::<Refusal>() {
            return Some(Exit::Configuration);
        }
        if cause.is::<ReferenceError>() {
            return Some(Exit::Configuration);
        }
        if let Some(LockError::Form { .. }) = cause.downcast_ref() {
            return Some(Exit::Configuration);
        }
        if let Some(RegistryError::NotComponent { .. } | RegistryError::NotPushed(_)) =
            cause.downcast_ref()
        {
            return Some(Exit::Configuration);
        }
        if let Some(error) = cause.downcast_ref::<BuildError>() {
            return Some(match error {
                BuildError::NoLanguage { .. }
                | BuildError::TwoLanguages { .. }
                | BuildError::NoWit { .. }
                | BuildError::NoWorld { .. }
                | BuildError::Runtime { .. } => Exit::Configuration,
                _ => Exit::Failed,
            });
        }
        if let Some(error) = cause.downcast_ref::<NodeError>() {
            return match error {
                NodeError::Name(_) | NodeError::NameTaken(_) | NodeError::Refused(_) => {
                    Some(Exit::Configuration)
                }
                NodeError::JetStream(error) if !error.may_pass() => Some(Exit::Configuration),
                _ => None,
            };
        }
        match cause.downcast_ref::<HostError>()? {
            HostError::Plan(_)
            | HostError::Component { .. }
            | HostError::Service(_)
            | HostError::Unguarded { .. }
            | HostError::Refused(_)
            | HostError::Renamed { .. } => Some(Exit::Configuration),
            HostError::Worker(error) if error.refusal().is_some() => Some(Exit::Configuration),
            HostError::JetStream { source, .. } if !source.may_pass() => Some(Exit::Configuration),
            _ => None,
        }
    });
    exits.unwrap_or(Exit::Failed)
}

/// A configuration that is wrong, with what would be right.
pub(crate) fn misconfigured(message: impl Into<String>) -> anyhow::Error {
    Failure {
        message: message.into(),
        hint: None,
        exit: Exit::Configuration,
    }
    .into()
}

/// The reader of stdout has gone, as `head` does; that is no error.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause
            .downcast_ref::<io::Error>()
            .is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
    })
}

/// A count with its noun.
pub(crate) fn count(number: usize, one: &str) -> String {
    match number {
        1 => format!("1 {one}"),
        _ => format!("{number} {one}s"),
    }
}

/// A time as people read it: `1.2 s`, `85 ms`.
pub(crate) fn time(time: std::time::Duration) -> String {
    match time.as_secs_f64() {
        seconds if seconds >= 1.0 => format!("{seconds:.1} s"),
        seconds => format!("{:.0} ms", seconds * 1e3),
    }
}

/// A size as people read it: `2.5 MB`, `17 KB`.
pub(crate) fn size(bytes: u64) -> String {
    // Precise enough for three digits.
    #[expect(clippy::cast_precision_loss, reason = "only three digits are shown")]
    let bytes_f = bytes as f64;
    match bytes {
        0..1_000 => format!("{bytes} B"),
        1_000..1_000_000 => format!("{:.0} KB", bytes_f / 1e3),
        _ => format!("{:.1} MB", bytes_f / 1e6),
    }
}

/// The first digits of a digest, enough to tell versions apart.
pub(crate) fn short(digest: &str) -> &str {
    digest.get(..12).unwrap_or(digest)
}

/// Lines of columns that are aligned; the last column is not padded.
pub(crate) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or_default()
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths);
        let cells = cells.map(|(cell, width)| format!("{cell:<width$}"));
        format!("  {}", cells.collect::<Vec<_>>().join("  "))
            .trim_end()
            .to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context as _;

    fn uncoloured(error: &anyhow::Error) -> String {
        anstream::adapter::strip_str(&text(error)).to_string()
    }

    #[test]
    fn a_cause_is_not_told_twice() {
        let cause = io::Error::new(ErrorKind::NotFound, "no such file");
        let error = Err::<(), _>(cause)
            .context("cannot read x: no such file")
            .context("service \"a\"")
            .unwrap_err();
        assert_eq!(
            uncoloured(&error),
            "error: service \"a\"\ncaused by: cannot read x: no such file\n"
        );
    }

    #[test]
    fn what_others_wrote_does_not_command_the_terminal() {
        assert_eq!(plain("a\u{1b}[2Jé\u{202e}\nb"), "a\\u{1b}[2Jé\\u{202e}\nb");
        let error = anyhow::anyhow!("one\u{1b}]0;title\u{7}").context("two\r\u{1b}[1A");
        assert_eq!(
            uncoloured(&error),
            "error: two\\r\\u{1b}[1A\ncaused by: one\\u{1b}]0;title\\u{7}\n"
        );
    }

    #[test]
    fn several_failures_are_told_one_by_one() {
        let error = all_of((), vec![failure("one", "fix it"), anyhow::anyhow!("two")]).unwrap_err();
        assert_eq!(uncoloured(&error), "error: one\nhint: fix it\nerror: two\n");
        assert_eq!(exit(&error), Exit::Failed);
        let error = all_of((), vec![anyhow::anyhow!("two"), misconfigured("x")]).unwrap_err();
        assert_eq!(exit(&error), Exit::Configuration);
    }

    #[test]
    fn numbers_are_short() {
        let of = std::time::Duration::from_millis;
        assert_eq!([time(of(85)), time(of(1234))], ["85 ms", "1.2 s"]);
        assert_eq!(
            [size(12), size(17_408), size(2_500_000)],
            ["12 B", "17 KB", "2.5 MB"]
        );
        assert_eq!(
            (count(1, "error"), count(2, "error")),
            ("1 error".into(), "2 errors".into())
        );
    }

    #[test]
    fn columns_are_aligned() {
        let row = |cells: &[&str]| cells.iter().map(ToString::to_string).collect::<Vec<_>>();
        let rows = [row(&["a", "bcd", ""]), row(&["abc", "d", "e"])];
        assert_eq!(table(&rows), "  a    bcd\n  abc  d    e");
    }
}
