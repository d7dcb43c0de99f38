//! Dead letters as they are printed.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use wasmbay::events::dead_letters::{Attempt, DeadLetter, Entry, Unreadable};
use wasmbay::manifest::Outcome;

use crate::commands::pretty::pretty;
use crate::report::{Exit, STRONG, Terminal, WEAK, count, short, size, table};

/// Characters of an error that a list shows.
const MAX_WHY: usize = 60;

/// Prints a list.
pub(super) fn letters(entries: &[Entry], terminal: &Terminal) -> anyhow::Result<()> {
    if terminal.json() {
        return Ok(terminal.result(serde_json::to_string_pretty(entries)?)?);
    }
    if entries.is_empty() {
        terminal.say("no dead letters");
        return Ok(());
    }
    let head = ["ID", "SERVICE", "EVENT", "FAILED", "ATTEMPTS", "WHY"];
    let head = head.iter().map(|cell| (*cell).to_owned()).collect();
    let row = |entry: &Entry| match entry {
        Entry::DeadLetter(letter) => row(letter),
        Entry::Unreadable(other) => unreadable(other),
    };
    let rows: Vec<Vec<String>> = std::iter::once(head)
        .chain(entries.iter().map(row))
        .collect();
    Ok(terminal.result(table(&rows))?)
}

fn row(letter: &DeadLetter) -> Vec<String> {
    let last = letter.attempts.last();
    let event = letter.function.rsplit('/').next().unwrap_or_default();
    let event = event.split('@').next().unwrap_or_default();
    let why = last.map_or_else(String::new, |last| {
        let line = last.error.lines().next().unwrap_or_default();
        format!("{}: {line}", outcome(last))
    });
    vec![
        letter.id.clone(),
        letter.service.clone(),
        plain(event),
        last.map(|last| seconds(&last.time)).unwrap_or_default(),
        (letter.left_out + letter.attempts.len()).to_string(),
        shortened(&why),
    ]
}

fn unreadable(other: &Unreadable) -> Vec<String> {
    let why = format!("unreadable: {}", other.unreadable);
    let nothing = || "-".to_owned();
    let [service, event, failed, attempts] = [nothing(), nothing(), nothing(), nothing()];
    vec![
        other.id.clone(),
        service,
        event,
        failed,
        attempts,
        shortened(&why),
    ]
}

/// As much as fits into a list.
fn shortened(why: &str) -> String {
    let why = plain(why);
    match why.chars().count() > MAX_WHY {
        true => why.chars().take(MAX_WHY - 1).chain(['…']).collect(),
        false => why,
    }
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

/// Prints one letter.
pub(super) fn letter(letter: &DeadLetter, terminal: &Terminal) -> anyhow::Result<Exit> {
    if terminal.json() {
        terminal.result(serde_json::to_string_pretty(&letter.with_body())?)?;
        return Ok(Exit::Done);
    }
    let text = std::str::from_utf8(&letter.body);
    let edited = if letter.edited { ", edited" } else { "" };
    let mut rows = vec![
        ["service", &*letter.service].map(plain),
        ["component", short(&letter.digest)].map(plain),
        ["event", &*letter.function].map(plain),
        ["published", &*seconds(&letter.published)].map(plain),
        ["subject", &*letter.subject].map(plain),
        ["stream", &*format!("{} {}", letter.stream, letter.sequence)].map(plain),
    ];
    if let Some(subject) = &letter.moved_to {
        rows.push(["moved to", subject].map(plain));
    }
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
        Err(_) => (STANDARD.encode(&letter.body), ", as base64"),
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
    fn what_is_no_letter_is_in_the_list_with_its_reason() {
        let other = Unreadable {
            id: "at-17".to_owned(),
            unreadable: format!("the header Bay-Dead-Letter: {}", "x".repeat(100)),
            subject: "bay-dlq.shop.odd".to_owned(),
            revision: 17,
        };
        let row = unreadable(&other);
        assert_eq!(row[..5], ["at-17", "-", "-", "-", "-"]);
        assert!(row[5].starts_with("unreadable: the header Bay-Dead-Letter: x"));
        assert_eq!(row[5].chars().count(), MAX_WHY);
    }

    #[test]
    fn times_are_short() {
        assert_eq!(seconds("2026-01-02T03:04:05.678Z"), "2026-01-02T03:04:05Z");
        assert_eq!(seconds("2026-01-02T03:04:05Z"), "2026-01-02T03:04:05Z");
    }
}
