//! Patterns: what a handler of Nest is found by, and the subject that its client makes of it.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;

use serde::{Serialize, Serializer};

/// Keys that a table may have; Nest writes more as a text of its own.
const MAX_KEYS: usize = 20;

/// Levels of tables that Nest writes.
const MAX_DEPTH: usize = 5;

/// A pattern.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pattern {
    /// A text, which is the subject.
    Text(String),
    /// A number.
    Number(i64),
    /// A table.
    Table(BTreeMap<String, Pattern>),
}

/// Why something is no pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// A blank, a wildcard, or nothing, as a token of the subject.
    #[error("`{0}` is no subject of a request; accepted: tokens without blanks, `*` and `>`")]
    Subject(String),
    /// A subject of NATS or of hosts.
    #[error("`{0}` is a subject of NATS or of hosts; choose another pattern")]
    Reserved(String),
    /// A key of which Nest and we may think differently where it is sorted.
    #[error("`{0}` is no key of a pattern; accepted: letters and digits, beginning with a letter")]
    Key(String),
    /// A table that Nest does not write in full.
    #[error("a pattern has at most {MAX_KEYS} keys and {MAX_DEPTH} levels")]
    Large,
}

impl Pattern {
    /// Checks what was typed.
    ///
    /// # Errors
    ///
    /// Nest would make another subject of it, or none that a request can go to.
    pub fn check(&self) -> Result<(), PatternError> {
        self.check_table(0)?;
        let subject = self.subject();
        if crate::subject::is_reserved(&subject) {
            return Err(PatternError::Reserved(subject));
        }
        let is_token = |token: &str| {
            let plain = |c: char| !c.is_whitespace() && !c.is_control();
            !token.is_empty() && token != "*" && token != ">" && token.chars().all(plain)
        };
        if subject.split('.').all(is_token) {
            Ok(())
        } else {
            Err(PatternError::Subject(subject))
        }
    }

    fn check_table(&self, depth: usize) -> Result<(), PatternError> {
        let Self::Table(entries) = self else {
            return Ok(());
        };
        if entries.len() > MAX_KEYS || depth >= MAX_DEPTH {
            return Err(PatternError::Large);
        }
        for (key, value) in entries {
            let is_key = key.starts_with(|c: char| c.is_ascii_alphabetic())
                && key.chars().all(|c| c.is_ascii_alphanumeric());
            if !is_key {
                return Err(PatternError::Key(key.clone()));
            }
            value.check_table(depth + 1)?;
        }
        Ok(())
    }

    /// The subject that a client of Nest publishes to: a table is compact JSON with its keys sorted as
    /// `localeCompare` does, of which only `\` and `"` are escaped.
    #[must_use]
    pub fn subject(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Number(number) => number.to_string(),
            Self::Table(_) => {
                let mut subject = String::new();
                self.write_route(&mut subject);
                subject
            }
        }
    }

    fn write_route(&self, out: &mut String) {
        match self {
            Self::Text(text) => {
                out.push('"');
                for c in text.chars() {
                    if matches!(c, '\\' | '"') {
                        out.push('\\');
                    }
                    out.push(c);
                }
                out.push('"');
            }
            Self::Number(number) => out.push_str(&number.to_string()),
            Self::Table(entries) => {
                let mut entries: Vec<_> = entries.iter().collect();
                entries.sort_by(|(one, _), (other, _)| locale_compare(one, other));
                out.push('{');
                for (index, (key, value)) in entries.into_iter().enumerate() {
                    if index > 0 {
                        out.push(',');
                    }
                    out.push('"');
                    out.push_str(key);
                    out.push_str("\":");
                    value.write_route(out);
                }
                out.push('}');
            }
        }
    }
}

/// As JavaScript's `localeCompare` orders letters and digits: digits first, letters without regard to case, and
/// of two that differ in nothing else the lower first.
fn locale_compare(one: &str, other: &str) -> Ordering {
    let folded = one.to_ascii_lowercase().cmp(&other.to_ascii_lowercase());
    let lower_first = || {
        let mut letters = one.chars().zip(other.chars());
        let differ = letters.find(|(a, b)| a != b);
        differ.map_or(Ordering::Equal, |(a, _)| {
            if a.is_ascii_lowercase() {
                Ordering::Less
            } else {
                Ordering::Greater
            }
        })
    };
    folded.then_with(lower_first)
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.subject())
    }
}

/// As the JSON that a packet has it.
impl Serialize for Pattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Text(text) => serializer.serialize_str(text),
            Self::Number(number) => serializer.serialize_i64(*number),
            Self::Table(entries) => serializer.collect_map(entries),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table<const N: usize>(entries: [(&str, Pattern); N]) -> Pattern {
        let entries = entries.map(|(key, value)| (key.to_owned(), value));
        Pattern::Table(entries.into())
    }

    fn text(text: &str) -> Pattern {
        Pattern::Text(text.to_owned())
    }

    #[test]
    fn a_pattern_is_the_subject_that_a_client_makes_of_it() {
        for (pattern, subject) in [
            (text("stock.on-hand"), "stock.on-hand"),
            (Pattern::Number(7), "7"),
            (table([("cmd", text("sum"))]), "{\"cmd\":\"sum\"}"),
            (
                table([
                    ("role", text("x")),
                    ("Cmd", text("a\"b\\c")),
                    ("a2", Pattern::Number(1)),
                    ("a10", table([("b", Pattern::Number(2))])),
                ]),
                "{\"a10\":{\"b\":2},\"a2\":1,\"Cmd\":\"a\\\"b\\\\c\",\"role\":\"x\"}",
            ),
            (
                table([("B", Pattern::Number(1)), ("b", Pattern::Number(2))]),
                "{\"b\":2,\"B\":1}",
            ),
        ] {
            assert_eq!(pattern.subject(), subject);
            assert_eq!(pattern.check(), Ok(()));
        }
    }

    #[test]
    fn what_nest_would_write_otherwise_is_refused() {
        let deep = (0..6).fold(Pattern::Number(1), |inner, _| table([("a", inner)]));
        let wide = (0..21).map(|n| (format!("k{n}"), Pattern::Number(n)));
        for pattern in [
            text(""),
            text("a b"),
            text("a..b"),
            text("a.*"),
            text(">"),
            text("bay.shop.x"),
            text("$SRV.PING"),
            table([("a b", Pattern::Number(1))]),
            table([("_c", Pattern::Number(1))]),
            table([("a", text("x y"))]),
            deep,
            Pattern::Table(wide.collect()),
        ] {
            assert!(pattern.check().is_err(), "{pattern:?}");
        }
    }
}
