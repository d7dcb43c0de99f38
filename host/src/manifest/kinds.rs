//! What a key accepts: how its values are read and written, and how messages and the reference
//! describe them.

use std::fmt::Write as _;
use std::ops::RangeInclusive;
use std::time::Duration;

use toml::Value;
use toml::de::DeValue;

use super::file::integer;
use super::values::{duration_text, parse_duration, parse_port, parse_size, size_text};
use super::{ApiDocument, Outcome, RpcPaths};
use crate::interface::InterfaceId;

/// One key of the manifest.
pub(crate) struct Key<K> {
    pub(crate) name: &'static str,
    /// The values that it accepts.
    pub(crate) values: K,
    pub(super) meaning: &'static str,
}

/// One kind of table in the manifest.
pub(super) struct Table {
    /// As the reference heads it.
    pub(super) head: &'static str,
    pub(super) about: &'static str,
    pub(super) keys: &'static [&'static dyn Row],
}

/// A key whatever it accepts.
pub(super) trait Row: Sync {
    fn name(&self) -> &'static str;
    /// The key's row in the reference.
    fn row(&self) -> String;
}

/// What a key accepts, for people.
pub(super) struct Form {
    pub(super) kind: &'static str,
    pub(super) default: String,
    pub(super) accepted: String,
}

/// What a key accepts.
pub(super) trait Kind: Sync {
    fn form(&self) -> Form;
}

/// A kind of value that is checked by itself. What is not given has a default.
pub(super) trait Setting: Kind {
    type Value: Clone;

    fn default(&self) -> Self::Value;

    /// Returns nothing for what the key does not accept.
    fn read(&self, value: &DeValue<'_>) -> Option<Self::Value>;

    /// The value as it is read; nothing for one that is as if it were not given.
    fn write(&self, value: &Self::Value) -> Option<Value>;
}

/// What has a smallest and a largest value: a number, a size or a duration.
pub(crate) trait Quantity: Clone + PartialOrd + Sync {
    const KIND: &'static str;
    /// The notations that are accepted, with what parts them from the range.
    const NOTATIONS: &'static str;

    fn read(value: &DeValue<'_>) -> Option<Self>;
    fn write(&self) -> Value;
    fn text(&self) -> String;
}

impl Table {
    /// The names of the table's keys, in the order of the reference.
    pub(super) fn names(&self) -> impl Iterator<Item = &'static str> {
        self.keys.iter().map(|key| key.name())
    }

    /// Writes the table as Markdown.
    pub(super) fn describe(&self, text: &mut String) {
        let Self { head, about, keys } = self;
        // Writing to a string cannot fail.
        let _ = writeln!(text, "### {head}\n");
        if !about.is_empty() {
            let _ = writeln!(text, "{about}\n");
        }
        text.push_str("| key | type | accepted | default | meaning |\n|---|---|---|---|---|\n");
        text.extend(keys.iter().map(|key| key.row()));
    }
}

impl<K: Kind> Row for Key<K> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn row(&self) -> String {
        let Self { name, meaning, .. } = self;
        let Form {
            kind,
            default,
            accepted,
        } = self.values.form();
        format!("| `{name}` | {kind} | {accepted} | {default} | {meaning} |\n")
    }
}

/// A quantity within bounds.
pub(crate) struct Bounds<T> {
    pub(crate) default: T,
    pub(crate) range: RangeInclusive<T>,
}

impl<T: Quantity> Kind for Bounds<T> {
    fn form(&self) -> Form {
        let (min, max) = (self.range.start().text(), self.range.end().text());
        Form {
            kind: T::KIND,
            default: self.default.text(),
            accepted: format!("{}{min} to {max}", T::NOTATIONS),
        }
    }
}

impl<T: Quantity> Setting for Bounds<T> {
    type Value = T;

    fn default(&self) -> T {
        self.default.clone()
    }

    fn read(&self, value: &DeValue<'_>) -> Option<T> {
        T::read(value).filter(|value| self.range.contains(value))
    }

    fn write(&self, value: &T) -> Option<Value> {
        Some(value.write())
    }
}

macro_rules! counts {
    ($($type:ty),*) => {$(
        impl Quantity for $type {
            const KIND: &'static str = "integer";
            const NOTATIONS: &'static str = "";

            fn read(value: &DeValue<'_>) -> Option<Self> {
                integer(value.as_integer()?)?.try_into().ok()
            }

            fn write(&self) -> Value {
                Value::Integer((*self).into())
            }

            fn text(&self) -> String {
                self.to_string()
            }
        }
    )*};
}
counts!(u8, u32);

macro_rules! sizes {
    ($($type:ty),*) => {$(
        impl Quantity for $type {
            const KIND: &'static str = "size";
            const NOTATIONS: &'static str =
                "\"512B\", \"64KiB\", \"64MiB\", \"1GiB\" or a number of bytes, ";

            fn read(value: &DeValue<'_>) -> Option<Self> {
                let size = match value {
                    DeValue::String(text) => parse_size(text),
                    DeValue::Integer(number) => integer(number),
                    _ => None,
                };
                size?.try_into().ok()
            }

            fn write(&self) -> Value {
                Value::String(self.text())
            }

            fn text(&self) -> String {
                size_text((*self).try_into().unwrap_or(u64::MAX))
            }
        }
    )*};
}
// Sizes of what is held in one piece are `usize`, none of which is above 64 MiB.
sizes!(u64, usize);

impl Quantity for Duration {
    const KIND: &'static str = "duration";
    const NOTATIONS: &'static str = "\"250ms\", \"2s\" or \"1m\", ";

    fn read(value: &DeValue<'_>) -> Option<Self> {
        parse_duration(value.as_str()?)
    }

    fn write(&self) -> Value {
        Value::String(self.text())
    }

    fn text(&self) -> String {
        duration_text(*self)
    }
}

/// A number from 0 to 1, as hundredths.
pub(crate) struct Hundredths {
    pub(super) default: u8,
}

impl Kind for Hundredths {
    fn form(&self) -> Form {
        Form {
            kind: "number",
            default: part(self.default).to_string(),
            accepted: "0 to 1, at most two decimal places".to_owned(),
        }
    }
}

impl Setting for Hundredths {
    type Value = u8;

    fn default(&self) -> u8 {
        self.default
    }

    fn read(&self, value: &DeValue<'_>) -> Option<u8> {
        match value {
            DeValue::Float(number) => hundredths(number.as_str()),
            DeValue::Integer(number) => hundredths(number.as_str()),
            _ => None,
        }
    }

    fn write(&self, value: &u8) -> Option<Value> {
        Some(Value::Float(part(*value)))
    }
}

fn part(hundredths: u8) -> f64 {
    f64::from(hundredths) / 100.0
}

/// `0`, `1`, `0.2` or `0.25` as hundredths. Read from the digits, since no binary fraction is a
/// tenth.
fn hundredths(number: &str) -> Option<u8> {
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    let part = match part.trim_end_matches('0').as_bytes() {
        [] => 0,
        [tenths @ b'0'..=b'9'] => (tenths - b'0') * 10,
        [tenths @ b'0'..=b'9', rest @ b'0'..=b'9'] => (tenths - b'0') * 10 + (rest - b'0'),
        _ => return None,
    };
    match (whole, part) {
        ("0", part) => Some(part),
        ("1", 0) => Some(100),
        _ => None,
    }
}

/// One duration after the other, at least one.
pub(crate) struct Steps {
    pub(super) default: &'static [Duration],
    pub(super) each: RangeInclusive<Duration>,
    pub(super) most: usize,
}

impl Kind for Steps {
    fn form(&self) -> Form {
        let (min, max) = (self.each.start().text(), self.each.end().text());
        let default: Vec<_> = self.default.iter().map(Quantity::text).collect();
        Form {
            kind: "array of durations",
            default: default.join(", "),
            accepted: format!(
                "1 to {} of \"100ms\", \"10s\", \"1h\", each {min} to {max}",
                self.most
            ),
        }
    }
}

impl Setting for Steps {
    type Value = Vec<Duration>;

    fn default(&self) -> Vec<Duration> {
        self.default.to_vec()
    }

    fn read(&self, value: &DeValue<'_>) -> Option<Vec<Duration>> {
        let steps = value.as_array()?;
        let steps = (1..=self.most).contains(&steps.len()).then_some(steps)?;
        let step = |step: &DeValue<'_>| Duration::read(step).filter(|d| self.each.contains(d));
        steps.iter().map(|item| step(item.get_ref())).collect()
    }

    fn write(&self, value: &Vec<Duration>) -> Option<Value> {
        Some(Value::Array(value.iter().map(Quantity::write).collect()))
    }
}

/// Outcomes of an attempt; all unless some are given.
pub(crate) struct Outcomes;

impl Kind for Outcomes {
    fn form(&self) -> Form {
        Form {
            kind: "array of strings",
            default: "all".to_owned(),
            accepted: Outcome::ALL.map(Outcome::as_str).join(", "),
        }
    }
}

impl Setting for Outcomes {
    type Value = Vec<Outcome>;

    fn default(&self) -> Vec<Outcome> {
        Outcome::ALL.to_vec()
    }

    fn read(&self, value: &DeValue<'_>) -> Option<Vec<Outcome>> {
        let all = value.as_array()?;
        let all = (all.len() <= Outcome::ALL.len()).then_some(all)?;
        let outcome = |text: &str| {
            Outcome::ALL
                .into_iter()
                .find(|known| known.as_str() == text)
        };
        all.iter()
            .map(|item| outcome(item.get_ref().as_str()?))
            .collect()
    }

    fn write(&self, value: &Vec<Outcome>) -> Option<Value> {
        let outcomes = value.iter().map(|outcome| outcome.as_str().into());
        Some(Value::Array(outcomes.collect()))
    }
}

/// No, unless yes is given.
pub(crate) struct Flag;

impl Kind for Flag {
    fn form(&self) -> Form {
        Form {
            kind: "boolean",
            default: "false".to_owned(),
            accepted: "true, false".to_owned(),
        }
    }
}

impl Setting for Flag {
    type Value = bool;

    fn default(&self) -> bool {
        false
    }

    fn read(&self, value: &DeValue<'_>) -> Option<bool> {
        value.as_bool()
    }

    fn write(&self, value: &bool) -> Option<Value> {
        Some(Value::Boolean(*value))
    }
}

/// An address to listen on. What is used without one is for others to decide; `default` tells who
/// does.
pub(crate) struct Address {
    pub(super) default: &'static str,
    pub(super) example: &'static str,
}

impl Kind for Address {
    fn form(&self) -> Form {
        Form {
            kind: "string",
            default: self.default.to_owned(),
            accepted: format!("`host:port`, such as \"{}\"", self.example),
        }
    }
}

impl Setting for Address {
    type Value = Option<String>;

    fn default(&self) -> Option<String> {
        None
    }

    fn read(&self, value: &DeValue<'_>) -> Option<Option<String>> {
        let address = value.as_str()?;
        let (host, port) = address.rsplit_once(':')?;
        let foreign = |c: char| c.is_whitespace() || matches!(c, '/' | '@');
        let accepted = parse_port(port).is_some() && !host.is_empty() && !host.contains(foreign);
        accepted.then(|| Some(address.to_owned()))
    }

    fn write(&self, value: &Option<String>) -> Option<Value> {
        value.clone().map(Value::String)
    }
}

/// What another key accepts, with another default.
pub(crate) struct Or<K>(pub(super) K, pub(super) &'static str);

impl<K: Kind> Kind for Or<K> {
    fn form(&self) -> Form {
        Form {
            default: self.1.to_owned(),
            ..self.0.form()
        }
    }
}

impl<K: Setting> Setting for Or<K> {
    type Value = K::Value;

    fn default(&self) -> K::Value {
        self.0.default()
    }

    fn read(&self, value: &DeValue<'_>) -> Option<K::Value> {
        self.0.read(value)
    }

    fn write(&self, value: &K::Value) -> Option<Value> {
        self.0.write(value)
    }
}

/// RPC paths for clients on the gateway's own machine.
const LOOPBACK: &str = "loopback";

/// Interfaces, or whether all of them are meant, and for whom.
pub(crate) struct Rpc;

impl Kind for Rpc {
    fn form(&self) -> Form {
        Form {
            kind: "string, boolean or array of strings",
            default: "loopback".to_owned(),
            accepted: "\"loopback\", true, false, `[\"shop:catalog/products\"]`".to_owned(),
        }
    }
}

impl Setting for Rpc {
    type Value = RpcPaths;

    fn default(&self) -> RpcPaths {
        RpcPaths::Loopback
    }

    fn read(&self, value: &DeValue<'_>) -> Option<RpcPaths> {
        match value {
            DeValue::String(text) if text == LOOPBACK => Some(RpcPaths::Loopback),
            DeValue::Boolean(true) => Some(RpcPaths::All),
            DeValue::Boolean(false) => Some(RpcPaths::None),
            DeValue::Array(these) => {
                let interface = |item: &toml::Spanned<DeValue<'_>>| {
                    item.get_ref().as_str()?.parse::<InterfaceId>().ok()
                };
                let these: Option<_> = these.iter().map(interface).collect();
                these.map(RpcPaths::Of)
            }
            _ => None,
        }
    }

    fn write(&self, value: &RpcPaths) -> Option<Value> {
        Some(match value {
            RpcPaths::Loopback => Value::String(LOOPBACK.to_owned()),
            RpcPaths::All => Value::Boolean(true),
            RpcPaths::None => Value::Boolean(false),
            RpcPaths::Of(these) => {
                let names = these
                    .iter()
                    .map(|interface| Value::String(interface.to_string()));
                Value::Array(names.collect())
            }
        })
    }
}

/// Whether something is described, and for people, too.
pub(crate) struct Documented;

/// The word for a page.
const EXPLORER: &str = "explorer";

impl Kind for Documented {
    fn form(&self) -> Form {
        Form {
            kind: "boolean or string",
            default: "true".to_owned(),
            accepted: "true, false, \"explorer\"".to_owned(),
        }
    }
}

impl Setting for Documented {
    type Value = ApiDocument;

    fn default(&self) -> ApiDocument {
        ApiDocument::Document
    }

    fn read(&self, value: &DeValue<'_>) -> Option<ApiDocument> {
        match value {
            DeValue::Boolean(true) => Some(ApiDocument::Document),
            DeValue::Boolean(false) => Some(ApiDocument::None),
            DeValue::String(text) if text == EXPLORER => Some(ApiDocument::Explorer),
            _ => None,
        }
    }

    fn write(&self, value: &ApiDocument) -> Option<Value> {
        Some(match value {
            ApiDocument::Document => Value::Boolean(true),
            ApiDocument::None => Value::Boolean(false),
            ApiDocument::Explorer => Value::String(EXPLORER.to_owned()),
        })
    }
}

/// A size from which on something is done, or `false`.
pub(crate) struct Least {
    pub(super) default: usize,
    pub(super) range: RangeInclusive<usize>,
}

impl Least {
    const fn bounds(&self) -> Bounds<usize> {
        Bounds {
            default: self.default,
            range: *self.range.start()..=*self.range.end(),
        }
    }
}

impl Kind for Least {
    fn form(&self) -> Form {
        let form = self.bounds().form();
        Form {
            kind: "size or boolean",
            accepted: format!("{}; false", form.accepted),
            ..form
        }
    }
}

impl Setting for Least {
    type Value = Option<usize>;

    fn default(&self) -> Option<usize> {
        Some(self.default)
    }

    fn read(&self, value: &DeValue<'_>) -> Option<Option<usize>> {
        match value {
            DeValue::Boolean(false) => Some(None),
            other => self.bounds().read(other).map(Some),
        }
    }

    fn write(&self, value: &Option<usize>) -> Option<Value> {
        Some(value.map_or(Value::Boolean(false), |size| size.write()))
    }
}

/// A value that is checked where it is read, as that takes more than the value or needs its place.
pub(crate) struct Other {
    kind: &'static str,
    default: &'static str,
    /// The forms that are accepted, or the values themselves.
    pub(super) accepted: &'static [&'static str],
}

impl Other {
    pub(super) const fn new(kind: &'static str, accepted: &'static [&'static str]) -> Self {
        let default = "";
        Self {
            kind,
            default,
            accepted,
        }
    }

    pub(super) const fn integer(accepted: &'static [&'static str]) -> Self {
        Self::new("integer", accepted)
    }

    pub(super) const fn text(accepted: &'static [&'static str]) -> Self {
        Self::new("string", accepted)
    }

    pub(super) const fn texts(accepted: &'static [&'static str]) -> Self {
        Self::new("array of strings", accepted)
    }

    pub(super) const fn table(accepted: &'static [&'static str]) -> Self {
        Self::new("table", accepted)
    }

    pub(super) const fn tables(accepted: &'static [&'static str]) -> Self {
        Self::new("array of tables", accepted)
    }

    /// Describes what is used when nothing is given.
    pub(super) const fn or(self, default: &'static str) -> Self {
        Self { default, ..self }
    }
}

impl Kind for Other {
    fn form(&self) -> Form {
        Form {
            kind: self.kind,
            default: self.default.to_owned(),
            accepted: self.accepted.join(", "),
        }
    }
}
