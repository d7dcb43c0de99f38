//! Dead letters: events that a subscriber could not handle, kept for an operator.
//!
//! A dead letter is one message of the app's dead-letter stream. Its body is the event's, as it
//! came; everything else is its record, the header [`wire::DEAD_LETTER`]. Its subject ends with its
//! id, which is made of the event and the subscriber, so that a dead letter written twice is one
//! dead letter. A change names the revision that it is made to, so that no change is lost.
//!
//! All of this holds for stored messages as for stored events.

mod error;
mod list;
mod raw;
mod record;
mod shown;

use std::fmt;

use async_nats::HeaderMap;
use async_nats::jetstream::Context;
use async_nats::jetstream::stream::Stream;
use bytes::Bytes;

pub use error::{DeadLetterError, Unreadable};
pub use list::{Cursor, Entry, Filter, MAX_RATE, NoCursor, NoPace, Pace, Page, Replays};
pub use record::{Attempt, DeadLetter, HEADROOM};
pub(crate) use record::{dead_letter_id, rfc3339};

use super::stream;
use crate::headers::Headers;
use crate::json::{self, Limits};
use crate::nats::{Link, Malformed, wire_size};
use crate::shape::Signature;
use crate::text::shown;
use crate::{subject, wire};
use error::{failed, refused};
use raw::Which;
use record::{replay_id, shorten, with_history_of};

/// Attempts at storing a dead letter that is changed by others meanwhile.
const STORE_ATTEMPTS: usize = 8;

/// The dead letters of an app.
#[derive(Clone, Debug)]
pub struct DeadLetters {
    context: Context,
    /// What was stored is read over it, since anything can be stored.
    link: Link,
    app: String,
}

/// The name of a dead letter whose subject has no id: `at-17` is the one with sequence 17.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sequence(u64);

impl Sequence {
    fn parse(text: &str) -> Option<Self> {
        let number = text.strip_prefix("at-")?;
        let digits = number.bytes().all(|b| b.is_ascii_digit());
        digits.then(|| number.parse().ok().map(Self)).flatten()
    }
}

impl fmt::Display for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at-{}", self.0)
    }
}

fn is_id(text: &str) -> bool {
    text.len() == 16 && text.bytes().all(|b| b.is_ascii_hexdigit())
}

impl DeadLetters {
    /// The dead letters of the app with this name. Opens their stream when it is first used.
    #[must_use]
    pub fn new(context: Context, link: Link, app: &str) -> Self {
        Self {
            context,
            link,
            app: app.to_owned(),
        }
    }

    /// One dead letter as it is stored; its body may be [left](DeadLetter::body_left) in the stream.
    ///
    /// # Errors
    ///
    /// There is no such dead letter, it cannot be read, or JetStream cannot be reached.
    pub async fn find(&self, id: &str) -> Result<DeadLetter, DeadLetterError> {
        const WHAT: &str = "read a dead letter";
        let not_found = || DeadLetterError::NotFound { id: id.to_owned() };
        let subject;
        let which = match Sequence::parse(id) {
            Some(Sequence(revision)) => Which::Sequence(revision),
            None => {
                subject = self.subjects(&Filter::only(id))?;
                Which::LastOf(&subject)
            }
        };
        self.stream().await?.ok_or_else(not_found)?;
        let stream = subject::dead_letter_stream(&self.app);
        let message = self.raw(WHAT, &stream, which).await?;
        let message = message.ok_or_else(not_found)?;
        let headers = message.headers.as_ref().map(Some).map_err(|why| *why);
        match read(&self.app, &message.subject, headers, message.sequence) {
            Ok(dead_letter) => Ok(DeadLetter {
                body: message.body,
                ..dead_letter
            }),
            Err(unreadable) => Err(DeadLetterError::Unreadable(Box::new(unreadable))),
        }
    }

    /// One dead letter with its body.
    ///
    /// # Errors
    ///
    /// As [`find`](Self::find), and if its body is gone.
    pub async fn get(&self, id: &str) -> Result<DeadLetter, DeadLetterError> {
        let dead_letter = self.find(id).await?;
        if !dead_letter.body_left {
            return Ok(dead_letter);
        }
        const WHAT: &str = "read an event";
        let which = Which::Sequence(dead_letter.sequence);
        match self.raw(WHAT, &dead_letter.stream, which).await? {
            Some(event) => Ok(DeadLetter {
                body: event.body,
                ..dead_letter
            }),
            None => Err(DeadLetterError::NoBody { id: dead_letter.id }),
        }
    }

    /// Delivers a dead letter's event again, to its subscriber only. The dead letter stays until
    /// the event is handled; when it fails again the dead letter has a longer history.
    ///
    /// Replaying a dead letter that has not failed again since does nothing within the wire's
    /// `dedup`.
    ///
    /// # Errors
    ///
    /// There is no such dead letter, its body is gone, or the event could not be stored.
    pub async fn replay(&self, id: &str) -> Result<(), DeadLetterError> {
        const WHAT: &str = "replay a dead letter";
        let dead_letter = self.get(id).await?;
        let mut headers = HeaderMap::new();
        let own = |name: &str| !name.starts_with("Nats-");
        for (name, values) in dead_letter.headers.iter().filter(|(name, _)| own(name)) {
            for value in values {
                headers.append(name.as_str(), value.as_str());
            }
        }
        headers.insert(wire::DEAD_LETTER, dead_letter.id.as_str());
        headers.insert(wire::MESSAGE_ID, replay_id(&dead_letter).as_str());
        let original = dead_letter
            .moved_to
            .as_ref()
            .unwrap_or(&dead_letter.subject);
        let subject = subject::replay(&self.app, &dead_letter.service, original);
        let context = &self.context;
        let sent = context.publish_with_headers(subject, headers, dead_letter.body);
        let stored = sent.await.map_err(failed(WHAT))?;
        stored.await.map_err(failed(WHAT)).map(drop)
    }

    /// Replaces the body of a dead letter: by one of the event's type, or by any for a message.
    /// `fallback` finds the type of an event whose stream does not have it.
    ///
    /// # Errors
    ///
    /// The dead letter has changed since it was read, the type is unknown, the body is not of it or
    /// too large, or JetStream cannot be reached.
    pub async fn edit(
        &self,
        dead_letter: &DeadLetter,
        body: Bytes,
        fallback: impl Future<Output = Option<Signature>>,
    ) -> Result<DeadLetter, DeadLetterError> {
        let (size, limit) = (body.len(), self.max_payload());
        if size > limit {
            return Err(DeadLetterError::TooLarge { size, limit });
        }
        // The key of the event may be another now.
        let moved_to = if dead_letter.is_message() {
            None
        } else {
            let subject = self.subject_with(dead_letter, &body, fallback).await?;
            (subject != dead_letter.subject).then_some(subject)
        };
        let mut edited = DeadLetter {
            size,
            body,
            edited: true,
            moved_to,
            body_left: false,
            ..dead_letter.clone()
        };
        let (headers, size) = self.write(&edited)?;
        if size > limit {
            return Err(DeadLetterError::TooLarge { size, limit });
        }
        edited.revision = self.replace(&edited, headers, dead_letter.revision).await?;
        Ok(edited)
    }

    /// Checks a body against the type of the dead letter's event; returns the subject of an event
    /// with this body.
    async fn subject_with(
        &self,
        dead_letter: &DeadLetter,
        body: &Bytes,
        fallback: impl Future<Output = Option<Signature>>,
    ) -> Result<String, DeadLetterError> {
        const WHAT: &str = "find the type of an event";
        let (context, stream) = (&self.context, &dead_letter.stream);
        let known = stream::publication_of(context, stream, &dead_letter.function, fallback).await;
        let function = dead_letter.function.clone();
        let Some(publication) = known.map_err(failed(WHAT))? else {
            return Err(DeadLetterError::Untyped { function });
        };
        let limits = Limits {
            bytes: body.len(),
            ..Limits::default()
        };
        let signature = publication.signature();
        match json::decode_arguments(body, signature, &limits) {
            Ok(arguments) => Ok(publication.subject_of(&arguments)),
            Err(error) => Err(DeadLetterError::Misfit {
                why: error.to_string(),
                takes: signature.parameters(),
                function,
            }),
        }
    }

    /// Drops the dead letters that `filter` selects, also unreadable ones, and returns their number.
    ///
    /// # Errors
    ///
    /// JetStream cannot be reached.
    pub async fn purge(&self, filter: &Filter) -> Result<u64, DeadLetterError> {
        const WHAT: &str = "purge dead letters";
        let sequence = filter.id.as_deref().and_then(Sequence::parse);
        if let Some(Sequence(revision)) = sequence {
            let Some(stream) = self.stream().await? else {
                return Ok(0);
            };
            let (name, which) = (&stream.cached_info().config.name, Which::Sequence(revision));
            return match self.raw(WHAT, name, which).await? {
                Some(_) => {
                    let deleted = stream.delete_message(revision).await;
                    Ok(u64::from(deleted.map_err(failed(WHAT))?))
                }
                None => Ok(0),
            };
        }
        let subjects = self.subjects(filter)?;
        let Some(stream) = self.stream().await? else {
            return Ok(0);
        };
        let purged = stream.purge().filter(subjects).await;
        Ok(purged.map_err(failed(WHAT))?.purged)
    }

    /// Stores a dead letter; returns when the stream has it. One of the same id is replaced, and its
    /// attempts come first in the new one.
    pub(crate) async fn store(
        &self,
        dead_letter: DeadLetter,
        replayed: bool,
    ) -> Result<(), DeadLetterError> {
        // The same failure of the same delivery, reported twice, is stored once.
        let DeadLetter {
            id,
            sequence,
            attempts,
            ..
        } = &dead_letter;
        let message_id = format!("dead-{id}-{sequence}-{}", attempts.len());
        // Mostly there is none yet, and no lookup is needed.
        let (mut now, mut expected) = (dead_letter.clone(), 0);
        for attempt in 0..STORE_ATTEMPTS {
            if replayed || attempt > 0 {
                (now, expected) = match self.find(&dead_letter.id).await {
                    Ok(before) if replayed => {
                        let revision = before.revision;
                        (with_history_of(before, dead_letter.clone()), revision)
                    }
                    // The event was delivered once more after it had become a dead letter, which
                    // may have been edited since.
                    Ok(_) => return Ok(()),
                    Err(DeadLetterError::NotFound { .. }) => (dead_letter.clone(), 0),
                    Err(DeadLetterError::Unreadable(other)) => {
                        (dead_letter.clone(), other.revision)
                    }
                    Err(error) => return Err(error),
                };
            }
            shorten(&mut now);
            let (mut headers, size) = self.write(&now)?;
            if size > self.max_payload() {
                now.body = Bytes::new();
                now.body_left = true;
                (headers, _) = self.write(&now)?;
            }
            headers.insert(wire::MESSAGE_ID, message_id.as_str());
            match self.replace(&now, headers, expected).await {
                Err(DeadLetterError::Changed { .. }) => {}
                ended => return ended.map(drop),
            }
        }
        Err(DeadLetterError::Changed { id: dead_letter.id })
    }

    /// Drops the dead letter of a replayed event that was handled.
    pub(crate) async fn remove_handled(&self, id: &str) -> Result<(), DeadLetterError> {
        self.purge(&Filter::only(id)).await.map(drop)
    }

    async fn stream(&self) -> Result<Option<Stream>, DeadLetterError> {
        let name = subject::dead_letter_stream(&self.app);
        stream::find(&self.context, &name)
            .await
            .map_err(failed("reach the dead letters"))
    }

    fn subjects(&self, filter: &Filter) -> Result<String, DeadLetterError> {
        // Any client may have sent these, and a wildcard would select more than it says.
        if let Some(id) = filter.id.as_ref().filter(|id| !is_id(id)) {
            return Err(DeadLetterError::NoId(shown(id).into_owned()));
        }
        let service = filter.service.as_deref().map(|name| {
            let plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
            // `-` alone is the name of no service.
            if name.chars().all(plain) && !name.is_empty() {
                name
            } else {
                "-"
            }
        });
        let (function, id) = (filter.function.as_ref(), filter.id.as_deref());
        Ok(subject::dead_letters(&self.app, service, function, id))
    }

    /// The headers of a dead letter, and its size with them.
    fn write(&self, dead_letter: &DeadLetter) -> Result<(HeaderMap, usize), DeadLetterError> {
        // JSON escapes line breaks, so it is one line.
        let record = serde_json::to_string(dead_letter).map_err(failed("write a dead letter"))?;
        let mut headers = HeaderMap::new();
        headers.insert(wire::DEAD_LETTER, record.as_str());
        let size = wire_size(&headers, dead_letter.body.len());
        Ok((headers, size))
    }

    fn max_payload(&self) -> usize {
        // Room for the headers that are added later: an id and an expected sequence.
        self.context.client().max_payload().saturating_sub(256)
    }

    /// Stores a dead letter instead of its present revision; 0 stands for none. Returns the new one.
    async fn replace(
        &self,
        dead_letter: &DeadLetter,
        mut headers: HeaderMap,
        expected: u64,
    ) -> Result<u64, DeadLetterError> {
        headers.insert(
            async_nats::header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE,
            expected.to_string().as_str(),
        );
        let subject = dead_letter.stored_subject(&self.app);
        let (context, body) = (&self.context, dead_letter.body.clone());
        let sent = context.publish_with_headers(subject, headers, body).await;
        let stored = sent.map_err(refused(&dead_letter.id))?;
        Ok(stored.await.map_err(refused(&dead_letter.id))?.sequence)
    }
}

/// Reads a stored message as a dead letter.
fn read(
    app: &str,
    subject: &str,
    headers: Result<Option<&Headers>, Malformed>,
    revision: u64,
) -> Result<DeadLetter, Unreadable> {
    let unreadable = |why: &str| Unreadable::new(subject, revision, why);
    let headers = headers.map_err(|why| unreadable(&why.to_string()))?;
    let record = headers.and_then(|headers| headers.get(wire::DEAD_LETTER));
    let record = record.ok_or_else(|| unreadable("the header Bay-Dead-Letter is missing"))?;
    let dead_letter: DeadLetter = serde_json::from_str(record)
        .map_err(|error| unreadable(&format!("the header Bay-Dead-Letter: {error}")))?;
    // The record says where the event is replayed, so it has to belong to the subject that
    // permissions were checked for.
    if dead_letter.stored_subject(app) != subject {
        return Err(unreadable("the record is that of another dead letter"));
    }
    Ok(DeadLetter {
        revision,
        ..dead_letter
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unreadable_message_has_a_name_and_a_reason() {
        let subject = "bay-dlq.shop.mail.shop.orders.events.v1.placed.0123456789abcdef";
        let read = |subject: &str, record: Option<&str>| {
            let mut headers = Headers::new();
            if let Some(record) = record {
                headers.append(wire::DEAD_LETTER, record);
            }
            let unreadable = read("shop", subject, Ok(Some(&headers)), 17).unwrap_err();
            assert_eq!((&*unreadable.subject, unreadable.revision), (subject, 17));
            (unreadable.id, unreadable.unreadable)
        };
        let (id, why) = read(subject, None);
        assert_eq!(id, "0123456789abcdef");
        assert_eq!(why, "the header Bay-Dead-Letter is missing");
        let (id, why) = read("bay-dlq.shop.mail", Some("{\u{1b}"));
        assert_eq!(id, "at-17");
        assert_eq!(Sequence::parse(&id), Some(Sequence(17)));
        assert!(why.starts_with("the header Bay-Dead-Letter: "), "{why}");
        let (_, why) = read(subject, Some(&format!("{{\"{}\":1}}", "x".repeat(9_000))));
        assert!(why.len() < 300, "{why}");
    }

    #[test]
    fn a_sequence_is_a_number() {
        for text in ["at-", "at-x", "at-+1", "17", "at-99999999999999999999"] {
            assert_eq!(Sequence::parse(text), None, "{text}");
        }
    }
}
