//! What the host itself does for durable functions, as functions that they call: data, messages, and HTTP. What it
//! does is a step of their runs like any other.

use super::filled::Token;
use super::{Import, StepCall};
use crate::shape::Signature;

/// The functions, and their types as a journal has them.
pub(crate) const PROVIDED: [(&str, &str); 8] = [
    (GET, "func(key: string) -> result<option<list<u8>>, string>"),
    (
        SET,
        "func(key: string, value: list<u8>) -> result<_, string>",
    ),
    (DELETE, "func(key: string) -> result<_, string>"),
    (
        INCREMENT,
        "func(key: string, delta: u64) -> result<u64, string>",
    ),
    (
        KEYS,
        "func(cursor: option<u64>) -> result<record { keys: list<string>, cursor: option<u64> }, string>",
    ),
    (
        SEND,
        "func(subject: string, reply-to: option<string>, headers: list<tuple<string, string>>, body: list<u8>) -> result<_, string>",
    ),
    (
        REQUEST,
        "func(subject: string, headers: list<tuple<string, string>>, body: list<u8>) -> result<list<record { subject: string, body: list<u8>, reply-to: option<string>, headers: list<tuple<string, string>> }>, string>",
    ),
    (
        FETCH,
        "func(method: string, url: string, headers: list<tuple<string, string>>, secret-headers: list<tuple<string, string>>, body: list<u8>) -> result<record { status: u16, headers: list<tuple<string, string>>, secret-headers: list<tuple<string, string>>, body: list<u8> }, string>",
    ),
];

pub(crate) const GET: &str = "wasi:keyvalue/store.get";
pub(crate) const SET: &str = "wasi:keyvalue/store.set";
pub(crate) const DELETE: &str = "wasi:keyvalue/store.delete";
pub(crate) const INCREMENT: &str = "wasi:keyvalue/atomics.increment";
pub(crate) const KEYS: &str = "wasi:keyvalue/store.list-keys";
pub(crate) const SEND: &str = "wasi:messaging/producer.send";
pub(crate) const REQUEST: &str = "wasi:messaging/request-reply.request";

pub(crate) const FETCH: &str = "wasi:http/outgoing-handler.handle";

/// The type of one of them.
pub(crate) fn signature_of(name: &str) -> Option<Signature> {
    let mut all = PROVIDED.iter();
    let (_, signature) = all.find(|(known, _)| *known == name)?;
    signature.parse().ok()
}

/// All of them as what durable functions call, each tried as this call is. Their names stand in the place of subjects.
/// Where a service has anything secret, it may be in whatever is stored and sent, so nothing of that is shown.
pub(super) fn imports(like: &StepCall, hidden: bool) -> impl Iterator<Item = Import> {
    let hidden_in = move |name: &str| match name {
        _ if hidden => vec![Vec::new()],
        // Its headers with logins.
        FETCH => vec![vec![Token::Key("secretHeaders".to_owned())]],
        _ => Vec::new(),
    };
    PROVIDED.iter().filter_map(move |(name, signature)| {
        Some(Import {
            subject: (*name).to_owned(),
            call: StepCall {
                function: name.parse().ok()?,
                signature: signature.parse().ok()?,
                event: None,
                ..like.clone()
            },
            undo: None,
            secrets: super::Secrets {
                arguments: hidden_in(name),
                result: hidden_in(name),
            },
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::interface::FunctionId;

    #[test]
    fn names_and_types_are_valid() {
        for (name, signature) in PROVIDED {
            let function: FunctionId = name.parse().unwrap();
            assert_eq!(function.to_string(), name);
            assert_eq!(signature_of(name).unwrap().to_string(), signature);
        }
    }
}
