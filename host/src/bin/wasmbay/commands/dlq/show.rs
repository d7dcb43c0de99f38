//! Dead letters as they are printed.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use serde_json::value::RawValue;
use wasmbay::events::letters::{Attempt, Letter};
use wasmbay::manifest::Outcome;

use crate::commands::pretty::pretty;
use crate::report::{Exit, STRONG, Terminal, WEAK, count, short, size, table};

/// Characters of an error that a list shows.
const MAX_WHY: usize = 60;

/// Prints a list.
pub(super) fn letters(letters: &[Letter], terminal: &Terminal) -> anyhow::Result<()> {
    if terminal.json() {
        return Ok(terminal.result(serde_json::to_string_pretty(letters)?)?);
    }
    if letters.is_empty() {
        terminal.say("no dead letters");
        return Ok(());
    }
    let head = ["ID", "SERVICE", "EVENT", "FAILED", "ATTEMPTS", "WHY"];
    let head = head.iter().map(|cell| (*cell).to_owned()).collect();
    let rows: Vec<Vec<String>> = std::iter::once(head)
        .chain(letters.iter().map(row))
        .collect();
    Ok(terminal.result(table(&rows))?)
}

fn row(letter: &Letter) -> Vec<String> {
    let last = letter.attempts.last();
    let event = letter.function.rsplit('/').next().unwrap_or_default();
    let event = event.split('@').next().unwrap_or_default();
    let why = last.map_or_else(String::new, |last| {
        let line = last.error.lines().next().unwrap_or_default();
        format!("{}: {line}", outcome(last))
    });
    let mut why = plain(&why);
    if why.chars().count() > MAX_WHY {
        why = why.chars().take(MAX_WHY - 1).chain(['…']).collect();
    }
    vec![
        letter.id.clone(),
        letter.service.clone(),
        plain(event),
        last.map(|last| seconds(&last.time)).unwrap_or_default(),
        (letter.left_out + letter.attempts.len()).to_string(),
        why,
    ]
}

/// How an attempt ended, in a word.
fn outcome(attempt: &Attempt) -> String {
    let word = match attempt.outcome {
        Some(Outcome::Err) => "err",
        Some(Outcome::Trap) => "trap",
        Some(Outcome::Timeout) => "timeout",
        Some(Outcome::Overload) => "overload",
        None => "hopeless",
    };
    match attempt.code {
        Some(code) => format!("{word} {code}"),
        None => word.to_owned(),
    }
}

/// A letter as a script reads it.
#[derive(Serialize)]
struct Whole<'l> {
    #[serde(flatten)]
    letter: &'l Letter,
    /// As it is, numbers and order of keys included.
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<&'l RawValue>,
    /// A body that is no JSON.
    #[serde(rename = "bodyText", skip_serializing_if = "Option::is_none")]
    text: Option<&'l str>,
    /// A body that is no text either.
    #[serde(rename = "bodyBase64", skip_serializing_if = "Option::is_none")]
    bytes: Option<String>,
}

/// Prints one letter.
pub(super) fn letter(letter: &Letter, terminal: &Terminal) -> anyhow::Result<Exit> {
    let text = std::str::from_utf8(&letter.body);
    let bytes = || STANDARD.encode(&letter.body);
    if terminal.json() {
        let body: Option<&RawValue> = serde_json::from_slice(&letter.body).ok();
        let whole = Whole {
            letter,
            text: text.ok().filter(|_| body.is_none()),
            bytes: text.is_err().then(bytes),
            body,
        };
        terminal.result(serde_json::to_string_pretty(&whole)?)?;
        return Ok(Exit::Done);
    }
    let edited = if letter.edited { ", edited" } else { "" };
    let mut rows = vec![
        ["service", &*letter.service].map(plain),
        ["component", short(&letter.digest)].map(plain),
        ["event", &*letter.function].map(plain),
        ["published", &*seconds(&letter.published)].map(plain),
        ["subject", &*letter.subject].map(plain),
        ["stream", &*format!("{} {}", letter.stream, letter.sequence)].map(plain),
    ];
    for (name, values) in &letter.headers {
        rows.push(["header", &*format!("{name}: {}", values.join(", "))].map(plain));
    }
    let rows: Vec<_> = rows.into_iter().map(Vec::from).collect();
    terminal.result(format_args!("{STRONG}Dead letter {}{STRONG:#}", letter.id))?;
    terminal.result(table(&rows))?;

    let attempts = count(letter.left_out + letter.attempts.len(), "attempt");
    terminal.result(format_args!("\n{STRONG}{attempts}{STRONG:#}"))?;
    if letter.left_out > 0 {
        let left = format!("the oldest {} are not kept", letter.left_out);
        terminal.result(format_args!("  {WEAK}{left}{WEAK:#}"))?;
    }
    for (index, attempt) in letter.attempts.iter().enumerate() {
        let number = letter.left_out + index + 1;
        let (time, how) = (seconds(&attempt.time), outcome(attempt));
        let blame = attempt.blame;
        terminal.result(format_args!("  {number}  {time}  {how} (blame: {blame})"))?;
        for line in attempt.error.lines() {
            terminal.result(format_args!("     {}", plain(line)))?;
        }
    }
    let size = size(letter.size as u64);
    let (text, kind) = match text {
        Ok(text) => (pretty(text), ""),
        Err(_) => (bytes(), ", as base64"),
    };
    terminal.result(format_args!(
        "\n{STRONG}Body{STRONG:#} ({size}{edited}{kind})"
    ))?;
    for line in text.lines() {
        terminal.result(format_args!("  {}", plain(line)))?;
    }
    Ok(Exit::Done)
}

/// Text that somebody else wrote, without what a terminal would obey.
fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for c in text.chars() {
        match c.is_control() {
            true => plain.extend(c.escape_debug()),
            false => plain.push(c),
        }
    }
    plain
}

/// A time without fractions of a second.
fn seconds(time: &str) -> String {
    match time.split_once('.') {
        Some((seconds, _)) => format!("{seconds}Z"),
        None => time.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_wrote_does_not_command_the_terminal() {
        assert_eq!(plain("a\u{1b}[2Jé\n"), "a\\u{1b}[2Jé\\n");
    }

    #[test]
    fn times_are_short() {
        assert_eq!(seconds("2026-01-02T03:04:05.678Z"), "2026-01-02T03:04:05Z");
        assert_eq!(seconds("2026-01-02T03:04:05Z"), "2026-01-02T03:04:05Z");
    }
}
