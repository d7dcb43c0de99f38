//! Values with paths in them: the arguments of steps, and what a pipeline returns.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};
use toml::Spanned;
use toml::de::DeValue;

use crate::manifest::file::Section;
use crate::text::shown;

/// Upper bound of the nesting of a value.
const MAX_DEPTH: u32 = 32;

/// Where something was typed, as messages begin with it. It is no part of what an app means, so all of
/// them are equal, and it is empty for an app that comes from a store.
#[derive(Clone, Debug, Default)]
pub struct Place(String);

impl PartialEq for Place {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Place {}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Place {
    pub(in crate::manifest) fn new(section: &Section<'_>, at: usize) -> Self {
        Self(section.place_text(at))
    }
}

/// A value, and where it was typed.
#[derive(Clone, Debug, PartialEq)]
pub struct Template {
    /// Its place.
    pub place: Place,
    /// What it is.
    pub kind: TemplateKind,
}

/// A value, whose texts may be paths.
#[derive(Clone, Debug, PartialEq)]
pub enum TemplateKind {
    /// What a path leads to.
    Path(ValuePath),
    /// A text.
    Text(String),
    /// An integer.
    Integer(i64),
    /// A number with a fraction.
    Float(f64),
    /// A boolean.
    Boolean(bool),
    /// One after the other.
    List(Vec<Template>),
    /// By name.
    Table(BTreeMap<String, Template>),
}

/// A path to a value: an RFC 9535 singular query, whose root is the pipeline's arguments (`$`), the
/// result of a step (`$NAME`) or the error of a step (`$error`).
///
/// Beyond RFC 9535 a name after a dot may have a `-`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValuePath {
    /// The name of a step; `None` for the arguments.
    pub root: Option<String>,
    /// What leads from there to the value.
    pub segments: Vec<Segment>,
}

/// One segment of a [`ValuePath`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Segment {
    /// A member of an object.
    Name(String),
    /// An element of an array, from 0.
    Index(u32),
}

/// A text is no [`ValuePath`].
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "`{}` is no path; accepted: `$.orderId`, `$reserve.id`, `$['order-id']`, `$pair[0]`; a text that begins with `$` \
     is written with `$$`", shown(.0)
)]
pub struct NoPath(String);

fn is_name(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '-')
}

fn word(text: &str) -> (&str, &str) {
    let end = text.find(|c| !is_name(c)).unwrap_or(text.len());
    text.split_at(end)
}

impl FromStr for ValuePath {
    type Err = NoPath;

    fn from_str(text: &str) -> Result<Self, NoPath> {
        let read = || {
            let (root, mut rest) = word(text.strip_prefix('$')?);
            let mut segments = Vec::new();
            while !rest.is_empty() {
                let (segment, after) = segment(rest)?;
                segments.push(segment);
                rest = after;
            }
            Some(Self {
                root: (!root.is_empty()).then(|| root.to_owned()),
                segments,
            })
        };
        read().ok_or_else(|| NoPath(text.to_owned()))
    }
}

/// Reads one segment; returns it with what follows.
fn segment(text: &str) -> Option<(Segment, &str)> {
    if let Some(rest) = text.strip_prefix('.') {
        let (name, rest) = word(rest);
        return (!name.is_empty()).then(|| (Segment::Name(name.to_owned()), rest));
    }
    let inner = text.strip_prefix('[')?;
    let quote = inner.chars().next().filter(|c| matches!(c, '\'' | '"'));
    if let Some(quote) = quote {
        let (name, rest) = inner.get(1..)?.split_once(quote)?;
        let plain = !name.is_empty() && !name.contains('\\');
        let rest = rest.strip_prefix(']').filter(|_| plain)?;
        return Some((Segment::Name(name.to_owned()), rest));
    }
    let (index, rest) = inner.split_once(']')?;
    let digits = index.bytes().all(|b| b.is_ascii_digit());
    let whole = index == "0" || !index.starts_with('0');
    let index = index.parse().ok().filter(|_| digits && whole)?;
    Some((Segment::Index(index), rest))
}

impl fmt::Display for ValuePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "${}", self.root.as_deref().unwrap_or_default())?;
        for segment in &self.segments {
            match segment {
                Segment::Name(name) if name.chars().all(is_name) => write!(f, ".{name}")?,
                Segment::Name(name) if name.contains('\'') => write!(f, "[\"{name}\"]")?,
                Segment::Name(name) => write!(f, "['{name}']")?,
                Segment::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

impl Serialize for Template {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.kind {
            TemplateKind::Path(path) => serializer.collect_str(path),
            TemplateKind::Text(text) if text.starts_with('$') => {
                serializer.collect_str(&format_args!("${text}"))
            }
            TemplateKind::Text(text) => serializer.serialize_str(text),
            TemplateKind::Integer(number) => serializer.serialize_i64(*number),
            TemplateKind::Float(number) => serializer.serialize_f64(*number),
            TemplateKind::Boolean(yes) => serializer.serialize_bool(*yes),
            TemplateKind::List(items) => {
                let mut list = serializer.serialize_seq(Some(items.len()))?;
                for item in items {
                    list.serialize_element(item)?;
                }
                list.end()
            }
            TemplateKind::Table(entries) => {
                let mut map = serializer.serialize_map(Some(entries.len()))?;
                for (name, value) in entries {
                    map.serialize_entry(name, value)?;
                }
                map.end()
            }
        }
    }
}

impl Template {
    /// Reads a value of the key `key`, and reports what is none.
    pub(super) fn read(
        section: &Section<'_>,
        key: &str,
        value: &Spanned<DeValue<'_>>,
    ) -> Option<Self> {
        Self::nested(section, key, value, 0)
    }

    fn nested(
        section: &Section<'_>,
        key: &str,
        value: &Spanned<DeValue<'_>>,
        depth: u32,
    ) -> Option<Self> {
        let at = value.span().start;
        let refuse = |why: &str| {
            section.report(at, format!("`{key}`: {why}"));
            None
        };
        if depth > MAX_DEPTH {
            return refuse("the value is nested too deeply");
        }
        let kind = match value.get_ref() {
            DeValue::String(text) => match text.strip_prefix('$') {
                Some(literal) if literal.starts_with('$') => TemplateKind::Text(literal.to_owned()),
                Some(_) => match text.parse() {
                    Ok(path) => TemplateKind::Path(path),
                    Err(error) => return refuse(&format!("{error}")),
                },
                None => TemplateKind::Text(text.clone().into_owned()),
            },
            DeValue::Integer(number) => {
                match i64::from_str_radix(number.as_str(), number.radix()) {
                    Ok(number) => TemplateKind::Integer(number),
                    Err(_) => return refuse("the number is out of range; accepted: as a text"),
                }
            }
            DeValue::Float(number) => match number.as_str().parse::<f64>() {
                Ok(number) if number.is_finite() => TemplateKind::Float(number),
                _ => {
                    return refuse(
                        "accepted: a number, or \"NaN\", \"Infinity\", \"-Infinity\" as texts",
                    );
                }
            },
            DeValue::Boolean(yes) => TemplateKind::Boolean(*yes),
            DeValue::Array(items) => {
                let items = items.iter();
                let items = items.map(|item| Self::nested(section, key, item, depth + 1));
                TemplateKind::List(items.collect::<Option<_>>()?)
            }
            DeValue::Table(entries) => {
                let entry = |(name, value): (&Spanned<_>, _)| {
                    let name: &toml::de::DeString<'_> = name.get_ref();
                    let key = format!("{key}.{}", shown(name));
                    let value = Self::nested(section, &key, value, depth + 1)?;
                    Some((name.clone().into_owned(), value))
                };
                TemplateKind::Table(entries.iter().map(entry).collect::<Option<_>>()?)
            }
            DeValue::Datetime(_) => {
                return refuse("a date is no value of a function; accepted: as a text");
            }
        };
        Some(Self {
            place: Place::new(section, at),
            kind,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_a_singular_query_with_a_root() {
        for text in [
            "$",
            "$.orderId",
            "$reserve-stock.id",
            "$a[0].b",
            "$['a b'].c",
            "$[\"it's\"]",
            "$.order-id",
        ] {
            let path: ValuePath = text.parse().unwrap();
            assert_eq!(path.to_string(), text);
        }
        let path: ValuePath = "$reserve.lines[12]['sku']".parse().unwrap();
        assert_eq!(path.root.as_deref(), Some("reserve"));
        assert_eq!(path.to_string(), "$reserve.lines[12].sku");
        for text in [
            "",
            "a",
            "$.",
            "$..a",
            "$.a[",
            "$.a[*]",
            "$.a[-1]",
            "$.a[01]",
            "$.a[0",
            "$['a",
            "$['a'",
            "$[?@.x]",
            "$.a b",
            "$[]",
            "$['']",
            "$.a[99999999999]",
            "$[+1]",
        ] {
            assert!(text.parse::<ValuePath>().is_err(), "{text}");
        }
    }
}
