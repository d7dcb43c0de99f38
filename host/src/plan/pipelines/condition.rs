//! What decides whether a step is done.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::Filled;

/// What decides whether a step is done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Condition {
    /// The value.
    pub value: Filled,
    /// The case of a variant or an enum that it has to be; without one it has to be true or present.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub case: Option<String>,
    /// It must not be so.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub not: bool,
}

impl Condition {
    /// Whether it holds of this value, as this host writes it.
    #[must_use]
    pub fn holds(&self, value: &RawValue) -> bool {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Named {
            Enum(String),
            Variant { tag: String },
        }
        let holds = match &self.case {
            None => !matches!(value.get(), "false" | "null" | "{\"tag\":\"none\"}"),
            Some(case) => match serde_json::from_str(value.get()) {
                Ok(Named::Enum(name) | Named::Variant { tag: name }) => name == *case,
                Err(_) => false,
            },
        };
        holds != self.not
    }
}
