//! Dead letters: events that a subscriber could not handle, kept until somebody looks at them.
//!
//! A letter is one message of the app's dead-letter stream. Its body is the event's, as it came;
//! everything else is the header [`wire::LETTER`]. Its subject ends with its id, which is made of
//! the event and the subscriber, so that a letter written twice is one letter.
//!
//! What is said of events holds for raw messages that are stored, too.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use async_nats::HeaderMap;
use async_nats::jetstream::Context;
use async_nats::jetstream::consumer::AckPolicy;
use async_nats::jetstream::consumer::pull;
use async_nats::jetstream::stream::{LastRawMessageErrorKind, RawMessageErrorKind, Stream};
use bytes::Bytes;
use futures_util::StreamExt;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::call::Blame;
use crate::interface::InterfaceId;
use crate::manifest::Outcome;
use crate::nats::wire_size;
use crate::{subject, wire};

/// Bytes of a letter besides its event's body. Publishing an event that is to be stored leaves
/// room for them, so that it still fits when it has become a letter.
pub const ROOM: usize = 32 << 10;

/// Bytes of an attempt's error that are kept.
const MAX_ERROR: usize = 4 << 10;

/// Bytes of all attempts of a letter. The oldest are left out when it is more.
const MAX_ATTEMPTS: usize = 20 << 10;

/// Bytes of an event's own headers that are kept.
const MAX_HEADERS: usize = 8 << 10;

/// The longest that a list may be at a time, by default.
pub const LIST: usize = 1_000;

/// An event that a subscriber could not handle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Letter {
    /// The letter's name: the same for the same event and subscriber.
    pub id: String,
    /// The subscriber.
    pub service: String,
    /// SHA-256 of the component that failed last.
    pub digest: String,
    /// The event's function as `namespace:package/interface.function@version`; for a raw message
    /// the function that handles it.
    pub function: String,
    /// The subject that the event was published on.
    pub subject: String,
    /// The event's headers.
    pub headers: BTreeMap<String, Vec<String>>,
    /// The stream that stored the event.
    pub stream: String,
    /// The event's place in the stream.
    pub sequence: u64,
    /// When the event was stored, as RFC 3339 by the NATS server's clock.
    pub published: String,
    /// The attempts at it, the oldest first.
    pub attempts: Vec<Attempt>,
    /// Attempts that were left out, older than all of those.
    #[serde(default)]
    pub left_out: usize,
    /// Whether the body is another than the event's.
    #[serde(default)]
    pub edited: bool,
    /// Bytes of the body.
    pub size: usize,
    /// Whether the body did not fit and has to be taken from the stream.
    #[serde(default)]
    pub body_left: bool,
    /// The body; empty in a list.
    #[serde(skip)]
    pub body: Bytes,
}

impl Letter {
    /// Whether it is of a raw message, whose body has no type.
    #[must_use]
    pub fn is_raw(&self) -> bool {
        !subject::is_own(&self.subject)
    }
}

/// One attempt of a subscriber at an event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// When it ended, as RFC 3339 by the host's clock.
    pub time: String,
    /// How it failed; absent when no attempt could succeed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// The status of the error, absent for an `err` value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<u16>,
    /// Who has to change something.
    pub blame: Blame,
    /// The error's message, or the `err` value as JSON.
    pub error: String,
}

impl Attempt {
    /// An attempt that ended now.
    pub(crate) fn now(
        outcome: Option<Outcome>,
        code: Option<u16>,
        blame: Blame,
        error: &str,
    ) -> Self {
        Self {
            // A clock before year 0 or after 9999 is none.
            time: rfc3339(OffsetDateTime::now_utc()),
            outcome,
            code,
            blame,
            error: error
                .get(..error.floor_char_boundary(MAX_ERROR))
                .unwrap_or_default()
                .to_owned(),
        }
    }
}

pub(crate) fn rfc3339(time: OffsetDateTime) -> String {
    time.format(&Rfc3339).unwrap_or_default()
}

/// Which letters are meant; all of them unless it says otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Those of this subscriber.
    pub service: Option<String>,
    /// Those of this interface; without a version, of all of its versions.
    pub interface: Option<InterfaceId>,
    /// Those of functions of this name.
    pub function: Option<String>,
    /// The one with this id.
    pub id: Option<String>,
}

/// Why something could not be done with a letter.
#[derive(Debug, thiserror::Error)]
pub enum LettersError {
    /// There is none with this id.
    #[error("there is no dead letter \"{id}\"")]
    NotFound {
        /// The id.
        id: String,
    },
    /// What is given as an id cannot be one.
    #[error("`{0}` is no id of a dead letter; accepted: 16 hexadecimal digits")]
    NoId(String),
    /// Its event was too large to be kept with it, and the stream has dropped it since.
    #[error(
        "the body of dead letter \"{id}\" is gone: it was too large to be kept, and the event has expired"
    )]
    NoBody {
        /// The id.
        id: String,
    },
    /// Its body is too large to be kept in a letter.
    #[error("{size} bytes are too many for a dead letter")]
    TooLarge {
        /// Bytes of the body and everything else.
        size: usize,
    },
    /// It changed while it was edited.
    #[error("dead letter \"{id}\" has changed meanwhile; look at it again")]
    Changed {
        /// The id.
        id: String,
    },
    /// What is stored is no letter.
    #[error("dead letter {sequence} of \"{stream}\" cannot be read")]
    Broken {
        /// The stream.
        stream: String,
        /// The place in it.
        sequence: u64,
    },
    /// JetStream cannot be reached or refuses.
    #[error("cannot {what}")]
    Store {
        /// What was to be done.
        what: &'static str,
        /// What NATS said.
        source: async_nats::Error,
    },
}

fn store<E: Into<async_nats::Error>>(what: &'static str) -> impl FnOnce(E) -> LettersError {
    move |source| LettersError::Store {
        what,
        source: source.into(),
    }
}

/// The dead letters of an app.
#[derive(Clone, Debug)]
pub struct Letters {
    context: Context,
    app: String,
}

impl Letters {
    /// The dead letters of the app with this name. Asks nothing yet.
    #[must_use]
    pub fn new(context: Context, app: &str) -> Self {
        Self {
            context,
            app: app.to_owned(),
        }
    }

    /// The letters that `filter` means, those that failed longest ago first and no more than
    /// `limit`, without their bodies. An app that never had one has none.
    ///
    /// # Errors
    ///
    /// JetStream cannot be reached.
    ///
    /// # Cost
    ///
    /// Reads the letters' accounts from the server, some KiB each.
    pub async fn list(&self, filter: &Filter, limit: usize) -> Result<Vec<Letter>, LettersError> {
        const WHAT: &str = "list dead letters";
        let Some(stream) = self.stream().await? else {
            return Ok(Vec::new());
        };
        let config = pull::Config {
            filter_subject: self.subjects(filter)?,
            ack_policy: AckPolicy::None,
            headers_only: true,
            inactive_threshold: std::time::Duration::from_secs(30),
            memory_storage: true,
            num_replicas: 1,
            ..pull::Config::default()
        };
        let consumer = stream.create_consumer(config).await.map_err(store(WHAT))?;
        let mut letters = Vec::new();
        while letters.len() < limit {
            let most = (limit - letters.len()).min(256);
            let batch = consumer.fetch().max_messages(most).messages().await;
            let mut batch = batch.map_err(store(WHAT))?;
            let before = letters.len();
            while let Some(message) = batch.next().await {
                let message = message.map_err(store(WHAT))?;
                let sequence = message.info().map_or(0, |info| info.stream_sequence);
                letters.push(self.read(message.headers.as_ref(), sequence)?);
            }
            if letters.len() == before {
                break;
            }
        }
        // It would end by itself after a while.
        let _ = stream.delete_consumer(&consumer.cached_info().name).await;
        Ok(letters)
    }

    /// One letter with its body.
    ///
    /// # Errors
    ///
    /// There is none, its body is gone, or JetStream cannot be reached.
    pub async fn get(&self, id: &str) -> Result<Letter, LettersError> {
        let (letter, _) = self.find(id).await?;
        if !letter.body_left {
            return Ok(letter);
        }
        const WHAT: &str = "read an event";
        let stream = self.context.get_stream_no_info(&letter.stream).await;
        let stream = stream.map_err(store(WHAT))?;
        match stream.get_raw_message(letter.sequence).await {
            Ok(event) => Ok(Letter {
                body: event.payload,
                ..letter
            }),
            Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => {
                Err(LettersError::NoBody { id: letter.id })
            }
            Err(error) => Err(store(WHAT)(error)),
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
    pub async fn replay(&self, id: &str) -> Result<(), LettersError> {
        let letter = self.get(id).await?;
        let mut headers = HeaderMap::new();
        let own = |name: &str| !name.starts_with("Nats-");
        for (name, values) in letter.headers.iter().filter(|(name, _)| own(name)) {
            for value in values {
                headers.append(name.as_str(), value.as_str());
            }
        }
        headers.insert(wire::LETTER, letter.id.as_str());
        headers.insert(wire::MESSAGE_ID, replay_id(&letter).as_str());
        let subject = subject::replay(&self.app, &letter.service, &letter.subject);
        self.publish("replay a dead letter", subject, headers, letter.body)
            .await
    }

    /// Gives a letter another body, of which the caller has checked that it is of the event's
    /// type.
    ///
    /// # Errors
    ///
    /// There is none, it changed meanwhile, the body is too large, or JetStream cannot be reached.
    pub async fn edit(&self, id: &str, body: Bytes) -> Result<Letter, LettersError> {
        let (letter, sequence) = self.find(id).await?;
        let letter = Letter {
            size: body.len(),
            body,
            edited: true,
            body_left: false,
            ..letter
        };
        let mut headers = self.write(&letter)?;
        let size = wire_size(&headers, letter.body.len());
        if size > self.max_payload() {
            return Err(LettersError::TooLarge { size });
        }
        // Once more with another mend is no repetition.
        let id = format!("{:016x}", rand::random::<u64>());
        headers.insert(wire::MESSAGE_ID, id.as_str());
        headers.insert(
            "Nats-Expected-Last-Subject-Sequence",
            sequence.to_string().as_str(),
        );
        let subject = self.place(&letter);
        match self
            .publish("store a dead letter", subject, headers, letter.body.clone())
            .await
        {
            Ok(()) => Ok(letter),
            Err(LettersError::Store { source, .. })
                if source.to_string().contains("wrong last sequence") =>
            {
                Err(LettersError::Changed { id: letter.id })
            }
            Err(error) => Err(error),
        }
    }

    /// Drops the letters that `filter` means, and gives their number.
    ///
    /// # Errors
    ///
    /// JetStream cannot be reached.
    pub async fn purge(&self, filter: &Filter) -> Result<u64, LettersError> {
        let Some(stream) = self.stream().await? else {
            return Ok(0);
        };
        let purged = stream.purge().filter(self.subjects(filter)?).await;
        Ok(purged.map_err(store("purge dead letters"))?.purged)
    }

    /// Stores a letter; done when it is. One of the same id is replaced, and the attempts that it
    /// told of come first in the new one.
    pub(crate) async fn bury(
        &self,
        mut letter: Letter,
        replayed: bool,
    ) -> Result<(), LettersError> {
        // The same failure of the same delivery, told twice, is stored once.
        let Letter {
            id,
            sequence,
            attempts,
            ..
        } = &letter;
        let message_id = format!("dead-{id}-{sequence}-{}", attempts.len());
        if replayed {
            match self.find(&letter.id).await {
                Ok((before, _)) => letter = continued(before, letter),
                Err(LettersError::NotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        shorten(&mut letter);
        let mut headers = self.write(&letter)?;
        if wire_size(&headers, letter.body.len()) > self.max_payload() {
            letter.body = Bytes::new();
            letter.body_left = true;
            headers = self.write(&letter)?;
        }
        headers.insert(wire::MESSAGE_ID, message_id.as_str());
        let subject = self.place(&letter);
        self.publish("store a dead letter", subject, headers, letter.body)
            .await
    }

    /// Drops the letter of a replayed event that was handled.
    pub(crate) async fn settle(&self, id: &str) -> Result<(), LettersError> {
        let id = Some(id.to_owned());
        let filter = Filter {
            id,
            ..Filter::default()
        };
        self.purge(&filter).await.map(drop)
    }

    /// A letter as it is stored, and its place in the stream.
    async fn find(&self, id: &str) -> Result<(Letter, u64), LettersError> {
        let not_found = || LettersError::NotFound { id: id.to_owned() };
        let filter = Filter {
            id: Some(id.to_owned()),
            ..Filter::default()
        };
        let subject = self.subjects(&filter)?;
        let stream = self.stream().await?.ok_or_else(not_found)?;
        match stream.get_last_raw_message_by_subject(&subject).await {
            Ok(message) => {
                let mut letter = self.read(Some(&message.headers), message.sequence)?;
                letter.body = message.payload;
                Ok((letter, message.sequence))
            }
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => {
                Err(not_found())
            }
            Err(error) => Err(store("read a dead letter")(error)),
        }
    }

    /// Where a letter is stored: by the function that it was for.
    fn place(&self, letter: &Letter) -> String {
        let Letter {
            service,
            subject,
            function,
            id,
            ..
        } = letter;
        match function.parse() {
            Ok(function) if letter.is_raw() => {
                let handler = subject::of_function(&self.app, &function);
                subject::letter(&self.app, service, &handler, id)
            }
            _ => subject::letter(&self.app, service, subject, id),
        }
    }

    async fn stream(&self) -> Result<Option<Stream>, LettersError> {
        use async_nats::jetstream::ErrorCode;
        use async_nats::jetstream::context::GetStreamErrorKind;
        let name = subject::letters_stream(&self.app);
        match self.context.get_stream(&name).await {
            Ok(stream) => Ok(Some(stream)),
            Err(error) => match error.kind() {
                GetStreamErrorKind::JetStream(e)
                    if e.error_code() == ErrorCode::STREAM_NOT_FOUND =>
                {
                    Ok(None)
                }
                _ => Err(store("reach the dead letters")(error)),
            },
        }
    }

    fn subjects(&self, filter: &Filter) -> Result<String, LettersError> {
        // Whoever asks may have typed these, and a wildcard would mean more than it says.
        let is_id = |id: &&String| id.len() == 16 && id.bytes().all(|b| b.is_ascii_hexdigit());
        if let Some(id) = filter.id.as_ref().filter(|id| !is_id(id)) {
            return Err(LettersError::NoId(id.escape_debug().to_string()));
        }
        let token = |name: &Option<String>| {
            let name = name.as_deref()?;
            let plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
            // `-` alone is nobody's name.
            Some(if name.chars().all(plain) && !name.is_empty() {
                name.to_owned()
            } else {
                "-".to_owned()
            })
        };
        Ok(subject::letters(
            &self.app,
            token(&filter.service).as_deref(),
            filter.interface.as_ref(),
            token(&filter.function).as_deref(),
            filter.id.as_deref(),
        ))
    }

    fn read(&self, headers: Option<&HeaderMap>, sequence: u64) -> Result<Letter, LettersError> {
        let account = headers.and_then(|headers| headers.get(wire::LETTER));
        account
            .and_then(|account| serde_json::from_str(account.as_str()).ok())
            .ok_or_else(|| LettersError::Broken {
                stream: subject::letters_stream(&self.app),
                sequence,
            })
    }

    fn write(&self, letter: &Letter) -> Result<HeaderMap, LettersError> {
        // JSON escapes line breaks, so it is one line.
        let account = serde_json::to_string(letter).map_err(store("write a dead letter"))?;
        let mut headers = HeaderMap::new();
        headers.insert(wire::LETTER, account.as_str());
        Ok(headers)
    }

    fn max_payload(&self) -> usize {
        // What is added later: an id and an expected sequence.
        self.context.client().max_payload().saturating_sub(256)
    }

    async fn publish(
        &self,
        what: &'static str,
        subject: String,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<(), LettersError> {
        let sent = self
            .context
            .publish_with_headers(subject, headers, body)
            .await;
        let stored = sent.map_err(store(what))?;
        stored.await.map_err(store(what)).map(drop)
    }
}

/// The id of the letter that this event is for this service.
pub(crate) fn letter_id(
    stream: &str,
    sequence: u64,
    published: OffsetDateTime,
    service: &str,
) -> String {
    let published = published.unix_timestamp_nanos();
    let name = format!("{stream}/{sequence}/{published}/{service}");
    let digest = Sha256::digest(name);
    digest.iter().take(8).fold(String::new(), |mut id, byte| {
        // Writing to a string cannot fail.
        let _ = write!(id, "{byte:02x}");
        id
    })
}

/// What makes JetStream store a replay of this state of a letter once.
fn replay_id(letter: &Letter) -> String {
    let Letter {
        id,
        attempts,
        left_out,
        edited,
        ..
    } = letter;
    let attempts = left_out + attempts.len();
    // An edited letter can be replayed although it has not failed since.
    let edited = match edited {
        true => {
            let body = Sha256::digest(&letter.body);
            body.iter()
                .take(4)
                .map(|byte| format!("{byte:02x}"))
                .collect()
        }
        false => String::new(),
    };
    format!("replay-{id}-{attempts}{edited}")
}

/// The letter of an event that was replayed and has failed again.
fn continued(before: Letter, now: Letter) -> Letter {
    let mut attempts = before.attempts;
    attempts.extend(now.attempts);
    Letter {
        attempts,
        digest: now.digest,
        ..before
    }
}

/// Leaves out what is too much, the oldest attempts first.
fn shorten(letter: &mut Letter) {
    let bytes = |attempt: &Attempt| serde_json::to_string(attempt).map_or(0, |text| text.len() + 1);
    let mut size: usize = letter.attempts.iter().map(bytes).sum();
    let mut drop = 0;
    for attempt in &letter.attempts {
        if size <= MAX_ATTEMPTS {
            break;
        }
        size -= bytes(attempt);
        drop += 1;
    }
    letter.attempts.drain(..drop);
    letter.left_out += drop;
    let mut size = 0;
    letter.headers.retain(|name, values| {
        size += name.len() + values.iter().map(String::len).sum::<usize>();
        size <= MAX_HEADERS
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(attempts: usize, error: &str) -> Letter {
        let attempt = Attempt::now(Some(Outcome::Trap), Some(500), Blame::Guest, error);
        Letter {
            id: "0123456789abcdef".into(),
            service: "mail".into(),
            digest: "ab".into(),
            function: "shop:orders/events.placed@0.1.0".into(),
            subject: "bay.shop.shop.orders.events.v0_1.placed".into(),
            headers: BTreeMap::from([("Bay-Hops".into(), vec!["1".into()])]),
            stream: "bay_shop_shop_orders_events_v0_1".into(),
            sequence: 7,
            published: "2026-11-22T00:00:00Z".into(),
            attempts: vec![attempt; attempts],
            left_out: 0,
            edited: false,
            size: 2,
            body_left: false,
            body: Bytes::new(),
        }
    }

    #[test]
    fn a_letter_is_one_line_and_is_read_as_it_was_written() {
        let letter = letter(2, "trap:\n at 0x1\r\n\"quoted\"");
        let text = serde_json::to_string(&letter).unwrap();
        assert!(!text.contains(['\n', '\r']));
        assert_eq!(serde_json::from_str::<Letter>(&text).unwrap(), letter);
    }

    #[test]
    fn a_letter_leaves_out_its_oldest_attempts_and_fits_into_its_room() {
        let mut long = letter(100, &"\"".repeat(MAX_ERROR + 7));
        long.headers = (0..100)
            .map(|n| (format!("h{n}"), vec!["x".repeat(200)]))
            .collect();
        shorten(&mut long);
        assert_eq!(long.left_out + long.attempts.len(), 100);
        assert!(!long.attempts.is_empty());
        let text = serde_json::to_string(&long).unwrap();
        assert!(text.len() < ROOM, "{}", text.len());
        let few = letter(3, "small");
        let mut same = few.clone();
        shorten(&mut same);
        assert_eq!(same, few);
    }

    #[test]
    fn ids_tell_events_and_subscribers_apart() {
        let at = OffsetDateTime::UNIX_EPOCH;
        let id = letter_id("s", 1, at, "mail");
        assert_eq!(id.len(), 16);
        assert_eq!(id, letter_id("s", 1, at, "mail"));
        for other in [
            letter_id("s", 2, at, "mail"),
            letter_id("s", 1, at, "stats"),
            letter_id("s", 1, at + time::Duration::SECOND, "mail"),
        ] {
            assert_ne!(id, other);
        }
    }
}
