//! Paths into JSON, and patterns of such paths: `$.lines[*].sku`, `$..orderId`.

use std::fmt;
use std::str::FromStr;

/// One key or index of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Key(String),
    Index(usize),
}

/// The way from the whole value to a part of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Path(pub(super) Vec<Step>);

/// A set of paths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pattern {
    text: String,
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    /// `.name`
    Key(String),
    /// `[3]`
    Index(usize),
    /// `[*]`
    Every,
    /// `..name`: the key, however deep.
    Below(String),
}

/// What a pattern looks like.
pub(super) const FORM: &str = "a path such as `$.lines[*].sku` or `$..orderId`";

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("$")?;
        for step in &self.0 {
            match step {
                Step::Key(key) if is_name(key) => write!(f, ".{key}")?,
                Step::Key(key) => write!(f, "[{key:?}]")?,
                Step::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

fn is_name(key: &str) -> bool {
    !key.is_empty() && key.bytes().all(is_name_byte)
}

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-'
}

impl Pattern {
    /// Whether a path leads to what the pattern means.
    pub(super) fn matches(&self, path: &Path) -> bool {
        fits(&self.parts, &path.0)
    }
}

fn fits(parts: &[Part], steps: &[Step]) -> bool {
    let Some((part, parts)) = parts.split_first() else {
        return steps.is_empty();
    };
    if let Part::Below(name) = part {
        return steps.iter().enumerate().any(|(at, step)| {
            let rest = steps.get(at + 1..).unwrap_or_default();
            matches!(step, Step::Key(key) if key == name) && fits(parts, rest)
        });
    }
    let Some((step, steps)) = steps.split_first() else {
        return false;
    };
    let same = match (part, step) {
        (Part::Key(name), Step::Key(key)) => name == key,
        (Part::Index(one), Step::Index(other)) => one == other,
        (Part::Every, Step::Index(_)) => true,
        _ => false,
    };
    same && fits(parts, steps)
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Pattern {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut rest = text.strip_prefix('$').ok_or(())?;
        let mut parts = Vec::new();
        while !rest.is_empty() {
            let (part, after) = read(rest).ok_or(())?;
            parts.push(part);
            rest = after;
        }
        Ok(Self {
            text: text.to_owned(),
            parts,
        })
    }
}

/// The first part of a text, and what comes after it.
fn read(text: &str) -> Option<(Part, &str)> {
    if let Some(rest) = text.strip_prefix("..") {
        let (name, rest) = name(rest)?;
        return Some((Part::Below(name), rest));
    }
    if let Some(rest) = text.strip_prefix('.') {
        let (name, rest) = name(rest)?;
        return Some((Part::Key(name), rest));
    }
    let (inside, rest) = text.strip_prefix('[')?.split_once(']')?;
    let part = match inside {
        "*" => Part::Every,
        index => Part::Index(index.parse().ok()?),
    };
    Some((part, rest))
}

fn name(text: &str) -> Option<(String, &str)> {
    let end = text.bytes().position(|byte| !is_name_byte(byte));
    let (name, rest) = text.split_at_checked(end.unwrap_or(text.len()))?;
    (!name.is_empty()).then(|| (name.to_owned(), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(keys: &[&str]) -> Path {
        let step = |key: &&str| match key.parse() {
            Ok(index) => Step::Index(index),
            Err(_) => Step::Key((*key).to_owned()),
        };
        Path(keys.iter().map(step).collect())
    }

    #[test]
    fn patterns_match_the_paths_that_they_describe() {
        for (pattern, keys, matches) in [
            ("$", vec![], true),
            ("$", vec!["a"], false),
            ("$.a", vec!["a"], true),
            ("$.a", vec!["a", "b"], false),
            ("$.lines[1].sku", vec!["lines", "1", "sku"], true),
            ("$.lines[0].sku", vec!["lines", "1", "sku"], false),
            ("$.lines[*].sku", vec!["lines", "7", "sku"], true),
            ("$.lines[*].sku", vec!["lines", "sku"], false),
            ("$..id", vec!["id"], true),
            ("$..id", vec!["a", "0", "id"], true),
            ("$..id", vec!["id", "b"], false),
            ("$..id.b", vec!["id", "id", "b"], true),
        ] {
            let read: Pattern = pattern.parse().unwrap();
            assert_eq!(read.matches(&path(&keys)), matches, "{pattern} {keys:?}");
            assert_eq!(read.to_string(), pattern);
        }
    }

    #[test]
    fn texts_that_are_no_patterns_are_refused() {
        for text in [
            "", "a", "$a", "$.", "$..", "$[", "$[x]", "$[-1]", "$.a b", "$[*", "$.*",
        ] {
            assert!(text.parse::<Pattern>().is_err(), "{text}");
        }
    }

    #[test]
    fn paths_are_shown_as_json_has_them() {
        let text = path(&["ok", "lines", "0", "onHand", "a b"]).to_string();
        assert_eq!(text, "$.ok.lines[0].onHand[\"a b\"]");
    }
}
