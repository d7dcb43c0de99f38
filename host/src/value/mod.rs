//! Values of the component model, and their way into and out of a guest's memory.
//!
//! A [`Value`] has no names: a record's fields, the cases of variants and enums, and flags are
//! numbered in the order of declaration, and the [`Shape`](crate::shape::Shape) that made it knows
//! the rest. `abi` implements wasmtime's lowering and lifting for it, so that a call costs neither
//! wasmtime's own dynamic `Val`, which has a name for each field and 40 bytes for each byte of a
//! `list<u8>`, nor types that are known when the host is compiled.

mod abi;
#[cfg(test)]
pub(crate) mod arbitrary;
mod lift;
mod lower;
pub(crate) mod streams;
#[cfg(test)]
mod tests;

pub(crate) use abi::{Imported, ResultPath, call, define};
pub use streams::Stream;

/// A value of the component model.
///
/// # Equality
///
/// By content: every NaN equals every other, and `0.0` does not equal `-0.0`. A stream equals itself.
///
/// # Cost
///
/// 32 bytes, besides what is in it. A `list<u8>` takes a byte for each of its own.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "the plain cases are WIT's own names")]
pub enum Value {
    Bool(bool),
    U8(u8),
    U16(u16),
    U32(u32),
    U64(u64),
    S8(i8),
    S16(i16),
    S32(i32),
    S64(i64),
    F32(f32),
    F64(f64),
    Char(char),
    String(String),
    /// A `list<u8>`.
    Bytes(Vec<u8>),
    /// Any other list.
    List(Vec<Value>),
    /// `list<T, N>`.
    FixedList(Vec<Value>),
    Tuple(Vec<Value>),
    /// The fields in the order of declaration.
    Record(Vec<Value>),
    /// The number of the case, and its payload if it has one.
    Variant(u32, Option<Box<Value>>),
    /// The number of the case.
    Enum(u32),
    Option(Option<Box<Value>>),
    /// Each side with its payload if it has one.
    Result(Result<Option<Box<Value>>, Option<Box<Value>>>),
    /// A bit for each flag, the first one lowest.
    Flags(u32),
    /// A stream or a future that is read apart. All that one gives is a list of its items, or the value.
    Stream(Stream),
}

/// Upper bound of the flags of one type, which is the component model's own.
pub const MAX_FLAGS: usize = u32::BITS as usize;

// What is counted and documented in values is counted in these.
const _: () = assert!(size_of::<Value>() == 32);

impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Bool(a), Self::Bool(b)) => a == b,
            (Self::U8(a), Self::U8(b)) => a == b,
            (Self::U16(a), Self::U16(b)) => a == b,
            (Self::U32(a), Self::U32(b)) => a == b,
            (Self::U64(a), Self::U64(b)) => a == b,
            (Self::S8(a), Self::S8(b)) => a == b,
            (Self::S16(a), Self::S16(b)) => a == b,
            (Self::S32(a), Self::S32(b)) => a == b,
            (Self::S64(a), Self::S64(b)) => a == b,
            (Self::F32(a), Self::F32(b)) => {
                a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan())
            }
            (Self::F64(a), Self::F64(b)) => {
                a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan())
            }
            (Self::Char(a), Self::Char(b)) => a == b,
            (Self::String(a), Self::String(b)) => a == b,
            (Self::Bytes(a), Self::Bytes(b)) => a == b,
            (Self::List(a), Self::List(b))
            | (Self::FixedList(a), Self::FixedList(b))
            | (Self::Tuple(a), Self::Tuple(b))
            | (Self::Record(a), Self::Record(b)) => a == b,
            (Self::Variant(a, x), Self::Variant(b, y)) => a == b && x == y,
            (Self::Enum(a), Self::Enum(b)) | (Self::Flags(a), Self::Flags(b)) => a == b,
            (Self::Option(a), Self::Option(b)) => a == b,
            (Self::Result(a), Self::Result(b)) => a == b,
            (Self::Stream(a), Self::Stream(b)) => a.is(b),
            _ => false,
        }
    }
}

impl Value {
    /// The kind of value, for an error.
    pub(crate) fn kind(&self) -> String {
        match self {
            Self::Bool(_) => "a bool".into(),
            Self::U8(_) => "a u8".into(),
            Self::U16(_) => "a u16".into(),
            Self::U32(_) => "a u32".into(),
            Self::U64(_) => "a u64".into(),
            Self::S8(_) => "an s8".into(),
            Self::S16(_) => "an s16".into(),
            Self::S32(_) => "an s32".into(),
            Self::S64(_) => "an s64".into(),
            Self::F32(_) => "an f32".into(),
            Self::F64(_) => "an f64".into(),
            Self::Char(_) => "a char".into(),
            Self::String(_) => "a string".into(),
            Self::Bytes(_) => "a list<u8>".into(),
            Self::List(_) => "a list".into(),
            Self::FixedList(items) => format!("a list of the fixed length {}", items.len()),
            Self::Tuple(items) => format!("a tuple of {}", items.len()),
            Self::Record(fields) => format!("a record of {}", fields.len()),
            Self::Variant(case, None) => format!("case {case} of a variant"),
            Self::Variant(case, Some(_)) => format!("case {case} of a variant with a payload"),
            Self::Enum(case) => format!("case {case} of an enum"),
            Self::Option(_) => "an option".into(),
            Self::Result(_) => "a result".into(),
            Self::Flags(bits) => format!("the flags {bits:#b}"),
            Self::Stream(_) => "a stream or a future".into(),
        }
    }
}
