//! From JSON to values.

use std::str::FromStr;

use super::error::{Fault, expected, keys, mismatch, one_of, quoted, too_many};
use super::scalar::{base64, integral, is_snake_case, one_char, special};
use super::scan::Scanner;
use super::{Limits, Streams, UnknownKeys};
use crate::shape::{Case, Field, Shape};
use crate::text::shown;
use crate::value::streams::Gives;
use crate::value::{MAX_FLAGS, Stream, Value};

/// Upper bound of the items for which memory is reserved before they are read, so that a type's
/// length alone takes none.
const MAX_RESERVED: usize = 1024;

/// The decoder of one body.
pub(super) struct Decoder<'a> {
    scan: Scanner<'a>,
    nodes: usize,
    limits: &'a Limits,
}

impl<'a> Decoder<'a> {
    pub(super) fn new(body: &'a [u8], limits: &'a Limits) -> Result<Self, Fault> {
        Ok(Self {
            scan: Scanner::new(body, limits)?,
            nodes: 0,
            limits,
        })
    }

    pub(super) fn end(&mut self) -> Result<(), Fault> {
        self.scan.end()
    }

    /// An empty body or `null`.
    pub(super) fn nothing(&mut self) -> Result<(), Fault> {
        if self.scan.peek().is_none() || self.scan.literal("null") {
            return Ok(());
        }
        Err(mismatch("nothing or null", self.scan.found()))
    }

    pub(super) fn arguments(&mut self, params: &[Field]) -> Result<Vec<Value>, Fault> {
        let wanted = || format!("an array of the {} arguments", params.len());
        match self.scan.peek() {
            Some(b'[') => return self.exactly(params.iter().map(|param| &param.shape), wanted),
            Some(b'{') | None => {}
            Some(_) if params.is_empty() && self.scan.literal("null") => {}
            Some(_) => {
                let expected = "the arguments (an object by parameter name, or an array)";
                return Err(mismatch(expected, self.scan.found()));
            }
        }
        self.record(params)
    }

    pub(super) fn value(&mut self, shape: &Shape) -> Result<Value, Fault> {
        self.node()?;
        Ok(match shape {
            Shape::Bool => Value::Bool(self.bool()?),
            Shape::U8 => Value::U8(self.integer(shape)?),
            Shape::U16 => Value::U16(self.integer(shape)?),
            Shape::U32 => Value::U32(self.integer(shape)?),
            Shape::U64 => Value::U64(self.wide(shape)?),
            Shape::S8 => Value::S8(self.integer(shape)?),
            Shape::S16 => Value::S16(self.integer(shape)?),
            Shape::S32 => Value::S32(self.integer(shape)?),
            Shape::S64 => Value::S64(self.wide(shape)?),
            Shape::F32 => Value::F32(self.float(shape, f32::is_finite)?),
            Shape::F64 => Value::F64(self.float(shape, f64::is_finite)?),
            Shape::Char => {
                let text = self.scan.string(|| expected(shape))?;
                Value::Char(one_char(&text).ok_or_else(|| unlike(&text, shape))?)
            }
            Shape::String => Value::String(self.scan.string(|| expected(shape))?.into_owned()),
            Shape::Bytes => Value::Bytes(self.bytes(shape)?),
            Shape::List(item) => Value::List(self.list(item, shape)?),
            Shape::FixedList(item, len) => {
                let items = std::iter::repeat_n(&**item, *len as usize);
                Value::FixedList(self.exactly(items, || expected(shape))?)
            }
            Shape::Tuple(items) => Value::Tuple(self.exactly(items.iter(), || expected(shape))?),
            Shape::Record(fields) => {
                if self.scan.peek() != Some(b'{') {
                    return Err(mismatch(expected(shape), self.scan.found()));
                }
                Value::Record(self.record(fields)?)
            }
            Shape::Variant(cases) => self.variant(cases, shape)?,
            Shape::Enum(names) => {
                let text = self.scan.string(|| expected(shape))?;
                enum_case(&text, names, shape)?
            }
            Shape::Option(some) => Value::Option(self.option(some, shape)?),
            Shape::Result { ok, err } => self.result(ok.as_deref(), err.as_deref(), shape)?,
            Shape::Flags(names) => Value::Flags(self.flags(names, shape)?),
            Shape::Stream(_) | Shape::Future(_) if self.limits.streams == Streams::Named => {
                let name = self.scan.string(|| "the name of a stream".to_owned())?;
                let gives = match shape {
                    Shape::Stream(item) if **item == Shape::U8 => Gives::Bytes,
                    Shape::Stream(_) => Gives::Items,
                    _ => Gives::Value,
                };
                Value::Stream(Stream::named(name.into_owned(), gives))
            }
            Shape::Stream(item) => match **item {
                Shape::U8 => Value::Bytes(self.bytes(shape)?),
                _ => Value::List(self.list(item, shape)?),
            },
            Shape::Future(value) => self.value(value)?,
        })
    }

    // Scalars.

    fn bool(&mut self) -> Result<bool, Fault> {
        if self.scan.literal("true") {
            return Ok(true);
        }
        if self.scan.literal("false") {
            return Ok(false);
        }
        Err(mismatch(expected(&Shape::Bool), self.scan.found()))
    }

    fn integer<T: TryFrom<i128>>(&mut self, shape: &Shape) -> Result<T, Fault> {
        let token = self.scan.number(|| expected(shape))?;
        integral(token)
            .and_then(|value| T::try_from(value).ok())
            .ok_or_else(|| mismatch(expected(shape), shown(token)))
    }

    /// A 64-bit integer, which may also stand in a string.
    fn wide<T: TryFrom<i128>>(&mut self, shape: &Shape) -> Result<T, Fault> {
        if self.scan.peek() != Some(b'"') {
            return self.integer(shape);
        }
        let text = self.scan.string(|| expected(shape))?;
        let digits = text.strip_prefix('-').unwrap_or(&text);
        let plain = digits.bytes().all(|b| b.is_ascii_digit())
            && (digits.len() == 1 || !digits.starts_with('0'));
        // No digits at all, or too many for an `i128`, fail to parse.
        let value = if plain {
            text.parse::<i128>().ok()
        } else {
            None
        };
        value
            .and_then(|value| T::try_from(value).ok())
            .ok_or_else(|| unlike(&text, shape))
    }

    fn float<T>(&mut self, shape: &Shape, is_finite: fn(T) -> bool) -> Result<T, Fault>
    where
        T: FromStr + From<f32> + Copy,
    {
        if self.scan.peek() == Some(b'"') {
            let text = self.scan.string(|| expected(shape))?;
            return special(&text)
                .map(T::from)
                .ok_or_else(|| unlike(&text, shape));
        }
        let token = self.scan.number(|| expected(shape))?;
        // Rounds once, at this width. What overflows becomes infinite, which JSON cannot mean.
        match token.parse() {
            Ok(value) if is_finite(value) => Ok(value),
            _ => Err(mismatch(expected(shape), shown(token))),
        }
    }

    fn bytes(&mut self, shape: &Shape) -> Result<Vec<u8>, Fault> {
        if self.scan.peek() == Some(b'"') {
            let text = self.scan.string(|| expected(shape))?;
            return base64(&text).ok_or_else(|| unlike(&text, shape));
        }
        self.scan.open(b'[', || expected(shape))?;
        let mut bytes = Vec::new();
        while self.scan.next_item(bytes.is_empty())? {
            let byte = self
                .integer(&Shape::U8)
                .map_err(|fault| fault.at_index(bytes.len()))?;
            bytes.push(byte);
        }
        Ok(bytes)
    }

    // Arrays.

    fn list(&mut self, item: &Shape, shape: &Shape) -> Result<Vec<Value>, Fault> {
        self.scan.open(b'[', || expected(shape))?;
        let mut items = Vec::new();
        while self.scan.next_item(items.is_empty())? {
            let value = self
                .value(item)
                .map_err(|fault| fault.at_index(items.len()))?;
            items.push(value);
        }
        Ok(items)
    }

    /// An array with one item for each of the shapes.
    fn exactly<'s>(
        &mut self,
        shapes: impl ExactSizeIterator<Item = &'s Shape>,
        wanted: impl Fn() -> String,
    ) -> Result<Vec<Value>, Fault> {
        self.scan.open(b'[', &wanted)?;
        let mut items = Vec::with_capacity(shapes.len().min(MAX_RESERVED));
        for shape in shapes {
            if !self.scan.next_item(items.is_empty())? {
                return Err(mismatch(wanted(), format!("an array of {}", items.len())));
            }
            let value = self
                .value(shape)
                .map_err(|fault| fault.at_index(items.len()))?;
            items.push(value);
        }
        if self.scan.next_item(items.is_empty())? {
            return Err(mismatch(wanted(), "a longer array"));
        }
        Ok(items)
    }

    fn flags(&mut self, names: &[Box<str>], shape: &Shape) -> Result<u32, Fault> {
        if names.len() > MAX_FLAGS {
            let found = format!("a type of {}", names.len());
            return Err(mismatch(format!("at most {MAX_FLAGS} flags"), found));
        }
        let (mut named, mut set) = (0, 0);
        if self.scan.peek() == Some(b'{') {
            self.scan.open(b'{', || expected(shape))?;
            let mut first = true;
            while let Some(key) = self.scan.next_key(first)? {
                first = false;
                let (name, bit) = flag(names, &mut named, &key, shape)?;
                if self.bool().map_err(|fault| fault.at_key(name))? {
                    set |= bit;
                }
            }
        } else {
            self.scan.open(b'[', || expected(shape))?;
            let mut count = 0;
            while self.scan.next_item(count == 0)? {
                let name = self
                    .scan
                    .string(|| expected(shape))
                    .map_err(|fault| fault.at_index(count))?;
                let found = flag(names, &mut named, &name, shape);
                set |= found.map_err(|fault| fault.at_index(count))?.1;
                count += 1;
            }
        }
        Ok(set)
    }

    // Objects.

    /// The fields of an object in the order of declaration; of nothing at all, if there is none.
    fn record(&mut self, fields: &[Field]) -> Result<Vec<Value>, Fault> {
        let mut slots = vec![None; fields.len()];
        if self.scan.peek() == Some(b'{') {
            self.fields(fields, &mut slots)?;
        }
        // Slots first: their memory becomes that of the values.
        let slots = slots.into_iter().zip(fields);
        slots
            .map(|(slot, field)| match slot {
                Some(value) => Ok(value),
                None => self.missing(field),
            })
            .collect()
    }

    /// Reads an object into the fields' slots.
    fn fields(&mut self, fields: &[Field], slots: &mut [Option<Value>]) -> Result<(), Fault> {
        self.scan.open(b'{', || "an object".into())?;
        let (mut first, mut next) = (true, 0);
        while let Some(key) = self.scan.next_key(first)? {
            first = false;
            let found = find(fields, &key, next);
            let slot = found.and_then(|(index, _)| slots.get_mut(index));
            let (Some((index, field)), Some(slot)) = (found, slot) else {
                if self.limits.unknown_keys == UnknownKeys::Ignore {
                    self.scan.ignore().map_err(|fault| fault.at_key(&key))?;
                    continue;
                }
                return Err(mismatch(keys(fields), quoted(&key)));
            };
            if slot.is_some() {
                let fault = mismatch("one value", format!("another as {}", quoted(&key)));
                return Err(fault.at_key(&field.key));
            }
            let value = self
                .value(&field.shape)
                .map_err(|fault| fault.at_key(&field.key))?;
            *slot = Some(value);
            next = index + 1;
        }
        Ok(())
    }

    /// The value of a field without a key: none for an option.
    fn missing(&mut self, field: &Field) -> Result<Value, Fault> {
        self.node()?;
        match field.shape {
            Shape::Option(_) => Ok(Value::Option(None)),
            _ => Err(mismatch(expected(&field.shape), "nothing").at_key(&field.key)),
        }
    }

    fn variant(&mut self, cases: &[Case], shape: &Shape) -> Result<Value, Fault> {
        if self.scan.peek() == Some(b'"') {
            let text = self.scan.string(|| expected(shape))?;
            return bare_case(&text, cases, shape);
        }
        let (number, payload) = self.tagged(shape, |tag| {
            let (number, case) = find_case(cases, tag)?;
            Some((number, &*case.name, case.payload.as_ref()))
        })?;
        Ok(Value::Variant(number, payload.map(Box::new)))
    }

    fn option(&mut self, some: &Shape, shape: &Shape) -> Result<Option<Box<Value>>, Fault> {
        self.scan.peek();
        if self.scan.literal("null") {
            return Ok(None);
        }
        if !matches!(some, Shape::Option(_)) {
            return Ok(Some(Box::new(self.value(some)?)));
        }
        let (_, payload) = self.tagged(shape, |tag| match tag {
            "none" => Some((0, "none", None)),
            "some" => Some((1, "some", Some(some))),
            _ => None,
        })?;
        Ok(payload.map(Box::new))
    }

    /// An object of `tag` and, when the case has a payload, `val`, in either order. `case` finds a
    /// case's number, name and payload.
    fn tagged<'s>(
        &mut self,
        shape: &Shape,
        case: impl Fn(&str) -> Option<(u32, &'s str, Option<&'s Shape>)>,
    ) -> Result<(u32, Option<Value>), Fault> {
        self.scan.open(b'{', || expected(shape))?;
        let (mut tag, mut val, mut skipped) = (None, None, None);
        let mut first = true;
        while let Some(key) = self.scan.next_key(first)? {
            first = false;
            match (&*key, tag) {
                ("tag", None) => {
                    let text = self
                        .scan
                        .string(|| tags(shape))
                        .map_err(|fault| fault.at_key("tag"))?;
                    let unknown = || mismatch(tags(shape), quoted(&text)).at_key("tag");
                    tag = Some(case(&text).ok_or_else(unknown)?);
                }
                ("val", _) if val.is_some() || skipped.is_some() => {
                    return Err(mismatch("one value", "another").at_key("val"));
                }
                ("val", None) => {
                    skipped = Some(self.scan.skip().map_err(|fault| fault.at_key("val"))?);
                }
                ("val", Some((_, _, Some(payload)))) => {
                    val = Some(self.value(payload).map_err(|fault| fault.at_key("val"))?);
                }
                ("val", Some((_, name, None))) => return Err(superfluous(name)),
                ("tag", Some(_)) => return Err(mismatch("one tag", "another").at_key("tag")),
                _ => return Err(mismatch("the keys \"tag\" and \"val\"", quoted(&key))),
            }
        }
        let (number, name, payload) =
            tag.ok_or_else(|| mismatch(tags(shape), "nothing").at_key("tag"))?;
        match (payload, val, skipped) {
            (None, None, None) => Ok((number, None)),
            (None, ..) => Err(superfluous(name)),
            (Some(_), Some(val), _) => Ok((number, Some(val))),
            (Some(payload), None, None) => {
                Err(mismatch(expected(payload), "nothing").at_key("val"))
            }
            (Some(payload), None, Some(skipped)) => {
                let val = self
                    .again(skipped, payload)
                    .map_err(|fault| fault.at_key("val"))?;
                Ok((number, Some(val)))
            }
        }
    }

    fn result(
        &mut self,
        ok: Option<&Shape>,
        err: Option<&Shape>,
        shape: &Shape,
    ) -> Result<Value, Fault> {
        self.scan.open(b'{', || expected(shape))?;
        let key = self.scan.next_key(true)?;
        let (key, payload) = match key.as_deref() {
            Some("ok") => ("ok", ok),
            Some("err") => ("err", err),
            Some(other) => {
                return Err(mismatch(
                    expected(shape),
                    format!("the key {}", quoted(other)),
                ));
            }
            None => return Err(mismatch(expected(shape), "an empty object")),
        };
        let val = match payload {
            Some(payload) => self.value(payload).map(|val| Some(Box::new(val))),
            None => self.null(),
        }
        .map_err(|fault| fault.at_key(key))?;
        if let Some(second) = self.scan.next_key(false)? {
            let found = format!("a second key {}", quoted(&second));
            return Err(mismatch(expected(shape), found));
        }
        Ok(Value::Result(if key == "ok" { Ok(val) } else { Err(val) }))
    }

    fn null<T>(&mut self) -> Result<Option<T>, Fault> {
        self.scan.peek();
        if self.scan.literal("null") {
            return Ok(None);
        }
        Err(mismatch("null (there is no payload)", self.scan.found()))
    }

    /// Reads a skipped value. Nested values that all have `val` before `tag` are skipped once a
    /// level, so the work is bounded by the depth times the bytes.
    fn again(&mut self, skipped: Scanner<'a>, shape: &Shape) -> Result<Value, Fault> {
        let after = std::mem::replace(&mut self.scan, skipped);
        let val = self.value(shape)?;
        self.scan.end()?;
        self.scan = after;
        Ok(val)
    }

    fn node(&mut self) -> Result<(), Fault> {
        self.nodes += 1;
        if self.nodes > self.limits.nodes {
            return Err(too_many(self.limits.nodes));
        }
        Ok(())
    }
}

/// A value from text without quotes; see [`value_from_text`](super::value_from_text).
pub(super) fn from_text(text: &str, shape: &Shape, limits: &Limits) -> Result<Value, Fault> {
    let mut decoder = Decoder::new(text.as_bytes(), limits)?;
    match shape {
        Shape::String => return Ok(Value::String(text.into())),
        Shape::Char => {
            return one_char(text)
                .map(Value::Char)
                .ok_or_else(|| unlike(text, shape));
        }
        Shape::Enum(names) => {
            return enum_case(text, names, shape);
        }
        Shape::Option(some) => {
            return Ok(Value::Option(Some(Box::new(from_text(
                text, some, limits,
            )?))));
        }
        Shape::Bytes if !text.starts_with(['"', '[']) => {
            return base64(text)
                .map(Value::Bytes)
                .ok_or_else(|| unlike(text, shape));
        }
        Shape::Variant(cases) if !text.starts_with(['"', '{']) => {
            return bare_case(text, cases, shape);
        }
        Shape::F32 => {
            if let Some(value) = special(text) {
                return Ok(Value::F32(value));
            }
        }
        Shape::F64 => {
            if let Some(value) = special(text) {
                return Ok(Value::F64(value.into()));
            }
        }
        _ => {}
    }
    let value = decoder.value(shape)?;
    decoder.end()?;
    Ok(value)
}

fn position(names: &[Box<str>], name: &str) -> Option<u32> {
    let index = names.iter().position(|known| **known == *name)?;
    u32::try_from(index).ok()
}

fn find_case<'c>(cases: &'c [Case], name: &str) -> Option<(u32, &'c Case)> {
    (0..).zip(cases).find(|(_, case)| *case.name == *name)
}

/// The field of a key; the next one in the order of declaration is tried first.
fn find<'f>(fields: &'f [Field], key: &str, next: usize) -> Option<(usize, &'f Field)> {
    if let Some(field) = fields.get(next)
        && *field.key == *key
    {
        return Some((next, field));
    }
    fields.iter().enumerate().find(|(_, field)| {
        *field.key == *key || *field.name == *key || is_snake_case(key, &field.name)
    })
}

/// The name and the bit of a flag, which is noted as named and must not have been before.
fn flag<'s>(
    names: &'s [Box<str>],
    named: &mut u32,
    name: &str,
    shape: &Shape,
) -> Result<(&'s str, u32), Fault> {
    let mut bits = (0..).map_while(|place| 1_u32.checked_shl(place)).zip(names);
    let Some((bit, name)) = bits.find(|(_, known)| ***known == *name) else {
        return Err(unlike(name, shape));
    };
    if *named & bit != 0 {
        return Err(mismatch(
            "each flag once",
            format!("{} again", quoted(name)),
        ));
    }
    *named |= bit;
    Ok((name, bit))
}

fn enum_case(text: &str, names: &[Box<str>], shape: &Shape) -> Result<Value, Fault> {
    let number = position(names, text).ok_or_else(|| unlike(text, shape))?;
    Ok(Value::Enum(number))
}

fn bare_case(text: &str, cases: &[Case], shape: &Shape) -> Result<Value, Fault> {
    match find_case(cases, text) {
        Some((number, Case { payload: None, .. })) => Ok(Value::Variant(number, None)),
        Some((
            _,
            Case {
                payload: Some(payload),
                ..
            },
        )) => Err(mismatch(expected(payload), "nothing").at_key("val")),
        None => Err(unlike(text, shape)),
    }
}

#[cold]
fn unlike(text: &str, shape: &Shape) -> Fault {
    mismatch(expected(shape), quoted(text))
}

#[cold]
fn superfluous(case: &str) -> Fault {
    mismatch(format!("no \"val\" with the case {case}"), "one").at_key("val")
}

/// The tags of a variant or of a nested option.
#[cold]
fn tags(shape: &Shape) -> String {
    match shape {
        Shape::Variant(cases) => one_of("tag", cases.iter().map(|case| &*case.name)),
        _ => one_of("tag", ["none", "some"].into_iter()),
    }
}
