//! Packets as bytes.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;

use super::Pattern;

/// The keys of a response; an object with others is a bare value.
const KEYS: [&str; 5] = ["response", "err", "isDisposed", "id", "status"];

/// A request that a client of Nest sent.
pub(crate) struct RequestPacket<'a> {
    /// With an id, `null` too, it is a request; without one an event.
    pub(crate) id: Option<&'a RawValue>,
    pub(crate) data: Option<&'a RawValue>,
}

/// A response that a service of Nest sent.
#[derive(Debug)]
pub(crate) enum Packet<'a> {
    /// It is of another request.
    Other,
    /// A value, if it has one, and whether it is the last.
    Value(Option<&'a RawValue>, bool),
    /// An error, which is the last.
    Error(&'a RawValue),
}

type Object<'a> = BTreeMap<String, &'a RawValue>;

impl<'a> RequestPacket<'a> {
    /// Reads a packet. A body without `data` and `pattern` is data, as Nest has it; of an empty one there is none.
    ///
    /// # Errors
    ///
    /// It is no JSON.
    pub(crate) fn read(body: &'a [u8]) -> Result<Self, serde_json::Error> {
        if body.is_empty() {
            return Ok(Self {
                id: None,
                data: None,
            });
        }
        let whole: &RawValue = serde_json::from_slice(body)?;
        let object = object(whole).unwrap_or_default();
        let id = object.get("id").copied();
        let is_packet = object.contains_key("data") || object.contains_key("pattern");
        let data = if is_packet {
            object.get("data").copied()
        } else if id.is_some() && object.len() == 1 {
            None
        } else {
            Some(whole)
        };
        Ok(Self { id, data })
    }
}

/// Bytes that an id may have: it is in every answer, so it has to leave room there. Nest's own have 21.
const MAX_ID: usize = 1_024;

/// The id of a request, for an answer that needs nothing else of it. A request whose id is longer than any
/// client's is answered as if it had none.
pub(crate) fn id_of(body: &[u8]) -> Option<Box<RawValue>> {
    let packet = RequestPacket::read(body).ok()?;
    let id = packet.id.filter(|id| id.get().len() <= MAX_ID);
    id.map(RawValue::to_owned)
}

/// A request to a service of Nest, or an event for it if it has no id.
pub(crate) fn request(pattern: &Pattern, data: &RawValue, id: Option<&str>) -> Bytes {
    #[derive(Serialize)]
    struct Written<'a> {
        pattern: &'a Pattern,
        data: &'a RawValue,
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<&'a str>,
    }
    let written = Written { pattern, data, id };
    // Texts, numbers and JSON can always be written.
    serde_json::to_vec(&written).unwrap_or_default().into()
}

impl<'a> Packet<'a> {
    /// Reads a response to the request of this id.
    ///
    /// # Errors
    ///
    /// It is empty, or no JSON.
    pub(crate) fn read(body: &'a [u8], id: &str) -> Result<Self, serde_json::Error> {
        let whole: &RawValue = serde_json::from_slice(body)?;
        let Some(object) = object(whole) else {
            return Ok(Self::Value(Some(whole), true));
        };
        let is_packet = !object.is_empty() && object.keys().all(|key| KEYS.contains(&&**key));
        if !is_packet {
            return Ok(Self::Value(Some(whole), true));
        }
        let own = |given: &RawValue| serde_json::from_str::<&str>(given.get()).ok() == Some(id);
        if object.get("id").is_some_and(|given| !own(given)) {
            return Ok(Self::Other);
        }
        if let Some(error) = object.get("err").filter(|error| is_truthy(error)) {
            return Ok(Self::Error(error));
        }
        let is_last = object.get("isDisposed").is_some_and(|last| is_truthy(last));
        Ok(Self::Value(object.get("response").copied(), is_last))
    }
}

fn object(value: &RawValue) -> Option<Object<'_>> {
    if !value.get().trim_start().starts_with('{') {
        return None;
    }
    serde_json::from_str(value.get()).ok()
}

/// As JavaScript has it.
fn is_truthy(value: &RawValue) -> bool {
    let text = value.get();
    let is_zero = || text.parse::<f64>().is_ok_and(|number| number == 0.0);
    !(matches!(text, "null" | "false" | "\"\"") || is_zero())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_an_id_and_what_is_no_packet_is_data() {
        for (body, id, data) in [
            (
                r#"{"pattern":"a","data":[1, 2],"id":"x"}"#,
                Some("\"x\""),
                Some("[1, 2]"),
            ),
            (r#"{"pattern":"a","data":1}"#, None, Some("1")),
            (r#"{"pattern":"a","id":null}"#, Some("null"), None),
            (r#"{"a":1}"#, None, Some(r#"{"a":1}"#)),
            ("7", None, Some("7")),
            ("", None, None),
        ] {
            let packet = RequestPacket::read(body.as_bytes()).unwrap();
            let text = |value: Option<&RawValue>| value.map(|value| value.get().to_owned());
            assert_eq!(text(packet.id).as_deref(), id, "{body}");
            assert_eq!(text(packet.data).as_deref(), data, "{body}");
        }
        assert!(RequestPacket::read(b"{x").is_err());
    }

    #[test]
    fn responses_are_told_apart_as_a_client_of_nest_does() {
        let told = |body: &str| match Packet::read(body.as_bytes(), "x").unwrap() {
            Packet::Other => "other".to_owned(),
            Packet::Error(error) => format!("error {}", error.get()),
            Packet::Value(value, last) => {
                let value = value.map_or("nothing", RawValue::get);
                format!("{value} {last}")
            }
        };
        for (body, expected) in [
            (r#"{"response":5,"isDisposed":true,"id":"x"}"#, "5 true"),
            (r#"{"response":5,"id":"x"}"#, "5 false"),
            (r#"{"isDisposed":true,"id":"x"}"#, "nothing true"),
            (r#"{"response":5,"id":"y"}"#, "other"),
            (r#"{"response":5,"id":7}"#, "other"),
            (r#"{"err":"no","isDisposed":true,"id":"x"}"#, "error \"no\""),
            (r#"{"err":0,"response":1,"id":"x"}"#, "1 false"),
            (
                r#"{"id":"x","status":"error","err":"There is none"}"#,
                "error \"There is none\"",
            ),
            // No packet: another key beside.
            (
                r#"{"response":5,"more":1}"#,
                r#"{"response":5,"more":1} true"#,
            ),
            ("[1]", "[1] true"),
            ("{}", "{} true"),
        ] {
            assert_eq!(told(body), expected, "{body}");
        }
        for none in ["", "{", "x"] {
            assert!(Packet::read(none.as_bytes(), "x").is_err());
        }
    }
}
