//! Values to messages of Protocol Buffers and back, driven by the tree of their types.
//!
//! One pass over the bytes makes the value, one over the value makes the bytes. Everything that the types do
//! not allow is an error with the field's path: numbers out of range, a message or a case that is missing,
//! other wire types, bytes that end too soon. Fields that a type does not have are skipped.

mod decode;
mod encode;

use prost::encoding::WireType;

use super::types::{Kind, Message};
use crate::value::Value;
use decode::Decoder;
use encode::Encoder;

/// Upper bound of the nesting of messages, as of arrays and objects in JSON.
const DEPTH: u32 = crate::json::DEFAULT_DEPTH;

/// Upper bound of the values of one message, as of a JSON body.
const NODES: usize = crate::json::DEFAULT_NODES;

/// A message does not have the form of its type, or has too much in it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: expected {expected}, found {found}")]
pub struct CodecError {
    /// The field, such as `lines[2].sku`.
    pub path: String,
    /// The expectation of the type, or a limit.
    pub expected: String,
    /// What was there.
    pub found: String,
    /// It has more bytes or values than a limit allows.
    pub too_large: bool,
}

/// Boxed, so that a result is no larger than a value.
type Fault = Box<CodecError>;

#[cold]
fn fault(expected: impl Into<String>, found: impl Into<String>) -> Fault {
    Box::new(CodecError {
        path: String::new(),
        expected: expected.into(),
        found: found.into(),
        too_large: false,
    })
}

#[cold]
fn too_large(expected: String, found: &str) -> Fault {
    let mut fault = fault(expected, found);
    fault.too_large = true;
    fault
}

impl CodecError {
    fn at(mut self: Box<Self>, name: &str) -> Box<Self> {
        let dot = if self.path.is_empty() || self.path.starts_with('[') {
            ""
        } else {
            "."
        };
        self.path.insert_str(0, dot);
        self.path.insert_str(0, name);
        self
    }

    fn at_index(mut self: Box<Self>, index: usize) -> Box<Self> {
        let dot = if self.path.is_empty() { "" } else { "." };
        self.path.insert_str(0, dot);
        self.path.insert_str(0, &format!("[{index}]"));
        self
    }

    #[expect(clippy::boxed_local, reason = "faults travel in a box")]
    fn at_root(self: Box<Self>) -> Self {
        let mut error = *self;
        if error.path.is_empty() {
            error.path.push_str("message");
        }
        error
    }
}

/// Reads a message of at most `limit` bytes.
///
/// # Errors
///
/// The bytes are no such message.
pub(super) fn decode(bytes: &[u8], message: &Message, limit: usize) -> Result<Value, CodecError> {
    if bytes.len() > limit {
        let fault = too_large(format!("at most {limit} bytes (the size limit)"), "more");
        return Err(CodecError::at_root(fault));
    }
    let mut decoder = Decoder { left: NODES };
    let value = decoder.message(bytes, message, DEPTH);
    value.map_err(CodecError::at_root)
}

/// Writes a message of at most `limit` bytes.
///
/// # Errors
///
/// The value is not of the message's type, or makes more bytes.
pub(super) fn encode(
    value: &Value,
    message: &Message,
    limit: usize,
) -> Result<Vec<u8>, CodecError> {
    let mut out = Vec::new();
    let encoder = Encoder { limit };
    match encoder.message(value, message, &mut out) {
        Ok(()) => Ok(out),
        Err(fault) => Err(fault.at_root()),
    }
}

impl Kind {
    /// Whether items are written without a key for each.
    fn is_packed(&self) -> bool {
        !matches!(
            self,
            Self::Char | Self::String | Self::Bytes | Self::Message(_)
        )
    }

    fn wire_type(&self) -> WireType {
        match self {
            Self::F32 => WireType::ThirtyTwoBit,
            Self::F64 => WireType::SixtyFourBit,
            Self::Char | Self::String | Self::Bytes | Self::Message(_) => WireType::LengthDelimited,
            _ => WireType::Varint,
        }
    }

    fn name(&self) -> String {
        let name = match self {
            Self::Bool => "bool",
            Self::U8 => "u8 (0 to 255)",
            Self::U16 => "u16 (0 to 65535)",
            Self::U32 => "u32 (0 to 4294967295)",
            Self::U64 => "u64",
            Self::S8 => "s8 (-128 to 127)",
            Self::S16 => "s16 (-32768 to 32767)",
            Self::S32 => "s32 (-2147483648 to 2147483647)",
            Self::S64 => "s64",
            Self::F32 => "f32",
            Self::F64 => "f64",
            Self::Char => "a string of one character",
            Self::String => "a string",
            Self::Bytes => "bytes",
            Self::Enum(one) => return format!("a value of {}", one.path),
            Self::Message(message) => return format!("a {}", message.path),
        };
        name.to_owned()
    }
}

fn wire_type_name(wire_type: WireType) -> &'static str {
    match wire_type {
        WireType::Varint => "a varint",
        WireType::SixtyFourBit => "eight bytes",
        WireType::LengthDelimited => "a length and bytes",
        WireType::StartGroup | WireType::EndGroup => "a group",
        WireType::ThirtyTwoBit => "four bytes",
    }
}
