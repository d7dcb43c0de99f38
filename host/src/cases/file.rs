//! A file of contract cases as it is written: its keys, and nothing of what they mean.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

/// A value as it is written.
pub type Json = Box<RawValue>;

/// A file of cases.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CasesFile {
    /// The service that they are of, where the file's name does not say so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// Paths to parts of results and arguments that may differ in all of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ignore: Vec<String>,
    /// The cases.
    pub cases: Vec<CaseFile>,
}

/// One case.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CaseFile {
    /// What it shows.
    pub name: String,
    /// The function that is called.
    pub call: String,
    /// Its arguments.
    #[serde(
        default,
        deserialize_with = "given",
        skip_serializing_if = "Option::is_none"
    )]
    pub arguments: Option<Json>,
    /// Keys of the configuration that are others than in the manifest; null takes one away.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub config: BTreeMap<String, Option<String>>,
    /// The service's data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keyvalue: Option<KeyValueFile>,
    /// What time it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<String>,
    /// What random numbers follow from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<String>,
    /// What answers the functions that it calls.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub imports: Vec<StubFile>,
    /// The result.
    #[serde(
        default,
        deserialize_with = "given",
        skip_serializing_if = "Option::is_none"
    )]
    pub returns: Option<Json>,
    /// The error instead of a result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fails: Option<FailureFile>,
    /// Paths to parts of the result that may differ.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ignore: Vec<String>,
}

/// What answers calls of an imported function.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StubFile {
    /// The function.
    pub call: String,
    /// The arguments that it answers; any, unless given.
    #[serde(
        default,
        deserialize_with = "given",
        skip_serializing_if = "Option::is_none"
    )]
    pub arguments: Option<Json>,
    /// How many calls it answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub times: Option<TimesFile>,
    /// The result.
    #[serde(
        default,
        deserialize_with = "given",
        skip_serializing_if = "Option::is_none"
    )]
    pub returns: Option<Json>,
    /// The error instead of a result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fails: Option<FailureFile>,
    /// Paths to parts of the arguments that may differ.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ignore: Vec<String>,
}

/// How many calls a stub answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "a number of calls from 1, or \"any\"")]
pub enum TimesFile {
    /// So many.
    Number(std::num::NonZeroU32),
    /// As many as there are, none included.
    Any(Any),
}

/// The word `any`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Any {
    /// As many as there are, none included.
    Any,
}

/// A call without a result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FailureFile {
    /// The code, such as 503.
    pub code: u16,
    /// The message; for an expected failure, a part of it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// The service's data before and after.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyValueFile {
    /// What is there at the start.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub before: BTreeMap<String, String>,
    /// All that is there at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<BTreeMap<String, String>>,
}

/// A value that is there, which `null` is too.
fn given<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Json>, D::Error> {
    Json::deserialize(from).map(Some)
}

/// Why a text is no file of cases.
#[derive(Debug)]
pub(super) struct Misread {
    /// The path to what is wrong, without the `$`.
    pub(super) path: String,
    pub(super) line: usize,
    pub(super) why: String,
}

/// Reads a file of cases.
pub(super) fn read(text: &[u8]) -> Result<CasesFile, Misread> {
    let mut json = serde_json::Deserializer::from_slice(text);
    let misread = |path: String, error: &serde_json::Error| {
        let why = error.to_string();
        // The line is said apart.
        let why = why.rsplit_once(" at line ").map_or(&*why, |(why, _)| why);
        Misread {
            path,
            line: error.line(),
            why: why.to_owned(),
        }
    };
    let read = serde_path_to_error::deserialize(&mut json);
    let read = read.map_err(|error: serde_path_to_error::Error<serde_json::Error>| {
        let path = error.path().to_string();
        // What cannot be told from what is there is left out.
        let path = match path.trim_end_matches(".?") {
            "." | "?" | "" => String::new(),
            path if path.starts_with('[') => path.to_owned(),
            path => format!(".{path}"),
        };
        misread(path, error.inner())
    })?;
    json.end().map_err(|error| misread(String::new(), &error))?;
    Ok(read)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn misread(text: &str) -> (String, usize, String) {
        let Misread { path, line, why } = read(text.as_bytes()).unwrap_err();
        (path, line, why)
    }

    #[test]
    fn values_stay_as_they_are_written() {
        let text = r#"{"cases":[{"name":"n","call":"a.b","arguments":{"x":1.10},"returns":null,
            "imports":[{"call":"c.d","times":"any","returns":18446744073709551615}]}]}"#;
        let file = read(text.as_bytes()).unwrap();
        let case = &file.cases[0];
        assert_eq!(case.arguments.as_ref().unwrap().get(), r#"{"x":1.10}"#);
        assert_eq!(case.returns.as_ref().unwrap().get(), "null");
        let stub = &case.imports[0];
        assert_eq!(stub.returns.as_ref().unwrap().get(), "18446744073709551615");
        assert_eq!(stub.times, Some(TimesFile::Any(Any::Any)));
        assert!(stub.arguments.is_none());
        // What is written is read again.
        let again = serde_json::to_vec(&file).unwrap();
        assert_eq!(read(&again).unwrap().cases.len(), 1);
    }

    #[test]
    fn what_is_wrong_is_named_by_its_path() {
        let (path, line, why) = misread("{\"cases\":\n[{\"name\":\"n\",\"call\":7}]}");
        assert_eq!((path.as_str(), line), (".cases[0].call", 2));
        assert!(why.contains("expected a string"), "{why}");
        let (path, _, why) = misread(r#"{"cases":[{"name":"n","call":"a.b","retuns":1}]}"#);
        assert_eq!(path, ".cases[0].retuns");
        assert!(why.contains("unknown field `retuns`"), "{why}");
        let (_, _, why) = misread(r#"{"cases":[{"call":"a.b"}]}"#);
        assert!(why.contains("missing field `name`"), "{why}");
        let stub = r#"{"cases":[{"name":"n","call":"a.b","imports":[{"call":"c.d","times":0}]}]}"#;
        let (path, _, why) = misread(stub);
        assert_eq!(path, ".cases[0].imports[0].times");
        assert!(why.contains("a number of calls from 1"), "{why}");
        let (path, ..) = misread(r#"{"cases":[{"name":"a" "call":1}]}"#);
        assert_eq!(path, ".cases[0]");
        assert!(misread("{\"cases\":[]} x").2.contains("trailing"));
        assert!(misread("").2.contains("EOF"));
    }
}
