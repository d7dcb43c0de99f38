//! Calls that a host has kept, as cases: what the service did is what is expected of its next version.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::file::{CaseFile, FailureFile, Json, StubFile};
use crate::json::{self, Limits, UnknownKeys};
use crate::manifest::ServiceSpec;
use crate::plan::{Secrets, Token, secrets_of};
use crate::runtime::{LeftOut, TapedCall, TapedImport};
use crate::shape::{Shape, Signature};
use crate::text::hex;
use crate::value::Value;

/// What stands in the place of a secret text.
const MASK: &str = "***";

/// Characters from which on a secret text is looked for everywhere. Shorter ones stand everywhere.
const LEAST: usize = 4;

/// The calls of a service that a host has kept since it was asked for the last time.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Recorded {
    /// The id of the host.
    pub host: String,
    /// The calls as cases.
    pub cases: Vec<CaseFile>,
    /// Calls that are not among them, by the reason.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub left_out: BTreeMap<String, u64>,
}

impl Recorded {
    /// What a host has kept, without the values that the manifest calls secret, and of no more bytes than these.
    pub(crate) fn new(
        host: &str,
        spec: &ServiceSpec,
        (calls, left_out): (Vec<TapedCall>, LeftOut),
        most: usize,
    ) -> Self {
        let mut recorded = Self {
            host: host.to_owned(),
            ..Self::default()
        };
        recorded.leave("too many at once", left_out.room);
        recorded.leave(
            "data, messages, streams, HTTP, sockets or who calls",
            left_out.outside,
        );
        recorded.leave("overload, or nothing that answers", left_out.moment);
        let mut bytes = 0;
        for call in &calls {
            let Some(case) = case_of(call, spec) else {
                recorded.leave(
                    "a secret value that is no text, or arguments of another type",
                    1,
                );
                continue;
            };
            bytes += serde_json::to_vec(&case).map_or(0, |json| json.len());
            if bytes > most {
                recorded.leave("too many at once", 1);
            } else {
                recorded.cases.push(case);
            }
        }
        recorded
    }

    fn leave(&mut self, why: &str, number: u64) {
        if number > 0 {
            *self.left_out.entry(why.to_owned()).or_default() += number;
        }
    }
}

fn case_of(call: &TapedCall, spec: &ServiceSpec) -> Option<CaseFile> {
    let mut hidden = Vec::new();
    let own = secrets_of(spec, &call.function, &call.signature).ok()?;
    let at = time(call.at);
    let (returns, fails) = match &call.ended {
        Ok(body) => (result(body, &call.signature, &own, &mut hidden)?, None),
        // The message names where the old version was.
        Err(error) => (None, Some(error.code.status())),
    };
    let mut case = CaseFile {
        name: format!("{} at {at}", call.function.name),
        call: call.function.to_string(),
        arguments: arguments(&call.arguments, &call.signature, &own, &mut hidden)?,
        time: Some(match call.given {
            Some((_, began)) => time(UNIX_EPOCH + std::time::Duration::from_millis(began)),
            None => at,
        }),
        seed: call.given.map(|(seed, _)| hex(&seed)),
        returns,
        fails: fails.map(|code| FailureFile {
            code,
            message: String::new(),
        }),
        ..CaseFile::default()
    };
    for import in &call.imports {
        case.imports.push(stub(import, spec, &mut hidden)?);
    }
    hide_everywhere(&mut case, &hidden);
    Some(case)
}

fn stub(import: &TapedImport, spec: &ServiceSpec, hidden: &mut Vec<String>) -> Option<StubFile> {
    let TapedImport {
        function,
        signature,
        arguments: body,
        ended,
    } = import;
    let secrets = secrets_of(spec, function, signature).ok()?;
    let (returns, fails) = match ended {
        Ok(body) => (result(body, signature, &secrets, hidden)?, None),
        Err(error) => {
            let (code, message) = (error.code.status(), error.message.clone());
            (None, Some(FailureFile { code, message }))
        }
    };
    Some(StubFile {
        call: function.to_string(),
        arguments: arguments(body, signature, &secrets, hidden)?,
        returns,
        fails,
        ..StubFile::default()
    })
}

/// Arguments without secret values; `None` if they are not of the type or cannot be hidden.
fn arguments(
    body: &[u8],
    signature: &Signature,
    secrets: &Secrets,
    hidden: &mut Vec<String>,
) -> Option<Option<Json>> {
    let values = json::decode_arguments(body, signature, &limits()).ok()?;
    let shape = Shape::Record(signature.params.clone());
    let mut record = Value::Record(values);
    for path in &secrets.arguments {
        hide(&mut record, &shape, path, hidden)?;
    }
    let Value::Record(values) = record else {
        return None;
    };
    written(json::encode_arguments(&values, signature, &limits()).ok()?)
}

/// A result without secret values, whose paths lead into the ok value. An event has none.
fn result(
    body: &[u8],
    signature: &Signature,
    secrets: &Secrets,
    hidden: &mut Vec<String>,
) -> Option<Option<Json>> {
    if body.is_empty() {
        return Some(None);
    }
    let mut value = json::decode_result(body, signature, &limits()).ok()?;
    if let (Some(value), Some(shape)) = (&mut value, &signature.result) {
        for path in &secrets.result {
            match (&mut *value, shape) {
                (
                    Value::Result(Ok(Some(value))),
                    Shape::Result {
                        ok: Some(shape), ..
                    },
                ) => {
                    hide(value, shape, path, hidden)?;
                }
                (Value::Result(_), _) => {}
                (value, shape) => hide(value, shape, path, hidden)?,
            }
        }
    }
    written(json::encode_result(value.as_ref(), signature, &limits()).ok()?)
}

fn written(body: Vec<u8>) -> Option<Option<Json>> {
    if body.is_empty() {
        return Some(None);
    }
    let text = String::from_utf8(body).ok()?;
    Some(Some(RawValue::from_string(text).ok()?))
}

fn limits() -> Limits {
    Limits {
        bytes: usize::MAX,
        unknown_keys: UnknownKeys::Ignore,
        ..Limits::default()
    }
}

/// Hides what is at a path; `None` if that cannot be hidden.
fn hide(value: &mut Value, shape: &Shape, path: &[Token], hidden: &mut Vec<String>) -> Option<()> {
    let Some((token, rest)) = path.split_first() else {
        return hide_all(value, hidden);
    };
    let (inside, shape) = match (value, shape, token) {
        (Value::Option(None), _, _) => return Some(()),
        (Value::Option(Some(some)), Shape::Option(shape), _) => {
            return hide(some, shape, path, hidden);
        }
        (Value::Record(values), Shape::Record(fields), Token::Key(key)) => {
            let index = fields.iter().position(|field| *field.key == **key)?;
            (values.get_mut(index)?, &fields.get(index)?.shape)
        }
        (Value::List(values), Shape::List(shape), Token::Index(index)) => {
            match values.get_mut(*index as usize) {
                Some(value) => (value, &**shape),
                None => return Some(()),
            }
        }
        (Value::Tuple(values), Shape::Tuple(shapes), Token::Index(index)) => {
            let index = *index as usize;
            (values.get_mut(index)?, shapes.get(index)?)
        }
        _ => return None,
    };
    hide(inside, shape, rest, hidden)
}

/// Hides all texts in a value. What is no text cannot be hidden in a value of the type.
fn hide_all(value: &mut Value, hidden: &mut Vec<String>) -> Option<()> {
    match value {
        Value::String(text) => {
            hidden.push(std::mem::replace(text, MASK.to_owned()));
            Some(())
        }
        Value::Option(None) => Some(()),
        Value::Option(Some(some)) => hide_all(some, hidden),
        Value::Record(values) | Value::List(values) | Value::Tuple(values) => values
            .iter_mut()
            .try_for_each(|value| hide_all(value, hidden)),
        _ => None,
    }
}

/// Hides the same texts wherever else they are values.
fn hide_everywhere(case: &mut CaseFile, hidden: &[String]) {
    let mask = format!("\"{MASK}\"");
    let long = hidden.iter().filter(|text| text.chars().count() >= LEAST);
    for text in long {
        let quoted = serde_json::Value::String(text.clone()).to_string();
        let hide = |json: &mut Option<Json>| {
            let Some(there) = json.as_ref().filter(|json| json.get().contains(&quoted)) else {
                return;
            };
            let text = there.get().replace(&quoted, &mask);
            *json = RawValue::from_string(text).ok();
        };
        hide(&mut case.arguments);
        hide(&mut case.returns);
        for stub in &mut case.imports {
            hide(&mut stub.arguments);
            hide(&mut stub.returns);
            if let Some(fails) = &mut stub.fails {
                fails.message = fails.message.replace(text, MASK);
            }
        }
    }
}

/// A time as RFC 3339, in milliseconds.
fn time(at: SystemTime) -> String {
    let at = OffsetDateTime::from(at);
    let at = at.replace_millisecond(at.millisecond()).unwrap_or(at);
    at.format(&Rfc3339).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TYPE: &str = "func(card: record { number: string, year: u16, notes: list<option<string>> }, \
                        tag: string) -> result<record { token: string }, string>";

    fn key(key: &str) -> Token {
        Token::Key(key.to_owned())
    }

    /// The arguments and the result as they are written, and what was hidden.
    fn written(
        arguments_at: Vec<Token>,
        result_at: Vec<Token>,
    ) -> Option<(String, String, Vec<String>)> {
        let signature: Signature = TYPE.parse().unwrap();
        let mut secrets = Secrets::default();
        secrets.arguments.push(arguments_at);
        secrets.result.push(result_at);
        let mut hidden = Vec::new();
        // In another spelling than it is written in.
        let body = br#"[{"notes":["a",null,"b"],"year":2030,"number":"4242"},"t"]"#;
        let given = arguments(body, &signature, &secrets, &mut hidden)??;
        let body = br#"{"ok":{"token":"secret"}}"#;
        let returned = result(body, &signature, &secrets, &mut hidden)??;
        Some((given.get().to_owned(), returned.get().to_owned(), hidden))
    }

    #[test]
    fn texts_at_a_path_are_hidden() {
        let (given, returned, hidden) =
            written(vec![key("card"), key("number")], vec![key("token")]).unwrap();
        assert_eq!(
            given,
            r#"{"card":{"number":"***","year":2030,"notes":["a",null,"b"]},"tag":"t"}"#
        );
        assert_eq!(returned, r#"{"ok":{"token":"***"}}"#);
        assert_eq!(hidden, ["4242", "secret"]);
        let (given, ..) = written(vec![key("card"), key("notes")], vec![]).unwrap();
        assert!(given.contains(r#""notes":["***",null,"***"]"#), "{given}");
        let second = vec![key("card"), key("notes"), Token::Index(2)];
        let (given, ..) = written(second, vec![]).unwrap();
        assert!(given.contains(r#""notes":["a",null,"***"]"#), "{given}");
    }

    #[test]
    fn a_call_whose_secret_is_no_text_is_none() {
        assert_eq!(written(vec![key("card"), key("year")], vec![]), None);
        assert_eq!(written(vec![key("card")], vec![]), None);
        assert_eq!(written(vec![key("cart")], vec![]), None);
    }

    #[test]
    fn hidden_texts_are_hidden_everywhere() {
        let json = |text: &str| Some(RawValue::from_string(text.to_owned()).unwrap());
        let mut case = CaseFile {
            arguments: json(r#"{"a":"4242","b":"x4242"}"#),
            returns: json(r#"["4242",4242]"#),
            imports: vec![StubFile {
                arguments: json(r#""a\"b4242""#),
                fails: Some(FailureFile {
                    code: 503,
                    message: "card 4242".to_owned(),
                }),
                ..StubFile::default()
            }],
            ..CaseFile::default()
        };
        let hidden = ["4242", "a\"b4242", "x"].map(str::to_owned);
        hide_everywhere(&mut case, &hidden);
        let text = |json: &Option<Json>| json.as_ref().unwrap().get().to_owned();
        assert_eq!(text(&case.arguments), r#"{"a":"***","b":"x4242"}"#);
        assert_eq!(text(&case.returns), r#"["***",4242]"#);
        assert_eq!(text(&case.imports[0].arguments), r#""***""#);
        assert_eq!(case.imports[0].fails.as_ref().unwrap().message, "card ***");
    }
}
