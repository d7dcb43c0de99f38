//! Documentation comments of an interface, beside the shapes that they are about.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Shape;

/// What WIT says of an interface, its functions and their types.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Docs {
    /// Of the interface.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Of its functions, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub functions: BTreeMap<String, String>,
    /// Of the types that its functions have.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    types: Vec<TypeDocs>,
}

/// What WIT says of a record, variant, enum or flags.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TypeDocs {
    /// The type. Its name in WIT is not needed: a value of it is known by its shape.
    pub shape: Shape,
    /// Of the type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Of its fields, cases or flags, by their names in WIT.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub members: BTreeMap<String, String>,
}

impl TypeDocs {
    /// Of a member.
    #[must_use]
    pub fn member(&self, name: &str) -> Option<&str> {
        self.members.get(name).map(String::as_str)
    }

    fn is_empty(&self) -> bool {
        self.text.is_none() && self.members.is_empty()
    }
}

impl Docs {
    /// What is said of an interface, its functions, and all types that these have. Those are included of which nothing
    /// is said: two types may have the same shape, and of such values only that is known which is said of both.
    #[must_use]
    pub fn new(
        text: Option<String>,
        functions: BTreeMap<String, String>,
        all: impl IntoIterator<Item = TypeDocs>,
    ) -> Self {
        let mut types: Vec<TypeDocs> = Vec::new();
        for new in all {
            let Some(known) = types.iter_mut().find(|docs| docs.shape == new.shape) else {
                types.push(new);
                continue;
            };
            known.text.take_if(|text| new.text.as_ref() != Some(text));
            known
                .members
                .retain(|name, text| new.member(name) == Some(text));
        }
        types.retain(|docs| !docs.is_empty());
        Self {
            text,
            functions,
            types,
        }
    }

    /// Whether nothing is said.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.text.is_none() && self.functions.is_empty() && self.types.is_empty()
    }

    /// What is said of the type of these values.
    #[must_use]
    pub fn of(&self, shape: &Shape) -> Option<&TypeDocs> {
        self.types.iter().find(|docs| docs.shape == *shape)
    }
}

/// The first sentence of a text, on one line.
#[must_use]
pub fn summary(text: &str) -> String {
    let paragraph = text.split("\n\n").next().unwrap_or_default();
    let words: Vec<_> = paragraph.split_whitespace().collect();
    let ends = |(at, word): (usize, &&str)| {
        let next = words.get(at + 1).and_then(|next| next.chars().next());
        // `e.g. this` goes on.
        let begins = next.is_none_or(|next| !next.is_lowercase());
        begins && word.ends_with(['.', '!', '?'])
    };
    let end = words.iter().enumerate().position(ends);
    let sentence = words
        .get(..=end.unwrap_or(usize::MAX - 1))
        .unwrap_or(&words);
    sentence.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn docs(shape: &str, text: Option<&str>, members: &[(&str, &str)]) -> TypeDocs {
        let members = members.iter();
        TypeDocs {
            shape: shape.parse().unwrap(),
            text: text.map(str::to_owned),
            members: members
                .map(|(name, text)| ((*name).to_owned(), (*text).to_owned()))
                .collect(),
        }
    }

    #[test]
    fn of_types_with_one_shape_only_what_both_say_is_known() {
        let one = "record { id: string, at: u64 }";
        let types = [
            docs(
                one,
                Some("An order."),
                &[("id", "Its id."), ("at", "When.")],
            ),
            docs("enum { a }", Some("Alone."), &[]),
            docs(one, Some("A refund."), &[("at", "When.")]),
            docs("enum { b }", Some("Said."), &[]),
            docs("enum { b }", None, &[]),
        ];
        let all = Docs::new(None, BTreeMap::new(), types);
        let of = |shape: &str| all.of(&shape.parse().unwrap()).cloned();
        assert_eq!(of(one), Some(docs(one, None, &[("at", "When.")])));
        assert_eq!(of("enum { a }").unwrap().text.as_deref(), Some("Alone."));
        assert_eq!(of("enum { b }"), None);
    }

    #[test]
    fn a_summary_is_the_first_sentence() {
        for (text, expected) in [
            ("", ""),
            ("One line", "One line"),
            (
                "Prices and\nconfirms. When it fails,\nnothing.",
                "Prices and confirms.",
            ),
            ("Kinds, e.g. this one. And that.", "Kinds, e.g. this one."),
            ("Version 1.2 of it! Yes.", "Version 1.2 of it!"),
            ("A title\n\nA text.", "A title"),
        ] {
            assert_eq!(summary(text), expected);
        }
    }
}
