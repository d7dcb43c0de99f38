//! From JSON to values.

use std::str::FromStr;

use wasmtime::component::Val;

use super::error::{Fault, expected, keys, mismatch, one_of, quoted, too_many};
use super::scalar::{base64, integral, is_snake_case, one_char, special};
use super::scan::Scanner;
use super::{Limits, UnknownKeys};
use crate::shape::{Case, Field, Shape};
use crate::text::shown;

/// The content of a record's slot until its key was read. No shape makes a map, so it differs from
/// every value, and an empty one takes no memory.
const UNSET: Val = Val::Map(Vec::new());

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

    pub(super) fn arguments(&mut self, params: &[Field]) -> Result<Vec<Val>, Fault> {
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
        let mut args = vec![UNSET; params.len()];
        if self.scan.peek() == Some(b'{') {
            self.fields(params, &mut args, |arg| arg)?;
        }
        self.fill(params, &mut args, |arg| arg)?;
        Ok(args)
    }

    pub(super) fn value(&mut self, shape: &Shape) -> Result<Val, Fault> {
        self.node()?;
        Ok(match shape {
            Shape::Bool => Val::Bool(self.bool()?),
            Shape::U8 => Val::U8(self.integer(shape)?),
            Shape::U16 => Val::U16(self.integer(shape)?),
            Shape::U32 => Val::U32(self.integer(shape)?),
            Shape::U64 => Val::U64(self.wide(shape)?),
            Shape::S8 => Val::S8(self.integer(shape)?),
            Shape::S16 => Val::S16(self.integer(shape)?),
            Shape::S32 => Val::S32(self.integer(shape)?),
            Shape::S64 => Val::S64(self.wide(shape)?),
            Shape::F32 => Val::Float32(self.float(shape, f32::is_finite)?),
            Shape::F64 => Val::Float64(self.float(shape, f64::is_finite)?),
            Shape::Char => {
                let text = self.scan.string(|| expected(shape))?;
                Val::Char(one_char(&text).ok_or_else(|| unlike(&text, shape))?)
            }
            Shape::String => Val::String(self.scan.string(|| expected(shape))?.into_owned()),
            Shape::Bytes => Val::List(self.bytes(shape)?),
            Shape::List(item) => Val::List(self.list(item, shape)?),
            Shape::FixedList(item, len) => {
                let items = std::iter::repeat_n(&**item, *len as usize);
                Val::FixedLengthList(self.exactly(items, || expected(shape))?)
            }
            Shape::Tuple(items) => Val::Tuple(self.exactly(items.iter(), || expected(shape))?),
            Shape::Record(fields) => Val::Record(self.record(fields, shape)?),
            Shape::Variant(cases) => self.variant(cases, shape)?,
            Shape::Enum(names) => {
                let text = self.scan.string(|| expected(shape))?;
                Val::Enum(
                    position(names, &text)
                        .ok_or_else(|| unlike(&text, shape))?
                        .1
                        .into(),
                )
            }
            Shape::Option(some) => Val::Option(self.option(some, shape)?),
            Shape::Result { ok, err } => self.result(ok.as_deref(), err.as_deref(), shape)?,
            Shape::Flags(names) => Val::Flags(self.flags(names, shape)?),
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

    fn bytes(&mut self, shape: &Shape) -> Result<Vec<Val>, Fault> {
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
            bytes.push(Val::U8(byte));
        }
        Ok(bytes)
    }

    // Arrays.

    fn list(&mut self, item: &Shape, shape: &Shape) -> Result<Vec<Val>, Fault> {
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
    ) -> Result<Vec<Val>, Fault> {
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

    fn flags(&mut self, names: &[Box<str>], shape: &Shape) -> Result<Vec<String>, Fault> {
        let mut set: Vec<Option<bool>> = vec![None; names.len()];
        if self.scan.peek() == Some(b'{') {
            self.scan.open(b'{', || expected(shape))?;
            let mut first = true;
            while let Some(key) = self.scan.next_key(first)? {
                first = false;
                let (name, slot) = flag(names, &mut set, &key, shape)?;
                *slot = Some(self.bool().map_err(|fault| fault.at_key(name))?);
            }
        } else {
            self.scan.open(b'[', || expected(shape))?;
            let mut count = 0;
            while self.scan.next_item(count == 0)? {
                let name = self
                    .scan
                    .string(|| expected(shape))
                    .map_err(|fault| fault.at_index(count))?;
                let found = flag(names, &mut set, &name, shape);
                *found.map_err(|fault| fault.at_index(count))?.1 = Some(true);
                count += 1;
            }
        }
        let on = names.iter().zip(set).filter(|(_, on)| *on == Some(true));
        Ok(on.map(|(name, _)| String::from(&**name)).collect())
    }

    // Objects.

    fn record(&mut self, fields: &[Field], shape: &Shape) -> Result<Vec<(String, Val)>, Fault> {
        if self.scan.peek() != Some(b'{') {
            return Err(mismatch(expected(shape), self.scan.found()));
        }
        let mut record: Vec<_> = fields
            .iter()
            .map(|f| (String::from(&*f.name), UNSET))
            .collect();
        self.fields(fields, &mut record, |(_, val)| val)?;
        self.fill(fields, &mut record, |(_, val)| val)?;
        Ok(record)
    }

    /// Reads an object into the fields' slots.
    fn fields<T>(
        &mut self,
        fields: &[Field],
        slots: &mut [T],
        val: fn(&mut T) -> &mut Val,
    ) -> Result<(), Fault> {
        self.scan.open(b'{', || "an object".into())?;
        let (mut first, mut next) = (true, 0);
        while let Some(key) = self.scan.next_key(first)? {
            first = false;
            let found = find(fields, &key, next);
            let slot = found.and_then(|(index, _)| slots.get_mut(index)).map(val);
            let (Some((index, field)), Some(slot)) = (found, slot) else {
                if self.limits.unknown_keys == UnknownKeys::Ignore {
                    self.scan.ignore().map_err(|fault| fault.at_key(&key))?;
                    continue;
                }
                return Err(mismatch(keys(fields), quoted(&key)));
            };
            if !matches!(slot, Val::Map(_)) {
                let fault = mismatch("one value", format!("another as {}", quoted(&key)));
                return Err(fault.at_key(&field.key));
            }
            *slot = self
                .value(&field.shape)
                .map_err(|fault| fault.at_key(&field.key))?;
            next = index + 1;
        }
        Ok(())
    }

    /// Sets every option without a key to none.
    fn fill<T>(
        &mut self,
        fields: &[Field],
        slots: &mut [T],
        val: fn(&mut T) -> &mut Val,
    ) -> Result<(), Fault> {
        for (field, slot) in fields.iter().zip(slots.iter_mut().map(val)) {
            if !matches!(slot, Val::Map(_)) {
                continue;
            }
            self.node()?;
            let Shape::Option(_) = field.shape else {
                return Err(mismatch(expected(&field.shape), "nothing").at_key(&field.key));
            };
            *slot = Val::Option(None);
        }
        Ok(())
    }

    fn variant(&mut self, cases: &[Case], shape: &Shape) -> Result<Val, Fault> {
        if self.scan.peek() == Some(b'"') {
            let text = self.scan.string(|| expected(shape))?;
            return bare_case(&text, cases, shape);
        }
        let (tag, payload) = self.tagged(shape, |tag| {
            let case = cases.iter().find(|case| *case.name == *tag)?;
            Some((&*case.name, case.payload.as_ref()))
        })?;
        Ok(Val::Variant(tag.into(), payload.map(Box::new)))
    }

    fn option(&mut self, some: &Shape, shape: &Shape) -> Result<Option<Box<Val>>, Fault> {
        self.scan.peek();
        if self.scan.literal("null") {
            return Ok(None);
        }
        if !matches!(some, Shape::Option(_)) {
            return Ok(Some(Box::new(self.value(some)?)));
        }
        let (_, payload) = self.tagged(shape, |tag| match tag {
            "none" => Some(("none", None)),
            "some" => Some(("some", Some(some))),
            _ => None,
        })?;
        Ok(payload.map(Box::new))
    }

    /// An object of `tag` and, when the case has a payload, `val`, in either order.
    fn tagged<'s>(
        &mut self,
        shape: &Shape,
        case: impl Fn(&str) -> Option<(&'s str, Option<&'s Shape>)>,
    ) -> Result<(&'s str, Option<Val>), Fault> {
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
                ("val", Some((_, Some(payload)))) => {
                    val = Some(self.value(payload).map_err(|fault| fault.at_key("val"))?);
                }
                ("val", Some((name, None))) => return Err(superfluous(name)),
                ("tag", Some(_)) => return Err(mismatch("one tag", "another").at_key("tag")),
                _ => return Err(mismatch("the keys \"tag\" and \"val\"", quoted(&key))),
            }
        }
        let (name, payload) = tag.ok_or_else(|| mismatch(tags(shape), "nothing").at_key("tag"))?;
        match (payload, val, skipped) {
            (None, None, None) => Ok((name, None)),
            (None, ..) => Err(superfluous(name)),
            (Some(_), Some(val), _) => Ok((name, Some(val))),
            (Some(payload), None, None) => {
                Err(mismatch(expected(payload), "nothing").at_key("val"))
            }
            (Some(payload), None, Some(skipped)) => {
                let val = self
                    .again(skipped, payload)
                    .map_err(|fault| fault.at_key("val"))?;
                Ok((name, Some(val)))
            }
        }
    }

    fn result(
        &mut self,
        ok: Option<&Shape>,
        err: Option<&Shape>,
        shape: &Shape,
    ) -> Result<Val, Fault> {
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
        Ok(Val::Result(if key == "ok" { Ok(val) } else { Err(val) }))
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
    fn again(&mut self, skipped: Scanner<'a>, shape: &Shape) -> Result<Val, Fault> {
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
pub(super) fn from_text(text: &str, shape: &Shape, limits: &Limits) -> Result<Val, Fault> {
    let mut decoder = Decoder::new(text.as_bytes(), limits)?;
    match shape {
        Shape::String => return Ok(Val::String(text.into())),
        Shape::Char => {
            return one_char(text)
                .map(Val::Char)
                .ok_or_else(|| unlike(text, shape));
        }
        Shape::Enum(names) => {
            let (_, name) = position(names, text).ok_or_else(|| unlike(text, shape))?;
            return Ok(Val::Enum(name.into()));
        }
        Shape::Option(some) => {
            return Ok(Val::Option(Some(Box::new(from_text(text, some, limits)?))));
        }
        Shape::Bytes if !text.starts_with(['"', '[']) => {
            return base64(text)
                .map(Val::List)
                .ok_or_else(|| unlike(text, shape));
        }
        Shape::Variant(cases) if !text.starts_with(['"', '{']) => {
            return bare_case(text, cases, shape);
        }
        Shape::F32 => {
            if let Some(value) = special(text) {
                return Ok(Val::Float32(value));
            }
        }
        Shape::F64 => {
            if let Some(value) = special(text) {
                return Ok(Val::Float64(value.into()));
            }
        }
        _ => {}
    }
    let value = decoder.value(shape)?;
    decoder.end()?;
    Ok(value)
}

fn position<'s>(names: &'s [Box<str>], name: &str) -> Option<(usize, &'s str)> {
    names
        .iter()
        .map(|name| &**name)
        .enumerate()
        .find(|(_, known)| *known == name)
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

/// The slot of a flag that was not named before.
fn flag<'s, 'v>(
    names: &'s [Box<str>],
    set: &'v mut [Option<bool>],
    name: &str,
    shape: &Shape,
) -> Result<(&'s str, &'v mut Option<bool>), Fault> {
    let found = position(names, name);
    let slot = found.and_then(|(index, _)| set.get_mut(index));
    let (Some((_, name)), Some(slot)) = (found, slot) else {
        return Err(unlike(name, shape));
    };
    if slot.is_some() {
        return Err(mismatch(
            "each flag once",
            format!("{} again", quoted(name)),
        ));
    }
    Ok((name, slot))
}

fn bare_case(text: &str, cases: &[Case], shape: &Shape) -> Result<Val, Fault> {
    match cases.iter().find(|case| *case.name == *text) {
        Some(Case {
            payload: None,
            name,
        }) => Ok(Val::Variant(String::from(&**name), None)),
        Some(Case {
            payload: Some(payload),
            ..
        }) => Err(mismatch(expected(payload), "nothing").at_key("val")),
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
