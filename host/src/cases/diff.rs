//! Where two JSON values differ.

use serde::Serialize;
use serde_json::Value;

use super::path::{Path, Pattern, Step};
use crate::text::one_line;

/// Upper bound of the differences that are listed.
const MAX_LISTED: usize = 20;

/// Upper bound of the bytes of a value that is shown.
const MAX_SHOWN: usize = 300;

/// One place at which two values differ.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// The path, such as `$.ok.total.minor`.
    pub path: String,
    /// The expected value as JSON, shortened; nothing where there should be none.
    pub expected: Option<String>,
    /// The value that came, in the same way.
    pub got: Option<String>,
}

/// Where `got` is not what was expected, but for what is ignored: the first twenty places.
pub(super) fn differences(expected: &Value, got: &Value, ignore: &[Pattern]) -> Vec<Difference> {
    let mut found = Vec::new();
    compare(
        Some(expected),
        Some(got),
        ignore,
        &mut Path::default(),
        &mut found,
    );
    found
}

fn compare(
    expected: Option<&Value>,
    got: Option<&Value>,
    ignore: &[Pattern],
    path: &mut Path,
    found: &mut Vec<Difference>,
) {
    if found.len() >= MAX_LISTED || ignore.iter().any(|pattern| pattern.matches(path)) {
        return;
    }
    let mut below = |step: Step, expected: Option<&Value>, got: Option<&Value>| {
        path.0.push(step);
        compare(expected, got, ignore, path, found);
        path.0.pop();
    };
    match (expected, got) {
        (Some(Value::Object(expected)), Some(Value::Object(got))) => {
            for (key, value) in expected {
                below(Step::Key(key.clone()), Some(value), got.get(key));
            }
            for (key, value) in got.iter().filter(|(key, _)| !expected.contains_key(*key)) {
                below(Step::Key(key.clone()), None, Some(value));
            }
        }
        (Some(Value::Array(expected)), Some(Value::Array(got))) => {
            for at in 0..expected.len().max(got.len()) {
                below(Step::Index(at), expected.get(at), got.get(at));
            }
        }
        (expected, got) if expected == got => {}
        (expected, got) => found.push(Difference {
            path: path.to_string(),
            expected: expected.map(show),
            got: got.map(show),
        }),
    }
}

/// A value on one line.
pub(super) fn show(value: &Value) -> String {
    one_line(&value.to_string(), MAX_SHOWN).into_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn found(expected: &Value, got: &Value, ignore: &[&str]) -> Vec<(String, String)> {
        let ignore: Vec<_> = ignore.iter().map(|text| text.parse().unwrap()).collect();
        let differences = differences(expected, got, &ignore).into_iter();
        let text = |side: Option<String>| side.unwrap_or_else(|| "-".to_owned());
        differences
            .map(|one| {
                (
                    one.path,
                    format!("{} {}", text(one.expected), text(one.got)),
                )
            })
            .collect()
    }

    #[test]
    fn differences_are_named_by_their_paths() {
        let expected = json!({"ok": {"id": "a", "lines": [1, 2, 3], "gone": null}});
        let got = json!({"ok": {"id": "b", "lines": [1, 3], "new": true}});
        let named = |path: &str, sides: &str| (path.to_owned(), sides.to_owned());
        assert_eq!(
            found(&expected, &got, &[]),
            [
                named("$.ok.gone", "null -"),
                named("$.ok.id", "\"a\" \"b\""),
                named("$.ok.lines[1]", "2 3"),
                named("$.ok.lines[2]", "3 -"),
                named("$.ok.new", "- true"),
            ]
        );
        assert_eq!(found(&expected, &expected, &[]), []);
        let other_kind = found(&json!({"ok": 1}), &json!({"err": [1]}), &[]);
        assert_eq!(other_kind, [named("$.ok", "1 -"), named("$.err", "- [1]")]);
    }

    #[test]
    fn what_is_ignored_may_differ() {
        let expected = json!({"id": "a", "lines": [{"id": 1, "n": 1}]});
        let got = json!({"id": "b", "lines": [{"id": 2, "n": 1}]});
        assert_eq!(found(&expected, &got, &["$..id"]), []);
        assert_eq!(found(&expected, &got, &["$.id", "$.lines[*].id"]), []);
        assert_eq!(found(&expected, &got, &["$.id"]).len(), 1);
        assert_eq!(found(&expected, &got, &["$"]), []);
    }

    #[test]
    fn there_are_never_more_than_twenty() {
        let (expected, got) = (vec![1; 1_000], vec![2; 1_000]);
        assert_eq!(found(&json!(expected), &json!(got), &[]).len(), MAX_LISTED);
    }

    #[test]
    fn a_long_value_is_cut() {
        let difference = differences(&json!("x".repeat(10_000)), &json!(1), &[]);
        assert!(difference[0].expected.as_ref().unwrap().len() <= MAX_SHOWN);
    }
}
