//! Publications: the subject, stream and partition of each event.

use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{EventWire, KeyPath};
use crate::call::{Call, CallError};
use crate::interface::FunctionId;
use crate::json;
use crate::manifest::EventSpec;
use crate::shape::{Shape, Signature};
use crate::subject;
use crate::value::Value;

/// Number of partitions of an ordered wire. The events of one partition are handled one after the
/// other, so this is also the upper bound of the events that a subscriber handles at a time.
///
/// Fixed: a host with another number would break the order.
pub const PARTITIONS: u32 = 16;

/// The publication of the events of one function.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Publication {
    subject: String,
    #[serde(
        default,
        serialize_with = "write_stream",
        deserialize_with = "read_stream"
    )]
    stream: Option<Arc<str>>,
    signature: Signature,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<KeyPath>,
}

fn write_stream<S: Serializer>(stream: &Option<Arc<str>>, to: S) -> Result<S::Ok, S::Error> {
    stream.as_deref().serialize(to)
}

fn read_stream<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Arc<str>>, D::Error> {
    let stream = Option::<String>::deserialize(from)?;
    Ok(stream.map(Arc::from))
}

/// An outgoing event.
#[derive(Clone, Debug)]
pub struct Event {
    /// The subject.
    pub subject: String,
    /// The stream that stores it; without one it reaches the subscribers of that moment.
    pub stream: Option<Arc<str>>,
    /// The arguments, caller, hops and trace. The deadline is that of publishing.
    pub call: Call,
}

impl Publication {
    /// The publication of this function's events, in the app of this name.
    #[must_use]
    pub fn new(app: &str, wire: &EventWire, function: &str) -> Option<Self> {
        let planned = wire.functions.get(function)?;
        let durable = wire.spec.durable.is_some();
        let stream = durable.then(|| subject::stream(app, &wire.interface).into());
        Some(Self {
            subject: subject::of_function(app, &wire.interface.function(function)),
            stream,
            signature: planned.signature.clone(),
            key: planned.key.clone(),
        })
    }

    /// The publication of a function of this type, of a wire of events.
    pub(crate) fn of(
        app: &str,
        wire: &EventSpec,
        function: &FunctionId,
        signature: &Signature,
    ) -> Self {
        let stream = wire.durable.is_some();
        let order_by = wire.durable.as_ref().and_then(|d| d.order_by.as_ref());
        // A path that leads to no key is reported with the wire.
        let key = order_by.and_then(|path| KeyPath::resolve(&function.name, signature, path).ok());
        Self {
            subject: subject::of_function(app, function),
            stream: stream.then(|| subject::stream(app, &function.interface).into()),
            signature: signature.clone(),
            key,
        }
    }

    /// A publication to a stream.
    pub(crate) fn stored(
        subject: String,
        stream: &str,
        signature: Signature,
        key: Option<KeyPath>,
    ) -> Self {
        Self {
            subject,
            stream: Some(stream.into()),
            signature,
            key,
        }
    }

    /// Whether a key orders its events.
    #[cfg(test)]
    pub(crate) fn is_ordered(&self) -> bool {
        self.key.is_some()
    }

    /// The subject of its events, without a partition.
    #[must_use]
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// The stream that stores its events.
    #[must_use]
    pub fn stream(&self) -> Option<&str> {
        self.stream.as_deref()
    }

    /// The type of its events.
    #[must_use]
    pub fn signature(&self) -> &Signature {
        &self.signature
    }

    /// An event with these arguments, of which the body of `call` is the JSON.
    #[must_use]
    pub fn event(&self, arguments: &[Value], call: Call) -> Event {
        Event {
            subject: self.subject_of(arguments),
            stream: self.stream.clone(),
            call,
        }
    }

    /// The subject of an event with these arguments, its partition included.
    pub(crate) fn subject_of(&self, arguments: &[Value]) -> String {
        match self.key.as_ref().and_then(|key| key.text(arguments)) {
            Some(key) => subject::of_partition(&self.subject, partition(&key)),
            None => self.subject.clone(),
        }
    }

    /// The event of a call from outside, whose body is checked against the type.
    ///
    /// # Errors
    ///
    /// The body does not decode or exceeds a limit.
    pub fn check(&self, call: Call, limits: &json::Limits) -> Result<Event, CallError> {
        let arguments =
            json::decode_arguments(&call.body, &self.signature, limits).map_err(|error| {
                let why = format!("arguments: {error}");
                if error.is_too_large() {
                    CallError::request_too_large(why)
                } else {
                    CallError::bad_arguments(why)
                }
            })?;
        Ok(self.event(&arguments, call))
    }

    /// The function's result after publishing.
    pub(crate) fn done(&self) -> Option<Value> {
        let result = self.signature.result.as_ref()?;
        debug_assert!(matches!(result, Shape::Result { ok: None, .. }));
        Some(Value::Result(Ok(None)))
    }
}

/// The partition of a key: FNV-1a of its text, which any client can compute.
fn partition(key: &str) -> u32 {
    let hash = key.bytes().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    hash % PARTITIONS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_are_those_of_fnv_1a() {
        // The hashes are the published test vectors of FNV-1a with 32 bits.
        for (text, hash) in [
            ("", 0x811c_9dc5_u32),
            ("a", 0xe40c_292c),
            ("foobar", 0xbf9c_f968),
        ] {
            assert_eq!(partition(text), hash % PARTITIONS);
        }
    }
}
