//! What was typed: a TOML document with the places of its keys, and readers that collect every
//! problem instead of stopping at the first.

use std::cell::RefCell;
use std::collections::HashSet;
use std::path::Path;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeArray, DeInteger, DeString, DeTable, DeValue};

use super::Problem;
use super::keys::{Bounds, Table};
use super::values::{parse_duration, parse_size};
use crate::text::{did_you_mean, shown};

/// A manifest's text, and what was found wrong in it so far.
pub(super) struct ManifestFile<'f> {
    path: &'f Path,
    text: &'f str,
    /// Byte offset and message. Reading a value gives a stand-in when it reports one, and a file
    /// with any problem never becomes an `App`, so no stand-in gets out.
    problems: RefCell<Vec<(usize, String)>>,
}

/// A value with its place.
#[derive(Clone, Copy)]
pub(super) struct At<T> {
    pub(super) value: T,
    pub(super) at: usize,
}

/// One table of the file.
pub(super) struct Section<'f> {
    file: &'f ManifestFile<'f>,
    /// How messages begin, such as `service "inventory": `; empty at the top.
    prefix: String,
    at: usize,
    table: &'f DeTable<'f>,
    keys: &'static Table,
}

impl<'f> ManifestFile<'f> {
    pub(super) fn new(path: &'f Path, text: &'f str) -> Self {
        Self {
            path,
            text,
            problems: RefCell::default(),
        }
    }

    /// Parses the text as TOML. The document is for the caller to keep, as sections borrow it.
    pub(super) fn document(&self) -> DeTable<'f> {
        let (document, errors) = DeTable::parse_recoverable(self.text);
        for error in errors {
            let at = error.span().map_or(0, |span| span.start);
            self.report(at, format!("not TOML: {}", error.message()));
        }
        document.into_inner()
    }

    pub(super) fn clean(&self) -> bool {
        self.problems.borrow().is_empty()
    }

    pub(super) fn report(&self, at: usize, message: String) {
        self.problems.borrow_mut().push((at, message));
    }

    /// Everything reported, in the order of the file.
    pub(super) fn into_problems(self) -> Vec<Problem> {
        let mut problems = self.problems.into_inner();
        problems.sort_by_key(|(at, _)| *at);
        let mut seen = HashSet::new();
        problems.retain(|problem| seen.insert(problem.clone()));
        let place = |at| position(self.text, at);
        problems
            .into_iter()
            .map(|(at, message)| {
                let (line, column) = place(at);
                Problem {
                    file: self.path.to_owned(),
                    line,
                    column,
                    message,
                }
            })
            .collect()
    }

    /// A value as it was typed, for messages: its first line, cut when long.
    fn typed(&self, value: &Spanned<DeValue<'_>>) -> String {
        let source = self.text.get(value.span()).unwrap_or_default();
        shown(source.lines().next().unwrap_or_default()).into_owned()
    }

    pub(super) fn line(&self, at: usize) -> usize {
        position(self.text, at).0
    }
}

impl<'f> Section<'f> {
    /// The top of the document.
    pub(super) fn top(
        file: &'f ManifestFile<'f>,
        table: &'f DeTable<'f>,
        keys: &'static Table,
    ) -> Self {
        let section = Self {
            file,
            prefix: String::new(),
            at: 0,
            table,
            keys,
        };
        section.check_keys();
        section
    }

    fn below(
        &self,
        prefix: String,
        at: usize,
        table: &'f DeTable<'f>,
        keys: &'static Table,
    ) -> Self {
        let section = Self {
            file: self.file,
            prefix,
            at,
            table,
            keys,
        };
        section.check_keys();
        section
    }

    fn check_keys(&self) {
        for key in self.table.keys() {
            let name = key.get_ref().as_ref();
            if !self.keys.names().any(|known| known == name) {
                let meant = did_you_mean(name, self.keys.names());
                let accepted = self.keys.names().collect::<Vec<_>>().join(", ");
                let message = format!(
                    "unknown key `{}`{meant} (accepted: {accepted})",
                    shown(name)
                );
                self.report(key.span().start, message);
            }
        }
    }

    /// Reports a problem of this table at `at`.
    pub(super) fn report(&self, at: usize, message: impl AsRef<str>) {
        self.file
            .report(at, format!("{}{}", self.prefix, message.as_ref()));
    }

    /// Reports a problem of the table as a whole.
    pub(super) fn report_here(&self, message: impl AsRef<str>) {
        self.report(self.at, message);
    }

    /// Reports a value that its key does not accept.
    fn refuse(&self, key: &str, value: &Spanned<DeValue<'_>>) {
        self.refuse_as(key, key, value);
    }

    /// Reports a value below `key`, which `shown` names in full.
    fn refuse_as(&self, key: &str, shown: &str, value: &Spanned<DeValue<'_>>) {
        let found = self.file.typed(value);
        self.report(
            value.span().start,
            format!("`{shown}` is {found}; accepted: {}", self.accepted(key)),
        );
    }

    /// What `key` accepts, as the reference has it.
    fn accepted(&self, key: &str) -> String {
        let row = self.keys.keys.iter().find(|row| row.name == key);
        row.map_or_else(String::new, |row| (row.form)().accepted)
    }

    fn get(&self, key: &str) -> Option<&'f Spanned<DeValue<'f>>> {
        self.table.get(key)
    }

    /// Where `key` stands, when it is given.
    pub(super) fn place(&self, key: &str) -> Option<usize> {
        self.table
            .get_key_value(key)
            .map(|(key, _)| key.span().start)
    }

    /// Reads `key` with `read`, which gives nothing for what the key does not accept.
    fn value<T>(
        &self,
        key: &str,
        read: impl FnOnce(&'f DeValue<'f>) -> Option<T>,
    ) -> Option<At<T>> {
        let typed = self.get(key)?;
        let value = read(typed.get_ref());
        if value.is_none() {
            self.refuse(key, typed);
        }
        Some(At {
            value: value?,
            at: typed.span().start,
        })
    }

    pub(super) fn text(&self, key: &str) -> Option<At<&'f str>> {
        self.value(key, DeValue::as_str)
    }

    /// A text for which `accept` holds.
    pub(super) fn text_that(
        &self,
        key: &str,
        accept: impl FnOnce(&str) -> bool,
    ) -> Option<At<&'f str>> {
        self.value(key, |value| value.as_str().filter(|text| accept(text)))
    }

    /// A text that the table cannot do without.
    pub(super) fn required(&self, key: &str, text: Option<At<&'f str>>) -> Option<At<&'f str>> {
        if self.get(key).is_none() {
            self.report_here(format!(
                "`{key}` is missing; accepted: {}",
                self.accepted(key)
            ));
        }
        text
    }

    pub(super) fn truth(&self, key: &str) -> Option<At<bool>> {
        self.value(key, |value| value.as_bool().filter(|yes| *yes))
    }

    /// Whether an array was given, where a key accepts one beside another form.
    pub(super) fn is_array(&self, key: &str) -> bool {
        let typed = self.get(key);
        typed.is_some_and(|typed| typed.get_ref().as_array().is_some())
    }

    /// Whether a key has a table, where it may have something else.
    pub(super) fn is_table(&self, key: &str) -> bool {
        self.get(key)
            .is_some_and(|typed| typed.get_ref().is_table())
    }

    /// A boolean where both values make sense.
    pub(super) fn choice(&self, key: &str) -> Option<At<bool>> {
        self.value(key, DeValue::as_bool)
    }

    /// A number from 0 to 1 as hundredths.
    pub(super) fn hundredths(&self, key: &str, bounds: Bounds<u8>) -> u8 {
        let read = |value: &DeValue<'_>| {
            let number = match value {
                DeValue::Float(number) => number.as_str(),
                DeValue::Integer(number) => number.as_str(),
                _ => return None,
            };
            hundredths(number).filter(|n| bounds.contain(n))
        };
        self.value(key, read)
            .map_or(bounds.default, |number| number.value)
    }

    /// An array of so many texts, each of which `read` accepts.
    pub(super) fn list<T>(
        &self,
        key: &str,
        lengths: std::ops::RangeInclusive<usize>,
        read: impl Fn(&'f str) -> Option<T>,
    ) -> Option<Vec<T>> {
        let read_item = |item: &'f Spanned<DeValue<'f>>| item.get_ref().as_str().and_then(&read);
        let read_all = |value: &'f DeValue<'f>| {
            let items = value
                .as_array()
                .filter(|all| lengths.contains(&all.len()))?;
            items.iter().map(read_item).collect()
        };
        self.value(key, read_all).map(|list| list.value)
    }

    pub(super) fn count<T: TryFrom<u64> + PartialOrd>(&self, key: &str, bounds: Bounds<T>) -> T {
        let read = |value: &DeValue<'_>| {
            T::try_from(integer(value.as_integer()?)?)
                .ok()
                .filter(|n| bounds.contain(n))
        };
        self.value(key, read)
            .map_or(bounds.default, |number| number.value)
    }

    pub(super) fn size(&self, key: &str, bounds: Bounds<u64>) -> u64 {
        let read = |value: &DeValue<'_>| {
            match value {
                DeValue::String(text) => parse_size(text),
                DeValue::Integer(number) => integer(number),
                _ => None,
            }
            .filter(|size| bounds.contain(size))
        };
        self.value(key, read)
            .map_or(bounds.default, |size| size.value)
    }

    pub(super) fn duration(&self, key: &str, bounds: Bounds<Duration>) -> Duration {
        let read =
            |value: &DeValue<'_>| parse_duration(value.as_str()?).filter(|d| bounds.contain(d));
        self.value(key, read)
            .map_or(bounds.default, |duration| duration.value)
    }

    /// An integer in `range`.
    pub(super) fn status(&self, key: &str, range: &std::ops::RangeInclusive<u16>) -> Option<u16> {
        self.value(key, |value| status(value, range))
            .map(|status| status.value)
    }

    /// An array of texts, each with its place.
    pub(super) fn texts(&self, key: &str) -> Vec<At<&'f str>> {
        let Some(array) = self.value(key, DeValue::as_array) else {
            return Vec::new();
        };
        let read = |item: &'f Spanned<DeValue<'f>>| {
            let text = item.get_ref().as_str();
            if text.is_none() {
                self.refuse(key, item);
            }
            Some(At {
                value: text?,
                at: item.span().start,
            })
        };
        array.value.iter().filter_map(read).collect()
    }

    /// The table under `key`.
    pub(super) fn section(&self, key: &str, keys: &'static Table) -> Option<Self> {
        let table = self.value(key, DeValue::as_table)?;
        let prefix = match self.prefix.is_empty() {
            true => format!("{key}: "),
            false => format!("{}{key}: ", self.prefix),
        };
        Some(self.below(
            prefix,
            self.place(key).unwrap_or(table.at),
            table.value,
            keys,
        ))
    }

    /// The tables under `key` by name, such as the services: name, place of the name, section.
    pub(super) fn named(
        &self,
        key: &'static str,
        keys: &'static Table,
    ) -> Vec<(At<&'f str>, Self)> {
        let open = |(name, table): (At<&'f str>, &'f DeTable<'f>)| {
            let prefix = format!("{key} \"{}\": ", shown(name.value));
            (name, self.below(prefix, name.at, table, keys))
        };
        self.entries(key, DeValue::as_table)
            .into_iter()
            .map(open)
            .collect()
    }

    /// The tables of the array under `key`, each named by `prefix`.
    pub(super) fn each(
        &self,
        key: &str,
        prefix: impl Fn(&DeTable<'f>) -> String,
        keys: &'static Table,
    ) -> Vec<Self> {
        let Some(array) = self.value(key, DeValue::as_array) else {
            return Vec::new();
        };
        let open = |item: &'f Spanned<DeValue<'f>>| match item.get_ref() {
            DeValue::Table(table) => {
                Some(self.below(prefix(table), item.span().start, table, keys))
            }
            _ => {
                self.refuse(key, item);
                None
            }
        };
        let tables: &'f DeArray<'f> = array.value;
        tables.iter().filter_map(open).collect()
    }

    /// The entries of the table under `key`, whose keys are the user's own. `read` gives nothing
    /// for a value that is not accepted.
    pub(super) fn entries<T>(
        &self,
        key: &str,
        read: impl Fn(&'f DeValue<'f>) -> Option<T>,
    ) -> Vec<(At<&'f str>, T)> {
        let Some(table) = self.value(key, DeValue::as_table) else {
            return Vec::new();
        };
        let entry = |(name, typed): (&'f Spanned<DeString<'f>>, &'f Spanned<DeValue<'f>>)| {
            let (text, at) = (name.get_ref().as_ref(), name.span().start);
            let value = read(typed.get_ref());
            if value.is_none() {
                self.refuse_as(key, &format!("{key}.{}", shown(text)), typed);
            }
            Some((At { value: text, at }, value?))
        };
        table.value.iter().filter_map(entry).collect()
    }
}

/// A value as text: a string as it is, numbers and booleans as TOML would print them.
pub(super) fn plain_text(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.clone().into_owned()),
        DeValue::Integer(number) => {
            let value = i128::from_str_radix(number.as_str(), number.radix());
            Some(value.map_or_else(|_| number.as_str().to_owned(), |n| n.to_string()))
        }
        DeValue::Float(number) => Some(number.as_str().to_owned()),
        DeValue::Boolean(yes) => Some(yes.to_string()),
        DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => None,
    }
}

/// An HTTP status in `range`.
pub(super) fn status(value: &DeValue<'_>, range: &std::ops::RangeInclusive<u16>) -> Option<u16> {
    u16::try_from(integer(value.as_integer()?)?)
        .ok()
        .filter(|status| range.contains(status))
}

fn integer(number: &DeInteger<'_>) -> Option<u64> {
    u64::from_str_radix(number.as_str(), number.radix()).ok()
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

/// Line and column of a byte offset, both from 1, the column in characters.
fn position(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let line = before.matches('\n').count() + 1;
    let column = before.get(line_start..).unwrap_or_default().chars().count() + 1;
    (line, column)
}
