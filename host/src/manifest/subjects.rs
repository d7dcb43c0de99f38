//! Subjects of messages: which can be granted, and what a grant covers.

use std::fmt;
use std::str::FromStr;

use crate::subject::is_reserved;
use crate::text::shown;

/// Bytes that a subject may have. NATS takes control lines of 4 KiB, which hold two subjects and
/// a queue group.
pub const MAX_SUBJECT: usize = 1_024;

/// Subjects that a component may publish on or hear: `orders.created`, `orders.*`, `orders.>`.
///
/// `*` stands for one token, a `>` at the end for one or more. The first token is always a name, so
/// that no grant covers what belongs to the host or to NATS itself: `bay.>` and its like, `$…` and
/// `_INBOX.>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubjectPattern(String);

/// Why a text is no [`SubjectPattern`].
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "`{0}` cannot be granted; accepted: `orders.created`, `orders.*`, `orders.>`, starting with a name other than \
     `bay`, `bay-…`, `$…` and `_INBOX…`"
)]
pub struct SubjectPatternError(pub String);

impl SubjectPattern {
    /// The pattern as NATS subscribes to it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a message on `subject` is covered.
    #[must_use]
    pub fn matches(&self, subject: &str) -> bool {
        let mut tokens = subject.split('.');
        for wanted in self.0.split('.') {
            match (wanted, tokens.next()) {
                (_, None) => return false,
                (">", Some(_)) => return true,
                (wanted, Some(token)) if wanted == "*" || wanted == token => {}
                _ => return false,
            }
        }
        tokens.next().is_none()
    }

    /// Whether everything that the other one covers is covered.
    pub(crate) fn covers(&self, other: &Self) -> bool {
        let (mut own, mut theirs) = (self.0.split('.'), other.0.split('.'));
        loop {
            match (own.next(), theirs.next()) {
                (None, None) => return true,
                (Some(">"), Some(_)) => return true,
                (_, Some(">")) => return false,
                (Some("*"), Some(_)) => {}
                (Some(one), Some(two)) if one == two => {}
                _ => return false,
            }
        }
    }

    /// What covers the messages that both cover.
    pub(crate) fn intersection(&self, other: &Self) -> Option<Self> {
        let (mut own, mut theirs) = (self.0.split('.'), other.0.split('.'));
        let mut both: Vec<&str> = Vec::new();
        loop {
            match (own.next(), theirs.next()) {
                (None, None) => return Some(Self(both.join("."))),
                (Some(">"), Some(token)) => {
                    both.push(token);
                    both.extend(theirs);
                    return Some(Self(both.join(".")));
                }
                (Some(token), Some(">")) => {
                    both.push(token);
                    both.extend(own);
                    return Some(Self(both.join(".")));
                }
                (Some("*"), Some(token)) | (Some(token), Some("*")) => both.push(token),
                (Some(one), Some(two)) if one == two => both.push(one),
                _ => return None,
            }
        }
    }

    /// Whether one message could be covered by both.
    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        self.intersection(other).is_some()
    }
}

/// Whether a message can be published on this: tokens without wildcards, blanks and control
/// characters. Anything else could end the line of the protocol that it is written into.
pub(crate) fn is_subject(text: &str) -> bool {
    text.len() <= MAX_SUBJECT && text.split('.').all(is_token)
}

fn is_token(token: &str) -> bool {
    let plain = |c: char| !(c.is_whitespace() || c.is_control() || matches!(c, '*' | '>'));
    !token.is_empty() && token.chars().all(plain)
}

impl FromStr for SubjectPattern {
    type Err = SubjectPatternError;

    fn from_str(text: &str) -> Result<Self, SubjectPatternError> {
        let (first, rest) = match text.split_once('.') {
            Some((first, rest)) => (first, Some(rest)),
            None => (text, None),
        };
        let whole = rest.unwrap_or_default();
        let middle = match whole.strip_suffix('>') {
            Some("") => None,
            Some(before) => Some(before.strip_suffix('.').unwrap_or(">")),
            None => rest,
        };
        let accepted = text.len() <= MAX_SUBJECT
            && is_token(first)
            && !is_reserved(first)
            && !first.starts_with("_INBOX")
            && middle.is_none_or(|tokens| tokens.split('.').all(|t| t == "*" || is_token(t)));
        match accepted {
            true => Ok(Self(text.to_owned())),
            false => Err(SubjectPatternError(shown(text).into_owned())),
        }
    }
}

impl fmt::Display for SubjectPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

crate::text::serde_as_text!(SubjectPattern);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pattern(text: &str) -> SubjectPattern {
        text.parse().unwrap()
    }

    #[test]
    fn a_grant_covers_its_subjects_and_no_others() {
        let covers = |text: &str, subject: &str| pattern(text).matches(subject);
        assert!(covers("orders", "orders"));
        assert!(!covers("orders", "orders.new"));
        assert!(covers("orders.*", "orders.new"));
        assert!(!covers("orders.*", "orders"));
        assert!(!covers("orders.*", "orders.new.eu"));
        assert!(covers("orders.*.eu", "orders.new.eu"));
        assert!(!covers("orders.*.eu", "orders.new.us"));
        assert!(covers("orders.>", "orders.new.eu"));
        assert!(!covers("orders.>", "orders"));
        assert!(!covers("orders.>", "ordersx.new"));
    }

    #[test]
    fn what_belongs_to_others_cannot_be_granted() {
        for text in [
            "",
            ">",
            "*",
            "*.new",
            "bay",
            "bay.>",
            "bay.app.x",
            "bay-replay.>",
            "bay-dlq.>",
            "$JS.API.>",
            "$SYS.x",
            "_INBOX.>",
            "_INBOX_x.>",
            "a..b",
            ".a",
            "a.",
            "a.>.b",
            "a.>>",
            "a.b>",
            "a.*b",
            "a b",
            "a\r\nPUB x",
            "a.\u{7f}",
        ] {
            assert!(text.parse::<SubjectPattern>().is_err(), "{text:?}");
        }
        for text in [
            "a",
            "a.*",
            "a.>",
            "a.*.>",
            "a.*.b",
            "bayer.x",
            "bay-area.x",
            "ä.b",
        ] {
            assert_eq!(pattern(text).as_str(), text);
        }
        assert!(
            "a".repeat(MAX_SUBJECT + 1)
                .parse::<SubjectPattern>()
                .is_err()
        );
    }

    #[test]
    fn a_message_is_published_on_plain_tokens_only() {
        for text in ["", "a.*", "a.>", "a*", "a..b", "a b", "a\r\nSUB > 1", "a\0"] {
            assert!(!is_subject(text), "{text:?}");
        }
        assert!(is_subject("_INBOX.x.1") && is_subject("orders.new"));
        assert!(
            is_reserved("bay.app.x") && is_reserved("$JS.API.INFO") && is_reserved("bay-dlq.x")
        );
        assert!(!is_reserved("_INBOX.x") && !is_reserved("bayer.x"));
    }

    #[test]
    fn patterns_overlap_when_one_message_fits_both() {
        let overlap = |one: &str, two: &str| pattern(one).overlaps(&pattern(two));
        assert!(overlap("a.*", "a.>") && overlap("a.*.c", "a.b.*") && overlap("a.b", "a.b"));
        assert!(!overlap("a", "a.>") && !overlap("a.b", "a.c") && !overlap("a.*", "a.b.c"));
    }

    #[test]
    fn a_pattern_covers_those_that_say_less() {
        let covers = |one: &str, two: &str| pattern(one).covers(&pattern(two));
        assert!(covers("a.>", "a.>") && covers("a.>", "a.*.c") && covers("a.*", "a.b"));
        assert!(covers("a.b", "a.b") && covers("a.>", "a.b.>"));
        assert!(!covers("a.*", "a.>") && !covers("a.b", "a.*") && !covers("a.*.c", "a.b.>"));
        assert!(!covers("a.>", "a") && !covers("a", "a.b"));
    }

    proptest! {
        #[test]
        fn what_is_covered_is_covered_whole(one in "a(\\.[ab*]){0,3}(\\.>)?", two in "a(\\.[ab*]){0,3}(\\.>)?", subject in "a(\\.[ab]){0,4}") {
            let (one, two) = (pattern(&one), pattern(&two));
            prop_assert!(!(one.covers(&two) && two.matches(&subject)) || one.matches(&subject));
        }

        #[test]
        fn an_intersection_covers_what_both_cover(one in "a(\\.[ab*]){0,3}(\\.>)?", two in "a(\\.[ab*]){0,3}(\\.>)?", subject in "a(\\.[ab]){0,4}") {
            let (one, two) = (pattern(&one), pattern(&two));
            let both = one.intersection(&two);
            prop_assert_eq!(both.as_ref().is_some_and(|both| both.matches(&subject)), one.matches(&subject) && two.matches(&subject));
            prop_assert!(both.is_none_or(|both| one.covers(&both) && two.covers(&both)));
        }

        #[test]
        fn no_text_panics(text in ".*") {
            let _ = (text.parse::<SubjectPattern>(), is_subject(&text), is_reserved(&text));
        }
    }
}
