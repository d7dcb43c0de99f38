//! Names of WIT in the spellings of Protocol Buffers, each of them once in its scope.

use std::collections::HashSet;

/// `on-hand` as `OnHand`: services, methods, messages and enums.
pub(super) fn upper_camel(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for word in name.split('-') {
        let mut chars = word.chars();
        out.extend(chars.next().map(|c| c.to_ascii_uppercase()));
        out.push_str(chars.as_str());
    }
    out
}

/// `on-hand` as `on_hand`: fields.
pub(super) fn snake(name: &str) -> String {
    name.replace('-', "_").to_ascii_lowercase()
}

/// `on-hand` as `ON_HAND`: values of enums.
pub(super) fn shouting(name: &str) -> String {
    name.replace('-', "_").to_ascii_uppercase()
}

/// The names of one scope.
///
/// They are compared as the strictest languages and JSON do, without underscores and case: a second name that
/// would be one of them with that gets a number.
#[derive(Default)]
pub(super) struct Scope(HashSet<String>);

impl Scope {
    pub(super) fn take(&mut self, name: String) -> String {
        let mut taken = name.clone();
        let mut number = 2;
        while !self.0.insert(key(&taken)) {
            taken = format!("{name}{number}");
            number += 1;
        }
        taken
    }
}

fn key(name: &str) -> String {
    name.replace('_', "").to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_the_spelling_of_what_they_name() {
        for (name, upper, lower, loud) in [
            ("on-hand", "OnHand", "on_hand", "ON_HAND"),
            ("URL-of", "URLOf", "url_of", "URL_OF"),
            ("x1-y2", "X1Y2", "x1_y2", "X1_Y2"),
        ] {
            assert_eq!(
                (upper_camel(name), snake(name), shouting(name)),
                (upper.into(), lower.into(), loud.into())
            );
        }
    }

    #[test]
    fn a_name_is_taken_once() {
        let mut scope = Scope::default();
        let names = ["a_1", "a1", "a12", "A1", "b"].map(|name| scope.take(name.to_owned()));
        assert_eq!(names, ["a_1", "a12", "a122", "A13", "b"]);
    }
}
