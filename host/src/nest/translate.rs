//! Between the data of packets and the JSON of calls, by a function's type.

use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value as Json, json};

use crate::call::{CallError, Reply, Returned};
use crate::json::{self, Limits, UnknownKeys};
use crate::shape::{Shape, Signature};
use crate::value::Value;

/// What Nest's entities have beyond the types that are shared is ignored.
fn tolerant(limits: &Limits) -> Limits {
    Limits {
        unknown_keys: UnknownKeys::Ignore,
        ..*limits
    }
}

/// The arguments of a call as its body: of one parameter the data is its value, of several an object; without
/// parameters data is ignored.
pub(crate) fn arguments(data: Option<&RawValue>, signature: &Signature) -> Bytes {
    let data = data.map_or_else(|| "null".to_owned(), |data| bytes_of_buffers(data.get()));
    let body = match &*signature.params {
        [] => String::new(),
        [only] => format!("{{{}:{data}}}", json!(&*only.key)),
        // As an empty body, which is all options.
        _ if data == "null" => String::new(),
        _ => data,
    };
    body.into()
}

/// The data of a request, of the arguments of a call.
///
/// # Errors
///
/// The arguments do not decode.
pub(crate) fn data(
    body: &[u8],
    signature: &Signature,
    limits: &Limits,
) -> Result<Box<RawValue>, CallError> {
    let refuse = |error: json::JsonError| CallError::bad_arguments(error);
    let arguments = json::decode_arguments(body, signature, limits).map_err(refuse)?;
    let text = match (&*signature.params, &*arguments) {
        ([], _) => b"{}".to_vec(),
        ([only], [value]) => json::encode_value(value, &only.shape, limits).map_err(refuse)?,
        _ => json::encode_arguments(&arguments, signature, limits).map_err(refuse)?,
    };
    let text = String::from_utf8(text).map_err(CallError::bad_arguments)?;
    RawValue::from_string(text).map_err(CallError::bad_arguments)
}

/// `{"type":"Buffer","data":[…]}` is how Node writes bytes; an array of them is read as a `list<u8>`.
fn bytes_of_buffers(text: &str) -> String {
    if !text.contains("\"Buffer\"") {
        return text.to_owned();
    }
    let Ok(mut value) = serde_json::from_str::<Json>(text) else {
        return text.to_owned();
    };
    replace_buffers(&mut value);
    value.to_string()
}

fn replace_buffers(value: &mut Json) {
    let is_buffer = |object: &Map<String, Json>| {
        object.len() == 2
            && object.get("type").is_some_and(|kind| kind == "Buffer")
            && object.get("data").is_some_and(Json::is_array)
    };
    match value {
        Json::Object(object) if is_buffer(object) => {
            *value = object.remove("data").unwrap_or_default();
        }
        Json::Object(object) => object.values_mut().for_each(replace_buffers),
        Json::Array(items) => items.iter_mut().for_each(replace_buffers),
        _ => {}
    }
}

/// The packets that answer a request: one, or of a stream one for each element and a last one.
pub(crate) fn result_packets(
    reply: &Reply,
    signature: &Signature,
    id: &RawValue,
    is_stream: bool,
) -> Vec<Bytes> {
    let (is_result, err) = match &signature.result {
        Some(Shape::Result { err, .. }) => (true, err.as_deref()),
        _ => (false, None),
    };
    let value = match &reply.returned {
        Returned::Err(error) => return vec![packet(&Err(shown_error(error, err)), id)],
        Returned::Ok => ok_of(&reply.body, is_result),
    };
    if is_stream && let Ok(items) = serde_json::from_str::<Vec<&RawValue>>(value.get()) {
        #[derive(Serialize)]
        struct Element<'a> {
            response: &'a RawValue,
            id: &'a RawValue,
        }
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Last<'a> {
            is_disposed: bool,
            id: &'a RawValue,
        }
        let elements = items
            .into_iter()
            .map(|response| written(&Element { response, id }));
        let last = Last {
            is_disposed: true,
            id,
        };
        return elements.chain([written(&last)]).collect();
    }
    vec![packet(&Ok(value), id)]
}

/// The ok side of a result, or the result itself; null for none.
fn ok_of(body: &[u8], is_result: bool) -> Box<RawValue> {
    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Ok<'a> {
        #[serde(borrow)]
        ok: &'a RawValue,
    }
    let text = str::from_utf8(body).unwrap_or_default();
    let text = match serde_json::from_str::<Ok<'_>>(text) {
        std::result::Result::Ok(Ok { ok }) if is_result => ok.get(),
        _ if text.is_empty() => "null",
        _ => text,
    };
    RawValue::from_string(text.to_owned()).unwrap_or_default()
}

/// An `err` value as the error of a client: an object with a message, which nothing takes for success.
fn shown_error(error: &[u8], shape: Option<&Shape>) -> Json {
    let error: Json = serde_json::from_slice(error).unwrap_or_default();
    match error {
        Json::String(message) => json!({ "status": "error", "message": message }),
        Json::Object(mut variant) if matches!(shape, Some(Shape::Variant(_))) => {
            let message = variant.get("tag").cloned();
            variant.insert("status".to_owned(), "error".into());
            variant.insert("message".to_owned(), message.unwrap_or_default());
            variant.into()
        }
        Json::Object(record) => record.into(),
        other => json!({ "status": "error", "message": "refused", "val": other }),
    }
}

/// The packet that answers a request which failed.
pub(crate) fn error_packet(error: &CallError, id: &RawValue) -> Bytes {
    let mut shown = json!({
        "status": "error",
        "code": error.code.status(),
        "message": error.message,
        "blame": error.blame.as_str(),
    });
    if let (Some(shown), Some(run)) = (shown.as_object_mut(), &error.run) {
        shown.insert("run".to_owned(), (&**run).into());
    }
    let error = shown;
    packet(&Err(error), id)
}

fn packet(outcome: &Result<Box<RawValue>, Json>, id: &RawValue) -> Bytes {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Written<'a> {
        #[serde(skip_serializing_if = "Option::is_none")]
        response: Option<&'a RawValue>,
        #[serde(skip_serializing_if = "Option::is_none")]
        err: Option<&'a Json>,
        is_disposed: bool,
        id: &'a RawValue,
    }
    let (response, err) = match outcome {
        Ok(value) => (Some(&**value), None),
        Err(error) => (None, Some(error)),
    };
    written(&Written {
        response,
        err,
        is_disposed: true,
        id,
    })
}

fn written(packet: &impl Serialize) -> Bytes {
    // JSON and texts can always be written.
    serde_json::to_vec(packet).unwrap_or_default().into()
}

/// The outcome of a request to a service of Nest, as the body of a reply: its responses, of which one that is no
/// stream has one at most, or its error.
///
/// # Errors
///
/// What came is no result of the function's type.
pub(crate) fn result(
    outcome: Result<&[Box<RawValue>], &RawValue>,
    is_stream: bool,
    signature: &Signature,
    limits: &Limits,
) -> Result<Bytes, CallError> {
    let limits = tolerant(limits);
    let value = match (outcome, &signature.result) {
        (Ok(_), None) => None,
        (Ok(responses), Some(Shape::Result { ok, .. })) => {
            let ok = ok
                .as_deref()
                .map(|shape| responded(responses, is_stream, shape, &limits));
            let ok = ok.transpose()?;
            Some(Value::Result(Ok(ok.map(Box::new))))
        }
        (Ok(responses), Some(shape)) => Some(responded(responses, is_stream, shape, &limits)?),
        (
            Err(error),
            Some(Shape::Result {
                err: Some(shape), ..
            }),
        ) => {
            let value = refused(error, shape, &limits).ok_or_else(|| failed(error))?;
            Some(Value::Result(Err(Some(Box::new(value)))))
        }
        (Err(error), _) => return Err(failed(error)),
    };
    let body = json::encode_result(value.as_ref(), signature, &limits);
    Ok(body.map_err(CallError::bad_reply)?.into())
}

fn responded(
    responses: &[Box<RawValue>],
    is_stream: bool,
    shape: &Shape,
    limits: &Limits,
) -> Result<Value, CallError> {
    let text = match responses {
        _ if is_stream => {
            let items: Vec<_> = responses.iter().map(|item| item.get()).collect();
            format!("[{}]", items.join(","))
        }
        [] if matches!(shape, Shape::Option(_)) => "null".to_owned(),
        [] => return Err(CallError::bad_reply("the service returned no value")),
        [first, ..] => first.get().to_owned(),
    };
    let text = bytes_of_buffers(&text);
    json::decode_value(text.as_bytes(), shape, limits).map_err(CallError::bad_reply)
}

/// An error of Nest's as a value of the function's own error type, where it has a place for it.
fn refused(error: &RawValue, shape: &Shape, limits: &Limits) -> Option<Value> {
    let read: Json = serde_json::from_str(error.get()).ok()?;
    let message = message_of(&read);
    let decode =
        |value: &Json| json::decode_value(value.to_string().as_bytes(), shape, limits).ok();
    match shape {
        Shape::String => decode(&message.into()),
        Shape::Variant(_) | Shape::Enum(_) => {
            let tag = read.get("tag").cloned();
            let own = tag.and_then(|tag| match read.get("val") {
                Some(value) => decode(&json!({ "tag": tag, "val": value })),
                None => decode(&json!({ "tag": tag })).or_else(|| decode(&tag)),
            });
            // A case that says only that it failed.
            let unavailable = || decode(&json!({ "tag": "unavailable", "val": message }));
            let plain = || {
                decode(&json!({ "tag": "unavailable" })).or_else(|| decode(&json!("unavailable")))
            };
            own.or_else(unavailable).or_else(plain)
        }
        _ => decode(&read),
    }
}

fn failed(error: &RawValue) -> CallError {
    let read = serde_json::from_str::<Json>(error.get()).unwrap_or_default();
    CallError::bad_reply(format_args!("the service refused: {}", message_of(&read)))
}

/// What an error says.
fn message_of(error: &Json) -> String {
    let message = error.get("message").unwrap_or(error);
    match message {
        Json::String(message) => message.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shape::{Case, Field};

    fn field(name: &str, key: &str, shape: Shape) -> Field {
        Field {
            name: name.into(),
            key: key.into(),
            shape,
        }
    }

    fn signature(params: Vec<Field>, result: Option<Shape>) -> Signature {
        Signature {
            params: params.into(),
            result,
        }
    }

    fn raw(text: &str) -> Box<RawValue> {
        RawValue::from_string(text.to_owned()).unwrap()
    }

    #[test]
    fn data_is_the_one_argument_or_an_object_of_them() {
        let item = || field("item-id", "itemId", Shape::U32);
        let bytes = || field("bytes", "bytes", Shape::Bytes);
        let limits = Limits::default();
        for (params, given, body, sent) in [
            (vec![], "7", "", "{}"),
            (vec![item()], "7", r#"{"itemId":7}"#, "7"),
            (
                vec![item(), bytes()],
                r#"{"itemId":7,"bytes":{"type":"Buffer","data":[1,2]}}"#,
                r#"{"bytes":[1,2],"itemId":7}"#,
                r#"{"itemId":7,"bytes":"AQI="}"#,
            ),
        ] {
            let signature = signature(params, None);
            let found = arguments(Some(&raw(given)), &signature);
            assert_eq!(found, body);
            assert_eq!(data(&found, &signature, &limits).unwrap().get(), sent);
        }
    }

    #[test]
    fn a_reply_is_one_packet_or_a_stream_of_them() {
        let id = raw("\"x\"");
        let declined = Shape::Variant(
            [Case {
                name: "sold-out".into(),
                payload: Some(Shape::U32),
            }]
            .into(),
        );
        let of = |err: Shape| {
            let (ok, err) = (None, Some(Box::new(err)));
            signature(vec![], Some(Shape::Result { ok, err }))
        };
        let as_result = of(declined);
        let read = |reply: &Reply, signature: &Signature, is_stream| {
            let packets = result_packets(reply, signature, &id, is_stream);
            let texts = packets
                .iter()
                .map(|p| str::from_utf8(p).unwrap().to_owned());
            texts.collect::<Vec<_>>()
        };
        let text = |reply: &Reply, is_stream| read(reply, &as_result, is_stream);
        let ok = |body: &'static str| Reply {
            body: Bytes::from_static(body.as_bytes()),
            returned: Returned::Ok,
        };
        assert_eq!(
            text(&ok(r#"{"ok":[1,2]}"#), true),
            [
                r#"{"response":1,"id":"x"}"#,
                r#"{"response":2,"id":"x"}"#,
                r#"{"isDisposed":true,"id":"x"}"#
            ]
        );
        assert_eq!(text(&ok("[]"), true), [r#"{"isDisposed":true,"id":"x"}"#]);
        for (body, response) in [("7", "7"), ("", "null"), (r#"{"ok":null}"#, "null")] {
            let expected = format!(r#"{{"response":{response},"isDisposed":true,"id":"x"}}"#);
            assert_eq!(text(&ok(body), false), [expected]);
        }
        for (error, expected) in [
            (r#""no""#, r#"{"message":"no","status":"error"}"#),
            (
                r#"{"tag":"sold-out","val":3}"#,
                r#"{"message":"sold-out","status":"error","tag":"sold-out","val":3}"#,
            ),
            ("0", r#"{"message":"refused","status":"error","val":0}"#),
        ] {
            let reply = Reply {
                body: Bytes::new(),
                returned: Returned::Err(error.as_bytes().into()),
            };
            let expected = format!(r#"{{"err":{expected},"isDisposed":true,"id":"x"}}"#);
            assert_eq!(text(&reply, false), [expected]);
        }
        // A record is as it is, whatever its fields are called.
        let record = Shape::Record([field("tag", "tag", Shape::String)].into());
        let reply = Reply {
            body: Bytes::new(),
            returned: Returned::Err(r#"{"tag":"x"}"#.into()),
        };
        let expected = r#"{"err":{"tag":"x"},"isDisposed":true,"id":"x"}"#;
        assert_eq!(read(&reply, &of(record), false), [expected]);
        let plain = signature(
            vec![],
            Some(Shape::Record([field("ok", "ok", Shape::Bool)].into())),
        );
        let expected = r#"{"response":{"ok":true},"isDisposed":true,"id":"x"}"#;
        assert_eq!(read(&ok(r#"{"ok":true}"#), &plain, false), [expected]);
    }

    #[test]
    fn responses_and_errors_become_results_by_type() {
        let variant = Shape::Variant(
            [
                Case {
                    name: "sold-out".into(),
                    payload: Some(Shape::U32),
                },
                Case {
                    name: "unavailable".into(),
                    payload: Some(Shape::String),
                },
            ]
            .into(),
        );
        let of = |ok: Option<Shape>, err: Option<Shape>| Shape::Result {
            ok: ok.map(Box::new),
            err: err.map(Box::new),
        };
        let limits = Limits::default();
        let read = |shape: &Shape, outcome: Result<&[&str], &str>, is_stream| {
            let signature = signature(vec![], Some(shape.clone()));
            let result = match outcome {
                Ok(texts) => {
                    let responses: Vec<_> = texts.iter().map(|text| raw(text)).collect();
                    result(Ok(&responses), is_stream, &signature, &limits)
                }
                Err(error) => result(Err(&raw(error)), is_stream, &signature, &limits),
            };
            match result {
                Ok(body) => String::from_utf8(body.to_vec()).unwrap(),
                Err(error) => error.code.status().to_string(),
            }
        };
        let list = Shape::List(Box::new(Shape::U32));
        assert_eq!(read(&list, Ok(&["1", "2"]), true), "[1,2]");
        assert_eq!(read(&list, Ok(&[]), true), "[]");
        assert_eq!(read(&Shape::U32, Ok(&[]), false), "502");
        assert_eq!(
            read(&Shape::Option(Box::new(Shape::U32)), Ok(&[]), false),
            "null"
        );
        assert_eq!(read(&Shape::U32, Ok(&["\"x\""]), false), "502");
        assert_eq!(read(&Shape::U32, Err("\"no\""), false), "502");
        let declined = of(Some(Shape::U32), Some(variant));
        assert_eq!(read(&declined, Ok(&["5"]), false), r#"{"ok":5}"#);
        assert_eq!(
            read(
                &declined,
                Err(r#"{"tag":"sold-out","val":3,"message":"x"}"#),
                false
            ),
            r#"{"err":{"tag":"sold-out","val":3}}"#
        );
        assert_eq!(
            read(
                &declined,
                Err(r#"{"status":"error","message":"late"}"#),
                false
            ),
            r#"{"err":{"tag":"unavailable","val":"late"}}"#
        );
        let text = of(None, Some(Shape::String));
        assert_eq!(
            read(&text, Err(r#"{"message":"late"}"#), false),
            r#"{"err":"late"}"#
        );
        assert_eq!(read(&text, Err("\"late\""), false), r#"{"err":"late"}"#);
        assert_eq!(read(&of(None, None), Err("1"), false), "502");
    }
}
