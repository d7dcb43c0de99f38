//! Text for people: foreign texts as one bounded line, names in other spellings, suggestions.

use std::borrow::Cow;

/// Upper bound of the characters of a name or value in a message.
const SHOWN: usize = 60;

/// Whether a character could end or disguise a line: control characters, line separators, zero
/// width, direction marks and overrides.
pub(crate) fn is_deceptive(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{ad}'
                | '\u{61c}'
                | '\u{180e}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
                | '\u{e0000}'..='\u{e007f}'
        )
}

/// A foreign text as one line of at most `limit` bytes before escaping, with every character
/// escaped that could end or disguise it. A tab becomes a space.
#[must_use]
pub fn one_line(text: &str, limit: usize) -> Cow<'_, str> {
    let text = text
        .get(..text.floor_char_boundary(limit))
        .unwrap_or_default();
    if !text.contains(is_deceptive) {
        return Cow::Borrowed(text);
    }
    let mut line = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '\t' => line.push(' '),
            c if c.is_control() => line.extend(c.escape_default()),
            c if is_deceptive(c) => line.extend(c.escape_unicode()),
            c => line.push(c),
        }
    }
    Cow::Owned(line)
}

/// A name or value for a message: one line, cut after 60 characters.
#[must_use]
pub fn shown(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(SHOWN) {
        None => one_line(text, usize::MAX),
        Some((end, _)) => Cow::Owned(one_line(text, end).into_owned() + "…"),
    }
}

/// Bytes as hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits
        .map(|digit| char::from_digit(digit.into(), 16).unwrap_or('0'))
        .collect()
}

/// So many bytes from their hexadecimal digits.
pub(crate) fn unhex<const BYTES: usize>(text: &str) -> Option<[u8; BYTES]> {
    let mut bytes = [0; BYTES];
    if text.len() != 2 * BYTES || !text.is_ascii() {
        return None;
    }
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * index..2 * index + 2)?, 16).ok()?;
    }
    Some(bytes)
}

/// `on-hand` as `onHand`.
pub(crate) fn camel_case(name: &str) -> String {
    let mut words = name.split('-');
    let mut key = words.next().unwrap_or_default().to_owned();
    for word in words {
        let mut chars = word.chars();
        key.extend(chars.next().map(|c| c.to_ascii_uppercase()));
        key.push_str(chars.as_str());
    }
    key
}

/// The candidate nearest to `given`, if any is near.
///
/// "Near" is at most one edit for three characters: enough for a typing error or a plural, too
/// little to suggest something unrelated.
#[must_use]
pub fn nearest<'a>(given: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(given, name), name))
        .filter(|(edits, name)| *edits <= given.len().max(name.len()).div_ceil(3))
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, name)| name)
}

/// The tail of a message that suggests the nearest candidate; empty if none is near.
pub(crate) fn did_you_mean<'a>(
    given: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> String {
    suggestion(nearest(given, candidates))
}

/// The tail of a message that suggests a name.
pub(crate) fn suggestion(name: Option<&str>) -> String {
    name.map_or_else(String::new, |name| format!("; did you mean `{name}`?"))
}

/// Has serde write and read a type as its text.
macro_rules! serde_as_text {
    ($($type:ty),+) => {$(
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    )+};
}
pub(crate) use serde_as_text;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_text_is_not_copied() {
        let text = "fine: é \"quoted\" \\ 語";
        assert!(matches!(one_line(text, usize::MAX), Cow::Borrowed(same) if same == text));
        assert!(matches!(shown(text), Cow::Borrowed(_)));
    }

    #[test]
    fn a_text_is_one_line_of_bounded_length() {
        assert_eq!(
            one_line("a\n2026 ERROR forged\r\u{1b}[2J\tb", 100),
            "a\\n2026 ERROR forged\\r\\u{1b}[2J b"
        );
        assert_eq!(one_line(&"é".repeat(100), 51).len(), 50);
    }

    #[test]
    fn what_disguises_a_line_is_shown() {
        for (text, escaped) in [
            ("pay\u{202e}fdp", "pay\\u{202e}fdp"),
            ("ad\u{200b}min", "ad\\u{200b}min"),
            ("one\u{2028}two", "one\\u{2028}two"),
            ("tag\u{e0041}", "tag\\u{e0041}"),
            ("\u{feff}x", "\\u{feff}x"),
        ] {
            assert_eq!(one_line(text, 100), escaped);
        }
    }

    #[test]
    fn a_shown_text_is_cut_with_a_sign() {
        let long = "é".repeat(SHOWN + 1);
        assert_eq!(shown(&long), "é".repeat(SHOWN) + "…");
        assert_eq!(shown(&long[2..]), "é".repeat(SHOWN));
    }

    #[test]
    fn bytes_are_two_digits_each() {
        assert_eq!(hex(&[0, 0x0f, 0xff]), "000fff");
    }

    #[test]
    fn only_a_near_name_is_suggested() {
        let known = ["memory", "timeout", "message"];
        assert_eq!(nearest("memroy", known), Some("memory"));
        assert_eq!(nearest("colour", known), None);
        assert_eq!(did_you_mean("timeot", known), "; did you mean `timeout`?");
        assert_eq!(did_you_mean("colour", known), "");
    }
}
