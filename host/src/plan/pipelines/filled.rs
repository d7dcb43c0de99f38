//! Values with paths, checked by their types, and how they become JSON.
//!
//! JSON is taken apart and put together as text: what passes from one step to another is not read as a
//! number in between, so no digit of it changes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// What is shown in the place of a secret value.
pub(super) const MASK: &str = "\"***\"";

/// A value as JSON text.
pub type JsonText = Box<RawValue>;

/// A value that is complete but for what its paths lead to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Filled {
    /// A value.
    Json(Constant),
    /// What stands there in the arguments, a result or an error.
    Path {
        /// The root.
        of: Root,
        /// The keys and indices from there on.
        path: Vec<Token>,
        /// The step may have no result, which is null.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        optional: bool,
        /// What may be absent is an option itself, so that the one around it is written in full.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        some: bool,
    },
    /// An object.
    Object(Vec<(String, Filled)>),
    /// An array.
    Array(Vec<Filled>),
}

/// The root of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Root {
    /// The pipeline's arguments.
    Input,
    /// The result of the step with this index.
    Step(usize),
    /// The error of the step that failed.
    Error,
    /// The item that a step is done for.
    Item,
}

/// One key or index.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Token {
    /// Of an array.
    Index(u32),
    /// Of an object.
    Key(String),
}

/// A JSON text.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Constant(pub(super) JsonText);

impl Constant {
    pub(crate) fn text(&self) -> &RawValue {
        &self.0
    }
}

impl PartialEq for Constant {
    fn eq(&self, other: &Self) -> bool {
        self.0.get() == other.0.get()
    }
}

/// What paths lead into.
pub struct Sources<'a> {
    /// The pipeline's arguments.
    pub input: &'a RawValue,
    /// The result of each step; nothing for one that has none.
    pub steps: &'a [Option<&'a RawValue>],
    /// The error of the step that failed.
    pub error: Option<&'a RawValue>,
    /// The item that a step is done for.
    pub item: Option<&'a RawValue>,
}

impl Filled {
    /// The error of the step, as it is.
    pub(super) fn error() -> Self {
        Self::Path {
            of: Root::Error,
            path: Vec::new(),
            optional: false,
            some: false,
        }
    }

    /// The value as JSON; `None` if it needs the result of a step that has none.
    #[must_use]
    pub fn json(&self, sources: &Sources<'_>) -> Option<JsonText> {
        let mut text = String::new();
        self.write(sources, &mut text)?;
        RawValue::from_string(text).ok()
    }

    fn write(&self, sources: &Sources<'_>, out: &mut String) -> Option<()> {
        match self {
            Self::Json(constant) => out.push_str(constant.0.get()),
            Self::Path {
                of,
                path,
                optional,
                some,
            } => {
                let root = match of {
                    Root::Input => Some(sources.input),
                    Root::Step(index) => *sources.steps.get(*index)?,
                    Root::Error => Some(sources.error?),
                    Root::Item => Some(sources.item?),
                };
                match root {
                    Some(root) if *some => {
                        out.push_str("{\"tag\":\"some\",\"val\":");
                        out.push_str(find(root, path)?);
                        out.push('}');
                    }
                    Some(root) => out.push_str(find(root, path)?),
                    None if *optional => out.push_str("null"),
                    None => return None,
                }
            }
            Self::Object(entries) => {
                out.push('{');
                for (index, (key, value)) in entries.iter().enumerate() {
                    if index > 0 {
                        out.push(',');
                    }
                    out.push_str(&serde_json::to_string(key).ok()?);
                    out.push(':');
                    value.write(sources, out)?;
                }
                out.push('}');
            }
            Self::Array(items) => {
                out.push('[');
                for (index, item) in items.iter().enumerate() {
                    if index > 0 {
                        out.push(',');
                    }
                    item.write(sources, out)?;
                }
                out.push(']');
            }
        }
        Some(())
    }

    /// A value that is known.
    pub(crate) fn constant(value: JsonText) -> Self {
        Self::Json(Constant(value))
    }

    /// Whether it needs what has this root.
    #[must_use]
    pub fn needs(&self, root: Root) -> bool {
        match self {
            Self::Json(_) => false,
            Self::Path { of, .. } => *of == root,
            Self::Object(entries) => entries.iter().any(|(_, value)| value.needs(root)),
            Self::Array(items) => items.iter().any(|item| item.needs(root)),
        }
    }
}

/// The text at a path.
pub(super) fn find<'a>(root: &'a RawValue, path: &[Token]) -> Option<&'a str> {
    let mut text = root.get();
    for token in path {
        // What is in a masked value is masked. No text has anything in it.
        if text == MASK {
            break;
        }
        let value: &RawValue = match token {
            Token::Key(key) => {
                let object: BTreeMap<String, &RawValue> = serde_json::from_str(text).ok()?;
                object.get(key)?
            }
            Token::Index(index) => {
                let array: Vec<&RawValue> = serde_json::from_str(text).ok()?;
                array.get(*index as usize)?
            }
        };
        text = value.get();
    }
    Some(text)
}
