//! Who a call is made for, as a gateway has found it out: one JSON text, which travels with the call.
//!
//! `{"auth":"jwt","subject":"u-7","scopes":["orders:write"],"claims":{"iss":"https://id.example",…}}`
//!
//! The text is ASCII and has no line breaks, so it is a header's value as it is.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Upper bound of the bytes of the text.
pub const MAX: usize = 8 << 10;

/// How a client has shown who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Proof {
    /// By a JSON Web Token.
    Jwt,
    /// By an API key.
    Key,
    /// By the certificate of its connection.
    Certificate,
}

/// Who a call is made for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Claims<'a> {
    /// How that was shown.
    pub auth: Proof,
    /// The `sub` of a token, the name of a key, the subject of a certificate.
    #[serde(default, skip_serializing_if = "Option::is_none", borrow)]
    pub subject: Option<Cow<'a, str>>,
    /// What the client may do.
    #[serde(default, borrow)]
    pub scopes: Vec<Cow<'a, str>>,
    /// All claims of a token; the serial number, digest and alternative names of a certificate.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub claims: Map<String, Value>,
}

impl<'a> Claims<'a> {
    /// Reads the text; `None` for any other text.
    #[must_use]
    pub fn read(text: &'a str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    /// The text; `None` if it would be longer than [`MAX`].
    #[must_use]
    pub fn write(&self) -> Option<Arc<str>> {
        let text = serde_json::to_string(self).ok()?;
        let text = ascii(&text);
        (text.len() <= MAX).then(|| text.into())
    }
}

/// JSON with every other character escaped. Those are within strings, where an escape means the same.
fn ascii(json: &str) -> Cow<'_, str> {
    let plain = |c: &char| c.is_ascii_graphic() || *c == ' ';
    if json.chars().all(|c| plain(&c)) {
        return Cow::Borrowed(json);
    }
    let mut text = String::with_capacity(json.len() + 64);
    for c in json.chars() {
        if plain(&c) {
            text.push(c);
            continue;
        }
        for unit in c.encode_utf16(&mut [0; 2]) {
            // Writing to a string cannot fail.
            let _ = write!(text, "\\u{unit:04x}");
        }
    }
    Cow::Owned(text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn claims(subject: &str, scope: &str) -> Claims<'static> {
        let mut claims = Map::new();
        claims.insert("name".to_owned(), subject.into());
        Claims {
            auth: Proof::Jwt,
            subject: Some(subject.to_owned().into()),
            scopes: vec![scope.to_owned().into()],
            claims,
        }
    }

    #[test]
    fn the_text_is_json_by_name() {
        let key = Claims {
            auth: Proof::Key,
            subject: Some("till".into()),
            scopes: vec!["orders:write".into()],
            claims: Map::new(),
        };
        let text = key.write().unwrap();
        assert_eq!(
            &*text,
            r#"{"auth":"key","subject":"till","scopes":["orders:write"]}"#
        );
        assert_eq!(Claims::read(&text).unwrap(), key);
        for other in ["", "{}", "[]", "null", r#"{"auth":"magic"}"#] {
            assert_eq!(Claims::read(other), None, "{other}");
        }
    }

    #[test]
    fn what_is_too_long_is_not_written() {
        let of = |bytes: usize| claims(&"x".repeat(bytes), "").write();
        assert!(of(MAX / 2 - 100).is_some());
        assert!(of(MAX / 2).is_none());
    }

    proptest! {
        #[test]
        fn any_claims_are_one_line_of_ascii(subject in ".*", scope in any::<String>()) {
            let claims = claims(&subject, &scope);
            if let Some(text) = claims.write() {
                prop_assert!(text.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
                prop_assert_eq!(Claims::read(&text).unwrap(), claims);
            }
        }

        #[test]
        fn no_text_panics(text in ".*") {
            let _ = Claims::read(&text);
        }
    }
}
