//! Dead letters: events that a subscriber could not handle, kept until somebody looks at them.
//!
//! A letter is one message of the app's dead-letter stream. Its body is the event's, as it came;
//! everything else is the header [`wire::DEAD_LETTER`]. Its subject ends with its id, which is made of
//! the event and the subscriber, so that a letter written twice is one letter. Whoever changes one
//! says which revision of it is meant, so that no change is lost.
//!
//! What is said of events holds for raw messages that are stored, too.

mod error;
mod list;
mod record;
mod shown;

use std::fmt;

use async_nats::HeaderMap;
use async_nats::jetstream::Context;
use async_nats::jetstream::stream::{LastRawMessageErrorKind, RawMessageErrorKind, Stream};
use bytes::Bytes;

pub use error::{DeadLetterError, Unreadable};
pub use list::{Cursor, Entry, Filter, MAX_RATE, NoCursor, NoPace, Pace, Page, Replays};
pub use record::{Attempt, DeadLetter, HEADROOM};
pub(crate) use record::{dead_letter_id, rfc3339};

use super::stream;
use crate::json::{self, Limits};
use crate::nats::wire_size;
use crate::shape::Signature;
use crate::text::shown;
use crate::{subject, wire};
use error::{failed, refused};
use record::{continued, replay_id, shorten};

/// How often storing a letter is tried anew when something else changes it meanwhile.
const ROUNDS: usize = 8;

/// The dead letters of an app.
#[derive(Clone, Debug)]
pub struct DeadLetters {
    context: Context,
    app: String,
}

/// What a letter is named by whose subject has no id: `at-17` is the seventeenth that was stored.
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
    /// The dead letters of the app with this name. Asks nothing yet.
    #[must_use]
    pub fn new(context: Context, app: &str) -> Self {
        Self {
            context,
            app: app.to_owned(),
        }
    }

    /// One letter as it is stored; its body may be [left](DeadLetter::body_left) in the stream.
    ///
    /// # Errors
    ///
    /// There is none, it cannot be read, or JetStream cannot be reached.
    pub async fn find(&self, id: &str) -> Result<DeadLetter, DeadLetterError> {
        const WHAT: &str = "read a dead letter";
        let not_found = || DeadLetterError::NotFound { id: id.to_owned() };
        let message = match Sequence::parse(id) {
            Some(Sequence(revision)) => {
                let stream = self.stream().await?.ok_or_else(not_found)?;
                match stream.get_raw_message(revision).await {
                    Ok(message) => message,
                    Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => {
                        return Err(not_found());
                    }
                    Err(error) => return Err(failed(WHAT)(error)),
                }
            }
            None => {
                let subject = self.subjects(&Filter::only(id))?;
                let stream = self.stream().await?.ok_or_else(not_found)?;
                match stream.get_last_raw_message_by_subject(&subject).await {
                    Ok(message) => message,
                    Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => {
                        return Err(not_found());
                    }
                    Err(error) => return Err(failed(WHAT)(error)),
                }
            }
        };
        let (subject, headers) = (&message.subject, Some(&message.headers));
        match read(&self.app, subject, headers, message.sequence) {
            Ok(letter) => Ok(DeadLetter {
                body: message.payload,
                ..letter
            }),
            Err(unreadable) => Err(DeadLetterError::Unreadable(Box::new(unreadable))),
        }
    }

    /// One letter with its body.
    ///
    /// # Errors
    ///
    /// As [`find`](Self::find), and if its body is gone.
    pub async fn get(&self, id: &str) -> Result<DeadLetter, DeadLetterError> {
        let letter = self.find(id).await?;
        if !letter.body_left {
            return Ok(letter);
        }
        const WHAT: &str = "read an event";
        let stream = self.context.get_stream_no_info(&letter.stream).await;
        let stream = stream.map_err(failed(WHAT))?;
        match stream.get_raw_message(letter.sequence).await {
            Ok(event) => Ok(DeadLetter {
                body: event.payload,
                ..letter
            }),
            Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => {
                Err(DeadLetterError::NoBody { id: letter.id })
            }
            Err(error) => Err(failed(WHAT)(error)),
        }
    }

    /// Delivers a letter's event again, to its subscriber only. The letter stays until the event
    /// is handled; when it fails again the letter has a longer history.
    ///
    /// Replaying a letter that has not failed again since does nothing within the wire's `dedup`.
    ///
    /// # Errors
    ///
    /// There is none, its body is gone, or the event could not be stored.
    pub async fn replay(&self, id: &str) -> Result<(), DeadLetterError> {
        const WHAT: &str = "replay a dead letter";
        let letter = self.get(id).await?;
        let mut headers = HeaderMap::new();
        let own = |name: &str| !name.starts_with("Nats-");
        for (name, values) in letter.headers.iter().filter(|(name, _)| own(name)) {
            for value in values {
                headers.append(name.as_str(), value.as_str());
            }
        }
        headers.insert(wire::DEAD_LETTER, letter.id.as_str());
        headers.insert(wire::MESSAGE_ID, replay_id(&letter).as_str());
        let original = letter.moved_to.as_ref().unwrap_or(&letter.subject);
        let subject = subject::replay(&self.app, &letter.service, original);
        let context = &self.context;
        let sent = context.publish_with_headers(subject, headers, letter.body);
        let stored = sent.await.map_err(failed(WHAT))?;
        stored.await.map_err(failed(WHAT)).map(drop)
    }

    /// Gives a letter another body: of the event's type, or any for a raw message. `ask` is for the
    /// type of an event whose stream does not tell it.
    ///
    /// # Errors
    ///
    /// The letter is another than `letter` by now, nobody tells the type, the body is not of it or
    /// too large, or JetStream cannot be reached.
    pub async fn edit(
        &self,
        letter: &DeadLetter,
        body: Bytes,
        ask: impl Future<Output = Option<Signature>>,
    ) -> Result<DeadLetter, DeadLetterError> {
        let (size, limit) = (body.len(), self.max_payload());
        if size > limit {
            return Err(DeadLetterError::TooLarge { size, limit });
        }
        // The value that orders the event may be another now.
        let moved_to = match letter.is_message() {
            true => None,
            false => {
                let subject = self.subject_with(letter, &body, ask).await?;
                (subject != letter.subject).then_some(subject)
            }
        };
        let mut edited = DeadLetter {
            size,
            body,
            edited: true,
            moved_to,
            body_left: false,
            ..letter.clone()
        };
        let (headers, size) = self.write(&edited)?;
        if size > limit {
            return Err(DeadLetterError::TooLarge { size, limit });
        }
        edited.revision = self.put(&edited, headers, letter.revision).await?;
        Ok(edited)
    }

    /// What the letter's event would have been published on with this body, which is checked.
    async fn subject_with(
        &self,
        letter: &DeadLetter,
        body: &Bytes,
        ask: impl Future<Output = Option<Signature>>,
    ) -> Result<String, DeadLetterError> {
        const WHAT: &str = "find out what an event carries";
        let carried =
            stream::publication_of(&self.context, &letter.stream, &letter.function, ask).await;
        let function = letter.function.clone();
        let Some(publication) = carried.map_err(failed(WHAT))? else {
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

    /// Drops the letters that `filter` means, also those that cannot be read, and gives their
    /// number.
    ///
    /// # Errors
    ///
    /// JetStream cannot be reached.
    pub async fn purge(&self, filter: &Filter) -> Result<u64, DeadLetterError> {
        const WHAT: &str = "purge dead letters";
        let place = filter.id.as_deref().and_then(Sequence::parse);
        if let Some(Sequence(revision)) = place {
            let Some(stream) = self.stream().await? else {
                return Ok(0);
            };
            return match stream.get_raw_message(revision).await {
                Ok(_) => {
                    let deleted = stream.delete_message(revision).await;
                    Ok(u64::from(deleted.map_err(failed(WHAT))?))
                }
                Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => Ok(0),
                Err(error) => Err(failed(WHAT)(error)),
            };
        }
        let subjects = self.subjects(filter)?;
        let Some(stream) = self.stream().await? else {
            return Ok(0);
        };
        let purged = stream.purge().filter(subjects).await;
        Ok(purged.map_err(failed(WHAT))?.purged)
    }

    /// Stores a letter; done when it is. One of the same id is replaced, and the attempts that it
    /// told of come first in the new one.
    pub(crate) async fn store(
        &self,
        letter: DeadLetter,
        replayed: bool,
    ) -> Result<(), DeadLetterError> {
        // The same failure of the same delivery, told twice, is stored once.
        let DeadLetter {
            id,
            sequence,
            attempts,
            ..
        } = &letter;
        let message_id = format!("dead-{id}-{sequence}-{}", attempts.len());
        // Mostly there is none, and nothing has to be asked.
        let (mut now, mut expected) = (letter.clone(), 0);
        for round in 0..ROUNDS {
            if replayed || round > 0 {
                (now, expected) = match self.find(&letter.id).await {
                    Ok(before) if replayed => {
                        let revision = before.revision;
                        (continued(before, letter.clone()), revision)
                    }
                    // The event came once more after it had become a letter, which somebody may
                    // have mended since.
                    Ok(_) => return Ok(()),
                    Err(DeadLetterError::NotFound { .. }) => (letter.clone(), 0),
                    Err(DeadLetterError::Unreadable(other)) => (letter.clone(), other.revision),
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
            match self.put(&now, headers, expected).await {
                Err(DeadLetterError::Changed { .. }) => {}
                ended => return ended.map(drop),
            }
        }
        Err(DeadLetterError::Changed { id: letter.id })
    }

    /// Drops the letter of a replayed event that was handled.
    pub(crate) async fn settle(&self, id: &str) -> Result<(), DeadLetterError> {
        self.purge(&Filter::only(id)).await.map(drop)
    }

    async fn stream(&self) -> Result<Option<Stream>, DeadLetterError> {
        let name = subject::dead_letter_stream(&self.app);
        stream::find(&self.context, &name)
            .await
            .map_err(failed("reach the dead letters"))
    }

    fn subjects(&self, filter: &Filter) -> Result<String, DeadLetterError> {
        // Whoever asks may have typed these, and a wildcard would mean more than it says.
        if let Some(id) = filter.id.as_ref().filter(|id| !is_id(id)) {
            return Err(DeadLetterError::NoId(shown(id).into_owned()));
        }
        let service = filter.service.as_deref().map(|name| {
            let plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
            // `-` alone is nobody's name.
            match name.chars().all(plain) && !name.is_empty() {
                true => name,
                false => "-",
            }
        });
        let (function, id) = (filter.function.as_ref(), filter.id.as_deref());
        Ok(subject::dead_letters(&self.app, service, function, id))
    }

    /// The headers of a letter, and its size in all.
    fn write(&self, letter: &DeadLetter) -> Result<(HeaderMap, usize), DeadLetterError> {
        // JSON escapes line breaks, so it is one line.
        let account = serde_json::to_string(letter).map_err(failed("write a dead letter"))?;
        let mut headers = HeaderMap::new();
        headers.insert(wire::DEAD_LETTER, account.as_str());
        let size = wire_size(&headers, letter.body.len());
        Ok((headers, size))
    }

    fn max_payload(&self) -> usize {
        // What is added later: an id and an expected sequence.
        self.context.client().max_payload().saturating_sub(256)
    }

    /// Stores a letter in the place of the revision that is there; 0 is none.
    async fn put(
        &self,
        letter: &DeadLetter,
        mut headers: HeaderMap,
        expected: u64,
    ) -> Result<u64, DeadLetterError> {
        headers.insert(
            async_nats::header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE,
            expected.to_string().as_str(),
        );
        let subject = letter.place(&self.app);
        let (context, body) = (&self.context, letter.body.clone());
        let sent = context.publish_with_headers(subject, headers, body).await;
        let stored = sent.map_err(refused(&letter.id))?;
        Ok(stored.await.map_err(refused(&letter.id))?.sequence)
    }
}

/// The letter that a stored message is.
fn read(
    app: &str,
    subject: &str,
    headers: Option<&HeaderMap>,
    revision: u64,
) -> Result<DeadLetter, Unreadable> {
    let unreadable = |why: &str| Unreadable::new(subject, revision, why);
    let account = headers.and_then(|headers| headers.get(wire::DEAD_LETTER));
    let account = account.ok_or_else(|| unreadable("the header Bay-Dead-Letter is missing"))?;
    let letter: DeadLetter = serde_json::from_str(account.as_str())
        .map_err(|error| unreadable(&format!("the header Bay-Dead-Letter: {error}")))?;
    // It says where it would be replayed, which has to be what its subject may be seen for.
    if letter.place(app) != subject {
        return Err(unreadable("the record is that of another dead letter"));
    }
    Ok(DeadLetter { revision, ..letter })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_letter_has_a_name_and_a_reason() {
        let subject = "bay-dlq.shop.mail.shop.orders.events.v1.placed.0123456789abcdef";
        let read = |subject: &str, account: Option<&str>| {
            let mut headers = HeaderMap::new();
            if let Some(account) = account {
                headers.insert(wire::DEAD_LETTER, account);
            }
            let unreadable = read("shop", subject, Some(&headers), 17).unwrap_err();
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
    fn a_place_is_a_number() {
        for text in ["at-", "at-x", "at-+1", "17", "at-99999999999999999999"] {
            assert_eq!(Sequence::parse(text), None, "{text}");
        }
    }
}
