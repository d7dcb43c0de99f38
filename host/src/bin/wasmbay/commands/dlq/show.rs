//! Dead letters as they are printed.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use wasmbay::events::dead_letters::{Attempt, DeadLetter, Entry, Unreadable};
use wasmbay::manifest::Outcome;
use wasmbay::text::shown;

use crate::commands::pretty::pretty;
use crate::report::{Exit, STRONG, Terminal, WEAK, count, plain, short, size, table};

/// Prints a list.
pub(super) fn dead_letters(entries: &[Entry], terminal: &Terminal) -> anyhow::Result<()> {
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
        Entry::DeadLetter(dead_letter) => row(dead_letter),
        Entry::Unreadable(other) => unreadable(other),
    };
    let rows: Vec<Vec<String>> = std::iter::once(head)
        .chain(entries.iter().map(row))
        .collect();
    Ok(terminal.result(table(&rows))?)
}

fn row(dead_letter: &DeadLetter) -> Vec<String> {
    let last = dead_letter.attempts.last();
    let event = dead_letter.function.rsplit('/').next().unwrap_or_default();
    let event = event.split('@').next().unwrap_or_default();
    let why = last.map_or_else(String::new, |last| {
        let line = last.error.lines().next().unwrap_or_default();
        format!("{}: {line}", outcome(last))
    });
    vec![
        plain(&dead_letter.id),
        plain(&dead_letter.service),
        plain(event),
        last.map(|last| plain(&seconds(&last.time)))
            .unwrap_or_default(),
        (dead_letter.left_out + dead_letter.attempts.len()).to_string(),
        shown(&why).into_owned(),
    ]
}

fn unreadable(other: &Unreadable) -> Vec<String> {
    let why = format!("unreadable: {}", other.unreadable);
    let nothing = || "-".to_owned();
    let [service, event, failed, attempts] = [nothing(), nothing(), nothing(), nothing()];
    vec![
        plain(&other.id),
        service,
        event,
        failed,
        attempts,
        shown(&why).into_owned(),
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

/// Prints one dead letter.
pub(super) fn dead_letter(dead_letter: &DeadLetter, terminal: &Terminal) -> anyhow::Result<Exit> {
    if terminal.json() {
        terminal.result(serde_json::to_string_pretty(&dead_letter.with_body())?)?;
        return Ok(Exit::Done);
    }
    let text = std::str::from_utf8(&dead_letter.body);
    let edited = if dead_letter.edited { ", edited" } else { "" };
    let mut rows = vec![
        ["service", &*dead_letter.service].map(plain),
        ["component", short(&dead_letter.digest)].map(plain),
        ["event", &*dead_letter.function].map(plain),
        ["published", &*seconds(&dead_letter.published)].map(plain),
        ["subject", &*dead_letter.subject].map(plain),
        [
            "stream",
            &*format!("{} {}", dead_letter.stream, dead_letter.sequence),
        ]
        .map(plain),
    ];
    if let Some(subject) = &dead_letter.moved_to {
        rows.push(["moved to", subject].map(plain));
    }
    for (name, values) in &dead_letter.headers {
        rows.push(["header", &*format!("{name}: {}", values.join(", "))].map(plain));
    }
    let rows: Vec<_> = rows.into_iter().map(Vec::from).collect();
    terminal.result(format_args!(
        "{STRONG}Dead letter {}{STRONG:#}",
        plain(&dead_letter.id)
    ))?;
    terminal.result(table(&rows))?;

    let attempts = count(dead_letter.left_out + dead_letter.attempts.len(), "attempt");
    terminal.result(format_args!("\n{STRONG}{attempts}{STRONG:#}"))?;
    if dead_letter.left_out > 0 {
        let left = format!("the oldest {} are not kept", dead_letter.left_out);
        terminal.result(format_args!("  {WEAK}{left}{WEAK:#}"))?;
    }
    for (index, attempt) in dead_letter.attempts.iter().enumerate() {
        let number = dead_letter.left_out + index + 1;
        let (time, how) = (plain(&seconds(&attempt.time)), outcome(attempt));
        let blame = attempt.blame;
        terminal.result(format_args!("  {number}  {time}  {how} (blame: {blame})"))?;
        for line in plain(&attempt.error).lines() {
            terminal.result(format_args!("     {line}"))?;
        }
    }
    let size = size(dead_letter.size as u64);
    let (text, kind) = match text {
        Ok(text) => (pretty(text), ""),
        Err(_) => (STANDARD.encode(&dead_letter.body), ", as base64"),
    };
    terminal.result(format_args!(
        "\n{STRONG}Body{STRONG:#} ({size}{edited}{kind})"
    ))?;
    for line in plain(&text).lines() {
        terminal.result(format_args!("  {line}"))?;
    }
    Ok(Exit::Done)
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
    fn what_is_no_dead_letter_is_in_the_list_with_its_reason() {
        let other = Unreadable {
            id: "at-17".to_owned(),
            unreadable: format!("the header Bay-Dead-Letter: {}", "x".repeat(100)),
            subject: "bay-dlq.shop.odd".to_owned(),
            revision: 17,
        };
        let row = unreadable(&other);
        assert_eq!(row[..5], ["at-17", "-", "-", "-", "-"]);
        assert!(row[5].starts_with("unreadable: the header Bay-Dead-Letter: x"));
        assert!(row[5].ends_with("x…"), "{}", row[5]);
    }

    #[test]
    fn times_are_short() {
        assert_eq!(seconds("2026-01-02T03:04:05.678Z"), "2026-01-02T03:04:05Z");
        assert_eq!(seconds("2026-01-02T03:04:05Z"), "2026-01-02T03:04:05Z");
    }
}
