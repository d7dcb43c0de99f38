//! `[stream.NAME]`: subjects whose messages are stored until they are handled.

use serde::Serialize;

use super::MAX_NAME;
use super::events::{Durable, read_durable};
use super::file::Section;
use super::keys::{app, grants, stream};
use super::subjects::SubjectPattern;
use crate::interface::is_label;
use crate::subject;

/// Subjects whose messages are stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StreamSpec {
    /// The name in the manifest.
    #[serde(skip)]
    pub name: String,
    /// The name of the stream in JetStream.
    #[serde(skip)]
    pub stream: String,
    /// What it stores; no two of an app's streams overlap.
    pub subjects: Vec<SubjectPattern>,
    /// How messages are stored and delivered.
    #[serde(flatten)]
    pub durable: Durable,
}

/// Subjects of a stream that a service has to do with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredSubjects {
    /// The subjects.
    pub subjects: SubjectPattern,
    /// The name of the stream in JetStream.
    pub stream: String,
}

/// Reads all streams of the app of this name.
pub(super) fn read(top: &Section<'_>, app_name: &str, declared: &[&str]) -> Vec<StreamSpec> {
    let mut streams: Vec<StreamSpec> = Vec::new();
    for (name, section) in top.named(&app::STREAM, &stream::TABLE) {
        if !is_label(name.value) || name.value.len() > MAX_NAME {
            section.report(
                name.at,
                "this is no name of a stream; accepted: words of letters and digits joined by `-`, starting with a letter",
            );
        }
        let subjects: Vec<SubjectPattern> = section.parsed(&stream::SUBJECTS);
        if section.texts(&stream::SUBJECTS).is_empty() {
            section
                .report_here("`subjects` is missing; accepted: NATS subjects such as `orders.>`");
        }
        for (i, one) in subjects.iter().enumerate() {
            let before = subjects.iter().take(i).map(|other| (name.value, other));
            let others = streams.iter().flat_map(|other| {
                let name = other.name.as_str();
                other.subjects.iter().map(move |subject| (name, subject))
            });
            if let Some((other, two)) = others.chain(before).find(|(_, two)| one.overlaps(two)) {
                section.report_key(
                    stream::SUBJECTS.name,
                    format!("`{one}` and `{two}` of stream `{other}` overlap, a message of both would be stored twice"),
                );
            }
        }
        streams.push(StreamSpec {
            name: name.value.to_owned(),
            stream: subject::message_stream(app_name, name.value),
            subjects,
            durable: read_durable(&section, declared),
        });
    }
    streams
}

/// What streams have to do with these grants. Reports subjects of a stream that are granted only in part.
pub(super) fn granted(
    section: &Section<'_>,
    streams: &[StreamSpec],
    publish: &[SubjectPattern],
    subscribe: &[SubjectPattern],
) -> Vec<StoredSubjects> {
    let all = streams.iter().flat_map(|stream| {
        stream
            .subjects
            .iter()
            .map(move |subjects| (stream, subjects))
    });
    let mut stored = Vec::new();
    for (stream, subjects) in all {
        let consumed: Vec<_> = subscribe
            .iter()
            .filter(|one| subjects.overlaps(one))
            .collect();
        for one in consumed.iter().filter(|one| !subjects.covers(one)) {
            section.report_key(
                grants::SUBSCRIBE.name,
                format!(
                    "`subscribe`: stream `{}` stores `{subjects}`, which is a part of `{one}`; \
                     grant what is stored and what is not apart",
                    stream.name
                ),
            );
        }
        if !consumed.is_empty() || publish.iter().any(|one| subjects.overlaps(one)) {
            stored.push(StoredSubjects {
                subjects: subjects.clone(),
                stream: stream.stream.clone(),
            });
        }
    }
    stored
}
