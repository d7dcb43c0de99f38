//! What was typed: a TOML document with the places of its keys, and readers that collect every
//! problem instead of stopping at the first.

use std::cell::RefCell;
use std::collections::HashSet;
use std::fmt::Display;
use std::path::Path;
use std::str::FromStr;

use toml::Spanned;
use toml::de::{DeInteger, DeString, DeTable, DeValue};

use super::Problem;
use super::keys;
use super::kinds::{Key, Kind, Other, Setting, Table};
use crate::text::{did_you_mean, shown};

/// Reads a text of this path with `read`, which gets the top of the document.
///
/// # Errors
///
/// Everything that `read` reported, or that the text is no TOML.
pub(super) fn read<T>(
    path: &Path,
    text: &str,
    read: impl FnOnce(&Section<'_>) -> Option<T>,
) -> Result<T, Vec<Problem>> {
    let file = ManifestFile {
        path,
        text,
        problems: RefCell::default(),
    };
    let document = file.document();
    let clean = || file.problems.borrow().is_empty();
    // A file that is no TOML would report its missing parts as well, and mislead.
    let value = if clean() {
        read(&Section::top(&file, &document))
    } else {
        None
    };
    value.filter(|_| clean()).ok_or_else(|| file.problems())
}

/// A manifest's text, and what was found wrong in it so far.
struct ManifestFile<'f> {
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
    /// Nothing for a table that is not given.
    table: Option<&'f DeTable<'f>>,
    keys: &'static Table,
}

impl<'f> ManifestFile<'f> {
    /// Parses the text as TOML.
    fn document(&self) -> DeTable<'f> {
        let (document, errors) = DeTable::parse_recoverable(self.text);
        for error in errors {
            let at = error.span().map_or(0, |span| span.start);
            self.report(at, format!("not TOML: {}", error.message()));
        }
        document.into_inner()
    }

    fn report(&self, at: usize, message: String) {
        self.problems.borrow_mut().push((at, message));
    }

    /// Everything reported, in the order of the file.
    fn problems(&self) -> Vec<Problem> {
        let mut problems = self.problems.take();
        problems.sort_by_key(|(at, _)| *at);
        let mut seen = HashSet::new();
        problems.retain(|problem| seen.insert(problem.clone()));
        let problem = |(at, message)| {
            let (line, column) = position(self.text, at);
            Problem {
                file: self.path.to_owned(),
                line,
                column,
                message,
            }
        };
        problems.into_iter().map(problem).collect()
    }

    /// A value as it was typed, for messages: its first line, cut when long.
    fn typed(&self, value: &Spanned<DeValue<'_>>) -> String {
        let source = self.text.get(value.span()).unwrap_or_default();
        shown(source.lines().next().unwrap_or_default()).into_owned()
    }
}

impl<'f> Section<'f> {
    fn top(file: &'f ManifestFile<'f>, table: &'f DeTable<'f>) -> Self {
        let (prefix, at, table) = (String::new(), 0, Some(table));
        Self::new(file, prefix, at, table, &keys::app::TABLE)
    }

    fn new(
        file: &'f ManifestFile<'f>,
        prefix: String,
        at: usize,
        table: Option<&'f DeTable<'f>>,
        keys: &'static Table,
    ) -> Self {
        let section = Self {
            file,
            prefix,
            at,
            table,
            keys,
        };
        section.check_keys();
        section
    }

    fn check_keys(&self) {
        for key in self.table.into_iter().flat_map(DeTable::keys) {
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

    /// Reports a problem of `key`, if that is given.
    pub(super) fn report_key(&self, key: &str, message: impl AsRef<str>) {
        if let Some(at) = self.place(key) {
            self.report(at, message);
        }
    }

    /// Reports a value that its key does not accept; `shown` names it in full.
    fn refuse(&self, key: &Key<impl Kind>, shown: &str, value: &Spanned<DeValue<'_>>) {
        let found = self.file.typed(value);
        let accepted = key.values.form().accepted;
        self.report(
            value.span().start,
            format!("`{shown}` is {found}; accepted: {accepted}"),
        );
    }

    /// Reports a key that the table cannot do without.
    pub(super) fn require(&self, key: &Key<impl Kind>) {
        if !self.has(key.name) {
            let accepted = key.values.form().accepted;
            self.report_here(format!("`{}` is missing; accepted: {accepted}", key.name));
        }
    }

    /// Where `key` stands, when it is given.
    pub(super) fn place(&self, key: &str) -> Option<usize> {
        let (key, _) = self.table?.get_key_value(key)?;
        Some(key.span().start)
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.place(key).is_some()
    }

    /// What was typed under `key`, with its place.
    pub(super) fn typed(&self, key: &str) -> Option<&'f Spanned<DeValue<'f>>> {
        self.table?.get(key)
    }

    /// A place as messages begin with it: file, line and column.
    pub(super) fn place_text(&self, at: usize) -> String {
        let (line, column) = position(self.file.text, at);
        format!("{}:{line}:{column}: ", self.file.path.display())
    }

    /// The line of a place, from 1.
    pub(super) fn line(&self, at: usize) -> usize {
        position(self.file.text, at).0
    }

    /// Whether the table under `key` has nothing in it, or is not given.
    pub(super) fn is_empty(&self, key: &Key<Other>) -> bool {
        let value = self.table.and_then(|table| table.get(key.name));
        value.is_none_or(|value| value.get_ref().as_table().is_some_and(DeTable::is_empty))
    }

    /// Whether a key has a table, where it may have something else.
    pub(super) fn is_table(&self, key: &Key<Other>) -> bool {
        let value = self.table.and_then(|table| table.get(key.name));
        value.is_some_and(|value| value.get_ref().is_table())
    }

    /// Reads `key` with `read`, which returns nothing for what the key does not accept.
    pub(super) fn value<T>(
        &self,
        key: &Key<impl Kind>,
        read: impl FnOnce(&'f DeValue<'f>) -> Option<T>,
    ) -> Option<At<T>> {
        let typed = self.table?.get(key.name)?;
        let value = read(typed.get_ref());
        if value.is_none() {
            self.refuse(key, key.name, typed);
        }
        Some(At {
            value: value?,
            at: typed.span().start,
        })
    }

    /// Reads `key`; when it is not given, it is as in `usual`.
    pub(super) fn read<K: Setting>(&self, key: &Key<K>, usual: &K::Value) -> K::Value {
        self.value(key, |value| key.values.read(value))
            .map_or_else(|| usual.clone(), |read| read.value)
    }

    /// Reads `key`, with its default when it is not given.
    pub(super) fn read_or_default<K: Setting>(&self, key: &Key<K>) -> K::Value {
        self.read(key, &key.values.default())
    }

    pub(super) fn text(&self, key: &Key<Other>) -> Option<At<&'f str>> {
        self.value(key, DeValue::as_str)
    }

    /// A text for which `accept` holds.
    pub(super) fn text_that(
        &self,
        key: &Key<Other>,
        accept: impl FnOnce(&str) -> bool,
    ) -> Option<At<&'f str>> {
        self.value(key, |value| value.as_str().filter(|text| accept(text)))
    }

    /// One of the texts that the key accepts.
    pub(super) fn one_of(&self, key: &Key<Other>) -> Option<At<&'f str>> {
        self.text_that(key, |text| key.values.accepted.contains(&text))
    }

    /// An array of texts, each with its place.
    pub(super) fn texts(&self, key: &Key<Other>) -> Vec<At<&'f str>> {
        let read = |item: &'f Spanned<DeValue<'f>>| {
            let text = item.get_ref().as_str();
            if text.is_none() {
                self.refuse(key, key.name, item);
            }
            Some(At {
                value: text?,
                at: item.span().start,
            })
        };
        let array = self.value(key, DeValue::as_array);
        array
            .into_iter()
            .flat_map(|array| array.value)
            .filter_map(read)
            .collect()
    }

    /// An array of texts, each of which has a meaning.
    pub(super) fn parsed<T: FromStr<Err: Display>>(&self, key: &Key<Other>) -> Vec<T> {
        let read = |typed: At<&str>| match typed.value.parse() {
            Ok(value) => Some(value),
            Err(error) => {
                self.report(typed.at, format!("`{}`: {error}", key.name));
                None
            }
        };
        self.texts(key).into_iter().filter_map(read).collect()
    }

    /// The table under `key`; one without keys if it is not given.
    pub(super) fn section(&self, key: &Key<Other>, keys: &'static Table) -> Self {
        let table = self.value(key, DeValue::as_table).map(|table| table.value);
        let prefix = format!("{}{}: ", self.prefix, key.name);
        let at = self.place(key.name).unwrap_or(self.at);
        Self::new(self.file, prefix, at, table, keys)
    }

    /// The tables under `key` by name, such as the services: name, place of the name, section.
    pub(super) fn named(&self, key: &Key<Other>, keys: &'static Table) -> Vec<(At<&'f str>, Self)> {
        let open = |(name, table): (At<&'f str>, &'f DeTable<'f>)| {
            let prefix = format!("{} \"{}\": ", key.name, shown(name.value));
            let section = Self::new(self.file, prefix, name.at, Some(table), keys);
            (name, section)
        };
        self.entries(key, DeValue::as_table)
            .into_iter()
            .map(open)
            .collect()
    }

    /// The tables of the array under `key`, each named by `prefix`.
    pub(super) fn each(
        &self,
        key: &Key<Other>,
        prefix: impl Fn(&DeTable<'f>) -> String,
        keys: &'static Table,
    ) -> Vec<Self> {
        let open = |item: &'f Spanned<DeValue<'f>>| {
            let table = item.get_ref().as_table();
            if table.is_none() {
                self.refuse(key, key.name, item);
            }
            let (prefix, at) = (prefix(table?), item.span().start);
            Some(Self::new(self.file, prefix, at, table, keys))
        };
        let array = self.value(key, DeValue::as_array);
        array
            .into_iter()
            .flat_map(|array| array.value)
            .filter_map(open)
            .collect()
    }

    /// The entries of the table under `key`, whose keys are the user's own. `read` returns nothing
    /// for a value that is not accepted.
    pub(super) fn entries<T>(
        &self,
        key: &Key<Other>,
        read: impl Fn(&'f DeValue<'f>) -> Option<T>,
    ) -> Vec<(At<&'f str>, T)> {
        let entry = |(name, typed): (&'f Spanned<DeString<'f>>, &'f Spanned<DeValue<'f>>)| {
            let (text, at) = (name.get_ref().as_ref(), name.span().start);
            let value = read(typed.get_ref());
            if value.is_none() {
                self.refuse(key, &format!("{}.{}", key.name, shown(text)), typed);
            }
            Some((At { value: text, at }, value?))
        };
        let table = self.value(key, DeValue::as_table);
        table
            .into_iter()
            .flat_map(|table| table.value)
            .filter_map(entry)
            .collect()
    }
}

pub(super) fn integer(number: &DeInteger<'_>) -> Option<u64> {
    u64::from_str_radix(number.as_str(), number.radix()).ok()
}

/// Line and column of a byte offset, both from 1, the column in characters.
fn position(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let line = before.matches('\n').count() + 1;
    let column = before.get(line_start..).unwrap_or_default().chars().count() + 1;
    (line, column)
}
