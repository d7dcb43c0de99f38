//! Cases against the types of their component: functions are resolved, and values are what JSON of their
//! type is written as, whatever spelling the file has.

use std::collections::BTreeMap;
use std::path::{Path as FilePath, PathBuf};

use serde_json::Value;
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::file::{CaseFile, FailureFile, Json, KeyValueFile, StubFile, TimesFile};
use super::path::{FORM, Pattern};
use crate::call::{CODES, Code};
use crate::interface::{FunctionId, FunctionRef};
use crate::interfaces::recorded::SEED;
use crate::json::{self, JsonError, Limits};
use crate::plan::Description;
use crate::shape::{InterfaceDescription, Shape, Signature};
use crate::text::{did_you_mean, shown, unhex};

/// What time it is in a case that does not say so: the start of 2026, in milliseconds since 1970.
const TIME: u64 = 1_767_225_600_000;

/// Something in a file of cases that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{}: {at}: {why}", file.display(), line.map(|line| format!(":{line}")).unwrap_or_default())]
pub struct CaseError {
    /// The file.
    pub file: PathBuf,
    /// The line, where the text itself is wrong.
    pub line: Option<usize>,
    /// The JSON path, such as `$.cases[0].arguments.sku`.
    pub at: String,
    /// What is wrong, with what is accepted.
    pub why: String,
}

/// A case whose values have the types of its component.
#[derive(Clone, Debug)]
pub struct Case {
    /// What it shows.
    pub name: String,
    pub(super) function: FunctionId,
    /// The arguments as JSON.
    pub(super) body: Vec<u8>,
    pub(super) config: BTreeMap<String, Option<String>>,
    pub(super) keyvalue: KeyValueFile,
    /// Milliseconds since 1970.
    pub(super) time: u64,
    pub(super) seed: [u8; SEED],
    pub(super) stubs: Vec<Stub>,
    pub(super) expected: Answer,
    pub(super) signature: Signature,
    pub(super) ignore: Vec<Pattern>,
}

/// What answers calls of an imported function.
#[derive(Clone, Debug)]
pub(super) struct Stub {
    pub(super) function: FunctionId,
    /// The arguments that it answers; any without.
    pub(super) arguments: Option<Value>,
    pub(super) answer: Answer,
    pub(super) times: TimesFile,
    pub(super) ignore: Vec<Pattern>,
}

/// How a call ends.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Answer {
    /// With this result, as JSON and as a value.
    Returns(Vec<u8>, Value),
    /// With this error; where one is expected, its message has this text.
    Fails(Code, String),
}

/// Checks one case of a file, whose number it is, by the types of a component.
///
/// # Errors
///
/// All that is wrong with it.
pub(super) fn check(
    file: &FilePath,
    number: usize,
    case: &CaseFile,
    ignore: &[String],
    component: &Description,
) -> Result<Case, Vec<CaseError>> {
    let mut check = Check {
        file,
        errors: Vec::new(),
    };
    let at = format!("$.cases[{number}]");
    let checked = check.case(&at, case, ignore, component);
    match checked {
        Some(case) if check.errors.is_empty() => Ok(case),
        _ => Err(check.errors),
    }
}

struct Check<'a> {
    file: &'a FilePath,
    errors: Vec<CaseError>,
}

impl Check<'_> {
    fn report(&mut self, at: impl Into<String>, why: impl Into<String>) {
        self.errors.push(CaseError {
            file: self.file.to_owned(),
            line: None,
            at: at.into(),
            why: why.into(),
        });
    }

    /// A value that does not have its type.
    fn misfit(&mut self, at: &str, error: &JsonError) {
        let inside = error.path.strip_prefix('$').unwrap_or(&error.path);
        let JsonError {
            expected, found, ..
        } = error;
        self.report(
            format!("{at}{inside}"),
            format!("expected {expected}, found {found}"),
        );
    }

    fn case(
        &mut self,
        at: &str,
        case: &CaseFile,
        ignore: &[String],
        component: &Description,
    ) -> Option<Case> {
        let time = match &case.time {
            None => TIME,
            Some(text) => self.time(&format!("{at}.time"), text)?,
        };
        let mut patterns = self.patterns("$.ignore", ignore);
        let of_all = patterns.clone();
        patterns.extend(self.patterns(&format!("{at}.ignore"), &case.ignore));
        let mut stubs = Vec::new();
        for (number, stub) in case.imports.iter().enumerate() {
            let at = format!("{at}.imports[{number}]");
            stubs.extend(self.stub(&at, stub, &of_all, &component.imports));
        }
        let (function, signature) = self.function(
            &format!("{at}.call"),
            &case.call,
            "exports",
            &component.exports,
        )?;
        let (body, _) = self.arguments(
            &format!("{at}.arguments"),
            case.arguments.as_ref(),
            signature,
        )?;
        let expected = self.answer(at, case.returns.as_ref(), case.fails.as_ref(), signature)?;
        Some(Case {
            name: case.name.clone(),
            function,
            body,
            config: case.config.clone(),
            keyvalue: case.keyvalue.clone().unwrap_or_default(),
            time,
            seed: seed(case.seed.as_deref().unwrap_or_default()),
            stubs,
            expected,
            signature: signature.clone(),
            ignore: patterns,
        })
    }

    fn stub(
        &mut self,
        at: &str,
        stub: &StubFile,
        of_all: &[Pattern],
        imports: &[InterfaceDescription],
    ) -> Option<Stub> {
        let mut ignore = of_all.to_vec();
        ignore.extend(self.patterns(&format!("{at}.ignore"), &stub.ignore));
        let (function, signature) =
            self.function(&format!("{at}.call"), &stub.call, "imports", imports)?;
        let arguments = match &stub.arguments {
            None => None,
            given => {
                let at = format!("{at}.arguments");
                Some(self.arguments(&at, given.as_ref(), signature)?.1)
            }
        };
        Some(Stub {
            function,
            arguments,
            answer: self.answer(at, stub.returns.as_ref(), stub.fails.as_ref(), signature)?,
            times: stub
                .times
                .unwrap_or(TimesFile::Number(std::num::NonZeroU32::MIN)),
            ignore,
        })
    }

    /// The function that a text means among those of these interfaces.
    fn function<'c>(
        &mut self,
        at: &str,
        text: &str,
        verb: &str,
        interfaces: &'c [InterfaceDescription],
    ) -> Option<(FunctionId, &'c Signature)> {
        let wanted: FunctionRef = match text.parse() {
            Ok(wanted) => wanted,
            Err(error) => {
                self.report(at, format!("{error}"));
                return None;
            }
        };
        let all = interfaces.iter().flat_map(|interface| {
            let functions = interface.functions.iter();
            functions.map(|(name, signature)| (interface.id.function(name), signature))
        });
        let mut found = all.clone().filter(|(id, _)| wanted.matches(id));
        match (found.next(), found.next()) {
            (Some(found), None) => return Some(found),
            (Some((one, _)), Some((two, _))) => {
                let text = shown(text);
                self.report(
                    at,
                    format!("`{text}` could be {one} or {two}: write it in full"),
                );
            }
            (None, _) => {
                let names: Vec<_> = all.map(|(id, _)| id.to_string()).collect();
                // Compared in the form in which it was written.
                let alike = names.iter().map(|name| {
                    let unversioned = name.split('@').next().unwrap_or(name);
                    let bare = unversioned.rsplit('/').next().unwrap_or(name);
                    match (text.contains('/'), text.contains('@')) {
                        (_, true) => name,
                        (true, false) => unversioned,
                        (false, false) => bare,
                    }
                });
                let meant = did_you_mean(text, alike);
                let text = shown(text);
                let known = match names.as_slice() {
                    [] => format!("it {verb} no function"),
                    names => format!("it {verb} {}", names.join(", ")),
                };
                self.report(
                    at,
                    format!("the component {verb} no function `{text}`{meant}; {known}"),
                );
            }
        }
        None
    }

    /// Arguments as they are sent, and as a value.
    fn arguments(
        &mut self,
        at: &str,
        given: Option<&Json>,
        signature: &Signature,
    ) -> Option<(Vec<u8>, Value)> {
        let text = given.map_or("", |given| given.get());
        let read = json::decode_arguments(text.as_bytes(), signature, &limits());
        let written = read.and_then(|values| json::encode_arguments(&values, signature, &limits()));
        match written {
            Ok(body) => {
                let value = value_of(&body);
                Some((body, value))
            }
            Err(error) => {
                self.misfit(at, &error);
                None
            }
        }
    }

    /// `returns` or `fails` of what is at this path.
    fn answer(
        &mut self,
        at: &str,
        returns: Option<&Json>,
        fails: Option<&FailureFile>,
        signature: &Signature,
    ) -> Option<Answer> {
        match (returns, fails) {
            (Some(_), Some(_)) => {
                self.report(
                    at,
                    "it has both `returns` and `fails`: a call ends in one way",
                );
                None
            }
            (None, Some(fails)) => match Code::from_status(fails.code) {
                Some(code) => Some(Answer::Fails(code, fails.message.clone())),
                None => {
                    let known = CODES.map(|code| code.status().to_string()).join(", ");
                    let code = fails.code;
                    let why = format!("expected one of the codes {known}, found {code}");
                    self.report(format!("{at}.fails.code"), why);
                    None
                }
            },
            (returns, None) => {
                let text = match (returns.map(|returns| returns.get()), &signature.result) {
                    (Some(text), _) => text,
                    (None, None) => "",
                    (None, Some(Shape::Result { ok: None, .. })) => "{\"ok\":null}",
                    (None, Some(result)) => {
                        let why = format!(
                            "neither `returns` nor `fails` says how the call ends; it returns {result}"
                        );
                        self.report(at, why);
                        return None;
                    }
                };
                let read = json::decode_result(text.as_bytes(), signature, &limits());
                let written = read
                    .and_then(|value| json::encode_result(value.as_ref(), signature, &limits()));
                match written {
                    Ok(body) => {
                        let value = value_of(&body);
                        Some(Answer::Returns(body, value))
                    }
                    Err(error) => {
                        self.misfit(&format!("{at}.returns"), &error);
                        None
                    }
                }
            }
        }
    }

    fn patterns(&mut self, at: &str, texts: &[String]) -> Vec<Pattern> {
        let mut patterns = Vec::new();
        for (number, text) in texts.iter().enumerate() {
            match text.parse() {
                Ok(pattern) => patterns.push(pattern),
                Err(()) => {
                    let why = format!("expected {FORM}, found \"{}\"", shown(text));
                    self.report(format!("{at}[{number}]"), why);
                }
            }
        }
        patterns
    }

    fn time(&mut self, at: &str, text: &str) -> Option<u64> {
        let read = OffsetDateTime::parse(text, &Rfc3339).ok();
        let milliseconds =
            read.and_then(|time| u64::try_from(time.unix_timestamp_nanos() / 1_000_000).ok());
        if milliseconds.is_none() {
            let why = format!(
                "expected a time from 1970 on such as 2026-01-01T12:00:00Z, found \"{}\"",
                shown(text)
            );
            self.report(at, why);
        }
        milliseconds
    }
}

/// JSON that was written here; nothing is an object without keys.
pub(super) fn value_of(body: &[u8]) -> Value {
    if body.is_empty() {
        return Value::Object(serde_json::Map::new());
    }
    serde_json::from_slice(body).unwrap_or_default()
}

/// A seed is 32 bytes as hexadecimal digits, as runs have it, or any text.
fn seed(text: &str) -> [u8; SEED] {
    unhex(text).unwrap_or_else(|| Sha256::digest(text).into())
}

/// The service's own limits are those of the call that is made.
fn limits() -> Limits {
    Limits {
        bytes: usize::MAX,
        ..Limits::default()
    }
}
